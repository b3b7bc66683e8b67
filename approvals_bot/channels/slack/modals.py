"""Modals: the one for a choice, the one that shows a reply, and inputs for fields. Pure; people's text stays text.

A field becomes Slack's input for its type, and the submitted value becomes text again.
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
from approvals_bot.approvals.card_model import Card, CardChoice, FormField
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.plain_text import clean, clip, length, one_line
from approvals_bot.approvals.text import UNCHANGED
from approvals_bot.channels.slack.blocks import (
    ID_LIMIT,
    VOTE,
    Block,
    cut_to,
    date_token,
    escape,
    paragraph,
    plain,
    rich,
    styled,
)

TITLE_LIMIT = 24  # characters of a modal's title and buttons

VOTE_VIEW = "vote"  # callback ids
STRANGER = "We can't identify this person. Choose a member of this workspace."
COMMENT = "comment"  # block ids; `ask:<name>` for what an approver fills in
ASK = "ask:"

OPTION_LIMIT = 75  # characters of an option's text
VALUE_LIMIT = 150  # … of its value
OPTIONS_LIMIT = 100  # options of a menu or of one of its groups
GROUPS_LIMIT = 100
MOST_INPUTS = 50  # of a modal; Slack takes 100 blocks
INPUT_LIMIT = 3_000  # characters that an input takes
LABEL_LIMIT = 200
HINT_LIMIT = 200
PLACEHOLDER_LIMIT = 150
VALUE = "value"  # action id of every input
HINTS = {
    "decimal": "A number, such as 12.5",
    "duration": "A duration, such as 1h30m",
    "email": "An email address",
    "url": "A URL that starts with https://",
    "list": "One a line",
    "array": 'A list in JSON, such as ["a", "b"]',
    "object": 'An object in JSON, such as {"a": 1}',
}
_TYPED: dict[str, Block] = {
    "integer": {"type": "number_input", "is_decimal_allowed": False},
    "email": {"type": "email_text_input"},
    "url": {"type": "url_text_input"},
}


@dataclass(frozen=True, slots=True)
class Opened:
    """A modal's private metadata. It grants nothing: the person is identified again when they submit."""

    hook_id: str
    choice: str
    digest: str | None
    channel: str = ""
    state: str | None = None  # the mark of the state that the card showed

    def dump(self) -> str:
        said = {"h": self.hook_id, "c": self.choice, "d": self.digest, "ch": self.channel}
        return json.dumps(said if self.state is None else said | {"v": self.state})

    @classmethod
    def load(cls, text: str) -> Opened:
        """Parse it. Raises ValueError, KeyError or TypeError if it isn't ours."""
        said = json.loads(text)
        return cls(str(said["h"]), str(said["c"]), said["d"], str(said["ch"]), said.get("v"))


def vote_modal(
    card: Card, choice: CardChoice, opened: Opened, users: Mapping[str, str] | None = None, *, about: str = ""
) -> Block:
    """Render the modal that asks for this choice's comment and answers.

    `users`: the Slack users of people whom its fields name, by address, as far as they are known. `about`: what the
    choice means.
    """
    asks = [ask for ask in choice.asks if len(ASK + ask.name) <= ID_LIMIT][:MOST_INPUTS]
    blocks: list[Block] = [
        {"type": "section", "text": plain(one_line(card.title, 300))},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": status_line(card), "verbatim": True}]},
        *([{"type": "section", "text": plain(clip(clean(about), INPUT_LIMIT))}] if about else []),
        *(ask_input(ASK + ask.name, ask, users=users) if holds(ask) else _too_long(ask) for ask in asks),
        *([_left_out(len(choice.asks) - len(asks))] if len(choice.asks) > len(asks) else []),
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
    text = (
        f"{one_line(ask.label, 100)} is too long to edit in Slack. It stays unchanged; you can edit it on the web page."
    )
    return {"type": "context", "elements": [plain(text)]}


def _left_out(count: int) -> Block:
    text = f"{count} more values have no room in Slack. They stay unchanged; you can edit them on the web page."
    return {"type": "context", "elements": [plain(text)]}


def reply_modal(text: str) -> Block:
    """Render a modal that shows a reply."""
    return _reply({"type": "section", "text": plain(clip(clean(text), INPUT_LIMIT))})


def linked_modal(text: str, url: str, name: str) -> Block:
    """Render a modal that shows a reply with a link, by its name in the place of the URL: plain text has no links."""
    before, _, after = text.partition(url)
    parts = [styled(before), {"type": "link", "url": url[:INPUT_LIMIT], "text": name}]
    parts += [styled(cut_to(after, INPUT_LIMIT))] if after.strip() else []
    return _reply(rich(paragraph(parts)))


def _reply(section: Block) -> Block:
    return {"type": "modal", "title": plain("Approvals"), "close": plain("Close"), "blocks": [section]}


def _comment(choice: CardChoice) -> Block:
    label = {
        "reject": "Why are you rejecting this?",
        "changes": "What needs to change?",
        "answer": "Your answer",
    }.get(choice.choice, "Comment")
    block = labelled(COMMENT, label, {"type": "plain_text_input", "multiline": True, "max_length": INPUT_LIMIT})
    return block | {"optional": choice.comment != "required"}


def with_undo_button(text: str, card: Card) -> list[Block]:
    """Render the reply to a vote, with the button that undoes it."""
    button = {
        "type": "button",
        "action_id": f"{VOTE}take_back",
        "text": plain("Undo vote"),
        "value": card.hook_id,
        "accessibility_label": "Undo your vote",
    }
    return [
        {"type": "section", "text": plain(clip(clean(text), INPUT_LIMIT))},
        {"type": "actions", "block_id": f"undo:{card.version}", "elements": [button]},
    ]


def status_line(card: Card) -> str:
    """Render the state, the count and the deadline in the reader's zone. Our own words, so mrkdwn is safe."""
    parts = [escape(card_text.outcome(card.outcome) if card.outcome else card_text.state(card))]
    if done := card_text.progress(card):
        parts.append(done)
    if card.deadline is not None and card.outcome is None:
        parts.append(f"Due {date_token(card.deadline)}")
    return clip(" · ".join(parts), 1_000)


def filled_in(values: Mapping[str, Any], asks: Sequence[FormField]) -> tuple[str, dict[str, str]]:
    """Return a submitted modal's comment and answers as texts, which the rules parse. Empty inputs are left out."""
    answers = {ask.name: given(values, ASK + ask.name) for ask in asks}
    return given(values, COMMENT), {name: text for name, text in answers.items() if text}


def edits(
    values: Mapping[str, Any], asks: Sequence[FormField], chosen: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the fields that a submitted modal changed, as texts; "" clears a value. `chosen`: see `chosen_users`."""
    found = {ask: given(values, ASK + ask.name) for ask in asks if ASK + ask.name in values}
    before = {ask: (chosen or {}).get(ASK + ask.name) or untouched(ask) for ask in found}
    return {ask.name: text for ask, text in found.items() if _plainly(ask, text) != _plainly(ask, before[ask])}


def chosen_users(view: Mapping[str, Any]) -> dict[str, str]:
    """Return the users that a modal's inputs showed at first, one a line, by input."""
    found = dict[str, str]()
    for block in view.get("blocks") or ():
        match block.get("element"):
            case {"initial_user": str(user)}:
                found[str(block.get("block_id"))] = user
            case {"initial_users": list(users)}:
                found[str(block.get("block_id"))] = "\n".join(map(str, users))
    return found


def _plainly(ask: FormField, text: str) -> str:
    """Normalize the text: a one-line input drops the line breaks that its initial value had. People have no order."""
    if ask.spec.holds_people:
        return " ".join(sorted(text.split()))
    return text if ask.spec.is_multiline else " ".join(text.split())


def complaint(reply: Reply, values: Mapping[str, Any], asks: Sequence[FormField]) -> dict[str, str] | None:
    """Return the errors by the input that they belong to; None if the modal has no inputs.

    An error about no input goes to the comment, or to the first input.
    """
    names = [ask.name for ask in asks if ASK + ask.name in values]
    wrong = {each.input: each.placed for each in reply.rejections if each.input in names}
    errors = {ASK + name: f"{text[:1].upper()}{text[1:].rstrip('.')}. {UNCHANGED}" for name, text in wrong.items()}
    if errors or not values:
        return errors or None
    return {COMMENT if COMMENT in values else next(iter(values)): reply.text}


def ask_input(
    block_id: str,
    ask: FormField,
    *,
    bounds: Mapping[str, Any] | None = None,
    users: Mapping[str, str] | None = None,
) -> Block:
    """Render an input for this field. `bounds`: Slack's limits for the element, such as `max_length`.

    `users`: as for `vote_modal`. If one of a field's people is missing, it shows nobody, and keeps its value.
    """
    element = _element(ask, bounds or {})
    named = [(users or {}).get(address, "") for address in ask.value.splitlines()] if ask.spec.holds_people else []
    is_kept = not all(named)
    if named and not is_kept:
        element |= {"initial_user": named[0]} if ask.spec.type == "person" else {"initial_users": named}
    block = labelled(block_id, one_line(ask.label, LABEL_LIMIT) or ask.name, element)
    hint = one_line(_hint(ask, is_kept=is_kept), HINT_LIMIT)
    return block | {"optional": is_kept or not ask.spec.required} | ({"hint": plain(hint)} if hint else {})


def _hint(ask: FormField, *, is_kept: bool) -> str:
    spec = ask.spec
    if is_kept:
        return f"Now {', '.join(ask.value.splitlines())}. Choose nobody to leave it so."
    if spec.hint is not None:
        return spec.hint
    if spec.type == "money":
        return f"An amount in {spec.currency}, such as 1250.00"
    if spec.longest is not None and spec.longest > INPUT_LIMIT:
        return f"At most {INPUT_LIMIT:,} characters in Slack"
    return "" if _is_menu(spec) else HINTS.get(spec.type, "")


def labelled(block_id: str, label: str, element: Block) -> Block:
    return {
        "type": "input",
        "block_id": block_id[:ID_LIMIT],
        "label": plain(label),
        "element": element | {"action_id": VALUE},
    }


def given(values: Mapping[str, Any], block_id: str) -> str:
    """Return an input's submitted value as text; "" if it is empty."""
    match (values.get(block_id) or {}).get(VALUE):
        case (
            {"selected_option": {"value": str(value)}}
            | {"selected_date": str(value)}
            | {"selected_user": str(value)}
            | {"value": str(value)}
        ):
            return value
        case {"selected_options": list(options)}:
            return "\n".join(str(option["value"]) for option in options)
        case {"selected_users": list(users)}:
            return "\n".join(map(str, users))
        case {"selected_date_time": int(value)}:
            return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
        case _:
            return ""


def untouched(ask: FormField) -> str:
    """Return what `given` returns for this field's input while nobody has touched it."""
    element = ask_input("", ask)["element"]
    first = {"value": element.get("initial_value")}
    first |= {f"selected_{name}": element.get(f"initial_{name}") for name in ("option", "options", "date", "date_time")}
    return given({"": {VALUE: {key: value for key, value in first.items() if value is not None}}}, "")


def holds(ask: FormField) -> bool:
    """Return whether the field's value fits its input. If not, submitting it untouched would cut it off."""
    return length(clean(ask.value)) <= INPUT_LIMIT


def _element(ask: FormField, bounds: Mapping[str, Any]) -> Block:
    if ask.spec.type == "boolean":
        return _menu([("Yes", "true"), ("No", "false")], ask.value)
    if _is_menu(ask.spec):
        options = [(value, value) for value in ask.spec.values or ()]
        return _menu(options, ask.value) if ask.spec.type == "enum" else _menu_of_many(options, ask.value.splitlines())
    if ask.spec.holds_people:
        return {"type": "users_select" if ask.spec.type == "person" else "multi_users_select"}
    if ask.spec.type == "date":
        return {"type": "datepicker", **({"initial_date": ask.value} if _is_date(ask.value) else {})}
    if ask.spec.type == "datetime":
        at = _moment(ask.value)
        return {"type": "datetimepicker", **({"initial_date_time": at} if at else {})}
    element: Block = _TYPED.get(ask.spec.type) or {
        "type": "plain_text_input",
        "multiline": ask.spec.is_multiline,
        "max_length": INPUT_LIMIT,
    }
    first = clean(ask.value)[:INPUT_LIMIT]
    is_fit = bool(first) and (ask.spec.type != "integer" or re.fullmatch(r"-?[0-9]{1,18}", first))
    example = "" if ask.spec.example is None else one_line(str(ask.spec.example), PLACEHOLDER_LIMIT)
    placeholder = {"placeholder": plain(example)} if example else {}
    return element | dict(bounds) | placeholder | ({"initial_value": first} if is_fit else {})


def _is_menu(spec: FieldSpec) -> bool:
    values = spec.values or ()
    return spec.item_type == "enum" and 0 < len(values) <= OPTIONS_LIMIT * GROUPS_LIMIT and all(map(_fits, values))


def _fits(value: str) -> bool:
    return 0 < length(clean(value)) == length(value) <= VALUE_LIMIT


def _menu(options: Sequence[tuple[str, str]], chosen: str) -> Block:
    shown = _options(options)
    first = [option for option in shown if option["value"] == chosen]
    return {"type": "static_select", **({"initial_option": first[0]} if first else {})} | _in_groups(shown)


def _menu_of_many(options: Sequence[tuple[str, str]], chosen: Sequence[str]) -> Block:
    shown = _options(options)
    first = [option for option in shown if option["value"] in chosen]
    return {"type": "multi_static_select", **({"initial_options": first} if first else {})} | _in_groups(shown)


def _options(options: Sequence[tuple[str, str]]) -> list[Block]:
    return [{"text": plain(one_line(text, OPTION_LIMIT)), "value": value} for text, value in options]


def _in_groups(shown: list[Block]) -> Block:
    if len(shown) <= OPTIONS_LIMIT:
        return {"options": shown}
    parts = [shown[at : at + OPTIONS_LIMIT] for at in range(0, len(shown), OPTIONS_LIMIT)]
    groups = [
        {"label": plain(f"{at * OPTIONS_LIMIT + 1}–{at * OPTIONS_LIMIT + len(part)}"), "options": part}
        for at, part in enumerate(parts)
    ]
    return {"option_groups": groups}


def _is_date(text: str) -> bool:
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def _moment(text: str) -> int | None:
    """Return the Unix time, in the ten digits that Slack requires; None for anything else."""
    try:
        at = int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        return None
    return at if len(str(at)) == 10 else None
