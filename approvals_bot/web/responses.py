"""What callers get: JSON, pages, and errors as RFC 9457 problems to programs or as pages to people."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from typing import Any
from urllib.parse import quote_plus, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Word
from approvals_bot.approvals.card_model import STATE_WORDS, FormField
from approvals_bot.approvals.plain_text import clean
from approvals_bot.approvals.text import short_digest
from approvals_bot.errors import (
    AlreadyResetError,
    ApprovalsBotError,
    FileReplacedError,
    HookConflictError,
    HookFullError,
    HookNotFoundError,
    IdempotencyConflictError,
    InvalidPayloadError,
    InvalidTokenError,
    LimitExceededError,
    MalformedBodyError,
    NondeterminismError,
    NoSuchEventError,
    RunEndedError,
    RunNotFoundError,
    RunNotStalledError,
    SerializationError,
    StoreReadOnlyError,
    StoreUnavailableError,
    WorkflowNotFoundError,
)
from approvals_bot.people import SourceUnavailable
from approvals_bot.service.log_fields import request_id
from approvals_bot.service.refusals import OpeningCode, OpeningRefused
from approvals_bot.service.repairs import GrantNotOverError, OwnReviewError

FORM_ROOM = 40_000  # bytes of a form's values as browsers send them; bodies may have 64,000, comments take some
MOST_INPUTS = 100  # that anybody would look through
MOST_ERRORS = 20  # faults of one body or query that are named; nobody reads more of them

NAMING = 12  # bytes around the name of an input: the form's part, `=` and `&`

RETRY_FULL = {"Retry-After": "60"}  # seconds; what a workflow doesn't take now, it won't take at once
RETRY_SOON = {"Retry-After": "2"}  # seconds; a store that is away is usually restarting

STATUS: dict[Word, int] = {
    "counted": 201,
    "decided": 201,
    "changed": 201,
    "taken_back": 201,
    "edited": 201,
    "reassigned": 201,
    "added": 201,
    "commented": 201,
    "claimed": 201,
    "released": 201,
    "reminded": 201,
    "snoozed": 201,
    "revoked": 201,
    "extending": 201,
    "received": 202,
    "already_voted": 200,
    "not_an_approver": 403,
    "own_request": 403,
    "group_unknown": 409,  # a source of groups is down: nothing was changed, and trying again may work
    "already_decided": 409,
    "no_grant": 409,
    "expired": 409,
    "withdrawn": 409,
    "request_changed": 409,
    "invalid": 422,
    "unknown": 404,
    "busy": 429,
}
"""What each verdict is in HTTP. Refusals change nothing but the audit."""

_OPENING_STATUS: dict[OpeningCode, int] = {
    "workflow_unknown": 404,
    "not_allowed": 403,
    "values_not_allowed": 403,
    "emergency_not_allowed": 403,
    "naming_not_allowed": 403,
    "person_unknown": 403,
    "group_unknown": 503,
    "budget_spent": 429,
}
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
        self.errors = [{"loc": list(error["loc"]), "msg": str(error["msg"])} for error in islice(errors, MOST_ERRORS)]
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
        if id := request_id():
            body["instance"] = f"urn:request:{id}"
        return JSONResponse(body | self.more, self.status, headers=self.headers, media_type="application/problem+json")


def problem_of(error: Exception) -> Problem | None:
    """Return the problem that this error is to a caller; None for what is our own fault."""
    match error:
        case Problem():
            return error
        case HTTPException():
            return Problem(error.status_code, headers=error.headers)
        case OpeningRefused():
            status = _OPENING_STATUS.get(error.code, 422)
            headers = RETRY_SOON if status == 503 else None
            if (seconds := error.params.get("retry_after")) is not None:
                headers = {"Retry-After": seconds}
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
        case RunNotStalledError():
            return Problem(409, "Run is open", f"The run is {error.status}, not stalled; nothing was changed.")
        case OwnReviewError():
            return Problem(403, "Your own emergency", str(error))
        case GrantNotOverError():
            return Problem(409, "Grant isn't over", str(error))
        case AlreadyResetError():
            how, title = (
                ("has continued", "Run has continued")
                if error.status == "continued"
                else ("was reset", "Run was reset")
            )
            detail = f"The run {how}, and run {error.next_run} is in its place. Nothing was changed."
            return Problem(409, title, detail, next_run=error.next_run)
        case HookConflictError():
            detail = f"Run {error.run_id} has the token of an open hook by now. Nothing was changed."
            return Problem(409, "Hook token in use", detail, run_id=error.run_id)
        case NondeterminismError():
            return Problem(409, "Code has changed", f"{error} Nothing was changed.")
        case NoSuchEventError():
            msg = f"the run has the events 1 to {error.length}"
            return Problem(422, "Invalid input", str(error), errors=[{"loc": ["to"], "msg": msg}])
        case IdempotencyConflictError():
            return Problem(
                409,
                "Idempotency conflict",
                f"This key was already used with other input: {error.difference}. Nothing was changed.",
                run_id=error.run_id,
                difference=error.difference,
            )
        case MalformedBodyError():
            return Problem(400, f"Invalid {error.what}", str(error))
        case InvalidPayloadError():
            return Problem(422, "Invalid input", "Some values don't fit. Nothing was changed.", errors=error.errors)
        case SerializationError():
            return Problem(422, "Invalid input", str(error))
        case LimitExceededError():
            return Problem(413, "Too large", str(error))
        case HookFullError():
            return Problem(429, "Too many payloads", str(error), headers=RETRY_FULL, run_id=error.run_id)
        case SourceUnavailable():
            detail = f"{error}. Who you are, and what you may do here, can't be checked now. Try again in a moment."
            return Problem(503, "Source unavailable", detail, headers=RETRY_SOON)
        case FileReplacedError():
            detail = "The database's file was replaced. Nothing is accepted until the service has been restarted."
            return Problem(503, "Store unavailable", detail, headers=RETRY_SOON)
        case StoreReadOnlyError():
            detail = "The database can't be written to. Nothing was saved, and nothing is accepted until it can be."
            return Problem(503, "Store unavailable", detail, headers=RETRY_SOON)
        case StoreUnavailableError():
            detail = "We can't say whether this was saved. Try again in a moment."
            return Problem(503, "Store unavailable", detail, headers=RETRY_SOON)
    return None


SCRIPTED = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""The content security policy of pages for people who have signed in: our scripts, and what they read from us."""


class Renderer:
    """Renders pages: Jinja2 with autoescape, and the words of cards as filters.

    `now` is the service's clock; times are shown in the reader's zone. `root`: what people's paths begin with where the
    service is a part of a site.
    """

    def __init__(self, *, now: Callable[[], datetime], root: str = "") -> None:
        self._now = now
        self._templates = Environment(
            loader=PackageLoader("approvals_bot.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_harmless,
        )
        self._templates.globals.update(
            card_text=card_text,
            STATE_WORDS=STATE_WORDS,
            too_long=too_long,
            zone="UTC",
            nav=(),
            here="",
            root=root,
            live="",
            keys=False,
        )
        self._templates.filters.update(
            moment=card_text.moment,
            iso=datetime.isoformat,
            until=self._until,
            ago=self._ago,
            span=card_text.span,
            short_digest=short_digest,
            clock=clock_words,
            pretty=pretty,
        )

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Render this template as a response.

        `live`: the path of the stream that says when the page has changed; `keys`: whether it has keys. Only pages
        that need a session may have these, since their policy lets our scripts run.
        """
        page = HTMLResponse(self._templates.get_template(template).render(values), status)
        if values.get("live") or values.get("keys"):
            page.headers["content-security-policy"] = SCRIPTED
        return page

    def _until(self, moment: datetime) -> str:
        return card_text.until(moment, self._now())

    def _ago(self, moment: datetime) -> str:
        return f"{card_text.span(self._now() - moment)} ago"


def _harmless(value: Any) -> Any:
    """Return people's text as Slack and mails show it: nothing in it turns round how the rest of the page reads."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def too_long(asks: Sequence[FormField]) -> frozenset[str]:
    """Return the names of the fields that a form has no room for: with them, it couldn't be sent, or overlooked."""
    room, inputs, found = FORM_ROOM, MOST_INPUTS, set[str]()
    for ask in asks:
        size = len(quote_plus(ask.value)) + (len(quote_plus(ask.name)) + NAMING if ask.is_leaf else 0)
        if size > room or inputs == 0:
            found.add(ask.name)
        else:
            room, inputs = room - size, inputs - 1
    return frozenset(found)


def clock_words(moment: datetime) -> str:
    """Return `4 Nov, 10:42:07`, in UTC: for logs, where seconds matter and readers are anywhere."""
    at = moment.astimezone(UTC)
    return f"{at.day} {at:%b, %H:%M:%S}"


def pretty(value: Any) -> str:
    """Return JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def origin_of(base_url: str) -> str:
    """Return the origin that browsers name in forms from our pages: `https://apps.acme.eu`."""
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}"


def root_of(base_url: str) -> str:
    """Return the path that our addresses begin with: `/approve` of `https://apps.acme.eu/approve`."""
    return urlsplit(base_url).path.rstrip("/")


class JsonResponse(JSONResponse):
    """JSON in ASCII, so that it can always be written: a lone surrogate, which is no UTF-8, becomes its escape."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


FOR_PROGRAMS = ("/live/", "/api/", "/chat/hooks/", "/webhooks/", "/openapi.json", "/healthz", "/readyz", "/metrics")
"""Paths that answer errors as problems. All others answer people, with pages."""
FOR_LINKS = ("/decisions/", "/webhooks/")  # pages behind links say nothing of who has signed in


PAGE_TITLES = {
    405: "This page can't do that",
    413: "That's too large",
    421: "Not at this address",
    429: "Too many requests",
    500: "Something went wrong",
    503: "Unavailable right now",
}
"""Headings for people, where the title of the problem is a programmer's."""


class ErrorResponses:
    """The response to an error: a problem for programs, a page for people.

    `links`: those at the top of the page, for the person signed in.
    """

    def __init__(self, pages: Renderer, links: Callable[[HttpRequest], Awaitable[Sequence[tuple[str, str]]]]) -> None:
        self._pages = pages
        self._links = links

    async def __call__(self, request: HttpRequest, error: Exception) -> Response:
        problem = problem_of(error)
        if problem is None:
            problem = Problem(500, detail="It's our fault, and it has been logged. Please try again.")
        if (request.scope["path"] + "/").startswith(FOR_PROGRAMS):
            return problem.response()
        is_ours = problem.status >= 500  # what holds the sessions may be what is down
        nav = () if is_ours or request.scope["path"].startswith(FOR_LINKS) else await self._links(request)
        if problem.status == 404:
            return self._pages.page("not_found.html", 404, nav=nav)
        title = PAGE_TITLES.get(problem.status, problem.title)
        page = self._pages.page("error.html", problem.status, title=title, detail=problem.detail, nav=nav)
        page.headers.update(problem.headers)
        return page
