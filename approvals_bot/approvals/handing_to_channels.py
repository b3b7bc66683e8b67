"""Handing a card to a channel, as steps: what became of it is in the log."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

from approvals_bot.approvals.one_copy import kind_of
from approvals_bot.approvals.pace import wait_before
from approvals_bot.approvals.port import Card, Channels, Dispatch, Receipt, Refused, Result, TryAgain
from approvals_bot.approvals.when_needed import MADE_WHEN_NEEDED
from approvals_bot.durable.core.api import random, resource, step
from approvals_bot.errors import StepFailedError

LONGEST_VALUE = {"slack": 9_000, "email": 24_000}
"""Characters of one field that are handed to a channel, and so lie in the log: more than it ever shows."""

MadeDispatch = Annotated[Dispatch, MADE_WHEN_NEEDED]


@step(retries=0, timeout=120.0)  # seconds; a channel answers within 45, so this ends only what hangs
async def send_copy(dispatch: MadeDispatch, channels: Channels = resource(Channels)) -> Result:
    """Deliver a new copy, or a follow-up in its thread."""
    channel = channels.of(dispatch.to)
    if channel is None:
        return Refused(f"{kind_of(dispatch.to)} is not configured here")
    return await channel.send(_with_page(dispatch, channels))


@step(retries=0, timeout=120.0)
async def update_copy(receipt: Receipt, dispatch: MadeDispatch, channels: Channels = resource(Channels)) -> Result:
    """Show the newest card in a copy that was delivered."""
    channel = channels.of(dispatch.to)
    if channel is None:
        return Refused(f"{kind_of(dispatch.to)} is not configured here")
    return await channel.update(receipt, _with_page(dispatch, channels))


async def tried(sending: Coroutine[Any, Any, Result]) -> Result:
    """A bug in a channel must not end the request, and may be mended while it waits."""
    try:
        return await sending
    except StepFailedError as failure:
        return TryAgain(failure.cause_message, lost=True)


def until_next(tries: int, wish: timedelta | None) -> timedelta:
    return wait_before(tries, wish, random().random())


def _with_page(dispatch: Dispatch, channels: Channels) -> Dispatch:
    """The link to the request's page is added as the copy leaves; the log holds no links."""
    return replace(dispatch, card=replace(dispatch.card, url=channels.page(dispatch.card.run_id)))


def shortened(card: Card, longest: int) -> Card:
    fields = [
        field if len(field.value) <= longest else replace(field, value=field.value[:longest] + "…")
        for field in card.fields
    ]
    return replace(card, fields=tuple(fields))
