"""Sends HTTP requests over many connections at once, and measures the response times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """A response, and after how many seconds it arrived."""

    status: int
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Loaded:
    """All responses in the order of their requests, and the total seconds."""

    answers: list[Answer]
    seconds: float


def request(method: str, url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Encode a request as it is sent over the wire."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


class Connection:
    """A connection to a service on this machine, for one request after the other."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()

    async def send(self, raw: bytes, status: int = 0) -> Answer:
        """Send a request. Raises RuntimeError if `status` is given, and the response has another."""
        began = time.perf_counter()
        self._writer.write(raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        body = await self._reader.readexactly(_length(head))
        answer = Answer(int(head[9:12]), body, time.perf_counter() - began)
        if status and answer.status != status:
            raise RuntimeError(f"the response has another status: {answer.status} {body!r}")
        return answer


async def load(port: int, requests: Sequence[bytes], at_once: int) -> Loaded:
    """Send all requests over `at_once` connections, each sending one after the other."""
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(requests))

    async def connection() -> None:
        async with Connection(port) as each:
            for number, raw in waiting:
                answers[number] = await each.send(raw)

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(min(at_once, len(requests)))))
    return Loaded([answers[number] for number in range(len(requests))], time.perf_counter() - began)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
