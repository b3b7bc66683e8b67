"""What a parent's end, cancellation and reset do to its children, and what becomes of children that are replaced."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from approvals_bot import RunCancelledError, RunFailedError, create_hook, now, run_child, sleep, step, workflow
from approvals_bot.durable.engine import Engine, Run
from approvals_bot.durable.store.protocol import RunRecord
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

tidied: list[str] = []


@step
async def tidies_up(token: str) -> None:
    tidied.append(token)


@workflow(name="close: a child that waits")
async def waits_for_one(token: str) -> str:
    try:
        answer: str = await create_hook(token=token)
    except asyncio.CancelledError:
        await tidies_up(token)
        raise
    return answer


@workflow(name="close: a parent of two")
async def has_two(token: str, end: str) -> Any:
    """Start a child that is cancelled with its parent, and one that goes on, then end in this way."""
    stays = asyncio.create_task(run_child(waits_for_one, f"{token}-stays", on_parent_close="abandon"))
    goes = asyncio.create_task(run_child(waits_for_one, f"{token}-goes", attributes={"of": token}))
    await asyncio.sleep(1)
    match end:
        case "completes":
            return "done"
        case "fails":
            raise ValueError("enough")
        case "gives up":
            try:
                async with asyncio.timeout(60):
                    await asyncio.gather(stays, goes)
            except TimeoutError:
                await sleep("1h")
                return "gave up"
        case _:
            return await asyncio.gather(stays, goes)


async def children_of(engine: Engine, run: Run[Any]) -> list[RunRecord]:
    started = [event.data["run_id"] for event in await run.events() if event.type == "child_started"]
    found = [await engine.record(run_id) for run_id in started]
    return [record for record in found if record is not None]


@pytest.mark.parametrize("end", ["completes", "fails", "gives up", "is cancelled"])
async def test_a_child_that_nothing_waits_for_is_cancelled(open_engine: OpenEngine, clock: FakeClock, end: str) -> None:
    tidied.clear()
    async with open_engine() as engine:
        run = await engine.start(has_two, f"two-{end}", end)
        await clock.advance(1)
        if end == "is cancelled":
            await run.cancel("enough")
        await clock.advance("2m")
        stays, goes = await children_of(engine, run)
        assert (stays.status, goes.status) == ("running", "cancelled")
        assert goes.attributes == {"of": f"two-{end}"}
        assert tidied == [f"two-{end}-goes"]
        why = "no longer waits for it" if end == "gives up" else "has ended"
        with pytest.raises(RunCancelledError, match=f"its parent, run {run.id}, {why}"):
            await engine.get_run(goes.id).return_value()
        await engine.resume_hook(f"two-{end}-stays", "late")
        assert await engine.get_run(stays.id).return_value() == "late"
        await clock.advance("2h")
        assert await run.status() == {"fails": "failed", "is cancelled": "cancelled"}.get(end, "completed")


async def test_a_child_asked_for_last_goes_on_if_it_may(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow(name="close: asks for children in its last moment")
    async def asks_last() -> str:
        asyncio.create_task(run_child(waits_for_one, "last-goes"))  # noqa: RUF006  # nothing waits for it
        asyncio.create_task(run_child(waits_for_one, "last-stays", on_parent_close="abandon"))  # noqa: RUF006
        return "done"

    async with open_engine() as engine:
        run = await engine.start(asks_last)
        assert await run.return_value() == "done"
        await clock.advance(1)
        await engine.resume_hook("last-stays", "yes")
        assert [child.attributes for child in await children_of(engine, run)] == [{}]
        assert [event.type for event in await run.events()][-2:] == ["child_started", "run_completed"]


async def test_a_stalled_child_is_cancelled_with_its_parent(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow(name="close: a child with a bug")
    async def has_a_bug() -> None:
        raise AssertionError("a bug")

    @workflow(name="close: a parent of a stalled one")
    async def of_stalled() -> None:
        await run_child(has_a_bug)

    async with open_engine() as engine:
        run = await engine.start(of_stalled)
        await clock.advance(1)
        (child,) = await children_of(engine, run)
        assert (child.status, await run.status()) == ("stalled", "running")
        await run.cancel()
        await clock.advance("2m")
        (child,) = await children_of(engine, run)
        assert (child.status, await run.status()) == ("cancelled", "cancelled")


@workflow(name="close: a parent of one")
async def has_one(token: str) -> list[Any]:
    before = await create_hook(token=f"{token}-before")
    return [before, await run_child(waits_for_one, token), str(now())]


async def test_a_child_that_was_reset_is_followed(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(has_one, "reset-child")
        await engine.resume_hook("reset-child-before", "b")
        await clock.advance(1)
        (child,) = await children_of(engine, run)
        again = await engine.reset(child.id, to=1)
        await clock.advance(1)
        assert await run.status() == "running"
        record = await engine.record(again.id)
        assert record is not None
        assert record.parent is not None
        assert record.parent.run_id == run.id
        await engine.resume_hook("reset-child", "yes")
        assert (await run.return_value())[:2] == ["b", "yes"]
        ended = next(event for event in await run.events() if event.type == "child_ended")
        assert ended.data["run_id"] == again.id


async def test_children_move_when_their_parent_is_reset(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(has_one, "reset-parent")
        await engine.resume_hook("reset-parent-before", "b")
        await clock.advance(1)
        log = await run.events()
        started = next(event for event in log if event.type == "child_started")
        after = await engine.reset(run.id, to=started.seq)
        await clock.advance(1)
        await engine.resume_hook("reset-parent", "yes")
        assert (await after.return_value())[:2] == ["b", "yes"]
        assert await engine.get_run(started.data["run_id"]).status() == "completed"


async def test_children_started_after_the_reset_point_are_cancelled(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(has_one, "reset-before")
        await engine.resume_hook("reset-before-before", "b")
        await clock.advance(1)
        log = await run.events()
        started = next(event for event in log if event.type == "child_started")
        after = await engine.reset(run.id, to=started.seq - 2, drop_payloads=True)
        await clock.advance("2m")
        assert await engine.get_run(started.data["run_id"]).status() == "cancelled"
        await engine.resume_hook("reset-before-before", "again")
        await clock.advance(1)
        await engine.resume_hook("reset-before", "yes")
        assert (await after.return_value())[:2] == ["again", "yes"]


async def test_a_parent_learns_of_an_end_that_came_after_its_own(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow(name="close: fails beside its child")
    async def fails_beside(token: str) -> str:
        child = asyncio.create_task(run_child(waits_for_one, token, on_parent_close="abandon"))
        if await create_hook(token=f"{token}-fail") == "fail":
            raise ValueError("enough")
        return await child

    async with open_engine() as engine:
        run = await engine.start(fails_beside, "late-end")
        await clock.advance(1)
        before = len(await run.events())
        await engine.resume_hook("late-end-fail", "fail")
        with pytest.raises(RunFailedError):
            await run.return_value()
        await engine.resume_hook("late-end", "yes")
        await clock.advance(1)
        after = await engine.reset(run.id, to=before, drop_payloads=True)
        await engine.resume_hook("late-end-fail", "go on")
        assert await after.return_value() == "yes"


async def test_two_engines_work_on_parent_and_children(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as one, open_engine() as other:
        run = await one.start(has_one, "two-engines")
        await other.resume_hook("two-engines-before", "b")
        await clock.advance(1)
        await other.resume_hook("two-engines", "yes")
        assert (await one.get_run(run.id).return_value())[:2] == ["b", "yes"]
        types = [event.type for event in await run.events()]
        assert types.count("child_started") == types.count("child_ended") == 1
