"""Block Kit's rules: the blocks, their content, and how much fits in a message or a view.

The tables read like Slack's reference; those for the parts of blocks are in `elements`. Slack's newest blocks (card,
carousel, container, plan, alert) are left out on purpose, because its own documents differ on where they may be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from approvals_bot.playground.slack.elements import (
    ELEMENTS,
    ID,
    IN_ACTIONS,
    IN_INPUT,
    IN_SECTION,
    RICH_TEXT,
    URL,
    BlockProblem,
    Fields,
    Rule,
    array,
    at_least_one,
    boolean,
    both,
    exactly_one,
    one_of,
    plain,
    record,
    string,
    tagged,
    text,
)

Surface = Literal["message", "modal", "home"]

BLOCKS_PER_MESSAGE = 50
BLOCKS_PER_VIEW = 100
CHARACTERS_PER_MESSAGE = 13_200  # undocumented; measured by users of Slack's JS framework
VIEW_BYTES = 250_000


# ── what callers use ──────────────────────────────────────────────────────────────────────────────────────────────


def check_blocks(blocks: Any, surface: Surface, at: str = "/blocks") -> list[BlockProblem]:
    """List what is wrong with the blocks of a message or view; empty if Slack would accept them."""
    problems: list[BlockProblem] = []
    most = BLOCKS_PER_MESSAGE if surface == "message" else BLOCKS_PER_VIEW
    array(tagged(BLOCKS, "block"), most=most)(blocks, at, problems)
    if isinstance(blocks, list):
        known = [block for block in blocks if isinstance(block, dict)]
        check_unique([block.get("block_id") for block in known], "block_id", at, problems)
        check_surface(known, surface, at, problems)
    return problems


def check_view(view: Any, at: str = "/view") -> list[BlockProblem]:
    """List what is wrong with a modal or a Home tab."""
    if not isinstance(view, dict):
        return [BlockProblem(at, "must be an object", ("type", "object"))]
    problems: list[BlockProblem] = []
    tagged(VIEWS, "view")(view, at, problems)
    if view.get("type") in VIEWS and "blocks" in view:
        problems += check_blocks(view["blocks"], view["type"], f"{at}/blocks")
    blocks = view.get("blocks")
    has_input = isinstance(blocks, list) and any(isinstance(b, dict) and b.get("type") == "input" for b in blocks)
    if view.get("type") == "modal" and has_input and not view.get("submit"):
        problems.append(BlockProblem(f"{at}/submit", "missing required field: submit (there is an input block)"))
    return problems


def characters_in(value: Any) -> int:
    """Count the characters of visible text in all blocks."""
    match value:
        case dict():
            own = len(value["text"]) if isinstance(value.get("text"), str) else 0
            return own + sum(characters_in(part) for part in value.values())
        case list():
            return sum(characters_in(part) for part in value)
        case _:
            return 0


def elements_of(blocks: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield every interactive element with its block, in screen order."""
    for block in blocks:
        match block:
            case {"type": "actions" | "context_actions", "elements": list(elements)}:
                yield from ((block, element) for element in elements)
            case {"type": "section", "accessory": dict(element)} | {"type": "input", "element": dict(element)}:
                yield block, element


# ── rules about a whole surface ───────────────────────────────────────────────────────────────────────────────────


def check_unique(ids: list[Any], what: str, at: str, problems: list[BlockProblem]) -> None:
    seen: set[str] = set()
    for index, one in enumerate(ids):
        if isinstance(one, str) and one in seen:
            problems.append(BlockProblem(f"{at}/{index}/{what}", f"{what} `{one}` already exists", ("unique", what)))
        elif isinstance(one, str):
            seen.add(one)


def check_surface(blocks: list[dict[str, Any]], surface: Surface, at: str, problems: list[BlockProblem]) -> None:
    if surface == "message" and sum(block.get("type") == "table" for block in blocks) > 1:
        problems.append(BlockProblem(at, "only one table is allowed in a message", ("max_items", 1)))
    if surface == "message" and sum(len(b["text"]) for b in blocks if is_markdown(b)) > MARKDOWN_CHARACTERS:
        problems.append(BlockProblem(at, f"must be less than {MARKDOWN_CHARACTERS + 1} characters of markdown in all"))
    for index, block in enumerate(blocks):
        for wrong in MISPLACED[surface] & {str(block.get("type"))}:
            problems.append(BlockProblem(f"{at}/{index}/type", f"unsupported type in a {surface}: {wrong}"))


def is_markdown(block: dict[str, Any]) -> bool:
    return block.get("type") == "markdown" and isinstance(block.get("text"), str)


MARKDOWN_CHARACTERS = 12_000
MISPLACED: dict[Surface, frozenset[str]] = {
    "message": frozenset(),
    "modal": frozenset({"markdown", "table", "context_actions"}),
    "home": frozenset({"markdown", "table", "context_actions"}),
}


def action_ids_are_unique(value: Any, at: str, problems: list[BlockProblem]) -> None:
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


def any_value(value: Any, at: str, problems: list[BlockProblem]) -> None:
    """Accept anything; it is checked elsewhere."""


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
