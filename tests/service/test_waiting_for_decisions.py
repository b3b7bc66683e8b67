"""Waiting for a decision before the run's end, in the process that writes it and in another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Channels
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People, Person
from approvals_bot.service.act import perform
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.open import open_run
from approvals_bot.service.read import await_request, decision_on, is_decided, request_of

PEOPLE = People([Person("ann@acme.eu", "Ann")], {"ops": ("ann@acme.eu",)})
FILE = Definition.model_validate(
    {"workflow": {"id": "tool-call", "title": "{{ tool }}"}, "stage": [{"id": "go", "from": ["@ops"]}]}, context={}
)
CALLS = Catalog({"tool-call": Listed(approval.under("tool-call", pinned(FILE)), FILE)})


@pytest.fixture(params=["sqlite", "postgres"])
async def engines(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[list[Engine]]:
    """Two processes' engines on one store."""
    url = f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    more: dict[str, Any] = {"signing_keys": ["k" * 32], "base_url": "http://127.0.0.1:1"}
    async with AsyncExitStack() as stack:
        resources = [PEOPLE, Channels(), Calendars()]
        opened = [Engine.open(url, resources=resources, **more) for _ in range(2)]
        yield [await stack.enter_async_context(each) for each in opened]


async def ask(engine: Engine) -> str:
    run = await open_run(
        engine=engine,
        workflows=CALLS,
        people=PEOPLE,
        name="tool-call",
        input={"tool": "pay", "arguments": {"price": 640}},
        opener="app:agent",
        idempotency_key="s:1",
    )
    await await_request(engine, run.id)
    return run.id


async def test_a_vote_ends_waits_in_every_process(engines: list[Engine]) -> None:
    run_id = await ask(engines[0])
    waits = [asyncio.create_task(engine.wait(run_id, 30, is_decided)) for engine in engines for _ in range(20)]
    await asyncio.sleep(0.1)
    assert not any(wait.done() for wait in waits)
    record = await engines[0].record(run_id)
    assert record is not None
    request = request_of(record)
    assert request is not None
    assert (await perform(engines[0], request, Vote("ann@acme.eu", via="api"))).verdict == "decided"
    for decided in await asyncio.wait_for(asyncio.gather(*waits), 20):
        decision = decision_on(decided)
        assert decision is not None
        assert decision.approved


async def test_a_process_that_stops_ends_its_waits(engines: list[Engine]) -> None:
    run_id = await ask(engines[0])
    wait = asyncio.create_task(engines[1].wait(run_id, 30, is_decided))
    await asyncio.sleep(0.05)
    engines[1].end_waiting()
    assert not is_decided(await asyncio.wait_for(wait, 20))
