"""Stages with a clock and a delivery of their own."""

from __future__ import annotations

import json
import tomllib
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot import RunFailedError, request_approval, workflow
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.clock import Backoff
from approvals_bot.approvals.delivery_policy import Deliver, StageDeliver
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Place
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.cli.doctor import places_of
from approvals_bot.cli.show import simulated
from approvals_bot.people import People
from approvals_bot.web.charts import draw_stages
from tests.approvals.conftest import ANN, BO, CFO, CY, DI

PAY = """
[workflow]
id = "pay"
title = "Pay"
request = ["*"]
[[stage]]
id = "first"
from = ["@release-managers"]
[[stage]]
id = "second"
from = ["@finance"]
deadline = "2h"
remind = ["1h"]
on_deadline = "reject"
[stage.deliver]
slack = "#finance"
email = false
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "8h"
remind = ["4h"]
[[escalate]]
after = "90m"
to = ["@others"]
"""


def reminded(office: Any) -> list[str]:
    sent = [each.to for each in office.slack.sent if each.occasion == "reminder"]
    return [to.place for to in sent if isinstance(to, Place)]


async def test_a_stage_keeps_its_own_time_and_place(office: Any) -> None:
    async with office.open():
        opened = await office.ask(PAY, {}, by=DI)
        await office.clock.advance(timedelta(hours=4, minutes=1))
        assert reminded(office) == ["#deploys"]
        assert await opened.vote(ANN) == "counted"
        view = await opened.view()
        assert view.deadline == office.clock.now() + timedelta(hours=2)
        assert [each["what"] for each in explain(view)["next"]] == [
            "a reminder to people who still owe a vote",
            "escalation: @others are asked too",
            "deadline: then it is rejected",
        ]
        assert len(office.slack.to("#finance")) == 1
        assert not office.email.to(CFO)
        await office.clock.advance(timedelta(hours=1, minutes=1))
        assert reminded(office) == ["#deploys", "#finance"], "not where the first stage's card is"
        await office.clock.advance(timedelta(hours=1))
        view = await opened.view()
        assert (view.state, view.outcome.by) == ("rejected", "deadline")


async def test_the_other_stage_keeps_the_clock_of_the_file(office: Any) -> None:
    async with office.open():
        opened = await office.ask(PAY, {}, by=DI)
        await office.clock.advance(timedelta(hours=8, minutes=1))
        assert (await opened.view()).state == "expired"


@pytest.mark.parametrize(("own", "state"), [('"expire"', "expired"), ('"approve"\ni_know = true', "approved")])
async def test_a_deadline_ends_a_stage_as_it_says(office: Any, own: str, state: str) -> None:
    async with office.open():
        opened = await office.ask(PAY.replace('"reject"', own), {}, by=DI)
        assert await opened.vote(BO) == "counted"
        await office.clock.advance(timedelta(hours=2, minutes=1))
        assert (await opened.view()).state == state


async def test_a_stage_of_its_own_escalates_at_its_deadline(office: Any) -> None:
    text = PAY.replace('"reject"', '"escalate"').replace('after = "90m"', 'after = "3h"')
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(BO) == "counted"
        assert (await opened.view()).on_deadline == "then it escalates to Others"
        await office.clock.advance(timedelta(hours=2, minutes=1))
        assert "gil@acme.eu" in (await opened.view()).waiting_for
        await office.clock.advance(timedelta(hours=2))
        assert (await opened.view()).state == "expired"


async def test_returned_changes_have_the_time_of_their_stage(office: Any) -> None:
    text = PAY.replace('from = ["@finance"]', 'from = ["@finance"]\noutcomes = ["approve", "changes"]')
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(CY) == "counted"
        assert await opened.vote(CFO, "changes") in ("counted", "decided")
        assert (await opened.view()).deadline == office.clock.now() + timedelta(hours=2)


async def test_stages_alone_may_deliver(office: Any) -> None:
    text = PAY.replace('[deliver]\nslack = "#deploys"\nemail = true\n', "")
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert not office.slack.sent
        assert await opened.vote(ANN) == "counted"
        assert await opened.vote(CFO) == "decided"
        assert office.slack.to(DI)[-1].occasion == "outcome", "the requester is notified where the file delivers"
        assert card_of(await opened.view(), None, office.clock.now()).state == "approved"


async def test_a_simulation_has_the_times_of_each_stage(office: Any) -> None:
    definition = Definition.model_validate(tomllib.loads(PAY))
    said = await simulate(definition, Opening({}, DI), office.people, office.clock.now())
    assert {each["via"] for each in said["who"] if each["stage"] == "second"} == {"#finance"}
    assert [each["what"] for each in said["timers"]][-1] == "deadline: then it expires"
    assert said["stages"][0]["timers"] == said["timers"]
    assert said["stages"][1]["timers"][-1]["what"] == "deadline: then it is rejected"
    shown = simulated("pay", said, office.clock.now())
    assert shown.index("then it exp") < shown.index("Once stage second is open") < shown.index("then it is rejected")
    first, second = draw_stages(definition, office.clock.now(), People().person).stages
    assert (first.times, second.times[-1]) == ((), "After 2 hours: deadline: then it is rejected")


def test_a_stage_says_only_what_differs() -> None:
    definition = Definition.model_validate(tomllib.loads(PAY))
    assert Definition.model_validate(json.loads(json.dumps(pinned(definition)))) == definition
    first, second = map(definition.in_stage, definition.stage)
    assert first is definition
    assert (second.clock.deadline, second.clock.reminders()) == (timedelta(hours=2), (timedelta(hours=1),))
    assert second.deliver == Deliver(slack="#finance")
    other = definition.in_stage(Stage(id="x", from_=["@a"], deadline="3h"))
    assert (other.clock.reminders(), other.deliver) == ((), definition.deliver), "those at 4h are too late"
    own = Stage(id="x", from_=["@a"], remind=Backoff(first="10m", max=2), deliver=StageDeliver(dm=True, chat="#x"))
    other = definition.in_stage(own)
    assert (other.deliver.dm, other.deliver.slack, other.deliver.channels) == (True, "#deploys", {"chat": "#x"})
    assert Deliver(chat=True).but(StageDeliver(chat=False)).is_silent
    assert Deliver(chat=True).channels == {"chat": True}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"reject"', '"approve"', "silence would approve"),
        ('remind = ["1h"]', 'remind = ["2h"]', "would never be sent"),
        ('deadline = "8h"\nremind = ["4h"]', "none = true", ""),
        ('deadline = "2h"\n', "", ""),
    ],
)
def test_times_of_a_stage_make_sense(old: str, new: str, message: str) -> None:
    text = PAY.replace(old, new)
    if message:
        with pytest.raises(ValueError, match=message):
            Definition.model_validate(tomllib.loads(text))
        return
    Definition.model_validate(tomllib.loads(text))
    with pytest.raises(ValueError, match="this needs a deadline"):
        Definition.model_validate(tomllib.loads(text.replace('deadline = "8h"\n', "").replace('deadline = "2h"\n', "")))


BY_TEAM = PAY.replace("[[stage]]", '[fields]\nteam = { type = "enum", values = ["web", "data"] }\n[[stage]]', 1)
BY_TEAM = BY_TEAM.replace('"#deploys"', '"#team-{{ team }}"').replace('"#finance"', '"#pay-{{team}}"')


async def test_a_card_goes_to_the_channel_of_its_value(office: Any) -> None:
    async with office.open():
        opened = await office.ask(BY_TEAM, {"team": "web"}, by=DI)
        await opened.act(kind="edit", by=DI, fields={"team": "data"})
        assert await opened.vote(ANN) == "counted"
        asked = [f"{each.occasion} {each.to.place}" for each in office.slack.sent if isinstance(each.to, Place)]
        assert sorted(asked) == ["change #team-data", "change #team-web", "request #pay-data", "request #team-web"]
    definition = Definition.model_validate(tomllib.loads(BY_TEAM))
    said = await simulate(definition, Opening({"team": "web"}, DI), office.people, office.clock.now())
    assert {each["via"].split(",")[0] for each in said["who"]} == {"#team-web", "#pay-web"}
    assert set(places_of("slack", [definition])) == {"#team-web", "#team-data", "#pay-web", "#pay-data"}


@pytest.mark.parametrize("on_change", ["reset", "keep"])
async def test_an_edit_moves_the_card_and_the_old_one_says_where(office: Any, on_change: str) -> None:
    def shown(where: str) -> tuple[str, bool]:
        card = office.slack.newest(where).card
        return card.moved_to, bool(card.choices)

    text = BY_TEAM.replace("[[stage]]", f'[policy]\non_change = "{on_change}"\n[[stage]]', 1)
    async with office.open():
        opened = await office.ask(text, {"team": "web"}, by=DI)
        await opened.act(kind="edit", by=DI, fields={"team": "data"})
        assert shown("#team-web") == ("#team-data", False)
        card = office.slack.to("#team-data")[0].card
        assert (card.moved_to, bool(card.choices)) == ("", True)
        assert [each.mention for each in office.slack.sent if each.thread is not None] == [()]  # only where it is now
        await office.clock.advance("1h")
        await opened.act(kind="edit", by=DI, fields={"team": "web"})
        assert (shown("#team-web"), shown("#team-data")) == (("", True), ("#team-web", False))
        assert await opened.vote(ANN) == "counted"  # the next stage opens, in a place of its own
        assert await opened.vote(CFO) == "decided"
        assert {shown(place) for place in ("#team-web", "#team-data", "#pay-web")} == {("", False)}


@workflow(name="posts_by_team")
async def posts_by_team() -> None:
    stage = Stage(id="go", from_=["ann@acme.eu"])
    await request_approval("Go", stages=[stage], fields={"team": "web"}, deliver=Deliver(slack="#{{ team }}"))


async def test_a_program_names_channels_that_are_known(office: Any) -> None:
    async with office.open():
        run = await office.engine.start(posts_by_team)
        with pytest.raises(RunFailedError, match=r"deliver\.slack: team is no enum"):
            await run.return_value()
