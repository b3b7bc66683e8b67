"""Lines that the audit owes: written with their acts, and replaced by the lines once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from approvals_bot.durable.core.events import NewEvent
from approvals_bot.durable.store.audit import AuditEntry, Owes
from approvals_bot.durable.store.protocol import Append, OpenStore, Received, Reset, Successor
from tests.support.new_runs import new_run

Connect = Callable[[], Awaitable[OpenStore]]
T0 = datetime(2026, 1, 1, tzinfo=UTC)
LATER = T0 + timedelta(seconds=1)
ODD = "ann \x00 \ud800 🙂"


async def a_run_with_a_hook(store: OpenStore) -> None:
    await store.create(new_run("r", "w", "w", None, {"run_id": "r", "input": {}}), T0)
    opened = NewEvent("hook_created", {"id": 1, "hook_id": "h", "token": "t"})
    await store.append(Append("r", 0, 1, [opened], T0))


async def owed(store: OpenStore) -> list[tuple[str, str, int, Any]]:
    return [(line.id, line.run_id, line.seq, line.about) for line in await store.owed_lines(10)]


async def test_payload_owes_a_line_a_repeat_none(store: OpenStore) -> None:
    await a_run_with_a_hook(store)
    assert isinstance(await store.receive("h", "1", "yes", T0, owes=Owes("a", {"who": ODD})), Received)
    assert isinstance(await store.receive("h", "1", "yes", T0, owes=Owes("b", {})), Received)
    assert await store.receive("gone", "2", "yes", T0, owes=Owes("c", {})) is None
    assert await owed(store) == [("a", "r", 3, {"who": ODD})]
    assert (await store.owed_lines(10))[0].at == T0


async def test_fact_and_wake_owe_lines_while_the_run_is_open(store: OpenStore) -> None:
    await a_run_with_a_hook(store)
    asked = NewEvent("cancel_requested", {"reason": "x", "until": 0})
    await store.record("r", [asked], T0, Owes("a", {}))
    await store.record("r", [asked], T0, Owes("again", {}))
    await store.record("r", [], LATER, Owes("b", {}))
    await store.record("r", [NewEvent("run_cancelled", {"reason": "x"})], LATER, Owes("c", {}))
    await store.record("r", [], LATER, Owes("too late", {}))
    assert sorted(await owed(store)) == [("a", "r", 3, {}), ("b", "r", 3, {}), ("c", "r", 4, {})]


async def test_start_and_reset_owe_lines_once(store: OpenStore) -> None:
    await a_run_with_a_hook(store)
    for id in ("a", "b"):
        new = new_run("again", "w", "w", None, {"run_id": "again", "input": {}}, idempotency_key="k")
        await store.create(new._replace(owes=Owes(id, {})), T0)
    found = await store.read("r")
    assert found is not None
    row, log = found
    first = log[0]._replace(data=log[0].data | {"run_id": "new", "reset_of": {"run_id": "r", "seq": 1}})
    new_row = row._replace(id="new", status="pending", seq=1)
    for id in ("c", "d"):
        await store.reset(Reset("r", 2, None, Successor(new_row, [first], "r"), owes=Owes(id, {})), LATER)
    assert await owed(store) == [("a", "again", 1, {}), ("c", "new", 1, {})]


async def test_of_two_that_settle_one_writes(connected: Connect) -> None:
    stores = [await connected(), await connected()]
    await a_run_with_a_hook(stores[0])
    for number in range(8):
        await stores[0].receive("h", f"{number}", "yes", T0, owes=Owes(f"{number}", {"n": number}))
    entries = [[AuditEntry("said"), AuditEntry("acted", "ann", "r", {"n": number})] for number in range(8)]
    done = await asyncio.gather(
        *(store.settle(f"{number}", entries[number], T0, None) for number in range(8) for store in stores)
    )
    assert sorted(done) == [False] * 8 + [True] * 8
    lines = await stores[0].audit_lines()
    assert sorted(line.entry.data["n"] for line in lines if line.entry.what == "acted") == list(range(8))
    assert len(lines) == 16
    assert await owed(stores[1]) == []


async def test_damaged_owed_line_is_empty(store: OpenStore, damage: Callable[[str], None]) -> None:
    await a_run_with_a_hook(store)
    await store.receive("h", "1", "yes", T0, owes=Owes("a", {"who": "ann"}))
    damage("UPDATE owed_lines SET about = '{'")
    assert await owed(store) == [("a", "r", 3, {})]
