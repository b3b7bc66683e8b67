"""Covered requests: which later ones an approval covers, and how it decides them. Pure but for steps.

A grant covers a request only if the people who gave it could approve that request now: every stage that applies is
opened for real, with the people as of now, and filled by their votes alone. So a grant never reaches further than its
givers do: not to a stage that its own request skipped, nor to their own requests, nor to any request once they have
left the group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from hashlib import sha256

from pydantic import JsonValue

from approvals_bot.approvals.acts import Actor, Vote
from approvals_bot.approvals.apply import decided
from approvals_bot.approvals.ballot import YES, current_votes, in_place_of, seats_for, stage_status
from approvals_bot.approvals.eligibility import Resolution
from approvals_bot.approvals.given_grants import GivenVote, StandingGrant
from approvals_bot.approvals.request import GivenGrant, RecordedVote, Request
from approvals_bot.approvals.resolution import find_people
from approvals_bot.approvals.rules import Rules
from approvals_bot.approvals.stages import context_of, next_stage, opened, seat_queries, with_people
from approvals_bot.approvals.standing_grants import CountedUse, GrantUse, find_grants, use_grant
from approvals_bot.approvals.standing_policy import MOST_TIMES, Standing
from approvals_bot.approvals.values import shown_date
from approvals_bot.client.digests import canonical
from approvals_bot.durable.core.api import now

LARGEST_AMOUNT = 10**15

MakeUse = Callable[[StandingGrant], GrantUse]


def scope_of(request: Request, rule: Standing) -> str:
    """Name the list of the grants that may cover this request, and that its own approval would go to.

    Whatever has to be equal is in the name: the workflow, the version of its file, the people, and the fields. So a
    changed file begins with no grants.
    """
    who: JsonValue = [request.requester, request.on_behalf_of] if rule.for_ == "requester" else None
    fields = {name: request.fields.get(name) for name in rule.match}
    return named_scope("standing", [request.workflow, request.definition, rule.for_, who, fields])


def named_scope(kind: str, of: JsonValue) -> str:
    return f"{kind} {sha256(canonical(of).encode()).hexdigest()[:40]}"


def given_by(request: Request, rule: Standing) -> GivenGrant | None:
    """Return what the approval of this request covers of later ones. Only votes of people give anything."""
    ended = request.outcome
    if ended is None or ended.state != "approved" or ended.via in ("rule", "clock"):
        return None
    id, until, times = f"grant:{request.id}", ended.at + rule.lasts, rule.times or MOST_TIMES
    sums = {} if rule.sum is None else {rule.sum.field: rule.sum.max}
    votes = given_votes(request)
    grant = StandingGrant(id, request.id, request.title, votes, ended.at, until, times, sums)
    return GivenGrant(scope_of(request, rule), grant)


def given_votes(request: Request) -> tuple[GivenVote, ...]:
    """Return the votes that have approved this request."""
    votes = (
        GivenVote(stage.id, vote.place)
        for stage in request.stages
        if stage.state == "done"
        for vote in current_votes(stage)
        if vote.choice in YES
    )
    return tuple(dict.fromkeys(votes))


def use_of(request: Request, rule: Standing) -> GrantUse:
    """Return this request as a use of a grant."""
    name = rule.sum.field if rule.sum is not None else ""
    amount = amount_of(request.fields.get(name))
    return GrantUse(request.id, request.asked_at, amounts={} if amount is None else {name: amount})


def amount_of(value: JsonValue) -> Decimal | None:
    """Return an amount that may be added up; None for what is missing, negative or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount < LARGEST_AMOUNT else None


def could_approve(
    request: Request, rules: Rules, votes: Sequence[GivenVote], found: Mapping[str, Resolution], at: datetime
) -> bool:
    """Return whether these votes would approve the request if they were cast now.

    `found`: the people of each stage, as of now. A stage whose people can't be read is never filled.
    """
    request, stage = next_stage(request, rules, at)
    while stage is not None:
        people = found.get(stage.id)
        if people is None or people.errors:
            return False
        request = opened(request, rules, stage, people, at)
        for person in (vote.person for vote in votes if vote.stage == stage.id):
            assert request.stage is not None, "it has just opened"
            request = _with_vote(request, person, at)
        assert request.stage is not None, "it has just opened"
        if stage_status(request.stage) != "filled":
            return False
        request, stage = next_stage(request, rules, at)
    return any(each.state == "done" for each in request.stages)


def _with_vote(request: Request, person: str, at: datetime) -> Request:
    """Count this person's approval, if they may decide and have no vote yet that was carried over."""
    stage = request.stage
    assert stage is not None, "a stage is open"
    place, seats = in_place_of(stage, person), seats_for(stage, person)
    if not seats or any(vote.place in (person, place) for vote in current_votes(stage)):
        return request
    vote = RecordedVote(Vote(person), at, seats, in_place_of=place)
    return request.with_stage(replace(stage, votes=(*stage.votes, vote)))


# ── in the request's run ──


async def covered_by_standing(request: Request, rules: Rules, rule: Standing) -> Request:
    """Return the request as an earlier approval of the same file has approved it; unchanged if none covers it."""
    return await covered_by_grants(request, rules, scope_of(request, rule), lambda grant: use_of(request, rule))


async def covered_by_grants(
    request: Request,
    rules: Rules,
    scope: str,
    use_of: MakeUse,
    is_permitted: Callable[[StandingGrant], bool] = lambda grant: True,
) -> Request:
    """Return the request as a grant of this list has approved it; unchanged if none covers it.

    `is_permitted`: whether the request's file still lets such a grant cover anything.
    """
    grants = tuple(filter(is_permitted, await find_grants(scope)))
    if not grants:
        return request
    at, found = now(), dict[str, Resolution]()
    givers = tuple(dict.fromkeys(person for grant in grants for person in grant.givers))
    for stage in request.stages:
        if stage.state != "skipped":
            asks = seat_queries(request, rules, stage)
            found[stage.id] = await find_people(asks, context_of(request, rules, stage), givers)
    for people in found.values():
        request = with_people(request, rules, people.people)
    for grant in grants:
        if could_approve(request, rules, grant.votes, found, at):
            counted = await use_grant(scope, grant.id, use_of(grant))
            if counted is not None:
                because, actor = _because(request, counted), Actor("grant", grant.id)
                return decided(request, "approved", grant.id, now(), "rule", because=because, actor=actor)
    return request


def _because(request: Request, counted: CountedUse) -> str:
    grant = counted.grant
    names = " and ".join(request.called(person) for person in grant.givers)
    of = f"use {counted.number} of {grant.times:,}, until {shown_date(grant.until.date())}"
    return f"Covered by the approval of “{grant.title}” by {names}: {of}."
