"""Scripted faults for Slack, the mailbox and the targets: what goes wrong, at which call, how often."""

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
    "slow",  # the response takes `seconds`
    "drop_before",  # the connection breaks before anything is done
    "drop_after",  # the connection breaks after the call took effect
    "truncated",  # the call takes effect, but only half of the JSON arrives
    "duplicate",  # an interaction is sent twice
    "delayed",  # an interaction arrives `seconds` late, after the person saw the warning
]


@dataclass(frozen=True, slots=True)
class Fault:
    """A scripted fault of the `nth` matching call from now and the `times - 1` calls after it.

    `method` is a Web API method, `response_url`, `interaction`, `command`, `event`, an SMTP command (`RCPT`, `DATA`), a
    target's name, or `*`. `times: null` means forever.
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
    """Parse one fault, a list of faults, or `{"faults": [...]}`. Raises pydantic's ValidationError."""
    match given:
        case {"faults": list(many)}:
            return FAULTS.validate_python(many)
        case list():
            return FAULTS.validate_python(given)
        case _:
            return [FAULT.validate_python(given)]


class Faults:
    """The scripted faults, each with its count of matching calls so far."""

    def __init__(self) -> None:
        self.script: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        self.script.append((fault, 0))

    def clear(self) -> None:
        self.script.clear()

    def pending(self) -> list[Fault]:
        return [fault for fault, seen in self.script if fault.times is None or seen < fault.nth - 1 + fault.times]

    def next(self, method: str, *channels: str | None) -> Fault | None:
        """Count this call and return its fault, if any. `channels`: every name of the conversation."""
        found: Fault | None = None
        for index, (fault, seen) in enumerate(self.script):
            if fault.method not in ("*", method) or (fault.channel is not None and fault.channel not in channels):
                continue
            self.script[index] = (fault, seen + 1)
            due = seen + 1 >= fault.nth and (fault.times is None or seen + 1 < fault.nth + fault.times)
            if due and found is None:
                found = fault
        return found


class Dropped(Response):
    """A response that cuts the connection instead of answering."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI can't express this. uvicorn's `receive` is a method of the object that holds the transport.
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()
            await until_disconnected(receive)
            return
        # Behind a middleware that wraps `receive`, promise a body and let the server notice that none follows.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        raise ConnectionAbortedError("scripted fault: the connection breaks here")


class TruncatedResponse(Response):
    """A response that is cut after half of the body that its length announces."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole = bytes(self.body)
        length = str(len(whole)).encode()
        headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is None:
            raise ConnectionAbortedError("scripted fault: the connection breaks here")
        transport.close()  # this flushes what was written first
        await until_disconnected(receive)


async def until_disconnected(receive: Receive) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
