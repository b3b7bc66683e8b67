"""What watches the running service: its metrics, its troubles, and how its channels and its store are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from typing import Any, Literal, Protocol

from approvals_bot.app.connections import start_task
from approvals_bot.approvals.port import Called, CallResult, Channel
from approvals_bot.config.monitoring import AlertsTable
from approvals_bot.durable.core.context import step_context
from approvals_bot.durable.core.events import ENDINGS, Event
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.protocol import Claimed, OpenStore
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import People, SourceFault
from approvals_bot.service.alerts import Alerts
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.directory import DirectoryReader
from approvals_bot.service.figures import FigureReader
from approvals_bot.service.store_mends import store_mend
from approvals_bot.service.troubles import LOOK_EVERY, Troubles
from approvals_bot.web.metrics import Metrics

NOTED = ENDINGS | {"hook_disposed"}
"""The events that monitors take note of: the end of a run, and that of a request, which takes no votes any more."""

DELIVERY_EVENTS = {"delivered": "delivery_done", "uncertain": "delivery_done", "refused": "delivery_refused"}
"""What the log calls an attempt, by its outcome. The others are tried again, and are in the channel's state."""

OF_RUNS = "run_"  # what the IDs of deliveries for requests begin with
TOO_LATE = 5.0  # seconds; a timer that is later than this has a line in the log
STORE, STALLED = "store", "stalled runs"
READ_AGAIN = 30.0  # seconds between two attempts to read a source of people that can't be read
SOURCE_MEND = "Check the file or the [http] target that [groups] or [directory] names, and what it holds"
LISTED = "`approvals-bot runs --status stalled` lists them, and `explain RUN` says why one waits; deploy the fix"

log = logging.getLogger(__name__)
WRITES = frozenset(
    {"create", "create_with_hooks", "append", "record", "receive", "reset", "claim", "check", "announce", "begin_work"}
)
CALLS = (*sorted(WRITES), "audit_lines", "count", "hook", "look", "next_wake", "read", "runs", "taken")


class WrittenLog(Protocol):
    """Where the log's lines go. `lost`: how many could not be written; `why`: of the last one, "" if it was."""

    lost: int
    why: str


class Monitoring:
    """The monitoring of one service."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.metrics = Metrics()
        self.troubles = Troubles(now)
        self.channels = ChannelWatch(now, self.troubles, lambda name, up: self.metrics.channel_is(name, up=up))
        self.figures: FigureReader | None = None
        self._is_lost = False
        self.log: WrittenLog | None = None

    def watch_store(self, store: OpenStore, version: str) -> None:
        """Time the store's calls."""
        self.metrics.started(version, "postgresql" if store.is_shared else "sqlite")
        measure(store, answered=self.metrics.store_answered, failed=self._store_failed, worked=self._store_works)

    def _store_failed(self, error: StoreUnavailableError) -> None:
        self.metrics.store_failed(type(error.__cause__ or error).__name__)
        self._is_lost = True
        said = str(error).removesuffix("Try again.").strip().removesuffix(".")
        self.troubles.begin(STORE, "store_lost", said, store_mend(said))

    def _store_works(self) -> None:
        if self._is_lost:
            self._is_lost = False
            self.troubles.end(STORE, "store_back", "the store answers again")

    def start(
        self,
        stack: AsyncExitStack,
        engine: Engine,
        channels: Mapping[str, Channel],
        *,
        workflows: Callable[[], Sequence[str]],
        alerts: Callable[[], AlertsTable],
        is_first: Callable[[], bool],
    ) -> None:
        """Watch what the engine works with; the stack stops it. `workflows`: those whose runs are requests."""
        self.channels.watch(channels)
        self.figures = FigureReader(engine, workflows, sorted(channels))
        stack.push_async_callback(self.figures.close)
        start_task(stack, self._keep_looking(engine), "what is wrong for a while")
        start_task(stack, self._keep_reading(engine), "sources of people that can't be read")
        start_task(stack, self.channels.keep_probing(), "probes of channels")
        sending = Alerts(engine, self.troubles, alerts, is_first=is_first)
        start_task(stack, sending.keep_sending(self._look_for_stalled), "alerts")

    async def _look_for_stalled(self) -> None:
        """Record runs that have stalled, whichever process they stalled in."""
        figures = None if self.figures is None else await self.figures.read()
        if figures is None:
            return
        if count := figures.runs.get("stalled", 0):
            runs = "run waits" if count == 1 else "runs wait"
            self.troubles.begin(STALLED, "run_stalled", f"{count} {runs} for a fix of the code", LISTED)
        else:
            self.troubles.end(STALLED, "run_resumed", "no run waits for a fix any more")

    async def _keep_looking(self, engine: Engine) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._is_lost:  # an idle service writes nothing that would show that it works again
                with suppress(StoreUnavailableError):
                    await engine.ready()
            self._look_at_sources(engine)
            self.look_at_log()
            self.troubles.remind()

    async def _keep_reading(self, engine: Engine) -> None:
        """Read again what can't be read: perhaps nobody else asks for it any more."""
        while True:
            await asyncio.sleep(READ_AGAIN)
            await engine.resources[People].read_again()

    def look_at_log(self) -> None:
        """Record lines that are lost. The log itself can't say so."""
        if self.log is None:
            return
        self.metrics.lines_lost(self.log.lost)
        if self.log.why:
            text = f"the log can't be written ({self.log.why}), so lines are lost"
            mend = "Free some space where standard error goes, or see why its reader has ended"
            self.troubles.begin("log", "log_lost", text, mend)
        else:
            self.troubles.end("log", "log_back", "the log can be written again, but lines before this one are lost")

    def _look_at_sources(self, engine: Engine) -> None:
        """Record the sources of people that can't be read, but for the directory, which has its own line."""
        people, reader = engine.resources[People], engine.resources[DirectoryReader]
        listed = "" if reader.state is None else reader.state.source
        down = {source: why for source, why in people.unreadable.items() if why and source != listed}
        for source, why in down.items():
            text = f"the source {SourceFault(source, why)}; requests that need it wait, and it is read again"
            mend = "Check [slack] and that user group" if source.startswith("slack:") else SOURCE_MEND
            self.troubles.begin(
                f"source {source}", "source_down", text, f"{mend}; `approvals-bot doctor` reads it, too"
            )
        for trouble in self.troubles:
            source = trouble.key.removeprefix("source ")
            if trouble.event == "source_down" and source not in down:
                self.troubles.end(trouble.key, "source_back", f"{source} can be read again")

    def appended(self, run_id: str, events: list[Event]) -> None:
        """Record what this process has appended to a run that has ended by it, or takes no votes any more."""
        self.metrics.appended(run_id, events)
        if self.figures is not None:
            self.figures.saw(run_id, events)

    def claimed(self, each: Claimed) -> None:
        """Record a run that this process takes up, which was due before."""
        row = each.row
        if each.taken_over:
            self.metrics.taken_over()
            said = {"event": "lease_taken_over", "run_id": row.id, "workflow": row.workflow}
            log.warning("a run was taken over from a process that let its lease end", extra=said)
        if row.wake_at is None:
            return
        late = max(0.0, (self.now() - row.wake_at).total_seconds())
        by_timer = each.log[-1].at < row.wake_at
        self.metrics.run_taken_up(late, by_timer=by_timer)
        if by_timer and late > TOO_LATE:
            said = {"event": "timer_late", "run_id": row.id, "workflow": row.workflow}
            log.warning("a run was due %.0f seconds ago", late, extra=said)

    def delivered(self, channel: str, act: Literal["send", "update"], outcome: str, delivery_id: str) -> None:
        """Record an attempt to deliver something."""
        self.metrics.delivered(channel, act, outcome)
        self.channels.saw(channel, act, outcome)
        if (event := DELIVERY_EVENTS.get(outcome)) is not None:
            level = logging.WARNING if event == "delivery_refused" else logging.INFO
            said = {"event": event, "channel": channel, "outcome": outcome}
            if delivery_id.startswith(OF_RUNS):  # others are made of addresses and tokens
                said["delivery_id"] = delivery_id
            log.log(level, "%s: a message was %s (%s)", channel, outcome, act, extra=said)

    def called(self, target: str, result: CallResult) -> None:
        """Record a call of a target."""
        outcome = "done" if isinstance(result, Called) else result.kind
        self.metrics.called(target, outcome)
        if self.figures is not None and (context := step_context.get()) is not None:
            self.figures.decided(context.workflow.run_id, self.now())  # no run calls a target before
        key, event, down = f"target {target}", "followup_failed", f"target {target} down"
        if outcome != "try_again":
            self.troubles.end(down, "target_back", f"[http.{target}] answers calls again")
        if outcome == "refused":
            said = f"[http.{target}] refuses calls{_why(result)}, which are not tried again"
            self.troubles.begin(key, event, said, "Check its url and its log", target=target)
        elif outcome == "try_again":
            said = f"[http.{target}] takes no calls now{_why(result)}; they are tried again"
            self.troubles.begin(down, "target_down", said, "Check that it runs", target=target)
        elif outcome == "done":
            self.troubles.end(key, event, f"[http.{target}] takes calls again")


def _why(result: CallResult) -> str:
    return "" if isinstance(result, Called) else f" ({result.error})"


# A store whose calls are timed, and that says when it stops answering and when it answers again.


def measure(
    store: OpenStore,
    *,
    answered: Callable[[str, float], None],
    failed: Callable[[StoreUnavailableError], None],
    worked: Callable[[], None],
) -> None:
    """Call `answered` with each call and its seconds, `failed` with each error, `worked` after a write.

    The methods are replaced in this one object: a class around it would have to repeat the whole protocol.
    """
    for name in CALLS:
        setattr(
            store, name, _measured(getattr(store, name), name, answered, failed, worked if name in WRITES else None)
        )


def _measured(
    call: Callable[..., Awaitable[Any]],
    name: str,
    answered: Callable[[str, float], None],
    failed: Callable[[StoreUnavailableError], None],
    worked: Callable[[], None] | None,
) -> Callable[..., Awaitable[Any]]:
    async def measured(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            result = await call(*args, **kwargs)
        except StoreUnavailableError as error:
            failed(error)
            raise
        answered(name, time.perf_counter() - begun)
        if worked is not None:
            worked()
        return result

    return measured
