"""Reassigning from Slack: a button in the reply to "Why me?", a modal that asks for a person, and the reply."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from approvals_bot.approvals.acts import Reassign
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import Card, Name
from approvals_bot.approvals.plain_text import clean, clip, one_line
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.blocks import Block, plain
from approvals_bot.channels.slack.desk import ReplyTo, SlackDesk, link_in, reply_in_modal, submitted_by
from approvals_bot.channels.slack.identity import Identified, Unidentified, team_of
from approvals_bot.channels.slack.modals import INPUT_LIMIT, OPTION_LIMIT, VALUE_LIMIT, given, labelled
from approvals_bot.service.read import request_behind

REASSIGN = "reassign"  # the button's action id
REASSIGN_VIEW = "reassign"  # callback id
PERSON, INSTEAD_OF, REASON = "person", "instead_of", "reason"  # block ids
NOBODY = "nobody"  # instead of an address: the person is added and replaces nobody
MOST_PLACES = 99  # people that the menu offers to replace, besides nobody
LONGEST_REASON = 500
VERDICT_LIMIT = 1.0  # seconds, of the 2.5 that the act may take; two people are looked up before

NOT_OPENED = "Slack couldn't open the form. Nothing was changed. Please try again."
GONE = "This request is no longer open, so it can't be reassigned. Nothing was changed."

log = logging.getLogger(__name__)


class SlackReassignments:
    """The handlers of the button and the modal. Each returns within about two seconds."""

    def __init__(self, desk: SlackDesk) -> None:
        self._desk = desk

    async def pressed(self, payload: Mapping[str, Any]) -> None:
        """Open the modal. The request's own rules decide whether they may reassign, once they submit it."""
        to = ReplyTo.of(payload)
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified):
            self._desk.replies.reply(to, identity.text, or_directly=True)
            return
        hook_id = str(payload["actions"][0].get("value") or "")
        view = await self._open_request(hook_id)
        if view is None or not (await self._desk.identities.workspace()).posted(payload):
            self._desk.replies.reply(to, GONE, or_directly=True)
            return
        modal = reassign_modal(card_of(view, identity.address, self._desk.engine.now()), identity.address, to.channel)
        if not await self._desk.is_opened(payload, modal):
            self._desk.replies.reply(to, NOT_OPENED, or_directly=True)

    async def submitted(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """Perform a submitted modal. Returns Slack's `response_action`, or None to close the modal."""
        to, values, remembered = submitted_by(payload)
        try:
            opened = json.loads(remembered)
            hook_id, channel = str(opened["h"]), str(opened["ch"])
        except (ValueError, KeyError, TypeError):
            return reply_in_modal(GONE)
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified):
            return reply_in_modal(identity.text)
        person = await self._desk.identities.identify(given(values, PERSON), None)
        if isinstance(person, Unidentified):
            return _wrong("This person can't decide here. Please choose somebody else.")
        chosen = given(values, INSTEAD_OF)
        act = Reassign(
            by=identity.address,
            person=person.address,
            instead_of=None if chosen == NOBODY else chosen,
            reason=given(values, REASON)[:LONGEST_REASON],
            via="slack",
        )
        reply = await self._desk.perform(hook_id, act, payload, timeout=VERDICT_LIMIT)
        if reply.verdict == "invalid":
            return _wrong(reply.text)
        if not reply.changed or not channel:
            return reply_in_modal(reply.text, link_in(reply))
        self._desk.replies.reply(ReplyTo(to.user, channel), reply.text)
        return None

    async def _open_request(self, hook_id: str) -> Request | None:
        target = await self._desk.engine.find(hook_id)
        view = request_behind(target) if target is not None and target.hook.is_live else None
        return view if view is not None and view.is_open else None


def may_reassign(view: Request, identity: Identified) -> bool:
    """Return whether to offer the button: never to the requester, or where the policy says never."""
    return view.is_open and view.reassign != "never" and identity.address not in (view.requester, view.on_behalf_of)


def with_reassign_button(text: str, view: Request) -> list[Block]:
    """Render the reply to "Why me?", with the button that opens the modal."""
    button = {
        "type": "button",
        "action_id": REASSIGN,
        "text": plain("Reassign"),
        "value": view.hook_id[:2_000],
        "accessibility_label": "Reassign, or add an approver",
    }
    return [
        {"type": "section", "text": plain(clip(clean(text), INPUT_LIMIT))},
        {"type": "actions", "block_id": f"reassign:{view.version}", "elements": [button]},
    ]


def reassign_modal(card: Card, reader: str, channel: str) -> Block:
    """Render the modal that asks for the person, whom they replace, and why. Approvers can only replace themselves."""
    places = [name for name in card.waiting_for if name.key == reader or not card.may_reassign]
    blocks: list[Block] = [
        {"type": "section", "text": plain(one_line(card.title, 300))},
        labelled(PERSON, "Who should decide?", {"type": "users_select"}),
        labelled(INSTEAD_OF, "Who do they replace?", _places(places, reader)),
        labelled(REASON, "Reason", {"type": "plain_text_input", "max_length": LONGEST_REASON}) | {"optional": True},
    ]
    return {
        "type": "modal",
        "callback_id": REASSIGN_VIEW,
        "private_metadata": json.dumps({"h": card.hook_id, "ch": channel}),
        "title": plain("Reassign"),
        "submit": plain("Reassign"),
        "close": plain("Not now"),
        "blocks": blocks,
    }


def _places(places: list[Name], reader: str) -> Block:
    named = [("Me" if name.key == reader else name.text, name.key) for name in places]
    options = [
        {"text": plain(one_line(text, OPTION_LIMIT)), "value": value}
        for text, value in [*named[:MOST_PLACES], ("Nobody (add an approver)", NOBODY)]
        if len(value) <= VALUE_LIMIT
    ]
    first = options[0 if places and places[0].key == reader else -1]  # suggest replacing only themselves
    return {"type": "static_select", "options": options, "initial_option": first}


def _wrong(text: str) -> dict[str, Any]:
    return {"response_action": "errors", "errors": {PERSON: text}}
