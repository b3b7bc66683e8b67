"""What a person saw where they acted: Slack sends the message or modal along, as it has shown it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LINES = frozenset({"rich_text_section", "rich_text_preformatted", "rich_text_quote"})
"""Elements whose parts are one text."""


def shown_text(payload: Mapping[str, Any]) -> str | None:
    """Return the text of the message or modal that a press or a submission came from. None if there is none.

    A Home tab is about several requests, so it isn't the text of one.
    """
    view = payload.get("view")
    if isinstance(view, Mapping) and view.get("type") != "modal":
        return None
    place = view if isinstance(view, Mapping) else payload.get("message")
    blocks = place.get("blocks") if isinstance(place, Mapping) else None
    return "\n".join(_texts(blocks)) or None


def _texts(value: Any) -> Iterator[str]:
    match value:
        case list():
            for each in value:
                yield from _texts(each)
        case {"type": str() as kind, "elements": list() as elements} if kind in _LINES:
            yield "".join(_texts(elements))
        case {"type": "date", "fallback": str() as text} | {"type": "link", "url": str() as text}:
            yield text
        case {"type": "emoji", "name": str() as name}:
            yield f":{name}:"
        case {"text": str() as text}:
            yield text
        case dict():
            for each in value.values():
                yield from _texts(each)
        case _:
            return
