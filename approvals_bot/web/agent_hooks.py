"""`POST /api/agent-hooks/claude`: people decide the tool calls of Claude Code, which posts them as an HTTP hook.

Claude Code takes only a 2xx answer for a decision; with any other, and without an answer, its own rules decide. So
whatever goes wrong once the key is known is answered 200, as a denial.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.approvals.acts import Actor, Withdraw
from approvals_bot.client.decision import Decision
from approvals_bot.client.tool_request import TOOL_CALL
from approvals_bot.client.words import REFUSED, decision_text, error_text
from approvals_bot.durable.core.serialization import without_tags
from approvals_bot.durable.engine import RunRecord
from approvals_bot.errors import (
    AgentError,
    ApprovalsBotError,
    IdempotencyConflictError,
    KeyReusedError,
    NotAllowedError,
    RequestRefusedError,
    ServiceUnavailableError,
)
from approvals_bot.service.act import perform
from approvals_bot.service.keys import ApiKey
from approvals_bot.service.open import open_run
from approvals_bot.service.read import await_request, current_request, decision_on, is_decided, requests_of
from approvals_bot.service.refusals import OpeningRefused
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.keys import actor_of, key_of
from approvals_bot.web.responses import JsonResponse, Problem, problem_of
from approvals_bot.web.validation import API_BODY, json_object, query_choice, query_number, read_query

logger = logging.getLogger(__name__)

WAIT = 50  # seconds, unless the hook's URL says otherwise; proxies commonly cut idle connections at 60
LONGEST_WAIT = 3_600  # seconds
WITHDRAWN_WITHIN = 2  # seconds
AGENT = "Claude Code"
UNDECIDED = ("deny", "defer", "ask")
UNREADABLE = REFUSED.format(comment=": the hook's body can't be read")
UNKNOWN_OPTIONS = REFUSED.format(comment=": the hook's URL has an option that is unknown, or has an unknown value")


class ToolUse(BaseModel):
    """What Claude Code posts, as far as it matters here. Only `PreToolUse` has the call's id."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    hook_event_name: Literal["PreToolUse", "PermissionRequest"]
    session_id: str = Field(min_length=1, max_length=100)
    tool_name: str = Field(min_length=1)
    tool_input: dict[str, JsonValue]
    tool_use_id: str = ""

    @property
    def key(self) -> str:
        """The request's key. A call without an id can't be found again, so its key is its own."""
        return f"{self.session_id}:{self.tool_use_id or secrets.token_hex(16)}"


class ClaudeHook:
    """`/api/agent-hooks/claude`."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._people, self._workflows = desk.engine, desk.people, desk.workflows
        self._metrics = desk.metrics

    async def decide(self, request: HttpRequest) -> Response:
        """200 with the decision in Claude Code's own form. 401 without a key. Unknown options stop the agent.

        `?to=` names approvers (with commas between), `?deadline=` and `?agent=` are those of the request, `?wait=` is
        how long to wait, and `?undecided=` what happens then: `deny` (withdrawing the request), `ask` (withdrawing it,
        too, and leaving it to Claude Code's own prompt) or `defer` (the request stays open; `claude -p` ends, and
        resumes with the answer).
        """
        actor = actor_of(request)
        key = key_of(request)
        try:
            asked = read_query(request, "to", "deadline", "agent", "wait", "undecided")
            wait = query_number("wait", asked.get("wait", str(WAIT)), 0, LONGEST_WAIT)
            undecided = query_choice("undecided", asked.get("undecided", "deny"), UNDECIDED) or "deny"
        except Problem:
            return JsonResponse({"continue": False, "stopReason": UNKNOWN_OPTIONS})
        try:
            use = ToolUse.model_validate(await json_object(request, API_BODY))
        except (Problem, ValidationError):
            return JsonResponse({"continue": False, "stopReason": UNREADABLE})
        try:
            return JsonResponse(await self._answer(key, actor, use, asked, wait, undecided))
        except ApprovalsBotError as error:
            return JsonResponse(_denied(use, error_text(_as_agents_see(error))))
        except Exception as error:
            logger.exception("the hook of Claude Code failed, and denied the call")
            return JsonResponse(_denied(use, error_text(error)))

    async def _answer(
        self, key: ApiKey, actor: Actor, use: ToolUse, asked: dict[str, str], wait: float, undecided: str
    ) -> dict[str, Any]:
        record = await self._open(key, actor, use, asked)
        now = asyncio.get_running_loop().time
        ends = now() + wait
        record = await self._engine.wait(record.id, wait, is_decided)
        if _is_open(record) and now() < ends:
            raise ServiceUnavailableError  # this process is about to end
        if _is_open(record) and undecided == "defer" and use.tool_use_id:
            return _hook_output(use, "defer", decision_text("pending"))
        if _is_open(record):
            record = await self._withdraw(actor, record)
            decision = _decision_of(record)
            if decision is None or decision.state == "withdrawn":
                return {} if undecided == "ask" else _denied(use, decision_text("expired"))
        return _decided(use, record)

    async def _open(self, key: ApiKey, actor: Actor, use: ToolUse, asked: dict[str, str]) -> RunRecord:
        call: dict[str, JsonValue] = {
            "tool": use.tool_name,
            "arguments": use.tool_input,
            "agent": asked.get("agent") or AGENT,
        }
        if asked.get("to"):
            call["to"] = [*asked["to"].split(",")]
        if asked.get("deadline"):
            call["deadline"] = asked["deadline"]
        if not key.knows_workflow(TOOL_CALL):
            raise OpeningRefused("workflow_unknown", name=TOOL_CALL)
        run = await open_run(
            engine=self._engine,
            workflows=self._workflows,
            people=self._people,
            name=TOOL_CALL,
            input=call,
            opener=key.address,
            may_name=key.requesters,
            actor=actor,
            idempotency_key=use.key,
        )
        if run.is_new:
            self._metrics.run_started(TOOL_CALL)
        return await self._engine.wait(run.id, 0)

    async def _withdraw(self, actor: Actor, record: RunRecord) -> RunRecord:
        """Withdraw the request: nobody could get its answer any more. It may have been decided just now."""
        found = await await_request(self._engine, record.id)
        shown = current_request(requests_of(found)) if found is not None else None
        if shown is not None:
            why = "nobody decided in the time that the agent waits"
            act = Withdraw(actor.id, why, "api", actor=actor)
            self._metrics.voted((await perform(self._engine, shown, act)).verdict, act.via)
        return await self._engine.wait(record.id, WITHDRAWN_WITHIN, is_decided)


def _is_open(record: RunRecord) -> bool:
    return not record.has_ended and not is_decided(record)


def _decision_of(record: RunRecord) -> Decision | None:
    """Return what people decided; None for a run that is open, or ended in any other way."""
    if record.status != "completed":
        return decision_on(record)
    return decision_on(record) or Decision.model_validate(
        without_tags(record.result)
    )  # the result of a workflow in Python


def _decided(use: ToolUse, record: RunRecord) -> dict[str, Any]:
    """Return what Claude Code is to do. A run that ended in any other way than by a decision is no yes."""
    decision = _decision_of(record)
    if decision is None:
        return _denied(use, decision_text("withdrawn"))
    changed = decision.arguments if decision.state == "edited" else None
    decision.require(use.tool_input if changed is None else changed)
    return _hook_output(use, "allow", decision.text, changed)


def _denied(use: ToolUse, text: str) -> dict[str, Any]:
    return _hook_output(use, "deny", text)


def _hook_output(use: ToolUse, verdict: str, text: str, changed: Any = None) -> dict[str, Any]:
    """Return an answer in the form of its event."""
    updated = {} if changed is None else {"updatedInput": changed}
    if use.hook_event_name == "PreToolUse":
        said = {"permissionDecision": verdict, "permissionDecisionReason": text}
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **said, **updated}}
    decision = {"behavior": verdict, **updated} if verdict == "allow" else {"behavior": "deny", "message": text}
    return {"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}


def _as_agents_see(error: ApprovalsBotError) -> Exception:
    """Return the error that a client of the API would have got."""
    if isinstance(error, IdempotencyConflictError):
        return KeyReusedError(error.key, error.difference, error.run_id)
    problem = problem_of(error)
    if problem is None or isinstance(error, AgentError):
        return error
    if problem.status >= 500:
        return ServiceUnavailableError()
    kind = NotAllowedError if problem.status in (401, 403) else RequestRefusedError
    return kind(problem.status, problem.detail)
