"""What monitors read: connections, runs and deliveries, all of it documented."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import JsonValue, SecretStr
from starlette.requests import Request

from approvals_bot.app.monitoring import Monitoring
from approvals_bot.approvals.card_model import Card, Name
from approvals_bot.approvals.port import (
    Called,
    CallResult,
    Channels,
    ConnectionState,
    Delivered,
    Dispatch,
    Place,
    Receipt,
    Refused,
    Result,
    Targets,
    TryAgain,
)
from approvals_bot.config.monitoring import MetricsTable
from approvals_bot.durable.core.api import create_hook, workflow
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.group_commit import in_thread
from approvals_bot.durable.store.sqlite import SqliteStore
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.playground.faults import Fault
from approvals_bot.service import figures
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.store_mends import store_mend
from approvals_bot.web.health import Health
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.responses import Problem
from approvals_bot.web.routes import build
from tests.support.posting import a_kept_port
from tests.support.staffed_house import ENV, a_staffed_house
from tests.web.test_grants_api import Recording

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
        connections={"slack_socket_mode": state},
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://approve.acme.eu") as client:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "store": "up", "slack_socket_mode": "down"},
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


NAMES = """
build_info ready runs requests_open request_oldest_open_seconds request_decision_seconds resume_seconds
timer_lateness_seconds deliveries_waiting delivery_oldest_waiting_seconds channel_up outgoing_calls_total
store_call_seconds store_commit_seconds store_errors_total store_size_bytes logins_total api_key_refusals_total
config_last_reload_successful config_last_reload_success_timestamp_seconds config_info
audit_last_anchor_timestamp_seconds lease_takeovers_total grants_active grants_overdue
"""
"""What monitors rely on, besides what was there before."""


def test_every_metric_is_there_and_documented() -> None:
    text = bytes(Metrics().response().body).decode()
    families = text_string_to_metric_families(text)
    named = {f"{each.name}{'_total' if each.type == 'counter' else ''}" for each in families}
    ours = {name for name in named if name.startswith("approvals_")}
    assert ours >= {f"approvals_{name}" for name in NAMES.split()}
    assert ours == set(re.findall(r"^\| `(approvals_\w+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.M))
    assert "_created" not in text
    assert {"python_info", "process_open_fds"} <= named


ANN_DECIDES = """
[workflow]
id = "ship"
title = "Ship {{ version }}"
request = ["*"]
[fields]
version = "string"
[[stage]]
id = "go"
from = ["ann@acme.eu", "cy@acme.eu"]
[deliver]
email = true
"""
GRANT = """
[grant]
lasts = "4h"
give = { http = "iam" }
take = { http = "iam" }
"""


async def test_monitors_see_requests_deliveries_and_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "PATIENCE", 30.0)  # seconds: the counts of now, however slow this machine is
    with a_kept_port() as port:
        workflows = {"ship": ANN_DECIDES, "access": ANN_DECIDES.replace("ship", "access") + GRANT}
        more = '[http.iam]\nurl = "https://iam.example/"\nsecret = "env:DESK"\n'
        async with a_staffed_house(tmp_path, workflows, port, more) as house:
            monitoring = house.service.monitoring

            async def scraped() -> dict[str, float]:
                assert monitoring.figures is not None
                monitoring.figures.forget()
                text = (await house.get("/metrics", "")).text
                found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
                return {f"{each.name}{','.join(each.labels.values())}": each.value for each in found}

            class Watched(Recording):
                async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
                    result = await super().post(target, event_id, body)
                    monitoring.called(target, result)
                    return result

            house.service.engine.resources[Targets] = Watched()
            for workflow in ("ship", "access"):
                await house.vote(await house.open(workflow, version="0"), "ann@acme.eu")
            await house.service.engine.settle()
            assert monitoring.figures is not None
            await monitoring.figures.read()  # as alerts do, which takes nothing from the scrape
            await house.open("ship", version="1")
            house.mailbox.faults.add(Fault("error", "RCPT", times=None, code=451, error="4.7.1 later"))
            await house.open("ship", version="2")
            await house.clock.advance("1m")
            found = await scraped()
            assert found["approvals_requests_openship"] == 2
            assert found["approvals_request_oldest_open_secondsship"] == 60
            assert found["approvals_deliveries_waitingemail,trying"] == 2
            assert found["approvals_runsrunning"] == 3
            assert found["approvals_channel_upemail"] == 1
            assert found["approvals_store_size_bytes"] > 0
            assert found["approvals_store_commit_seconds_count"] > 0
            for workflow in ("ship", "access"):  # the grant still lasts, but its request is decided
                assert found[f"approvals_request_decision_seconds_countapproved,{workflow}"] == 1
            assert "approvals_request_decision_seconds_countrejected,ship" not in found
            await house.clock.advance("4h")
            assert (await scraped())["approvals_request_decision_seconds_countapproved,access"] == 1
            monitoring.channels.probed("email", ConnectionState("down", "the relay can't be reached"))
            assert (await scraped())["approvals_channel_upemail"] == 0
            ready = (await house.get("/readyz", "")).json()
            assert (ready["store"], ready["channels"], ready["replicas"]) == ("up", {"email": "down"}, 1)


async def test_an_idle_channel_is_probed_and_logged_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    at = 0.0

    class Probed(Scripted):
        async def probe(self) -> ConnectionState:
            return ConnectionState("up" if at > 60 else "down", "" if at > 60 else "it can't be reached")

    now = datetime(2026, 3, 2, tzinfo=UTC)
    watch = ChannelWatch(lambda: now, monotonic=lambda: at)
    watch.watch({"email": Probed()})
    for at, due in ((29.0, 0), (30.0, 1), (59.0, 0), (60.0, 1), (90.0, 1)):  # `monotonic` reads it
        found = [*watch.due()]
        assert len(found) == due, at
        for name, channel in found:
            watch.probed(name, await channel.probe())
    assert [each.__dict__["event"] for each in caplog.records] == ["channel_down"]
    (line,) = caplog.messages
    assert "the mail relay takes no deliveries now (it can't be reached)" in line
    assert "Check [email] and the relay, and run `approvals-bot doctor`" in line
    assert watch.words == {"email": "up"}


def test_a_refused_delivery_is_named_in_the_logs_text(caplog: pytest.LogCaptureFixture) -> None:
    Monitoring(lambda: datetime(2026, 3, 2, tzinfo=UTC)).delivered("email", "send", "refused", "run_1-2")
    assert "email: a message was refused (send)" in caplog.messages


def test_a_target_that_doesnt_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "approvals_bot")
    monitoring = Monitoring(lambda: datetime(2026, 3, 2, tzinfo=UTC))
    for result in (TryAgain("it answered 503"), TryAgain("no answer"), Refused("it answered 403"), Called(200)):
        monitoring.called("erp", result)
    assert [each.__dict__["event"] for each in caplog.records] == [
        "target_down",
        "target_back",
        "followup_failed",
        "followup_failed",
    ]
    down, _, refused, _ = caplog.messages
    assert "[http.erp] takes no calls now (it answered 503); they are tried again" in down
    assert "[http.erp] refuses calls (it answered 403)" in refused


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("The database can't be written to right now (database or disk is full).", "Free some space"),
        ("The database can't be written to right now (database is locked).", "End the other program"),
        ("The database can't be written to right now (attempt to write a readonly database).", "user write"),
        ("The database can't be used right now (too many connections for role).", "max_connections"),
        ("The database takes no writes: it is a standby, or in recovery.", "name the primary"),
        ("The database can't be used right now (ConnectionRefusedError).", "Check that the database runs"),
    ],
)
def test_what_is_wrong_with_a_store_names_its_mend(said: str, mend: str) -> None:
    assert mend in store_mend(said)


async def test_a_store_that_fails_is_logged_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "approvals_bot")
    monitoring = Monitoring(lambda: datetime(2026, 3, 2, tzinfo=UTC))

    class Flaky:
        is_shared, fails = False, True

        async def check(self) -> None:
            if self.fails:
                raise StoreUnavailableError("The disk is full. Try again.") from OSError("the disk is full")

        def __getattr__(self, name: str) -> Any:
            return self.check

    store: Any = Flaky()
    monitoring.watch_store(store, "0.1.0")
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await store.check()
    store.fails = False
    await store.check()
    assert [each.__dict__["event"] for each in caplog.records] == ["store_lost", "store_back"]
    assert caplog.messages[0].startswith("The disk is full. Free some space")
    text = bytes(monitoring.metrics.response().body).decode()
    assert 'approvals_store_errors_total{kind="OSError"} 3.0' in text
    assert 'approvals_store_call_seconds_count{call="check"} 1.0' in text


async def test_a_database_that_turns_read_only_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "approvals_bot")
    body = {"workflow": "ship", "requester": "bo@acme.eu", "input": {"version": "2.1"}}
    with a_kept_port() as port:
        async with a_staffed_house(tmp_path, {"ship": ANN_DECIDES}, port) as house:
            store = house.service.engine.store
            assert isinstance(store, SqliteStore)

            async def turn(read_only: bool) -> None:
                await in_thread(store._writer._connection, lambda db: db.execute(f"PRAGMA query_only = {read_only:d}"))

            async def statuses() -> list[int]:
                headers = {"Authorization": f"Bearer {ENV['DESK']}"}
                return [(await house.http.post("/api/runs", json=body, headers=headers)).status_code for _ in range(3)]

            await turn(True)
            caplog.clear()
            assert await statuses() == [503] * 3
            ready = await house.get("/readyz")
            assert (ready.status_code, "can't be written to" in ready.json()["detail"]) == (503, True)
            assert "approvals_ready 0.0" in (await house.get("/metrics")).text
            [said] = [each for each in caplog.records if each.levelno >= logging.WARNING]
            assert (said.__dict__["event"], "user write to the database's file" in said.message) == ("store_lost", True)
            await turn(False)
            assert await statuses() == [202] * 3
            assert (await house.get("/readyz")).status_code == 200
            await house.service.engine.settle()
            assert len(house.mailbox.mails) == 6
    assert "store_back" in [each.__dict__.get("event") for each in caplog.records]


@pytest.mark.parametrize(
    ("listen", "sent", "status"),
    [("127.0.0.1:9464", "a-token", 404), (None, "", 401), (None, "another", 401), (None, "a-token", 200)],
)
async def test_metrics_ask_for_their_token_at_their_place(
    service: Any, listen: str | None, sent: str, status: int
) -> None:
    table = MetricsTable(listen=listen, token=SecretStr("a-token"))
    health = Health(engine=service.engine, metrics=Metrics(), connections={}, scrape=table)
    headers = [(b"authorization", f"Bearer {sent}".encode())]
    request = Request({"type": "http", "server": ("127.0.0.1", 80), "headers": headers})
    if status == 200:
        assert (await health.metrics(request)).status_code == 200
        return
    with pytest.raises(Problem) as refused:
        await health.metrics(request)
    assert refused.value.status == status
