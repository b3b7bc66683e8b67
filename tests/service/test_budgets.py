"""Budgets of agents, counted by several processes on both stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from approvals_bot.approvals.agent_policy import Budget
from approvals_bot.durable.core.api import create_hook, workflow
from approvals_bot.durable.engine import Engine
from approvals_bot.service.budgets import BudgetSpent, amounts_of, take_from_budget
from approvals_bot.testing import FakeClock

APP = "app:agent"
HOUR = timedelta(hours=1)


@workflow
async def call_within_a_budget(name: str) -> Any:
    return await create_hook(f"budget/{name}")


@pytest.fixture(params=["sqlite", "postgres"])
async def engines(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[list[Engine]]:
    """Two processes' engines on one store, with one clock."""
    url = f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with AsyncExitStack() as stack:
        clock = FakeClock()
        yield [await stack.enter_async_context(Engine.open(url, clock=clock)) for _ in range(2)]


async def take(engine: Engine, budget: Budget, key: str, **amounts: int) -> BudgetSpent | None:
    return await take_from_budget(engine, budget, APP, key, {leaf: Decimal(n) for leaf, n in amounts.items()})


async def ask(engine: Engine, budget: Budget, key: str) -> BudgetSpent | None:
    """Take a call from the budget, and open its run."""
    spent = await take(engine, budget, key)
    if spent is None:
        await engine.start(call_within_a_budget, key, idempotency_key=f"{APP} {key}")
    return spent


async def test_calls_at_once_never_exceed_the_budget(engines: list[Engine]) -> None:
    budget = Budget.model_validate({"calls": "5 per hour"})
    found = await asyncio.gather(*(take(engines[n % 2], budget, f"s:{n}") for n in range(16)))
    refused = [spent for spent in found if spent is not None]
    assert len(found) - len(refused) == 5
    assert [spent.is_first for spent in refused].count(True) == 1
    assert {(spent.what, spent.limit, spent.again) for spent in refused} == {
        ("calls", "5 per hour", engines[0].now() + HOUR)
    }
    assert await take(engines[0], budget, "other:1") is None, "each session has its own"
    assert await take_from_budget(engines[0], budget, "app:other", "s:1", {}) is None, "each key has its own"


async def test_one_call_counts_once_from_many_processes(engines: list[Engine]) -> None:
    budget = Budget.model_validate({"calls": "2 per hour", "open": 2})
    found = await asyncio.gather(*(ask(engines[n % 2], budget, "s:1") for n in range(16)))
    assert found == [None] * 16
    assert await ask(engines[0], budget, "s:2") is None
    assert await ask(engines[0], budget, "s:3") is not None


async def test_open_requests_at_once_never_exceed_the_budget(engines: list[Engine]) -> None:
    budget = Budget.model_validate({"open": 3})
    found = await asyncio.gather(*(ask(engines[n % 2], budget, f"s:{n}") for n in range(10)))
    assert found.count(None) == 3
    (run, *_) = (await engines[0].runs("call_within_a_budget")).records
    await engines[0].cancel(run.id)
    await engines[0].wait(run.id, 5)
    assert await ask(engines[1], budget, "s:next") is None
    spent = await ask(engines[0], budget, "s:last")
    assert spent is not None
    assert (spent.what, spent.again) == ("open", None)


async def test_what_is_open_is_counted_however_old(engines: list[Engine]) -> None:
    budget = Budget.model_validate({"open": 1})
    assert await ask(engines[0], budget, "s") is None
    clock: Any = engines[0].clock
    await clock.advance("40d")
    assert await ask(engines[0], budget, "s:1") is not None


async def test_a_call_that_never_got_a_run_is_forgotten(engines: list[Engine]) -> None:
    budget = Budget.model_validate({"open": 1})
    assert await take(engines[0], budget, "s:1") is None
    assert await take(engines[0], budget, "s:2") is not None
    clock: Any = engines[0].clock
    await clock.advance("61s")
    assert await take(engines[0], budget, "s:2") is None


async def test_a_period_moves_along(engines: list[Engine]) -> None:
    budget, engine = Budget.model_validate({"calls": "2 per hour", "sum": {"price": "1000 per 2h"}}), engines[0]
    clock: Any = engine.clock
    started = engine.now()
    assert await take(engine, budget, "s:1", price=400) is None
    await clock.advance("30m")
    assert await take(engine, budget, "s:2", price=500) is None
    spent = await take(engine, budget, "s:3")
    assert spent is not None
    assert (spent.what, spent.again, spent.is_first) == ("calls", started + HOUR, True)
    await clock.advance("30m")
    spent = await take(engine, budget, "s:3", price=101)
    assert spent is not None
    assert (spent.what, spent.again) == ("sum.price", started + 2 * HOUR)
    assert await take(engine, budget, "s:3", price=100) is None
    alone = await take(engine, budget, "s:4", price=1001)
    assert alone is not None
    assert (alone.what, alone.again) == ("sum.price", None)


def test_amounts_are_numbers_at_their_leaves() -> None:
    budget = Budget.model_validate(
        {"sum": {"price": "9 per day", "items.*.price": "9 per day", "items.0.n": "9 per day"}}
    )
    arguments: Any = {"price": "640.50", "items": [{"price": 1, "n": 7}, {"price": 2.5}, {"n": 1}]}
    found = {"price": Decimal("640.50"), "items.*.price": Decimal("3.5"), "items.0.n": Decimal(7)}
    assert amounts_of(budget, arguments) == (found, [])
    assert amounts_of(budget, {"other": 1}) == ({}, [])
    odd: tuple[Any, ...] = (-1, None, "many", True, [1], {"a": 1}, "NaN", "1e99", "")
    for value in odd:
        assert amounts_of(budget, {"price": value}) == ({}, ["price"]), value
