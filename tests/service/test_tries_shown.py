"""A delivery that is tried again, in a run's timeline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from approvals_bot.durable.core.events import Event, to_micros
from approvals_bot.service.history import history_of

AT = datetime(2026, 3, 2, 10, 40, tzinfo=UTC)
BO = {"channel": "email", "person": {"address": "bo@acme.eu", "name": "Bo Lund"}}


def test_a_failed_delivery_says_when_it_is_tried_again() -> None:
    step = {"id": 1, "name": "send_copy", "input": {"dispatch": {"delivery_id": "d", "to": BO, "occasion": "request"}}}
    failed = {"id": 1, "result": {"kind": "try_again", "error": "the relay can't be reached"}}
    again = {"id": 2, "resume_at": to_micros(AT + timedelta(minutes=2)), "kind": "timeout"}
    other = {"id": 3, "resume_at": to_micros(AT + timedelta(hours=2)), "kind": "timeout"}
    log = [
        Event(1, "step_created", AT, step),
        Event(2, "step_started", AT, {"id": 1, "attempt": 1}),
        Event(3, "step_completed", AT, failed),
        Event(4, "wait_created", AT, again),
        Event(5, "wait_created", AT, other),
        Event(6, "wait_completed", AT + timedelta(minutes=2), {"id": 2}),
    ]
    assert [entry.text for entry in history_of(log).entries] == [
        "Not sent to Bo Lund by email: the relay can't be reached; again at 10:42.",
        "Time limit until 02 Mar 2026, 12:40:00 UTC.",
    ]
