"""Processes of the product that are forked from one that has imported it: 0.2 instead of 1.5 CPU seconds a start.

Everything after the imports is as in a process of its own: folder, environment, output, signals and exit status. What
the interpreter reads from the environment as it starts (`PYTHON…`) is not. Journeys about starting use real processes.
"""

from __future__ import annotations

import array
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

IMPORTED = (
    "approvals_bot.app.service",
    "approvals_bot.channels.slack.bolt_app",
    "approvals_bot.cli.dev",
    "approvals_bot.cli.serve",
    "approvals_bot.playground.playground",
    "slack_bolt.async_app",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)
"""What a service imports before it is ready."""

ROOT = Path(__file__).parents[2]
LONGEST = 1_000_000  # bytes of a request: an environment
STARTED = 60.0  # seconds for the imports on a busy machine


class Forked:
    """A process like `subprocess.Popen`'s, as far as tests use that."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], errors: IO[str]) -> None:
        reading, writing = os.pipe()
        with _connected() as connection, os.fdopen(writing, "wb") as output:
            request = json.dumps([list(arguments), str(folder.absolute()), dict(environment)]).encode()
            handles = array.array("i", [output.fileno(), errors.fileno()])
            connection.sendmsg([b"%9d" % len(request)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)])
            connection.sendall(request)
            self._connection = connection.dup()
        self._answers = self._connection.makefile("r")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None
        self.stdout: IO[str] = os.fdopen(reading, "r")

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status, or minus the signal that ended it. Raises TimeoutExpired."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int(self._answers.readline())
            except TimeoutError:
                raise subprocess.TimeoutExpired("approvals-bot", timeout or 0) from None
            self._answers.close()
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait(1)
        return self.returncode


def run_command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `approvals-bot …` in a folder to its end, as `subprocess.run` does. `environment`: besides the tests' own."""
    with tempfile.TemporaryFile("w+") as errors:
        process = Forked(arguments, folder, os.environ | environment, errors)
        with process.stdout as output:
            printed = output.read()
        status = process.wait(STARTED)
        errors.seek(0)
        return subprocess.CompletedProcess([*arguments], status, printed, errors.read())


@cache
def _parent() -> tuple[Path, subprocess.Popen[bytes]]:
    """Start the process that the others are forked from. It ends with this one: then its standard input is closed."""
    place = Path(tempfile.mkdtemp(prefix="forked")) / "socket"
    line = [sys.executable, "-m", __name__, str(place)]
    pipe = subprocess.PIPE  # as in the forked ones: Python finds out at the start what it can do with its output
    process = subprocess.Popen(line, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    return place, process


def _connected() -> socket.socket:
    place, process = _parent()
    until = time.monotonic() + STARTED
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(place))
            return connection
        except OSError:
            connection.close()
            assert process.poll() is None, "the process to fork from has ended"
            assert time.monotonic() < until, "the process to fork from isn't ready"
            time.sleep(0.02)


# ── in the process that is forked from ────────────────────────────────────────────────────────────────────────────


def serve(place: str) -> None:
    """Import the product and fork for each connection. Returns in the forked processes only."""
    for name in IMPORTED:
        import_module(name)
    commands = import_module("approvals_bot.cli.commands")
    for command in commands.COMMANDS:
        commands.load(command)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen()
        while True:
            if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
                os._exit(0)
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                return _watch(connection)
            connection.close()


def _watch(connection: socket.socket) -> None:
    """Fork once more, say the process's id and how it ended. Returns in that process, ready to run the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, ancillary, *_ = connection.recvmsg(9, socket.CMSG_SPACE(8))
    handles = array.array("i", ancillary[0][2])
    request = b""
    while len(request) < int(size):
        request += connection.recv(LONGEST)
    arguments, folder, environment = json.loads(request)
    child = os.fork()
    if child:
        for handle in handles:
            os.close(handle)
        connection.sendall(b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        with suppress(OSError):  # nobody waits for it any more
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for handle, number in ((nothing, 0), (handles[0], 1), (handles[1], 2)):
        os.dup2(handle, number)
    os.closerange(3, max(handles[1], nothing, connection.detach()) + 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.path[0] = folder
    sys.argv = ["approvals_bot", *arguments]


def main() -> Any:
    serve(sys.argv[1])
    return runpy.run_module("approvals_bot", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
