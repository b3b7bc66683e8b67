"""Claude Code's HTTP hook, posted to a real service: what it gets is a decision in its own form, or a denial."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.client.conftest import AGENT_KEY

INPUT = {"command": "rm -rf build", "timeout": 5}


class Hook:
    """Posts as Claude Code does."""

    def __init__(self, desk: Any) -> None:
        self.url = f"{desk.url}/api/agent-hooks/claude"

    def post(
        self, session: str, *, key: str = AGENT_KEY, event: str = "PreToolUse", query: str = "", **more: Any
    ) -> Any:
        given: dict[str, Any] = {
            "session_id": session,
            "transcript_path": "/home/ann/.claude/projects/x.jsonl",
            "cwd": "/home/ann/x",
            "permission_mode": "default",
            "hook_event_name": event,
            "tool_name": "Bash",
            "tool_input": INPUT,
            **({"tool_use_id": "toolu_1"} if event == "PreToolUse" else {"permission_suggestions": []}),
            **more,
        }
        return self.send(f"?{query}", key, json=given)

    def send(self, query: str = "", key: str = AGENT_KEY, **body: Any) -> Any:
        headers = {"authorization": f"Bearer {key}"}
        with httpx2.Client(timeout=60, trust_env=False) as http:
            return http.post(self.url + query, headers=headers, **body)


@pytest.fixture
def hook(desk: Any) -> Hook:
    return Hook(desk)


def test_people_decide_before_a_tool_is_used(desk: Any, hook: Hook, aside: Any) -> None:
    asked = aside(hook.post, "cc-yes", query="agent=Janitor")
    run = desk.decide("cc-yes", "approve", comment="ok")
    assert run["key"] == "cc-yes:toolu_1"
    assert run["request"]["fields"]["agent"] == "Janitor"
    answer = asked.result(30)
    output = answer.json()["hookSpecificOutput"]
    reason = output.pop("permissionDecisionReason")
    assert (answer.status_code, output) == (200, {"hookEventName": "PreToolUse", "permissionDecision": "allow"})
    assert reason.endswith('"ok". Go on with exactly these arguments.')
    assert hook.post("cc-yes").json() == answer.json(), "the same call again gets the same answer"


def test_an_edit_replaces_the_input(desk: Any, hook: Hook, aside: Any) -> None:
    asked = aside(hook.post, "cc-edit", event="PermissionRequest")
    desk.decide("cc-edit", "edit", answers={"command": "rm -rf build/tmp"})
    assert asked.result(30).json() == {
        "hookSpecificOutput": {
            "hookEventName": "PermissionRequest",
            "decision": {"behavior": "allow", "updatedInput": INPUT | {"command": "rm -rf build/tmp"}},
        }
    }


@pytest.mark.parametrize("event", ["PreToolUse", "PermissionRequest"])
def test_a_rejection_denies(desk: Any, hook: Hook, aside: Any, event: str) -> None:
    asked = aside(hook.post, f"cc-no-{event}", event=event)
    desk.decide(f"cc-no-{event}", "reject", comment="never")
    output = asked.result(30).json()["hookSpecificOutput"]
    if event == "PreToolUse":
        assert output["permissionDecision"] == "deny"
        assert '"never". Do not try this' in output["permissionDecisionReason"]
    else:
        assert output["decision"]["behavior"] == "deny"
        assert '"never". Do not try this' in output["decision"]["message"]


def test_an_undecided_call_is_denied_and_its_request_withdrawn(desk: Any, hook: Hook) -> None:
    output = hook.post("cc-late", query="wait=0.3").json()["hookSpecificOutput"]
    assert output["permissionDecision"] == "deny"
    assert output["permissionDecisionReason"].startswith("Nobody decided")
    with desk.client() as ap:
        assert ap.open("cc-late") == []
    assert hook.post("cc-ask", query="wait=0.3&undecided=ask&to=ann@acme.eu").json() == {}


@pytest.mark.agents(19)
def test_an_undecided_call_may_be_deferred(desk: Any, hook: Hook) -> None:
    query = "wait=0.3&undecided=defer"
    output = hook.post("cc-defer", query=query).json()["hookSpecificOutput"]
    assert output["permissionDecision"] == "defer"
    desk.decide("cc-defer", "approve")
    output = hook.post("cc-defer", query="undecided=defer").json()["hookSpecificOutput"]
    assert output["permissionDecision"] == "allow"
    output = hook.post("cc-defer-2", event="PermissionRequest", query=query).json()["hookSpecificOutput"]
    assert output["decision"]["behavior"] == "deny", "without an id, the call couldn't be found again"


@pytest.mark.agents(13)
def test_what_goes_wrong_is_denied(desk: Any, hook: Hook) -> None:
    hook.post("cc-wrong", query="wait=0&undecided=defer")
    other = hook.post("cc-wrong", tool_input={"command": "rm -rf /"}, query="wait=0").json()["hookSpecificOutput"]
    assert other["permissionDecision"] == "deny"
    assert "was used before for other arguments" in other["permissionDecisionReason"]
    for more, query in (
        ({"tool_input": {"deep": 2**60}}, ""),
        ({}, "deadline=soon"),
        ({"tool_name": "x" * 500}, ""),
        ({"tool_use_id": "x" * 500}, ""),
    ):
        output = hook.post("cc-wrong-2", query=f"wait=0&{query}", **more).json()["hookSpecificOutput"]
        assert output["permissionDecision"] == "deny", (more, query)
        assert "was refused" in output["permissionDecisionReason"]
    for body in (b"{", b"[]", b'{"hook_event_name": "PreToolUse"}', b" " * 1_100_000):
        answer = hook.send(content=body)
        assert (answer.status_code, answer.json()["continue"]) == (200, False), body[:50]


@pytest.mark.agents(13)
def test_no_key_is_401_and_unknown_options_stop_the_agent(hook: Hook) -> None:
    assert hook.post("cc-key", key="wrong").status_code == 401
    for query in ("wait=-1", "wait=9999", "undecided=allow", "who=me"):
        answer = hook.post("cc-key", query=query)
        assert (answer.status_code, answer.json()["continue"]) == (200, False), "else its own rules would decide"
