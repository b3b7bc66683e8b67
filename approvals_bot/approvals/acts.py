"""Acts: what somebody does to a request, and the reply that they get.

An act is the same value on its whole way: made where a channel learns of it, carried by the message to the request,
and applied there. The actor's identity has been established by then. A reply is data; `text` makes the sentence of it,
so every channel says the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Discriminator, JsonValue, TypeAdapter, ValidationError

from approvals_bot.approvals.port import ChoiceName, Remark, Via
from approvals_bot.approvals.text import rejection_text, reply_text

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
    "received",
    "unknown",
    "bounced",
]
"""The verdicts: what can become of an act. `received`: it is saved, and not counted yet. `bounced`: of a mail."""


REFUSALS: frozenset[Word] = frozenset(
    {
        "already_decided",
        "expired",
        "group_unknown",
        "invalid",
        "not_an_approver",
        "own_request",
        "request_changed",
        "unknown",
        "withdrawn",
    }
)
"""The verdicts of acts that changed nothing and did not find what they wanted done already."""


@dataclass(frozen=True, slots=True)
class Vote(Remark):
    """One person's choice. `digest`: of what they were shown; None when they were shown nothing.

    `answers`: what the stage asks for. `fields`: what an `edit` makes of the request.
    """

    by: str
    choice: ChoiceName = "approve"
    via: Via = field(default="api", kw_only=True)
    answers: dict[str, JsonValue] = field(default_factory=dict)
    fields: dict[str, JsonValue] = field(default_factory=dict)
    digest: str | None = None
    kind: Literal["vote"] = "vote"


@dataclass(frozen=True, slots=True)
class Edit:
    """The requester changes fields."""

    by: str
    fields: dict[str, JsonValue] = field(default_factory=dict)
    via: Via = "api"
    kind: Literal["edit"] = "edit"


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The requester, or an app, takes the request back."""

    by: str
    reason: str = ""
    via: Via = "api"
    kind: Literal["withdraw"] = "withdraw"


@dataclass(frozen=True, slots=True)
class Reassign:
    """`person` is asked: instead of somebody ("": of the actor), or, for None, besides everybody who is."""

    by: str
    person: str = ""
    instead_of: str | None = ""
    reason: str = ""
    via: Via = "api"
    kind: Literal["reassign"] = "reassign"


@dataclass(frozen=True, slots=True)
class Stop:
    """End the whole run that made the request, and with it everything else that the run asks."""

    by: str
    reason: str = ""
    via: Via = "api"
    kind: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True)
class MailReturned:
    """A mail was accepted by the relay and refused by the mailbox. No act of a person's. `copy`: its number."""

    copy: int
    reason: str = ""
    kind: Literal["bounced"] = "bounced"


Act = Vote | Edit | Withdraw | Reassign | Stop
"""What a person, an app or an operator can do to a request."""

Message = Act | MailReturned
"""What can reach a request by its webhook."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """What is wrong with one thing that was given: where, which fault, and the fault's parameters."""

    path: tuple[str, ...]
    code: str
    params: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return rejection_text(self.code, self.params)


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of an act.

    `changed`: whether the request is another one now. `code`: which of the verdict's texts; "" for its own. `params`:
    what the text names. `rejections`: what is wrong with what was filled in.
    """

    verdict: Word
    changed: bool = False
    code: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()

    @property
    def text(self) -> str:
        """The sentence that the actor reads."""
        faults = [(each.path, each.text) for each in self.rejections]
        return reply_text(self.code or self.verdict, self.params, faults)


def act_word(act: Act) -> str:
    """What the actor did, in a word: a vote's choice, `add` for one more approver, else the act's kind."""
    match act:
        case Vote():
            return act.choice
        case Reassign(instead_of=None):
            return "add"
        case _:
            return act.kind


def message_of(act: Act) -> dict[str, Any]:
    """The act as its message to the request."""
    dumped: dict[str, Any] = _MESSAGE.dump_python(act, mode="json")
    return {key: dumped[key] for key in ("kind", "by", "choice") if key in dumped} | dumped  # as a log is read


def read_message(given: Any) -> Message | None:
    """The message in a webhook's JSON; None when it is none."""
    try:
        message: Message = _MESSAGE.validate_python(given)
    except ValidationError:
        return None
    return message if isinstance(message, MailReturned) else replace(message, by=message.by.lower())


def answer_of(reply: Reply) -> dict[str, Any]:
    """The reply as the webhook answers it. Its sentence is in it too, so the log shows what the actor was told."""
    answer: dict[str, Any] = _REPLY.dump_python(reply, mode="json", exclude_defaults=True)
    return answer | {"text": reply.text, "changed": reply.changed}


def read_answer(body: bytes) -> Reply:
    """The reply in a webhook's answer."""
    return _REPLY.validate_python(json.loads(body))


_MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Discriminator("kind")])
_REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
