"""A stage of one request: whom it asks, who has a place in it, and whether it is complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from approvals_bot.approvals import policy as config
from approvals_bot.approvals.ballot import Ballot, SeatState, open_seats, standing, standing_votes, still_owed
from approvals_bot.approvals.eligibility import Delegations, Found, PeopleSource, SeatAsk, with_stand_ins
from approvals_bot.approvals.reassignment import Handover, with_handovers
from approvals_bot.people import Person


@dataclass
class StageState:
    """A stage of this request."""

    rule: config.Stage
    title: str
    state: Literal["ahead", "open", "done", "skipped"] = "ahead"
    because: str = ""
    ballot: Ballot | None = None
    why: dict[int, dict[str, str]] = field(default_factory=dict)  # seat → address → why she may fill it
    told: tuple[str, ...] = ()
    more: tuple[
        tuple[PeopleSource, Literal["add", "replace"], tuple[int, ...]], ...
    ] = ()  # escalations, and for which seats
    opened_at: datetime | None = None
    handovers: tuple[Handover, ...] = ()  # who was asked instead of whom, or besides

    def is_complete(self, seats: Sequence[int]) -> bool:
        """Whether it needs nobody more. `seats`: those that apply now."""
        if self.ballot is None or standing(self.ballot) != "filled":
            return False
        return [seat.id for seat in self.ballot.seats] == list(seats)

    def asks(self, seats: Sequence[tuple[int, config.Seat]]) -> list[SeatAsk]:
        """Whose people are to be found for these seats, escalations included."""
        asks = []
        for number, seat in seats:
            sources, notify = [PeopleSource(seat.from_)], seat.notify
            for source, mode, escalated in self.more:
                if number in escalated:
                    sources = [source] if mode == "replace" else [*sources, source]
                    notify = None if mode == "replace" or notify is None else (*notify, *source.addresses)
            asks.append(SeatAsk(number, tuple(sources), notify))
        return asks

    def seat(
        self,
        found: Found,
        rules: Mapping[int, config.Seat],
        people: Mapping[str, Person],
        label: Callable[[tuple[str, ...]], str],
    ) -> None:
        """The stage's lists, as just resolved. One that could not be read stays as it was. `rules`: its seats that
        apply; `label`: how the people of some addresses are called."""
        assert self.ballot is not None, "the stage was opened"
        before = {seat.id: seat for seat in self.ballot.seats}
        seats, told = list[SeatState](), dict[str, None]()
        votes = [Delegations(vote.by, vote.in_place_of) for vote in standing_votes(self.ballot)]
        found = with_stand_ins(found, {number: rule.need for number, rule in rules.items()}, votes)
        found = with_handovers(found, self.handovers, people)
        why = dict(self.why)
        for place in found.seats:
            known, eligible, unsure = not place.errors, dict(place.eligible), tuple[str, ...]()
            if not known and place.id in before:
                unsure = tuple(who for who in before[place.id].eligible if who not in eligible)
                eligible |= {who: why[place.id][who] for who in unsure}
            why[place.id] = eligible
            rule = rules[place.id]
            seats.append(
                SeatState(place.id, label(rule.from_), rule.need, tuple(eligible), known, unsure, place.in_place_of)
            )
            told.update(dict.fromkeys(place.told))
        self.told = tuple(dict.fromkeys([*self.told, *told])) if found.errors else tuple(told)
        self.why, self.ballot = why, replace(self.ballot, seats=tuple(seats))

    def escalate(self, to: tuple[str, ...], mode: Literal["add", "replace"]) -> None:
        """More people, or other people, for every seat that is still open."""
        assert self.ballot is not None, "the stage was opened"
        self.more = (*self.more, (PeopleSource(to, still_owed(self.ballot)), mode, open_seats(self.ballot)))
