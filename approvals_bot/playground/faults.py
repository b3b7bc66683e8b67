"""Scripted faults: what goes wrong, at which call, how often. One script serves Slack, the mailbox and the targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

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


class Dropped(Response):
    """The connection is cut without an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI has no word for this. uvicorn's `receive` is a method of the object that holds the transport.
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()
            await until_disconnected(receive)
            return
        # Behind a middleware that wraps `receive`: promise a body and let the server find out that none comes.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        raise ConnectionAbortedError("scripted fault: the connection breaks here")


class TruncatedResponse(Response):
    """The length says so much, and half of it comes before the connection is cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole = bytes(self.body)
        length = str(len(whole)).encode()
        headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is None:
            raise ConnectionAbortedError("scripted fault: the connection breaks here")
        transport.close()  # after what was written has left
        await until_disconnected(receive)


async def until_disconnected(receive: Receive) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
