"""Commands: what a workflow can ask for, as frozen values. Each becomes one event when it is appended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.core.events import Event, NewEvent, from_micros, is_whole_step, to_micros
from approvals_bot.durable.core.registry import Workflow

OnParentClose = Literal["cancel", "abandon"]
"""What becomes of a child when its parent ends or gives it up."""


@dataclass(frozen=True, slots=True)
class CreateStep:
    """A request to run a step, at least once, until it has an outcome."""

    id: int
    name: str
    input: dict[str, Any]
    limit: str | None = None  # only so that other processes know what the step waits for

    def event(self, at: datetime) -> NewEvent:
        data = {"id": self.id, "name": self.name, "input": self.input}
        return NewEvent("step_created", data if self.limit is None else data | {"limit": self.limit})

    def is_as(self, recorded: Event) -> bool:
        """Return whether the log has this command under its number."""
        is_step = recorded.type == "step_created" or is_whole_step(recorded)
        return is_step and bool(recorded.data["name"] == self.name)

    def __str__(self) -> str:
        return f"step #{self.id} {self.name!r}"


@dataclass(frozen=True, slots=True)
class CreateHook:
    """A request to open a hook.

    `options` holds what the author gave: `metadata`, `has_schema` and `schema` (as JSON Schema); for a webhook also
    `answer` (how to answer its callers). `adopts` is the number of a hook that the run had before its body.
    """

    id: int
    hook_id: str
    token: str
    options: dict[str, Any]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("hook_created", {"id": self.id, "hook_id": self.hook_id, "token": self.token, **self.options})

    def is_as(self, recorded: Event) -> bool:
        """Return whether the log has this command under its number. (The run compares the tokens.)"""
        return recorded.type in ("hook_created", "hook_conflict")

    def __str__(self) -> str:
        return f"hook #{self.id}"


@dataclass(frozen=True, slots=True)
class StartTimer:
    """A request to wake the run at a time.

    The time is `resume_at`, or `delay` seconds after the append if that is later. So no delay is cut short by the time
    that a replay and a write take. `wake_up` may end a `sleep` early, but not a
    `timeout`.
    """

    id: int
    resume_at: datetime
    kind: Literal["sleep", "timeout"]
    delay: float | None = None

    def event(self, at: datetime) -> NewEvent:
        due = self.resume_at if self.delay is None else max(self.resume_at, at + timedelta(seconds=self.delay))
        return NewEvent("wait_created", {"id": self.id, "resume_at": to_micros(due), "kind": self.kind})

    def is_as(self, recorded: Event) -> bool:
        """Return whether the log has this command under its number."""
        return recorded.type == "wait_created"

    def __str__(self) -> str:
        return f"wait #{self.id}"


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """A change of the run's attributes: encoded values by name, None for one that is removed."""

    id: int
    attributes: dict[str, Any]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("attributes_set", {"id": self.id, "attributes": self.attributes})

    def is_as(self, recorded: Event) -> bool:
        """Return whether the log has this command under its number. (The recorded values count.)"""
        return recorded.type == "attributes_set"

    def __str__(self) -> str:
        return f"attributes #{self.id}"


@dataclass(frozen=True, slots=True)
class StartChild:
    """A request to create a run of another workflow, whose end comes back as `child_ended`."""

    id: int
    run_id: str
    workflow: Workflow[Any, Any]
    input: dict[str, Any]
    on_parent_close: OnParentClose
    attributes: dict[str, Attribute]

    def event(self, at: datetime) -> NewEvent:
        data = {"id": self.id, "run_id": self.run_id, "workflow": self.workflow.name, "input": self.input}
        return NewEvent("child_started", {**data, "on_parent_close": self.on_parent_close})

    def is_as(self, recorded: Event) -> bool:
        """Return whether the log has this command under its number."""
        return recorded.type == "child_started" and recorded.data["workflow"] == self.workflow.name

    def __str__(self) -> str:
        return f"child #{self.id} {self.workflow.name!r}"


@dataclass(frozen=True, slots=True)
class CancelChild:
    """A request to cancel a child that nothing waits for any more."""

    id: int

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("child_cancelled", {"id": self.id})


@dataclass(frozen=True, slots=True)
class CancelStep:
    """A request to stop a step that the body has given up."""

    id: int

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("step_cancelled", {"id": self.id})


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """A request to close a timer that nothing waits for any more."""

    id: int

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("wait_cancelled", {"id": self.id})


@dataclass(frozen=True, slots=True)
class DisposeHook:
    """A request to close a hook and free its token."""

    id: int

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("hook_disposed", {"id": self.id})


@dataclass(frozen=True, slots=True)
class Respond:
    """A request to answer the caller whose payload is event `to`."""

    id: int
    to: int
    answer: dict[str, Any]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("hook_responded", {"id": self.id, "to": self.to, "answer": self.answer})


@dataclass(frozen=True, slots=True)
class Refuse:
    """A request to keep in the log that a payload, that of event `to`, doesn't fit the hook's schema.

    It came before the body gave the schema, so its sender doesn't know. `errors` lists what is wrong where.
    """

    id: int
    to: int
    errors: list[dict[str, Any]]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent("hook_refused", {"id": self.id, "to": self.to, "errors": self.errors})


@dataclass(frozen=True, slots=True)
class End:
    """The end of the body: it returned, raised, cancelled itself, or continues as a new run."""

    type: Literal["run_completed", "run_failed", "run_cancelled", "run_continued"]
    data: dict[str, Any]

    def event(self, at: datetime) -> NewEvent:
        return NewEvent(self.type, self.data)


Creation = CreateStep | CreateHook | StartTimer | SetAttributes | StartChild
Command = Creation | CancelStep | CancelTimer | CancelChild | DisposeHook | Respond | Refuse | End


def events_of(commands: Iterable[Command], at: datetime) -> list[NewEvent]:
    """Return the events that record these commands, in their order.

    What closes right after an answer closes with it: a webhook's last answer, its end and its time limit are one event.
    """
    events = list[NewEvent]()
    for command in commands:
        event = command.event(at)
        if isinstance(command, DisposeHook | CancelTimer) and events and events[-1].type == "hook_responded":
            answer = events[-1].data
            events[-1] = NewEvent("hook_responded", {**answer, "closes": [*answer.get("closes", ()), command.id]})
        else:
            events.append(event)
    return events


_NOT_AT_THE_END = (CreateStep, StartTimer, CancelTimer, CancelChild)


def is_of_use_at_the_end(command: Command) -> bool:
    """Return whether a command that a body gave in its last moments is carried out. Nothing starts after the end."""
    is_over_with_its_parent = isinstance(command, StartChild) and command.on_parent_close == "cancel"
    return not isinstance(command, _NOT_AT_THE_END) and not is_over_with_its_parent


Decision = tuple[str, int]
"""The identity of a decision within its run: what is done, and the number of what it is done to."""


def decision(event: Event) -> Decision | None:
    """Return the decision that a recorded event is, or makes unnecessary. None for a fact or an end."""
    match event.type:
        case "step_created" | "hook_created" | "hook_conflict" | "wait_created" | "attributes_set" | "child_started":
            return "created", event.data["id"]
        case "wait_cancelled" | "wait_completed":
            return "wait_over", event.data["id"]
        case "child_cancelled" | "child_ended":
            return "child_over", event.data["id"]
        case "step_completed" | "step_failed" | "step_cancelled":
            return "step_over", event.data["id"]
        case "hook_disposed":
            return "hook_disposed", event.data["id"]
        case "hook_responded":
            return "responded", event.data["to"]
        case "hook_refused":
            return "refused", event.data["to"]
        case _:
            return None


def describe(event: Event) -> str:
    """Describe a recorded event in the words of `str(command)`, so people can compare the two."""
    match event.type:
        case "step_created" | "step_completed" if "name" in event.data:
            return f"step #{event.data['id']} {event.data['name']!r}"
        case "hook_created" | "hook_conflict":
            return f"hook #{event.data['id']}"
        case "wait_created":
            return f"wait #{event.data['id']}"
        case "attributes_set":
            return f"attributes #{event.data['id']}"
        case "child_started":
            return f"child #{event.data['id']} {event.data['workflow']!r}"
        case "child_cancelled":
            return f"the cancellation of child #{event.data['id']}"
        case "wait_cancelled":
            return f"the end of wait #{event.data['id']}"
        case "step_cancelled":
            return f"the cancellation of step #{event.data['id']}"
        case "hook_disposed":
            return f"the end of hook #{event.data['id']}"
        case "hook_responded":
            return f"an answer to event {event.data['to']}"
        case "hook_refused":
            return f"the refusal of event {event.data['to']}"
        case _:
            return event.type


def resume_at(event: Event | NewEvent) -> datetime:
    """Return when a recorded wait is due."""
    return from_micros(event.data["resume_at"])
