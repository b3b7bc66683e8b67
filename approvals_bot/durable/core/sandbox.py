"""Keeps real I/O out of workflow bodies: whoever opens a file, a socket, a thread or a process there hears where, and
what to do instead.

The interpreter announces such calls to audit hooks before it makes them (PEP 578). Ours looks at nothing but the name
of the event unless the body of a workflow is running, so it costs everything else some 0.1 µs a call.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import threading
import time
import zoneinfo
from types import CodeType, FrameType
from typing import Any

from approvals_bot.durable.core.loop import WorkflowLoop, context_of_run
from approvals_bot.errors import BlockedInWorkflowError

_BLOCKED = {
    "open": "open a file",
    "sqlite3.connect": "open a database",
    "socket.connect": "connect to another machine",
    "socket.bind": "listen on a port",
    "socket.sendto": "send over the network",
    "socket.getaddrinfo": "look up a host",
    "socket.gethostbyname": "look up a host",
    "time.sleep": "block with time.sleep() (await sleep() waits durably)",
    "subprocess.Popen": "start a process",
    "os.system": "start a process",
    "os.exec": "start a process",
    "os.fork": "start a process",
    "os.posix_spawn": "start a process",
    "_thread.start_new_thread": "start a thread",
    "_thread.start_joinable_thread": "start a thread",
    "builtins.input": "read from the terminal",
    "os.listdir": "read a directory",
    "os.scandir": "read a directory",
    "os.mkdir": "make a directory",
    "os.rename": "rename a file",
}

_STDLIB = sysconfig.get_path("stdlib")
_LIBRARIES = tuple({_STDLIB, *(sysconfig.get_path(name) for name in ("platstdlib", "purelib", "platlib"))})
_OUR_OWN = (*_LIBRARIES, *zoneinfo.TZPATH)
_MAY_READ = tuple(
    f"{_STDLIB}/{name}" for name in ("importlib", "linecache.py", "tokenize.py", "zoneinfo", "logging", "weakref.py")
)
"""What reads files in anybody's name: imports, tracebacks, time zones, log handlers that open late, finalizers."""

_BODY: CodeType = WorkflowLoop.run_until_idle.__code__


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in _BLOCKED and context_of_run.get(None) is not None:
        _refuse(event, args, sys._getframe(1))


def _refuse(event: str, args: tuple[Any, ...], frame: FrameType | None) -> None:
    if event == "open" and _is_read_of_a_library(args):
        return
    place: FrameType | None = None
    while frame is not None and frame.f_code is not _BODY:
        name = frame.f_code.co_filename
        if name.startswith(("<frozen importlib", "<frozen zipimport", *_MAY_READ)):
            return
        if place is None and not name.startswith((*_LIBRARIES, "<", __file__)):
            place = frame
        frame = frame.f_back
    if frame is None:
        return  # not called by the body: the replay itself, around it
    where = "" if place is None else f" ({place.f_code.co_filename}:{place.f_lineno})"
    raise BlockedInWorkflowError(f"A workflow can't {_BLOCKED[event]}: do that in a @step.{where}")


def _is_read_of_a_library(args: tuple[Any, ...]) -> bool:
    path, mode, flags = (*args, None, None, None)[:3]
    reads = not (set(mode) & set("wax+")) if isinstance(mode, str) else not (isinstance(flags, int) and flags & 3)
    return reads and isinstance(path, str) and path.startswith(_OUR_OWN)


sys.addaudithook(_audit)


def _announce(owner: Any, name: str, event: str) -> None:
    call = getattr(owner, name)

    @functools.wraps(call)
    def announced(*args: Any, **options: Any) -> Any:
        sys.audit(event)
        return call(*args, **options)

    setattr(owner, name, announced)


if sys.version_info < (3, 13):  # from then on the interpreter announces these itself
    _announce(time, "sleep", "time.sleep")
    _announce(threading.Thread, "start", "_thread.start_new_thread")
