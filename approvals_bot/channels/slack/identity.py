"""Identity: which address a Slack user has in the rules, or why they have none.

Authority is Slack's signature plus the user id in the payload. An address counts only if our own workspace vouches for
it, or a sister workspace of our Enterprise Grid: the same address in another workspace proves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal

from approvals_bot.channels.slack.client import LaterError, SlackClient, SlackError
from approvals_bot.channels.slack.members import SlackPeople, SlackUser
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.protocol import StateRow
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import People, SourceUnavailable, is_mail

PRESS_LIMIT = 2.1  # seconds for all that a press waits for, of the 2.5 that it may take in all
LOOK_UP_LIMIT = 0.8  # seconds of them for asking Slack who somebody is
GLANCE_LIMIT = 0.3  # seconds for the same about a person whose Slack id is in the configuration
LEARN_EVERY = 5.0  # seconds between attempts to learn our workspace, while Slack doesn't answer
KEPT_FOR = timedelta(days=3_650)  # how long the store keeps our workspace
SILENCE = 10.0  # seconds without asking Slack after it didn't answer, so that not every press waits for it

External = Literal["deny", "see-only"]

EXTERNAL: dict[External, str] = {
    "deny": "You're a guest or from another workspace, so you can't use Approvals in Slack. Nothing was changed.",
    "see-only": "You're a guest or from another workspace, so you can view requests in Slack, but not decide or make "
    "them. Nothing was changed.",
}
DEACTIVATED = "Your Slack account is deactivated, so you can't act here. Nothing was changed."
UNSURE = "Slack couldn't confirm who you are. Nothing was changed. Please try again."
PRESS_UNTIL: ContextVar[float | None] = ContextVar("PRESS_UNTIL", default=None)
"""When the press that is being handled must be answered, in the event loop's time; None after the answer."""

NO_ADDRESS = (
    "Your Slack account has no email address that we can see, so we don't know who you are. Nothing was changed. "
    "Please ask your Approvals admin to add your Slack ID."
)

LEFT = "Your account is deactivated in your company's directory, so you can't act here. Nothing was changed."

log = logging.getLogger(__name__)


def time_left(most: float) -> float:
    """Return how many seconds a press may wait for one of its parts: `most`, or less if the others took long."""
    until = PRESS_UNTIL.get()
    return most if until is None else max(0.0, min(most, until - asyncio.get_running_loop().time()))


@dataclass(frozen=True, slots=True)
class SlackTeam:
    """The workspace and app whose token we hold. Payloads of others are refused."""

    team: str
    enterprise: str = ""
    app: str = ""  # "" if unknown
    bot_user: str = ""
    bot: str = ""

    def posted(self, payload: Mapping[str, Any]) -> bool:
        """Return whether this press is on a message or view of ours.

        Presses in views and ephemeral messages reach only the app that showed them.
        """
        message = payload.get("message")
        if not isinstance(message, Mapping):
            container = payload.get("container") or {}
            return bool(payload.get("view")) or container.get("is_ephemeral") is True
        return bool(self.bot and message.get("bot_id") == self.bot) or bool(
            self.app and message.get("app_id") == self.app
        )

    def has(self, user: SlackUser) -> bool:
        """Return whether this is a colleague: of our workspace, or of a sister workspace in our Enterprise Grid.

        `is_stranger` doesn't say so: it is false for partners who share a channel with us, and may be true for sisters.
        """
        if user.is_deleted or user.is_bot or user.is_guest:
            return False
        if self.enterprise and user.enterprise:
            return user.enterprise == self.enterprise
        return not user.is_stranger and (not user.team or user.team in (self.team, self.enterprise))

    def sent(self, payload: Mapping[str, Any]) -> bool:
        """Return whether this payload is about our app in our workspace or enterprise."""
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
    """A person we know, by address and Slack user id."""

    address: str
    user: str


@dataclass(frozen=True, slots=True)
class Unidentified:
    """A Slack user who may not act. `text` is for them, `verdict` for the audit.

    `may_see`: they may ask about a request whose card they can see.
    """

    user: str
    verdict: str
    text: str
    may_see: bool = False


class SlackIdentities:
    """The people behind Slack user ids."""

    def __init__(
        self,
        *,
        client: SlackClient,
        slack_people: SlackPeople,
        people: People,
        app_id: str | None = None,
        external_users: External = "deny",
    ) -> None:
        self.external_users: External = external_users  # replaced on reload
        self._client = client
        self.slack_people = slack_people
        self.people = people  # replaced on reload
        self._app_id = app_id
        self._workspace: SlackTeam | None = None
        self._learning = asyncio.Lock()
        self._silent_until = self._unknown_until = 0.0  # monotonic
        slack_people.is_ours = self._is_ours
        self._sisters: set[str] = set()  # workspaces of our Grid, as Slack has said about their people

    @property
    def known_workspace(self) -> SlackTeam | None:
        """Our workspace; None until it is learnt."""
        return self._workspace

    def _is_ours(self, user: SlackUser) -> bool:
        return user.is_member if self._workspace is None else self._workspace.has(user)

    async def workspace(self) -> SlackTeam:
        """Return our workspace, asking Slack once. Raises SlackError or TimeoutError if Slack doesn't answer."""
        if self._workspace is None:
            async with asyncio.timeout(time_left(LOOK_UP_LIMIT)), self._learning:
                if self._workspace is None:
                    await self._learn()
        assert self._workspace is not None, "it is learnt"
        return self._workspace

    async def learn(self, engine: Engine) -> None:
        """Learn our workspace before the first press, from the store while Slack doesn't answer.

        The store's comes from Slack's answer to this token, so it needs no trust in what a payload says.
        """
        name = f"slack workspace of {hashlib.sha256(self._client.token.encode()).hexdigest()[:32]}"
        kept = await _kept(engine, name)
        if kept is not None and self._workspace is None:
            self._workspace = SlackTeam(**kept.state)
        while True:
            try:
                async with self._learning:
                    await self._learn()
                break
            except (SlackError, TimeoutError):
                await asyncio.sleep(LEARN_EVERY)
        now = asdict(await self.workspace())
        if kept is None or kept.state != now:
            row = StateRow(name, 1 if kept is None else kept.version + 1, now)
            try:
                await engine.store.set_counter(row, engine.now(), engine.now() + KEPT_FOR)
            except StoreUnavailableError:
                log.warning("Our Slack workspace could not be kept; it is learnt again at the next start.")

    async def _learn(self) -> None:
        """Ask Slack. It isn't asked again right after it didn't answer, so that no press waits for it twice."""
        if self._client.monotonic() < self._unknown_until:
            raise LaterError("auth.test", "no answer a moment ago")
        try:
            said = await self._client.ask("auth.test")
        except (SlackError, asyncio.CancelledError):
            self._unknown_until = self._client.monotonic() + LOOK_UP_LIMIT
            raise
        self._workspace = SlackTeam(
            team=str(said.get("team_id") or ""),
            enterprise=str(said.get("enterprise_id") or ""),
            app=self._app_id or str(said.get("app_id") or ""),
            bot_user=str(said.get("user_id") or ""),
            bot=str(said.get("bot_id") or ""),
        )

    async def identify(self, user_id: str, team: str | None) -> Identified | Unidentified:
        """Return the person with this user id and team, as named in a payload that Slack signed."""
        named = self.people.by_slack(user_id)
        if named is not None and self.people.rosters.is_barred(named.address):
            return Unidentified(user_id, "not_an_approver", LEFT)
        try:
            ours = await self.workspace()
        except (SlackError, TimeoutError):
            return Unidentified(user_id, "group_unknown", UNSURE)
        is_near = not team or team in (ours.team, ours.enterprise) or team in self._sisters
        if not is_near and not ours.enterprise:
            return self._outsider(user_id)
        # An id is unique in its own Grid only, so from elsewhere it is known once Slack has said whose it is.
        known = Identified(named.address, user_id) if named is not None and is_near else None
        if known is not None and self._client.monotonic() < self._silent_until:
            return known
        try:
            async with asyncio.timeout(time_left(GLANCE_LIMIT if known else LOOK_UP_LIMIT)):
                user = await self.slack_people.user(user_id)
        except (SourceUnavailable, TimeoutError):
            if known is None:
                return Unidentified(user_id, "group_unknown", UNSURE)
            self._silent_until = self._client.monotonic() + SILENCE
            return known  # the configuration is enough when Slack doesn't answer
        if user is None or not ours.has(user):
            if user is not None and user.is_deleted:
                return Unidentified(user_id, "not_an_approver", DEACTIVATED)
            return self._outsider(user_id, is_alive=user is not None and not user.is_bot)
        if ours.enterprise and user.team:
            self._sisters.add(user.team)
        if named is not None:
            return Identified(named.address, user_id)
        if user.address is None or not is_mail(user.address):
            return Unidentified(user_id, "not_an_approver", NO_ADDRESS)
        address = self.people.canonical(user.address)
        if self.people.rosters.is_barred(address):
            return Unidentified(user_id, "not_an_approver", LEFT)
        return Identified(address, user_id)

    async def addressed(
        self, texts: Mapping[str, str], names: Collection[str]
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Put addresses in the place of the Slack users who were chosen in these inputs, one a line.

        Returns also the inputs with somebody who can't be identified.
        """
        found, wrong = dict(texts), list[str]()
        for name in (name for name in names if name in texts):
            chosen = await asyncio.gather(*(self.identify(user, None) for user in texts[name].splitlines()))
            if all(isinstance(one, Identified) for one in chosen):
                found[name] = "\n".join(one.address for one in chosen if isinstance(one, Identified))
            else:
                wrong.append(name)
        return found, tuple(wrong)

    async def users_of(self, addresses: Collection[str]) -> dict[str, str]:
        """Return the Slack users of these people, by address; without those whom Slack doesn't name at once."""
        found = dict[str, str]()

        async def find(address: str) -> None:
            with suppress(SourceUnavailable):
                if user := await self.slack_people.user_id(self.people.person(address)):
                    found[address] = user

        with suppress(TimeoutError):
            async with asyncio.timeout(time_left(GLANCE_LIMIT)):
                await asyncio.gather(*(find(address) for address in dict.fromkeys(addresses)))
        return found

    def _outsider(self, user_id: str, *, is_alive: bool = True) -> Unidentified:
        may_see = is_alive and self.external_users == "see-only"
        return Unidentified(user_id, "not_an_approver", EXTERNAL["see-only" if may_see else "deny"], may_see)


async def _kept(engine: Engine, name: str) -> StateRow | None:
    try:
        return await engine.store.counter(name)
    except StoreUnavailableError:
        return None


def team_of(payload: Mapping[str, Any]) -> str | None:
    """Return the workspace of the person who acted."""
    user = payload.get("user")
    if isinstance(user, Mapping) and user.get("team_id"):
        return str(user["team_id"])
    team = payload.get("team")
    return str(team["id"]) if isinstance(team, Mapping) and team.get("id") else None


def _ids(payload: Mapping[str, Any], what: Literal["team", "enterprise"]) -> set[str]:
    """Collect the payload's team or enterprise ids. Events and commands name them flat, interactions nested."""
    nested = payload.get(what)
    found = {nested.get("id") if isinstance(nested, Mapping) else nested, payload.get(f"{what}_id")}
    if what == "enterprise":
        team, installations = payload.get("team"), payload.get("authorizations") or ()  # of events, ours
        found |= {each.get("enterprise_id") for each in (team, *installations) if isinstance(each, Mapping)}
    return {str(one) for one in found if one}
