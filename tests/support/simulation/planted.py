"""Small bugs to plant in the engine and the store. The simulation must find them all, or it proves nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from approvals_bot.durable.core.commands import Command, resume_at
from approvals_bot.durable.core.events import Event, NewEvent
from approvals_bot.durable.core.hooks import Hook
from approvals_bot.durable.core.open_work import OpenStep
from approvals_bot.durable.core.replay import ReplayResult
from approvals_bot.durable.core.run import RunState
from approvals_bot.durable.engine import batch as batching
from approvals_bot.durable.engine import lookups
from approvals_bot.durable.engine.activation import Activation
from approvals_bot.durable.engine.batch import Batch
from approvals_bot.durable.engine.stalled import StalledRuns
from approvals_bot.durable.store import sqlite_reading
from approvals_bot.durable.store import sqlite_writing as log
from approvals_bot.durable.store.audit import Owes
from approvals_bot.durable.store.protocol import (
    MAX_UNREAD,
    Append,
    Appended,
    Created,
    Fenced,
    Full,
    Lease,
    NewRun,
    Received,
    Stale,
)
from approvals_bot.durable.store.sqlite import SqliteStore, written
from tests.support.simulation import planted_relatives
from tests.support.simulation.play import play

Bug = Callable[[pytest.MonkeyPatch], None]


def decides_on_a_log_that_has_grown(patch: pytest.MonkeyPatch) -> None:
    """`append` doesn't compare the length of the log."""

    def append(db: sqlite3.Connection, batch: Append) -> Appended | Stale | Fenced:
        (seq,) = db.execute("SELECT seq FROM runs WHERE id = ?", (batch.run_id,)).fetchone()
        return log.append(db, batch._replace(expected=seq))

    patch.setattr(SqliteStore, "append", written(append))


def lets_zombies_write(patch: pytest.MonkeyPatch) -> None:
    """`append` doesn't compare the epoch."""

    def append(db: sqlite3.Connection, batch: Append) -> Appended | Stale | Fenced:
        (epoch,) = db.execute("SELECT epoch FROM runs WHERE id = ?", (batch.run_id,)).fetchone()
        return log.append(db, batch._replace(epoch=epoch))

    patch.setattr(SqliteStore, "append", written(append))


def believes_what_is_remembered(patch: pytest.MonkeyPatch) -> None:
    """`receive` doesn't compare the log with the one that the next turn was planned from."""

    def receive(
        db: sqlite3.Connection,
        hook_id: str,
        resume_id: str,
        payload: Any,
        at: datetime,
        lease: Lease | None = None,
        then: Append | None = None,
        also: dict[str, Any] | None = None,
        owes: Owes | None = None,
        most: int = MAX_UNREAD,
    ) -> Received | Full | None:
        query = "SELECT seq, epoch FROM hooks JOIN runs ON runs.id = run_id WHERE hooks.id = ?"
        row = db.execute(query, (hook_id,)).fetchone()
        if then is not None and row is not None:
            then = then._replace(expected=row[0] + 1, epoch=row[1] + 1)
        return log.receive(db, hook_id, resume_id, payload, at, lease, then, also, owes, most)

    patch.setattr(SqliteStore, "receive", written(receive))


def claims_in_the_same_epoch(patch: pytest.MonkeyPatch) -> None:
    """Taking over doesn't fence off the owner before."""
    for name in ("_CLAIM_DUE", "_CLAIM_ONE"):
        patch.setattr(log, name, getattr(log, name).replace("epoch = epoch + 1", "epoch = max(epoch, 1)"))


def appends_stale_decisions_again(patch: pytest.MonkeyPatch) -> None:
    """The engine appends its decisions although the store reports that the log has grown."""
    real = Activation._write

    async def write(self: Activation, batch: Append) -> Appended | Stale | Fenced:
        result = await real(self, batch)
        if isinstance(result, Stale) and await self._read():
            return await real(self, batch._replace(expected=len(self.run.log)))
        return result

    patch.setattr(Activation, "_write", write)


def swallows_payloads(patch: pytest.MonkeyPatch) -> None:
    """A waiter that was withdrawn stays in the queue, and gets the next payload."""
    real_next, real_receive = Hook._next, Hook.receive
    gone: WeakKeyDictionary[Hook[Any], int] = WeakKeyDictionary()

    async def following(self: Hook[Any]) -> Any:
        try:
            return await real_next(self)
        except asyncio.CancelledError:
            gone[self] = gone.get(self, 0) + 1
            raise

    def receive(self: Hook[Any], seq: int, payload: Any) -> None:
        if gone.get(self):
            gone[self] -= 1
        else:
            real_receive(self, seq, payload)

    patch.setattr(Hook, "_next", following)
    patch.setattr(Hook, "receive", receive)


def takes_a_click_twice(patch: pytest.MonkeyPatch) -> None:
    """Nothing makes a resume id unique."""
    _not_unique(patch, "hook_received")


def forgets_who_had_a_token(patch: pytest.MonkeyPatch) -> None:
    """A repeated resume id is written again once its hook is closed: to the next hook with the token, or refused."""
    patch.setattr(sqlite_reading, "hook_that_took", lambda *_: None)


def takes_an_outcome_twice(patch: pytest.MonkeyPatch) -> None:
    """Nothing makes the outcome of a step unique, and nobody looks whether it is there after an answer was lost."""
    _not_unique(patch, "step_completed")
    real = Activation._facts

    def facts(self: Activation, now: datetime) -> list[NewEvent]:
        finished = [fact for fact in self._finished if fact.type == "step_completed"]
        others = [fact for fact in real(self, now) if fact.type != "step_completed"]
        self._finished += [fact for fact in finished if fact not in self._finished]
        return [*finished, *others]

    patch.setattr(Activation, "_facts", facts)


def _not_unique(patch: pytest.MonkeyPatch, type: str) -> None:
    real, numbers = NewEvent.key.fget, count()  # type: ignore[attr-defined]

    def key(self: NewEvent | Event) -> str:
        return f"{real(self)}.{next(numbers)}" if self.type == type else real(self)

    patch.setattr(NewEvent, "key", property(key))
    patch.setattr(Event, "key", property(key))


def forgets_to_wake(patch: pytest.MonkeyPatch) -> None:
    """A fact is recorded, and the run isn't due."""
    patch.setattr(log, "_WAKE", "UPDATE runs SET seq = :seq WHERE id = :id AND :at")
    patch.setattr(
        log, "_KEPT", "UPDATE runs SET seq = :seq, unread = :unread, received = :received WHERE id = :id AND :at"
    )


def forgets_when_to_wake(patch: pytest.MonkeyPatch) -> None:
    """A run is let go without the time of its next timer."""
    patch.setattr(log, "_LET_GO", log._LET_GO.replace("wake_at = :wake_at", "wake_at = nullif(:wake_at, :wake_at)"))


def rings_early(patch: pytest.MonkeyPatch) -> None:
    """A timer is due a second too soon."""

    def early(event: Event | NewEvent) -> datetime:
        return resume_at(event) - timedelta(seconds=1)

    patch.setattr(batching, "resume_at", early)


def keeps_the_tokens_of_the_dead(patch: pytest.MonkeyPatch) -> None:
    """The end of a run doesn't free its tokens."""
    patch.setattr(log, "_CLOSE_HOOKS", f"{log._CLOSE_HOOKS} AND 0")


def gives_a_token_to_two(patch: pytest.MonkeyPatch) -> None:
    """The second hook takes the token away from the first."""
    real = log._open_hook

    def open_hook(db: sqlite3.Connection, run_id: str, event: NewEvent, at: int) -> NewEvent:
        db.execute("UPDATE hooks SET is_live = 0 WHERE token = ?", (event.data["token"],))
        return real(db, run_id, event, at)

    patch.setattr(log, "_open_hook", open_hook)


def drops_disposals(patch: pytest.MonkeyPatch) -> None:
    """`dispose()` never becomes an event."""
    patch.setattr(RunState, "dispose_hook", lambda self, number: None)


def takes_payloads_after_the_end(patch: pytest.MonkeyPatch) -> None:
    """`receive` doesn't ask whether the hook is open."""
    patch.setattr(log, "_CURRENT_HOOK", log._CURRENT_HOOK.replace("is_live", "1"))


def never_frees_a_lease(patch: pytest.MonkeyPatch) -> None:
    """A run is let go, and nobody else may have it."""
    freed = log._LET_GO.replace("lease_until = NULL", "lease_until = 9000000000000000")
    patch.setattr(log, "_LET_GO", freed)


def acknowledges_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """A click is answered while its write is still under way."""
    real, kept = SqliteStore.receive, []

    async def receive(
        self: SqliteStore,
        hook_id: str,
        resume_id: str,
        payload: Any,
        at: datetime,
        lease: Lease | None = None,
        then: Append | None = None,
        also: dict[str, Any] | None = None,
        owes: Owes | None = None,
        most: int = MAX_UNREAD,
    ) -> Received | Full | None:
        task = asyncio.ensure_future(real(self, hook_id, resume_id, payload, at))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        kept.append(task)
        return Received(Event(1, "hook_received", at, {"payload": payload}))

    patch.setattr(SqliteStore, "receive", receive)


def starts_twice(patch: pytest.MonkeyPatch) -> None:
    """The idempotency key isn't kept."""

    def create(db: sqlite3.Connection, run: NewRun, *rest: Any) -> Created:
        return log.create(db, run._replace(idempotency_key=None), *rest)

    patch.setattr(SqliteStore, "create", written(create))


def keeps_the_first_view(patch: pytest.MonkeyPatch) -> None:
    """What a workflow publishes later isn't stored."""
    for name in ("_KEEP", "_TAKE", "_LET_GO", "_END"):
        patch.setattr(
            log,
            name,
            getattr(log, name).replace("coalesce(without_urls(:view), view)", "coalesce(view, without_urls(:view))"),
        )


def begins_steps_before_they_are_written(patch: pytest.MonkeyPatch) -> None:
    """Effects come before the log knows of them."""
    real_decide, real_write = batching.decide, Activation._write
    starts: dict[int, list[OpenStep]] = {}

    def decide(index: batching.LogIndex, *rest: Any, **options: Any) -> Batch:
        decided = real_decide(index, *rest, **options)
        starts[id(index)] = decided.starts
        return decided

    async def write(self: Activation, batch: Append) -> Appended | Stale | Fenced:
        for state in starts.pop(id(self.run.index), []):
            self._host.keep_task(asyncio.create_task(self._run_step(state)))
        return await real_write(self, batch)

    patch.setattr(lookups, "decide", decide)
    patch.setattr(Activation, "_write", write)


def fails_runs_for_a_bug(patch: pytest.MonkeyPatch) -> None:
    """What should stall a run ends it."""
    patch.setattr(RunState, "stall_on", lambda self, errors: None)


def writes_what_a_bug_decided(patch: pytest.MonkeyPatch) -> None:
    """A stalling run writes the decisions that came before the bug."""
    real_stall, real_write = RunState.stall_on, Activation._write
    decided: dict[str, list[Command]] = {}

    def stall_on(self: RunState, errors: Iterable[BaseException]) -> None:
        decided[self.run_id] = self.new_commands(ended=False)
        real_stall(self, errors)

    async def write(self: Activation, batch: Append) -> Appended | Stale | Fenced:
        if batch.stalled is not None:
            more = [command.event(batch.at) for command in decided.pop(batch.run_id, [])]
            batch = batch._replace(events=[*batch.events, *more])
        return await real_write(self, batch)

    patch.setattr(RunState, "stall_on", stall_on)
    patch.setattr(Activation, "_write", write)


def forgets_what_a_stalled_run_gets(patch: pytest.MonkeyPatch) -> None:
    """A payload for a stalled run is acknowledged, and not written."""

    def receive(
        db: sqlite3.Connection, hook_id: str, resume_id: str, payload: Any, at: datetime, *rest: Any, **options: Any
    ) -> Any:
        query = "SELECT status FROM hooks JOIN runs ON runs.id = run_id WHERE hooks.id = ?"
        if db.execute(query, (hook_id,)).fetchone() == ("stalled",):
            return Received(Event(1, "hook_received", at, {"payload": payload}))
        return log.receive(db, hook_id, resume_id, payload, at, *rest, **options)

    patch.setattr(SqliteStore, "receive", written(receive))


def never_tries_a_stalled_run_again(patch: pytest.MonkeyPatch) -> None:
    """A good release leaves the runs alone that a bad one has stalled."""

    async def retry(self: StalledRuns) -> None: ...

    patch.setattr(StalledRuns, "retry", retry)
    patch.setattr(StalledRuns, "is_due", False)


def loses_a_stalled_run_with_who_took_it_up(patch: pytest.MonkeyPatch) -> None:
    """Claiming a run that isn't due leaves it so: nobody takes it over when its owner dies."""
    patch.setattr(log, "_CLAIM_ONE", log._CLAIM_ONE.replace("wake_at = min(coalesce(wake_at, :at), :at)", "id = id"))


def forgets_the_time_of_who_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    """When a cancelled run is to be ended isn't kept: no row wakes it."""
    real = RunState._asked_to_cancel

    def asked(self: RunState, event: Event) -> None:
        real(self, event)
        del self.timers[0]

    patch.setattr(RunState, "_asked_to_cancel", asked)


def ends_who_is_cancelled_at_once(patch: pytest.MonkeyPatch) -> None:
    """A cancelled run gets no time to tidy up."""
    patch.setattr(batching.LogIndex, "has_no_time", lambda self, now: self.cancellation is not None)


def lets_the_body_decide_how_a_cancelled_run_ends(patch: pytest.MonkeyPatch) -> None:
    """What the body returns or raises counts."""
    real = RunState._asked_to_cancel

    def asked(self: RunState, event: Event) -> None:
        real(self, event)
        self.cancellation = None

    patch.setattr(RunState, "_asked_to_cancel", asked)


def forgets_that_a_step_was_given_up(patch: pytest.MonkeyPatch) -> None:
    """A step that the body no longer waits for is dropped without a word in the log."""

    def give_up(self: RunState, number: int) -> None:
        self.steps.pop(number, None)
        if number not in self._recorded:
            self._new.pop(("created", number), None)

    patch.setattr(RunState, "_give_up", give_up)


def makes_the_next_attempt_at_once(patch: pytest.MonkeyPatch) -> None:
    """A step that has failed doesn't wait for its back-off if its run has something else to do before."""

    def due_steps(outcome: ReplayResult, in_hand: Collection[int], now: datetime) -> list[OpenStep]:
        return [state for state in outcome.steps if state.id not in in_hand]

    patch.setattr(batching, "due_steps", due_steps)


def counts_a_crash_as_a_failure(patch: pytest.MonkeyPatch) -> None:
    """The process that takes a run over makes the attempt after the one that was under way."""
    real = batching.beginnings

    def beginnings(steps: Iterable[OpenStep]) -> list[NewEvent]:
        found = list(steps)
        again = [state for state in found if state.failures + 1 in state.started]
        return [
            *real(found),
            *(NewEvent("step_started", {"id": each.id, "attempt": each.failures + 2}) for each in again),
        ]

    patch.setattr(batching, "beginnings", beginnings)


def gives_up_what_is_done(patch: pytest.MonkeyPatch) -> None:
    """A step's result that came first is no reason not to cancel it."""
    real = RunState._give_up

    def give_up(self: RunState, number: int) -> None:
        self._decided.discard(("step_over", number))
        real(self, number)

    patch.setattr(RunState, "_give_up", give_up)


BUGS: dict[str, Bug] = {
    bug.__name__: bug
    for bug in (
        decides_on_a_log_that_has_grown,
        lets_zombies_write,
        believes_what_is_remembered,
        claims_in_the_same_epoch,
        appends_stale_decisions_again,
        swallows_payloads,
        takes_a_click_twice,
        forgets_who_had_a_token,
        takes_an_outcome_twice,
        forgets_to_wake,
        forgets_when_to_wake,
        rings_early,
        keeps_the_tokens_of_the_dead,
        gives_a_token_to_two,
        drops_disposals,
        takes_payloads_after_the_end,
        never_frees_a_lease,
        acknowledges_before_the_commit,
        starts_twice,
        keeps_the_first_view,
        begins_steps_before_they_are_written,
        fails_runs_for_a_bug,
        writes_what_a_bug_decided,
        forgets_what_a_stalled_run_gets,
        never_tries_a_stalled_run_again,
        loses_a_stalled_run_with_who_took_it_up,
        forgets_the_time_of_who_is_cancelled,
        ends_who_is_cancelled_at_once,
        lets_the_body_decide_how_a_cancelled_run_ends,
        forgets_that_a_step_was_given_up,
        gives_up_what_is_done,
        makes_the_next_attempt_at_once,
        counts_a_crash_as_a_failure,
    )
} | planted_relatives.BUGS


def seeds_to_find(name: str, most: int) -> tuple[int, BaseException | None]:
    """Plant it, and play until it is found: after how many seeds, and what showed it. None: `most` were not enough."""
    with pytest.MonkeyPatch.context() as patch:
        BUGS[name](patch)
        for played in play(range(most), group=planted_relatives.GROUPS.get(name)):
            if played.found is not None:
                return played.seed + 1, played.found
    return most, None
