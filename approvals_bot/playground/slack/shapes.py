"""The shapes of the stand-in's state, and how the Web API shows each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.playground.seed import Kind

Json = dict[str, Any]

TRIGGER_LIFE = timedelta(seconds=3)
RESPONSE_URL_LIFE = timedelta(minutes=30)
RESPONSE_URL_USES = 5
MODAL_DEPTH = 3


class Numbers:
    """Counts on from a number, and tells which is the next."""

    def __init__(self, following: int = 1) -> None:
        self.following = following

    def __next__(self) -> int:
        self.following += 1
        return self.following - 1


@dataclass(frozen=True, slots=True)
class User:
    id: str
    name: str
    address: str
    zone: str
    team_id: str
    kind: Kind = "member"
    bot_id: str = ""

    @property
    def handle(self) -> str:
        return self.address.partition("@")[0] or self.name.lower().replace(" ", ".")

    def as_json(self, with_address: bool, home_team: str) -> Json:
        profile: Json = {"real_name": self.name, "display_name": self.handle, "team": self.team_id}
        if with_address and self.kind != "bot" and self.address:
            profile["email"] = self.address
        shown: Json = {
            "id": self.id,
            "team_id": self.team_id,
            "name": self.handle,
            "deleted": self.kind == "deactivated",
            "profile": profile,
            "is_bot": self.kind == "bot",
            "is_app_user": False,
            "updated": 1700000000,
        }
        if self.kind == "deactivated":
            return shown
        if self.kind == "stranger":
            shown |= {"is_stranger": True}
        return shown | {
            "real_name": self.name,
            "tz": self.zone,
            "is_admin": False,
            "is_owner": False,
            "is_restricted": self.kind in ("guest", "single_channel_guest"),
            "is_ultra_restricted": self.kind == "single_channel_guest",
            "is_stranger": self.team_id != home_team,
        }


@dataclass(slots=True)
class Conversation:
    """A channel, or a direct message between the bot and one person (`with_user`)."""

    id: str
    name: str
    members: set[str]
    private: bool = False
    archived: bool = False
    with_user: str | None = None

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
    """The newest state of one message. `ephemeral_to`: only this person ever saw it."""

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
    """A modal on somebody's screen, or her Home tab. `given` is what the app sent."""

    id: str
    given: Json
    user: str
    hash: str
    root: str
    previous: str | None = None
    values: Json = field(default_factory=dict)  # block_id → action_id → state
    errors: dict[str, str] = field(default_factory=dict)  # block_id → what Slack shows under the input

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
    """What a `response_url` allows: five answers in thirty minutes, about one message."""

    user: str
    channel: str
    ts: str | None
    made_at: datetime
    uses: int = 0
