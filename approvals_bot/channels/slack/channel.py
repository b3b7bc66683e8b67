"""The Slack channel as one object for the service: posting, inbound requests and `doctor`'s checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from starlette.routing import Route

from approvals_bot.approvals.port import CheckUp, ConnectionState, Diagnosis, Dispatch, Receipt, Result
from approvals_bot.channels.slack.builder import SlackSteps
from approvals_bot.channels.slack.client import LaterError, SlackClient, SlackError
from approvals_bot.channels.slack.desk import EphemeralReplies
from approvals_bot.channels.slack.identity import Identified, Unidentified
from approvals_bot.channels.slack.inbound import SlackIn, slack_in, slack_routes
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.post import SlackOut
from approvals_bot.config.service import Slack
from approvals_bot.people import SourceUnavailable
from approvals_bot.service.host import ChannelHost

if TYPE_CHECKING:
    from approvals_bot.channels.slack.socket_mode import SocketMode


def make(settings: Slack) -> SlackChannel:
    """Make the channel of `[slack]`. The entry point `slack`."""
    return SlackChannel(settings)


class SlackChannel:
    """One Slack workspace. It posts once attached to a service; `check` and `members` work before that, too."""

    without_links: Literal[True] = True  # Slack signs who presses a button, so cards need no personal links

    def __init__(self, settings: Slack) -> None:
        self._settings = settings
        token = settings.bot_token.get_secret_value()
        self._client = SlackClient(token=token, api_url=str(settings.api_url), proxy=settings.proxy_url)
        self._people = SlackPeople(self._client)
        self._host: ChannelHost | None = None
        self._out: SlackOut | None = None
        self._in: SlackIn | None = None
        self._socket: SocketMode | None = None

    def attach(self, host: ChannelHost) -> None:
        """Build the outgoing and the inbound half."""
        self._host = host
        self._out = SlackOut(self._client, self._people, now=host.now)
        self._in = slack_in(
            engine=host.engine,
            client=self._client,
            slack_people=self._people,
            people=host.people,
            base_url=host.base_url,
            app_id=self._settings.app_id,
            external_users=self._settings.external_users,
            workflows=host.workflows,
            link=host.link,
            counted=host.counted,
        )
        host.engine.resources |= {SlackSteps: self._in.steps, EphemeralReplies: self._in.desk.replies}
        if self._settings.app_token is not None:
            from approvals_bot.channels.slack.socket_mode import SocketMode

            token = self._settings.app_token.get_secret_value()
            self._socket = SocketMode(self._in.bolt, app_token=token, client=self._client)

    async def send(self, dispatch: Dispatch) -> Result:
        """Post a card, or a text."""
        assert self._out is not None, "only an attached channel sends"
        return await self._out.send(dispatch)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        """Edit a message."""
        assert self._out is not None, "only an attached channel sends"
        return await self._out.update(receipt, dispatch)

    async def members(self, handle: str) -> Sequence[str]:
        """Return the addresses of a user group's members. Raises SourceUnavailable."""
        return await self._people.members(handle)

    async def has_member(self, address: str) -> bool:
        """Check whether this is an active member's address, and no guest's. Raises SourceUnavailable."""
        return await self._people.has_member(address)

    async def person_of(self, user: str, team: str) -> str | None:
        """Return the address of this member of our workspace; None for guests and others. Raises SourceUnavailable."""
        assert self._in is not None, "only an attached channel knows its people"
        try:
            found = await self._in.desk.identities.identify(user, team)
        except (SlackError, TimeoutError):
            raise SourceUnavailable("Slack", "it didn't answer") from None
        match found:
            case Identified(address=address):
                return address
            case Unidentified(verdict="group_unknown"):
                raise SourceUnavailable("Slack", "it didn't answer")
            case _:
                return None

    def routes(self) -> Sequence[Route]:
        """Return `POST /slack/events`, in HTTP mode."""
        if self._in is None or self._host is None or self._settings.signing_secret is None:
            return ()
        secret = self._settings.signing_secret.get_secret_value()
        return slack_routes(self._in, signing_secret=secret, now=self._host.now, engine=self._host.engine)

    async def run(self) -> None:
        """Receive over the websocket, in Socket Mode; at the end, finish the replies in progress."""
        assert self._in is not None, "only an attached channel works in the background"
        learning = asyncio.create_task(self._in.desk.identities.learn(self._in.desk.engine))
        try:
            if self._socket is not None:
                await self._socket.run()
            await self._in.warm_up()
            await asyncio.Event().wait()
        finally:
            learning.cancel()
            await self._in.aclose()

    def states(self) -> Mapping[str, Callable[[], Awaitable[ConnectionState]]]:
        """Return the websocket's state, for `/readyz`."""
        return {} if self._socket is None else {"slack_socket_mode": self._socket.state}

    async def probe(self) -> ConnectionState:
        """Ask Slack who we are. A rate limit says nothing."""
        try:
            await self._client.ask("auth.test")
        except LaterError as later:
            return ConnectionState("connecting" if later.code == "ratelimited" else "down", later.code)
        except (SlackError, TimeoutError) as failure:
            return ConnectionState("down", failure.code if isinstance(failure, SlackError) else "no answer in time")
        return ConnectionState("up")

    def reload(self, settings: Slack) -> None:
        """Switch to the new people, workflows and `external_users`. Tokens and addresses need a restart."""
        if self._in is not None and self._host is not None:
            self._in.desk.identities.people = self._host.people
            self._in.desk.identities.external_users = settings.external_users
            self._in.opening.workflows = self._host.workflows

    async def check(self, asked: CheckUp) -> Sequence[Diagnosis]:
        """Check the token, its scopes, every channel and group that workflows name, and the clocks."""
        from approvals_bot.channels.slack.check import examine

        return await examine(self._client, self._settings, asked)

    async def aclose(self) -> None:
        """Close the websocket and the session."""
        if self._socket is not None:
            await self._socket.aclose()
        await self._client.aclose()
