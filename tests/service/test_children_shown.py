"""How a run shows the children that it waits for: in its history, its timeline, and in what it waits for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from approvals_bot.durable.core.events import Event, EventType
from approvals_bot.durable.store.protocol import RunRecord
from approvals_bot.service.history import history_of
from approvals_bot.service.waiting import waits_of

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def a_log(*events: tuple[EventType, dict[str, Any]]) -> list[Event]:
    return [Event(n, type, T0 + timedelta(minutes=n), data) for n, (type, data) in enumerate(events, 1)]


def child(number: int) -> tuple[EventType, dict[str, Any]]:
    return "child_started", {"id": number, "run_id": f"run_{number}", "workflow": "sign", "input": {}}


def ended(number: int, status: str, **more: Any) -> tuple[EventType, dict[str, Any]]:
    return "child_ended", {"id": number, "run_id": f"run_{number}", "status": status, **more}


LOG = a_log(
    ("run_created", {"run_id": "run_0", "workflow": "contract", "input": {}}),
    ("run_started", {}),
    *(child(number) for number in (1, 2, 3, 4)),
    ended(1, "completed", result=True),
    ended(2, "failed", error={"type": "ValueError", "message": "no"}),
    ("child_cancelled", {"id": 3}),
)


def test_a_run_names_the_children_that_it_waits_for() -> None:
    record = RunRecord.new("run_0", "contract", "contract", None, T0)
    (wait,) = waits_of(record, LOG)
    assert wait.as_json(None) | {"since": ""} == {
        "kind": "child", "since": "", "metadata": None, "workflow": "sign", "run_id": "run_4",
    }  # fmt: skip


def test_history_and_timeline_name_children() -> None:
    history = history_of(LOG)
    assert [(span.kind, span.label, span.ending) for span in history.spans] == [
        ("child", "sign", "done"), ("child", "sign", "failed"),
        ("child", "sign", "cancelled"), ("child", "sign", "open"),
    ]  # fmt: skip
    assert [(entry.text, entry.detail) for entry in history.entries][-4:] == [
        ("Started sign as run run_4, and waiting for it.", ""),
        ("Run run_1 completed.", ""),
        ("Run run_2 failed.", "ValueError: no"),
        ("sign is no longer waited for, and was asked to cancel.", ""),
    ]
