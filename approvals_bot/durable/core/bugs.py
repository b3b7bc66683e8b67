"""What an error of a workflow's body means: an outcome, which fails the run, or a bug, which stalls it."""

from __future__ import annotations

import builtins
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from approvals_bot.errors import AnnotationError, ApprovalsBotError, DefinitionError, StepFailedError

PACKAGE = __name__.partition(".")[0]
ENGINE = f"{PACKAGE}.durable."

FAILS = (ApprovalsBotError, ValueError, RuntimeError, TimeoutError, OSError)
"""What people raise on purpose, about data and about the world. An author's own classes are the same kind of thing."""

STALLS = (
    NameError,
    AttributeError,
    TypeError,
    LookupError,
    ImportError,
    AssertionError,
    RecursionError,
    NotImplementedError,
    AnnotationError,
    DefinitionError,
)
"""What Python raises about the code, and we about steps and hooks that a body makes. So are the other classes in
`builtins`: ZeroDivisionError, StopIteration, …"""

_BUILTINS = {kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, Exception)} - {
    Exception
}
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class FailureRules:
    """What `@workflow(fails_on=(…), stalls_on=(…))` says about a workflow's errors, above the rules for all.

    A failed run is over for good, while days pass between a question and its answer: a release in between may have a
    bug. So only an error that somebody meant ends a run. Any other stalls it, and it goes on once the code is mended.
    """

    def __init__(self, fails_on: Iterable[type[Exception]] = (), stalls_on: Iterable[type[Exception]] = ()) -> None:
        """Raises TypeError for anything but classes of exceptions, ValueError for one that is in both."""
        self.fails_on = _classes(fails_on, "fails_on")
        self.stalls_on = _classes(stalls_on, "stalls_on")
        for kind in self.fails_on:
            if kind in self.stalls_on:
                raise ValueError(f"@workflow: {kind.__name__} is in fails_on and in stalls_on; it can only do one")

    def bug_in(self, error: BaseException, outcomes: Sequence[BaseException] = ()) -> BaseException | None:
        """Return the error that stalls the run, or None if the run fails with this error.

        The nearest class in the error's MRO that has a rule decides:

        - Those of the workflow's own rules come first.
        - The classes of FAILS fail the run, except where this package's code raised one that isn't an
          ApprovalsBotError: every error that we mean is one, so the others are our bugs.
        - The classes of STALLS and other builtins stall it. RecursionError and NotImplementedError are RuntimeErrors,
          but nearer. UnicodeDecodeError and pydantic's ValidationError are ValueErrors, so they fail. A class that an
          author has derived from KeyError is a LookupError, so it stalls.
        - No other class has a rule. Such errors stall the run where this package's code raised them. All others fail:
          they are authors' and libraries' own.

        A StepFailedError fails the run whatever its cause: the step's own retries have dealt with that. So do the
        errors in `outcomes`, with which children have failed: their own rules have judged those. A group stalls
        the run if one of its members does, however deep, and then that member is returned. An error that isn't an
        Exception (a cancellation, Ctrl-C) is never a bug.
        """
        rest = [error]
        while rest:
            error = rest.pop()
            own = self._by_own_rule(error)
            if own is None and isinstance(error, BaseExceptionGroup):
                rest += reversed(error.exceptions)
            elif (_is_bug(error) and not _is_among(error, outcomes)) if own is None else own:
                return error
        return None

    def _by_own_rule(self, error: BaseException) -> bool | None:
        """Return whether the workflow's rules make this a bug. None if they don't say.

        For a group, only a rule about groups counts; a rule about `Exception` is about its members.
        """
        for kind in type(error).__mro__:
            if isinstance(error, BaseExceptionGroup) and not issubclass(kind, BaseExceptionGroup):
                return None
            if kind in self.fails_on:
                return False
            if kind in self.stalls_on:
                return True
        return None


def _classes(given: Any, option: str) -> tuple[type[Exception], ...]:
    if isinstance(given, type) or not isinstance(given, Iterable):
        raise TypeError(f"@workflow: {option} takes a tuple of exception classes, like {option}=(KeyError,)")
    classes = tuple(given)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(f"@workflow: {option} takes classes of exceptions, and {each!r} is not one")
    return classes


def _is_among(error: BaseException, errors: Sequence[BaseException]) -> bool:
    return any(error is each for each in errors)


def _is_bug(error: BaseException) -> bool:
    if not isinstance(error, Exception):
        return False
    if type(error) is RuntimeError and isinstance(error.__cause__, StopIteration | StopAsyncIteration):
        return True  # the body raised StopIteration, which Python doesn't let out of a coroutine (PEP 479)
    for kind in type(error).__mro__:
        if kind is ApprovalsBotError:
            return False
        if kind in FAILS:
            return _is_ours(error)
        if kind in STALLS:
            return True
    return any(kind in _BUILTINS for kind in type(error).__mro__) or _is_ours(error)


def bug_of_author(error: BaseException) -> BaseException | None:
    """Return this error if an author's code raised it, or called the library that did, and it is a bug."""
    return error if _is_bug(error) and not _is_ours(error) and any(map(_is_authors, _frames(error))) else None


# ── where it was raised ───────────────────────────────────────────────────────────────────────────────────────────


def _frames(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _module(frame: TracebackType) -> str:
    return str(frame.tb_frame.f_globals.get("__name__", ""))


def _is_in_package(frame: TracebackType) -> bool:
    return _module(frame).partition(".")[0] == PACKAGE


def _is_library(frame: TracebackType) -> bool:
    file = frame.tb_frame.f_code.co_filename
    if file.startswith("<"):  # code without a file is its module's: made by a dataclass, or typed at a prompt
        file = frame.tb_frame.f_globals.get("__file__") or file
    is_library = file.startswith((*_LIBRARIES, "<frozen")) or "site-packages" in file
    return is_library and not _is_in_package(frame)


def _is_authors(frame: TracebackType) -> bool:
    return not _is_in_package(frame) and not _is_library(frame)


def _is_ours(error: BaseException) -> bool:
    """Return whether this package's code raised it, or called the library that did."""
    innermost = None
    for frame in _frames(error):
        if not _is_library(frame):
            innermost = frame
    return innermost is not None and _is_in_package(innermost)


def where_raised(error: BaseException) -> str:
    """Return the file and line that raised the error, like `workflows/refund.py:17`. Empty if that is unknown.

    It is the innermost line of the author's code or of this package's, apart from the engine's, and in a file if there
    is one. The path begins at the root of its package, so it has nothing of the machine.
    """
    found: tuple[int, TracebackType] | None = None
    for frame in _frames(error):
        rank = _rank(frame)
        if found is None or rank >= found[0]:
            found = rank, frame
    if found is None:
        return ""
    return f"{_path_from_root(found[1])}:{found[1].tb_lineno}"


def _rank(frame: TracebackType) -> int:
    """Return how much this frame says to the workflow's author."""
    if _is_library(frame):
        return 0
    if _module(frame).startswith(ENGINE):
        return 1
    return 2 if frame.tb_frame.f_code.co_filename.startswith("<") else 3


def _path_from_root(frame: TracebackType) -> str:
    """Return the frame's file, with as many folders as its module is deep in packages."""
    parts = frame.tb_frame.f_code.co_filename.replace("\\", "/").split("/")
    depth = _module(frame).count(".") + (2 if parts[-1] == "__init__.py" else 1)
    return "/".join(parts[-depth:])


def step_behind(error: BaseException) -> StepFailedError | None:
    """Return the step's final failure that this error was raised because of, or while it was handled."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        if isinstance(at, StepFailedError):
            return at
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return None
