"""Block Kit's limits, a line each: content at the limit is accepted, and beyond it is refused at its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from approvals_bot.playground.slack.blocks import Surface, characters_in, check_blocks, check_view, elements_of

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def button(**more: Any) -> Json:
    return {"type": "button", "text": plain("Go"), "action_id": "go"} | more


def actions(*elements: Json) -> Json:
    return {"type": "actions", "elements": list(elements)}


def option(value: str = "a", text: str = "A") -> Json:
    return {"text": plain(text), "value": value}


def options(count: int) -> list[Json]:
    return [option(str(i)) for i in range(count)]


def select(**more: Any) -> Json:
    return {"type": "static_select", "action_id": "choose"} | more


def entry(element: Json, **more: Any) -> Json:
    return {"type": "input", "label": plain("Name"), "element": element} | more


def confirm(**more: Any) -> Json:
    return {"title": plain("Sure?"), "text": mrkdwn("Really"), "confirm": plain("Yes"), "deny": plain("No")} | more


def rich(*elements: Json) -> Json:
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": list(elements)}]}


LIMITS: list[tuple[str, Callable[[int], list[Json]], int, str]] = [
    ("blocks in a message", lambda n: [{"type": "divider"}] * n, 50, "/blocks"),
    ("header", lambda n: [{"type": "header", "text": plain("x" * n)}], 150, "/blocks/0/text/text"),
    ("section text", lambda n: [{"type": "section", "text": mrkdwn("x" * n)}], 3000, "/blocks/0/text/text"),
    ("section fields", lambda n: [{"type": "section", "fields": [plain("x")] * n}], 10, "/blocks/0/fields"),
    (
        "a field",
        lambda n: [{"type": "section", "fields": [plain("x" * n)]}],
        2000,
        "/blocks/0/fields/0/text",
    ),
    (
        "elements of actions",
        lambda n: [actions(*(button(action_id=str(i)) for i in range(n)))],
        25,
        "/blocks/0/elements",
    ),
    ("button text", lambda n: [actions(button(text=plain("x" * n)))], 75, "/blocks/0/elements/0/text/text"),
    ("button value", lambda n: [actions(button(value="x" * n))], 2000, "/blocks/0/elements/0/value"),
    ("button url", lambda n: [actions(button(url="x" * n))], 3000, "/blocks/0/elements/0/url"),
    ("action_id", lambda n: [actions(button(action_id="x" * n))], 255, "/blocks/0/elements/0/action_id"),
    ("block_id", lambda n: [{"type": "divider", "block_id": "x" * n}], 255, "/blocks/0/block_id"),
    ("context", lambda n: [{"type": "context", "elements": [mrkdwn("x")] * n}], 10, "/blocks/0/elements"),
    (
        "confirm title",
        lambda n: [actions(button(confirm=confirm(title=plain("x" * n))))],
        100,
        "/blocks/0/elements/0/confirm/title/text",
    ),
    (
        "confirm text",
        lambda n: [actions(button(confirm=confirm(text=plain("x" * n))))],
        300,
        "/blocks/0/elements/0/confirm/text/text",
    ),
    (
        "confirm button",
        lambda n: [actions(button(confirm=confirm(deny=plain("x" * n))))],
        30,
        "/blocks/0/elements/0/confirm/deny/text",
    ),
    ("options of a select", lambda n: [actions(select(options=options(n)))], 100, "/blocks/0/elements/0/options"),
    (
        "option text",
        lambda n: [actions(select(options=[option(text="x" * n)]))],
        75,
        "/blocks/0/elements/0/options/0/text/text",
    ),
    (
        "option value",
        lambda n: [actions(select(options=[option("x" * n)]))],
        150,
        "/blocks/0/elements/0/options/0/value",
    ),
    (
        "radio buttons",
        lambda n: [actions({"type": "radio_buttons", "options": options(n)})],
        10,
        "/blocks/0/elements/0/options",
    ),
    (
        "overflow menu",
        lambda n: [actions({"type": "overflow", "options": options(n)})],
        5,
        "/blocks/0/elements/0/options",
    ),
    (
        "placeholder",
        lambda n: [entry({"type": "plain_text_input", "placeholder": plain("x" * n)})],
        150,
        "/blocks/0/element/placeholder/text",
    ),
    (
        "start of a text input",
        lambda n: [entry({"type": "plain_text_input", "initial_value": "x" * n})],
        3000,
        "/blocks/0/element/initial_value",
    ),
    ("label", lambda n: [entry({"type": "plain_text_input"}, label=plain("x" * n))], 2000, "/blocks/0/label/text"),
    ("markdown", lambda n: [{"type": "markdown", "text": "x" * n}], 12000, "/blocks/0/text"),
    (
        "table rows",
        lambda n: [{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]] * n}],
        100,
        "/blocks/0/rows",
    ),
    (
        "table cells",
        lambda n: [{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}] * n]}],
        20,
        "/blocks/0/rows/0",
    ),
    (
        "alt text",
        lambda n: [{"type": "image", "image_url": "https://x", "alt_text": "x" * n}],
        2000,
        "/blocks/0/alt_text",
    ),
]


@pytest.mark.parametrize(("made", "limit", "pointer"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS])
def test_limits_are_exact(made: Callable[[int], list[Json]], limit: int, pointer: str) -> None:
    assert check_blocks(made(limit), "message") == []
    found = [p.pointer for p in check_blocks(made(limit + 1), "message")]
    assert found[0] == pointer


WRONG: list[tuple[str, Json, str]] = [
    ("an unknown block", {"type": "marquee"}, "unsupported type: marquee"),
    ("no type", {"text": plain("x")}, "missing required field: type"),
    ("an unknown key", {"type": "divider", "color": "red"}, "invalid additional property: color"),
    ("mrkdwn in a header", {"type": "header", "text": mrkdwn("x")}, "unsupported type: mrkdwn"),
    ("an empty section", {"type": "section"}, "must provide at least one of: text, fields"),
    ("empty text", {"type": "section", "text": mrkdwn("")}, "must be more than 0 characters"),
    ("text as a string", {"type": "section", "text": "x"}, "must be an object"),
    (
        "emoji in mrkdwn",
        {"type": "section", "text": mrkdwn("x") | {"emoji": True}},
        "invalid additional property: emoji",
    ),
    ("a bad style", actions(button(style="huge")), "must be one of: primary, danger"),
    ("no elements", actions(), "no fewer than 1 items allowed"),
    ("an input in actions", actions({"type": "plain_text_input"}), "unsupported type: plain_text_input"),
    ("a button as input", entry(button()), "unsupported type: button"),
    ("twice one action_id", actions(button(), button()), "action_id `go` already exists"),
    ("no options at all", actions(select()), "must provide exactly one of: options, option_groups"),
    (
        "an initial option that is none",
        actions(select(options=options(2), initial_option=option("z"))),
        "initial option must exactly match one of the provided options",
    ),
    ("a bad date", actions({"type": "datepicker", "initial_date": "2.3.2026"}), "failed to match required pattern"),
    ("a number without its kind", entry({"type": "number_input"}), "missing required field: is_decimal_allowed"),
    ("half a confirm", actions(button(confirm={"title": plain("Sure?")})), "missing required field: text"),
    ("an unknown inline", rich({"type": "marquee"}), "unsupported type: marquee"),
    ("text without text", rich({"type": "text", "text": ""}), "must be more than 0 characters"),
    ("a bad broadcast", rich({"type": "broadcast", "range": "world"}), "must be one of: here, channel, everyone"),
    (
        "a mention in a code block",
        {
            "type": "rich_text",
            "elements": [{"type": "rich_text_preformatted", "elements": [{"type": "user", "user_id": "U0ANN"}]}],
        },
        "unsupported type: user",
    ),
    (
        "two sources of an image",
        {"type": "image", "alt_text": "x"},
        "must provide exactly one of: image_url, slack_file",
    ),
]


@pytest.mark.parametrize(("block", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_invalid_block_is_refused_with_its_reason(block: Json, message: str) -> None:
    found = check_blocks([block], "message")
    assert [p.message for p in found if p.message.startswith(message)], found


def test_block_ids_are_unique_and_only_one_table_is_allowed() -> None:
    twice = [{"type": "divider", "block_id": "a"}] * 2
    assert [p.message for p in check_blocks(twice, "message")] == ["block_id `a` already exists"]
    table = {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]}
    assert [p.message for p in check_blocks([table, table], "message")] == ["only one table is allowed in a message"]


def test_action_ids_may_repeat_in_different_blocks() -> None:
    assert check_blocks([actions(button()), actions(button())], "message") == []


@pytest.mark.parametrize("blocks", [None, "x", {}, [None], [[]], [1]])
def test_anything_but_blocks_is_refused(blocks: Any) -> None:
    assert check_blocks(blocks, "message")


@pytest.mark.parametrize("surface", ["modal", "home"])
def test_views_have_at_most_a_hundred_blocks(surface: Surface) -> None:
    assert check_blocks([{"type": "divider"}] * 100, surface) == []
    assert check_blocks([{"type": "divider"}] * 101, surface)


def modal(**more: Any) -> Json:
    return {"type": "modal", "title": plain("Reject"), "blocks": [{"type": "divider"}]} | more


@pytest.mark.parametrize(
    ("field", "limit", "pointer", "in_text"),
    [
        ("title", 24, "/view/title/text", True),
        ("submit", 24, "/view/submit/text", True),
        ("close", 24, "/view/close/text", True),
        ("private_metadata", 3000, "/view/private_metadata", False),
        ("callback_id", 255, "/view/callback_id", False),
    ],
)
def test_parts_of_a_modal_have_limits(field: str, limit: int, pointer: str, in_text: bool) -> None:
    def view(length: int) -> Json:
        return modal(**{field: plain("x" * length) if in_text else "x" * length})

    assert check_view(view(limit)) == []
    assert [p.pointer for p in check_view(view(limit + 1))] == [pointer]


def test_modal_with_an_input_needs_a_submit_button() -> None:
    blocks = [entry({"type": "plain_text_input"})]
    assert check_view(modal(blocks=blocks))
    assert check_view(modal(blocks=blocks, submit=plain("Send"))) == []


@pytest.mark.parametrize("view", [None, [], {"type": "page"}, {"type": "modal"}, {"type": "home", "title": plain("x")}])
def test_anything_but_a_view_is_refused(view: Any) -> None:
    assert check_view(view)


def test_characters_are_counted_in_all_blocks() -> None:
    assert characters_in([{"type": "header", "text": plain("four")}, rich({"type": "text", "text": "six"})]) == 7


def test_every_interactive_element_is_found_in_screen_order() -> None:
    blocks = [
        {"type": "section", "text": plain("x"), "accessory": button(action_id="a")},
        actions(button(action_id="b"), button(action_id="c")),
        entry({"type": "plain_text_input", "action_id": "d"}),
    ]
    assert [element["action_id"] for _, element in elements_of(blocks)] == ["a", "b", "c", "d"]
