"""Hooks that a run has from its start: `start(hook_token=…)` and `start_or_resume`."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from approvals_bot import (
    Engine,
    HookConflictError,
    HookNotFoundError,
    IdempotencyConflictError,
    InvalidArgumentError,
    InvalidPayloadError,
    create_hook,
    create_webhook,
    sleep,
    start,
    start_or_resume,
    step,
    workflow,
)
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine


class Push(BaseModel):
    commit: str
    size: int = 0


@workflow
async def token_review(number: int, pushes: int = 1) -> list[Any]:
    hook = create_hook(f"pr-{number}", schema=Push)
    return [(await hook).commit for _ in range(pushes)]


@workflow
async def token_late(token: str) -> list[str | int]:
    """Create the hook only after a step."""
    await token_prepare()
    hook = create_hook(token, schema=Push)
    first, second = await hook, await hook
    return [first.commit, first.size, second.commit, second.size]


@step
async def token_prepare() -> None:
    pass


@workflow
async def token_sleeper(token: str) -> str:
    await sleep("1h")
    hook = create_hook(token, schema=Push)
    return (await hook).commit


@workflow
async def token_other(token: str | None) -> Any:
    return await (create_webhook() if token is None else create_hook(token))


@workflow
async def token_collector(token: str) -> list[int]:
    """Take payloads until one says stop."""
    taken: list[int] = []
    async for each in create_hook(token):
        if each == "stop":
            return taken
        taken.append(each)
    raise AssertionError


def types(events: list[Any]) -> list[str]:
    return [event.type for event in events]


# ── start(hook_token=…) ──


@pytest.mark.conformance(9)
async def test_a_payload_may_come_before_the_body_begins(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start("token_sleeper", "pr-1", hook_token="pr-1")
        info = await engine.resume_hook("pr-1", {"commit": "a1"}, resume_id="x")
        assert (info.run_id, info.token, info.is_webhook) == (run.id, "pr-1", False)
        await engine.settle()
        assert await run.status() == "running"
    async with open_engine() as engine:
        run = engine.get_run(run.id)
        assert await run.wake_up() == 1
        assert await run.return_value() == "a1"
        again = await engine.resume_hook("pr-1", {"commit": "a1"}, resume_id="x")
        assert again.hook_id == info.hook_id, "a repeat is answered as the first"
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("pr-1", {"commit": "a2"})


async def test_a_taken_token_names_its_owner_and_starts_nothing(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        owner = await engine.start("token_review", 2, hook_token="pr-2")
        with pytest.raises(HookConflictError) as conflict:
            await engine.start("token_review", 2, hook_token="pr-2", idempotency_key="k")
        assert (conflict.value.token, conflict.value.run_id) == ("pr-2", owner.id)
        assert len((await engine.records("token_review")).records) == 1
        await engine.resume_hook("pr-2", {"commit": "a"})
        assert await owner.return_value() == ["a"]
        free = await start("token_review", 2, hook_token="pr-2", idempotency_key="k")
        again = await engine.start("token_review", 2, hook_token="pr-2", idempotency_key="k")
        assert (again.id, again.is_new) == (free.id, False), "the key goes before the token"
        with pytest.raises(IdempotencyConflictError, match="hook_token was 'pr-2', and is now 'other'"):
            await engine.start("token_review", 2, hook_token="other", idempotency_key="k")
        with pytest.raises(InvalidArgumentError):
            await engine.start("token_review", 3, hook_token="")


@pytest.mark.parametrize("token", ["another", None])
async def test_a_first_hook_without_the_token_stalls_the_run(open_engine: OpenEngine, token: str | None) -> None:
    async with open_engine() as engine:
        run = await engine.start("token_other", token, hook_token="pr-3")
        await engine.settle()
        row = await engine.record(run.id)
        assert row is not None
        assert row.status == "stalled"
        assert "'pr-3'" in (row.stalled or "")
        assert "hook_token" in (row.stalled or "")
        assert types(await run.events()) == ["run_created"], "nothing of it is written"
        assert (await engine.resume_hook("pr-3", "kept")).run_id == run.id


async def test_payloads_that_fit_are_taken_in_order(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start("token_late", "pr-4", hook_token="pr-4")
        await engine.resume_hook("pr-4", Push(commit="a", size=1))
        await engine.resume_hook("pr-4", {"commit": "b"})
        assert await run.return_value() == ["a", 1, "b", 0]


async def test_a_payload_that_does_not_fit_is_refused_visibly(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start("token_sleeper", "pr-5", hook_token="pr-5")
        await engine.resume_hook("pr-5", {"commit": 7})
        await engine.settle()
        await run.wake_up()
        await engine.settle()
        assert await run.status() == "running", "it waits for one that fits"
        (refused,) = [e for e in await run.events() if e.type == "hook_refused"]
        (received,) = [e for e in await run.events() if e.type == "hook_received"]
        assert refused.data["to"] == received.seq
        assert [each["loc"] for each in refused.data["errors"]] == [["commit"]]
        assert "commit" in str(refused.data["errors"])
        with pytest.raises(InvalidPayloadError):
            await engine.resume_hook("pr-5", {"commit": 8})  # by now its schema is known
    async with open_engine() as engine:
        await engine.resume_hook("pr-5", {"commit": "ok"})
        assert await engine.get_run(run.id).return_value() == "ok"


async def test_a_run_may_end_without_its_hook(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start("token_prepares_only", hook_token="pr-6")
        assert await run.return_value() == "done"
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("pr-6", 1)


@workflow
async def token_prepares_only() -> str:
    await token_prepare()
    return "done"


# ── start_or_resume ──


@pytest.mark.conformance(2)
async def test_the_first_call_starts_and_the_next_resume(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        first = await engine.start_or_resume("pr-7", {"commit": "a"}, token_review, 7, 2, resume_id="1")
        second = await start_or_resume("pr-7", {"commit": "b"}, "token_review", 7, 2, resume_id="2")
        assert first.run_id == second.run_id
        assert first.hook_id == second.hook_id
        assert await engine.get_run(first.run_id).return_value() == ["a", "b"]
        again = await engine.start_or_resume("pr-7", {"commit": "a"}, token_review, 7, 2, resume_id="1")
        assert (again.run_id, again.hook_id, again.token) == (first.run_id, first.hook_id, "pr-7")
        with pytest.raises(IdempotencyConflictError):
            await engine.start_or_resume("pr-7", {"commit": "z"}, token_review, 7, 2, resume_id="1")
        new = await engine.start_or_resume("pr-7", {"commit": "c"}, token_review, 7, pushes=1, resume_id="3")
        assert new.run_id != first.run_id, "its owner has ended"
        assert await engine.get_run(new.run_id).return_value() == ["c"]
        assert len((await engine.records("token_review")).records) == 2


async def test_an_invalid_payload_starts_nothing(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        for payload in ({"commit": 7}, "no object"):
            with pytest.raises(InvalidPayloadError):
                await engine.start_or_resume("pr-8", payload, token_review, 8)
        with pytest.raises(InvalidPayloadError):
            await engine.start_or_resume("pr-8", {"commit": "a"}, token_review, "eight")
        assert (await engine.records("token_review")).records == []
        with pytest.raises(HookNotFoundError):
            await engine.get_hook_by_token("pr-8")


async def test_a_webhooks_token_is_a_conflict(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(token_other, None)
        await engine.settle()
        (created,) = [e for e in await run.events() if e.type == "hook_created"]
        with pytest.raises(HookConflictError):
            await engine.start_or_resume(created.data["token"], 1, token_review, 9)


async def test_many_callers_at_once_are_one_run(open_engine: OpenEngine) -> None:
    """In two processes, each payload twice: one run takes each once."""
    async with open_engine() as one, open_engine() as two:
        engines = (one, two)
        calls = [
            engines[n % 2].start_or_resume("many", n % 50, token_collector, "many", resume_id=f"{n % 50}")
            for n in range(100)
        ]
        done = await asyncio.gather(*calls)
        (run_id,) = {info.run_id for info in done}
        await one.start_or_resume("many", "stop", token_collector, "many")
        taken = await two.get_run(run_id).return_value()
        assert Counter(taken) == Counter(range(50))
        assert len((await one.records("token_collector")).records) == 1


async def test_a_token_whose_owner_ends_meanwhile_starts_a_new_run(open_engine: OpenEngine) -> None:
    """Owners end all the time; nothing is lost or taken twice."""
    async with open_engine() as one, open_engine() as two:
        engines: tuple[Engine, Engine] = (one, two)
        infos = await asyncio.gather(
            *(
                engines[n % 2].start_or_resume("short", {"commit": f"{n}"}, token_once, resume_id=f"{n}")
                for n in range(30)
            )
        )
        taken: list[str] = []
        for run_id in {info.run_id for info in infos}:
            run = one.get_run(run_id)
            payloads = [e.data["payload"]["commit"] for e in await run.events() if e.type == "hook_received"]
            taken += payloads
            assert await run.return_value() in payloads
        assert Counter(taken) == Counter(str(n) for n in range(30))


@workflow
async def token_once() -> str:
    return (await create_hook("short", schema=Push)).commit


async def test_a_started_runs_hook_is_found_by_others(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        info = await engine.start_or_resume("pr-10", {"commit": "a"}, token_sleeper, "pr-10")
        assert (await engine.get_hook_by_token("pr-10")).hook_id == info.hook_id
        await clock.advance("1h")
        assert await engine.get_run(info.run_id).return_value() == "a"


async def test_an_option_of_start_alone_is_named(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        with pytest.raises(InvalidArgumentError, match=r"start_or_resume\(\) has no option attributes"):
            await engine.start_or_resume("t", 1, token_collector, "t", attributes={"team": "red"})
