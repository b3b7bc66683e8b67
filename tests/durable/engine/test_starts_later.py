"""Runs that are created now and begin later: `start(at=…)` and `start(delay=…)`."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import approvals_bot
from approvals_bot import (
    DefinitionError,
    Engine,
    InvalidArgumentError,
    RunCancelledError,
    create_hook,
    get_workflow_metadata,
    now,
    run_child,
    workflow,
)
from approvals_bot.durable.core.workflows import OPTIONS
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine


@workflow(name="later: reads the clock")
async def reads_the_clock() -> list[datetime]:
    return [now(), get_workflow_metadata().started_at]


async def test_a_run_begins_at_its_time(open_engine: OpenEngine, clock: FakeClock) -> None:
    at = clock.now() + timedelta(hours=2)
    async with open_engine() as engine:
        run = await engine.start(reads_the_clock, at=at)
        await clock.advance("119m")
        record = await engine.record(run.id)
        assert record is not None
        assert (record.status, record.begins_at, [e.type for e in await run.events()]) == (
            "pending",
            at,
            ["run_created"],
        )
        page = await engine.records(status="pending")
        assert [row.id for row in page.records] == [run.id]
        await clock.advance("1m")
        assert await run.return_value() == [at, at]
        after = await engine.record(run.id)
        assert after is not None
        assert after.begins_at is None


async def test_a_delayed_run_survives_a_restart(open_engine: OpenEngine, clock: FakeClock) -> None:
    began = clock.now()
    async with open_engine() as engine:
        run = await engine.start(reads_the_clock, delay="2 hours", idempotency_key="later-1")
        again = await engine.start(reads_the_clock, delay="3 hours", idempotency_key="later-1")
        assert (again.id, again.is_new) == (run.id, False)
    await clock.advance("1h")
    async with open_engine() as engine:
        assert await engine.get_run(run.id).status() == "pending"
        await clock.advance("1h")
        assert await engine.get_run(run.id).return_value() == [began + timedelta(hours=2)] * 2


async def test_a_time_that_has_passed_is_at_once(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(reads_the_clock, at=clock.now() - timedelta(days=1))
        assert await run.return_value() == [clock.now()] * 2
        run = await engine.start(reads_the_clock, delay=0)
        assert await run.return_value() == [clock.now()] * 2


async def test_a_run_is_cancelled_before_it_begins(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(reads_the_clock, delay="1 day")
        await run.cancel("not needed")
        with pytest.raises(RunCancelledError, match="not needed"):
            await run.return_value()
        await clock.advance("2 days")
        assert "run_started" not in [event.type for event in await run.events()]


async def test_two_engines_begin_a_run_once(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as one, open_engine() as other:
        run = await one.start(reads_the_clock, delay="1h")
        await clock.advance("1h")
        assert len(await other.get_run(run.id).return_value()) == 2
        assert [e.type for e in await run.events()] == ["run_created", "run_started", "run_completed"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"at": datetime(2030, 1, 1)}, "aware"),  # noqa: DTZ001  # that is what is refused
        ({"at": "tomorrow"}, "aware"),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1}, "not both"),
        ({"delay": "soon"}, "not a duration"),
        ({"delay": -1}, "0 or more"),
        ({"delay": datetime(2030, 1, 1, tzinfo=UTC)}, "goes into at"),
        ({"at": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-9)))}, "a thousand years away at most"),
        ({"at": datetime(9999, 1, 1, tzinfo=UTC)}, "a thousand years away at most"),
        ({"delay": "400000 days"}, "a thousand years at most"),
    ],
)
async def test_a_time_that_is_none_is_refused(open_engine: OpenEngine, options: dict[str, Any], why: str) -> None:
    async with open_engine() as engine:
        with pytest.raises(InvalidArgumentError, match=why):
            await engine.start(reads_the_clock, **options)
        assert not (await engine.records()).records


async def test_a_time_before_all_times_is_at_once(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(reads_the_clock, at=datetime.min.replace(tzinfo=timezone(timedelta(hours=9))))
        assert await run.return_value() == [clock.now()] * 2


def test_each_option_of_a_start_is_known() -> None:
    calls = (Engine.start, Engine.start_or_resume, run_child, approvals_bot.start, approvals_bot.start_or_resume)
    options = {
        (name, call.__name__)
        for call in calls
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert {name for name, _ in options} == set(OPTIONS)
    assert set(OPTIONS.items()) <= options


@pytest.mark.parametrize("name", OPTIONS)
def test_a_parameter_named_like_an_option_is_refused(name: str) -> None:
    scope: dict[str, Any] = {"workflow": workflow}
    code = f"@workflow\nasync def takes_{name}(order: str, {name}: str = '') -> None: ..."
    with pytest.raises(DefinitionError, match=rf"flow\.py:1: .*takes_{name}.*'{name}'"):
        exec(compile(code, "my/flow.py", "exec"), scope)  # noqa: S102  # a file of an author


@workflow(name="later: takes a payload")
async def takes_a_payload(token: str) -> list[Any]:
    began = now()
    return [await create_hook(token=token), began, now()]


async def test_a_payload_that_comes_before_doesnt_begin_it(open_engine: OpenEngine, clock: FakeClock) -> None:
    at = clock.now() + timedelta(hours=2)
    async with open_engine() as engine:
        run = await engine.start(takes_a_payload, "later-hook", delay="2h", hook_token="later-hook")
        await clock.advance("1h")
        await engine.resume_hook("later-hook", "early")
        await clock.advance("30m")
        assert await run.status() == "pending"
        await clock.advance("30m")
        assert await run.return_value() == ["early", at, at]
