"""What the protocol promises of a reset, checked on every store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from approvals_bot.durable.core.events import Event, EventType, NewEvent
from approvals_bot.durable.engine.reset import plan_reset
from approvals_bot.durable.store.protocol import (
    Append,
    Claim,
    Fenced,
    Filter,
    Full,
    Lease,
    OpenStore,
    Received,
    Reset,
    RunRecord,
    Stale,
    TokenTaken,
    WasReset,
)
from tests.support.new_runs import new_run

Connect = Callable[[], Awaitable[OpenStore]]
T0 = datetime(2026, 1, 1, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)


def event(type: EventType, **data: Any) -> NewEvent:
    return NewEvent(type, data)


def hook(number: int, token: str, run_id: str = "old") -> NewEvent:
    return event("hook_created", id=number, hook_id=f"{run_id}-{token}", token=token, metadata={"for": token})


async def a_run(store: OpenStore, run_id: str = "old", *tokens: str, **given: Any) -> Claim:
    """Create a run with a hook for each token. Returns its claim, which is still held."""
    data = {"run_id": run_id, "input": {}, "attributes": given.get("attributes", {})}
    await store.create(new_run(run_id, "w", "w", None, data, **given), T0)
    (claimed,) = await store.claim(Lease("me", T0, T0 + timedelta(days=1)), run_id=run_id)
    hooks = [hook(number, token, run_id) for number, token in enumerate(tokens, 1)]
    batch = Append(run_id, claimed.claim.epoch, 1, [event("run_started"), *hooks], T0)
    await store.append(batch._replace(attributes={"$waiting_for": ["ann"]}))
    return claimed.claim


async def found(store: OpenStore, run_id: str) -> tuple[RunRecord, list[Event]]:
    read = await store.read(run_id)
    assert read is not None
    return read


async def planned(store: OpenStore, to: int, new_id: str = "new", old: str = "old") -> Reset:
    return plan_reset(*await found(store, old), to, new_id)


async def listed(store: OpenStore, **attributes: str) -> list[str]:
    rows, _ = await store.runs(Filter(attributes={f"${name}": value for name, value in attributes.items()}))
    return [row.id for row in rows]


async def test_a_reset_moves_hooks_key_and_due_time_at_once(store: OpenStore) -> None:
    claim = await a_run(store, "old", "a", "b", idempotency_key="k", attributes={"team": "x"})
    await store.append(Append("old", claim.epoch, 4, [event("hook_disposed", id=2)], T0))
    was = await store.hook(token="a")
    assert was is not None
    done = await store.reset(await planned(store, 5), LATER)
    assert isinstance(done, WasReset)
    assert [(e.seq, e.type, e.at) for e in done.events] == [(6, "run_reset", LATER)]

    old, log = await found(store, "old")
    assert (old.status, old.ended_at, old.next_run, old.seq, old.wake_at) == ("reset", LATER, "new", 6, None)
    assert (log[-1].data, old.ending) == ({"next": "new", "to": 5}, {"next": "new", "to": 5})
    new, begun = await found(store, "new")
    assert (new.status, new.created_at, new.wake_at, new.seq, new.attributes) == (
        ("pending", LATER, LATER, 5, {"team": "x"})
    )
    assert (new.epoch, new.next_run, new.ended_at) == (old.epoch + 1, None, None)
    assert [(e.seq, e.type, e.at) for e in begun] == [(e.seq, e.type, e.at) for e in log[:5]]
    assert begun[1:] == log[1:5]
    assert await store.hook(token="a") == was._replace(run_id="new")
    closed = await store.hook(hook_id="old-b")
    assert closed is not None
    assert (closed.run_id, closed.is_live) == ("new", False)
    assert await listed(store, waiting_for="ann") == [], "the new run is found by this once it is worked on"
    open_ones, _ = await store.runs(Filter(attributes={"team": "x"}, is_open=True))
    assert [row.id for row in open_ones] == ["new"]
    again = await store.create(new_run("other", "w", "w", None, {}, idempotency_key="k"), LATER)
    assert (again.run_id, again.is_new) == ("new", False)


async def test_a_reset_allows_no_more_payloads_than_before(store: OpenStore) -> None:
    await a_run(store, "old", "a")
    payload = "x" * 950_000
    for number in range(16):
        assert isinstance(await store.receive("old-a", f"{number}", payload, T0), Received)
    await store.reset(await planned(store, 19), LATER)
    assert isinstance(await store.receive("old-a", "another", payload, LATER), Full)
    assert isinstance(await store.receive("old-a", "small", "x", LATER), Received)


async def test_a_reset_may_be_repeated(store: OpenStore) -> None:
    """The answer to the first call may have been lost."""
    await a_run(store, "old", "a")
    plan = await planned(store, 3)
    await store.reset(plan, LATER)
    was = [await found(store, run) for run in ("old", "new")]
    assert await store.reset(plan, LATER) == WasReset([])
    assert [await found(store, run) for run in ("old", "new")] == was


async def test_a_reset_planned_from_an_older_log_writes_nothing(store: OpenStore) -> None:
    await a_run(store, "old", "a")
    plan = await planned(store, 3)
    await store.receive("old-a", "1", "yes", T0)
    assert await store.reset(plan, LATER) == Stale()
    assert await store.read("new") is None
    assert (await found(store, "old"))[0].next_run is None
    assert await store.reset(plan._replace(old="unknown"), LATER) == Stale()


async def test_of_two_resets_of_an_ended_run_one_is_written(store: OpenStore) -> None:
    await a_run(store, "old", "a")
    await store.record("old", [event("run_cancelled", reason=None)], T0)
    plans = [await planned(store, 3, new_id) for new_id in ("one", "two")]
    assert await store.reset(plans[0], LATER) == WasReset([])
    assert await store.reset(plans[1], LATER) == Stale()
    row, log = await found(store, "old")
    assert (row.status, row.next_run, log[-1].type) == ("cancelled", "one", "run_cancelled")


async def test_a_token_that_another_run_has_refuses_a_reset(store: OpenStore) -> None:
    await a_run(store, "old", "a", "b")
    await store.record("old", [event("run_cancelled", reason=None)], T0)
    await a_run(store, "owner", *"b")
    before = [await found(store, run) for run in ("old", "owner")]
    assert await store.reset(await planned(store, 4), LATER) == TokenTaken("b", "owner")
    assert [await found(store, run) for run in ("old", "owner")] == before
    assert await store.read("new") is None
    free = await store.hook(hook_id="old-a")
    assert free is not None
    assert (free.run_id, free.is_live) == ("old", False)


async def test_the_owner_of_the_old_run_is_fenced(store: OpenStore) -> None:
    claim = await a_run(store, "old", "a")
    await store.reset(await planned(store, 3), LATER)
    assert await store.append(Append("old", claim.epoch, 4, [event("run_completed", result=1)], LATER)) == Fenced()
    assert await store.record("old", [event("step_completed", id=7, result=1)], LATER) == []
    assert await store.claim(Lease("me", LATER, LATER), run_id="old") == []
    (taken,) = await store.claim(Lease("other", LATER, LATER + timedelta(seconds=9)))
    assert taken.claim.run_id == "new"


async def test_a_plan_for_the_old_run_never_fits_the_new_one(store: OpenStore) -> None:
    claim = await a_run(store, "old", "a")
    await store.append(Append("old", claim.epoch, 3, [], T0, release=True))
    await store.reset(await planned(store, 3), LATER)
    until = LATER + timedelta(seconds=9)
    for epoch in range(1, 4):
        plan = Append("old", epoch, 4, [event("run_completed", result="of the old run")], LATER)
        came = await store.receive("old-a", f"click {epoch}", "yes", LATER, Lease("me", LATER, until), plan)
        assert isinstance(came, Received)
        assert (came.then, came.run_id) == (None, "new")
    assert [e.type for e in (await found(store, "old"))[1]][-1] == "run_reset"
    assert [e.type for e in (await found(store, "new"))[1]][-3:] == ["hook_received"] * 3


async def test_resets_and_takers_of_a_token_end_with_one_owner(connected: Connect) -> None:
    stores = [await connected(), await connected()]
    for turn in range(10):
        old, token = f"old{turn}", f"t{turn}"
        await a_run(stores[0], old, token)
        await stores[0].record(old, [event("run_cancelled", reason=None)], T0)
        plan = await planned(stores[0], 3, f"new{turn}", old)
        await stores[1].create(new_run(f"r{turn}", "w", "w", None, {"run_id": f"r{turn}"}), T0)
        (claimed,) = await stores[1].claim(Lease("me", T0, LATER), run_id=f"r{turn}")
        taking = Append(
            f"r{turn}", claimed.claim.epoch, 1, [event("hook_created", id=1, hook_id=f"other{turn}", token=token)], T0
        )
        done, _ = await asyncio.gather(stores[0].reset(plan, LATER), stores[1].append(taking))
        if done == Stale():
            done = await stores[0].reset(plan, LATER)
        (_, log), owner = await found(stores[0], f"r{turn}"), await stores[0].hook(token=token)
        assert owner is not None
        if isinstance(done, WasReset):
            assert (owner.run_id, log[-1].type, log[-1].data["owner"]) == (f"new{turn}", "hook_conflict", f"new{turn}")
        else:
            assert (done, owner.run_id) == (TokenTaken(token, f"r{turn}"), f"r{turn}")
            assert await stores[0].read(f"new{turn}") is None
