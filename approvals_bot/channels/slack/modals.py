"""Modals: the one for a choice, its answer, and their inputs. Pure; people's text stays text.

A field becomes what Slack shows for its type, and what was put in becomes text again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Reply
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.plain_text import clean, clip, length, one_line
from approvals_bot.approvals.port import Card, CardChoice, FormField
from approvals_bot.approvals.text import UNCHANGED
from approvals_bot.channels.slack.blocks import VOTE, Block, date_token, escape, plain

TITLE_LIMIT = 24  # characters of a modal's title and buttons

VOTE_VIEW = "vote"  # callback ids
COMMENT = "comment"  # block ids; `ask:<name>` for what an approver fills in
ASK = "ask:"

OPTION_LIMIT = 75  # characters of an option's text
VALUE_LIMIT = 150  # … of its value
OPTIONS_LIMIT = 100  # options of a menu or of one of its groups
GROUPS_LIMIT = 100
INPUT_LIMIT = 3_000  # characters that somebody may type
LABEL_LIMIT = 200
HINT_LIMIT = 200
PLACEHOLDER_LIMIT = 150
VALUE = "value"  # action id of every input
HINTS = {
    "decimal": "A number such as 12.5",
    "duration": "Such as 1h30m",
    "email": "A mail address",
    "url": "An address that starts with https://",
}
_TYPED: dict[str, Block] = {
    "integer": {"type": "number_input", "is_decimal_allowed": False},
    "email": {"type": "email_text_input"},
    "url": {"type": "url_text_input"},
}


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


def vote_modal(card: Card, choice: CardChoice, opened: Opened) -> Block:
    """Asks for the comment and the answers that this choice wants."""
    blocks: list[Block] = [
        {"type": "section", "text": plain(one_line(card.title, 300))},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": status_line(card), "verbatim": True}]},
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


def _too_long(ask: FormField) -> Block:
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
        "text": plain("Undo vote"),
        "value": card.hook_id,
        "accessibility_label": "Take back your vote",
    }
    return [
        {"type": "section", "text": plain(clip(clean(text), INPUT_LIMIT))},
        {"type": "actions", "block_id": f"mind:{card.version}", "elements": [button]},
    ]


def status_line(card: Card) -> str:
    """Our own words, so it may be mrkdwn: state, count, deadline in the reader's zone."""
    parts = [escape(card_text.outcome(card.outcome) if card.outcome else card_text.state(card))]
    if done := card_text.progress(card):
        parts.append(done)
    if card.deadline is not None and card.outcome is None:
        parts.append(f"until {date_token(card.deadline)}")
    return clip(" · ".join(parts), 1_000)


def filled_in(values: Mapping[str, Any], asks: Sequence[FormField]) -> tuple[str, dict[str, str]]:
    """The comment and the answers of a submitted modal, as texts: the rules read them. Empty inputs are left out."""
    answers = {ask.name: given(values, ASK + ask.name) for ask in asks}
    return given(values, COMMENT), {name: text for name, text in answers.items() if text}


def edits(values: Mapping[str, Any], asks: Sequence[FormField]) -> dict[str, str]:
    """What a submitted modal changes of the fields that it showed, as texts; "" takes a value away."""
    found = {ask: given(values, ASK + ask.name) for ask in asks if ASK + ask.name in values}
    return {ask.name: text for ask, text in found.items() if _plainly(ask, text) != _plainly(ask, untouched(ask))}


def _plainly(ask: FormField, text: str) -> str:
    """An input of one line holds no line breaks, wherever its first value had some."""
    return text if ask.spec.type == "text" else " ".join(text.split())


def complaint(reply: Reply, values: Mapping[str, Any], asks: Sequence[FormField]) -> dict[str, str] | None:
    """Where in the modal each thing that is wrong belongs; None when the modal has no inputs.

    What is wrong with no input is said at the comment, or at the first input.
    """
    names = [ask.name for ask in asks if ASK + ask.name in values]
    wrong = {each.path[0]: each.text for each in reply.rejections if each.path and each.path[0] in names}
    errors = {ASK + name: f"{text[:1].upper()}{text[1:].rstrip('.')}. {UNCHANGED}" for name, text in wrong.items()}
    if errors or not values:
        return errors or None
    return {COMMENT if COMMENT in values else next(iter(values)): reply.text}


def ask_input(block_id: str, ask: FormField, *, bounds: Mapping[str, Any] | None = None) -> Block:
    """An input for this field. `bounds` are Slack's own limits of the element, such as `max_length`."""
    element = _element(ask, bounds or {})
    block = labelled(block_id, one_line(ask.label, LABEL_LIMIT) or ask.name, element)
    hint = one_line(_hint(ask.spec), HINT_LIMIT)
    return block | {"optional": not ask.spec.required} | ({"hint": plain(hint)} if hint else {})


def _hint(spec: FieldSpec) -> str:
    if spec.hint is not None:
        return spec.hint
    if spec.type == "money":
        return f"An amount in {spec.currency}, such as 1250.00"
    if spec.longest is not None and spec.longest > INPUT_LIMIT:
        return f"At most {INPUT_LIMIT:,} characters in Slack"
    return HINTS.get(spec.type, "")


def labelled(block_id: str, label: str, element: Block) -> Block:
    return {
        "type": "input",
        "block_id": block_id[:255],
        "label": plain(label),
        "element": element | {"action_id": VALUE},
    }


def given(values: Mapping[str, Any], block_id: str) -> str:
    """What was put into an input, as text; "" when nothing was."""
    match (values.get(block_id) or {}).get(VALUE):
        case (
            {"selected_option": {"value": str(value)}}
            | {"selected_date": str(value)}
            | {"selected_user": str(value)}
            | {"value": str(value)}
        ):
            return value
        case {"selected_date_time": int(value)}:
            return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
        case _:
            return ""


def untouched(ask: FormField) -> str:
    """What `given` says of this field's input while nobody has touched it."""
    element = ask_input("", ask)["element"]
    first = {"value": element.get("initial_value")}
    first |= {f"selected_{name}": element.get(f"initial_{name}") for name in ("option", "date", "date_time")}
    return given({"": {VALUE: {key: value for key, value in first.items() if value is not None}}}, "")


def holds(ask: FormField) -> bool:
    """Whether the field's input holds all of what it says now, so that sending it back untouched cuts nothing off."""
    return length(clean(ask.value)) <= INPUT_LIMIT


def _element(ask: FormField, bounds: Mapping[str, Any]) -> Block:
    if ask.spec.type == "boolean":
        return _menu([("Yes", "true"), ("No", "false")], ask.value)
    values = ask.spec.values or ()
    if ask.spec.type == "enum" and 0 < len(values) <= OPTIONS_LIMIT * GROUPS_LIMIT and all(map(_fits, values)):
        return _menu([(value, value) for value in values], ask.value)
    if ask.spec.type == "date":
        return {"type": "datepicker", **({"initial_date": ask.value} if _is_date(ask.value) else {})}
    if ask.spec.type == "datetime":
        at = _moment(ask.value)
        return {"type": "datetimepicker", **({"initial_date_time": at} if at else {})}
    element: Block = _TYPED.get(ask.spec.type) or {
        "type": "plain_text_input",
        "multiline": ask.spec.type == "text",
        "max_length": INPUT_LIMIT,
    }
    first = clean(ask.value)[:INPUT_LIMIT]
    is_fit = bool(first) and (ask.spec.type != "integer" or re.fullmatch(r"-?[0-9]{1,18}", first))
    example = "" if ask.spec.example is None else one_line(str(ask.spec.example), PLACEHOLDER_LIMIT)
    placeholder = {"placeholder": plain(example)} if example else {}
    return element | dict(bounds) | placeholder | ({"initial_value": first} if is_fit else {})


def _fits(value: str) -> bool:
    return 0 < length(clean(value)) == length(value) <= VALUE_LIMIT


def _menu(options: Sequence[tuple[str, str]], chosen: str) -> Block:
    shown = [{"text": plain(one_line(text, OPTION_LIMIT)), "value": value} for text, value in options]
    first = [option for option in shown if option["value"] == chosen]
    menu: Block = {"type": "static_select", **({"initial_option": first[0]} if first else {})}
    if len(shown) <= OPTIONS_LIMIT:
        return menu | {"options": shown}
    parts = [shown[at : at + OPTIONS_LIMIT] for at in range(0, len(shown), OPTIONS_LIMIT)]
    groups = [
        {"label": plain(f"{at * OPTIONS_LIMIT + 1}–{at * OPTIONS_LIMIT + len(part)}"), "options": part}
        for at, part in enumerate(parts)
    ]
    return menu | {"option_groups": groups}


def _is_date(text: str) -> bool:
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def _moment(text: str) -> int | None:
    """Seconds since 1970, of ten digits as Slack wants them; None for what is no moment of these years."""
    try:
        at = int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        return None
    return at if len(str(at)) == 10 else None
