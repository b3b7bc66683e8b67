"""Out of office from Slack: a button on the Home tab, and a modal with the days and a delegate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.plain_text import clip, one_line
from approvals_bot.channels.slack.blocks import Block, plain
from approvals_bot.channels.slack.desk import ReplyTo, SlackDesk, reply_in_modal, submitted_by
from approvals_bot.channels.slack.home import SlackHome
from approvals_bot.channels.slack.identity import Unidentified, team_of
from approvals_bot.channels.slack.modals import OPTION_LIMIT, given, labelled
from approvals_bot.people import People
from approvals_bot.people.absences import Absence
from approvals_bot.service.own_people import (
    AbsenceRefused,
    OwnPeopleStore,
    absence_id,
    absence_text,
    add_absence,
    current_absences,
    remove_absences,
)

AWAY = "away"  # the button's action ID, and the modal's callback ID
FIRST, LAST, DELEGATE, REMOVE = "first", "last", "delegate", "remove"  # block IDs
MOST_REMOVED = 10  # Slack's check boxes

NOT_OPENED = "Slack couldn't open the form. Nothing was changed. Please try again."
NOT_HERE = "Absences can't be entered here. Nothing was changed."
UNKNOWN = "This person can't decide here. Please choose somebody else."
NOTHING = "Choose the days when you're away, or an absence to remove."


class SlackAway:
    """The handlers of the button and the modal."""

    def __init__(self, desk: SlackDesk, home: SlackHome) -> None:
        self._desk = desk
        self._home = home

    async def pressed(self, payload: Mapping[str, Any]) -> None:
        """Open the modal with the person's absences."""
        to = ReplyTo.of(payload)
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified):
            self._desk.replies.reply(to, identity.text, or_directly=True)
            return
        people, today = self._people, self._desk.engine.now().date()
        own = current_absences(people.own.of(identity.address).away, today)
        others = current_absences(people.absences_of(identity.address), today)
        if not await self._desk.is_opened(payload, away_modal(own, others, people, today)):
            self._desk.replies.reply(to, NOT_OPENED, or_directly=True)

    async def submitted(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """Keep what a submitted modal says. Returns Slack's `response_action`, or None to close the modal."""
        to, values, _ = submitted_by(payload)
        store = self._desk.engine.resources.get(OwnPeopleStore)
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified):
            return reply_in_modal(identity.text)
        if store is None:
            return reply_in_modal(NOT_HERE)
        first, last, removed = given(values, FIRST), given(values, LAST), given(values, REMOVE).splitlines()
        if not (first or last or removed):
            return _wrong(FIRST, NOTHING)
        delegate = ""
        if user := given(values, DELEGATE):
            chosen = await self._desk.identities.identify(user, None)
            if isinstance(chosen, Unidentified):
                return _wrong(DELEGATE, UNKNOWN)
            delegate = chosen.address
        settings = remove_absences(self._people.own.of(identity.address), removed)
        try:
            if first or last:
                settings = await add_absence(self._desk.engine, settings, identity.address, first, last, delegate)
        except AbsenceRefused as refused:
            return _wrong(refused.about, str(refused))
        await store.change(identity.address, settings, Actor("slack", to.user).as_json())
        self._desk.afterwards.do(self._home.voted(to.user))
        return None

    @property
    def _people(self) -> People:
        return self._desk.identities.people


def away_modal(own: Sequence[Absence], others: Sequence[Absence], people: People, today: date) -> Block:
    """Render the modal. `own`: absences that the person may remove; `others`: those of the configuration."""
    blocks: list[Block] = []
    if others:
        said = "; ".join(absence_text(each, people) for each in others)
        text = f"In your company's directory: {said}. Your own days add to these, and your own delegate counts first."
        blocks.append({"type": "context", "elements": [plain(clip(text, 1_000))]})
    if own:
        options = [
            {"text": plain(one_line(absence_text(each, people), OPTION_LIMIT)), "value": absence_id(each)}
            for each in own[:MOST_REMOVED]
        ]
        blocks.append(labelled(REMOVE, "Remove", {"type": "checkboxes", "options": options}) | {"optional": True})
    for block_id, label in ((FIRST, "First day away"), (LAST, "Last day away")):
        blocks.append(labelled(block_id, label, {"type": "datepicker"}) | {"optional": True})
    blocks.append(labelled(DELEGATE, "Delegate", {"type": "users_select"}) | {"optional": True})
    hint = "While you're away, your delegate is asked in your place. You can still decide yourself."
    blocks.append({"type": "context", "elements": [plain(hint)]})
    return {
        "type": "modal",
        "callback_id": AWAY,
        "title": plain("Out of office"),
        "submit": plain("Save"),
        "close": plain("Not now"),
        "blocks": blocks,
    }


def _wrong(block_id: str, text: str) -> dict[str, Any]:
    return {"response_action": "errors", "errors": {block_id: text}}
