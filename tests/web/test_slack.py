"""Deciding in Slack: real engine, real approval, real slack_sdk and bolt; the stand-in presses the buttons."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette

from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels import Channels
from approvals_bot.channels.slack.client import slack_client
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.out import SlackOut
from approvals_bot.config.workflow import Definition, pinned
from approvals_bot.engine import Engine
from approvals_bot.people import People, Person
from approvals_bot.playground import Playground, SeedApp, SeedChannel, SeedPerson, routes
from approvals_bot.playground.faults import Fault
from approvals_bot.testing import FakeClock
from approvals_bot.web.slack import SlackIn, slack_in, slack_routes, socket_mode

KEY = "a-key-of-the-tests-that-has-32-bytes!"
SECRET = "the stand-in's signing secret"
PEOPLE = (
    Person("ann@acme.eu", "Ann Ode", "U0ANN", zone="Europe/Berlin"),
    Person("bo@acme.eu", "Bo Lund", "U0BO"),
    Person("cy@acme.eu", "Cy Rus"),
    Person("di@acme.eu", "Di Oz", "U0DI"),
)
SEED = tuple(SeedPerson(one.name, one.address, one.slack or "U0CY") for one in PEOPLE)
DEPLOY: dict[str, Any] = {
    "workflow": {"id": "deploy", "title": "Deploy {{ service }} {{ version }}", "request": ["*"]},
    "fields": {"service": "string", "version": {"type": "string", "pinned": True}},
    "stage": [{"id": "go", "from": ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"], "need": 1}],
    "deliver": {"slack": "#deploys"},
    "clock": {"deadline": "4h"},
}


@dataclass
class Office:
    """The service, the stand-in, and the people who press."""

    engine: Engine
    clock: FakeClock
    playground: Playground
    slack: SlackIn
    http: aiohttp.ClientSession
    url: str

    async def ask(self, requester: str = "bo@acme.eu", **more: Any) -> str:
        """Open a request; its run's id, once its card stands in #deploys."""
        definition = Definition.model_validate(DEPLOY | more)
        workflow = approval.under("deploy", pinned(definition))
        fields = {"service": "api", "version": "2.1"}
        run = await self.engine.start(workflow, Opening(fields, requester))  # type: ignore[arg-type]
        await self.until(lambda: bool(self.cards))
        return run.id

    @property
    def cards(self) -> list[Any]:
        return [one for one in self.playground.workspace.messages.values() if not one.ephemeral_to]

    @property
    def card(self) -> Any:
        return self.cards[0]

    async def press(self, user: str, button: str, **more: Any) -> dict[str, Any]:
        body = {"user": user, "channel": self.card.channel, "ts": self.card.ts, "button": button} | more
        return dict(await self.call("/slack/click", body))

    async def submit(self, user: str, view: Mapping[str, Any], values: Any) -> dict[str, Any]:
        return dict(await self.call("/slack/submit", {"user": user, "view_id": view["id"], "values": values}))

    async def call(self, path: str, body: Any = None) -> Any:
        verb = "GET" if body is None else "POST"
        async with self.http.request(verb, f"{self.url}/playground{path}", json=body) as response:
            answer = await response.json(content_type=None)
            assert response.status == 200, answer
            return answer

    async def ended(self, run_id: str) -> dict[str, Any]:
        """The decision, once the run has ended and every copy shows it."""
        await self.until(lambda: "actions" not in json.dumps(self.card.blocks))
        record = await self.engine.wait(run_id, 5.0)
        assert record.status == "completed", record
        result: dict[str, Any] = record.result
        return result

    async def votes(self, run_id: str) -> list[Any]:
        record = await self.engine.record(run_id)
        assert record is not None
        return list(record.view["votes"])

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.01)

    def invite(self, *users: str) -> None:
        channel = self.playground.workspace.find_channel("#deploys")
        assert channel is not None
        channel.members.update(users)

    def fault(self, kind: str, method: str, **more: Any) -> None:
        self.playground.slack_faults.add(Fault(kind, method, **more))  # type: ignore[arg-type]


Open = Callable[..., Awaitable[Office]]


@pytest.fixture
async def open_office(tmp_path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def opened(app_token: str = "") -> Office:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            clock = FakeClock()
            playground = Playground(
                app=SeedApp("xoxb-test", SECRET, app_token),
                people=SEED,
                channels=(SeedChannel("deploys"),),
                base_url=url,
                events_url=f"{url}/slack/events",
                now=clock.now,
                signing_clock=lambda: clock.now().timestamp(),
                settle=0.3,
            )
            people = People(PEOPLE, {})
            await stack.enter_async_context(playground)
            client = await stack.enter_async_context(slack_client(token="xoxb-test", api_url=playground.api_url))
            slack_people = SlackPeople(client)
            channels = Channels(slack=SlackOut(client, slack_people, now=clock.now))
            web = Starlette(routes=list(routes(playground)))
            await stack.enter_async_context(Serving(web, listener))
            database = f"sqlite:///{tmp_path / 'runs.db'}"
            engine = await stack.enter_async_context(
                Engine.open(database, signing_keys=[KEY], base_url=url, clock=clock, resources=[people, channels])
            )
            slack = slack_in(
                engine=engine,
                client=client,
                slack_people=slack_people,
                people=people,
                base_url=url,
                link=lambda hook_id, address: f"{url}/decisions/of-{address}",
            )
            stack.push_async_callback(slack.aclose)
            web.router.routes += slack_routes(slack, signing_secret=SECRET, now=clock.now, engine=engine)
            if app_token:
                connection = await stack.enter_async_context(socket_mode(slack, app_token=app_token, client=client))
                async with asyncio.timeout(5):
                    while not await connection.is_connected():
                        await asyncio.sleep(0.01)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            return Office(engine, clock, playground, slack, http, url)

        yield opened


@pytest.fixture
async def office(open_office: Open) -> Office:
    return await open_office()


class Serving:
    """uvicorn in this loop, for as long as the context is open."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.listener = listener

    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        while not self.server.started:
            await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = True
        await self.task


# ── deciding ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_approve_decides_tells_the_person_and_takes_the_buttons_away(office: Office) -> None:
    run_id = await office.ask()
    answer = await office.press("U0ANN", "Approve")
    assert answer["status"] == 200
    assert answer["ephemeral"] == "Approved. Your vote decided it, and everyone is told."
    decision = await office.ended(run_id)
    assert (decision["decision"], decision["by"], decision["via"]) == ("approved", "ann@acme.eu", "slack")
    assert office.card.text == "✅ Approved by Ann Ode via Slack: Deploy api 2.1"


async def test_who_is_not_in_the_configuration_by_id_is_found_by_address(office: Office) -> None:
    run_id = await office.ask()
    await office.press("U0CY", "Approve")
    assert (await office.ended(run_id))["by"] == "cy@acme.eu"


async def test_reject_asks_for_the_reason_in_a_modal_and_takes_it_along(office: Office) -> None:
    run_id = await office.ask()
    answer = await office.press("U0ANN", "Reject")
    view = answer["view"]
    assert view["title"]["text"] == "Reject"
    assert await office.votes(run_id) == []
    await office.submit("U0ANN", view, {"comment": {"value": "Not on a Friday."}})
    decision = await office.ended(run_id)
    assert (decision["decision"], decision["comment"]) == ("rejected", "Not on a Friday.")


async def test_what_is_wrong_in_a_modal_is_said_in_its_place_and_the_draft_is_kept(office: Office) -> None:
    asking = [DEPLOY["stage"][0] | {"ask": {"budget_code": {"type": "string", "pattern": "[A-Z]{2}-[0-9]{4}"}}}]
    run_id = await office.ask(stage=asking)
    view = (await office.press("U0ANN", "Approve"))["view"]
    wrong = {"ask:budget_code": {"value": "none"}, "comment": {"value": "As agreed"}}
    answer = await office.submit("U0ANN", view, wrong)
    assert list(answer["errors"]) == ["ask:budget_code"]
    assert await office.votes(run_id) == []
    right = wrong | {"ask:budget_code": {"value": "AB-1234"}}
    await office.submit("U0ANN", view, right)
    decision = await office.ended(run_id)
    assert decision["answers"] == {"go": {"budget_code": "AB-1234"}}
    assert decision["comment"] == "As agreed"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("U0DI", "You are not one of the people who are asked here"),
        ("U0BO", "You asked for this yourself, so somebody else decides."),
        ("U0GUEST", "You are a guest here or come from another workspace"),
        ("U0STRANGER", "You are a guest here or come from another workspace"),
    ],
)
async def test_who_may_not_decide_is_told_so_alone_and_nothing_changes(office: Office, user: str, said: str) -> None:
    run_id = await office.ask()
    office.invite("U0GUEST", "U0STRANGER")
    before = (office.card.text, office.card.blocks)
    answer = await office.press(user, "Approve")
    assert answer["ephemeral"].startswith(said)
    assert (office.card.text, office.card.blocks) == before
    assert await office.votes(run_id) == []


async def test_a_guests_click_is_in_the_audit(office: Office) -> None:
    run_id = await office.ask()
    office.invite("U0GUEST")
    await office.press("U0GUEST", "Approve")
    lines = [line for line in await office.engine.audit_lines() if line.what == "act_refused"]
    assert [(line.who, line.run_id) for line in lines] == [("slack:U0GUEST", run_id)]


async def test_a_second_click_and_a_late_one_are_told_what_stands(office: Office) -> None:
    run_id = await office.ask(stage=[DEPLOY["stage"][0] | {"need": 2}])
    first = await office.press("U0ANN", "Approve")
    assert first["ephemeral"].startswith("Counted: 1 of 2.")
    again = await office.press("U0ANN", "Approve")
    assert again["ephemeral"].startswith("You have already approved this")
    assert len(await office.votes(run_id)) == 1


async def test_a_duplicated_click_counts_once(office: Office) -> None:
    run_id = await office.ask()
    office.fault("duplicate", "interaction")
    await office.press("U0ANN", "Approve")
    assert (await office.ended(run_id))["decision"] == "approved"
    assert len(await office.votes(run_id)) == 1


async def test_a_click_on_content_that_has_changed_is_not_counted(office: Office) -> None:
    run_id = await office.ask()
    blocks = json.loads(json.dumps(office.card.blocks).replace("choices:", "choices:0:stale-"))
    office.card.blocks[-2].update(block_id=next(b["block_id"] for b in blocks if "stale" in b.get("block_id", "")))
    answer = await office.press("U0ANN", "Approve")
    assert answer["ephemeral"].startswith("The request has changed since you looked")
    assert await office.votes(run_id) == []


# ── when Slack is not well ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_form_that_can_not_be_opened_is_offered_as_a_page(office: Office) -> None:
    await office.ask()
    office.fault("error", "views.open", error="expired_trigger_id")
    answer = await office.press("U0ANN", "Reject")
    assert answer["view"] is None
    assert answer["ephemeral"].endswith("/decisions/of-ann@acme.eu")


async def test_a_click_counts_and_is_answered_quickly_while_slacks_api_is_down(office: Office) -> None:
    run_id = await office.ask()
    await office.slack.identities.workspace()
    for method in ("users.info", "chat.update", "chat.postEphemeral", "views.publish"):
        office.fault("server_error", method, times=None)
    answer = await office.press("U0ANN", "Approve")
    assert answer["status"] == 200
    assert answer["ack_ms"] < 500
    assert [vote["by"] for vote in await office.votes(run_id)] == ["ann@acme.eu"]


async def test_who_is_known_to_slack_alone_is_asked_to_try_again_while_it_is_down(office: Office) -> None:
    run_id = await office.ask()
    await office.slack.identities.workspace()
    office.fault("server_error", "users.info")
    answer = await office.press("U0CY", "Approve")
    assert answer["ephemeral"].startswith("Slack could not tell us who you are just now")
    assert await office.votes(run_id) == []


@pytest.mark.parametrize(
    "change",
    [
        {"api_app_id": "A0OTHER"},
        {"team": {"id": "T0OTHER", "domain": "x"}, "user": {"id": "U0ANN", "team_id": "T0OTHER"}},
    ],
    ids=["B13 another app", "B12 another workspace"],
)
async def test_what_belongs_to_another_app_or_workspace_is_a_401(office: Office, change: dict[str, Any]) -> None:
    run_id = await office.ask()
    actions = next(block for block in office.card.blocks if block["type"] == "actions")
    payload = {
        "type": "block_actions",
        "api_app_id": office.playground.workspace.app.app_id,
        "team": {"id": office.playground.workspace.app.team_id, "domain": "play"},
        "user": {"id": "U0ANN"},
        "trigger_id": "1.2.3",
        "container": {"type": "message", "channel_id": office.card.channel, "message_ts": office.card.ts},
        "channel": {"id": office.card.channel, "name": "deploys"},
        "actions": [{"type": "button", **actions["elements"][0], "block_id": actions["block_id"], "action_ts": "1"}],
    }
    status, _ = await office.playground.outbound.post("interactive", payload | change, None)
    assert status == 401
    assert await office.votes(run_id) == []
    status, _ = await office.playground.outbound.post("interactive", payload, None)
    assert status == 200
    assert len(await office.votes(run_id)) == 1


async def test_an_answer_is_never_posted_to_somebody_elses_host(office: Office) -> None:
    votes = office.slack.votes
    assert votes._is_slacks("https://hooks.slack.com/actions/T/1/x")
    assert votes._is_slacks(f"{office.url}/playground/slack/response/1")
    for url in (
        "https://hooks.slack.com.evil.example/x",
        "http://hooks.slack.com/x",
        "http://169.254.169.254/",
        "file:///x",
    ):
        assert not votes._is_slacks(url)


# ── the same over a websocket, and the Home tab ───────────────────────────────────────────────────────────────────


async def test_socket_mode_uses_the_same_handlers(open_office: Open) -> None:
    office = await open_office(app_token="xapp-test")
    run_id = await office.ask()
    view = (await office.press("U0ANN", "Reject"))["view"]
    await office.submit("U0ANN", view, {"comment": {"value": "No."}})
    assert (await office.ended(run_id))["decision"] == "rejected"


async def test_the_home_tab_is_the_persons_inbox(office: Office) -> None:
    await office.ask()
    home = json.dumps(await office.call("/slack/home?user=U0ANN"))
    for words in ("Waiting for you", "Deploy api 2.1", "Asked by Bo Lund", '"vote:approve"'):
        assert words in home
    of_the_requester = json.dumps(await office.call("/slack/home?user=U0BO"))
    assert "Nothing waits for you." in of_the_requester
    assert "You asked for" in of_the_requester
