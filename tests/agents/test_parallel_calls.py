"""Many tool calls of one run at once: each gets the answer to its own question."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from copy import copy
from typing import Any, TypeVar

import pytest

from approvals_bot import workflow
from approvals_bot.agents import approve
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.errors import RunFailedError, StoreUnavailableError
from tests.agents.test_approve import books_by_agent, open_requests, send
from tests.approvals.conftest import ANN, office

__all__ = ["office"]

T = TypeVar("T")
LEAST: dict[str, Any] = {"expects": None, "to": ANN, "deliver": {}, "deadline": None}  # no card, no clock
MOST_EVENTS = 5
"""Of a call: the request with its people, the webhook, the vote, its look-up, and the reply that closes the webhook."""


@workflow(name="parallel calls: at length")
async def calls_at_length(count: int) -> list[str]:
    arguments = {"text": "x" * 64_000}
    asked = (approve("write", arguments, tool_call_id=f"call_{number}", **LEAST) for number in range(count))
    return [decision.state for decision in await asyncio.gather(*asked)]


async def asks_many(offices: list[Any], count: int) -> None:
    """Decide `count` calls in a random order, each in any of the processes, and check every answer."""
    calls = [{"id": f"call_{number}", "arguments": {"n": number}} for number in range(count)]
    first, chance = offices[0], random.Random(7)  # noqa: S311  # the same order each time
    run = await until_available(lambda: first.engine.start(books_by_agent, calls, LEAST, idempotency_key="many"))
    while len(views := await until_available(lambda: open_requests(first, run))) < count:
        await first.clock.advance("1m")
    assert [view.fields["arguments"] for view in views] == [call["arguments"] for call in calls]
    await asyncio.gather(*(vote(chance.choice(offices), view) for view in chance.sample(views, count)))
    while not (await until_available(lambda: first.engine.record(run.id))).has_ended:
        await first.clock.advance("1m")
    for number, decision in enumerate(await until_available(run.return_value)):
        assert decision["state"] == ("rejected" if number % 3 == 0 else "approved")
        assert (decision["arguments"], decision["comment"]) == ({"n": number}, f"about {number}")
    events = await until_available(run.events)
    answers = [json.loads(event.data["answer"]["text"]) for event in events if event.type == "hook_responded"]
    assert [answer["verdict"] for answer in answers] == ["decided"] * count
    assert len(events) <= MOST_EVENTS * count + 3


async def vote(office: Any, view: Request) -> None:
    """Decide a call, without waiting for the reply: on a busy machine it comes too late, and the vote is kept."""
    number = view.number - 1
    choice = "reject" if number % 3 == 0 else "approve"
    given = {"kind": "vote", "by": ANN, "choice": choice, "via": "api", "comment": f"about {number}"}
    request, once = WebhookRequest.of_json(given), {"resume_id": view.id, "timeout": 0}
    hook = await until_available(lambda: office.engine.find_hook(view.hook_id))
    await until_available(lambda: office.engine.resume_webhook(hook.token, request, **once))


async def until_available(call: Callable[[], Awaitable[T]]) -> T:
    """Return what the store says, however often it is too busy to. Everything here may be asked again."""
    while True:
        with suppress(StoreUnavailableError):
            return await call()


@pytest.mark.agents(14)
@pytest.mark.parametrize(("count", "fit"), [(6, True), (7, False)])
async def test_many_large_calls_work_or_are_refused(office: Any, count: int, fit: bool) -> None:
    async with office.open():
        run = await office.engine.start(calls_at_length, count)
        await office.settle()
        if fit:
            views = await open_requests(office, run)
            for view in views:
                await send(office, view, choice="approve")
            assert await run.return_value() == ["approved"] * count
        else:
            with pytest.raises(RunFailedError, match="ask again once some are decided"):
                await run.return_value()


@pytest.mark.agents(7)
async def test_each_of_many_calls_gets_its_own_answer(office: Any) -> None:
    async with office.open():
        await asks_many([office], 6)


@pytest.mark.agents(7)
@pytest.mark.long_log
async def test_each_of_a_hundred_calls_gets_its_own_answer(office: Any) -> None:
    async with office.open():
        await asks_many([office], 100)


@pytest.mark.agents(7)
@pytest.mark.long
@pytest.mark.long_log
@pytest.mark.timeout(600)
async def test_a_hundred_calls_with_two_replicas_on_postgres(office: Any, postgres_url: str) -> None:
    office.url = postgres_url
    other = copy(office)
    async with AsyncExitStack() as both:
        await both.enter_async_context(office.open())
        await both.enter_async_context(other.open())
        await asks_many([office, other], 100)
