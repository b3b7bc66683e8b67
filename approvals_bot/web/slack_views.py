"""What Slack shows besides cards: the modal for a choice, its answer, the Home tab. Pure; people's text stays text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from approvals_bot.channels import Ask, Card, CardChoice, phrases
from approvals_bot.channels.slack.blocks import VOTE, choices
from approvals_bot.channels.slack.elements import Block, date_token, escape
from approvals_bot.channels.text import clean, clip, one_line
from approvals_bot.web.slack_inputs import INPUT_LIMIT, ask_input, given, holds, labelled, plain, untouched

TITLE_LIMIT = 24  # characters of a modal's title and buttons
PENDING_SHOWN = 18  # cards that wait for somebody, on her Home tab; Slack allows 100 blocks
LATELY_SHOWN = 5  # … of each other list
PINNED_SHOWN = 3  # pinned fields of a request in a list

VOTE_VIEW = "vote"  # callback ids
COMMENT = "comment"  # block ids; `ask:<name>` for what an approver fills in
ASK = "ask:"


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
        {"type": "section", "text": plain(one_line(card.title, 300))},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": _status(card), "verbatim": True}]},
        *(ask_input(ASK + ask.name, ask) if holds(ask) else _too_long(ask) for ask in choice.asks[:50]),
    ]
    if choice.comment != "none":
        blocks.append(_comment(choice))
    return {
        "type": "modal",
        "callback_id": VOTE_VIEW,
        "private_metadata": opened.dump(),
        "title": plain(one_line(choice.short, TITLE_LIMIT)),
        "submit": plain(one_line(choice.short, TITLE_LIMIT)),
        "close": plain("Not now"),
        "blocks": blocks,
    }


def _too_long(ask: Ask) -> Block:
    text = f"{one_line(ask.label, 100)} is too long for a form in Slack. It stays as it is; the page can change it."
    return {"type": "context", "elements": [plain(text)]}


def said_modal(text: str) -> Block:
    """One sentence: what became of what was submitted."""
    section = {"type": "section", "text": plain(clip(clean(text), INPUT_LIMIT))}
    return {"type": "modal", "title": plain("Approvals"), "close": plain("Close"), "blocks": [section]}


def _comment(choice: CardChoice) -> Block:
    label = {
        "reject": "Why do you reject it?",
        "changes": "What should be changed?",
        "answer": "Your answer",
    }.get(choice.choice, "Comment")
    block = labelled(COMMENT, label, {"type": "plain_text_input", "multiline": True, "max_length": INPUT_LIMIT})
    return block | {"optional": choice.comment != "required"}


def changed_your_mind(text: str, card: Card) -> list[Block]:
    """What became of a vote, and the button that takes it back."""
    button = {
        "type": "button",
        "action_id": f"{VOTE}take_back",
        "text": plain("Take back"),
        "value": card.hook_id,
        "accessibility_label": "Take back your vote",
    }
    return [
        {"type": "section", "text": plain(clip(clean(text), INPUT_LIMIT))},
        {"type": "actions", "block_id": f"mind:{card.version}", "elements": [button]},
    ]


# ── what was filled in ────────────────────────────────────────────────────────────────────────────────────────────


def filled_in(values: Mapping[str, Any], asks: Sequence[Ask]) -> tuple[str, dict[str, str]]:
    """The comment and the answers of a submitted modal, as texts: the rules read them. Empty inputs are left out."""
    answers = {ask.name: given(values, ASK + ask.name) for ask in asks}
    return given(values, COMMENT), {name: text for name, text in answers.items() if text}


def edits(values: Mapping[str, Any], asks: Sequence[Ask]) -> dict[str, str]:
    """What a submitted modal changes of the fields that it showed, as texts; "" takes a value away."""
    found = {ask: given(values, ASK + ask.name) for ask in asks if ASK + ask.name in values}
    return {ask.name: text for ask, text in found.items() if _plainly(ask, text) != _plainly(ask, untouched(ask))}


def _plainly(ask: Ask, text: str) -> str:
    """An input of one line holds no line breaks, wherever its first value had some."""
    return text if ask.type == "text" else " ".join(text.split())


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


# ── the Home tab ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Inbox:
    """One person's requests."""

    pending: Sequence[Card]
    asked: Sequence[Card]
    decided: Sequence[Card]
    voted: Sequence[Card] = ()  # still open, so the vote may be changed or taken back
    may_ask: bool = False  # whether there is something that she may ask for


def home(inbox: Inbox) -> Block:
    """What waits for this person, what she voted on and asked for, and what was decided lately."""
    blocks = [
        *_list("Waiting for you", inbox.pending, "Nothing waits for you.", most=PENDING_SHOWN, buttons="home"),
        *_list("You voted, others are still asked", inbox.voted, buttons="voted"),
        *_list("You asked for", inbox.asked),
        *_list("Decided lately", inbox.decided),
    ]
    if inbox.may_ask:
        ask = {"type": "button", "action_id": "open:", "text": plain("Ask for approval")}
        blocks.insert(0, {"type": "actions", "block_id": "ask", "elements": [ask]})
    return {"type": "home", "blocks": blocks[:100]}


def stranger_home(text: str) -> Block:
    """For those who are nobody here."""
    return {"type": "home", "blocks": [{"type": "section", "text": plain(text)}]}


def _list(
    title: str, cards: Sequence[Card], nothing: str = "", *, most: int = LATELY_SHOWN, buttons: str = ""
) -> list[Block]:
    """`buttons`: what the ids of the choices begin with; "" for a list without any."""
    if not cards and not nothing:
        return []
    blocks: list[Block] = [{"type": "header", "text": plain(title)}]
    if not cards:
        blocks.append({"type": "section", "text": plain(nothing)})
    shown = cards[:most]
    for index, card in enumerate(shown):
        blocks += _item(card)
        if buttons and card.choices:
            blocks.append(choices(card, f"{buttons}{index}"))
    if len(cards) > len(shown):
        blocks.append({"type": "context", "elements": [plain(f"… and {len(cards) - len(shown)} more")]})
    return blocks


def _item(card: Card) -> list[Block]:
    """A request in a list: its title, where it stands, and what its digest is of."""
    title = {"type": "text", "text": one_line(card.title, 300) or "A request", "style": {"bold": True}}
    status: list[Block] = [{"type": "mrkdwn", "text": _status(card), "verbatim": True}]
    status.append(plain(one_line(phrases.asked_by(card), 200)))
    pinned = [
        f"{field.label}: {one_line(field.value, 60)}" for field in card.fields if field.pinned and field.kind == "short"
    ]
    if pinned and card.outcome is None:
        status.append(plain(one_line(" · ".join(pinned[:PINNED_SHOWN]), 250)))
    if card.url:
        status.append({"type": "mrkdwn", "text": f"<{escape(card.url)}|Open>", "verbatim": True})
    return [
        {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [title]}]},
        {"type": "context", "elements": status},
    ]


def _status(card: Card) -> str:
    """Our own words, so it may be mrkdwn: state, count, deadline in the reader's zone."""
    parts = [escape(phrases.outcome(card.outcome) if card.outcome else phrases.state(card))]
    if done := phrases.progress(card):
        parts.append(done)
    if card.deadline is not None and card.outcome is None:
        parts.append(f"until {date_token(card.deadline)}")
    return clip(" · ".join(parts), 1_000)
