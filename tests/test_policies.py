"""The gallery of docs/policies: each policy loads, and its tests pass, with both outcomes and all rules met."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from approvals_bot.cli.policy_tests import play_tests
from approvals_bot.config.load import Configuration
from approvals_bot.config.schema import schema_of_tests, service_schema, workflow_schema
from approvals_bot.config.warnings import warnings_of
from approvals_bot.service.catalog import read_configuration

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "policies"
FILES = sorted(
    path
    for path in (FOLDER / "workflows").rglob("*.toml")
    if not path.name.endswith(".test.toml") and not path.name.startswith("_")
)


@pytest.fixture(scope="module")
def configuration() -> Configuration:
    return read_configuration(FOLDER / "config.toml", {}, any_secrets=True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_policy_of_the_gallery_decides_as_it_says(file: Path, configuration: Configuration) -> None:
    (result,) = play_tests(configuration, file.with_suffix(".test.toml"))
    assert [str(failure) for case in result.cases for failure in case.failures] == []
    outcomes = {case.outcome for case in result.cases}
    assert "approved" in outcomes
    assert outcomes & {"rejected", "expired", "refused"}
    assert result.missed == []


def test_the_gallery_has_no_warnings_and_fits_the_schemas(configuration: Configuration) -> None:
    by_id = {definition.id: definition for definition in configuration.workflows}
    assert len(by_id) == len(FILES)
    schema, tests = Draft202012Validator(workflow_schema()), Draft202012Validator(schema_of_tests())
    for file in FILES:
        assert warnings_of(by_id[_name_of(file)], file) == []
        assert [error.message for error in schema.iter_errors(tomllib.loads(file.read_text()))] == []
        played = json.loads(json.dumps(tomllib.loads(file.with_suffix(".test.toml").read_text()), default=str))
        assert [error.message for error in tests.iter_errors(played)] == []
    assert list(tests.iter_errors({"case": [{"name": "x", "requester": "a", "outcom": "approved"}]}))
    service = tomllib.loads((FOLDER / "config.toml").read_text())
    assert [error.message for error in Draft202012Validator(service_schema()).iter_errors(service)] == []


def test_the_page_lists_every_policy() -> None:
    page = (ROOT / "docs" / "policies.md").read_text()
    listed: Sequence[str] = re.findall(r"^\| \[`([\w/-]+)`\]", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted(map(_name_of, FILES))


def _name_of(file: Path) -> str:
    return file.relative_to(FOLDER / "workflows").with_suffix("").as_posix()
