"""A request as everyone outside its run sees it: what opened it, where it stands, how it ended.

The run publishes a `Request` with every change, in the same transaction as the decision that caused it. Pages, API
and command line read that value and nothing else, so no one ever needs to replay a run to show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from approvals_bot.approvals.ballot import Ballot, CastVote, SeatState
from approvals_bot.approvals.port import CardDelivery, CardField, ChoiceName, FormField, Name, State, Via
from approvals_bot.people import Person

Outcome = Literal["approved", "rejected", "answered", "expired", "cancelled"]
"""How a request can end."""

REQUESTER, ON_BEHALF_OF = "requester", "on_behalf_of"
"""Attributes of a run that somebody started: who asks in it, where the workflow names nobody else."""

DEADLINE = "deadline"
"""Who decided, when nobody did in time."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What somebody asked for: the workflow's fields as canonical JSON, and who asks (an address, or `app:<key>`)."""

    fields: dict[str, JsonValue]
    requester: str
    on_behalf_of: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of the run: what the waiting caller is handed.

    `by`: an address, `rule:<n>`, or `deadline`. `in_place_of`: the absent person for whom `by` stood in; "" for nobody.
    `answers`: by stage, then by name. `digest`: of the pinned fields as they were decided on; "" when none is pinned.
    """

    approved: bool
    decision: Outcome
    by: str
    comment: str
    fields: dict[str, JsonValue]
    answers: dict[str, dict[str, JsonValue]]
    digest: str
    outcome: Outcome
    at: datetime
    via: Via
    version: str  # digest of the workflow file that was in force
    in_place_of: str = ""


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RequestSeat(_View):
    """One seat of a stage. `eligible`: who may fill it, as last resolved, and why: address → "@sre"."""

    id: int
    label: str
    need: int | Literal["all"]
    room: int = 0  # how many people that is
    eligible: dict[str, str] = {}
    filled_by: tuple[str, ...] = ()
    known: bool = True
    unsure: tuple[str, ...] = ()
    in_place_of: dict[str, str] = {}  # stand-in → who is away


class RequestStage(_View):
    """One stage: where it stands, and, once it was opened, its seats and its rules."""

    id: str
    title: str
    state: Literal["done", "open", "ahead", "skipped"]
    because: str = ""
    seats: tuple[RequestSeat, ...] = ()
    outcomes: tuple[ChoiceName, ...] = ()
    comment: Literal["never", "on-reject", "always"] = "on-reject"
    reject: int | Literal["any", "all"] = "any"
    recheck: Literal["at-click", "at-quorum"] = "at-click"
    requesters: tuple[str, ...] = ()
    asks: tuple[FormField, ...] = ()
    opened_at: datetime | None = None


class RecordedVote(_View):
    """A vote that counted at its time."""

    stage: str
    by: str
    choice: ChoiceName
    at: datetime
    via: Via
    comment: str = ""
    answers: dict[str, JsonValue] = {}
    digest: str = ""
    seats: tuple[int, ...] = ()
    stands: bool = True
    in_place_of: str = ""  # whom the voter stood in for


class RequestOutcome(_View):
    """How it ended. `by`: an address, `rule:<n>`, or `deadline`."""

    state: State
    by: str
    at: datetime
    via: Via
    comment: str = ""
    because: str = ""
    in_place_of: str = ""  # whom the person stood in for

    @property
    def outcome(self) -> Outcome:
        match self.state:
            case "approved" | "rejected" | "answered" | "expired":
                return self.state
            case _:
                return "cancelled"


class RecordedReassignment(_View):
    """Somebody was asked instead of another, or besides the others ("")."""

    stage: str
    by: str
    person: str
    instead_of: str = ""
    reason: str = ""
    at: datetime
    via: Via
    text: str  # one sentence, as cards show it


class RequestTimer(_View):
    """Something that happens by itself if nobody decides before."""

    at: datetime
    what: str


class AppliedRule(_View):
    """A condition of the workflow's file, and what it said of this request."""

    rule: str
    values: dict[str, JsonValue] = {}
    applies: bool
    because: str


class FollowUp(_View):
    """An action after the decision: a call or a message."""

    what: str
    state: Literal["sending", "done", "retrying", "failed"]
    attempts: int = 0
    error: str = ""


class Request(_View):
    """Everything about a request, for cards, the API and `explain`. Lossless as JSON."""

    run_id: str
    number: int = 0  # among the requests of its run; 0: the run is this request
    hook_id: str  # opaque; grants nothing by itself
    workflow: str
    definition: str  # digest of the workflow file that this request follows
    version: int  # grows with every change that a card shows
    state: State
    title: str
    requester: str
    on_behalf_of: str | None = None
    asked_at: datetime
    digest: str = ""
    fields: dict[str, JsonValue] = {}
    shown: tuple[CardField, ...] = ()
    editable: tuple[FormField, ...] = ()  # the fields that an approver may change, as they are now
    to_change: tuple[FormField, ...] = ()  # all fields as they are, while the requester is asked to change them
    stages: tuple[RequestStage, ...] = ()
    votes: tuple[RecordedVote, ...] = ()
    handovers: tuple[RecordedReassignment, ...] = ()
    people: dict[str, Person] = {}
    waiting_for: tuple[str, ...] = ()  # addresses of those whose yes would help and who have not voted
    deadline: datetime | None = None
    on_deadline: str = ""
    outcome: RequestOutcome | None = None
    deliveries: tuple[CardDelivery, ...] = ()
    follow_ups: tuple[FollowUp, ...] = ()
    recipients: dict[str, str] = {}  # opaque id → address: what a link may stand for
    link_auth: Literal["link", "code"] = "link"
    held: RequestOutcome | None = None  # a decision that takes effect after `grace`, unless its vote is taken back
    grace: str = ""  # "30 s"
    reassign: Literal["approvers", "owners", "never"] = "approvers"  # who may change who is asked, besides admins
    timers: tuple[RequestTimer, ...] = ()
    rules: tuple[AppliedRule, ...] = ()

    @property
    def id(self) -> str:
        """What pages, API and command line call this request: its run's id, and its number where that has several."""
        return request_id(self.run_id, self.number)

    @property
    def stage(self) -> RequestStage | None:
        """The open stage."""
        return next((stage for stage in self.stages if stage.state == "open"), None)

    @property
    def is_open(self) -> bool:
        return self.outcome is None

    def name(self, key: str) -> Name:
        """How this person, app or rule is shown."""
        if key in self.people:
            return Name(key, self.people[key].name, self.people[key].slack)
        return Name(key, plain_name(key))

    def acting(self, key: str, in_place_of: str) -> Name:
        """`Bo Lund for Ann Ode`, where one stands in for the other."""
        name = self.name(key)
        return Name(key, f"{name.text} for {self.name(in_place_of).text}") if in_place_of else name


_ALWAYS: dict[str, Any] = {"digest": "", "waiting_for": [], "recipients": {}, "deliveries": []}
"""What a stored view has even where there is nothing to say: by these it is known for a request's."""


def dumped(view: Request) -> dict[str, Any]:
    """The view as runs store it, without what is as usual: most of it is, and a run stores it with every change."""
    said = view.model_dump(mode="json", exclude_defaults=True)
    return _ALWAYS | said


def request_id(run_id: str, number: int) -> str:
    """`run_0…` for a run that is a request, `run_0….2` for the second request of a workflow."""
    return f"{run_id}.{number}" if number else run_id


def plain_name(key: str) -> str:
    """`app:ci` → "ci", `rule:1` → "Rule 1"; an address stays as it is."""
    scheme, _, rest = key.partition(":")
    if key == DEADLINE:
        return "the deadline"
    return {"app": rest, "rule": f"rule {rest}"}.get(scheme, key) if rest else key


def ballot_of(view: Request, stage: RequestStage) -> Ballot:
    """The stage's ballot, as the run has it."""
    return Ballot(
        seats=tuple(
            SeatState(seat.id, seat.label, seat.need, tuple(seat.eligible), seat.known, seat.unsure, seat.in_place_of)
            for seat in stage.seats
        ),
        outcomes=stage.outcomes,
        reject=stage.reject,
        comment=stage.comment,
        recheck=stage.recheck,
        requesters=stage.requesters,
        digest=view.digest,
        votes=tuple(_vote(vote) for vote in view.votes if vote.stage == stage.id),
    )


def _vote(vote: RecordedVote) -> CastVote:
    return CastVote(
        by=vote.by,
        choice=vote.choice,
        at=vote.at,
        via=vote.via,
        comment=vote.comment,
        answers=vote.answers,
        digest=vote.digest,
        seats=vote.seats,
        stands=vote.stands,
        in_place_of=vote.in_place_of,
    )
