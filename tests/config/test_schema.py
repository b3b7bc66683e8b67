"""The JSON Schemas accept what the models accept, including short forms."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from approvals_bot.approvals.policy import Definition
from approvals_bot.config.checks import check_definition
from approvals_bot.config.load import workflow_files
from approvals_bot.config.schema import schema_of_defaults, service_schema, workflow_schema
from approvals_bot.config.service import ServiceSettings

ROOT = Path(__file__).parents[2]
SERVICE = {"base_url": "https://approve.acme.eu", "database": "sqlite:///a.db", "signing_keys": ["env:KEY"]}


@pytest.fixture(scope="module")
def service() -> ServiceSettings:
    env = {"KEY": "a signing key of the tests: 0123456789abcdef"}
    return ServiceSettings.model_validate({"server": SERVICE}, context={"env": env, "folder": ROOT})


def test_both_are_valid_json_schemas() -> None:
    Draft202012Validator.check_schema(service_schema())
    Draft202012Validator.check_schema(workflow_schema())


@pytest.mark.parametrize("path", workflow_files(ROOT / "workflows"), ids=lambda path: path.stem)
def test_sample_workflows_match_the_schema(path: Path) -> None:
    Draft202012Validator(workflow_schema()).validate(tomllib.loads(path.read_text()))


def test_example_configuration_matches_the_schema() -> None:
    content = tomllib.loads((ROOT / "config.example.toml").read_text())
    Draft202012Validator(service_schema()).validate(content)


APPROVAL = {"workflow": {"id": "x", "title": "X", "request": ["*"]}, "stage": [{"id": "s", "from": ["ann@acme.eu"]}]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"fields": {"a": "strng"}},
        {"fields": {"a": "array"}},
        {"fields": {"a": {"type": "object"}}},
        {"fields": {"a": {"type": "string", "pined": True}}},
        {"fields": {"a": {"type": "enum"}}},
        {"fields": {"a": {"type": "money"}}},
        {"fields": {"a": {"type": "string", "min": 3}}},
        {"fields": {"a": {"type": "integer", "values": ["a"]}}},
        {"fields": {"a": {"type": "file", "editable": True}}},
        {"stage": []},
        {"stage": [{"id": "s"}]},
        {"stage": [{"id": "s", "from": ["ann@acme.eu"], "seat": [{"from": ["ann@acme.eu"]}]}]},
        {"stage": [{"id": "s", "from": ["ann@acme.eu"], "need": "110%"}]},
        {"stage": [{"id": "s", "from": ["ann@acme.eu"], "any": [{"seats": [{"from": ["ann@acme.eu"]}]}]}]},
        {"stage": [{"id": "s", "any": [{"from": ["ann@acme.eu"]}]}]},
        {"clock": {"on_deadline": "maybe"}},
        {"clock": {"on_deadline": "reject"}},
        {"clock": {"deadline": "1h", "on_deadline": "approve"}},
        {"clock": {"deadline": "1h", "on_deadline": "escalate"}},
        {"clock": {"deadline": "1h", "none": True}},
        {"clock": {"deadline": "soon"}},
        {"deliver": {"email": 5}},
        {"deliver": {"max_age": "10m"}},
        {"deliver": {"email_replies": "decide"}},
        {"polcy": {}},
        {"on": {"approved": [{"http": "x", "jsn": {}}]}},
        {"request": [{"from": ["*"]}]},
        {"settings": {"a": 1}},
        {"budget": {"open": 3}},
        {"workflow": {"id": "x", "title": "X"}},
        {"workflow": {"id": "x", "request": ["*"]}},
        {"workflow": {"id": "x", "title": "X", "request": ["*"], "run": "a:b"}},
        {"workflow": {"id": "tool-call", "title": "X"}, "auto": [{"when": "true", "decision": "approve"}]},
    ],
)
def test_schema_refuses_what_check_refuses(wrong: dict[str, Any], service: ServiceSettings) -> None:
    validator = Draft202012Validator(workflow_schema())
    assert validator.is_valid(APPROVAL)
    assert not validator.is_valid(APPROVAL | wrong)
    with suppress(ValidationError):
        assert check_definition(Definition.model_validate(APPROVAL | wrong, context={}), service)


@pytest.mark.parametrize(
    "right",
    [
        {"workflow": {"id": "x", "title": "X"}, "request": [{"from": ["*"]}]},
        {"workflow": {"id": "tool-call", "title": "X"}},
        {"fields": {"a": {"type": "money", "currency": "EUR", "min": "0.01"}, "b": "date"}},
        {"clock": {"deadline": "1h30m", "on_deadline": "reject"}},
        {"clock": {"deadline": "2 business days", "remind": {"first": "1 business hour", "max": 2}}},
        {"stage": [{"id": "s", "seat": [{"from": ["ann@acme.eu"], "need": "50%"}]}]},
        {"stage": [{"id": "s", "any": [{"seats": [{"from": ["ann@acme.eu"]}]}]}]},
        {"clock": {"deadline": "23:00"}},
        {"fields": {"due": "datetime"}, "clock": {"deadline": "field:due"}},
        {"fields": {"due": "datetime"}, "clock": {"deadline": "field:due", "none": True}},
        {"fields": {"env": {"type": "enum", "values": ["a"]}}, "deliver": {"slack": "#x-{{ env }}"}},
    ],
)
def test_schema_accepts_what_the_models_accept(right: dict[str, Any]) -> None:
    Draft202012Validator(workflow_schema()).validate(APPROVAL | right)
    Definition.model_validate(APPROVAL | right, context={})


@pytest.mark.parametrize("make", [service_schema, workflow_schema])
def test_schema_describes_every_property(make: Callable[[], dict[str, Any]]) -> None:
    """In the words of docs/configuration.md, whose tables have to have the setting."""
    schema = make()
    tables = schema["$defs"]
    assert [path for path, node in _properties(schema, tables) if not node.get("description")] == []
    assert [path for path, node in _properties(schema, tables) if "](" in node["description"]] == [], "no links"
    assert "'null'" not in str(schema), "TOML has no null"


def _properties(node: Any, tables: dict[str, Any], path: str = "", within: tuple[str, ...] = ()) -> Iterator[Any]:
    if isinstance(node, list):
        for each in node:
            yield from _properties(each, tables, path, within)
    if not isinstance(node, dict):
        return
    name = node.get("$ref", "").rpartition("/")[2]
    if name and name not in within:
        yield from _properties(tables[name], tables, path, (*within, name))
    below = (node.get(key) for key in ("anyOf", "oneOf", "items", "additionalProperties"))
    for each in (*below, *node.get("patternProperties", {}).values()):
        yield from _properties(each, tables, path, within)
    for key, each in node.get("properties", {}).items():
        if isinstance(each, dict):
            yield f"{path}.{key}", each
            yield from _properties(each, tables, f"{path}.{key}", within)


def test_file_that_extends_another_may_leave_out_what_that_has() -> None:
    validator, bare = Draft202012Validator(workflow_schema()), {"workflow": {"id": "x"}}
    assert not validator.is_valid(bare)
    assert validator.is_valid(bare | {"extends": "_defaults.toml"})
    assert not validator.is_valid(bare | {"extends": "_defaults"})


@pytest.mark.parametrize("schema", [service_schema, workflow_schema, schema_of_defaults])
def test_conditions_leave_other_keys_alone(schema: Callable[[], dict[str, Any]]) -> None:
    """Tombi, which is strict, says of each key otherwise that the condition doesn't allow it."""

    def closed(node: Any, *, are_names: bool = False) -> Iterator[Any]:
        conditions = {"if", "not", "required", "allOf", "oneOf"}
        if isinstance(node, list):
            yield from (each for of in node for each in closed(of))
        elif isinstance(node, dict):
            if not are_names and conditions & node.keys() and "additionalProperties" not in node:
                yield node
            names = ("properties", "$defs")
            yield from (one for key, of in node.items() for one in closed(of, are_names=key in names and not are_names))

    assert list(closed(schema())) == []


DEFAULTS = """
[workflow]
request = ["*"]
[fields]
amount = { max = 1000 }
[clock]
on_deadline = "reject"
[deliver]
max_age = "5m"
[[on.ended]]
dm = "requester"
text = "Done"
"""


@pytest.mark.parametrize(
    ("text", "is_fit"),
    [
        (DEFAULTS, True),
        ("", True),
        (DEFAULTS.replace("request", "reqest"), False),
        (DEFAULTS.replace('"reject"', '"rejekt"'), False),
        (DEFAULTS.replace('dm = "requester"\n', ""), False),  # a list is replaced, so its parts have to be whole
        ("[[stage]]\nfrom = ['@a']", False),
        ('extends = "_more.toml"', False),
    ],
)
def test_defaults_are_parts_of_workflows(text: str, is_fit: bool) -> None:
    assert Draft202012Validator(schema_of_defaults()).is_valid(tomllib.loads(text)) is is_fit
