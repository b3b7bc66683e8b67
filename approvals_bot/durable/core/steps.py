"""Steps, and `@step`, which makes them: what may be one, and what it says about its attempts."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from approvals_bot.durable.core.annotations import signature_of
from approvals_bot.durable.core.durations import Duration, as_seconds
from approvals_bot.durable.core.loop import context_of_run
from approvals_bot.durable.core.registry import Workflow
from approvals_bot.durable.core.run import RunState
from approvals_bot.durable.core.signature import Signature
from approvals_bot.durable.core.threads import call_in_thread
from approvals_bot.errors import DefinitionError, InvalidArgumentError, UnknownLimitError

P = ParamSpec("P")
R = TypeVar("R")

_NO_DATE = datetime(1970, 1, 1, tzinfo=UTC)  # a length of time doesn't depend on where it starts

DEFAULT_RETRIES = 3  # so 4 attempts in all
DEFAULT_RETRY_DELAY = 1.0  # seconds
DEFAULT_BACKOFF = 4.0  # 1 s, 4 s, 16 s
DEFAULT_MAX_DELAY = 3600.0  # seconds


class Step(Generic[P, R]):
    """A function that touches the outside world.

    A workflow runs it at least once and records its result exactly once.
    """

    only_reads = False  # see `StepCode` and engine/lookups.py

    def __init__(
        self,
        function: Callable[P, Any],
        signature: Signature,
        name: str,
        *,
        retries: int = DEFAULT_RETRIES,
        timeout: float | None = None,
        retry_delay: float = DEFAULT_RETRY_DELAY,
        backoff: float = DEFAULT_BACKOFF,
        max_delay: float = DEFAULT_MAX_DELAY,
        jitter: bool = True,
        limit: str | None = None,
        line: tuple[str, int],
    ) -> None:
        """Times are in seconds. `line` is the file and the line where the step is defined."""
        self.limit = limit
        self.function = function
        self.signature = signature
        self.retries = retries
        self.timeout = timeout
        self.retry_delay = retry_delay
        self.backoff = backoff
        self.max_delay = max_delay
        self.jitter = jitter
        self.line = line
        functools.update_wrapper(self, function)
        self.name = self.__name__ = name
        if limit is not None:
            _limited.add(self)

    @property
    def function(self) -> Callable[P, Any]:
        """The function to call. Tests may replace it."""
        return self._function

    @function.setter
    def function(self, function: Callable[P, Any]) -> None:
        self._function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.waits_for_a_place = not self.is_async or self.limit is not None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        # Not Coroutine[Any, …]: mypy would then infer Any for the results of `gather`.
        run: RunState | None = context_of_run.get(None)
        return self._call_alone(args, kwargs) if run is None else run.call_step(self, args, kwargs)

    def _call_alone(self, args: Any, kwargs: Any) -> Coroutine[Any, Any, R]:
        if self.is_async:
            called: Coroutine[Any, Any, R] = self._function(*args, **kwargs)
            return called
        return call_in_thread(self._function, args, kwargs)

    def delay(self, failures: int, seed: str) -> float:
        """Return the seconds before the attempt that follows this many failed ones.

        The same seed gives the same jitter, so a run's times don't depend on the process; other runs have others.
        """
        try:
            delay = min(self.retry_delay * self.backoff ** (failures - 1), self.max_delay)
        except OverflowError:
            delay = self.max_delay
        chance = Random(f"{seed}.{failures}").random() if self.jitter else 1.0  # noqa: S311  # no secret
        return delay * (1 + chance) / 2

    def __repr__(self) -> str:
        return f"<step {self.name}>"


_limited: weakref.WeakSet[Step[..., Any]] = weakref.WeakSet()


def check_limits(known: Collection[str]) -> None:
    """Raise UnknownLimitError if a step has a limit that isn't known."""
    for each in list(_limited):
        _check_limit(each, known)


def check_limits_of(module: str, known: Collection[str] | None) -> None:
    """Check the limits of a module's steps, once. Raises UnknownLimitError. None: every limit is known."""
    for each in list(_limited):
        if each.signature.module == module:
            _limited.discard(each)  # a reload makes the module's steps again
            if known is not None:
                _check_limit(each, known)


def _check_limit(one: Step[..., Any], known: Collection[str]) -> None:
    if one.limit is not None and one.limit not in known:
        raise UnknownLimitError(one.name, one.limit, known, *one.line)


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = ...,
    retries: int = ...,
    timeout: Duration | None = ...,
    retry_delay: Duration = ...,
    backoff: float = ...,
    max_delay: Duration = ...,
    jitter: bool = ...,
    limit: str | None = ...,
) -> _StepDecorator: ...
def step(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    retries: int = DEFAULT_RETRIES,
    timeout: Duration | None = None,
    retry_delay: Duration = DEFAULT_RETRY_DELAY,
    backoff: float = DEFAULT_BACKOFF,
    max_delay: Duration = DEFAULT_MAX_DELAY,
    jitter: bool = True,
    limit: str | None = None,
) -> Any:
    """Make a function a durable step.

        @step(retries=5, timeout="30 seconds", limit="erp")
        async def charge(card: str, amount: int) -> str: ...

        receipt = await charge("card-1", 420)  # in a workflow

    A plain `def` runs in a thread, of which a process has `Engine.open(step_threads=32)`. Outside a workflow, calling a
    step just calls its function. A step may be made anywhere, also in a body: `step(name="tool:book")(book)`.

    - `retries=3` makes up to 4 attempts, `retries=0` makes one.
    - `timeout` limits each attempt, from its start. Waiting for a thread or a limit counts towards nothing.
    - `retry_delay="1s"` is the time between the first two attempts. It is multiplied by `backoff=4` after each further
      one, and is at most `max_delay="1h"`: 1 s, 4 s, 16 s, 64 s, … `RetryableError(retry_after=…)` goes before that.
    - `jitter=True` takes a random part of up to half off each delay, so that runs that failed together don't come back
      together.
    - `limit="erp"` lets only as many attempts run at a time, in one process, as `Engine.open(limits={"erp": 5})` or
      `[limits] erp = { at_once = 5 }` in config.toml says. The others wait in line, in order.
    - `name` is what the log calls the step: the function's name by default. Open runs find their steps by it, so it
      stays the same from one release to the next.

    Raises DefinitionError, which has file and line, for what can't be a step: a method, a generator, a class, …
    """
    frame = sys._getframe(1)
    line = frame.f_code.co_filename, frame.f_lineno
    scope = scope_of(frame)
    with _refused(line):
        options = _options(name, retries, timeout, retry_delay, backoff, max_delay, jitter, limit)

    def decorate(function: Any) -> Step[..., Any]:
        plain, where = as_function(function, "@step", line, is_named=name is not None)
        return Step(plain, Signature(plain, scope), name or plain.__name__, line=where, **options)

    return decorate if function is None else decorate(function)


class _StepDecorator:
    """The type of `@step(…)`, for type checkers only."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


# ── what may be a step, or a workflow ─────────────────────────────────────────────────────────────────────────────

_METHOD = (
    "{name}() is a method, and its `self` isn't in the log. Write a function or a @staticmethod, and pass what it "
    "needs as arguments or by resource(…)."
)


def as_function(
    given: Any, decorator: str, line: tuple[str, int], *, is_named: bool = True
) -> tuple[Callable[..., Any], tuple[str, int]]:
    """Return the function that a decorator was given, and where it is. Raises DefinitionError for anything else."""
    function: Any = given.__func__ if isinstance(given, staticmethod) else given
    if isinstance(function, FunctionType | MethodType):
        code = inspect.unwrap(function).__code__
        line = code.co_filename, code.co_firstlineno
    problem = _unfit(function)
    if problem is None and not is_named and function.__name__ == "<lambda>":
        problem = "a lambda has no name that the log could call it by. Give it one: step(name=…)."
    if problem is not None:
        raise DefinitionError(*line, f"{decorator}: {problem}")
    return function, line


def _unfit(function: Any) -> str | None:
    """Return why this can't be a step or a workflow. None if it can."""
    name = getattr(function, "__name__", None) or type(function).__name__
    match function:
        case Step():
            return f"{name} is a step already."
        case Workflow():
            return f"{name} is a workflow. Start it with engine.start(…)."
        case classmethod():
            return f"{name}() is a class method, and its class isn't in the log. Write a function or a @staticmethod."
        case property():
            return "a property is no function. Write a function or a @staticmethod."
        case functools.partial() | functools.partialmethod():
            return "a partial has no annotations, by which values are read back. Write a function that makes the call."
        case type():
            return f"{name} is a class. Write a function that makes an instance, and annotate what it returns."
        case BuiltinFunctionType():
            return f"{name}() is built in, and values are read back by annotations. Write a function that calls it."
        case FunctionType() | MethodType():
            return _unfit_function(function)
        case _ if callable(function) and hasattr(function, "__wrapped__"):  # such as functools.cache makes
            return _unfit_function(function)
        case _ if callable(function):
            return f"{name} is an object that can be called. Write a function that calls it."
        case _:
            return f"{function!r} is not a function."


def _unfit_function(function: Any) -> str | None:
    name, inner = function.__name__, inspect.unwrap(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        return f"{name}() is a generator. Nothing records what it yields: return a list, or call a step for each item."
    owner, _, _ = function.__qualname__.rpartition(".")
    parameters = list(signature_of(function).parameters)
    is_in_a_class = owner and not owner.endswith("<locals>")
    if is_in_a_class and not isinstance(function, MethodType) and parameters[:1] in (["self"], ["cls"]):
        return _METHOD.format(name=name)
    return None


# ── what a step says about its attempts ───────────────────────────────────────────────────────────────────────────


@contextmanager
def _refused(line: tuple[str, int]) -> Iterator[None]:
    """Say where the step is that has a setting which makes no sense."""
    try:
        yield
    except InvalidArgumentError as error:
        raise DefinitionError(*line, f"@step: {error}") from None


def _options(
    name: Any, retries: Any, timeout: Any, retry_delay: Any, backoff: Any, max_delay: Any, jitter: Any, limit: Any
) -> dict[str, Any]:
    """Return the options of a step, times in seconds. Raises InvalidArgumentError for one that makes no sense."""
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise InvalidArgumentError(f"name must be text that isn't empty, not {name!r}")
    if limit is not None and not (isinstance(limit, str) and limit.strip()):
        raise InvalidArgumentError(f"limit must be the name of a limit, not {limit!r}")
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidArgumentError(f"retries must be a whole number, 0 or more, not {retries!r}")
    if isinstance(backoff, bool) or not isinstance(backoff, int | float) or not 1 <= backoff < math.inf:
        raise InvalidArgumentError(f"backoff must be a number, 1 or more, not {backoff!r}")
    if not isinstance(jitter, bool):
        raise InvalidArgumentError(f"jitter must be True or False, not {jitter!r}")
    limited = None if timeout is None else _fixed(timeout, "timeout")
    if limited == 0:
        raise InvalidArgumentError("timeout must be more than 0; leave it out for none")
    delay, most = _fixed(retry_delay, "retry_delay"), _fixed(max_delay, "max_delay")
    if delay > most:
        raise InvalidArgumentError(
            f"retry_delay is {delay:g} s, which is more than max_delay, {most:g} s (an hour by default)"
        )
    return {
        "retries": retries,
        "timeout": limited,
        "retry_delay": delay,
        "backoff": backoff,
        "max_delay": most,
        "jitter": jitter,
        "limit": limit,
    }


def scope_of(frame: FrameType) -> FrameType | None:
    """Return the call that defines a nested function: its annotations may use local names. None at module level."""
    return None if frame.f_code.co_name == "<module>" else frame


def _fixed(duration: Any, what: str) -> float:
    if isinstance(duration, datetime):
        raise InvalidArgumentError(f"{what} must be a length of time, not a date")
    try:
        return as_seconds(duration, _NO_DATE)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{what}: {error}") from None
