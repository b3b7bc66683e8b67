"""Eligibility: who may fill which seat, as values and rules over them.

What a look-up finds is a `Resolution`; from it follow the seats as they are filled while people are away, whether they
can be filled at all, and what a set of people is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from approvals_bot.approvals.ballot import can_be_filled
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.request import RequestSeat
from approvals_bot.approvals.values import shown_date
from approvals_bot.people import Person
from approvals_bot.people.absences import Away

SELF = "on-behalf-of"
"""The one address that lets the human an app acts for vote on it."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What the addresses may refer to."""

    requester: str
    on_behalf_of: str | None = None
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
    self_approval: Literal["never", "allow", "skip-up"] = "never"
    group_names: Mapping[str, str] = field(default_factory=dict)  # of groups that have one, by id

    @property
    def barred(self) -> tuple[str, ...]:
        """Who counts as the requester and may not decide because of it."""
        if self.self_approval == "allow":
            return ()
        return tuple(who for who in (self.requester, self.on_behalf_of) if who and not who.startswith("app:"))


@dataclass(frozen=True, slots=True)
class PeopleSource:
    """Addresses of a seat. `approvers`: who was owed when a stage escalated, for `manager-of:approver`."""

    addresses: tuple[str, ...]
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeatQuery:
    """A seat whose people are to be found. `notify`: who of them is told; None: all."""

    id: int
    sources: tuple[PeopleSource, ...]
    notify: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ResolvedSeat:
    """The people of a seat. `eligible`: address → why, completing "You are …". `errors`: sources that failed."""

    id: int
    eligible: dict[str, str]
    notified: tuple[str, ...]
    errors: tuple[str, ...] = ()
    nobody: tuple[str, ...] = ()  # addresses that name nobody, and why
    in_place_of: dict[str, str] = field(default_factory=dict)  # stand-in → who is away


@dataclass(frozen=True, slots=True)
class Resolution:
    """All seats of a stage, and everybody in them.

    `away`: who of them is away; `changes_at`: when one of them next leaves or comes back.
    """

    seats: tuple[ResolvedSeat, ...]
    people: dict[str, Person]
    away: dict[str, Away] = field(default_factory=dict)
    changes_at: datetime | None = None

    @property
    def errors(self) -> tuple[str, ...]:
        return tuple(error for seat in self.seats for error in seat.errors)


Need = int | Literal["all"]


@dataclass(frozen=True, slots=True)
class CountedVote:
    """A vote that stands when places are given: by whom, and in whose place ("" in her own)."""

    by: str
    in_place_of: str = ""


def with_delegates(found: Resolution, needs: Mapping[int, Need], votes: Iterable[CountedVote] = ()) -> Resolution:
    """The seats as they are filled while people are away. `needs`: of each seat, by its id."""
    if not found.away:
        return found
    entitled = dict.fromkeys(who for seat in found.seats for who in seat.eligible)
    pairs = _pairs(found, entitled, tuple(votes))
    left_out = [who for who in entitled if who in found.away and who not in pairs]
    seats = [_with_pairs(seat, pairs, found) for seat in found.seats]
    if not _can_do_without(left_out, seats, needs):
        left_out = []
    return replace(found, seats=tuple(_with_notes(seat, left_out, found) for seat in seats))


def _pairs(found: Resolution, entitled: Mapping[str, None], votes: tuple[CountedVote, ...]) -> dict[str, str]:
    """Absent → stand-in. A pair that has voted stays one."""
    voted = {vote.by for vote in votes if not vote.in_place_of}
    acted = {vote.in_place_of: vote.by for vote in votes if vote.in_place_of}
    pairs: dict[str, str] = {}
    for who in sorted(entitled, key=lambda who: who not in acted):
        if who not in found.away or who in voted:
            continue
        delegates = found.away[who].delegates
        free = [one for one in delegates if one not in entitled and one not in pairs.values()]
        if acted.get(who) in free:
            pairs[who] = acted[who]
        elif free:
            pairs[who] = free[0]
    return pairs


def _with_pairs(seat: ResolvedSeat, pairs: Mapping[str, str], found: Resolution) -> ResolvedSeat:
    eligible, in_place_of = dict[str, str](), dict[str, str]()
    for who, why in seat.eligible.items():
        if who in pairs:
            in_place_of[pairs[who]] = who
            eligible[pairs[who]] = f"standing in for {found.people[who].name} ({why})"
        else:
            eligible[who] = why
    notified = tuple(dict.fromkeys(pairs.get(who, who) for who in seat.notified))
    return replace(seat, eligible=eligible, notified=notified, in_place_of=in_place_of)


def _can_do_without(left_out: list[str], seats: list[ResolvedSeat], needs: Mapping[int, Need]) -> bool:
    """Whether the others can fill every seat. For "all", everybody is needed."""
    return can_be_filled(
        [
            RequestSeat(
                seat.id,
                "",
                len(seat.eligible) if needs[seat.id] == "all" else needs[seat.id],
                {who: why for who, why in seat.eligible.items() if who not in left_out},
            )
            for seat in seats
        ]
    )


def _with_notes(seat: ResolvedSeat, left_out: list[str], found: Resolution) -> ResolvedSeat:
    eligible = {
        who: f"{why} ({absence_of(who, found)})" if who in found.away else why for who, why in seat.eligible.items()
    }
    return replace(seat, eligible=eligible, notified=tuple(who for who in seat.notified if who not in left_out))


def absence_of(who: str, found: Resolution) -> str:
    """`away, back on 5 Jan 2027`, and what is wrong with who should stand in."""
    away = found.away[who]
    back = f"away, back on {shown_date(away.back)}"
    return f"{back}; {away.trouble}" if away.trouble else back


ACRONYM = 3  # letters; a group's name as short as that is one


def label_of(addresses: Sequence[str], about: RequestContext, people: Mapping[str, Person]) -> str:
    """The people of these addresses, as one would say it."""
    labels = list(dict.fromkeys(_label(address, about, people) for address in addresses))
    return labels[0] if len(labels) == 1 else ", ".join(labels[:-1]) + " or " + labels[-1]


def _label(address: str, about: RequestContext, people: Mapping[str, Person]) -> str:
    if ":" not in address and address in people:
        return people[address].name
    scheme, _, rest = address.partition(":")
    human = about.on_behalf_of if about.requester.startswith("app:") else about.requester
    match scheme, rest:
        case "on-behalf-of", "":
            return _name(about.on_behalf_of, people)
        case "manager-of", "approver":
            return "the manager of who was asked"
        case "manager-of", whom:
            return f"the manager of {_name(about.on_behalf_of if whom == 'on-behalf-of' else human, people)}"
        case "owner-of", field:
            return f"the owner of {about.fields.get(field) or field}"
        case "oncall", name:
            return f"on call for {_group(name)}"
        case "slack", group:
            return _group(group.removeprefix("@"))
        case _ if address.startswith("@"):
            return about.group_names.get(address[1:]) or _group(address[1:])
        case _:
            return _name(address.lower(), people)


def _group(name: str) -> str:
    if len(name) <= ACRONYM:
        return name.upper()
    return readable(name)


def _name(who: str | None, people: Mapping[str, Person]) -> str:
    if who is None:
        return "somebody"
    return people[who].name if who in people else who.removeprefix("app:")
