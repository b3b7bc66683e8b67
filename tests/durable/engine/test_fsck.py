"""`fsck` names what was damaged behind the program's back, and makes again what is derived from logs."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import pytest

from approvals_bot.durable.core.api import create_hook, publish, set_attributes, sleep
from approvals_bot.durable.core.children import run_child
from approvals_bot.durable.core.registry import Registry, registry
from approvals_bot.durable.core.steps import step
from approvals_bot.durable.core.workflows import workflow
from approvals_bot.durable.engine.fsck import DERIVED, FsckCounts, Kind, StoreFault, examine
from approvals_bot.durable.engine.replayer import Replayer
from approvals_bot.durable.store.copying import opened, read_beside
from approvals_bot.testing.fixtures import OpenEngine


@workflow
async def fsck_waits(number: int) -> str:
    publish({"number": number})
    set_attributes(number=number, stage="asked")
    async with create_hook(token=f"fsck-{number}") as hook:
        said = await hook
    if said == "sleep":
        set_attributes(stage="asleep")
        await sleep("7 days")
    return str(said)


STATES = ("hook", "sleep", "ended")

PLANTED: Sequence[tuple[str, Kind, str]] = (
    ("hook", "log", "DELETE FROM events WHERE run_id = '{run}' AND seq = 2"),
    ("hook", "log", "UPDATE events SET key = 'other' WHERE run_id = '{run}' AND seq = 2"),
    ("hook", "log", "UPDATE events SET data = 'no JSON' WHERE run_id = '{run}' AND seq = 2"),
    ("ended", "log", "UPDATE events SET at = at - 60000000 WHERE run_id = '{run}' AND seq = 3"),
    ("sleep", "log", "UPDATE events SET type = 'unheard_of' WHERE run_id = '{run}' AND seq = 3"),
    ("sleep", "chain", "UPDATE events SET data = '{{\"other\":1}}' WHERE run_id = '{run}' AND seq = 1"),
    ("hook", "chain", "UPDATE chain SET salt = 'other' WHERE run_id = '{run}' AND seq = 2"),
    ("ended", "chain", "DELETE FROM chain WHERE run_id = '{run}' AND seq = 3"),
    ("ended", "chain", "INSERT INTO chain VALUES ('{run}', 99, 's', 'h')"),
    ("hook", "run", "UPDATE runs SET seq = seq + 1 WHERE id = '{run}'"),
    ("ended", "run", "UPDATE runs SET status = 'running', ended_at = NULL WHERE id = '{run}'"),
    ("hook", "run", "UPDATE runs SET status = 'failed' WHERE id = '{run}'"),
    ("ended", "run", "UPDATE runs SET created_at = created_at - 1 WHERE id = '{run}'"),
    ("sleep", "run", "UPDATE runs SET received = 7 WHERE id = '{run}'"),
    ("hook", "run", "UPDATE runs SET unread = '{{\"1\":3}}' WHERE id = '{run}'"),
    ("sleep", "run", "UPDATE runs SET unread = '{{\"1\":1}}' WHERE id = '{run}'"),
    ("hook", "view", "UPDATE runs SET view = '{{\"number\":-1}}' WHERE id = '{run}'"),
    ("ended", "view", "UPDATE runs SET view = NULL WHERE id = '{run}'"),
    ("sleep", "wake", "UPDATE runs SET wake_at = NULL WHERE id = '{run}'"),
    ("sleep", "wake", "UPDATE runs SET wake_at = wake_at + 1 WHERE id = '{run}'"),
    ("ended", "wake", "UPDATE runs SET wake_at = 1 WHERE id = '{run}'"),
    ("hook", "hook", "DELETE FROM hooks WHERE run_id = '{run}'"),
    ("hook", "hook", "UPDATE hooks SET is_live = {no} WHERE run_id = '{run}'"),
    ("ended", "hook", "UPDATE hooks SET is_live = {yes} WHERE run_id = '{run}'"),
    ("hook", "hook", "UPDATE hooks SET token = '{run}' WHERE run_id = '{run}'"),
    ("hook", "hook", "UPDATE hooks SET run_id = 'nobody' WHERE run_id = '{run}'"),
    ("ended", "attribute", "DELETE FROM attributes WHERE run_id = '{run}'"),
    ("hook", "attribute", "UPDATE attributes SET value = 's1' WHERE run_id = '{run}' AND name = 'stage'"),
    ("ended", "attribute", "UPDATE attributes SET status = 'running' WHERE run_id = '{run}'"),
    ("sleep", "attribute", "UPDATE runs SET attributes = '{{}}' WHERE id = '{run}'"),
)
"""A state of a run, the kind of fault to be named, and how to plant it."""


async def examined(url: str, *, known: Registry = registry) -> tuple[list[StoreFault], FsckCounts]:
    found, counts = list[StoreFault](), FsckCounts()
    async with read_beside(url) as tables:
        async for faults, _ in examine(tables, Replayer(lambda hook: ""), known, None, counts):
            found += faults
    return found, counts


async def repair(url: str) -> None:
    async with opened(url) as tables:
        mends = [
            (faults[0].run_id, rebuilt)
            async for faults, rebuilt in examine(tables, Replayer(lambda hook: ""), registry, None, FsckCounts())
        ]
        for run_id, rebuilt in mends:
            if run_id is not None and rebuilt is not None:
                await tables.rebuild(run_id, rebuilt.row, rebuilt.hooks, rebuilt.attributes)


async def runs_in(open_engine: OpenEngine, each: int) -> dict[str, list[str]]:
    """Start so many runs of each state."""
    found: dict[str, list[str]] = {state: [] for state in STATES}
    async with open_engine() as engine:
        for number in range(each * len(STATES)):
            run = await engine.start(fsck_waits, number)
            found[STATES[number % len(STATES)]].append(run.id)
        await engine.settle()
        for number in range(each * len(STATES)):
            if (state := STATES[number % len(STATES)]) != "hook":
                await engine.resume_hook(f"fsck-{number}", state)
        await engine.audit("looked", actor={"kind": "rule"})
        await engine.audit("looked again", actor={"kind": "rule"})
        await engine.settle()
    return found


def plant(url: str, request: pytest.FixtureRequest, statements: Sequence[str]) -> None:
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            for sql in statements:
                db.execute(sql)
    else:
        for sql in statements:
            request.getfixturevalue("postgres").execute(sql, url)


@pytest.mark.parametrize("count", [len(PLANTED), pytest.param(200, marks=pytest.mark.long)])
async def test_each_planted_fault_is_named_and_what_is_derived_is_mended(
    open_engine: OpenEngine, database_url: str, count: int, request: pytest.FixtureRequest
) -> None:
    runs = await runs_in(open_engine, count // 2)
    sound, counts = await examined(database_url)
    assert (sound, counts.runs, counts.not_replayed) == ([], count // 2 * len(STATES), {})
    seeded = random.Random(23)  # noqa: S311
    is_sqlite = database_url.startswith("sqlite")
    chosen = [*PLANTED, *seeded.choices(PLANTED, k=count - len(PLANTED))]
    planted: dict[str, Kind] = {}
    statements = []
    for state, kind, sql in chosen:
        if not runs[state]:
            continue
        run = runs[state].pop(seeded.randrange(len(runs[state])))
        planted[run] = kind
        statements.append(sql.format(run=run, no="0" if is_sqlite else "false", yes="1" if is_sqlite else "true"))
    assert len(planted) > count * 0.9
    plant(database_url, request, statements)
    plant(database_url, request, ["UPDATE audit SET data = '{}' WHERE seq = 1"])
    faults, _ = await examined(database_url)
    for run, kind in planted.items():
        assert kind in {fault.kind for fault in faults if fault.run_id == run}, (run, kind, faults)
    assert {fault.run_id for fault in faults} - planted.keys() <= {None, "nobody"}, "no other run is accused"
    assert any(fault.kind == "audit" for fault in faults)
    await repair(database_url)
    left, _ = await examined(database_url)
    assert {fault.run_id for fault in left if fault.run_id} == {
        run for run, kind in planted.items() if kind not in DERIVED
    }


@workflow(name="fsck: child")
async def fsck_child(number: int) -> str:
    return str(await create_hook(token=f"fsck-child-{number}"))


@workflow(name="fsck: parent")
async def fsck_parent(number: int) -> str:
    return await run_child(fsck_child, number)


FAMILIES: Sequence[tuple[str, Kind, str]] = (
    ("child", "family", "UPDATE runs SET parent = NULL, parent_number = NULL WHERE id = '{child}'"),
    ("child", "family", "UPDATE runs SET parent = 'nobody' WHERE id = '{child}'"),
    ("child", "family", "UPDATE runs SET parent = '{old}' WHERE id = '{child}'"),
    ("child", "family", "UPDATE runs SET parent_number = 7 WHERE id = '{child}'"),
    ("child", "family", "UPDATE runs SET on_parent_close = 'abandon' WHERE id = '{child}'"),
    ("parent", "family", "UPDATE runs SET parent = '{child}', parent_number = 1 WHERE id = '{parent}'"),
    ("child", "run", "UPDATE runs SET idempotency_key = 'one' WHERE id = '{child}'"),
    ("old", "family", "UPDATE runs SET next_run = NULL WHERE id = '{old}'"),
    ("old", "family", "UPDATE runs SET next_run = '{child}' WHERE id = '{old}'"),
    ("old", "run", "UPDATE runs SET idempotency_key = 'other' WHERE id = '{old}'"),
)
"""Who of a family is to be named, the kind of fault, and how to plant it. `old`: the run whose place the parent has."""


async def test_each_planted_fault_of_a_family_is_named_and_mended(
    open_engine: OpenEngine, database_url: str, request: pytest.FixtureRequest
) -> None:
    families = list[dict[str, str]]()
    async with open_engine() as engine:
        for number in range(len(FAMILIES) + 1):
            old = await engine.start(fsck_parent, number, idempotency_key=f"family {number}")
            await engine.settle()
            started = next(event for event in await old.events() if event.type == "child_started")
            new = await engine.reset(old.id, to=started.seq)
            families.append({"old": old.id, "parent": new.id, "child": started.data["run_id"]})
        await engine.settle()
    assert (await examined(database_url))[0] == []
    plant(database_url, request, [sql.format(**of) for (_, _, sql), of in zip(FAMILIES, families[:-1], strict=True)])
    named = {(fault.run_id, fault.kind) for fault in (await examined(database_url))[0]}
    assert named == {(of[who], kind) for (who, kind, _), of in zip(FAMILIES, families[:-1], strict=True)}
    await repair(database_url)
    assert (await examined(database_url))[0] == []
    plant(database_url, request, [f"DELETE FROM runs WHERE id = '{families[-1]['child']}'"])  # noqa: S608
    lost = [fault for fault in (await examined(database_url))[0] if fault.kind == "family"]
    assert [fault.run_id for fault in lost] == [families[-1]["parent"]], "its row can't be made again"


async def test_runs_that_were_reset_more_than_once_are_sound(open_engine: OpenEngine, database_url: str) -> None:
    async with open_engine() as engine:
        old = await engine.start(fsck_waits, 0)
        await engine.settle()
        asks = next(event.seq for event in await old.events() if event.type == "hook_created")
        first = await engine.reset(old.id, to=asks)
        assert (await examined(database_url))[0] == [], "it hasn't begun, and has the hook"
        await engine.settle()
        await engine.cancel(first.id)
        await engine.settle()
        second = await engine.reset(old.id, to=asks)  # which has the hook from now on
        await engine.settle()
        await engine.reset(second.id, to=1)  # the hook stays, and its token gets another one
        await engine.settle()
    assert (await examined(database_url))[0] == []


async def test_runs_whose_code_is_elsewhere_are_counted(
    open_engine: OpenEngine, database_url: str, request: pytest.FixtureRequest
) -> None:
    runs = await runs_in(open_engine, 1)
    faults, counts = await examined(database_url, known=Registry())
    assert (faults, counts.not_replayed) == ([], {fsck_waits.name: 3})
    plant(database_url, request, [f"UPDATE runs SET wake_at = NULL WHERE id = '{runs['sleep'][0]}'"])  # noqa: S608
    faults, _ = await examined(database_url, known=Registry())
    assert [(fault.kind, fault.run_id) for fault in faults] == [("wake", runs["sleep"][0])], "by its log alone"


under_way, may_end = asyncio.Event(), asyncio.Event()


@step
async def fsck_slow() -> None:
    under_way.set()
    await may_end.wait()


@workflow
async def fsck_works() -> None:
    await fsck_slow()


async def test_a_run_at_work_is_sound_whenever_it_was_taken(
    open_engine: OpenEngine, database_url: str, request: pytest.FixtureRequest
) -> None:
    under_way.clear()
    may_end.clear()
    async with open_engine() as engine:
        await engine.start(fsck_works)
        await under_way.wait()
        plant(database_url, request, ["UPDATE runs SET wake_at = wake_at + 5"])
        assert (await examined(database_url))[0] == []
        plant(database_url, request, ["UPDATE runs SET wake_at = NULL"])
        assert [fault.kind for fault in (await examined(database_url))[0]] == ["wake"]
        may_end.set()
        await engine.settle()
