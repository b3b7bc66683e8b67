"""A running `approvals-bot serve` whose relay, Slack, targets, files and database break on command."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2

from tests.support.tcp_proxy import Dial

WITHIN = 60.0  # seconds from the first act that meets a fault until it is shown
BUSY = 60.0  # seconds more, on a very busy machine
READY = 90.0  # seconds until a process serves
NOBODY = 65_534
KEY = "desk-key-of-the-tests-with-32-bytes"

CONFIG = """
[server]
base_url      = "{base_url}"
database      = "{database}"
signing_keys  = ["file:signing.key"]
admins        = ["ann@acme.eu"]
allow_private = [{allowed}]
[api_keys]
desk = {{ key = "file:desk.key", may_vote = true }}
[people."ann@acme.eu"]
name  = "Ann Ode"
slack = "U0ANN"
[people."bo@acme.eu"]
name = "Bo Lund"
{more}
"""

WORKFLOW = """
[workflow]
id      = "{id}"
title   = "Deploy {{{{ version }}}}"
request = ["*"]
[fields]
version = {{ type = "string", pinned = true }}
[[stage]]
id   = "go"
from = ["{approver}"]
[deliver]
{deliver}
[clock]
deadline = "4h"
{more}
"""


class Gate:
    """A port of this machine that leads somewhere; refuses connections while `shut`, and is silent while `hanging`."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.hanging = False

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._came, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse connections from now on, and break those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.break_all()

    async def break_all(self) -> None:
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def hang(self) -> None:
        self.hanging = True
        await self.break_all()

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError):
                if self.hanging:
                    await asyncio.sleep(600)
                there, back = await self._dial()
                await asyncio.gather(_pass(reader, back), _pass(there, writer))
        except asyncio.CancelledError:
            pass  # shut
        finally:
            self._tasks.discard(task)
            for each in (writer, back):
                if each is not None:
                    each.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def a_gate(dial: Dial) -> AsyncIterator[Gate]:
    gate = Gate(dial)
    await gate.open()
    try:
        yield gate
    finally:
        await gate.shut()


class SmtpRelay:
    """A relay that takes everything, or refuses the login or the sender. `starttls`: how it goes on after STARTTLS."""

    def __init__(self, starttls: ssl.SSLContext | None = None) -> None:
        self.starttls = starttls
        self.mode: Literal["well", "login", "sender"] = "well"
        self.mails = list[bytes]()

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def start(self, stack: AsyncExitStack, tls: Any = None) -> None:
        server = await stack.enter_async_context(await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=tls))
        self.port = server.sockets[0].getsockname()[1]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(b"220 relay.acme.eu ESMTP\r\n")
            while line := await reader.readline():
                if line.upper().startswith(b"DATA"):
                    writer.write(b"354 go on\r\n")
                    await self._mail(reader)
                writer.write(self._answer(line.upper()))
                await writer.drain()
                if line.upper().startswith(b"STARTTLS") and self.starttls is not None:
                    await writer.start_tls(self.starttls)
        writer.transport.abort()

    def _answer(self, line: bytes) -> bytes:
        if line.startswith(b"EHLO"):
            offered = b"" if self.starttls is None else b"250-STARTTLS\r\n"
            return b"250-relay.acme.eu\r\n" + offered + b"250-AUTH PLAIN LOGIN\r\n250 SIZE 10000000\r\n"
        if line.startswith(b"STARTTLS"):
            return b"220 2.0.0 Go ahead\r\n"
        if line.startswith(b"AUTH"):
            return b"535 5.7.8 Bad credentials\r\n" if self.mode == "login" else b"235 2.7.0 Welcome\r\n"
        if line.startswith(b"MAIL") and self.mode == "sender":
            return b"550 5.7.1 Sender address rejected: not owned by user\r\n"
        return b"250 2.0.0 Ok\r\n"

    async def _mail(self, reader: asyncio.StreamReader) -> None:
        lines = list[bytes]()
        while (line := await reader.readline()) not in (b".\r\n", b""):
            lines.append(line)
        self.mails.append(b"".join(lines))


class Target:
    """An HTTP server: a group source, a follow-up's target, an issuer. `answer`: status and body."""

    def __init__(self, status: int = 200, body: str = '{"people": ["ann@acme.eu"]}') -> None:
        self.status, self.body = status, body

    async def start(self, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(await asyncio.start_server(self._talk, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def answer(self, body: str) -> None:
        """Answer with this from now on."""
        self.body = body

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if length := re.search(rb"(?i)content-length: (\d+)", head):
                await reader.readexactly(int(length[1]))
            body = self.body.encode()
            lines = f"HTTP/1.1 {self.status} x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            writer.write(lines.encode() + body)
            await writer.drain()
        writer.close()


@dataclass
class Shown:
    """That a fault was shown: where, after how many seconds, and in what words."""

    fault: str
    where: str
    seconds: float
    words: str


@dataclass
class House:
    """A folder with a configuration, and the processes that serve it."""

    folder: Path
    shown: list[Shown] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    more: str = ""
    database: str = "sqlite:///approvals.db"
    allowed: tuple[int, ...] = ()
    base_url: str = "http://127.0.0.1:1"

    def __post_init__(self) -> None:
        self.write("signing.key", "k" * 40)
        self.write("desk.key", KEY)
        (self.folder / "workflows").mkdir(exist_ok=True)
        self.servers: list[Served] = []

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o600)
        return file

    def workflow(self, id: str, deliver: str = "email = true", approver: str = "ann@acme.eu", more: str = "") -> None:
        self.write(f"workflows/{id}.toml", WORKFLOW.format(id=id, deliver=deliver, approver=approver, more=more))

    def configure(self) -> None:
        allowed = ", ".join(f'"127.0.0.1:{port}"' for port in self.allowed)
        text = CONFIG.format(base_url=self.base_url, database=self.database, allowed=allowed, more=self.more)
        self.write("config.toml", text)

    async def command(self, *words: str) -> tuple[int, str]:
        """Run a command to its end. Returns its status and all that it says."""
        process = await asyncio.create_subprocess_exec(
            *self.prefix, sys.executable, "-m", "approvals_bot", *words, cwd=self.folder, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    @property
    def environment(self) -> dict[str, str]:
        plain = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        return plain | {"PYTHONPATH": str(Path(__file__).parents[2])} | self.env

    async def serve(self, prefix: tuple[str, ...] = ()) -> Served:
        served = Served(self, len(self.servers))
        self.servers.append(served)
        await served.start(prefix)
        return served

    async def doctor(self, fault: str, words: str) -> None:
        """See that `doctor` shows this fault."""
        began = time.monotonic()
        _, said = await self.command("doctor")
        found = re.search(words, said)
        assert found, f"{fault}: doctor doesn't say {words!r}:\n{said}"
        at = said.rfind("\n", 0, found.start()) + 1
        lines = said[at:].split("\n")
        self.note(fault, "doctor", time.monotonic() - began, " ".join(line.strip() for line in lines[:2]))

    def note(self, fault: str, where: str, seconds: float, words: str) -> None:
        assert seconds <= WITHIN + BUSY, f"{fault}: shown after {seconds:.0f} s"
        self.shown.append(Shown(fault, where, seconds, words))
        if (report := os.environ.get("FAULTS_REPORT")) is not None:
            with Path(report).open("a") as file:
                file.write(f"{fault} | {where} | {seconds:.1f} | {words}\n")

    async def close(self) -> None:
        for served in self.servers:
            await served.kill()


class Served:
    """One process that serves, and its log."""

    def __init__(self, house: House, number: int) -> None:
        self.house = house
        self.log = house.folder / f"log-{number}.txt"
        self.url = ""
        self._mark, self._since = 0, 0.0

    async def start(self, prefix: tuple[str, ...] = ()) -> None:
        with self.log.open("a") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.house.prefix, *prefix, sys.executable, "-m", "approvals_bot", "serve", "--port", "0",
                cwd=self.house.folder, env=self.house.environment, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(READY):
            line = (await self.process.stdout.readline()).decode()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, f"not ready: {line!r}\n{self.log.read_text()}"
        self.url = found[0]
        self.mark()

    def mark(self) -> None:
        """What is said counts from now on."""
        self._mark, self._since = len(self.log.read_bytes()), time.monotonic()

    def from_start(self) -> None:
        """What was said since the start counts, too."""
        self._mark = 0

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def call(self, method: str, path: str, body: Any = None, key: str = KEY) -> httpx2.Response:
        async with httpx2.AsyncClient(timeout=30.0, trust_env=False) as http:
            headers = {"authorization": f"Bearer {key}"}
            return await http.request(method, self.url + path, json=body, headers=headers)

    async def ask(self, workflow: str) -> httpx2.Response:
        """Open a request."""
        body = {"workflow": workflow, "input": {"version": "2.1"}, "requester": "bo@acme.eu"}
        return await self.call("POST", "/api/runs", body)

    async def opened(self, workflow: str) -> str:
        answer = await self.ask(workflow)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    async def log_shows(self, fault: str, words: str) -> None:
        """See that the log shows this fault, since the last mark."""

        def found() -> str | None:
            text = self.log.read_bytes()[self._mark :].decode()
            return next((line for line in text.splitlines() if re.search(words, line)), None)

        line = await self._until(
            found, lambda: f"{fault}: no line has {words!r}:\n{self.log.read_text()[self._mark :]}"
        )
        self.house.note(fault, "log", time.monotonic() - self._since, line)

    async def ready_shows(self, fault: str, words: str) -> None:
        """See that /readyz shows this fault."""
        said = ""
        until = time.monotonic() + WITHIN + BUSY
        while not re.search(words, said):
            assert time.monotonic() < until, f"{fault}: /readyz doesn't say {words!r}: {said}"
            await asyncio.sleep(0.2)
            answer = await self.call("GET", "/readyz")
            said = f"{answer.status_code} {json.dumps(answer.json())}"
        self.house.note(fault, "/readyz", time.monotonic() - self._since, said)

    async def metric_shows(self, fault: str, words: str) -> None:
        """See that a metric shows this fault."""
        said = ""
        until = time.monotonic() + WITHIN + BUSY
        while not (found := re.search(f"(?m)^{words}$", said)):
            assert time.monotonic() < until, f"{fault}: no metric is {words!r}:\n{said}"
            await asyncio.sleep(0.5)
            said = (await self.call("GET", "/metrics")).text
        self.house.note(fault, "metric", time.monotonic() - self._since, found[0])

    async def _until(self, look: Callable[[], str | None], why: Callable[[], str]) -> str:
        until = time.monotonic() + WITHIN + BUSY
        while (found := look()) is None:
            assert time.monotonic() < until, why()
            await asyncio.sleep(0.1)
        return found


def as_nobody(folder: Path) -> tuple[str, ...]:
    """Give a folder to a user who may not write everywhere, and return what runs a command as that user."""
    if os.geteuid() != 0:
        return ()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@asynccontextmanager
async def a_house(folder: Path) -> AsyncIterator[House]:
    house = House(folder)
    try:
        yield house
    finally:
        await house.close()
