"""Real I/O in a workflow's body fails at once, and the error says where and what to do instead."""

from __future__ import annotations

import _thread
import asyncio
import fcntl
import http.client
import multiprocessing
import os
import shutil
import signal
import smtplib
import socket
import sqlite3
import subprocess
import sys
import syslog
import tempfile
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import sleep as sleep_by_name
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from approvals_bot import create_hook, workflow
from approvals_bot.durable.core.sandbox import installed
from approvals_bot.testing import History


def connect() -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))


NOWHERE = "/nonexistent/of/the/guard/test"

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

CALLED: dict[str, Callable[[], Any]] = {
    "os.remove": lambda: os.remove(NOWHERE),
    "os.remove, as unlink": lambda: os.unlink(NOWHERE),
    "os.remove, of pathlib": lambda: Path(NOWHERE).unlink(),
    "os.rename": lambda: os.rename(NOWHERE, NOWHERE),
    "os.rename, as replace": lambda: os.replace(NOWHERE, NOWHERE),
    "os.mkdir": lambda: os.mkdir(NOWHERE),
    "os.mkdir, as makedirs": lambda: os.makedirs("/nonexistent"),
    "os.rmdir": lambda: os.rmdir(NOWHERE),
    "os.link": lambda: os.link(NOWHERE, NOWHERE),
    "os.symlink": lambda: os.symlink(NOWHERE, NOWHERE),
    "os.truncate": lambda: os.truncate(NOWHERE, 0),
    "os.chmod": lambda: os.chmod(NOWHERE, 0),
    "os.chown": lambda: os.chown(NOWHERE, 0, 0),
    "os.utime": lambda: os.utime(NOWHERE),
    "os.mkfifo": lambda: os.mkfifo(NOWHERE),
    "os.mknod": lambda: os.mknod(NOWHERE),
    "os.chdir": lambda: os.chdir(NOWHERE),
    "os.putenv": lambda: os.environ.__setitem__("APPROVALS_BOT_GUARD", "1"),
    "os.unsetenv": lambda: os.environ.pop("PATH"),
    "os.kill": lambda: os.kill(os.getpid(), 0),
    "os.killpg": lambda: os.killpg(os.getpgrp(), 0),
    "os._exit": lambda: os._exit(3),
    "os.abort": lambda: os.abort(),
    "os.fork": lambda: os.fork() or os._exit(0),
    "os.exec": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
    "os.posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "os.scandir": lambda: list(os.scandir("/")),
    "open": lambda: Path(NOWHERE).write_text(""),
    "os.utime, as touch": lambda: Path(NOWHERE).touch(),
    "subprocess.Popen": lambda: os.popen("true").close(),  # noqa: S605
    "subprocess.Popen, of multiprocessing": lambda: multiprocessing.get_context("spawn").Process(target=int).start(),
    "os.fork, of multiprocessing": lambda: multiprocessing.get_context("fork").Process(target=int).start(),
    "signal.signal": lambda: signal.signal(signal.SIGUSR1, signal.SIG_DFL),
    "signal.raise_signal": lambda: signal.raise_signal(signal.SIGUSR1),
    "signal.alarm": lambda: signal.alarm(0),
    "signal.setitimer": lambda: signal.setitimer(signal.ITIMER_REAL, 0),
    "signal.pthread_kill": lambda: signal.pthread_kill(threading.get_ident(), 0),
    "shutil.rmtree": lambda: shutil.rmtree(NOWHERE),
    "shutil.copyfile": lambda: shutil.copy(__file__, NOWHERE),
    "shutil.move": lambda: shutil.move(NOWHERE, NOWHERE),
    "tempfile.mkdtemp": tempfile.mkdtemp,
    "tempfile.mkstemp": tempfile.mkstemp,
    "open, of tempfile": tempfile.TemporaryFile,
    "socket.__new__": socket.socket,
    "socket.__new__, as socketpair": socket.socketpair,
    "smtplib.connect": lambda: smtplib.SMTP("127.0.0.1", 9),
    "http.client.connect": lambda: http.client.HTTPConnection("127.0.0.1", 9).connect(),
    "urllib.Request": lambda: urllib.request.urlopen("http://127.0.0.1:9/"),
    "_thread.start_new_thread": lambda: _thread.start_new_thread(int, ()),
    "_thread.start, as a timer": lambda: threading.Timer(0, int).start(),
    "_thread.start, of a pool": lambda: ThreadPoolExecutor(1).submit(int),
    "fcntl.flock": lambda: fcntl.flock(1, fcntl.LOCK_UN),
    "syslog.": lambda: syslog.syslog("said by a workflow"),
    "sqlite3.connect": lambda: sqlite3.connect(NOWHERE),
    "builtins.input": input,
    "time.sleep": lambda: time.sleep(0),
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
@pytest.mark.parametrize("how", CALLED)
def test_a_refusal_names_what_was_called(how: str) -> None:
    @workflow
    async def naughty() -> None:
        CALLED[how]()

    run = History(naughty)
    run.decide()
    assert run.error["type"] == "BlockedInWorkflowError"
    assert f"({how.partition(',')[0]}" in run.error["message"]


@pytest.mark.parametrize("how", [*BLOCKED, *CALLED])
def test_the_finally_of_a_suspended_body_is_guarded(how: str) -> None:
    errors: list[str] = []

    @workflow
    async def naughty() -> None:
        try:
            await create_hook(token="t")
        finally:
            try:
                (BLOCKED.get(how) or CALLED[how])()
            except BaseException as error:
                errors.append(type(error).__name__)
                raise

    run = History(naughty)
    assert run.decide() == ["hook #1"]
    assert errors == ["BlockedInWorkflowError"]


def test_a_refusal_in_a_suspended_finally_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    made: list[asyncio.AbstractEventLoop] = []

    @workflow
    async def tidies_up() -> str:
        async def waits(token: str) -> None:
            try:
                await create_hook(token=token)
            finally:
                made.append(asyncio.get_event_loop())
                os.remove(NOWHERE)

        await asyncio.gather(waits("a"), waits("b"), return_exceptions=True)
        return "done"

    run = History(tidies_up)
    run.decide()
    run.decide()
    assert {type(loop).__name__ for loop in made} == {"WorkflowLoop"}
    (record,) = caplog.records
    assert "os.remove()" in record.getMessage()
    assert "test_guard.py:" in record.getMessage()
    run.receive(1)
    run.receive(2)
    run.decide()
    assert run.result == "done"


def test_printing_and_reading_the_files_of_libraries_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    @workflow
    async def prints() -> int:
        print("here")  # noqa: T201  # that is the case
        return len(os.listdir(os.path.dirname(asyncio.__file__))) and len(Path(asyncio.__file__).read_text())

    run = History(prints)
    run.decide()
    assert run.result > 0
    assert "here" in capsys.readouterr().out


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


def test_a_module_that_comes_after_an_engine_is_covered_too() -> None:
    imported: dict[str, Any] = {"by_name": sleep_by_name, "__name__": "later"}
    with installed():
        exec("async def naughty():\n    by_name(0)", imported)  # noqa: S102
        run = History(workflow(name="guard-later")(imported["naughty"]))
        run.decide()
    assert run.error["type"] == "BlockedInWorkflowError"


FORGOTTEN = """
import asyncio, inspect, sys
from approvals_bot.durable.core.sandbox import installed

def hold():
    with installed():
        yield

def collect(frame, event, argument):
    # Close the generator in the middle of `enter`, as the garbage collector may at any allocation.
    if event == "call" and frame.f_code.co_name == "_cover_modules":
        forgotten.close()

own = asyncio.tasks.gather.__code__
forgotten = hold()
next(forgotten)
sys.setprofile(collect)
with installed():
    sys.setprofile(None)
    assert inspect.getgeneratorstate(forgotten) == "GEN_CLOSED"
    assert asyncio.tasks.gather.__code__ is not own
assert asyncio.tasks.gather.__code__ is own
"""


@pytest.mark.timeout(60)
def test_a_forgotten_block_may_end_while_another_begins() -> None:
    """In a process of its own: in this one, a test that lets an engine die may hold a block, too."""
    done = subprocess.run([sys.executable, "-c", FORGOTTEN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
