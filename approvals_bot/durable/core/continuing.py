"""`continue_as_new` in a body: how it ends, and what moves to the next run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.core.commands import End
from approvals_bot.durable.core.hooks import Hook
from approvals_bot.durable.core.loop import ContinuesAsNew
from approvals_bot.durable.core.reserved import ReservedHook, RunWithHooks
from approvals_bot.durable.core.run import RunState
from approvals_bot.durable.core.signature import Signature
from approvals_bot.errors import CannotContinueError


@dataclass(frozen=True, slots=True)
class MovingHook:
    """An open hook at the end of a run that continues. `unread` are the events whose payloads nobody has taken."""

    number: int
    hook_id: str
    token: str
    answer: Mapping[str, Any] | None  # a webhook's
    is_first: bool  # the next body's first hook must have its token
    unread: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the next run begins with, apart from what the engine knows of this one."""

    hooks: tuple[MovingHook, ...]
    attributes: Mapping[str, Attribute]


def continue_run(run: RunState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
    """End the body that calls this. Raises CannotContinueError where the run can't continue."""
    if asyncio.current_task() is not run.body:
        raise CannotContinueError("only the body itself can continue as a new run, not a task that it has started")
    staying = run.companions.staying()
    if staying:
        what_to_do = "await the outcome before continue_as_new(), or cancel the task that awaits it"
        raise CannotContinueError(f"{', '.join(staying)} can't move to the next run; {what_to_do}")
    run.continuing = ContinuesAsNew(args, kwargs)
    raise run.continuing


def end_of(signature: Signature, asked: ContinuesAsNew) -> End:
    """Return the end of a run that continues with this input. Raises what is wrong with the input."""
    args, kwargs = asked.given
    return End("run_continued", {"input": signature.encode_call(args, kwargs)})


def continuation_of(run: RunState) -> Continuation:
    """Return what moves to the next run. Hooks that aren't open end with this one."""
    first = run.first if isinstance(run, RunWithHooks) else None
    moving = [_moving(number, hook, first) for number, hook in run.hooks.items() if _moves(hook)]
    return Continuation(tuple(moving), dict(run.attributes))


def _moves(hook: Hook[Any]) -> bool:
    return hook.is_live if isinstance(hook, ReservedHook) else hook.is_open


def _moving(number: int, hook: Hook[Any], first: str | None) -> MovingHook:
    unread = tuple(seq for seq, _ in hook.inbox)
    return MovingHook(number, hook.hook_id, hook.token, hook.answer, hook.token == first, unread)
