"""What the service holds open to others while it runs: HTTP targets, Slack, the mail relay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime

from approvals_bot.channels.email.bounces import ReturnPaths
from approvals_bot.channels.email.digests import Digests
from approvals_bot.channels.email.imap import BounceMailbox
from approvals_bot.channels.email.post import EmailChannel
from approvals_bot.channels.email.smtp import Relay, Turns
from approvals_bot.channels.slack.client import SlackClient, slack_client
from approvals_bot.config import service as configured
from approvals_bot.config.mail import Email, Imap
from approvals_bot.durable.engine import TimeSource
from approvals_bot.outgoing import OutgoingTarget, OutgoingTargets, outgoing_targets


async def open_targets(
    stack: AsyncExitStack, service: configured.ServiceSettings, now: Callable[[], datetime]
) -> OutgoingTargets:
    targets = {
        name: OutgoingTarget(str(target.url), target.secret.get_secret_value() if target.secret else None)
        for name, target in service.http.items()
    }
    return await stack.enter_async_context(
        outgoing_targets(targets=targets, allow_private=service.server.allow_private, now=now)
    )


async def open_slack(stack: AsyncExitStack, slack: configured.Slack | None) -> SlackClient | None:
    if slack is None:
        return None
    token = slack.bot_token.get_secret_value()
    return await stack.enter_async_context(slack_client(token=token, api_url=str(slack.api_url)))


def relay_of(email: Email) -> Relay:
    return Relay(
        host=email.host,
        port=email.port,
        security=email.security,
        username=email.username,
        password=email.password.get_secret_value() if email.password else None,
    )


def email_channel(
    stack: AsyncExitStack,
    email: Email | None,
    clock: TimeSource,
    return_paths: ReturnPaths | None,
) -> EmailChannel | Digests | None:
    if email is None:
        return None
    relay = relay_of(email)
    turns = Turns(email.rate.count, email.rate.per) if email.rate else None
    channel = EmailChannel(relay=relay, sender=email.sender, now=clock.now, turns=turns, return_paths=return_paths)
    stack.push_async_callback(channel.aclose)
    return Digests(channel, span=email.digest, now=clock.now) if email.digest else channel


def bounces_mailbox(imap: Imap) -> BounceMailbox:
    return BounceMailbox(
        host=imap.host,
        port=imap.port,
        security=imap.security,
        username=imap.username,
        password=imap.password.get_secret_value(),
        folder=imap.folder,
        every=imap.every,
    )
