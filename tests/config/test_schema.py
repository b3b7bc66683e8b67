"""The JSON Schemas accept what the models accept, including short forms."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from approvals_bot.config.schema import service_schema, workflow_schema

ROOT = Path(__file__).parents[2]


def test_both_are_valid_json_schemas() -> None:
    Draft202012Validator.check_schema(service_schema())
    Draft202012Validator.check_schema(workflow_schema())


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.toml")), ids=lambda path: path.stem)
def test_sample_workflows_match_the_schema(path: Path) -> None:
    Draft202012Validator(workflow_schema()).validate(tomllib.loads(path.read_text()))


def test_example_configuration_matches_the_schema() -> None:
    content = tomllib.loads((ROOT / "config.example.toml").read_text())
    Draft202012Validator(service_schema()).validate(content)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fields": {"a": "strng"}},
        {"fields": {"a": "array"}},
        {"fields": {"a": {"type": "object"}}},
        {"fields": {"a": {"type": "string", "pined": True}}},
        {"stage": [{"id": "s"}]},
        {"stage": [{"id": "s", "from": ["@a"], "seat": [{"from": ["@a"]}]}]},
        {"stage": [{"id": "s", "from": ["@a"], "any": [{"seats": [{"from": ["@a"]}]}]}]},
        {"stage": [{"id": "s", "any": [{"from": ["@a"]}]}]},
        {"clock": {"on_deadline": "maybe"}},
        {"deliver": {"email": 5}},
        {"polcy": {}},
        {"on": {"approved": [{"http": "x", "jsn": {}}]}},
    ],
)
def test_schema_refuses_the_shapes_that_the_models_refuse(wrong: dict[str, Any]) -> None:
    about = {"id": "x", "title": "X", "request": ["*"]}
    validator = Draft202012Validator(workflow_schema())
    assert validator.is_valid({"workflow": about, "stage": [{"id": "s", "from": ["@a"]}]})
    assert validator.is_valid({"workflow": about, "stage": [{"id": "s", "any": [{"seats": [{"from": ["@a"]}]}]}]})
    assert not validator.is_valid({"workflow": about} | wrong)
