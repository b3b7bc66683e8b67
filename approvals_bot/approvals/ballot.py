"""Counting votes: `stage + vote → stage, reply`, as pure functions.

One function serves Slack, pages, inbox, API and command line. The caller has resolved the eligible people at the click;
here votes are only counted: by people, never by clicks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from pydantic import JsonValue

from approvals_bot.approvals.acts import Reply, Vote, Word
from approvals_bot.approvals.card_model import ChoiceName
from approvals_bot.approvals.request import RecordedVote, Request, RequestSeat, RequestStage

StageStatus = Literal["open", "filled", "rejected", "answered", "changes_requested"]
"""The state of a stage after its votes."""

DECISIVE: tuple[StageStatus, ...] = ("filled", "rejected", "answered")
"""Statuses that end a stage. `changes_requested` doesn't: it only returns the request to its requester."""

YES: tuple[ChoiceName, ...] = ("approve", "edit")
"""Choices that fill a seat. `edit` approves the request as the voter changed it."""


def cast(
    stage: RequestStage,
    act: Vote,
    at: datetime,
    digest: str = "",
    *,
    answers: Mapping[str, JsonValue] | None = None,
    invalid: Reply | None = None,
) -> tuple[RequestStage, Reply]:
    """Count this vote, or refuse it and leave the stage as it was.

    `digest`: the current digest of the request. `answers`: as parsed. `invalid`: the reply to invalid answers, which
    goes only to people who may vote.
    """
    refused = refusal(stage, act, digest, invalid)
    if refused is not None:
        return stage, refused
    after = with_vote(stage, replace(act, digest=digest, answers=dict(answers or {}), fields={}), at)
    if act.choice == "take_back":
        return after, _reply(after, act, "taken_back")
    is_decided = stage_status(after) in DECISIVE
    return after, _reply(after, act, "decided" if is_decided else "changed" if vote_of(stage, act.by) else "counted")


def with_vote(stage: RequestStage, act: Vote, at: datetime) -> RequestStage:
    """Return the stage after this vote, which replaces the voter's earlier one. Nothing is checked."""
    if act.choice == "take_back":
        return _without(stage, act.by)
    vote = RecordedVote(act, at, seats_for(stage, act.by), in_place_of=in_place_of(stage, act.by))
    others = _without(stage, act.by, vote.place)
    return replace(others, votes=(*others.votes, vote))


def refusal(stage: RequestStage, act: Vote, digest: str = "", invalid: Reply | None = None) -> Reply | None:
    """Return why this vote can't count; None if it can. Eligibility is checked before what the vote says."""
    before = vote_of(stage, act.by)
    if not (act.choice == "take_back" and before):
        barred = _barred(stage, act)
        if barred is not None:
            return barred
    if act.digest is not None and act.digest != digest:
        return Reply("request_changed", params={"was": act.digest, "now": digest})
    if act.choice == "take_back":
        return None if before else Reply("invalid", code="no_vote_to_take_back")
    if act.choice not in stage.outcomes:
        return Reply("invalid", code="choice_not_offered", params={"choice": act.choice})
    if before and before.choice == act.choice and act.choice != "edit":
        return _reply(stage, act, "already_voted")
    if invalid is not None or act.comment.strip():
        return invalid
    if act.choice == "answer":
        return Reply("invalid", code="answer_missing")
    return Reply("invalid", code="comment_missing") if comment_rule(stage, act.choice) == "required" else None


def _barred(stage: RequestStage, act: Vote) -> Reply | None:
    """Return why this person may not vote at all; None if they may."""
    unknown = any(not seat.known for seat in stage.seats)
    if unknown and stage.recheck == "at-quorum":
        return Reply("group_unknown")
    if stage.veto is not None and act.choice == "reject" and act.by not in stage.requesters:
        return _without_veto(stage.veto, act.by)
    if act.by in stage.excluded:  # also if somebody has given them a place
        return Reply("not_an_approver", code="excluded")
    if seats_for(stage, act.by):
        return None
    if act.by in stage.requesters:
        return Reply("own_request")
    return Reply("group_unknown" if unknown else "not_an_approver")


def _without_veto(veto: RequestSeat, person: str) -> Reply | None:
    """Return why this person may not reject, where only some may; None if they may."""
    if person in veto.eligible and person not in veto.unsure:
        return None
    if not veto.known:
        return Reply("group_unknown")
    return Reply("not_an_approver", code="no_veto", params={"people": veto.label})


def comment_rule(stage: RequestStage, choice: ChoiceName) -> Literal["none", "optional", "required"]:
    """Return whether this choice takes a comment in this stage."""
    if choice == "take_back":
        return "none"
    if choice == "answer" or stage.comment == "always":
        return "required"
    if stage.comment == "never":
        return "none"
    return "required" if choice in ("reject", "changes") and stage.comment == "on-reject" else "optional"


def stage_status(stage: RequestStage, counted: Count | None = None) -> StageStatus:
    """Return the state of the stage after its votes."""
    votes = current_votes(stage)
    for vote in votes:
        if vote.choice == "answer":
            return "answered"
        if vote.choice == "changes":
            return "changes_requested"
    if stage.decide is not None and unanswered(stage):
        return "open"
    rejections = len(_rejecting(stage))
    if rejections and (rejections >= rejections_needed(stage) or not _within_reach(stage)):
        return "rejected"
    counted = counted or count(stage)
    if counted.have == counted.need:
        return "filled"
    return "open" if stage.decide is None or not votes else "rejected"


def rejections_needed(stage: RequestStage) -> int:
    """Return how many rejections end the stage while the quorum is still within reach."""
    if stage.veto is not None:
        return size_of(stage.veto.need, len(stage.veto.eligible))
    match stage.reject:
        case "any":
            return 1
        case "all":
            return max(1, len(eligible_voters(stage)))
        case count:
            return count


def _within_reach(stage: RequestStage) -> list[dict[int, int]]:
    """Return the alternatives that the people who haven't rejected could still fill, each as its seats' sizes.

    While a list can't be read, its alternative may be among them.
    """
    may_fill, against = _approvals(stage), _rejecting(stage)
    alternatives = _alternatives(stage, may_fill)
    for person in eligible_voters(stage):
        if person not in may_fill and person not in against:
            may_fill[person] = list(seats_for(stage, person))
    unread = {seat.id for seat in stage.seats if not seat.known}
    return [
        sizes
        for sizes in alternatives
        if unread & sizes.keys() or len(seat_people(may_fill, sizes)) == sum(sizes.values())
    ]


@dataclass(frozen=True, slots=True)
class Count:
    """Seats as filled by votes: person → seat id in the order of the votes, and each seat's size.

    They are those of one alternative; in each of them, a person fills one seat.
    """

    seated: dict[str, int]
    sizes: dict[int, int]

    @property
    def have(self) -> int:
        return len(self.seated)

    @property
    def need(self) -> int:
        return sum(self.sizes.values())

    def lack_of(self, seat: int) -> int:
        """Return how many votes this seat still lacks; 0 if it is of another alternative."""
        return self.sizes.get(seat, 0) - sum(place == seat for place in self.seated.values())


def counts(stage: RequestStage) -> list[Count]:
    """Count the votes in each alternative; a stage without alternatives is one."""
    approvals = _approvals(stage)
    return [_count_of(stage, approvals, sizes) for sizes in _alternatives(stage, approvals)]


def _count_of(stage: RequestStage, approvals: Mapping[str, Sequence[int]], sizes: dict[int, int]) -> Count:
    """Count the votes in one alternative, so that those who haven't voted can fill what it lacks, if at all possible.

    Otherwise people would read that it waits for one more of a group in which everybody has voted.
    """
    counted = Count(seat_people(approvals, sizes), sizes)
    if len(sizes) == 1 or not 0 < counted.have < counted.need:
        return counted
    voted = [vote.by for vote in current_votes(stage)]
    others = {one: seats_for(stage, one) for one in eligible_voters(stage) if one not in voted}
    lacks = {seat: counted.lack_of(seat) for seat in sizes}
    if len(seat_people(others, lacks)) == sum(lacks.values()):
        return counted
    together = seat_people({**approvals, **others}, sizes)
    return Count({person: together[person] for person in counted.seated}, sizes)


def count(stage: RequestStage) -> Count:
    """Count the votes; call it once and pass the result on where several functions need it."""
    return nearest(counts(stage))


def nearest(counted: Iterable[Count]) -> Count:
    """Return the alternative that lacks the fewest votes, and of these the one that has the most."""
    return min(counted, key=lambda one: (one.need - one.have, -one.have), default=Count({}, {}))


def seating(stage: RequestStage) -> dict[str, int]:
    """Assign voters to seats: address → seat id, in the order of the votes."""
    return count(stage).seated


def have(stage: RequestStage) -> int:
    return count(stage).have


def need(stage: RequestStage) -> int:
    return count(stage).need


def missing(stage: RequestStage, counted: Count | None = None) -> tuple[Missing, ...]:
    """Return what each unfilled seat still lacks."""
    counted = counted or count(stage)
    lacks = [Missing(seat.label, lack) for seat in stage.seats if (lack := counted.lack_of(seat.id)) > 0]
    return tuple(lacks)


def open_seats(stage: RequestStage) -> tuple[int, ...]:
    """Return the ids of the seats that aren't full, of every alternative."""
    return tuple(seat for counted in counts(stage) for seat in counted.sizes if counted.lack_of(seat) > 0)


def missing_voters(stage: RequestStage) -> tuple[str, ...]:
    """Return the people who haven't voted and whose approval would fill one more seat.

    Of alternatives, those that can't be filled any more need nobody, unless none can.
    """
    if stage.decide is not None:
        return unanswered(stage)
    voted = [address for vote in current_votes(stage) for address in (vote.by, vote.place)]
    others = {address: seats_for(stage, address) for address in eligible_voters(stage) if address not in voted}
    approvals = _approvals(stage)
    alternatives = _alternatives(stage, approvals)
    if len(alternatives) > 1:
        alternatives = _within_reach(stage) or alternatives
    helpful = dict.fromkeys(one for sizes in alternatives for one in helpful_voters(approvals, sizes, others))
    return tuple(one for one in others if one in helpful)


def unanswered(stage: RequestStage) -> tuple[str, ...]:
    """Return the eligible people who haven't voted, and nobody in their place."""
    voted = {address for vote in current_votes(stage) for address in (vote.by, vote.place)}
    return tuple(address for address in eligible_voters(stage) if address not in voted)


def eligible_voters(stage: RequestStage) -> tuple[str, ...]:
    return tuple(dict.fromkeys(person for seat in stage.seats for person in seat.eligible))


def seats_for(stage: RequestStage, person: str) -> tuple[int, ...]:
    """Return the seats that this person may fill, as resolved now; none if that can't be known."""
    return tuple(seat.id for seat in stage.seats if person in seat.eligible and person not in seat.unsure)


def in_place_of(stage: RequestStage, person: str) -> str:
    """Return the person for whom this one is the delegate now; "" if they act for themselves."""
    return next((seat.in_place_of[person] for seat in stage.seats if person in seat.in_place_of), "")


def vote_of(stage: RequestStage, person: str) -> RecordedVote | None:
    return next((vote for vote in stage.votes if vote.counts and vote.vote.by == person), None)


def waiting_for(request: Request) -> tuple[str, ...]:
    """Return whose turn it is: people who owe a vote, or the requester who is to make changes."""
    if request.state == "changes_requested":
        return tuple(address for address in (request.requester,) if not address.startswith("app:"))
    return owed(request) if request.outcome is None and request.held is None else ()


def owed(request: Request) -> tuple[str, ...]:
    """Return the people who haven't voted in the open stage and whose vote would help."""
    return missing_voters(request.stage) if request.stage and request.state == "waiting" else ()


def current_votes(stage: RequestStage) -> tuple[RecordedVote, ...]:
    return tuple(vote for vote in stage.votes if vote.counts)


def reset(stage: RequestStage) -> RequestStage:
    """Void every vote of the stage, after an edit."""
    return replace(stage, votes=tuple(replace(vote, counts=False) for vote in stage.votes))


def _without(stage: RequestStage, person: str, place: str = "") -> RequestStage:
    """Void this person's vote, and the vote of anybody who had their place before."""
    gone = (person, place)
    votes = (replace(vote, counts=False) if vote.by == person or vote.place in gone else vote for vote in stage.votes)
    return replace(stage, votes=tuple(votes))


def _approvals(stage: RequestStage) -> dict[str, list[int]]:
    """Return who approved, with the seats that each may fill.

    These are the seats as of now and, unless `recheck` says otherwise, also as of the click. Seats that were added
    later count, too: otherwise people who have voted couldn't move to where they are needed.
    """
    found = {}
    for vote in stage.votes:
        address = vote.vote.by
        if vote.counts and vote.vote.choice in YES:
            now = [seat.id for seat in stage.seats if address in seat.eligible]
            kept = [*vote.seats, *seats_for(stage, address)] if stage.recheck == "at-click" else now
            found[address] = list(dict.fromkeys(kept))
    return found


def _rejecting(stage: RequestStage) -> tuple[str, ...]:
    may_vote = eligible_voters(stage) if stage.veto is None else tuple(stage.veto.eligible)
    return tuple(
        vote.by
        for vote in current_votes(stage)
        if vote.choice == "reject" and (stage.recheck == "at-click" or vote.by in may_vote)
    )


def _alternatives(stage: RequestStage, approvals: Mapping[str, Sequence[int]]) -> list[dict[int, int]]:
    """Return the size of each seat, by alternative."""
    found: dict[int, dict[int, int]] = {}
    for seat in stage.seats:
        also = [person for person, seats in approvals.items() if seat.id in seats]
        found.setdefault(seat.alternative, {})[seat.id] = seat_size(seat, also)
    return list(found.values())


def _reply(stage: RequestStage, act: Vote, word: Word) -> Reply:
    """Reply with the count after this vote; after a rejection, with the number of rejections."""
    is_changed = word != "already_voted"
    if act.choice == "reject" and word in ("counted", "changed"):
        rejections = len(_rejecting(stage)), rejections_needed(stage)
        return Reply(word, is_changed, params=tally("reject", "open", *rejections))
    return Reply(word, is_changed, params=tally_of(stage, act.choice))


def tally_of(stage: RequestStage, choice: ChoiceName) -> dict[str, Any]:
    """Return how far the stage is, as parameters of a reply: the nearest alternative, and all if there are several."""
    every = counts(stage)
    counted = nearest(every)
    params = tally(choice, stage_status(stage, counted), counted.have, counted.need, missing(stage, counted))
    if len(every) == 1:
        return params
    seats = {seat.id: seat for seat in stage.seats}
    lines = [[[seats[id].label, size - one.lack_of(id), size] for id, size in one.sizes.items()] for one in every]
    return {**params, "any": lines}


def tally(
    choice: ChoiceName, status: StageStatus, have: int, need: int, missing: Iterable[Missing] = ()
) -> dict[str, Any]:
    """Return a count as parameters of a reply."""
    lacks = [[lack.label, lack.count] for lack in missing]
    return {"choice": choice, "status": status, "have": have, "need": need, "missing": lacks}


@dataclass(frozen=True, slots=True)
class Missing:
    """What a seat still lacks."""

    label: str
    count: int


def seat_size(seat: RequestSeat, also: Sequence[str] = ()) -> int:
    """Return how many people this seat takes. `also`: people who filled it and have since left the list."""
    return size_of(seat.need, len(dict.fromkeys([*seat.eligible, *also])) if seat.need == "all" else len(seat.eligible))


def size_of(need: int | str, people: int) -> int:
    """Return how many of so many people are needed, at least one: "all" of an empty list must not approve."""
    match need:
        case int():
            return need
        case "all":
            return max(1, people)
        case "majority":
            return people // 2 + 1
        case share:
            return max(1, -(-int(share.removesuffix("%")) * people // 100))


def seat_people(may_fill: Mapping[str, Sequence[int]], sizes: Mapping[int, int]) -> dict[str, int]:
    """Find a maximum matching: person → seat id. A later person may move an earlier one, never unseat them."""
    seated, free = dict[str, int](), dict(sizes)
    for person in may_fill:
        _find_place(person, may_fill, free, seated, tried=set())
    return seated


def _find_place(
    person: str, may_fill: Mapping[str, Sequence[int]], free: dict[int, int], seated: dict[str, int], tried: set[int]
) -> bool:
    """Seat this person, if need be by moving somebody to another seat that they may fill too."""
    for seat in may_fill[person]:
        if seat in tried or seat not in free:
            continue
        tried.add(seat)
        if free[seat] > 0:
            free[seat] -= 1
            seated[person] = seat
            return True
        for other in [other for other, place in seated.items() if place == seat]:
            if _find_place(other, may_fill, free, seated, tried):
                seated[person] = seat
                return True
    return False


def by_alternative(seats: Iterable[RequestSeat]) -> list[list[RequestSeat]]:
    """Return the seats of each alternative."""
    found: dict[int, list[RequestSeat]] = {}
    for seat in seats:
        found.setdefault(seat.alternative, []).append(seat)
    return list(found.values())


def can_be_filled(seats: Sequence[RequestSeat]) -> bool:
    """Whether all seats of an alternative would be filled if every eligible person approved."""
    alternatives = by_alternative(seats)
    if len(alternatives) > 1:
        return any(map(can_be_filled, alternatives))
    if len(seats) == 1:
        return 0 < seat_size(seats[0]) <= len(seats[0].eligible)
    may_fill: dict[str, list[int]] = {}
    for seat in seats:
        for person in seat.eligible:
            may_fill.setdefault(person, []).append(seat.id)
    sizes = {seat.id: seat_size(seat) for seat in seats}
    return all(sizes.values()) and len(seat_people(may_fill, sizes)) == sum(sizes.values())


def helpful_voters(
    may_fill: Mapping[str, Sequence[int]], sizes: Mapping[int, int], others: Mapping[str, Sequence[int]]
) -> list[str]:
    """Return which of the others would fill one more seat, each alone, beside the people seated."""
    seated = seat_people(may_fill, sizes)
    filled = Counter(seated.values())
    free = {seat: size - filled[seat] for seat, size in sizes.items()}
    if not any(free.values()):
        return []
    return [
        person
        for person, seats in others.items()
        if any(free.get(seat) for seat in seats)
        or _find_place(person, {**may_fill, person: seats}, {**free}, {**seated}, tried=set())
    ]
