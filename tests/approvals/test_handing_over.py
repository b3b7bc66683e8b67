"""Somebody else is asked while a request is open: instead of an approver, or as well."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.explain import explain
from approvals_bot.people.absences import Absence
from approvals_bot.service.read import api_request

ANN, BO, CY, DI, CFO = (f"{who}@acme.eu" for who in ("ann", "bo", "cy", "di", "cfo"))
EVE = "eve@elsewhere.example"

TWO = f"""
[workflow]
id = "two"
title = "Two of them"
request = ["*", "app:ci"]
owners = ["{CFO}", "app:desk"]
[[stage]]
id = "ok"
need = 2
from = ["{ANN}", "{CY}"]
[deliver]
email = true
"""


async def asked_of(asked: Any) -> list[str]:
    return sorted((await asked.view()).waiting_for)


async def test_an_approver_hands_over_her_place_and_everything_says_so(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        said = await asked.tell(kind="reassign", by=ANN, person=BO, reason="on holiday")
        assert said == {
            "verdict": "reassigned",
            "text": "Bo Lund now decides instead of Ann Ode and has been notified.",
            "changed": True,
        }
        assert await asked_of(asked) == [BO, CY]
        [mail] = office.email.to(BO)
        assert mail.card.choices
        assert mail.card.why_me == "You're an approver because you're taking over from Ann Ode."
        assert len(office.email.to(ANN)) == 1  # she did it herself, so nobody has to tell her
        view = await asked.view()
        assert card_text.notes(card_of(view, None, office.clock.now())) == (
            "⇄ Ann Ode reassigned this to Bo Lund: on holiday",
        )
        assert explain(view)["rules"][-1]["because"] == "Ann Ode reassigned this to Bo Lund: on holiday"
        assert await asked.vote(ANN) == "not_an_approver"
        assert [await asked.vote(who) for who in (BO, CY)] == ["counted", "decided"]
        assert api_request(await asked.view())["handovers"] == [
            {
                "by": ANN,
                "person": BO,
                "instead_of": ANN,
                "reason": "on holiday",
                "at": "2026-03-02T09:00:00Z",
                "via": "api",
                "stage": "ok",
            }
        ]


async def test_an_approver_asks_a_colleague_as_well(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        said = await asked.tell(kind="reassign", instead_of=None, by=ANN, person=BO)
        assert (said["verdict"], said["text"]) == ("added", "Bo Lund was added as an approver and has been notified.")
        assert await asked_of(asked) == [ANN, BO, CY]
        (done,) = api_request(await asked.view())["handovers"]
        assert (done["person"], done["instead_of"]) == (BO, None)
        assert [await asked.vote(who) for who in (BO, ANN)] == ["counted", "decided"]


async def test_it_lasts_over_a_restart_and_the_next_look_at_the_groups(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        await asked.tell(kind="reassign", by=ANN, person=BO)
    async with office.open():
        assert await asked.vote(CY) == "counted"
        assert await asked_of(asked) == [BO]
        assert await asked.vote(BO) == "decided"


async def test_it_may_go_on_from_one_to_the_next_and_back(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        assert (await asked.tell(kind="reassign", by=ANN, person=BO))["changed"]
        assert (await asked.tell(kind="reassign", by=BO, person="gil@acme.eu"))["changed"]
        assert await asked_of(asked) == [CY, "gil@acme.eu"]
        assert (await asked.tell(kind="reassign", by="gil@acme.eu", person=ANN))["changed"]
        assert await asked_of(asked) == [ANN, CY]


@pytest.mark.parametrize("owner", [CFO, "app:desk", "admin"])
async def test_owners_and_admins_give_anybodys_place_to_anybody_and_she_is_told(office: Any, owner: str) -> None:
    if owner == "admin":
        owner, office.people.admins = "fin@acme.eu", ("@finance",)
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        said = await asked.tell(kind="reassign", by=owner, person=EVE, instead_of=ANN)
        assert said["verdict"] == "reassigned"
        assert await asked_of(asked) == [CY, EVE]
        assert [mail.occasion for mail in office.email.to(ANN)] == ["request", "reassigned"]
        assert office.email.to(ANN)[-1].card.choices == ()


ADD: dict[str, Any] = {"kind": "reassign", "instead_of": None}
REFUSED = [
    # who says it · what · the verdict and some of the sentence
    (DI, {**ADD, "person": BO}, "own_request", "You can't choose who decides your own request"),
    (
        DI,
        {"kind": "reassign", "person": BO, "instead_of": ANN},
        "own_request",
        "You can't choose who decides your own request",
    ),
    (ANN, {"kind": "reassign", "person": DI}, "invalid", "Di Ops can't decide their own request"),
    (CFO, {**ADD, "person": DI}, "invalid", "Di Ops can't decide their own request"),
    (ANN, {"kind": "reassign", "person": CY}, "invalid", "Cy Rus is already an approver here"),
    (
        ANN,
        {**ADD, "person": ANN},
        "invalid",
        "Ann Ode is already an approver here",
    ),
    (ANN, {"kind": "reassign", "person": BO, "instead_of": CY}, "not_an_approver", "your own place"),
    (
        BO,
        {**ADD, "person": "gil@acme.eu"},
        "not_an_approver",
        "Only approvers, the workflow's owners and admins",
    ),
    (BO, {"kind": "reassign", "person": "gil@acme.eu", "instead_of": ANN}, "not_an_approver", "Only approvers"),
    (
        "app:ci",
        {**ADD, "person": BO},
        "not_an_approver",
        "Only approvers, the workflow's owners and admins",
    ),
    (
        "app:cli",
        {**ADD, "person": BO},
        "not_an_approver",
        "Only approvers, the workflow's owners and admins",
    ),
    (ANN, {"kind": "reassign", "person": EVE}, "invalid", "a colleague with an address like yours"),
    (ANN, {"kind": "reassign", "person": "bo"}, "invalid", "colleague"),
    (CFO, {**ADD, "person": "@sre"}, "invalid", "Name one person"),
    (CFO, {"kind": "reassign", "person": BO}, "invalid", "Nobody isn't an approver here"),
    (CFO, {"kind": "reassign", "person": BO, "instead_of": EVE}, "invalid", "isn't an approver here"),
]


@pytest.mark.parametrize(("by", "what", "verdict", "says"), REFUSED)
async def test_what_is_refused_changes_nothing(
    office: Any, by: str, what: dict[str, str], verdict: str, says: str
) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        before = await asked.view()
        said = await asked.tell(by=by, **what)
        assert (said["verdict"], said["changed"]) == (verdict, False)
        assert says in said["text"]
        assert "Nothing was changed" in said["text"]
        assert (await asked.view()).reassignments == ()
        assert (await asked.view()).waiting_for == before.waiting_for
        assert len(office.email.sent) == 2


async def test_who_has_voted_keeps_her_place(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        await asked.vote(ANN)
        said = await asked.tell(kind="reassign", by=ANN, person=BO)
        assert (said["verdict"], "has already voted" in said["text"]) == ("invalid", True)
        await asked.vote(ANN, "take_back")
        assert (await asked.tell(kind="reassign", by=ANN, person=BO))["changed"]


async def test_nobody_on_whose_behalf_it_is_asked_gets_a_place(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by="app:ci", behalf=DI)
        assert (await asked.tell(kind="reassign", instead_of=None, by=ANN, person=DI))["verdict"] == "invalid"
        assert (await asked.tell(kind="reassign", instead_of=None, by=DI, person=BO))["verdict"] == "own_request"


@pytest.mark.parametrize(
    ("rule", "approver", "owner"), [("approvers", True, True), ("owners", False, True), ("never", False, False)]
)
async def test_a_workflow_says_who_may(office: Any, rule: str, approver: bool, owner: bool) -> None:
    async with office.open():
        asked = await office.ask(TWO + f'[policy]\nreassign = "{rule}"\n', {}, by=DI)
        assert card_of(await asked.view(), ANN, office.clock.now()).may_reassign == approver
        assert (await asked.tell(kind="reassign", instead_of=None, by=CFO, person="gil@acme.eu"))["changed"] == owner
        assert (await asked.tell(kind="reassign", instead_of=None, by=ANN, person=BO))["changed"] == approver
        office.people.admins = (CFO,)
        assert (await asked.tell(kind="reassign", instead_of=None, by=CFO, person="hal@acme.eu"))["changed"]


async def test_the_operator_at_the_terminal_may(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        said = await asked.tell(kind="reassign", by="app:cli", via="cli", person=BO, instead_of=CY)
        assert said["verdict"] == "reassigned"


async def test_a_place_that_was_stood_in_for_is_handed_over_for_good(office: Any) -> None:
    office.people._away = {ANN: (Absence(date(2026, 3, 1), date(2026, 3, 2), (BO,)),)}
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        assert await asked_of(asked) == [BO, CY]
        assert (await asked.tell(kind="reassign", by=BO, person="gil@acme.eu"))["changed"]
        await office.clock.advance("15h")  # Ann is back, and her place is taken
        assert await asked_of(asked) == [CY, "gil@acme.eu"]
        assert await asked.vote(ANN) == "not_an_approver"


async def test_in_the_next_stage_nothing_is_left_of_it(office: Any) -> None:
    text = TWO.replace("need = 2", "") + f'[[stage]]\nid = "then"\nfrom = ["{ANN}"]\n'
    async with office.open():
        asked = await office.ask(text, {}, by=DI)
        assert (await asked.tell(kind="reassign", by=ANN, person=BO))["changed"]
        assert await asked.vote(BO) == "counted"
        assert await asked_of(asked) == [ANN]


async def test_where_only_a_channel_is_told_the_newly_asked_gets_a_message_of_her_own(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO.replace("email = true", 'slack = "#deploys"'), {}, by=DI)
        await asked.tell(kind="reassign", instead_of=None, by=ANN, person=BO)
        assert [one.occasion for one in office.slack.to(BO)] == ["request"]
        assert card_text.notes(office.slack.newest("#deploys").card) == ("⇄ Ann Ode added Bo Lund as an approver",)
