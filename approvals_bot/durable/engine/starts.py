"""What a new run begins with: its row and its first event, whether it is started from outside or by its parent."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.attributes import Attribute, Settable
from approvals_bot.durable.core.commands import CancelChild, Command, StartChild
from approvals_bot.durable.core.durations import Duration, as_seconds, seconds_until
from approvals_bot.durable.core.serialization import encode, to_json
from approvals_bot.durable.store.protocol import ChildWrites, NewRun, Parent, RunRecord
from approvals_bot.errors import InvalidArgumentError


class StartOptions(NamedTuple):
    """The options of a start, as `Engine.start` takes them."""

    at: datetime | None = None
    delay: Duration | None = None
    hook_token: str | None = None
    idempotency_key: str | None = None
    attributes: Mapping[str, Settable] | None = None


PYTHON = platform.python_version()


def begins_at(at: datetime | None, delay: Duration | None, now: datetime) -> datetime | None:
    """Return when a run begins that is started now with these options. None: at once. Raises InvalidArgumentError."""
    if at is not None and delay is not None:
        raise InvalidArgumentError("start() takes at or delay, not both")
    if delay is not None:
        if isinstance(delay, datetime):
            raise InvalidArgumentError("delay is a length of time; a datetime goes into at")
        at = now + timedelta(seconds=as_seconds(delay, now))
    elif at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
        raise InvalidArgumentError(f"at must be an aware datetime, with a time zone, not {at!r}")
    return None if at is None or seconds_until(at, now) == 0 else at.astimezone(UTC)


def new_run(
    run_id: str,
    workflow: Workflow[Any, Any],
    input: dict[str, Any],
    attributes: dict[str, Attribute],
    at: datetime,
    **more: Any,
) -> NewRun:
    """Return a run to be created at this time. Raises LimitExceededError or SerializationError.

    `more` is added to the data of its `run_created`.
    """
    data: dict[str, Any] = {"run_id": run_id, "workflow": workflow.name, "input": input, "python": PYTHON}
    if attributes:
        data["attributes"] = encode(attributes)
    if workflow.version is not None:
        data["version"] = workflow.version
    if workflow.signature.takes_bound:
        data["settings"] = workflow.settings
    data |= more
    to_json(data, "the input")
    named = workflow.name, workflow.code, workflow.version
    return NewRun(RunRecord.new(run_id, *named, at, kind=workflow.kind, attributes=attributes), data)


def child_writes(run_id: str, commands: Iterable[Command], at: datetime) -> ChildWrites | None:
    """Return what these commands of a run do to its children. None if they do nothing to them."""
    found = [command for command in commands if isinstance(command, StartChild | CancelChild)]
    return _child_writes(run_id, found, at) if found else None


def _child_writes(run_id: str, commands: Iterable[StartChild | CancelChild], at: datetime) -> ChildWrites:
    started = list[NewRun]()
    given_up = list[int]()
    for command in commands:
        match command:
            case StartChild():
                started.append(_child_of(run_id, command, at))
            case CancelChild():
                given_up.append(command.id)
    return ChildWrites(started, given_up)


def _child_of(run_id: str, command: StartChild, at: datetime) -> NewRun:
    """Return a child. Its first event names its parent, so its log says all that its row does."""
    parent = Parent(run_id, command.id, command.on_parent_close)
    named = {"parent": parent._asdict()}
    new = new_run(command.run_id, command.workflow, command.input, command.attributes, at, **named)
    return new._replace(row=new.row._replace(parent=parent))
