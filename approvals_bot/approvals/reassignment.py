"""Handing over while a request is open: somebody is asked in another's place, or besides the others. Pure.

An approver may hand over her own place and ask colleagues besides; owners of the workflow and admins may do it for
everybody's. Nobody who counts as the requester has a part in it: she neither chooses who decides nor becomes one of
them, and whoever holds a place already gets no second one. It lasts for its stage, and is in the log as votes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from approvals_bot.approvals.acts import Reassign, Reply
from approvals_bot.approvals.ballot import Ballot, in_place_of, open_seats, seats_for, vote_of, who_may_vote
from approvals_bot.approvals.eligibility import Found, RequestContext, SeatFound
from approvals_bot.approvals.port import Via
from approvals_bot.people import Person, is_mail


@dataclass(frozen=True, slots=True)
class Rank:
    """What somebody may do beyond her own place, as just looked up. `knows`: whether the service knows who is named.

    `errors`: sources that could not be read, so that it can't be told.
    """

    is_owner: bool = False
    is_admin: bool = False
    knows: bool = False
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handover:
    """`person` was asked by `by`: instead of somebody, or besides the others ("").

    `place`: whose place it was, where `instead_of` stood in for her. `seats`: those that `person` may fill.
    """

    by: str
    person: str
    seats: tuple[int, ...]
    at: datetime
    via: Via
    instead_of: str = ""
    place: str = ""
    reason: str = ""


def hand_over(
    ballot: Ballot,
    act: Reassign,
    about: RequestContext,
    rank: Rank,
    people: Mapping[str, Person],
    now: datetime,
    who_may: Literal["approvers", "owners", "never"] = "approvers",
) -> Handover | Reply:
    """What this act does to who is asked, or why it does nothing. `who_may`: as the workflow's policy says, besides
    admins."""
    person, by = act.person.strip().lower(), act.by
    requesters = tuple(who for who in (about.requester, about.on_behalf_of) if who)
    own = by if seats_for(ballot, by) else ""
    instead_of = "" if act.instead_of is None else act.instead_of.strip().lower() or own
    if refused := _may(act, own, instead_of, requesters, rank, who_may, ballot):
        return refused
    if not is_mail(person):
        return Reply("invalid", code="no_person")
    if person in requesters:
        return _invalid("asked_for_it", _name(person, people))
    if person in who_may_vote(ballot) or vote_of(ballot, person):
        return _invalid("asked_already", _name(person, people))
    if act.instead_of is None:
        return Handover(by, person, open_seats(ballot), now, act.via, reason=act.reason.strip())
    if not seats_for(ballot, instead_of):
        return _invalid("no_place", _name(instead_of, people) or "Nobody")
    if vote_of(ballot, instead_of):
        return _invalid("has_voted", _name(instead_of, people))
    place = in_place_of(ballot, instead_of) or instead_of
    return Handover(by, person, seats_for(ballot, instead_of), now, act.via, instead_of, place, act.reason.strip())


def _may(
    act: Reassign,
    own: str,
    instead_of: str,
    requesters: tuple[str, ...],
    rank: Rank,
    who_may: Literal["approvers", "owners", "never"],
    ballot: Ballot,
) -> Reply | None:
    """Why this person may not do this; None when they may."""
    if act.by in requesters:
        return Reply("own_request", code="own_reassignment")
    if rank.is_admin or (rank.is_owner and who_may != "never"):
        return None
    if own and who_may == "approvers" and instead_of in ("", own):
        colleague = rank.knows or _domain(act.person) == _domain(act.by)
        return None if colleague else Reply("invalid", code="no_colleague")
    if rank.errors or any(act.by in seat.unsure for seat in ballot.seats):
        return Reply("group_unknown", code="rank_unknown")
    if own and who_may == "approvers":
        return Reply("not_an_approver", code="not_your_place")
    return Reply("not_an_approver", code="may_not_reassign")


def with_handovers(found: Found, handovers: Iterable[Handover], people: Mapping[str, Person]) -> Found:
    """The seats with everything that was handed over, in the order in which it was."""
    for handover in handovers:
        found = replace(found, seats=tuple(_with(seat, handover, people) for seat in found.seats))
    return found


def _with(seat: SeatFound, handover: Handover, people: Mapping[str, Person]) -> SeatFound:
    eligible, told, acting = dict(seat.eligible), list(seat.told), dict(seat.in_place_of)
    if handover.instead_of:
        places = {handover.instead_of, handover.place}
        gone = {who for who in eligible if who in places or acting.get(who) in places}
        eligible = {who: why for who, why in eligible.items() if who not in gone}
        told = [who for who in told if who not in gone]
        acting = {who: place for who, place in acting.items() if who not in gone}
    if seat.id in handover.seats and handover.person not in eligible:
        eligible[handover.person] = why_asked(handover, people)
        told.append(handover.person)
    return replace(seat, eligible=eligible, told=tuple(told), in_place_of=acting)


def why_asked(handover: Handover, people: Mapping[str, Person]) -> str:
    """Completes "You are …"."""
    by, instead_of = _name(handover.by, people), handover.instead_of
    if not instead_of:
        return f"named by {by}"
    if instead_of == handover.by:
        return f"taking the place of {by}, who handed it over"
    return f"taking the place of {_name(instead_of, people)}, as {by} wishes"


def told_of(handover: Handover, people: Mapping[str, Person]) -> str:
    """One sentence for the card: `Ann Ode asked Di Ops instead of Bo Lund: on holiday`."""
    by, person = _name(handover.by, people), _name(handover.person, people)
    if not handover.instead_of:
        what = f"{by} asked {person}, too"
    elif handover.instead_of == handover.by:
        what = f"{by} handed over to {person}"
    else:
        what = f"{by} asked {person} instead of {_name(handover.instead_of, people)}"
    return f"{what}: {handover.reason}" if handover.reason else what


def _domain(address: str) -> str:
    return address.strip().lower().rpartition("@")[2]


def _name(who: str, people: Mapping[str, Person]) -> str:
    return people[who].name if who in people else who.removeprefix("app:")


def _invalid(code: str, name: str) -> Reply:
    return Reply("invalid", code=code, params={"name": name})
