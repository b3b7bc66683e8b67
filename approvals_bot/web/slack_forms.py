"""Slack's forms for opening a request: the list of what somebody may ask for, and the form of one workflow. Pure.

A form is made of the workflow's `[fields]` and read by their rules, so that Slack, the API and the pages take the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals import fields
from approvals_bot.approvals.views import ask_of, label
from approvals_bot.channels.slack.elements import Block
from approvals_bot.channels.text import clean, clip, one_line
from approvals_bot.config.fields import FieldSpec
from approvals_bot.config.workflow import Definition
from approvals_bot.web.slack_inputs import HINTS, INPUT_LIMIT, ask_input, given, labelled, plain
from approvals_bot.web.slack_views import TITLE_LIMIT

OPEN_VIEW = "open"  # callback ids
CHOOSE_VIEW = "choose"
OPEN = "open:"  # action ids: `open:<workflow>`; `open:` alone asks what there is
FIELD = "field:"  # block ids: `field:<name>`
BEHALF = "behalf"
CHOOSER = "choose"

LONGEST_FORM = 95  # fields; Slack takes 100 blocks
LISTED = 40  # workflows that are offered at once; others are opened by their names
ERROR_LIMIT = 300  # characters below an input

NOTHING = "There is nothing here that you may ask for."
CHOOSE = "What do you want to ask for?"
TOO_LONG = "This form has too many fields for Slack. Open the request by the API or the command line."


@dataclass(frozen=True, slots=True)
class Form:
    """What a form remembers until it is sent. It grants nothing: who sends it, and may she, is established then."""

    workflow: str
    channel: str = ""

    def dump(self) -> str:
        return json.dumps({"w": self.workflow, "ch": self.channel})

    @classmethod
    def load(cls, text: str) -> Form:
        """Raises ValueError, KeyError or TypeError when it is not ours."""
        said = json.loads(text)
        return cls(str(said["w"]), str(said["ch"]))


# ── the list ──────────────────────────────────────────────────────────────────────────────────────────────────────


def title_of(name: str) -> str:
    """`prod-access` → "Prod access"."""
    return label(name.replace("-", "_"))


def choices(names: Sequence[str]) -> list[Block]:
    """A button for each workflow."""
    shown = sorted(names)[:LISTED]
    rows: list[Block] = [{"type": "section", "text": plain(CHOOSE if shown else NOTHING)}]
    for at in range(0, len(shown), 5):
        buttons: list[Block] = [
            {"type": "button", "action_id": OPEN + name, "text": plain(one_line(title_of(name), 75)), "value": name}
            for name in shown[at : at + 5]
        ]
        rows.append({"type": "actions", "block_id": f"{CHOOSER}:{at}", "elements": buttons})
    if len(names) > len(shown):
        rest = f"… and {len(names) - len(shown)} more: type /approve and the name"
        rows.append({"type": "context", "elements": [plain(rest)]})
    return rows


def chooser(names: Sequence[str]) -> Block:
    """The same as a modal, for the shortcut."""
    return {
        "type": "modal",
        "callback_id": CHOOSE_VIEW,
        "title": plain("Ask for approval"),
        "close": plain("Not now"),
        "blocks": choices(names),
    }


# ── the form ──────────────────────────────────────────────────────────────────────────────────────────────────────


def form(definition: Definition, remembered: Form, asker: str) -> Block:
    """The workflow's form. ValueError when it has too many fields for Slack."""
    if len(definition.fields) > LONGEST_FORM:
        raise ValueError(TOO_LONG)
    inputs = [_field(name, spec) for name, spec in definition.fields.items()]
    if definition.workflow.on_behalf_of != "never":
        behalf = labelled(BEHALF, "On behalf of", {"type": "users_select"})
        inputs.append(behalf | {"optional": definition.workflow.on_behalf_of != "required"})
    context = {"type": "context", "elements": [plain(one_line(f"You ask as {asker}.", 300))]}
    return {
        "type": "modal",
        "callback_id": OPEN_VIEW,
        "private_metadata": remembered.dump(),
        "title": plain(one_line(title_of(definition.id), TITLE_LIMIT)),
        "submit": plain("Ask"),
        "close": plain("Not now"),
        "blocks": [context, *inputs],
    }


def _field(name: str, spec: FieldSpec) -> Block:
    ask = replace(ask_of(name, spec, spec.default), required=spec.required)
    hint = HINTS.get(spec.type, "")
    if spec.type == "money":
        hint = f"An amount in {spec.currency}, such as 1250.00"
    elif spec.longest is not None and spec.longest > INPUT_LIMIT:
        hint = f"At most {INPUT_LIMIT:,} characters in Slack"
    return ask_input(FIELD + name, ask, bounds=_bounds(spec), hint=hint)


def _bounds(spec: FieldSpec) -> dict[str, Any]:
    """What Slack can check while somebody types. All of it is checked again."""
    if spec.type in ("string", "text"):
        most = min(spec.longest or INPUT_LIMIT, INPUT_LIMIT)
        least = min(spec.min_length or 0, most)
        return {"max_length": most} | ({"min_length": least} if least else {})
    if spec.type == "integer":
        return {name: value for name, value in (("min_value", spec.min), ("max_value", spec.max)) if value is not None}
    return {}


# ── what was filled in ────────────────────────────────────────────────────────────────────────────────────────────


def filled_in(definition: Definition, values: Mapping[str, Any]) -> tuple[dict[str, JsonValue], str]:
    """The fields as JSON for `open_run`, and the Slack user on whose behalf it is asked ("" for none)."""
    texts = {name: text for name in definition.fields if (text := given(values, FIELD + name))}
    typed = fields.from_texts(definition, texts)
    return {name: typed[name] for name in texts if name in typed}, given(values, BEHALF)


def complaints(values: Mapping[str, Any], errors: Iterable[Mapping[str, Any]], otherwise: str) -> dict[str, str]:
    """What is wrong, at the inputs that it is about; what is about none of them, or `otherwise`, at the first one.

    Empty when the form has no input at all.
    """
    found: dict[str, str] = {}
    loose: list[str] = []
    for error in errors:
        name, message = str(error["loc"][-1]), str(error["msg"])
        block = BEHALF if error["loc"][0] == "on_behalf_of" else FIELD + name
        if block in values:
            found[block] = _sentence(message)
        else:
            loose.append(f"{title_of(name)}: {message}")
    if not found and not loose:
        loose.append(otherwise)
    if loose and values:
        first = next(iter(values))
        found[first] = _sentence(" ".join([*loose, found[first]] if first in found else loose))
    return found


def _sentence(text: str) -> str:
    text = clip(clean(text).strip(), ERROR_LIMIT)
    return text[:1].upper() + text[1:]


# ── what became of it ─────────────────────────────────────────────────────────────────────────────────────────────


def opened(text: str, url: str) -> list[Block]:
    """The answer after a form was sent: a sentence, and the way to the request."""
    link = {"type": "link", "url": url[:3_000], "text": "Open the request"}
    said = {"type": "text", "text": clip(clean(text), 1_000) + "\n"}
    return [{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [said, link]}]}]
