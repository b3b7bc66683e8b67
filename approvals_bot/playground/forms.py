"""What a person's form says, and what she is told came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import FormData

from approvals_bot.playground.slack.person import ActOutcome
from approvals_bot.playground.slack.shapes import View


@dataclass(frozen=True, slots=True)
class Notice:
    """What came of the reader's last act. `about`: the message's ts or the view's id."""

    text: str
    refused: bool = False
    about: str = ""
    whisper: str = ""  # what the app said to this reader alone


def detail_of(problem: str) -> str:
    """The sentence of a problem document, else the answer as it is."""
    try:
        said = json.loads(problem)
    except ValueError:
        return problem[:200]
    return str(said.get("detail") or said.get("title") or said) if isinstance(said, dict) else problem[:200]


def field(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def values_of(form: FormData, name: str) -> Any:
    """None, one value, or a list when a menu or a group of boxes sent several."""
    given = [value for value in form.getlist(name) if isinstance(value, str) and value]
    return given if len(given) > 1 else (given[0] if given else None)


def inputs_of(form: FormData, view: View | None) -> Mapping[str, Mapping[str, Any]]:
    """The inputs of a modal's form are named by their place among the blocks."""
    found: dict[str, dict[str, Any]] = {}
    for index, block in enumerate(view.blocks if view else []):
        if block["type"] == "input":
            value = values_of(form, f"input-{index}")
            if block["element"]["type"] == "datetimepicker" and value:
                value = int(datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp())
            found[block["block_id"]] = {block["element"]["action_id"]: "" if value is None else value}
    return found


def notice_of(outcome: ActOutcome, about: str) -> Notice:
    if outcome.seen == "warning":
        answered = f"answered {outcome.status}" if outcome.status else "did not answer within 3 seconds"
        return Notice(f"⚠ This didn't work: the app {answered}. In Slack you would see a warning sign.", True, about)
    return Notice(f"Acknowledged in {outcome.ack_ms} ms.", about=about, whisper=outcome.ephemeral or "")
