"""What the playground starts with: plain values, made from the configuration by whoever builds it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["member", "guest", "single_channel_guest", "deactivated", "stranger", "bot"]
"""How Slack sees an account. A *stranger* belongs to another company's workspace (Slack Connect)."""


@dataclass(frozen=True, slots=True)
class SeedPerson:
    """One person. `slack` is the user id; without one it is made from the address (`cy@acme.eu` → `U0CY`)."""

    name: str
    address: str
    slack: str | None = None
    zone: str = "UTC"
    kind: Kind = "member"
    in_slack: bool = True  # False: reached by mail only

    @property
    def slack_id(self) -> str:
        return self.slack or "U0" + id_part(self.address.partition("@")[0])


@dataclass(frozen=True, slots=True)
class SeedChannel:
    """One channel, by name without `#`. `members` are addresses; None means every member of the workspace."""

    name: str
    private: bool = False
    archived: bool = False
    members: tuple[str, ...] | None = None
    has_bot: bool = True  # whether the bot was invited

    @property
    def id(self) -> str:
        return "C0" + id_part(self.name)


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """One user group, by handle without `@`. `members` are addresses."""

    handle: str
    members: tuple[str, ...]
    name: str = ""

    @property
    def id(self) -> str:
        return "S0" + id_part(self.handle)


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


@dataclass(frozen=True, slots=True)
class SeedApp:
    """The Slack app as it is installed in the stand-in workspace. The values must equal the service's `[slack]`."""

    bot_token: str
    signing_secret: str
    app_token: str = ""  # empty: Socket Mode is off
    name: str = "Approvals"
    app_id: str = "A0APPROVE"
    team_id: str = "T0PLAY"
    team_name: str = "Acme"
    scopes: tuple[str, ...] = BOT_SCOPES
    commands: tuple[str, ...] = ("/approve",)
    shortcuts: tuple[tuple[str, str], ...] = ()  # (callback_id, name) of global shortcuts
    has_home: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """A request that the page offers to open: `POST /api/runs` with this body and key."""

    title: str
    body: dict[str, Any]
    api_key: str


OUTSIDERS = (
    SeedPerson("Gus Guest", "gus@partner.example", "U0GUEST", kind="guest"),
    SeedPerson("Stella Strange", "stella@other.example", "U0STRANGER", kind="stranger"),
    SeedPerson("Dora Gone", "dora@acme.eu", "U0GONE", kind="deactivated"),
)
"""People who may not decide, so that a new user can try what happens when they click."""


def id_part(name: str) -> str:
    """The characters that Slack's ids are made of."""
    return re.sub(r"[^A-Z0-9]", "", name.upper()) or "X"
