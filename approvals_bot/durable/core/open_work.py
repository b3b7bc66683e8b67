"""What a run waits for: its open steps, timers and children."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.core.signature import Signature


class StepCode(Protocol):
    """The part of a step that replays and attempts need."""

    name: str
    function: Callable[..., Any]
    signature: Signature
    retries: int
    timeout: float | None  # seconds, of one attempt
    limit: str | None
    line: tuple[str, int]  # the file and the line where it is defined
    is_async: bool
    waits_for_a_place: bool  # each attempt waits for a thread, or for the step's limit, first
    only_reads: bool  # it has no effect, and begins nothing that must be finished before it first waits

    def delay(self, failures: int, seed: str) -> float:
        """Return the seconds before the attempt that follows this many failed ones."""


@dataclass(slots=True)
class OpenStep:
    """A step that has no outcome yet, and what the log says about it."""

    id: int
    step: StepCode
    input: dict[str, Any]
    failures: int = 0  # attempts that raised; crashes of the process don't count
    started: set[int] = field(default_factory=set)  # attempts that have begun
    first_started_at: datetime | None = None
    retry_at: datetime | None = None
    seq: int = 0  # of its `step_created`; 0 until that is delivered
    future: asyncio.Future[Any] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)  # of the run, when it asked for the step


OF_CANCELLATION = 0
"""The number of the timer at which a cancelled run is ended. The body has created those from 1 on."""


@dataclass(slots=True)
class OpenTimer:
    """A timer that has neither fired nor been cancelled."""

    id: int
    resume_at: datetime
    kind: Literal["sleep", "timeout"]
    fire: Callable[[], None]


@dataclass(frozen=True, slots=True)
class OpenChild:
    """A child that the run waits for. The future gets the data of its `child_ended`."""

    id: int
    run_id: str
    future: asyncio.Future[dict[str, Any]]

    def end(self, data: dict[str, Any]) -> None:
        if not self.future.done():
            self.future.set_result(data)
