"""Messages to a request's webhook, and its replies, as JSON."""

from __future__ import annotations

from approvals_bot.approvals.acts import Message, Reply, answer_of, read_message
from approvals_bot.durable.core.api import WebhookRequest


async def parse_message(message: WebhookRequest) -> Message | None:
    """Parse a message of `perform`. Returns None for all else: a call from outside has a URL, and is no act."""
    try:
        return None if message.url else read_message(await message.json())
    except ValueError:
        return None


async def send_reply(message: WebhookRequest, reply: Reply) -> None:
    """Send the reply to the sender."""
    await message.respond_json(answer_of(reply))
