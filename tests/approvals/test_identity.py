"""One person, one identity: no spelling of an address gives anybody a second vote, or a vote on their own request."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot.approvals.acts import Act, Reassign, Vote
from approvals_bot.people import IdentityRules
from approvals_bot.service.act import perform

ANN, BO, CY, DI = (f"{name}@acme.eu" for name in ("ann", "bo", "cy", "di"))
SPELLINGS = ["BO@ACME.eu", "bo+x@acme.eu", "bo@acme.eu.", "\uff42o@acme\u3002eu", "bo@ACME.com"]

TWO = f"""
[workflow]
id = "identity-two"
request = ["*", "app:ci"]
title = "Two of them"
[[stage]]
id = "ok"
need = 2
from = ["{ANN}", "Bo+work@acme.com", "{BO}", "{CY}"]
[deliver]
email = true
"""


@pytest.fixture
def office(office: Any) -> Any:
    office.people.rules = IdentityRules(domains={"acme.com": "acme.eu"})
    return office


async def say(office: Any, opened: Any, act: Act) -> str:
    reply = await perform(office.engine, await opened.view(), act, timeout=20)
    await office.settle()
    return reply.verdict


async def test_a_person_has_one_place_and_one_card_however_they_are_listed(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert sorted((await opened.view()).waiting_for) == [ANN, BO, CY]
        assert len(office.email.to(BO)) == 1


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_gives_a_second_vote(office: Any, spelling: str) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await say(office, opened, Vote(BO)) == "counted"
        assert await say(office, opened, Vote(spelling)) == "already_voted"
        assert [vote.by for vote in (await opened.view()).votes if vote.counts] == [BO]
        assert (await opened.view()).is_open


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_lets_people_decide_their_own_request(office: Any, spelling: str) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=spelling)  # as a workflow in Python may write it
        assert (await opened.view()).requester == BO
        assert sorted((await opened.view()).waiting_for) == [ANN, CY]
        assert await say(office, opened, Vote(BO)) == await say(office, opened, Vote(spelling)) == "own_request"
        assert await say(office, opened, Reassign(ANN, spelling)) == "invalid"


async def test_a_request_for_somebody_bars_all_their_spellings(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by="app:ci", behalf="Bo+trip@acme.com")
        assert await say(office, opened, Vote(BO)) == "own_request"


async def test_an_alias_that_is_configured_later_counts_at_once(office: Any) -> None:
    office.people.rules = IdentityRules()
    async with office.open():
        opened = await office.ask(TWO, {}, by="bo@acme.com")
        assert BO in (await opened.view()).waiting_for
        office.people.rules = IdentityRules(domains={"acme.com": "acme.eu"})
        assert await say(office, opened, Vote(BO)) == "own_request"


async def test_an_alias_that_is_configured_later_gives_no_second_vote(office: Any) -> None:
    office.people.rules = IdentityRules()
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await say(office, opened, Vote("bo@acme.com")) == "counted"
        office.people.rules = IdentityRules(domains={"acme.com": "acme.eu"})
        for by in (BO, "bo@acme.com", "Bo+x@ACME.com"):
            assert await say(office, opened, Vote(by)) == "not_an_approver"
        assert (await opened.view()).is_open
        assert await say(office, opened, Vote(BO, "take_back")) == "taken_back"
        assert await say(office, opened, Vote(BO)) == "counted"
        assert await say(office, opened, Vote(ANN)) == "decided"


async def test_nobody_takes_over_from_themselves(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await say(office, opened, Reassign(BO, "Bo+2@ACME.com")) == "invalid"
        assert await say(office, opened, Reassign("BO@acme.com", DI.upper())) == "invalid"
        assert await say(office, opened, Reassign("BO@acme.com", "hal+1@acme.eu")) == "reassigned"
        assert sorted((await opened.view()).waiting_for) == [ANN, CY, "hal@acme.eu"]


@pytest.mark.parametrize(
    ("person", "says"),
    [("h\u200bal@acme.eu", "invisible character"), ("!hal@acme.eu", "exclusion"), ("hal@acme", "no dot")],
)
async def test_what_names_nobody_takes_no_place(office: Any, person: str, says: str) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        reply = await perform(office.engine, await opened.view(), Reassign(ANN, person), timeout=20)
        assert reply.verdict == "invalid"
        assert says in reply.text
        assert "Nothing was changed" in reply.text


async def test_an_outage_is_no_reason_to_know_or_not_to_know_somebody(office: Any) -> None:
    office.live.is_down = True
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await say(office, opened, Reassign(ANN, "zoe@acme.eu")) == "group_unknown"
        office.live.is_down = False
        assert await say(office, opened, Reassign(ANN, "zoe@acme.eu")) == "invalid"
        office.live.people.append("Zoe@acme.com")
        assert await say(office, opened, Reassign(ANN, "zoe@acme.eu")) == "reassigned"


async def test_a_later_alias_lets_nobody_approve_their_own_request(office: Any) -> None:
    office.people.rules = IdentityRules()
    async with office.open():
        opened = await office.ask(TWO, {}, by="bo@acme.com")
        office.people.rules = IdentityRules(domains={"acme.com": "acme.eu"})
        for by in (BO, "bo@acme.com", "Bo+x@ACME.com"):
            assert await say(office, opened, Vote(by)) == "own_request"
        assert not (await opened.view()).votes
