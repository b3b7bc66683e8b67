"""Seats: whose votes a stage needs, and who fills which.

A seat is filled by so many different people of its own list, and one person fills one seat. Lists overlap, so who
fills which seat is found by maximum matching: as long as any assignment of the people who said yes fills every seat,
the stage is complete. Nobody is put on a chair for good, so overlapping lists never block each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Seat:
    """Votes needed from one list of people.

    `eligible`: the addresses of those who may fill it, as last resolved, without those who count as the requester.
    `need`: how many different people; "all" is everyone who may. `known`: False when part of the list could not be
    read now; then `unsure` are those who stood in it before, and may have left. `in_place_of`: who of them stands
    in for whom.
    """

    id: int  # its place in the stage's definition: stays the same when another seat comes or goes
    label: str
    need: int | Literal["all"]
    eligible: tuple[str, ...]
    known: bool = True
    unsure: tuple[str, ...] = ()
    in_place_of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Missing:
    """What a seat still lacks."""

    label: str
    count: int


def room(seat: Seat, also: Sequence[str] = ()) -> int:
    """How many people this seat takes. `also`: people who filled it while they were eligible and since left."""
    if seat.need == "all":
        return max(1, len(dict.fromkeys([*seat.eligible, *also])))  # all of nobody is not a yes
    return seat.need


def seat_people(may_fill: Mapping[str, Sequence[int]], rooms: Mapping[int, int]) -> dict[str, int]:
    """A maximum matching: person → seat id. Earlier people are never unseated for later ones, only moved."""
    return {person: seat for seat, people in _seated(may_fill, rooms).items() for person in people}


def _seated(may_fill: Mapping[str, Sequence[int]], rooms: Mapping[int, int]) -> dict[int, list[str]]:
    seated: dict[int, list[str]] = {seat: [] for seat in rooms}
    for person in may_fill:
        _find_place(person, may_fill, rooms, seated, tried=set())
    return seated


def _find_place(
    person: str,
    may_fill: Mapping[str, Sequence[int]],
    rooms: Mapping[int, int],
    seated: dict[int, list[str]],
    tried: set[int],
) -> bool:
    """Seat this person, if need be by moving somebody to another seat that he may fill too."""
    for seat in may_fill[person]:
        if seat in tried or seat not in rooms:
            continue
        tried.add(seat)
        if len(seated[seat]) < rooms[seat]:
            seated[seat].append(person)
            return True
        for place, other in enumerate(seated[seat]):
            if _find_place(other, may_fill, rooms, seated, tried):
                seated[seat][place] = person
                return True
    return False


def can_be_filled(seats: Sequence[Seat]) -> bool:
    """Whether all seats could be filled if everyone who may said yes."""
    if len(seats) == 1:
        return 0 < room(seats[0]) <= len(seats[0].eligible)
    may_fill: dict[str, list[int]] = {}
    for seat in seats:
        for person in seat.eligible:
            may_fill.setdefault(person, []).append(seat.id)
    rooms = {seat.id: room(seat) for seat in seats}
    return all(rooms.values()) and len(seat_people(may_fill, rooms)) == sum(rooms.values())


def who_helps(
    may_fill: Mapping[str, Sequence[int]], rooms: Mapping[int, int], others: Mapping[str, Sequence[int]]
) -> list[str]:
    """Which of the others would fill one seat more, each by herself, beside those who fill seats already."""
    seated = _seated(may_fill, rooms)
    open_ones = {seat for seat in rooms if len(seated[seat]) < rooms[seat]}
    return [
        person
        for person, seats in others.items()
        if any(seat in open_ones for seat in seats)
        or (open_ones and _has_place(person, {**may_fill, person: seats}, rooms, seated))
    ]


def _has_place(
    person: str,
    may_fill: Mapping[str, Sequence[int]],
    rooms: Mapping[int, int],
    seated: Mapping[int, list[str]],
) -> bool:
    trial = {seat: list(people) for seat, people in seated.items()}
    return _find_place(person, may_fill, rooms, trial, tried=set())
