"""Inbound Slack: presses, modals, commands and events, by HTTP or Socket Mode, through one set of handlers.

By HTTP: guard (signature, no replays) → bolt → handler. By Socket Mode: websocket (`socket_mode`) → bolt → the same
handler. Every handler answers within 2.5 seconds; Slack gives up at 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from approvals_bot.approvals.acts import Actor
from approvals_bot.channels.slack.builder import SlackSteps
from approvals_bot.channels.slack.client import SlackClient
from approvals_bot.channels.slack.desk import BackgroundTasks, EphemeralReplies, SlackDesk
from approvals_bot.channels.slack.home import SlackHome
from approvals_bot.channels.slack.identity import External, SlackIdentities
from approvals_bot.channels.slack.late_replies import keep_reply
from approvals_bot.channels.slack.manifest import PATH
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.opening import SlackOpening
from approvals_bot.channels.slack.reassignment import SlackReassignments
from approvals_bot.channels.slack.talk import SlackTalk
from approvals_bot.channels.slack.verify import FromSlack, SlackGuard
from approvals_bot.channels.slack.votes import SlackVotes
from approvals_bot.durable.core.threads import import_alone
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People
from approvals_bot.service.catalog import Catalog

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp

WARM_UP_AFTER = 1.0  # seconds; the service is ready by then


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
        """Handle a verified request."""
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

    async def receive(request: FromSlack) -> Response:
        if request.payload.get("type") == "block_actions":
            actions = request.payload.get("actions")
            # Slack's own library reads the first action without checking that there is one
            if not (isinstance(actions, list) and actions and all(isinstance(action, dict) for action in actions)):
                return Response("Not accepted.\n", 401)
        return await slack.answer(request)

    async def refused(reason: str, peer: str) -> None:
        await engine.audit("slack_refused", actor=Actor("slack", "", peer=peer).as_json(), data={"reason": reason})

    guard = SlackGuard(receive, signing_secret=signing_secret, now=now, refused=refused)
    return [Route(PATH, guard, methods=["POST"], name="slack")]
