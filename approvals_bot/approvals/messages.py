"""Messages to a request: read from its webhook, and answered there with a verdict."""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from approvals_bot.approvals import text as sentences
from approvals_bot.approvals.heard import Heard, Said
from approvals_bot.durable.core.api import Answer, WebhookRequest


async def read_message(request: WebhookRequest) -> Heard | Said:
    """The message, or what its sender is told when it can't be read."""
    try:
        heard = _HEARD.validate_python(await request.json())
    except (ValidationError, ValueError):
        return Said("invalid", f"This message could not be read. {sentences.UNCHANGED}", False)
    return replace(heard, by=heard.by.lower())


def act_of(heard: Heard) -> str:
    """What the sender did: the choice of a vote, else the kind of message."""
    return heard.choice if heard.kind == "vote" else heard.kind


async def answer(request: WebhookRequest, said: Said) -> None:
    """Tell the sender what became of it."""
    await request.respond_with(Answer.json({"verdict": said.verdict, "text": said.text, "changed": said.changed}))


_HEARD = TypeAdapter(Heard)
