"""Recorded runs of older code replay on this code, from every beginning, to the same commands.

A file's name has its test and the Python it was recorded with.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.core.events import Event, is_whole_step
from tests.support.histories import FOLDER, edited, known_workflows, read
from tests.support.prefixes import divergences

FILES = sorted(FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def workflows() -> dict[tuple[str, str | None], Any]:
    return known_workflows()


def shown(path: Path) -> str:
    with_ = read(path).recorded_with
    return f"{path.stem} (by {with_['approvals_bot']} {with_['commit']}, Python {with_['python']})"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_recorded_run_replays(path: Path, workflows: dict[tuple[str, str | None], Any]) -> None:
    history = read(path)
    code = workflows[history.code, history.version]
    assert list(divergences(code, history.log, history.link, exactly=False)) == []


def test_every_kind_of_workflow_has_a_history(workflows: dict[tuple[str, str | None], Any]) -> None:
    histories = [read(path) for path in FILES]
    missing = workflows.keys() - {(each.code, each.version) for each in histories}
    assert not missing, "run a test of each with --record-histories (CONTRIBUTING.md)"
    types = {event.type for each in histories for event in each.log}
    assert types >= {"hook_conflict", "hook_responded", "step_retrying", "step_failed", "wait_cancelled"}
    assert {"run_completed", "run_failed", "run_cancelled"} <= types
    steps = {event.data.get("name") for each in histories for event in each.log}
    assert steps >= {"write_grant_line", "give_grant", "use_grant"}, "what approvals give"
    assert any("emergency" in each.log[0].data.get("settings", {}) for each in histories)
    assert sum(len(each.log) for each in histories) > 500


# ── what a release has pinned stays ───────────────────────────────────────────────────────────────────────────────


def released() -> list[str]:
    """Return the versions that the changelog has: all but `Unreleased`."""
    changelog = (FOLDER.parents[1] / "CHANGELOG.md").read_text()
    return re.findall(r"^## v?(\d+\.\d+\.\d+)\b", changelog, re.MULTILINE)


def test_histories_of_releases_are_as_they_were() -> None:
    assert {path.stem for path in FOLDER.glob("*.sha256")} == set(released()), "CONTRIBUTING.md: how to release"
    assert [name for path in FOLDER.glob("*.sha256") for name in edited(path)] == []


def test_an_edited_or_deleted_history_is_found(tmp_path: Path) -> None:
    for path in FILES[:3]:
        shutil.copy(path, tmp_path)
    pinned = tmp_path / "0.9.0.sha256"
    pinned.write_text(
        subprocess.check_output(["sha256sum", *(each.name for each in FILES[:3])], cwd=tmp_path, text=True)
    )
    assert edited(pinned) == []
    (tmp_path / FILES[0].name).unlink()
    (tmp_path / FILES[2].name).write_text(FILES[2].read_text().replace("  ", " ", 1))
    assert edited(pinned) == [FILES[0].name, FILES[2].name]


# ── a drifting copy is found ──────────────────────────────────────────────────────────────────────────────────────


def renamed_step(event: Event) -> Event | None:
    is_named = event.type == "step_created" or is_whole_step(event)
    return _with(event, name=f"{event.data['name']}_2") if is_named else None


def other_token(event: Event) -> Event | None:
    is_given = event.type == "hook_created" and len(event.data["token"]) < 20  # not one that was drawn
    return _with(event, token="another") if is_given else None


def other_end(event: Event) -> Event | None:
    return event._replace(type="run_failed") if event.type == "run_completed" else None


def no_answer(event: Event) -> Event | None:
    return _with(event, to=event.data["to"] - 1) if event.type == "hook_responded" else None


def _with(event: Event, **data: Any) -> Event:
    return event._replace(data=event.data | data)


@pytest.mark.parametrize("change", [renamed_step, other_token, other_end, no_answer])
def test_a_log_with_one_changed_event_is_detected(
    change: Callable[[Event], Event | None], workflows: dict[tuple[str, str | None], Any]
) -> None:
    found = 0
    for history in map(read, FILES):
        changed = [(place, other) for place, event in enumerate(history.log) if (other := change(event))]
        for place, other in changed[:1]:
            log = [*history.log[:place], other, *history.log[place + 1 :]]
            code = workflows[history.code, history.version]
            near = range(max(place - 6, 1), place + 2)
            assert list(divergences(code, log, history.link, near, exactly=False)), (history.name, place)
            found += 1
    assert found >= 5


def test_changed_code_is_detected(workflows: dict[tuple[str, str | None], Any]) -> None:
    async def one_step_less(guest: Any) -> str:
        return "Hello"

    drifted = copy.copy(workflows["greeting", None])
    drifted.function = one_step_less
    kept = [read(path) for path in FILES]
    greetings = [each for each in kept if each.code == "greeting"]
    assert greetings
    for history in greetings:
        assert list(divergences(drifted, history.log, history.link, exactly=False))
