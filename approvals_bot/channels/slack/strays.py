"""Stray copies: messages of ours that no run knows any more, and so no run brings up to date.

Slack may show a post after all that we had given up and sent again, and refuse for days that a card be edited. The
buttons of such a message still count. A press on one closes it. The cards from before a reset are closed by
`service.stalls`, soon after it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from approvals_bot.approvals.card import card_of, closed
from approvals_bot.approvals.card_model import Card
from approvals_bot.approvals.delivery import sent_cards
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.blocks import card_message, delivery_of
from approvals_bot.channels.slack.client import SlackClient, SlackError
from approvals_bot.durable.engine import Engine
from approvals_bot.service.read import request_behind

DIRECT = "D"  # how the ids of direct messages begin

log = logging.getLogger(__name__)


async def close_stray(
    engine: Engine, client: SlackClient, payload: Mapping[str, Any], hook_id: str, address: str
) -> None:
    """Take the buttons off the message that was pressed, if it is a stray copy: it shows the request as it is now.

    A failure does no harm: the next press closes it.
    """
    delivery, (place, ts) = delivery_of(payload.get("message") or {}), _place_of(payload)
    target = await engine.find(hook_id)
    view = request_behind(target)
    if delivery is None or target is None or view is None or not _may_be_stray(view, delivery):
        return
    found = await engine.store.read(target.record.id)
    if found is None:
        return
    known = [sent.card for receipt, sent in sent_cards(found[1]) if (receipt.place, receipt.id) == (place, ts)]
    if known and not (found[0].has_ended and known[0].outcome is None):  # its run edits it, or has
        return
    await _edit(client, place, ts, closed(card_of(view, _reader(place, address), engine.now())))


async def show_again(
    engine: Engine, client: SlackClient, payload: Mapping[str, Any], hook_id: str, address: str
) -> None:
    """Bring the message that was pressed up to date, with its buttons: it shows what the request has never been."""
    place, ts = _place_of(payload)
    view = request_behind(await engine.find(hook_id))
    if view is not None and delivery_of(payload.get("message") or {}) is not None:
        url = f"{engine.base_url}/requests/{view.id}"
        await _edit(client, place, ts, card_of(view, _reader(place, address), engine.now(), url))


def _place_of(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Return the channel and the time stamp of the message that was pressed."""
    message, container = payload.get("message") or {}, payload.get("container") or {}
    place = str((payload.get("channel") or {}).get("id") or container.get("channel_id") or "")
    return place, str(message.get("ts") or container.get("message_ts") or "")


def _reader(place: str, address: str) -> str | None:
    return address if place.startswith(DIRECT) else None


async def _edit(client: SlackClient, place: str, ts: str, card: Card) -> None:
    text, blocks = card_message(card)
    try:
        await client.ask("chat.update", conversation=place, channel=place, ts=ts, text=text, blocks=blocks)
    except SlackError as failure:
        log.warning("A message could not be brought up to date: %s", failure)


def _may_be_stray(view: Request, delivery: str) -> bool:
    """Return whether it is worth reading the run's log: the request is over, was reset, or something may be twice."""
    is_of_run = delivery.startswith(f"{view.id}-")
    return not view.is_open or not is_of_run or any(copy.uncertain for copy in view.deliveries)
