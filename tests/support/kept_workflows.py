"""Workflows whose recorded runs must always replay (tests/histories). Never change one: add another instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from approvals_bot import (
    FatalError,
    HookConflictError,
    StepFailedError,
    create_hook,
    create_webhook,
    define_hook,
    get_step_metadata,
    get_workflow_metadata,
    now,
    publish,
    random,
    sleep,
    step,
    uuid4,
    workflow,
)
from approvals_bot.durable.core.api import Answer


@dataclass(frozen=True)
class Order:
    number: int
    amount: Decimal
    at: datetime


@dataclass(frozen=True)
class Vote:
    by: str
    approved: bool = True


@step(retry_delay="5s")
async def charge(order: Order) -> str:
    if order.number == 13:
        raise FatalError("nobody pays for number 13")
    if get_step_metadata().attempt < 3:
        raise ValueError("the bank is busy")
    return f"receipt of {order.amount}"


@step
async def tell(whom: str, what: Any = None) -> str:
    return f"told {whom}"


@step
def refund(receipt: str) -> None: ...


@workflow(name="kept order", version="1")
async def order(given: Order) -> dict[str, Any]:
    """Retries, a plain `def` step, a failure that is caught, and compensation."""
    try:
        receipt = await charge(given)
    except StepFailedError as error:
        return {"failed": error.cause_message, "told": await tell("ops", str(error))}
    await sleep(given.at)
    await refund(receipt)
    return {"receipt": receipt, "due": given.at + timedelta(days=1)}


@workflow(name="kept crowd")
async def crowd(people: list[str]) -> list[Any]:
    """Many at once: gather, TaskGroup, wait, as_completed, a semaphore, a queue."""
    limit, queue, told = asyncio.Semaphore(2), asyncio.Queue[str](), list[Any]()

    async def one(person: str) -> None:
        async with limit:
            await queue.put(await tell(person, str(uuid4())))

    async with asyncio.TaskGroup() as group:
        for person in people:
            group.create_task(one(person))
    told += [queue.get_nowait() for _ in people]
    told += await asyncio.gather(*(tell(person, random().randint(1, 6)) for person in people))
    for first in asyncio.as_completed([tell(person) for person in people]):
        told.append(await first)
    slow = asyncio.create_task(sleep("1 day"))
    done, _ = await asyncio.wait({slow, asyncio.create_task(sleep("1h"))}, return_when=asyncio.FIRST_COMPLETED)
    slow.cancel()
    return [*told, len(done), now().isoformat()]


@workflow(name="kept group that fails")
async def failing_group(people: list[str]) -> list[str]:
    """A TaskGroup that is torn down: tasks that waited compensate, always in the same order."""
    undone: list[str] = []

    async def one(person: str) -> None:
        try:
            await create_hook(token=f"{get_workflow_metadata().run_id}-{person}")
        except asyncio.CancelledError:
            undone.append(person)
            raise

    async def fails() -> None:
        await sleep("10m")
        raise ValueError("too late")

    try:
        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(one(person))
            group.create_task(fails())
    except ExceptionGroup as errors:
        undone += [str(error) for error in errors.exceptions]
    return [await tell(person) for person in undone]


votes = define_hook(schema=Vote)


@workflow(name="kept votes")
async def poll(token: str, need: int) -> list[str]:
    """Two of many, with reminders and a deadline; payloads that come late, and one too many."""
    counted: list[str] = []
    async with votes.create(token=token, metadata={"need": need}) as hook:
        with suppress(TimeoutError):
            async with asyncio.timeout(3 * 24 * 3600):
                while len(counted) < need:
                    try:
                        vote = await asyncio.wait_for(_take(hook), 24 * 3600)
                    except TimeoutError:
                        await tell("everybody", f"{len(counted)} of {need}")
                        continue
                    counted.append(vote.by)
                    publish({"counted": counted})
    return counted


async def _take(hook: Any) -> Any:
    return await hook


@workflow(name="kept hooks")
async def hooks(token: str) -> list[Any]:
    """All payloads, until one says done; then the same token again at once; and a token that is taken."""
    hook, seen = create_hook(token=token), list[Any]()
    async for payload in hook:
        seen.append(payload)
        if payload == "done":
            break
    hook.dispose()
    again = create_hook(token=token)
    taken = create_hook(token=token)
    try:
        await taken
    except HookConflictError as error:
        seen.append(f"conflict on {error.token}")
    seen.append(await again.conflict() is None)
    return [*seen, await again]


@workflow(name="kept webhook")
async def webhook() -> str:
    """Answers its callers itself, until one posts the right word."""
    hook = create_webhook(respond_with="manual", metadata={"asks": "the word"})
    publish({"url": hook.url})
    await tell("somebody", hook.url)
    async for request in hook:
        word = await request.text()
        await request.respond_with(Answer(f"{word!r}: {'right' if word == 'please' else 'wrong'}"))
        if word == "please":
            return word
    return ""


@workflow(name="kept generator")
async def generator(days: int) -> list[int]:
    """Async generators and context managers, cancelled and shielded waits."""

    async def ticks() -> AsyncIterator[int]:
        try:
            for day in range(days):
                await sleep("1 day")
                yield day
        finally:
            await tell("the clock", "stop")

    seen = []
    async for day in ticks():
        seen.append(day)
        if day == 2:
            break
    lasting = asyncio.create_task(sleep("1h"))
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(lasting), 60)
    await lasting
    return seen


@workflow(name="kept ends")
async def ends(how: str) -> str:
    """Every way to end but by a result."""
    await tell("somebody", how)
    match how:
        case "raises":
            raise ValueError("nothing there")
        case "cancels itself":
            raise asyncio.CancelledError("second thoughts")
        case "leaves things open":
            create_hook(token="open")
            asyncio.get_running_loop().call_later(3600, print)
        case _:
            await create_hook()
    return how
