"""Sessions, on both stores."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from approvals_bot.durable.store import connect
from approvals_bot.durable.store.audit import AuditEntry
from approvals_bot.durable.store.copying import copy
from approvals_bot.durable.store.protocol import OpenStore
from approvals_bot.durable.store.sessions import SessionRow
from tests.durable.store.conftest import Connect
from tests.support.new_runs import T0

WEEK, MINUTE = timedelta(days=7), timedelta(minutes=1)
ANN = SessionRow("a" * 64, "ann@acme.eu", "code", T0, T0, "Firefox on Linux", T0 + WEEK, True)
BO = ANN._replace(id="b" * 64, person="bø@acme.eu", method="oidc", browser="Опера", proved=False)


async def test_a_session_is_read_as_it_was_written(store: OpenStore) -> None:
    for row in (ANN, BO):
        await store.add_session(row)
        await store.add_session(row._replace(person="eve@acme.eu"))  # the same id twice: the first stays
        assert await store.session(row.id) == row
    await store.mark_session(ANN.id, T0 + MINUTE)
    assert await store.session(ANN.id) == ANN._replace(seen_at=T0 + MINUTE)
    assert await store.session("c" * 64) is None


async def test_sessions_end_at_every_replica(connected: Connect) -> None:
    here, there = await connected(), await connected()
    later = ANN._replace(id="c" * 64, created_at=T0 + MINUTE)
    for row in (ANN, later, BO):
        await here.add_session(row)
    assert await there.sessions("ann@acme.eu") == [later, ANN]
    assert await there.end_sessions(id=ANN.id) == 1
    assert await here.sessions_left({ANN.id, later.id, "d" * 64}) == {later.id}
    assert await here.sessions_left(()) == set()
    assert await here.session(ANN.id) is None
    assert await there.end_sessions(person="ann@acme.eu") == 1
    assert await there.end_sessions(person="ann@acme.eu") == 0
    assert await here.sessions("ann@acme.eu") == []
    await here.mark_session(later.id, T0 + MINUTE)
    assert await here.session(later.id) is None
    assert await here.session(BO.id) == BO


async def test_sessions_that_are_over_are_deleted(store: OpenStore) -> None:
    for n in range(3):
        await store.add_session(ANN._replace(id=str(n) * 64, until=T0 + n * MINUTE))
    await store.add_session(BO._replace(created_at=T0 + MINUTE))
    assert [row.id[0] for row in await store.sessions("ann@acme.eu")] == ["2"]


async def test_a_copy_has_no_sessions(store: OpenStore, connected: Connect, tmp_path: Path) -> None:
    await store.add_session(ANN)
    await store.audit(AuditEntry("signed_in", "ann@acme.eu"), T0)
    await store.close()
    source = f"sqlite:///{tmp_path}/runs.db"
    if not (tmp_path / "runs.db").exists():
        return  # PostgreSQL: what isn't in the list of copied tables isn't copied there either
    await copy(source, f"sqlite:///{tmp_path}/copy.db", lambda line: None)
    copied = await connect(f"sqlite:///{tmp_path}/copy.db")
    assert await copied.session(ANN.id) is None
    await copied.close()
