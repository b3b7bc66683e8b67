"""The pieces of Slack's blocks: text, dates, sections. What people wrote goes in as plain text only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from approvals_bot.channels import Card
from approvals_bot.channels.text import clean, clip, length

Block = dict[str, Any]

HEADER_LIMIT = 150  # characters of a title
TEXT_LIMIT = 400  # of the top-level text, which notifications and screen readers take; Slack wants ≤ 4,000

MOMENT = "{date_short_pretty} at {time}"


def escape(text: str) -> str:
    """For text that Slack reads as mrkdwn: the three characters that have a meaning there."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def date_token(at: datetime) -> str:
    """Slack's own date syntax, which shows the moment in the reader's zone."""
    return f"<!date^{int(at.timestamp())}^{MOMENT}|{_fallback(at)}>"


def dated(at: datetime) -> Block:
    return {"type": "date", "timestamp": int(at.timestamp()), "format": MOMENT, "fallback": _fallback(at)}


def _fallback(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def plain(text: str) -> Block:
    return {"type": "plain_text", "text": text or "–", "emoji": False}


def said(text: str, **style: bool) -> Block:
    element: Block = {"type": "text", "text": clean(text) or "–"}
    return element | ({"style": style} if style else {})


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def cut_to(text: str, limit: int) -> str:
    """The text's beginning, cleaned; of a very long one, no more is looked at than may be shown."""
    return clip(clean(text.lstrip()[: limit * 8]).strip(), limit)


def section(*elements: Block) -> Block:
    return {"type": "rich_text_section", "elements": list(elements)}


def rich(part: str, card: Card, elements: list[Block]) -> Block:
    return {"type": "rich_text", "block_id": block_id_of(part, card), "elements": elements}


def with_breaks(lines: list[list[Block]]) -> Iterable[list[Block]]:
    for index, line in enumerate(lines):
        yield line if index == len(lines) - 1 else [*line, said("\n")]


def block_id_of(part: str, card: Card) -> str:
    """Unique in the message and new on every update, as Slack asks; clicks name the version that was seen."""
    return f"{part}:{card.version}"


def size(blocks: list[Block]) -> int:
    return length(json.dumps(blocks, ensure_ascii=False, separators=(",", ":")))
