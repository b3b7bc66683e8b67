"""The examples of docs/agents.md that need a service and people: each is loaded as printed, and its functions run."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from claude_agent_sdk import ResultMessage

from tests.client.conftest import AGENT_KEY, Desk, open_desk
from tests.support.guides import example_with, functions_not_entered, loaded
from tests.support.journey import with_samples
from tests.support.scripted_claude import ScriptedClaude

TOOL_CALLS = """\
[workflow]
id    = "tool-call"
title = "{{ agent }}: {{ tool }}"
[[stage]]
id   = "go"
from = ["@ops"]
[clock]
deadline = "24h"
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A service whose file allows deadlines of hours."""
    folder = with_samples(Path(tmp_path_factory.mktemp("desk")))
    (folder / "workflows" / "tool-call.toml").write_text(TOOL_CALLS)
    with open_desk(folder, "--config", "config.example.toml") as desk:
        yield desk


@pytest.fixture
def guide(request: pytest.FixtureRequest, environment: None) -> Iterator[Any]:
    """The example with the mark, as a module; all of its functions have to be called."""
    example = example_with(request.param)
    with loaded(example) as module:
        yield module
        assert functions_not_entered(example, module) == set()


@pytest.mark.agents(2)
@pytest.mark.parametrize("guide", ["trip-17:call-1"], indirect=True)
def test_in_five_minutes(guide: Any, desk: Any, aside: Any) -> None:
    asked = aside(guide.book, "LH 441", 640)
    desk.decide("trip-17", "approve")
    assert asked.result(30) == "booked LH 441 for 640"
    assert guide.book("LH 441", 640) == "booked LH 441 for 640", "called again, it finds the same answer"


@pytest.mark.agents(2)
@pytest.mark.parametrize("guide", ["def work_on(task"], indirect=True)
def test_the_decorator(guide: Any, desk: Any, aside: Any) -> None:
    asked = aside(guide.work_on, "guide-task")
    desk.decide("guide-task", "reject", comment="by train, please")
    assert '"by train, please"' in asked.result(30)
    with guide.scope("guide-task-2"):
        assert guide.book_flight("LH 441", 50) == "booked LH 441 for 50"


@pytest.mark.agents(2)
@pytest.mark.parametrize("guide", ["async def plan_trip("], indirect=True)
async def test_the_parts_of_asking(guide: Any, desk: Any) -> None:
    planned = asyncio.create_task(guide.plan_trip(["LH1", "LH2"]))
    for flight in ("LH2", "LH1"):
        await asyncio.to_thread(desk.decide, f"trip-18:{flight}", "approve", comment=flight)
    assert sorted(decision.comment for decision in await planned) == ["LH1", "LH2"]


@pytest.mark.agents(2, 19)
@pytest.mark.parametrize("guide", ["async def clean_up("], indirect=True)
async def test_a_callback_of_claude(guide: Any, desk: Any) -> None:
    calls = [("toolu_1", "Bash", {"command": "rm -rf build"}), ("toolu_2", "Bash", {"command": "rm -rf /"})]
    claude = ScriptedClaude(calls)
    ended = asyncio.create_task(guide.clean_up("guide-claude", claude))
    await asyncio.to_thread(desk.decide, "guide-claude:toolu_2", "reject", comment="never")
    await asyncio.to_thread(desk.decide, "guide-claude:toolu_1", "approve")
    assert await ended == "done"
    assert claude.answers["toolu_1"] == {"behavior": "allow", "updatedInput": {"command": "rm -rf build"}}
    assert claude.answers["toolu_2"]["behavior"] == "deny"
    assert '"never"' in claude.answers["toolu_2"]["message"]


@pytest.mark.agents(2, 6, 19)
@pytest.mark.parametrize("guide", ["async def begin("], indirect=True)
async def test_a_deferred_call_of_claude(guide: Any, desk: Any) -> None:
    call = ("toolu_1", "Bash", {"command": "rm -rf build"})
    session = "0b0c1f0e-5d3c-4b53-9f4e-3f6f3c1f7a11"
    (ended,) = await guide.begin(session, ScriptedClaude([call], by_hook=True))
    assert isinstance(ended, ResultMessage)
    assert ended.deferred_tool_use is not None
    await asyncio.to_thread(desk.advance, "1h")
    resumed = ScriptedClaude([call], by_hook=True)
    going_on = asyncio.create_task(guide.go_on(session, resumed))
    await asyncio.to_thread(desk.decide, session, "approve")
    (ended,) = await going_on
    assert ended.deferred_tool_use is None
    assert resumed.prompts == [], "the session goes on where it was"
    assert resumed.answers["toolu_1"]["hookSpecificOutput"]["permissionDecision"] == "allow"


def test_the_hook_of_claude_code(desk: Any) -> None:
    settings = json.loads(example_with('"type": "http"').text)
    (matcher,) = settings["hooks"]["PreToolUse"]
    (hook,) = matcher["hooks"]
    url = hook["url"].replace("http://127.0.0.1:8000", desk.url).replace("wait=300", "wait=0")
    headers = {name: value.replace("$APPROVALS_KEY", AGENT_KEY) for name, value in hook["headers"].items()}
    given = {"hook_event_name": "PreToolUse", "session_id": "guide-cc", "tool_name": "Bash", "tool_use_id": "toolu_1"}
    with httpx2.Client(trust_env=False) as http:
        answer = http.post(url, headers=headers, json={**given, "tool_input": {"command": "ls"}})
    assert answer.json()["hookSpecificOutput"]["permissionDecision"] == "deny"


@pytest.mark.agents(2)
@pytest.mark.parametrize("guide", ["def multiply(x"], indirect=True)
def test_coming_from_humanlayer(guide: Any, desk: Any, aside: Any) -> None:
    asked = aside(guide.run_tool, "multiply", {"x": 6, "y": 7}, "1")
    desk.decide("math", "approve")
    assert asked.result(30) == 42
    asked = aside(guide.run_tool, "ask_a_human", {"question": "Which base?"}, "2")
    desk.decide("math:2", "answer", comment="ten")
    assert asked.result(30) == "ten"


def test_the_shell_commands_are_ours() -> None:
    lines = [shlex.split(line, comments=True) for line in example_with("approvals-bot dev &").text.splitlines()]
    assert [line[0] for line in lines] == ["pip", "approvals-bot", "export"]
