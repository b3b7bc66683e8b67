"""Runs of the kept workflows. `--record-histories` writes their logs to tests/histories."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from approvals_bot import RunCancelledError, RunFailedError, WebhookRequest
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine
from tests.support.histories import known_workflows
from tests.support.kept_workflows import (
    Order,
    crowd,
    ends,
    failing_group,
    generator,
    hooks,
    order,
    poll,
    votes,
    webhook,
)

PEOPLE = ["ann", "bo", "cy", "di"]
PAYLOADS: list[Any] = [1, None, {"a": []}, "done"]


async def test_an_order_is_charged_at_the_third_attempt(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(order, Order(7, Decimal("12.50"), clock.now() + timedelta(days=2)))
        await clock.advance("3 days")
        assert (await run.return_value())["receipt"] == "receipt of 12.50"


async def test_an_order_that_nobody_pays_is_told(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(order, Order(13, Decimal(1), clock.now()))
        assert await run.return_value() == {"failed": "nobody pays for number 13", "told": "told ops"}


async def test_a_crowd_is_told(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(crowd, PEOPLE)
        await clock.advance("2 days")
        assert (await run.return_value())[:4] == [f"told {person}" for person in PEOPLE]


async def test_a_failing_group_compensates_in_order(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(failing_group, PEOPLE)
        await clock.advance("1h")
        assert await run.return_value() == [f"told {person}" for person in [*PEOPLE, "too late"]]


async def test_votes_with_reminders(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(poll, "poll", 2)
        await clock.advance("25h")
        await votes.resume("poll", {"by": "ann"})
        await clock.advance("25h")
        await votes.resume("poll", {"by": "bo"})
        assert await run.return_value() == ["ann", "bo"]


async def test_votes_that_do_not_come_in_time(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(poll, "poll", 2)
        await clock.advance("1h")
        await votes.resume("poll", {"by": "ann"})
        await clock.advance("4 days")
        assert await run.return_value() == ["ann"]


async def test_a_token_used_again_in_one_breath(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(hooks, "t")
        await engine.settle()
        for payload in PAYLOADS:
            await engine.resume_hook("t", payload)
        await engine.settle()
        await engine.resume_hook("t", "last")
        assert await run.return_value() == [*PAYLOADS, "conflict on t", True, "last"]


async def test_a_webhook_that_answers_by_itself(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(webhook)
        await engine.settle()
        token = next(e.data["token"] for e in await run.events() if e.type == "hook_created")
        for word, said in ((b"now", b"'now': wrong"), (b"please", b"'please': right")):
            assert (await engine.resume_webhook(token, WebhookRequest(body=word))).body == said
        assert await run.return_value() == "please"


async def test_a_generator_that_is_left(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(generator, 5)
        await clock.advance("5 days")
        assert await run.return_value() == [0, 1, 2]


async def test_every_way_to_end(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match="nothing there"):
            await (await engine.start(ends, "raises")).return_value()
        with pytest.raises(RunCancelledError, match="second thoughts"):
            await (await engine.start(ends, "cancels itself")).return_value()
        assert await (await engine.start(ends, "leaves things open")).return_value() == "leaves things open"
        waiting = await engine.start(ends, "waits")
        await engine.settle()
        await waiting.cancel(reason="enough")
        with pytest.raises(RunCancelledError, match="enough"):
            await waiting.return_value()


async def test_the_sample_programs(open_engine: OpenEngine, clock: FakeClock) -> None:
    samples = known_workflows()
    async with open_engine() as engine:
        greeted = await engine.start(samples["greeting", None], {"name": "Ann"})
        talked = await engine.start(samples["conversation", None], {"name": "Bo"})
        called = await engine.start(samples["callback", None], {"name": "Cy"})
        await clock.advance("3s")
        assert await greeted.return_value() == "Hello, Ann! Hello, again!"
        await engine.resume_hook("reply-Bo", {"text": "fine"})
        assert await talked.return_value() == "Bo says: fine 🙂"
        (hook,) = [e.data["token"] for e in await called.events() if e.type == "hook_created"]
        await engine.resume_webhook(hook, WebhookRequest(body=b"here"))
        assert await called.return_value() == {"guest": "Cy", "method": "POST", "body": "here"}
