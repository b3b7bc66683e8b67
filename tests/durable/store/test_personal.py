"""What people set themselves, and places in lists, on both stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from approvals_bot.durable.core.attributes import Findable, Placed
from approvals_bot.durable.core.events import NewEvent, to_micros
from approvals_bot.durable.store.personal import PersonalRow
from approvals_bot.durable.store.protocol import Append, Created, Filter, Lease, OpenStore
from tests.durable.store.conftest import Connect
from tests.support.new_runs import T0, new_run

MINUTE = timedelta(minutes=1)
ANN = PersonalRow("ann@acme.eu", {"zone": "Europe/Berlin", "away": []}, T0)
ODD = PersonalRow("bø@acme.eu", {"x": "\ud800\x00"}, T0 + MINUTE)


async def test_settings_are_read_as_written_by_every_replica(connected: Connect) -> None:
    here, there = await connected(), await connected()
    for row in (ANN, ODD):
        await here.set_personal(row)
    assert await there.personal(T0) == [ANN, ODD]
    assert await there.personal(T0 + MINUTE) == [ODD]
    changed = ANN._replace(settings={"zone": ""}, changed_at=T0 + 2 * MINUTE)
    await there.set_personal(changed)
    assert await here.personal(T0) == [ODD, changed]


WAITING = Filter(attributes={"$waiting_for": "ann"}, is_open=True, oldest_first=True, limit=2)


async def test_a_list_has_the_order_of_places(store: OpenStore) -> None:
    """Runs begin one after the other, and are listed by their places, those without by their begin."""
    lease = Lease("somebody", T0, T0 + timedelta(days=1))

    def at(minutes: int) -> Placed:
        return Placed("ann", to_micros(T0 + minutes * MINUTE))

    epochs = dict[str, int]()

    async def place(run: str, *values: Findable) -> None:
        wanted: dict[str, Sequence[Findable]] = {"$waiting_for": values}
        seen = await store.read(run)
        assert seen is not None
        name = f"{run} {seen[0].seq}"
        hook = NewEvent("hook_created", {"id": seen[0].seq, "hook_id": name, "token": name, "answer": None})
        batch = Append(run, epochs[run], seen[0].seq, [hook], T0, attributes=wanted, release=False)
        await store.append(batch)

    places: list[list[Findable]] = [[at(30)], [at(20)], ["ann"], [at(40), at(10), "bo"]]
    for n, values in enumerate(places):
        created = await store.create(new_run(f"r{n}", "w", "w", None, {}), T0 + n * MINUTE, lease)
        assert isinstance(created, Created)
        assert created.claimed is not None
        epochs[f"r{n}"] = created.claimed.claim.epoch
        await place(f"r{n}", *values)

    async def listed() -> list[str]:
        first, cursor = await store.runs(WAITING)
        second, end = await store.runs(replace(WAITING, cursor=cursor))
        assert (end, await store.count(WAITING, 9)) == (None, 4)
        return [run.id for run in (*first, *second)]

    assert await listed() == ["r2", "r3", "r1", "r0"]
    await place("r1", at(50))
    await place("r2", at(45))
    await place("r0", at(30))
    assert await listed() == ["r3", "r0", "r2", "r1"]
    await place("r1", "ann")
    assert await listed() == ["r1", "r3", "r0", "r2"]


async def test_a_list_is_bound_by_when_runs_began(store: OpenStore) -> None:
    for n in range(4):
        await store.create(new_run(f"r{n}", "w", "w", None, {}), T0 + n * MINUTE)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"opened_after": T0 + MINUTE}, ["r3", "r2", "r1"]),
        ({"opened_before": T0 + MINUTE}, ["r0"]),
        ({"opened_after": T0 + MINUTE, "opened_before": T0 + 3 * MINUTE, "workflow": "w"}, ["r2", "r1"]),
    ]
    for bounds, expected in cases:
        which = Filter(**bounds)
        assert [run.id for run in (await store.runs(which))[0]] == expected
        assert await store.count(which, 9) == len(expected)
