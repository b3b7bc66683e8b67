"""The channels' protocol: what is sent to people, and what can become of it.

Everything a person can see of a request is one frozen `Card`. Slack messages, mails, pages, inbox rows and the terminal
render that value and add no fact of their own. A channel turns a card into a *copy* (one Slack message, one mail) and
answers with one of three values: it arrived (`Delivered`), it may work later (`TryAgain`), or it never will
(`Refused`). It raises only for bugs.

Text in a card is plain text, as people typed it. The channel that renders it escapes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import JsonValue

from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.people import Person

State = Literal["waiting", "changes_requested", "approved", "rejected", "answered", "expired", "withdrawn"]
"""Where a request stands. All but the first two are final."""

ChoiceName = Literal["approve", "reject", "changes", "edit", "answer", "take_back"]
"""What a person can choose."""

Via = Literal["slack", "email", "inbox", "api", "cli", "rule", "clock"]
"""By which way a vote or decision came."""

STATE_WORDS: dict[State, tuple[str, str]] = {
    "waiting": ("⏳", "Waiting"),
    "changes_requested": ("↩︎", "Changes requested"),
    "approved": ("✅", "Approved"),
    "rejected": ("⛔", "Rejected"),
    "answered": ("💬", "Answered"),
    "expired": ("⌛", "Expired"),
    "withdrawn": ("✖", "Withdrawn"),
}
"""Icon and word of each state; never one without the other."""

SLACK, EMAIL = "slack", "email"
"""The two channels that come with the package, by the names that files and logs have for them."""

NOT_DELIVERED = ("⚠", "Not delivered")


@dataclass(frozen=True, slots=True)
class Name:
    """How a person (or app, or rule) is shown. `key` is the address (`ann@acme.eu`, `app:ci`, `rule:1`)."""

    key: str
    text: str
    slack: str | None = None  # Slack user id, so that Slack can show it as a mention that pings nobody


@dataclass(frozen=True, slots=True)
class CardField:
    """One field of the request, its value formatted for people."""

    name: str
    label: str
    value: str
    kind: Literal["short", "long", "diff"] = "short"
    pinned: bool = False
    was: str | None = None  # the value before the last edit, when it was edited
    untrusted: bool = False  # what somebody else wrote, a model perhaps: shown as a quotation


@dataclass(frozen=True, slots=True)
class CardSeat:
    """Votes that a stage needs from one set of people."""

    label: str  # "Release managers", "Ann Ode or Bo Lund"
    need: int
    filled_by: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedStage:
    """What a stage is called, and why it is asked or skipped."""

    id: str
    title: str = ""
    because: str = field(default="", kw_only=True)


StageState = Literal["done", "open", "ahead", "skipped", "rejected", "expired", "withdrawn"]
"""What became of a stage. `done`: it has all its votes, or a rule or an answer ended it well. A stage that ended any
other way is what its request is."""


@dataclass(frozen=True, slots=True)
class CardStage(NamedStage):
    """A stage as a step in the row of steps."""

    state: StageState = "ahead"
    seats: tuple[CardSeat, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """By which way something was said, and with which comment."""

    via: Via
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedRemark(Remark):
    """What was said, and when."""

    at: datetime


@dataclass(frozen=True, slots=True)
class CardVote(DatedRemark):
    """A vote that counted at its time."""

    by: Name
    choice: ChoiceName
    counts: bool = True  # False: changed, taken back or reset by an edit


@dataclass(frozen=True, slots=True)
class FormField:
    """A field that people fill in. `value` is what it shows at first, as the text of a form."""

    name: str
    label: str
    spec: FieldSpec
    value: str = ""


@dataclass(frozen=True, slots=True)
class CardChoice:
    """A choice that this reader has now. The label names the act: "Approve deploy of api 2.1"."""

    choice: ChoiceName
    label: str
    short: str  # "Approve": for a button with little room
    style: Literal["primary", "danger", "link"] = "link"
    confirm: str | None = None  # the question asked once, in place, when it can't be taken back
    comment: Literal["none", "optional", "required"] = "optional"
    asks: tuple[FormField, ...] = ()


@dataclass(frozen=True, slots=True)
class CardOutcome(DatedRemark):
    """How it ended."""

    state: State
    by: Name
    because: str = ""  # the rule's text, or why it expired


@dataclass(frozen=True, slots=True)
class CardDelivery:
    """What became of one copy. `uncertain`: a confirmation was lost on the way, so it may have arrived twice."""

    to: str
    channel: str
    state: Literal["sending", "delivered", "retrying", "not_delivered"]
    attempts: int = 0
    error: str = ""
    uncertain: bool = False


@dataclass(frozen=True, slots=True)
class FollowUp:
    """An action after the decision: a call or a message. `status`: what a target answered when it took the call."""

    what: str  # "call erp", "mail to ann@acme.eu"
    state: Literal["sending", "done", "retrying", "failed"]
    attempts: int = 0
    error: str = ""
    status: int | None = None


# No twin of Request: it is what one reader may see, with names and choices; a channel learns no more of the state.
@dataclass(frozen=True, slots=True)
class Card:
    """All that a person sees of a request, in the order in which it is shown. One value, many renderings."""

    run_id: str  # of the request: its run's, and its number where the run has several
    hook_id: str  # opaque; grants nothing by itself
    workflow: str
    version: int  # grows with every change; a copy that shows an older one is stale
    state: State
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
    outcome: CardOutcome | None = None
    deliveries: tuple[CardDelivery, ...] = ()
    follow_ups: tuple[FollowUp, ...] = ()
    notes: tuple[str, ...] = ()  # what else has happened to it: "⇄ Ann Ode reassigned this to Di Ops: on holiday"
    may_reassign: bool = False  # whether this reader may reassign it
    instructions: str = ""  # what the approvers should look at
    why_me: str = ""  # why this reader is asked: "You're an approver because you're in release-managers."
    url: str = ""  # the full page, for those who may see it


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a channel that several people see, as the channel names it: `#deploys` in Slack."""

    channel: str
    place: str
    kind: Literal["place"] = "place"  # tells the alternatives apart in the log


@dataclass(frozen=True, slots=True)
class ToPerson:
    """One person, by a channel: a direct message, a mail."""

    channel: str
    person: Person
    kind: Literal["person"] = "person"


Destination = Place | ToPerson


def place_name(to: Destination) -> str:
    """Where something goes, for people: "#deploys", or an address."""
    return to.place if isinstance(to, Place) else to.person.address


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a copy lies, so that it can be updated or answered in its thread."""

    place: str  # Slack: the conversation's id · email: the address
    id: str  # Slack: ts · email: the Message-ID without brackets · any other channel: whatever it finds its copy by
    version: int = 0  # the card version it shows


Occasion = Literal["request", "reminder", "escalation", "change", "handover", "vote", "code", "outcome"]
"""Why something is sent now. `handover`: to the person in whose place somebody else is asked now. `vote`: to a voter,
who is to hear what was done in their name. `code`: the digits that they need besides their link."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One thing to deliver: a card, or a plain text of the operator's (`text`).

    `delivery_id` is the same on every attempt: the idempotency key. `thread` is the first copy in this place, if any.
    `lost_at`: when the first attempt was made whose answer was lost, so that it may have arrived; None: there is none.
    `link`: the reader's own page, on which they decide; "" for a place, and where they have none. It is added as the
    dispatch leaves, so no link is ever in a log.
    """

    delivery_id: str
    to: Destination
    card: Card
    occasion: Occasion = "request"
    text: str = ""
    thread: Receipt | None = None
    lost_at: datetime | None = None
    link: str = ""

    @property
    def url(self) -> str:
        """Where the reader goes on: their own page if they have one, else the request's, which asks them to sign in."""
        return self.link or self.card.url


@dataclass(frozen=True, slots=True)
class Delivered:
    """It arrived, as far as the other side says. `uncertain`: the answer was lost, so it may have arrived twice."""

    receipt: Receipt
    uncertain: bool = False
    kind: Literal["delivered"] = "delivered"


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Not now: a rate limit, an outage, a timeout. `after` is the other side's own wish, if it gave one. `lost`: it may
    have arrived all the same, only the answer did not. `held`: nothing was tried, its turn comes just `after` this.
    """

    error: str
    after: timedelta | None = None
    lost: bool = False
    held: bool = False
    kind: Literal["try_again"] = "try_again"


RefusedCode = Literal["not_configured", "no_account", "install", "other"]
"""Why a channel delivers something never. `not_configured`: this installation has no such channel. `no_account`: this
person is not to be found there, so another way is the usual one. `install`: all of the channel is down (a token, 535).
"""


@dataclass(frozen=True, slots=True)
class Refused:
    """Never: no such channel, address refused, bot not invited. `error` is for people, `code` for what follows."""

    error: str
    code: RefusedCode = "other"
    kind: Literal["refused"] = "refused"

    @property
    def install(self) -> bool:
        """Whether the whole channel is down, and not only this one thing refused."""
        return self.code == "install"


Result = Delivered | TryAgain | Refused


class Channel(Protocol):
    """Delivers copies. Safe to call twice for one `delivery_id`: at worst a second copy, then marked `uncertain`."""

    async def send(self, dispatch: Dispatch) -> Result:
        """Deliver a new copy, or a plain text."""

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        """Show the card's newest state in a copy that was delivered. Mail can't be changed: it answers Delivered."""


@dataclass(frozen=True, slots=True)
class Called:
    """The target took the call over: it answered 2xx."""

    status: int
    kind: Literal["called"] = "called"


CallResult = Called | TryAgain | Refused


class Targets(Protocol):
    """The HTTP targets that workflows may call, by name. Raises only for bugs."""

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        """POST this as JSON, signed with the target's secret; `event_id` is the same on every attempt."""


# ── What a channel may have besides: the service uses whatever is there. ──

DiagnosisState = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at, and how it was found.

    `todo`: what the operator does about it; "" when all is well. `text`: lines to copy, such as DNS records.
    """

    state: DiagnosisState
    about: str
    what: str
    todo: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class CheckUp:
    """What a channel is to be examined for, beyond whether it works.

    `places`: those that workflows deliver to, each with the id of one. `groups`: handles of groups that are named.
    `send_to`: an address that is to get a test message.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    groups: Sequence[str] = ()
    send_to: str | None = None


@runtime_checkable
class WithoutLinks(Protocol):
    """A channel that knows by itself who acts, so that no link of their own is made for the people whom it reaches."""

    without_links: Literal[True]


@runtime_checkable
class WithRoutes(Protocol):
    """A channel that is called over HTTP."""

    def routes(self) -> Sequence[Any]:
        """Return its Starlette routes. Their paths begin with the channel's name."""


@runtime_checkable
class WithTask(Protocol):
    """A channel that works in the background."""

    async def run(self) -> None:
        """Work until it is cancelled. It is started again if it fails."""


@runtime_checkable
class WithCheck(Protocol):
    """A channel that `approvals-bot doctor` examines."""

    async def check(self, asked: CheckUp) -> Sequence[Diagnosis]:
        """Try now what a running service will need. The channel may be attached to no service."""


@runtime_checkable
class WithStates(Protocol):
    """A channel with connections that `/readyz` tells of."""

    def states(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """Return how each is, by its name there: "connected", "not connected: invalid_auth"."""


@runtime_checkable
class WithMembers(Protocol):
    """A channel that knows groups of people."""

    async def members(self, handle: str) -> Sequence[str]:
        """Return the addresses of a group's members. Raises SourceUnavailable."""


@runtime_checkable
class Reloads(Protocol):
    """A channel that takes a new configuration while it works."""

    def reload(self, settings: Any) -> None:
        """Go by these settings now, as far as that needs no restart."""


@runtime_checkable
class Closes(Protocol):
    """A channel that holds something open."""

    async def aclose(self) -> None:
        """Close it. Nothing is sent afterwards."""


Count = Callable[[str, Literal["send", "update"], str], None]
"""`count(channel, act, outcome)`, the outcome being `delivered`, `uncertain`, `try_again`, `refused` or `error`. Never
to whom: only which channel, and what became of it."""


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels that this installation has, by name.

    `base_url` is what links begin with. `link(hook_id, address)` makes a person's own link to a request, "" if they
    have none. `count` is told of each attempt, for the metrics.
    """

    by_name: Mapping[str, Channel] = field(default_factory=dict)
    base_url: str = ""
    link: Callable[[str, str], Awaitable[str]] | None = None
    count: Count = lambda channel, act, outcome: None

    def __contains__(self, channel: str) -> bool:
        return channel in self.by_name

    async def send(self, dispatch: Dispatch, update: Receipt | None = None) -> Result:
        """Deliver this by its channel. `update`: show it in that copy, which was delivered before."""
        name = dispatch.to.channel
        channel = self.by_name.get(name)
        if channel is None:
            return Refused(f"{name} is not configured here", "not_configured")
        dispatch = await self._with_links(channel, dispatch)
        count = partial(self.count, name, "send" if update is None else "update")
        try:
            result = await (channel.send(dispatch) if update is None else channel.update(update, dispatch))
        except Exception:
            count("error")
            raise
        count("uncertain" if isinstance(result, Delivered) and result.uncertain else result.kind)
        return result

    async def _with_links(self, channel: Channel, dispatch: Dispatch) -> Dispatch:
        """A place gets the request's page, which asks for a sign-in; only a person gets their own link, if any."""
        card = dispatch.card
        page = f"{self.base_url}/requests/{card.run_id}" if self.base_url else ""
        link = ""
        if self.link is not None and isinstance(dispatch.to, ToPerson) and not isinstance(channel, WithoutLinks):
            link = await self.link(card.hook_id, dispatch.to.person.address)
        return replace(dispatch, card=replace(card, url=page), link=link)
