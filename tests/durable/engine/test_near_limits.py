"""Warnings before limits: one line and one count at 40 % and at 80 %, and a word wherever the run is shown."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot import create_hook, set_attributes, workflow
from approvals_bot.durable.engine import near_limits as near
from approvals_bot.durable.engine import notifier
from approvals_bot.durable.engine.near_limits import Use, near_limits
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.testing.fixtures import OpenEngine

OPEN = Filter(is_open=True)


@workflow
async def near_limits_ignores_payloads() -> None:
    create_hook("near/ignored")
    await create_hook("near/end")


@workflow
async def near_limits_takes_payloads() -> None:
    async for payload in create_hook("near/taken"):
        if payload == "end":
            return


@workflow
async def near_limits_attributes(many: int) -> None:
    async for more in create_hook("near/attributes"):
        set_attributes({f"a{number}": number for number in range(many, many + more)})
        many += more
        if not more:
            return


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage().partition("limit: ")[2] for line in caplog.records if "near a limit" in line.getMessage()]


async def test_unread_payloads_are_said_at_40_and_at_80(
    open_engine: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine() as engine:
        counted: list[tuple[str, int]] = []
        engine.notifier.limits._watch = lambda limit, percent: counted.append((limit, percent))
        run = await engine.start(near_limits_ignores_payloads)
        await engine.settle()
        for number in range(85):
            await engine.resume_hook("near/ignored", number)
            await engine.settle()
        assert said(caplog) == [
            "40 of 100 unread payloads of a hook (40 %)", "80 of 100 unread payloads of a hook (80 %)",
        ]  # fmt: skip
        assert counted == [("unread payloads of a hook", 40), ("unread payloads of a hook", 80)]
        record = await engine.record(run.id)
        assert record is not None
        assert near_limits(record) == [Use("unread payloads of a hook", 85, 100)]
        await engine.resume_hook("near/end", None)
        await run.return_value()
        record = await engine.record(run.id)
        assert record is not None
        assert near_limits(record) == [], "an ended run comes no nearer"


async def test_characters_of_payloads_are_said_once(
    open_engine: OpenEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("approvals_bot.durable.engine.intake.NEAR_RECEIVED", 4_000)
    monkeypatch.setattr(near, "MAX_RECEIVED", 10_000)
    async with open_engine() as engine:
        run = await engine.start(near_limits_takes_payloads)
        await engine.settle()
        for number in range(9):
            await engine.resume_hook("near/taken", "x" * 1_000, resume_id=f"{number}")
            await engine.resume_hook("near/taken", "x" * 1_000, resume_id=f"{number}")
        record = await engine.record(run.id)
        assert record is not None
        assert 9_000 < record.payload_size < 10_000
        assert [line.partition(" (")[2] for line in said(caplog)] == ["41 %)", "82 %)"]
        assert [use.limit for use in near_limits(record)] == ["payload characters"]
        await engine.resume_hook("near/taken", "end")
        await run.return_value()


@pytest.mark.conformance(126)
async def test_events_are_said_once_over_restarts(
    open_engine: OpenEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "NEAR_EVENTS", 20)
    monkeypatch.setattr(near, "MAX_EVENTS", 50)
    for _ in range(9):
        async with open_engine() as engine:
            if not caplog.records and not await engine.count_runs(OPEN, 1):
                await engine.start(near_limits_takes_payloads)
                await engine.settle()
            for _ in range(5):
                await engine.resume_hook("near/taken", 1)
            await engine.settle()
    assert said(caplog) == ["20 of 50 events (40 %)", "40 of 50 events (80 %)"]


async def test_attributes_are_said_once(open_engine: OpenEngine, caplog: pytest.LogCaptureFixture) -> None:
    counted: list[tuple[str, int]] = []
    async with open_engine() as engine:
        run = await engine.start(near_limits_attributes, 0)
        await engine.settle()
    for more, count in ((20, 20), (10, 30), (5, 35), (20, 55), (5, 60)):
        async with open_engine() as engine:
            engine.notifier.limits._watch = lambda limit, percent: counted.append((limit, percent))
            await engine.resume_hook("near/attributes", more)
            await engine.settle()
            record = await engine.record(run.id)
            assert record is not None
            assert near_limits(record) == ([Use("attributes", count, 64)] if count > 25 else [])
    assert said(caplog) == ["30 of 64 attributes (46 %)", "55 of 64 attributes (85 %)"]
    assert counted == [("attributes", 40), ("attributes", 80)]


@pytest.mark.parametrize("begins", [{}, {"delay": "1h"}])
async def test_attributes_of_a_start_are_said(
    open_engine: OpenEngine, caplog: pytest.LogCaptureFixture, begins: dict[str, str]
) -> None:
    async with open_engine() as engine:
        given = {f"a{number}": number for number in range(30)}
        for _ in range(2):
            options: dict[str, Any] = {"attributes": given, "idempotency_key": "near/1", **begins}
            await engine.start(near_limits_attributes, 30, **options)
        await engine.settle()
    assert said(caplog) == ["30 of 64 attributes (46 %)"]
