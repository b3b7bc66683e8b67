"""Reassigning a place and adding an approver while a request is open."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.explain import explain
from approvals_bot.people.absences import Absence
from approvals_bot.service.read import api_request

ANN, BO, CY, DI, CFO = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di", "cfo"))
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


async def waiting_for(opened: Any) -> list[str]:
    return sorted((await opened.view()).waiting_for)


async def test_a_reassignment_shows_everywhere(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        said = await opened.act(kind="reassign", by=ANN, person=BO, reason="on holiday")
        assert said == {
            "verdict": "reassigned",
            "text": "Bo Lund now decides instead of Ann Ode and has been notified.",
            "changed": True,
        }
        assert await waiting_for(opened) == [BO, CY]
        [mail] = office.email.to(BO)
        assert mail.card.choices
        assert mail.card.why_me == "You're an approver because you're taking over from Ann Ode."
        assert len(office.email.to(ANN)) == 1  # they did it themselves, so they need no notification
        view = await opened.view()
        assert card_text.notes(card_of(view, None, office.clock.now())) == (
            "⇄ Ann Ode reassigned this to Bo Lund: on holiday",
        )
        assert explain(view)["rules"][-1]["because"] == "Ann Ode reassigned this to Bo Lund: on holiday"
        assert await opened.vote(ANN) == "not_an_approver"
        assert [await opened.vote(address) for address in (BO, CY)] == ["counted", "decided"]
        assert api_request(await opened.view())["handovers"] == [
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


async def test_an_approver_adds_a_colleague(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        said = await opened.act(kind="reassign", instead_of=None, by=ANN, person=BO)
        assert (said["verdict"], said["text"]) == ("added", "Bo Lund was added as an approver and has been notified.")
        assert await waiting_for(opened) == [ANN, BO, CY]
        (done,) = api_request(await opened.view())["handovers"]
        assert (done["person"], done["instead_of"]) == (BO, None)
        assert [await opened.vote(address) for address in (BO, ANN)] == ["counted", "decided"]


async def test_a_reassignment_survives_restarts_and_look_ups(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        await opened.act(kind="reassign", by=ANN, person=BO)
    async with office.open():
        assert await opened.vote(CY) == "counted"
        assert await waiting_for(opened) == [BO]
        assert await opened.vote(BO) == "decided"


async def test_a_place_can_be_reassigned_again_and_back(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert (await opened.act(kind="reassign", by=ANN, person=BO))["changed"]
        assert (await opened.act(kind="reassign", by=BO, person="gil@acme.eu"))["changed"]
        assert await waiting_for(opened) == [CY, "gil@acme.eu"]
        assert (await opened.act(kind="reassign", by="gil@acme.eu", person=ANN))["changed"]
        assert await waiting_for(opened) == [ANN, CY]


@pytest.mark.parametrize("owner", [CFO, "app:desk", "admin"])
async def test_owners_and_admins_reassign_any_place(office: Any, owner: str) -> None:
    if owner == "admin":
        owner, office.people.admins = "fin@acme.eu", ("@finance",)
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        said = await opened.act(kind="reassign", by=owner, person=EVE, instead_of=ANN)
        assert said["verdict"] == "reassigned"
        assert await waiting_for(opened) == [CY, EVE]
        assert [mail.occasion for mail in office.email.to(ANN)] == ["request", "reassigned"]
        assert office.email.to(ANN)[-1].card.choices == ()


ADD: dict[str, Any] = {"kind": "reassign", "instead_of": None}
REFUSED = [
    # actor · act · verdict and part of the text
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
    (ANN, {"kind": "reassign", "person": "zoe@acme.eu"}, "invalid", "We don't know zoe@acme.eu: they aren't in"),
    (CFO, {**ADD, "person": "zoe@acme.eu"}, "invalid", "We don't know zoe@acme.eu"),
    (ANN, {"kind": "reassign", "person": "bo"}, "invalid", "Name one person"),
    (CFO, {**ADD, "person": "@sre"}, "invalid", "Name one person"),
    (CFO, {"kind": "reassign", "person": BO}, "invalid", "Nobody isn't an approver here"),
    (CFO, {"kind": "reassign", "person": BO, "instead_of": EVE}, "invalid", "isn't an approver here"),
]


@pytest.mark.parametrize(("by", "what", "verdict", "says"), REFUSED)
async def test_a_refused_reassignment_changes_nothing(
    office: Any, by: str, what: dict[str, str], verdict: str, says: str
) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        before = await opened.view()
        said = await opened.act(by=by, **what)
        assert (said["verdict"], said["changed"]) == (verdict, False)
        assert says in said["text"]
        assert "Nothing was changed" in said["text"]
        assert (await opened.view()).reassignments == ()
        assert (await opened.view()).waiting_for == before.waiting_for
        assert len(office.email.sent) == 2


async def test_voters_keep_their_place(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        await opened.vote(ANN)
        said = await opened.act(kind="reassign", by=ANN, person=BO)
        assert (said["verdict"], "has already voted" in said["text"]) == ("invalid", True)
        await opened.vote(ANN, "take_back")
        assert (await opened.act(kind="reassign", by=ANN, person=BO))["changed"]


async def test_requesters_cannot_become_approvers(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by="app:ci", behalf=DI)
        assert (await opened.act(kind="reassign", instead_of=None, by=ANN, person=DI))["verdict"] == "invalid"
        assert (await opened.act(kind="reassign", instead_of=None, by=DI, person=BO))["verdict"] == "own_request"


@pytest.mark.parametrize(
    ("rule", "approver", "owner"), [("approvers", True, True), ("owners", False, True), ("never", False, False)]
)
async def test_the_policy_says_who_may_reassign(office: Any, rule: str, approver: bool, owner: bool) -> None:
    async with office.open():
        opened = await office.ask(TWO + f'[policy]\nreassign = "{rule}"\n', {}, by=DI)
        assert card_of(await opened.view(), ANN, office.clock.now()).may_reassign == approver
        assert (await opened.act(kind="reassign", instead_of=None, by=CFO, person="gil@acme.eu"))["changed"] == owner
        assert (await opened.act(kind="reassign", instead_of=None, by=ANN, person=BO))["changed"] == approver
        office.people.admins = (CFO,)
        assert (await opened.act(kind="reassign", instead_of=None, by=CFO, person="hal@acme.eu"))["changed"]


async def test_an_operator_at_the_terminal_may_reassign(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        said = await opened.act(kind="reassign", by="app:cli", via="cli", person=BO, instead_of=CY)
        assert said["verdict"] == "reassigned"


async def test_a_delegate_reassigns_the_place_for_good(office: Any) -> None:
    office.people._away = {ANN: (Absence(date(2026, 3, 1), date(2026, 3, 2), (BO,)),)}
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await waiting_for(opened) == [BO, CY]
        assert (await opened.act(kind="reassign", by=BO, person="gil@acme.eu"))["changed"]
        await office.clock.advance("15h")  # Ann is back, and their place is taken
        assert await waiting_for(opened) == [CY, "gil@acme.eu"]
        assert await opened.vote(ANN) == "not_an_approver"


async def test_a_reassignment_ends_with_its_stage(office: Any) -> None:
    text = TWO.replace("need = 2", "") + f'[[stage]]\nid = "then"\nfrom = ["{ANN}"]\n'
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert (await opened.act(kind="reassign", by=ANN, person=BO))["changed"]
        assert await opened.vote(BO) == "counted"
        assert await waiting_for(opened) == [ANN]


async def test_an_added_approver_gets_their_own_message(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO.replace("email = true", 'slack = "#deploys"'), {}, by=DI)
        await opened.act(kind="reassign", instead_of=None, by=ANN, person=BO)
        assert [one.occasion for one in office.slack.to(BO)] == ["request"]
        assert card_text.notes(office.slack.newest("#deploys").card) == ("⇄ Ann Ode added Bo Lund as an approver",)
