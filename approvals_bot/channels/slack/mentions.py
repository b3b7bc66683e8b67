"""Mentions that notify: which of a dispatch's people Slack notifies in a conversation, and by which ids.

Slack notifies people who are mentioned only where they are members. The others, and people without an account, are
`missed`: they need a message of their own.
"""

from __future__ import annotations

import logging

from approvals_bot.approvals.notifications import ASKING
from approvals_bot.approvals.port import Dispatch, ToPerson
from approvals_bot.channels.slack.blocks import NOBODY, Mentions
from approvals_bot.channels.slack.client import LaterError, NeverError, SlackClient
from approvals_bot.channels.slack.members import BriefCache, SlackPeople
from approvals_bot.people import Person, SourceUnavailable

MEMBER_MEMORY = 60.0  # seconds; how long somebody who has joined or left a channel may be taken for what they were

log = logging.getLogger(__name__)


class SlackMentions:
    """The look-ups behind mentions, cached briefly."""

    def __init__(self, client: SlackClient, people: SlackPeople) -> None:
        self._client = client
        self._people = people
        self._members: BriefCache[frozenset[str] | None] = BriefCache(MEMBER_MEMORY, client.monotonic)

    async def find(self, dispatch: Dispatch, *, cached: bool = False) -> Mentions:
        """Return whom this dispatch mentions. Those without an account are left out.

        `cached`: leave out also those who can't be looked up now, as for an edit, which notifies nobody. Raises
        SourceUnavailable otherwise.
        """
        if not dispatch.mention and not dispatch.mention_groups:
            return NOBODY
        users, groups = dict[str, str](), list[str]()
        for person in dispatch.mention:
            try:
                user = await self._people.user_id(person, to_act=dispatch.occasion in ASKING)
            except SourceUnavailable as failure:
                if not (cached or failure.is_lasting):
                    raise
                continue
            if user is not None:
                users[person.address] = user
        for handle in dispatch.mention_groups:
            try:
                group = await self._people.group_id(handle)
            except SourceUnavailable as failure:
                if not (cached or failure.is_lasting):
                    raise
                continue
            groups += [group] if group is not None else []
        return Mentions(users, tuple(groups))

    async def missed(self, dispatch: Dispatch, mentions: Mentions, place: str) -> tuple[str, ...]:
        """Return the addresses of the people whom a mention in this conversation doesn't reach.

        Where the members may not be read, they are taken to be there. Raises LaterError.
        """
        if isinstance(dispatch.to, ToPerson) or not dispatch.mention:
            return ()
        members = await self._members.get(place, self._ask_members) if mentions.users else frozenset()
        return tuple(person.address for person in dispatch.mention if not _is_there(person, mentions, members))

    async def _ask_members(self, place: str) -> frozenset[str] | None:
        """Return the members of a conversation; None if we may not know them."""
        try:
            pages = self._client.ids("conversations.members", "members", limit=999, channel=place)
            return frozenset([member async for member in pages])
        except LaterError:
            raise
        except NeverError as never:
            log.warning(
                "Slack doesn't say who is in a channel (%s), so people outside it may go unnotified.", never.code
            )
            return None


def _is_there(person: Person, mentions: Mentions, members: frozenset[str] | None) -> bool:
    user = mentions.users.get(person.address)
    return user is not None and (members is None or user in members)
