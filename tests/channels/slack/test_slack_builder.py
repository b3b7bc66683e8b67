"""Steps of Workflow Builder: one request an execution, and one completion, whatever Slack and restarts repeat."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.acts import Vote, Withdraw
from approvals_bot.approvals.card_model import ChoiceName
from approvals_bot.approvals.follow_ups import AWAITED_BY
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Channels
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels.slack.builder import SlackSteps
from approvals_bot.channels.slack.channel import slack_in, slack_routes
from approvals_bot.channels.slack.client import SlackClient
from approvals_bot.channels.slack.manifest import SCOPES, function, step_name
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.post import SlackOut
from approvals_bot.config.checks import check_definition
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People
from approvals_bot.playground import SeedApp
from approvals_bot.playground.slack.functions import executed
from approvals_bot.service.act import perform
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.testing import FakeClock
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, FakeSlack, run_fake_slack
from tests.support.slack_office import KEY, PEOPLE

FILE: dict[str, Any] = {
    "workflow": {
        "id": "deploy",
        "title": "Deploy {{ service }} {{ version }}",
        "request": ["bo@acme.eu", "cy@acme.eu"],
    },
    "fields": {
        "service": "string",
        "version": {"type": "string", "pinned": True},
        "count": "integer",
        "urgent": "boolean",
    },
    "stage": [{"id": "go", "from": ["ann@acme.eu", "di@acme.eu"]}],
    "deliver": {"builder": True},
    "clock": {"deadline": "4h"},
}
STEPS = Definition.model_validate(FILE)
IN_FOLDER = STEPS.in_folder("team-a")
INPUTS = {"requester": "U0BO", "service": "api", "version": "2.1", "count": 3, "urgent": True}


class House:
    """The service on one store, and the fake Slack that it is restarted beside."""

    def __init__(self, fake: FakeSlack, database: str, clock: FakeClock) -> None:
        self.fake, self.database, self.clock = fake, database, clock
        self.definition = STEPS

    @property
    def executions(self) -> Mapping[str, Any]:
        return self.fake.playground.workspace.executions

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Engine]:
        client = SlackClient(token=BOT_TOKEN, api_url=self.fake.playground.api_url)
        async with self._engine(client) as engine:
            yield engine
        await client.aclose()  # after the engine, whose steps may call until it has ended

    @asynccontextmanager
    async def _engine(self, client: SlackClient) -> AsyncIterator[Engine]:
        slack_people = SlackPeople(client, monotonic=lambda: self.clock.now().timestamp())
        people = People(PEOPLE, {}, slack_group=slack_people.members, in_workspace=slack_people.has_member)
        listed = Listed(approval.under(self.definition.id, pinned(self.definition)), self.definition)
        ways = Channels({"slack": SlackOut(client, slack_people, now=self.clock.now)})
        async with Engine.open(
            self.database, signing_keys=[KEY], base_url=self.fake.url, clock=self.clock, resources=[people, ways]
        ) as engine:
            slack = slack_in(
                engine=engine,
                client=client,
                slack_people=slack_people,
                people=people,
                base_url=self.fake.url,
                workflows=Catalog({self.definition.id: listed}),
            )
            engine.resources[SlackSteps] = slack.steps
            routes = slack_routes(slack, signing_secret=SIGNING_SECRET, now=self.clock.now, engine=engine)
            self.fake.web.router.routes += routes
            await slack.desk.identities.learn(engine)
            try:
                yield engine
            finally:
                self.fake.web.router.routes.remove(routes[0])
                await slack.aclose()

    async def run(self, times: int = 1, **inputs: Any) -> str:
        """Run the step, with the event delivered so often. Returns the execution's id."""
        running, ack = await self.fake.playground.person.run_step(step_name(self.definition.id), INPUTS | inputs)
        await self.deliver(running.id, times - (ack.status == 200))
        return running.id

    async def deliver(self, execution: str, times: int) -> None:
        """Deliver the event so often; again if the service was too slow to acknowledge it, as Slack does."""
        person = self.fake.playground.person
        payload = person.payloads.event(executed(self.fake.playground.workspace, self.executions[execution]))
        while times > 0:
            ack = await person.outbound.send("events_api", payload)
            times -= ack.status == 200

    async def run_many(self, many: int) -> list[str]:
        gate = asyncio.Semaphore(4)

        async def one() -> str:
            async with gate:
                return await self.run(2)

        return await asyncio.gather(*(one() for _ in range(many)))

    async def requests(self, engine: Engine) -> dict[str, Request]:
        """Return the open requests by their execution."""
        page = await engine.runs(self.definition.id, is_open=True, limit=200)
        shown = [(str(each.attributes[AWAITED_BY]), each.parts) for each in page.records if each.parts]
        return {token.split()[-1]: Request.model_validate(parts[0]) for token, parts in shown}

    async def request(self, engine: Engine, execution: str) -> Request:
        return (await self.open_requests(engine, [execution]))[execution]

    async def open_requests(self, engine: Engine, executions: Iterable[str]) -> dict[str, Request]:
        """Wait until the requests of all these executions can be decided."""
        found: dict[str, Request] = {}
        async with asyncio.timeout(60):
            while not all(one in found and found[one].hook_id for one in executions):
                await engine.settle()
                found = await self.requests(engine)
        return found

    async def ended(self, execution: str) -> Any:
        async with asyncio.timeout(60):
            while self.executions[execution].state == "running":
                await asyncio.sleep(0.01)
        return self.executions[execution]

    def calls(self) -> Counter[str]:
        return Counter(
            f"{seen.method} {seen.answer}"
            for seen in self.fake.playground.web_api.seen
            if seen.method.startswith("functions.")
        )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = FakeClock()
    app = SeedApp(
        BOT_TOKEN,
        SIGNING_SECRET,
        scopes=SCOPES,
        functions={step_name(one.id): function(one) for one in (STEPS, IN_FOLDER)},
    )
    async with run_fake_slack(app=app, now=clock.now, signing_clock=lambda: clock.now().timestamp()) as fake:
        yield House(fake, f"sqlite:///{tmp_path / 'runs.db'}", clock)


async def test_a_step_opens_a_request_and_gets_its_outcome(house: House) -> None:
    async with house.open() as engine:
        execution = await house.run()
        request = await house.request(engine, execution)
        assert (request.requester, request.title) == ("bo@acme.eu", "Deploy api 2.1")
        assert request.fields == {"service": "api", "version": "2.1", "count": 3, "urgent": True}
        assert house.executions[execution].state == "running"
        await perform(engine, request.hook_id, Vote("ann@acme.eu", comment="Go"))
        ended = await house.ended(execution)
    outputs = {"outcome": "approved", "by": "ann@acme.eu", "comment": "Go", "run_id": request.id}
    assert ended.outputs == outputs | {"url": f"{house.fake.url}/requests/{request.id}"}


async def test_a_workflow_of_a_folder_is_a_step(house: House) -> None:
    house.definition = IN_FOLDER
    async with house.open() as engine:
        execution = await house.run()
        request = await house.request(engine, execution)
        assert (request.workflow, house.executions[execution].function) == ("team-a/deploy", "ask_team-a__deploy")
        await perform(engine, request.hook_id, Vote("ann@acme.eu"))
        assert (await house.ended(execution)).outputs["outcome"] == "approved"


async def test_every_end_completes_the_step(house: House) -> None:
    async with house.open() as engine:
        ids = [await house.run() for _ in range(4)]
        rejected, withdrawn, cancelled, expired = ids
        found = {one: await house.request(engine, one) for one in ids}
        await perform(engine, found[rejected].hook_id, Vote("di@acme.eu", "reject", comment="No"))
        await perform(engine, found[withdrawn].hook_id, Withdraw("bo@acme.eu"))
        await engine.cancel(found[cancelled].id, "wrong")
        for one in (rejected, withdrawn, cancelled):
            await house.ended(one)
        await house.clock.advance("4h 1s")
        await house.ended(expired)
    outcomes = {one: house.executions[one].outputs["outcome"] for one in ids}
    assert outcomes == {rejected: "rejected", withdrawn: "withdrawn", cancelled: "cancelled", expired: "expired"}
    assert house.executions[rejected].outputs["comment"] == "No"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"requester": "U0DI"}, "You can't request this. No request was made."),
        ({"requester": "U0GUEST"}, "The requester isn't a member of this Slack workspace, so no request was made."),
        ({"requester": "U0STRANGER"}, "The requester isn't a member of this Slack workspace, so no request was made."),
        ({"version": " "}, "No request was made. Version: is required."),
    ],
)
async def test_what_cannot_be_opened_fails_in_words(house: House, inputs: Mapping[str, Any], said: str) -> None:
    async with house.open() as engine:
        ended = await house.ended(await house.run(2, **inputs))
        await engine.settle()
        assert (await engine.runs("deploy")).records == []
    assert (ended.state, ended.error) == ("failed", said)


async def test_a_workflow_that_is_no_step_any_more_opens_nothing(house: House) -> None:
    house.definition = Definition.model_validate(FILE | {"deliver": {}})
    async with house.open():
        ended = await house.ended(await house.run())
    assert ended.error == "This form is no longer available. No request was made."


async def test_slack_that_does_not_say_who_asks_is_asked_again(house: House) -> None:
    async with house.open() as engine:
        house.fake.fault("error", "users.info", error="internal_error")
        execution = await house.run()
        await engine.settle()
        await house.clock.advance("1m")
        assert (await house.request(engine, execution)).requester == "bo@acme.eu"


async def test_a_completion_is_sent_until_slack_takes_it(house: House) -> None:
    """Also if its answer is lost, and after the app's token was refused."""
    async with house.open() as engine:
        for kind, more in (("error", {"error": "token_revoked"}), ("drop_after", {"nth": 2})):
            house.fake.fault(kind, "functions.completeSuccess", **more)
        execution = await house.run()
        request = await house.request(engine, execution)
        await perform(engine, request.hook_id, Vote("ann@acme.eu"))
        async with asyncio.timeout(60):
            while house.calls()["functions.completeSuccess execution_not_in_running_state"] == 0:
                await engine.settle()
                await house.clock.advance("6m")
        (step,) = (await engine.runs("workflow_builder_step")).records
        assert (await engine.wait(step.id, 5.0)).status == "completed"
    assert house.executions[execution].state == "completed"


async def test_slack_goes_on_with_the_decision_not_the_last_card(house: House) -> None:
    """A hundred cards in one channel take minutes, which no step waits for. Slack lets no card be edited here."""
    house.definition = Definition.model_validate(FILE | {"deliver": {"builder": True, "slack": "#deploys"}})
    async with house.open() as engine:
        house.fake.fault("rate_limited", "chat.update", retry_after=600, times=None)
        execution = await house.run(2)
        request = await house.request(engine, execution)
        await perform(engine, request.hook_id, Vote("ann@acme.eu"))
        assert (await house.ended(execution)).outputs["outcome"] == "approved"
        (step,) = (await engine.runs("workflow_builder_step")).records
        assert (await engine.wait(step.id, 5.0)).status == "completed"
        assert list(await house.requests(engine)) == [execution]  # its run still has a card to edit
    assert house.calls() == {"functions.completeSuccess ok": 1}


async def test_a_step_that_a_rule_decides_completes_at_once(house: House) -> None:
    house.definition = Definition.model_validate(FILE | {"auto": [{"when": "count < 5", "decision": "reject"}]})
    async with house.open():
        ended = await house.ended(await house.run(2))
    assert (ended.outputs["outcome"], ended.outputs["by"]) == ("rejected", "rule:1")
    assert house.calls() == {"functions.completeSuccess ok": 1}


async def test_only_a_decision_completes_a_step(house: House) -> None:
    async with house.open() as engine:
        execution = await house.run()
        request = await house.request(engine, execution)
        (step,) = (await engine.runs("workflow_builder_step")).records
        (hook,) = [event.data["token"] for event in await engine.events(step.id) if event.type == "hook_created"]
        await engine.resume_hook(hook, None)  # by somebody with a key for all
        await engine.settle()
        assert house.executions[execution].state == "running"
        await perform(engine, request.hook_id, Vote("ann@acme.eu"))
        assert (await house.ended(execution)).outputs["outcome"] == "approved"
    assert house.calls() == {"functions.completeSuccess ok": 1}


async def test_a_stopped_step_leaves_its_request_open(house: House) -> None:
    async with house.open() as engine:
        execution = await house.run()
        request = await house.request(engine, execution)
        (step,) = (await engine.runs("workflow_builder_step")).records
        await engine.cancel(step.id, "by an operator")
        ended = await house.ended(execution)
        assert ended.error == "An operator stopped waiting for the request."
        assert (await house.request(engine, execution)).id == request.id


async def test_a_hundred_steps_sent_twice_survive_a_restart(house: House) -> None:
    """Acceptance 34: 100 requests, 100 completions."""
    async with house.open() as engine:
        ids = await house.run_many(50)
        found = await house.open_requests(engine, ids[:10])
        await asyncio.gather(*(perform(engine, found[one].hook_id, Vote("ann@acme.eu")) for one in ids[:10]))
    async with house.open() as engine:
        ids += await house.run_many(50)
        await house.deliver(ids[20], 1)
        await house.deliver(ids[5], 1)
        found = await house.open_requests(engine, ids[10:])
        for number, one in enumerate(ids[10:]):
            choice: ChoiceName = "approve" if number % 2 else "reject"
            await perform(engine, found[one].hook_id, Vote("di@acme.eu", choice, comment="Fine"))
        for one in ids:
            await house.ended(one)
        assert len((await engine.runs("deploy", limit=200)).records) == 100
        assert len((await engine.runs("workflow_builder_step", limit=200)).records) == 100
    assert house.calls() == {"functions.completeSuccess ok": 100}
    assert len({one.outputs["run_id"] for one in house.executions.values()}) == 100


@pytest.mark.parametrize(
    ("changed", "path", "said"),
    [
        ({"workflow": FILE["workflow"] | {"key": "{{ service }}"}}, "deliver.builder", "can't have a key"),
        ({"workflow": FILE["workflow"] | {"on_behalf_of": "required"}}, "deliver.builder", "on_behalf_of"),
        ({"fields": FILE["fields"] | {"requester": "string"}}, "fields.requester", "rename the field"),
        ({"fields": FILE["fields"] | {"plan": "file"}}, "fields.plan", "has no files"),
        ({}, "deliver.builder", "Slack is not configured"),
    ],
)
def test_a_step_that_could_not_work_is_a_load_error(changed: dict[str, Any], path: str, said: str) -> None:
    server = {"base_url": "http://127.0.0.1:8000", "signing_keys": ["env:KEY"]}
    service = ServiceSettings.model_validate({"server": server}, context={"env": {"KEY": "k" * 40}, "folder": "."})
    found = check_definition(Definition.model_validate(FILE | changed), service)
    assert [one.message for one in found if ".".join(map(str, one.path)) == path and said in one.message]
