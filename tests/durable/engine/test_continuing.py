"""`continue_as_new`: a run ends, and another goes on in its place with what is open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from approvals_bot import (
    AlreadyResetError,
    CannotContinueError,
    HookConflictError,
    HookNotFoundError,
    IdempotencyConflictError,
    RunFailedError,
    WebhookRequest,
    continue_as_new,
    create_hook,
    create_webhook,
    get_workflow_metadata,
    run_child,
    sleep,
    step,
    workflow,
)
from approvals_bot.durable.engine.batch import LogIndex
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

DONE: list[str] = []


@step
async def carry_note(text: str) -> str:
    DONE.append(text)
    return text


@workflow
async def carry_counter(number: int, until: int) -> int:
    if number < until:
        continue_as_new(number + 1, until)
    return number


@workflow
async def carry_inbox(token: str, taken: list[str], each: int = 2) -> list[str]:
    """Take some payloads, then continue; stop at "stop"."""
    hook = create_hook(token, schema=str, metadata={"taken": len(taken)})
    for _ in range(each):
        payload = await hook
        if payload == "stop":
            return taken
        taken = [*taken, payload]
    return continue_as_new(token, taken, each=each)


@workflow
async def carry_finally(first: bool = True) -> str:
    if not first:
        return "second"
    task = asyncio.create_task(sleep_and_note())
    await asyncio.sleep(0)
    try:
        try:
            continue_as_new(first=False)
        except Exception:  # noqa: BLE001
            await carry_note("swallowed")
    finally:
        await carry_note("finally")
        assert not task.done()
    raise AssertionError


async def sleep_and_note() -> None:
    await sleep("1h")
    await carry_note("never")


def types(events: list[Any]) -> list[str]:
    return [event.type for event in events]


async def test_a_run_continues_and_its_value_follows(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_counter, 0, 3, attributes={"team": "a"})
        assert await run.return_value() == 3
        assert await run.status() == "continued"
        events = await run.events()
        assert types(events) == ["run_created", "run_started", "run_continued"]
        row = await engine.record(run.id)
        assert row is not None
        assert (row.next_run, row.has_ended, row.error) == (events[-1].data["next"], True, None)
        last = await run.wait(5)
        assert (last.status, last.id) == ("completed", await engine.last(run.id))
        assert last.attributes == {"team": "a"}
        created = (await engine.events(last.id))[0].data
        assert created["continues"]["first"] == run.id
        assert len((await engine.records("carry_counter", attributes={"team": "a"})).records) == 4


async def test_open_hooks_keep_ids_tokens_and_unread_payloads(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_inbox, "carry-in", [])
        await engine.settle()
        before = await engine.get_hook_by_token("carry-in")
        for n in range(5):
            await engine.resume_hook("carry-in", f"{n}", resume_id=f"id {n}")
        await engine.settle()
        after = await engine.get_hook_by_token("carry-in")
        assert (after.hook_id, after.token) == (before.hook_id, "carry-in")
        assert after.run_id == await engine.last(run.id) != run.id
        assert after.metadata == {"taken": 4}
        for n in range(5):
            again = await engine.resume_hook("carry-in", f"{n}", resume_id=f"id {n}")
            assert again.hook_id == before.hook_id
        with pytest.raises(IdempotencyConflictError):
            await engine.resume_hook("carry-in", "other", resume_id="id 0")
    async with open_engine() as engine:
        await engine.resume_hook("carry-in", "stop")
        assert await engine.get_run(run.id).return_value() == [f"{n}" for n in range(5)]
        again = await engine.resume_hook("carry-in", "0", resume_id="id 0")
        assert again.hook_id == before.hook_id
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("carry-in", "late")


async def test_a_burst_of_payloads_is_taken_once_and_in_order(open_engine: OpenEngine) -> None:
    async with open_engine() as one, open_engine() as two:
        run = await one.start(carry_inbox, "carry-burst", [], 3)
        await one.settle()
        for n in range(40):
            await (one, two)[n % 2].resume_hook("carry-burst", f"{n}")
        await two.resume_hook("carry-burst", "stop")
        assert await one.get_run(run.id).return_value() == [f"{n}" for n in range(40)]


async def test_the_end_runs_finally_and_drops_tasks(open_engine: OpenEngine, clock: FakeClock) -> None:
    DONE.clear()
    async with open_engine() as engine:
        run = await engine.start(carry_finally)
        assert await run.return_value() == "second"
        await clock.advance("2h")
        assert DONE == ["finally"]
        assert types(await run.events())[-1] == "run_continued"


async def test_the_idempotency_key_moves(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_inbox, "carry-key", [], idempotency_key="k")
        for payload in ("a", "b", "c"):
            await engine.settle()
            await engine.resume_hook("carry-key", payload)
        await engine.settle()
        again = await engine.start(carry_inbox, "carry-key", [], idempotency_key="k")
        assert (again.id, again.is_new) == (await engine.last(run.id), False)
        with pytest.raises(IdempotencyConflictError):
            await engine.start(carry_inbox, "other", [], idempotency_key="k")


@workflow
async def carry_webhook(token: str | None = None) -> str:
    if token is None:
        webhook = create_webhook(respond_with="manual", metadata={"a": 1})
        continue_as_new(webhook.token)
    request: WebhookRequest = await create_hook(token)
    await request.respond_with(carry_answer())
    return await request.text()


def carry_answer(text: str = "thanks", status: int = 201) -> Any:
    from starlette.responses import Response

    return Response(text, status)


async def test_a_webhook_moves_as_the_webhook_it_is(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_webhook)
        await engine.settle()
        (created,) = [e for e in await run.events() if e.type == "hook_created"]
        answer = await engine.resume_webhook(
            created.data["token"], WebhookRequest("POST", "https://x.test/", [], b"hello"), resume_id="1"
        )
        assert (answer.status_code, answer.body) == (201, b"thanks")
        assert await run.return_value() == "hello"


async def test_a_hook_created_last_moves_too(open_engine: OpenEngine) -> None:
    """Whether it has got its token is known only once it is recorded."""
    async with open_engine() as engine:
        run = await engine.start(carry_last, "carry-last")
        other = await engine.start(carry_last, "carry-last", "loser")
        await engine.settle()
        await engine.resume_hook("carry-last", "x")
        assert await run.return_value() == "x"
        with pytest.raises(RunFailedError) as failed:
            await other.return_value()
        assert failed.value.cause_type == "HookConflictError"


@workflow
async def carry_last(token: str, name: str = "winner", is_next: bool = False) -> Any:
    hook = create_hook(token)
    if not is_next:
        continue_as_new(token, name, is_next=True)
    return await hook


@workflow
async def carry_in_task() -> None:
    async def inner() -> None:
        continue_as_new()

    await asyncio.gather(inner())


@workflow
async def carry_in_group(first: bool = True) -> str:
    if first:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleep_and_note())
            continue_as_new(first=False)
    return "next"


@workflow
async def carry_swallowed(first: bool = True) -> str:
    if first:
        try:
            continue_as_new(first=False)
        except BaseException:  # noqa: BLE001
            await carry_note("went on")
    return "next" if not first else "first"


@workflow
async def carry_bad_input(number: int) -> None:
    continue_as_new("seven")


async def test_only_the_body_itself_continues(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_in_task)
        with pytest.raises(RunFailedError) as failed:
            await run.return_value()
        assert isinstance(failed.value.__cause__, CannotContinueError)
        assert await (await engine.start(carry_in_group)).return_value() == "next"
        assert await (await engine.start(carry_swallowed)).return_value() == "next"
        bad = await engine.start(carry_bad_input, 1)
        with pytest.raises(RunFailedError) as failed:
            await bad.return_value()
        assert failed.value.cause_type == "InvalidPayloadError"


async def test_a_run_that_was_continued_cannot_be_attempted(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_inbox, "carry-attempt", [], 1)
        await engine.settle()
        await engine.resume_hook("carry-attempt", "a")
        await engine.settle()
        with pytest.raises(AlreadyResetError) as refused:
            await engine.attempt(run.id)
        assert refused.value.next_run == await engine.last(run.id)
        with pytest.raises(AlreadyResetError):
            await engine.reset(run.id, to=2)
        reset = await engine.reset(await engine.last(run.id), to=1)
        assert await engine.last(run.id) == reset.id
        await engine.resume_hook("carry-attempt", "stop")
        assert await run.return_value() == ["a"], "the value follows both"


class Old(BaseModel):
    text: str


@workflow
async def carry_unread(token: str, schema_now: bool = False) -> str:
    """Leave a payload unread, for a body with a schema that it doesn't fit."""
    if not schema_now:
        create_hook(token)
        await sleep("1h")
        continue_as_new(token, True)
    return (await create_hook(token, schema=Old)).text


async def test_a_hook_that_nobody_adopts_ends_with_its_run(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_hook_leaver)
        await engine.settle()
        assert (await engine.get_hook_by_token("carry-left")).run_id == await engine.last(run.id)
        with pytest.raises(HookConflictError):
            await engine.start("carry_hook_leaver", hook_token="carry-left")
        await engine.resume_hook("carry-go", 1)
        assert await run.return_value() == "done"
        with pytest.raises(HookNotFoundError):
            await engine.get_hook_by_token("carry-left")


@workflow
async def carry_hook_leaver(first: bool = True) -> str:
    if first:
        create_hook("carry-left")
        continue_as_new(first=False)
    await create_hook("carry-go")
    return "done"


async def test_the_next_run_knows_its_id(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_ids, [])
        ids = await run.return_value()
        assert ids == [run.id, await engine.last(run.id)]


@workflow
async def carry_ids(ids: list[str]) -> list[str]:
    ids = [*ids, get_workflow_metadata().run_id]
    if len(ids) < 2:
        continue_as_new(ids)
    return ids


async def test_a_long_chain_stays_flat(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_counter, 0, 120)
        assert await run.return_value() == 120
        row, log = await engine.read(await engine.last(run.id))
        created = log[0].data
        assert (row.seq, created["sent"], created["continues"]["first"]) == (3, {"input": log_input(0)}, run.id)
        assert len(engine.scheduler.cache._runs) == 0


def log_input(number: int) -> dict[str, Any]:
    return carry_counter.signature.encode_call((number, 120), {})


async def test_a_run_that_continues_for_ever_stops_at_cancel(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_for_ever)
        while await engine.last(run.id) == run.id:
            await asyncio.sleep(0.01)
        await run.cancel("enough")
        await asyncio.wait_for(run.wait(None), 60)
        last = await engine.last(run.id)
        assert await engine.get_run(last).status() == "cancelled"
        await asyncio.sleep(0.1)
        assert await engine.last(run.id) == last, "nothing goes on"


@workflow
async def carry_for_ever(number: int = 0) -> None:
    await carry_pause()
    continue_as_new(number + 1)


@step
async def carry_pause() -> None:
    await asyncio.sleep(0.005)


async def test_waking_and_waiting_follow(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_sleeps)
        await engine.settle()
        assert await run.wake_up() == 1
        assert await engine.last(run.id) != run.id
        record = await run.wait(10)
        assert (record.status, record.result) == ("completed", "slept")


@workflow
async def carry_sleeps(first: bool = True) -> str:
    if first:
        continue_as_new(first=False)
    await sleep("1h")
    return "slept"


async def test_open_children_move(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_parent)
        await engine.settle()
        last = await engine.last(run.id)
        assert last != run.id
        (child,) = (await engine.records("carry_child")).records
        assert child.parent is not None
        assert (child.parent.run_id, child.status) == (last, "running")
        assert LogIndex(await engine.events(last)).children == {-1: child.id}, "whom its end wakes at once"
        await engine.resume_hook("carry-parent", 1)
        assert await run.return_value() == "parent"
        async with asyncio.timeout(60):  # its parent has ended now
            while await engine.get_run(child.id).status() != "cancelled":
                await asyncio.sleep(0.01)


async def test_a_child_that_moved_may_end_first(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_parent)
        await engine.settle()
        (child,) = (await engine.records("carry_child")).records
        await engine.resume_hook("carry-child", "done")
        assert await engine.get_run(child.id).return_value() == "done"
        await engine.settle()
        await engine.resume_hook("carry-parent", 1)
        assert await run.return_value() == "parent"


async def test_a_child_may_continue(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_waits_for_chain)
        assert await run.return_value() == 3


@workflow
async def carry_child() -> str:
    return str(await create_hook("carry-child"))


@workflow
async def carry_parent(first: bool = True) -> str:
    if first:
        task = asyncio.ensure_future(run_child(carry_child))
        await carry_note("child started")
        assert not task.done()
        continue_as_new(first=False)
    await create_hook("carry-parent")
    return "parent"


@workflow
async def carry_waits_for_chain() -> int:
    return await run_child(carry_counter, 0, 3)


@workflow
async def carry_answers_later(token: str | None = None) -> str:
    if token is None:
        webhook = create_webhook(respond_with="manual")
        await create_hook("carry-go-on")
        continue_as_new(webhook.token)
    request: WebhookRequest = await create_hook(token)
    await request.respond_with(carry_answer())
    return await request.text()


async def test_the_next_run_answers_a_caller_who_waits(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_answers_later)
        await engine.settle()
        token = next(e.data["token"] for e in await run.events() if e.type == "hook_created" and "answer" in e.data)
        request = WebhookRequest("POST", "https://x.test/", [], b"unread")
        calling = asyncio.ensure_future(engine.resume_webhook(token, request, timeout=20))
        while not any(e.type == "hook_received" for e in await run.events()):
            await asyncio.sleep(0.01)
        await engine.resume_hook("carry-go-on", 1)
        assert (await calling).status_code == 201
        assert await run.return_value() == "unread"


GATES: dict[str, asyncio.Event] = {}


@step
async def carry_gate(name: str) -> None:
    await GATES[name].wait()


@workflow
async def carry_child_goes_on(first: bool = True) -> str:
    if first:
        await carry_gate("child")
        continue_as_new(first=False)
    return "the child went on"


@workflow
async def carry_parent_to_reset() -> str:
    return await run_child(carry_child_goes_on)


async def test_a_child_continues_for_the_parent_it_has_now(open_engine: OpenEngine) -> None:
    """The parent is reset while the child is at work: the child's next run must report to the new parent."""
    GATES["child"] = asyncio.Event()
    async with open_engine() as engine:
        run = await engine.start(carry_parent_to_reset)
        await engine.settle()
        (started,) = [event for event in await run.events() if event.type == "child_started"]
        parent = await engine.reset(run.id, to=started.seq)
        GATES["child"].set()
        async with asyncio.timeout(60):
            assert await parent.return_value() == "the child went on"
        child = await engine.record(await engine.last(started.data["run_id"]))
        assert child is not None
        assert child.parent is not None
        assert child.parent.run_id == parent.id


@workflow
async def carry_answers_in_turn(token: str | None = None) -> str:
    webhook = create_webhook(respond_with="manual") if token is None else create_hook(token)
    request: WebhookRequest = await webhook
    await request.respond_with(carry_answer(f"{await request.text()} to you", 200))
    if token is None:
        continue_as_new(webhook.token)
    return "answered twice"


async def test_a_repeat_gets_its_own_answer_after_the_chain(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(carry_answers_in_turn)
        await engine.settle()
        (token,) = [event.data["token"] for event in await run.events() if event.type == "hook_created"]

        async def post(text: str) -> bytes:
            request = WebhookRequest("POST", "https://x.test/", [], text.encode())
            return bytes((await engine.resume_webhook(token, request, timeout=20, resume_id=text)).body)

        assert [await post("hello"), await post("goodbye")] == [b"hello to you", b"goodbye to you"]
        assert await run.return_value() == "answered twice"
        assert [await post("hello"), await post("goodbye")] == [b"hello to you", b"goodbye to you"]


async def test_a_chain_that_was_reset_continues_again(open_engine: OpenEngine) -> None:
    """Its hook has taken the same payloads before, in the runs of the first time."""
    async with open_engine() as engine:
        run = await engine.start(carry_inbox, "carry-again", [])
        await engine.settle()
        for text in ("0", "1", "stop"):
            await engine.resume_hook("carry-again", text, resume_id=text)
        assert await run.return_value() == ["0", "1"]
        again = await engine.reset(run.id, to=1)
        await engine.settle()
        assert await again.status() == "running", "its body has created no hook in the first event, so none has moved"
        for text in ("0", "1"):
            await engine.resume_hook("carry-again", text)
        (hook,) = [event for event in await run.events() if event.type == "hook_created"]
        await engine.resume_hook("carry-again", "stop")
        assert await again.return_value() == ["0", "1"]
        once_more = await engine.reset(run.id, to=hook.seq)
        await engine.settle()
        await engine.resume_hook("carry-again", "stop")
        assert await once_more.return_value() == ["0", "1"]


@workflow
async def continuing_within_its_hook(taken: list[str]) -> list[str]:
    async with create_hook("continuing/within", schema=str) as hook:
        taken.append(await hook)
        if taken[-1] != "last":
            continue_as_new(taken)
    return taken


async def test_a_hook_of_async_with_moves_with_its_payloads(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(continuing_within_its_hook, [], hook_token="continuing/within")
        for payload in ("a", "b", "last"):
            await engine.resume_hook("continuing/within", payload)
        assert await run.return_value() == ["a", "b", "last"]
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("continuing/within", "too late")
