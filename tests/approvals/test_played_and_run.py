"""Random policies that combine everything, played as policy tests are and run in an engine: both agree.

No request is approved without the votes of people who could decide, whatever changes while it is open.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.acts import Change, Edit, Reassign, Vote, Withdraw, message_of
from approvals_bot.approvals.ballot import waiting_for
from approvals_bot.approvals.picks import Picks
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.people import People, Person
from approvals_bot.service.open import permitted_opening
from approvals_bot.service.picks import StoredPicks
from approvals_bot.service.playing import played
from approvals_bot.service.refusals import OpeningRefused
from tests.approvals.conftest import START, LiveGroup, OpenedRequest, make_office

PEOPLE = tuple(f"{name}@acme.eu" for name in ("ann", "bo", "cy", "di", "eve", "fay"))
LONG = (pytest.mark.long, pytest.mark.timeout(1_200))

Act = tuple[int, str, str, Any]
"""Minutes since the last one, what is done, by whom ("*": somebody it waits for, "R": the requester), and with what."""


def seat(draw: random.Random) -> dict[str, Any]:
    lists = [["@g1"], ["@g2"], ["@g1", "@g2"], [draw.choice(PEOPLE)], draw.sample(PEOPLE, 2), ["field:who"]]
    made: dict[str, Any] = {"from": draw.choice(lists), "need": draw.choice([1, 1, 1, 2, "all", "majority"])}
    if len(made["from"]) == 1 and not made["from"][0].startswith("@") and made["need"] == 2:
        made["need"] = 1
    if draw.random() < 0.2 and isinstance(made["need"], int):
        made["pick"] = max(made["need"], draw.choice([1, 2]))
    if draw.random() < 0.25:
        made["when"] = draw.choice(["n > 5", "n < 3", "n != 4"])
    return made


def stage(draw: random.Random, number: int) -> dict[str, Any]:
    made: dict[str, Any] = {"id": f"s{number}", "outcomes": ["approve", "reject", "changes", "edit"]}
    if draw.random() < 0.45:
        ways = [{"seats": [seat(draw) for _ in range(draw.choice([1, 1, 2]))]} for _ in range(draw.choice([2, 2, 3]))]
        made["any"] = ways
    else:
        made["seat"] = [seat(draw) for _ in range(draw.choice([1, 1, 2]))]
    if draw.random() < 0.3:
        made["when"] = draw.choice(["n > 2", "n < 8", 'requester.in("@g1")', "now.hour < 10"])
    if draw.random() < 0.2:
        made["veto"] = {"from": draw.choice([["@g2"], [draw.choice(PEOPLE)]])}
    elif draw.random() < 0.2:
        made["reject"] = draw.choice(["all", 2])
    if draw.random() < 0.3:
        made |= {"deadline": draw.choice(["1h", "2h"]), "on_deadline": draw.choice(["reject", "expire"])}
    if draw.random() < 0.15:
        made["decide"] = "when-all-answered"
    if draw.random() < 0.15:
        made["self_approval"] = "allow"
    return made


def policy(draw: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"reject": draw.choice(["any", "all"]), "recheck": draw.choice(["at-click", "at-quorum"])}
    others: list[list[dict[str, Any]]] = [
        [{}, {"distinct": True}, {"carry_over": True}],
        [{}, {}, {"exclude": [draw.choice([draw.choice(PEOPLE), "field:who", "@g2"])]}],
        [{}, {"on_change": "keep"}, {"on_change": "reset"}, {"on_change": {"n": "reset-if-raised"}}],
        [{}, {}, {}, {"grace": "10m"}],
    ]
    for each in others:
        made |= draw.choice(each)
    return made


def definition(draw: random.Random) -> Definition:
    clock = {
        "deadline": draw.choice(["1h", "2h", "3h"]),
        "remind": ["30m"],
        "on_deadline": draw.choice(["expire", "reject"]),
    }
    more = {"after": "30m", "to": draw.choice([["@g2"], [draw.choice(PEOPLE)], ["pick"]])}
    file = {
        "workflow": {"id": f"w{draw.getrandbits(40)}", "title": "T {{ n }}", "request": ["*", "app:ci"]},
        "fields": {
            "n": {"type": "integer", "editable": True},
            "who": {"type": "person", "editable": True, "required": False},
        },
        "policy": policy(draw),
        "stage": [stage(draw, number) for number in range(draw.choice([1, 2, 2, 3]))],
        "clock": clock,
        "escalate": [more] if draw.random() < 0.4 else [],
    }
    return Definition.model_validate(file, context={})


def acts(draw: random.Random) -> Iterator[Act]:
    for _ in range(draw.randint(3, 12)):
        after, kind = draw.choice([0, 0, 0, 0, 10, 20, 30, 60]), draw.random()
        if kind < 0.6:
            choice = draw.choice(["approve"] * 6 + ["reject", "take_back", "changes"])
            yield after, "vote", draw.choice(["*", "*", *PEOPLE]), choice
        elif kind < 0.72:
            changed = draw.choice([{"n": draw.randint(0, 9)}, {"who": draw.choice([None, *PEOPLE])}])
            yield after, "edit", draw.choice(["R", "R", "*"]), changed
        elif kind < 0.82:
            yield after, "reassign", "*", draw.choice(PEOPLE)
        elif kind < 0.97:
            yield after, "group", draw.choice(["g1", "g2"]), draw.sample(PEOPLE, draw.randint(1, 4))
        else:
            yield after, "withdraw", "R", None


def act_of(act: Act, number: int, requester: str, request: Request) -> Change:
    _, kind, by, what = act
    asked = waiting_for(request) or PEOPLE
    by = requester if by == "R" else asked[number % len(asked)] if by == "*" else by
    match kind:
        case "vote":
            return Vote(by, what, comment="so" if what in ("reject", "changes") else "")
        case "edit":
            return Edit(by, what) if by == requester else Vote(by, "edit", fields=what)
        case "reassign":
            return Reassign(by, what, instead_of=by)
        case _:
            return Withdraw(by)


def shown(request: Request) -> Any:
    """Return what both ways have to agree in."""
    stages = []
    for one in request.stages:
        votes = [(vote.by, vote.choice, vote.counts) for vote in one.votes]
        stages.append((one.id, one.state, one.because, votes, sorted((each.id, *each.eligible) for each in one.seats)))
    ended = request.outcome
    return request.state, ended and (ended.by, ended.via), request.deadline, stages, request.fields


class Groups:
    """Two groups that change while requests are open, with all who have ever been in them."""

    def __init__(self, draw: random.Random) -> None:
        self.live = {name: LiveGroup(*draw.sample(PEOPLE, 3)) for name in ("g1", "g2")}
        self._first = {name: [*group.people] for name, group in self.live.items()}
        self.ever = {name: {*group.people} for name, group in self.live.items()}
        for name, group in self.live.items():
            group.name = f"@{name}"

    def change(self, name: str, people: Sequence[str]) -> None:
        self.live[name].people = [*people]
        self.ever[name].update(people)

    def people(self) -> People:
        """Return the people as they are at first."""
        for name, group in self.live.items():
            group.people = [*self._first[name]]
        persons = [Person(address, address.partition("@")[0].title()) for address in (*PEOPLE, "zed@acme.eu")]
        return People(persons=persons, groups={**self.live})


async def is_played(
    file: Definition, opening: Opening, done: Sequence[Act], groups: Groups
) -> tuple[list[Any], list[Request]]:
    found: list[Any] = []
    with played(file, opening, groups.people(), START) as play:
        await play.open()
        for number, act in enumerate(done):
            await play.wait(play.now + timedelta(minutes=act[0]))
            if act[1] == "group":
                groups.change(act[2], act[3])
            else:
                reply = await play.act(act_of(act, number, opening.requester, play.request))
                found.append((reply.verdict, reply.changed))
            found.append(shown(play.request))
        await play.wait(play.now + timedelta(hours=9))
        return [*found, shown(play.request)], [*play.seen]


async def is_run(file: Definition, opening: Opening, done: Sequence[Act], groups: Groups, store: str) -> list[Any]:
    office, found = make_office(store), list[Any]()
    office.people = groups.people()
    async with office.open():
        office.engine.resources[Picks] = StoredPicks(office.engine)
        run = await office.engine.start(approval.under(file.id, file.model_dump(mode="json")), opening)
        await office.settle()
        opened = OpenedRequest(office, run)
        for number, act in enumerate(done):
            await office.clock.advance(timedelta(minutes=act[0]))
            if act[1] == "group":
                groups.change(act[2], act[3])
            else:
                said = await opened.act(**message_of(act_of(act, number, opening.requester, await opened.view())))
                found.append((said["verdict"], said["changed"]))
            found.append(shown(await opened.view()))
        await office.clock.advance("9h")
        return [*found, shown(await opened.view())]


def unauthorised(file: Definition, seen: Sequence[Request], requester: str, ever: Mapping[str, set[str]]) -> str:
    """Say what is wrong with an approval: every stage that applies needs an alternative of people who once could."""
    request = seen[-1]
    if request.state != "approved":
        return ""
    took_over = {done.act.person for each in seen for one in each.stages for done in one.reassignments}
    named = {str(each.fields.get("who")) for each in seen}
    deciders = list[str]()
    for one in (each for each in request.stages if each.state != "skipped"):
        rule = next(each for each in file.stage if each.id == one.id)
        yes = [vote.by for vote in one.votes if vote.counts and vote.choice in ("approve", "edit")]
        deciders += yes
        if len({*yes}) < len(yes) or (requester in yes and rule.self_approval != "allow"):
            return f"{one.id}: {yes}"
        late = [address for each in file.escalate for address in each.to]
        may = {
            number: took_over.union(
                *(
                    ever[each[1:]] if each[0] == "@" else named if each == "field:who" else {each}
                    for each in (*own.from_, *late)
                )
            )
            for number, own in enumerate(rule.seats)
        }
        ways: dict[int, list[int]] = {}
        for each in one.seats:
            need = rule.seats[each.id].need
            ways.setdefault(rule.alternative_of(each.id), []).extend([each.id] * (need if isinstance(need, int) else 1))
        if not any(
            all(person in may[chair] for person, chair in zip(people, chairs, strict=True))
            for chairs in ways.values()
            for people in permutations(yes, len(chairs))
        ):
            return f"{one.id}: nobody could fill {ways} with {yes}"
    return "twice" if file.policy.distinct and len({*deciders}) < len(deciders) else ""


@pytest.mark.parametrize("seeds", [range(16), pytest.param(range(16, 2_000), marks=LONG)], ids=["some", "all"])
async def test_played_requests_end_as_real_ones_and_safely(seeds: range, tmp_path: Path) -> None:
    approved = 0
    for seed in seeds:
        draw = random.Random(seed)  # noqa: S311  # the same policies each time
        file, done = definition(draw), [*acts(draw)]
        requester = draw.choice([*PEOPLE, "zed@acme.eu", "app:ci"])
        given = {"n": draw.randint(0, 9), "who": draw.choice([None, *PEOPLE])}
        groups = Groups(draw)
        try:
            opening = await permitted_opening(file, given, requester, None, groups.people(), START)
        except OpeningRefused:
            continue
        found, seen = await is_played(file, opening, done, groups)
        assert unauthorised(file, seen, requester, groups.ever) == "", seed
        approved += seen[-1].state == "approved"
        picks = any(each.pick is not None for one in file.stage for each in one.seats)  # at random, so not compared
        if seed % 4 == 0 and not picks:
            assert await is_run(file, opening, done, groups, f"sqlite:///{tmp_path / f'{seed}.db'}") == found, seed
    assert approved
