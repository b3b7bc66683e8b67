"""SIGTERM and Ctrl-C end the process in time whatever a step does, and what was cut off runs again."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

MOST = 10.0  # seconds from the signal to the end of the process: the promise
READY = 60.0

CONFIG = """
[server]
base_url     = "http://127.0.0.1:8000"
database     = "sqlite:///approvals.db"
signing_keys = ["file:signing.key"]
[api_keys]
ci = { key = "file:ci.key", may_vote = true }
"""

STEPS = '''
import asyncio, ctypes, os, time
from pathlib import Path
from approvals_bot import step, workflow

def began() -> bool:
    """Say that the step has begun. Returns whether it is to hang."""
    Path("began").write_text("yes")
    return not Path("mended").exists()

@step(retries=0)
def sleeps() -> str:
    if began():
        time.sleep(3600)
    return "done"

@step(retries=0)
def is_in_c() -> str:
    if began():
        ctypes.CDLL(None).sleep(3600)
    return "done"

@step(retries=0)
async def swallows() -> str:
    while began():
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass
    return "done"

@step(retries=0)
async def cleans_up_for_long() -> str:
    try:
        if began():
            await asyncio.sleep(3600)
    finally:
        if not Path("mended").exists():
            await asyncio.sleep(3600)
    return "done"

@step(retries=0)
async def fails_when_cut_off() -> str:
    try:
        if began():
            await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise ValueError("the connection was closed") from None
    return "done"

@step(retries=0)
async def blocks_the_loop() -> str:
    if began():
        time.sleep(3600)
    return "done"

@step(retries=0)
async def computes() -> str:
    while began():
        pass
    return "done"

ALL = {each.name: each for each in (
    sleeps, is_in_c, swallows, cleans_up_for_long, fails_when_cut_off, blocks_the_loop, computes
)}

@workflow(name="hangs")
async def hangs(what: str) -> str:
    return await ALL[what]()
'''

SCRIPT = """
import asyncio, signal, sys
from approvals_bot import Engine, start
from steps import hangs

async def main():
    stopped = asyncio.Event()
    if "--handle" in sys.argv:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with Engine.open("sqlite:///approvals.db") as engine:
        print("ready", flush=True)
        run = await engine.start(hangs, sys.argv[1], idempotency_key="one")
        if "--mended" in sys.argv:
            print(await run.return_value(), flush=True)
        else:
            await stopped.wait()

asyncio.run(main())
"""


class Process:
    """A process in a folder of its own, which says when it is ready."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / "log.txt"
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        with self.log.open("a") as log:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.popen.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.popen.stdout, selectors.EVENT_READ)
            assert waiting.select(READY), self.log.read_text()
        self.said = self.popen.stdout.readline()
        assert "ready" in self.said, self.log.read_text()

    def end(self, *signals: signal.Signals, apart: float = 0.5) -> float:
        """Send these signals. Returns the seconds from the first to the end of the process."""
        began = time.monotonic()
        for number, each in enumerate(signals):
            if number:
                time.sleep(apart)
            self.popen.send_signal(each)
        try:
            self.popen.wait(4 * MOST)
        finally:
            self.popen.kill()
            self.popen.wait()
            assert self.popen.stdout is not None
            self.rest = self.popen.stdout.read()
            self.popen.stdout.close()
        return time.monotonic() - began


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "signing.key").write_text("0123456789abcdef0123456789abcdef")
    (tmp_path / "ci.key").write_text("0123456789abcdef0123456789abcdef")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "hangs.py").write_text(STEPS)
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def serve(folder: Path) -> tuple[Process, httpx2.Client]:
    process = Process(folder, "-m", "approvals_bot", "serve", "--port", "0")
    base = process.said.split()[-1]
    key = {"Authorization": f"Bearer {(folder / 'ci.key').read_text()}"}
    return process, httpx2.Client(base_url=base, headers=key, timeout=30, trust_env=False)


def wait_until_begun(folder: Path) -> None:
    until = time.monotonic() + READY
    while not (folder / "began").exists():
        assert time.monotonic() < until, (folder / "log.txt").read_text()
        time.sleep(0.02)


def events(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    database = sqlite3.connect(folder / "approvals.db")
    try:
        rows: Sequence[tuple[str, str]] = database.execute("SELECT type, data FROM events ORDER BY seq").fetchall()
    finally:
        database.close()
    return [(type, json.loads(data)) for type, data in rows]


BLOCKING = ["blocks_the_loop", "computes"]


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("sleeps", marks=pytest.mark.long),
        pytest.param("swallows", marks=pytest.mark.long),
        "blocks_the_loop",
    ],
)
def test_sigterm_ends_the_service_whatever_a_step_does(folder: Path, what: str) -> None:
    process, http = serve(folder)
    with http:
        try:
            opened = http.post("/api/runs", json={"workflow": "hangs", "input": {"what": what}}, timeout=5)
        except httpx2.TimeoutException:
            assert what in BLOCKING
        else:
            assert opened.status_code in (200, 201, 202), opened.text
    wait_until_begun(folder)
    assert process.end(signal.SIGTERM) < MOST
    assert process.popen.returncode == (1 if what in BLOCKING else 0), process.log.read_text()
    ends_again(folder)


def ends_again(folder: Path) -> None:
    """Check that the run goes on in a new process, and that being cut off has used up no retry."""
    assert [type for type, _ in events(folder)][-1] == "step_started"
    (folder / "mended").touch()
    process, http = serve(folder)
    with http:
        run_id = http.get("/api/runs").json()["runs"][0]["id"]
        until = time.monotonic() + READY
        while http.get(f"/api/runs/{run_id}").json()["status"] != "completed":
            assert time.monotonic() < until
            time.sleep(0.05)
    process.end(signal.SIGTERM)
    assert [type for type, _ in events(folder)][-3:] == ["step_started", "step_completed", "run_completed"]


@pytest.mark.parametrize("signals", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_second_signal_gives_steps_no_more_time(folder: Path, signals: list[signal.Signals]) -> None:
    process, http = serve(folder)
    with http:
        http.post("/api/runs", json={"workflow": "hangs", "input": {"what": "sleeps"}})
    wait_until_begun(folder)
    assert process.end(*signals) < MOST / 2
    assert process.popen.returncode == 0, process.log.read_text()
    ends_again(folder)


@pytest.mark.parametrize(
    ("what", "signals"),
    [
        ("swallows", [signal.SIGTERM]),
        *(
            pytest.param(what, signals, marks=pytest.mark.long)
            for what, signals in [
                ("is_in_c", [signal.SIGTERM]),
                ("cleans_up_for_long", [signal.SIGTERM]),
                ("fails_when_cut_off", [signal.SIGINT]),
                ("swallows", [signal.SIGINT, signal.SIGINT]),
                ("sleeps", [signal.SIGTERM, signal.SIGINT]),
            ]
        ),
    ],
)
def test_a_script_that_leaves_its_engine_ends(folder: Path, what: str, signals: list[signal.Signals]) -> None:
    process = Process(folder, "script.py", what, "--handle")
    wait_until_begun(folder)
    assert process.end(*signals) < MOST, process.log.read_text()
    assert [type for type, _ in events(folder)][-1] == "step_started"
    (folder / "mended").touch()
    again = Process(folder, "script.py", what, "--mended")
    assert again.popen.wait(READY) == 0
    again.end()
    assert again.rest == "done\n"
    assert [type for type, _ in events(folder)][-3:] == ["step_started", "step_completed", "run_completed"]


@pytest.mark.parametrize("what", ["sleeps", *BLOCKING])
def test_sigterm_ends_a_plain_script_at_once(folder: Path, what: str) -> None:
    process = Process(folder, "script.py", what)
    wait_until_begun(folder)
    assert process.end(signal.SIGTERM) < MOST / 2
