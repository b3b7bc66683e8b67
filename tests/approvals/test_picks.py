"""A few of many: those whose last pick is longest ago."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import date
from typing import Any

import pytest

from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.picks import PickQuery, Picks, chosen
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.timers import stage_times
from approvals_bot.approvals.workflow import approval
from approvals_bot.people import People
from approvals_bot.people.absences import Absence
from approvals_bot.service.picks import StoredPicks
from tests.approvals.conftest import ANN, BO, CFO, CY, DI, START, Office, OpenedRequest
from tests.approvals.test_checks import problems, workflow

SEVEN = [f"p{number}@acme.eu" for number in range(7)]
REVIEW: dict[str, Any] = {
    "workflow": {"id": "picked", "title": "Review", "request": ["*"]},
    "stage": [{"id": "review", "from": ["@release-managers", "@finance"], "pick": 2}],
    "escalate": [{"after": "1h", "to": ["pick"]}],
    "deliver": {"dm": True},
}


def played(requesters: list[str], seed: int, of: int) -> Counter[str]:
    """Pick for 400 requests in a row, of which nobody decides their own; return how often each was picked."""
    state: dict[str, Any] = {}
    picks, draw = Counter[str](dict.fromkeys(SEVEN, 0)), random.Random(seed)  # noqa: S311  # the same requests each time
    for number in range(400):
        asking = draw.choice(requesters)
        people = tuple(one for one in SEVEN if one != asking)
        picked, after = chosen(state, PickQuery("t", str(number), people, of, draw.random()))
        assert len({*picked}) == of
        assert asking not in picked
        assert after is not None
        state = after
        picks.update(picked)
    assert sum(picks.values()) == 400 * of
    return picks


@pytest.mark.parametrize("of", [1, 2, 3])
def test_everybody_is_picked_equally_often(of: int) -> None:
    for seed in range(20):
        picks = played(["di@acme.eu"], seed, of)
        assert max(picks.values()) - min(picks.values()) <= 1
        picks = played([*SEVEN, "di@acme.eu"], seed, of)  # whose own requests pass them by
        assert max(picks.values()) < 1.2 * min(picks.values())


def test_ties_are_broken_at_random() -> None:
    first = Counter(chosen({}, PickQuery("t", "1", tuple(SEVEN), 1, seed / 2_000))[0][0] for seed in range(2_000))
    assert all(200 < first[person] < 375 for person in SEVEN)  # 286 each, and five times the deviation of 16


def test_a_repeated_pick_is_the_same_and_takes_no_turn() -> None:
    query = PickQuery("t", "run_1 go 0", tuple(SEVEN), 2, 0.25)
    picked, state = chosen({}, query)
    assert state is not None
    assert chosen(state, query) == (picked, None)
    other, _ = chosen(state, PickQuery("t", "run_2 go 0", tuple(SEVEN), 5, 0.25))
    assert not {*picked} & {*other}
    assert all(person not in str(state) for person in SEVEN)  # digests, not addresses


async def opened(office: Office, **more: Any) -> Any:
    office.engine.resources[Picks] = StoredPicks(office.engine)
    return await office.ask(toml(REVIEW | more), {}, by=DI)


def toml(tables: dict[str, Any]) -> str:
    """Write the few kinds of values that these files have."""
    import json

    lines = ["[workflow]", *(f"{key} = {json.dumps(value)}" for key, value in tables["workflow"].items())]
    for name in ("deliver", "clock"):
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in tables.get(name, {}).items())]
    for name in ("stage", "escalate"):
        for each in tables.get(name, ()):
            lines += [f"[[{name}]]", *(f"{key} = {json.dumps(value)}" for key, value in each.items())]
    return "\n".join(lines)


async def test_only_those_picked_are_asked_and_may_vote(office: Office) -> None:
    async with office.open():
        asked = [await opened(office) for _ in range(5)]
        views = [await each.view() for each in asked]
        turns = Counter(person for view in views for person in view.waiting_for)
        assert turns == dict.fromkeys([ANN, BO, CY, CFO, "fin@acme.eu"], 2)  # whichever of them opened first
        view = views[0]
        others = {ANN, BO, CY, CFO}.difference(view.waiting_for)
        assert view.stages[0].notified == view.waiting_for
        assert view.stages[0].seats[0].eligible[view.waiting_for[0]].endswith(", and picked for this request")
        assert await asked[0].vote(others.pop()) == "not_an_approver"
        said = explain(view)["rules"]
        assert said[-1]["rule"] == "stage review: 2 of Release managers or Finance were picked"
        assert said[-1]["values"] == {"picked": [*view.picks["review 0"]]}
        assert await asked[0].vote(view.waiting_for[0]) == "decided"


@pytest.mark.parametrize(("pick", "need"), [(1, 2), (2, 2), (1, "majority"), (1, "all")])
async def test_nobody_is_picked_whom_another_seat_needs(office: Office, pick: int, need: int | str) -> None:
    seats = [{"from": [ANN, BO], "need": need}, {"from": ["@release-managers"], "pick": pick}]
    async with office.open():
        for _ in range(3):  # each of the three would have had a turn
            office.engine.resources[Picks] = StoredPicks(office.engine)
            definition = Definition.model_validate({**REVIEW, "stage": [{"id": "review", "seat": seats}]}, context={})
            run = await office.engine.start(approval.under("picked", pinned(definition)), Opening({}, DI))
            await office.settle()
            request = OpenedRequest(office, run)
            assert CY in (await request.view()).picks["review 1"]
            assert len((await request.view()).picks["review 1"]) == pick
            assert [await request.vote(by) for by in (ANN, BO, CY)] == ["counted", "counted", "decided"]


async def test_an_escalation_picks_more(office: Office) -> None:
    async with office.open():
        request = await opened(office)
        first = (await request.view()).waiting_for
        await office.clock.advance("1h")
        view = await request.view()
        assert len(view.waiting_for) == 4
        assert {*first} < {*view.waiting_for}
        assert [each.what for each in (await request.view()).timers] == []
        new = view.waiting_for[-1]
        assert len(office.email.to(new)) + len(office.slack.to(new)) == 1
        assert await request.vote(new) == "decided"


async def test_somebody_is_picked_for_a_person_who_left(office: Office) -> None:
    office.live.people = [ANN, BO, CY]
    async with office.open():
        stage = {"id": "review", "from": ["@live"], "pick": 2, "need": 2}
        request = await opened(office, stage=[stage], escalate=[])
        first, second = (await request.view()).picks["review 0"]
        (third,) = {ANN, BO, CY}.difference((first, second))
        assert await request.vote(first) == "counted"
        office.live.people.remove(second)
        assert await request.vote(second) == "not_an_approver"  # and somebody else's turn begins
        await office.clock.advance("1m")
        view = await request.view()
        assert (view.waiting_for, view.picks["review 0"]) == ((third,), (first, second, third))
        assert len(office.email.to(third)) + len(office.slack.to(third)) == 1
        assert await request.vote(third) == "decided"


@pytest.mark.parametrize(("delegates", "asked"), [((), ANN), ((CFO,), CFO)])
async def test_who_goes_away_has_a_delegate_or_a_successor(
    office: Office, delegates: tuple[str, ...], asked: str
) -> None:
    days = {ANN: ("01", "02", ()), BO: ("01", "09", ()), CY: ("03", "05", delegates)}
    away = {
        person: [Absence(date.fromisoformat(f"2026-03-{first}"), date.fromisoformat(f"2026-03-{last}"), instead)]
        for person, (first, last, instead) in days.items()
    }
    office.people = People(groups={"three": [ANN, BO, CY], "others": [CFO, DI]}, away=away)
    async with office.open():
        stage = {"id": "review", "from": ["@three"], "pick": 1}
        request = await opened(office, stage=[stage], escalate=[])
        assert (await request.view()).waiting_for == (CY,)  # the others are away
        await office.clock.advance("1d")
        view = await request.view()
        assert view.stages[0].notified == (asked,)
        assert view.picks["review 0"] == ((CY,) if delegates else (CY, ANN))
        assert await request.vote(asked) == "decided"


async def test_picks_at_once_take_turns(office: Office) -> None:
    async with office.open():
        picks, people = StoredPicks(office.engine), tuple(SEVEN)
        queries = [PickQuery("t", str(number), people, 2, number / 14) for number in range(14)]
        picked = await asyncio.gather(*map(picks.pick, [*queries, *queries]))  # and each of them twice
        assert picked[:14] == picked[14:]
        assert Counter(person for each in picked[:14] for person in each) == dict.fromkeys(SEVEN, 4)


async def test_nobody_is_picked_while_a_list_cannot_be_read(office: Office) -> None:
    office.live.is_down = True
    async with office.open():
        stage = {"id": "review", "from": ["@live", CFO], "pick": 1}
        request = await opened(office, stage=[stage], escalate=[])
        assert (await request.view()).waiting_for == ()
        office.live.is_down = False
        await office.clock.advance("1m")
        assert len((await request.view()).waiting_for) == 1


async def test_a_simulation_says_how_many_are_picked(office: Office) -> None:
    definition = Definition.model_validate(REVIEW)
    said = await simulate(definition, Opening({}, DI), office.people, office.clock.now())
    assert said["stages"][0]["seats"] == [{"label": "Release managers or Finance", "need": 1, "of": 5, "pick": 2}]
    assert said["timers"][0]["what"] == "escalation: more of them are asked too"


async def test_a_stage_that_picks_nobody_asks_no_more(office: Office) -> None:
    stages = [{"id": "all", "from": [CFO]}, {"id": "few", "from": ["@release-managers"], "pick": 1}]
    clock = {"deadline": "1d", "on_deadline": "escalate"}
    more = [{"after": "2h", "to": ["pick"]}, {"after": "3h", "to": ["pick", "@leads"]}, {"after": "2d", "to": ["pick"]}]
    definition = Definition.model_validate({**REVIEW, "stage": stages, "clock": clock, "escalate": more})
    whats = [[time.what for time in stage_times(definition.in_stage(each), START)] for each in definition.stage]
    assert whats == [
        ["escalation: @leads are asked too", "deadline: then it expires"],
        [
            "escalation: more of them are asked too",
            "escalation: more of them, @leads are asked too",
            "deadline: then it escalates",
        ],
    ]
    async with office.open():
        request = await opened(office, stage=stages, clock=clock, escalate=more[:1])
        await office.clock.advance("3h")
        view = await request.view()
        assert view.stage is not None
        assert view.stage.escalations == ()
        assert await request.vote(CFO) == "counted"
        await office.clock.advance("3h")
        assert len((await request.view()).waiting_for) == 2
        await office.clock.advance("1d")
        assert (await request.view()).state == "expired"


@pytest.mark.parametrize(
    ("stage", "escalate", "found"),
    [
        ({"pick": 2, "need": 2}, {"to": ["pick", "@ann"]}, []),
        ({"pick": 2, "need": "all"}, {"to": ["@ann"]}, []),
        (
            {"pick": 1, "need": 2},
            {"to": ["@ann"]},
            ["stage.0.seat.0.pick: 2 are needed, so at least as many must be picked"],
        ),
        ({}, {"to": ["pick"]}, ["escalate.0.to.0: no seat picks people: set pick, or name who is asked"]),
        (
            {"pick": 1},
            {"to": ["@ann", "pick"], "mode": "replace"},
            ["escalate.0.to.1: asks more people, so it replaces nobody: leave mode out"],
        ),
    ],
)
def test_check_compares_pick_and_need(stage: dict[str, Any], escalate: dict[str, Any], found: list[str]) -> None:
    assert problems(workflow({"from": ["@three"]} | stage, escalate=[{"after": "1h"} | escalate])) == found
