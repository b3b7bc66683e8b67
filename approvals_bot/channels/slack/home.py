"""The Home tab: a person's inbox in Slack."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.port import Card
from approvals_bot.approvals.published import Relation
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack import modals as views
from approvals_bot.channels.slack.blocks import Block
from approvals_bot.channels.slack.client import NeverError, SlackClient, SlackError
from approvals_bot.channels.slack.identity import SlackIdentities, Unidentified
from approvals_bot.durable.engine import Engine
from approvals_bot.service.read import list_requests

CONFLICTS = 3  # times that somebody else may publish in between before we let it be
REMEMBERED = 5_000  # people who opened their Home tab since the start: they get it anew after they vote

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Tab:
    """What we know of one person's tab."""

    team: str | None = None
    hash: str | None = None  # of what was published last
    is_busy: bool = False  # it is being published
    is_stale: bool = False  # something has happened since it was read


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
        self._looking: OrderedDict[str, _Tab] = OrderedDict()

    async def opened(self, user: str, team: str | None, hash: str | None = None) -> None:
        """Show this person her inbox as it stands. `hash`: of what Slack shows her now, if it shows something."""
        tab = self._looking.setdefault(user, _Tab())
        tab.team, tab.hash = team, hash or tab.hash
        while len(self._looking) > REMEMBERED:
            self._looking.popitem(last=False)
        await self._show(user, tab)

    async def voted(self, user: str) -> None:
        """Show the newest state to somebody who has her Home tab open, or had."""
        if user in self._looking:
            await self._show(user, self._looking[user])

    async def _show(self, user: str, tab: _Tab) -> None:
        """Publish, one after the other, so that an older state never covers a newer one. What changes meanwhile is read
        once more, and so it is when somebody else (another replica) has published since: Slack tells by the hash.
        """
        tab.is_stale = True
        if tab.is_busy:
            return
        tab.is_busy = True
        try:
            conflicts = 0
            while tab.is_stale:
                tab.is_stale = False
                try:
                    answer = await self._client.ask(
                        "views.publish", user_id=user, view=await self._view(user, tab.team), hash=tab.hash
                    )
                except NeverError as conflict:
                    if conflict.code != "hash_conflict" or conflicts >= CONFLICTS:
                        raise
                    conflicts += 1
                    tab.hash, tab.is_stale = None, True
                else:
                    tab.hash = (answer.get("view") or {}).get("hash")
        except SlackError as failure:
            log.warning("A Home tab could not be shown: %s", failure)
        finally:
            tab.is_busy = False

    async def _view(self, user: str, team: str | None) -> Block:
        who = await self._identities.who(user, team)
        return views.stranger_home(who.text) if isinstance(who, Unidentified) else await self._home(who.address)

    async def _home(self, address: str) -> Block:
        pending, voted, asked, decided = await asyncio.gather(
            self._list("waiting_for", address, views.PENDING_SHOWN),
            self._list("open_vote_of", address, views.LATELY_SHOWN),
            self._list("requested_by", address, views.LATELY_SHOWN),
            self._list("ended_vote_of", address, views.LATELY_SHOWN),
        )
        return views.home(
            views.Inbox(pending=pending, voted=voted, asked=asked, decided=decided, may_ask=self._may_ask)
        )

    async def _list(self, relation: Relation, address: str, most: int) -> views.Cards:
        page = await list_requests(self._engine, relation, address, limit=most + 1)
        cards = [self._card(request, address) for _, request in page.rows if request is not None]
        unreadable = [f"{run.workflow}: {run.status} ({run.id})" for run, request in page.rows if request is None]
        return views.Cards(cards, page.total, page.is_whole, unreadable)

    def _card(self, view: Request, address: str) -> Card:
        return card_of(view, address, self._engine.now(), url=f"{self._base_url}/requests/{view.id}")
