"""Eligibility: who may fill which seat, as values and rules over them.

A look-up gives a `Resolution`. The functions here put delegates in the place of absent people, check whether all seats
can be filled, and name a set of people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from approvals_bot.approvals.ballot import can_be_filled, size_of
from approvals_bot.approvals.field_addresses import fields_of, filled
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.request import RequestSeat
from approvals_bot.approvals.values import shown_date
from approvals_bot.people import Person, SourceFault, canonical, is_mail
from approvals_bot.people.absences import Away
from approvals_bot.people.people import group_label

SELF = "on-behalf-of"
"""The only address that lets the person an app acts for decide."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What addresses in the file may refer to."""

    requester: str
    on_behalf_of: str | None = None
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
    self_approval: Literal["never", "allow", "skip-up"] = "never"
    group_names: Mapping[str, str] = field(default_factory=dict)  # of groups that have one, by id
    exclude: tuple[str, ...] = ()  # addresses of people who may not decide
    named: tuple[str, ...] = ()  # people whom its fields name, whose names are shown

    @property
    def barred(self) -> tuple[str, ...]:
        """The people who count as the requester and so may not decide."""
        if self.self_approval == "allow":
            return ()
        return tuple(
            address for address in (self.requester, self.on_behalf_of) if address and not address.startswith("app:")
        )


@dataclass(frozen=True, slots=True)
class PeopleSource:
    """Addresses of a seat, or of an escalation that adds to it.

    `approvers`: people who owed a vote at the escalation, for `manager-of:approver`. `replaces`: those found by it take
    the place of everybody before, if there are any.
    """

    addresses: tuple[str, ...]
    approvers: tuple[str, ...] = ()
    is_escalation: bool = False
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class SeatQuery:
    """The look-up of a seat. `notify`: the addresses of people who get a card; None: all of the seat."""

    id: int
    sources: tuple[PeopleSource, ...]
    notify: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ResolvedSeat:
    """The people of a seat. `eligible`: address → why, completing "you're …". `errors`: sources that failed."""

    id: int
    eligible: dict[str, str]
    notified: tuple[str, ...]
    errors: tuple[SourceFault, ...] = ()
    nobody: tuple[str, ...] = ()  # addresses that match nobody, and why
    in_place_of: dict[str, str] = field(default_factory=dict)  # delegate → the absent person
    slack_groups: tuple[str, ...] = ()  # handles of Slack user groups among its addresses
    ungrouped: tuple[str, ...] = ()  # the eligible who are in none of these, if there are some
    escalated: tuple[str, ...] = ()  # the eligible whom an escalation names


@dataclass(frozen=True, slots=True)
class Resolution:
    """All seats of a stage, and everybody in them.

    `away`: the absences among them; `changes_at`: when the next absence begins or ends.
    """

    seats: tuple[ResolvedSeat, ...]
    people: dict[str, Person]
    away: dict[str, Away] = field(default_factory=dict)
    changes_at: datetime | None = None
    excluded: tuple[str, ...] = ()  # the people who may not decide, as far as they could have otherwise
    veto: ResolvedSeat | None = None  # those who alone may reject

    @property
    def errors(self) -> tuple[SourceFault, ...]:
        vetoing = self.veto.errors if self.veto is not None else ()
        return (*(error for seat in self.seats for error in seat.errors), *vetoing)

    @property
    def escalated(self) -> tuple[str, ...]:
        """The people whom an escalation names."""
        return tuple(dict.fromkeys(address for seat in self.seats for address in seat.escalated))


@dataclass(frozen=True, slots=True)
class CountedVote:
    """A vote that counts: by whom, and in whose place ("" for their own)."""

    by: str
    in_place_of: str = ""


def with_delegates(found: Resolution, rules: Iterable[RequestSeat], votes: Iterable[CountedVote] = ()) -> Resolution:
    """Replace absent people by their delegates. `rules`: the seats, of which only what the file says counts."""
    if not found.away:
        return found
    entitled = dict.fromkeys(address for seat in found.seats for address in seat.eligible)
    pairs = _pairs(found, entitled, tuple(votes))
    left_out = [address for address in entitled if address in found.away and address not in pairs]
    seats = [_with_pairs(seat, pairs, found) for seat in found.seats]
    if not _can_do_without(left_out, seats, {rule.id: rule for rule in rules}):
        left_out = []
    return replace(found, seats=tuple(_with_notes(seat, left_out, found) for seat in seats))


def _pairs(found: Resolution, entitled: Mapping[str, None], votes: tuple[CountedVote, ...]) -> dict[str, str]:
    """Pair absent people with delegates: absent → delegate. A delegate who has voted keeps the place."""
    voted = {vote.by for vote in votes if not vote.in_place_of}
    acted = {vote.in_place_of: vote.by for vote in votes if vote.in_place_of}
    pairs: dict[str, str] = {}
    for address in sorted(entitled, key=lambda address: address not in acted):
        if address not in found.away or address in voted:
            continue
        delegates = found.away[address].delegates
        free = [one for one in delegates if one not in entitled and one not in pairs.values()]
        if acted.get(address) in free:
            pairs[address] = acted[address]
        elif free:
            pairs[address] = free[0]
    return pairs


def _with_pairs(seat: ResolvedSeat, pairs: Mapping[str, str], found: Resolution) -> ResolvedSeat:
    eligible, in_place_of = dict[str, str](), dict[str, str]()
    for address, why in seat.eligible.items():
        if address in pairs:
            in_place_of[pairs[address]] = address
            eligible[pairs[address]] = f"standing in for {found.people[address].name} ({why})"
        else:
            eligible[address] = why
    notified = tuple(dict.fromkeys(pairs.get(address, address) for address in seat.notified))
    return replace(
        seat,
        eligible=eligible,
        notified=notified,
        in_place_of=in_place_of,
        ungrouped=(*seat.ungrouped, *in_place_of) if seat.slack_groups else (),
        escalated=tuple(pairs.get(address, address) for address in seat.escalated),
    )


def _can_do_without(left_out: list[str], seats: list[ResolvedSeat], rules: Mapping[int, RequestSeat]) -> bool:
    """Whether the others can fill every seat. A seat that needs "all" needs the absent people, too."""
    return can_be_filled(
        [
            replace(
                rules[seat.id],
                need=size_of(rules[seat.id].need, len(seat.eligible)),
                eligible={address: why for address, why in seat.eligible.items() if address not in left_out},
            )
            for seat in seats
        ]
    )


def _with_notes(seat: ResolvedSeat, left_out: list[str], found: Resolution) -> ResolvedSeat:
    eligible = {
        address: f"{why} ({absence_of(address, found)})" if address in found.away else why
        for address, why in seat.eligible.items()
    }
    return replace(
        seat, eligible=eligible, notified=tuple(address for address in seat.notified if address not in left_out)
    )


def absence_of(address: str, found: Resolution) -> str:
    """Describe an absence: `away, back on 5 Jan 2027`, and what is wrong with the delegates."""
    away = found.away[address]
    back = f"away, back on {shown_date(away.back)}"
    return f"{back}; {away.trouble}" if away.trouble else back


def label_of(addresses: Sequence[str], about: RequestContext, people: Mapping[str, Person]) -> str:
    """Name the people of these addresses."""
    meant = [
        address if "{{" not in address else filled(address, about.fields) or readable(fields_of(address)[0])
        for address in addresses
    ]
    labels = list(dict.fromkeys(_label(address, about, people) for address in meant))
    return labels[0] if len(labels) == 1 else ", ".join(labels[:-1]) + " or " + labels[-1]


def _label(address: str, about: RequestContext, people: Mapping[str, Person]) -> str:
    if ":" not in address and address in people:
        return people[address].name
    scheme, _, rest = address.partition(":")
    human = about.on_behalf_of if about.requester.startswith("app:") else about.requester
    match scheme, rest:
        case "pick", "":
            return "more of them"
        case "on-behalf-of", "":
            return _name(about.on_behalf_of, people)
        case "manager-of", "approver":
            return "the approver's manager"
        case "manager-of", above if above.startswith("manager-of:"):
            return f"the manager of {_label(above, about, people)}"
        case "manager-of", whom:
            return f"the manager of {_name(about.on_behalf_of if whom == 'on-behalf-of' else human, people)}"
        case "owner-of", field:
            return f"the owner of {about.fields.get(field) or field}"
        case "field", name:
            return _in_field(name, about, people)
        case "oncall", name:
            return f"on call for {group_label(name)}"
        case "slack", group:
            return group_label(group.removeprefix("@"))
        case _ if address.startswith("@"):
            return about.group_names.get(address[1:]) or group_label(address[1:])
        case _:
            return _name(canonical(address) if is_mail(address) else address, people)


def _in_field(name: str, about: RequestContext, people: Mapping[str, Person]) -> str:
    """Name the people in a field: one by name, of several the field."""
    value = about.fields.get(name)
    return _name(value, people) if isinstance(value, str) else readable(name)


def _name(address: str | None, people: Mapping[str, Person]) -> str:
    if address is None:
        return "somebody"
    return people[address].name if address in people else address.removeprefix("app:")
