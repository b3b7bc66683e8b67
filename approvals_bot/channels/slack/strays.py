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
    message, container = payload.get("message") or {}, payload.get("container") or {}
    delivery, ts = delivery_of(message), str(message.get("ts") or container.get("message_ts") or "")
    place = str((payload.get("channel") or {}).get("id") or container.get("channel_id") or "")
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
    text, blocks = card_message(closed(card_of(view, address if place.startswith(DIRECT) else None, engine.now())))
    try:
        await client.ask("chat.update", conversation=place, channel=place, ts=ts, text=text, blocks=blocks)
    except SlackError as failure:
        log.warning("A stray copy could not be closed: %s", failure)


def _may_be_stray(view: Request, delivery: str) -> bool:
    """Return whether it is worth reading the run's log: the request is over, was reset, or something may be twice."""
    is_of_run = delivery.startswith(f"{view.id}-")
    return not view.is_open or not is_of_run or any(copy.uncertain for copy in view.deliveries)
