"""Replicas of the real service on one database, each its own process, and people who click all the time."""

from __future__ import annotations

import itertools
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

ANSWERED = 6.0  # seconds within which everybody has an answer, whatever it says
HEALED = 10.0  # seconds after which clicks are taken again
BUSY = 5.0  # seconds that a very busy machine may add
READY = 90.0  # seconds from the start to the line that says it is ready, on a very busy machine
SOON = 60.0  # seconds for what takes two or three on an idle machine

PROGRAM = ("-P", str(Path(__file__).with_name("replica_program.py")))

CONFIG = """
[server]
base_url     = "http://127.0.0.1:1"
database     = "{url}"
signing_keys = ["env:REPLICAS_SIGN_WITH"]
[api_keys]
desk = {{ key = "env:REPLICAS_DESK", may_vote = true }}
"""

WORKFLOWS = """
import asyncio, os, pathlib, time
from approvals_bot import create_hook, step, workflow

HERE = pathlib.Path(__file__).parent.parent

@step(retries=0)
async def toil(name: str) -> str:
    with (HERE / "effects").open("a") as file:
        file.write(f"{os.getpid()} {name} {time.time()}\\n")
    while (HERE / f"hold-{os.getpid()}-{name}").exists():
        await asyncio.sleep(0.02)
    return name

@workflow(name="toils")
async def toils(given: dict[str, str]) -> str:
    done = await toil(given["name"])
    return done + await create_hook(token=given["name"])

@workflow(name="greetings", version="1")
async def greetings(given: dict[str, str]) -> str:
    return "one " + await create_hook(token=given["name"])

if os.environ["REPLICAS_SCHEMA"]:  # the next release
    @workflow(name="greetings", version="2")
    async def longer_greetings(given: dict[str, str]) -> str:
        await toil(given["name"])
        return "two " + await create_hook(token=given["name"])

@workflow(name="collects")
async def collects(given: dict[str, str]) -> int:
    number = 0
    async for payload in create_hook(given["token"]):
        if payload == "end":
            return number
        number += 1
    return -1
"""


@dataclass(frozen=True)
class Effect:
    """That a process began a piece of work, and when (seconds since 1970)."""

    pid: int
    name: str
    at: float


class Replica:
    """`approvals-bot serve`, of this release, or of one with another schema: see replica_program.py."""

    def __init__(self, folder: Path, schema: str = "", program: Sequence[str] = PROGRAM) -> None:
        self.folder = folder
        self._log = (folder / "log.txt").open("a")
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env |= {"REPLICAS_SIGN_WITH": "k" * 40, "REPLICAS_DESK": "desk-key-of-the-tests-with-32-bytes"}
        env["REPLICAS_SCHEMA"] = schema
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", "--port", "0"],
            cwd=folder, env=env, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self.http = httpx2.Client(
            timeout=20.0, trust_env=False, headers={"authorization": "Bearer desk-key-of-the-tests-with-32-bytes"}
        )

    def ready(self) -> Replica:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.process.stdout, selectors.EVENT_READ)
            line = self.process.stdout.readline() if waiting.select(READY) else "(nothing)"
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, f"not ready: {line!r}\n{(self.folder / 'log.txt').read_text()}"
        self.http.base_url = found[0]
        return self

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit status and the seconds it took."""
        began = time.monotonic()
        self.send(signal.SIGTERM)
        return self.process.wait(SOON), time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SOON)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        self.http.close()

    def start_run(self, workflow: str, **given: str) -> str:
        answer = self.http.post("/api/runs", json={"workflow": workflow, "input": given})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    def run(self, run_id: str, wait: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/api/runs/{run_id}", params={"wait": wait} if wait else {}).json()
        return found

    def events(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get(f"/api/runs/{run_id}/events").json()["events"]
        return found


class Fleet:
    """Replicas with one configuration."""

    def __init__(self, folder: Path, url: str, program: Sequence[str] = PROGRAM) -> None:
        self.folder = folder
        self._program = program
        (folder / "workflows").mkdir()
        (folder / "workflows" / "jobs.py").write_text(WORKFLOWS)
        (folder / "config.toml").write_text(CONFIG.format(url=url))
        self.replicas: list[Replica] = []

    def start(self, number: int, schema: str = "") -> list[Replica]:
        """Start this many replicas at the same time."""
        new = [Replica(self.folder, schema, self._program) for _ in range(number)]
        self.replicas += new
        return [replica.ready() for replica in new]

    def effects(self, name: str) -> list[Effect]:
        """Return which replicas began this piece of work, in order."""
        found = [line.split() for line in self._lines("effects")]
        return [Effect(int(pid), name, float(at)) for pid, done, at in found if done == name]

    def fenced(self) -> list[tuple[int, str]]:
        """Return (replica's pid, run) for each write that was refused."""
        return [(int(pid), run_id) for pid, run_id in (line.split() for line in self._lines("fenced"))]

    def hold(self, replica: Replica, name: str) -> None:
        """Make this piece of work never end on this replica, until `let_go`."""
        (self.folder / f"hold-{replica.pid}-{name}").touch()

    def let_go(self, replica: Replica, name: str) -> None:
        (self.folder / f"hold-{replica.pid}-{name}").unlink()

    def _lines(self, name: str) -> list[str]:
        file = self.folder / name
        return [line for line in file.read_text().split("\n")[:-1] if line] if file.exists() else []

    def close(self) -> None:
        """Kill all replicas. More can be started afterwards."""
        for replica in self.replicas:
            replica.close()
        self.replicas = []


@contextmanager
def fleet(folder: Path, url: str, program: Sequence[str] = PROGRAM) -> Iterator[Fleet]:
    made = Fleet(folder, url, program)
    try:
        yield made
    finally:
        made.close()


def eventually(look: Any, seconds: float = SOON) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it has not happened"
        time.sleep(0.02)
    return found


@dataclass
class Clicks:
    """What became of the clicks of a few people, who each try the next replica when one refuses a click."""

    acknowledged: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0  # seconds to any answer at all
    last_acknowledged: float = 0.0  # monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, key: str, status: str, seconds: float) -> None:
        with self._lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status != "no connection":
                self.slowest = max(self.slowest, seconds)
            if status == "200":
                self.acknowledged.append(key)
                self.last_acknowledged = time.monotonic()


@contextmanager
def people_click(replicas: list[Replica], token: str, people: int = 3) -> Iterator[Clicks]:
    """Let people click this hook while the block runs. `replicas` may change meanwhile."""
    clicks, over, numbers = Clicks(), threading.Event(), itertools.count()

    def click(person: int) -> None:
        with httpx2.Client(timeout=20.0, trust_env=False) as http:
            turn = itertools.count(person)
            while not over.is_set():
                key = f"{person}-{next(numbers)}"
                while not over.is_set() and not _clicked(http, replicas, next(turn), token, key, clicks):
                    time.sleep(0.05)

    threads = [threading.Thread(target=click, args=(person,)) for person in range(people)]
    for thread in threads:
        thread.start()
    try:
        yield clicks
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _clicked(http: httpx2.Client, replicas: list[Replica], turn: int, token: str, key: str, clicks: Clicks) -> bool:
    there = list(replicas)
    replica = there[turn % len(there)]
    began = time.monotonic()
    try:
        answer = http.post(
            f"{replica.http.base_url}/api/hooks/{token}".replace("//api", "/api"),
            content=json.dumps(key),
            headers={"idempotency-key": key, "content-type": "application/json"}
            | {"authorization": replica.http.headers["authorization"]},
        )
        status = str(answer.status_code)
    except httpx2.TransportError as error:
        status = "no answer" if isinstance(error, httpx2.TimeoutException) else "no connection"
    clicks.note(key, status, time.monotonic() - began)
    return status == "200"


def taken(replica: Replica, run_id: str) -> list[str]:
    """Return the payloads in the run's log, in order."""
    return [e["data"]["payload"] for e in replica.events(run_id) if e["type"] == "hook_received"]


def heals(clicks: Clicks) -> None:
    """Check that clicks are accepted again soon after the fault, which ends now."""
    began, count = time.monotonic(), len(clicks.acknowledged)
    eventually(lambda: len(clicks.acknowledged) > count + 10)
    assert time.monotonic() - began < HEALED + BUSY


def nothing_is_lost(replica: Replica, run_id: str, clicks: Clicks) -> None:
    """Check that each acknowledged click is in the log once, and that every click was answered in time."""
    assert set(clicks.statuses) <= {"200", "503", "no connection"}, clicks.statuses
    assert clicks.slowest < ANSWERED + BUSY
    found = taken(replica, run_id)
    assert len(found) == len(set(found)), "each click counts once"
    assert set(clicks.acknowledged) <= set(found), "what was acknowledged is there"
