"""What monitors read: connections, runs and deliveries, all of it documented."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from approvals_bot.approvals.card_model import Card, Name
from approvals_bot.approvals.port import (
    Channels,
    ConnectionState,
    Delivered,
    Dispatch,
    Place,
    Receipt,
    Refused,
    Result,
    TryAgain,
)
from approvals_bot.durable.core.api import create_hook, workflow
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.web.metrics import Health, Metrics
from approvals_bot.web.routes import build

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "monitoring.md"


@workflow
async def wait_for_a_word() -> str:
    return str(await create_hook("word"))


@workflow
async def wait_for_another() -> str:
    return str(await create_hook("another"))


@workflow
async def stumble_and_fall() -> None:
    raise ValueError("a stone")


async def test_check_37_readiness_says_how_socket_mode_is_and_stays_ready(service: Any) -> None:
    async def state() -> ConnectionState:
        return ConnectionState("down", "invalid_auth")

    app = build(
        engine=service.engine,
        tokens=service.tokens,
        people=service.engine.resources.popitem()[1],
        workflows=service.workflows,
        api_keys=[],
        base_url="https://approve.acme.eu",
        now=service.clock.now,
        connections={"slack_socket_mode": state},
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://approve.acme.eu") as client:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "slack_socket_mode": "down"},
    )


class Scripted:
    """A channel that gives the answers that it was made with."""

    def __init__(self, *answers: Result) -> None:
        self.answers = list(answers)

    async def send(self, dispatch: Dispatch) -> Result:
        if not self.answers:
            raise RuntimeError("a bug")
        return self.answers.pop(0)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return await self.send(dispatch)


async def test_attempts_to_deliver_are_counted_by_what_became_of_them() -> None:
    metrics, here = Metrics(), Receipt("C0DEPLOYS", "1.0")
    answers = (Delivered(here), Delivered(here, uncertain=True), TryAgain("busy"), Refused("no_such_channel"))
    channel = Channels({"slack": Scripted(*answers, Delivered(here))}, count=metrics.delivered)
    dispatch = Dispatch(
        "d1",
        Place("slack", "#deploys"),
        Card("run_1", "hook_1", "deploy", 1, "waiting", "Deploy", Name("", ""), datetime(2026, 3, 2, tzinfo=UTC), ""),
    )
    for answer in answers:
        assert await channel.send(dispatch) == answer
    assert await channel.send(dispatch, here) == Delivered(here)
    with pytest.raises(RuntimeError):
        await channel.send(dispatch)
    text = bytes(metrics.response().body).decode()
    for act, outcome in [
        *(("send", word) for word in ("delivered", "uncertain", "try_again", "refused", "error")),
        ("update", "delivered"),
    ]:
        assert f'approvals_deliveries_total{{act="{act}",channel="slack",outcome="{outcome}"}} 1.0' in text
    assert "deploys" not in text.lower()


async def test_runs_that_end_are_counted_by_how(tmp_path: Path) -> None:
    metrics = Metrics()
    engine = Engine(await connect(f"sqlite:///{tmp_path / 'runs.db'}"), watch=metrics.appended)
    async with engine.running():
        started = [await engine.start(each) for each in (wait_for_a_word, wait_for_another, stumble_and_fall)]
        await engine.settle()
        await engine.resume_hook("word", "go")
        await engine.cancel(started[1].id)
        for run in started:
            await engine.wait(run.id, 10)
    text = bytes(metrics.response().body).decode()
    for status in ("completed", "cancelled", "failed"):
        assert f'approvals_runs_ended_total{{status="{status}"}} 1.0' in text


@workflow
async def trip_over() -> None:
    raise KeyError("a stone")


async def test_runs_that_stall_are_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    engine = Engine(await connect(f"sqlite:///{tmp_path / 'runs.db'}"), watch_stalls=metrics.run_stalled)
    health = Health(engine=engine, metrics=metrics, connections={})
    async with engine.running():
        await engine.start(trip_over)
        await engine.settle()
        text = bytes((await health.metrics(Request({"type": "http"}))).body).decode()
    assert 'approvals_runs_stalled_total{workflow="trip_over"} 1.0' in text
    assert 'approvals_runs{status="stalled"} 1.0' in text


def test_every_metric_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    metrics = Metrics()
    declared = re.findall(r"^# TYPE (approvals_\w+) ", bytes(metrics.response().body).decode(), re.M)
    named = {name for name in declared if not name.endswith("_created")}
    assert len(named) >= 6
    assert named == set(re.findall(r"^\| `(approvals_\w+)` \|", text, re.M))
