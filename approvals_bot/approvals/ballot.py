"""The ballot of one stage: what a vote does to it, and what the voter is told.

Pure: `ballot + vote → ballot, verdict`. The same function answers Slack, page, inbox, API and command line. Who may
vote was resolved at the click, by the caller; the ballot only counts, and it counts people, never clicks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from approvals_bot.approvals.acts import Reply, Word
from approvals_bot.approvals.port import ChoiceName, Via

Standing = Literal["open", "filled", "rejected", "answered", "changes_requested"]
"""Where a stage stands after its votes."""

DECISIVE: tuple[Standing, ...] = ("filled", "rejected", "answered")
"""A stage that stands so takes no more votes. `changes_requested` only hands the request back."""

YES: tuple[ChoiceName, ...] = ("approve", "edit")
"""Choices that fill a seat. `edit` is a yes to what the voter made of the request."""


@dataclass(frozen=True, slots=True)
class CastVote:
    """One person's choice at one time. `digest`: of what she was shown; None when the caller showed her nothing."""

    by: str
    choice: ChoiceName
    at: datetime
    via: Via = "api"
    comment: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None
    seats: tuple[int, ...] = ()  # the seats she could fill at the click
    stands: bool = True  # False: changed, taken back or reset by an edit
    in_place_of: str = ""  # whom she stood in for, at the click

    @property
    def place(self) -> str:
        """Whose say this is: one place has one vote, whoever gives it."""
        return self.in_place_of or self.by


@dataclass(frozen=True, slots=True)
class Ballot:
    """The open stage: its seats, its rules, and every vote it has seen."""

    seats: tuple[SeatState, ...]
    outcomes: tuple[ChoiceName, ...] = ("approve", "reject")
    reject: int | Literal["any", "all"] = "any"
    comment: Literal["never", "on-reject", "always"] = "on-reject"
    recheck: Literal["at-click", "at-quorum"] = "at-click"
    requesters: tuple[str, ...] = ()  # whose own request this is, where that bars them
    digest: str = ""
    votes: tuple[CastVote, ...] = ()


def cast(ballot: Ballot, vote: CastVote, invalid: Reply | None = None) -> tuple[Ballot, Reply]:
    """Count this vote, or say why not. A refused vote leaves the ballot as it was.

    `invalid`: what the caller found wrong with the answers; it is told only to those who may vote.
    """
    refused = refusal(ballot, vote, invalid)
    if refused is not None:
        return ballot, refused
    before = vote_of(ballot, vote.by)
    if vote.choice == "take_back":
        after = _without(ballot, vote.by)
        return after, _reply(after, vote, "taken_back")
    vote = replace(vote, seats=seats_for(ballot, vote.by), stands=True, in_place_of=in_place_of(ballot, vote.by))
    others = _without(ballot, vote.by, vote.place)
    after = replace(others, votes=(*others.votes, vote))
    if standing(after) in DECISIVE:
        return after, _reply(after, vote, "decided")
    return after, _reply(after, vote, "changed" if before else "counted")


def refusal(ballot: Ballot, vote: CastVote, invalid: Reply | None = None) -> Reply | None:
    """Why this vote can't count; None when it can. Whether she may vote comes before what she said."""
    before = vote_of(ballot, vote.by)
    if not (vote.choice == "take_back" and before):
        barred = _barred(ballot, vote)
        if barred is not None:
            return barred
    if vote.digest is not None and vote.digest != ballot.digest:
        return Reply("request_changed", params={"was": vote.digest, "now": ballot.digest})
    if vote.choice == "take_back":
        return None if before else Reply("invalid", code="no_vote_to_take_back")
    if vote.choice not in ballot.outcomes:
        return Reply("invalid", code="choice_not_offered", params={"choice": vote.choice})
    if before and before.choice == vote.choice and vote.choice != "edit":
        return _reply(ballot, vote, "already_voted")
    return invalid or _missing_comment(ballot, vote)


def _barred(ballot: Ballot, vote: CastVote) -> Reply | None:
    """Whether this person may vote at all."""
    unknown = any(not seat.known for seat in ballot.seats)
    if unknown and ballot.recheck == "at-quorum":
        return Reply("group_unknown")
    if seats_for(ballot, vote.by):
        return None
    if vote.by in ballot.requesters:
        return Reply("own_request")
    return Reply("group_unknown" if unknown else "not_an_approver")


def _missing_comment(ballot: Ballot, vote: CastVote) -> Reply | None:
    if vote.comment.strip():
        return None
    if vote.choice == "answer":
        return Reply("invalid", code="answer_missing")
    if comment_rule(ballot, vote.choice) == "required":
        return Reply("invalid", code="comment_missing")
    return None


def comment_rule(ballot: Ballot, choice: ChoiceName) -> Literal["none", "optional", "required"]:
    """Whether this choice needs a comment in this stage."""
    if choice == "take_back":
        return "none"
    if choice == "answer" or ballot.comment == "always":
        return "required"
    if ballot.comment == "never":
        return "none"
    return "required" if choice in ("reject", "changes") else "optional"


def standing(ballot: Ballot) -> Standing:
    """Where the stage stands."""
    votes = standing_votes(ballot)
    for vote in votes:
        if vote.choice == "answer":
            return "answered"
        if vote.choice == "changes":
            return "changes_requested"
    if _is_rejected(ballot):
        return "rejected"
    return "filled" if have(ballot) == need(ballot) else "open"


def _is_rejected(ballot: Ballot) -> bool:
    rejections = len(_rejecting(ballot))
    if rejections == 0:
        return False
    return rejections >= rejections_needed(ballot) or not _within_reach(ballot)


def rejections_needed(ballot: Ballot) -> int:
    """How many rejections end the stage, if quorum stays within reach."""
    match ballot.reject:
        case "any":
            return 1
        case "all":
            return max(1, len(who_may_vote(ballot)))
        case count:
            return count


def _within_reach(ballot: Ballot) -> bool:
    """Whether those who have not said no could still fill every seat."""
    may_fill = _approvals(ballot)
    for person in who_may_vote(ballot):
        if person not in may_fill and person not in _rejecting(ballot):
            may_fill[person] = list(seats_for(ballot, person))
    rooms = _rooms(ballot)
    return len(seat_people(may_fill, rooms)) == sum(rooms.values())


def seating(ballot: Ballot) -> dict[str, int]:
    """Who fills which seat now: address → seat id, in the order of the votes."""
    seated = seat_people(_approvals(ballot), _rooms(ballot))
    return {person: seated[person] for person in _approvals(ballot) if person in seated}


def have(ballot: Ballot) -> int:
    return len(seating(ballot))


def need(ballot: Ballot) -> int:
    return sum(_rooms(ballot).values())


def missing(ballot: Ballot) -> tuple[Missing, ...]:
    """What each unfilled seat still lacks."""
    filled = list(seating(ballot).values())
    rooms = _rooms(ballot)
    lacks = [Missing(seat.label, rooms[seat.id] - filled.count(seat.id)) for seat in ballot.seats]
    return tuple(lack for lack in lacks if lack.count > 0)


def open_seats(ballot: Ballot) -> tuple[int, ...]:
    """The seats that lack somebody."""
    filled, rooms = list(seating(ballot).values()), _rooms(ballot)
    return tuple(seat.id for seat in ballot.seats if filled.count(seat.id) < rooms[seat.id])


def still_owed(ballot: Ballot) -> tuple[str, ...]:
    """Who has not voted and could still help: those whose yes would fill one seat more."""
    voted = [who for vote in standing_votes(ballot) for who in (vote.by, vote.place)]
    others = {who: seats_for(ballot, who) for who in who_may_vote(ballot) if who not in voted}
    return tuple(who_helps(_approvals(ballot), _rooms(ballot), others))


def who_may_vote(ballot: Ballot) -> tuple[str, ...]:
    return tuple(dict.fromkeys(person for seat in ballot.seats for person in seat.eligible))


def seats_for(ballot: Ballot, person: str) -> tuple[int, ...]:
    """The seats that this person may fill, as resolved now; none for whom that can't be known."""
    return tuple(seat.id for seat in ballot.seats if person in seat.eligible and person not in seat.unsure)


def in_place_of(ballot: Ballot, person: str) -> str:
    """Whom she stands in for now; "" where she acts for herself."""
    return next((seat.in_place_of[person] for seat in ballot.seats if person in seat.in_place_of), "")


def vote_of(ballot: Ballot, person: str) -> CastVote | None:
    return next((vote for vote in ballot.votes if vote.stands and vote.by == person), None)


def standing_votes(ballot: Ballot) -> tuple[CastVote, ...]:
    return tuple(vote for vote in ballot.votes if vote.stands)


def reseated(ballot: Ballot, seats: Sequence[SeatState]) -> Ballot:
    """The ballot with its lists resolved again."""
    return replace(ballot, seats=tuple(seats))


def reset(ballot: Ballot, digest: str) -> Ballot:
    """The ballot after an edit that voids every vote."""
    return replace(ballot, digest=digest, votes=tuple(replace(vote, stands=False) for vote in ballot.votes))


def _without(ballot: Ballot, person: str, place: str = "") -> Ballot:
    """Without this person's vote, and without that of whoever had her place before."""
    gone = (person, place)
    votes = (replace(vote, stands=False) if vote.by == person or vote.place in gone else vote for vote in ballot.votes)
    return replace(ballot, votes=tuple(votes))


def _approvals(ballot: Ballot) -> dict[str, list[int]]:
    """Who said yes, and the seats that each may fill: as of now, and, unless `recheck` says otherwise, also as of the
    click. Seats that came later are for them, too: else who has voted could not move where she is needed.
    """
    found = {}
    for vote in standing_votes(ballot):
        if vote.choice in YES:
            now = [seat.id for seat in ballot.seats if vote.by in seat.eligible]
            kept = [*vote.seats, *seats_for(ballot, vote.by)] if ballot.recheck == "at-click" else now
            found[vote.by] = list(dict.fromkeys(kept))
    return found


def _rejecting(ballot: Ballot) -> tuple[str, ...]:
    may_vote = who_may_vote(ballot)
    return tuple(
        vote.by
        for vote in standing_votes(ballot)
        if vote.choice == "reject" and (ballot.recheck == "at-click" or vote.by in may_vote)
    )


def _rooms(ballot: Ballot) -> dict[int, int]:
    approvals = _approvals(ballot)
    return {
        seat.id: room(seat, also=[person for person, seats in approvals.items() if seat.id in seats])
        for seat in ballot.seats
    }


def _reply(ballot: Ballot, vote: CastVote, word: Word) -> Reply:
    """How the stage stands after this vote. Of a rejection that is counted: how many there are of how many."""
    is_changed = word != "already_voted"
    if vote.choice == "reject" and word in ("counted", "changed"):
        rejections = len(_rejecting(ballot)), rejections_needed(ballot)
        return Reply(word, is_changed, params=tally("reject", "open", *rejections))
    return Reply(
        word, is_changed, params=tally(vote.choice, standing(ballot), have(ballot), need(ballot), missing(ballot))
    )


def tally(
    choice: ChoiceName, standing: Standing, have: int, need: int, missing: Iterable[Missing] = ()
) -> dict[str, Any]:
    """A count, as a reply's parameters."""
    lacks = [[lack.label, lack.count] for lack in missing]
    return {"choice": choice, "standing": standing, "have": have, "need": need, "missing": lacks}


# ── Seats: whose votes a stage needs, and who fills which. ──


@dataclass(frozen=True, slots=True)
class SeatState:
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


def room(seat: SeatState, also: Sequence[str] = ()) -> int:
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


def can_be_filled(seats: Sequence[SeatState]) -> bool:
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
