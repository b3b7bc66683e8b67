"""Follow-ups of the opening and of stages, and conditions of follow-ups."""

from __future__ import annotations

import tomllib
from contextlib import nullcontext
from typing import Any

import pytest

from approvals_bot.approvals.conditions import ConditionError
from approvals_bot.approvals.delivery_policy import Actions
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Called, Refused, TryAgain
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.resolution import with_groups
from approvals_bot.approvals.templates import TemplateError, channels_of, check
from approvals_bot.approvals.workflow import approval
from approvals_bot.cli.doctor import places_of
from approvals_bot.config.delivery_checks import channel_faults, follow_up_condition
from tests.approvals.conftest import ANN, BO, DI, OpenedRequest

FILE = """
[workflow]
id = "events"
title = "Spend {{ amount }}"
request = ["*"]
[fields]
team = { type = "enum", values = ["sales", "ops"] }
amount = "integer"
[[auto]]
when = "amount < 0"
decision = "reject"
[[stage]]
id = "lead"
title = "Team lead"
from = ["ann@acme.eu"]
[stage.ask]
code = { type = "string", required = false }
[[stage]]
id = "money"
title = "Finance"
when = "amount > 10"
from = ["bo@acme.eu"]
[deliver]
slack = "#cards"
[[on.opened]]
slack = "#{{ team }}"
text = "{{ request.title }} by {{ requester.name }}"
[[on.opened]]
http = "ledger"
json = { id = "{{ request.id }}" }
when = 'team == "sales" and not requester.in("@sre")'
[[on.stage]]
dm = "requester"
text = "{{ stage.title }} ({{ stage.id }}) has it"
[[on.stage]]
http = "ledger"
json = { stage = "{{ stage.id }}", code = "{{ answer_of('lead', 'code') }}" }
when = 'stage.id == "money" and answer_of("lead", "code") != "none"'
[[on.ended]]
http = "ledger"
json = { outcome = "{{ decision.outcome }}" }
when = 'outcome == "approved" and answer_of("lead", "code") == "A1"'
[[on.ended]]
http = "ledger"
json = { outcome = "no" }
when = 'outcome in ["rejected", "expired"]'
"""


def file(text: str = FILE) -> Definition:
    return Definition.model_validate(tomllib.loads(text), context={})


async def opened(office: Any, definition: Definition, **fields: Any) -> OpenedRequest:
    opening = await with_groups(definition, Opening({"team": "sales", **fields}, DI), office.people)
    run = await office.engine.start(approval.under(definition.id, pinned(definition)), opening)
    await office.settle()
    return OpenedRequest(office, run)


def texts(office: Any) -> list[tuple[str, str]]:
    return [(place, sent.text) for place in ("#sales", "#ops", DI) for sent in office.slack.to(place) if sent.text]


async def test_each_event_has_its_follow_ups_once(office: Any) -> None:
    """The cards don't wait for them, and a restart repeats none."""
    definition = file(FILE.replace("@sre", "@finance"))
    async with office.open():
        one = await opened(office, definition, amount=11)
        assert [sent.text for sent in office.slack.to("#cards")] == [""]
        assert texts(office) == [("#sales", "Spend 11 by Di Ops"), (DI, "Team lead (lead) has it")]
        assert [body for _, _, body in office.targets.calls] == [{"id": one.run.id}]
    async with office.open():
        await office.settle()
        assert await one.vote(ANN, answers={"code": "A1"}) == "counted"
        assert texts(office)[1:] == [(DI, "Team lead (lead) has it"), (DI, "Finance (money) has it")]
        assert await one.vote(BO) == "decided"
        await office.settle()
    ids = {event_id for _, event_id, _ in office.targets.calls}
    assert len(ids) == 3
    assert [body for _, _, body in office.targets.calls] == [
        {"id": one.run.id},
        {"stage": "money", "code": "A1"},
        {"outcome": "approved"},
    ]
    assert len(texts(office)) == 3


async def test_a_condition_that_does_not_hold_runs_nothing(office: Any) -> None:
    """For the requester, who is in @sre, and in doubt: nobody gave an answer."""
    async with office.open():
        one = await opened(office, file(), amount=11)
        assert office.targets.calls == []
        assert await one.vote(ANN) == "counted"
        assert await one.vote(BO) == "decided"
        await office.settle()
        assert office.targets.calls == []
        rules = {rule["rule"].partition(" when ")[0]: rule for rule in explain(await one.view())["rules"]}
        assert (rules["on.opened 2"]["applies"], rules["on.stage 2"]["because"]) == (False, "the code is not given")
        assert rules["on.approved 1"]["values"] == {"outcome": "approved", 'answer_of("lead", "code")': None}
        rejected = await opened(office, file(), amount=11)
        assert await rejected.vote(ANN, "reject") == "decided"
        await office.settle()
        assert [body for _, _, body in office.targets.calls] == [{"outcome": "no"}]


async def test_a_request_that_a_rule_decides_has_opened_too(office: Any) -> None:
    async with office.open():
        one = await opened(office, file(), amount=-1, team="ops")
        await office.settle()
        assert (await one.view()).state == "rejected"
        assert texts(office) == [("#ops", "Spend -1 by Di Ops")]


async def test_a_follow_up_that_fails_ends_nothing(office: Any) -> None:
    text = FILE.replace(' and not requester.in("@sre")', "")
    text = text.replace('"{{ stage.title }}', '"{{ 1 / (amount - 11) }}{{ stage.title }}')
    office.targets.answers = [TryAgain("busy"), Refused("gone")]
    async with office.open():
        one = await opened(office, file(text), amount=11)
        await office.clock.advance("1m")
        failed = [(each.what, each.state) for each in (await one.view()).follow_ups]
        assert failed == [("message in #sales", "done"), ("call ledger", "failed"), ("message", "failed")]
        assert (await one.view()).state == "waiting"
        office.targets.answers = [Called(200)] * 2
        assert [await one.vote(ANN, answers={"code": "A1"}), await one.vote(BO)] == ["counted", "decided"]


async def test_a_stage_that_opens_again_has_them_again(office: Any) -> None:
    async with office.open():
        one = await opened(office, file(), amount=11)
        assert await one.vote(ANN) == "counted"
        await one.act(kind="edit", by=DI, fields={"amount": 13})
        assert [text for place, text in texts(office) if place == DI][-2:] == [
            "Finance (money) has it",
            "Team lead (lead) has it",
        ]


def test_each_channel_of_an_enum_is_known_before() -> None:
    assert channels_of("#{{ team }}", file().fields) == ["#sales", "#ops"]
    assert places_of("slack", [file()]) == {"#cards": "events", "#sales": "events", "#ops": "events"}


def test_the_file_of_old_events_is_the_same() -> None:
    kept = pinned(file(FILE[: FILE.index("[[on.opened]]")]))
    assert kept["on"] == {"approved": [], "rejected": [], "expired": [], "cancelled": [], "ended": []}
    assert Definition.model_validate(pinned(file())) == file()


@pytest.mark.parametrize("event", ["opened", "stage"])
def test_there_is_nothing_to_resume_before_the_decision(event: str) -> None:
    with pytest.raises(ValueError, match="no decision yet"):
        Actions.model_validate({event: [{"resume": True}]})


@pytest.mark.parametrize(
    ("event", "when", "message", "meant"),
    [
        ("ended", "outcom == 'approved'", "no field is called outcom", "outcome"),
        ("ended", "outcome == 'aproved'", "is not a value of outcome", "approved"),
        ("opened", "outcome == 'approved'", "outcome is not known before the decision", ""),
        ("stage", "outcome == 'approved'", "outcome is not known before the decision", ""),
        ("opened", "answer_of('lead', 'code') == 'x'", "no stage is called lead", ""),
        ("stage", "answer_of('led', 'code') == 'x'", "no stage is called led", "lead"),
        ("stage", "answer_of('lead', 'cod') == 'x'", "the stage lead doesn't ask for cod", "code"),
        ("stage", "answer_of('lead', 'code') > 3", "mixes values of different types", ""),
        ("stage", "answer_of(lead, 'code') == 'x'", "write answer_of(", ""),
        ("stage", "stage.id == 'mony'", "is not a value of stage.id", "money"),
        ("ended", "stage.id == 'money'", "stage.id is known in [[on.stage]] only", ""),
        ("ended", "amount", "must be true or false", ""),
    ],
)
def test_conditions_of_follow_ups_are_checked(event: str, when: str, message: str, meant: str) -> None:
    with pytest.raises(ConditionError) as refused:
        follow_up_condition(("on", event, 0, "when"), when, file())
    assert message in str(refused.value)
    assert refused.value.suggestion == meant


@pytest.mark.parametrize(
    ("channel", "message", "meant"),
    [
        ("#{{ team }}", "", ""),
        ("#deploys", "", ""),
        ("C0DEPLOYS", "", ""),
        ("deploys", '"deploys" is not a channel of Slack', ""),
        ("#Deploys", '"#Deploys" is not a channel of Slack', ""),
        ("{{ team }}", '"sales" is not a channel of Slack', ""),
        ("#{{ amount }}", "amount is no enum", ""),
        ("#{{ tem }}", "no field is called tem", "#{{ team }}"),
        ("#{{ later }}", "later may be missing", ""),
    ],
)
def test_channels_of_follow_ups_are_checked(channel: str, message: str, meant: str) -> None:
    later = 'later = { type = "enum", values = ["x"], required = false }\n'
    definition = file(FILE.replace("amount = ", f"{later}amount = "))
    found = [*channel_faults(("on", "ended", 0, "slack"), channel, definition)]
    assert [(each.message[: len(message)], each.suggestion) for each in found] == [(message, meant)] * bool(message)


@pytest.mark.parametrize(
    ("event", "text", "message"),
    [
        ("opened", "{{ request.title }}", ""),
        ("opened", "{{ decision.by }}", "decision is not known yet"),
        ("opened", "{{ stage.title }}", "nothing is called stage"),
        ("opened", "{{ answer_of('lead', 'code') }}", "answer_of is not known yet"),
        ("opened", "{{ answers.lead.code }}", "answers is not known yet"),
        ("stage", "{{ answers.lead.code }}{{ stage.id }}", ""),
        ("stage", "{{ stage }}", "write stage.id or stage.title"),
        ("stage", "{{ stage.name }}", "write stage.id or stage.title"),
    ],
)
def test_texts_of_events_name_what_is_known(event: Any, text: str, message: str) -> None:
    refused = pytest.raises(TemplateError, match=message) if message else nullcontext()
    with refused:
        check(text, file(), of_decision=True, event=event)
