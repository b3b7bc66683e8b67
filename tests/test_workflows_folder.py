"""The workflows folder loads as a whole or not at all, and workflows may move between its files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from approvals_bot.app.service import needing_a_restart
from approvals_bot.config.load import Configuration
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.durable.core.registry import registry
from approvals_bot.service.catalog import load_catalog, read_configuration
from approvals_bot.service.python_workflows import PACKAGE

SERVICE = """
[server]
base_url = "https://approve.acme.eu"
signing_keys = ["env:KEY"]
[slack]
bot_token = "env:KEY"
signing_secret = "env:KEY"
external_users = "deny"
[groups]
a = ["ann@acme.eu"]
"""

PROGRAM = """
from approvals_bot import workflow

@workflow
async def greet_of_the_folder() -> str:
    return "{text}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(SERVICE)
    (tmp_path / "workflows").mkdir()
    return tmp_path / "workflows"


def read(folder: Path) -> Configuration:
    return read_configuration(folder.parent / "config.toml", {"KEY": "k" * 40})


async def greet() -> str:
    found = registry.newest("greet_of_the_folder").function
    return str(await found())


async def test_workflow_may_move_to_another_file(folder: Path) -> None:
    (folder / "one.py").write_text(PROGRAM.format(text="one"))
    load_catalog(read(folder))
    assert await greet() == "one"
    (folder / "one.py").unlink()
    (folder / "two.py").write_text(PROGRAM.format(text="two"))
    assert load_catalog(read(folder)).names() == {"greet_of_the_folder", "tool-call"}
    assert await greet() == "two"
    (folder / "one.py").write_text(PROGRAM.format(text="one again"))
    with pytest.raises(ConfigErrors, match="greet_of_the_folder"):
        load_catalog(read(folder))
    assert await greet() == "two"


async def test_what_is_in_a_file_now_counts_whatever_its_time_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = folder / "one.py"
    for text in ("one", "two"):
        file.write_text(PROGRAM.format(text=text))  # as long as before
        os.utime(file, (1_000_000_000, 1_000_000_000))  # as in images that are built the same twice
        load_catalog(read(folder))
        assert await greet() == text
    assert [each.name for each in folder.iterdir()] == ["one.py"], "nothing is written beside it"


async def test_broken_folder_changes_nothing(folder: Path) -> None:
    (folder / "one.py").write_text(PROGRAM.format(text="before"))
    load_catalog(read(folder))
    before, other = sys.modules[f"{PACKAGE}.one"], sys.modules.get(f"{PACKAGE}.two")
    (folder / "one.py").write_text(PROGRAM.format(text="after"))
    (folder / "two.py").write_text("import nothing_of_this_name")
    with pytest.raises(ConfigErrors, match=r"two\.py:1: import"):
        load_catalog(read(folder))
    assert await greet() == "before"
    assert sys.modules[f"{PACKAGE}.one"] is before
    assert sys.modules.get(f"{PACKAGE}.two") is other
    (folder / "two.py").unlink()
    load_catalog(read(folder))
    assert await greet() == "after"


def test_tables_that_need_a_restart_are_named(folder: Path) -> None:
    started = read(folder).service
    file = folder.parent / "config.toml"
    assert needing_a_restart(started, started) == []
    file.write_text(SERVICE.replace('"deny"', '"see-only"').replace("ann@", "bo@"))
    assert needing_a_restart(started, read(folder).service) == []
    more = '[email]\nhost = "mail.acme.eu"\nsender = "a@acme.eu"\n[http.x]\nurl = "https://acme.eu/"\n'
    more += "[limits]\nerp = { at_once = 5 }\n"
    file.write_text(SERVICE.replace("approve.acme", "other.acme") + more)
    assert needing_a_restart(started, read(folder).service) == ["[server]", "[email]", "[http]", "[limits]"]
    file.write_text(SERVICE.replace("external_users", 'app_id = "A0OTHER"\nexternal_users'))
    assert needing_a_restart(started, read(folder).service) == ["[slack]"]
