"""The content of a mail: a card, or an operator's text, as a subject, a text part and an HTML part. Pure.

Both parts say the same, in the card's order. The text part is complete on its own, with the link on a line of its own.
The HTML part stays under the size at which Gmail clips a mail; the page behind the link shows the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import css_inline
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from approvals_bot.approvals import card_text
from approvals_bot.approvals.plain_text import clean, clip, clip_value, header, one_line
from approvals_bot.approvals.port import STATE_WORDS, Card, CardChoice, CardField, ChoiceName, Dispatch, ToPerson
from approvals_bot.approvals.text import CHOSEN

HTML_LIMIT = 90_000  # bytes; Gmail clips at 102 KB, transfer encoding and the text part not counted
TEXT_LIMIT = 60_000  # bytes

_INLINER = css_inline.CSSInliner(keep_style_tags=True, load_remote_stylesheets=False, extra_css=None)


def _clean(value: Any) -> Any:
    """Show what nobody could see in people's text, such as a name that changes the direction of what comes after it."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_TEMPLATES = Environment(
    loader=PackageLoader("approvals_bot.channels.email", "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    finalize=_clean,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True, slots=True)
class Letter:
    """The readable part of a mail."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class LetterLimits:
    """How much of a card is shown. The first of `ROOMS` that fits is used."""

    html_long: int  # characters of a long field in the HTML part
    text_long: int  # … and in the text part
    short: int
    rows: int  # at most so many fields, votes and seats each


ROOMS = (
    LetterLimits(3_000, 20_000, 500, 60),
    LetterLimits(1_200, 3_000, 300, 30),
    LetterLimits(300, 800, 120, 15),
    LetterLimits(80, 120, 80, 8),
)


def write(dispatch: Dispatch, now: datetime) -> Letter:
    """Write the letter for this dispatch."""
    for room in ROOMS:
        letter = _write(dispatch, now, room)
        if len(letter.html.encode()) <= HTML_LIMIT and len(letter.text.encode()) <= TEXT_LIMIT:
            break
    return letter


def write_together(dispatches: Sequence[Dispatch], now: datetime) -> Letter:
    """Write one letter about several requests, each with the reader's own link and no choices."""
    to = dispatches[0].to
    assert isinstance(to, ToPerson), "a letter goes to a mailbox"
    zone, count = to.person.zone, len(dispatches)
    rows = [
        {
            "card": dispatch.card,
            "title": one_line(dispatch.card.title, 200),
            "link": dispatch.url,
            "deadline": _deadline(dispatch.card, zone, now),
            "is_reminder": dispatch.occasion == "reminder",
        }
        for dispatch in dispatches
    ]
    titles = "; ".join(one_line(dispatch.card.title, 60) for dispatch in dispatches[:4])
    names: dict[str, Any] = {
        "subject": f"{count} requests are waiting for you",
        "preheader": one_line(titles, 140),
        "rows": rows,
        "moment": lambda at: card_text.moment(at, zone),
        "card_text": card_text,
    }
    html = _INLINER.inline(_TEMPLATES.get_template("digest.html").render(names))
    return Letter(names["subject"], _squeezed(_TEMPLATES.get_template("digest.txt").render(names)), html)


def subject(dispatch: Dispatch) -> str:
    """Return the mail's subject: the outcome, or the thread's first subject while there is none."""
    card = dispatch.card
    outcome = header(f"{STATE_WORDS[card.state][1]}: {card.title}")
    if card.outcome is not None and dispatch.occasion != "code":
        return outcome
    if dispatch.thread is not None:
        return header(f"Re: Please decide: {card.title}")
    if dispatch.occasion == "code":
        return header(f"Your code: {card.title}")
    if dispatch.text or dispatch.occasion == "outcome":
        return outcome
    return header(f"Please decide: {card.title}" if card.choices else card.title)


def occasion(dispatch: Dispatch) -> str:
    """Return why this mail comes now, in one line; "" where the state says so already."""
    if dispatch.card.outcome is not None or dispatch.text:
        return ""
    match dispatch.occasion:
        case "reminder":
            return "Reminder: this is still waiting for you."
        case "escalation":
            return "Nobody has decided yet, so this has been escalated to you."
        case "change":
            return card_text.changed(dispatch.card)
        case "reassigned":
            return "This has been reassigned. There's nothing more for you to do."
        case "vote":
            return "Your vote has been counted. There's nothing more for you to do."
        case _:
            return "Your decision is needed." if dispatch.card.choices else ""


def not_you(dispatch: Dispatch) -> str:
    """Return the reader's vote, and what to do if it wasn't them; "" for people who haven't voted.

    Anybody who has the link can vote with it, so the person it was made for must hear of each vote. While the request
    is open, they can undo the vote with the link after this sentence; later, only people can help.
    """
    assert isinstance(dispatch.to, ToPerson), "a letter goes to a mailbox"
    card, reader = dispatch.card, dispatch.to.person.address
    mine = [vote for vote in card.votes if vote.by.key == reader and vote.counts]
    if not mine or dispatch.text:
        return ""
    did = f"You {CHOSEN[mine[-1].choice]} {card_text.VIA_WORDS[mine[-1].via]}".rstrip()
    if _can_take_back(card):
        return f"{did}. Not you? You can undo this vote while the request is open:"
    human = next((name.text for name in (card.requester, card.on_behalf_of) if name and "@" in name.key), "")
    contact = f"{human} and your Approvals admin" if human else "your Approvals admin"
    return f"{did}. Not you? The vote can no longer be undone, so please contact {contact} right away."


def _write(dispatch: Dispatch, now: datetime, room: LetterLimits) -> Letter:
    assert isinstance(dispatch.to, ToPerson), "a letter goes to a mailbox"
    card, link = _fitting(dispatch.card, room), dispatch.url
    if dispatch.occasion == "code":  # a code is for the page that asked for it, so the mail offers nothing else
        card, link = replace(card, choices=()), ""
    zone = dispatch.to.person.zone
    because = card.outcome.because.strip() if card.outcome else ""
    names: dict[str, Any] = {
        "card": card,
        "because": because,
        "reader": one_line(dispatch.to.person.name, 80),
        "subject": subject(dispatch),
        "occasion": occasion(dispatch),
        "note": clip(clean(dispatch.text), 20_000),
        "preheader": _preheader(dispatch, now),
        "deadline": _deadline(card, zone, now),
        "own_vote": not_you(dispatch),
        "take_back": _to_choose(link, "take_back") if _can_take_back(card) else "",
        "moment": lambda at: card_text.moment(at, zone),
        "link": link,
        "is_requester": card.outcome is None and dispatch.to.person.address in _requesters(card),
        "to_choose": lambda choice: _to_choose(link, choice.choice),
        "rank": lambda choice: _rank(card, choice),
        "more_fields": max(0, len(dispatch.card.fields) - room.rows),
        "more_votes": max(0, len(dispatch.card.votes) - room.rows),
        "card_text": card_text,
        "clip": clip,
        "cut": lambda field: clip_value(field.value, room.html_long, is_signed=card.signs(field)),
        "room": room,
    }
    html = _INLINER.inline(_TEMPLATES.get_template("letter.html").render(names))
    return Letter(names["subject"], _squeezed(_TEMPLATES.get_template("letter.txt").render(names)), html)


def _requesters(card: Card) -> tuple[str, ...]:
    """Return the people who may edit and withdraw it on the page behind the link."""
    return tuple(name.key for name in (card.requester, card.on_behalf_of) if name)


def _fitting(card: Card, room: LetterLimits) -> Card:
    """Clean the card's texts and cut its lists. Pinned fields come first, because votes are bound to them."""
    fields = sorted(card.fields, key=lambda field: not field.pinned)[: room.rows]
    return replace(
        card,
        title=one_line(card.title, 200),
        instructions=clip(clean(card.instructions), room.text_long),
        fields=tuple(_fitting_field(card, field, room) for field in fields),
        votes=tuple(replace(vote, comment=clip(clean(vote.comment), room.short)) for vote in card.votes[-room.rows :]),
        stages=tuple(replace(stage, seats=stage.seats[: room.rows]) for stage in card.stages[: room.rows]),
        notes=tuple(one_line(note, 200) for note in card.notes),
        deliveries=card_text.undelivered(card)[: room.rows],
        outcome=card.outcome and replace(card.outcome, comment=clip(clean(card.outcome.comment), room.short)),
    )


def _fitting_field(card: Card, field: CardField, room: LetterLimits) -> CardField:
    limit, is_signed = room.short if field.is_short else room.text_long, card.signs(field)
    value = clip_value(clean(field.value), limit, is_signed=is_signed)
    was = None if field.was is None else clip_value(one_line(field.was), min(limit, 200), is_signed=is_signed)
    return replace(field, label=one_line(field.label, 100), value=value or "–", was=was)


def _preheader(dispatch: Dispatch, now: datetime) -> str:
    """Return what mailboxes show after the subject: requester and deadline, or the outcome."""
    card = dispatch.card
    if dispatch.text:
        return one_line(dispatch.text, 140)
    if card.outcome is not None:
        comment = f": “{card.outcome.comment}”" if card.outcome.comment else "."
        return one_line(card_text.outcome(card.outcome) + comment, 140)
    due = f" Due {card_text.until(card.deadline, now)}." if card.deadline and card.choices else ""
    return one_line(f"{card_text.asked_by(card)}.{due}", 140)


def _deadline(card: Card, zone: str, now: datetime) -> str:
    if card.deadline is None or card.outcome is not None:
        return ""
    then = f"; {card.on_deadline}" if card.on_deadline else ""
    return f"{card_text.moment(card.deadline, zone)} ({card_text.until(card.deadline, now)}){then}"


def _can_take_back(card: Card) -> bool:
    return any(choice.choice == "take_back" for choice in card.choices)


def _to_choose(link: str, choice: ChoiceName) -> str:
    """Return the link to the page with this choice first. Only a button on that page decides."""
    return link + ("&" if "?" in link else "?") + urlencode({"choice": choice}) if link else ""


def _rank(card: Card, choice: CardChoice) -> str:
    """Return the choice's look: Approve is filled, Reject outlined, the others are links."""
    return {"primary": "filled", "danger": "outlined"}.get(choice.style, "link")


def _squeezed(text: str) -> str:
    """Leave at most one empty line at a time, and no trailing blanks."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines).strip() + "\n"
