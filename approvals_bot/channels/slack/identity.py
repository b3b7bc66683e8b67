"""Identity: a Slack user becomes the address that the rules know, or hears why not.

Authority is Slack's signature plus the user id in the payload. An address counts only if our own workspace vouches for
it: the same address in somebody else's workspace proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from approvals_bot.channels.slack.client import SlackClient
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.people import People, SourceUnavailable

LOOK_UP_LIMIT = 1.0  # seconds for asking Slack who somebody is, within the 2.5 that a click has
GLANCE_LIMIT = 0.3  # seconds for the same about somebody whose Slack id the configuration names
SILENCE = 10.0  # seconds in which Slack is not asked again after it had no answer, so that clicks don't pay for it

External = Literal["deny", "see-only"]

EXTERNAL: dict[External, str] = {
    "deny": "You are a guest here or come from another workspace, so you can't use Approvals in Slack. "
    "Nothing was changed.",
    "see-only": "You are a guest here or come from another workspace, so you can look on, but neither decide nor ask "
    "for anything in Slack. Nothing was changed.",
}
UNSURE = (
    "Slack could not tell us who you are just now, so this could not be done. Nothing was changed. Please try again."
)
NO_ADDRESS = (
    "We know no mail address for your Slack account, so we can't tell who you are here. Nothing was changed. "
    "Ask whoever runs Approvals Bot to add your Slack id."
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SlackTeam:
    """The workspace and app whose token we hold. Payloads of others are refused."""

    team: str
    enterprise: str = ""
    app: str = ""  # "" when Slack does not tell
    bot_user: str = ""
    bot: str = ""

    def posted(self, payload: Mapping[str, Any]) -> bool:
        """Whether this click is on something of ours: a message that our bot posted, or a view or an ephemeral message,
        which Slack reports to nobody but the app that showed them.
        """
        message = payload.get("message")
        if not isinstance(message, Mapping):
            container = payload.get("container") or {}
            return bool(payload.get("view")) or container.get("is_ephemeral") is True
        return bool(self.bot and message.get("bot_id") == self.bot) or bool(
            self.app and message.get("app_id") == self.app
        )

    def sent(self, payload: Mapping[str, Any]) -> bool:
        """Whether this payload is about our app in our workspace (or in our enterprise's)."""
        app = payload.get("api_app_id")
        if self.app and app is not None and app != self.app:
            return False
        teams = _ids(payload, "team")
        enterprises = _ids(payload, "enterprise")
        if self.enterprise and self.enterprise in enterprises:
            return True
        return bool(teams) and teams <= {self.team}


@dataclass(frozen=True, slots=True)
class Identified:
    """A person of ours."""

    address: str
    user: str


@dataclass(frozen=True, slots=True)
class Unidentified:
    """Nobody that may decide; `text` is what they read, `verdict` the word for the audit.

    `may_see`: they may learn about a request whose card they see.
    """

    user: str
    verdict: str
    text: str
    may_see: bool = False


class SlackIdentities:
    """Names the person behind a Slack user id."""

    def __init__(
        self,
        *,
        client: SlackClient,
        slack_people: SlackPeople,
        people: People,
        app_id: str | None = None,
        external_users: External = "deny",
    ) -> None:
        self.external_users: External = external_users  # replaced when the configuration is read anew
        self._client = client
        self._slack_people = slack_people
        self.people = people  # replaced when the configuration is read anew
        self._app_id = app_id
        self._workspace: SlackTeam | None = None
        self._learning = asyncio.Lock()
        self._silent_until = 0.0  # monotonic

    async def workspace(self) -> SlackTeam:
        """Our workspace, asked of Slack once. Raises SlackError or TimeoutError while Slack can't be asked."""
        async with self._learning:
            if self._workspace is None:
                async with asyncio.timeout(LOOK_UP_LIMIT):
                    said = await self._client.ask("auth.test")
                self._workspace = SlackTeam(
                    team=str(said.get("team_id") or ""),
                    enterprise=str(said.get("enterprise_id") or ""),
                    app=self._app_id or str(said.get("app_id") or ""),
                    bot_user=str(said.get("user_id") or ""),
                    bot=str(said.get("bot_id") or ""),
                )
            return self._workspace

    async def identify(self, user_id: str, team: str | None) -> Identified | Unidentified:
        """Return the person with this user id, as a payload names them that Slack signed."""
        named = self.people.by_slack(user_id)
        ours = await self.workspace()
        if team and team not in (ours.team, ours.enterprise):
            return self._outsider(user_id)
        known = Identified(named.address.lower(), user_id) if named is not None else None
        if known is not None and self._client.monotonic() < self._silent_until:
            return known
        try:
            async with asyncio.timeout(GLANCE_LIMIT if known else LOOK_UP_LIMIT):
                user = await self._slack_people.user(user_id)
        except (SourceUnavailable, TimeoutError):
            if known is None:
                return Unidentified(user_id, "group_unknown", UNSURE)
            self._silent_until = self._client.monotonic() + SILENCE
            return known  # the operator's own word is enough when Slack can't be asked
        if user is None or not user.is_member or (user.team and user.team not in (ours.team, ours.enterprise)):
            return self._outsider(user_id, is_alive=user is not None and not user.is_deleted and not user.is_bot)
        if known is not None:
            return known
        if user.address is None:
            return Unidentified(user_id, "not_an_approver", NO_ADDRESS)
        return Identified(user.address, user_id)

    def _outsider(self, user_id: str, *, is_alive: bool = True) -> Unidentified:
        may_see = is_alive and self.external_users == "see-only"
        return Unidentified(user_id, "not_an_approver", EXTERNAL["see-only" if may_see else "deny"], may_see)


def team_of(payload: Mapping[str, Any]) -> str | None:
    """The workspace of the person who pressed."""
    user = payload.get("user")
    if isinstance(user, Mapping) and user.get("team_id"):
        return str(user["team_id"])
    team = payload.get("team")
    return str(team["id"]) if isinstance(team, Mapping) and team.get("id") else None


def _ids(payload: Mapping[str, Any], what: Literal["team", "enterprise"]) -> set[str]:
    """Where the payload says it comes from: events and commands name it flat, interactions in an object."""
    nested = payload.get(what)
    found = {nested.get("id") if isinstance(nested, Mapping) else nested, payload.get(f"{what}_id")}
    return {str(one) for one in found if one}
