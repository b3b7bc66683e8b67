"""Whether the people a workflow names are enough, as far as its files tell.

The requester doesn't decide, so a stage is asked for every permitted requester: if it can be filled for none of them,
the file is wrong. If it can for some, the opening of a request decides. A seat that a live source or the request itself
fills is taken to be filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from approvals_bot.approvals import seats
from approvals_bot.approvals.seats import can_be_filled
from approvals_bot.config.problems import Finding
from approvals_bot.config.service import DirectoryTable, Service
from approvals_bot.config.workflow import Definition, Seat, Stage
from approvals_bot.people import Group, Mail, ManagerOf, OnBehalfOf, OnCall, OwnerOf, SlackGroup, parse_address

OUTSIDER = ""
"""A requester who is in no list, or an app: nobody is left out because of it."""


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Whom a seat's addresses mean. `more`: how many people they may mean beyond those known by name."""

    known: tuple[str, ...]
    more: float = 0

    @property
    def most(self) -> float:
        return len(self.known) + self.more


def stage_faults(definition: Definition, service: Service) -> Iterator[Finding]:
    """Seats that ask for more people than there are, and stages that nobody could fill."""
    requesters = list(_requesters(definition, service))
    for at, stage in enumerate(definition.stage):
        crowds = [_crowd(seat, service) for seat in stage.seat]
        too_many = False
        for number, (seat, crowd) in enumerate(zip(stage.seat, crowds, strict=True)):
            if crowd is not None and (fault := _too_many(seat, crowd)):
                too_many = True
                yield Finding(("stage", at, "seat", number, "need" if crowd.most else "from"), fault)
        if not too_many and requesters and not _fillable(stage, crowds, definition, service, requesters):
            yield Finding(
                ("stage", at, "seat", 0, "from") if len(stage.seat) == 1 else ("stage", at),
                "nobody could fill this stage once the requester is left out, whoever asks",
            )


def _too_many(seat: Seat, crowd: _Crowd) -> str:
    if crowd.most == 0:
        return f"{', '.join(seat.from_)} is nobody"
    if seat.need != "all" and seat.need > crowd.most:
        there = "1 person" if crowd.most == 1 else f"{int(crowd.most)} people"
        return f"{seat.need} are needed, and {', '.join(seat.from_)} is {there}"
    return ""


def _fillable(
    stage: Stage,
    crowds: Sequence[_Crowd | None],
    definition: Definition,
    service: Service,
    requesters: Sequence[str],
) -> bool:
    """Whether, for some permitted requester, the seats that are always open and each of the others can be filled."""
    static = [
        (number, seat, crowd.known)
        for number, (seat, crowd) in enumerate(zip(stage.seat, crowds, strict=True))
        if crowd is not None and crowd.more == 0
    ]
    always = [each for each in static if each[1].when is None]
    together = [[*always, each] for each in static if each[1].when is not None] or [always]
    return any(
        all(can_be_filled([_seat(each, who, definition, service) for each in those]) for those in together)
        for who in requesters
    )


def _seat(
    each: tuple[int, Seat, tuple[str, ...]], requester: str, definition: Definition, service: Service
) -> seats.Seat:
    number, seat, known = each
    eligible = known
    if requester in known and definition.policy.self_approval != "allow":
        above = _next_up(requester, service) if definition.policy.self_approval == "skip-up" else None
        eligible = tuple(dict.fromkeys(above if who == requester and above else who for who in known))
        eligible = tuple(who for who in eligible if who != requester)
    return seats.Seat(number, "", seat.need, eligible)


def _next_up(person: str, service: Service) -> str | None:
    entry = service.people.get(person)
    return entry.manager if entry is not None else None


def _requesters(definition: Definition, service: Service) -> Iterator[str]:
    """Whoever may open a request, as far as it makes a difference."""
    for text in definition.workflow.request:
        if text == "*" or text.startswith("app:"):
            yield OUTSIDER
        elif text.startswith("@"):
            members = service.groups.get(text[1:], ())
            yield from members if isinstance(members, tuple) else (OUTSIDER,)
        else:
            yield text.lower()


def _crowd(seat: Seat, service: Service) -> _Crowd | None:
    """None when an address of the seat is wrong, which is said elsewhere."""
    known: dict[str, None] = {}
    more: float = 0
    directory = service.directory
    for text in seat.from_:
        try:
            address = parse_address(text)
        except ValueError:
            return None
        match address:
            case Mail(person):
                known[person] = None
            case Group(name):
                members = service.groups.get(name)
                if members is None:
                    return None
                if isinstance(members, tuple):
                    known.update(dict.fromkeys(members))
                else:
                    more = inf
            case OnCall(name) if isinstance(directory, DirectoryTable):
                if name not in directory.oncall:
                    return None
                known.update(dict.fromkeys(directory.oncall[name]))
            case OwnerOf(name) if isinstance(directory, DirectoryTable):
                if name not in directory.owner_of:
                    return None
                more += max((len(owners) for owners in directory.owner_of[name].values()), default=0)
            case ManagerOf() | OnBehalfOf():
                more += 1
            case OnCall() | OwnerOf() | SlackGroup():
                more = inf
    return _Crowd(tuple(known), more)
