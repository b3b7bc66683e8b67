"""What Slack shows besides cards: the modal for a choice, its answer, the Home tab. Pure; people's text stays text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from approvals_bot.channels import Ask, Card, CardChoice, phrases
from approvals_bot.channels.slack.blocks import Block, date_token, escape
from approvals_bot.channels.text import clean, clip, length, one_line

TITLE_LIMIT = 24  # characters of a modal's title and buttons
OPTION_LIMIT = 75
VALUE_LIMIT = 150
OPTIONS_LIMIT = 100
INPUT_LIMIT = 3_000
PENDING_SHOWN = 20  # cards of each list of the Home tab; Slack allows 100 blocks

VOTE_VIEW = "vote"  # callback ids
COMMENT = "comment"  # block ids; `ask:<name>` for what an approver fills in
ASK = "ask:"
VALUE = "value"  # action id of every input


@dataclass(frozen=True, slots=True)
class Opened:
    """What a modal remembers between opening and submitting. It grants nothing: who submits is established anew."""

    hook_id: str
    choice: str
    digest: str | None
    channel: str = ""

    def dump(self) -> str:
        return json.dumps({"h": self.hook_id, "c": self.choice, "d": self.digest, "ch": self.channel})

    @classmethod
    def load(cls, text: str) -> Opened:
        """Raises ValueError or KeyError when it is not ours."""
        said = json.loads(text)
        return cls(str(said["h"]), str(said["c"]), said["d"], str(said["ch"]))


# ── a choice that needs words ─────────────────────────────────────────────────────────────────────────────────────


def vote_modal(card: Card, choice: CardChoice, opened: Opened) -> Block:
    """Asks for the comment and the answers that this choice wants."""
    blocks: list[Block] = [
        {"type": "section", "text": _plain(one_line(card.title, 300))},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": _status(card), "verbatim": True}]},
        *(_ask(ask) for ask in choice.asks[:50]),
    ]
    if choice.comment != "none":
        blocks.append(_comment(choice))
    return {
        "type": "modal",
        "callback_id": VOTE_VIEW,
        "private_metadata": opened.dump(),
        "title": _plain(one_line(choice.short, TITLE_LIMIT)),
        "submit": _plain(one_line(choice.short, TITLE_LIMIT)),
        "close": _plain("Not now"),
        "blocks": blocks,
    }


def said_modal(text: str) -> Block:
    """One sentence: what became of what was submitted."""
    section = {"type": "section", "text": _plain(clip(clean(text), INPUT_LIMIT))}
    return {"type": "modal", "title": _plain("Approvals"), "close": _plain("Close"), "blocks": [section]}


def _comment(choice: CardChoice) -> Block:
    label = {
        "reject": "Why do you reject it?",
        "changes": "What should be changed?",
        "answer": "Your answer",
    }.get(choice.choice, "Comment")
    block = _input(COMMENT, label, {"type": "plain_text_input", "multiline": True, "max_length": INPUT_LIMIT})
    return block | {"optional": choice.comment != "required"}


def _ask(ask: Ask) -> Block:
    block = _input(ASK + ask.name, one_line(ask.label, 200) or ask.name, _element(ask))
    hint = _HINTS.get(ask.type)
    return block | {"optional": not ask.required} | ({"hint": _plain(hint)} if hint else {})


def _element(ask: Ask) -> Block:
    if ask.type == "boolean":
        return _select([("Yes", "true"), ("No", "false")], ask.value)
    if ask.type == "enum" and 0 < len(ask.values) <= OPTIONS_LIMIT and all(map(_fits_an_option, ask.values)):
        return _select([(value, value) for value in ask.values], ask.value)
    if ask.type == "date":
        return {"type": "datepicker", **({"initial_date": ask.value} if _is_date(ask.value) else {})}
    if ask.type == "datetime":
        return {"type": "datetimepicker"}
    if ask.type == "integer":
        element: Block = {"type": "number_input", "is_decimal_allowed": False}
    else:
        element = {"type": "plain_text_input", "multiline": ask.type == "text", "max_length": INPUT_LIMIT}
    first = clean(ask.value)[:INPUT_LIMIT]
    return element | ({"initial_value": first} if first else {})


def _fits_an_option(value: str) -> bool:
    return 0 < length(clean(value)) == length(value) <= VALUE_LIMIT


def _select(options: Sequence[tuple[str, str]], chosen: str) -> Block:
    shown = [{"text": _plain(one_line(text, OPTION_LIMIT)), "value": value} for text, value in options]
    first = [option for option in shown if option["value"] == chosen]
    return {"type": "static_select", "options": shown, **({"initial_option": first[0]} if first else {})}


def _input(block_id: str, label: str, element: Block) -> Block:
    return {
        "type": "input",
        "block_id": block_id[:255],
        "label": _plain(label),
        "element": element | {"action_id": VALUE},
    }


# ── what was filled in ────────────────────────────────────────────────────────────────────────────────────────────


def filled_in(values: Mapping[str, Any], asks: Sequence[Ask]) -> tuple[str, dict[str, str]]:
    """The comment and the answers of a submitted modal, as texts: the rules read them. Empty inputs are left out."""
    answers = {ask.name: _given(values, ASK + ask.name) for ask in asks}
    return _given(values, COMMENT), {name: text for name, text in answers.items() if text}


def complaint(text: str, values: Mapping[str, Any], asks: Sequence[Ask]) -> dict[str, str] | None:
    """Where in the modal each part of `budget_code: …; cost_centre: ….` belongs; None when the modal has no inputs.

    What names no input is said at the comment, or at the first input.
    """
    errors: dict[str, str] = {}
    for part in text.split("; "):
        name, colon, fault = part.partition(": ")
        if colon and ASK + name in values and name in {ask.name for ask in asks}:
            errors[ASK + name] = fault[:1].upper() + fault[1:]
    if errors or not values:
        return errors or None
    return {COMMENT if COMMENT in values else next(iter(values)): text}


def _given(values: Mapping[str, Any], block_id: str) -> str:
    match (values.get(block_id) or {}).get(VALUE):
        case {"selected_option": {"value": str(value)}} | {"selected_date": str(value)} | {"value": str(value)}:
            return value
        case {"selected_date_time": int(value)}:
            return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
        case _:
            return ""


# ── the Home tab ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Inbox:
    """One person's requests."""

    pending: Sequence[Card]
    asked: Sequence[Card]
    decided: Sequence[Card]


def home(inbox: Inbox) -> Block:
    """What waits for this person, what she asked for, and what was decided lately."""
    waiting = _list("Waiting for you", inbox.pending, "Nothing waits for you.", buttons=True)
    asked = _list("You asked for", inbox.asked, "", buttons=False)
    decided = _list("Decided lately", inbox.decided, "", buttons=False)
    return {"type": "home", "blocks": [*waiting, *asked, *decided][:100]}


def stranger_home(text: str) -> Block:
    """For those who are nobody here."""
    return {"type": "home", "blocks": [{"type": "section", "text": _plain(text)}]}


def _list(title: str, cards: Sequence[Card], nothing: str, *, buttons: bool) -> list[Block]:
    if not cards and not nothing:
        return []
    blocks: list[Block] = [{"type": "header", "text": _plain(title)}]
    if not cards:
        blocks.append({"type": "section", "text": _plain(nothing)})
    shown = cards[: PENDING_SHOWN if buttons else 5]
    for index, card in enumerate(shown):
        blocks.append({"type": "section", "text": _plain(one_line(card.title, 300))})
        status = [{"type": "mrkdwn", "text": _status(card), "verbatim": True}]
        who: list[Block] = [_plain(one_line(phrases.asked_by(card), 200))]
        blocks.append({"type": "context", "elements": [*status, *who]})
        if buttons and card.choices:
            blocks.append(_choices(card, index))
    if len(cards) > len(shown):
        blocks.append({"type": "context", "elements": [_plain(f"… and {len(cards) - len(shown)} more")]})
    return blocks


def _choices(card: Card, index: int) -> Block:
    buttons: list[Block] = [
        {
            "type": "button",
            "action_id": f"vote:{choice.choice}",
            "text": _plain(one_line(choice.short, OPTION_LIMIT) or choice.choice),
            "value": card.hook_id,
            "accessibility_label": one_line(choice.label, OPTION_LIMIT) or choice.choice,
            **({"style": choice.style} if choice.style != "link" else {}),
        }
        for choice in card.choices
    ]
    return {
        "type": "actions",
        "block_id": f"home{index}:{card.version}:{card.digest}"[:255],
        "elements": buttons,
    }


def _status(card: Card) -> str:
    """Our own words, so it may be mrkdwn: state, count, deadline in the reader's zone."""
    parts = [escape(phrases.outcome(card.outcome) if card.outcome else phrases.state(card))]
    if done := phrases.progress(card):
        parts.append(done)
    if card.deadline is not None and card.outcome is None:
        parts.append(f"until {date_token(card.deadline)}")
    return clip(" · ".join(parts), 1_000)


def _is_date(text: str) -> bool:
    return len(text) == 10 and text[4] == text[7] == "-" and text.replace("-", "").isdecimal()


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text or "–", "emoji": False}


_HINTS = {
    "money": "An amount such as 1250.00",
    "decimal": "A number such as 12.5",
    "duration": "Such as 1h30m",
    "email": "A mail address",
    "url": "An address that starts with https://",
}
