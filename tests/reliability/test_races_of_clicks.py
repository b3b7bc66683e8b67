"""Two to fifty opposite clicks, released together at two engines on one file: one decides, and all hear the same.

`CLICK_RACES=1000` runs it at its full size.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

from approvals_bot import Engine, HookNotFoundError, WebhookRequest, create_webhook, publish, step, workflow
from approvals_bot.durable.core.api import Answer

RACES = int(os.environ.get("CLICK_RACES", "100"))
AT_ONCE = 10  # races
KEYS = ["a test's key, 32 bytes and longer"]


@step
async def done_as(decision: str) -> str:
    return decision


@step
async def counted(decision: str) -> None:
    await asyncio.sleep(0.05)  # as long as a step takes that asks somebody else: others click meanwhile


@workflow(name="raced")
async def raced(slowly: bool) -> str:
    """The first click decides; people who click while it is being counted learn who was first."""
    async with create_webhook(respond_with="manual") as webhook:
        publish({"token": webhook.token})
        first = await webhook
        decision = await first.text()
        if slowly:
            await counted(decision)
        await first.respond_with(Answer(decision))
    async for late in webhook:
        await late.respond_with(Answer(decision))
    return await done_as(decision)


class Race:
    """One request, and all who press at once."""

    def __init__(self, engines: list[Engine], random: Random) -> None:
        self.engines = engines
        self.slowly = random.random() < 0.5
        self.clicks = [f"{random.choice(('approve', 'reject'))} by {n}" for n in range(random.randint(2, 50))]

    async def run(self) -> Counter[str]:
        """How they were answered."""
        run = await self.engines[0].start(raced, self.slowly)
        while (record := await self.engines[0].record(run.id)) is None or record.view is None:
            await asyncio.sleep(0.001)
        token = record.view["token"]
        gate = asyncio.Event()
        pressing = [asyncio.create_task(self.press(i, run.id, token, gate)) for i in range(len(self.clicks))]
        gate.set()
        replies = await asyncio.gather(*pressing)
        await run.wait(100)
        events = await run.events()
        received = [e.data["payload"]["text"] for e in events if e.type == "hook_received"]
        (result,) = [e.data["result"] for e in events if e.type == "run_completed"]
        assert {winner for winner, _ in replies} == {result} == {received[0]}
        assert sum(e.type == "hook_responded" for e in events) == len(received) == len(set(received))
        assert [e.data["result"] for e in events if e.type == "step_completed"][-1:] == [result]
        assert {click for click, (_, how) in zip(self.clicks, replies, strict=True) if how == "answered"} == set(
            received
        )
        return Counter(how for _, how in replies)

    async def press(self, number: int, run_id: str, token: str, gate: asyncio.Event) -> tuple[str, str]:
        engine = self.engines[number % len(self.engines)]
        await gate.wait()
        try:
            response = await engine.resume_webhook(
                token, WebhookRequest(body=self.clicks[number].encode()), timeout=100
            )
        except HookNotFoundError:
            record = await engine.wait(run_id, 100)
            return str(record.result), "too late"
        assert response.status_code == 200
        return bytes(response.body).decode(), "answered"

    def request(self, number: int) -> WebhookRequest:
        return WebhookRequest(body=self.clicks[number].encode())


@pytest.mark.promise(6)
@pytest.mark.timeout(1200)
async def test_one_of_many_opposite_clicks_decides_and_all_see_it(tmp_path: Path) -> None:
    random = Random(6)  # noqa: S311  # the same races in each run
    ways: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path}/runs.db"
        opening = [Engine.open(url, signing_keys=KEYS, base_url="https://example.test") for _ in range(2)]
        engines = [await stack.enter_async_context(each) for each in opening]
        for first in range(0, RACES, AT_ONCE):
            races = [Race(engines, random).run() for _ in range(min(AT_ONCE, RACES - first))]
            for answered in await asyncio.gather(*races):
                ways += answered
    assert ways["answered"] > 2 * RACES, "many must have come while the first was being counted"
    assert ways["too late"] > 2 * RACES, "and many too late"
