"""Real I/O in a workflow's body fails at once, and the error says where and what to do instead."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import sleep as sleep_by_name
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from approvals_bot import workflow
from approvals_bot.testing import History


def connect() -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))


BLOCKED: dict[str, Callable[[], Any]] = {
    "open a file": lambda: open(__file__).close(),
    "pathlib": lambda: Path(__file__).read_text(),
    "write": lambda: open(os.devnull, "w").close(),
    "os.open": lambda: os.close(os.open(__file__, os.O_RDONLY)),
    "list": lambda: os.listdir("."),
    "connect": connect,
    "look up": lambda: socket.getaddrinfo("localhost", 80),
    "sleep": lambda: time.sleep(0),
    "process": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "system": lambda: os.system("true"),  # noqa: S605
    "thread": lambda: threading.Thread(target=print).start(),
    "database": lambda: sqlite3.connect(":memory:"),
}


@pytest.mark.conformance(131)
@pytest.mark.parametrize("how", BLOCKED)
def test_blocking_calls_in_a_body_are_refused_with_their_line(how: str) -> None:
    @workflow
    async def naughty() -> None:
        BLOCKED[how]()

    run = History(naughty)
    run.decide()
    assert run.error["type"] == "BlockedInWorkflowError"
    assert "do that in a @step" in run.error["message"]
    assert "test_guard.py:" in run.error["message"]


@pytest.mark.conformance(131)
@pytest.mark.parametrize("how", ["to_thread", "open_connection", "create_subprocess_exec", "run_in_executor"])
def test_asyncio_calls_that_reach_outside_are_refused_too(how: str) -> None:
    @workflow
    async def naughty() -> None:
        match how:
            case "to_thread":
                await asyncio.to_thread(print)
            case "open_connection":
                await asyncio.open_connection("127.0.0.1", 9)
            case "create_subprocess_exec":
                await asyncio.create_subprocess_exec("true")
            case _:
                await asyncio.get_running_loop().run_in_executor(None, print)

    run = History(naughty)
    run.decide()
    assert run.error["type"] == "BlockedInWorkflowError"
    assert "do that in a @step" in run.error["message"]


def test_a_sleep_that_was_imported_by_name_is_refused_too() -> None:
    @workflow
    async def naughty() -> None:
        sleep_by_name(0)

    run = History(naughty)
    run.decide()
    assert run.error["type"] == "BlockedInWorkflowError"
    assert "test_guard.py:" in run.error["message"]
    assert sleep_by_name is time.sleep, "it is put back"


def test_imports_time_zones_and_tracebacks_still_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_in_a_body.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    ZoneInfo.clear_cache()

    @workflow
    async def good() -> list[Any]:
        import imported_in_a_body  # type: ignore[import-not-found]

        try:
            raise ValueError("seen")
        except ValueError:
            text = traceback.format_exc()
        local = datetime(2026, 7, 1, 12, tzinfo=UTC).astimezone(ZoneInfo("Europe/Vienna"))
        return [imported_in_a_body.ANSWER, local.hour, 'raise ValueError("seen")' in text]

    run = History(good)
    run.decide()
    assert run.result == [42, 14, True]


def test_nothing_is_blocked_outside_a_body() -> None:
    for how in ("open a file", "list", "sleep", "database"):
        made = BLOCKED[how]()
        if how == "database":
            made.close()
