"""Inputs of modals: a field becomes what Slack shows for its type, and what was put in becomes text again. Pure.

Texts are read by the fields' own rules, the same as from the API and the pages, so Slack's inputs only help to type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from approvals_bot.channels import Ask
from approvals_bot.channels.slack.elements import Block
from approvals_bot.channels.text import clean, length, one_line

OPTION_LIMIT = 75  # characters of an option's text
VALUE_LIMIT = 150  # … of its value
OPTIONS_LIMIT = 100  # options of a menu or of one of its groups
GROUPS_LIMIT = 100
INPUT_LIMIT = 3_000  # characters that somebody may type
LABEL_LIMIT = 200
HINT_LIMIT = 200
VALUE = "value"  # action id of every input

HINTS = {
    "money": "An amount such as 1250.00",
    "decimal": "A number such as 12.5",
    "duration": "Such as 1h30m",
    "email": "A mail address",
    "url": "An address that starts with https://",
}


def plain(text: str) -> Block:
    return {"type": "plain_text", "text": text or "–", "emoji": False}


def ask_input(block_id: str, ask: Ask, *, bounds: Mapping[str, Any] | None = None, hint: str = "") -> Block:
    """An input for this field. `bounds` are Slack's own limits of the element, such as `max_length`."""
    element = _element(ask, bounds or {})
    block = labelled(block_id, one_line(ask.label, LABEL_LIMIT) or ask.name, element)
    said = one_line(hint or HINTS.get(ask.type, ""), HINT_LIMIT)
    return block | {"optional": not ask.required} | ({"hint": plain(said)} if said else {})


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


def untouched(ask: Ask) -> str:
    """What `given` says of this field's input while nobody has touched it."""
    element = ask_input("", ask)["element"]
    first = {"value": element.get("initial_value")}
    first |= {f"selected_{name}": element.get(f"initial_{name}") for name in ("option", "date", "date_time")}
    return given({"": {VALUE: {key: value for key, value in first.items() if value is not None}}}, "")


def holds(ask: Ask) -> bool:
    """Whether the field's input holds all of what it says now, so that sending it back untouched cuts nothing off."""
    return length(clean(ask.value)) <= INPUT_LIMIT


def _element(ask: Ask, bounds: Mapping[str, Any]) -> Block:
    if ask.type == "boolean":
        return _menu([("Yes", "true"), ("No", "false")], ask.value)
    if ask.type == "enum" and 0 < len(ask.values) <= OPTIONS_LIMIT * GROUPS_LIMIT and all(map(_fits, ask.values)):
        return _menu([(value, value) for value in ask.values], ask.value)
    if ask.type == "date":
        return {"type": "datepicker", **({"initial_date": ask.value} if _is_date(ask.value) else {})}
    if ask.type == "datetime":
        at = _moment(ask.value)
        return {"type": "datetimepicker", **({"initial_date_time": at} if at else {})}
    element: Block = _TYPED.get(ask.type) or {
        "type": "plain_text_input",
        "multiline": ask.type == "text",
        "max_length": INPUT_LIMIT,
    }
    first = clean(ask.value)[:INPUT_LIMIT]
    is_fit = bool(first) and (ask.type != "integer" or re.fullmatch(r"-?[0-9]{1,18}", first))
    return element | dict(bounds) | ({"initial_value": first} if is_fit else {})


_TYPED: dict[str, Block] = {
    "integer": {"type": "number_input", "is_decimal_allowed": False},
    "email": {"type": "email_text_input"},
    "url": {"type": "url_text_input"},
}


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
