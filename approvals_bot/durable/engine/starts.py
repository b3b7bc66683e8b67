"""What a new run begins with: its row and its first event, whether it is started from outside or by its parent."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.core.commands import CancelChild, Command, StartChild
from approvals_bot.durable.core.serialization import encode, to_json
from approvals_bot.durable.store.protocol import ChildWrites, NewRun, Parent, RunRecord

PYTHON = platform.python_version()


def first_event(
    run_id: str, workflow: Workflow[Any, Any], input: dict[str, Any], attributes: dict[str, Attribute], **more: Any
) -> dict[str, Any]:
    """Return the data of a run's `run_created`. Raises LimitExceededError or SerializationError."""
    data: dict[str, Any] = {"run_id": run_id, "workflow": workflow.name, "input": input, "python": PYTHON}
    if attributes:
        data["attributes"] = encode(attributes)
    if workflow.version is not None:
        data["version"] = workflow.version
    if workflow.signature.takes_bound:
        data["settings"] = workflow.settings
    data |= more
    to_json(data, "the input")
    return data


def first_row(run_id: str, workflow: Workflow[Any, Any], at: datetime, attributes: dict[str, Attribute]) -> RunRecord:
    """Return the row of a run that is created at this time."""
    return RunRecord.new(
        run_id, workflow.name, workflow.code, workflow.version, at, kind=workflow.kind, attributes=attributes
    )


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
    workflow, parent = command.workflow, Parent(run_id, command.id, command.on_parent_close)
    row = first_row(command.run_id, workflow, at, command.attributes)
    data = first_event(command.run_id, workflow, command.input, command.attributes, parent=parent._asdict())
    return NewRun(row._replace(parent=parent), data)
