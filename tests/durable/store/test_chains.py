"""Each log and the audit are chains, in both stores: computed here again from what the tables hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from approvals_bot.durable.core.events import NewEvent, to_micros
from approvals_bot.durable.store.audit import AuditEntry, AuditFilter, line_hash
from approvals_bot.durable.store.chain import ChainKey, RunHead, event_hash, key_id_of
from approvals_bot.durable.store.protocol import Append, Appended, Lease, OpenStore
from tests.support.new_runs import new_run

Connect = Callable[[], Awaitable[OpenStore]]
T0 = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
KEY = ChainKey.derive(b"k" * 32)


async def head_of(store: OpenStore, run_id: str) -> RunHead:
    """Return the head of a run's chain, after checking each of its links."""
    before, seq = run_id, 0
    for row in await store.chained(run_id):
        assert row.seq == seq + 1
        assert len(row.salt) == 32
        before, seq = event_hash(before, row.seq, row.kind, row.micros, row.key, row.seal), row.seq
        assert row.hash == before
    return RunHead(run_id, seq, before)


async def ended(store: OpenStore, run_id: str, at: datetime = T0) -> None:
    lease = Lease("me", at, at + SECOND)
    await store.create(new_run(run_id, "w", "w", None, {}), at)
    (claimed,) = await store.claim(lease, run_id=run_id)
    end = [NewEvent("run_started", {}), NewEvent("run_completed", {"result": "né \u2028"})]
    batch = Append(run_id, claimed.claim.epoch, len(claimed.log), end, at, release=True)
    assert isinstance(await store.append(batch), Appended)


async def test_log_is_a_chain_that_begins_with_the_run(store: OpenStore) -> None:
    await ended(store, "a")
    await store.create(new_run("b", "w", "w", None, {"é": "\u2028"}), T0)
    await store.record("b", [NewEvent("cancel_requested", {"reason": "x", "until": 0})], T0 + SECOND)
    first, second = await head_of(store, "a"), await head_of(store, "b")
    assert (first.seq, second.seq) == (3, 2)
    assert len({row.hash for run in "ab" for row in await store.chained(run)}) == 5


async def test_each_ended_run_is_named_in_the_audit_once(connected: Connect) -> None:
    stores = [await connected(), await connected()]
    for number in range(5):
        await ended(stores[0], f"r{number}", T0 + number * SECOND)
    await stores[0].create(new_run("open", "w", "w", None, {}), T0)
    await asyncio.gather(*(store.seal_ended(T0, KEY, 3) for store in [*stores, *stores, *stores]))
    while await stores[0].seal_ended(T0, KEY, 3):  # one that another replica got ahead of takes none
        pass
    lines = await stores[0].audit_lines()
    assert sorted(line.entry.run_id or "" for line in lines) == [f"r{number}" for number in range(5)]
    for line in lines:
        head = await head_of(stores[0], line.entry.run_id or "")
        assert line.entry.data == {"seq": head.seq, "head": head.hash, "status": "completed"}


async def test_open_runs_are_named_when_they_have_grown(store: OpenStore) -> None:
    for run in "abc":
        await store.create(new_run(run, "w", "w", None, {}), T0)
    heads = [await head_of(store, run) for run in "abc"]
    assert await store.seal_open(T0, KEY, 2) == heads[:2]
    assert await store.seal_open(T0, KEY, 2, "b") == heads[2:]
    assert await store.seal_open(T0, KEY, 2) == []
    await store.record("b", [NewEvent("cancel_requested", {"reason": "x", "until": 0})], T0 + SECOND)
    assert await store.seal_open(T0, None, 2) == [await head_of(store, "b")]
    named = [line.entry.data["heads"] for line in await store.audit_lines(AuditFilter(what="runs_sealed"))]
    assert [len(each) for each in named] == [2, 1, 1]


async def test_audit_with_a_key_is_a_chain_that_only_the_key_makes(store: OpenStore) -> None:
    for number, key in enumerate((None, KEY, KEY)):
        await store.audit(
            AuditEntry("said", "ann", "r1", {"n": number, "text": "\u2028 \x00"}, {"kind": "cli"}), T0, key
        )
    lines = await store.audit_lines()
    assert [key_id_of(line.hash) for line in lines] == ["", KEY.id, KEY.id]
    before = ""
    for line, key in zip(lines, (None, KEY, KEY), strict=True):
        assert line.hash == line_hash(before, line.seq, to_micros(line.at), line.entry, line.salt, key)
        assert line.hash != line_hash(before, line.seq, to_micros(line.at), line.entry, line.salt, ChainKey("", b"x"))
        before = line.hash


async def test_audit_is_read_by_person_kind_run_and_time(store: OpenStore) -> None:
    for number in range(9):
        entry = AuditEntry("said" if number % 2 else "heard", f"p{number % 3}", f"r{number % 4}")
        await store.audit(entry, T0 + number * SECOND)

    async def found(**which: object) -> list[int]:
        return [line.seq for line in await store.audit_lines(AuditFilter(**which))]  # type: ignore[arg-type]  # by name

    assert await found(what="said") == [2, 4, 6, 8]
    assert await found(who="p0", what="said") == [4]
    assert await found(run_id="r0", newest_first=True, limit=2) == [9, 5]
    assert await found(since=T0 + 2 * SECOND, until=T0 + 4 * SECOND) == [3, 4]
    assert await found(above=6, below=9) == [7, 8]
    assert await found(who="nobody") == []
