"""What a workflow can ask for: frozen values, each of which becomes one event when it is appended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from approvals_bot.durable.core.events import Event, NewEvent, from_micros, to_micros


@dataclass(frozen=True, slots=True)
class CreateStep:
    """Run this step, at least once, until it has an outcome."""

    id: int
    name: str
    input: dict[str, Any]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("step_created", {"id": self.id, "name": self.name, "input": self.input})

    def is_as(self, recorded: Event) -> bool:
        """Whether this is what the log has under this number."""
        return recorded.type == "step_created" and recorded.data["name"] == self.name

    def __str__(self) -> str:
        return f"step #{self.id} {self.name!r}"


@dataclass(frozen=True, slots=True)
class CreateHook:
    """Open a hook.

    `options` are those that were given: `metadata`; `has_schema`; of a webhook, `answer` (how its callers are
    answered), and `on_cancel` (the message that it gets when the run is cancelled).
    """

    id: int
    hook_id: str
    token: str
    options: dict[str, Any]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("hook_created", {"id": self.id, "hook_id": self.hook_id, "token": self.token, **self.options})

    def is_as(self, recorded: Event) -> bool:
        """Whether this is what the log has under this number. (The run compares the tokens.)"""
        return recorded.type in ("hook_created", "hook_conflict")

    def __str__(self) -> str:
        return f"hook #{self.id}"


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Wake the run at this time, or `delay` seconds after the command became durable, so that none is short.

    A `sleep` may be ended early by `wake_up`; a `timeout` may not.
    """

    id: int
    resume_at: datetime
    kind: Literal["sleep", "timeout"]
    delay: float | None = None

    def event(self, at: datetime) -> NewEvent:
        due = self.resume_at if self.delay is None else max(self.resume_at, at + timedelta(seconds=self.delay))
        return NewEvent("wait_created", {"id": self.id, "resume_at": to_micros(due), "kind": self.kind})

    def is_as(self, recorded: Event) -> bool:
        """Whether this is what the log has under this number."""
        return recorded.type == "wait_created"

    def __str__(self) -> str:
        return f"wait #{self.id}"


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Close a timer that nothing waits for any more."""

    id: int

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("wait_cancelled", {"id": self.id})


@dataclass(frozen=True, slots=True)
class DisposeHook:
    """Close this hook and free its token."""

    id: int

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("hook_disposed", {"id": self.id})


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer the caller whose payload is event `to`."""

    id: int
    to: int
    answer: dict[str, Any]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("hook_responded", {"id": self.id, "to": self.to, "answer": self.answer})


@dataclass(frozen=True, slots=True)
class End:
    """The body has ended: it returned, raised, or cancelled itself."""

    type: Literal["run_completed", "run_failed", "run_cancelled"]
    data: dict[str, Any]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent(self.type, self.data)


Creation = CreateStep | CreateHook | StartTimer
Command = Creation | CancelTimer | DisposeHook | Respond | End

Decision = tuple[str, int]
"""What tells a decision from all others of its run: that something is created, or what is done about it."""


def decision(event: Event) -> Decision | None:
    """Which decision a recorded event is, or makes needless. None: a fact, or an end."""
    match event.type:
        case "step_created" | "hook_created" | "hook_conflict" | "wait_created":
            return "created", event.data["id"]
        case "wait_cancelled" | "wait_completed":
            return "wait_over", event.data["id"]
        case "hook_disposed":
            return "hook_disposed", event.data["id"]
        case "hook_responded":
            return "responded", event.data["to"]
        case _:
            return None


def describe(event: Event) -> str:
    """A recorded creation or decision in the words of `str(command)`, for a person who compares the two."""
    match event.type:
        case "step_created":
            return f"step #{event.data['id']} {event.data['name']!r}"
        case "hook_created" | "hook_conflict":
            return f"hook #{event.data['id']}"
        case "wait_created":
            return f"wait #{event.data['id']}"
        case "wait_cancelled":
            return f"the end of wait #{event.data['id']}"
        case "hook_disposed":
            return f"the end of hook #{event.data['id']}"
        case "hook_responded":
            return f"an answer to event {event.data['to']}"
        case _:
            return event.type


def resume_at(event: Event | NewEvent) -> datetime:
    """When a recorded wait is due."""
    return from_micros(event.data["resume_at"])
