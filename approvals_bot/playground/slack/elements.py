"""Block Kit's smaller parts, of which blocks are made: composition objects, rich text, and elements.

Tables that read like Slack's reference; how a rule works is told in `rules`.
"""

from __future__ import annotations

from typing import Any

from approvals_bot.playground.slack.rules import (
    Fields,
    Problem,
    Rule,
    array,
    boolean,
    both,
    exactly_one,
    integer,
    one_of,
    record,
    string,
    tagged,
)

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
