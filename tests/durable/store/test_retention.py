"""Deleting runs that ended long ago, on both stores."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from approvals_bot.durable.core.events import NewEvent
from approvals_bot.durable.store.audit import AuditEntry
from approvals_bot.durable.store.files import FileRow
from approvals_bot.durable.store.protocol import Append, Lease, OpenStore
from approvals_bot.durable.store.retention import Deletable, DeletableRun, Stub, key_digest
from tests.support.new_runs import T0, new_run

DAY = timedelta(days=1)
LATER = T0 + 400 * DAY


async def ended(store: OpenStore, id: str, workflow: str = "w", key: str | None = None, days: int = 0) -> None:
    """A run that has ended, with a hook; the audit doesn't vouch for it yet."""
    at = T0 + days * DAY
    created = await store.create(new_run(id, workflow, workflow, None, {"workflow": workflow, "input": {}}, key), T0)
    assert created.is_new
    [claimed] = await store.claim(Lease("me", at, at + DAY), run_id=id)
    hook = {"id": 1, "hook_id": f"hook-{id}", "token": f"token-{id}", "is_webhook": True, "metadata": {}}
    events = [NewEvent("run_started", {}), NewEvent("hook_created", hook), NewEvent("run_completed", {"result": 1})]
    await store.append(Append(id, claimed.claim.epoch, 1, events, at, release=True))


async def test_only_what_nobody_needs_may_be_deleted(store: OpenStore, damage: Callable[[str], None]) -> None:
    for number, days in enumerate((0, 1, 2, 3)):
        await ended(store, f"r{number}", "w" if number != 1 else "other", f"kéy\0{number}", days)
    await store.create(new_run("open", "w", "w", None, {"workflow": "w", "input": {}}), T0)
    which = Deletable(T0 + 3 * DAY)
    assert await store.deletable(which) == []  # the audit doesn't vouch for them yet
    while await store.seal_ended(LATER, None, 2):
        pass
    found = await store.deletable(which)
    assert found[0] == DeletableRun("r0", T0, "kéy\\u00000", ("hook-r0",))
    assert [each.run_id for each in found] == ["r0", "r1", "r2"]
    after = which._replace(after=(found[0].ended_at, "r0"), most=1)
    assert [each.run_id for each in await store.deletable(after)] == ["r1"]
    assert [each.run_id for each in await store.deletable(which._replace(only="other"))] == ["r1"]
    assert [each.run_id for each in await store.deletable(which._replace(but=("other", "x")))] == ["r0", "r2"]
    damage("INSERT INTO owed_lines VALUES ('owed', 'r2', 4, 5, '{}')")
    assert [each.run_id for each in await store.deletable(which)] == ["r0", "r1"]


async def test_a_run_goes_whole_and_its_stub_answers(store: OpenStore, damage: Callable[[str], None]) -> None:
    await ended(store, "r0", key="k")
    await ended(store, "r1")
    await store.audit(AuditEntry("vote", run_id="r0"), T0)
    for id in ("file_1", "file_2"):
        await store.begin_file(FileRow(id, "app:ci", T0, None))
        await store.add_file_part(id, 0, b"plan")
    chained = await store.chained("r0")
    stub = Stub("r0", "w", "request", "approved", T0, 4, chained[-1].hash, key_digest("k"), "in", LATER + 90 * DAY)
    stale = Stub("r1", "w", "request", "approved", T0, 3, "")  # it has gone on since
    assert await store.delete_runs([(stub, ["hook-r0"]), (stale, ["hook-r1"])], ["file_1"]) == 1
    assert (await store.read("r0"), await store.chained("r0")) == (None, [])
    assert (await store.hook(hook_id="hook-r0"), await store.file("file_1")) == (None, None)
    assert await store.file_part("file_1", 0) is None
    assert await store.file_part("file_2", 0) == b"plan"
    assert await store.read("r1") is not None
    assert await store.hook(hook_id="hook-r1") is not None
    assert [line.entry.what for line in await store.audit_lines()] == ["vote"]
    for name in ({"run_id": "r0"}, {"key": key_digest("k")}, {"hook_id": "hook-r0"}):
        assert await store.stub(**name) == stub
    for name in ({"run_id": "r1"}, {"key": key_digest("other")}, {"hook_id": "hook-r1"}, {}):
        assert await store.stub(**name) is None
    assert await store.deleted() == 1
    damage("UPDATE runs SET next_run = 'r1' WHERE id = 'r1'")  # somebody resets it at that moment
    assert await store.delete_runs([(stale._replace(seq=4), [])], []) == 0
    assert await store.delete_runs([(stub, ["hook-r0"])], []) == 0  # a repeat


async def test_what_an_open_run_needs_stays(store: OpenStore, damage: Callable[[str], None]) -> None:
    for id in ("parent", "child", "first", "second"):
        await ended(store, id)
    while await store.seal_ended(LATER, None, 10):
        pass
    damage("UPDATE runs SET parent = 'parent', parent_number = 1 WHERE id = 'child'")
    damage("UPDATE runs SET next_run = 'second' WHERE id = 'first'")
    damage("UPDATE runs SET ended_at = NULL WHERE id = 'parent'")
    assert [each.run_id for each in await store.deletable(Deletable(LATER))] == ["second"]
    damage("DELETE FROM runs WHERE id = 'second'")
    damage("UPDATE runs SET ended_at = 5 WHERE id = 'parent'")
    found = [each.run_id for each in await store.deletable(Deletable(LATER))]
    assert sorted(found) == ["child", "first", "parent"]
