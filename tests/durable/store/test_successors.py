"""What the protocol promises of hooks that a run has before its body, and of runs that continue as others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from approvals_bot.durable.core.events import Event, EventType, NewEvent
from approvals_bot.durable.store.protocol import (
    Append,
    Appended,
    Claim,
    Created,
    Fenced,
    Filter,
    Lease,
    NewRun,
    OpenStore,
    Received,
    RunRecord,
    Stale,
    Successor,
    TokenTaken,
)
from tests.support.new_runs import new_run

Connect = Callable[[], Awaitable[OpenStore]]
T0 = datetime(2026, 1, 1, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)

ALL, OPEN = Filter(), Filter(attributes={"team": "x"}, is_open=True)
CONTINUED, WAITING = Filter(status="continued"), Filter(attributes={"$waiting_for": "ann"})


def event(type: EventType, **data: Any) -> NewEvent:
    return NewEvent(type, data)


def with_token(run_id: str, name: str = "t", payload: Any = None, resume_id: str = "1", **given: Any) -> NewRun:
    """A run that has a hook with this token before its body, and perhaps the payload it is started with."""
    hook = {"id": -1, "hook_id": f"{run_id}-{name}", "token": name}
    run = new_run(run_id, "w", "w", None, {"run_id": run_id, "input": {}, "hooks": [hook]}, **given)
    if payload is None:
        return run
    return run._replace(payload=event("hook_received", id=-1, resume_id=resume_id, payload=payload))


def lease(owner: str = "me") -> Lease:
    return Lease(owner, T0, T0 + timedelta(days=1))


async def found(store: OpenStore, run_id: str) -> tuple[RunRecord, list[Event]]:
    read = await store.read(run_id)
    assert read is not None
    return read


async def claimed(store: OpenStore, run_id: str) -> Claim:
    (one,) = await store.claim(lease(), run_id=run_id)
    return one.claim


def successor(old: str, run_id: str, hooks: list[tuple[str, str]], *more: Event, **given: Any) -> Successor:
    """The run that continues `old`, with these hooks: their IDs and tokens."""
    moved = [{"id": -n, "hook_id": id, "token": token} for n, (id, token) in enumerate(hooks, 1)]
    data = {"run_id": run_id, "workflow": "w", "input": {}, "continues": {"run_id": old}, "hooks": moved}
    row = RunRecord.new(run_id, "w", "w", None, LATER, attributes={"team": "x"})
    return Successor(row, [Event(1, "run_created", LATER, data), *more], old, **given)


async def continued(store: OpenStore, claim: Claim, length: int, new: Successor) -> object:
    ending = event("run_continued", next=new.row.id, input={})
    return await store.append(Append(claim.run_id, claim.epoch, length, [ending], LATER, attributes={}, successor=new))


# ── hooks before the body ──


async def test_a_run_has_its_hook_as_soon_as_it_is_created(store: OpenStore) -> None:
    assert await store.create_with_hooks(with_token("r"), T0) == Created("r", True, with_token("r").data)
    hook = await store.hook(token="t")
    assert hook is not None
    assert (hook.id, hook.run_id, hook.number, hook.is_live, hook.created_at) == ("r-t", "r", -1, True, T0)
    assert isinstance(await store.receive("r-t", "1", "yes", T0), Received)
    row, log = await found(store, "r")
    assert [e.type for e in log] == ["run_created", "hook_received"]
    assert (row.status, row.seq, row.wake_at) == ("pending", 2, T0)


async def test_a_start_with_a_taken_token_writes_nothing(store: OpenStore) -> None:
    await store.create_with_hooks(with_token("owner"), T0)
    assert await store.create_with_hooks(with_token("late", idempotency_key="k"), T0) == TokenTaken("t", "owner")
    assert await store.read("late") is None
    created = await store.create(new_run("other", "w", "w", None, {}, idempotency_key="k"), T0)
    assert created.is_new, "the key is free"


async def test_a_repeated_start_with_a_token_finds_its_run(store: OpenStore) -> None:
    new = with_token("r", payload="yes", idempotency_key="k")
    await store.create_with_hooks(new, T0)
    assert await store.create_with_hooks(new, T0) == Created("r", True, new.data), "the first answer was lost"
    again = await store.create_with_hooks(with_token("other", "u", idempotency_key="k"), T0)
    assert again == Created("r", False, new.data)
    assert await store.hook(token="u") is None
    assert len((await found(store, "r"))[1]) == 2


async def test_a_run_starts_with_its_payload_and_its_decisions(store: OpenStore) -> None:
    adopts = event("hook_created", id=1, hook_id="r-t", token="t", adopts=-1, metadata={"a": 1}, has_schema=True)
    then = Append("r", 1, 2, [event("run_started"), adopts], T0, release=True)
    created = await store.create_with_hooks(with_token("r", payload="yes"), T0, lease(), then)
    assert isinstance(created, Created)
    assert created.then is not None
    assert [(e.seq, e.type) for e in created.then] == [(3, "run_started"), (4, "hook_created")]
    hook = await store.hook(token="t")
    assert hook is not None
    assert (hook.number, hook.has_schema, hook.metadata, hook.is_live) == (-1, True, {"a": 1}, True)
    row, log = await found(store, "r")
    assert (row.status, row.seq, [e.seq for e in log]) == ("running", 4, [1, 2, 3, 4])
    claim = await claimed(store, "r")
    await store.append(Append("r", claim.epoch, 4, [event("hook_disposed", id=-1)], T0))
    assert await store.hook(token="t") is None


async def test_a_run_with_a_payload_is_claimed_with_it(store: OpenStore) -> None:
    created = await store.create_with_hooks(with_token("r", payload="yes"), T0, lease())
    assert isinstance(created, Created)
    assert created.claimed is not None
    assert [e.type for e in created.claimed.log] == ["run_created", "hook_received"]
    assert (created.claimed.row.seq, created.claimed.claim.epoch) == (2, 1)


async def test_a_payload_that_an_ended_run_took_starts_none(store: OpenStore) -> None:
    await store.create_with_hooks(with_token("first", payload="yes"), T0)
    await store.record("first", [event("run_cancelled", reason=None)], T0)
    repeat = await store.create_with_hooks(with_token("second", payload="yes"), LATER)
    assert repeat == TokenTaken("t", "first")
    assert await store.hook(token="t") is None
    assert await store.read("second") is None
    assert isinstance(await store.create_with_hooks(with_token("third", payload="yes", resume_id="2"), LATER), Created)


async def test_of_many_starts_with_one_token_one_is_written(connected: Connect) -> None:
    stores = [await connected(), await connected()]
    starts = [stores[n % 2].create_with_hooks(with_token(f"r{n}", payload=n, resume_id=f"{n}"), T0) for n in range(40)]
    done = await asyncio.gather(*starts)
    (owner,) = [each.run_id for each in done if isinstance(each, Created)]
    assert {each for each in done if isinstance(each, TokenTaken)} == {TokenTaken("t", owner)}
    rows, _ = await stores[0].runs(ALL)
    assert [row.id for row in rows] == [owner]


# ── runs that continue ──


async def a_run(store: OpenStore, **given: Any) -> Claim:
    """A run with a hook of its own that has taken a payload, and has another unread."""
    await store.create(new_run("old", "w", "w", None, {"run_id": "old"}, **given), T0)
    claim = await claimed(store, "old")
    hooks = [event("hook_created", id=1, hook_id="h", token="t"), event("hook_created", id=2, hook_id="g", token="u")]
    await store.append(Append("old", claim.epoch, 1, hooks, T0, attributes={"$waiting_for": ["ann"]}))
    await store.receive("h", "1", "read", T0)
    await store.receive("h", "2", "unread", T0)
    return claim


UNREAD = Event(2, "hook_received", LATER, {"id": -1, "resume_id": "2", "payload": "unread"})


async def test_a_continued_run_gives_all_it_has_to_the_next(store: OpenStore) -> None:
    claim = await a_run(store, idempotency_key="k", attributes={"team": "x"})
    new = successor("old", "new", [("h", "t")], UNREAD, unread={-1: 1})
    done = await continued(store, claim, 5, new)
    assert isinstance(done, Appended)
    assert [(e.seq, e.type) for e in done.events] == [(6, "run_continued")]
    old, _ = await found(store, "old")
    assert (old.status, old.ended_at, old.next_run, old.ending) == (
        ("continued", LATER, "new", {"next": "new", "input": {}})
    )
    row, log = await found(store, "new")
    assert log == new.log
    assert (row.status, row.created_at, row.wake_at, row.seq, row.epoch, row.attributes) == (
        ("pending", LATER, LATER, 2, claim.epoch + 1, {"team": "x"})
    )
    moved, closed = await store.hook(token="t"), await store.hook(token="u")
    assert moved is not None
    assert (moved.id, moved.run_id, moved.number, moved.is_live) == ("h", "new", -1, True)
    assert closed is None, "a hook that doesn't move ends with its run"
    again = await store.create(new_run("other", "w", "w", None, {}, idempotency_key="k"), LATER)
    assert (again.run_id, again.is_new) == ("new", False)
    assert await store.last("old") == "new" == await store.last("new")
    assert await store.last("unknown") == "unknown"


async def test_a_continued_run_has_taken_what_it_took(store: OpenStore) -> None:
    claim = await a_run(store)
    await continued(store, claim, 5, successor("old", "new", [("h", "t")], UNREAD))
    first, unread = await store.receive("h", "1", "again", LATER), await store.receive("h", "2", "again", LATER)
    assert isinstance(first, Received)
    assert (first.event.seq, first.event.data["payload"], first.run_id) == (4, "read", "old")
    assert isinstance(unread, Received)
    assert (unread.event.data["payload"], unread.run_id) == ("unread", "new")
    assert len((await found(store, "new"))[1]) == 2
    assert isinstance(await store.receive("h", "3", "more", LATER), Received)
    await store.record("new", [event("run_cancelled", reason=None)], LATER)
    after = await store.receive("h", "1", None, LATER)
    assert isinstance(after, Received)
    assert after.run_id == "old"
    looked = await store.look(0, token="t", resume_id="1")
    assert looked is not None
    assert looked[0].id == "h"
    assert await store.create_with_hooks(with_token("next", payload="x", resume_id="1"), LATER) == TokenTaken(
        "t", "new"
    )


async def test_a_continuation_is_refused_like_any_append(store: OpenStore) -> None:
    claim = await a_run(store)
    new = successor("old", "new", [("h", "t")])
    assert await continued(store, claim, 4, new) == Stale()
    assert await continued(store, claim._replace(epoch=claim.epoch - 1), 5, new) == Fenced()
    assert await store.read("new") is None
    await continued(store, claim, 5, new)
    assert await continued(store, claim, 6, new) == Fenced(), "a repeat, whose first answer was lost"


async def test_lists_find_the_next_run_only(store: OpenStore) -> None:
    claim = await a_run(store, attributes={"team": "x"})
    await continued(store, claim, 5, successor("old", "new", [("h", "t")]))
    rows, _ = await store.runs(OPEN)
    assert [row.id for row in rows] == ["new"]
    rows, _ = await store.runs(CONTINUED)
    assert [row.id for row in rows] == ["old"]
    rows, _ = await store.runs(WAITING)
    assert rows == []


async def test_the_last_of_many_runs_is_one_question(store: OpenStore) -> None:
    await store.create(new_run("r0", "w", "w", None, {"run_id": "r0"}), T0)
    for n in range(200):
        await continued(store, await claimed(store, f"r{n}"), 1, successor(f"r{n}", f"r{n + 1}", []))
    assert await store.last("r0") == await store.last("r150") == "r200"
