"""The state of an installation for operators: replicas, store, waits, channels, anchors, configurations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from approvals_bot.approvals.port import ConnectionState
from approvals_bot.approvals.published import IN_TROUBLE, trouble_word
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.attributes import projected
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.audit import AuditFilter, AuditLine, last_backup
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.durable.store.replicas import ReplicaRow
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.attempts import change_counter
from approvals_bot.service.audit_keeper import ANCHORED, LOADED, RIGHTS
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.deliveries import list_deliveries
from approvals_bot.service.directory import DirectoryReader, DirectoryState
from approvals_bot.service.read import request_of
from approvals_bot.service.replicas import SILENT

STALLED_SHOWN = 10
LOADED_SHOWN = 5
LOOKED_THROUGH = 50  # open runs, the oldest, among which the request that waits longest is looked for
MOST_COUNTED = 1_000
SIZES = "store size"  # the counter that has the size of each of the last days
SIZES_KEPT = 8  # days
MEASURE_EVERY, FIRST_MEASURED = 3_600.0, 60.0  # seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChannelState:
    """How a channel is, as this process has seen it. `words`: what it last answered about a delivery in trouble.

    `is_up`: None before the first try. `state`: of its connection, where it keeps one open. `waiting`: open runs with
    cards that it hasn't delivered, at most MOST_COUNTED.
    """

    name: str
    is_up: bool | None
    since: datetime | None
    words: str
    state: str
    waiting: int


@dataclass(frozen=True, slots=True)
class LoadedFiles:
    """A load of the configuration. `changed`: the files that weren't the same at the load before."""

    at: datetime
    replica: str
    version: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operations:
    """The state of an installation.

    `growth`: bytes a day, None before there are two days. `rights`: what changed in them, and when.
    """

    replicas: tuple[ReplicaRow, ...]
    leases: Mapping[str, int]
    size: int
    growth: float | None
    oldest: tuple[RunRecord, Request] | None
    stalled: int
    stalled_runs: tuple[RunRecord, ...]
    channels: tuple[ChannelState, ...]
    anchor: AuditLine | None
    backed_up_at: datetime | None
    loaded: tuple[LoadedFiles, ...]
    rights: tuple[datetime, Sequence[Any]] | None
    directory: DirectoryState | None


async def read_operations(
    engine: Engine,
    channels: Iterable[str],
    watch: ChannelWatch | None,
    states: Mapping[str, Callable[[], Awaitable[ConnectionState]]],
) -> Operations:
    """Return the state of the installation. `states`: of the connections that channels keep open, by name."""
    now, load, reader = engine.now(), await engine.store.load(), engine.resources.get(DirectoryReader)
    silent = now - timedelta(seconds=SILENT) if engine.store.is_shared else None  # an only process writes changes alone
    replicas = [row for row in await engine.store.replicas() if silent is None or row.seen_at >= silent]
    stalled = Filter(status="stalled", oldest_first=True, limit=STALLED_SHOWN)
    anchors = await engine.audit_lines(AuditFilter(what=ANCHORED, newest_first=True, limit=1))
    return Operations(
        replicas=tuple(replicas),
        leases=load.leases,
        size=load.size,
        growth=growth_of(await _sizes(engine), now.date(), load.size),
        oldest=await _find_oldest(engine),
        stalled=await engine.count_runs(stalled, MOST_COUNTED),
        stalled_runs=tuple((await engine.list_runs(stalled)).records),
        channels=tuple([await _channel(engine, name, watch, states) for name in channels]),
        anchor=anchors[0] if anchors else None,
        backed_up_at=await last_backup(engine.store),
        loaded=await _loaded(engine),
        rights=await _rights(engine),
        directory=None if reader is None else reader.state,
    )


async def _find_oldest(engine: Engine) -> tuple[RunRecord, Request] | None:
    """Return the open request that has waited longest, among the oldest open runs."""
    page = await engine.list_runs(Filter(is_open=True, oldest_first=True, limit=LOOKED_THROUGH))
    waiting = [(record, view) for record in page.records if (view := request_of(record)) is not None and view.is_open]
    return min(waiting, key=lambda each: each[1].asked_at, default=None)


async def _channel(
    engine: Engine,
    name: str,
    watch: ChannelWatch | None,
    states: Mapping[str, Callable[[], Awaitable[ConnectionState]]],
) -> ChannelState:
    trouble = Filter(attributes={projected(IN_TROUBLE): trouble_word(None, name)}, is_open=True)
    first = (await list_deliveries(engine, channel=name, limit=1)).rows
    said = [
        f"{one.replace('_', ' ')}: {_words(await state())}" for one, state in states.items() if one.startswith(name)
    ]
    is_up, since, why = (None, None, "") if watch is None else watch.of(name)
    words = next((row.delivery.error for row in first if row.delivery.error), why)
    return ChannelState(name, is_up, since, words, "; ".join(said), await engine.count_runs(trouble, MOST_COUNTED))


def _words(state: ConnectionState) -> str:
    return f"{state.word}, {state.why}" if state.why else state.word


async def _loaded(engine: Engine) -> tuple[LoadedFiles, ...]:
    """Return the last loads of the configuration, the newest first."""
    lines = await engine.audit_lines(AuditFilter(what=LOADED, newest_first=True, limit=LOADED_SHOWN + 1))
    found = []
    for line, before in zip(lines, [*lines[1:], None], strict=False):
        data = line.entry.data
        files, earlier = data.get("files", {}), {} if before is None else before.entry.data.get("files", {})
        changed = [name for name in sorted({*files, *earlier}) if files.get(name) != earlier.get(name)]
        shown = tuple(changed) if before is not None else ()
        found.append(LoadedFiles(line.at, str(data.get("replica", "")), str(data.get("version", "")), shown))
    return tuple(found[:LOADED_SHOWN])


async def _rights(engine: Engine) -> tuple[datetime, Sequence[Any]] | None:
    """Return when who may do what last changed, and what did; None if it never has."""
    lines = await engine.audit_lines(AuditFilter(what=RIGHTS, newest_first=True, limit=1))
    changed = lines[0].entry.data.get("changed") if lines else None
    return (lines[0].at, changed) if isinstance(changed, list) and changed else None


# ── the store's size, once a day ──


async def measure(engine: Engine) -> None:
    """Record today's size of the store, once a day."""
    now = engine.now()
    today, size = now.date().isoformat(), (await engine.store.load()).size

    def decide(state: Mapping[str, Any]) -> dict[str, Any] | None:
        days: dict[str, int] = state.get("days", {})
        newest = sorted({**days, today: size}.items())[-SIZES_KEPT:]
        return None if today in days else {"days": dict(newest)}

    await change_counter(engine, SIZES, now + timedelta(days=SIZES_KEPT), decide)


async def keep_measuring(engine: Engine) -> None:
    """Record the store's size every day, until cancelled."""
    pause = FIRST_MEASURED
    while True:
        await asyncio.sleep(pause)
        pause = MEASURE_EVERY
        try:
            await measure(engine)
        except StoreUnavailableError as error:
            log.warning("the store's size could not be noted: %s", error)


async def _sizes(engine: Engine) -> Mapping[str, int]:
    row = await engine.store.counter(SIZES)
    return {} if row is None else row.state.get("days", {})


def growth_of(sizes: Mapping[str, int], today: date, size: int) -> float | None:
    """Return the bytes a day by which the store has grown since the oldest day that is noted. None: there is none."""
    earlier = {day: bytes for day, bytes in sizes.items() if day < today.isoformat()}
    if not earlier:
        return None
    first = min(earlier)
    return (size - earlier[first]) / (today - date.fromisoformat(first)).days
