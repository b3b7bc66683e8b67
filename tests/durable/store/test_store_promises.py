"""The promises of the protocol's docstring, checked on every store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot.durable.core.events import EventType, NewEvent, to_micros
from approvals_bot.durable.store.audit import AuditEntry
from approvals_bot.durable.store.protocol import (
    Append,
    Appended,
    Claim,
    Fenced,
    Filter,
    Lease,
    OpenStore,
    Received,
    Stale,
)
from approvals_bot.errors import LimitExceededError
from tests.support.new_runs import new_run

Connect = Callable[[], Awaitable[OpenStore]]
T0 = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=15)


async def a_run(store: OpenStore, run_id: str = "r", **given: Any) -> None:
    await store.create(new_run(run_id, "w", "w", None, {"run_id": run_id, "input": {}}, **given), T0)


def lease(owner: str = "me", at: datetime = T0, until: datetime | None = None) -> Lease:
    return Lease(owner, at, until or at + LEASE)


async def claimed(store: OpenStore, run_id: str = "r", owner: str = "me", at: datetime = T0) -> Claim:
    found = await store.claim(lease(owner, at), run_id=run_id)
    assert len(found) == 1
    assert (found[0].row, found[0].log) == await store.read(run_id)
    return found[0].claim


def batch(claim: Claim, expected: int, *events: NewEvent, at: datetime = T0, **options: Any) -> Append:
    return Append(claim.run_id, claim.epoch, expected, list(events), at, **options)


def event(type: EventType, **data: Any) -> NewEvent:
    return NewEvent(type, data)


def hook_created(number: int = 1, *, hook_id: str = "h") -> NewEvent:
    return event("hook_created", id=number, hook_id=hook_id, token="t")


async def found_by(store: OpenStore, attributes: dict[str, str], **which: Any) -> list[str]:
    """Return the ids of the runs that have these attributes, and check the store's count of them."""
    asked = Filter(attributes=attributes, **which)
    rows, _ = await store.runs(asked)
    assert await store.count(asked, 1000) == len(rows)
    return [row.id for row in rows]


async def types(store: OpenStore, run_id: str = "r") -> list[str]:
    found = await store.read(run_id)
    assert found is not None
    return [e.type for e in found[1]]


# ── creating and reading ──


async def test_a_run_is_created_due_at_once_with_its_first_event(store: OpenStore) -> None:
    await a_run(store, attributes={"a": "b"})
    found = await store.read("r")
    assert found is not None
    row, log = found
    assert (row.status, row.wake_at, row.created_at, row.attributes, row.seq) == ("pending", T0, T0, {"a": "b"}, 1)
    assert [(e.seq, e.type, e.at) for e in log] == [(1, "run_created", T0)]
    assert await store.read("unknown") is None


async def test_creating_and_resuming_can_claim_in_the_same_transaction(store: OpenStore) -> None:
    created = await store.create(new_run("r", "w", "w", None, {}), T0, lease())
    assert created.claimed is not None
    assert (created.claimed.row, created.claimed.log) == await store.read("r")
    assert await store.claim(lease("other")) == []
    await store.append(batch(created.claimed.claim, 1, hook_created()))
    held = await store.receive("h", "1", {}, T0, lease("other"))
    assert isinstance(held, Received)
    assert held.claimed is None
    await store.append(batch(created.claimed.claim, 3, release=True))
    free = await store.receive("h", "2", {}, T0, lease("other"))
    assert isinstance(free, Received)
    assert free.claimed is not None
    assert free.claimed.claim.epoch == created.claimed.claim.epoch + 1
    assert free.claimed.log[-1] == free.event
    again = await store.create(new_run("r", "w", "w", None, {}), T0, lease())
    assert (again.is_new, again.claimed) == (True, None)


async def test_creating_may_be_repeated(store: OpenStore) -> None:
    """The answer to the first call may have been lost."""
    new = new_run("r", "w", "w", None, {"run_id": "r"})
    first = await store.create(new, T0)
    again = await store.create(new, T0)
    assert first == again
    assert await types(store) == ["run_created"]


async def test_one_idempotency_key_is_one_run_under_concurrency(connected: Connect) -> None:
    stores = [await connected(), await connected()]
    new = [new_run(f"r{n}", "w", "w", None, {"run_id": f"r{n}", "n": n}, idempotency_key="k") for n in range(20)]
    created = await asyncio.gather(*(stores[n % 2].create(run, T0) for n, run in enumerate(new)))
    assert sum(c.is_new for c in created) == 1
    assert len({c.run_id for c in created}) == 1
    assert len({str(c.data) for c in created}) == 1


async def test_a_log_is_read_from_any_event_together_with_its_row(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    await store.append(batch(claim, 1, event("run_started"), event("step_created", id=1, name="s", input={})))
    found = await store.read("r", after=2)
    assert found is not None
    assert (found[0].seq, [e.seq for e in found[1]]) == (3, [3])


# ── decisions ──


async def test_decisions_are_appended_only_to_the_log_that_was_read(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    result = await store.append(batch(claim, 1, event("run_started")))
    assert isinstance(result, Appended)
    assert [e.seq for e in result.events] == [2]
    assert isinstance(await store.append(batch(claim, 1, event("step_created", id=1, name="s", input={}))), Stale)
    assert await types(store) == ["run_created", "run_started"]


async def test_a_fact_makes_a_decision_stale(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    await store.record("r", [event("wait_completed", id=1)], T0)
    assert isinstance(await store.append(batch(claim, 1, event("run_started"))), Stale)


@pytest.mark.conformance(87)
async def test_an_owner_whose_run_was_claimed_is_fenced(store: OpenStore) -> None:
    await a_run(store)
    old = await claimed(store, owner="old")
    assert await store.claim(lease("new", T0 + LEASE - SECOND, T0 + 2 * LEASE), run_id="r") == []
    new = await claimed(store, owner="new", at=T0 + LEASE)
    assert new.epoch > old.epoch
    assert isinstance(await store.append(batch(old, 1, event("run_started"))), Fenced)
    assert isinstance(await store.append(batch(new, 1, event("run_started"))), Appended)


async def test_a_batch_is_written_whole_or_not_at_all(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    shown: dict[str, Any] = {"view": 1, "parts": [{"n": 1}], "attributes": {"$for": ["ann", "bo"]}}
    options: dict[str, Any] = {**shown, "release": True, "wake_at": T0 + 60 * SECOND}
    assert isinstance(await store.append(batch(claim, 9, event("run_started"), **options)), Stale)
    found = await store.read("r")
    assert found is not None
    assert (found[0].view, found[0].parts, found[0].wake_at) == (None, [], T0)
    assert await found_by(store, {"$for": "ann"}) == []
    await store.append(batch(claim, 1, event("run_started"), **options))
    found = await store.read("r")
    assert found is not None
    assert (found[0].view, found[0].parts, found[0].wake_at) == (1, [{"n": 1}], T0 + 60 * SECOND)
    assert await found_by(store, {"$for": "ann"}) == ["r"]
    assert await found_by(store, {"$for": "bo"}) == ["r"]
    assert await found_by(store, {"$for": "cy"}) == []


async def test_a_stalled_run_takes_facts_and_can_continue(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    await store.append(batch(claim, 1, event("run_started"), hook_created(), release=True))
    claim = await claimed(store)
    await store.append(batch(claim, 3, release=True, stalled="drift"))
    found = await store.read("r")
    assert found is not None
    assert (found[0].status, found[0].stalled, found[0].wake_at) == ("stalled", "drift", None)
    assert await store.receive("h", "1", {}, T0) is not None
    assert await store.claim(lease("me", T0, T0 + LEASE)) != []
    again = await store.read("r")
    assert again is not None
    claim = Claim("r", again[0].epoch)
    await store.append(batch(claim, 4, event("step_created", id=2, name="s", input={}), release=True))
    again = await store.read("r")
    assert again is not None
    assert (again[0].status, again[0].stalled) == ("running", None)


# ── planned batches, in the transaction of another write ──


def follows(expected: int, epoch: int, *events: NewEvent, run_id: str = "r", **options: Any) -> Append:
    return Append(run_id, epoch, expected, list(events), T0, **options)


async def a_waiting_run(store: OpenStore) -> None:
    created = await store.create(
        new_run("r", "w", "w", None, {"run_id": "r", "input": {}}),
        T0,
        lease(),
        follows(1, 1, event("run_started"), hook_created(), release=True, view={"n": 1}),
    )
    assert created.then is not None
    assert created.claimed is None


async def test_a_run_can_be_created_with_a_planned_batch_and_released(store: OpenStore) -> None:
    await a_waiting_run(store)
    row, log = await store.read("r") or pytest.fail("it is gone")
    assert [e.type for e in log] == ["run_created", "run_started", "hook_created"]
    assert (row.status, row.seq, row.view, row.wake_at, row.epoch) == ("running", 3, {"n": 1}, None, 1)
    assert await store.next_wake("me", T0) is None


async def test_a_run_created_with_a_planned_batch_is_held_by_its_lease(store: OpenStore) -> None:
    new = new_run("r", "w", "w", None, {"run_id": "r", "input": {}})
    created = await store.create(new, T0, lease(), follows(1, 1, event("run_started")))
    assert [e.seq for e in created.then or []] == [2]
    assert await store.claim(lease("other"), limit=9) == []
    assert await store.append(batch(Claim("r", 1), 2, event("step_created", id=1))) != Fenced()
    taken = await store.claim(lease("other", T0 + LEASE), limit=9)
    assert [(c.claim.epoch, len(c.log)) for c in taken] == [(2, 3)]


async def test_a_planned_batch_is_not_written_for_a_known_key(store: OpenStore) -> None:
    await a_run(store, idempotency_key="k")
    again = new_run("r2", "w", "w", None, {"run_id": "r2", "input": {}}, "k")
    created = await store.create(again, T0, lease(), follows(1, 1, event("run_started"), run_id="r2"))
    assert (created.run_id, created.is_new, created.then, created.claimed) == ("r", False, None, None)
    assert await types(store) == ["run_created"]


async def test_a_payload_can_be_written_with_a_planned_batch_and_released(store: OpenStore) -> None:
    await a_waiting_run(store)
    at = T0 + SECOND
    then = follows(4, 2, event("step_created", id=2), release=True, wake_at=at + SECOND, view={"n": 2})
    received = await store.receive("h", "x", "payload", at, lease(at=at), then)
    assert isinstance(received, Received)
    assert [e.seq for e in received.then or []] == [5]
    row, log = await store.read("r") or pytest.fail("it is gone")
    assert [e.type for e in log[3:]] == ["hook_received", "step_created"]
    assert (row.epoch, row.view, row.wake_at, row.seq) == (2, {"n": 2}, at + SECOND, 5)


async def test_a_payload_can_end_its_run_in_the_same_transaction(store: OpenStore) -> None:
    await a_waiting_run(store)
    received = await store.receive(
        "h", "x", None, T0, lease(), follows(4, 2, event("run_completed", result=1), release=True)
    )
    assert isinstance(received, Received)
    assert [e.type for e in received.then or []] == ["run_completed"]
    row, _ = await store.read("r") or pytest.fail("it is gone")
    assert (row.status, row.ending, row.wake_at) == ("completed", {"result": 1}, None)
    assert await store.hook(token="t") is None
    assert (await store.claim(lease(at=T0 + 9 * LEASE), limit=9)) == []


async def test_a_payloads_planned_batch_can_hold_the_run_by_a_lease(store: OpenStore) -> None:
    await a_waiting_run(store)
    received = await store.receive("h", "x", None, T0, lease(), follows(4, 2, event("step_created", id=2)))
    assert isinstance(received, Received)
    assert received.then is not None
    assert await store.claim(lease("other"), limit=9) == []
    assert await store.next_wake("other", T0) == T0 + LEASE
    (taken,) = await store.claim(lease("other", T0 + LEASE), limit=9)
    assert taken.claim.epoch == 3


async def test_a_payload_is_kept_without_its_batch_if_the_run_has_changed(
    store: OpenStore,
) -> None:
    await a_waiting_run(store)
    longer = await store.receive("h", "a", 1, T0, lease(), follows(9, 2, event("step_created", id=2)))
    assert isinstance(longer, Received)
    assert longer.then is None
    assert longer.claimed is not None
    assert [e.type for e in longer.claimed.log[3:]] == ["hook_received"]
    held = await store.receive("h", "b", 2, T0, lease("other"), follows(5, 3, event("step_created", id=2)))
    assert isinstance(held, Received)
    assert held.then is None
    assert held.claimed is None
    repeat = await store.receive("h", "b", 2, T0, lease("other"), follows(6, 3, event("step_created", id=2)))
    assert isinstance(repeat, Received)
    assert repeat.event == held.event
    assert repeat.then is None
    assert (await types(store))[3:] == ["hook_received", "hook_received"]


async def test_a_token_lost_in_a_planned_batch_wakes_the_run(store: OpenStore) -> None:
    await a_waiting_run(store)
    new = new_run("r2", "w", "w", None, {"run_id": "r2", "input": {}})
    taken = hook_created(hook_id="h2")
    created = await store.create(
        new, T0, lease(), follows(1, 1, event("run_started"), taken, run_id="r2", release=True)
    )
    assert [e.type for e in created.then or []] == ["run_started", "hook_conflict"]
    assert await store.next_wake("me", T0) == T0


async def test_a_hook_is_read_with_its_run_and_a_short_log(store: OpenStore) -> None:
    assert await store.look(9, token="t") is None
    assert await store.look(9, hook_id="h") is None
    await a_waiting_run(store)
    hook, row, log = await store.look(3, token="t") or pytest.fail("no such hook")
    assert (hook, (row, log)) == (await store.hook(token="t"), await store.read("r"))
    assert (await store.look(2, token="t") or pytest.fail("no such hook"))[2] is None
    assert await store.look(3, hook_id=hook.id) == (hook, row, log)


async def test_a_hook_is_read_by_its_id_even_if_it_is_not_live(store: OpenStore) -> None:
    await a_waiting_run(store)
    live = await store.hook(token="t") or pytest.fail("no such hook")
    await store.record("r", [event("run_cancelled", reason=None)], T0)
    assert await store.look(9, token="t") is None
    hook, row, log = await store.look(9, hook_id=live.id) or pytest.fail("no such hook")
    assert (hook, (row, log)) == (await store.hook(hook_id=live.id), await store.read("r"))
    assert (hook.is_live, row.status) == (False, "cancelled")


# ── facts ──


@pytest.mark.conformance(124)
async def test_a_fact_is_appended_once_and_wakes_its_run(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    await store.append(batch(claim, 1, event("run_started"), release=True))
    fact = event("step_completed", id=1, result=1)
    first = await store.record("r", [fact, fact], T0 + SECOND)
    again = await store.record("r", [event("step_failed", id=1, error={}, attempts=1)], T0 + 2 * SECOND)
    assert first == again
    assert await types(store) == ["run_created", "run_started", "step_completed"]
    assert await store.next_wake("me", T0) == T0 + SECOND


async def test_one_resume_id_is_one_payload_even_after_the_end(
    store: OpenStore,
) -> None:
    await a_run(store)
    claim = await claimed(store)
    await store.append(batch(claim, 1, hook_created(), release=True))
    received = await asyncio.gather(*(store.receive("h", "same", {"n": 1}, T0) for _ in range(10)))
    assert len({r.event.seq for r in received if isinstance(r, Received)}) == 1
    assert await store.receive("h", "other", {"n": 1}, T0) is not None
    assert (await types(store)).count("hook_received") == 2
    await store.record("r", [event("run_cancelled", reason=None)], T0)
    repeat = await store.receive("h", "same", {"n": 1}, T0)
    assert isinstance(repeat, Received)
    assert [r.event for r in received if isinstance(r, Received)] == [repeat.event] * 10
    assert await store.receive("h", "late", {}, T0) is None


async def test_a_resume_id_is_found_by_the_token_of_its_hook(store: OpenStore) -> None:
    for n, run_id in enumerate(("one", "two", "three")):
        await a_run(store, run_id)
        claim = await claimed(store, run_id)
        await store.append(batch(claim, 1, hook_created(n, hook_id=run_id), release=True))
        await store.receive(run_id, f"{run_id}\0\ud800", {}, T0)
        if run_id != "three":
            await store.record(run_id, [event("run_cancelled", reason=None)], T0)

    async def look(resume_id: str | None) -> tuple[str, int | None] | None:
        found = await store.look(3, token="t", resume_id=resume_id)
        return None if found is None else (found[0].id, None if found[2] is None else len(found[2]))

    assert await look("one\0\ud800") == ("one", None)
    assert await look("two\0\ud800") == ("two", None)
    assert [await look(resume_id) for resume_id in ("three\0\ud800", "four", None)] == [("three", 3)] * 3
    assert await store.look(3, token="u", resume_id="one\0\ud800") is None
    ended = await store.look(4, token="t", resume_id="one\0\ud800")
    assert ended is not None
    assert (ended[0].is_live, ended[1].id, ended[1].status) == (False, "one", "cancelled")


async def test_time_within_a_run_never_goes_back(store: OpenStore) -> None:
    await a_run(store)
    await store.record("r", [event("wait_completed", id=1)], T0 + 10 * SECOND)
    await store.record("r", [event("wait_completed", id=2)], T0 + 5 * SECOND)
    found = await store.read("r")
    assert found is not None
    assert [e.at for e in found[1]] == [T0, T0 + 10 * SECOND, T0 + 10 * SECOND]


# ── tokens ──


@pytest.mark.conformance(154)
async def test_exactly_one_of_fifty_concurrent_creators_gets_a_token(connected: Connect) -> None:
    stores = [await connected(), await connected()]
    claims = []
    for n in range(50):
        await a_run(stores[0], f"r{n}")
        claims.append(await claimed(stores[0], f"r{n}"))
    results = await asyncio.gather(
        *(stores[n % 2].append(batch(c, 1, hook_created(hook_id=f"h{n}"))) for n, c in enumerate(claims))
    )
    written = [result.events[0] for result in results if isinstance(result, Appended)]
    assert len(written) == 50
    winners = [e for e in written if e.type == "hook_created"]
    assert len(winners) == 1
    hook = await stores[1].hook(token="t")
    assert hook is not None
    assert hook.id == winners[0].data["hook_id"]
    assert {e.data["owner"] for e in written if e.type == "hook_conflict"} == {hook.run_id}


async def test_a_token_is_free_right_after_its_disposal_and_after_the_end(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    renewed = [hook_created(1), event("hook_disposed", id=1), hook_created(2, hook_id="h2")]
    result = await store.append(batch(claim, 1, *renewed))
    assert isinstance(result, Appended)
    assert [e.type for e in result.events] == ["hook_created", "hook_disposed", "hook_created"]
    hook = await store.hook(token="t")
    assert hook is not None
    assert (hook.id, hook.is_live) == ("h2", True)
    await store.append(batch(claim, 4, event("run_completed", result=None)))
    assert await store.hook(token="t") is None
    old = await store.hook(hook_id="h2")
    assert old is not None
    assert not old.is_live


# ── the end ──


@pytest.mark.conformance(124)
async def test_a_timers_end_is_appended_once(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    await store.append(batch(claim, 1, event("run_started"), release=True))
    ended = event("wait_completed", id=1)
    first = await store.record("r", [ended], T0 + SECOND)
    assert await store.record("r", [ended], T0 + 2 * SECOND) == first
    assert await types(store) == ["run_created", "run_started", "wait_completed"]


@pytest.mark.conformance(155)
async def test_a_command_written_by_two_at_once_is_one_event(store: OpenStore) -> None:
    await a_run(store)
    claim = await claimed(store)
    asked = event("step_created", id=1, name="s", input={})
    results = await asyncio.gather(*(store.append(batch(claim, 1, asked)) for _ in range(5)))
    assert sorted(type(result).__name__ for result in results) == ["Appended", *["Stale"] * 4]
    assert await types(store) == ["run_created", "step_created"]


@pytest.mark.conformance(156)
@pytest.mark.parametrize("ending", ["run_completed", "run_failed", "run_cancelled"])
async def test_an_ended_run_takes_no_more_events(store: OpenStore, ending: EventType) -> None:
    await a_run(store)
    claim = await claimed(store)
    await store.append(batch(claim, 1, event("run_started"), hook_created()))
    await store.append(batch(claim, 3, event(ending, result=None, error=None, reason=None)))
    before = await store.read("r")
    for type in ("step_created", "hook_created", "wait_created", "run_started", "run_completed", "step_completed"):
        data = {"id": 9, "hook_id": "x", "token": "x", "name": "s", "input": {}, "resume_at": 0, "result": None}
        assert isinstance(await store.append(batch(claim, 4, event(type, **data))), Fenced)
        assert [e.type for e in await store.record("r", [event(type, **data)], T0) if e.seq > 4] == []
    assert await store.receive("h", "1", {}, T0) is None
    assert await store.claim(lease("me", T0 + 100 * LEASE, T0 + 101 * LEASE), run_id="r") == []
    assert await store.next_wake("me", T0) is None
    assert await store.read("r") == before
    assert before is not None
    assert (before[0].status, before[0].ended_at) == (ending.removeprefix("run_"), T0)


# ── whose turn it is ──


async def test_due_runs_are_claimed_once_the_earliest_first(connected: Connect) -> None:
    first, second = await connected(), await connected()
    for n in range(6):
        await first.create(new_run(f"r{n}", "w", "w", None, {}), T0 + n * SECOND)
    at = T0 + 4 * SECOND
    some = await asyncio.gather(
        *(store.claim(lease("me", at, at + LEASE), limit=3) for store in (first, second, first))
    )
    ids = [c.claim.run_id for claims in some for c in claims]
    assert sorted(ids) == ["r0", "r1", "r2", "r3", "r4"]


async def test_next_wake_covers_free_runs_and_other_owners_leases(store: OpenStore) -> None:
    assert await store.next_wake("me", T0) is None
    await a_run(store, "a")
    assert await store.next_wake("me", T0) == T0
    claim = await claimed(store, "a", owner="other")
    assert await store.next_wake("me", T0) == T0 + LEASE
    assert await store.next_wake("other", T0) is None
    await store.append(batch(claim, 1, release=True, wake_at=T0 + 3 * SECOND))
    assert await store.next_wake("me", T0) == T0 + 3 * SECOND


async def test_only_the_named_leases_are_renewed(store: OpenStore) -> None:
    """A claim whose answer was lost must end, or its run would be held for ever."""
    await a_run(store, "a")
    await a_run(store, "b")
    kept = await claimed(store, "a")
    await claimed(store, "b")
    await store.renew([kept, Claim("unknown", 1)], T0 + 3 * LEASE)
    assert await store.claim(lease("other", T0 + LEASE, T0 + 2 * LEASE), run_id="a") == []
    assert len(await store.claim(lease("other", T0 + LEASE, T0 + 2 * LEASE), run_id="b")) == 1
    old = Claim("b", 1)
    await store.renew([old], T0 + 100 * LEASE)
    assert len(await store.claim(lease("third", T0 + 2 * LEASE, T0 + 3 * LEASE), run_id="b")) == 1


async def test_a_lost_token_wakes_a_released_run(store: OpenStore) -> None:
    for n in range(2):
        await a_run(store, f"r{n}")
        claim = await claimed(store, f"r{n}")
        await store.append(batch(claim, 1, hook_created(hook_id=f"h{n}"), release=True))
    assert [c.claim.run_id for c in await store.claim(lease("me", T0, T0 + LEASE), limit=9)] == ["r1"]


# ── lists ──


@pytest.mark.conformance(152)
async def test_pages_are_stable_while_runs_are_added(store: OpenStore) -> None:
    for n in range(7):
        await store.create(new_run(f"r{n}", "w", "w", None, {}), T0 + (n // 2) * SECOND)
    rows, cursor = await store.runs(Filter(limit=3))
    seen = [row.id for row in rows]
    while cursor is not None:
        await a_run(store, f"new{len(seen)}")
        await store.create(new_run(f"late{len(seen)}", "w", "w", None, {}), T0 + 100 * SECOND)
        rows, cursor = await store.runs(Filter(limit=3, cursor=cursor))
        seen += [row.id for row in rows]
    assert [run for run in seen if run.startswith("r")] == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert len(seen) == len(set(seen))
    assert not any(run.startswith("late") for run in seen)


@pytest.mark.parametrize("cursor", ["", "x", "1", "1.", "-1.r", "1;DROP TABLE runs.r", "9" * 40 + ".r"])
async def test_a_cursor_that_no_page_gave_is_refused(store: OpenStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await store.runs(Filter(cursor=cursor))


async def test_runs_are_filtered(store: OpenStore) -> None:
    await store.create(new_run("a", "one", "w", None, {}, attributes={"k": "1", "l": "x"}), T0)
    await store.create(new_run("b", "two", "w", None, {}, attributes={"k": "2", 'odd" name': "✓"}), T0)
    await store.record("b", [event("run_cancelled", reason=None)], T0)

    async def ids(**which: Any) -> list[str]:
        return [row.id for row in (await store.runs(Filter(**which)))[0]]

    assert await ids() == ["b", "a"]
    assert await ids(workflow="one") == ["a"]
    assert await ids(status="cancelled") == ["b"]
    assert await ids(attributes={"k": "1"}) == ["a"]
    assert await ids(attributes={"k": "1", "l": "y"}) == []
    assert await ids(attributes={'odd" name': "✓"}) == ["b"]


async def test_a_run_has_the_kind_of_its_workflow(store: OpenStore) -> None:
    await a_run(store, "a")
    created = await store.create(new_run("b", "w", "w", None, {}, kind="request"), T0, lease())
    assert created.claimed is not None
    assert created.claimed.row.kind == "request"
    assert [row.kind for row in (await store.runs(Filter()))[0]] == ["request", "workflow"]


async def test_a_run_is_found_by_each_current_value_of_its_projection(store: OpenStore) -> None:
    await a_run(store, attributes={"team": "red", "for": "ann"})
    claim = await claimed(store)
    for length, (given, found) in enumerate(
        [
            ({"$for": ["ann", "bo"], "$by": ["cy"]}, {"ann": 1, "bo": 1, "cy": 0}),
            (None, {"ann": 1, "bo": 1, "cy": 0}),
            ({"$for": ["bo", "cy", "bo"], "$by": ["cy"]}, {"ann": 0, "bo": 1, "cy": 1}),
            ({"$by": ["cy", "bo"]}, {"ann": 0, "bo": 0, "cy": 0}),
            ({"$for": ["ann"]}, {"ann": 1, "bo": 0, "cy": 0}),
        ],
        1,
    ):
        await store.append(batch(claim, length, event("step_created", id=length), attributes=given))
        assert {person: len(await found_by(store, {"$for": person})) for person in found} == found
    assert await found_by(store, {"$by": "cy"}) == []
    assert await found_by(store, {"$for": "ann", "team": "red"}) == ["r"]
    assert await found_by(store, {"$for": "ann", "team": "blue"}) == []
    assert await found_by(store, {"for": "ann"}) == ["r"], "what it was given at its start stays"


async def test_a_planned_batch_indexes_its_run_at_once(store: OpenStore) -> None:
    new = new_run("r", "w", "w", None, {"run_id": "r", "input": {}})
    begins = follows(1, 1, event("run_started"), hook_created(), release=True, parts=[1], attributes={"$for": ["ann"]})
    await store.create(new, T0, lease(), begins)
    assert await found_by(store, {"$for": "ann"}, is_open=True) == ["r"]
    then = follows(4, 2, event("step_created", id=2), release=True, attributes={"$for": ["bo"]})
    await store.receive("h", "x", None, T0, lease(), then)
    assert await found_by(store, {"$for": "ann"}) == []
    assert await found_by(store, {"$for": "bo"}, is_open=True) == ["r"]


@pytest.mark.parametrize("way", ["decided", "from outside"])
async def test_an_ended_run_is_not_in_lists_of_open_runs(store: OpenStore, way: str) -> None:
    await a_run(store, attributes={"team": "red"})
    claim = await claimed(store)
    await store.append(batch(claim, 1, event("run_started"), attributes={"$for": ["ann"]}))
    end = event("run_cancelled", reason=None)
    if way == "decided":
        await store.append(batch(claim, 2, end, attributes={"$for": ["ann", "bo"]}))
    else:
        await store.record("r", [end], T0)
    for pair in ({"$for": "ann"}, {"team": "red"}):
        assert await found_by(store, pair) == ["r"]
        assert await found_by(store, pair, is_open=True) == []
        assert await found_by(store, pair, is_open=False) == ["r"]


async def test_lists_can_start_with_the_oldest_and_continue_by_pages(store: OpenStore) -> None:
    for n in range(7):
        created = await store.create(new_run(f"r{n}", "w", "w", None, {}), T0 + (n // 2) * SECOND, lease())
        assert created.claimed is not None
        await store.append(batch(created.claimed.claim, 1, event("run_started"), attributes={"$for": ["ann"]}))
    for oldest_first in (True, False):
        for attributes in ({}, {"$for": "ann"}):
            seen, cursor = list[str](), None
            while not seen or cursor is not None:
                asked = Filter(attributes=attributes, oldest_first=oldest_first, cursor=cursor, limit=3)
                rows, cursor = await store.runs(asked)
                seen += [row.id for row in rows]
            assert seen == [f"r{n}" for n in (range(7) if oldest_first else range(6, -1, -1))]
    assert await store.count(Filter(attributes={"$for": "ann"}), 5) == 5
    assert await store.count(Filter(attributes={"$for": "ann"}), 50) == 7
    assert await store.count(Filter(attributes={"$for": "ann"}, cursor=f"{to_micros(T0)}.r0"), 50) == 7
    assert await store.count(Filter(status="failed"), 50) == 0


async def test_runs_that_ended_lately_are_listed_by_their_end(store: OpenStore) -> None:
    for run, ended_after in (("a", 9), ("b", 3), ("c", None), ("d", 5), ("e", 7)):
        await store.create(new_run(run, "one" if run == "e" else "w", "w", None, {}, attributes={"k": run}), T0)
        if ended_after is not None:
            end = event("run_failed" if run == "d" else "run_cancelled", reason=None)
            await store.record(run, [end], T0 + ended_after * SECOND)

    async def ids(**which: Any) -> list[str]:
        seen, cursor = list[str](), None
        while not seen or cursor is not None:
            page, cursor = await store.runs(Filter(ended_since=T0 + 5 * SECOND, limit=2, cursor=cursor, **which))
            seen += [run.id for run in page]
        assert await store.count(Filter(ended_since=T0 + 5 * SECOND, **which), 9) == len(seen)
        return seen

    assert await ids() == ["a", "e", "d"]
    assert await ids(oldest_first=True) == ["d", "e", "a"]
    assert await ids(workflow="w") == ["a", "d"]
    assert await ids(status="failed", is_open=False) == ["d"]
    assert await ids(attributes={"k": "e"}) == ["e"]


async def test_a_run_is_found_by_unusual_and_long_values(store: OpenStore) -> None:
    odd = ["", "a\x00b", "\ud800", "\\u0000", '["x"]', "é" * 5000, "é" * 4999 + "e", "💥" * 200]
    own = {f"{n} {value}"[:256]: value[:256] for n, value in enumerate(odd)}  # the engine refuses longer ones
    await a_run(store, attributes=own)
    claim = await claimed(store)
    await store.append(batch(claim, 1, event("run_started"), attributes={"$odd": odd}))
    for n, value in enumerate(odd):
        assert await found_by(store, {"$odd": value}) == ["r"]
        assert await found_by(store, {f"{n} {value}"[:256]: value[:256]}) == ["r"]
    assert await found_by(store, {"$odd": "é" * 4999}) == []


# ── damage ──


async def test_a_damaged_row_is_listed_with_what_is_readable(store: OpenStore, damage: Callable[[str], None]) -> None:
    for run in ("a", "b", "c"):
        created = await store.create(new_run(run, "w", "w", None, {}, attributes={"k": "v"}), T0, lease())
        assert created.claimed is not None
        shown: dict[str, Any] = {"view": 1, "parts": [2], "attributes": {"$for": ["ann"]}}
        await store.append(batch(created.claimed.claim, 1, event("run_started"), **shown))
    damage("UPDATE runs SET view = '{', parts = '7', attributes = '[', kind = '', wake_at = 9223372036854775807")
    damage("UPDATE runs SET created_at = 9000000000000000000 WHERE id = 'c'")
    for which in (Filter(), Filter(attributes={"$for": "ann"}), Filter(status="running")):
        rows, _ = await store.runs(which)
        assert sorted(row.id for row in rows) == ["a", "b", "c"]
        assert {(row.status, row.workflow, row.view, *row.parts, *row.attributes) for row in rows} == {
            ("running", "w", None)
        }
    rows, cursor = await store.runs(Filter(limit=2))
    assert [row.id for row in rows] == ["c", "b"]
    assert [row.id for row in (await store.runs(Filter(limit=2, cursor=cursor)))[0]] == ["a"]


async def test_a_run_with_an_unknown_status_is_listed_among_all(
    store: OpenStore, damage: Callable[[str], None]
) -> None:
    for n, run in enumerate(("a", "b", "c")):
        await store.create(new_run(run, "w", "w", None, {}, attributes={"k": "v"}), T0 + n * SECOND)
    damage("UPDATE runs SET status = 'odd' WHERE id = 'b'")
    for which in (Filter(), Filter(workflow="w"), Filter(attributes={"k": "v"})):
        assert [run.id for run in (await store.runs(which))[0]] == ["c", "b", "a"]
        assert await store.count(which, 9) == 3
    assert [run.id for run in (await store.runs(Filter(status="pending")))[0]] == ["c", "a"]
    assert (await store.runs(Filter(status="pending", is_open=False)))[0] == []


async def test_an_unreadable_log_does_not_block_claims_of_other_runs(
    store: OpenStore, damage: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    for n, run in enumerate(("a", "b", "c")):
        await store.create(new_run(run, "w", "w", None, {}), T0 + n * SECOND)
    damage("UPDATE events SET data = '{' WHERE run_id = 'b'")
    at = T0 + LEASE
    assert [each.claim.run_id for each in await store.claim(lease("me", at), limit=9)] == ["a", "c"]
    assert "run b: its log is damaged" in caplog.text
    assert await store.claim(lease("other", at), limit=9) == [], "not before the lease ends"


# ── the audit ──


async def test_the_audit_stays_a_chain_when_two_processes_write_it(connected: Connect) -> None:
    stores = [await connected(), await connected()]
    actors: list[dict[str, Any] | None] = [None, {"kind": "app", "id": "app:ci", "key": "ci"}]
    entries = [AuditEntry(f"refused {n}", "ann", None, {"n": n}, actors[n % 2]) for n in range(20)]
    await asyncio.gather(*(stores[n % 2].audit(entry, T0) for n, entry in enumerate(entries)))
    lines = await stores[0].audit_lines()
    assert [line.seq for line in lines] == list(range(1, 21))
    assert len({line.hash for line in lines}) == 20
    assert sorted((line.entry for line in lines), key=str) == sorted(entries, key=str)


# ── more than one process ──


async def test_changed_reports_writes_of_other_processes_only(connected: Connect) -> None:
    """The store learns of them by a notification or by a query."""
    ours, theirs = await connected(), await connected()
    heard: asyncio.Queue[frozenset[str] | None] = asyncio.Queue()
    ours.listen(heard.put_nowait)

    async def noticed() -> frozenset[str] | None:
        async with asyncio.timeout(30):
            while not await ours.changed():
                if not heard.empty():
                    return heard.get_nowait()
                await asyncio.sleep(0.01)
        return None

    assert await noticed() is None  # at first, anything may have been written
    await a_run(ours)
    await a_run(theirs, "r2")
    await ours.record("r", [event("wait_completed", id=1)], T0)
    await theirs.record("r2", [event("wait_completed", id=1)], T0)
    assert await noticed() in (None, {"r2"})
    assert await types(ours, "r2") == ["run_created", "wait_completed"]


@pytest.mark.conformance(162)
async def test_two_processes_can_open_a_new_database_at_once(connected: Connect) -> None:
    stores = await asyncio.gather(*(connected() for _ in range(4)))
    await a_run(stores[0])
    for store in stores:
        await store.check()
        assert await types(store) == ["run_created"]


# ── sharing a commit ──


async def test_a_failing_call_does_not_fail_the_others_of_its_batch(store: OpenStore) -> None:
    too_large = new_run("large", "w", "w", None, {"input": "x" * 1_100_000})
    calls = [store.create(new_run(f"r{n}", "w", "w", None, {}), T0) for n in range(5)]
    results = await asyncio.gather(*calls, store.create(too_large, T0), return_exceptions=True)
    assert isinstance(results[-1], LimitExceededError)
    assert not any(isinstance(result, BaseException) for result in results[:-1])
    assert len((await store.runs(Filter()))[0]) == 5
    assert await store.read("large") is None


@pytest.mark.conformance(93)
async def test_nul_and_lone_surrogates_pass_through(store: OpenStore) -> None:
    text = "a\x00b \ud800 💥"
    await store.create(new_run("r", "w", "w", None, {"text": text}, attributes={"k": "✓"}), T0)
    found = await store.read("r")
    assert found is not None
    assert found[1][0].data == {"text": text}


async def stalls(store: OpenStore) -> None:
    await a_run(store)
    (claimed,) = await store.claim(lease())
    await store.append(Append("r", claimed.claim.epoch, 1, [], T0, release=True, stalled="a bug"))


async def test_a_record_without_facts_wakes_a_run_that_is_open(store: OpenStore) -> None:
    await stalls(store)
    assert await store.claim(lease(), 5) == []
    assert await store.record("r", [], T0 + SECOND) == []
    assert await store.record("unknown", [], T0) == []
    found = await store.read("r")
    assert found is not None
    assert (found[0].status, found[0].wake_at, found[0].seq) == ("stalled", T0 + SECOND, 1)
    (claimed,) = await store.claim(lease(at=T0 + SECOND), 5)
    assert await store.record("r", [NewEvent("run_cancelled", {"reason": None})], T0 + SECOND)
    assert await store.record("r", [], T0 + SECOND) == []
    assert await store.next_wake("me", T0 + SECOND) is None
    assert claimed.claim.run_id == "r"


async def test_a_run_claimed_before_it_is_due_is_taken_over_when_its_owner_dies(store: OpenStore) -> None:
    await stalls(store)
    (claimed,) = await store.claim(lease(), 1, "r")
    started = [NewEvent("run_started", {})]
    await store.append(Append("r", claimed.claim.epoch, 1, started, T0))
    assert await store.next_wake("other", T0) == T0 + LEASE
    (again,) = await store.claim(lease("other", T0 + LEASE), 5)
    assert again.claim.run_id == "r"
