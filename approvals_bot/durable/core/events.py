"""The events of a run: one vocabulary, and the key that makes an event unique in its log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

EventType = Literal[
    "run_created",
    "run_started",
    "run_completed",
    "run_failed",
    "run_cancelled",
    "run_reset",
    "run_continued",
    "cancel_requested",
    "step_created",
    "step_started",
    "step_retrying",
    "step_completed",
    "step_failed",
    "step_cancelled",
    "hook_created",
    "hook_received",
    "hook_responded",
    "hook_refused",
    "hook_disposed",
    "hook_conflict",
    "wait_created",
    "wait_completed",
    "wait_cancelled",
    "attributes_set",
    "child_started",
    "child_ended",
    "child_cancelled",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
ENDINGS: frozenset[str] = frozenset({"run_completed", "run_failed", "run_cancelled", "run_reset", "run_continued"})
FACTS: frozenset[str] = frozenset(
    {"step_retrying", "step_completed", "step_failed", "hook_received", "wait_completed", "run_started"}
    | {"cancel_requested", "child_ended"}
)
"""Events that happened outside. All others are decisions: a replay asked for them."""
CREATIONS: frozenset[str] = frozenset(
    {"step_created", "hook_created", "hook_conflict", "wait_created", "attributes_set", "child_started"}
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Return microseconds since 1970, which is how the stores keep time: exact and indexable."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware UTC datetime of this many microseconds since 1970."""
    return _EPOCH + _MICROSECOND * micros


def new_run_id(now: datetime, entropy: bytes) -> str:
    """Return an ID for a run that is created now. IDs sort by time."""
    return f"run_{to_micros(now) // 1000:011x}{entropy[:8].hex()}"


class NewEvent(NamedTuple):
    """An event that isn't in a log yet. `data["id"]` is the number of its command, if it has one."""

    type: EventType
    data: dict[str, Any]

    @property
    def key(self) -> str:
        """The event's key, unique within a run: a second event with it is the same one, written twice."""
        return _KEYS[self.type].format_map(self.data)


_KEYS: dict[EventType, str] = {
    "run_created": "run_created",
    "run_started": "run_started",
    "run_completed": "end",
    "run_failed": "end",
    "run_cancelled": "end",
    "run_reset": "end",
    "run_continued": "end",
    "cancel_requested": "cancel",
    "step_created": "#{id}",
    "step_started": "{id}.step_started.{attempt}",
    "step_retrying": "{id}.step_retrying.{attempt}",
    "step_completed": "{id}.done",
    "step_failed": "{id}.done",
    "step_cancelled": "{id}.done",
    "hook_created": "#{id}",
    "hook_received": "{id}.received.{resume_id}",
    "hook_responded": "{id}.responded.{to}",
    "hook_refused": "{id}.refused.{to}",
    "hook_disposed": "{id}.disposed",
    "hook_conflict": "#{id}",
    "wait_created": "#{id}",
    "wait_completed": "{id}.done",
    "wait_cancelled": "{id}.done",
    "attributes_set": "#{id}",
    "child_started": "#{id}",
    "child_ended": "{id}.done",
    "child_cancelled": "{id}.done",
}


class Event(NamedTuple):
    """One entry of a run's log. `seq` counts from 1 without gaps; `at` never goes back within a run."""

    seq: int
    type: EventType
    at: datetime
    data: dict[str, Any]

    @property
    def key(self) -> str:
        """The event's key, as in `NewEvent.key`."""
        return _KEYS[self.type].format_map(self.data)


Log = list[Event]


def is_whole_step(event: Event | NewEvent) -> bool:
    """Return whether this event is all that a log has of its step: a look-up that ended in the batch that asked for it.

    It is a decision, as its `step_created` would be, and says the step's outcome as well. Nothing runs it again, so it
    has no input.
    """
    return event.type == "step_completed" and "name" in event.data


def closed_by(event: Event | NewEvent) -> Sequence[int]:
    """Return the numbers of the hooks and timers that end with this event. Each command has another number."""
    match event.type:
        case "hook_disposed" | "wait_cancelled":
            return (event.data["id"],)
        case "hook_responded":
            closed: Sequence[int] = event.data.get("closes", ())
            return closed
        case _:
            return ()


def is_creation(event: Event | NewEvent) -> bool:
    """Return whether the event records a numbered command of the code for the first time."""
    return event.type in CREATIONS or is_whole_step(event)


def began_at(created: Event) -> datetime:
    """Return the time at which a run's body begins: that of its creation, or the later one it was started for."""
    later = created.data.get("begins_at")
    return created.at if later is None else max(created.at, from_micros(later))


def made_in(created: Event, seq: int) -> str:
    """Return the ID of the run that wrote event `seq` first.

    `created` is the first event of the run whose log has it now. After a reset, a log begins with events of an earlier
    run.
    """
    run_id: str = created.data["run_id"]
    reset = created.data.get("reset_of")
    while reset is not None and seq <= reset["seq"]:
        run_id, reset = reset["run_id"], reset.get("before")
    return run_id


class HookInLog(NamedTuple):
    """A hook as a log has it. `number` is what its other events call it."""

    id: str
    number: int
    token: str
    is_open: bool


def number_of(created: Event) -> int:
    """Return the number of a hook that this `hook_created` opens, or adopts: the run had that one before its body."""
    number: int = created.data.get("adopts", created.data["id"])
    return number


def hooks_of(log: Log) -> list[HookInLog]:
    """Return the hooks of a run, those that it had before its body first."""
    closed = {number for event in log for number in closed_by(event)}
    found = [(hook["hook_id"], hook["id"], hook["token"]) for hook in log[0].data.get("hooks", ())]
    found += [
        (event.data["hook_id"], event.data["id"], event.data["token"])
        for event in log
        if event.type == "hook_created" and "adopts" not in event.data
    ]
    return [HookInLog(*each, each[1] not in closed) for each in found]


class ChildInLog(NamedTuple):
    """A child as its parent's log has it."""

    run_id: str
    number: int


def children_of(log: Log) -> list[ChildInLog]:
    """Return the children of a run that haven't ended by its log, those that it had before its body first."""
    ended = {event.data["id"] for event in log if event.type == "child_ended"}
    found = [ChildInLog(child["run_id"], child["id"]) for child in log[0].data.get("children", ())]
    found += [ChildInLog(event.data["run_id"], event.data["id"]) for event in log if event.type == "child_started"]
    return [child for child in found if child.number not in ended]


def cancelled(asked: Event, error: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the data of the `run_cancelled` that ends a run after this `cancel_requested`.

    `error` is what its clean-up failed with, if it did.
    """
    data = {"reason": asked.data["reason"]}
    return data if error is None else data | {"error": error}


def lost_a_token(events: Iterable[Event]) -> bool:
    """Return whether a hook among these didn't get its token. Its workflow sees that in the next replay."""
    for event in events:  # noqa: SIM110  # a generator costs more than the loop, and every write asks
        if event.type == "hook_conflict":
            return True
    return False
