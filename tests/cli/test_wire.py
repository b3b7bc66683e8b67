"""What a stranger can hold of HTTP connections, over raw sockets and with both of uvicorn's parsers."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest

from approvals_bot.cli.wire import (
    BODY_END,
    HEAD_BYTES,
    HEAD_TIME,
    IDLE_TIME,
    LINGER,
    TimedConnection,
    file_limit,
    room,
)
from tests.support.served import PARSERS, Site, served, status

HEAD = b"GET /fast HTTP/1.1\r\nHost: a.example\r\n"


@pytest.fixture(params=PARSERS)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with served(request.param) as site:
        yield site


async def closes(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 30)
    return b""


async def test_half_a_head_ends_after_its_time(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(HEAD)
    connection = await site.one(lambda each: each.head_since is not None)
    assert connection.head_since is not None
    connection.check(connection.head_since + HEAD_TIME - 0.1)
    assert not refused(connection)
    writer.write(b"X: drip\r\n")  # a byte now and then buys no time
    await asyncio.sleep(0.05)
    connection.check(connection.head_since + HEAD_TIME + 0.1)
    answer = await closes(reader)
    assert status(answer) == 408
    assert b"content-security-policy" in answer.lower()
    assert refused(connection)
    connection.check((connection.refused_at or 0) + LINGER + 0.1)
    writer.close()


def refused(connection: TimedConnection) -> bool:
    return connection.refused_at is not None


async def test_a_quiet_connection_ends_after_its_time(site: Site) -> None:
    reader, writer = await site.connect()
    connection = await site.one()
    connection.check(connection.heard + IDLE_TIME - 1)
    assert not connection.transport.is_closing()
    connection.check(connection.heard + IDLE_TIME + 1)
    assert await closes(reader) == b""
    writer.close()


async def test_a_connection_is_kept_between_requests_and_then_ends(site: Site) -> None:
    reader, writer = await site.connect()
    for _ in range(2):
        writer.write(HEAD + b"\r\n")
        assert status(await reader.readuntil(b"\r\n\r\n")) == 200
    connection = await site.one()
    assert connection.head_since is None
    connection.check(connection.heard + HEAD_TIME + 1)
    assert not connection.transport.is_closing()
    connection.check(connection.heard + IDLE_TIME + 1)
    assert connection.transport.is_closing()
    writer.close()


async def test_half_a_body_ends_after_its_time(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\nabc")
    connection = await site.one(lambda each: each.reads_body() and each.is_working)
    connection.check(connection.body_since + BODY_END - 0.1)
    assert not connection.transport.is_closing()
    connection.check(connection.body_since + BODY_END + 0.1)
    assert await closes(reader) == b""
    writer.close()


async def test_a_body_that_nobody_reads_ends_after_its_time(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"POST /fast HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9000\r\n\r\nabc")
    assert status(await reader.readuntil(b"\r\n\r\n")) == 200
    connection = await site.one()
    assert not connection.is_working
    assert connection.reads_body()
    connection.check(connection.body_since + BODY_END + 0.1)
    assert connection.transport.is_closing()
    writer.close()


async def test_an_answer_may_take_as_long_as_it_likes(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n")
    connection = await site.one(lambda each: each.is_working)
    connection.check(connection.heard + 3_600)
    assert not connection.transport.is_closing()
    site.go_on.set()
    assert status(await reader.readuntil(b"\r\n\r\n")) == 200
    writer.close()


async def test_a_caller_that_takes_nothing_of_its_answer_ends(site: Site) -> None:
    _, writer = await site.connect()
    writer.write(b"GET /huge HTTP/1.1\r\nHost: a.example\r\n\r\n")
    connection = await site.one(lambda each: each.transport.get_write_buffer_size() > 0)
    connection.check(connection.heard + 1)
    connection.check(connection.heard + IDLE_TIME + 1)
    async with asyncio.timeout(30):
        while connection in site.server.server_state.connections:
            await asyncio.sleep(0.01)
    writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "wanted"),
    [
        (HEAD + b"\r\n", 200),
        (b"GET /" + b"a" * 7_000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", 200),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", 414),
        (b"GET /" + b"a" * (HEAD_BYTES + 1), 414),
        (b"GET /" + b"a" * 10_000_000, 414),
        (HEAD + b"X: " + b"a" * 31_000 + b"\r\n\r\n", 200),
        (HEAD + b"X: " + b"a" * 32_500 + b"\r\n\r\n", 431),
        (HEAD + b"X: a\r\n" * 9_000, 431),
        (HEAD + b"X: a\r\n" * 2_000_000, 431),
        (HEAD + b"Cookie: " + b"a" * 9_000 + b"\r\n\r\n", 431),
        (HEAD + b"Host: b.example\r\n\r\n", 400),
        (b"GET /fast HTTP/1.1\r\n\r\n", 400),
        (b"GET /fast HTTP/1.0\r\n\r\n", 400),
        (b"GET http://b.example/fast HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /fast HTTP/1.1\r\nHost : a.example\r\n\r\n", 400),
        (b"GET /fast HTTP/1.1\r\nHost: a.example\r\nX: a\r\n b\x00\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5, 6\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: -1\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: +5\r\n\r\nhello", 400),
        (
            b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /fast HTTP/1.1\r\nHost: a.example\r\n\r\n",
            400,
        ),
        (
            b"POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
            b"0\r\n\r\n",
            400,
        ),
        (b"POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    ],
)
async def test_what_two_readers_could_read_differently_is_refused(
    site: Site, request_bytes: bytes, wanted: int
) -> None:
    if wanted == 200:
        request_bytes = request_bytes.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    answer = await site.ask(request_bytes)
    assert status(answer) == wanted
    assert answer.count(b"HTTP/1.1 ") == 1  # what came after it is no second request
    assert b"connection: close" in answer.lower()


async def test_an_unknown_method_is_405(service: Any) -> None:
    for parser in PARSERS:
        async with served(parser, app=service.app) as site:
            for method in (b"BREW", b"TRACE", b"PROPFIND"):
                answer = await site.ask(method + b" /inbox HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
                assert status(answer) == 405, (parser, method)


async def test_drops_of_a_head_are_counted_together(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(HEAD)
    with contextlib.suppress(ConnectionError):
        for _ in range(60):
            writer.write(b"X: " + b"a" * 1_000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
    assert status(await closes(reader)) == 431
    writer.close()


CHUNKED = b"POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n"
TRAILERS = b"0\r\nX-User: boss@acme.eu\r\nCookie: approvals=planted\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"


async def test_trailers_are_no_headers(site: Site) -> None:
    for parts in ([b"3\r\nabc\r\n" + TRAILERS], [b"3\r\nabc\r\n", TRAILERS]):
        answer = await site.ask(CHUNKED + b"Connection: close\r\n\r\n" + parts[0], *parts[1:])
        assert (status(answer), answer[-3:]) == (200, b"abc")
        assert [name for name, _ in site.headers] == [b"host", b"transfer-encoding", b"connection"]


@pytest.mark.parametrize("drip", [b"X: " + b"a" * 9_000 + b"\r\n", b"a" * 9_000, b"\r\n" + b"X: a\r\n" * 1_500])
async def test_trailers_end_at_the_limit_of_headers(site: Site, drip: bytes) -> None:
    await ends_while_writing(site, CHUNKED + b"\r\n3\r\nabc\r\n0\r\nX: a\r\nY: ", drip)


async def test_chunk_extensions_end_at_the_limit_of_headers(site: Site) -> None:
    await ends_while_writing(site, CHUNKED + b"\r\n3;", b"a" * 9_000)


async def test_a_next_head_is_limited_while_a_request_is_answered(site: Site) -> None:
    slow = b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n"
    await ends_while_writing(site, slow + HEAD, b"X: " + b"a" * 9_000 + b"\r\n")


async def ends_while_writing(site: Site, begin: bytes, drip: bytes) -> None:
    """Check that the service takes no 10 MB of this: it refuses, closes, or reads no more."""
    _, writer = await site.connect()
    writer.write(begin)
    connection = await site.one()
    taken, arrived = 0, connection.data_received

    def count(data: bytes) -> None:
        nonlocal taken
        if connection.refused_at is None:  # what comes after it is dropped
            taken += len(data)
        arrived(data)

    connection.data_received = count  # type: ignore[method-assign]
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(2):
            for _ in range(10_000_000 // len(drip)):
                if connection.refused_at is not None or connection.transport.is_closing():
                    break
                writer.write(drip)
                await writer.drain()
                await asyncio.sleep(0)
    assert taken < 1_000_000
    writer.transport.abort()


async def test_a_body_in_single_bytes_is_taken(site: Site) -> None:
    body = b"1\r\nx\r\n" * 20_000
    answer = await site.ask(CHUNKED + b"Connection: close\r\n\r\n", body, b"0\r\n\r\n")
    assert (status(answer), answer[-20_000:]) == (200, b"x" * 20_000)


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_newcomer_takes_the_place_of_the_quietest(parser: str) -> None:
    async with served(parser, most=5) as site:
        held = []
        for _ in range(5):
            held.append(await site.connect())
            held[-1][1].write(HEAD)
            async with asyncio.timeout(30):
                while len([each for each in site.server.server_state.connections if each.head_since]) < len(held):
                    await asyncio.sleep(0.01)
        for _ in range(3):
            assert status(await site.ask(HEAD + b"Connection: close\r\n\r\n")) == 200
        ended = [reader.at_eof() or await asyncio.wait_for(reader.read(), 30) == b"" for reader, _ in held[:1]]
        assert ended == [True]
        assert len(site.server.server_state.connections) <= 5
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize("parser", PARSERS)
async def test_requests_in_progress_are_never_displaced(parser: str) -> None:
    async with served(parser, most=3) as site:
        waiting = [await site.connect() for _ in range(3)]
        for _, writer in waiting:
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n")
        async with asyncio.timeout(30):
            while sum(each.is_working for each in site.server.server_state.connections) < 3:
                await asyncio.sleep(0.005)
        assert status(await site.ask(b"")) == 503
        site.go_on.set()
        for reader, writer in waiting:
            assert status(await reader.readuntil(b"\r\n\r\n")) == 200
            writer.close()


async def test_pipelined_requests_are_answered_in_turn(site: Site) -> None:
    answer = await site.ask((HEAD + b"\r\n") * 3 + HEAD + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 4


@pytest.mark.parametrize("files", [20, 150, 256, 1_024, 4_096, 65_536, 1_000_000])
def test_connections_leave_files_for_the_store(files: int) -> None:
    most, backlog = room(files)
    assert most >= files // 2 or most == 10_000
    assert most + backlog < files
    assert files - most - backlog >= min(64, files // 5)


def test_the_file_limit_is_raised_as_far_as_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        limit = file_limit()
        assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert limit > 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
