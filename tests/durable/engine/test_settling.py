import asyncio
from typing import Any

import pytest

from approvals_bot import sleep, workflow
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine


@workflow(name="settles: sleeps an hour")
async def sleeps_an_hour() -> str:
    await sleep("1h")
    return "slept"


async def test_settling_waits_for_claims_under_way(
    open_engine: OpenEngine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine() as engine:
        run = await engine.start(sleeps_an_hour)
        await engine.settle()
        claim, claimed, goes_on = engine.store.claim, asyncio.Event(), asyncio.Event()

        async def slowly_answered(*given: Any) -> Any:
            found = await claim(*given)
            if found:
                claimed.set()
                await goes_on.wait()
            return found

        monkeypatch.setattr(engine.store, "claim", slowly_answered)
        advancing = asyncio.create_task(clock.advance("1h"))
        while not claimed.is_set():
            engine.scheduler.look_again()
            await asyncio.sleep(0.01)
        settling = asyncio.create_task(engine.settle())
        await asyncio.sleep(0.1)
        assert not settling.done()
        goes_on.set()
        await settling
        await advancing
        assert await run.status() == "completed"
