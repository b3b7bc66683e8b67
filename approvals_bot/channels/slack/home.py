"""The Home tab: a person's inbox in Slack, what it shows and when it is refreshed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import Card, CardField
from approvals_bot.approvals.plain_text import clip_value, one_line
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.blocks import Block, choice_buttons, escape, plain, shown_id, talk_elements
from approvals_bot.channels.slack.client import NeverError, SlackError
from approvals_bot.channels.slack.desk import SlackDesk
from approvals_bot.channels.slack.identity import Unidentified
from approvals_bot.channels.slack.modals import status_line
from approvals_bot.service.own_people import OwnPeopleStore, absence_text, current_absences
from approvals_bot.service.read import RequestPage, list_decided, list_requests

PENDING_SHOWN = 16  # cards waiting for the reader; Slack allows 100 blocks
LATELY_SHOWN = 5  # … of each other list
PINNED_SHOWN = 8  # pinned fields of a request in a list
WHOLE = 150  # characters of a pinned field that are shown
VIEW_LIMIT = 240_000  # bytes of a view, as slack_sdk sends it: escaped; Slack takes 250,000
CONFLICTS = 3  # times that another replica may publish in between before we give up
REMEMBERED = 5_000  # people who opened their Home tab since the start: it is refreshed after they vote

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Tab:
    """The state of one person's tab."""

    team: str | None = None
    hash: str | None = None  # of the view published last
    is_busy: bool = False  # it is being published
    is_stale: bool = False  # something has happened since it was read


class SlackHome:
    """The Home tabs of all people, published when opened and after votes."""

    def __init__(self, desk: SlackDesk, *, may_ask: bool = False) -> None:
        """Set it up. `may_ask`: whether the tab has the button that leads to the forms."""
        self._desk = desk
        self._may_ask = may_ask
        self._looking: OrderedDict[str, _Tab] = OrderedDict()

    async def opened(self, user: str, team: str | None, hash: str | None = None) -> None:
        """Show this person their current inbox. `hash`: of the view that Slack shows them now, if any."""
        tab = self._looking.setdefault(user, _Tab())
        tab.team, tab.hash = team, hash or tab.hash
        while len(self._looking) > REMEMBERED:
            self._looking.popitem(last=False)
        await self._show(user, tab)

    async def voted(self, user: str) -> None:
        """Refresh the tab of a person who has opened it before."""
        if user in self._looking:
            await self._show(user, self._looking[user])

    async def _show(self, user: str, tab: _Tab) -> None:
        """Publish one view at a time, so that an older state never replaces a newer one.

        The inbox is read again if it changed meanwhile, or if another replica has published: the hash shows that.
        """
        tab.is_stale = True
        if tab.is_busy:
            return
        tab.is_busy = True
        try:
            conflicts = 0
            while tab.is_stale:
                tab.is_stale = False
                try:
                    answer = await self._desk.client.ask(
                        "views.publish", user_id=user, view=await self._view(user, tab.team), hash=tab.hash
                    )
                except NeverError as conflict:
                    if conflict.code != "hash_conflict" or conflicts >= CONFLICTS:
                        raise
                    conflicts += 1
                    tab.hash, tab.is_stale = None, True
                else:
                    tab.hash = (answer.get("view") or {}).get("hash")
        except SlackError as failure:
            log.warning("A Home tab could not be shown: %s", failure)
        finally:
            tab.is_busy = False

    async def _view(self, user: str, team: str | None) -> Block:
        identity = await self._desk.identities.identify(user, team)
        return (
            stranger_home(identity.text) if isinstance(identity, Unidentified) else await self._home(identity.address)
        )

    async def _home(self, address: str) -> Block:
        engine = self._desk.engine
        pending, voted, asked, decided = await asyncio.gather(
            list_requests(engine, "waiting_for", address, limit=PENDING_SHOWN + 1),
            list_requests(engine, "open_vote_of", address, limit=LATELY_SHOWN + 1),
            list_requests(engine, "requested_by", address, limit=LATELY_SHOWN + 1),
            list_decided(engine, address, limit=LATELY_SHOWN + 1),
        )
        inbox = Inbox(
            pending=self._cards(pending, address),
            voted=self._cards(voted, address),
            asked=self._cards(asked, address),
            decided=self._cards(decided, address),
            may_ask=self._may_ask,
            may_be_away=OwnPeopleStore in engine.resources,
            away=self._away(address),
        )
        return home(inbox)

    def _away(self, address: str) -> str:
        people = self._desk.identities.people
        planned = (*people.own.of(address).away, *people.absences_of(address))
        current = current_absences(planned, self._desk.engine.now().date())
        return absence_text(current[0], people) if current else ""

    def _cards(self, page: RequestPage, address: str) -> Cards:
        cards = [self._card(request, address) for _, request in page.rows if request is not None]
        unreadable = [f"{run.workflow}: {run.status} ({run.id})" for run, request in page.rows if request is None]
        return Cards(cards, page.total, page.is_whole, unreadable)

    def _card(self, view: Request, address: str) -> Card:
        return card_of(view, address, self._desk.engine.now(), url=f"{self._desk.base_url}/requests/{view.id}")


class Cards(NamedTuple):
    """The first cards of a list. `total` is the number of all, or a lower bound unless `is_whole`.

    `plain`: one line for each run whose request can't be read.
    """

    cards: Sequence[Card] = ()
    total: int = 0
    is_whole: bool = True
    plain: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Inbox:
    """One person's requests."""

    pending: Cards
    asked: Cards
    decided: Cards
    voted: Cards  # still open, so the vote can be changed or undone
    may_ask: bool = False  # whether to offer the forms
    may_be_away: bool = False  # whether to offer the form for absences
    away: str = ""  # the next absence, in words


def home(inbox: Inbox) -> Block:
    """Render the inbox: requests waiting for this person, their votes, their requests and decisions.

    Of requests with much text, fewer are shown.
    """
    pending, lately = PENDING_SHOWN, LATELY_SHOWN
    view = _home(inbox, pending, lately)
    while len(json.dumps(view)) > VIEW_LIMIT and pending > 1:
        pending, lately = pending // 2, max(1, lately // 2)
        view = _home(inbox, pending, lately)
    return view


def _home(inbox: Inbox, pending: int, lately: int) -> Block:
    blocks = [
        *_list("Waiting for you", inbox.pending, "You're all caught up.", most=pending, buttons="home"),
        *_list("You voted; others are still deciding", inbox.voted, most=lately, buttons="voted"),
        *_list("Your requests", inbox.asked, most=lately, buttons="asked"),
        *_list("Recently decided", inbox.decided, most=lately),
    ]
    buttons = [{"type": "button", "action_id": "away", "text": plain("Out of office")}] if inbox.may_be_away else []
    if inbox.may_ask:
        buttons.insert(0, {"type": "button", "action_id": "open:", "text": plain("Request approval")})
    if inbox.away:
        blocks.insert(0, {"type": "context", "elements": [plain(one_line(f"Out of office: {inbox.away}", 300))]})
    if buttons:
        blocks.insert(0, {"type": "actions", "block_id": "ask", "elements": buttons})
    return {"type": "home", "blocks": blocks[:100]}


def stranger_home(text: str) -> Block:
    """Render the tab of a user we can't identify."""
    return {"type": "home", "blocks": [{"type": "section", "text": plain(text)}]}


def _list(title: str, found: Cards, nothing: str = "", *, most: int, buttons: str = "") -> list[Block]:
    """Render one list. `buttons`: the start of the choices' block ids; "" for a list without choices."""
    cards = found.cards
    if not (cards or found.plain or nothing):
        return []
    blocks: list[Block] = [{"type": "header", "text": plain(title)}]
    if not (cards or found.plain):
        blocks.append({"type": "section", "text": plain(nothing)})
    shown = cards[:most]
    for index, card in enumerate(shown):
        blocks += _item(card)
        if buttons and (elements := _buttons(card, offers_choices=buttons != "asked")):
            blocks.append({"type": "actions", "block_id": shown_id(card, f"{buttons}{index}"), "elements": elements})
    lines = found.plain[: most - len(shown)]
    blocks += [{"type": "context", "elements": [plain(one_line(line, 300))]} for line in lines]
    if more := found.total - len(shown) - len(lines):
        said = f"… and {'' if found.is_whole else 'at least '}{more} more"
        blocks.append({"type": "context", "elements": [plain(said)]})
    return blocks


def _buttons(card: Card, *, offers_choices: bool) -> list[Block]:
    """Render the choices beside all that a vote is bound to, or a link to the whole request; then the other buttons.

    Nobody approves here what the tab doesn't show. Undoing one's own vote needs no second look.
    """
    if not (offers_choices and card.choices):
        return talk_elements(card)
    if all(_is_whole(field) for field in card.fields if card.signs(field)) and _pinned(card) <= PINNED_SHOWN:
        return [*choice_buttons(card), *talk_elements(card)]
    review = {"type": "button", "action_id": "review", "text": plain("Review"), "style": "primary", "url": card.url}
    undo = tuple(choice for choice in card.choices if choice.choice == "take_back")
    return [*choice_buttons(replace(card, choices=undo)), review, *talk_elements(card)]


def _pinned(card: Card) -> int:
    return sum(card.signs(field) for field in card.fields)


def _is_whole(field: CardField) -> bool:
    """Return whether the list shows the field's whole value."""
    return field.is_short and len(one_line(card_text.line(field))) <= WHOLE


def _line(field: CardField) -> str:
    return f"{one_line(field.label, 60)}: {clip_value(one_line(card_text.line(field)), WHOLE, is_signed=True)}"


def _item(card: Card) -> list[Block]:
    """Render a request in a list: its title, its state, and its pinned fields."""
    title = {"type": "text", "text": one_line(card.title, 300) or "A request", "style": {"bold": True}}
    status: list[Block] = [{"type": "mrkdwn", "text": status_line(card), "verbatim": True}]
    status.append(plain(one_line(card_text.asked_by(card), 200)))
    if claimed := card_text.claimed(card):
        status.append(plain(one_line(claimed, 200)))
    pinned = [field for field in card.fields if card.signs(field)]
    if pinned and card.outcome is None:
        lines = [_line(field) for field in pinned if field.is_short][:PINNED_SHOWN]
        left = len(pinned) - len(lines)
        more = [f"… and {left} more pinned {'field' if left == 1 else 'fields'}"] if left > 0 else []
        status.append(plain(" · ".join(lines + more)))
    if card.url:
        status.append({"type": "mrkdwn", "text": f"<{escape(card.url)}|Open>", "verbatim": True})
    return [
        {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [title]}]},
        {"type": "context", "elements": status},
    ]
