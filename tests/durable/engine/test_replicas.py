"""Two replicas on one PostgreSQL: each takes any click, and answers for runs that the other one works on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import Response

from approvals_bot import create_hook, create_webhook, step, workflow
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import RunCancelledError
from tests.support.postgres_server import PostgresServer

SOON = 30  # seconds; without hearing anything it would take longer than any test

goes_on = asyncio.Event()


@step(retries=0)
async def is_busy() -> str:
    await goes_on.wait()
    return "done"


@workflow
async def answers_while_it_works() -> str:
    webhook = create_webhook(respond_with="manual", metadata={"for": "replicas"})
    working = asyncio.create_task(is_busy())
    request = await webhook
    await request.respond_with(Response(f"verdict on {await request.text()}"))
    return await working


@workflow
async def waits_for_a_payload(token: str) -> str:
    return str(await create_hook(token))


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[list[Engine]]:
    goes_on.clear()
    keys: dict[str, Any] = {"signing_keys": ["a test's key, 32 bytes and longer"], "base_url": "https://example.test"}
    async with Engine.open(postgres_url, **keys) as one, Engine.open(postgres_url, **keys) as two:
        yield [one, two]


async def test_any_replica_answers_for_a_run_that_another_works_on(replicas: list[Engine]) -> None:
    holder, other = replicas
    run = await holder.start(answers_while_it_works)
    async with asyncio.timeout(SOON):
        while not (hooks := [e for e in await run.events() if e.type == "hook_created"]):
            await asyncio.sleep(0.01)
        response = await other.resume_webhook(hooks[0].data["token"], WebhookRequest(body=b"a click"), timeout=SOON)
        assert response.body == b"verdict on a click"
        goes_on.set()
        assert await other.get_run(run.id).return_value() == "done"


async def test_a_write_at_one_replica_reaches_callers_at_the_other(replicas: list[Engine]) -> None:
    one, two = replicas
    runs = [await one.start(waits_for_a_payload, f"t{n}") for n in range(3)]
    waiting = [asyncio.create_task(two.get_run(run.id).return_value()) for run in runs]
    async with asyncio.timeout(SOON):
        for n in range(3):
            await (one, two, one)[n].resume_hook(f"t{n}", n)
        assert await asyncio.gather(*waiting) == ["0", "1", "2"]


async def test_a_run_is_cancelled_by_any_replica(replicas: list[Engine]) -> None:
    holder, other = replicas
    run = await holder.start(answers_while_it_works)
    waiting = asyncio.create_task(run.return_value())
    await other.cancel(run.id, "not needed any more")
    async with asyncio.timeout(SOON):
        with pytest.raises(RunCancelledError, match="not needed"):
            await waiting


async def test_a_lost_listening_connection_is_restored(
    replicas: list[Engine], postgres: PostgresServer, postgres_url: str
) -> None:
    one, two = replicas
    run = await one.start(waits_for_a_payload, "t")
    waiting = asyncio.create_task(two.get_run(run.id).return_value())
    listening = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    )
    async with asyncio.timeout(SOON):
        assert len(await asyncio.to_thread(postgres.execute, listening, postgres_url)) == 2
        await one.resume_hook("t", "heard")
        assert await waiting == "heard"
