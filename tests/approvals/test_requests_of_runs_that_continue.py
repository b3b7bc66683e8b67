"""A run with an open request can't continue as a new one; a decided one brings its copies up to date first."""

from __future__ import annotations

import asyncio
from typing import Any

from approvals_bot import Approved, CannotContinueError, continue_as_new, request_approval, workflow
from tests.approvals.test_request_approval import ANN, views, vote


@workflow
async def continuing_with_open_request() -> str:
    task = asyncio.ensure_future(request_approval("Refund order 1", approvers=ANN))
    await asyncio.sleep(60)
    try:
        continue_as_new()
    except CannotContinueError as error:
        task.cancel()
        return str(error)


@workflow
async def continuing_after_requests(number: int = 1) -> int:
    outcome = await request_approval(f"Refund order {number}", approvers=ANN)
    assert isinstance(outcome, Approved)
    return number if number == 2 else continue_as_new(number + 1)


async def test_an_open_request_is_not_lost_by_continuing(office: Any) -> None:
    async with office.open():
        run = await office.engine.start(continuing_with_open_request)
        await office.settle()
        await office.clock.advance("1m")
        assert await run.return_value() == (
            "continue_as_new(): the request 'Refund order 1' can't move to the next run; await the outcome before "
            "continue_as_new(), or cancel the task that awaits it."
        )


async def test_each_run_of_a_chain_has_its_own_requests(office: Any) -> None:
    async with office.open():
        run = await office.engine.start(continuing_after_requests)
        await office.settle()
        (first,) = await views(office, run)
        assert await vote(office, first, ANN) == "decided"
        following = office.engine.get_run(await office.engine.last(run.id))
        assert following.id != run.id
        (second,) = await views(office, following)
        assert (second.title, second.is_open) == ("Refund order 2", True)
        assert [one.state for one in await views(office, run)] == ["approved"]
        assert await vote(office, second, ANN) == "decided"
        assert await run.return_value() == 2
