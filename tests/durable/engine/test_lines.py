"""What is known of a step that waits for a place of a limit: here, in another process, and in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from approvals_bot import get_step_metadata, step, workflow
from approvals_bot.durable.engine import Engine, Run, places
from approvals_bot.durable.engine.executor import Executor
from approvals_bot.durable.engine.lines import InLine
from approvals_bot.durable.store import connect
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine
from tests.durable.engine.test_step_places import in_line, until


class Erp:
    """A workflow of one step, which holds its place of the limit until it may end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.begun: list[str] = []

        @step(limit="erp", retries=1, retry_delay="1m", jitter=False)
        async def lines_call(name: str) -> str:
            self.begun.append(name)
            if name == "fails" and get_step_metadata().attempt == 1:
                raise ValueError("busy")
            await self.may_end.wait()
            return name

        @workflow
        async def lines_one_call(name: str) -> str:
            return await lines_call(name)

        self.workflow = lines_one_call

    async def start(self, engine: Engine, name: str) -> Run[str]:
        """Start a run. Returns when its step is in line, or at work."""
        return await in_line(engine, await engine.start(self.workflow, name))


@pytest.fixture
def erp() -> Iterator[Erp]:
    made = Erp()
    yield made
    made.may_end.set()


async def lines_of(engine: Engine, run_id: str) -> list[InLine]:
    return list(engine.steps_in_line(*await engine.read(run_id)).values())


async def test_steps_in_line_know_their_limit_and_place(open_engine: OpenEngine, clock: FakeClock, erp: Erp) -> None:
    async with open_engine(limits={"erp": 1}) as engine:
        runs = []
        for name in ("first", "second", "third"):
            runs.append(await erp.start(engine, name))
        at = clock.now()
        assert await lines_of(engine, runs[0].id) == []
        assert await lines_of(engine, runs[1].id) == [InLine("erp", at, 1, 1)]
        assert await lines_of(engine, runs[2].id) == [InLine("erp", at, 1, 2)]
        erp.may_end.set()
        for run in runs:
            await run.return_value()
            assert await lines_of(engine, run.id) == []


async def test_another_process_knows_the_limit_by_the_log(
    open_engine: OpenEngine, database_url: str, clock: FakeClock, erp: Erp
) -> None:
    async with open_engine(limits={"erp": 1}) as engine:
        first = await erp.start(engine, "first")
        await until(lambda: erp.begun == ["first"])
        second = await erp.start(engine, "second")
        beside = Engine(await connect(database_url), executor=Executor(limits={"erp": 4}), clock=clock)
        async with beside.running(work=False):
            assert await lines_of(beside, first.id) == []
            assert await lines_of(beside, second.id) == [InLine("erp", clock.now(), 4, None)]


async def test_a_retry_is_in_line_from_its_time(open_engine: OpenEngine, clock: FakeClock, erp: Erp) -> None:
    async with open_engine(limits={"erp": 1}) as engine:
        fails = await erp.start(engine, "fails")
        await until(lambda: erp.begun == ["fails"])
        retry_at = clock.now() + timedelta(minutes=1)
        holds = await erp.start(engine, "holds")
        await until(lambda: erp.begun == ["fails", "holds"])
        assert await lines_of(engine, fails.id) == []
        await clock.advance("2m")
        assert await lines_of(engine, fails.id) == [InLine("erp", retry_at, 1, 1)]
        erp.may_end.set()
        assert [await run.return_value() for run in (fails, holds)] == ["fails", "holds"]


async def test_a_run_that_waits_in_the_store_has_a_place(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, erp: Erp
) -> None:
    monkeypatch.setattr(places, "MAX_IN_LINE", 2)
    async with open_engine(limits={"erp": 1}) as engine:
        engine.scheduler.closing = 0.0
        runs = []
        for number in range(6):
            runs.append(await erp.start(engine, str(number)))
        await until(lambda: len(engine.scheduler._active) <= 3)
        found = [await lines_of(engine, run.id) for run in runs]
        assert found[0] == []
        assert [[line.place for line in lines] for lines in found[1:]] == [[1], [2], [3], [4], [5]]


async def test_a_stalled_run_is_in_no_line(open_engine: OpenEngine, erp: Erp) -> None:
    async with open_engine(limits={"erp": 1}) as engine:
        await erp.start(engine, "first")
        await until(lambda: erp.begun == ["first"])
        second = await erp.start(engine, "second")
        row, log = await engine.read(second.id)
        assert engine.steps_in_line(row, log)
        assert engine.steps_in_line(row._replace(status="stalled", stalled="KeyError"), log) == {}
