"""`@workflow`, which makes workflows: what may be one, and which names its parameters can't have."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from approvals_bot.durable.core.annotations import signature_of
from approvals_bot.durable.core.bugs import FailureRules
from approvals_bot.durable.core.registry import Workflow, registry
from approvals_bot.durable.core.signature import Signature
from approvals_bot.durable.core.steps import as_function, scope_of
from approvals_bot.errors import DefinitionError, InvalidArgumentError

P = ParamSpec("P")
R = TypeVar("R")


@overload
def workflow(function: Callable[P, Awaitable[R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: str | None = None,
    fails_on: Collection[type[Exception]] = (),
    stalls_on: Collection[type[Exception]] = (),
) -> Callable[[Callable[P, Awaitable[R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[P, Awaitable[R]] | None = None,
    /,
    *,
    name: str | None = None,
    version: str | None = None,
    fails_on: Collection[type[Exception]] = (),
    stalls_on: Collection[type[Exception]] = (),
) -> Any:
    """Make an `async def` durable and register it under its name.

        @workflow
        async def expense(amount: int) -> bool:
            answer = await create_hook(schema=Answer)
            return answer.approved

        @workflow(name="expense", version="2")
        async def expense_with_limit(amount: int) -> bool: ...

    A run finishes on the function of the `version` it was started with, as long as that function is registered. New
    runs use the version that was registered last. Raises WorkflowNameTakenError if another function has this name and
    version.

    An error that the body raises fails the run if it is a ValueError, RuntimeError, TimeoutError or OSError, an error
    of this package, or of the author's own class. Errors that are bugs (NameError, TypeError, KeyError, …) stall it
    instead: it keeps its payloads, and goes on once the code is mended. The classes in `fails_on` and `stalls_on`, and
    those derived from them, go before that:

        @workflow(fails_on=(ZeroDivisionError,), stalls_on=(decimal.InvalidOperation, ValueError))
        async def split(amount: Decimal, among: int) -> Decimal: ...
    """
    frame = sys._getframe(1)
    scope, line = scope_of(frame), (frame.f_code.co_filename, frame.f_lineno)
    failures = FailureRules(fails_on, stalls_on)

    def decorate(given: Callable[P, Awaitable[R]]) -> Workflow[P, R]:
        function, where = as_function(given, "@workflow", line)
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(*where, f"@workflow: {function.__name__}() needs to be an `async def`.")
        _refuse_names_of_options(function, where)
        signature = Signature(function, scope, bound="settings")
        made: Workflow[P, R] = Workflow(function, name or function.__name__, version, signature, failures=failures)
        registry.add(made)
        return made

    return decorate if function is None else decorate(function)


OPTIONS = {
    "at": "start",
    "delay": "start",
    "hook_token": "start",
    "idempotency_key": "start",
    "attributes": "start",
    "on_parent_close": "run_child",
    "resume_id": "start_or_resume",
}
"""Options of the calls that take a workflow's arguments beside them, each with a call that has it."""


def refuse_options(call: str, named: Mapping[str, Any]) -> None:
    """Raise InvalidArgumentError if an option that this call doesn't have is among the named arguments."""
    for name, has_it in OPTIONS.items():
        if name in named:
            raise InvalidArgumentError(f"{call} has no option {name}: that is one of {has_it}()")


def _refuse_names_of_options(function: Callable[..., Any], where: tuple[str, int]) -> None:
    """Raise DefinitionError for a parameter that no caller could pass."""
    for name in signature_of(function).parameters:
        if name in OPTIONS:
            raise DefinitionError(
                *where,
                f"@workflow: {function.__name__}() can't have a parameter {name!r}, because {OPTIONS[name]}() has "
                "an option of that name. Rename it.",
            )
