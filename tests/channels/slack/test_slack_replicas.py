"""Slack's requests repeated at another replica, which hasn't seen their signatures: no second vote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from approvals_bot.channels.slack.desk import press_of
from tests.support.slack_office import DEPLOY, Office, Open

TWO = [DEPLOY["stage"][0] | {"need": 2, "comment": "never"}]
ASKING = [DEPLOY["stage"][0] | {"need": 2, "ask": {"code": "string"}}]


class Tape:
    """A recorder between Slack and the service. It keeps the signed requests."""

    def __init__(self, service: ASGIApp) -> None:
        self._service = service
        self.sent: list[tuple[bytes, dict[str, str]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        self.sent.append((body, dict(request.headers)))

        async def again() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._service(scope, again, send)


def tape(office: Office) -> Tape:
    (route,) = [
        each for each in office.fake_slack.web.router.routes if isinstance(each, Route) and each.name == "slack"
    ]
    route.app = kept = Tape(route.app)
    return kept


async def replayed(office: Office, request: tuple[bytes, dict[str, str]]) -> int:
    body, headers = request
    kept = {name: value for name, value in headers.items() if name.startswith("x-slack") or name == "content-type"}
    async with office.http.post(f"{office.url}/slack/events", data=body, headers=kept) as answer:
        return answer.status


async def two_offices(open_office: Open, tmp_path: Path) -> tuple[Office, Office, Tape]:
    """Two replicas on one store."""
    database = f"sqlite:///{tmp_path / 'both.db'}"
    first = await open_office(database=database)
    second = await open_office(database=database, clock=first.clock)
    return first, second, tape(first)


async def payloads(office: Office, run_id: str) -> int:
    return sum(event.type == "hook_received" for event in await office.engine.events(run_id))


async def test_a_press_repeated_at_another_replica_counts_once(open_office: Open, tmp_path: Path) -> None:
    first, second, kept = await two_offices(open_office, tmp_path)
    run_id = await first.ask(stage=TWO)
    assert (await first.press("U0ANN", "Approve"))["status"] == 200
    assert await payloads(first, run_id) == 1
    (press,) = kept.sent
    assert sorted(await asyncio.gather(*(replayed(second, press) for _ in range(3)))) == [200, 401, 401]
    assert await payloads(second, run_id) == 1
    assert [vote["by"] for vote in await second.votes(run_id)] == ["ann@acme.eu"]
    assert "already" in (await first.press("U0ANN", "Approve"))["ephemeral"]  # another press is another payload
    assert await payloads(first, run_id) == 2


async def test_a_modal_repeated_at_another_replica_counts_once(open_office: Open, tmp_path: Path) -> None:
    first, second, kept = await two_offices(open_office, tmp_path)
    run_id = await first.ask(stage=ASKING)
    view = (await first.press("U0ANN", "Approve"))["view"]
    await first.submit("U0ANN", view, {"ask:code": {"value": "A-1"}, "comment": {"value": "As agreed"}})
    assert await payloads(first, run_id) == 1
    assert await replayed(second, kept.sent[-1]) == 200
    assert await payloads(second, run_id) == 1
    (vote,) = await second.votes(run_id)
    assert (vote["by"], vote["answers"], vote["comment"]) == ("ann@acme.eu", {"code": "A-1"}, "As agreed")


async def test_a_press_that_was_undone_stays_undone_when_it_is_repeated(open_office: Open, tmp_path: Path) -> None:
    first, second, kept = await two_offices(open_office, tmp_path)
    run_id = await first.ask(stage=TWO)
    await first.press("U0ANN", "Approve")
    (shown,) = first.ephemerals("U0ANN")
    await first.press("U0ANN", "Undo vote", ts=shown.ts)
    assert [await replayed(second, press) for press in kept.sent] == [200, 200]
    assert await payloads(second, run_id) == 2
    assert [vote["counts"] for vote in await second.votes(run_id)] == [False]


def test_presses_are_distinguished_by_their_whole_payload() -> None:
    press = {"trigger_id": "1.2", "user": {"id": "U0ANN"}, "actions": [{"action_ts": "3.4"}]}
    assert press_of(press) == press_of(dict(reversed(press.items())))
    assert press_of(press) != press_of(press | {"trigger_id": "1.3"})
    assert press_of(press) != press_of(press | {"user": {"id": "U0BO"}})
    assert press_of({"user": {"id": "U0ANN"}}) is None
