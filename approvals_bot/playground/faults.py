"""Scripted faults: what goes wrong, at which call, how often. One script serves Slack, the mailbox and the targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

FaultKind = Literal[
    "rate_limited",  # HTTP 429 with Retry-After
    "error",  # ok:false with `error` · SMTP: `code` · target: `code`
    "server_error",  # HTTP 500 with a page of HTML
    "slow",  # the answer comes after `seconds`
    "drop_before",  # the connection breaks, nothing was done
    "drop_after",  # it was done, then the connection breaks
    "truncated",  # it was done, and half of the JSON arrives
    "duplicate",  # an interaction is sent twice
    "delayed",  # an interaction arrives `seconds` late; the person has long seen the warning
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One scripted fault: the `nth` matching call from now and the `times - 1` after it go wrong.

    `method` is a Web API method, `interaction`, `command`, `event`, an SMTP command (`RCPT`, `DATA`), a target's name,
    or `*`. `times: null` means for ever.
    """

    kind: FaultKind
    method: str = "*"
    channel: str | None = None
    nth: Annotated[int, Field(ge=1)] = 1
    times: Annotated[int, Field(ge=1)] | None = 1
    error: str = "internal_error"
    retry_after: Annotated[int, Field(ge=0)] = 1
    seconds: Annotated[float, Field(ge=0, le=3600)] = 4.0
    code: Annotated[int, Field(ge=200, le=599)] = 451


FAULT = TypeAdapter(Fault)
FAULTS = TypeAdapter(list[Fault])


def read_faults(given: Any) -> list[Fault]:
    """One fault, a list of them, or `{"faults": [...]}`; pydantic's ValidationError says what is wrong."""
    match given:
        case {"faults": list(many)}:
            return FAULTS.validate_python(many)
        case list():
            return FAULTS.validate_python(given)
        case _:
            return [FAULT.validate_python(given)]


class Faults:
    """The script, with how many matching calls each line has seen."""

    def __init__(self) -> None:
        self.script: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        self.script.append((fault, 0))

    def clear(self) -> None:
        self.script.clear()

    def pending(self) -> list[Fault]:
        return [fault for fault, seen in self.script if fault.times is None or seen < fault.nth - 1 + fault.times]

    def next(self, method: str, *channels: str | None) -> Fault | None:
        """The fault that befalls this call, if any. `channels`: every name that the place has."""
        strikes: Fault | None = None
        for index, (fault, seen) in enumerate(self.script):
            if fault.method not in ("*", method) or (fault.channel is not None and fault.channel not in channels):
                continue
            self.script[index] = (fault, seen + 1)
            due = seen + 1 >= fault.nth and (fault.times is None or seen + 1 < fault.nth + fault.times)
            if due and strikes is None:
                strikes = fault
        return strikes
