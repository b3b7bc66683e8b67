"""Tool calls of the Claude Agent SDK that wait for people: in a callback for minutes, deferred for hours.

    options = ClaudeAgentOptions(can_use_tool=can_use_tool(ap, key=session, to="@ops"))

    options = ClaudeAgentOptions(session_id=session, hooks={"PreToolUse": [defer(ap, key=session)]})
    …
    async for message in resume_deferred(ap, session):
        …

Whatever isn't a yes denies the tool, with the words for the model as the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any, Unpack

from approvals_bot.client.approvals import Approvals
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import digest_of
from approvals_bot.client.tool_request import AskOptions, RequestOptions, as_seconds
from approvals_bot.client.words import error_text
from approvals_bot.errors import InvalidArgumentError

try:
    from claude_agent_sdk import (
        CanUseTool,
        ClaudeAgentOptions,
        HookContext,
        HookInput,
        HookJSONOutput,
        HookMatcher,
        Message,
        PermissionResult,
        PermissionResultAllow,
        PermissionResultDeny,
        ToolPermissionContext,
        Transport,
        query,
    )
except ImportError as missing:
    raise ImportError(
        "Tool calls of the Claude Agent SDK need its version 0.2.189 or later: pip install 'approvals-bot[claude]'"
    ) from missing

WAIT = 50.0  # seconds of one callback; the CLI gives up after some minutes, proxies after one
MARGIN = 60.0  # seconds that a hook may take beyond its wait, for attempts to reach the service


def can_use_tool(ap: Approvals, *, key: str, **options: Unpack[AskOptions]) -> CanUseTool:
    """Return the callback that has people decide each tool call that no rule allows.

    `key` is the session: after a restart with the same one, open requests and their answers are found again. `options`
    are those of `Approvals.ask`; `wait` is 50 seconds, after which the call is denied as undecided.
    """
    keys = _Keys(key)

    async def decide(tool: str, input: dict[str, Any], context: ToolPermissionContext) -> PermissionResult:
        try:
            decision = await ap.ask(keys.of(context.tool_use_id, tool, input), tool, input, **_waiting(options))
            changed = _changed(decision, input)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is no yes
            return PermissionResultDeny(message=error_text(error))
        return PermissionResultAllow(updated_input=changed)

    return decide


def defer(ap: Approvals, *, key: str, matcher: str | None = None, **options: Unpack[AskOptions]) -> HookMatcher:
    """Return the hook for `PreToolUse` that has people decide, and ends the session while they haven't.

    An undecided call ends the run with `deferred_tool_use`; `resume_deferred` goes on when the answer is there. Claude
    defers only a turn's single call: where it makes several at once, the rules and `can_use_tool` decide, so don't
    allow tools by rule that people have to approve. `matcher` names the tools: "Bash|Write"; by default all.
    """
    keys = _Keys(key)
    options = _waiting(options)

    async def decide(input: HookInput, tool_use_id: str | None, _: HookContext) -> HookJSONOutput:
        given: Mapping[str, Any] = input
        try:
            tool, arguments = str(given["tool_name"]), given["tool_input"]
            call = keys.of(tool_use_id or given.get("tool_use_id"), tool, arguments)
            decision = await ap.ask(call, tool, arguments, **options)
            if decision.state == "pending":
                return _hook_output("defer", decision.text)
            changed = _changed(decision, arguments)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is no yes
            return _hook_output("deny", error_text(error))
        return _hook_output("allow", decision.text, changed)

    timeout = as_seconds(options.get("wait") or 0) + MARGIN
    return HookMatcher(matcher=matcher, hooks=[decide], timeout=timeout, on_failure="block")


async def resume_deferred(
    ap: Approvals,
    session: str,
    options: ClaudeAgentOptions | None = None,
    *,
    claude_session: str | None = None,
    wait: float | str = "24h",
    transport: Transport | None = None,
    **ask: Unpack[RequestOptions],
) -> AsyncIterator[Message]:
    """Wait until people have decided what `defer` left open, then resume the session; yields its messages.

    `session` is the key that `defer` got. `claude_session` is Claude's own id of the session, if that's another.
    `options` are those of the first run; `defer` is added if they have no hook for PreToolUse, with the options `ask`.
    Yields nothing if the waiting time is over and something is still undecided: call it again.
    """
    ends = monotonic() + as_seconds(wait)
    for request in await ap.open(session):
        if (await ap.wait(request, max(0.0, ends - monotonic()))).state == "pending":
            return
    given = options or ClaudeAgentOptions()
    hooks = dict(given.hooks or {})
    hooks.setdefault("PreToolUse", [defer(ap, key=session, **ask)])
    resumed = replace(given, resume=claude_session or session, session_id=None, hooks=hooks)
    async for message in query(prompt=_no_prompt(), options=resumed, transport=transport):
        yield message


async def _no_prompt() -> AsyncIterator[dict[str, Any]]:
    """Say nothing: a resumed session goes on with the call that was deferred."""
    for nothing in list[dict[str, Any]]():
        yield nothing


class _Keys:
    """The keys of a session's calls: by the call's id, or without one by its digest and how often it came."""

    def __init__(self, session: str) -> None:
        if not session:
            raise InvalidArgumentError("key is the session's name, which can't be empty")
        self._session = session
        self._times = Counter[str]()

    def of(self, call_id: str | None, tool: str, arguments: Mapping[str, Any]) -> str:
        if call_id:
            return f"{self._session}:{call_id}"
        digest = digest_of(tool, arguments)[:32]
        self._times[digest] += 1
        return f"{self._session}:{digest}-{self._times[digest]}"


def _waiting(options: AskOptions) -> AskOptions:
    return options if options.get("wait") is not None else {**options, "wait": WAIT}


def _changed(decision: Decision, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments that an approver changed; None if the tool may run with its own.

    Raises DeniedError or ApprovalMismatchError.
    """
    if decision.state == "edited":
        changed = decision.arguments or {}
        decision.require(changed)
        return changed
    decision.require(arguments)
    return None


def _hook_output(verdict: str, reason: str, changed: dict[str, Any] | None = None) -> HookJSONOutput:
    output: dict[str, Any] = {
        "hookEventName": "PreToolUse",
        "permissionDecision": verdict,
        "permissionDecisionReason": reason,
    }
    if changed is not None:
        output["updatedInput"] = changed
    return {"hookSpecificOutput": output}  # type: ignore[typeddict-item]  # built by parts
