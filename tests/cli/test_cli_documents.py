"""The docs list every command, option and setting, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import man
from tests.support.commands import BETWEEN, DOCUMENT, table
from tests.support.settings import every_setting

CONFIGURATION = Path(__file__).parents[2] / "docs" / "configuration.md"
ROW = re.compile(
    r"^\| `(?P<path>[^`]+)` \| (?P<type>[^|]+) \| (?P<default>[^|]*) \| (?P<meaning>[^|]+) \|$", re.MULTILINE
)


def test_every_command_and_option_is_documented() -> None:
    found = BETWEEN.search(DOCUMENT.read_text())
    assert found is not None
    assert found[0] == table(), "run `python -m tests.support.commands` to update the table"


def test_the_manual_page_is_up_to_date() -> None:
    assert man.DOCUMENT.read_text() == man.page(), "run `python -m tests.support.man` to update it"


@pytest.mark.parametrize("file", ["config.toml", "workflow"])
def test_every_setting_is_documented_with_its_default(file: str) -> None:
    _, of_service, of_workflow = re.split(r"^## ", CONFIGURATION.read_text(), flags=re.MULTILINE)
    documented = {row["path"]: row for row in ROW.finditer(of_service if file == "config.toml" else of_workflow)}
    settings = every_setting()[file]
    assert list(documented) == list(settings), "the tables have the order of the models"
    for path, default in settings.items():
        shown = documented[path]["default"].strip()
        assert shown == (default if default in ("", "required") else f"`{default}`"), path
        assert documented[path]["meaning"].strip()


def test_example_file_has_every_setting() -> None:
    text = (Path(__file__).parents[2] / "config.example.toml").read_text()
    for path in every_setting()["config.toml"]:
        assert path.rpartition(".")[2].replace("<name>", "") in text, path
