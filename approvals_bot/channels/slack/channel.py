"""The Slack channel as one object for the service: posting, inbound requests and `doctor`'s checks.

Presses, modals, commands and events go through one set of handlers. By HTTP: guard (signature, no replays) → bolt →
handler. By Socket Mode: websocket (`socket_mode`) → bolt → the same handler. Every handler answers within 2.5 seconds;
Slack gives up at 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

from starlette.responses import Response
from starlette.routing import Route

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.port import CheckUp, ConnectionState, Diagnosis, Dispatch, Receipt, Result
from approvals_bot.channels.slack.builder import SlackSteps
from approvals_bot.channels.slack.client import LaterError, SlackClient, SlackError
from approvals_bot.channels.slack.desk import BackgroundTasks, EphemeralReplies, SlackDesk
from approvals_bot.channels.slack.home import SlackHome
from approvals_bot.channels.slack.identity import External, Identified, SlackIdentities, Unidentified
from approvals_bot.channels.slack.late_replies import keep_reply
from approvals_bot.channels.slack.manifest import PATH
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.opening import SlackOpening
from approvals_bot.channels.slack.post import SlackOut
from approvals_bot.channels.slack.reassignment import SlackReassignments
from approvals_bot.channels.slack.talk import SlackTalk
from approvals_bot.channels.slack.verify import FromSlack, SlackGuard
from approvals_bot.channels.slack.votes import SlackVotes
from approvals_bot.config.service import Slack
from approvals_bot.durable.core.threads import import_alone
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People, SourceUnavailable
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.host import ChannelHost

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp

    from approvals_bot.channels.slack.socket_mode import SocketMode

WARM_UP_AFTER = 1.0  # seconds; the service is ready by then


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


class SlackIn:
    """All inbound handlers, built by `slack_in`. Close it at the end."""

    def __init__(
        self,
        desk: SlackDesk,
        votes: SlackVotes,
        opening: SlackOpening,
        home: SlackHome,
    ) -> None:
        self.desk, self.opening, self.home = desk, opening, home
        self.steps = SlackSteps(desk, opening)
        self._votes = votes

    @cached_property
    def bolt(self) -> AsyncApp:
        """The bolt app with all handlers, made on first use: see `bolt_app`."""
        from approvals_bot.channels.slack.bolt_app import bolt_app

        reassignments, talk = SlackReassignments(self.desk), SlackTalk(self.desk, self.home)
        return bolt_app(self.desk, self._votes, reassignments, talk, self.opening, self.home, self.steps)

    async def answer(self, request: FromSlack) -> Response:
        """Handle a verified request by HTTP."""
        if request.payload.get("type") == "block_actions":
            actions = request.payload.get("actions")
            # Slack's own library reads the first action without checking that there is one
            if not (isinstance(actions, list) and actions and all(isinstance(action, dict) for action in actions)):
                return Response("Not accepted.\n", 401)
        from approvals_bot.channels.slack.bolt_app import answer_with

        return await answer_with(self.bolt, request)

    async def warm_up(self) -> None:
        """Load bolt in the background, so that the first press needn't wait for it."""
        await asyncio.sleep(WARM_UP_AFTER)
        await asyncio.to_thread(import_alone, "approvals_bot.channels.slack.bolt_app")
        _ = self.bolt

    async def aclose(self) -> None:
        """Finish the replies in progress."""
        await self.desk.afterwards.aclose()


def slack_in(
    *,
    engine: Engine,
    client: SlackClient,
    slack_people: SlackPeople,
    people: People,
    base_url: str,
    app_id: str | None = None,
    external_users: External = "deny",
    workflows: Catalog | None = None,
    link: Callable[[str, str], str | Awaitable[str]] | None = None,
    counted: Callable[[str, str], None] | None = None,
) -> SlackIn:
    """Build the handlers on one bolt app.

    `client` and `slack_people` are the Slack channel's. `app_id`: payloads of other apps are refused; None: ask Slack.
    `external_users`: whether guests and people of other workspaces may view requests; they never decide. `workflows`:
    those with a form; None: no forms. `link(hook_id, address)`: the person's own page, offered when Slack can't open a
    form. `counted`: called with each verdict, for the metrics.
    """
    identities = SlackIdentities(
        client=client, slack_people=slack_people, people=people, app_id=app_id, external_users=external_users
    )
    afterwards = BackgroundTasks()
    desk = SlackDesk(
        engine=engine,
        client=client,
        identities=identities,
        replies=EphemeralReplies(client, afterwards, partial(keep_reply, engine)),
        afterwards=afterwards,
        base_url=base_url.rstrip("/"),
        link=link,
        counted=counted,
    )
    home = SlackHome(desk, may_ask=workflows is not None)
    opening = SlackOpening(desk, workflows)
    votes = SlackVotes(desk, home)
    return SlackIn(desk, votes, opening, home)


def slack_routes(slack: SlackIn, *, signing_secret: str, now: Callable[[], datetime], engine: Engine) -> list[Route]:
    """Build `POST /slack/events`, for HTTP mode. Refused requests get a line in the engine's audit."""

    async def refused(reason: str, peer: str) -> None:
        await engine.audit("slack_refused", actor=Actor("slack", "", peer=peer).as_json(), data={"reason": reason})

    guard = SlackGuard(slack.answer, signing_secret=signing_secret, now=now, refused=refused)
    return [Route(PATH, guard, methods=["POST"], name="slack")]
