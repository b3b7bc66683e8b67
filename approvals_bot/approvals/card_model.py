"""All that a person can see of a request, as frozen values: the card, in display order.

Slack messages, mails, pages, inbox rows and the terminal render a `Card` and add no facts of their own. Text in a card
is plain text, as people typed it. What renders it escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.plain_text import Whole
from approvals_bot.people import SourceFault

State = Literal[
    "waiting", "changes_requested", "approved", "rejected", "answered", "expired", "withdrawn", "cancelled", "failed"
]
"""The state of a request. All but the first two are final.

The requester withdraws; an app, an operator or the workflow cancels; `failed`: an error ended its run."""

CardState = State | Literal["justified", "not_justified"]
"""The state that people see. The last two: what a review says about a request that was opened without a vote."""

ChoiceName = Literal["approve", "reject", "changes", "edit", "answer", "take_back"]
"""A choice that a person can make."""

Via = Literal["slack", "email", "inbox", "chat", "api", "cli", "rule", "clock"]
"""The channel through which a vote or decision came."""

Voted = ChoiceName | Literal["justified", "not_justified"]
"""What a vote was, as people see it: in a review, what it says."""

STATE_WORDS: dict[CardState, tuple[str, str]] = {
    "waiting": ("⏳", "Waiting"),
    "changes_requested": ("↩︎", "Changes requested"),
    "approved": ("✅", "Approved"),
    "rejected": ("⛔", "Rejected"),
    "answered": ("💬", "Answered"),
    "expired": ("⌛", "Expired"),
    "withdrawn": ("✖", "Withdrawn"),
    "cancelled": ("✖", "Cancelled"),
    "failed": ("⚠", "Failed"),
    "justified": ("✅", "Found justified"),
    "not_justified": ("⛔", "Found not justified"),
}
"""Icon and word of each state; never use one without the other."""

GrantState = Literal["giving", "active", "ending", "ended", "revoked", "overdue", "not_given"]
"""The state of a grant. `giving`: its target hasn't accepted it yet. `ending`: it is being removed. `overdue`: that
has failed three times. `not_given`: its target refused it, so there is nothing to remove."""

GRANT_WORDS: dict[GrantState, tuple[str, str]] = {
    "giving": ("⏳", "Being given"),
    "active": ("🔑", "Active"),
    "ending": ("⏳", "Being removed"),
    "ended": ("⌛", "Ended"),
    "revoked": ("✖", "Revoked"),
    "overdue": ("⚠", "Not removed yet"),
    "not_given": ("⚠", "Not given"),
}
"""Icon and word of each state of what an approval gave."""

STALLED = ("⚠", "Waiting for a fix")
"""Icon and word of an open request whose run can't go on with the code that is deployed."""

NOT_DELIVERED = ("⚠", "Not delivered")

BRIEF = 60  # characters of a long value that take no more room than a short one


@dataclass(frozen=True, slots=True)
class Name:
    """A person, app or rule as shown. `key` is the address (`ann@acme.eu`, `app:ci`, `rule:1`)."""

    key: str
    text: str
    slack: str | None = None  # Slack user id, for a mention that pings nobody


@dataclass(frozen=True, slots=True)
class CardField:
    """One field of the request, with its value formatted for people."""

    name: str
    label: str
    value: str  # "" for json in the store: cards have its lines
    # json: a line for each leaf; code: a tool's name
    kind: Literal["short", "long", "diff", "json", "code", "file"] = "short"
    pinned: bool = False  # in a tool call, all of which is pinned, no field is marked
    was: str | None = None  # the value before the last edit, if there was one
    untrusted: bool = False  # written by somebody else, such as a model: shown as a quotation
    file: str = ""  # the id under which its content is found, if it is a file
    whole: Whole | None = None  # what the value was cut from; it ends with "…" and, if people sign it, its mark

    @property
    def is_short(self) -> bool:
        """Whether it is shown on a line beside its label."""
        is_line = self.kind == "json" and len(self.value) <= BRIEF and "\n" not in self.value
        return is_line or self.kind in ("short", "code", "file")


@dataclass(frozen=True, slots=True)
class CardSeat:
    """Votes that a stage needs from one set of people."""

    label: str  # "Release managers", "Ann Ode or Bo Lund"
    need: int
    filled_by: tuple[Name, ...] = ()
    alternative: int = 0  # of the stage's alternatives, the one that it belongs to


@dataclass(frozen=True, slots=True)
class NamedStage:
    """A stage's name, and why it applies or is skipped."""

    id: str
    title: str = ""
    because: str = field(default="", kw_only=True)


StageState = Literal["done", "open", "ahead", "skipped", "rejected", "expired", "withdrawn", "cancelled", "failed"]
"""The state of a stage. `done`: it has all its votes, or a rule or an answer ended it well. A stage that ended in any
other way has the state of its request."""


@dataclass(frozen=True, slots=True)
class CardStage(NamedStage):
    """A stage as a step in the row of steps."""

    state: StageState = "ahead"
    seats: tuple[CardSeat, ...] = ()
    veto: str = ""  # the people who alone may reject, if only some may


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A comment, and the channel through which it came."""

    via: Via
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedRemark(Remark):
    """A remark with its time."""

    at: datetime


@dataclass(frozen=True, slots=True)
class CardVote(DatedRemark):
    """A vote that counted when it was cast."""

    by: Name
    choice: Voted
    counts: bool = True  # False: changed, undone, or reset by an edit
    passed_on_by: str = ""  # "app desk", if that isn't the voter
    answers: tuple[tuple[str, str], ...] = ()  # what they filled in: label and value
    carried_from: str = ""  # the title of the stage in which it was cast, if it counts again in a later one


# No twin of Decision: a comment decides nothing and ends nothing.
@dataclass(frozen=True, slots=True)
class CardComment(DatedRemark):
    """A comment without a vote."""

    by: Name
    passed_on_by: str = ""  # "app desk", if that isn't the author


TalkName = Literal["comment", "claim", "unclaim", "remind", "snooze", "revoke", "extend"]
"""What a reader can do about a request besides deciding it: each is a button or a form where the card is shown."""


@dataclass(frozen=True, slots=True)
class FormField:
    """A field that people fill in. `value` is its initial text in a form.

    `is_leaf`: it is a value inside a list or an object, and `name` is its address there.
    """

    name: str
    label: str
    spec: FieldSpec
    value: str = ""
    is_leaf: bool = False


@dataclass(frozen=True, slots=True)
class CardChoice:
    """A choice that the reader has now. Its label names the act: "Approve: Deploy api 2.1"."""

    choice: ChoiceName
    label: str
    short: str  # "Approve": for a button with little room
    style: Literal["primary", "danger", "link"] = "link"
    confirm: str | None = None  # the question to confirm, in place, if it can't be undone
    comment: Literal["none", "optional", "required"] = "optional"
    asks: tuple[FormField, ...] = ()


@dataclass(frozen=True, slots=True)
class NextCalls:
    """What a reader's approval of a tool call may cover besides: the text about it, and the inputs for its limits."""

    text: str
    asks: tuple[FormField, ...]


@dataclass(frozen=True, slots=True)
class CardOutcome(DatedRemark):
    """How it ended."""

    state: CardState
    by: Name
    because: str = ""  # the rule's text, or why it expired
    passed_on_by: str = ""  # "app desk", if that isn't the person who decided


@dataclass(frozen=True, slots=True)
class CardDelivery:
    """The delivery of one copy. `uncertain`: a confirmation was lost, so it may have arrived twice.

    `held`: it has its turn, and nothing was tried since: a digest, or the relay's rate limit. `not_sent`: the decision
    came first, so it isn't needed. `retried`: what is tried again of a card that has arrived: to show its newest state,
    or a message in its thread.
    """

    to: str
    channel: str
    state: Literal["sending", "delivered", "retrying", "held", "not_delivered", "not_sent"]
    attempts: int = 0
    error: str = ""
    uncertain: bool = False
    retried: Literal["", "update", "reply"] = ""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """An action after the decision: a call or a message.

    `target`: of a call, what was called. `status`: the HTTP status of a call that was accepted.
    """

    what: str  # "call erp", "mail to ann@acme.eu"
    state: Literal["sending", "done", "retrying", "failed"]
    attempts: int = 0
    error: str = ""
    status: int | None = None
    target: str = ""


@dataclass(frozen=True, slots=True)
class CardGrant:
    """What an approval gave. `at`: when an active one ends, or when it was removed."""

    state: GrantState
    at: datetime | None = None
    by: Name | None = None  # the person who ended it before its time
    reason: str = ""
    error: str = ""


# No twin of Request: it has what one reader may see, with names and choices; channels learn no more of the state.
@dataclass(frozen=True, slots=True)
class Card:
    """All that a person sees of a request, in display order. One value, many renderings."""

    run_id: str  # of the request: its run's, and its number where the run has several
    hook_id: str  # opaque; grants nothing on its own
    workflow: str
    version: int  # grows with every change; a copy that shows an older one is stale
    state: CardState
    title: str
    requester: Name
    asked_at: datetime
    digest: str  # of the pinned fields; "" when nothing is pinned
    on_behalf_of: Name | None = None
    fields: tuple[CardField, ...] = ()
    stages: tuple[CardStage, ...] = ()
    have: int = 0  # votes that fill seats in the open stage
    need: int = 0  # seats of the open stage
    waiting_for: tuple[Name, ...] = ()
    votes: tuple[CardVote, ...] = ()
    deadline: datetime | None = None
    on_deadline: str = ""  # "then it is rejected"
    choices: tuple[CardChoice, ...] = ()
    next_calls: NextCalls | None = None  # what the reader may approve with this call
    outcome: CardOutcome | None = None
    deliveries: tuple[CardDelivery, ...] = ()
    follow_ups: tuple[FollowUp, ...] = ()
    comments: tuple[CardComment, ...] = ()  # oldest first
    earlier_comments: int = 0  # that were left out before them
    claimed_by: Name | None = None  # the approver who is on it
    talk: tuple[TalkName, ...] = ()  # what this reader can do besides deciding
    snoozed_until: datetime | None = None  # until when this reader wants no reminders
    moved_to: str = ""  # the place where the card is now, of a message in a place that it has left
    notes: tuple[str, ...] = ()  # what else has happened: "⇄ Ann Ode reassigned this to Di Ops: on holiday"
    may_reassign: bool = False  # whether this reader may reassign it
    instructions: str = ""  # to the approvers
    why_me: str = ""  # "You're an approver because you're in release-managers."
    url: str = ""  # the full page, for those who may see it
    decides_by_reply: bool = False  # whether a reply to a mail may be a vote, where replies are read
    unresolved: tuple[SourceFault, ...] = ()  # groups that can't be read, for which it waits, too
    is_stalled: bool = False  # the run can't go on until it is fixed; what people do meanwhile is kept
    grant: CardGrant | None = None  # of an approval that ends

    @property
    def requesters(self) -> tuple[str, ...]:
        """The people who may edit and withdraw the request."""
        return tuple(name.key for name in (self.requester, self.on_behalf_of) if name)

    @property
    def is_tool_call(self) -> bool:
        """Whether a model wants this: what it wrote is in the title and in the fields."""
        return any(field.kind == "code" for field in self.fields)

    def signs(self, field: CardField) -> bool:
        """Return whether a vote is bound to this field's value."""
        return field.pinned or self.is_tool_call
