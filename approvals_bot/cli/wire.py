"""HTTP connections: clocks and counts for what a stranger can hold, the same for both parsers of uvicorn.

uvicorn has one clock, for connections that wait for their next request. So a caller could send half a head, or half a
body, and keep the connection for good, or open more of them than the process may have files. Here each connection notes
when it last heard something and what it is in the middle of; `sweep` looks at all of them once a second. A request that
the service is working on is never timed here: long polls and streams may take as long as they like.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, cast

from approvals_bot.service.log_fields import of_request
from approvals_bot.web.guard import HEADER_BYTES, URL_BYTES
from approvals_bot.web.middleware import SECURITY_HEADERS
from approvals_bot.web.responses import Problem
from approvals_bot.web.validation import BODY_TIME

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

HEAD_TIME = 10.0  # seconds from a head's first byte to its last one
BODY_END = BODY_TIME + 2.0  # seconds from a head to the end of its body, after the app's own 408
IDLE_TIME = 75  # seconds without a byte either way; longer than proxies keep their connections (nginx: 60)
LINGER = 3.0  # seconds for a caller to read why it was refused, while what it still sends is dropped
HEAD_BYTES = HEADER_BYTES + URL_BYTES + 1_000  # of an unfinished head; finished ones are measured by the guard
FRAMING = 8  # bytes for each of a body: chunks of single bytes take six

MOST_CONNECTIONS = 10_000  # at a time, if the file limit allows more
RESERVE = 512  # files for the store, mail, Slack and imports, or half of all where there are fewer
BACKLOG = 2_048  # connections that the kernel keeps for us, uvicorn's default

SWEEP_EVERY = 1.0  # seconds

METHOD = re.compile(rb"[A-Z]{3,20} /")  # httptools knows those of the standards; h11 leaves that to the app


def room(files: int) -> tuple[int, int]:
    """Return how many connections a process with this many files may have, and how many may wait for it.

    All that wait can be accepted at once, before the first of them is counted, so they need files, too.
    """
    most = min(MOST_CONNECTIONS, files - min(RESERVE, files // 2))
    return most, max(1, min(BACKLOG, (files - most) // 2))


def file_limit() -> int:
    """Return how many files this process may open, after raising its own limit as far as it may."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 2_048
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MOST_CONNECTIONS
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < best:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
        except (OSError, ValueError):
            return soft
        return best
    return wanted if soft == resource.RLIM_INFINITY else soft


class _Cycle(Protocol):
    """What uvicorn's two classes of a request in progress have in common."""

    response_started: bool
    response_complete: bool


class TimedConnection(asyncio.Protocol):
    """The clocks of a connection, mixed into uvicorn's protocol for one parser."""

    most: ClassVar[int] = MOST_CONNECTIONS

    if TYPE_CHECKING:
        loop: asyncio.AbstractEventLoop
        transport: asyncio.Transport
        connections: set[Any]
        cycle: _Cycle | None

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)  # type: ignore[call-arg]  # uvicorn's, which comes next
        self.heard = self.loop.time()  # when a byte last went either way
        self.head_since: float | None = None  # an unfinished head's first byte
        self.head_bytes = 0
        self.has_line = False  # the unfinished head has at least its first line
        self.body_since = self.heard  # when the newest head was complete
        self.received = b""  # the piece that is being parsed
        self.pending = 0  # bytes that the caller hasn't taken, at the last look
        self.refused_at: float | None = None

    def reads_body(self) -> bool:
        """Whether the body of the newest request is incomplete."""
        raise NotImplementedError

    def reads_head(self) -> bool:
        """Whether what comes now belongs to a head. h11 reads no second one while a request is being answered."""
        return not self.is_working and not self.reads_body()

    @property
    def is_working(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has been quiet for the longest, or this one if all others are being answered."""
        others = [each for each in self.connections if each is not self and not each.transport.is_closing()]
        if len(others) < self.most:
            return
        quiet = [each for each in others if not each.is_working]
        if quiet:
            min(quiet, key=lambda each: each.heard).transport.abort()
        else:
            self.refuse(503, "The service has as many connections as it can take. Try again in a moment.")

    def data_received(self, data: bytes) -> None:
        if self.refused_at is not None:
            return
        self.heard, before, self.received = self.loop.time(), self.cycle, data
        super().data_received(data)
        if self.cycle is not before:
            self.head_since, self.body_since = None, self.heard
        elif self.reads_head():
            self._count_head(data)
        self.received = b""

    def _count_head(self, data: bytes) -> None:
        if self.head_since is None:
            self.head_since, self.head_bytes, self.has_line = self.heard, 0, False
        self.head_bytes += len(data)
        self.has_line = self.has_line or b"\n" in data
        if self.head_bytes > HEAD_BYTES and self.is_working:
            self.transport.abort()  # whatever we said would be taken for the answer to the request before it
        elif self.head_bytes > HEAD_BYTES:
            self._refuse_length()

    def _refuse_length(self) -> None:
        if self.has_line or b"\n" in self.received:
            self.refuse(431, f"The headers may have at most {HEADER_BYTES:,} bytes.")
        else:
            self.refuse(414, f"An address may have at most {URL_BYTES:,} bytes here.")

    def on_response_complete(self) -> None:
        self.heard, self.head_since, before = self.loop.time(), None, self.cycle
        super().on_response_complete()  # type: ignore[misc]  # uvicorn's
        if self.cycle is not before:  # the next request had come already
            self.body_since = self.heard

    def check(self, now: float) -> None:
        """End the connection if its caller keeps it longer than a head, a body or a pause may take."""
        pending = self.transport.get_write_buffer_size()
        if pending != self.pending:
            self.pending, self.heard = pending, now
        is_quiet = now - self.heard > IDLE_TIME
        if self.refused_at is not None:
            if now - self.refused_at > LINGER:
                self.transport.abort()
        elif self.transport.is_closing() or pending:
            if is_quiet:
                self.transport.abort()  # a close would wait for the caller to take what is pending
        elif self.reads_body():
            if now - self.body_since > BODY_END:
                self.transport.close()
        elif self.is_working:
            pass
        elif self.head_since is not None:
            if now - self.head_since > HEAD_TIME:
                self.refuse(408, f"A request's head must arrive within {HEAD_TIME:g} seconds.")
        elif is_quiet:
            self.transport.close()

    def refuse(self, status: int, detail: str) -> None:
        """Say why, and read no more from this connection. It is closed once the caller has had time to read that."""
        if self.refused_at is not None or self.transport.is_closing():
            return
        if self.is_working and self.cycle is not None and self.cycle.response_started:
            self.transport.abort()  # a second answer in the middle of the first would be read as a part of it
            return
        self.refused_at = self.loop.time()
        of_request.set({"request_id": (request_id := secrets.token_hex(8))})  # what the app does for all it gets
        problem = Problem(status, detail=detail, headers={"Connection": "close", "X-Request-Id": request_id})
        response = problem.response()
        response.headers.update(SECURITY_HEADERS)
        head = [b"HTTP/1.1 %d %s" % (status, problem.title.encode())]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser couldn't read; called by uvicorn while it handles the parser's error."""
        error = sys.exc_info()[1]
        if getattr(error, "error_status_hint", 0) == 431:  # h11's
            self._refuse_length()
        elif type(error).__name__ == "HttpParserInvalidMethodError" and METHOD.match(self.received):
            self.refuse(405, "This service has no such method.")
        else:
            self.refuse(400, "This is not an HTTP request with one meaning.")

    def shutdown(self) -> None:
        if self.refused_at is not None:
            self.transport.abort()
        else:
            super().shutdown()  # type: ignore[misc]  # uvicorn's


def http_protocol(parser: str = "auto", *, most: int = MOST_CONNECTIONS) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol for this parser, with our clocks: `h11`, `httptools`, or the faster one there is."""
    if parser == "auto":
        try:
            import httptools  # noqa: F401
        except ModuleNotFoundError:
            parser = "h11"
        else:
            parser = "httptools"
    made = type("HttpConnection", (_httptools() if parser == "httptools" else _h11(),), {"most": most})
    return cast("type[asyncio.Protocol]", made)


def _h11() -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class H11Connection(TimedConnection, H11Protocol):  # type: ignore[misc]  # uvicorn's has no transport at first
        def reads_body(self) -> bool:
            return self.conn.their_state is h11.SEND_BODY

    return H11Connection


def _httptools() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class HttptoolsConnection(TimedConnection, HttpToolsProtocol):  # type: ignore[misc]  # as above
        head_is_open = body_is_open = False
        framing = 0  # bytes since the body's last one: chunk sizes, their extensions, trailers

        def reads_body(self) -> bool:
            return self.body_is_open

        def reads_head(self) -> bool:
            # also that of a next request while one is being answered: uvicorn reads on until it is complete
            return self.head_is_open or super().reads_head()

        def data_received(self, data: bytes) -> None:
            if self.body_is_open:
                self.framing += len(data)
            super().data_received(data)
            if self.body_is_open and self.framing > HEAD_BYTES:
                self.refuse(431, f"A body may bring at most {HEAD_BYTES:,} bytes of trailers and chunk extensions.")

        def on_message_begin(self) -> None:
            self.head_is_open = True
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            # uvicorn would add trailers to the headers, after everybody before us has checked those; h11 drops them
            if not self.body_is_open:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self.head_is_open = False
            if not self.url.startswith(b"/"):
                _refuse_target()
            self.body_is_open, self.framing = True, 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self.framing = max(0, self.framing - FRAMING * len(body))
            super().on_body(body)

        def on_message_complete(self) -> None:
            self.body_is_open = False
            super().on_message_complete()

    return HttptoolsConnection


def _refuse_target() -> NoReturn:
    # httptools would take the path of `GET http://other.example/inbox` for ours, and h11 wouldn't
    raise ValueError("a request names a path")


async def sweep(connections: set[Any]) -> None:
    """Check every connection once a second, for as long as the service runs."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_EVERY)
        now = loop.time()
        for connection in [*connections]:
            connection.check(now)
