"""Handing over from Slack: a button beside "Why am I asked?", a modal that asks whom, and the request's own answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from approvals_bot.approvals.acts import Reassign
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.plain_text import clean, clip, one_line
from approvals_bot.approvals.port import Card, Name
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.blocks import Block
from approvals_bot.channels.slack.client import SlackClient, SlackError
from approvals_bot.channels.slack.identity import Identified, SlackIdentities, Unidentified, team_of
from approvals_bot.channels.slack.modals import (
    INPUT_LIMIT,
    OPTION_LIMIT,
    VALUE_LIMIT,
    given,
    labelled,
    plain,
    said_modal,
)
from approvals_bot.channels.slack.replies import EphemeralReplies, Place
from approvals_bot.durable.engine import Engine
from approvals_bot.service.act import perform
from approvals_bot.service.read import request_behind

HAND_OVER = "hand_over"  # the button's action id
HAND_OVER_VIEW = "hand_over"  # callback id
PERSON, INSTEAD_OF, REASON = "person", "instead_of", "reason"  # block ids
AS_WELL = "as well"  # in place of an address: nobody's place is taken
MOST_PLACES = 99  # that a menu offers, besides the one for nobody's
LONGEST_REASON = 500
OPEN_LIMIT = 1.2  # seconds for opening a modal
VERDICT_LIMIT = 1.0  # seconds, of the 2.5 that the act may take; two people are looked up before

NOT_OPENED = "Slack could not open the form just now. Nothing was changed. Please press again."
GONE = "This request is not open any more, so nobody else can be asked. Nothing was changed."

log = logging.getLogger(__name__)


class SlackHandovers:
    """Takes the button and the modal. Every method returns within about two seconds."""

    def __init__(
        self,
        *,
        engine: Engine,
        client: SlackClient,
        identities: SlackIdentities,
        teller: EphemeralReplies,
        counted: Callable[[str, str], None] | None = None,
    ) -> None:
        self._engine = engine
        self._client = client
        self._identities = identities
        self._teller = teller
        self._counted = counted

    async def pressed(self, payload: Mapping[str, Any]) -> None:
        """Open the modal. Whether she may is told when she submits it, by the request's own rules."""
        place = Place.of(payload)
        who = await self._identities.who(place.user, team_of(payload))
        if isinstance(who, Unidentified):
            self._teller.tell(place, who.text)
            return
        hook_id = str(payload["actions"][0].get("value") or "")
        view = await self._open_request(hook_id)
        if view is None or not (await self._identities.workspace()).posted(payload):
            self._teller.tell(place, GONE)
            return
        modal = hand_over_modal(card_of(view, who.address, self._engine.now()), who.address, place.channel)
        try:
            async with asyncio.timeout(OPEN_LIMIT):
                await self._client.ask("views.open", trigger_id=str(payload.get("trigger_id") or ""), view=modal)
        except (SlackError, TimeoutError) as failure:
            log.warning("A modal could not be opened: %s", failure if isinstance(failure, SlackError) else "time-out")
            self._teller.tell(place, NOT_OPENED)

    async def submitted(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """A submitted modal. Returns Slack's `response_action`, or None to close the modal."""
        view, user = payload["view"], str((payload.get("user") or {}).get("id") or "")
        values = (view.get("state") or {}).get("values") or {}
        try:
            opened = json.loads(str(view.get("private_metadata") or ""))
            hook_id, channel = str(opened["h"]), str(opened["ch"])
        except (ValueError, KeyError, TypeError):
            return _say(GONE)
        who = await self._identities.who(user, team_of(payload))
        if isinstance(who, Unidentified):
            return _say(who.text)
        person = await self._identities.who(given(values, PERSON), None)
        if isinstance(person, Unidentified):
            return _wrong("Nobody with this account can decide here. Choose somebody else.")
        chosen = given(values, INSTEAD_OF)
        act = Reassign(
            by=who.address,
            person=person.address,
            instead_of=None if chosen == AS_WELL else chosen,
            reason=given(values, REASON)[:LONGEST_REASON],
            via="slack",
        )
        verdict = await perform(self._engine, hook_id, act, timeout=VERDICT_LIMIT, press=press_of(payload))
        if self._counted is not None:
            self._counted(verdict.verdict, "slack")
        if verdict.verdict == "invalid":
            return _wrong(verdict.text)
        if not verdict.changed or not channel:
            return _say(verdict.text)
        self._teller.tell(Place(user, channel), verdict.text)
        return None

    async def _open_request(self, hook_id: str) -> Request | None:
        target = await self._engine.find(hook_id)
        view = request_behind(target) if target is not None and target.hook.is_live else None
        return view if view is not None and view.is_open else None


def may_try(view: Request, who: Identified) -> bool:
    """Whether she is offered to ask somebody else: not who asks for the decision, and not where nobody may."""
    return view.is_open and view.reassign != "never" and who.address not in (view.requester, view.on_behalf_of)


def with_button(text: str, view: Request) -> list[Block]:
    """The answer to "Why am I asked?", and the button that leads to the modal."""
    button = {
        "type": "button",
        "action_id": HAND_OVER,
        "text": plain("Ask somebody else"),
        "value": view.hook_id[:2_000],
        "accessibility_label": "Ask somebody else to decide",
    }
    return [
        {"type": "section", "text": plain(clip(clean(text), INPUT_LIMIT))},
        {"type": "actions", "block_id": f"hand_over:{view.version}", "elements": [button]},
    ]


def hand_over_modal(card: Card, reader: str, channel: str) -> Block:
    """Asks whom, in whose place, and why. Who is asked herself gives away her own place and no other."""
    places = [who for who in card.waiting_for if who.key == reader or not card.may_hand_over]
    blocks: list[Block] = [
        {"type": "section", "text": plain(one_line(card.title, 300))},
        labelled(PERSON, "Who should be asked?", {"type": "users_select"}),
        labelled(INSTEAD_OF, "In whose place?", _places(places, reader)),
        labelled(REASON, "Why?", {"type": "plain_text_input", "max_length": LONGEST_REASON}) | {"optional": True},
    ]
    return {
        "type": "modal",
        "callback_id": HAND_OVER_VIEW,
        "private_metadata": json.dumps({"h": card.hook_id, "ch": channel}),
        "title": plain("Ask somebody else"),
        "submit": plain("Ask"),
        "close": plain("Not now"),
        "blocks": blocks,
    }


def _places(places: list[Name], reader: str) -> Block:
    named = [("In my place" if who.key == reader else f"In place of {who.text}", who.key) for who in places]
    options = [
        {"text": plain(one_line(text, OPTION_LIMIT)), "value": value}
        for text, value in [*named[:MOST_PLACES], ("In nobody's place, as well", AS_WELL)]
        if len(value) <= VALUE_LIMIT
    ]
    first = options[0 if places and places[0].key == reader else -1]  # nobody's place but her own is suggested
    return {"type": "static_select", "options": options, "initial_option": first}


def _say(text: str) -> dict[str, Any]:
    return {"response_action": "update", "view": said_modal(text)}


def _wrong(text: str) -> dict[str, Any]:
    return {"response_action": "errors", "errors": {PERSON: text}}


# ── Which press of a button, or which submission of a modal, a request of Slack's is about. ──


def press_of(payload: Mapping[str, Any]) -> str | None:
    """A name for this press: the same for the same request, wherever it arrives. None: nothing tells it from others."""
    if not payload.get("trigger_id") and not (payload.get("view") or {}).get("id"):
        return None
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return f"slack-{hashlib.sha256(text.encode()).hexdigest()[:40]}"
