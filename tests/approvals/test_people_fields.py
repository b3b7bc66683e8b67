"""Fields that name people: who may be named, and who decides then."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.errors import InvalidPayloadError
from tests.approvals.conftest import ANN, BO, CFO, CY, DI
from tests.approvals.test_checks import problems, workflow

LEAVE = """
[workflow]
id = "leave"
title = "Leave, decided by {{ approver }}"
request = ["*"]
[fields]
approver = { type = "person", in = ["@release-managers"], pinned = true }
backup = { type = "person", required = false }
[policy]
outcomes = ["approve", "reject", "edit"]
[[stage]]
id = "boss"
from = ["field:approver"]
[[stage]]
id = "backup"
when = "backup != null"
from = ["field:backup"]
"""


async def test_the_person_in_a_field_decides(office: Any) -> None:
    async with office.open():
        opened = await office.ask(LEAVE, {"approver": ANN, "backup": None}, by=DI)
        view = await opened.view()
        assert (view.waiting_for, view.title) == ((ANN,), "Leave, decided by Ann Ode")
        assert [(field.name, field.value) for field in view.shown] == [
            ("approver", "Ann Ode (ann@acme.eu)"),
            ("backup", "not given"),
        ]
        assert [seat.label for seat in view.stages[0].seats] == ["Ann Ode"]
        assert (
            card_of(view, ANN, office.clock.now()).why_me == "You're an approver because you're named in the request."
        )
        assert await opened.vote(BO) == "not_an_approver"
        assert await opened.vote(ANN) == "decided"


async def test_an_edit_asks_the_person_whom_it_names(office: Any) -> None:
    async with office.open():
        opened = await office.ask(LEAVE, {"approver": ANN, "backup": None}, by=DI)
        said = await opened.act(kind="edit", by=DI, fields={"approver": "BO@acme.eu."})
        assert said["text"] == "Saved. The votes were reset, and the approvers have been notified."
        view = await opened.view()
        assert (view.fields["approver"], view.waiting_for) == (BO, (BO,))
        shown = view.shown[0]
        assert (shown.value, shown.was) == ("Bo Lund (bo@acme.eu)", "Ann Ode (ann@acme.eu)")
        assert await opened.vote(ANN) == "not_an_approver"
        assert await opened.vote(BO) == "decided"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"approver": DI}, "approver: must be one of Release managers."),
        ({"approver": "Ann"}, "approver: must be a person's email address, like ann@acme.eu."),
        ({"backup": "who@acme.eu"}, "backup: must be somebody who is known here"),
        ({"approver": BO}, "Nobody could decide it like this: nobody can approve for Bo Lund"),
    ],
)
async def test_an_edit_names_only_people_who_may_be_named(office: Any, fields: dict[str, str], why: str) -> None:
    async with office.open():
        opened = await office.ask(LEAVE, {"approver": ANN, "backup": None}, by=BO)
        before = await opened.view()
        said = await opened.act(kind="edit", by=BO, fields=fields)
        assert (said["verdict"], said["changed"]) == ("invalid", False)
        assert said["text"].startswith(why)
        assert (await opened.view()).fields == before.fields
        assert await opened.vote(ANN) == "decided"


async def test_others_learn_nothing_about_people(office: Any) -> None:
    async with office.open():
        opened = await office.ask(LEAVE, {"approver": ANN, "backup": None}, by=DI)
        edit = {"kind": "vote", "choice": "edit", "fields": {"approver": "who@acme.eu"}}
        assert (await opened.act(by=CY, **edit))["verdict"] == "not_an_approver"


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"approver": DI}, [{"loc": ["input", "approver"], "msg": "must be one of Release managers"}]),
        ({"approver": ANN, "backup": "who@acme.eu"}, ["backup"]),
        ({"approver": "Ann@ACME.eu", "backup": CFO}, []),
    ],
)
async def test_a_simulation_checks_whom_the_fields_name(office: Any, fields: Any, errors: list[Any]) -> None:
    definition = Definition.model_validate(tomllib.loads(LEAVE))
    given = Opening({"backup": None, **fields}, BO)
    if errors:
        with pytest.raises(InvalidPayloadError) as refused:
            await simulate(definition, given, office.people, office.clock.now())
        assert [each if errors == [each] else each["loc"][1] for each in refused.value.errors] == errors
    else:
        said = await simulate(definition, given, office.people, office.clock.now())
        assert [(each["person"], each["stage"], each["why"]) for each in said["who"]] == [
            (ANN, "boss", "named in the request"),
            (CFO, "backup", "named in the request"),
        ]


async def test_naming_oneself_is_no_way_to_decide(office: Any) -> None:
    definition = Definition.model_validate(tomllib.loads(LEAVE))
    said = await simulate(
        definition, Opening({"approver": ANN, "backup": None}, ANN), office.people, office.clock.now()
    )
    assert said["problems"] == ["stage boss: nobody can approve for Ann Ode"]
    text = LEAVE.replace("[policy]", '[policy]\nself_approval = "skip-up"')
    async with office.open():
        opened = await office.ask(text, {"approver": ANN, "backup": None}, by=ANN)
        assert (await opened.view()).waiting_for == (CFO,)


async def test_a_group_that_cannot_be_read_refuses_the_edit_for_now(office: Any) -> None:
    text = LEAVE.replace("@release-managers", "@live")
    async with office.open():
        opened = await office.ask(text, {"approver": BO, "backup": None}, by=DI)
        office.live.is_down = True
        said = await opened.act(kind="edit", by=DI, fields={"approver": CY})
        assert said["text"].startswith("approver: can't be checked just now; please try again in a moment.")


PERSON: dict[str, Any] = {"type": "person", "in": ["@two"]}
OPTIONAL: dict[str, Any] = {"type": "person", "required": False}


@pytest.mark.parametrize(
    ("fields", "stage", "found"),
    [
        ({"boss": PERSON}, {"from": ["field:boss"]}, []),
        ({"boss": PERSON}, {"from": ["@two"], "notify": ["field:boss"], "veto": {"from": ["field:boss"]}}, []),
        ({"boss": "person"}, {"from": ["field:bos"]}, ["stage.0.seat.0.from.0: no field is called bos"]),
        (
            {"boss": "email"},
            {"from": ["field:boss"]},
            ['stage.0.seat.0.from.0: boss names nobody; give it type = "person"'],
        ),
        (
            {"boss": OPTIONAL},
            {"from": ["field:boss"]},
            ["stage.0.seat.0.from: boss is optional, so nobody may be asked: name others, too, or set when"],
        ),
        ({"boss": OPTIONAL}, {"from": ["field:boss"], "when": "boss != null"}, []),
        ({"boss": OPTIONAL}, {"from": ["field:boss", "@two"]}, []),
        (
            {"boss": OPTIONAL},
            {"from": ["@two"], "veto": {"from": ["field:boss"]}},
            ["stage.0.veto.from: boss is optional, so nobody may be asked: name others, too, or set when"],
        ),
        (
            {"boss": PERSON},
            {"from": ["field:boss"], "need": 2},
            ["stage.0.seat.0.need: 2 are needed, but field:boss is only 1 person"],
        ),
        (
            {"boss": PERSON | {"in": ["@twos"]}},
            {"from": ["field:boss"]},
            ["fields.boss.in.0: no group is called twos"],
        ),
    ],
)
def test_check_says_which_field_names_nobody(fields: Any, stage: dict[str, Any], found: list[str]) -> None:
    assert problems(workflow(stage, fields=fields)) == found


def test_only_a_person_has_in() -> None:
    with pytest.raises(ValueError, match='"in" is for person; this field has the type string'):
        workflow({"from": ["@two"]}, fields={"boss": {"type": "string", "in": ["@two"]}})
