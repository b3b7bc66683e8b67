"""What is done to a run that is there already: cancel, reset, retry, attempt again, wake up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from approvals_bot.durable.core.attributes import attributes_after
from approvals_bot.durable.core.events import NewEvent, new_run_id, to_micros
from approvals_bot.durable.engine.intake import Intake
from approvals_bot.durable.engine.limits import TIDY_AT_ONCE
from approvals_bot.durable.engine.notifier import Notifier
from approvals_bot.durable.engine.reading import Reader
from approvals_bot.durable.engine.reset import reset_run
from approvals_bot.durable.engine.runs import Run
from approvals_bot.durable.engine.scheduler import Scheduler
from approvals_bot.durable.store.audit import Owes
from approvals_bot.durable.store.protocol import OpenStore
from approvals_bot.errors import (
    AlreadyResetError,
    InvalidPayloadError,
    RunEndedError,
    RunNotFoundError,
    RunNotStalledError,
)

ATTEMPT_OF = "$attempt of "
"""What the idempotency keys of new attempts begin with. The rest is the old run's ID, so there is one of each run."""


class Interventions(Reader):
    """The part of the engine that changes runs from outside. Each call returns once what it asks for is durable."""

    def __init__(self, store: OpenStore, scheduler: Scheduler, notifier: Notifier, intake: Intake) -> None:
        super().__init__(store, scheduler, notifier)
        self._intake = intake

    def get_run(self, run_id: str) -> Run[Any]:
        """Return a handle on a run. Never fails, whether or not the run exists."""
        return Run(self, run_id)

    async def cancel(
        self,
        run_id: str,
        reason: str | None = None,
        *,
        actor: Mapping[str, Any] | None = None,
        owes: Owes | None = None,
    ) -> None:
        """Ask a run to end as cancelled. Returns once that is durable.

        If the run has continued as a new one, this asks that one.

            await engine.cancel(run.id, "the order was withdrawn")

        The body gets `asyncio.CancelledError` where it waits, and has `cancel_grace` seconds for its `finally` and
        `except` blocks. Then the run is ended where it is. Either way its status is "cancelled". A run that hasn't
        begun is ended as soon as somebody works on it, a stalled one at once: neither could tidy up. As a rule, a run
        that has nothing to tidy up has ended when this returns. A request whose grant isn't removed ends after that,
        however long it takes; if it has stalled, once its code is mended.

        Cancelling a run again while it tidies up changes nothing, the reason neither. Raises RunEndedError if the run
        had ended, which keeps its status; RunNotFoundError. `actor`: the one who cancels it, for the log. `owes`: the
        audit's line of it.
        """
        self._here("cancel()")
        found = await self._row(run_id)
        if found.status == "continued":
            await self.cancel(await self.store.last(run_id), reason, actor=actor, owes=owes)
            return
        if found.has_ended:
            raise RunEndedError(run_id, found.status)
        until = to_micros(self.now() + self.scheduler.cancel_grace)
        named = {} if actor is None else {"actor": dict(actor)}
        asked = NewEvent("cancel_requested", {"reason": reason, "until": until, **named})
        if found.status == "stalled" and not self.scheduler.must_finish(found):
            await self._end_stalled(run_id, asked, owes)
        elif await self._intake.record(run_id, asked, owes=owes):
            await self.wait(run_id, TIDY_AT_ONCE)
        elif (after := await self._row(run_id)).status == "continued":  # in between
            await self.cancel(run_id, reason, actor=actor, owes=owes)
        elif after.has_ended:
            raise RunEndedError(run_id, after.status)

    async def _end_stalled(self, run_id: str, asked: NewEvent, owes: Owes | None) -> None:
        """End a stalled run as cancelled, unless it stalled as it was tidying up: then its time is running."""
        if any(event.type == "cancel_requested" for event in await self.events(run_id)):
            return
        end = NewEvent("run_cancelled", {"reason": asked.data["reason"]})
        recorded = await self._intake.record(run_id, asked, end, owes=owes)
        if end in [NewEvent(event.type, event.data) for event in recorded]:
            self.scheduler.cut_off(run_id)
        elif (after := await self._row(run_id)).has_ended:
            raise RunEndedError(run_id, after.status)

    async def reset(
        self,
        run_id: str,
        *,
        to: int,
        drop_payloads: bool = False,
        actor: Mapping[str, Any] | None = None,
        owes: Owes | None = None,
    ) -> Run[Any]:
        """Let a new run go on from event `to` of a run's log, in its place. Returns the new run.

            run = await engine.reset(stuck, to=17)

        The new run's log begins with the events up to `to`; steps that finished later are run again. Open hooks move to
        it with their IDs, tokens and unread payloads, and so does the idempotency key. What people sent to these hooks
        after `to` comes next in its log, unless `drop_payloads`. An open run ends with the status `reset` and names the
        new run; one that had ended keeps its status. In the new run, `get_workflow_metadata()` gives the new ID, and
        `random()` and `uuid4()` give the same values up to `to`.

        `actor`: the one who resets it, for the new run's log. `owes`: the audit's line of it.

        A repeat with the same `to` returns the same run while that is open. Nothing was written if this raises
        RunNotFoundError, NoSuchEventError, AlreadyResetError, HookConflictError (another run has an open hook's token
        by now) or NondeterminismError (today's code doesn't fit these events).
        """
        self._here("reset()")
        scheduler, new_id = self.scheduler, new_run_id(self.now(), self.scheduler.entropy())
        next_run, events = await reset_run(
            scheduler, run_id, to, new_id, drop_payloads=drop_payloads, actor=actor, owes=owes
        )
        scheduler.cache.forget(run_id)
        self.notifier.notify(run_id, events)
        scheduler.look_again()  # its activation stops, the new one begins, and children may have been asked to cancel
        return Run(self, next_run, is_new=next_run == new_id)

    async def retry(self, run_id: str, *, owes: Owes | None = None) -> None:
        """Let a stalled run try again at once, with the code that the service has. Returns once that is durable.

        It then goes on with what it has received, or stalls again. It also tries on its own whenever other code runs.
        `owes`: the audit's line of it.
        Raises RunNotStalledError, RunEndedError or RunNotFoundError.
        """
        self._here("retry()")
        found = await self._row(run_id)
        if found.has_ended:
            raise RunEndedError(run_id, found.status)
        if found.status != "stalled":
            raise RunNotStalledError(run_id, found.status)
        await self._intake.record(run_id, owes=owes)

    async def attempt(
        self, run_id: str, *, actor: Mapping[str, Any] | None = None, owes: Owes | None = None
    ) -> Run[Any]:
        """Make another attempt at a run that failed or was cancelled: a new run, started as it was.

            again = await engine.attempt(run.id)

        The new run is on today's code. Its `run_created` names the old one as `attempt_of`, and the `actor`, who wants
        the attempt. `owes`: the audit's line of it. A repeat returns the
        same run. A stalled run is retried instead, and is what this returns. Nothing was written if this raises
        RunEndedError (it has completed), RunNotStalledError (it is open), AlreadyResetError (another run is in its
        place), RunNotFoundError, or, because its input doesn't fit today's code, InvalidPayloadError or
        DeserializationError.
        """
        self._here("attempt()")
        found = await self.store.read(run_id)
        if found is None:
            raise RunNotFoundError(run_id)
        row, (first, *_) = found
        if row.next_run is not None:
            raise AlreadyResetError(run_id, await self.store.last(row.next_run), row.status)
        if row.status not in ("failed", "cancelled"):
            await self.retry(run_id, owes=owes)
            return self.get_run(run_id)
        workflow, given = self.registry.newest(row.code), first.data["input"]
        if missing := workflow.signature.missing(given):
            raise InvalidPayloadError([{"loc": [name], "msg": "today's code needs this"} for name in missing], "input")
        workflow.signature.decode_call(given)
        listed = workflow.under(row.workflow, first.data.get("settings"))
        key = ATTEMPT_OF + run_id
        named: dict[str, Any] = {} if actor is None else {"actor": dict(actor)}
        created = await self._intake.start(
            listed, given, key, attributes_after([first]), owes=owes, attempt_of=run_id, **named
        )
        return Run(self, created.run_id, is_new=created.is_new)

    async def wake_up(self, run_id: str, *, owes: Owes | None = None) -> int:
        """End every sleep that the run is in, and return their number. Raises RunNotFoundError.

        If another run goes on in its place, this is about that one. `owes`: the audit's line of it, if there are any.
        """
        self._here("wake_up()")
        run_id = await self.store.last(run_id)
        log = await self.events(run_id)
        over = {e.data["id"] for e in log if e.type in ("wait_completed", "wait_cancelled")}
        sleeps = [e.data["id"] for e in log if e.type == "wait_created" and e.data["kind"] == "sleep"]
        facts = [NewEvent("wait_completed", {"id": number}) for number in sleeps if number not in over]
        if not facts:
            return 0
        recorded = await self._intake.record(run_id, *facts, owes=owes)
        return len(recorded)
