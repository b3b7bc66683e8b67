"""The audit's end: old lines go, a signed line says so, and the rest verifies."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from approvals_bot.approvals.acts import Actor
from approvals_bot.durable.core.api import create_webhook, workflow
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.fsck import FsckCounts, examine
from approvals_bot.durable.engine.replayer import Replayer
from approvals_bot.durable.store.audit import AUDIT_CUT, AuditEntry, AuditFilter
from approvals_bot.durable.store.copying import read_beside
from approvals_bot.service.anchors import Anchor, sign_anchor
from approvals_bot.service.audit import write_export
from approvals_bot.service.audit_check import RUNS_SEALED, cut_statement
from approvals_bot.service.audit_cut import count_cut, cut_audit
from approvals_bot.service.audit_keeper import FILE, LOADED, RIGHTS
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.audit_verify import Keys, Verification, verify_lines
from approvals_bot.service.retention import RetentionRules, delete_ended
from approvals_bot.testing import FakeClock

OWN = AuditKey(bytes(range(32)))
BY_PUBLIC, BY_CHAIN = Keys(public=[OWN.public]), Keys(public=[OWN.public], chain=OWN.chain)
DAY = timedelta(days=1)
KEPT = 30 * DAY
ACTOR = {"kind": "rule", "id": "service"}


@workflow
async def waits_to_be_cut() -> None:
    async with create_webhook() as hook:
        await hook


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    )


@pytest.fixture
async def engine(url: str) -> AsyncIterator[Engine]:
    async with Engine.open(url, clock=FakeClock()) as engine:
        engine.audit_key = OWN.chain
        yield engine


async def export(engine: Engine, anchors: list[Anchor], keys: Keys = BY_PUBLIC) -> Verification:
    out = io.BytesIO()
    await write_export(engine, OWN, out)
    return verify_lines(out.getvalue().splitlines(keepends=True), keys, anchors)


async def anchor(engine: Engine) -> Anchor:
    """An anchor, as the keeper of the audit makes it."""
    while await engine.store.seal_open(engine.now(), engine.audit_key, 200):
        pass
    line = await engine.audit("anchored", actor=ACTOR)
    named = await engine.audit_lines(AuditFilter(what=RUNS_SEALED, newest_first=True, limit=1))
    return sign_anchor(OWN, line.seq, line.hash, named[0].hash if named else "", line.at)


async def faults_of(url: str) -> list[str]:
    async with read_beside(url) as tables:
        pages = examine(tables, Replayer(lambda hook: ""), registry, OWN.chain, FsckCounts())
        return [fault.what async for faults, _ in pages for fault in faults]


async def sees(engine: Engine, days: int, *whats: str) -> None:
    assert isinstance(engine.clock, FakeClock)
    await engine.clock.advance(days * DAY)
    for what in whats:
        await engine.audit(what, actor=ACTOR)


async def test_old_lines_go_and_what_is_left_verifies(engine: Engine, url: str) -> None:
    await sees(engine, 0, "signed_in", "signed_out")
    first = await anchor(engine)
    await sees(engine, 40, "signed_in")
    second = await anchor(engine)
    assert await count_cut(engine, KEPT) == 3
    assert await cut_audit(engine, KEPT, OWN, actor=Actor("cli", "di")) == 3
    assert [line.seq for line in await engine.audit_lines()] == [4, 5, 6]
    assert (await engine.audit_lines())[-1].entry.actor == {"kind": "cli", "id": "di"}
    assert (await count_cut(engine, KEPT), await cut_audit(engine, KEPT, OWN)) == (0, 0), "a repeat writes nothing"
    for keys in (BY_PUBLIC, BY_CHAIN):
        found = await export(engine, [first, second], keys)
        assert found.is_sound, found
        assert (found.cut_at, found.older_anchors, found.proved_until) == (3, 1, second.seq)
    assert await faults_of(url) == []
    await sees(engine, 40)
    assert await cut_audit(engine, KEPT, OWN) == 3, "the line of the first cut goes with the second"
    found = await export(engine, [first, second], BY_CHAIN)
    assert (found.is_sound, found.cut_at, found.older_anchors, found.proved_until) == (True, 6, 2, None)


async def test_lines_about_what_is_still_here_stay(engine: Engine) -> None:
    await sees(engine, 0, "signed_in")
    run = await engine.start(waits_to_be_cut)
    await engine.settle()
    await engine.audit("acted", run_id=run.id, actor=ACTOR)
    await sees(engine, 400)
    seen = await anchor(engine)
    assert await cut_audit(engine, KEPT, OWN) == 0, "it began with the run, in the same second"
    await engine.cancel(run.id)
    await engine.settle()
    while await engine.store.seal_ended(engine.now(), engine.audit_key, 50):
        pass
    assert await cut_audit(engine, KEPT, OWN) == 0, "it has ended, and is here"
    await sees(engine, 2)
    assert (await delete_ended(engine, RetentionRules(others=DAY), None, rest=0)).runs == 1
    assert await cut_audit(engine, KEPT, OWN) == 1, "up to the line of a stub"
    await sees(engine, 31)
    assert await engine.store.stub(run_id=run.id) is not None
    before = len(await engine.audit_lines())
    assert await count_cut(engine, KEPT) == before
    assert await cut_audit(engine, KEPT, OWN) == before, "the stub goes with its lines"
    assert await engine.store.stub(run_id=run.id) is None
    assert (await export(engine, [seen])).is_sound


async def test_what_is_in_force_is_written_again(engine: Engine) -> None:
    def file(version: str) -> dict[str, str]:
        return {"workflow": "pay", "version": version, "text": version}

    for version in ("v1", "v2"):
        await engine.audit(FILE, actor=ACTOR, data=file(version))
    await engine.audit(RIGHTS, actor=ACTOR, data={"rights": {"a": 1}})
    await engine.audit(LOADED, actor=ACTOR, data={"workflows": {"pay": "v2"}})
    await sees(engine, 40, "signed_in")
    await engine.start(waits_to_be_cut)  # it may follow the version from before
    await engine.audit(FILE, actor=ACTOR, data=file("v3"))
    assert await cut_audit(engine, KEPT, OWN) == 4
    lines = [line.entry for line in await engine.audit_lines()]
    assert [line.data["version"] for line in lines if line.what == FILE] == ["v3", "v2"]
    assert [line.data["rights"] for line in lines if line.what == RIGHTS] == [{"a": 1}]
    assert [line.data["workflows"] for line in lines if line.what == LOADED] == [{"pay": "v2"}]
    assert (await export(engine, [])).is_sound


async def test_a_cut_that_nobody_signed_is_found(engine: Engine, url: str) -> None:
    await sees(engine, 0, "a", "b", "c")
    await sees(engine, 40, "d")
    assert await cut_audit(engine, KEPT, OWN) == 3
    lines = await engine.audit_lines()
    forged = cut_statement(4, lines[0].hash, "", OWN.public) | {"signature": lines[-1].entry.data["signature"]}
    for data in (forged, cut_statement(4, lines[0].hash, "", "")):
        entry = AuditEntry(AUDIT_CUT, data=data)
        # even by somebody who has the key of the chain, which never is in the database
        assert await engine.store.cut_audit(lines[0].seq, entry, engine.now(), engine.audit_key) or data is not forged
        found = await export(engine, [])
        assert (found.is_sound, found.broken is not None) == (False, True)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM audit WHERE seq = 4", "missing"),
        ("DELETE FROM audit WHERE seq <= 5 AND seq >= 4", "missing"),
        ("UPDATE audit SET what = 'x' WHERE seq = 4", "changed"),
        ("DELETE FROM audit WHERE what = 'audit_cut'", "missing"),
        ("UPDATE audit SET data = replace(data, '\"seq\": 3', '\"seq\": 2') WHERE what = 'audit_cut'", "changed"),
    ],
)
async def test_a_change_at_the_cut_is_found(tmp_path: Path, statement: str, says: str) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    async with Engine.open(url, clock=FakeClock()) as engine:
        engine.audit_key = OWN.chain
        await sees(engine, 0, "a", "b", "c")
        await sees(engine, 40, "d", "e", "f")
        assert await cut_audit(engine, KEPT, OWN) == 3
        await sees(engine, 1, "g")
        with closing(sqlite3.connect(tmp_path / "runs.db")) as db, db:
            assert db.execute(statement).rowcount
        for keys in (BY_PUBLIC, BY_CHAIN):
            found = await export(engine, [], keys)
            assert not found.is_sound
            assert says in {fault["kind"] for fault in found.manifest.faults}, found.manifest.faults
    assert await faults_of(url)


async def test_replicas_that_cut_at_once_cut_once(url: str) -> None:
    clock = FakeClock()
    async with (
        Engine.open(url, clock=clock) as one,
        Engine.open(url, clock=clock) as other,
    ):
        one.audit_key = other.audit_key = OWN.chain
        for _ in range(40):
            await one.audit("signed_in", actor=ACTOR)
        await clock.advance(40 * DAY)
        counts = await asyncio.gather(*(cut_audit(each, KEPT, OWN) for each in (one, other)))
        assert sum(counts) == 40
        assert (await export(one, [])).is_sound
