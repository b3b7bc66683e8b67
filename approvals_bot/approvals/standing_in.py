"""Who is asked in the place of those who are away. Pure.

Whoever stands in takes the absent person's place for one stage: her seats, not one more. Nobody holds two places, so
who may vote there anyway is no stand-in; and the requester never is. Where nobody can stand in, the absent person stays
entitled, and is only told if the stage can't do without her. Who has voted already keeps her place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from approvals_bot.approvals.electorate import Found, SeatFound
from approvals_bot.approvals.seats import Seat, can_be_filled
from approvals_bot.approvals.shown import shown_date

Need = int | Literal["all"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A vote that stands when places are given: by whom, and in whose place ("" in her own)."""

    by: str
    in_place_of: str = ""


def with_stand_ins(found: Found, needs: Mapping[int, Need], votes: Iterable[Standing] = ()) -> Found:
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


def _pairs(found: Found, entitled: Mapping[str, None], votes: tuple[Standing, ...]) -> dict[str, str]:
    """Absent → stand-in. A pair that has voted stays one."""
    voted = {vote.by for vote in votes if not vote.in_place_of}
    acted = {vote.in_place_of: vote.by for vote in votes if vote.in_place_of}
    pairs: dict[str, str] = {}
    for who in sorted(entitled, key=lambda who: who not in acted):
        if who not in found.away or who in voted:
            continue
        stand_ins = found.away[who].stand_ins
        free = [one for one in stand_ins if one not in entitled and one not in pairs.values()]
        if acted.get(who) in free:
            pairs[who] = acted[who]
        elif free:
            pairs[who] = free[0]
    return pairs


def _with_pairs(seat: SeatFound, pairs: Mapping[str, str], found: Found) -> SeatFound:
    eligible, in_place_of = dict[str, str](), dict[str, str]()
    for who, why in seat.eligible.items():
        if who in pairs:
            in_place_of[pairs[who]] = who
            eligible[pairs[who]] = f"standing in for {found.people[who].name} ({why})"
        else:
            eligible[who] = why
    told = tuple(dict.fromkeys(pairs.get(who, who) for who in seat.told))
    return replace(seat, eligible=eligible, told=told, in_place_of=in_place_of)


def _can_do_without(left_out: list[str], seats: list[SeatFound], needs: Mapping[int, Need]) -> bool:
    """Whether the others can fill every seat. For "all", everybody is needed."""
    return can_be_filled(
        [
            Seat(
                seat.id,
                "",
                len(seat.eligible) if needs[seat.id] == "all" else needs[seat.id],
                tuple(who for who in seat.eligible if who not in left_out),
            )
            for seat in seats
        ]
    )


def _with_notes(seat: SeatFound, left_out: list[str], found: Found) -> SeatFound:
    eligible = {
        who: f"{why} ({absence_of(who, found)})" if who in found.away else why for who, why in seat.eligible.items()
    }
    return replace(seat, eligible=eligible, told=tuple(who for who in seat.told if who not in left_out))


def absence_of(who: str, found: Found) -> str:
    """`away, back on 5 Jan 2027`, and what is wrong with who should stand in."""
    away = found.away[who]
    back = f"away, back on {shown_date(away.back)}"
    return f"{back}; {away.trouble}" if away.trouble else back
