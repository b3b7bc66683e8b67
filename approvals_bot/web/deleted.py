"""The answer for a run that was deleted long after its end: 410, and what became of it. It names nobody."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp

from approvals_bot.approvals.card_model import STATE_WORDS
from approvals_bot.approvals.values import shown_date
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.retention import Stub
from approvals_bot.errors import RunNotFoundError
from approvals_bot.service.keys import ApiKey
from approvals_bot.service.read import iso
from approvals_bot.web.keys import KEY, Endpoint
from approvals_bot.web.links import Links
from approvals_bot.web.pages import PeoplePages
from approvals_bot.web.responses import Problem

RUNS = ("/requests/{id}", "/runs/{id}", "/api/runs/{id}")
LINKS = "/decisions/{signed}"
DELETED = "Its details were deleted since: this service keeps them only for a time."


class DeletedRuns:
    """Answers for runs that aren't there any more, once an endpoint has found nothing."""

    def __init__(self, engine: Engine, links: Links, readers: PeoplePages) -> None:
        self._engine = engine
        self._readers = readers
        self._links = links

    def behind(self, path: str, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint of this path, with the answer for what was deleted."""
        if not path.startswith((*RUNS, LINKS)):
            return endpoint

        answer = problem_of if path.startswith("/api/") else page_of

        async def respond(request: HttpRequest) -> ASGIApp:
            try:
                response = await endpoint(request)
            except (RunNotFoundError, Problem) as error:
                is_missing = isinstance(error, RunNotFoundError) or error.status == 404
                if not is_missing or (stub := await self._find(request)) is None:
                    raise
                raise answer(stub) from None
            is_missing = isinstance(response, Response) and response.status_code == 404
            if not is_missing or (stub := await self._find(request)) is None:
                return response
            raise answer(stub)

        return respond

    async def _find(self, request: HttpRequest) -> Stub | None:
        """Return the stub of the run that was asked for, if the caller may know of it.

        It names nobody. So it is for those who have a link to it, who may see all requests, and keys that read all.
        """
        given = request.path_params
        if "signed" in given:
            hook_id = self._links.hook_id(given["signed"])
            return await self._engine.store.stub(hook_id=hook_id) if hook_id else None
        stub = await self._engine.store.stub(run_id=str(given["id"]).partition(".")[0])
        key: ApiKey | None = request.scope.get(KEY)
        if stub is None:
            return None
        if key is not None:
            return stub if key.reads_all and key.knows_workflow(stub.workflow) else None
        return stub if await self._readers.may_know_of_all(request, stub.workflow) else None


def became(stub: Stub) -> str:
    """Return the sentence that says how a deleted run ended."""
    words = {str(state): word for state, (_, word) in STATE_WORDS.items()}
    word = words.get(stub.outcome, stub.outcome.capitalize())
    return f"{word} on {shown_date(stub.ended_at.date())}."


def page_of(stub: Stub) -> Problem:
    """Return what people read instead of the page."""
    return Problem(410, "No longer kept here", f"{became(stub)} {DELETED}")


def problem_of(stub: Stub) -> Problem:
    """Return the problem for programs, with the stub."""
    kept = {
        "id": stub.run_id,
        "workflow": stub.workflow,
        "outcome": stub.outcome,
        "ended_at": iso(stub.ended_at),
        "events": stub.seq,
        "head": stub.head,
    }
    detail = f"{became(stub)} Its log is no longer kept here."
    return Problem(410, "Run no longer kept", detail, run=kept)
