"""Stages with alternatives: either these seats or those are enough."""

from __future__ import annotations

import json
import tomllib
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.ballot import missing_voters, stage_status
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening, RequestSeat
from approvals_bot.approvals.resolution import find_undecidable_stage
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.stage_policy import Alternative, Seat, Stage
from approvals_bot.cli.show import simulated
from approvals_bot.people import People
from approvals_bot.people.absences import Absence
from approvals_bot.people.own import OwnSettings
from approvals_bot.service.read import api_request
from approvals_bot.web.charts import draw_stages
from tests.approvals.conftest import ANN, BO, CFO, CY, DI, START
from tests.support.ballots import people, stage_of

FIN = "fin@acme.eu"

EITHER = """
[workflow]
id = "either"
title = "Either"
request = ["*"]
[fields]
risk = { type = "enum", values = ["low", "high"], default = "low" }
[policy]
reject = 2
[[stage]]
id = "go"
[[stage.any]]
seats = [{ from = ["@release-managers"], need = 2 }, { from = ["@live"], when = 'risk == "high"' }]
[[stage.any]]
seats = [{ from = ["@finance"] }]
[deliver]
email = true
[clock]
deadline = "4h"
remind = ["30m"]
[[escalate]]
after = "1h"
to = ["@others"]
mode = "replace"
"""


async def test_one_alternative_is_enough(office: Any) -> None:
    async with office.open():
        opened = await office.ask(EITHER, {}, by=DI)
        view = await opened.view()
        assert view.waiting_for == (ANN, BO, CY, CFO, FIN)
        card = card_of(view, ANN, office.clock.now())
        assert card_text.progress(card) == "0 of 2 or 0 of 1"
        said = await opened.act(kind="vote", by=ANN, choice="approve")
        assert (said["verdict"], said["text"]) == (
            "counted",
            "Counted: 1 of 2 from Release managers, or 0 of 1 from Finance.",
        )
        assert await opened.vote(BO, "reject") == "counted"
        said = await opened.act(kind="vote", by=BO, choice="take_back")
        assert said["text"].endswith("1 of 2 from Release managers, or 0 of 1 from Finance so far.")
        view = await opened.view()
        assert card_text.seats(card_of(view, None, office.clock.now()).stages[0]) == [
            "Either Release managers: 1 of 2 (Ann Ode)",
            "or Finance: 0 of 1",
        ]
        assert api_request(view)["quorum"] == [
            {"have": 1, "need": 2, "seats": [{"label": "Release managers", "need": 2, "by": [ANN]}]},
            {"have": 0, "need": 1, "seats": [{"label": "Finance", "need": 1, "by": []}]},
        ]
        assert [(rule["rule"], rule["values"], rule["because"]) for rule in explain(view)["rules"]] == [
            (
                "stage go: 2 of Release managers",
                {"have": 1, "need": 2},
                "Waiting for one more from Release managers.",
            ),
            ("stage go: or 1 of Finance", {"have": 0, "need": 1}, "Waiting for one more from Finance."),
        ]
        assert await opened.vote(CFO) == "decided"
        assert (await opened.view()).state == "approved"


async def test_a_person_fills_one_seat_of_each_alternative(office: Any) -> None:
    """Bo and Cy are in both lists of the first; one of them can't be both."""
    async with office.open():
        opened = await office.ask(EITHER.replace("need = 2", "need = 1"), {"risk": "high"}, by=DI)
        assert await opened.vote(BO) == "counted"
        assert (await opened.view()).waiting_for == (ANN, CY, CFO, FIN)
        assert await opened.vote(ANN) == "decided"


async def test_a_stage_ends_once_no_alternative_can_be_reached(office: Any) -> None:
    async with office.open():
        opened = await office.ask(EITHER.replace("reject = 2", 'reject = "all"'), {}, by=DI)
        assert await opened.vote(ANN, "reject") == "counted"
        assert await opened.vote(BO, "reject") == "counted"
        view = await opened.view()
        assert (view.state, view.waiting_for) == ("waiting", (CFO, FIN)), "two of three are out of reach"
        await office.clock.advance(timedelta(minutes=31))
        reminded = [sent.to.person.address for sent in office.email.sent if sent.occasion == "reminder"]
        assert sorted(reminded) == [CFO, FIN]
        assert await opened.vote(CFO, "reject") == "counted"
        assert await opened.vote(FIN, "reject") == "decided"
        assert (await opened.view()).state == "rejected"


async def test_an_alternative_without_seats_does_not_count(office: Any) -> None:
    text = EITHER.replace("need = 2 },", "need = 2, when = 'risk == \"high\"' },")
    async with office.open():
        opened = await office.ask(text, {"risk": "low"}, by=DI)
        view = await opened.view()
        assert view.waiting_for == (CFO, FIN)
        assert card_text.progress(card_of(view, None, office.clock.now())) == "0 of 1"
        assert await opened.vote(BO) == "not_an_approver"
        assert await opened.vote(FIN) == "decided"


async def test_an_escalation_replaces_the_open_seats_of_each(office: Any) -> None:
    async with office.open():
        opened = await office.ask(EITHER, {}, by=DI)
        assert await opened.vote(ANN) == "counted"
        await office.clock.advance(timedelta(hours=1, seconds=1))
        view = await opened.view()
        assert view.waiting_for == ("gil@acme.eu", "hal@acme.eu", "eve@elsewhere.example")
        assert await opened.vote(CFO) == "not_an_approver"
        assert await opened.vote("gil@acme.eu") == "decided", "of the second alternative"


async def test_a_place_is_reassigned_in_each_alternative(office: Any) -> None:
    text = EITHER.replace('"@finance"', f'"{ANN}"')
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        said = await opened.act(kind="reassign", by=ANN, person=CFO, instead_of=ANN, reason="away")
        assert said["verdict"] == "reassigned"
        assert [list(seat.eligible) for seat in (await opened.view()).stage.seats] == [[BO, CY, CFO], [CFO]]
        assert await opened.vote(CFO) == "decided"


async def test_a_delegate_acts_in_an_alternative(office: Any) -> None:
    today = office.clock.now().date()
    office.people.own.by_address[CFO] = OwnSettings(away=(Absence(today, today, (ANN,)),))
    text = EITHER.replace('"@finance"', f'"{CFO}"').replace('"@release-managers"], need = 2', '"@sre"]')
    async with office.open():
        opened = await office.ask(text, {}, by="eve@elsewhere.example")
        assert (await opened.view()).waiting_for == (BO, CY, DI, ANN)
        assert await opened.vote(ANN) == "decided"


async def test_an_edit_resets_every_alternative(office: Any) -> None:
    async with office.open():
        opened = await office.ask(EITHER, {}, by=DI)
        assert await opened.vote(ANN) == "counted"
        assert (await opened.act(kind="edit", by=DI, fields={"risk": "high"}))["verdict"] == "edited"
        view = await opened.view()
        assert [one["have"] for one in api_request(view)["quorum"]] == [0, 0]
        assert await opened.vote(BO) == "counted"
        assert await opened.vote(ANN) == "counted"
        assert await opened.vote(CY) == "decided", "the live list is needed now, too"


async def test_a_list_that_cannot_be_read_stops_no_other(office: Any) -> None:
    office.live.is_down = True
    text = EITHER.replace('"@release-managers"', '"@live"')
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(BO) == "group_unknown"
        assert await opened.vote(CFO, "reject") == "counted"
        assert (await opened.view()).state == "waiting", "the other alternative may still be possible"
        assert await opened.vote(FIN) == "decided"


async def test_people_who_left_fill_no_seat_at_the_quorum(office: Any) -> None:
    text = EITHER.replace('"@finance"', '"@live"').replace("reject = 2", 'recheck = "at-quorum"')
    async with office.open():
        opened = await office.ask(
            text.replace('seats = [{ from = ["@live"] }]', 'seats = [{ from = ["@live"], need = 2 }]'), {}, by=DI
        )
        assert await opened.vote(BO) == "counted"
        office.live.people = [CFO, FIN]
        assert await opened.vote(CFO) == "counted"
        assert await opened.vote(FIN) == "decided", "of the second, without Bo"


async def test_nobody_decides_two_stages_whichever_alternative(office: Any) -> None:
    """Ann is needed in the second stage unless its other alternative has somebody left."""
    second = f'[[stage]]\nid = "last"\n[[stage.any]]\nseats = [{{ from = ["{ANN}"] }}]\n[[stage.any]]\n'
    second += 'seats = [{ from = ["@live"] }]\n[deliver]'
    text = EITHER.replace("[deliver]", second).replace("reject = 2", "distinct = true")
    async with office.open():
        office.live.people = [CFO]
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(ANN) == "counted"
        said = await opened.act(kind="vote", by=CFO, choice="approve")
        assert (said["verdict"], said["text"][:28]) == ("not_an_approver", "Nobody could decide stage “L")
        assert await opened.vote(FIN) == "counted"
        assert await opened.vote(CFO) == "decided"


async def test_a_stage_is_undecidable_if_no_alternative_is_possible(office: Any) -> None:
    text = EITHER.replace('"@finance"', f'"{DI}"')
    for release_managers, problem in (([ANN, BO, CY], None), ([ANN], "Release managers needs 2 people")):
        office.people.groups["release-managers"] = office.people.groups["release-managers"].__class__(release_managers)
        definition = Definition.model_validate(tomllib.loads(text))
        found = await find_undecidable_stage(
            definition, Opening({"risk": "low"}, DI), office.people, office.clock.now()
        )
        if problem is None:
            assert found is None
        else:
            assert found is not None
            assert found[1] == f"{problem}, and only 1 may decide; nobody can approve for Di Ops"


async def test_a_simulation_shows_each_alternative(office: Any) -> None:
    definition = Definition.model_validate(tomllib.loads(EITHER))
    said = await simulate(definition, Opening({"risk": "high"}, DI), office.people, office.clock.now())
    assert said["stages"][0]["seats"] == [
        {"label": "Release managers", "need": 2, "of": 3, "alternative": 1},
        {"label": "Live", "need": 1, "of": 2, "alternative": 1},
        {"label": "Finance", "need": 1, "of": 2, "alternative": 2},
    ]
    shown = simulated("either", said, office.clock.now())
    assert "Approvers of stage go (2 of 3, Release managers and 1 of 2, Live; or 1 of 2, Finance)" in shown


def test_authors_write_alternatives_as_models_or_tables() -> None:
    seat = Seat(from_=["@a"], need=2)
    stage = Stage(id="go", any=[Alternative(seats=[seat]), {"seats": [{"from": ["@b"]}, seat]}])
    assert [(stage.alternative_of(at), stage.path_of(at)) for at in range(3)] == [
        (0, ("any", 0, "seats", 0)),
        (1, ("any", 1, "seats", 0)),
        (1, ("any", 1, "seats", 1)),
    ]
    definition = Definition.model_validate(tomllib.loads(EITHER))
    assert Definition.model_validate(json.loads(json.dumps(pinned(definition)))) == definition


@pytest.mark.parametrize("more", ['from = ["@a"]', "need = 2", 'seat = [{ from = ["@a"] }]'])
def test_a_stage_has_seats_or_alternatives(more: str) -> None:
    with pytest.raises(ValueError, match=r'this stage has alternatives, so "(from|need|seat)" belongs in one of them'):
        Definition.model_validate(tomllib.loads(EITHER.replace('id = "go"', f'id = "go"\n{more}')))


def test_alternatives_wait_for_all_answers_if_the_stage_does() -> None:
    lists = [RequestSeat(0, "", 1, people(ANN)), RequestSeat(1, "", 1, people(BO), alternative=1)]
    stage = stage_of(*lists, decide="when-all-answered")
    assert missing_voters(stage) == (ANN, BO)
    assert stage_status(stage) == "open"


def test_a_drawing_words_alternatives() -> None:
    definition = Definition.model_validate(tomllib.loads(EITHER))
    drawn = draw_stages(definition, START, People().person).stages[0]
    assert [seat.needs for seat in drawn.seats] == ["2 of Release managers", "and 1 of Live", "or 1 of Finance"]
