"""Recorded runs of older code replay on this code, from every beginning, to the same commands."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import FOLDER, known_workflows, read
from prefixes import divergences

from approvals_bot.core.events import Event

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
    assert list(divergences(code, history.log, history.link)) == []


def test_there_are_histories_of_every_kind(workflows: dict[tuple[str, str | None], Any]) -> None:
    histories = [read(path) for path in FILES]
    assert {(each.code, each.version) for each in histories} == workflows.keys()
    types = {event.type for each in histories for event in each.log}
    assert types >= {"hook_conflict", "hook_responded", "step_retrying", "step_failed", "wait_cancelled"}
    assert {"run_completed", "run_failed", "run_cancelled"} <= types
    assert sum(len(each.log) for each in histories) > 500


# ── a drifting copy is found ──────────────────────────────────────────────────────────────────────────────────────


def renamed_step(event: Event) -> dict[str, Any] | None:
    return {"name": f"{event.data['name']}_2"} if event.type == "step_created" else None


def other_input(event: Event) -> dict[str, Any] | None:
    return {"input": {"args": ["another"]}} if event.type == "step_created" else None


def later_timer(event: Event) -> dict[str, Any] | None:
    return {"resume_at": event.data["resume_at"] + 1} if event.type == "wait_created" else None


def other_result(event: Event) -> dict[str, Any] | None:
    return {"result": "another"} if event.type == "run_completed" else None


@pytest.mark.parametrize("change", [renamed_step, other_input, later_timer, other_result])
def test_a_log_that_differs_in_one_event_is_found(
    change: Callable[[Event], dict[str, Any] | None], workflows: dict[tuple[str, str | None], Any]
) -> None:
    found = 0
    for history in map(read, FILES):
        for place, event in enumerate(history.log):
            data = change(event)
            if data is not None:
                log = [*history.log[:place], replace(event, data=event.data | data), *history.log[place + 1 :]]
                code = workflows[history.code, history.version]
                assert list(divergences(code, log, history.link, range(place - 3, place + 1))), (history.name, place)
                found += 1
                break
    assert found >= 20


def test_code_that_differs_is_found(workflows: dict[tuple[str, str | None], Any]) -> None:
    async def one_step_less(guest: Any) -> str:
        return "Hello"

    drifted = copy.copy(workflows["greeting", None])
    drifted.function = one_step_less
    kept = [read(path) for path in FILES]
    greetings = [each for each in kept if each.code == "greeting"]
    assert greetings
    for history in greetings:
        assert list(divergences(drifted, history.log, history.link))
