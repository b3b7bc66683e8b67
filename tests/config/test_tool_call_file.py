"""The file of agents' tool calls: what it may have, and what `check` says of the rest."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from approvals_bot.approvals.agent_policy import EVERY_APP, TOOL_CALL
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.config.schema import workflow_schema
from approvals_bot.service.catalog import read_configuration

CONFIGURATION = Path(__file__).parents[2] / "docs" / "configuration.md"
CONFIG = """
[server]
base_url = "http://127.0.0.1:8000"
signing_keys = ["env:KEY"]
[api_keys]
agent = "env:AGENT"
[groups]
ops = ["ann@acme.eu", "bo@acme.eu"]
"""
WHOLE = """\
[workflow]
id = "tool-call"
title = "{{ agent }}: {{ tool }}"
may_ask = ["@ops"]
[[stage]]
id = "go"
from = ["@ops"]
"""
Read = Callable[..., list[str]]


@pytest.fixture
def problems(tmp_path: Path) -> Read:
    """Loads a configuration with this file, and returns what is wrong: `line: key: message`."""

    def read(text: str, name: str = "tool-call") -> list[str]:
        (tmp_path / "config.toml").write_text(CONFIG)
        folder = tmp_path / "workflows"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(text)
        try:
            read_configuration(tmp_path / "config.toml", {"KEY": "k" * 40, "AGENT": "a" * 40})
        except ConfigErrors as errors:
            return [str(problem).removeprefix(f"{folder}/{name}.toml:") for problem in errors.problems]
        return []

    return read


def test_the_whole_file_of_the_docs_loads(problems: Read, tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", CONFIGURATION.read_text(), re.MULTILINE | re.DOTALL)
    (text,) = [block for block in blocks if TOOL_CALL in block]
    assert problems(text) == []
    (definition,) = read_configuration(tmp_path / "config.toml", {"KEY": "k" * 40, "AGENT": "a" * 40}).workflows
    assert definition.is_tool_call
    assert definition.workflow.request == ("*", EVERY_APP)
    assert definition.policy.outcomes == ("approve", "edit", "reject", "answer")
    assert definition.budget is not None
    assert definition.budget.calls is not None
    assert (definition.budget.calls.text, definition.budget.open) == ("20 per hour", 10)
    Draft202012Validator(workflow_schema()).validate(tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[fields]\na = "string"\n', "8: fields: is not for tool calls: a call's fields are the arguments of its tool"),
        ('[[auto]]\nwhen = "true"\ndecision = "approve"\n', "8: auto: is not for tool calls: people decide each call"),
        (
            '[clock]\ndeadline = "1h"\non_deadline = "approve"\ni_know = true\n',
            "10: clock.on_deadline: silence never approves a tool call (did you mean expire?)",
        ),
        ('[budget]\ncalls = "20"\n', '9: budget.calls: write an amount and a time, like "20 per hour"'),
        ('[budget]\ncalls = "1.5 per hour"\n', "9: budget.calls: a number of calls is a whole number, from 1 to 1,000"),
        ('[budget]\nsum.price = "5 per year"\n', '9: budget.sum.price: "year" is not a time'),
        ("[budget]\n", "8: budget: limits nothing"),
        ("[budget]\nopen = 0\n", "9: budget.open: must be at least 1"),
        ('[allowance]\ntools = []\ncount = 1\nuntil = "1h"\n', "9: allowance.tools: must not be empty"),
        ('[allowance]\ntools = ["x"]\ncount = 1\n', "8: allowance.until: is missing"),
    ],
)
def test_mistakes_are_named(problems: Read, text: str, expected: str) -> None:
    assert [problem.startswith(expected) for problem in problems(WHOLE + text)] == [True], problems(WHOLE + text)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('may_ask = ["@ops"]', 'may_ask = ["@opps"]', "4: workflow.may_ask[0]: no group is called opps"),
        ('may_ask = ["@ops"]', 'may_ask = ["manager-of:requester"]', '4: workflow.may_ask[0]: write "@group"'),
        ("{{ agent }}", "{{ agnet }}", "3: workflow.title: "),
        ('from = ["@ops"]', 'from = ["@ops"]\nwhen = "price > 1"', "8: stage[0].when: "),
        ('id = "tool-call"', 'id = "tool-call"\nkey = "x"', "3: workflow.key: is not for tool calls"),
    ],
)
def test_mistakes_in_the_workflow_are_named(problems: Read, old: str, new: str, expected: str) -> None:
    found = problems(WHOLE.replace(old, new))
    assert [problem.startswith(expected) for problem in found] == [True], found


def test_other_workflows_have_nothing_for_agents(problems: Read) -> None:
    text = WHOLE.replace('"tool-call"', '"x"\nrequest = ["*"]').replace("{{ agent }}: {{ tool }}", "X")
    found = problems(text + "[budget]\nopen = 3\n", "x")
    assert [problem.partition(": is for agents")[0] for problem in found] == ["5: workflow.may_ask", "9: budget"]
