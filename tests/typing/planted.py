"""Uses of the public API for type checkers. Not run: `test_public_api_is_typed` checks what is said about each line.

A line ending in `# E` is a mistake that mypy and pyright flag; `# E: pyright` is one that only pyright flags. No other
line may be flagged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from approvals_bot import Engine, Run, create_hook, create_webhook, define_hook, now, run_child, start, step, workflow
from approvals_bot.client import Approvals, Decision, SyncApprovals, requires_approval


class Reply(BaseModel):
    text: str


@dataclass
class Order:
    id: str


reply = define_hook(schema=Reply)
order = define_hook(Order)
anything = define_hook()


@step
async def charge(order: str, cents: int = 0) -> int:
    return cents


@step(retries=0)
def plain(order: str) -> Order:
    return Order(order)


@workflow
async def two(order: str, n: int) -> str:
    return order * n


@workflow(name="options of its own", version="2")
async def optional(order: str, *, when: datetime | None = None, loud: bool = False) -> int:
    return 3


@workflow
async def none() -> None: ...


async def hooks() -> str:
    got = await reply.create(token="t", metadata={"any": 1})
    got.no_such_attribute  # E
    made = await create_hook(schema=Order)
    made.no_such_attribute  # E
    one, other = await asyncio.gather(reply.create(), order.create())
    one.id  # E
    other.text  # E
    async for each in reply.create():
        each.no_such_attribute  # E
        print(each.text)
    async with create_hook(token="t", schema=Reply) as hook:
        conflict: int = await hook.conflict()  # E
        answer: Order = await hook  # E
        print(conflict, answer)
    untyped = await create_hook(token="t")
    print(untyped["whatever"], await anything.create(), one.text, other.id, made.id, hook.token.upper())
    await reply.resume("t", {"text": "x"}, resume_id=3)  # E
    await reply.create(tokn="t")  # E
    request = await create_webhook(respond_with="manual")
    request.methd  # E
    return got.text + request.method


async def steps() -> None:
    cents: int = await charge("a", cents=3)
    await charge(3)  # E
    await charge("a", dollars=3)  # E
    await charge()  # E
    text: str = await charge("a", 1)  # E
    made: Order = await plain("a")
    number: int = await plain(order=3)  # E
    first, second = await asyncio.gather(charge("a"), plain("b"))
    first.upper()  # E
    second.upper()  # E
    print(cents, text, made, number, now().year)


async def starts(engine: Engine, options: Mapping[str, str]) -> None:
    run: Run[str] = await engine.start(two, "a", 2)
    text: str = await run.return_value()
    text = await (await engine.start(two, "a", n=2)).return_value()
    text = await (await engine.start(two, order="a", n=2, idempotency_key="k")).return_value()
    text = await (await start(two, "a", 2, attributes=options, idempotency_key="k")).return_value()
    number: int = await (await start(optional, "a", loud=True)).return_value()
    await engine.start(optional, "a", attributes={"team": "a"})
    await engine.start(none)
    await engine.start(none, idempotency_key="k", attributes=None)
    text = await (await engine.start(two, "a", 2, at=datetime.now(UTC), idempotency_key="k")).return_value()
    text = await (await start(two, "a", n=2, delay="2 hours", attributes=options)).return_value()
    text = await (await engine.start(two, "a", 2, delay=timedelta(hours=2), hook_token="t")).return_value()
    text = await (await start(two, "a", 2, hook_token="t", at=None)).return_value()
    key = options.get("key")
    text = await (await engine.start(two, "a", 2, idempotency_key=key, delay=None)).return_value()
    text = await (await start(two, "a", 2, idempotency_key=key, attributes=None)).return_value()
    await engine.start("by name", 1, two=2, idempotency_key="k", delay=3)
    await start("by name")
    print(text, number)

    await engine.start(two, 1, 2, 3)  # E
    await engine.start(two, 1, 2)  # E
    await engine.start(two, "a")  # E
    await engine.start(two, order="a", m=2)  # E
    await engine.start(two, "a", 2, idempotency_key=3)  # E
    await engine.start(two, "a", 2, attributes={"a": [3]})  # E
    await engine.start(two, "a", "b", idempotency_key="k")  # E: pyright
    await engine.start(two, "a", attributes={"a": "b"})  # E: pyright
    await engine.start(optional, "a", when="tomorrow")  # E
    await engine.start(none, 3)  # E
    await engine.start(charge, "a")  # E
    await engine.start("by name", idempotency_key=3)  # E
    await engine.start("by name", at="tomorrow")  # E
    await engine.start(two, "a", 2, at="tomorrow")  # E
    await start(two, "a", 2, delay=[3])  # E
    await engine.start(two, "a", 2, hook_token=3)  # E
    await engine.start(two, "a", "b", delay="1h")  # E: pyright
    await start(two, "a", at=datetime.now(UTC))  # E: pyright
    await engine.start(two, 1, 2, hook_token="t")  # E: pyright
    await start(two, 1, 2)  # E
    await start(two, "a", 2, attributes=3)  # E
    wrong: int = await (await start(two, "a", 2)).return_value()  # E
    print(wrong)


async def children() -> None:
    text: str = await run_child(two, "a", 2)
    text = await run_child(two, "a", n=2, on_parent_close="abandon")
    text = await run_child(two, order="a", n=2, attributes={"team": "a", "amount": 3})
    first, second = await asyncio.gather(run_child(two, "a", 2), run_child(optional, "b", loud=True))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_child(optional, "a"))
    number: int = task.result()
    print(text.upper(), first.upper(), second + number)
    await run_child(none)

    await run_child(two, 1, 2)  # E
    await run_child(two, "a")  # E
    await run_child(two, "a", 2, 3)  # E
    await run_child(two, order="a", m=2)  # E
    await run_child(two, "a", 2, on_parent_close="kill")  # E
    await run_child(two, "a", 2, attributes=3)  # E
    await run_child(two, "a", "b", on_parent_close="abandon")  # E: pyright
    await run_child(charge, "a")  # E
    await run_child("by name")  # E
    wrong: int = await run_child(two, "a", 2)  # E
    second.upper()  # E
    print(wrong)


@requires_approval(to="@ops")
def guarded(flight: str, price: float = 1.0) -> int:
    return len(flight)


@requires_approval(to=["@ops"], on_denied="raise", wait=3)
async def guarded_strictly(flight: str) -> int:
    return len(flight)


async def tool_calls() -> None:
    async with Approvals("http://127.0.0.1:8000", "key", wait="1h") as ap:
        decision: Decision = await ap.ask("k", "tool", {"a": 1}, to="@ops", wait=30)
        found = await ap.get("k")
        if isinstance(found, Decision):
            print(found.text, decision.comment)
        elif found is not None:
            decision = await ap.wait(found, "2h")
        await ap.request("k", "tool", {"a": [1]}, why="because")
        await ap.ask("k", "tool", {"a": 1}, until=30)  # E
        await ap.ask("k", "tool")  # E
        await ap.ask("k", "tool", {"a": 1}, wait=[30])  # E
        await ap.request("k", "tool", {"a": 1}, wait=30)  # E
        decision.state = "approved"  # E
    with SyncApprovals() as sync:
        decision = sync.ask("k", "tool", {"a": 1}, to=["@ops"])
        decision.require({"a": 1})
        sync.ask(1, "tool", {"a": 1})  # E
    text: int | str = guarded("LH 441", price=2)
    number: int = await guarded_strictly("LH 441")
    print(text, number)
    guarded(441)  # E
    number = guarded("LH 441")  # E
    await guarded_strictly("LH 441", 3)  # E
