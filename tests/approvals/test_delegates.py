"""Absences and delegates."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.apply import late_reply
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.eligibility import CountedVote, Resolution, ResolvedSeat, with_delegates
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.people import People, Person
from approvals_bot.people import Person as Known
from approvals_bot.people.absences import MOST_STEPS, Absence, Away
from approvals_bot.service.read import api_request
from tests.support.ballots import seat_of

ANN, BO, CY, DI, CFO = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di", "cfo"))
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def absent(*delegates: str, first: str = "2026-02-20", last: str = "2026-03-05") -> Absence:
    return Absence(date.fromisoformat(first), date.fromisoformat(last), delegates)


def people(**away: Absence) -> People:
    return People(away={f"{address}@acme.eu": [absence] for address, absence in away.items()})


# ── whose delegate is whom ──


def test_an_absence_has_whole_days_in_the_persons_zone() -> None:
    berlin = People([Known(ANN, "Ann Ode", zone="Europe/Berlin")], away={ANN: [absent(BO, last="2026-03-03")]})
    last_minute, next_day = datetime(2026, 3, 3, 22, 59, tzinfo=UTC), datetime(2026, 3, 3, 23, 0, tzinfo=UTC)
    assert berlin.away(ANN, last_minute) == Away(next_day, date(2026, 3, 4), (BO,))
    assert berlin.away(ANN, next_day) is None
    assert berlin.next_change(ANN, NOW) == next_day
    assert berlin.next_change(ANN, next_day) is None
    assert berlin.next_change(ANN, datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 2, 19, 23, tzinfo=UTC)


def test_an_absent_delegate_has_delegates_too() -> None:
    found = people(ann=absent(BO, DI), bo=absent(CY)).away(ANN, NOW)
    assert found is not None
    assert (found.delegates, found.trouble) == ((CY, DI), "")


def test_a_circle_is_found_and_named() -> None:
    found = people(ann=absent(BO), bo=absent(ANN)).away(ANN, NOW)
    assert found is not None
    assert found.delegates == ()
    assert found.trouble == f"the delegates form a circle ({ANN} → {BO} → {ANN})"


def test_a_later_circle_does_not_hide_present_delegates() -> None:
    found = people(ann=absent(BO, DI), bo=absent(CY), cy=absent(BO)).away(ANN, NOW)
    assert found is not None
    assert found.delegates == (DI,)
    assert "circle (bo@acme.eu → cy@acme.eu → bo@acme.eu)" in found.trouble


def test_a_chain_of_delegates_is_followed_a_few_steps() -> None:
    chain = {f"p{n}": absent(f"p{n + 1}@acme.eu") for n in range(MOST_STEPS + 1)}
    far = people(**chain).away("p0@acme.eu", NOW)
    assert far is not None
    assert far.delegates == ()
    assert "more than 5 delegates in a row" in far.trouble
    near = people(**chain).away("p1@acme.eu", NOW)
    assert near is not None
    assert near.delegates == (f"p{MOST_STEPS + 1}@acme.eu",)


# ── places ──


def found(*seats: dict[str, str], away: dict[str, tuple[str, ...]]) -> Resolution:
    everybody = [
        *(address for seat in seats for address in seat),
        *(one for each in away.values() for one in each),
        *away,
    ]
    return Resolution(
        tuple(ResolvedSeat(n, dict(seat), tuple(seat)) for n, seat in enumerate(seats)),
        {address: Person(address, address.title()) for address in everybody},
        {address: Away(NOW, date(2026, 3, 6), each) for address, each in away.items()},
    )


def seat(*members: str) -> dict[str, str]:
    return dict.fromkeys(members, "in x")


def places(given: Resolution, *votes: CountedVote, need: Any = 1) -> list[tuple[list[str], list[str], dict[str, str]]]:
    """Return for each seat its eligible people, those notified, and the delegates."""
    rules = [seat_of(each.id, "", need, ()) for each in given.seats]
    return [
        (list(each.eligible), list(each.notified), each.in_place_of)
        for each in with_delegates(given, rules, votes).seats
    ]


def test_a_delegate_takes_the_place_and_learns_why() -> None:
    given = found(seat("ann", "cy"), away={"ann": ("bo",)})
    assert places(given) == [(["bo", "cy"], ["bo", "cy"], {"bo": "ann"})]
    eligible = with_delegates(given, [seat_of(0, "", 1, ())]).seats[0].eligible
    assert eligible["bo"] == "standing in for Ann (in x)"


def test_a_delegate_with_their_own_place_is_skipped() -> None:
    given = found(seat("ann"), seat("bo"), away={"ann": ("bo", "di")})
    assert places(given) == [(["di"], ["di"], {"di": "ann"}), (["bo"], ["bo"], {})]


def test_nobody_is_the_delegate_of_two_people() -> None:
    given = found(seat("ann", "cy"), away={"ann": ("bo",), "cy": ("bo", "di")})
    assert places(given, need=2) == [(["bo", "di"], ["bo", "di"], {"bo": "ann", "di": "cy"})]


def test_absent_people_get_a_card_only_if_they_are_needed() -> None:
    given = found(seat("ann", "bo", "cy"), away={"ann": ("bo",)})
    assert places(given, need=2) == [(["ann", "bo", "cy"], ["bo", "cy"], {})]
    assert places(given, need=3) == [(["ann", "bo", "cy"], ["ann", "bo", "cy"], {})]
    assert places(given, need="all") == [(["ann", "bo", "cy"], ["ann", "bo", "cy"], {})]
    assert with_delegates(given, [seat_of(0, "", 2, ())]).seats[0].eligible["ann"] == "in x (away, back on 6 Mar 2026)"


def test_voters_and_delegates_who_voted_keep_their_place() -> None:
    given = found(seat("cy", "ann"), away={"ann": ("bo", "di"), "cy": ("bo",)})
    assert places(given, CountedVote("ann")) == [(["bo", "ann"], ["bo"], {"bo": "cy"})]
    assert places(given, CountedVote("bo", "ann")) == [(["cy", "bo"], ["bo"], {"bo": "ann"})]


# ── a request ──

TWO = f"""
[workflow]
id = "two"
title = "Two of them"
request = ["*"]
[policy]
outcomes = ["approve", "reject"]
[[stage]]
id = "ok"
need = 2
from = ["{ANN}", "{CY}"]
[deliver]
email = true
"""

ONE = TWO.replace("need = 2", "").replace(f'"{ANN}", "{CY}"', f'"{ANN}"')


def leaves(office: Any, **away: Absence) -> None:
    office.people._away = {f"{address}@acme.eu": (absence,) for address, absence in away.items()}


async def waiting_for(opened: Any) -> list[str]:
    return sorted((await opened.view()).waiting_for)


async def test_a_delegates_decision_names_the_absent_person(office: Any) -> None:
    leaves(office, ann=absent(BO))
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await waiting_for(opened) == [BO, CY]
        assert (len(office.email.to(ANN)), len(office.email.to(BO))) == (0, 1)
        card = card_of(await opened.view(), BO, NOW)
        assert card.why_me == "You're an approver because you're standing in for Ann Ode (named in the workflow)."
        assert card_text.waiting_for(card) == "Waiting for Bo Lund for Ann Ode and Cy Rus"
        why = {each["person"]: each["why"] for each in explain(await opened.view())["waiting_for"]}
        assert why[BO] == "standing in for Ann Ode (named in the workflow)"
        assert await opened.vote(ANN) == "not_an_approver"
        assert await opened.vote(CY) == "counted"
        assert await opened.vote(BO) == "decided"
        view = await opened.view()
        card = card_of(view, None, NOW)
        assert card.outcome is not None
        assert card_text.outcome(card.outcome) == "✅ Approved by Bo Lund for Ann Ode via the API"
        assert "✅ Bo Lund for Ann Ode approved via the API" in [card_text.vote(vote) for vote in card.votes]
        assert "Bo Lund for Ann Ode" in card_text.seats(card.stages[0])[0]
        assert [vote.get("in_place_of") for vote in api_request(view)["votes"]] == [None, ANN]
        result = (await opened.record()).result
        assert (result["by"], result["in_place_of"]) == (BO, ANN)
        assert "Already decided by Bo Lund for Ann Ode" in late_reply(view, Vote(CFO), NOW).text


async def test_a_requester_is_never_the_delegate(office: Any) -> None:
    leaves(office, ann=absent(BO, DI))
    async with office.open():
        assert await waiting_for(await office.ask(ONE, {}, by=BO)) == [DI]
        assert await waiting_for(await office.ask(ONE, {}, by=CFO, behalf=BO)) == [DI]
    leaves(office, ann=absent(BO))
    async with office.open():
        opened = await office.ask(ONE, {}, by=BO)
        assert await waiting_for(opened) == [ANN]
        assert len(office.email.to(ANN)) == 1
        assert await opened.vote(BO) == "own_request"


@pytest.mark.parametrize("rule", ["allow", "never", "skip-up"])
async def test_self_approval_does_not_make_the_requester_a_delegate(office: Any, rule: str) -> None:
    leaves(office, ann=absent(BO))
    text = ONE.replace("[policy]", f'[policy]\nself_approval = "{rule}"')
    async with office.open():
        opened = await office.ask(text, {}, by=BO)
        assert await waiting_for(opened) == [ANN]
        assert await opened.vote(BO) in ("own_request", "not_an_approver")


async def test_a_circle_falls_back_on_the_absent_person_and_warns(
    office: Any, caplog: pytest.LogCaptureFixture
) -> None:
    leaves(office, ann=absent(BO), bo=absent(ANN))
    async with office.open():
        opened = await office.ask(ONE, {}, by=DI)
        assert await waiting_for(opened) == [ANN]
        [waiting] = explain(await opened.view())["waiting_for"]
        assert "away, back on 6 Mar 2026; the delegates form a circle" in waiting["why"]
        assert await opened.vote(ANN) == "decided"
    assert any("lead nowhere" in record.getMessage() for record in caplog.records)
    assert "@" not in caplog.text


async def test_a_returning_person_replaces_their_delegate(office: Any) -> None:
    leaves(office, ann=absent(BO, last="2026-03-02"))  # Ann is in Berlin: until 23:00 UTC
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await waiting_for(opened) == [BO, CY]
        await office.clock.advance("14h")
        assert await waiting_for(opened) == [ANN, CY]
        assert len(office.email.to(ANN)) == 1
        assert card_of(await opened.view(), BO, office.clock.now()).choices == ()
        assert await opened.vote(BO) == "not_an_approver"
        assert [await opened.vote(address) for address in (ANN, CY)] == ["counted", "decided"]


async def test_an_absence_that_begins_later_brings_the_delegate(office: Any) -> None:
    leaves(office, ann=absent(BO, first="2026-03-04"))
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await waiting_for(opened) == [ANN, CY]
        await office.clock.advance("2d")
        assert await waiting_for(opened) == [BO, CY]
        assert len(office.email.to(BO)) == 1


async def test_one_place_has_one_vote_after_a_return(office: Any) -> None:
    leaves(office, ann=absent(BO, last="2026-03-02"))
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await opened.vote(BO) == "counted"
        await office.clock.advance("14h")
        assert await waiting_for(opened) == [CY]  # Bo's vote fills Ann's place
        assert await opened.vote(ANN) == "counted"
        view = await opened.view()
        assert [(vote.by, vote.counts) for vote in view.votes] == [(BO, False), (ANN, True)]
        assert view.outcome is None
        assert await opened.vote(CY) == "decided"


async def test_voters_are_not_replaced_when_they_leave(office: Any) -> None:
    leaves(office, ann=absent(BO, first="2026-03-04"))
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        assert await opened.vote(ANN) == "counted"
        await office.clock.advance("2d")
        assert await waiting_for(opened) == [CY]
        assert await opened.vote(BO) == "not_an_approver"
        assert await opened.vote(CY) == "decided"


async def test_an_absence_entered_later_counts_at_the_click(office: Any) -> None:
    async with office.open():
        opened = await office.ask(TWO, {}, by=DI)
        leaves(office, ann=absent(BO))
        assert await opened.vote(BO) == "counted"
        assert await waiting_for(opened) == [CY]


async def test_a_simulation_shows_delegates(office: Any) -> None:
    leaves(office, ann=absent(BO))
    definition = Definition.model_validate(tomllib.loads(TWO))
    said = await simulate(definition, Opening({}, DI), office.people, office.clock.now())
    assert [(address["person"], address["why"]) for address in said["who"]] == [
        (BO, "standing in for Ann Ode (named in the workflow)"),
        (CY, "named in the workflow"),
    ]
