"""Whether a workflow names enough people for its stages, as far as the files say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from approvals_bot.approvals.ballot import can_be_filled
from approvals_bot.approvals.policy import Definition, Seat, SelfApproval, Stage
from approvals_bot.approvals.request import RequestSeat
from approvals_bot.config.messages import Finding
from approvals_bot.config.service import DirectoryTable, ServiceSettings
from approvals_bot.people import (
    GroupAddress,
    ManagerOf,
    OnBehalfOf,
    OnCall,
    OwnerOf,
    PersonAddress,
    SlackGroupAddress,
    is_mail,
    parse_address,
)

OUTSIDER = ""
"""A requester who is in no list, or an app, so no approver is left out."""


@dataclass(frozen=True, slots=True)
class _Crowd:
    """The people a seat's addresses mean. `more`: how many they may mean beyond those in `known`."""

    known: tuple[str, ...]
    more: float = 0

    @property
    def most(self) -> float:
        return len(self.known) + self.more


def stage_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Yield the seats that need more people than there are, and the stages that can't be filled."""
    for at, stage in enumerate(definition.stage):
        crowds = [_crowd(seat, service) for seat in stage.seats]
        for alternative in range(len(stage.alternatives or (stage,))):
            too_many = False
            seats = [
                (number, seat, crowd)
                for number, (seat, crowd) in enumerate(zip(stage.seats, crowds, strict=True))
                if stage.alternative_of(number) == alternative
            ]
            for number, seat, crowd in seats:
                if crowd is not None and (fault := _too_many(seat, crowd)):
                    too_many = True
                    key = "need" if crowd.most else "from"
                    yield Finding(("stage", at, *stage.path_of(number), key), fault, about=seat.from_)
            if not too_many and not _fillable(stage, seats, definition, service):
                first = stage.path_of(seats[0][0])
                yield Finding(
                    ("stage", at, *first, "from") if len(seats) == 1 else ("stage", at, *first[:-2]),
                    "can't be filled: requesters don't approve their own requests, and nobody else is left",
                )


def _too_many(seat: Seat, crowd: _Crowd) -> str:
    if crowd.most == 0:
        return f"nobody is in {', '.join(seat.from_)}"
    if isinstance(seat.need, int) and seat.need > crowd.most:
        there = "1 person" if crowd.most == 1 else f"{int(crowd.most)} people"
        return f"{seat.need} are needed, but {', '.join(seat.from_)} is only {there}"
    return ""


def _fillable(
    stage: Stage, seats: Sequence[tuple[int, Seat, _Crowd | None]], definition: Definition, service: ServiceSettings
) -> bool:
    """Whether some permitted requester leaves enough people for these seats, or nobody may open a request at all.

    The seats that are always open must be filled together, and with each conditional seat in turn.
    """
    static = [(number, seat, crowd.known) for number, seat, crowd in seats if crowd is not None and crowd.more == 0]
    always = [each for each in static if each[1].when is None]
    together = [[*always, each] for each in static if each[1].when is not None] or [always]
    requester: str | None = None
    for requester in _possible_requesters(definition, service):
        own = stage.self_approval or definition.policy.self_approval
        if all(can_be_filled([_seat(each, requester, own, service) for each in seats]) for seats in together):
            return True
    return requester is None


def _seat(
    numbered: tuple[int, Seat, tuple[str, ...]], requester: str, self_approval: SelfApproval, service: ServiceSettings
) -> RequestSeat:
    number, seat, known = numbered
    eligible = known
    if requester in known and self_approval != "allow":
        above = _next_up(requester, service) if self_approval == "skip-up" else None
        eligible = tuple(dict.fromkeys(above if each == requester and above else each for each in known))
        eligible = tuple(each for each in eligible if each != requester)
    return RequestSeat(number, "", seat.need, dict.fromkeys(eligible, ""))


def _next_up(person: str, service: ServiceSettings) -> str | None:
    entry = service.person(person)
    return service.rules.canonical(entry.manager) if entry is not None and entry.manager else None


def _possible_requesters(definition: Definition, service: ServiceSettings) -> Iterator[str]:
    """Yield the people who may open a request, and OUTSIDER once where anybody else may."""
    for text in definition.workflow.request:
        if text == "*" or text.startswith("app:"):
            yield OUTSIDER
        elif text.startswith("@"):
            if (members := service.people_in(text[1:])) is not None:
                yield from map(service.rules.canonical, members)
            elif text[1:] in service.groups:
                yield OUTSIDER
        elif is_mail(text):
            yield service.rules.canonical(text)


def _crowd(seat: Seat, service: ServiceSettings) -> _Crowd | None:
    """Resolve a seat's addresses as far as the files go. None if one is wrong, which is reported elsewhere."""
    known: dict[str, None] = {}
    more: float = 0
    directory, same = service.directory, service.rules.canonical
    for text in seat.from_:
        try:
            address = parse_address(text)
        except ValueError:
            return None
        match address:
            case PersonAddress(person):
                known[same(person)] = None
            case GroupAddress(name):
                if name not in service.groups:
                    return None
                if (members := service.people_in(name)) is None:
                    more = inf
                else:
                    known.update(dict.fromkeys(map(same, members)))
            case OnCall(name) if isinstance(directory, DirectoryTable):
                if name not in directory.oncall:
                    return None
                known.update(dict.fromkeys(map(same, directory.oncall[name])))
            case OwnerOf(name) if isinstance(directory, DirectoryTable):
                if name not in directory.owner_of:
                    return None
                more += max((len({*map(same, owners)}) for owners in directory.owner_of[name].values()), default=0)
            case ManagerOf() | OnBehalfOf():
                more += 1
            case OnCall() | OwnerOf() | SlackGroupAddress():
                more = inf
    return _Crowd(tuple(known), more)
