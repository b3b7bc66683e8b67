"""Whole requests against a slow count: alternatives, stages, distinct, exclude and votes that are carried over."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.apply import apply
from approvals_bot.approvals.ballot import owed, stage_status
from approvals_bot.approvals.eligibility import Resolution
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening, Request, RequestStage
from approvals_bot.approvals.resolution import resolve_seats
from approvals_bot.approvals.rules import Rules
from approvals_bot.approvals.stages import context_of, next_stage, opened, request_of, seat_queries
from approvals_bot.people import People, Person
from tests.approvals.test_ballot_oracle_rules import needed

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PEOPLE = tuple(f"{name}@acme.eu" for name in ("ann", "bo", "cy", "di", "eve"))

LONG = (pytest.mark.long, pytest.mark.timeout(1_200))

Seats = tuple[tuple[tuple[str, ...], Any], ...]  # people and need, of each


@dataclass(frozen=True)
class Rule:
    """A stage as its file has it."""

    alternatives: tuple[Seats, ...]
    reject: Any = "any"
    waits: bool = False
    asks: bool = False
    veto: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A policy, and the votes in their order."""

    stages: tuple[Rule, ...]
    votes: tuple[tuple[str, str], ...]
    requester: str = "app:ci"
    exclude: str = ""
    mode: str = ""  # distinct or carry_over


def drawn(draw: random.Random) -> Case:
    def seats() -> Seats:
        needs = [1, 1, 2, "all", "majority", f"{draw.randint(1, 100)}%"]
        return tuple(
            (tuple(draw.sample(PEOPLE, draw.randint(1, 4))), draw.choice(needs)) for _ in range(draw.choice([1, 1, 2]))
        )

    stages = tuple(
        Rule(
            tuple(seats() for _ in range(draw.choice([1, 2, 2, 3]))),
            reject=draw.choice(["any", "all", 2]),
            waits=draw.random() < 0.15,
            asks=draw.random() < 0.2,
            veto=tuple(draw.sample(PEOPLE, 2)) if draw.random() < 0.15 else (),
        )
        for _ in range(draw.choice([1, 2, 2, 3]))
    )
    choices = ["approve"] * 6 + ["reject", "take_back"]
    return Case(
        stages,
        tuple((draw.choice(PEOPLE), draw.choice(choices)) for _ in range(draw.randint(2, 10))),
        requester=draw.choice(["app:ci", "app:ci", PEOPLE[0]]),
        exclude=draw.choice(["", "", PEOPLE[1]]),
        mode=draw.choice(["", "distinct", "carry_over"]),
    )


# ── The slow count: tries everything. ──


def most_filled(seats: Seats, sizes: Sequence[int], approving: Sequence[str]) -> int:
    """Return how many chairs these people can fill at most, each at most one."""
    if not approving:
        return 0
    person, rest = approving[0], approving[1:]
    best = most_filled(seats, sizes, rest)
    for at, (people, _) in enumerate(seats):
        if person in people and sizes[at] > 0:
            left = [size - (at == number) for number, size in enumerate(sizes)]
            best = max(best, 1 + most_filled(seats, left, rest))
    return best


@dataclass
class Slow:
    """A request as the words of the documentation have it."""

    case: Case
    at: int = 0  # the open stage
    choices: list[dict[str, str]] = field(default_factory=list)  # of each stage, by person
    own: list[set[str]] = field(default_factory=list)  # who voted there themselves, in each stage
    sizes: list[list[int]] = field(default_factory=list)  # of the open stage, by alternative
    end: str = "open"
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.choices = [{} for _ in self.case.stages]
        self.own = [set() for _ in self.case.stages]
        self.open(0)

    def may(self, number: int, seats: Seats) -> Seats:
        """Return the seats with the people who may vote in this stage."""
        gone = {self.case.requester, self.case.exclude}
        if self.case.mode == "distinct":
            gone |= {one for at, each in enumerate(self.choices) if at != number for one in each}
        return tuple((tuple(one for one in people if one not in gone), need) for people, need in seats)

    def alternatives(self, number: int) -> list[Seats]:
        return [self.may(number, seats) for seats in self.case.stages[number].alternatives]

    def voters(self, number: int) -> list[str]:
        found = {one for seats in self.alternatives(number) for people, _ in seats for one in people}
        return [one for one in PEOPLE if one in found]

    def rejecters(self) -> list[str]:
        rule = self.case.stages[self.at]
        barred = (self.case.requester, self.case.exclude)
        return [one for one in rule.veto if one not in barred] if rule.veto else self.voters(self.at)

    def open(self, number: int) -> None:
        if number == len(self.case.stages):
            self.end = "approved"
            return
        self.at = number
        self.sizes = [[needed(need, len(people)) for people, need in seats] for seats in self.alternatives(number)]
        rule = self.case.stages[number]
        if self.case.mode == "carry_over" and not rule.asks:
            for one in self.voters(number):
                if any(
                    self.choices[earlier].get(one) == "approve" and one in self.own[earlier]
                    for earlier in range(number)
                ):
                    self.choices[number][one] = "approve"
                    self.seen["carried"] += 1
        if self.choices[number] and self.status() == "filled":
            self.seen["carried through"] += 1
            self.open(number + 1)

    def fills(self, approving: Iterable[str]) -> list[bool]:
        people = list(approving)
        both = zip(self.alternatives(self.at), self.sizes, strict=True)
        return [most_filled(seats, sizes, people) == sum(sizes) for seats, sizes in both]

    def status(self) -> str:
        rule, choices = self.case.stages[self.at], self.choices[self.at]
        voters, rejecters = self.voters(self.at), self.rejecters()
        against = [one for one in rejecters if choices.get(one) == "reject"]
        if rule.waits and any(one not in choices for one in voters):
            return "open"
        enough = 1 if rule.veto else {"any": 1, "all": max(1, len(voters))}.get(rule.reject, rule.reject)
        if against and (len(against) >= enough or not any(self.fills(one for one in voters if one not in against))):
            return "rejected"
        if any(self.fills(one for one in voters if choices.get(one) == "approve")):
            return "filled"
        return "rejected" if rule.waits and choices else "open"

    def vote(self, person: str, choice: str) -> bool:
        """Return whether the vote changes something."""
        choices = self.choices[self.at]
        if choice == "take_back":
            if person not in choices:
                return False
            del choices[person]
            return True
        allowed = self.rejecters() if choice == "reject" else self.voters(self.at)
        if person not in allowed or choices.get(person) == choice:
            return False
        before = choices.get(person)
        choices[person] = choice
        if self.case.mode == "distinct" and choice == "approve" and not self.leaves_enough():
            self.seen["needed later"] += 1
            choices.pop(person)
            if before is not None:
                choices[person] = before
            return False
        self.own[self.at].add(person)
        return True

    def leaves_enough(self) -> bool:
        """Whether different people are left for some choice of alternatives in the stages to come."""
        later = [self.alternatives(number) for number in range(self.at + 1, len(self.case.stages))]
        for way in product(*later):
            seats = tuple(seat for each in way for seat in each)
            sizes = [needed(need, len(people)) for people, need in seats]
            if most_filled(seats, sizes, PEOPLE) == sum(sizes):
                return True
        return False

    def go_on(self) -> None:
        match self.status():
            case "filled":
                self.seen["second alternative"] += self.wins_by_another()
                self.open(self.at + 1)
            case "rejected":
                self.end = "rejected"

    def wins_by_another(self) -> bool:
        yes = [one for one, choice in self.choices[self.at].items() if choice == "approve"]
        return not self.fills(yes)[0]

    def owed(self) -> set[str]:
        """Return whose vote is missing: who hasn't voted and would bring an alternative further that can still win."""
        rule, choices, voters = self.case.stages[self.at], self.choices[self.at], self.voters(self.at)
        silent = [one for one in voters if one not in choices]
        if rule.waits:
            return {*silent}
        against = [one for one in self.rejecters() if choices.get(one) == "reject"]
        reach = self.fills(one for one in voters if one not in against)
        if not any(reach):
            reach = [True for _ in reach]
        yes = [one for one in voters if choices.get(one) == "approve"]
        found = set[str]()
        for seats, sizes, is_possible in zip(self.alternatives(self.at), self.sizes, reach, strict=True):
            have = most_filled(seats, sizes, yes)
            more = {one for one in silent if most_filled(seats, sizes, [*yes, one]) > have}
            found |= more if is_possible else set()
        return found


# ── Ours. ──


def file_of(case: Case) -> tuple[Definition, dict[str, list[str]]]:
    """Return the file of this policy, and its groups."""
    groups, stages = dict[str, list[str]](), []
    for at, rule in enumerate(case.stages):
        tables = []
        for number, seats in enumerate(rule.alternatives):
            for place, (people, _) in enumerate(seats):
                groups[f"g{at}-{number}-{place}"] = [*people]
            tables.append(
                {
                    "seats": [
                        {"from": [f"@g{at}-{number}-{place}"], "need": need} for place, (_, need) in enumerate(seats)
                    ]
                }
            )
        stage: dict[str, Any] = {"id": f"s{at}"}
        stage |= {"any": tables} if len(tables) > 1 else {"seat": tables[0]["seats"]}
        stage |= {"veto": {"from": list(rule.veto)}} if rule.veto else {"reject": rule.reject}
        stage |= {"decide": "when-all-answered"} if rule.waits else {}
        stage |= {"ask": {"code": {"type": "string", "required": False}}} if rule.asks else {}
        stages.append(stage)
    policy = ({case.mode: True} if case.mode else {}) | ({"exclude": [case.exclude]} if case.exclude else {})
    about = {"id": "oracle", "title": "Oracle", "request": ["*", "app:ci"]}
    return Definition.model_validate({"workflow": about, "policy": policy, "stage": stages}), groups


class Ours:
    """The same request by our rules, with what the workflow does between two votes."""

    def __init__(self, case: Case) -> None:
        definition, groups = file_of(case)
        self.people = People(persons=[Person(one, one) for one in PEOPLE], groups=groups)
        self.rules = Rules(definition)
        self.request = request_of(self.rules, Opening({}, case.requester), at=NOON)
        self.now = NOON

    async def find(self, stage: RequestStage) -> Resolution:
        about = context_of(self.request, self.rules, stage)
        return await resolve_seats(seat_queries(self.request, self.rules, stage), about, self.people, at=self.now)

    async def advance(self) -> None:
        self.request, stage = next_stage(self.request, self.rules, self.now)
        if stage is not None:
            self.request = opened(self.request, self.rules, stage, await self.find(stage), self.now)
            stage = self.request.stage
            assert stage is not None
            if stage.votes and stage_status(stage) == "filled":
                await self.advance()

    async def vote(self, person: str, choice: str) -> bool:
        before, self.now = self.request, self.now + timedelta(seconds=1)
        assert before.stage is not None
        policy = self.rules.definition.policy
        looks = policy.distinct or policy.carry_over
        ahead = [(one, await self.find(one)) for one in before.stages if one.state == "ahead"] if looks else []
        act = Vote(person, choice, comment="so")  # type: ignore[arg-type]
        found = await self.find(before.stage)
        self.request, reply = apply(before, act, self.now, rules=self.rules, found=found, ahead=ahead)
        if reply.changed and self.request.outcome is None:
            self.request, following = next_stage(self.request, self.rules, self.now)
            if following is None or following.id != before.stage.id:
                await self.advance()
        return reply.changed

    def shown(self) -> tuple[str, str]:
        """Return the end, and the open stage."""
        view: Request = self.request
        return (view.outcome.state, "") if view.outcome is not None else ("open", view.stage.id if view.stage else "")


async def play(case: Case) -> Slow:
    """Cast the votes until one decides, comparing everything after each."""
    slow, ours = Slow(case), Ours(case)
    await ours.advance()
    for person, choice in case.votes:
        changes = slow.vote(person, choice)
        assert await ours.vote(person, choice) == changes, (case, slow)
        if changes:
            slow.go_on()
        expected = (slow.end, "" if slow.end != "open" else f"s{slow.at}")
        assert ours.shown() == expected, (case, slow)
        if slow.end != "open":
            return slow
        assert {*owed(ours.request)} == slow.owed(), (case, slow)
    return slow


@pytest.mark.parametrize("count", [150, pytest.param(20_000, marks=LONG)])
async def test_random_requests_end_as_a_slow_count_says(count: int) -> None:
    draw, ends, seen = random.Random(35), Counter[str](), Counter[str]()  # noqa: S311 - not a secret
    for _ in range(count):
        slow = await play(drawn(draw))
        ends[slow.end] += 1
        seen += slow.seen
    assert all(ends[end] > count / 10 for end in ("open", "approved", "rejected")), ends
    assert all(
        seen[what] > count / 100 for what in ("carried", "carried through", "needed later", "second alternative")
    ), seen


async def test_the_slow_count_finds_a_person_in_two_seats() -> None:
    """A negative control: one person doesn't fill both seats of an alternative."""
    both: Seats = (((PEOPLE[0],), 1), ((PEOPLE[0], PEOPLE[1]), 1))
    case = Case((Rule((both, (((PEOPLE[2],), 2),))),), ((PEOPLE[0], "approve"),))
    assert (await play(case)).end == "open"
    assert (await play(replace(case, votes=(*case.votes, (PEOPLE[1], "approve"))))).end == "approved"
