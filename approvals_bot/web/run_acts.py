"""What operators do about a run, from its page: cancel, end sleeps, try again, reset, and resume a hook.

Each is a form with a reason. It is done as the API does it, is in the audit with the reason, and leads to the page of
the run that goes on. A form with a mistake comes back with it, and with what was written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.acts import Actor
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.durable.engine import RunRecord
from approvals_bot.errors import ApprovalsBotError, HookNotFoundError, InvalidPayloadError
from approvals_bot.service.read import request_of, requests_of
from approvals_bot.service.repairs import (
    attempt_again,
    cancel_request,
    cancel_run,
    end_sleeps,
    reset,
    resume_waiting_hook,
)
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.responses import STATUS, Problem, problem_of
from approvals_bot.web.run_pages import RunPages, RunReader
from approvals_bot.web.validation import parse_json, read_form

LONGEST_REASON = 500

NOT_OURS = "This form didn't come from the run's own page, so nothing was changed. Load the page again, then choose."
NO_OPERATOR = "Only operators can do this. Nothing was changed."
NO_REASON = "Say why: it is kept in the audit."
NO_SLEEP = "The run is in no sleep now. Nothing was changed."
NO_HOOK = "This hook isn't open any more. Nothing was changed."
A_VOTE = "People decide by this, so nobody can send it in their place. Nothing was changed."
NO_EVENT = "The run has no such event. Nothing was changed."


@dataclass(frozen=True, slots=True)
class Asked:
    """An operator's form: who sent it, about which run, and why."""

    request: HttpRequest
    reader: RunReader
    record: RunRecord
    form: Mapping[str, str]

    @property
    def reason(self) -> str:
        return self.form.get("reason", "").strip()[:LONGEST_REASON]

    @property
    def actor(self) -> Actor:
        return self.reader.actor(self.request)


Act = Callable[[Asked], Awaitable[tuple[str, str]]]
"""Does what was asked. Returns the run that goes on, and the word for what was done."""


class RefusedForm(Exception):  # it is shown to people, and no error of the service
    """Why a form was not taken, and which input is wrong."""

    def __init__(self, said: str, status: int = 422, input: str = "") -> None:
        super().__init__(said)
        self.said = said
        self.status = status
        self.input = input


class RunActs:
    """The forms of a run's page."""

    def __init__(self, desk: WebDesk, runs: RunPages) -> None:
        self._engine, self._forms = desk.engine, desk.forms
        self._pages, self._root = desk.pages, desk.root
        self._runs = runs

    async def cancel(self, request: HttpRequest) -> Response:
        """End a request as cancelled, or ask any other run to end."""
        return await self._act(request, self._cancel)

    async def wake(self, request: HttpRequest) -> Response:
        """End the run's sleeps."""
        return await self._act(request, self._wake)

    async def attempt(self, request: HttpRequest) -> Response:
        """Try a stalled run again now, or start a failed one again as a new run with the same input."""
        return await self._act(request, self._attempt)

    async def reset(self, request: HttpRequest) -> Response:
        """Let a new run go on from an event of this one, in its place."""
        return await self._act(request, self._reset)

    async def resume(self, request: HttpRequest) -> Response:
        """Give a hook of the run a payload."""
        return await self._act(request, self._resume)

    async def _act(self, request: HttpRequest, do: Act) -> Response:
        reader = await self._runs.reader_at(request)
        if isinstance(reader, Response):
            return reader
        form = await read_form(request)
        if not reader.is_operator:
            raise Problem(403, "Only for operators", NO_OPERATOR)
        if not self._forms.is_ours(request, "run", form.get("form_token", "")):
            raise Problem(403, "Not from the run's page", NOT_OURS)
        record = await self._engine.record(request.path_params["id"])
        if record is None:
            raise Problem(404)
        asked = Asked(request, reader, record, form)
        try:
            if not asked.reason:
                raise RefusedForm(NO_REASON, input="reason")
            run_id, done = await do(asked)
        except RefusedForm as refused:
            return await self._again(asked, refused)
        except ApprovalsBotError as error:
            problem = problem_of(error)
            if problem is None or problem.status >= 500:
                raise
            return await self._again(asked, RefusedForm(problem.detail or problem.title, problem.status))
        return RedirectResponse(f"{self._root}/runs/{run_id}?done={done}", 303)

    async def _again(self, asked: Asked, refused: RefusedForm) -> Response:
        """Show the page again, with what is wrong at its input, else at the top."""
        return await self._runs.page(
            asked.request,
            asked.reader,
            asked.record,
            refused.status,
            said="" if refused.input else refused.said,
            refused=True,
            wrong={refused.input: refused.said} if refused.input else {},
            values=asked.form,
        )

    async def _cancel(self, asked: Asked) -> tuple[str, str]:
        engine, record, view = self._engine, asked.record, request_of(asked.record)
        if view is not None and view.is_open and not record.has_ended:
            reply = await cancel_request(engine, view, who=asked.reader.name, actor=asked.actor, reason=asked.reason)
            if not reply.changed:
                raise RefusedForm(reply.text, STATUS[reply.verdict])
        else:
            await cancel_run(engine, record.id, who=asked.reader.name, actor=asked.actor, reason=asked.reason)
        return record.id, "cancelled"

    async def _wake(self, asked: Asked) -> tuple[str, str]:
        ended = await end_sleeps(
            self._engine, asked.record.id, who=asked.reader.name, actor=asked.actor, reason=asked.reason
        )
        if not ended:
            raise RefusedForm(NO_SLEEP, 409)
        return asked.record.id, "woken"

    async def _attempt(self, asked: Asked) -> tuple[str, str]:
        done = await attempt_again(
            self._engine, asked.record.id, who=asked.reader.name, actor=asked.actor, reason=asked.reason
        )
        return done.next_run, "retried" if done.act == "retry" else "attempted"

    async def _reset(self, asked: Asked) -> tuple[str, str]:
        to = asked.form.get("to", "")
        if not (to.isascii() and to.isdecimal() and len(to) < 10):
            raise RefusedForm(NO_EVENT)
        done = await reset(
            self._engine,
            asked.record.id,
            int(to),
            who=asked.reader.name,
            actor=asked.actor,
            reason=asked.reason,
            drop_payloads="drop_payloads" in asked.form,
        )
        return done.next_run, "reset"

    async def _resume(self, asked: Asked) -> tuple[str, str]:
        hook_id, record = asked.request.path_params["hook_id"], asked.record
        if record.workflow == CHAT_WORKFLOW or any(one.hook_id == hook_id for one in requests_of(record)):
            raise RefusedForm(A_VOTE, 403)
        try:
            payload = parse_json(asked.form.get("payload", "").encode())
        except Problem as unreadable:
            raise RefusedForm(unreadable.detail, input="payload") from None
        try:
            await resume_waiting_hook(
                self._engine,
                record.id,
                hook_id,
                payload,
                who=asked.reader.name,
                actor=asked.actor,
                reason=asked.reason,
            )
        except HookNotFoundError:
            raise RefusedForm(NO_HOOK, 409) from None
        except InvalidPayloadError as unfit:
            raise RefusedForm(_faults(unfit), input="payload") from None
        return record.id, "resumed"


def _faults(unfit: InvalidPayloadError) -> str:
    """Return what doesn't fit the hook's schema: `amount: Input should be a valid integer`."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}" if each["loc"] else str(each["msg"])
        for each in unfit.errors
    )
