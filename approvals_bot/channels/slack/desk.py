"""The tools that all inbound handlers share: performing an act, opening a modal, the ephemeral reply.

Replies are sent after the acknowledgement, because Slack's API may be slow or down while presses still count.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from approvals_bot.approvals.acts import Act, Actor, Reply
from approvals_bot.approvals.card_model import Card
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.blocks import Block, escape
from approvals_bot.channels.slack.client import AnswerLostError, LaterError, NeverError, SlackClient, SlackError
from approvals_bot.channels.slack.identity import PRESS_UNTIL, SlackIdentities, time_left
from approvals_bot.channels.slack.modals import linked_modal, reply_modal
from approvals_bot.durable.engine import Engine, HookTarget
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.service.act import SentAct, send_act

OPEN_LIMIT = 1.2  # seconds for opening a modal; its trigger is good for 3 from the click
VERDICT_LIMIT = 1.5  # seconds that a modal waits for its verdict, of the 2.5 that it may take in all
CLOSE_LIMIT = 2.0  # seconds at shutdown for tasks in progress
REPLY_LIMIT = 1_800.0  # seconds after the press; a `response_url` is good for as long
KEPT_AFTER = 10.0  # seconds; a reply that Slack hasn't taken by then goes into the store
PERSONAL_LINK = "/decisions/"  # in a text that isn't kept: a log has no links with which somebody can decide
FIRST_RETRY, LAST_RETRY = 1.0, 60.0  # seconds between attempts to reply
MOST = 1_000  # tasks at a time; more are dropped, because Slack isn't keeping up

log = logging.getLogger(__name__)
_LINES = frozenset({"rich_text_section", "rich_text_preformatted", "rich_text_quote"})
"""Elements whose parts are one text."""


class NamedLink(NamedTuple):
    """A link in a reply: the text has the URL, and Slack shows `name` in its place."""

    url: str
    name: str


def link_in(reply: Reply) -> NamedLink | None:
    """Return the page that a reply leads to, if it names one."""
    page = str(reply.params.get("page") or "")
    return NamedLink(page, "Open the request") if page else None


def marked_up(text: str, link: NamedLink | None) -> str:
    """Write a plain text as Slack's mrkdwn, which people's text can't break, with the link by its name."""
    if link is None or link.url not in text:
        return escape(text)
    return f"<{escape(link.url)}|{escape(link.name)}>".join(map(escape, text.split(link.url)))


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where a person acted, so that a reply can be shown to them alone in the same place."""

    user: str
    channel: str = ""
    thread: str | None = None
    response_url: str = ""
    is_ephemeral: bool = False  # they pressed in an ephemeral reply, which the next one then replaces

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> ReplyTo:
        container = payload.get("container") or {}
        channel = (payload.get("channel") or {}).get("id") or container.get("channel_id") or ""
        return cls(
            str((payload.get("user") or {}).get("id") or payload.get("user_id") or ""),
            str(channel or payload.get("channel_id") or ""),
            container.get("thread_ts"),
            str(payload.get("response_url") or ""),
            bool(container.get("is_ephemeral")),
        )


class BackgroundTasks:
    """Coroutines that run after an acknowledgement, and end with the service.

    Only for replies that people can do without. Whatever must happen goes into a run's log.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= MOST:
            work.close()
            log.warning("Too many replies are waiting for Slack, so one was dropped.")
            return
        later = copy_context()
        later.run(PRESS_UNTIL.set, None)  # after the acknowledgement there is time
        task = asyncio.create_task(work, context=later)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    @property
    def is_busy(self) -> bool:
        """Whether some of them are still in progress."""
        return bool(self._tasks)

    async def aclose(self) -> None:
        """Give the tasks in progress a moment, then cancel them."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_LIMIT)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s while replying in Slack", type(error).__qualname__)


class EphemeralReplies:
    """Ephemeral messages, tried until Slack takes them, for half an hour. The card says the same.

    `keep(to, text)` makes a reply durable that Slack hasn't taken at once.
    """

    def __init__(
        self, client: SlackClient, afterwards: BackgroundTasks, keep: Callable[[ReplyTo, str], Awaitable[None]]
    ) -> None:
        self._client = client
        self._afterwards = afterwards
        self._keep = keep

    def reply(self, to: ReplyTo, text: str, *, or_directly: bool = False, link: NamedLink | None = None) -> None:
        """Reply in the background."""
        self._afterwards.do(self.reply_now(to, text, or_directly=or_directly, link=link))

    async def reply_now(
        self,
        to: ReplyTo,
        text: str,
        blocks: Sequence[Block] = (),
        *,
        or_directly: bool = False,
        link: NamedLink | None = None,
    ) -> None:
        """Send an ephemeral message of plain text, shown as `blocks` if given.

        `or_directly`: send a direct message instead where there's no channel, or the app isn't in it. `link`: the one
        in the text.
        """
        said: dict[str, Any] = {"text": marked_up(text, link), **({"blocks": list(blocks)} if blocks else {})}
        try:
            await self.send(to, said, or_directly)
        except (SlackError, asyncio.CancelledError) as failure:
            await self._try_again(to, text, partial(self.send, to, said, or_directly), failure)

    async def _try_again(
        self, to: ReplyTo, text: str, send: Callable[[], Awaitable[None]], failure: BaseException
    ) -> None:
        """Send a reply that Slack hasn't taken: for a while where the person acted, then from the store."""
        begun, wait = self._client.monotonic(), FIRST_RETRY
        try:
            while isinstance(failure, LaterError):
                waited = self._client.monotonic() - begun
                after = max(wait, failure.after.total_seconds() if failure.after else 0.0)
                if (waited >= KEPT_AFTER and await self._is_kept(to, text)) or waited + after > REPLY_LIMIT:
                    return
                await asyncio.sleep(after)
                wait = min(2 * wait, LAST_RETRY)  # a repeated reply does no harm, and a `response_url` takes five
                try:
                    await send()
                    return
                except SlackError as again:
                    failure = again
            if isinstance(failure, asyncio.CancelledError):
                raise failure
            log.warning("An ephemeral reply could not be sent: %s", failure)
        except asyncio.CancelledError:  # the service stops
            await self._is_kept(to, text)
            raise

    async def _is_kept(self, to: ReplyTo, text: str) -> bool:
        """Make the reply durable. Returns False if it isn't: the store is away, or it has a link that is a secret."""
        if PERSONAL_LINK in text:
            return False
        try:
            await self._keep(to, text)
        except ApprovalsBotError as failure:
            log.warning("A late reply could not be kept: %s", type(failure).__name__)
            return False
        return True

    async def send(self, to: ReplyTo, said: Mapping[str, Any], or_directly: bool) -> None:
        """Send it once. Raises SlackError."""
        if to.response_url and self.is_slacks(to.response_url):
            try:
                await self._respond(to, said)
                return
            except NeverError:  # it is over, used up, or of another workspace
                if not to.channel:
                    raise
        if to.channel:
            await self._show_in(to, said, or_directly)
        elif or_directly:
            await self._say_directly(to.user, said)

    def is_slacks(self, url: str) -> bool:
        """Return whether the URL is on Slack's host, or the configured API's. We post to no other."""
        given, api = urlsplit(url), urlsplit(self._client.web.base_url)
        if (given.scheme, given.netloc) == (api.scheme, api.netloc):
            return True
        return given.scheme == "https" and given.hostname in ("hooks.slack.com", "hooks.slack-gov.com")

    async def _show_in(self, to: ReplyTo, said: Mapping[str, Any], or_directly: bool) -> None:
        try:
            await self._client.ask(
                "chat.postEphemeral",
                conversation=to.channel,
                channel=to.channel,
                user=to.user,
                thread_ts=to.thread,
                **said,
            )
        except NeverError:
            if not or_directly:
                raise
            await self._say_directly(to.user, said)

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

    async def _respond(self, to: ReplyTo, said: Mapping[str, Any]) -> None:
        import aiohttp

        answer = {"response_type": "ephemeral", "replace_original": to.is_ephemeral, **said}
        try:
            async with self._client.session.post(to.response_url, json=answer, allow_redirects=False) as response:
                if response.status == 429 or response.status >= 500:
                    raise AnswerLostError("response_url", f"HTTP {response.status}")
                if response.status >= 400:
                    raise NeverError("response_url", f"HTTP {response.status}")
        except aiohttp.ClientConnectorError as failure:
            raise LaterError("response_url", type(failure).__name__) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise AnswerLostError("response_url", type(failure).__name__) from None


@dataclass(frozen=True, slots=True)
class SlackDesk:
    """The parts that all handlers use.

    `link(hook_id, address)` returns a person's own page of a request, "" if they have none. `counted(verdict, via)` is
    called for each act, for the metrics.
    """

    engine: Engine
    client: SlackClient
    identities: SlackIdentities
    replies: EphemeralReplies
    afterwards: BackgroundTasks
    base_url: str
    link: Callable[[str, str], str | Awaitable[str]] | None = None
    counted: Callable[[str, str], None] | None = None

    async def perform(
        self,
        request: HookTarget | str,
        act: Act,
        payload: Mapping[str, Any],
        *,
        state: str | None = None,
        timeout: float = VERDICT_LIMIT,
    ) -> Reply:
        """Perform the act once, however often Slack delivers it. `state`: as in `service.act.send_act`."""
        return await self.reply_to(await self.send(request, act, payload, state=state), timeout)

    async def send(
        self, request: Request | HookTarget | str, act: Act, payload: Mapping[str, Any], *, state: str | None = None
    ) -> SentAct | Reply:
        """Perform the act, as `perform` does, but return once it is durable, before the request has replied."""
        act = replace(act, actor=Actor("slack", str((payload.get("user") or {}).get("id") or "")))
        return await send_act(
            self.engine, request, act, press=press_of(payload), shown=shown_text(payload), state=state
        )

    async def reply_to(self, sent: SentAct | Reply, timeout: float = VERDICT_LIMIT) -> Reply:
        """Return the request's reply to an act, and count it."""
        reply = sent if isinstance(sent, Reply) else await sent.reply(time_left(timeout))
        if self.counted is not None:
            self.counted(reply.verdict, "slack")
        return reply

    async def is_opened(self, payload: Mapping[str, Any], view: Mapping[str, Any]) -> bool:
        """Show a modal to the person who acted, replacing the one they acted in, if any.

        Returns False if Slack couldn't.
        """
        shown = payload.get("view") or {}
        try:
            async with asyncio.timeout(time_left(OPEN_LIMIT)):
                if shown.get("type") == "modal":
                    await self.client.ask("views.update", view_id=str(shown["id"]), view=view)
                else:
                    await self.client.ask("views.open", trigger_id=str(payload.get("trigger_id") or ""), view=view)
        except (SlackError, TimeoutError) as failure:
            log.warning("A modal could not be opened: %s", failure if isinstance(failure, SlackError) else "timeout")
            return False
        return True

    async def own_page(self, card: Card, address: str) -> str:
        """Return this person's own page of the request."""
        if self.link is None:
            return card.url
        link = self.link(card.hook_id, address)
        return await link if isawaitable(link) else link


def submitted_by(payload: Mapping[str, Any]) -> tuple[ReplyTo, Mapping[str, Any], str]:
    """Read a submitted modal: the person, their input, and the modal's private metadata."""
    view = payload["view"]
    values = (view.get("state") or {}).get("values") or {}
    return ReplyTo(str((payload.get("user") or {}).get("id") or "")), values, str(view.get("private_metadata") or "")


def reply_in_modal(text: str, link: NamedLink | None = None) -> dict[str, Any]:
    """Answer a submitted modal with another one that shows this text. `link`: the one in it."""
    return {"response_action": "update", "view": reply_modal(text) if link is None else linked_modal(text, *link)}


def press_of(payload: Mapping[str, Any]) -> str | None:
    """Return a name for this press: the same whenever and wherever Slack repeats it. None if it has no id."""
    if not payload.get("trigger_id") and not (payload.get("view") or {}).get("id"):
        return None
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return f"slack-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


# What a person saw where they acted: Slack sends the message or modal along, as it has shown it. Pure.


def shown_text(payload: Mapping[str, Any]) -> str | None:
    """Return the text of the message or modal that a press or a submission came from. None if there is none.

    A Home tab is about several requests, so it isn't the text of one.
    """
    view = payload.get("view")
    if isinstance(view, Mapping) and view.get("type") != "modal":
        return None
    place = view if isinstance(view, Mapping) else payload.get("message")
    blocks = place.get("blocks") if isinstance(place, Mapping) else None
    return "\n".join(_texts(blocks)) or None


def _texts(value: Any) -> Iterator[str]:
    match value:
        case list():
            for each in value:
                yield from _texts(each)
        case {"type": str() as kind, "elements": list() as elements} if kind in _LINES:
            yield "".join(_texts(elements))
        case {"type": "date", "fallback": str() as text} | {"type": "link", "url": str() as text}:
            yield text
        case {"type": "emoji", "name": str() as name}:
            yield f":{name}:"
        case {"text": str() as text}:
            yield text
        case dict():
            for each in value.values():
                yield from _texts(each)
        case _:
            return
