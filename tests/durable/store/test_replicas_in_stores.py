"""The rows of the processes that serve an installation, on both stores."""

from __future__ import annotations

from datetime import timedelta

from approvals_bot.durable.store.protocol import Lease, OpenStore
from approvals_bot.durable.store.replicas import FORGOTTEN, ReplicaRow
from tests.support.new_runs import T0, new_run

ONE = ReplicaRow("one", "0.1.0", T0, T0, 1, ("new", "old"), "old", "digest")


async def test_a_replica_reads_what_the_others_have_said(store: OpenStore) -> None:
    two = ONE._replace(id="two", since=T0 + timedelta(seconds=1), key_ids=("old",))
    assert await store.announce(ONE) == []
    assert await store.announce(two) == [ONE]
    later = ONE._replace(seen_at=T0 + timedelta(seconds=5), signs_with="new", config_digest="other", schema=2)
    assert await store.announce(later) == [two]
    assert await store.replicas() == [later, two]


async def test_a_replica_that_leaves_is_gone_at_once(store: OpenStore) -> None:
    await store.announce(ONE)
    await store.leave("one")
    await store.leave("unknown")
    assert await store.replicas() == []


async def test_rows_of_replicas_that_died_are_deleted(store: OpenStore) -> None:
    await store.announce(ONE)
    await store.announce(ONE._replace(id="two", seen_at=T0 + FORGOTTEN + timedelta(seconds=1)))
    assert [row.id for row in await store.replicas()] == ["two"]


async def test_the_load_has_the_size_and_the_leases_of_each_owner(store: OpenStore) -> None:
    for number in range(3):
        await store.create(new_run(f"run_{number}", "w", "w", None, {}), T0)
    assert (await store.load()).leases == {}
    await store.claim(Lease("one", T0, T0 + timedelta(minutes=1)), 2)
    await store.claim(Lease("two", T0, T0 + timedelta(minutes=1)), 2)
    load = await store.load()
    assert load.leases == {"one": 2, "two": 1}
    assert load.size > 50_000
