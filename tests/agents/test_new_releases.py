"""A new release beside an open run of an agent: what may change, what stalls, and `check --runs` says so before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_site import Site, install

AGENT = """\
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from approvals_bot import create_hook, workflow
from approvals_bot.agents.pydantic_ai import Durable

async def script(messages, info):
    turn = sum(isinstance(each, ModelResponse) for each in messages)
    calls = [ToolCallPart("search", {"to": "OSL"}, "s1"), ToolCallPart("book", {"flight": "LH 1"}, "b1")]
    return ModelResponse([calls[turn]]) if turn < 2 else ModelResponse([TextPart(messages[-1].parts[0].content)])

agent = Agent(FunctionModel(script), name="traveller", capabilities=[Durable()])

@agent.tool_plain
async def search(to: str) -> list[str]:
    return ["LH 1"]

@agent.tool_plain(metadata={"approvals_bot": False})
async def book(flight: str) -> str:
    return f"booked {flight}: {await create_hook(token='a-yes')}"

@workflow(name="releases: travel")
async def travels() -> str:
    return (await agent.run("to Oslo")).output
"""

HARMLESS = {
    "the same": AGENT,
    "instructions": AGENT.replace('name="traveller"', 'name="traveller", instructions="Be brief."'),
    "a new tool": AGENT + "\n@agent.tool_plain\nasync def hotels(city: str) -> str:\n    return city\n",
    "another model": AGENT.replace("FunctionModel(script)", 'FunctionModel(script, model_name="newer")'),
    "a tool's description": AGENT.replace(
        '    return ["LH 1"]', '    """Find flights."""\n    return ["LH 1", "LH 2"]'
    ),
}
STALLS = {
    "a tool": (
        AGENT.replace("def search(", "def find(").replace('"search"', '"find"'),
        ["call_tool:search", "traveller__model.request"],
    ),
    "an agent": (AGENT.replace('name="traveller"', 'name="tourist"'), ["traveller__model.", "tourist__model."]),
}


def waiting(folder: Path) -> tuple[Site, str]:
    """A run whose agent waits in its second tool."""
    site = install(folder)
    site.write("workflows/travel.py", AGENT)
    run = str(site.json("start", "releases: travel")["run_id"])
    site.work()
    return site, run


@pytest.mark.agents(20)
def test_harmless_changes_let_an_open_run_go_on(tmp_path: Path) -> None:
    for change, text in HARMLESS.items():
        (tmp_path / change).mkdir()
        site, run = waiting(tmp_path / change)
        site.write("workflows/travel.py", text)
        found = site.json("check", "--runs")["runs"]
        assert (found["checked"], found["would_stall"], found["would_end"]) == (1, [], []), change
        site.type("resume", "a-yes", "--payload", '"yes"')
        site.work()
        shown = site.json("show", run)
        assert (shown["status"], shown["result"]) == ("completed", "booked LH 1: yes"), change


@pytest.mark.agents(20)
@pytest.mark.parametrize("what", STALLS)
def test_a_name_that_was_called_and_is_gone_stalls_the_run(tmp_path: Path, what: str) -> None:
    text, names = STALLS[what]
    site, run = waiting(tmp_path)
    site.write("workflows/travel.py", text)
    (found,) = site.json("check", "--runs", fails=True)["runs"]["would_stall"]
    assert found["run_id"] == run
    for name in names:
        assert name in found["why"]
    site.type("resume", "a-yes", "--payload", '"yes"')
    site.work()
    assert site.json("show", run)["status"] == "stalled"
    for name in names:
        assert name in site.type("show", run).stdout
    site.write("workflows/travel.py", AGENT)
    site.work()  # what stalled is open again
    site.work()
    assert site.json("show", run)["result"] == "booked LH 1: yes"
