"""The states of schedules, on both stores: compared and set, however many write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from approvals_bot.durable.store.protocol import OpenStore, StateRow
from tests.durable.store.conftest import Connect

ODD = "a\x00b \ud800 \\u0000 💥"


async def test_a_state_is_read_as_it_was_written(store: OpenStore) -> None:
    rows = [StateRow("deploy/nightly", 1, {"why": ODD}), StateRow(f"deploy/{ODD}", 1, {})]
    for row in rows:
        assert await store.set_schedule(row)
    assert sorted(await store.schedules()) == sorted(rows)


async def test_a_state_is_written_from_the_version_before(store: OpenStore) -> None:
    first = StateRow("deploy/nightly", 1, {"n": 1})
    assert not await store.set_schedule(first._replace(version=2))
    assert await store.set_schedule(first)
    assert not await store.set_schedule(first._replace(state={"n": 2}))
    assert not await store.set_schedule(first._replace(version=3))
    assert await store.set_schedule(first._replace(version=2, state={"n": 2}))
    assert await store.schedules() == [StateRow("deploy/nightly", 2, {"n": 2})]


async def test_of_many_processes_one_writes_each_version(connected: Connect) -> None:
    stores = [await connected() for _ in range(3)]
    for version in range(1, 6):
        rows = [StateRow("deploy/nightly", version, {"by": n}) for n in range(9)]
        written = await asyncio.gather(*(stores[n % 3].set_schedule(row) for n, row in enumerate(rows)))
        assert written.count(True) == 1
        assert await stores[0].schedules() == [rows[written.index(True)]]


async def test_a_damaged_state_is_empty(store: OpenStore, damage: Callable[[str], None]) -> None:
    await store.set_schedule(StateRow("deploy/nightly", 1, {"n": 1}))
    await store.set_schedule(StateRow("deploy/weekly", 1, {"n": 1}))
    damage("UPDATE schedules SET state = '[1' WHERE name = 'deploy/nightly'")
    assert sorted(await store.schedules()) == [
        StateRow("deploy/nightly", 1, {}),
        StateRow("deploy/weekly", 1, {"n": 1}),
    ]
