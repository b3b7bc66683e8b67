"""Notices to the service's admins: what no request's card says, as a message in Slack or a mail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime

from approvals_bot.approvals.card_model import Card, Name
from approvals_bot.approvals.port import EMAIL, SLACK, Channels, Delivered, Dispatch, ToPerson
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People, Person

log = logging.getLogger(__name__)


def notify_admins(engine: Engine, people: People, title: str, text: str, delivery_id: str) -> None:
    """Notify each admin in the background: nobody's answer waits for it, and a failure is only logged."""
    channels = engine.resources.get(Channels)
    if channels is not None and people.admins:
        card = Card("", "", "", 0, "waiting", title, Name("", ""), engine.now(), "")
        work = _notify(channels, people, card, text, delivery_id)
        engine.scheduler.keep_task(asyncio.create_task(work, name=f"notice {delivery_id}"))


async def _notify(channels: Channels, people: People, card: Card, text: str, delivery_id: str) -> None:
    for person in await persons_of(people, people.admins):
        dispatch_id = f"{delivery_id} {person.address}"[-200:]
        if not await _is_sent(channels, person, card, text, dispatch_id):
            log.error("An admin could not be notified: %s", card.title)


async def is_notified(
    channels: Channels, person: Person, title: str, text: str, delivery_id: str, now: datetime
) -> bool:
    """Send somebody a notice, and return whether that worked."""
    card = Card("", "", "", 0, "waiting", title, Name("", ""), now, "")
    return await _is_sent(channels, person, card, text, delivery_id)


async def _is_sent(channels: Channels, person: Person, card: Card, text: str, delivery_id: str) -> bool:
    """Send it by Slack, or by mail if that doesn't arrive. It has no request, so no link."""
    for name in (SLACK, EMAIL):
        channel = channels.by_name.get(name)
        if channel is None:
            continue
        try:
            result = await channel.send(Dispatch(delivery_id, ToPerson(name, person), card, "outcome", text))
        except Exception as error:  # noqa: BLE001  # a channel may come from another package
            log.error("%s while somebody was notified", type(error).__name__)
            continue
        if isinstance(result, Delivered):
            return True
    return False


async def persons_of(people: People, entries: Iterable[str]) -> list[Person]:
    """Return the people whom these addresses and groups stand for now."""
    found = dict[str, Person]()
    for entry in entries:
        resolved = await people.resolve(entry, requester="")
        found |= {person.address: person for person in resolved.persons}
    return list(found.values())
