"""The request: how it opened, its state, and how it ended, as one frozen value.

The run keeps the current value, and `apply` makes the next one. Each change is stored in the same transaction as the
decision that caused it. Cards, pages, API and command line read nothing but this value, so showing a request never
takes a replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue

from approvals_bot.approvals.acts import Comment, KeptActor, Reassign, TakeOn, Vote
from approvals_bot.approvals.agent_policy import Allowance
from approvals_bot.approvals.card_model import (
    CardDelivery,
    CardField,
    ChoiceName,
    DatedRemark,
    FollowUp,
    FormField,
    GrantState,
    Name,
    NamedStage,
    State,
)
from approvals_bot.approvals.given_grants import StandingGrant
from approvals_bot.durable.core.attributes import FOR_WHOM
from approvals_bot.durable.core.events import to_micros
from approvals_bot.people import Person, SourceFault

Outcome = Literal["approved", "rejected", "answered", "expired", "cancelled"]
"""How a request can end."""

REQUESTER, ON_BEHALF_OF = FOR_WHOM
"""Attributes of a run: the requester, unless the workflow names one, and the person they act for."""

SERVICE = "app:service"
"""The actor that cancels a request because its run was cancelled."""

OPERATOR = ("app:cli",)
"""The actor at the service's own terminal, who may do there what owners may."""

DEADLINE = "deadline"
"""Stands for the person who decided, when nobody did in time."""

VETO = -1
"""The id of the seat of those who may reject, if they alone may."""

NO_STAGE = "rule:0"
"""Stands for the person who decided, when no stage applied and `when_nobody` decided."""

BREAK_GLASS = "break-glass"
"""Stands for the person who decided, when somebody opened the request without a vote, in an emergency."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens a request: the fields as canonical JSON, and the requester (an address, or `app:<key>`).

    `groups`: of the addresses that the file's rules about requesters name, those that mean this one at the opening.
    """

    fields: dict[str, JsonValue]
    requester: str
    on_behalf_of: str | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestSeat:
    """Votes needed from one list of people.

    `eligible`: the people who may fill it, as last resolved, and why: address → "@sre"; never the requester. `need`:
    how many different people; "all" for everyone eligible, or a share until the stage opens. `known`: False if part of
    the list couldn't be read now; `unsure` are then the people who were on it before and may have left.
    """

    id: int  # its position in the stage's definition, the same whichever other seats apply
    label: str
    need: int | str
    eligible: dict[str, str] = field(default_factory=dict)
    known: bool = True
    unsure: tuple[str, ...] = ()
    in_place_of: dict[str, str] = field(default_factory=dict)  # delegate → the absent person
    slack_groups: tuple[str, ...] = ()  # handles of Slack user groups that its people are in
    ungrouped: tuple[str, ...] = ()  # those of the eligible who are in none of these, if there are some
    unread: tuple[SourceFault, ...] = ()  # what couldn't be read of the list
    alternative: int = 0  # of the stage's alternatives, the one that it belongs to


@dataclass(frozen=True, slots=True)
class RecordedVote:
    """A vote that counted when it was cast. The digest in `vote` is that of the request at the time."""

    vote: Vote
    at: datetime
    seats: tuple[int, ...] = ()  # that the voter could fill at the click
    counts: bool = True  # False: changed, undone, or reset by an edit
    in_place_of: str = ""  # the absent person whose delegate the voter was
    carried_from: str = ""  # the earlier stage in which it was cast, if it counts again in this one

    @property
    def by(self) -> str:
        return self.vote.by

    @property
    def choice(self) -> ChoiceName:
        return self.vote.choice

    @property
    def place(self) -> str:
        """The person whose place this vote fills; a place has one vote, theirs or their delegate's."""
        return self.in_place_of or self.by


@dataclass(frozen=True, slots=True)
class RecordedReassignment:
    """A reassignment: `act.person` for `act.instead_of`, or besides the others (None).

    `place`: the absent person, if `instead_of` was their delegate. `seats`: those that the new person may fill.
    """

    stage: str
    act: Reassign
    at: datetime
    seats: tuple[int, ...]
    place: str = ""


@dataclass(frozen=True, slots=True)
class RecordedComment:
    """A comment, and when it was made."""

    act: Comment
    at: datetime


@dataclass(frozen=True, slots=True)
class RecordedClaim:
    """Who said “I'm on it”, when, and in which stage."""

    act: TakeOn
    at: datetime
    stage: str


@dataclass(frozen=True, slots=True)
class LastEdit:
    """What an edit did to the votes that counted: how many it kept, and how many it reset."""

    by: str
    kept: int
    reset: int


@dataclass(frozen=True, slots=True)
class Escalated:
    """An escalation of the open seats. `owed`: the people who owed a vote at the time."""

    to: tuple[str, ...]
    mode: Literal["add", "replace"]
    seats: tuple[int, ...]
    owed: tuple[str, ...] = ()


# No twin of Stage: that is what a file says, for any request; this has what came of it, and the votes.
@dataclass(frozen=True, slots=True)
class RequestStage(NamedStage):
    """One stage: its state and, once it has opened, its seats, its rules and all its votes."""

    state: Literal["done", "open", "ahead", "skipped"] = "ahead"
    seats: tuple[RequestSeat, ...] = ()
    outcomes: tuple[ChoiceName, ...] = ("approve", "reject")
    comment: Literal["never", "optional", "on-reject", "always"] = "on-reject"
    reject: int | Literal["any", "all"] = "any"
    recheck: Literal["at-click", "at-quorum"] = "at-click"
    requesters: tuple[str, ...] = ()  # whose own request this is, if that bars them from voting
    asks: tuple[FormField, ...] = ()
    opened_at: datetime | None = None
    judged_at: datetime | None = None  # when it was to open: the time that its conditions ask for, if one does
    votes: tuple[RecordedVote, ...] = ()
    reassignments: tuple[RecordedReassignment, ...] = ()
    escalations: tuple[Escalated, ...] = ()
    notified: tuple[str, ...] = ()  # those of the eligible who get a card
    decide: Literal["when-all-answered"] | None = None
    excluded: tuple[str, ...] = ()  # who may not decide, by the policy
    veto: RequestSeat | None = None  # who alone may reject

    @property
    def lists(self) -> tuple[RequestSeat, ...]:
        """The lists of people who can do something here: the seats, and those who alone may reject."""
        return self.seats if self.veto is None else (*self.seats, self.veto)


@dataclass(frozen=True, slots=True)
class RequestOutcome(DatedRemark):
    """How the request ended. `by`: an address, `rule:<n>`, or `deadline`."""

    state: State
    by: str
    because: str = ""
    in_place_of: str = ""  # the absent person whose delegate decided
    actor: KeptActor = None

    @property
    def outcome(self) -> Outcome:
        match self.state:
            case "approved" | "rejected" | "answered" | "expired":
                return self.state
            case _:
                return "cancelled"


@dataclass(frozen=True, slots=True)
class RequestTimer:
    """What will happen at a time unless the request is decided before."""

    at: datetime
    what: str


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """A condition of the workflow's file, and its result for this request."""

    rule: str
    applies: bool
    because: str
    values: dict[str, JsonValue] = field(default_factory=dict)


OVER: tuple[GrantState, ...] = ("ended", "revoked", "not_given")
"""The states of a grant of which nothing is left."""


@dataclass(frozen=True, slots=True)
class RequestGrant:
    """What an approval gave, and for how long. `attempts` and `error`: of the call that gives it, then of that which
    removes it."""

    state: GrantState = "giving"
    until: datetime | None = None
    given_at: datetime | None = None
    taken_at: datetime | None = None
    attempts: int = 0
    error: str = ""
    revoked_by: str = ""
    reason: str = ""  # of the revocation
    may_extend: bool = False

    @property
    def is_over(self) -> bool:
        return self.state in OVER


@dataclass(frozen=True, slots=True)
class GivenGrant:
    """A standing grant that came of this request. `scope`: the list of the store that counts its uses."""

    scope: str
    grant: StandingGrant


ReviewState = Literal["waiting", "late", "approved", "not_justified", "cancelled"]
"""What came of the review of a request that was opened without a vote. `late`: its owners are asked, too; `cancelled`:
an operator cancelled the run before anybody said what it was.
"""


@dataclass(frozen=True, slots=True)
class RequestReview:
    """The review of a request that was opened without a vote. `request`: the id of the one that asks for it."""

    state: ReviewState
    until: datetime
    request: str
    by: str = ""
    comment: str = ""
    called: str = ""  # who reviewed it; the request itself needn't know their name


class Request(BaseModel):
    """Everything about a request. It round-trips through JSON.

    `described` and `presented` derive some fields from the rest: `title`, `instructions`, `shown`, `numbers`,
    `files`, `editable`, `to_change`, `waiting_for` and `rules`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    run_id: str
    number: int = 0  # among the requests of its run; 0: the run is this request
    hook_id: str = ""  # opaque; grants nothing on its own; "" while nobody is asked
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
    was: dict[str, JsonValue] = {}  # earlier values of edited fields
    shown: tuple[CardField, ...] = ()
    numbers: tuple[str, ...] = ()  # the fields that hold decimals and amounts of money
    files: tuple[str, ...] = ()  # the fields that hold files
    editable: tuple[FormField, ...] = ()  # the fields that an approver may change
    to_change: tuple[FormField, ...] = ()  # all fields, while changes are requested
    stages: tuple[RequestStage, ...] = ()
    people: dict[str, Person] = {}
    waiting_for: tuple[str, ...] = ()  # people who haven't voted and whose approval would help
    deadline: datetime | None = None
    on_deadline: str = ""
    outcome: RequestOutcome | None = None
    deliveries: tuple[CardDelivery, ...] = ()
    follow_ups: tuple[FollowUp, ...] = ()
    recipients: dict[str, str] = {}  # opaque id → address: the people who may have a link
    link_auth: Literal["link", "code", "login"] = "link"
    email_replies: Literal["comment", "decide"] = "comment"
    max_age: int = 0  # seconds since the sign-in that `login` asks for
    labels: dict[ChoiceName, str] = {}  # the buttons' labels, as far as the workflow has some
    instructions: str = ""  # to the approvers
    picks: dict[str, tuple[str, ...]] = {}  # those who were picked, by stage and seat
    held: RequestOutcome | None = None  # a decision that takes effect after `grace`, unless its vote is undone
    times_held: int = 0
    grace: str = ""  # "30 s"
    comments: tuple[RecordedComment, ...] = ()
    claim: RecordedClaim | None = None  # the last one in this stage
    snoozes: dict[str, datetime] = {}  # address → when reminders start again
    reminded_at: datetime | None = None  # when the requester last sent a reminder
    last_edit: LastEdit | None = None  # if there were votes
    is_reset: bool = False  # votes were reset, and the stage hasn't reopened yet
    reassign: Literal["approvers", "owners", "never"] = "approvers"  # who may reassign, besides admins
    timers: tuple[RequestTimer, ...] = ()
    rules: tuple[AppliedRule, ...] = ()
    grant: RequestGrant | None = None  # of an approval that ends
    extends: str = ""  # "2 hours": this asks whether the grant of the run's first request may end later by so much
    standing: GivenGrant | None = None  # what its approval covers of later requests
    allowance: Allowance | None = None  # how far the approval of a tool call may cover the next ones
    reviews: bool = False  # this asks whether the run's first request was justified
    review: RequestReview | None = None  # of a request that was opened without a vote
    is_stalled: bool = False  # its run is; only a reader of the run's row knows, so it is never stored

    @property
    def id(self) -> str:
        """The request's id: the run's, with a number if it has several requests."""
        return request_id(self.run_id, self.number)

    @property
    def stage(self) -> RequestStage | None:
        """The open stage."""
        return next((stage for stage in self.stages if stage.state == "open"), None)

    @property
    def is_open(self) -> bool:
        return self.outcome is None

    @property
    def unresolved(self) -> tuple[SourceFault, ...]:
        """The groups and lists of the open stage that can't be read. It waits for them, too."""
        seats = self.stage.seats if self.stage is not None and self.outcome is None else ()
        return tuple(dict.fromkeys(fault for seat in seats for fault in seat.unread))

    @property
    def claimed_by(self) -> str | None:
        """The approver who is on it, as long as their vote is waited for."""
        return self.claim.act.by if self.claim is not None and self.claim.act.by in self.waiting_for else None

    @property
    def votes(self) -> tuple[RecordedVote, ...]:
        """The votes of all stages, in the order in which they were cast."""
        return tuple(sorted((vote for stage in self.stages for vote in stage.votes), key=lambda vote: vote.at))

    @property
    def reassignments(self) -> tuple[RecordedReassignment, ...]:
        return tuple(done for stage in self.stages for done in stage.reassignments)

    def but(self, **changes: Any) -> Request:
        """Return the request with these changes, which aren't validated, as by `model_copy`.

        A request changes some 30 times in its life, and pydantic's copy makes seven calls each
        (benchmarks/parts/approval.py).
        """
        made = Request.__new__(Request)
        object.__setattr__(made, "__dict__", self.__dict__ | changes)
        object.__setattr__(made, "__pydantic_fields_set__", self.__pydantic_fields_set__)
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made

    def with_stage(self, stage: RequestStage, **changes: Any) -> Request:
        """Return the request with this stage in place of the one with its id."""
        return self.but(stages=tuple(stage if one.id == stage.id else one for one in self.stages), **changes)

    def name(self, key: str) -> Name:
        """Return how this person, app or rule is shown."""
        if key in self.people:
            return Name(key, self.people[key].name, self.people[key].slack)
        return Name(key, plain_name(key))

    def acting(self, key: str, in_place_of: str) -> Name:
        """Return the name; of a delegate, `Bo Lund for Ann Ode`."""
        name = self.name(key)
        return Name(key, f"{name.text} for {self.name(in_place_of).text}") if in_place_of else name

    def number_format(self, address: str | None) -> str:
        """Return how this reader writes numbers; "" for our own way."""
        return self.people[address].numbers if address in self.people else ""

    def called(self, address: str) -> str:
        """Return the name to use in a sentence; an app's is that of its key."""
        return self.people[address].name if address in self.people else address.removeprefix("app:")


def dumped(request: Request) -> dict[str, Any]:
    """Return the request as runs store it, without defaults: a run stores it with every change."""
    return request.model_dump(mode="json", exclude_defaults=True)


def request_id(run_id: str, number: int) -> str:
    """Return `run_0…` if the run is the request, `run_0….2` for the second request of a workflow."""
    return f"{run_id}.{number}" if number else run_id


def plain_name(key: str) -> str:
    """Name a key without a look-up: `app:ci` → "ci", `rule:1` → "rule 1"; an address as it is."""
    scheme, _, rest = key.partition(":")
    if key in _NOBODY:
        return _NOBODY[key]
    names = {"app": rest, "rule": f"rule {rest}", "grant": "an earlier approval", "allowance": "an allowance"}
    return names.get(scheme, key) if rest else key


_NOBODY = {DEADLINE: "the deadline", NO_STAGE: "the policy", BREAK_GLASS: "break-glass"}


# The state that a page or card shows, as one word that a press on it brings back. A log only grows, so a press may show
# any state that it has had. It shows another one if the log was put back since, from a backup or by a reset.


class Dated(Protocol):
    """A vote, as a request or a card has it."""

    @property
    def at(self) -> datetime: ...


def state_mark(version: int, votes: Sequence[Dated]) -> str:
    """Return what stands for this state: the version, and the microsecond of the newest vote; `3.` without votes.

    The version alone isn't enough: after a restore, other votes may lead to the same one.
    """
    return f"{version}.{to_micros(votes[-1].at) if votes else ''}"


def has_had(request: Request, mark: str) -> bool:
    """Return whether the request is in the state with this mark, or was in it before."""
    version, _, vote = mark.partition(".")
    if not version.isdecimal() or int(version) > request.version:
        return False
    return not vote or any(str(to_micros(each.at)) == vote for each in request.votes)
