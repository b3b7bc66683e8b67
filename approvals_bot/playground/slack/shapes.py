"""The fake Slack's data: what it starts with, what it stores, and their form in the Web API.

A playground is built from `User`, `SeedChannel`, `SeedGroup` and `SeedApp`; the rest is created while it runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from approvals_bot.people import Person

Json = dict[str, Any]

TRIGGER_LIFE = timedelta(seconds=3)
RESPONSE_URL_LIFE = timedelta(minutes=30)
RESPONSE_URL_USES = 5
MODAL_DEPTH = 3


class Numbers:
    """A counter that can continue from a number."""

    def __init__(self, following: int = 1) -> None:
        self.following = following

    def __next__(self) -> int:
        self.following += 1
        return self.following - 1


def id_part(name: str) -> str:
    """Reduce a name to the characters of Slack's IDs."""
    return re.sub(r"[^A-Z0-9]", "", name.upper()) or "X"


Kind = Literal["member", "guest", "single_channel_guest", "deactivated", "stranger", "partner", "sister", "bot"]
"""How Slack sees an account.

A *stranger* belongs to another company's workspace (Slack Connect), and so does a *partner*, with whom we share a
channel: Slack doesn't call them strangers. A *sister* is a member of another workspace of our Enterprise Grid.
"""

HOMES: dict[Kind, tuple[str, str]] = {
    "stranger": ("T0OTHER", "E0OTHER"),
    "partner": ("T0OTHER", "E0OTHER"),
    "sister": ("T0SISTER", ""),
}
"""The workspace and enterprise of accounts that aren't at home in ours; "" for our enterprise."""


@dataclass(frozen=True, slots=True)
class User:
    """A person and their Slack account; without one, only mail reaches them."""

    person: Person
    kind: Kind = "member"

    @property
    def id(self) -> str:
        """The account's Slack ID, which only users of the workspace have."""
        assert self.person.slack is not None, f"{self.name} isn't in Slack"
        return self.person.slack

    @property
    def in_slack(self) -> bool:
        return self.person.slack is not None

    @property
    def key(self) -> str:
        """Their key in the pages' URLs: the Slack ID, or else the address."""
        return self.person.slack or self.person.address

    @property
    def name(self) -> str:
        return self.person.name

    @property
    def address(self) -> str:
        return self.person.address

    @property
    def handle(self) -> str:
        return self.address.partition("@")[0] or self.name.lower().replace(" ", ".")

    @property
    def bot_id(self) -> str | None:
        return "B" + self.id[1:] if self.kind == "bot" else None

    def is_called(self, name: str) -> bool:
        """Check whether this is their ID, address, name or handle, ignoring case."""
        return bool(name) and name.lower() in {one.lower() for one in (self.key, self.address, self.name, self.handle)}

    def team(self, home: str) -> str:
        """Return the ID of the account's workspace."""
        return HOMES[self.kind][0] if self.kind in HOMES else home

    def as_json(self, with_address: bool, home_team: str, enterprise: str = "") -> Json:
        team, enterprise = self.team(home_team), HOMES.get(self.kind, ("", ""))[1] or enterprise
        profile: Json = {"real_name": self.name, "display_name": self.handle, "team": team}
        if with_address and self.kind != "bot" and self.address:
            profile["email"] = self.address
        shown: Json = {
            "id": self.id,
            "team_id": team,
            "name": self.handle,
            "deleted": self.kind == "deactivated",
            "profile": profile,
            "is_bot": self.kind == "bot",
            "is_app_user": False,
            "updated": 1700000000,
        }
        if self.kind == "deactivated":
            return shown
        if enterprise and self.kind != "bot":
            shown["enterprise_user"] = {"id": self.id, "enterprise_id": enterprise, "teams": [team], "is_admin": False}
        return shown | {
            "real_name": self.name,
            "tz": self.person.zone,
            "is_admin": False,
            "is_owner": False,
            "is_restricted": self.kind in ("guest", "single_channel_guest"),
            "is_ultra_restricted": self.kind == "single_channel_guest",
            "is_stranger": self.kind == "stranger",
        }


OUTSIDERS = (
    User(Person("gus@partner.example", "Gus Guest", "U0GUEST"), "guest"),
    User(Person("stella@other.example", "Stella Strange", "U0STRANGER"), "stranger"),
    User(Person("dora@acme.eu", "Dora Gone", "U0GONE"), "deactivated"),
)
"""People who may not decide, so that new users can try what happens when they click."""


@dataclass(frozen=True, slots=True)
class SeedChannel:
    """A channel, named without `#`. `members` are addresses; None means every member of the workspace."""

    name: str
    private: bool = False
    archived: bool = False
    members: tuple[str, ...] | None = None
    has_bot: bool = True  # whether the bot was invited

    @property
    def id(self) -> str:
        return "C0" + id_part(self.name)


@dataclass(slots=True)
class Conversation:
    """A channel with its members' IDs, or a direct message between the bot and one person (`with_user`)."""

    channel: SeedChannel
    members: set[str]
    with_user: str | None = None

    @property
    def id(self) -> str:
        return "D" + self.with_user[1:] if self.with_user else self.channel.id

    @property
    def name(self) -> str:
        return self.channel.name

    @property
    def private(self) -> bool:
        return self.channel.private

    @property
    def archived(self) -> bool:
        return self.channel.archived

    @property
    def label(self) -> str:
        return f"@{self.name}" if self.with_user else f"#{self.name}"

    def as_json(self, bot: str) -> Json:
        if self.with_user:
            return {"id": self.id, "is_im": True, "user": self.with_user, "is_archived": False, "is_open": True}
        return {
            "id": self.id,
            "name": self.name,
            "name_normalized": self.name,
            "is_channel": not self.private,
            "is_group": self.private,
            "is_im": False,
            "is_private": self.private,
            "is_archived": self.archived,
            "is_member": bot in self.members,
            "num_members": len(self.members),
        }


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """A user group, by its handle without `@`. `members` are addresses."""

    handle: str
    members: tuple[str, ...]
    name: str = ""

    @property
    def id(self) -> str:
        return "S0" + id_part(self.handle)


@dataclass(frozen=True, slots=True)
class UserGroup:
    id: str
    handle: str
    name: str
    members: tuple[str, ...]

    def as_json(self, team_id: str, with_users: bool) -> Json:
        shown: Json = {
            "id": self.id,
            "team_id": team_id,
            "is_usergroup": True,
            "name": self.name,
            "handle": self.handle,
            "date_delete": 0,
            "user_count": len(self.members),
        }
        return shown | ({"users": list(self.members)} if with_users else {})


@dataclass(frozen=True, slots=True)
class Message:
    """A message in its newest state. `ephemeral_to`: the only person who ever saw it."""

    channel: str
    ts: str
    user: str
    text: str
    blocks: tuple[Json, ...] = ()
    thread_ts: str | None = None
    metadata: Json | None = None
    ephemeral_to: str | None = None
    edited: str | None = None
    by_app: str | None = None
    bot_id: str | None = None
    notified: tuple[str, ...] = ()  # the people to whom Slack showed a notification when it was posted

    def as_json(self, team_id: str, with_metadata: bool = False) -> Json:
        shown: Json = {"type": "message", "user": self.user, "text": self.text, "ts": self.ts, "team": team_id}
        if self.by_app:
            shown |= {"app_id": self.by_app, "bot_id": self.bot_id}
        if self.blocks:
            shown["blocks"] = list(self.blocks)
        if self.thread_ts:
            shown["thread_ts"] = self.thread_ts
        if self.edited:
            shown["edited"] = {"user": self.user, "ts": self.edited}
        if self.metadata and with_metadata:
            shown["metadata"] = self.metadata
        return shown


@dataclass(slots=True)
class View:
    """A modal on a person's screen, or their Home tab. `given`: the view as the app sent it."""

    id: str
    given: Json
    user: str
    hash: str
    root: str
    previous: str | None = None
    values: Json = field(default_factory=dict)  # block_id → action_id → state
    errors: dict[str, str] = field(default_factory=dict)  # block_id → the error under the input

    @property
    def blocks(self) -> list[Json]:
        blocks: list[Json] = self.given["blocks"]
        return blocks


@dataclass(slots=True)
class Trigger:
    user: str
    made_at: datetime
    used: bool = False


@dataclass(slots=True)
class ResponseUrl:
    """A `response_url`, which allows five responses within thirty minutes, about one message."""

    user: str
    channel: str
    ts: str | None
    made_at: datetime
    uses: int = 0


APP_ID = "A0APPROVE"

BOT_SCOPES = (
    "chat:write",
    "chat:write.public",
    "commands",
    "im:write",
    "users:read",
    "users:read.email",
    "usergroups:read",
    "team:read",
    "channels:read",
    "groups:read",
    "im:read",
    "channels:history",
    "groups:history",
    "im:history",
)


@dataclass(slots=True)
class Execution:
    """One execution of a step of Workflow Builder."""

    id: str
    function: str
    inputs: Json
    state: Literal["running", "completed", "failed"] = "running"
    outputs: Json = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class SeedApp:
    """The Slack app installed in the fake workspace. Its values must equal the service's `[slack]`."""

    bot_token: str
    signing_secret: str
    app_token: str = ""  # empty: Socket Mode is off
    name: str = "Approvals"
    team_id: str = "T0PLAY"
    team_name: str = "Acme"
    enterprise_id: str = ""  # of the Enterprise Grid that the workspace is in, if any
    scopes: tuple[str, ...] = BOT_SCOPES
    commands: tuple[str, ...] = ("/approve",)
    shortcuts: tuple[tuple[str, str], ...] = ()  # (callback_id, name) of global shortcuts
    has_home: bool = True
    functions: Mapping[str, Json] = field(default_factory=dict)  # steps of Workflow Builder, as in the manifest
