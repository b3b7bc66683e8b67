"""`play`: a workflow from start to end in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot import (
    RetryableError,
    WebhookRequest,
    create_hook,
    create_webhook,
    publish,
    resource,
    sleep,
    step,
    workflow,
)
from approvals_bot.durable.core.api import Answer
from approvals_bot.testing import after, play


class Cards:
    def __init__(self) -> None:
        self.charged: list[int] = []


@step
async def charge(amount: int, cards: Cards = resource(Cards)) -> str:  # noqa: B008  # a marker
    cards.charged.append(amount)
    return f"receipt {amount}"


@step
async def remind(who: str) -> None: ...


@workflow
async def expense(amount: int) -> str:
    hook = create_hook(token=f"expense-{amount}")

    async def nag() -> None:
        while True:
            await sleep("1 day")
            await remind("the manager")

    nagging = asyncio.create_task(nag())
    try:
        async with asyncio.timeout(timedelta(days=7).total_seconds()):
            answer = await hook
    except TimeoutError:
        return "expired"
    finally:
        nagging.cancel()
    return f"paid, {await charge(amount)}" if answer["approved"] else "not paid"


async def test_an_answer_by_token_and_a_step_replaced_by_its_value() -> None:
    played = await play(expense, 42, answers={"expense-42": {"approved": True}}, steps={charge: "receipt 1"})
    assert (played.status, played.result) == ("completed", "paid, receipt 1")
    assert played.calls(charge) == [{"amount": 42}]
    assert played.calls(remind) == []


async def test_timers_fire_before_a_later_answer() -> None:
    cards = Cards()
    played = await play(expense, 7, answers=[after("3 days 1h", {"approved": True})], resources={Cards: cards})
    assert played.result == "paid, receipt 7"
    assert len(played.calls(remind)) == 3
    assert cards.charged == [7]
    assert played.ended_at - played.log[0].at == timedelta(days=3, hours=1)


async def test_without_an_answer_the_timeout_fires() -> None:
    played = await play(expense, 1)
    assert played.result == "expired"
    assert len(played.calls(remind)) in (6, 7)


async def test_steps_are_retried_and_fail_as_on_an_engine() -> None:
    attempts: list[int] = []

    async def busy(amount: int) -> str:
        attempts.append(amount)
        if len(attempts) < 3:
            raise RetryableError("busy", retry_after="1h")
        return "at last"

    played = await play(expense, 5, answers=[{"approved": True}], steps={charge: busy})
    assert played.result == "paid, at last"
    assert attempts == [5, 5, 5]
    failed = await play(expense, 5, answers=[{"approved": True}], steps={charge: ValueError("no card")})
    assert failed.status == "failed"
    assert "failed after 3 retries: no card" in str(failed.error)


async def test_a_waiting_run_names_what_it_waits_for() -> None:
    @workflow
    async def waits() -> Any:
        publish({"state": "open"})
        return await create_hook(token="t")

    played = await play(waits)
    assert (played.status, played.waits_for, played.view) == ("running", ["hook t"], {"state": "open"})


async def test_webhooks_are_posted_to_and_answer() -> None:
    @workflow
    async def answers() -> list[Any]:
        webhook = create_webhook(respond_with="manual")
        said = []
        for _ in range(2):
            request = await webhook
            said.append(await request.text())
            await request.respond_with(Answer.json({"got": said[-1]}, 201))
        return said

    played = await play(answers, answers=[{"n": 1}, WebhookRequest(body=b"raw")])
    assert played.result == ['{"n": 1}', "raw"]
    assert [(a.status_code, a.body) for a in played.responses] == [
        (201, b'{"got": "{\\"n\\": 1}"}'),
        (201, b'{"got": "raw"}'),
    ]


async def test_answers_of_several_hooks_go_by_token_or_in_order() -> None:
    @workflow
    async def two() -> list[Any]:
        first, second = create_hook(token="a"), create_hook(token="b")
        return [await second, await first, await first]

    by_token = await play(two, answers={"a": [1, 2], "b": 3})
    assert by_token.result == [3, 1, 2]


async def test_a_stuck_workflow_is_reported() -> None:
    @workflow
    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    from approvals_bot import WorkflowStuckError

    with pytest.raises(WorkflowStuckError):
        await play(stuck)
