"""A request: what opened it, where it stands, how it ended, as one frozen value.

The run keeps it while it decides (`apply` makes the next one of it), and stores it with every change, in the same
transaction as the decision that caused the change. Cards, pages, API and command line are made from that value and
nothing else, so nobody needs to replay a run to show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from approvals_bot.approvals.acts import Reassign, Vote
from approvals_bot.approvals.port import (
    CardDelivery,
    CardField,
    ChoiceName,
    DatedRemark,
    FollowUp,
    FormField,
    Name,
    NamedStage,
    State,
)
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
class RequestSeat:
    """Votes needed from one list of people.

    `eligible`: who may fill it, as last resolved, and why: address → "@sre"; without those who count as the requester.
    `need`: how many different people; "all" is everyone who may. `known`: False when part of the list could not be
    read now; then `unsure` are those who were in it before, and may have left.
    """

    id: int  # its place in the stage's definition: stays the same when another seat comes or goes
    label: str
    need: int | Literal["all"]
    eligible: dict[str, str] = field(default_factory=dict)
    known: bool = True
    unsure: tuple[str, ...] = ()
    in_place_of: dict[str, str] = field(default_factory=dict)  # stand-in → the person who is away


@dataclass(frozen=True, slots=True)
class RecordedVote:
    """A vote that counted at its time. `digest` of `vote`: of what it was about."""

    vote: Vote
    at: datetime
    seats: tuple[int, ...] = ()  # those that the voter could fill at the click
    counts: bool = True  # False: changed, taken back or reset by an edit
    in_place_of: str = ""  # whom the voter stood in for, at the click

    @property
    def by(self) -> str:
        return self.vote.by

    @property
    def choice(self) -> ChoiceName:
        return self.vote.choice

    @property
    def place(self) -> str:
        """Whose say this is: one place has one vote, whoever gives it."""
        return self.in_place_of or self.by


@dataclass(frozen=True, slots=True)
class RecordedReassignment:
    """`act.person` is asked instead of `act.instead_of`, or besides the others (None).

    `place`: whose place it was, where `instead_of` stood in for them. `seats`: those that the person may fill.
    """

    stage: str
    act: Reassign
    at: datetime
    seats: tuple[int, ...]
    place: str = ""


@dataclass(frozen=True, slots=True)
class Escalated:
    """More people (`add`) or other people (`replace`) for seats that were open. `owed`: who owed a vote then."""

    to: tuple[str, ...]
    mode: Literal["add", "replace"]
    seats: tuple[int, ...]
    owed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestStage(NamedStage):
    """One stage: where it stands, and, once it was opened, its seats, its rules and every vote that it has seen."""

    state: Literal["done", "open", "ahead", "skipped"] = "ahead"
    seats: tuple[RequestSeat, ...] = ()
    outcomes: tuple[ChoiceName, ...] = ("approve", "reject")
    comment: Literal["never", "on-reject", "always"] = "on-reject"
    reject: int | Literal["any", "all"] = "any"
    recheck: Literal["at-click", "at-quorum"] = "at-click"
    requesters: tuple[str, ...] = ()  # those whose own request this is, where that bars them
    asks: tuple[FormField, ...] = ()
    opened_at: datetime | None = None
    votes: tuple[RecordedVote, ...] = ()
    reassignments: tuple[RecordedReassignment, ...] = ()
    escalations: tuple[Escalated, ...] = ()
    notified: tuple[str, ...] = ()  # who of the eligible gets a card


@dataclass(frozen=True, slots=True)
class RequestOutcome(DatedRemark):
    """How it ended. `by`: an address, `rule:<n>`, or `deadline`."""

    state: State
    by: str
    because: str = ""
    in_place_of: str = ""  # whom the person stood in for

    @property
    def outcome(self) -> Outcome:
        match self.state:
            case "approved" | "rejected" | "answered" | "expired":
                return self.state
            case _:
                return "cancelled"


@dataclass(frozen=True, slots=True)
class RequestTimer:
    """Something that happens at a time if nobody decides before."""

    at: datetime
    what: str


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """A condition of the workflow's file, and what it said of this request."""

    rule: str
    applies: bool
    because: str
    values: dict[str, JsonValue] = field(default_factory=dict)


class Request(BaseModel):
    """Everything about a request. Lossless as JSON.

    What follows from the rest is filled in as it is stored or shown, by `described` and `presented`: `title`,
    `instructions`, `shown`, `editable`, `to_change`, `waiting_for` and `rules`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    number: int = 0  # among the requests of its run; 0: the run is this request
    hook_id: str = ""  # opaque; grants nothing by itself; "" while nobody is asked
    workflow: str
    definition: str  # digest of the workflow file that this request follows
    version: int = 1  # grows with every change that a card shows
    state: State = "waiting"
    title: str = ""
    requester: str
    on_behalf_of: str | None = None
    asked_at: datetime
    digest: str = ""
    fields: dict[str, JsonValue] = {}
    was: dict[str, JsonValue] = {}  # what edited fields said before
    shown: tuple[CardField, ...] = ()
    editable: tuple[FormField, ...] = ()  # the fields that an approver may change, as they are now
    to_change: tuple[FormField, ...] = ()  # all fields as they are, while the requester is asked to change them
    stages: tuple[RequestStage, ...] = ()
    people: dict[str, Person] = {}
    waiting_for: tuple[str, ...] = ()  # addresses of those whose yes would help and who have not voted
    deadline: datetime | None = None
    on_deadline: str = ""
    outcome: RequestOutcome | None = None
    deliveries: tuple[CardDelivery, ...] = ()
    follow_ups: tuple[FollowUp, ...] = ()
    recipients: dict[str, str] = {}  # opaque id → address: what a link may stand for
    link_auth: Literal["link", "code"] = "link"
    labels: dict[ChoiceName, str] = {}  # what the buttons say, where the workflow says it
    instructions: str = ""  # what the approvers should look at
    held: RequestOutcome | None = None  # a decision that takes effect after `grace`, unless its vote is taken back
    times_held: int = 0
    grace: str = ""  # "30 s"
    is_reset: bool = False  # votes were voided, and the stage has not been opened again yet
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

    @property
    def votes(self) -> tuple[RecordedVote, ...]:
        """Those of all stages, in the order in which they came."""
        return tuple(sorted((vote for stage in self.stages for vote in stage.votes), key=lambda vote: vote.at))

    @property
    def reassignments(self) -> tuple[RecordedReassignment, ...]:
        return tuple(done for stage in self.stages for done in stage.reassignments)

    def but(self, **changes: Any) -> Request:
        """The request with these changes."""
        return self.model_copy(update=changes)

    def with_stage(self, stage: RequestStage, **changes: Any) -> Request:
        """The request with this stage as it is now."""
        return self.but(stages=tuple(stage if one.id == stage.id else one for one in self.stages), **changes)

    def name(self, key: str) -> Name:
        """How this person, app or rule is shown."""
        if key in self.people:
            return Name(key, self.people[key].name, self.people[key].slack)
        return Name(key, plain_name(key))

    def acting(self, key: str, in_place_of: str) -> Name:
        """`Bo Lund for Ann Ode`, where one stands in for the other."""
        name = self.name(key)
        return Name(key, f"{name.text} for {self.name(in_place_of).text}") if in_place_of else name

    def called(self, address: str) -> str:
        """This person's name in a sentence; an app is called by its key's."""
        return self.people[address].name if address in self.people else address.removeprefix("app:")


def dumped(request: Request) -> dict[str, Any]:
    """The request as runs store it, without what is as usual: most of it is, and a run stores it with every change."""
    return request.model_dump(mode="json", exclude_defaults=True)


def request_id(run_id: str, number: int) -> str:
    """`run_0…` for a run that is a request, `run_0….2` for the second request of a workflow."""
    return f"{run_id}.{number}" if number else run_id


def plain_name(key: str) -> str:
    """`app:ci` → "ci", `rule:1` → "Rule 1"; an address stays as it is."""
    scheme, _, rest = key.partition(":")
    if key == DEADLINE:
        return "the deadline"
    return {"app": rest, "rule": f"rule {rest}"}.get(scheme, key) if rest else key
