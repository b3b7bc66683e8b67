"""Every beginning of a log, replayed: it must ask for what the log goes on with."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.commands import (
    CancelTimer,
    Command,
    CreateHook,
    CreateStep,
    DisposeHook,
    End,
    Respond,
    StartChild,
    StartTimer,
    describe,
)
from approvals_bot.durable.core.events import ENDINGS, FACTS, Event, Log, NewEvent, closed_by, is_whole_step
from approvals_bot.durable.core.replay import ReplayResult, replay
from approvals_bot.durable.core.run import RunState
from approvals_bot.errors import (
    LimitExceededError,
    NondeterminismError,
    SerializationError,
    WorkflowBugError,
    WorkflowStuckError,
)

Link = Callable[[str], str]
Equal = Callable[[Command, Event], bool]


def divergences(
    workflow: Workflow[Any, Any], log: Log, link: Link, lengths: Iterable[int] | None = None, *, exactly: bool = True
) -> Iterator[str]:
    """What differs, one sentence each. `lengths`: of the beginnings to look at; all, if not given.

    `exactly`: to the byte, as the same code must. Otherwise as the engine compares: kind, number, name and token; later
    code may hand a step more than earlier code did.
    """
    wanted = list(range(1, len(log) + 1) if lengths is None else lengths)
    with _secrets_as_in(log):
        for length in wanted:
            why = _divergence(workflow, log, length, link, _equal if exactly else _equal_to_the_engine)
            if why:
                yield f"{workflow.name}, after {length} of {len(log)} events: {why}"


def _divergence(workflow: Workflow[Any, Any], log: Log, length: int, link: Link, equal: Equal) -> str:
    following = log[length] if length < len(log) else None
    if _is_within_the_last_breath(log, length):
        return ""
    try:
        outcome = replay(workflow, log[:length], entropy=b"not in the log", link=link)
    except NondeterminismError as error:
        return str(error)
    except (WorkflowStuckError, LimitExceededError, SerializationError, WorkflowBugError) as error:
        # The engine fails such a run, or lets it stall.
        return "" if following is None or following.type in ("run_failed", *FACTS) else str(error)
    if following is None or _is_fact(following) or following.type == "step_started":
        return ""
    why = _compare(outcome, log[length:], equal)
    return "" if why and _is_within_the_breath_of_a_token(log, length) else why


def _is_fact(event: Event) -> bool:
    """Whether it came from outside. That a look-up was asked for didn't."""
    return event.type in FACTS and not is_whole_step(event)


def _is_within_the_breath_of_a_token(log: Log, length: int) -> bool:
    """What was asked for together with a hook is appended together with it, so no store ever has a log that ends at the
    hook, where somebody may hear of its token and ask for something else."""
    since = next((n for n in range(length, 0, -1) if log[n - 1].type in FACTS), 0)
    return any(event.type in ("hook_created", "hook_conflict") for event in log[since:length])


def _is_within_the_last_breath(log: Log, length: int) -> bool:
    """The end is appended together with what was decided before it, so no store ever has the one without the other."""
    since = next((n for n in range(len(log), 0, -1) if log[n - 1].type in FACTS), 1)
    return log[-1].type in ENDINGS and since < length < len(log)


def _compare(outcome: ReplayResult, rest: Log, equal: Equal) -> str:
    if not outcome.commands:
        return "" if _by_the_engine(rest[0]) else f"asks for nothing; the log has {_shown(rest[0])}"
    following, event = iter(rest), None
    for command in outcome.commands:
        if event is not None and isinstance(command, DisposeHook | CancelTimer) and _closes(event, command):
            continue
        event = next(following, None)
        if event is None:
            break
        if _is_fact(event) or event.type == "step_started" or _by_the_engine(event):
            break
        if not equal(command, event):
            return f"asks for {_shown(command.event(event.at))}; the log has {_shown(event)}"
        if is_whole_step(event):  # the rest has heard of its outcome
            break
    return ""


def _closes(event: Event, command: DisposeHook | CancelTimer) -> bool:
    return event.type == "hook_responded" and command.id in closed_by(event)


def _by_the_engine(event: Event) -> bool:
    """Somebody's cancellation, and not the body's own end, may stand anywhere."""
    return event.type == "run_cancelled"


def _equal(command: Command, event: Event) -> bool:
    asked = command.event(event.at)
    if (asked.type, event.type) == ("hook_created", "hook_conflict"):
        return all(asked.data[name] == event.data[name] for name in ("id", "hook_id", "token"))
    if (asked.type, event.type) == ("child_started", "child_started"):  # its run's ID is random, and then in the log
        return _json({**asked.data, "run_id": ""}) == _json({**event.data, "run_id": ""})
    if is_whole_step(event):
        return describe(event) == str(command)
    recorded = {name: value for name, value in event.data.items() if name != "closes"}  # by commands of their own
    return asked.type == event.type and _json(asked.data) == _json(recorded)


def _equal_to_the_engine(command: Command, event: Event) -> bool:
    if isinstance(command, End):
        return command.type == event.type
    if isinstance(command, CreateHook):
        return describe(event) == str(command) and event.data["token"] == command.token
    if isinstance(command, CreateStep | StartTimer | StartChild):
        return describe(event) == str(command)
    if isinstance(command, Respond):  # what is answered is words, and may become better ones
        return event.type == "hook_responded" and event.data["to"] == command.to
    return _equal(command, event)


def _json(value: Any) -> str:
    return json.dumps(without_tracebacks(value), sort_keys=True)


LINES = ("traceback", "where")


def without_tracebacks(value: Any) -> Any:
    """They name lines of code, which may move."""
    match value:
        case dict():
            return {name: without_tracebacks(each) for name, each in value.items() if name not in LINES}
        case list():
            return [without_tracebacks(each) for each in value]
        case _:
            return value


def _shown(event: Event | NewEvent) -> str:
    return f"{event.type} {_json(event.data)[:300]}"


def same_outcome(first: ReplayResult, second: ReplayResult) -> bool:
    """Whether two replays of one log ask for the same, and wait for the same."""
    return _comparable(first) == _comparable(second)


def _comparable(outcome: ReplayResult) -> list[Any]:
    commands = [command.event(_ANY_TIME) for command in outcome.commands]
    steps = [(s.id, s.step.name, s.failures, sorted(s.started), s.first_started_at, s.retry_at) for s in outcome.steps]
    timers = [(timer.id, timer.resume_at, timer.kind) for timer in outcome.timers]
    flags = (outcome.ended, outcome.replay_again, outcome.waits_on_hooks)
    decisions = [(event.type, without_tracebacks(event.data)) for event in commands]
    return [decisions, steps, timers, flags, outcome.view, outcome.projection, [*outcome.schemas]]


_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


# ── tokens are random, and then in the log ────────────────────────────────────────────────────────────────────────

_recorded = threading.local()
_secret = RunState._secret


def _secret_of_the_log(run: RunState, number: int, purpose: str) -> str:
    known: dict[int, dict[str, Any]] = getattr(_recorded, "hooks", {})
    if number not in known:
        return _secret(run, number, purpose)
    return str(known[number]["hook_id" if purpose == "id" else "token"])


RunState._secret = _secret_of_the_log  # type: ignore[method-assign, assignment]  # its first parameter has a name


@contextmanager
def _secrets_as_in(log: Log) -> Iterator[None]:
    """A beginning that has not recorded a hook yet draws the token that the log then recorded."""
    _recorded.hooks = {e.data["id"]: e.data for e in log if e.type in ("hook_created", "hook_conflict")}
    try:
        yield
    finally:
        _recorded.hooks = {}
