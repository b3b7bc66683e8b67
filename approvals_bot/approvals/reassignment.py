"""Reassignment: moving a place to another person, or adding an approver, while a request is open. Pure.

Approvers may reassign their own place and add colleagues; owners of the workflow and admins may do so for any place.
People who count as the requester can neither reassign nor become approvers, and nobody gets a second place. A
reassignment lasts for its stage, and is in the log as votes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from approvals_bot.approvals.acts import Reassign, Reply
from approvals_bot.approvals.ballot import eligible_voters, in_place_of, open_seats, seats_for, vote_of
from approvals_bot.approvals.eligibility import Resolution, ResolvedSeat
from approvals_bot.approvals.request import RecordedReassignment, Request, RequestStage
from approvals_bot.people import Person, is_mail


@dataclass(frozen=True, slots=True)
class Rank:
    """What the actor may do beyond their own place, as just looked up.

    `knows`: whether anybody knows the new approver. `errors`: of sources that couldn't be read, about the actor;
    `unsure`: the same about the new approver.
    """

    is_owner: bool = False
    is_admin: bool = False
    knows: bool = False
    errors: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


def reassigned(
    request: Request, stage: RequestStage, act: Reassign, rank: Rank, at: datetime
) -> RecordedReassignment | Reply:
    """Check a reassignment. Returns what to record, or the reply that refuses it."""
    person, by, people = act.person, act.by, request.people
    requesters = tuple(address for address in (request.requester, request.on_behalf_of) if address)
    own = by if seats_for(stage, by) else ""
    instead_of = "" if act.instead_of is None else act.instead_of or own
    if refused := _may(act, own, instead_of, requesters, rank, request.reassign, stage):
        return refused
    if not is_mail(person):
        return Reply("invalid", code="no_person")
    if person in requesters:
        return _invalid("asked_for_it", _name(person, people))
    if person in stage.excluded:
        return _invalid("excluded_by_policy", _name(person, people))
    if person in eligible_voters(stage) or vote_of(stage, person):
        return _invalid("asked_already", _name(person, people))
    if not rank.knows:
        return Reply("group_unknown", code="person_unsure") if rank.unsure else _invalid("person_unknown", person)
    act = replace(act, person=person, reason=act.reason.strip())
    if act.instead_of is None:
        return RecordedReassignment(stage.id, act, at, open_seats(stage))
    if not seats_for(stage, instead_of):
        return _invalid("no_place", _name(instead_of, people) or "Nobody")
    if vote_of(stage, instead_of):
        return _invalid("has_voted", _name(instead_of, people))
    place = in_place_of(stage, instead_of) or instead_of
    act = replace(act, instead_of=instead_of)
    return RecordedReassignment(stage.id, act, at, seats_for(stage, instead_of), place)


def _may(
    act: Reassign,
    own: str,
    instead_of: str,
    requesters: tuple[str, ...],
    rank: Rank,
    who_may: Literal["approvers", "owners", "never"],
    stage: RequestStage,
) -> Reply | None:
    """Return why this person may not do this; None if they may."""
    if act.by in requesters:
        return Reply("own_request", code="own_reassignment")
    if rank.is_admin or (rank.is_owner and who_may != "never"):
        return None
    if own and who_may == "approvers" and instead_of in ("", own):
        return None
    if rank.errors or any(act.by in seat.unsure for seat in stage.seats):
        return Reply("group_unknown", code="rank_unknown")
    if own and who_may == "approvers":
        return Reply("not_an_approver", code="not_your_place")
    return Reply("not_an_approver", code="may_not_reassign")


def with_reassignments(
    found: Resolution, reassignments: Iterable[RecordedReassignment], people: Mapping[str, Person]
) -> Resolution:
    """Apply the stage's reassignments to the seats, in order."""
    for done in reassignments:
        found = replace(found, seats=tuple(_with(seat, done, people) for seat in found.seats))
    return found


def _with(seat: ResolvedSeat, done: RecordedReassignment, people: Mapping[str, Person]) -> ResolvedSeat:
    eligible, notified, acting = dict(seat.eligible), list(seat.notified), dict(seat.in_place_of)
    person, instead_of = done.act.person, done.act.instead_of
    if instead_of:
        places = {instead_of, done.place}
        gone = {address for address in eligible if address in places or acting.get(address) in places}
        eligible = {address: why for address, why in eligible.items() if address not in gone}
        notified = [address for address in notified if address not in gone]
        acting = {address: place for address, place in acting.items() if address not in gone}
    if seat.id in done.seats and person not in eligible:
        eligible[person] = _why_asked(done.act, people)
        notified.append(person)
    return replace(seat, eligible=eligible, notified=tuple(notified), in_place_of=acting)


def _why_asked(act: Reassign, people: Mapping[str, Person]) -> str:
    """Completes "You are …"."""
    by = _name(act.by, people)
    if not act.instead_of:
        return f"named by {by}"
    if act.instead_of == act.by:
        return f"taking over from {by}"
    return f"taking over from {_name(act.instead_of, people)}, as {by} decided"


def reassignment_text(act: Reassign, people: Mapping[str, Person]) -> str:
    """One sentence for the card: `Ann Ode reassigned this from Bo Lund to Di Ops: on holiday`."""
    by, person = _name(act.by, people), _name(act.person, people)
    if not act.instead_of:
        what = f"{by} added {person} as an approver"
    elif act.instead_of == act.by:
        what = f"{by} reassigned this to {person}"
    else:
        what = f"{by} reassigned this from {_name(act.instead_of, people)} to {person}"
    return f"{what}: {act.reason}" if act.reason else what


def _name(address: str, people: Mapping[str, Person]) -> str:
    return people[address].name if address in people else address.removeprefix("app:")


def _invalid(code: str, name: str) -> Reply:
    return Reply("invalid", code=code, params={"name": name})
