"""The interface of channels: cards to deliver, and the results of delivering them.

A channel turns a card into a *copy* (one Slack message, one mail) and
returns one of three values: it arrived (`Delivered`), it may work later (`TryAgain`), or it never will (`Refused`). It
raises only for bugs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import JsonValue

from approvals_bot.approvals.card_model import Card, CardComment
from approvals_bot.durable.core.tracing import span
from approvals_bot.people import Person

SLACK, EMAIL = "slack", "email"
"""The names of the two built-in channels, in files and logs."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a channel that several people see, by the channel's name for it: `#deploys` in Slack."""

    channel: str
    place: str
    kind: Literal["place"] = "place"  # distinguishes the alternatives in the log


@dataclass(frozen=True, slots=True)
class ToPerson:
    """One person, by a channel: a direct message, a mail."""

    channel: str
    person: Person
    kind: Literal["person"] = "person"


Destination = Place | ToPerson


def place_name(to: Destination) -> str:
    """Return a destination as people read it: "#deploys", or an address."""
    return to.place if isinstance(to, Place) else to.person.address


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a copy is, to update it or reply in its thread."""

    place: str  # Slack: the conversation's id · email: the address
    id: str  # Slack: ts · email: the Message-ID without brackets · others: anything that identifies the copy
    version: int = 0  # the card version it shows
    subject: str = ""  # email: what the thread is called, also after the request is edited


Occasion = Literal["request", "reminder", "escalation", "change", "comment", "reassigned", "vote", "code", "outcome"]
"""Why something is sent now. `reassigned`: to the person whose place somebody else got. `vote`: to a voter, to confirm
what was done in their name. `code`: the digits that they need besides their link."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One message to deliver: a card, or an operator's plain text (`text`).

    `delivery_id`: the idempotency key, the same at every attempt. `thread`: the first copy at this destination, if any.
    `lost_at`: the time of the first attempt whose confirmation was lost, so that it may have arrived; None: none was.
    `link`: the reader's own decision page; "" for a place, or if they have none. It is added when the dispatch leaves,
    so that no link is ever in a log. `comments`: those it is about. `mention`: the people to notify in a place or a
    thread, which notify nobody by themselves. `mention_groups`: handles of Slack user groups to notify, instead of
    their many members.
    """

    delivery_id: str
    to: Destination
    card: Card
    occasion: Occasion = "request"
    text: str = ""
    thread: Receipt | None = None
    lost_at: datetime | None = None
    link: str = ""
    comments: tuple[CardComment, ...] = ()
    mention: tuple[Person, ...] = ()
    mention_groups: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The page to link to: the reader's own, else the request's, which asks them to sign in."""
        return self.link or self.card.url


@dataclass(frozen=True, slots=True)
class Delivered:
    """It arrived, says the other side. `uncertain`: a confirmation was lost, so it may have arrived twice.

    `missed`: addresses of people to be mentioned whom a mention there doesn't reach; they need a message of their own.
    """

    receipt: Receipt
    uncertain: bool = False
    kind: Literal["delivered"] = "delivered"
    missed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Not now: a rate limit, an outage, a timeout.

    `after`: how long the other side asks to wait, if it does. `lost`: it may have arrived, but the confirmation didn't.
    `held`: nothing was sent; it is its turn in exactly `after`.
    """

    error: str
    after: timedelta | None = None
    lost: bool = False
    held: bool = False
    kind: Literal["try_again"] = "try_again"


RefusedCode = Literal["not_configured", "no_account", "install", "message", "too_late", "other"]
"""Why a channel refuses. `not_configured`: this installation has no such channel. `no_account`: the person has no
account there, so a fallback is normal. `install`: the whole channel is down (a revoked token, SMTP 535). `message`: a
filter refused this one mail, and may be mended. `too_late`: nothing was sent, because the request is decided.
"""


@dataclass(frozen=True, slots=True)
class Refused:
    """No: no such channel, address refused, bot not invited. `error` is for people, `code` for programs.

    That is final, but for mail that is refused for a fault of ours (`install`, `message`).
    """

    error: str
    code: RefusedCode = "other"
    kind: Literal["refused"] = "refused"

    @property
    def install(self) -> bool:
        """Whether the whole channel is down, rather than this one message refused."""
        return self.code == "install"


Result = Delivered | TryAgain | Refused


class Channel(Protocol):
    """Delivers copies. Safe to call twice for one `delivery_id`: at worst a second copy, then marked `uncertain`."""

    async def send(self, dispatch: Dispatch) -> Result:
        """Deliver a new copy, or a plain text."""

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        """Update a delivered copy to the newest card. A mail can't change, so mail just returns Delivered."""


@dataclass(frozen=True, slots=True)
class Called:
    """The target accepted the call: it answered 2xx."""

    status: int
    kind: Literal["called"] = "called"


CallResult = Called | TryAgain | Refused


class Targets(Protocol):
    """The HTTP targets that workflows may call, by name. Raises only for bugs."""

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        """POST this as JSON, signed with the target's secret; `event_id` is the same on every attempt."""


# ── Optional parts of a channel: the service uses those it has. ──

DiagnosisState = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of one check.

    `todo`: what the operator should do; "" if all is well. `text`: lines to copy, such as DNS records.
    """

    state: DiagnosisState
    about: str
    what: str
    todo: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class CheckUp:
    """What to check on a channel, besides whether it works.

    `places`: those that workflows deliver to, each with the id of one of them. `groups`: handles of the groups they
    name. `send_to`: an address for a test message.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    groups: Sequence[str] = ()
    send_to: str | None = None


@runtime_checkable
class WithoutLinks(Protocol):
    """A channel that identifies the people who act in it, so that they need no decision links."""

    without_links: Literal[True]


@runtime_checkable
class WithRoutes(Protocol):
    """A channel with HTTP routes."""

    def routes(self) -> Sequence[Any]:
        """Return its Starlette routes. Their paths begin with the channel's name."""


@runtime_checkable
class WithTask(Protocol):
    """A channel with a background task."""

    async def run(self) -> None:
        """Run until cancelled. The service restarts it if it fails."""


@runtime_checkable
class WithCheck(Protocol):
    """A channel with checks for `approvals-bot doctor`."""

    async def check(self, asked: CheckUp) -> Sequence[Diagnosis]:
        """Check what a running service will need. The channel may not be attached to a service."""


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """The state of a connection. `word` is for everybody; `why` for operators, since it may quote the other side."""

    word: Literal["up", "connecting", "down"]
    why: str = ""


@runtime_checkable
class WithStates(Protocol):
    """A channel with connections for `/readyz` to report."""

    def states(self) -> Mapping[str, Callable[[], Awaitable[ConnectionState]]]:
        """Return what says the state of each, by name."""


@runtime_checkable
class WithProbe(Protocol):
    """A channel that can say whether it would deliver now, without delivering anything."""

    async def probe(self) -> ConnectionState:
        """Ask the other side. Called while nothing is delivered, and after attempts that failed."""


@runtime_checkable
class WithMembers(Protocol):
    """A channel that knows people and their groups."""

    async def members(self, handle: str) -> Sequence[str]:
        """Return the addresses of a group's members. Raises SourceUnavailable."""

    async def has_member(self, address: str) -> bool:
        """Check whether this is the address of somebody who may act there. Raises SourceUnavailable."""


@runtime_checkable
class WithSignIn(Protocol):
    """A channel whose service can say who somebody is."""

    async def person_of(self, user: str, team: str) -> str | None:
        """Return the address of this user of ours; None for guests, and people of other teams.

        Raises SourceUnavailable.
        """


@runtime_checkable
class Reloads(Protocol):
    """A channel that takes a new configuration while it runs."""

    def reload(self, settings: Any) -> None:
        """Apply these settings, as far as that needs no restart."""


@runtime_checkable
class Closes(Protocol):
    """A channel that holds something open."""

    async def aclose(self) -> None:
        """Close the channel. Nothing is sent afterwards."""


Count = Callable[[str, Literal["send", "update"], str, str], None]
"""`count(channel, act, outcome, delivery_id)`, the outcome being `delivered`, `uncertain`, `try_again`, `refused` or
`error`. It never learns the recipient."""


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels that this installation has, by name.

    `base_url`: the beginning of links. `link(hook_id, address)` makes a person's decision link, "" if they have none.
    `count` is called after each attempt, for the metrics.
    """

    by_name: Mapping[str, Channel] = field(default_factory=dict)
    base_url: str = ""
    link: Callable[[str, str], Awaitable[str]] | None = None
    count: Count = lambda channel, act, outcome, delivery_id: None

    def __contains__(self, channel: str) -> bool:
        return channel in self.by_name

    async def send(self, dispatch: Dispatch, update: Receipt | None = None) -> Result:
        """Deliver by the dispatch's channel. `update`: the delivered copy to update."""
        name = dispatch.to.channel
        channel = self.by_name.get(name)
        if channel is None:
            return Refused(f"{name} is not configured here", "not_configured")
        dispatch = await self._with_links(channel, dispatch)
        act: Literal["send", "update"] = "send" if update is None else "update"

        def count(outcome: str) -> None:
            self.count(name, act, outcome, dispatch.delivery_id)

        try:
            with span(f"deliver {name}", channel=name, delivery_id=dispatch.delivery_id):
                result = await (channel.send(dispatch) if update is None else channel.update(update, dispatch))
        except Exception:
            count("error")
            raise
        is_held, is_uncertain = getattr(result, "held", False), getattr(result, "uncertain", False)
        count("held" if is_held else "uncertain" if is_uncertain else result.kind)
        return result

    async def _with_links(self, channel: Channel, dispatch: Dispatch) -> Dispatch:
        """Add the links: the request's page, which asks for a sign-in, and a person's own, if any."""
        card = dispatch.card
        page = f"{self.base_url}/requests/{card.run_id}" if self.base_url else ""
        link = ""
        if self.link is not None and isinstance(dispatch.to, ToPerson) and not isinstance(channel, WithoutLinks):
            link = await self.link(card.hook_id, dispatch.to.person.address)
        return replace(dispatch, card=replace(card, url=page), link=link)
