"""Drift is reported with the event, what the log has, and what the code asks for now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from approvals_bot import NondeterminismError, create_hook, create_webhook, sleep, step, workflow
from approvals_bot.durable.core.api import Answer
from approvals_bot.testing import History


@step
async def charge() -> int:
    return 1


@step
async def refund() -> int:
    return 1


async def original() -> Any:
    await charge()
    hook = create_hook(token="t")
    with suppress(TimeoutError):
        await asyncio.wait_for(_take(hook), 60)
    hook.dispose()
    await sleep("1h")


async def _take(hook: Any) -> Any:
    return await hook


async def another_step() -> Any:
    await refund()


async def another_hook_first() -> Any:
    await create_hook(token="another")


async def ends_earlier() -> Any:
    await charge()
    return "done"


async def asks_nothing() -> Any:
    await asyncio.get_running_loop().create_future()


async def another_token() -> Any:
    await charge()
    await create_hook(token="other")


async def keeps_the_hook() -> Any:
    await charge()
    hook = create_hook(token="t")
    with suppress(TimeoutError):
        await asyncio.wait_for(_take(hook), 60)
    await sleep("1h")


async def keeps_the_timer() -> Any:
    await charge()
    hook = create_hook(token="t")
    asyncio.create_task(sleep(60))  # noqa: RUF006
    await hook
    hook.dispose()
    await sleep("1h")


async def swallows_everything() -> Any:
    with suppress(Exception):
        await refund()


def recorded() -> History:
    run = History(workflow(name="drift")(original))
    run.decide()
    run.complete(1, 1)
    run.decide()
    run.receive(2, "payload")
    run.decide()
    return run


@pytest.mark.conformance(49, 122, 123)
@pytest.mark.parametrize(
    ("changed", "seq", "words"),
    [
        (another_step, 2, "recorded step #1 'charge', but the code now asks for step #1 'refund'"),
        (swallows_everything, 2, "recorded step #1 'charge', but the code now asks for step #1 'refund'"),
        (another_hook_first, 2, "recorded step #1 'charge', but the code now asks for hook #1"),
        (asks_nothing, 2, "but the code now asks for nothing"),
        (ends_earlier, 4, "recorded hook #2, but the code now asks for nothing: it ends before that"),
        (another_token, 4, "with token 't', but the code now asks for the token 'other'"),
        (keeps_the_hook, 8, "recorded the end of hook #2, but the code now asks for hook #2 to stay open"),
        (keeps_the_timer, 7, "recorded the end of wait #3, but the code now asks for wait #3 to go on"),
    ],
)
def test_drift_is_named(changed: Callable[[], Awaitable[Any]], seq: int, words: str) -> None:
    run = recorded()
    run.workflow.function = changed
    with pytest.raises(NondeterminismError) as caught:
        run.replay(run.log)
    assert words in str(caught.value)
    assert caught.value.seq == seq


def test_a_new_parameter_with_a_default_is_not_drift() -> None:
    async def before(amount: int) -> int:
        return amount + await charge()

    async def after(amount: int, currency: str = "EUR") -> str:
        return f"{amount + await charge()} {currency}"

    kept = workflow(name="grows")(before)
    run = History(kept, 41)
    run.decide()
    run.complete(1, 1)
    before.__qualname__ = after.__qualname__ = "same"
    run.workflow = workflow(name="grows2")(after)
    run.decide()
    assert run.result == "42 EUR"


def test_an_answer_that_is_no_longer_given_is_drift() -> None:
    answers = [True]

    @workflow
    async def answering() -> None:
        request = await create_webhook(respond_with="manual")
        if answers:
            await request.respond_with(Answer("yes"))
        await sleep("1h")

    from approvals_bot import WebhookRequest

    run = History(answering)
    run.decide()
    run.receive(1, WebhookRequest())
    run.decide()
    answers.clear()
    with pytest.raises(NondeterminismError, match="an answer to event"):
        run.decide()


def test_hook_decisions_at_the_end_are_not_drift() -> None:
    @workflow
    async def opens_answers_and_closes() -> str:
        async with create_webhook(respond_with="manual") as webhook:
            request = await webhook
            await request.respond_with(Answer("yes"))
        create_hook(token="never awaited")
        return "done"

    from approvals_bot import WebhookRequest

    run = History(opens_answers_and_closes)
    run.decide()
    run.receive(1, WebhookRequest())
    run.decide()
    assert run.types[-4:] == ["hook_responded", "hook_disposed", "hook_created", "run_completed"]
    for length in range(1, len(run.log) + 1):
        run.replay(run.log[:length])
    opens_answers_and_closes.function = _says_nothing
    with pytest.raises(NondeterminismError, match="an answer to event"):
        run.replay(run.log)


async def _says_nothing() -> str:
    async with create_webhook(respond_with="manual") as webhook:
        await webhook
    create_hook(token="never awaited")
    return "done"
