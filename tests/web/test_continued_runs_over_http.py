"""Runs that continue as new ones, over the API and on their pages."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot import continue_as_new, create_hook, workflow
from approvals_bot.service.catalog import Listed


@workflow
async def web_chain(token: str, number: int = 0) -> int:
    if await create_hook(token) == "stop":
        return number
    return continue_as_new(token, number + 1)


@pytest.fixture
async def chained(service: Any) -> Any:
    service.workflows[web_chain.name] = Listed(web_chain)
    return service


async def a_chain(service: Any, token: str, length: int = 2) -> list[str]:
    """Start a run that continues so often. Returns the IDs of all its runs."""
    run = await service.engine.start(web_chain, token)
    ids = [run.id]
    for _ in range(length):
        await service.engine.settle()
        await service.engine.resume_hook(token, "go")
        await service.engine.settle()
        ids.append(await service.engine.last(run.id))
    return ids


async def test_a_continued_run_redirects_to_the_last(chained: Any) -> None:
    first, second, third = await a_chain(chained, "web-chain-1")
    for run_id in (first, second):
        answer = await chained.api.get(f"/api/runs/{run_id}?wait=0", follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"].endswith(f"/api/runs/{third}?wait=0")
    shown = (await chained.api.get(f"/api/runs/{first}?own=1")).json()
    assert (shown["id"], shown["status"], shown["next_run"]) == (first, "continued", second)
    events = (await chained.api.get(f"/api/runs/{first}/events")).json()["events"]
    assert events[-1]["type"] == "run_continued"
    listed = (await chained.api.get("/api/runs?status=continued")).json()["runs"]
    assert {run["id"] for run in listed} == {first, second}


async def test_a_wait_follows_a_run_that_continues(chained: Any) -> None:
    run = await chained.engine.start(web_chain, "web-chain-2")
    await chained.engine.settle()
    await chained.engine.resume_hook("web-chain-2", "go")
    await chained.engine.resume_hook("web-chain-2", "stop")
    answer = await chained.api.get(f"/api/runs/{run.id}?wait=10", follow_redirects=True)
    assert (answer.json()["status"], answer.json()["result"]) == ("completed", 1)


async def test_cancelling_a_continued_run_cancels_the_last(chained: Any) -> None:
    first, _, third = await a_chain(chained, "web-chain-3")
    answer = await chained.api.post(f"/api/runs/{first}/cancellation", json={"reason": "enough"})
    assert (answer.status_code, answer.json()) == (202, {"run_id": third})
    await chained.engine.settle()
    assert await chained.engine.get_run(third).status() == "cancelled"
    attempted = await chained.api.post(f"/api/runs/{first}/attempts", json={"reason": "again"})
    assert attempted.status_code in (403, 409)
