"""The Claude Agent SDK on a scripted transport: its callbacks and hooks ask people, and deny whatever isn't a yes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    ToolPermissionContext,
    query,
)

from approvals_bot.client import Approvals, digest_of
from approvals_bot.client.claude import can_use_tool, defer
from approvals_bot.client.words import MISMATCH, UNAVAILABLE
from tests.support.scripted_claude import Call, ScriptedClaude
from tests.support.scripted_service import HANG_UP, Answer, scripted_service

CALL: Call = ("toolu_1", "Bash", {"command": "rm -rf build"})
OPENED = (202, {"run_id": "run_1", "url": "http://approvals.test/runs/run_1"})


def decided(state: str, arguments: Any = CALL[2], **more: Any) -> Answer:
    digest = digest_of("Bash", arguments)
    result = {"state": state, "arguments": arguments, "digest": digest, "by": "ann@acme.eu", "name": "Ann Ode", **more}
    return 200, {"id": "run_1", "status": "completed", "result": result}


async def by_callback(url: str, *calls: Call) -> dict[str, Any]:
    """Return what the SDK answered to `can_use_tool`, by call."""
    claude = ScriptedClaude(calls or (CALL,))
    async with Approvals(url, "key") as ap:
        options = ClaudeAgentOptions(can_use_tool=can_use_tool(ap, key="trip", wait=0.3))
        async with ClaudeSDKClient(options, transport=claude) as client:
            await client.query("clean up")
            assert [type(message) async for message in client.receive_response()] == [ResultMessage]
    return claude.answers


async def no_prompt() -> AsyncIterator[dict[str, Any]]:
    for nothing in list[dict[str, Any]]():
        yield nothing


async def by_hook(url: str) -> tuple[Any, ResultMessage]:
    """Return what the SDK answered to the hook, and the run's result."""
    claude = ScriptedClaude((CALL,), by_hook=True)
    async with Approvals(url, "key") as ap:
        hooks: Any = {"PreToolUse": [defer(ap, key="trip", wait=0.3)]}
        messages = query(prompt=no_prompt(), options=ClaudeAgentOptions(hooks=hooks), transport=claude)
        (result,) = [message async for message in messages]
    assert isinstance(result, ResultMessage)
    return claude.answers["toolu_1"]["hookSpecificOutput"], result


@pytest.mark.agents(19)
async def test_an_approved_call_runs_with_its_own_input() -> None:
    with scripted_service(OPENED, decided("approved")) as service:
        assert await by_callback(service.url) == {"toolu_1": {"behavior": "allow", "updatedInput": CALL[2]}}
    assert service.received[0].headers["Idempotency-Key"] == "trip:toolu_1"
    assert service.received[0].body["input"] == {"tool": "Bash", "arguments": CALL[2]}


@pytest.mark.agents(12)
async def test_an_edited_call_runs_with_the_edited_input() -> None:
    edited = {"command": "rm -rf build/tmp"}
    with scripted_service(OPENED, decided("edited", edited)) as service:
        assert await by_callback(service.url) == {"toolu_1": {"behavior": "allow", "updatedInput": edited}}
        service.answers[:] = [OPENED, decided("edited", edited)]
        output, _ = await by_hook(service.url)
    assert (output["permissionDecision"], output["updatedInput"]) == ("allow", edited)


@pytest.mark.agents(13)
@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([HANG_UP], UNAVAILABLE),
        ([(500, {})], UNAVAILABLE),
        ([OPENED, (503, b"")], UNAVAILABLE),
        ([OPENED, decided("approved", {"command": "rm -rf /"})], MISMATCH),
        ([OPENED, decided("approved", digest=None)], MISMATCH),
        (
            [OPENED, decided("rejected", comment="no")],
            'Rejected by Ann Ode: "no". Do not try this or an equivalent action again; ask the user.',
        ),
        ([OPENED, decided("expired")], "Nobody decided in time. Silence is not consent. Do not do this; ask the user"),
        ([OPENED, (200, {"id": "run_1", "status": "cancelled", "error": None})], "The request was withdrawn"),
        ([OPENED, (200, {"id": "run_1", "status": "completed", "result": "?"})], "The approval could not be obtained"),
        ([(403, {"detail": "Not you."})], "This agent may not request this approval"),
    ],
)
async def test_what_is_no_yes_denies(answers: list[Answer], text: str) -> None:
    with scripted_service(*answers) as service:
        (answer,) = (await by_callback(service.url)).values()
        assert answer.keys() == {"behavior", "message"}
        assert answer["behavior"] == "deny"
        assert answer["message"].startswith(text)
        service.answers[:] = answers
        output, result = await by_hook(service.url)
    assert output["permissionDecision"] == "deny"
    assert output["permissionDecisionReason"].startswith(text)
    assert result.deferred_tool_use is None


@pytest.mark.agents(19)
async def test_an_undecided_call_is_denied_or_deferred() -> None:
    with scripted_service(OPENED, (200, {"id": "run_1", "status": "running"})) as service:
        (answer,) = (await by_callback(service.url)).values()
        assert answer == {
            "behavior": "deny",
            "message": "Nobody has decided yet; the request stays open. Do not do this now; ask again later with the "
            "same arguments.",
        }
        service.answers.insert(0, OPENED)
        output, result = await by_hook(service.url)
    assert output["permissionDecision"] == "defer"
    assert result.deferred_tool_use is not None
    assert result.deferred_tool_use.id == "toolu_1"


async def test_a_call_without_an_id_has_a_key_of_its_own() -> None:
    with scripted_service((403, {"detail": "Not you."})) as service:
        async with Approvals(service.url, "key") as ap:
            decide = can_use_tool(ap, key="trip")
            for command in ("ls", "ls", "pwd"):
                await decide("Bash", {"command": command}, ToolPermissionContext())
    keys = [received.headers["Idempotency-Key"] for received in service.received]
    digests = [digest_of("Bash", {"command": command})[:32] for command in ("ls", "pwd")]
    assert keys == [f"trip:{digests[0]}-1", f"trip:{digests[0]}-2", f"trip:{digests[1]}-1"]


async def test_the_hook_fails_closed_in_the_cli_too() -> None:
    async with Approvals("http://127.0.0.1:1", "key") as ap:
        matcher = defer(ap, key="trip", matcher="Bash", wait="90s")
    assert (matcher.matcher, matcher.on_failure, matcher.timeout) == ("Bash", "block", 150)
