"""Steps that wait for a place of a limit: what a run's log says of them, and what this process adds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from approvals_bot.durable.core.events import Event, from_micros
from approvals_bot.durable.store.protocol import RunRecord


@dataclass(frozen=True, slots=True)
class InLine:
    """A step that waits for a place of a limit.

    `at_once` is how many attempts the limit lets one process run at a time. `place` is the step's in its line: 1 comes
    next. Either is None if this process doesn't know it; another may have the run.
    """

    limit: str
    since: datetime
    at_once: int | None = None
    place: int | None = None


class PlacesHere(NamedTuple):
    """What one process knows of a run: its steps in line, each with limit and place, and its places in the store.

    `limits` are the process's own.
    """

    steps: Mapping[int, tuple[str, int]]
    parked: Mapping[str, int]
    limits: Mapping[str, int]


def steps_in_line(run: RunRecord, log: Sequence[Event], now: datetime, here: PlacesHere) -> dict[int, InLine]:
    """Return the steps of an open run that wait for a limit, by their numbers.

    Those in no line of this process are known from the log: another process may have the run.
    """
    if run.has_ended or run.stalled is not None:
        return {}
    named = {event.data["id"]: event.data["limit"] for event in log if "limit" in event.data}
    found = {}
    for number, since in _waiting_since(log).items():
        limit, place = here.steps.get(number, (named.get(number), None))
        if limit is not None and since <= now:
            found[number] = InLine(limit, since, here.limits.get(limit), place or here.parked.get(limit))
    return found


def _waiting_since(log: Sequence[Event]) -> dict[int, datetime]:
    """Return since when each step could begin its next attempt, if that isn't in the log yet."""
    since: dict[int, datetime] = {}
    for event in log:
        match event.type:
            case "step_created":
                since[event.data["id"]] = event.at
            case "step_retrying":
                since[event.data["id"]] = from_micros(event.data["retry_at"])
            case "step_started" | "step_completed" | "step_failed" | "step_cancelled":
                since.pop(event.data["id"], None)
    return since
