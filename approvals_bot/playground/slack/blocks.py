"""Block Kit's rules: which blocks exist, what they hold, and how long each part may be.

The tables below read like Slack's reference; how a rule works is told in `rules`. Slack's newest blocks (card,
carousel, container, plan, alert) are left out on purpose: its own documents differ on where they may stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from approvals_bot.playground.slack.rules import (
    Fields,
    Problem,
    Rule,
    array,
    at_least_one,
    boolean,
    both,
    exactly_one,
    integer,
    one_of,
    record,
    string,
    tagged,
)

Surface = Literal["message", "modal", "home"]

BLOCKS_PER_MESSAGE = 50
BLOCKS_PER_VIEW = 100
CHARACTERS_PER_MESSAGE = 13_200  # undocumented; measured by users of Slack's JS framework
VIEW_BYTES = 250_000


# ── what callers use ──────────────────────────────────────────────────────────────────────────────────────────────


def check_blocks(blocks: Any, surface: Surface, at: str = "/blocks") -> list[Problem]:
    """All that is wrong with the blocks of a message or view; an empty list when Slack would take them."""
    problems: list[Problem] = []
    most = BLOCKS_PER_MESSAGE if surface == "message" else BLOCKS_PER_VIEW
    array(tagged(BLOCKS, "block"), most=most)(blocks, at, problems)
    if isinstance(blocks, list):
        known = [block for block in blocks if isinstance(block, dict)]
        check_unique([block.get("block_id") for block in known], "block_id", at, problems)
        check_surface(known, surface, at, problems)
    return problems


def check_view(view: Any, at: str = "/view") -> list[Problem]:
    """All that is wrong with a modal or a Home tab."""
    if not isinstance(view, dict):
        return [Problem(at, "must be an object", ("type", "object"))]
    problems: list[Problem] = []
    tagged(VIEWS, "view")(view, at, problems)
    if view.get("type") in VIEWS and "blocks" in view:
        problems += check_blocks(view["blocks"], view["type"], f"{at}/blocks")
    blocks = view.get("blocks")
    has_input = isinstance(blocks, list) and any(isinstance(b, dict) and b.get("type") == "input" for b in blocks)
    if view.get("type") == "modal" and has_input and not view.get("submit"):
        problems.append(Problem(f"{at}/submit", "missing required field: submit (there is an input block)"))
    return problems


def characters_in(value: Any) -> int:
    """How many characters of text people are shown, over all blocks."""
    match value:
        case dict():
            own = len(value["text"]) if isinstance(value.get("text"), str) else 0
            return own + sum(characters_in(part) for part in value.values())
        case list():
            return sum(characters_in(part) for part in value)
        case _:
            return 0


def elements_of(blocks: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every interactive element with the block that holds it, in the order of the screen."""
    for block in blocks:
        match block:
            case {"type": "actions" | "context_actions", "elements": list(elements)}:
                yield from ((block, element) for element in elements)
            case {"type": "section", "accessory": dict(element)} | {"type": "input", "element": dict(element)}:
                yield block, element


# ── rules about a whole surface ───────────────────────────────────────────────────────────────────────────────────


def check_unique(ids: list[Any], what: str, at: str, problems: list[Problem]) -> None:
    seen: set[str] = set()
    for index, one in enumerate(ids):
        if isinstance(one, str) and one in seen:
            problems.append(Problem(f"{at}/{index}/{what}", f"{what} `{one}` already exists", ("unique", what)))
        elif isinstance(one, str):
            seen.add(one)


def check_surface(blocks: list[dict[str, Any]], surface: Surface, at: str, problems: list[Problem]) -> None:
    if surface == "message" and sum(block.get("type") == "table" for block in blocks) > 1:
        problems.append(Problem(at, "only one table is allowed in a message", ("max_items", 1)))
    if surface == "message" and sum(len(b["text"]) for b in blocks if is_markdown(b)) > MARKDOWN_CHARACTERS:
        problems.append(Problem(at, f"must be less than {MARKDOWN_CHARACTERS + 1} characters of markdown in all"))
    for index, block in enumerate(blocks):
        for wrong in MISPLACED[surface] & {str(block.get("type"))}:
            problems.append(Problem(f"{at}/{index}/type", f"unsupported type in a {surface}: {wrong}"))


def is_markdown(block: dict[str, Any]) -> bool:
    return block.get("type") == "markdown" and isinstance(block.get("text"), str)


MARKDOWN_CHARACTERS = 12_000
MISPLACED: dict[Surface, frozenset[str]] = {
    "message": frozenset(),
    "modal": frozenset({"markdown", "table", "context_actions"}),
    "home": frozenset({"markdown", "table", "context_actions"}),
}


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


def initial_is_an_option(value: Any, at: str, problems: list[Problem]) -> None:
    """What is chosen at first must be one of the options, letter by letter."""
    match value:
        case {"option_groups": list(groups)}:
            options = [o for g in groups if isinstance(g, dict) for o in g.get("options", [])]
        case {"options": list(own)}:
            options = own
        case _:
            return
    chosen = value.get("initial_options") or ([value["initial_option"]] if "initial_option" in value else [])
    if isinstance(chosen, list) and any(one not in options for one in chosen):
        problems.append(Problem(at, "initial option must exactly match one of the provided options"))


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


def action_ids_are_unique(value: Any, at: str, problems: list[Problem]) -> None:
    if isinstance(value, dict) and isinstance(value.get("elements"), list):
        ids = [part.get("action_id") for part in value["elements"] if isinstance(part, dict)]
        check_unique(ids, "action_id", f"{at}/elements", problems)


# ── blocks and views ──────────────────────────────────────────────────────────────────────────────────────────────


def block(fields: Fields, *more: Rule) -> Rule:
    return both(record({"block_id": ID} | dict(fields)), *more)


CELL = tagged(
    {
        "raw_text": record({"text!": string(least=1)}),
        "raw_number": record({"value!": lambda value, at, problems: None, "text": string()}),
        "rich_text": RICH_TEXT,
    },
    "cell",
)
CONTEXT_ELEMENT = tagged(
    {
        "image": ELEMENTS["image"],
        "plain_text": record({"text!": string(3000, 1), "emoji": boolean}),
        "mrkdwn": record({"text!": string(3000, 1), "verbatim": boolean}),
    },
    "element",
)

BLOCKS: dict[str, Rule] = {
    "header": block({"text!": plain(150)}),
    "section": block(
        {
            "text": text(3000),
            "fields": array(text(2000), 1, 10),
            "accessory": tagged(ELEMENTS, "element", only=IN_SECTION),
            "expand": boolean,
        },
        at_least_one("text", "fields"),
    ),
    "divider": block({}),
    "context": block({"elements!": array(CONTEXT_ELEMENT, 1, 10)}),
    "actions": block({"elements!": array(tagged(ELEMENTS, "element", only=IN_ACTIONS), 1, 25)}, action_ids_are_unique),
    "context_actions": block(
        {"elements!": array(tagged(ELEMENTS, "element", only=frozenset({"feedback_buttons", "icon_button"})), 1, 5)},
        action_ids_are_unique,
    ),
    "input": block(
        {
            "label!": plain(2000),
            "element!": tagged(ELEMENTS, "element", only=IN_INPUT),
            "hint": plain(2000),
            "optional": boolean,
            "dispatch_action": boolean,
        }
    ),
    "image": block(
        {
            "image_url": URL,
            "slack_file": record({"id": string(), "url": string()}),
            "alt_text!": string(2000, 1),
            "title": plain(2000),
        },
        exactly_one("image_url", "slack_file"),
    ),
    "rich_text": RICH_TEXT,
    "markdown": block({"text!": string(MARKDOWN_CHARACTERS, 1)}),
    "table": block(
        {
            "rows!": array(array(CELL, 1, 20), 1, 100),
            "column_settings": array(
                record({"align": one_of("left", "center", "right"), "is_wrapped": boolean}), 0, 20
            ),
        }
    ),
}


def any_value(value: Any, at: str, problems: list[Problem]) -> None:
    """Checked elsewhere."""


VIEWS: dict[str, Rule] = {
    "modal": record(
        {
            "title!": plain(24),
            "blocks!": any_value,
            "submit": plain(24),
            "close": plain(24),
            "private_metadata": string(3000),
            "callback_id": string(255),
            "external_id": string(255),
            "clear_on_close": boolean,
            "notify_on_close": boolean,
            "submit_disabled": boolean,
        }
    ),
    "home": record(
        {
            "blocks!": any_value,
            "private_metadata": string(3000),
            "callback_id": string(255),
            "external_id": string(255),
        }
    ),
}
