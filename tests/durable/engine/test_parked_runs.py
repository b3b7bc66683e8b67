"""Runs that wait in the store for their turn, because the line for a limit is long enough."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot import create_hook, step, workflow
from approvals_bot.durable.engine import Engine, places, slots
from approvals_bot.durable.engine.limits import PARKED_APART
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine
from tests.durable.engine.test_step_places import PATIENCE, until

IN_LINE = 10


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_IN_LINE", IN_LINE)


class Narrow:
    """A workflow whose only step waits for a limit, and what its steps have seen."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.begun: list[int] = []
        self.most_active = 0
        self.engine: Engine

        @step(limit="erp", retries=0)
        async def parked_call(number: int) -> int:
            self.begun.append(number)
            self.most_active = max(self.most_active, len(self.engine.scheduler._active))
            await self.may_end.wait()
            return number

        @workflow
        async def parked_one_call(number: int) -> int:
            return await parked_call(number)

        @workflow
        async def parked_beside() -> str:
            return "free"

        self.workflow, self.beside = parked_one_call, parked_beside

    def works_in(self, engine: Engine) -> None:
        self.engine = engine
        engine.scheduler.closing = 0.0

    async def all_in_line(self, runs: int) -> None:
        """Wait until one of these runs is at work, and those that have no room in the line are in the store."""
        erp = next(gate for gate in self.engine.scheduler.executor.all_gates if gate.name == "erp")
        await until(lambda: self.begun and len(erp.line) + len(erp.parked) == runs - 1)
        await until(lambda: len(self.engine.scheduler._active) == len(erp.line) + 1)


@pytest.mark.usefixtures("short_lines")
async def test_a_long_line_waits_in_the_store_in_order(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "MAX_ACTIVE", 40)
    narrow = Narrow()
    async with open_engine(limits={"erp": 1}) as engine:
        narrow.works_in(engine)
        runs = [await engine.start(narrow.workflow, number) for number in range(1000)]
        await narrow.all_in_line(1000)
        async with asyncio.timeout(PATIENCE):
            assert await (await engine.start(narrow.beside)).return_value() == "free"
            assert len(narrow.begun) == 1
            narrow.may_end.set()
            assert [await run.return_value() for run in runs] == list(range(1000))
        assert narrow.most_active <= 40 + IN_LINE
        assert max(abs(number - at) for at, number in enumerate(narrow.begun)) <= 4 * IN_LINE
        assert len(narrow.begun) == 1000
        assert engine.scheduler.slots.free == 40
        assert not engine.scheduler.executor.all_gates[1].parked


@pytest.mark.usefixtures("short_lines")
async def test_parked_runs_are_not_polled(open_engine: OpenEngine) -> None:
    narrow = Narrow()
    async with open_engine(limits={"erp": 1}) as engine:
        narrow.works_in(engine)
        runs = [await engine.start(narrow.workflow, number) for number in range(100)]
        await narrow.all_in_line(100)
        rows = [await engine.store.read(run.id) for run in runs]
        await asyncio.sleep(2.5)
        assert [await engine.store.read(run.id) for run in runs] == rows
        wakes = sorted(at for row in rows if row and (at := row[0].wake_at) and not row[0].ended_at)[-80:]
        assert wakes[-1] - wakes[0] >= 79 * PARKED_APART


@pytest.mark.usefixtures("short_lines")
@pytest.mark.parametrize("is_restarted", [True, False])
async def test_parked_runs_that_nobody_calls_come_back(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, is_restarted: bool
) -> None:
    monkeypatch.setattr(places, "PARKED", timedelta(seconds=1))
    narrow = Narrow()
    async with open_engine(limits={"erp": 1}, clock=None) as engine:
        narrow.works_in(engine)
        runs = [await engine.start(narrow.workflow, number) for number in range(60)]
        await narrow.all_in_line(60)
        if not is_restarted:  # this process forgets whom to call
            for gate in engine.scheduler.executor.all_gates:
                gate.parked.clear()
            narrow.may_end.set()
            async with asyncio.timeout(PATIENCE):
                assert [await run.return_value() for run in runs] == list(range(60))
    if is_restarted:
        narrow.may_end.set()
        async with open_engine(limits={"erp": 1}, clock=None) as engine:
            narrow.works_in(engine)
            async with asyncio.timeout(PATIENCE):
                assert [await engine.get_run(run.id).return_value() for run in runs] == list(range(60))


@pytest.mark.usefixtures("short_lines")
async def test_a_parked_run_can_be_resumed_and_cancelled(open_engine: OpenEngine) -> None:
    narrow = Narrow()

    @step(limit="erp", retries=0)
    async def parked_slow() -> None:
        await narrow.may_end.wait()

    @workflow
    async def parked_with_hook(token: str) -> Any:
        calling = asyncio.create_task(parked_slow())
        said = await create_hook(token)
        calling.cancel()
        return said

    async with open_engine(limits={"erp": 1}) as engine:
        narrow.works_in(engine)
        for number in range(3 * IN_LINE):
            await engine.start(narrow.workflow, number)
        await narrow.all_in_line(3 * IN_LINE)
        resumed = await engine.start(parked_with_hook, "parked-a")
        cancelled = await engine.start(parked_with_hook, "parked-b")
        await narrow.all_in_line(3 * IN_LINE + 2)
        async with asyncio.timeout(PATIENCE):
            await engine.resume_hook("parked-a", "went on")
            assert await resumed.return_value() == "went on"
            await cancelled.cancel()
            assert (await cancelled.wait(60)).status == "cancelled"
        assert len(narrow.begun) == 1


@pytest.mark.usefixtures("short_lines")
async def test_a_long_line_holds_up_no_other_limit(open_engine: OpenEngine) -> None:
    narrow = Narrow()

    @step(limit="crm")
    async def parked_crm(number: int) -> int:
        return number

    @workflow
    async def parked_other_limit() -> list[int]:
        return list(await asyncio.gather(*(parked_crm(number) for number in range(3 * IN_LINE))))

    async with open_engine(limits={"erp": 1, "crm": 1}) as engine:
        narrow.works_in(engine)
        for number in range(3 * IN_LINE):
            await engine.start(narrow.workflow, number)
        await narrow.all_in_line(3 * IN_LINE)
        async with asyncio.timeout(PATIENCE):
            others = [await engine.start(parked_other_limit) for _ in range(3)]
            for run in others:
                assert await run.return_value() == list(range(3 * IN_LINE))
        assert len(narrow.begun) == 1


@pytest.mark.usefixtures("short_lines")
async def test_parked_runs_look_again_less_and_less(open_engine: OpenEngine, clock: FakeClock) -> None:
    narrow = Narrow()
    async with open_engine(limits={"erp": 1}) as engine:
        narrow.works_in(engine)
        run = [await engine.start(narrow.workflow, number) for number in range(2 * IN_LINE)][-1]
        await narrow.all_in_line(2 * IN_LINE)
        before = await engine.record(run.id)
        await clock.advance("1h")
        after = await engine.record(run.id)
        assert before is not None
        assert after is not None
        assert 5 <= after.epoch - before.epoch <= 15
        narrow.may_end.set()
        assert await run.return_value() == 2 * IN_LINE - 1
