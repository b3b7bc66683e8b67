"""Replay: what a run asks for next, from nothing but its log.

One event is delivered, callbacks run until none is ready, then the next event is delivered. So execution is the same
whether the events arrived over weeks or are read all at once.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events as asyncio_events
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from approvals_bot.durable.core import sandbox
from approvals_bot.durable.core.attributes import PROJECTED, Attribute, Projection
from approvals_bot.durable.core.commands import Command, CreateHook, End, describe
from approvals_bot.durable.core.continuing import Continuation, continuation_of, end_of
from approvals_bot.durable.core.events import ENDINGS, FACTS, Event, Log, cancelled, is_whole_step, number_of
from approvals_bot.durable.core.lines import Lines
from approvals_bot.durable.core.loop import ReplayInterrupted, context_of_run, is_continuation
from approvals_bot.durable.core.open_work import OpenStep, OpenTimer
from approvals_bot.durable.core.registry import Workflow
from approvals_bot.durable.core.remote_errors import encode_error
from approvals_bot.durable.core.reserved import RunWithHooks
from approvals_bot.durable.core.run import RunState
from approvals_bot.durable.core.serialization import decode, encode
from approvals_bot.errors import NondeterminismError, SerializationError, WorkflowStuckError

_Around = tuple[asyncio.AbstractEventLoop | None, asyncio.Task[Any] | None, Any]


@dataclass(slots=True)
class ReplayResult:
    """The outcome of a replay: the new commands in order, and what the run now waits for."""

    commands: list[Command]
    ended: bool
    steps: list[OpenStep] = field(default_factory=list)
    timers: list[OpenTimer] = field(default_factory=list)
    schemas: dict[int, Any] = field(default_factory=dict)
    view: Any = None
    projection: Projection | None = None
    own: dict[str, Attribute] | None = None  # the run's attributes, if its body has set any
    replay_again: bool = False  # after the append: the workflow waits to learn the result of its commands
    waits_on_hooks: bool = False
    has_children: bool = False  # the body has started some, so its commands may be about them
    weight: int = 0  # as `RunState.weight`
    continued: Continuation | None = None  # what moves to the next run, if the body has asked for one
    unread: dict[int, int] = field(default_factory=dict)  # payloads that the body hasn't taken, by the hook's number

    @property
    def next_timer(self) -> datetime | None:
        """When the earliest timer is due."""
        return min((t.resume_at for t in self.timers), default=None)


def replay(
    workflow: Workflow[Any, Any],
    log: Log,
    *,
    entropy: bytes = b"",
    link: Callable[[str], str],
    lines: Lines | None = None,
) -> ReplayResult:
    """Run the body against its log. Pure: the same log and entropy (for new tokens) give the same outcome.

    Raises NondeterminismError if the code has drifted from the log, and WorkflowBugError if the body raised an error
    that is no outcome but a bug (see `bugs`). Nothing that such a replay asked for may be written: the code that mends
    it decides again, from the facts.
    """
    whole = Replay(workflow, log[0], entropy=entropy, link=link, lines=lines)
    with sandbox.installed():
        try:
            return whole.deliver(log)
        finally:
            whole.close()


class Replay:
    """A replay that can be continued with the events that the log has grown by.

    Events are delivered one by one, so the outcome is the same as that of a new replay of the whole log. Use it inside
    `sandbox.installed()`.
    """

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        created: Event,
        *,
        entropy: bytes,
        link: Callable[[str], str],
        lines: Lines | None = None,
    ) -> None:
        """`lines` takes the log lines that the body writes. None: they are dropped."""
        self.is_closed = False
        self._workflow = workflow
        kind = RunWithHooks if "hooks" in created.data else RunState
        self._run = kind(created, entropy, link, workflow.failures)
        self._run.lines = lines
        self._context = Context()  # empty: context variables of the caller must not reach the body
        self._context.run(context_of_run.set, self._run)
        self._around: _Around | None = None

    def deliver(self, events: Log) -> ReplayResult:
        """Deliver the next events of the log, starting with `run_created`.

        The replay is closed when this raises and when the run has ended.
        """
        self._enter()
        try:
            outcome: ReplayResult = self._context.run(self._deliver, events)
            return outcome
        finally:
            self.leave()

    def close(self) -> None:
        """Throw away the body, wherever it waits."""
        if not self.is_closed:
            self._enter()
            try:
                self._context.run(self._close)
            finally:
                self.leave()

    def _enter(self) -> None:
        """Make the run's loop the running one, and let it finalize async generators."""
        loop, around = self._run.loop, asyncio_events._get_running_loop()
        task = None if around is None else asyncio.current_task(around)
        self._around = (around, task, sys.get_asyncgen_hooks())
        _set_running(loop, None)
        sys.set_asyncgen_hooks(loop.first_iteration, loop.finalize_generator)

    def leave(self) -> None:
        """Restore the caller's loop and hooks. Repeats do nothing: a replay may be interrupted anywhere."""
        if self._around is not None:
            around, task, hooks = self._around
            _set_running(around, task)
            sys.set_asyncgen_hooks(*hooks)
            self._around = None

    def _deliver(self, events: Log) -> ReplayResult:
        run = self._run
        try:
            _advance(self._workflow, events, run)
            outcome = _outcome(self._workflow, run)
        except ReplayInterrupted:
            self._close()
            raise
        except (SystemExit, KeyboardInterrupt) as error:  # raised by the body: it ends the run, not the process
            outcome = _result(run, run.new_commands(ended=True), End("run_failed", {"error": encode_error(error)}))
        except BaseException:
            self._close()
            raise
        if outcome.ended:
            if run.loop.failed:
                run.loop.report_failed()
            self._close()
        return outcome

    def _close(self) -> None:
        """Break the reference cycles between a run and its parts.

        They are then freed at once, without the garbage collector.
        """
        run = self._run
        self.is_closed = True
        run.loop.throw_away()
        run.body = run.projector = None
        for owned in (run.hooks, run.steps, run.timers, run.children):
            owned.clear()


def _set_running(loop: asyncio.AbstractEventLoop | None, task: asyncio.Task[Any] | None) -> None:
    """Make this the thread's loop. From Python 3.14 on, a thread has one current task, no longer one for each loop."""
    if sys.version_info >= (3, 14) and (running := asyncio_events._get_running_loop()) is not None:
        asyncio.tasks._swap_current_task(running, None)
    asyncio_events._set_running_loop(loop)
    if sys.version_info >= (3, 14) and task is not None:
        asyncio.tasks._swap_current_task(loop, task)


def _advance(workflow: Workflow[Any, Any], events: Log, run: RunState) -> None:
    """Deliver one event, run callbacks until none is ready, then deliver the next."""
    run.expect(events)
    for event in events:
        if run.drift is not None:
            run.stall_on(run.companions.errors)  # it didn't do the rest because it was dead
            raise run.drift
        if run.body is None:
            run.body = _begin(workflow, event, run)
        elif event.type in ENDINGS:
            break
        elif run.body.done():
            _after_the_end(run, event)
            continue
        else:
            run.deliver(event)
        if run.drift is None:
            run.loop.run_until_idle()


def _begin(workflow: Workflow[Any, Any], created: Event, run: RunState) -> asyncio.Task[Any]:
    run.loop.now = run.now.timestamp()
    args, kwargs = workflow.signature.decode_call(created.data["input"])
    if workflow.signature.takes_bound:
        kwargs["settings"] = decode(created.data.get("settings"), workflow.signature.annotation("settings"))
    whole = run.companions.around(workflow.function(*args, **kwargs), run.is_over_after)
    body: asyncio.Task[Any] = run.loop.create_task(whole, name=workflow.name)
    return body


_KEPT_AFTER_THE_END = frozenset(
    {"hook_created", "hook_conflict", "hook_disposed", "hook_responded", "hook_refused", "step_cancelled"}
)
"""Decisions that are recorded even if the body ends in the same batch."""


def _after_the_end(run: RunState, event: Event) -> None:
    """Check an event that follows the body's end.

    Facts and decisions about hooks may share a batch with the end. If the body ended because it learned whether it got
    a token, the commands it gave together with that hook may follow as well. Any other decision means that the run
    didn't end here when it was recorded, so the code has drifted, unless it ended with a bug.
    """
    is_kept = event.type in _KEPT_AFTER_THE_END and (event.type == "step_cancelled" or number_of(event) in run.hooks)
    # What comes for a hook now is unread, so the next run gets it.
    is_for_next = event.type == "hook_received" and run.continuing is not None
    if is_kept or is_for_next or (event.type == "child_started" and event.data["id"] in run.children):
        run.deliver(event)
        if run.drift is not None:
            run.stall_on(_error_of(run.body))  # it didn't do this because it was dead
    elif event.type == "attributes_set" and run.has_decided(event):
        pass  # the body set them, then ended
    elif event.type == "cancel_requested":
        run.cancellation = event  # nobody has heard of the body's end, so the cancellation came first
    elif is_whole_step(event):
        if not run.has_decided(event):  # one that it has may end in the batch in which another has ended the body
            run.stall_on(_error_of(run.body))
            raise NondeterminismError(event.seq, describe(event), "nothing: it ends before that")
    elif event.type not in FACTS and not (run.token_is_settled and run.has_decided(event)):
        run.stall_on(_error_of(run.body))
        raise NondeterminismError(event.seq, describe(event), "nothing: it ends before that")


def _error_of(body: asyncio.Task[Any] | None) -> Iterable[BaseException]:
    """Return what the body raised, if anything."""
    error = None if body is None or body.cancelled() else body.exception()
    return () if error is None else (error,)


def _outcome(workflow: Workflow[Any, Any], run: RunState) -> ReplayResult:
    body = run.body
    assert body is not None  # a log has at least its first event
    if run.companions.errors:
        run.stall_on(run.companions.errors)
    if run.drift is not None:
        raise run.drift
    if run.loop.unhandled and not body.done():
        run.stall_on(run.loop.unhandled)
        failed = End("run_failed", {"error": encode_error(run.loop.unhandled[0])})
        return _result(run, run.new_commands(ended=True), failed)
    if body.done() and run.continuing is not None and run.cancellation is None:
        return _continued(workflow, body, run)
    if body.done():
        return _result(run, run.new_commands(ended=True), _end(workflow, body, run))
    commands = run.new_commands(ended=False)
    if run.drift is not None:
        raise run.drift
    open_hooks = waits_for_token = False
    unread = {}
    for number, hook in run.hooks.items():
        if hook.inbox:
            unread[number] = len(hook.inbox)
        open_hooks = open_hooks or hook.is_open
        waits_for_token = waits_for_token or hook.waits_for_token
    can_go_on = bool(run.steps or run.timers or run.children or open_hooks or waits_for_token)
    if not (can_go_on or commands):
        raise WorkflowStuckError(
            f"{workflow.name} waits, but no step, hook or timer is open that could wake it. "
            "It probably awaits a future, lock or queue that nothing will ever release."
        )
    result = _result(run, commands)
    result.steps, result.timers = list(run.steps.values()), list(run.timers.values())
    result.replay_again, result.waits_on_hooks = waits_for_token or not can_go_on, open_hooks
    result.unread = unread
    return result


def _continued(workflow: Workflow[Any, Any], body: asyncio.Task[Any], run: RunState) -> ReplayResult:
    """Make the result of a body that has asked to continue as a new run.

    The hooks that it has created last are recorded first: which of them move depends on whether they got their tokens.
    """
    commands, end = run.new_commands(ended=True), _end(workflow, body, run)
    if any(isinstance(command, CreateHook) for command in commands):
        result = _result(run, commands)
        result.replay_again = True
        return result
    result = _result(run, commands, end)
    if end.type == "run_continued":
        result.continued = continuation_of(run)
    return result


def _end(workflow: Workflow[Any, Any], body: asyncio.Task[Any], run: RunState) -> End:
    try:
        if run.continuing is not None and is_continuation(body.exception()):
            return end_of(workflow.signature, run.continuing)
        return End("run_completed", {"result": workflow.signature.result.encode(body.result(), "result")})
    except asyncio.CancelledError as cancelled:
        return End("run_cancelled", {"reason": str(cancelled) or None})
    except BaseException as error:  # noqa: BLE001  # an author's error, or a result that can't be recorded
        run.stall_on((error,))
        return End("run_failed", {"error": encode_error(error)})


def _result(run: RunState, commands: list[Command], end: End | None = None) -> ReplayResult:
    """Make a result with the view and projection that the run shows now.

    Raises WorkflowBugError if making them fails with a bug, SerializationError if they can't be kept.
    """
    projection = None
    try:
        view = None if run.view is None else encode(run.view, Any, "view")
        if run.projector is not None:
            made = run.projector()
            projection = Projection(made.parts, {PROJECTED + name: values for name, values in made.attributes.items()})
    except Exception as error:  # noqa: BLE001  # an author's or a library's code makes them
        _refuse_to_show(run, error)
    if end is not None:
        if (asked := run.cancellation) is not None:  # whatever the body made of it
            end = End("run_cancelled", cancelled(asked, end.data.get("error")))
        commands = [*commands, end]
    result = ReplayResult(commands, end is not None, schemas=run.schemas, view=view, projection=projection, own=run.own)
    result.has_children, result.weight = run.has_children, run.weight
    return result


def _refuse_to_show(run: RunState, error: Exception) -> NoReturn:
    """Raise what stalls or fails a run whose view or projection can't be made: WorkflowBugError for a bug."""
    run.stall_on((error,))
    if isinstance(error, SerializationError):
        raise error
    raise SerializationError("view", f"it can't be made: {type(error).__name__}: {error}") from error
