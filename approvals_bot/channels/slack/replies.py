"""Telling one person in Slack something that only she sees: the answer to what she pressed, typed or sent.

Told after the acknowledgement, because Slack's own API may be slow or down while clicks still count.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from approvals_bot.channels.slack.blocks import Block, escape
from approvals_bot.channels.slack.client import LaterError, NeverError, SlackClient, SlackError
from approvals_bot.service.background import BackgroundTasks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody pressed: what it takes to tell her something there that only she sees."""

    user: str
    channel: str = ""
    thread: str | None = None
    response_url: str = ""
    is_ephemeral: bool = False  # she pressed in an answer of ours, which the next answer then replaces

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Place:
        container = payload.get("container") or {}
        channel = (payload.get("channel") or {}).get("id") or container.get("channel_id") or ""
        return cls(
            str((payload.get("user") or {}).get("id") or ""),
            str(channel),
            container.get("thread_ts"),
            str(payload.get("response_url") or ""),
            bool(container.get("is_ephemeral")),
        )


class EphemeralReplies:
    """Sends ephemeral messages. They carry news only: whoever misses one finds the same on the card."""

    def __init__(self, client: SlackClient, afterwards: BackgroundTasks) -> None:
        self._client = client
        self._afterwards = afterwards

    def tell(self, place: Place, text: str) -> None:
        """Tell her this soon, and go on."""
        self._afterwards.do(self.tell_now(place, text))

    async def tell_now(
        self, place: Place, text: str, blocks: Sequence[Block] = (), *, or_directly: bool = False
    ) -> None:
        """An ephemeral message of plain text, shown as `blocks` if given. `or_directly`: where there is no place for
        one, or we are not in it, a direct message instead.
        """
        said: dict[str, Any] = {"text": escape(text), **({"blocks": list(blocks)} if blocks else {})}
        try:
            if place.response_url and self.is_slacks(place.response_url):
                await self._respond(place, said)
            elif place.channel:
                await self._show_in(place, said, or_directly)
            elif or_directly:
                await self._say_directly(place.user, said)
        except SlackError as failure:
            log.warning("Somebody could not be told what became of a click: %s", failure)

    def is_slacks(self, url: str) -> bool:
        """Only Slack's own host, or that of the configured API, is ever posted to."""
        given, api = urlsplit(url), urlsplit(self._client.web.base_url)
        if (given.scheme, given.netloc) == (api.scheme, api.netloc):
            return True
        host = given.hostname or ""
        return given.scheme == "https" and (host == "hooks.slack.com" or host == "hooks.slack-gov.com")

    async def _show_in(self, place: Place, said: Mapping[str, Any], or_directly: bool) -> None:
        try:
            await self._client.ask(
                "chat.postEphemeral",
                conversation=place.channel,
                channel=place.channel,
                user=place.user,
                thread_ts=place.thread,
                **said,
            )
        except NeverError:
            if not or_directly:
                raise
            await self._say_directly(place.user, said)

    async def _say_directly(self, user: str, said: Mapping[str, Any]) -> None:
        opened = await self._client.ask("conversations.open", users=user)
        conversation = str(opened["channel"]["id"])
        await self._client.ask(
            "chat.postMessage",
            conversation=conversation,
            channel=conversation,
            unfurl_links=False,
            unfurl_media=False,
            **said,
        )

    async def _respond(self, place: Place, said: Mapping[str, Any]) -> None:
        session = self._client.web.session
        assert session is not None, "the client was built with a session"
        answer = {"response_type": "ephemeral", "replace_original": place.is_ephemeral, **said}
        try:
            async with session.post(place.response_url, json=answer, allow_redirects=False) as response:
                if response.status >= 400:
                    log.warning("Somebody could not be told what became of a click: HTTP %d", response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise LaterError("response_url", type(failure).__name__) from None
