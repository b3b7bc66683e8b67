"""Whether a workflow names enough people for its stages, as far as the files say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from approvals_bot.approvals.ballot import can_be_filled
from approvals_bot.approvals.conditions import ConditionError, condition
from approvals_bot.approvals.field_addresses import fields_of, filled, variants
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import RequestSeat
from approvals_bot.approvals.rules import IN_FIELD
from approvals_bot.approvals.stage_policy import Seat, SelfApproval, Stage
from approvals_bot.approvals.values import MOST_ITEMS
from approvals_bot.config.directory import DirectoryTable
from approvals_bot.config.messages import Finding
from approvals_bot.config.positions import Path
from approvals_bot.config.service import ServiceSettings
from approvals_bot.people import (
    GroupAddress,
    InField,
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
        for each, said in _for_each_value(stage, definition):
            found = list(_faults_of(at, stage, each, definition, service))
            yield from (replace(fault, message=f"{fault.message}{said}") for fault in found)
            if found:
                break


def _for_each_value(stage: Stage, definition: Definition) -> Iterator[tuple[tuple[Seat, ...], str]]:
    """Yield the stage's seats for each combination of values that their addresses depend on, and which that is."""
    names = dict.fromkeys(name for seat in stage.seats for address in seat.from_ for name in fields_of(address))
    whole = " ".join(f"{{{{ {name} }}}}" for name in names)
    for _, given in variants(whole, definition.fields):
        seats = tuple(
            seat.model_copy(update={"from_": tuple(filled(address, given) or address for address in seat.from_)})
            for seat in stage.seats
        )
        said = " and ".join(f'{name} = "{value}"' for name, value in given.items())
        yield seats, f", for {said}" if said else ""


def _faults_of(
    at: int, stage: Stage, all_seats: tuple[Seat, ...], definition: Definition, service: ServiceSettings
) -> Iterator[Finding]:
    crowds = [_crowd(seat, definition, service) for seat in all_seats]
    for alternative in range(len(stage.alternatives or (stage,))):
        too_many = False
        seats = [
            (number, seat, crowd)
            for number, (seat, crowd) in enumerate(zip(all_seats, crowds, strict=True))
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


def unset_fields(definition: Definition) -> Iterator[Finding]:
    """Yield the seats and vetoes that only an optional field fills, where nothing says what happens without it."""
    for at, stage in enumerate(definition.stage):
        lists: list[tuple[Path, tuple[str, ...], str | None]] = [
            ((*stage.path_of(number), "from"), seat.from_, seat.when) for number, seat in enumerate(stage.seats)
        ]
        lists += [(("veto", "from"), stage.veto.from_, None)] if stage.veto is not None else []
        for path, addresses, when in lists:
            names = [name for address in addresses for name in _fields_in(address)]
            specs = [definition.fields[name] for name in names if name in definition.fields]
            if (
                not all(map(_fields_in, addresses))
                or len(specs) < len(names)
                or not all(spec.may_name_nobody for spec in specs)
            ):
                continue
            known = {name for text in (stage.when, when) if text is not None for name in _named(text, definition)}
            if not known & set(names):
                what = f"{names[0]} is optional, so nobody may be asked: name others, too, or set when"
                yield Finding(("stage", at, *path), what, f"{names[0]} != null", about=("fields",))


def _fields_in(address: str) -> tuple[str, ...]:
    """Return the fields without which an address means nobody."""
    return (address.removeprefix(IN_FIELD),) if address.startswith(IN_FIELD) else fields_of(address)


def _named(when: str, definition: Definition) -> Sequence[str]:
    try:
        return condition(when, definition.fields).names
    except ConditionError:
        return ()  # said elsewhere


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
    if entry is not None and entry.manager:
        return service.rules.canonical(entry.manager)
    return None if service.directory.people is None else f"manager-of:{person}"  # which the directory may know


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


def _crowd(seat: Seat, definition: Definition, service: ServiceSettings) -> _Crowd | None:
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
            case InField(name):
                spec = definition.fields.get(name)
                if spec is None or not spec.holds_people:
                    return None
                more += 1 if spec.type == "person" else MOST_ITEMS if spec.max is None else int(spec.max)
            case OnCall() | OwnerOf() | SlackGroupAddress():
                more = inf
    return _Crowd(tuple(known), more)
