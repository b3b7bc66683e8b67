"""Comments, claims, reminders and snoozes from Slack: a card's other buttons, and the replies in its thread.

A reply in a card's thread is a comment: the first message of that thread is ours, and its metadata name the request.
Edited and deleted messages, those of apps, and our own are none.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Mapping
from typing import Any

from approvals_bot.approvals.acts import Actor, AfterDecision, Extend, Remind, Reply, Revoke, TakeOn, Talk
from approvals_bot.approvals.port import Receipt
from approvals_bot.approvals.talk import thread_of
from approvals_bot.channels.slack.blocks import TALK, delivery_of
from approvals_bot.channels.slack.client import NeverError
from approvals_bot.channels.slack.desk import VERDICT_LIMIT, ReplyTo, SlackDesk, link_in
from approvals_bot.channels.slack.home import SlackHome
from approvals_bot.channels.slack.identity import Unidentified, team_of, time_left
from approvals_bot.channels.slack.votes import GONE, is_about
from approvals_bot.people import People
from approvals_bot.service.act import SentAct
from approvals_bot.service.read import request_behind
from approvals_bot.service.talk import add_comment, snooze_of

KINDS = (None, "thread_broadcast", "file_share")
"""Subtypes of what people write; all others are edits, deletions, and what Slack says itself."""

HELP = (
    "Messages to me decide nothing. Press a button on a card to decide, or reply in the card's thread to add a comment "
    "to the request."
)

_MARKED = re.compile(r"<([@#!]?)([^|<>]*)(?:\|([^<>]*))?>")

log = logging.getLogger(__name__)


class SlackTalk:
    """The handlers of these buttons, and of messages. Each returns within about two seconds."""

    def __init__(self, desk: SlackDesk, home: SlackHome) -> None:
        self._desk, self._home = desk, home

    async def pressed(self, payload: Mapping[str, Any]) -> None:
        """Perform the act of a card's button. It is durable before the press is acknowledged."""
        to, action = ReplyTo.of(payload), payload["actions"][0]
        name, hook_id = str(action.get("action_id", "")).removeprefix(TALK), str(action.get("value") or "")
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified):
            self._desk.replies.reply(to, identity.text, or_directly=True)
            return
        target = await self._desk.engine.find(hook_id)
        act = self._act(name, identity.address)
        if act is None or not await is_about(self._desk, payload, target):
            self._desk.replies.reply(to, GONE, or_directly=True)
            return
        view = request_behind(target)
        is_over = isinstance(act, Revoke) and view is not None and view.standing is not None
        request = view if is_over and view is not None else target or hook_id
        sent = act if isinstance(act, Reply) else await self._desk.send(request, act, payload)
        self._desk.afterwards.do(self._reply_later(to, sent))

    def _act(self, name: str, address: str) -> Talk | AfterDecision | Reply | None:
        match name.partition("-"):
            case "claim", _, _:
                return TakeOn(address, via="slack")
            case "unclaim", _, _:
                return TakeOn(address, ends=True, via="slack")
            case "remind", _, _:
                return Remind(address, via="slack")
            case "snooze", _, until:
                return snooze_of(self._desk.engine, address, until, via="slack")
            case "revoke", _, _:
                return Revoke(address, via="slack")
            case "extend", _, lasts:
                return Extend(address, lasts, via="slack")
            case _:
                return None

    async def _reply_later(self, to: ReplyTo, sent: SentAct | Reply) -> None:
        reply = await self._desk.reply_to(sent)
        # The Home tab is no channel.
        await self._desk.replies.reply_now(to, reply.text, or_directly=not to.channel, link=link_in(reply))
        await self._home.voted(to.user)

    async def written(self, payload: Mapping[str, Any]) -> None:
        """Add a reply in a card's thread to its request, as a comment.

        The card shows it, so only a refusal is answered, and only one that its author can do something about. Raises
        SlackError if Slack can't say now what the thread is about: unacknowledged, it sends the event again.
        """
        event = payload["event"]
        if not is_from_people(event):
            return
        channel, user, ts = (str(event.get(name) or "") for name in ("channel", "user", "ts"))
        thread = str(event.get("thread_ts") or "")
        ours = await self._desk.identities.workspace()
        if user == ours.bot_user or (thread and event.get("parent_user_id") not in (None, ours.bot_user)):
            return
        if not thread or thread == ts:
            if event.get("channel_type") == "im":
                self._desk.replies.reply(ReplyTo(user, channel), HELP)
            return
        request = await self._request_of(channel, thread)
        identity = await self._desk.identities.identify(user, str(event.get("user_team") or event.get("team") or ""))
        if request is None or isinstance(identity, Unidentified):
            return
        reply = await add_comment(
            self._desk.engine,
            request,
            by=identity.address,
            actor=Actor("slack", user),
            text=plain_of(str(event.get("text") or ""), self._desk.identities.people),
            via="slack",
            thread=thread_of(Receipt(channel, thread)),
            press=f"slack-message-{channel}-{ts}",
            timeout=time_left(VERDICT_LIMIT),
        )
        if self._desk.counted is not None:
            self._desk.counted(reply.verdict, "slack")
        if reply.verdict == "busy":
            self._desk.replies.reply(ReplyTo(user, channel, thread), reply.text)

    async def _request_of(self, channel: str, ts: str) -> str | None:
        """Return the id of the request whose card is this message; None if it is no card of ours."""
        try:
            found = await self._desk.client.ask(
                "conversations.replies", channel=channel, ts=ts, limit=1, include_all_metadata=True
            )
        except NeverError as never:
            log.warning("A reply in a thread could not be read as a comment: %s", never.code)
            return None
        first = next((each for each in found.get("messages") or () if each.get("ts") == ts), None)
        ours = await self._desk.identities.workspace()
        if first is None or not ours.posted({"message": first}):
            return None
        delivery = delivery_of(first)
        return delivery.partition("-")[0] if delivery is not None else None


def is_from_people(event: Mapping[str, Any]) -> bool:
    """Return whether somebody has just written this, rather than an app, or Slack about an edit."""
    is_edit = event.get("edited") or event.get("hidden")
    return event.get("subtype") in KINDS and not event.get("bot_id") and not is_edit and bool(event.get("user"))


def plain_of(text: str, people: People) -> str:
    """Return Slack's text as people read it: `<@U0ANN>` is `@Ann Ode`, and a link is its text and address."""

    def shown(found: re.Match[str]) -> str:
        kind, what, label = found.groups()
        match kind:
            case "@":
                person = people.by_slack(what)
                return f"@{person.name if person is not None else label or what}"
            case "#":
                return f"#{label or what}"
            case "!":
                return label or f"@{what.partition('^')[0]}"
            case _:
                return f"{label} ({what})" if label and label != what else what

    return html.unescape(_MARKED.sub(shown, text))
