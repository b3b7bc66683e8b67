"""What went wrong, said as RFC 9457 problems to programs. Pages say the same to people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from approvals_bot.errors import (
    ApprovalsBotError,
    HookNotFoundError,
    IdempotencyConflictError,
    InvalidPayloadError,
    InvalidTokenError,
    LimitExceededError,
    RunEndedError,
    RunNotFoundError,
    SerializationError,
    StoreUnavailableError,
    WorkflowNotFoundError,
)
from approvals_bot.service.open import OpeningCode, OpeningRefused

RETRY_SOON = {"Retry-After": "2"}  # seconds; a store that is away is usually restarting

_OPENING_STATUS: dict[OpeningCode, int] = {"workflow_unknown": 404, "not_allowed": 403, "group_unknown": 503}
"""What a refused opening is in HTTP; the codes that are not here are faults of the input, 422."""


class Problem(ApprovalsBotError):
    """The request can't be answered as asked. `status` says whose fault it is, `detail` what to do about it."""

    def __init__(
        self,
        status: int,
        title: str = "",
        detail: str = "",
        *,
        errors: Iterable[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.status = status
        self.title = title or HTTPStatus(status).phrase
        self.detail = detail
        self.errors = [{"loc": list(error["loc"]), "msg": str(error["msg"])} for error in errors]
        self.headers = dict(headers or {})
        self.more = more  # members of this kind of problem, such as a vote's verdict
        super().__init__(f"{status} {self.title}: {detail}")

    def response(self) -> Response:
        body: dict[str, Any] = {
            "type": "urn:approvals-bot:" + self.title.lower().replace("'", "").replace(" ", "-"),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return JSONResponse(body | self.more, self.status, headers=self.headers, media_type="application/problem+json")


def problem_of(error: Exception) -> Problem | None:
    """The problem that an error of ours, or a refusal of Starlette's, is to a caller; None for what is our fault."""
    match error:
        case Problem():
            return error
        case HTTPException():
            return Problem(error.status_code, headers=error.headers)
        case OpeningRefused():
            status = _OPENING_STATUS.get(error.code, 422)
            headers = RETRY_SOON if status == 503 else None
            return Problem(status, error.title, error.detail, errors=error.errors, headers=headers)
        case RunNotFoundError():
            return Problem(404, "Run not found", "No run has this id.")
        case HookNotFoundError():
            return Problem(404, "Hook not found", "No live hook has this token.")
        case WorkflowNotFoundError():
            return Problem(404, "Workflow not found", "No workflow of this name is listed here.")
        case InvalidTokenError():
            return Problem(404)
        case RunEndedError():
            return Problem(409, "Run has ended", f"The run has already ended ({error.status}); nothing was changed.")
        case IdempotencyConflictError():
            return Problem(
                409,
                "Idempotency conflict",
                f"This key was already used with other input: {error.difference}. Nothing was started.",
                run_id=error.run_id,
            )
        case InvalidPayloadError():
            return Problem(422, "Invalid input", "Some values don't fit. Nothing was changed.", errors=error.errors)
        case SerializationError():
            return Problem(422, "Invalid input", str(error))
        case LimitExceededError():
            return Problem(413, "Too large", str(error))
        case StoreUnavailableError():
            detail = "It can't be told whether this was saved. Try again in a moment."
            return Problem(503, "Store unavailable", detail, headers=RETRY_SOON)
    return None
