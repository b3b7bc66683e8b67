"""A card as a Slack message: a top-level text and Block Kit blocks. Pure.

People's text goes in as `plain_text` and `rich_text` only, which have no syntax to inject: `<!channel>` stays those ten
characters. The one `mrkdwn` line is ours, for Slack's date token that shows the deadline in the reader's zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from approvals_bot.channels import Card, CardChoice, CardField, CardVote, Dispatch, phrases
from approvals_bot.channels.slack.elements import (
    HEADER_LIMIT,
    TEXT_LIMIT,
    Block,
    block_id_of,
    cut_to,
    date_token,
    dated,
    escape,
    plain,
    rich,
    said,
    section,
    sentence,
    size,
    with_breaks,
)
from approvals_bot.channels.slack.notes import note, told
from approvals_bot.channels.text import clean, clip, one_line

CARD_LIMIT = 8_000  # characters of the blocks as JSON; Slack refuses a message at about 13,200 of text
BLOCK_LIMIT = 50  # per message
BRIEF = 60  # characters of a long field that are shown as those of a short one
ID_LIMIT = 255  # of a block_id
BUTTON_LIMIT = 75  # of a button's text; Slack shows about 30
CONFIRM_LIMITS = {"title": 100, "text": 300, "button": 30}
VOTE = "vote:"  # action ids are `vote:approve`, `vote:reject`, …
WHY = "why"  # the action id of "Why am I asked?"
SHORT_DIGEST = 12  # characters of a digest that people see, as on the pages; votes are bound to all of it
METADATA = "approvals_bot_delivery"  # the event_type of our messages' metadata, which names the delivery


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a card is shown; the first that fits into a message is taken."""

    long: int  # characters of a long field
    short: int  # … of a short one and of a comment
    rows: int  # fields, votes, stages, seats: of each at most so many
    longs: int = 6  # long fields


ROOMS = (Room(2_400, 300, 20), Room(1_200, 200, 12), Room(500, 120, 8, 4), Room(200, 80, 6, 2), Room(80, 40, 3, 1))


def message(dispatch: Dispatch) -> tuple[str, list[Block]]:
    """What is posted for this dispatch: the card, a note in its thread, or the operator's own text."""
    if dispatch.text:
        return told(dispatch)
    if dispatch.thread is not None:
        return note(dispatch)
    return card_message(dispatch.card)


def card_message(card: Card) -> tuple[str, list[Block]]:
    """The whole card, as it stands. Decided cards keep everything but the buttons."""
    for room in ROOMS:
        blocks = _blocks(card, room)
        if len(blocks) <= BLOCK_LIMIT and size(blocks) <= CARD_LIMIT:
            break
    return summary(card), blocks


def summary(card: Card) -> str:
    """The top-level text: `⏳ Waiting: Deploy api 2.1 to prod. Asked by Bo Lund.`, escaped."""
    title = clip(one_line(card.title, 250), 250)
    if card.outcome is not None:
        return escape(f"{phrases.outcome(card.outcome)}: {title}")[: TEXT_LIMIT * 2]
    return escape(one_line(f"{phrases.state(card)}: {title}. {phrases.asked_by(card)}.", TEXT_LIMIT))


# ── the card, from top to bottom ──────────────────────────────────────────────────────────────────────────────────


def _blocks(card: Card, room: Room) -> list[Block]:
    fields, cut = _fields(card, room)
    return [
        _header(card),
        _status(card),
        rich("who", card, [section(*_who(card))]),
        *_outcome(card, room),
        *fields,
        *_people(card, room),
        *_undelivered(card, room),
        *_waiting(card),
        *_full_page(card, cut or len(card.title) > HEADER_LIMIT or card.state == "changes_requested"),
        *_actions(card),
        *_small_print(card),
    ]


def _header(card: Card) -> Block:
    title = one_line(card.title, HEADER_LIMIT) or "A request"
    return {"type": "header", "block_id": block_id_of("title", card), "text": plain(title)}


def _status(card: Card) -> Block:
    """Our own words only, so it may be mrkdwn."""
    icon, _, word = phrases.state(card).partition(" ")
    parts = [f"{icon} *{word}*"]
    if done := phrases.progress(card):
        parts.append(done)
    if card.deadline is not None and card.outcome is None:
        then = f", {escape(one_line(card.on_deadline, 100))}" if card.on_deadline else ""
        parts.append(f"until {date_token(card.deadline)}{then}")
    text = {"type": "mrkdwn", "text": " · ".join(parts), "verbatim": True}
    return {"type": "context", "block_id": block_id_of("state", card), "elements": [text]}


def _who(card: Card) -> list[Block]:
    return [said(one_line(phrases.asked_by(card), 200) + ", "), dated(card.asked_at)]


def _outcome(card: Card, room: Room) -> list[Block]:
    ended = card.outcome
    if ended is None:
        return []
    elements = [
        section(
            said(one_line(phrases.outcome(ended), 200), bold=True),
            said(", "),
            dated(ended.at),
            *([said(f"\n{sentence(one_line(ended.because, room.short))}")] if ended.because.strip() else []),
        )
    ]
    if comment := cut_to(ended.comment, room.short * 2):
        elements.append({"type": "rich_text_quote", "elements": [said(comment)]})
    return [rich("outcome", card, elements)]


def _fields(card: Card, room: Room) -> tuple[list[Block], bool]:
    """Short fields first, pinned ones before the others; then the long ones, folded to the room there is."""
    ordered = sorted(card.fields, key=lambda field: not field.pinned)
    short = [field for field in ordered if _is_brief(field)]
    long = [field for field in ordered if not _is_brief(field)]
    cut = len(short) > room.rows or len(long) > room.longs
    elements: list[Block] = []
    if short:
        lines = [_short_field(field, room) for field in short[: room.rows]]
        elements.append(section(*(part for line in with_breaks(lines) for part in line)))
    for field in long[: room.longs]:
        value = clip(clean(field.value[: room.long * 8]).strip("\n"), room.long) or "–"
        cut = cut or len(value) < len(field.value.strip("\n"))
        elements.append(section(*_label(field)))
        kind = "rich_text_quote" if field.untrusted else "rich_text_preformatted"
        elements.append({"type": kind, "elements": [said(value)]})
    if left := len(short) + len(long) - min(len(short), room.rows) - min(len(long), room.longs):
        elements.append(section(said(f"… and {left} more {'field' if left == 1 else 'fields'}", italic=True)))
    return ([rich("fields", card, elements)] if elements else []), cut


def _is_brief(field: CardField) -> bool:
    """A long field with little in it, or nothing, takes a line like any other."""
    return field.kind == "short" or (len(field.value) <= BRIEF and "\n" not in field.value.strip())


def _short_field(field: CardField, room: Room) -> list[Block]:
    line = [*_label(field), said(": "), said(cut_to(phrases.line(field), room.short) or "–")]
    if field.was is not None:
        line += [said(", was "), said(one_line(field.was, room.short) or "–", strike=True)]
    return line


def _label(field: CardField) -> list[Block]:
    label = [said(one_line(field.label, 80) or "–", bold=True)]
    return [*label, said(" (pinned)", italic=True)] if field.pinned else label


def _people(card: Card, room: Room) -> list[Block]:
    """The row of steps, the seats of the open stage, and who voted what."""
    lines: list[list[Block]] = []
    if steps := phrases.steps(card, most=min(room.rows, 12)):
        lines.append([said(one_line(steps, 600))])
    for stage in [stage for stage in card.stages if stage.state == "open"][:3]:
        lines += [[said(one_line(seat, 200))] for seat in phrases.seats(stage)[: room.rows]]
    if earlier := len(card.votes) - room.rows:
        lines += [[said(f"… {earlier} earlier {'vote' if earlier == 1 else 'votes'}")]] if earlier > 0 else []
    lines += [_vote(cast, card, room) for cast in card.votes[-room.rows :]]
    lines += [[said(one_line(note, room.short))] for note in phrases.notes(card, min(room.rows, 6))]
    return [rich("people", card, [section(*(part for line in with_breaks(lines) for part in line))])] if lines else []


def _vote(cast: CardVote, card: Card, room: Room) -> list[Block]:
    line = [said(one_line(phrases.vote(cast), 200)), said(", "), dated(cast.at)]
    comment = one_line(phrases.own_comment(cast, card), room.short)
    return [*line, said(f": “{comment}”")] if comment else line


def _waiting(card: Card) -> list[Block]:
    """Who is waited for; whoever reads it may ask why it is she, or who it is."""
    if card.outcome is not None:
        return []
    why = {"type": "button", "action_id": WHY, "text": plain("Why am I asked?"), "value": card.hook_id[:2_000]}
    text = plain(one_line(phrases.waiting_for(card), 300) or phrases.state(card))
    return [{"type": "section", "block_id": block_id_of("waiting", card), "text": text, "accessory": why}]


def _undelivered(card: Card, room: Room) -> list[Block]:
    lines = [[said(one_line(trouble, 200))] for trouble in phrases.troubles(card)[: room.rows]]
    if not lines:
        return []
    return [rich("undelivered", card, [section(*(part for line in with_breaks(lines) for part in line))])]


def _full_page(card: Card, cut: bool) -> list[Block]:
    if not cut or not card.url:
        return []
    link = {"type": "link", "url": card.url[:3_000], "text": "Open the full request"}
    return [rich("full", card, [section(link)])]


def _actions(card: Card) -> list[Block]:
    return [choices(card, "choices")] if card.choices else []


def choices(card: Card, part: str) -> Block:
    """The buttons of what can be chosen. `part`: what the block's id begins with."""
    buttons = list({choice.choice: _button(card, choice) for choice in card.choices}.values())
    shown = f"{block_id_of(part, card)}:{card.digest}"[:ID_LIMIT]  # the vote is bound to the content that was on screen
    return {"type": "actions", "block_id": shown, "elements": buttons}


def _button(card: Card, choice: CardChoice) -> Block:
    """The short name shows; a screen reader says the whole act. The value grants nothing: it names the request."""
    button: Block = {
        "type": "button",
        "action_id": VOTE + choice.choice,
        "text": plain(one_line(choice.short, BUTTON_LIMIT) or choice.choice),
        "value": card.hook_id[:2_000],
        "accessibility_label": one_line(choice.label, BUTTON_LIMIT) or choice.choice,
    }
    if choice.style != "link":
        button["style"] = choice.style
    if choice.confirm:
        yes = one_line(choice.short, CONFIRM_LIMITS["button"]) or "Yes"
        button["confirm"] = {
            "title": plain(one_line(choice.label, CONFIRM_LIMITS["title"]) or yes),
            "text": plain(cut_to(choice.confirm, CONFIRM_LIMITS["text"]) or yes),
            "confirm": plain(yes),
            "deny": plain("Not now"),
            **({"style": choice.style} if choice.style != "link" else {}),
        }
    return button


def _small_print(card: Card) -> list[Block]:
    parts = [one_line(card.why_me, 200)] if card.why_me else []
    if card.digest:
        parts.append(f"digest {card.digest[:SHORT_DIGEST]}")
    elements = [plain(part) for part in parts if part]
    return [{"type": "context", "block_id": block_id_of("small", card), "elements": elements}] if elements else []


def digest_seen(block_id: str) -> str | None:
    """The digest that the card with these buttons showed; None when nothing was pinned."""
    return block_id.partition(":")[2].partition(":")[2] or None


def delivery_of(message: Mapping[str, Any]) -> str | None:
    """The delivery that this message of Slack's is; None when it is none of ours, or its metadata was not sent along.

    It begins with the run's id.
    """
    metadata = message.get("metadata") or {}
    if metadata.get("event_type") != METADATA:
        return None
    delivery = (metadata.get("event_payload") or {}).get("delivery_id")
    return str(delivery) if delivery else None
