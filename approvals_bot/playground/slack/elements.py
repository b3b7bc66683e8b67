"""The parts of Block Kit's blocks: composition objects, rich text, and elements.

The tables read like Slack's reference. They consist of rules, which come first: a `Rule` checks one value and appends
its problems to a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BlockProblem:
    """A problem: what is wrong, where, and the constraint that failed."""

    pointer: str
    message: str
    constraint: tuple[str, Any] = ("", None)

    def line(self) -> str:
        return f"[ERROR] {self.message} [json-pointer:{self.pointer}]"

    def as_json(self) -> dict[str, Any]:
        kind, expected = self.constraint
        found: dict[str, Any] = {"code": "failed_constraint", "message": self.message, "pointer": self.pointer}
        return found | ({"constraint": {"type": kind, "expected": expected}} if kind else {})


Rule = Callable[[Any, str, list[BlockProblem]], None]
Fields = Mapping[str, Rule]  # a name that ends with "!" is required


def string(most: int | None = None, least: int = 0, pattern: str | None = None) -> Rule:
    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        if not isinstance(value, str):
            problems.append(BlockProblem(at, "must be a string", ("type", "string")))
        elif len(value) < least:
            problems.append(BlockProblem(at, f"must be more than {least - 1} characters", ("min_length", least)))
        elif most is not None and len(value) > most:
            problems.append(BlockProblem(at, f"must be less than {most + 1} characters", ("max_length", most)))
        elif pattern and not re.fullmatch(pattern, value):
            problems.append(BlockProblem(at, f"failed to match required pattern: {pattern}", ("pattern", pattern)))

    return rule


def boolean(value: Any, at: str, problems: list[BlockProblem]) -> None:
    if not isinstance(value, bool):
        problems.append(BlockProblem(at, "must be a boolean", ("type", "boolean")))


def integer(least: int | None = None, most: int | None = None) -> Rule:
    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            problems.append(BlockProblem(at, "must be an integer", ("type", "integer")))
        elif least is not None and value < least:
            problems.append(BlockProblem(at, f"must be at least {least}", ("minimum", least)))
        elif most is not None and value > most:
            problems.append(BlockProblem(at, f"must be at most {most}", ("maximum", most)))

    return rule


def one_of(*values: str) -> Rule:
    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        if value not in values:
            problems.append(BlockProblem(at, f"must be one of: {', '.join(values)}", ("enum", list(values))))

    return rule


def array(item: Rule, least: int = 0, most: int | None = None) -> Rule:
    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        if not isinstance(value, list):
            problems.append(BlockProblem(at, "must be an array", ("type", "array")))
            return
        if len(value) < least:
            problems.append(BlockProblem(at, f"no fewer than {least} items allowed", ("min_items", least)))
        if most is not None and len(value) > most:
            problems.append(BlockProblem(at, f"no more than {most} items allowed", ("max_items", most)))
        for index, part in enumerate(value):
            item(part, f"{at}/{index}", problems)

    return rule


def record(fields: Fields) -> Rule:
    """Build a rule for an object with these fields and no others."""
    rules = {name.rstrip("!"): rule for name, rule in fields.items()}
    required = [name[:-1] for name in fields if name.endswith("!")]

    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        if not isinstance(value, dict):
            problems.append(BlockProblem(at, "must be an object", ("type", "object")))
            return
        for name in required:
            if name not in value:
                problems.append(BlockProblem(at, f"missing required field: {name}", ("required", name)))
        for name, part in value.items():
            if name in rules:
                rules[name](part, f"{at}/{name}", problems)
            elif name != "type":
                problems.append(BlockProblem(at, f"invalid additional property: {name}", ("additional_property", name)))

    return rule


def tagged(kinds: Mapping[str, Rule], what: str, *, only: frozenset[str] | None = None) -> Rule:
    """Build a rule for an object whose `type` selects its rule."""

    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        if not isinstance(value, dict):
            problems.append(BlockProblem(at, "must be an object", ("type", "object")))
            return
        kind = value.get("type")
        allowed = sorted(set(kinds) & only) if only else sorted(kinds)
        if kind is None:
            problems.append(BlockProblem(at, "missing required field: type", ("required", "type")))
        elif kind not in allowed:
            problems.append(BlockProblem(f"{at}/type", f"unsupported type: {kind}", ("enum", allowed)))
        else:
            kinds[kind](value, at, problems)

    return rule


def both(*rules: Rule) -> Rule:
    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        for each in rules:
            each(value, at, problems)

    return rule


def exactly_one(*names: str) -> Rule:
    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        if isinstance(value, dict) and sum(name in value for name in names) != 1:
            problems.append(BlockProblem(at, f"must provide exactly one of: {', '.join(names)}"))

    return rule


def at_least_one(*names: str) -> Rule:
    def rule(value: Any, at: str, problems: list[BlockProblem]) -> None:
        if isinstance(value, dict) and not any(name in value for name in names):
            problems.append(BlockProblem(at, f"must provide at least one of: {', '.join(names)}"))

    return rule


# ── composition objects ───────────────────────────────────────────────────────────────────────────────────────────


def plain(most: int) -> Rule:
    return tagged({"plain_text": record({"text!": string(most, 1), "emoji": boolean})}, "text")


def text(most: int) -> Rule:
    return tagged(
        {
            "plain_text": record({"text!": string(most, 1), "emoji": boolean}),
            "mrkdwn": record({"text!": string(most, 1), "verbatim": boolean}),
        },
        "text",
    )


URL = string(3000, 1)
ID = string(255, 1)
CONFIRM = record(
    {
        "title!": plain(100),
        "text!": text(300),
        "confirm!": plain(30),
        "deny!": plain(30),
        "style": one_of("primary", "danger"),
    }
)
OPTION = record({"text!": plain(75), "value!": string(150, 1), "description": plain(75)})
RICH_OPTION = record({"text!": text(75), "value!": string(150, 1), "description": text(75)})
MENU_OPTION = record({"text!": plain(75), "value!": string(150, 1), "description": plain(75), "url": URL})
OPTION_GROUP = record({"label!": plain(75), "options!": array(OPTION, 1, 100)})
FILTER = record(
    {
        "include": array(one_of("im", "mpim", "private", "public"), 1),
        "exclude_external_shared_channels": boolean,
        "exclude_bot_users": boolean,
    }
)
DISPATCH = record({"trigger_actions_on": array(one_of("on_enter_pressed", "on_character_entered"), 1, 2)})


# ── rich text ─────────────────────────────────────────────────────────────────────────────────────────────────────

STYLE = record(
    dict.fromkeys(("bold", "italic", "strike", "code", "underline", "highlight", "client_highlight", "unlink"), boolean)
)
INLINE: dict[str, Rule] = {
    "text": record({"text!": string(least=1), "style": STYLE}),
    "link": record({"url!": string(3000, 1), "text": string(), "unsafe": boolean, "style": STYLE}),
    "user": record({"user_id!": string(least=1), "style": STYLE}),
    "usergroup": record({"usergroup_id!": string(least=1), "style": STYLE}),
    "channel": record({"channel_id!": string(least=1), "style": STYLE}),
    "team": record({"team_id!": string(least=1), "style": STYLE}),
    "emoji": record({"name!": string(least=1), "unicode": string(), "skin_tone": integer(1, 6), "style": STYLE}),
    "date": record({"timestamp!": integer(), "format!": string(least=1), "url": URL, "fallback": string()}),
    "broadcast": record({"range!": one_of("here", "channel", "everyone")}),
    "color": record({"value!": string(least=1)}),
}
SECTION_OF_TEXT = record({"elements!": array(tagged(INLINE, "element"))})
CODE_OF_TEXT = array(tagged(INLINE, "element", only=frozenset({"text", "link"})))
RICH: dict[str, Rule] = {
    "rich_text_section": SECTION_OF_TEXT,
    "rich_text_list": record(
        {
            "style!": one_of("bullet", "ordered"),
            "elements!": array(tagged({"rich_text_section": SECTION_OF_TEXT}, "element"), 1),
            "indent": integer(0, 8),
            "offset": integer(0),
            "border": integer(0, 1),
        }
    ),
    "rich_text_preformatted": record({"elements!": CODE_OF_TEXT, "border": integer(0, 1), "language": string()}),
    "rich_text_quote": record({"elements!": array(tagged(INLINE, "element")), "border": integer(0, 1)}),
}
RICH_TEXT = record({"elements!": array(tagged(RICH, "element"), 1), "block_id": ID})


# ── elements ──────────────────────────────────────────────────────────────────────────────────────────────────────


def element(fields: Fields, *more: Rule) -> Rule:
    return both(record({"action_id": ID} | dict(fields)), *more)


def select(fields: Fields, *more: Rule) -> Rule:
    return element({"placeholder": plain(150), "confirm": CONFIRM, "focus_on_load": boolean} | dict(fields), *more)


def initial_is_an_option(value: Any, at: str, problems: list[BlockProblem]) -> None:
    """Check that the initial option is exactly one of the options."""
    match value:
        case {"option_groups": list(groups)}:
            options = [o for g in groups if isinstance(g, dict) for o in g.get("options", [])]
        case {"options": list(own)}:
            options = own
        case _:
            return
    chosen = value.get("initial_options") or ([value["initial_option"]] if "initial_option" in value else [])
    if isinstance(chosen, list) and any(one not in options for one in chosen):
        problems.append(BlockProblem(at, "initial option must exactly match one of the provided options"))


STATIC = {"options": array(OPTION, 1, 100), "option_groups": array(OPTION_GROUP, 1, 100)}
ONE_LIST = exactly_one("options", "option_groups")
MANY = {"max_selected_items": integer(1)}
TYPED = {"placeholder": plain(150), "dispatch_action_config": DISPATCH, "focus_on_load": boolean}
NUMBER = string(least=1, pattern=r"-?[0-9]+(\.[0-9]+)?")

ELEMENTS: dict[str, Rule] = {
    "button": element(
        {
            "text!": plain(75),
            "url": URL,
            "value": string(2000),
            "style": one_of("primary", "danger"),
            "confirm": CONFIRM,
            "accessibility_label": string(75),
        }
    ),
    "static_select": select(STATIC | {"initial_option": OPTION}, ONE_LIST, initial_is_an_option),
    "multi_static_select": select(
        STATIC | MANY | {"initial_options": array(OPTION, 1)}, ONE_LIST, initial_is_an_option
    ),
    "external_select": select({"initial_option": OPTION, "min_query_length": integer(0)}),
    "multi_external_select": select(MANY | {"initial_options": array(OPTION, 1), "min_query_length": integer(0)}),
    "users_select": select({"initial_user": string(least=1)}),
    "multi_users_select": select(MANY | {"initial_users": array(string(least=1))}),
    "conversations_select": select(
        {
            "initial_conversation": string(least=1),
            "default_to_current_conversation": boolean,
            "response_url_enabled": boolean,
            "filter": FILTER,
        }
    ),
    "multi_conversations_select": select(
        MANY
        | {
            "initial_conversations": array(string(least=1)),
            "default_to_current_conversation": boolean,
            "filter": FILTER,
        }
    ),
    "channels_select": select({"initial_channel": string(least=1), "response_url_enabled": boolean}),
    "multi_channels_select": select(MANY | {"initial_channels": array(string(least=1))}),
    "overflow": element({"options!": array(MENU_OPTION, 1, 5), "confirm": CONFIRM}),
    "datepicker": select({"initial_date": string(pattern=r"[0-9]{4}-[0-9]{2}-[0-9]{2}")}),
    "timepicker": select({"initial_time": string(pattern=r"[0-9]{2}:[0-9]{2}"), "timezone": string()}),
    "datetimepicker": element(
        {"initial_date_time": integer(1_000_000_000, 9_999_999_999), "confirm": CONFIRM, "focus_on_load": boolean}
    ),
    "checkboxes": element(
        {
            "options!": array(RICH_OPTION, 1, 10),
            "initial_options": array(RICH_OPTION, 1),
            "confirm": CONFIRM,
            "focus_on_load": boolean,
        },
        initial_is_an_option,
    ),
    "radio_buttons": element(
        {
            "options!": array(RICH_OPTION, 1, 10),
            "initial_option": RICH_OPTION,
            "confirm": CONFIRM,
            "focus_on_load": boolean,
        },
        initial_is_an_option,
    ),
    "plain_text_input": element(
        TYPED
        | {
            "initial_value": string(3000),
            "multiline": boolean,
            "min_length": integer(0, 3000),
            "max_length": integer(1, 3000),
        }
    ),
    "email_text_input": element(TYPED | {"initial_value": string()}),
    "url_text_input": element(TYPED | {"initial_value": string()}),
    "number_input": element(
        TYPED | {"is_decimal_allowed!": boolean, "initial_value": NUMBER, "min_value": NUMBER, "max_value": NUMBER}
    ),
    "rich_text_input": element(TYPED | {"initial_value": RICH_TEXT}),
    "file_input": element({"filetypes": array(string(least=1)), "max_files": integer(1, 10)}),
    "image": both(
        record(
            {"image_url": URL, "slack_file": record({"id": string(), "url": string()}), "alt_text!": string(2000, 1)}
        ),
        exactly_one("image_url", "slack_file"),
    ),
    "feedback_buttons": element(
        {
            name: record({"text!": plain(75), "value": string(2000), "accessibility_label": string(75)})
            for name in ("positive_button!", "negative_button!")
        }
    ),
    "icon_button": element(
        {
            "icon!": one_of("trash"),
            "text!": plain(75),
            "value": string(2000),
            "confirm": CONFIRM,
            "accessibility_label": string(75),
            "visible_to_user_ids": array(string(least=1)),
        }
    ),
}
TYPED_INPUTS = frozenset(
    {"plain_text_input", "email_text_input", "url_text_input", "number_input", "rich_text_input", "file_input"}
)
CHOOSERS = frozenset(ELEMENTS) - TYPED_INPUTS - {"image", "feedback_buttons", "icon_button"}
IN_ACTIONS = CHOOSERS
IN_SECTION = CHOOSERS | {"image"}
IN_INPUT = (CHOOSERS | TYPED_INPUTS) - {"button", "overflow"}
