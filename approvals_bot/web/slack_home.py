"""The Home tab: a person's inbox in Slack."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import RequestView
from approvals_bot.channels import Card
from approvals_bot.channels.slack.blocks import Block
from approvals_bot.channels.slack.client import SlackClient, SlackError
from approvals_bot.engine import Engine
from approvals_bot.web import slack_views as views
from approvals_bot.web.requests import requests_of
from approvals_bot.web.slack_who import SlackIdentities, Unidentified

LOOKED_THROUGH = 100  # newest runs, for what a person asked for and what she decided
REMEMBERED = 5_000  # people who opened their Home tab since the start: they get it anew after they vote

log = logging.getLogger(__name__)


class SlackHome:
    """Publishes Home tabs."""

    def __init__(
        self, *, engine: Engine, client: SlackClient, identities: SlackIdentities, base_url: str, may_ask: bool = False
    ) -> None:
        """`may_ask`: whether the tab has the button that leads to the forms."""
        self._engine = engine
        self._client = client
        self._identities = identities
        self._base_url = base_url.rstrip("/")
        self._may_ask = may_ask
        self._looking: OrderedDict[str, str | None] = OrderedDict()

    async def opened(self, user: str, team: str | None) -> None:
        """Show this person her inbox as it stands."""
        who = await self._identities.who(user, team)
        view = views.stranger_home(who.text) if isinstance(who, Unidentified) else await self._home(who.address)
        self._looking[user] = team
        while len(self._looking) > REMEMBERED:
            self._looking.popitem(last=False)
        try:
            await self._client.ask("views.publish", user_id=user, view=view)
        except SlackError as failure:
            log.warning("A Home tab could not be shown: %s", failure)

    async def voted(self, user: str) -> None:
        """Show the newest state to somebody who has her Home tab open, or had."""
        if user in self._looking:
            await self.opened(user, self._looking[user])

    async def _home(self, address: str) -> Block:
        pending, recent = await asyncio.gather(
            self._engine.records(status="running", waiting_for=address, limit=views.PENDING_SHOWN + 1),
            self._engine.records(limit=LOOKED_THROUGH),
        )
        lately = [view for record in recent.records for view in requests_of(record)]
        waiting = [view for record in pending.records for view in requests_of(record) if address in view.waiting_for]
        return views.home(
            views.Inbox(
                pending=[self._card(view, address) for view in waiting[: views.PENDING_SHOWN + 1]],
                voted=[self._card(view, address) for view in lately if view.is_open and _has_voted(view, address)],
                asked=[self._card(view, address) for view in lately if address in (view.requester, view.on_behalf_of)],
                decided=[
                    self._card(view, address)
                    for view in lately
                    if view.outcome is not None and any(vote.by == address for vote in view.votes)
                ],
                may_ask=self._may_ask,
            )
        )

    def _card(self, view: RequestView, address: str) -> Card:
        return card_of(view, address, self._engine.now(), url=f"{self._base_url}/requests/{view.id}")


def _has_voted(view: RequestView, address: str) -> bool:
    return address not in view.waiting_for and any(vote.by == address and vote.stands for vote in view.votes)
