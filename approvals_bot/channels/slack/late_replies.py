"""Replies that Slack didn't take for a while, kept in the store, so that a restart doesn't lose them.

Such a reply becomes a run of its own, which tries until half an hour has passed. It replies in the channel, to that
person alone, or else by direct message: a `response_url` is a secret, and isn't kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from approvals_bot.approvals.delivery import attempt, wait_before
from approvals_bot.approvals.port import Called, CallResult, Refused, TryAgain
from approvals_bot.channels.slack.blocks import escape
from approvals_bot.channels.slack.client import LaterError, SlackError
from approvals_bot.channels.slack.desk import REPLY_LIMIT, EphemeralReplies, ReplyTo
from approvals_bot.durable.core.api import now, random, resource, sleep, step, workflow
from approvals_bot.durable.engine import Engine


@dataclass(frozen=True, slots=True)
class LateReply:
    """A reply that is still to be sent, and where to."""

    user: str
    channel: str
    thread: str | None
    text: str


async def keep_reply(engine: Engine, to: ReplyTo, text: str) -> None:
    """Make the reply durable: from here on, it is sent however often the service restarts."""
    await engine.start(late_reply, LateReply(to.user, to.channel, to.thread, text))


@step(retries=0, timeout=60.0)
async def send_reply(late: LateReply, replies: EphemeralReplies = resource(EphemeralReplies)) -> CallResult:
    """Send the reply once."""
    try:
        to = ReplyTo(late.user, late.channel, late.thread)
        await replies.send(to, {"text": escape(late.text)}, or_directly=True)
    except LaterError as later:
        return TryAgain(later.reason, later.after)
    except SlackError as never:
        return Refused(str(never))
    return Called(200)


@workflow(name="slack_reply")
async def late_reply(late: LateReply) -> str:
    """Send the reply as soon as Slack takes it. Returns `sent`, `refused` or, after half an hour, `too_late`."""
    until, attempts = now() + timedelta(seconds=REPLY_LIMIT), 0
    while True:
        attempts += 1
        match await attempt(send_reply(late)):
            case Called():
                return "sent"
            case Refused():
                return "refused"
            case TryAgain(_, after):
                wait = wait_before(attempts, after, random().random())
                if now() + wait > until:
                    return "too_late"
                await sleep(wait)
