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

from approvals_bot.approvals import text as sentences
from approvals_bot.approvals.ballot import Ballot, in_place_of, open_seats, seats_for, vote_of, who_may_vote
from approvals_bot.approvals.eligibility import Found, RequestContext, SeatFound
from approvals_bot.approvals.heard import HANDING, Heard
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


@dataclass(frozen=True, slots=True)
class NotHandedOver:
    """Why not: the verdict's word and the sentence. Nothing was changed."""

    verdict: Literal["own_request", "not_an_approver", "group_unknown", "invalid"]
    text: str


def hand_over(
    ballot: Ballot,
    heard: Heard,
    about: RequestContext,
    rank: Rank,
    people: Mapping[str, Person],
    now: datetime,
    who_may: Literal["approvers", "owners", "never"] = "approvers",
) -> Handover | NotHandedOver:
    """What this message does to who is asked. `who_may`: as the workflow's policy says, besides admins."""
    person, by = heard.person.strip().lower(), heard.by
    requesters = tuple(who for who in (about.requester, about.on_behalf_of) if who)
    own = by if seats_for(ballot, by) else ""
    instead_of = (heard.instead_of.strip().lower() or own) if heard.kind == "reassign" else ""
    if refused := _may(by, own, instead_of, requesters, rank, heard, who_may, ballot):
        return refused
    if not is_mail(person):
        return _invalid("Name one person, by her mail address.")
    if person in requesters:
        return _invalid(sentences.asked_for_it(_name(person, people)))
    if person in who_may_vote(ballot) or vote_of(ballot, person):
        return _invalid(f"{_name(person, people)} is one of the people who are asked here already.")
    if heard.kind == "add":
        return Handover(by, person, open_seats(ballot), now, heard.via, reason=heard.reason.strip())
    if not seats_for(ballot, instead_of):
        holder = _name(instead_of, people) or "Nobody"
        return _invalid(f"{holder} is not asked here, so there is no place to hand over.")
    if vote_of(ballot, instead_of):
        return _invalid(f"{_name(instead_of, people)} has voted already. Take the vote back first.")
    place = in_place_of(ballot, instead_of) or instead_of
    return Handover(by, person, seats_for(ballot, instead_of), now, heard.via, instead_of, place, heard.reason.strip())


def _may(
    by: str,
    own: str,
    instead_of: str,
    requesters: tuple[str, ...],
    rank: Rank,
    heard: Heard,
    who_may: Literal["approvers", "owners", "never"],
    ballot: Ballot,
) -> NotHandedOver | None:
    """Why this person may not do this; None when she may."""
    if by in requesters:
        return NotHandedOver("own_request", f"{sentences.OWN_HANDOVER} {sentences.UNCHANGED}")
    if rank.is_admin or (rank.is_owner and who_may != "never"):
        return None
    if own and who_may == "approvers" and instead_of in ("", own):
        colleague = rank.knows or _domain(heard.person) == _domain(by)
        return None if colleague else _invalid(sentences.NO_COLLEAGUE)
    if rank.errors or any(by in seat.unsure for seat in ballot.seats):
        return NotHandedOver("group_unknown", f"{sentences.RANK_UNKNOWN} {sentences.UNCHANGED}")
    if own and who_may == "approvers":
        return NotHandedOver("not_an_approver", f"{sentences.NOT_YOUR_PLACE} {sentences.UNCHANGED}")
    return NotHandedOver("not_an_approver", f"{sentences.MAY_NOT_HAND_OVER} {sentences.UNCHANGED}")


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


def is_handing(heard: Heard) -> bool:
    return heard.kind in HANDING


def _domain(address: str) -> str:
    return address.strip().lower().rpartition("@")[2]


def _name(who: str, people: Mapping[str, Person]) -> str:
    return people[who].name if who in people else who.removeprefix("app:")


def _invalid(what: str) -> NotHandedOver:
    return NotHandedOver("invalid", f"{what} {sentences.UNCHANGED}")
