"""The changes to the process while workflows run: a guard around their bodies, and two patches of asyncio.

Importing this module changes nothing. `installed()` makes the changes and undoes them: an engine is inside it while
it is open, and so is `replay()`. The changes are:

- An audit hook (PEP 578) keeps real I/O out of workflow bodies. A body that opens a file, a socket, a thread or a
  process gets an error that says what it called and where, and what to do instead. That holds for the `finally` blocks
  of a run that is thrown away, too: they run after every replay. The interpreter calls audit hooks before such
  operations. Unless a body is running, ours looks only at the event's name, which costs 0.1 µs a call. Python can't
  remove an audit hook, so it stays afterwards and does nothing.
- Some calls raise no audit event, or only from Python 3.13 on: `_ANNOUNCED` lists them. They are wrapped, and restored
  afterwards. So is one that a module with workflows has imported by name. One that a helper module has imported by name
  is not caught.
- `asyncio.gather` and `asyncio.as_completed` wait for each appearance of a hook among their arguments, and
  `as_completed` creates its tasks in the order given, when a workflow calls them. Elsewhere they are unchanged. The
  function objects stay the same and get other code, because `from asyncio import gather` in an author's file runs long
  before an engine opens. Their own code is restored afterwards.
- A cancel scope of anyio hashes by the birth of its task while a workflow is inside it, as our tasks do. anyio keeps
  child scopes in a set and cancels in its order, which would otherwise depend on addresses. This needs anyio to be
  imported before the engine opens. (A scope has no child scopes of the same task at the same time.)
"""

from __future__ import annotations

import _socket
import _thread
import asyncio
import functools
import inspect
import logging
import os
import signal
import sys
import sysconfig
import threading
import time
import zoneinfo
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import CodeType, FrameType, FunctionType
from typing import Any

from approvals_bot.durable.core.hooks import each_appearance
from approvals_bot.durable.core.loop import WorkflowLoop, context_of_run
from approvals_bot.durable.core.registry import registry
from approvals_bot.errors import BlockedInWorkflowError

try:
    import _posixsubprocess
except ImportError:  # not a POSIX system
    _posixsubprocess = None  # type: ignore[assignment]

logger = logging.getLogger("approvals_bot.durable.core")

_WHAT = {
    "open a file": "open",
    "open a database": "sqlite3.connect",
    "read a directory": "os.listdir os.scandir os.walk os.fwalk os.getxattr os.listxattr "
    "glob.glob pathlib.Path.glob pathlib.Path.rglob",
    "change files": "os.remove os.rename os.mkdir os.rmdir os.link os.symlink os.truncate os.chmod os.chown os.chflags "
    "os.utime os.setxattr os.removexattr os.mkfifo os.mknod "
    "shutil.chown shutil.copyfile shutil.copymode shutil.copystat shutil.copytree shutil.move shutil.rmtree "
    "shutil.make_archive shutil.unpack_archive tempfile.mkstemp tempfile.mkdtemp",
    "lock or control a file": "os.lockf fcntl.fcntl fcntl.flock fcntl.ioctl fcntl.lockf",
    "open a socket": "socket.__new__",
    "connect to another machine": "socket.connect ftplib.connect http.client.connect imaplib.open poplib.connect "
    "smtplib.connect urllib.Request",
    "listen on a port": "socket.bind",
    "send over the network": "socket.sendto socket.sendmsg",
    "look up a host": "socket.getaddrinfo socket.getnameinfo socket.gethostbyname socket.gethostbyaddr",
    "block": "time.sleep",
    "start a process": "subprocess.Popen os.system os.exec os.fork os.forkpty os.posix_spawn os.spawn os.startfile "
    "os.startfile/2 pty.spawn webbrowser.open",
    "start a thread": "_thread.start_new_thread _thread.start_joinable_thread",
    "send a signal": "os.kill os.killpg signal.pthread_kill signal.raise_signal",
    "end the process": "os._exit os.abort",
    "change the process": "os.chdir os.putenv os.unsetenv resource.setrlimit resource.prlimit socket.sethostname "
    "signal.signal signal.alarm signal.setitimer signal.set_wakeup_fd",
    "write to the system's log": "syslog.openlog syslog.syslog",
    "read from the terminal": "builtins.input",
}
_BLOCKED = {event: what for what, events in _WHAT.items() for event in events.split()}
"""What a body may not do, by audit event. Writing to stdout and stderr is allowed: `print` helps while writing one."""

_LISTS = frozenset({"os.listdir", "os.scandir", "glob.glob"})
"""Reads of a directory that name it in their first argument."""

_STDLIB = sysconfig.get_path("stdlib")
_LIBRARIES = tuple({_STDLIB, *(sysconfig.get_path(name) for name in ("platstdlib", "purelib", "platlib"))})
_OUR_OWN = (*_LIBRARIES, *zoneinfo.TZPATH)
_MAY_READ = tuple(
    f"{_STDLIB}/{name}" for name in ("importlib", "linecache.py", "tokenize.py", "zoneinfo", "logging", "weakref.py")
)
"""Code that may read files for a body: imports, tracebacks, time zones, log handlers that open late, finalizers."""

_THROWN_AWAY: CodeType = WorkflowLoop.throw_away.__code__
_BODIES = frozenset({WorkflowLoop.run_until_idle.__code__, _THROWN_AWAY})
"""The functions of the loop that run a body: until it waits, and its `finally` blocks when its run is thrown away."""


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _sandbox.users and event in _BLOCKED and context_of_run.get(None) is not None:
        _refuse(event, args, sys._getframe(1))


def _refuse(event: str, args: tuple[Any, ...], frame: FrameType | None) -> None:
    if (event == "open" and _is_harmless(args)) or (event in _LISTS and _is_in_a_library(args[0])):
        return
    place: FrameType | None = None
    while frame is not None and frame.f_code not in _BODIES:
        name = frame.f_code.co_filename
        if name.startswith(("<frozen importlib", "<frozen zipimport", *_MAY_READ)):
            return
        if place is None and not name.startswith((*_LIBRARIES, "<frozen", __file__)):
            place = frame
        frame = frame.f_back
    if frame is None:
        return  # called by the replay around the body, not by the body
    where = "" if place is None else f" ({place.f_code.co_filename}:{place.f_lineno})"
    called = {"time.sleep": "time.sleep(); await sleep() waits durably"}.get(event, f"{event}()")
    error = BlockedInWorkflowError(f"A workflow can't {_BLOCKED[event]} ({called}): do that in a @step.{where}")
    if frame.f_code is _THROWN_AWAY and str(error) not in _sandbox.reported:
        # Nobody sees this error, as the run only waits. Its `finally` runs again when the block really ends.
        _sandbox.reported.add(str(error))
        logger.warning("Refused in a `finally`, which also runs each time the run is suspended: %s", error)
    raise error


def _is_harmless(args: tuple[Any, ...]) -> bool:
    """Return whether this opens a library's file for reading, or a descriptor that is open already.

    (`subprocess` does the latter just before the call that is refused.)
    """
    path, mode, flags = (*args, None, None, None)[:3]
    reads = not (set(mode) & set("wax+")) if isinstance(mode, str) else not (isinstance(flags, int) and flags & 3)
    return isinstance(path, int) or (reads and _is_in_a_library(path))


def _is_in_a_library(path: Any) -> bool:
    return isinstance(path, str) and path.startswith(_OUR_OWN)


def _announced(call: Callable[..., Any], event: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def announced(*args: Any, **options: Any) -> Any:
        sys.audit(event)
        return call(*args, **options)

    return announced


_SINCE_313 = () if sys.version_info >= (3, 13) else ((time, "sleep"), (_thread, "start_new_thread"))
_ANNOUNCED: tuple[tuple[Any, str, str], ...] = (
    *((owner, name, f"{owner.__name__}.{name}") for owner, name in _SINCE_313),
    *(() if sys.version_info >= (3, 13) else ((threading.Thread, "start", "_thread.start_new_thread"),)),
    *((os, name, f"os.{name}") for name in ("_exit", "abort", "mkfifo", "mknod") if hasattr(os, name)),
    *(
        (signal, name, f"signal.{name}")
        for name in ("signal", "raise_signal", "alarm", "setitimer", "set_wakeup_fd")
        if hasattr(signal, name)
    ),
    (_socket, "socketpair", "socket.__new__"),
    # `multiprocessing` starts processes with this one, and looks it up each time; `subprocess` has imported it by name.
    *(() if _posixsubprocess is None else ((_posixsubprocess, "fork_exec", "subprocess.Popen"),)),
)
"""Calls that raise no audit event of their own in this Python, and the event to raise."""


def _redirected_gather(*coros_or_futures: Any, return_exceptions: bool = False) -> Any:
    """Replace the code of `asyncio.gather`."""
    ours: Any = "approvals_bot"
    return ours(*coros_or_futures, return_exceptions=return_exceptions)


def _redirected_as_completed(fs: Any, *, timeout: Any = None) -> Any:
    """Replace the code of `asyncio.as_completed`."""
    ours: Any = "approvals_bot"
    return ours(fs, timeout=timeout)


_PLACE = "approvals_bot"
"""The constant in the code of the two that is replaced by a function of ours.

So `asyncio.tasks` needs no new name, and a call that has begun when the code is restored still has its function.
"""


def _in_workflow() -> bool:
    return isinstance(asyncio._get_running_loop(), WorkflowLoop)


def _gather(original: Any) -> Any:
    def gather(*awaitables: Any, return_exceptions: bool) -> Any:
        if _in_workflow():
            awaitables = tuple(each_appearance(awaitables))
        return original(*awaitables, return_exceptions=return_exceptions)

    return gather


def _as_completed(original: Any) -> Any:
    def as_completed(awaitables: Iterable[Any], *, timeout: float | None) -> Any:
        """Make the tasks in the order given. asyncio would make them in the order of a set of coroutines, which
        depends on their addresses and differs between processes."""
        if _in_workflow() and not inspect.isawaitable(awaitables):
            awaitables = [asyncio.ensure_future(each) for each in dict.fromkeys(each_appearance(awaitables))]
        return original(awaitables, timeout=timeout)

    return as_completed


def _hash_of_scope(scope: Any) -> int:
    host = scope._host_task  # anyio sets it before it puts the scope into a set, and clears it afterwards
    return hash(host) if host is not None and isinstance(host.get_loop(), WorkflowLoop) else object.__hash__(scope)


class _Sandbox:
    """The changes that are in force, and the number of their users."""

    def __init__(self) -> None:
        self.users = 0
        self.reported: set[str] = set()  # refusals that were logged, because no run fails with them
        # Reentrant, because the collector may close a forgotten generator, and so end its block, while we hold it.
        # The holder counts as a user, so such an end never undoes anything.
        self._lock = threading.RLock()
        self._has_hook = False
        self._replaced: list[tuple[Any, str, Any, Any]] = []  # owner, name, what was there, ours
        self._announced: dict[int, tuple[Any, Any]] = {}  # what was there and ours, by the identity of the former
        self._imported: list[tuple[dict[str, Any], str, Any, Any]] = []  # likewise, by name, in modules with workflows
        self._redirected: list[tuple[Any, CodeType]] = []  # functions of asyncio, and their own code

    def enter(self) -> None:
        with self._lock:
            self.users += 1
            if self.users == 1:
                self._install()
            self._cover_modules()

    def leave(self) -> None:
        with self._lock:
            self.users -= 1
            if self.users == 0:
                self._undo()

    def _install(self) -> None:
        if not self._has_hook:
            self._has_hook = True
            sys.addaudithook(_audit)
        for owner, name, event in _ANNOUNCED:
            call = getattr(owner, name)
            ours = _announced(call, event)
            setattr(owner, name, ours)
            self._replaced.append((owner, name, call, ours))
            self._announced[id(call)] = call, ours
        if "anyio" in sys.modules:
            scope = import_module("anyio._backends._asyncio").CancelScope
            self._replaced.append((scope, "__hash__", scope.__hash__, _hash_of_scope))
            scope.__hash__ = _hash_of_scope
        self._redirect(asyncio.tasks.gather, _redirected_gather, _gather)
        self._redirect(asyncio.tasks.as_completed, _redirected_as_completed, _as_completed)

    def _cover_modules(self) -> None:
        """Replace what modules with workflows have imported by name, also those that came after the first user."""
        for module in registry.modules():
            for name, value in [*module.items()]:
                if id(value) in self._announced:
                    module[name] = self._announced[id(value)][1]
                    self._imported.append((module, name, *self._announced[id(value)]))

    def _redirect(self, function: Any, code_from: Any, make: Callable[[Any], Any]) -> None:
        """Give a function the code of another, which calls what `make` makes of the original."""
        own: CodeType = function.__code__
        original = FunctionType(own, function.__globals__, function.__name__, function.__defaults__)
        original.__kwdefaults__ = function.__kwdefaults__
        ours, code = make(original), code_from.__code__
        self._redirected.append((function, own))
        function.__code__ = code.replace(co_consts=tuple(ours if c == _PLACE else c for c in code.co_consts))

    def _undo(self) -> None:
        for owner, name, before, ours in self._replaced:
            if getattr(owner, name) is ours:  # otherwise somebody has wrapped ours since, and it has to stay
                setattr(owner, name, before)
        self._replaced.clear()
        for module, name, before, ours in self._imported:
            if module.get(name) is ours:
                module[name] = before
        self._imported.clear()
        self._announced.clear()
        for function, own in self._redirected:
            function.__code__ = own
        self._redirected.clear()


_sandbox = _Sandbox()


@contextmanager
def installed() -> Iterator[None]:
    """Keep the changes in force inside the block. Blocks may nest and overlap; the last one to end undoes them."""
    _sandbox.enter()
    try:
        yield
    finally:
        _sandbox.leave()
