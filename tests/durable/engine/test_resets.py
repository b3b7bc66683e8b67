"""Resets: a new run goes on from any event of another run's log, in its place."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from approvals_bot import (
    AlreadyResetError,
    HookConflictError,
    HookNotFoundError,
    IdempotencyConflictError,
    NondeterminismError,
    NoSuchEventError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    WebhookRequest,
    continue_as_new,
    create_hook,
    create_webhook,
    get_step_metadata,
    get_workflow_metadata,
    random,
    sleep,
    step,
    uuid4,
    workflow,
)
from approvals_bot.durable.core.api import Answer, Workflow
from approvals_bot.durable.core.events import Event, Log, made_in
from approvals_bot.durable.core.replay import replay
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.engine.reset import plan_reset
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine
from tests.support.histories import FOLDER, History, known_workflows, read
from tests.support.kept_workflows import Order, failing_group, generator, hooks, order, poll, votes, webhook

SOON = 30  # seconds; far more than anything here takes


@workflow
async def two_votes(token: str) -> list[Any]:
    hook = create_hook(token)
    return [await noted(await hook), await noted(await hook)]


@step
async def noted(vote: Any) -> Any:
    return vote


def types(log: Log) -> list[str]:
    return [event.type for event in log]


def last_seq(log: Log, type: str) -> int:
    return max(event.seq for event in log if event.type == type)


async def record_of(engine: Engine, run_id: str) -> RunRecord:
    found = await engine.record(run_id)
    assert found is not None
    return found


# ── where the old run and its hooks go ──


async def test_an_open_run_ends_and_its_hooks_go_on(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        old = await engine.start(two_votes, "t", idempotency_key="k", attributes={"team": "a"})
        await engine.settle()
        before = await engine.get_hook_by_token("t")
        await engine.resume_hook("t", "ann")
        await engine.settle()
        waits = asyncio.create_task(old.return_value())
        to = last_seq(await old.events(), "hook_received")

        new = await engine.reset(old.id, to=to)
        after = await engine.get_hook_by_token("t")
        assert (after.hook_id, after.token, after.run_id, after.is_live) == (before.hook_id, "t", new.id, True)
        row = await record_of(engine, old.id)
        assert (row.status, row.next_run, row.has_ended, row.error) == ("reset", new.id, True, None)
        end = (await old.events())[-1]
        assert (end.type, end.data) == ("run_reset", {"next": new.id, "to": to})
        assert (await engine.start(two_votes, "t", idempotency_key="k")).id == new.id
        assert [one.id for one in (await engine.records(attributes={"team": "a"}, is_open=True)).records] == [new.id]

        await engine.resume_hook("t", "bo")
        async with asyncio.timeout(SOON):
            assert await new.return_value() == await waits == await old.return_value() == ["ann", "bo"]
        log = await new.events()
        assert log[0].data["reset_of"] == {"run_id": old.id, "seq": to}
        assert [(e.type, e.at) for e in log[:to]] == [(e.type, e.at) for e in (await old.events())[:to]]


async def test_a_failed_run_keeps_its_status_and_names_the_next(open_engine: OpenEngine) -> None:
    broken = True

    @step(retries=0)
    async def decide(vote: str) -> str:
        if broken:
            raise ValueError("a bad release")
        return f"{vote} counts"

    @workflow
    async def decision() -> str:
        return await decide(await create_hook("d"))

    async with open_engine() as engine:
        old = await engine.start(decision, idempotency_key="k")
        await engine.settle()
        await engine.resume_hook("d", "yes")
        with pytest.raises(RunFailedError):
            await old.return_value()
        to, broken = last_seq(await old.events(), "hook_created"), False
        length = len(await old.events())
        new = await engine.reset(old.id, to=to)
        assert await new.return_value() == "yes counts"  # the answer was given; nobody has to give it again
        row = await record_of(engine, old.id)
        assert (row.status, row.next_run, row.seq) == ("failed", new.id, length)
        with pytest.raises(RunFailedError, match=old.id):
            await old.return_value()
        assert (await engine.start(decision, idempotency_key="k")).id == new.id
        with pytest.raises(HookNotFoundError):
            await engine.get_hook_by_token("d")


async def test_the_end_of_a_run_is_decided_again(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(two_votes, "t")
        await engine.settle()
        await engine.resume_hook("t", "ann")
        await run.cancel("by mistake")
        new = await engine.reset(run.id, to=len(await run.events()))
        await engine.settle()
        await engine.resume_hook("t", "bo")
        assert await new.return_value() == ["ann", "bo"]
        again = await engine.reset(new.id, to=len(await new.events()))
        assert await again.return_value() == ["ann", "bo"]


# ── what people answered ──


async def test_later_answers_are_kept_in_order_unless_dropped(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        first = await engine.start(two_votes, "t")
        await engine.settle()
        to = last_seq(await first.events(), "hook_created")
        for voter in ("ann", "bo"):
            await engine.resume_hook("t", voter, resume_id=voter)
            await engine.settle()
        assert await first.return_value() == ["ann", "bo"]
        kept = await engine.reset(first.id, to=to)
        assert await kept.return_value() == ["ann", "bo"]
        came = [(e.data["payload"], e.at) for e in await first.events() if e.type == "hook_received"]
        assert [(e.data["payload"], e.at) for e in (await kept.events())[to : to + 2]] == came

        dropped = await engine.reset(kept.id, to=to, drop_payloads=True)
        await engine.settle()
        assert await dropped.status() == "running"
        for voter in ("cy", "di"):
            await engine.resume_hook("t", voter, resume_id=voter)
        assert await dropped.return_value() == ["cy", "di"]


async def test_a_repeated_answer_is_recognized_after_a_reset(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        old = await engine.start(two_votes, "t")
        await engine.settle()
        await engine.resume_hook("t", "ann", resume_id="a click")
        await engine.settle()
        new = await engine.reset(old.id, to=3)
        info = await engine.resume_hook("t", "ann", resume_id="a click")
        await engine.resume_hook("t", "bo", resume_id="another")
        assert info.run_id == new.id
        assert await new.return_value() == ["ann", "bo"]


async def test_a_repeated_answer_is_recognized_after_it_was_dropped(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        old = await engine.start(two_votes, "t")
        await engine.settle()
        await engine.resume_hook("t", "ann", resume_id="a click")
        await engine.settle()
        to = last_seq(await old.events(), "hook_created")
        run = await engine.reset(old.id, to=to, drop_payloads=True)
        again = await engine.reset(run.id, to=to, drop_payloads=True)
        info = await engine.resume_hook("t", "ann", resume_id="a click")
        assert info.run_id == old.id
        with pytest.raises(IdempotencyConflictError):
            await engine.resume_hook("t", "bo", resume_id="a click")
        await engine.resume_hook("t", "bo", resume_id="another")
        await engine.resume_hook("t", "cy", resume_id="a third")
        assert await again.return_value() == ["bo", "cy"]
        assert (await engine.resume_hook("t", "ann", resume_id="a click")).run_id == old.id


@workflow(name="reset: continues")
async def takes_and_continues(token: str, votes: list[str]) -> list[str]:
    hook = create_hook(token)
    votes = [*votes, await hook]
    if len(votes) == 3:
        return votes
    return continue_as_new(token, votes)


async def test_a_repeat_is_recognized_after_a_reset_of_an_earlier_run(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        first = await engine.start(takes_and_continues, "t", [])
        await engine.settle()
        for voter in ("ann", "bo", "cy"):
            await engine.resume_hook("t", voter, resume_id=voter)
            await engine.settle()
        assert await first.return_value() == ["ann", "bo", "cy"]
        second = (await engine.events(first.id))[-1].data["next"]
        again = await engine.reset(first.id, to=last_seq(await first.events(), "hook_received"))
        await engine.settle()
        for voter in ("ann", "bo", "cy"):
            await engine.resume_hook("t", voter, resume_id=voter)
            await engine.settle()
        assert (await engine.resume_hook("t", "bo", resume_id="bo")).run_id == second
        assert await engine.get_run(await engine.last(again.id)).status() == "running"
        for voter in ("di", "ed"):
            await engine.resume_hook("t", voter, resume_id=voter)
        assert await again.return_value() == ["ann", "di", "ed"]


async def test_an_answer_before_the_deadline_stays_before_it(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def within_a_day(how: str) -> str:
        hook = create_hook("t")
        try:
            async with asyncio.timeout(24 * 3600):
                return str(await hook)
        except TimeoutError:
            return "too late"

    async with open_engine() as engine:
        in_time = await engine.start(within_a_day, "in time")
        await clock.advance("1h")
        await engine.resume_hook("t", "yes")
        assert await in_time.return_value() == "yes"
        await clock.advance("3 days")
        assert await (await engine.reset(in_time.id, to=4)).return_value() == "yes"

        nobody = await engine.start(within_a_day, "nobody")
        await clock.advance("3 days")
        assert await nobody.return_value() == "too late"
        assert types(await nobody.events())[:4] == ["run_created", "run_started", "hook_created", "wait_created"]
        late = await engine.reset(nobody.id, to=4)
        assert (await late.events())[4].type == "wait_completed"
        assert await late.return_value() == "too late"


async def test_a_reset_copies_no_cancellation(open_engine: OpenEngine) -> None:
    tidied: list[str] = []

    @step
    async def tidy(what: str) -> None:
        tidied.append(what)

    @workflow
    async def tidies_before_its_reset() -> str:
        try:
            return str(await create_hook(token="t"))
        except asyncio.CancelledError:
            await tidy("up")
            raise

    async with open_engine() as engine:
        run = await engine.start(tidies_before_its_reset)
        await engine.settle()
        await run.cancel("by mistake")
        await engine.settle()
        assert await run.status() == "cancelled"
        log = await run.events()
        asked = last_seq(log, "cancel_requested")
        for to in (asked, asked + 2, len(log)):
            new = await engine.reset(run.id, to=to)
            await engine.settle()
            assert types(await new.events())[:asked] == types(log)[: asked - 1]
            await engine.resume_hook("t", "on")
            assert await new.return_value() == "on"
        assert tidied == ["up"]


# ── the copied part fits ──


async def test_ids_and_numbers_of_the_copied_part_stay(open_engine: OpenEngine) -> None:
    ids: list[str] = []

    @step
    async def charge(key: str, number: int) -> str:
        ids.append(get_step_metadata().step_id)
        return f"{key} {number}"

    @workflow
    async def draws(word: str) -> list[Any]:
        key, number = str(uuid4()), random().randint(1, 10**9)
        hook = create_hook(f"{word}-{get_workflow_metadata().run_id}")
        first = await charge(key, number)
        await hook
        return [key, number, first, await charge("second", random().randint(1, 10**9)), get_workflow_metadata().run_id]

    async with open_engine() as engine:
        old = await engine.start(draws, "w")
        await engine.settle()
        token = f"w-{old.id}"
        new = await engine.reset(old.id, to=len(await old.events()))
        assert (await engine.resume_hook(token, None)).run_id == new.id
        await engine.settle()
        result = await new.return_value()
        assert [*result[2].split(" ")] == [str(drawn) for drawn in result[:2]]
        assert result[-1] == new.id
        newest = await engine.reset(new.id, to=len(await new.events()))
        assert (await newest.return_value())[:-1] == result[:-1]
        assert ids == [f"{old.id}.2", f"{new.id}.3"]


async def test_a_step_in_flight_belongs_to_the_new_run(open_engine: OpenEngine) -> None:
    began, ids, goes_on = asyncio.Event(), list[str](), asyncio.Event()

    @step
    async def slow() -> str:
        ids.append(get_step_metadata().step_id)
        began.set()
        if len(ids) == 1:
            await goes_on.wait()
        return f"attempt {len(ids)}"

    @workflow
    async def waits_for_it() -> str:
        return await slow()

    async with open_engine() as engine:
        old = await engine.start(waits_for_it)
        await began.wait()
        new = await engine.reset(old.id, to=len(await old.events()))
        async with asyncio.timeout(SOON):
            assert await new.return_value() == "attempt 2"
        goes_on.set()
        await engine.settle()
        assert types(await old.events())[-1] == "run_reset"
        assert "step_completed" not in types(await old.events())
        assert ids == [f"{old.id}.1", f"{old.id}.1"], "one step, so one idempotency key"


def test_every_event_knows_the_run_that_wrote_it() -> None:
    created = {"run_id": "c", "reset_of": {"run_id": "b", "seq": 9, "before": {"run_id": "a", "seq": 4}}}
    event = Event(1, "run_created", FakeClock().now(), created)
    assert [made_in(event, seq) for seq in (1, 4, 5, 9, 10)] == ["a", "a", "b", "b", "c"]


# ── refusals ──


async def test_a_reset_names_an_event_of_the_log(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(two_votes, "t")
        await engine.settle()
        length = len(await run.events())
        for wrong in (0, -1, length + 1):
            with pytest.raises(NoSuchEventError, match=f"1 to {length}"):
                await engine.reset(run.id, to=wrong)
        with pytest.raises(RunNotFoundError):
            await engine.reset("run_unknown", to=1)
        assert await run.status() == "running"


async def test_a_token_that_another_run_has_is_named(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        first = await engine.start(two_votes, "t")
        await engine.settle()
        await first.cancel()
        second = await engine.start(two_votes, "t")
        await engine.settle()
        log = await first.events()
        with pytest.raises(HookConflictError) as refused:
            await engine.reset(first.id, to=len(log))
        assert (refused.value.run_id, refused.value.token) == (second.id, "t")
        assert await first.events() == log
        assert (await record_of(engine, first.id)).next_run is None
        assert (await engine.get_hook_by_token("t")).run_id == second.id
        assert (await engine.reset(first.id, to=2)).id  # before its hook: nothing is in the way
        assert len((await engine.records()).records) == 3


async def test_a_repeated_reset_is_one_reset(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        old = await engine.start(two_votes, "t")
        await engine.settle()
        new = await engine.reset(old.id, to=3)
        again = await engine.reset(old.id, to=3)
        assert (new.is_new, again.is_new, again.id) == (True, False, new.id)
        with pytest.raises(AlreadyResetError) as refused:
            await engine.reset(old.id, to=2)
        assert refused.value.next_run == new.id
        third = await engine.reset(new.id, to=3)
        with pytest.raises(AlreadyResetError) as refused:
            await engine.reset(old.id, to=2)
        assert refused.value.next_run == third.id
        await third.cancel()
        with pytest.raises(RunCancelledError, match=third.id):
            await old.return_value()
        assert (await engine.reset(old.id, to=2)).is_new


async def test_a_run_that_was_reset_is_not_attempted_again(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        old = await engine.start(two_votes, "t")
        await engine.settle()
        await old.cancel()
        new = await engine.reset(old.id, to=3)
        with pytest.raises(AlreadyResetError) as refused:
            await engine.attempt(old.id)
        assert refused.value.next_run == new.id
        assert len((await engine.records()).records) == 2


async def test_concurrent_resets_make_one_run(open_engine: OpenEngine) -> None:
    async with open_engine() as one, open_engine() as two:
        old = await one.start(two_votes, "t")
        await one.settle()
        await old.cancel()
        resets = [engine.reset(old.id, to=3) for engine in (one, two) for _ in range(10)]
        async with asyncio.timeout(SOON):
            found = await asyncio.gather(*resets)
        assert len({run.id for run in found}) == 1
        assert sum(run.is_new for run in found) == 1
        assert len((await one.records()).records) == 2


@pytest.mark.drifts
async def test_events_that_do_not_fit_the_code_are_refused(open_engine: OpenEngine) -> None:
    is_newer = False

    @workflow
    async def changes() -> Any:
        return await create_hook("other" if is_newer else "t")

    async with open_engine() as engine:
        run = await engine.start(changes)
        await engine.settle()
        await run.cancel()
        is_newer = True
        with pytest.raises(NondeterminismError):
            await engine.reset(run.id, to=3)
        assert (await record_of(engine, run.id)).next_run is None
        assert await (await engine.reset(run.id, to=2)).status() in ("pending", "running")


# ── other processes ──


async def test_a_process_that_cached_the_run_reaches_the_new_one(open_engine: OpenEngine) -> None:
    @workflow
    async def answers() -> str:
        hook = create_webhook(respond_with="manual")
        async for request in hook:
            await request.respond_with(Answer(f"in {get_workflow_metadata().run_id}"))
        return ""

    async with open_engine() as one, open_engine() as two:
        old = await one.start(answers)
        await one.settle()
        token = next(e.data["token"] for e in await old.events() if e.type == "hook_created")
        await one.resume_webhook(token, WebhookRequest(body=b"cached now"))
        await one.settle()
        new = await two.reset(old.id, to=3)
        for engine in (one, two, one):
            answer = await engine.resume_webhook(token, WebhookRequest(body=b"after the reset"))
            assert (answer.status_code, bytes(answer.body)) == (200, f"in {new.id}".encode())
        assert (await two.get_hook_by_token(token)).run_id == new.id


# ── every event of every log ──


@pytest.fixture(scope="module")
def workflows() -> dict[tuple[str, str | None], Workflow[Any, Any]]:
    return known_workflows()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.long] * bool(number % 3))
        for number, path in enumerate(sorted(FOLDER.glob("*.py3.11.json")))
    ],
)
def test_a_recorded_run_can_be_reset_to_any_event(
    path: Path, workflows: dict[tuple[str, str | None], Workflow[Any, Any]]
) -> None:
    history = read(path)
    code = workflows[history.code, history.version]
    row = RunRecord.new(history.log[0].data["run_id"], code.name, code.code, code.version, history.log[0].at)
    for to in range(1, len(history.log) + 1):
        kept = plan_reset(row, history.log, to, "run_new").successor.log
        _goes_on(code, kept, history)
        if to % 5 == 0 and len(kept) > to:
            _goes_on(code, plan_reset(row, history.log, to, "run_new", drop_payloads=True).successor.log, history)


def _goes_on(code: Workflow[Any, Any], log: Log, history: History) -> None:
    """Replay a log, append what it asks for, and replay that."""

    def link(hook_id: str) -> str:
        return history.links.get(hook_id, "https://example.test/webhooks/new")

    outcome = replay(code, log, entropy=b"new tokens", link=link)
    asked = [command.event(log[-1].at) for command in outcome.commands]
    longer = [*log, *(Event(seq, new.type, log[-1].at, new.data) for seq, new in enumerate(asked, len(log) + 1))]
    again = replay(code, longer, entropy=b"other tokens", link=link)
    assert again.ended == outcome.ended
    assert again.ended or not again.commands or outcome.replay_again


async def _results(engine: Engine, clock: FakeClock, old_id: str, after: Any = None) -> list[Any]:
    """Reset this run to each of its events, one after the other, and return how each new run ends."""
    ends = []
    for to in range(1, len(await engine.events(old_id)) + 1):
        new = await engine.reset(old_id, to=to)
        await engine.settle()
        if after is not None:
            await after()
        await clock.advance("10 days")
        assert await new.status() == "completed", (to, await record_of(engine, new.id))
        ends.append(await new.return_value())
    return ends


async def test_a_run_with_steps_and_retries_goes_on_from_any_event(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(order, Order(7, Decimal("12.50"), clock.now() + timedelta(days=2)))
        await clock.advance("3 days")
        result = await run.return_value()
        assert all(end == result for end in await _results(engine, clock, run.id))


async def test_a_run_with_timers_and_votes_goes_on_from_any_event(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        to, length = 0, 1
        while (to := to + 1) <= length:
            run = await engine.start(poll, "poll", 2)
            for voter in ("ann", "bo"):
                await clock.advance("25h")
                await votes.resume("poll", {"by": voter})
                await engine.settle()
            assert await run.return_value() == ["ann", "bo"]
            log = await run.events()
            length, created = len(log), last_seq(log, "hook_created")
            new = await engine.reset(run.id, to=to)
            await clock.advance("4 days")
            assert await new.return_value() == (["ann", "bo"] if to >= created else []), to


async def test_a_run_that_uses_a_token_twice_goes_on_from_any_event(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:

        async def answer() -> None:
            for payload in ("done", "last"):
                try:
                    await engine.resume_hook("t", payload)
                except HookNotFoundError:
                    return
                await engine.settle()

        run = await engine.start(hooks, "t")
        await engine.settle()
        await engine.resume_hook("t", 1)
        await answer()
        assert await run.return_value() == [1, "done", "conflict on t", True, "last"]
        for end in await _results(engine, clock, run.id, answer):
            assert end[-4:-1] == ["done", "conflict on t", True]


async def test_generators_webhooks_and_groups_go_on_from_any_event(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        ticking = await engine.start(generator, 5)
        await clock.advance("5 days")
        assert set(map(str, await _results(engine, clock, ticking.id))) == {"[0, 1, 2]"}

        group = await engine.start(failing_group, ["ann", "bo"])
        await clock.advance("1h")
        result = await group.return_value()
        assert all(end == result for end in await _results(engine, clock, group.id))

        asked = await engine.start(webhook)
        await engine.settle()
        token = next(e.data["token"] for e in await asked.events() if e.type == "hook_created")
        for word in (b"now", b"please"):
            await engine.resume_webhook(token, WebhookRequest(body=word))
        assert await asked.return_value() == "please"

        async def answer() -> None:
            for row in (await engine.records(is_open=True)).records:
                for event in await engine.events(row.id):
                    if event.type == "hook_created":
                        await engine.resume_webhook(event.data["token"], WebhookRequest(body=b"please"))

        assert set(await _results(engine, clock, asked.id, answer)) == {"please"}


async def test_sleeps_that_are_over_do_not_begin_again(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def sleeps() -> str:
        await sleep("1 day")
        await sleep("1 day")
        return "awake"

    async with open_engine() as engine:
        run = await engine.start(sleeps)
        await clock.advance("25h")
        new = await engine.reset(run.id, to=3)
        await engine.settle()
        assert await new.wake_up() == 1
        assert await new.return_value() == "awake"


async def test_a_repeat_during_a_reset_writes_nothing(open_engine: OpenEngine) -> None:
    """The call finds its hook closed, and a reset opens it before the call has asked what the hook took."""

    @workflow(name="reset: hears one word")
    async def hears_one() -> str:
        return str(await create_hook("reset-repeat", schema=str))

    async with open_engine() as engine:
        run = await engine.start(hears_one)
        await engine.settle()
        await engine.resume_hook("reset-repeat", "yes", resume_id="1")
        assert await run.return_value() == "yes"
        (hook,) = [event for event in await run.events() if event.type == "hook_created"]
        target = await engine._intake.open_hook("reset-repeat", "1", is_webhook=False)
        again = await engine.reset(run.id, to=hook.seq, drop_payloads=True)
        first = await engine._intake.receive(target, "yes", "1")
        assert first.hook.run_id == run.id
        assert [event.type for event in await again.events()].count("hook_received") == 0
        await engine.resume_hook("reset-repeat", "no", resume_id="2")
        assert await again.return_value() == "no"
