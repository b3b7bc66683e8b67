"""The logger of workflows, and tasks that fail unseen: each line is logged once, however often a body is replayed."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import approvals_bot
from approvals_bot import Engine, create_hook, logger, sleep, step, workflow
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.engine.batch import seen_before
from approvals_bot.durable.store import connect
from approvals_bot.testing import FakeClock, History, play
from approvals_bot.testing.fixtures import OpenEngine


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "approvals_bot.workflow")
    return caplog


def said(lines: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in lines.records if record.name == "approvals_bot.workflow"]


@step
async def work(name: str) -> str:
    logger.info("working on %s", name)
    return name


@workflow
async def talkative() -> str:
    logger.info("begins")
    hook = create_hook(token="t")
    await work("a")
    logger.debug("has worked")
    for number in range(3):
        logger.info("%s: %s", number, await hook)
    if await hook.conflict() is None:
        logger.info("has its token")
    await sleep(60)
    logger.warning("ends")
    return "done"


EXPECTED = ["begins", "working on a", "has worked", "0: x", "1: y", "2: z", "has its token", "ends"]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("ticks", [False, True])
async def test_each_line_is_logged_once_also_over_restarts(
    open_engine: OpenEngine, clock: FakeClock, lines: pytest.LogCaptureFixture, restarts: bool, ticks: bool
) -> None:
    async with open_engine() as engine:
        run = await engine.start(talkative)
        await clock.advance(0)
        assert said(lines) == EXPECTED[:3]
        for payload in () if restarts else "xyz":
            await engine.resume_hook("t", payload)
            await clock.advance(0)
        if not restarts:
            await clock.advance(60)
            await run.return_value()
    for number, payload in enumerate("xyz" if restarts else ()):
        async with open_engine() as engine:
            await engine.resume_hook("t", payload)
            await clock.advance(int(ticks))
        assert said(lines) == EXPECTED[: 4 + number] or number == 2
    async with open_engine() as engine:
        await clock.advance(60)
        assert await engine.get_run(run.id).return_value() == "done"
    assert said(lines) == EXPECTED


async def test_payloads_that_came_while_no_process_worked_are_logged(
    lines: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    clock = FakeClock()
    url = f"sqlite:///{tmp_path}/r.db"
    async with Engine.open(url, clock=clock) as engine:
        run = await engine.start(talkative)
        await clock.advance(1)
        await engine.resume_hook("t", "x")
        await clock.advance(1)
    async with Engine(await connect(url), clock=clock).running(work=False) as engine:
        for payload in "yz":
            await engine.resume_hook("t", payload)
            await clock.advance(1)  # payloads of one instant look the same
    assert said(lines) == EXPECTED[:4]
    async with Engine.open(url, clock=clock) as engine:
        await clock.advance(61)
        await engine.get_run(run.id).return_value()
    assert said(lines) == EXPECTED


async def test_records_carry_the_run_and_where_they_were_written(
    open_engine: OpenEngine, lines: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def written() -> None:
        logger.info("in the body", extra={"order": 17})
        try:
            raise ValueError("seen")
        except ValueError:
            logger.exception("failed")
        await work("b")

    async with open_engine() as engine:
        run = await engine.start(written)
        await run.return_value()
    body, failed, in_step = lines.records
    for record in (body, failed, in_step):
        assert (record.run_id, record.workflow) == (run.id, "written")  # type: ignore[attr-defined]
        assert record.filename == "test_logger.py"
    assert body.funcName == "written"
    assert body.order == 17  # type: ignore[attr-defined]
    assert failed.exc_info is not None
    assert failed.exc_info[0] is ValueError
    assert (in_step.step, in_step.attempt, in_step.funcName) == ("work", 1, "work")  # type: ignore[attr-defined]


def test_outside_of_workflows_it_is_an_ordinary_logger(lines: pytest.LogCaptureFixture) -> None:
    logger.info("plain %s", "text")
    (record,) = lines.records
    assert (record.getMessage(), record.filename, record.funcName) == (
        "plain text",
        "test_logger.py",
        "test_outside_of_workflows_it_is_an_ordinary_logger",
    )
    assert approvals_bot.logger is logger


def test_a_level_that_is_off_costs_no_line(lines: pytest.LogCaptureFixture) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise AssertionError("nobody wants to read this")

    @workflow
    async def quiet() -> None:
        logger.debug("%s", Unprintable())

    lines.set_level(logging.INFO, "approvals_bot.workflow")
    run = History(quiet)
    run.decide()
    assert said(lines) == []


def test_values_are_formatted_when_the_line_is_written(lines: pytest.LogCaptureFixture) -> None:
    @workflow
    async def growing() -> list[int]:
        numbers = [1]
        logger.info("%s", numbers)
        numbers.append(2)
        return numbers

    run = History(growing)
    run.decide()
    assert said(lines) == ["[1]"]


def test_the_finally_of_a_waiting_run_logs_nothing(lines: pytest.LogCaptureFixture) -> None:
    @workflow
    async def waiting() -> None:
        try:
            await create_hook(token="t")
        finally:
            logger.info("over")

    run = History(waiting)
    run.decide()
    assert said(lines) == []
    run.receive(1)
    run.decide()
    run.check_prefixes()
    assert said(lines) == ["over"]


async def test_play_logs_each_line_once(lines: pytest.LogCaptureFixture) -> None:
    await play(talkative, answers=["x", "y", "z"])
    assert [line for line in said(lines) if "working" not in line] == [e for e in EXPECTED if "working" not in e]


async def test_a_broken_filter_of_the_log_harms_no_run(
    open_engine: OpenEngine, lines: pytest.LogCaptureFixture
) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.getMessage() == "begins":
                raise OSError("no")
            return True

    broken = Broken()
    logger.logger.addFilter(broken)
    try:
        async with open_engine() as engine:
            run = await engine.start(talkative)
            for payload in "xyz":
                await engine.resume_hook("t", payload)
            await engine.settle()
            assert await run.status() == "running"
    finally:
        logger.logger.removeFilter(broken)
    assert "2: z" in said(lines)


# ── tasks that fail unseen ──


async def failing() -> None:
    await work("before it fails")
    raise LookupError("a name of a person")


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_task_that_fails_unseen_is_logged_once_with_its_line(
    lines: pytest.LogCaptureFixture, tmp_path: Path, is_kept: bool
) -> None:
    kept: list[Any] = []

    @workflow
    async def careless() -> str:
        task = asyncio.create_task(failing(), name="reminders")
        if is_kept:
            kept.append(task)
        else:
            del task
        await create_hook(token="t")
        return str(await create_hook(token="u"))

    url = f"sqlite:///{tmp_path}/r.db"
    clock = FakeClock()
    async with Engine.open(url, clock=clock) as engine:
        run = await engine.start(careless)
        await clock.advance(1)
        errors = [record for record in lines.records if record.levelno == logging.ERROR]
        assert len(errors) == (0 if is_kept else 1), "one that is kept may be awaited yet"
    for token in "tu":
        async with Engine.open(url, clock=clock) as engine:
            await engine.resume_hook(token, token)
            await clock.advance(1)
    async with Engine.open(url, clock=clock) as engine:
        assert await engine.get_run(run.id).status() == "completed"
    (error,) = (record for record in lines.records if record.levelno == logging.ERROR)
    assert "task 'reminders'" in error.getMessage()
    assert "LookupError at " in error.getMessage()
    assert "test_logger.py:" in error.getMessage()
    assert "a name of a person" not in error.getMessage(), "messages stay out of the service's log"
    assert (error.run_id, error.workflow) == (run.id, "careless")  # type: ignore[attr-defined]
    kept.clear()


def test_a_task_that_is_awaited_late_is_not_reported(lines: pytest.LogCaptureFixture) -> None:
    @workflow
    async def late() -> list[str]:
        async def fails() -> None:
            raise ValueError("no")

        tasks = [asyncio.create_task(fails()) for _ in range(3)]
        gathered = asyncio.gather(fails(), fails(), return_exceptions=True)
        await create_hook(token="t")
        seen = [type(error).__name__ for error in await gathered if error is not None]
        for task in tasks:
            try:
                await task
            except ValueError as error:
                seen.append(type(error).__name__)
        return seen

    run = History(late)
    run.decide()
    run.receive(1)
    run.decide()
    assert run.result == ["ValueError"] * 5
    assert said(lines) == []


def test_a_gather_that_fails_unseen_is_reported_once(lines: pytest.LogCaptureFixture) -> None:
    @workflow
    async def careless() -> None:
        async def fails() -> None:
            raise ValueError("no")

        asyncio.gather(fails(), fails())
        await sleep(60)

    run = History(careless)
    run.decide()
    run.fire(1)
    run.decide()
    run.check_prefixes()
    (line,) = said(lines)
    assert "a future failed, and nothing has awaited it: ValueError at " in line


def test_tasks_that_still_wait_when_the_body_returns_are_dropped(lines: pytest.LogCaptureFixture) -> None:
    left: list[str] = []

    @workflow
    async def returns() -> str:
        async def waits() -> None:
            try:
                await sleep(3600)
            finally:
                left.append("left")

        asyncio.create_task(waits())  # noqa: RUF006  # that is the case
        await work("a")
        return "done"

    run = History(returns)
    run.decide()
    run.complete(1, "A")
    run.decide()
    assert run.result == "done"
    assert left[-1] == "left"
    assert said(lines) == []


# ── what a process has seen of a run that it didn't work on before ──

START = FakeClock().now()


class Row:
    def __init__(self, wake_at: Any, status: str = "running") -> None:
        self.wake_at, self.status = wake_at, status


@pytest.mark.parametrize(
    ("events", "wake_at", "expected"),
    [
        ("run_created@0", 0, 0),
        ("run_created@0 hook_received@0", 0, 0),
        ("run_created@0 run_started@0 hook_created@0", None, 3),
        ("run_created@0 run_started@0 hook_created@0 hook_received@5", 5, 3),
        ("run_created@0 run_started@0 hook_created@0 hook_received@5 hook_received@9", 9, 4),
        ("run_created@0 run_started@0 hook_created@0 hook_received@5 hook_received@9", 5, 3),
        ("run_created@0 run_started@0 wait_created@0 hook_received@5", 60, 4),
        ("run_created@0 run_started@0 hook_created@0 hook_received@0 hook_received@0", 0, 4),
        ("run_created@0 run_started@0 hook_created@0 hook_received@5 step_created@5", 5, 5),
    ],
)
def test_the_log_and_the_row_show_what_was_seen(events: str, wake_at: int | None, expected: int) -> None:
    log = []
    for seq, each in enumerate(events.split(), 1):
        kind: Any = each.partition("@")[0]
        log.append(Event(seq, kind, START + timedelta(seconds=int(each.partition("@")[2])), {"id": seq}))
    row: Any = Row(None if wake_at is None else START + timedelta(seconds=wake_at))
    assert seen_before(row, log) == expected
