"""Counters and lists by idempotency key, on both stores."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from approvals_bot.durable.store.protocol import Append, Filter, OpenStore, StateRow
from tests.durable.store.conftest import Connect
from tests.durable.store.test_store_promises import claimed, event
from tests.support.new_runs import T0, new_run

ODD = "a b \\u0000 💥"
TOMORROW = T0 + timedelta(days=1)


async def test_a_counter_is_written_from_the_version_before(store: OpenStore) -> None:
    first = StateRow(ODD, 1, {"n": ODD})
    assert await store.counter(ODD) is None
    assert not await store.set_counter(first._replace(version=2), T0, TOMORROW)
    assert await store.set_counter(first, T0, TOMORROW)
    assert not await store.set_counter(first, T0, TOMORROW)
    assert await store.set_counter(first._replace(version=2, state={}), T0, TOMORROW)
    assert await store.counter(ODD) == StateRow(ODD, 2, {})


async def test_of_many_processes_one_writes_each_count(connected: Connect) -> None:
    stores = [await connected() for _ in range(3)]
    for version in range(1, 6):
        rows = [StateRow("calls", version, {"by": n}) for n in range(9)]
        counted = (stores[n % 3].set_counter(row, T0, TOMORROW) for n, row in enumerate(rows))
        written = await asyncio.gather(*counted)
        assert written.count(True) == 1
        assert await stores[0].counter("calls") == rows[written.index(True)]


async def test_counters_that_are_over_are_deleted(store: OpenStore) -> None:
    for n in range(5):
        await store.set_counter(StateRow(str(n), 1, {}), T0, T0 + timedelta(seconds=n))
    await store.set_counter(StateRow("other", 1, {}), T0 + timedelta(seconds=2), TOMORROW)
    left = [n for n in range(5) if await store.counter(str(n)) is not None]
    assert left == [3, 4]


EVERY = [("a ", "a \U0010ffff")]
KEYS = ("a s", "a s:1", "a s:2", "a s:É", "a s1", "a t:1", "b s:1")


@pytest.fixture
async def keyed(store: OpenStore) -> OpenStore:
    """A store with a run of each key, of which that of `a s:2` has ended."""
    for n, key in enumerate(KEYS):
        await store.create(new_run(f"r{n}", "w", "w", None, {"run_id": f"r{n}"}, idempotency_key=key), T0)
    return store


async def found(store: OpenStore, *keys: str, **more: object) -> list[str]:
    ranges = [(key, f"{key[:-1]}\U0010ffff" if key.endswith("*") else key) for key in keys]
    ranges = [(first.removesuffix("*"), last) for first, last in ranges]
    listed, cursor = await store.runs(Filter(keys=ranges, **more))  # type: ignore[arg-type]
    assert cursor is None
    assert [run.key for run in listed] == [KEYS[int(run.id[1:])] for run in listed]
    return [str(run.key) for run in listed]


async def test_runs_are_listed_by_their_keys(keyed: OpenStore) -> None:
    assert await found(keyed, "a s:1") == ["a s:1"]
    assert await found(keyed, "a s:3") == []
    assert await found(keyed, "a s:*") == ["a s:É", "a s:2", "a s:1"]
    assert await found(keyed, "a s:*", oldest_first=True) == ["a s:1", "a s:2", "a s:É"]
    assert await found(keyed, "a s:*", workflow="other") == []
    assert await found(keyed, "a s", "a s:*") == ["a s:É", "a s:2", "a s:1", "a s"]
    assert await keyed.count(Filter(keys=EVERY, is_open=True), 100) == 6
    assert await keyed.count(Filter(keys=EVERY, is_open=False), 100) == 0
    assert await keyed.count(Filter(keys=EVERY, status="completed"), 100) == 0


async def test_pages_by_key_meet_without_gaps(keyed: OpenStore) -> None:
    seen, cursor = [], None
    for _ in range(4):
        page, cursor = await keyed.runs(Filter(keys=EVERY, limit=2, cursor=cursor))
        seen += [KEYS[int(run.id[1:])] for run in page]
        if cursor is None:
            break
    assert seen == sorted((key for key in KEYS if key.startswith("a")), reverse=True)
    with pytest.raises(ValueError, match="cursor"):
        await keyed.runs(Filter(keys=EVERY, cursor="12.r1"))


async def test_keys_of_ended_runs_are_found(store: OpenStore) -> None:
    await store.create(new_run("r0", "w", "w", None, {"run_id": "r0"}, idempotency_key="a s"), T0)
    claim = await claimed(store, "r0")
    await store.append(Append("r0", claim.epoch, 1, [event("run_completed", result=None)], T0, release=True))
    assert await found(store, "a s", is_open=False) == ["a s"]
    assert await found(store, "a s", is_open=True) == []
