"""What a workflow's file says of messages: where its cards go, and its follow-ups.

The models are part of `policy.Definition`; authors pass a `Deliver` to `request_approval`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    model_validator,
)

from approvals_bot.approvals.base import Bool, Frozen, Slug, Text, refuse
from approvals_bot.approvals.clock import MailDelay
from approvals_bot.approvals.durations import Duration

DeliverTo = Literal[True] | Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""For any other channel: True for each approver, or a place of the channel."""


IN_CHANNEL = r"[^\x00-,./:-^`{-\x7f\s]"
"""A character of a channel's name: no ASCII but small letters, digits, dashes and underscores."""


def in_lower_case(place: str) -> str:
    """Spell a channel's name as Slack keeps it. Templates and ids stay as they are."""
    parts = re.split(r"(\{\{.*?\}\})", place) if place.startswith("#") else ()
    return "".join(part if part.startswith("{{") else part.lower() for part in parts) or place


def _spelled_right(place: Any) -> Any:
    if isinstance(place, str) and (right := in_lower_case(place)) != place:
        raise refuse("must be in lower case, as Slack keeps the names of channels", right)
    return place


SlackPlace = Annotated[
    str,
    StringConstraints(
        pattern=rf"^(#{IN_CHANNEL}{{1,80}}|#({IN_CHANNEL}|\{{\{{ *\w+ *\}}\}}){{1,80}}|[CG][A-Z0-9]{{5,20}})$"
    ),
    BeforeValidator(_spelled_right),
]
"""A Slack channel, whose name Slack keeps in lower case: `#deploys`, its id, or `#{{ team }}` for an enum's values."""


# No twin of Deliver: a stage says only what differs, and also that something goes nowhere.
class StageDeliver(Frozen):
    """Where the cards of one stage go: each key instead of the same key of `[deliver]`. False: not there."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Literal[False] | DeliverTo] = Field(init=False)
    slack: Literal[False] | SlackPlace | None = None
    dm: Bool | None = None
    email: Annotated[Literal[False] | MailDelay, Field(union_mode="left_to_right")] = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            slack: Literal[False] | str | None = ...,
            dm: bool | None = ...,
            email: bool | str | None = ...,
            **channels: bool | str,
        ) -> None: ...


class Deliver(Frozen):
    """Where cards go; not who may decide. Any other key is a channel's name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, DeliverTo] = Field(init=False)
    slack: SlackPlace | None = None
    dm: Bool = False
    email: MailDelay = None  # None: no mail · 0: at once · else if nobody has voted in the stage by then
    link_auth: Literal["link", "code", "login"] = "link"
    max_age: Duration | None = None  # of the sign-in that `login` asks for; None: MAX_AGE
    builder: Bool | None = None  # whether a step of Slack's Workflow Builder opens requests; None: it doesn't
    email_replies: Literal["comment", "decide"] | None = None  # what a reply to a mail may be; None: a comment
    i_know: Literal[True] | None = None  # that deciding by mail trusts mail servers

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            slack: str | None = ...,
            dm: bool = ...,
            email: bool | str = ...,
            link_auth: Literal["link", "code", "login"] = ...,
            max_age: str | None = ...,
            builder: bool | None = ...,
            email_replies: Literal["comment", "decide"] | None = ...,
            i_know: Literal[True] | None = ...,
            **channels: Literal[True] | str,
        ) -> None: ...

    @model_validator(mode="after")
    def _only_a_sign_in_has_an_age(self) -> Deliver:
        if self.max_age is not None and self.link_auth != "login":
            raise refuse('applies to link_auth = "login" only', at="max_age")
        return self

    @model_validator(mode="after")
    def _replies_decide_knowingly(self) -> Deliver:
        if self.email_replies != "decide":
            if self.i_know is not None:
                raise refuse('belongs to email_replies = "decide"', at="i_know")
            return self
        if self.link_auth != "link":
            raise refuse(f'a reply can\'t decide with link_auth = "{self.link_auth}"', at="email_replies")
        if self.i_know is None:
            what = "a reply then decides by the word of a mail server; read docs/email.md, then add i_know = true"
            raise refuse(what, at="email_replies")
        return self

    @property
    def channels(self) -> Mapping[str, DeliverTo]:
        """The channels besides Slack and mail, each with its place, or True for each approver."""
        return self.__pydantic_extra__ or {}

    @property
    def is_silent(self) -> bool:
        """Whether nobody is notified."""
        return not (self.slack or self.dm or self.channels or self.email is not None)

    def but(self, own: StageDeliver) -> Deliver:
        """Return the delivery of a stage that has its own."""
        given = {name: to for name, to in own if to is not None}
        changed = self.model_copy(
            update={name: None if to is False and name != "dm" else to for name, to in given.items()}
        )
        for name in [name for name, to in changed.channels.items() if to is None]:
            del (changed.__pydantic_extra__ or {})[name]
        return changed


class Actions(Frozen):
    """The follow-ups: of the opening, of each stage that opens, and of the decision by outcome; `ended` is any."""

    opened: tuple[Action, ...] | None = None
    stage: tuple[Action, ...] | None = None
    approved: tuple[Action, ...] = ()
    rejected: tuple[Action, ...] = ()
    expired: tuple[Action, ...] = ()
    cancelled: tuple[Action, ...] = ()
    ended: tuple[Action, ...] = ()

    @model_validator(mode="after")
    def _resumes_with_a_decision(self) -> Actions:
        for event, actions in (("opened", self.opened), ("stage", self.stage)):
            for at, action in enumerate(actions or ()):
                if isinstance(action, Resume):
                    raise refuse("there is no decision yet to resume with", at=(event, at, "resume"))
        return self


class FollowUpTable(Frozen):
    """What every follow-up has: a condition. Without one, it always runs."""

    when: Text | None = None


class CallTarget(FollowUpTable):
    """A POST of `json` to a target of [http.*], signed and retried. Strings in it are templates."""

    http: Slug
    json_: dict[str, JsonValue] = Field(default_factory=dict, alias="json")


class SayInSlack(FollowUpTable):
    """A message in a Slack channel: `#deploys`, or one for each value of an enum, `#{{ team }}`."""

    slack: Text
    text: Text


class SendDm(FollowUpTable):
    """A direct message to "requester" or to an address; a mail if they have no Slack account."""

    dm: Text
    text: Text


class SendMail(FollowUpTable):
    """A mail to "requester" or to an address."""

    email: Text
    text: Text


class Resume(FollowUpTable):
    """The answer to the waiting caller: {approved, decision, by, comment, fields, answers, digest}."""

    resume: Literal[True]


ACTION_KEYS = tuple(
    dict.fromkeys(
        member.alias or name
        for kind in (CallTarget, SayInSlack, SendDm, SendMail, Resume)
        for name, member in kind.model_fields.items()
    )
)
"""The keys that some kind of follow-up has."""

_KIND_OF_ACTION = {"http": "http", "slack": "slack", "dm": "dm", "email": "email", "resume": "resume"}


def _kind_of_action(value: object) -> str | None:
    keys = (
        value.keys()
        if isinstance(value, dict)
        else type(value).__pydantic_fields__.keys()
        if isinstance(value, Frozen)
        else ()
    )
    kinds = [kind for key, kind in _KIND_OF_ACTION.items() if key in keys]
    return kinds[0] if len(kinds) == 1 else None


Action = Annotated[
    Annotated[CallTarget, Tag("http")]
    | Annotated[SayInSlack, Tag("slack")]
    | Annotated[SendDm, Tag("dm")]
    | Annotated[SendMail, Tag("email")]
    | Annotated[Resume, Tag("resume")],
    Discriminator(
        _kind_of_action,
        custom_error_type="action",
        custom_error_message="an action needs exactly one of http, slack, dm, email and resume",
    ),
]
