"""Acts: what people do to a request, and the reply they get.

A channel makes an act once it has established whom the act is `by`, and who is the `actor`. The act travels to the
request as a message and is applied there, as the same value all the way. A reply is data, which `text` puts into words,
so every channel says the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, JsonValue, PlainSerializer, TypeAdapter, ValidationError

from approvals_bot.approvals.agent_policy import CallAllowance
from approvals_bot.approvals.card_model import ChoiceName, Remark, Via
from approvals_bot.approvals.text import placed, rejection_text, reply_text

if TYPE_CHECKING:
    from approvals_bot.durable.core.hooks import WebhookRequest

Word = Literal[
    "counted",
    "decided",
    "already_voted",
    "changed",
    "taken_back",
    "already_decided",
    "not_an_approver",
    "own_request",
    "group_unknown",
    "withdrawn",
    "expired",
    "request_changed",
    "invalid",
    "edited",
    "reassigned",
    "added",
    "commented",
    "claimed",
    "released",
    "reminded",
    "snoozed",
    "received",
    "unknown",
    "busy",
    "bounced",
    "tried",
    "revoked",
    "extending",
    "no_grant",
]
"""The verdicts on an act. `received`: saved but not counted yet. `busy`: not taken, because too many acts wait or this
person has had their share of them. `bounced`: the verdict on a `MailReturned`. `tried`: that on a `TryNow`.
`revoked`: the grant ends now, or has ended. `extending`: its extension was asked for. `no_grant`: there is none that
could end, or be extended."""


REFUSALS: frozenset[Word] = frozenset(
    {
        "already_decided",
        "busy",
        "expired",
        "group_unknown",
        "invalid",
        "no_grant",
        "not_an_approver",
        "own_request",
        "request_changed",
        "unknown",
        "withdrawn",
    }
)
"""Verdicts on acts that changed nothing, except those whose effect was there already."""


ActorKind = Literal["person", "app", "cli", "slack", "mail", "rule", "grant"]


@dataclass(frozen=True, slots=True)
class Actor:
    """The one who acted. The person that the act is `by` may be another: an app passes on what Ann chose.

    `id`: a person's address, `app:ci`, a Slack user's id, or a user of the operating system. `key`: the name of the
    API key. `session`: the id of a session, which signs nobody in. `peer`: the client's network address. `agent`: the
    AI agent that acted, by the name it gave itself.
    """

    kind: ActorKind
    id: str
    key: str = ""
    session: str = ""
    peer: str = ""
    agent: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the actor as logs, the audit and the API have it. What isn't known is left out."""
        return {name: text for name in _ACTOR if (text := getattr(self, name))}


_ACTOR = tuple(each.name for each in fields(Actor))  # `asdict` copies each text: 0.2 ms of an approval's 12


SERVICE = Actor("rule", "service")
"""The service itself: it starts, loads its configuration, makes anchors, and hears of mail that came back."""


def passed_on_by(by: str, actor: Actor | None) -> str:
    """Name the app that passed on this person's act: `app desk`; "" if none did.

    A user at the terminal isn't named on cards, only in the log.
    """
    match actor:
        case Actor("app", id, key) if id != by:
            return f"app {key or id.removeprefix('app:')}"
        case _:
            return ""


def read_actor(given: Any) -> Actor | None:
    """Return the actor of a log or the audit; None if there is none."""
    try:
        return Actor(**given)
    except TypeError:
        return None


def _actor_json(actor: Actor | None) -> dict[str, str] | None:
    return None if actor is None else actor.as_json()


KeptActor = Annotated[Actor | None, PlainSerializer(_actor_json)]
"""An actor as a field of what is kept; None in what was made without an actor."""


@dataclass(frozen=True, slots=True)
class Vote(Remark):
    """One person's choice.

    `digest`: the digest they were shown; None if they were shown none. `answers`: to the stage's questions. `fields`:
    the new values, when the choice is `edit`.
    """

    by: str
    choice: ChoiceName = "approve"
    via: Via = field(default="api", kw_only=True)
    answers: dict[str, JsonValue] = field(default_factory=dict)
    fields: dict[str, JsonValue] = field(default_factory=dict)
    digest: str | None = None
    kind: Literal["vote"] = "vote"
    allowance: CallAllowance | None = None  # of a tool call: it covers the next calls, too
    actor: KeptActor = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """An act's actor. None: the person or app that it is by."""

    actor: KeptActor = None


# No twin of Vote: the requester changes their own request, and nobody's choice is counted.
@dataclass(frozen=True, slots=True)
class Edit(Acted):
    """A change of fields by the requester."""

    by: str
    fields: dict[str, JsonValue] = field(default_factory=dict)
    via: Via = "api"
    kind: Literal["edit"] = "edit"


@dataclass(frozen=True, slots=True)
class Withdraw(Acted):
    """The withdrawal of a request by its requester or an app."""

    by: str
    reason: str = ""
    via: Via = "api"
    kind: Literal["withdraw"] = "withdraw"


@dataclass(frozen=True, slots=True)
class Reassign(Acted):
    """A new approver, `person`, in the place of `instead_of`.

    `instead_of`: an address; "" for the actor; None to add the person to the approvers there are.
    """

    by: str
    person: str = ""
    instead_of: str | None = ""
    reason: str = ""
    via: Via = "api"
    kind: Literal["reassign"] = "reassign"


@dataclass(frozen=True, slots=True)
class Stop(Acted):
    """The end of the whole run that made the request, with all its other requests."""

    by: str
    reason: str = ""
    via: Via = "api"
    kind: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True)
class Comment(Acted):
    """A remark without a vote. `thread`: the copy under which it was written, as `thread_of` names it."""

    by: str
    text: str = ""
    via: Via = "api"
    thread: str = ""
    kind: Literal["comment"] = "comment"


@dataclass(frozen=True, slots=True)
class TakeOn(Acted):
    """“I'm on it”, said by an approver; `ends`: no longer."""

    by: str
    ends: bool = False
    via: Via = "api"
    kind: Literal["claim"] = "claim"


@dataclass(frozen=True, slots=True)
class Remind(Acted):
    """A reminder that the requester asks for, besides those of the workflow's file."""

    by: str
    via: Via = "api"
    kind: Literal["remind"] = "remind"


@dataclass(frozen=True, slots=True)
class Snooze(Acted):
    """An approver's wish for no reminders before `until`; None: they want them again."""

    by: str
    until: datetime | None = None
    via: Via = "api"
    kind: Literal["snooze"] = "snooze"


# No twin of Stop: it ends what an approval gave, and not the request; `operates`: the actor is an operator.
@dataclass(frozen=True, slots=True)
class Revoke(Acted):
    """The end of a grant before its time."""

    by: str
    reason: str = ""
    via: Via = "api"
    kind: Literal["revoke"] = "revoke"
    operates: bool = False


@dataclass(frozen=True, slots=True)
class Extend(Acted):
    """A wish that a grant ends later by `lasts`, a duration. The approvers are asked again."""

    by: str
    lasts: str = ""
    reason: str = ""
    via: Via = "api"
    kind: Literal["extend"] = "extend"


@dataclass(frozen=True, slots=True)
class MailReturned:
    """A bounce: the relay accepted a mail, and a server refused it later. `copy`: the number of the copy it was.

    `is_ours`: for a fault of our account or of the mail, so the mailbox may well be there.
    """

    copy: int
    reason: str = ""
    is_ours: bool = False
    kind: Literal["bounced"] = "bounced"


@dataclass(frozen=True, slots=True)
class TryNow(Acted):
    """An operator's wish that a delivery is tried now. `channel` and `to` name it, as its card does."""

    by: str
    channel: str
    to: str
    kind: Literal["try_now"] = "try_now"


Talk = Comment | TakeOn | Remind | Snooze
"""What people do about a request without deciding or changing it."""

Change = Vote | Edit | Withdraw | Reassign | Stop
"""What may change or decide a request."""

AfterDecision = Revoke | Extend
"""What people do about the grant of an approved request."""

Act = Change | Talk | AfterDecision
"""What a person, an app or an operator can do to a request."""

Message = Act | MailReturned | TryNow
"""What a request's webhook takes."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A fault of one value: its path, its code, and the parameters of the message."""

    path: tuple[str, ...]
    code: str
    params: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return rejection_text(self.code, self.params)

    @property
    def placed(self) -> str:
        """The text, with the number of the item that it is about, for a form with one input for a list."""
        return placed(self.path[1:], self.text)

    @property
    def input(self) -> str:
        """The input of a form that this is about: a field, or one of the limits of an allowance."""
        return ".".join(self.path) if self.path[:1] == ("allowance",) else self.path[0] if self.path else ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to an act.

    `changed`: whether the act changed the request. `code`: the message text to use; "" for the verdict's own. `params`:
    what the message names. `rejections`: what is wrong with the values that were filled in.
    """

    verdict: Word
    changed: bool = False
    code: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()

    @property
    def text(self) -> str:
        """The message that the actor reads."""
        faults = [(each.path, each.text) for each in self.rejections]
        return reply_text(self.code or self.verdict, self.params, faults)


def act_word(act: Act) -> str:
    """Name the act: a vote's choice, `add` for an added approver, else its kind."""
    match act:
        case Vote():
            return act.choice
        case Reassign(instead_of=None):
            return "add"
        case _:
            return act.kind


def message_of(act: Act | TryNow) -> dict[str, Any]:
    """Return the act as the JSON message that goes to the request."""
    dumped: dict[str, Any] = _MESSAGE.dump_python(act, mode="json")
    for name in ("actor", "allowance"):
        if dumped.get(name, "") is None:
            del dumped[name]
    return {key: dumped[key] for key in ("kind", "by", "choice") if key in dumped} | dumped  # reads well in a log


def read_message(given: Any) -> Message | None:
    """Parse a message from a webhook's JSON. Returns None if it isn't one."""
    try:
        message: Message = _MESSAGE.validate_python(given)
    except ValidationError:
        return None
    return message


def answer_of(reply: Reply) -> dict[str, Any]:
    """Return the reply as the webhook's JSON, with its text: the log shows what the actor read."""
    answer: dict[str, Any] = _replies().dump_python(reply, mode="json", exclude_defaults=True)
    return answer | {"text": reply.text, "changed": reply.changed}


async def parse_message(message: WebhookRequest) -> Message | None:
    """Parse a message of `perform`. Returns None for all else: a call from outside has a URL, and is no act."""
    try:
        return None if message.url else read_message(await message.json())
    except ValueError:
        return None


async def send_reply(message: WebhookRequest, reply: Reply) -> None:
    """Send the reply to the sender."""
    await message.respond_json(answer_of(reply))


def read_answer(body: bytes) -> Reply:
    """Parse the reply from a webhook's answer."""
    return _replies().validate_python(json.loads(body))


_MESSAGE: TypeAdapter[Message] = TypeAdapter(
    Annotated[Message, Discriminator("kind")], config=ConfigDict(defer_build=True)
)


@cache
def _replies() -> TypeAdapter[Reply]:
    return TypeAdapter(Reply)
