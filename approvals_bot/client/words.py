"""Every sentence that an agent's model reads about an approval, in one table; each ends in what to do.

Pure. People's comments are quoted as JSON strings, so nothing in them can pass for one of these sentences.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from approvals_bot.client.digests import MISSING
from approvals_bot.errors import (
    ApprovalMismatchError,
    DeniedError,
    InvalidPayloadError,
    KeyReusedError,
    NotAllowedError,
    RequestRefusedError,
    ServiceUnavailableError,
)

DecisionState = Literal["approved", "edited", "rejected", "answered", "expired", "withdrawn", "pending"]

LONGEST_COMMENT = 2_000  # characters of a person's comment; more would crowd the rest out of a small context
LONGEST_NAME = 200
LONGEST_CHANGES = 2_000
LONGEST_VALUE = 200  # of one changed value
_JOINERS = "\u200c\u200d"  # inside emoji and words of several scripts; harmless

_NOT_AGAIN = "Do not try this or an equivalent action again; ask the user."
_NOT_DONE = "Do not do this; ask the user how to go on."

SENTENCES: Mapping[DecisionState, str] = {
    "approved": "Approved{by}{comment}. Go on with exactly these arguments.",
    "edited": "Approved with changes{by}{comment}{changes}. Go on with exactly the changed arguments.",
    "rejected": f"Rejected{{by}}{{comment}}. {_NOT_AGAIN}",
    "answered": (
        "{name} answers{comment}. This is neither approval nor rejection: do not do this as it is; follow the answer."
    ),
    "expired": f"Nobody decided {{until}}. Silence is not consent. {_NOT_DONE}",
    "withdrawn": f"The request was withdrawn or cancelled before anybody decided{{comment}}. {_NOT_DONE}",
    "pending": (
        "Nobody has decided yet; the request stays open. Do not do this now; ask again later with the same arguments."
    ),
}
"""What the model reads of a decision in each state."""

UNAVAILABLE = (
    "The approval service can't be reached, so nobody could decide and nothing was done. Do not do this now; say so to "
    "the user, and ask again later."
)
MISMATCH = (
    "The arguments are not those that were approved, so nothing was done. Request approval again for the arguments "
    "that you need."
)
INVALID_EDIT = (
    "The request was approved with changes that this tool doesn't take{comment}, so nothing was done. Do not do this; "
    "ask the user how to go on."
)
KEY_REUSED = (
    "This request's key was used before for other arguments{comment}, so nothing was done. Do not do this; request it "
    "as a new tool call."
)
NOT_ALLOWED = "This agent may not request this approval{comment}, so nothing was done. Do not try again; ask the user."
REFUSED = "The request for approval was refused{comment}, so nothing was done. Correct it, or ask the user."
LOOK_AGAIN = (
    "Nobody has decided yet; the request stays open. Do not do this now; call get_approval with the key {key} to look "
    "again."
)
FAILED = "The approval could not be obtained, so nothing was done. Do not do this; ask the user how to go on."


def decision_text(
    state: DecisionState,
    *,
    name: str | None = None,
    at: datetime | None = None,
    comment: str | None = None,
    changes: Sequence[tuple[str, object, object]] = (),
) -> str:
    """Return what the model reads of a decision: who decided, their comment quoted, and what to do.

    `at`: for an expired request, when. `changes`: the leaves that an approver changed, with both values.
    """
    by = harmless(name or "", LONGEST_NAME)
    moment = at.astimezone(UTC) if at is not None else None
    return SENTENCES[state].format(
        by=f" by {by}" if by else "",
        name=by or "An approver",
        comment=_quoted(comment),
        changes=_changes(changes),
        until=f"by {moment:%H:%M} UTC on {moment.day} {moment:%B %Y}" if moment is not None else "in time",
    )


def error_text(error: BaseException) -> str:
    """Return what the model reads when no decision came about. Never a yes; unknown errors get a general sentence."""
    match error:
        case DeniedError():
            return str(error.decision.text)
        case ServiceUnavailableError():
            return UNAVAILABLE
        case ApprovalMismatchError():
            return MISMATCH
        case InvalidPayloadError():
            return INVALID_EDIT.format(comment=_quoted(_places(error)))
        case KeyReusedError():
            return KEY_REUSED.format(comment=_quoted(error.difference))
        case NotAllowedError():
            return NOT_ALLOWED.format(comment=_quoted(error.detail))
        case RequestRefusedError():
            return REFUSED.format(comment=_quoted(error.detail))
    return FAILED


def harmless(text: str, limit: int) -> str:
    """Return the text on one line without control, invisible and bidi characters, cut to `limit` characters."""
    kept = "".join(_harmless_character(each) for each in text[: limit * 4])
    line = " ".join(kept.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _harmless_character(character: str) -> str:
    match unicodedata.category(character):
        case "Cc" | "Zl" | "Zp" | "Zs":
            return " "
        case "Cs":
            return "\ufffd"
        case "Cf" if character not in _JOINERS:
            return ""
    return character


def _places(error: InvalidPayloadError) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors)


def _quoted(comment: str | None) -> str:
    text = harmless(comment or "", LONGEST_COMMENT)
    return f": {json.dumps(text, ensure_ascii=False)}" if text else ""


def _changes(changes: Sequence[tuple[str, object, object]]) -> str:
    """Return `: price 640 → 600, seat "1A" → "2B"`, cut where it gets long."""
    text = ""
    for place, before, after in changes:
        one = f"{harmless(place, LONGEST_VALUE)} {_value(before)} → {_value(after)}"
        if len(text) + len(one) > LONGEST_CHANGES:
            text += ", …"
            break
        text += f", {one}" if text else one
    return f": {text}" if text else ""


def _value(value: object) -> str:
    if value is MISSING:
        return "nothing"
    if isinstance(value, str):
        return json.dumps(harmless(value, LONGEST_VALUE), ensure_ascii=False)
    return harmless(json.dumps(value, ensure_ascii=False, default=str), LONGEST_VALUE)
