"""People who are away, and who is asked in their place."""

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

ANN, BO, CY, DI, CFO = (f"{who}@acme.eu" for who in ("ann", "bo", "cy", "di", "cfo"))
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def absent(*delegates: str, first: str = "2026-02-20", last: str = "2026-03-05") -> Absence:
    return Absence(date.fromisoformat(first), date.fromisoformat(last), delegates)


def people(**away: Absence) -> People:
    return People(away={f"{who}@acme.eu": [absence] for who, absence in away.items()})


# ── who stands in ──


def test_an_absence_has_whole_days_of_the_persons_own_zone() -> None:
    berlin = People([Known(ANN, "Ann Ode", zone="Europe/Berlin")], away={ANN: [absent(BO, last="2026-03-03")]})
    last_minute, next_day = datetime(2026, 3, 3, 22, 59, tzinfo=UTC), datetime(2026, 3, 3, 23, 0, tzinfo=UTC)
    assert berlin.away(ANN, last_minute) == Away(next_day, date(2026, 3, 4), (BO,))
    assert berlin.away(ANN, next_day) is None
    assert berlin.next_change(ANN, NOW) == next_day
    assert berlin.next_change(ANN, next_day) is None
    assert berlin.next_change(ANN, datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 2, 19, 23, tzinfo=UTC)


def test_a_stand_in_who_is_away_has_stand_ins_of_her_own() -> None:
    found = people(ann=absent(BO, DI), bo=absent(CY)).away(ANN, NOW)
    assert found is not None
    assert (found.delegates, found.trouble) == ((CY, DI), "")


def test_a_circle_is_found_and_named() -> None:
    found = people(ann=absent(BO), bo=absent(ANN)).away(ANN, NOW)
    assert found is not None
    assert found.delegates == ()
    assert found.trouble == f"the delegates form a circle ({ANN} → {BO} → {ANN})"


def test_a_circle_further_on_does_not_hide_who_is_there() -> None:
    found = people(ann=absent(BO, DI), bo=absent(CY), cy=absent(BO)).away(ANN, NOW)
    assert found is not None
    assert found.delegates == (DI,)
    assert "circle (bo@acme.eu → cy@acme.eu → bo@acme.eu)" in found.trouble


def test_a_chain_is_followed_for_a_few_steps_only() -> None:
    chain = {f"p{n}": absent(f"p{n + 1}@acme.eu") for n in range(MOST_STEPS + 1)}
    far = people(**chain).away("p0@acme.eu", NOW)
    assert far is not None
    assert far.delegates == ()
    assert "more than 5 delegates in a row" in far.trouble
    near = people(**chain).away("p1@acme.eu", NOW)
    assert near is not None
    assert near.delegates == (f"p{MOST_STEPS + 1}@acme.eu",)


# ── who has which place ──


def found(*seats: dict[str, str], away: dict[str, tuple[str, ...]]) -> Resolution:
    everybody = [*(who for seat in seats for who in seat), *(one for each in away.values() for one in each), *away]
    return Resolution(
        tuple(ResolvedSeat(n, dict(seat), tuple(seat)) for n, seat in enumerate(seats)),
        {who: Person(who, who.title()) for who in everybody},
        {who: Away(NOW, date(2026, 3, 6), each) for who, each in away.items()},
    )


def seat(*members: str) -> dict[str, str]:
    return dict.fromkeys(members, "in x")


def places(given: Resolution, *votes: CountedVote, need: Any = 1) -> list[tuple[list[str], list[str], dict[str, str]]]:
    """Of each seat: who may vote, who is told, and who stands in for whom."""
    needs = {each.id: need for each in given.seats}
    return [
        (list(each.eligible), list(each.notified), each.in_place_of)
        for each in with_delegates(given, needs, votes).seats
    ]


def test_a_stand_in_takes_the_place_and_is_told_why() -> None:
    given = found(seat("ann", "cy"), away={"ann": ("bo",)})
    assert places(given) == [(["bo", "cy"], ["bo", "cy"], {"bo": "ann"})]
    eligible = with_delegates(given, {0: 1}).seats[0].eligible
    assert eligible["bo"] == "standing in for Ann (in x)"


def test_who_has_a_place_of_her_own_is_passed_over() -> None:
    given = found(seat("ann"), seat("bo"), away={"ann": ("bo", "di")})
    assert places(given) == [(["di"], ["di"], {"di": "ann"}), (["bo"], ["bo"], {})]


def test_nobody_stands_in_for_two() -> None:
    given = found(seat("ann", "cy"), away={"ann": ("bo",), "cy": ("bo", "di")})
    assert places(given, need=2) == [(["bo", "di"], ["bo", "di"], {"bo": "ann", "di": "cy"})]


def test_without_a_stand_in_she_is_told_only_if_the_others_are_too_few() -> None:
    given = found(seat("ann", "bo", "cy"), away={"ann": ("bo",)})
    assert places(given, need=2) == [(["ann", "bo", "cy"], ["bo", "cy"], {})]
    assert places(given, need=3) == [(["ann", "bo", "cy"], ["ann", "bo", "cy"], {})]
    assert places(given, need="all") == [(["ann", "bo", "cy"], ["ann", "bo", "cy"], {})]
    assert with_delegates(given, {0: 2}).seats[0].eligible["ann"] == "in x (away, back on 6 Mar 2026)"


def test_who_has_voted_keeps_her_place_and_so_does_who_voted_for_her() -> None:
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
    office.people._away = {f"{who}@acme.eu": (absence,) for who, absence in away.items()}


async def asked_of(asked: Any) -> list[str]:
    return sorted((await asked.view()).waiting_for)


async def test_a_delegate_decides_and_everything_says_for_whom(office: Any) -> None:
    leaves(office, ann=absent(BO))
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        assert await asked_of(asked) == [BO, CY]
        assert (len(office.email.to(ANN)), len(office.email.to(BO))) == (0, 1)
        card = card_of(await asked.view(), BO, NOW)
        assert card.why_me == "You're an approver because you're standing in for Ann Ode (named in the workflow)."
        assert card_text.waiting_for(card) == "Waiting for Bo Lund for Ann Ode and Cy Rus"
        why = {each["person"]: each["why"] for each in explain(await asked.view())["waiting_for"]}
        assert why[BO] == "standing in for Ann Ode (named in the workflow)"
        assert await asked.vote(ANN) == "not_an_approver"
        assert await asked.vote(CY) == "counted"
        assert await asked.vote(BO) == "decided"
        view = await asked.view()
        card = card_of(view, None, NOW)
        assert card.outcome is not None
        assert card_text.outcome(card.outcome) == "✅ Approved by Bo Lund for Ann Ode via the API"
        assert "✅ Bo Lund for Ann Ode approved via the API" in [card_text.vote(vote) for vote in card.votes]
        assert "Bo Lund for Ann Ode" in card_text.seats(card.stages[0])[0]
        assert [vote.get("in_place_of") for vote in api_request(view)["votes"]] == [None, ANN]
        result = (await asked.record()).result
        assert (result["by"], result["in_place_of"]) == (BO, ANN)
        assert "Already decided by Bo Lund for Ann Ode" in late_reply(view, Vote(CFO), NOW).text


async def test_a_delegate_who_asks_is_passed_over(office: Any) -> None:
    leaves(office, ann=absent(BO, DI))
    async with office.open():
        assert await asked_of(await office.ask(ONE, {}, by=BO)) == [DI]
        assert await asked_of(await office.ask(ONE, {}, by=CFO, behalf=BO)) == [DI]
    leaves(office, ann=absent(BO))
    async with office.open():
        asked = await office.ask(ONE, {}, by=BO)
        assert await asked_of(asked) == [ANN]
        assert len(office.email.to(ANN)) == 1
        assert await asked.vote(BO) == "own_request"


@pytest.mark.parametrize("rule", ["allow", "never", "skip-up"])
async def test_not_even_where_the_requester_may_decide_does_she_stand_in(office: Any, rule: str) -> None:
    leaves(office, ann=absent(BO))
    text = ONE.replace("[policy]", f'[policy]\nself_approval = "{rule}"')
    async with office.open():
        asked = await office.ask(text, {}, by=BO)
        assert await asked_of(asked) == [ANN]
        assert await asked.vote(BO) in ("own_request", "not_an_approver")


async def test_a_circle_falls_back_on_who_was_asked_and_warns(office: Any, caplog: pytest.LogCaptureFixture) -> None:
    leaves(office, ann=absent(BO), bo=absent(ANN))
    async with office.open():
        asked = await office.ask(ONE, {}, by=DI)
        assert await asked_of(asked) == [ANN]
        [waiting] = explain(await asked.view())["waiting_for"]
        assert "away, back on 6 Mar 2026; the delegates form a circle" in waiting["why"]
        assert await asked.vote(ANN) == "decided"
    assert any("lead nowhere" in record.getMessage() for record in caplog.records)
    assert "@" not in caplog.text


async def test_who_comes_back_is_asked_herself_and_the_delegate_no_more(office: Any) -> None:
    leaves(office, ann=absent(BO, last="2026-03-02"))  # Ann is in Berlin: until 23:00 UTC
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        assert await asked_of(asked) == [BO, CY]
        await office.clock.advance("14h")
        assert await asked_of(asked) == [ANN, CY]
        assert len(office.email.to(ANN)) == 1
        assert card_of(await asked.view(), BO, office.clock.now()).choices == ()
        assert await asked.vote(BO) == "not_an_approver"
        assert [await asked.vote(who) for who in (ANN, CY)] == ["counted", "decided"]


async def test_who_leaves_while_it_is_open_is_replaced_then(office: Any) -> None:
    leaves(office, ann=absent(BO, first="2026-03-04"))
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        assert await asked_of(asked) == [ANN, CY]
        await office.clock.advance("2d")
        assert await asked_of(asked) == [BO, CY]
        assert len(office.email.to(BO)) == 1


async def test_one_place_has_one_vote_whoever_comes_back(office: Any) -> None:
    leaves(office, ann=absent(BO, last="2026-03-02"))
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        assert await asked.vote(BO) == "counted"
        await office.clock.advance("14h")
        assert await asked_of(asked) == [CY]  # Bo's vote stands in Ann's place
        assert await asked.vote(ANN) == "counted"
        view = await asked.view()
        assert [(vote.by, vote.counts) for vote in view.votes] == [(BO, False), (ANN, True)]
        assert view.outcome is None
        assert await asked.vote(CY) == "decided"


async def test_who_voted_before_she_left_is_not_replaced(office: Any) -> None:
    leaves(office, ann=absent(BO, first="2026-03-04"))
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        assert await asked.vote(ANN) == "counted"
        await office.clock.advance("2d")
        assert await asked_of(asked) == [CY]
        assert await asked.vote(BO) == "not_an_approver"
        assert await asked.vote(CY) == "decided"


async def test_an_absence_that_is_written_down_later_counts_at_the_click(office: Any) -> None:
    async with office.open():
        asked = await office.ask(TWO, {}, by=DI)
        leaves(office, ann=absent(BO))
        assert await asked.vote(BO) == "counted"
        assert await asked_of(asked) == [CY]


async def test_a_simulation_shows_who_would_stand_in(office: Any) -> None:
    leaves(office, ann=absent(BO))
    definition = Definition.model_validate(tomllib.loads(TWO))
    said = await simulate(definition, Opening({}, DI), office.people, office.clock.now())
    assert [(who["person"], who["why"]) for who in said["who"]] == [
        (BO, "standing in for Ann Ode (named in the workflow)"),
        (CY, "named in the workflow"),
    ]
