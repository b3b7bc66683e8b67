"""Smaller messages: the operator's own text, and what is said in the thread of a card."""

from __future__ import annotations

from approvals_bot.channels import Dispatch, phrases
from approvals_bot.channels.slack.elements import (
    HEADER_LIMIT,
    TEXT_LIMIT,
    Block,
    cut_to,
    dated,
    escape,
    rich,
    said,
    section,
)
from approvals_bot.channels.text import one_line


def told(dispatch: Dispatch) -> tuple[str, list[Block]]:
    """The operator's own text, as it is."""
    text = cut_to(dispatch.text, 3_000) or one_line(dispatch.card.title, HEADER_LIMIT) or "–"
    elements = [section(said(text))]
    if dispatch.card.url:
        elements.append(section({"type": "link", "url": dispatch.card.url[:3_000], "text": "Open the request"}))
    return escape(one_line(text, TEXT_LIMIT)) or "–", [rich("text", dispatch.card, elements)]


def note(dispatch: Dispatch) -> tuple[str, list[Block]]:
    """A reply in the thread of a card that stands above it: why it comes now, without buttons that could go stale."""
    card = dispatch.card
    parts = [said(one_line(_news(dispatch), 300), bold=True), said("\n" + one_line(card.title, 250))]
    if waiting := phrases.waiting_for(card):
        parts.append(said(f"\n{one_line(waiting, 300)}"))
    if card.deadline is not None and card.outcome is None:
        parts += [said("\nDeadline: "), dated(card.deadline)]
    elements = [section(*parts)]
    if card.outcome is not None and (comment := cut_to(card.outcome.comment, 1_000)):
        elements.append({"type": "rich_text_quote", "elements": [said(comment)]})
    return escape(one_line(f"{_news(dispatch)} {card.title}", TEXT_LIMIT)), [rich("note", card, elements)]


def _news(dispatch: Dispatch) -> str:
    if dispatch.card.outcome is not None:
        return f"{phrases.outcome(dispatch.card.outcome)}."
    match dispatch.occasion:
        case "reminder":
            return "A reminder: this still waits for a decision."
        case "escalation":
            return "Nobody has decided yet, so more people are asked."
        case "change":
            return phrases.changed(dispatch.card)
        case "handover":
            return "Somebody else is asked in your place now. There is nothing more for you to do."
        case _:
            return f"{phrases.state(dispatch.card)}."
