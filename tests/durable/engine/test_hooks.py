"""Hooks on a real engine and a real file."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, Field

from approvals_bot import (
    HookConflictError,
    HookDisposedError,
    HookNotFoundError,
    IdempotencyConflictError,
    InvalidPayloadError,
    NotInWorkflowError,
    RunFailedError,
    SerializationError,
    create_hook,
    define_hook,
    sleep,
    step,
    workflow,
)
from approvals_bot.durable.core.replay import replay
from approvals_bot.durable.engine import Engine
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine


@step
async def note(text: str) -> str:
    return text


async def types(engine: Engine, run_id: str) -> list[str]:
    return [event.type for event in await engine.events(run_id)]


@pytest.mark.conformance(1)
async def test_all_payloads_arrive_in_order_and_metadata_is_readable(open_engine: OpenEngine) -> None:
    @workflow
    async def takes_all() -> list[Any]:
        taken = []
        async for payload in create_hook(token="t", metadata={"customData": "a"}):
            taken.append(payload)
            if payload["done"]:
                break
        return taken

    async with open_engine() as engine:
        run = await engine.start(takes_all)
        await engine.settle()
        assert (await engine.get_hook_by_token("t")).metadata == {"customData": "a"}
        payloads = [{"n": 1, "done": False}, {"n": 2, "done": False}, {"n": 3, "done": True}]
        for payload in payloads:
            await engine.resume_hook("t", payload)
        assert await run.return_value() == payloads


@pytest.mark.conformance(2)
async def test_an_unknown_token_is_not_found(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        with pytest.raises(HookNotFoundError, match="not found"):
            await engine.resume_hook("invalid", 1)


@pytest.mark.conformance(3, 5)
async def test_generated_tokens_are_long_and_distinct(open_engine: OpenEngine) -> None:
    @workflow
    async def generates() -> list[str]:
        return [create_hook().token, create_hook(token=None).token]

    async with open_engine() as engine:
        tokens = [t for _ in range(3) for t in await (await engine.start(generates)).return_value()]
    assert len(set(tokens)) == 6
    assert all(len(token) >= 40 for token in tokens)


@pytest.mark.conformance(4)
async def test_an_empty_token_raises_at_once_and_registers_nothing(open_engine: OpenEngine) -> None:
    @workflow
    async def empty() -> None:
        create_hook(token="")

    async with open_engine() as engine:
        run = await engine.start(empty)
        with pytest.raises(RunFailedError, match="not empty"):
            await run.return_value()
        assert "hook_created" not in await types(engine, run.id)


@pytest.mark.conformance(6)
async def test_a_hook_never_awaited_is_logged_and_freed_at_the_end(
    open_engine: OpenEngine,
) -> None:
    @workflow
    async def creates() -> str:
        return create_hook(token="t").token

    async with open_engine() as engine:
        run = await engine.start(creates)
        assert await run.return_value() == "t"
        assert "hook_created" in await types(engine, run.id)
        with pytest.raises(HookNotFoundError):
            await engine.get_hook_by_token("t")


@pytest.mark.conformance(7)
async def test_a_hook_is_open_before_the_step_that_announces_it_runs(open_engine: OpenEngine) -> None:
    found = []

    @step
    async def mail(token: str) -> None:
        found.append(await engine.get_hook_by_token(token))

    @workflow
    async def mails() -> Any:
        hook = create_hook()
        await mail(hook.token)
        return await hook

    async with open_engine() as engine:
        run = await engine.start(mails)
        await engine.settle()
        log = await types(engine, run.id)
    assert len(found) == 1
    assert log.index("hook_created") < log.index("step_created")


@pytest.mark.conformance(8)
async def test_hooks_are_created_only_in_a_workflows_body(open_engine: OpenEngine) -> None:
    with pytest.raises(NotInWorkflowError, match="outside a workflow"):
        create_hook()

    @step(retries=0)
    async def creates() -> None:
        create_hook()

    @workflow
    async def through_a_step() -> None:
        await creates()

    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match="inside a step"):
            await (await engine.start(through_a_step)).return_value()


@pytest.mark.conformance(9, 10)
async def test_payloads_that_arrive_during_a_step_are_taken_in_order(open_engine: OpenEngine) -> None:
    may_end = asyncio.Event()

    @step
    async def slow() -> None:
        await may_end.wait()

    @workflow
    async def busy() -> list[Any]:
        hook = create_hook(token="t")
        await slow()
        return [await hook, await hook, await hook]

    async with open_engine() as engine:
        run = await engine.start(busy)
        while "step_started" not in await types(engine, run.id):
            await asyncio.sleep(0)
        for payload in ("p1", "p2", "p3"):
            await engine.resume_hook("t", payload)
        may_end.set()
        assert await run.return_value() == ["p1", "p2", "p3"]


@pytest.mark.conformance(11)
async def test_a_surplus_payload_is_ignored(open_engine: OpenEngine) -> None:
    may_end = asyncio.Event()

    @step
    async def slow() -> None:
        await may_end.wait()

    @workflow
    async def takes_one() -> Any:
        hook = create_hook(token="t")
        await slow()
        return await hook

    async with open_engine() as engine:
        run = await engine.start(takes_one)
        await opened(engine, "t")
        for payload in ("first", "surplus"):
            await engine.resume_hook("t", payload)
        may_end.set()
        assert await run.return_value() == "first"
        assert (await types(engine, run.id)).count("hook_received") == 2
        assert replay(takes_one, (await run.events())[:-1], link=str).ended, "no divergence"


@pytest.mark.conformance(12)
async def test_each_await_takes_another_payload(open_engine: OpenEngine) -> None:
    @workflow
    async def twice() -> list[Any]:
        hook = create_hook(token="t")
        return [await hook, await hook]

    async with open_engine() as engine:
        run = await engine.start(twice)
        await engine.settle()
        await engine.resume_hook("t", 1)
        await engine.settle()
        await engine.resume_hook("t", 2)
        assert await run.return_value() == [1, 2]


@pytest.mark.conformance(13)
async def test_one_payload_is_one_answer_of_a_hook_gathered_twice(open_engine: OpenEngine) -> None:
    @workflow
    async def four_eyes() -> list[Any]:
        hook = create_hook(token="t")
        return list(await asyncio.gather(hook, hook))

    async with open_engine() as engine:
        run = await engine.start(four_eyes)
        await engine.settle()
        await engine.resume_hook("t", "a")
        await engine.settle()
        assert await run.status() == "running"
        await engine.resume_hook("t", "b")
        assert await run.return_value() == ["a", "b"]


@pytest.mark.conformance(14)
@pytest.mark.parametrize("payload", [None, False, 0, "", [], {}])
async def test_empty_values_are_payloads(open_engine: OpenEngine, payload: Any) -> None:
    @workflow
    async def takes() -> list[Any]:
        return [await create_hook(token="t")]

    async with open_engine() as engine:
        run = await engine.start(takes)
        await engine.settle()
        await engine.resume_hook("t", payload)
        assert await run.return_value() == [payload]


@pytest.mark.conformance(16)
async def test_two_hooks_each_get_their_own_payload(open_engine: OpenEngine) -> None:
    @workflow
    async def two() -> list[Any]:
        order: list[Any] = []

        async def take(token: str) -> None:
            order.append([token, await create_hook(token=token)])

        await asyncio.gather(take("a"), take("b"))
        return order

    async with open_engine() as engine:
        run = await engine.start(two)
        await engine.settle()
        await engine.resume_hook("b", "for b")
        await engine.resume_hook("a", "for a")
        assert await run.return_value() == [["b", "for b"], ["a", "for a"]]


@workflow(name="holds a token")
async def holds(token: str) -> Any:
    return await create_hook(token=token)


@pytest.mark.conformance(17, 19)
async def test_the_second_creator_fails_naming_the_unharmed_owner(open_engine: OpenEngine) -> None:
    @workflow
    async def catches() -> list[str]:
        try:
            await create_hook(token="t")
        except HookConflictError as error:
            return [error.token, error.run_id]
        return []

    async with open_engine() as engine:
        owner = await engine.start(holds, "t")
        await engine.settle()
        with pytest.raises(RunFailedError, match="already in use"):
            await (await engine.start(holds, "t")).return_value()
        assert await (await engine.start(catches)).return_value() == ["t", owner.id]
        await engine.resume_hook("t", "mine")
        assert await owner.return_value() == "mine"


@pytest.mark.conformance(20)
async def test_a_conflict_shows_at_the_first_step_of_an_iteration(open_engine: OpenEngine) -> None:
    @workflow
    async def iterates() -> str:
        try:
            async for _ in create_hook(token="t"):
                return "a payload"
        except HookConflictError as error:
            return error.run_id
        return "no payload"

    async with open_engine() as engine:
        owner = await engine.start(holds, "t")
        await engine.settle()
        assert await (await engine.start(iterates)).return_value() == owner.id


@pytest.mark.conformance(18)
async def test_a_loser_that_continues_is_refused_again_on_iteration_too(open_engine: OpenEngine) -> None:
    @workflow
    async def tries() -> int:
        hook, refused = create_hook(token="t"), 0
        for _ in range(2):
            try:
                await hook
            except HookConflictError:
                refused += 1
        try:
            async for _ in hook:
                pass
        except HookConflictError:
            refused += 1
        return refused

    async with open_engine() as engine:
        await engine.start(holds, "t")
        await engine.settle()
        assert await (await engine.start(tries)).return_value() == 3


@pytest.mark.conformance(21, 23)
async def test_conflict_answers_without_taking_a_payload(open_engine: OpenEngine) -> None:
    may_end = asyncio.Event()

    @step
    async def slow() -> None:
        await may_end.wait()

    @workflow
    async def asks() -> list[Any]:
        hook = create_hook(token="t")
        said = [await hook.conflict(), await hook.conflict()]
        await slow()
        said += [await hook.conflict(), await hook]
        return said

    async with open_engine() as engine:
        run = await engine.start(asks)
        await opened(engine, "t")
        await engine.resume_hook("t", "payload")  # it is there when conflict() is asked again
        may_end.set()
        assert await run.return_value() == [None, None, None, "payload"]


@pytest.mark.conformance(22)
async def test_conflict_returns_the_owner_which_can_be_resumed(open_engine: OpenEngine) -> None:
    @workflow
    async def asks() -> str | None:
        return await create_hook(token="t").conflict()

    async with open_engine() as engine:
        owner = await engine.start(holds, "t")
        await engine.settle()
        found = await (await engine.start(asks)).return_value()
        assert found == owner.id
        await engine.resume_hook("t", "on")
        assert await engine.get_run(found).return_value() == "on"
        other = await engine.start(holds, "t")
        await engine.settle()
        await engine.get_run(await (await engine.start(asks)).return_value() or "").cancel()
        assert (await other.wait(60)).status == "cancelled"


async def test_waiting_for_a_token_does_not_spin(open_engine: OpenEngine) -> None:
    """Once the hook is recorded, the run isn't activated again until something happens."""

    @workflow
    async def asks_then_waits() -> Any:
        hook = create_hook(token="t")
        await hook.conflict()
        return await hook

    async with open_engine() as engine:
        run = await engine.start(asks_then_waits)
        await engine.settle()
        row, _ = await engine.store.read(run.id) or (None, [])
        assert row is not None
        assert (row.epoch, row.wake_at) == (1, None)


@pytest.mark.conformance(24)
async def test_two_live_hooks_of_one_run_with_one_token_conflict(open_engine: OpenEngine) -> None:
    @workflow
    async def greedy() -> str:
        create_hook(token="t")
        try:
            await create_hook(token="t")
        except HookConflictError as error:
            return error.run_id
        return ""

    async with open_engine() as engine:
        run = await engine.start(greedy)
        assert await run.return_value() == run.id


@pytest.mark.conformance(25)
async def test_a_recorded_hook_does_not_conflict_with_itself(open_engine: OpenEngine) -> None:
    """Every activation replays the creation."""

    @workflow
    async def many_turns() -> list[Any]:
        hook = create_hook(token="t")
        return [await note("a"), await hook, await note("b"), await hook]

    async with open_engine() as engine:
        run = await engine.start(many_turns)
        await engine.settle()
    async with open_engine() as engine:
        for payload in (1, 2):
            await engine.settle()
            await engine.resume_hook("t", payload)
        assert await engine.get_run(run.id).return_value() == ["a", 1, "b", 2]
        assert (await types(engine, run.id)).count("hook_created") == 1
        assert "hook_conflict" not in await types(engine, run.id)


@pytest.mark.conformance(26)
async def test_a_token_is_free_after_completion_failure_and_cancellation(open_engine: OpenEngine) -> None:
    @workflow
    async def ends_badly() -> None:
        await create_hook(token="t")
        raise ValueError("bad")

    async with open_engine() as engine:
        for ending in (holds, ends_badly, "cancelled"):
            run = await (engine.start(holds, "t") if ending == "cancelled" else engine.start(ending, *_token(ending)))
            await engine.settle()
            assert (await engine.get_hook_by_token("t")).run_id == run.id
            if ending == "cancelled":
                await run.cancel()
            else:
                await engine.resume_hook("t", 1)
                await engine.settle()
        assert await run.status() == "cancelled"
        again = await engine.start(holds, "t")
        await engine.settle()
        assert (await engine.get_hook_by_token("t")).run_id == again.id


def _token(which: Any) -> list[str]:
    return ["t"] if which is holds else []


@pytest.mark.conformance(27)
async def test_a_disposed_token_is_free_while_its_run_continues(open_engine: OpenEngine) -> None:
    @workflow
    async def lets_go() -> None:
        create_hook(token="t").dispose()
        await sleep("1 day")

    async with open_engine() as engine:
        first = await engine.start(lets_go)
        await engine.settle()
        second = await engine.start(holds, "t")
        await engine.settle()
        await engine.resume_hook("t", "yes")
        assert await second.return_value() == "yes"
        assert await first.status() == "running"


@pytest.mark.conformance(28, 29)
async def test_dispose_is_repeatable_and_ends_a_failing_with_block(open_engine: OpenEngine) -> None:
    @workflow
    async def disposes() -> None:
        try:
            async with create_hook(token="t") as hook:
                raise ValueError("inside")
        except ValueError:
            hook.dispose()
        await sleep("1 day")

    async with open_engine() as engine:
        run = await engine.start(disposes)
        await engine.settle()
        assert (await types(engine, run.id)).count("hook_disposed") == 1


@pytest.mark.conformance(30)
async def test_break_leaves_the_hook_open(open_engine: OpenEngine) -> None:
    @workflow
    async def breaks() -> list[Any]:
        hook = create_hook(token="t")
        async for first in hook:  # noqa: B007  # used below
            break
        await note("meanwhile")
        return [first, await hook]

    async with open_engine() as engine:
        run = await engine.start(breaks)
        await engine.settle()
        await engine.resume_hook("t", 1)
        await engine.settle()
        await engine.resume_hook("t", 2)
        assert await run.return_value() == [1, 2]


@pytest.mark.conformance(31, 34)
async def test_payloads_before_the_disposal_are_delivered_then_it_ends(
    open_engine: OpenEngine,
) -> None:
    @workflow
    async def drains() -> list[Any]:
        hook, gate = create_hook(token="t"), create_hook(token="gate")
        await gate
        hook.dispose()
        taken = [payload async for payload in hook]
        await note("a replay on")
        try:
            await hook
        except HookDisposedError:
            taken.append("disposed")
        return taken

    async with open_engine() as engine:
        run = await engine.start(drains)
        await engine.settle()
        for token, payload in (("t", 1), ("t", 2), ("gate", 0)):
            await engine.resume_hook(token, payload)
        assert await run.return_value() == [1, 2, "disposed"]


@pytest.mark.conformance(32)
async def test_a_token_can_be_disposed_and_created_again_at_once(open_engine: OpenEngine) -> None:
    @workflow
    async def renews() -> Any:
        create_hook(token="t").dispose()
        return await create_hook(token="t")

    async with open_engine() as engine:
        run = await engine.start(renews)
        await engine.settle()
        await engine.resume_hook("t", "to the second")
        assert await run.return_value() == "to the second"
        assert "hook_conflict" not in await types(engine, run.id)


@pytest.mark.conformance(33)
async def test_disposing_raises_in_the_waiting_branch(open_engine: OpenEngine) -> None:
    @workflow
    async def branches() -> str:
        hook = create_hook(token="t")

        async def wait() -> str:
            try:
                return str(await hook)
            except HookDisposedError:
                return "disposed"

        waiting = asyncio.create_task(wait())
        await note("first")
        hook.dispose()
        return await waiting

    async with open_engine() as engine:
        assert await (await engine.start(branches)).return_value() == "disposed"


@pytest.mark.conformance(35, 36)
async def test_a_disposed_hook_and_an_ended_run_take_nothing(open_engine: OpenEngine) -> None:
    @workflow
    async def lets_go() -> None:
        create_hook(token="t").dispose()
        await sleep("1 day")

    async with open_engine() as engine:
        run = await engine.start(lets_go)
        await engine.settle()
        before = await engine.events(run.id)
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("t", 1)
        assert await engine.events(run.id) == before
        ended = await engine.start(holds, "u")
        await engine.settle()
        await engine.resume_hook("u", 1)
        await ended.return_value()
        before = await engine.events(ended.id)
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("u", 2)
        assert await engine.events(ended.id) == before


@pytest.mark.conformance(37)
async def test_disposing_a_conflicted_hook_leaves_the_owners_token_alone(open_engine: OpenEngine) -> None:
    @workflow
    async def loses(breath: bool) -> str:
        hook = create_hook(token="t")
        if not breath:
            await hook.conflict()
        hook.dispose()
        await note("on")
        return "went on"

    async with open_engine() as engine:
        owner = await engine.start(holds, "t")
        await engine.settle()
        for breath in (True, False):
            assert await (await engine.start(loses, breath)).return_value() == "went on"
        await engine.resume_hook("t", "still mine")
        assert await owner.return_value() == "still mine"


@pytest.mark.conformance(38)
async def test_disposing_one_hook_leaves_the_other(open_engine: OpenEngine) -> None:
    @workflow
    async def two() -> Any:
        create_hook(token="a").dispose()
        return await create_hook(token="b")

    async with open_engine() as engine:
        run = await engine.start(two)
        await engine.settle()
        await engine.resume_hook("b", 1)
        assert await run.return_value() == 1


@pytest.mark.conformance(39)
async def test_a_payload_survives_the_death_of_its_process_before_the_wake(
    open_engine: OpenEngine,
) -> None:
    async with open_engine() as engine:
        run = await engine.start(holds, "t")
        await engine.settle()
        hook = await engine.get_hook_by_token("t")
        await engine.store.receive(hook.hook_id, "r", "yes", engine.now())  # written, without a notification
    async with open_engine() as engine:
        assert await engine.get_run(run.id).return_value() == "yes"


@pytest.mark.conformance(41)
async def test_one_resume_id_is_one_payload(open_engine: OpenEngine) -> None:
    @workflow
    async def takes() -> list[Any]:
        hook = create_hook(token="t")
        return [await hook, await hook]

    async with open_engine() as engine:
        run = await engine.start(takes)
        await engine.settle()
        await engine.resume_hook("t", "a", resume_id="1")
        await engine.resume_hook("t", "a", resume_id="1")
        with pytest.raises(IdempotencyConflictError):
            await engine.resume_hook("t", "b", resume_id="1")
        await engine.settle()
        assert (await types(engine, run.id)).count("hook_received") == 1


@pytest.mark.conformance(41)
async def test_a_repeated_resume_is_answered_as_the_first_time_for_good(open_engine: OpenEngine) -> None:
    @workflow
    async def takes() -> Any:
        return await create_hook(token="t")

    @workflow
    async def closes() -> None:
        async with create_hook(token="closed") as hook:
            await hook
        await create_hook(token="more")

    async with open_engine() as engine:
        first, closing = await engine.start(takes), await engine.start(closes)
        await engine.settle()
        info = await engine.resume_hook("t", {"n": 1}, resume_id="1")
        closed = await engine.resume_hook("closed", "yes", resume_id="1")
        assert await first.return_value() == {"n": 1}
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("t", {"n": 1}, resume_id="2")
    async with open_engine() as engine:  # nothing is cached any more
        for _ in range(2):
            again = await engine.resume_hook("t", {"n": 1}, resume_id="1")
            assert (again.hook_id, again.run_id, again.token) == (info.hook_id, first.id, "t")
            with pytest.raises(IdempotencyConflictError) as refused:
                await engine.resume_hook("t", {"n": 1.0}, resume_id="1")
            assert (refused.value.run_id, refused.value.difference) == (first.id, "payload.n was 1, and is now 1.0")
            assert (await engine.resume_hook("closed", "yes", resume_id="1")).hook_id == closed.hook_id
            await engine.start(takes)  # the token's next owner, which is in the cache when the loop comes again
            await engine.settle()
        owner = (await engine.get_hook_by_token("t")).run_id
        assert owner != first.id
        for _ in range(2):
            assert (await engine.resume_hook("t", "for the next run", resume_id="3")).run_id == owner
            await engine.settle()
        assert await engine.get_run(owner).return_value() == "for the next run"
        assert await engine.get_run(closing.id).status() == "running"


@pytest.mark.conformance(41)
async def test_a_repeated_resume_outlives_a_new_default_of_its_schema(open_engine: OpenEngine) -> None:
    class Before(BaseModel):
        text: str

    class After(BaseModel):
        text: str
        colour: str = "red"

    @workflow
    async def takes() -> Any:
        return await create_hook(token="t", schema=schema)

    for schema in (Before, After):
        async with open_engine() as engine:
            if schema is Before:
                run = await engine.start(takes)
                await engine.settle()
            defined = define_hook(schema=schema)
            assert (await defined.resume("t", {"text": "yes"}, resume_id="1")).run_id == run.id
            assert (await defined.resume("t", schema(text="yes"), resume_id="1")).run_id == run.id
            assert (await engine.resume_hook("t", {"text": "yes"}, resume_id="1")).run_id == run.id
            with pytest.raises(IdempotencyConflictError, match=r"payload\.text was 'yes', and is now 'no'"):
                await defined.resume("t", {"text": "no"}, resume_id="1")
            await engine.settle()
    async with open_engine() as engine:
        assert (await types(engine, run.id)).count("hook_received") == 1


@pytest.mark.conformance(42, 43)
async def test_concurrent_resumes_are_each_taken_once(open_engine: OpenEngine) -> None:
    @workflow
    async def counts() -> list[Any]:
        hook = create_hook(token="t")
        return [await hook for _ in range(20)]

    async with open_engine() as engine:
        run = await engine.start(counts)
        await engine.settle()
        await asyncio.gather(*(engine.resume_hook("t", n // 2) for n in range(20)))
        assert sorted(await run.return_value()) == [n // 2 for n in range(20)]


@pytest.mark.conformance(44, 48)
async def test_a_hook_is_found_by_its_token(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(holds, "t")
        await engine.settle()
        found = await engine.get_hook_by_token("t")
        assert (found.run_id, found.token, found.created_at, found.is_webhook) == (run.id, "t", clock.now(), False)
        assert await engine.find_hook(found.hook_id) == found
        await engine.resume_hook(found.token, 1)
        assert await run.return_value() == 1
        with pytest.raises(HookNotFoundError):
            await engine.get_hook_by_token("unknown")


class Answer(BaseModel):
    approved: bool
    comment: str = Field(default="none", max_length=10)


answer_hook = define_hook(schema=Answer)


@workflow(name="takes a typed answer")
async def typed() -> str:
    answer = await answer_hook.create(token="t")
    return f"{type(answer).__name__} {answer.approved} {answer.comment}"


@pytest.mark.conformance(45, 46)
async def test_a_valid_payload_arrives_as_its_type_with_defaults(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(typed)
        await engine.settle()
        with pytest.raises(InvalidPayloadError, match="approved"):
            await answer_hook.resume("t", {"approved": "perhaps"})
        assert "hook_received" not in await types(engine, run.id)
        await answer_hook.resume("t", {"approved": "yes"})
        assert await run.return_value() == "Answer True none"


@pytest.mark.conformance(47)
async def test_the_schema_is_checked_by_resume_hook_too(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(typed)
        await engine.settle()
        with pytest.raises(InvalidPayloadError) as caught:
            await engine.resume_hook("t", {"approved": True, "comment": "x" * 11})
        assert caught.value.errors[0]["loc"] == ["comment"]
        assert "hook_received" not in await types(engine, run.id)
        await engine.resume_hook("t", {"approved": True, "comment": "ok"})
        assert await run.return_value() == "Answer True ok"


@pytest.mark.conformance(51)
@pytest.mark.parametrize("token", ["a/b", "a:b", "100%", "ünï✓", "x" * 500, "with space", "a\x00b"])
async def test_any_text_can_be_a_token(open_engine: OpenEngine, token: str) -> None:
    async with open_engine() as engine:
        run = await engine.start(holds, token)
        await engine.settle()
        await engine.resume_hook(token, "yes")
        assert await run.return_value() == "yes"


@pytest.mark.conformance(52)
async def test_metadata_survives_the_log_or_is_refused(open_engine: OpenEngine) -> None:
    @workflow
    async def describes() -> Any:
        hook = create_hook(token="t", metadata={"at": datetime(2026, 1, 1, tzinfo=UTC), "deep": {"list": [1, "two"]}})
        return await hook

    @workflow
    async def cannot() -> Any:
        try:
            create_hook(metadata={"handlers": [print]})
        except SerializationError as error:
            return error.path
        return ""

    async with open_engine() as engine:
        await engine.start(describes)
        await engine.settle()
        found = await engine.get_hook_by_token("t")
        assert found.metadata == {"at": datetime(2026, 1, 1, tzinfo=UTC), "deep": {"list": [1, "two"]}}
        assert await (await engine.start(cannot)).return_value() == "metadata.handlers[0]"


async def opened(engine: Engine, token: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await engine.get_hook_by_token(token)
                return
            except HookNotFoundError:
                await asyncio.sleep(0.01)


@workflow
async def waits_an_hour_for(token: str) -> Any:
    async with asyncio.timeout(3600):
        return await create_hook(token)


@workflow
async def asks_for_its_token_within_an_hour(token: str) -> Any:
    hook = create_hook(token)
    other = asyncio.create_task(note("beside it"))
    async with asyncio.timeout(3600):
        owner = await hook.conflict()
    other.cancel()
    return owner


async def test_a_body_that_ends_on_its_token_replays_its_other_commands(
    open_engine: OpenEngine,
) -> None:
    async with open_engine() as engine:
        owner = await engine.start(waits_an_hour_for, "taken")
        await opened(engine, "taken")
        async with asyncio.timeout(30):
            with pytest.raises(RunFailedError, match="already in use"):
                await (await engine.start(waits_an_hour_for, "taken")).return_value()
            loser = await engine.start(asks_for_its_token_within_an_hour, "taken")
            assert await loser.return_value() == owner.id
            winner = await engine.start(asks_for_its_token_within_an_hour, "free")
            assert await winner.return_value() is None
        for run in (loser, winner):
            assert replay(asks_for_its_token_within_an_hour, (await run.events())[:-1], link=str).ended
