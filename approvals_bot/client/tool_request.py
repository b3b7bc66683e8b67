"""A tool call as it is requested: checked, canonical and with its digest before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from approvals_bot.client.digests import digest_of
from approvals_bot.errors import InvalidArgumentError, RequestRefusedError

LONGEST_KEY = 200  # characters, as the service takes them
TOOL_CALL = "tool-call"
"""The service's built-in workflow for tool calls."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw])[a-z]*\s*", re.ASCII)


class RequestOptions(TypedDict, total=False):
    """What may be said about a tool call besides its tool and arguments.

    `to`: addresses of those who decide, where the workflow's `may_ask` covers them. `on_behalf_of`: the person whom the
    agent works for. `why`: the agent's own reason, shown as written by a model. `deadline`: "15m". `agent`: its name.
    `expects`: the JSON Schema of the arguments, which edits must fit. `workflow`: another one than the client's.
    """

    to: str | Sequence[str] | None
    on_behalf_of: str | None
    why: str | None
    workflow: str | None
    deadline: str | None
    agent: str | None
    expects: Mapping[str, Any] | None


class AskOptions(RequestOptions, total=False):
    """The same, and how long to wait: seconds or "24h"; the client's own time by default."""

    wait: float | str | None


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool call that is about to be requested: its key, its body for the API, and its digest."""

    key: str
    digest: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request for a tool call that the service has. `expires_at`: the time by which it is to be decided, in UTC.

    `input` is what was sent; None where the request was only looked up.
    """

    id: str
    key: str
    url: str
    digest: str
    expires_at: datetime | None = None
    input: Mapping[str, Any] | None = field(default=None, repr=False)


def tool_request(
    key: str, tool: str, arguments: Mapping[str, Any], workflow: str, given: RequestOptions
) -> ToolRequest:
    """Return the request for this tool call, ready to be sent.

    Raises InvalidArgumentError for a key that can't be used, and RequestRefusedError for arguments that aren't JSON:
    those come from a model, which can correct them.
    """
    check_key(key)
    try:
        digest = digest_of(tool, arguments)
    except ValueError as error:
        raise RequestRefusedError(422, f"The arguments can't be sent as JSON: {error}.") from None
    to = given.get("to")
    input = {
        "tool": tool,
        "arguments": dict(arguments),
        "agent": given.get("agent"),
        "why": given.get("why"),
        "to": [to] if isinstance(to, str) else list(to) if to is not None else None,
        "deadline": given.get("deadline"),
        "expects": given.get("expects"),
    }
    body = {
        "workflow": given.get("workflow") or workflow,
        "input": {name: value for name, value in input.items() if value is not None},
        "on_behalf_of": given.get("on_behalf_of"),
    }
    sent = {name: value for name, value in body.items() if value is not None}
    return ToolRequest(key, digest, sent)


def is_usable_key(key: str) -> bool:
    """Return whether a key can go over the wire as it is."""
    return bool(key.strip()) and len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()


def check_key(key: str) -> str:
    """Return the key. Raises InvalidArgumentError for one that can't go over the wire as it is."""
    if not is_usable_key(key):
        raise InvalidArgumentError(f"a key has 1 to {LONGEST_KEY} printable ASCII characters, unlike {key[:300]!r}")
    return key


def as_seconds(wait: float | str) -> float:
    """Return the seconds of a waiting time: a number of them, or text like "90s", "1h30m" or "7 days"."""
    if isinstance(wait, str):
        parts = [(part[1], part[2], part.end()) for part in _PART.finditer(wait)]
        if not parts or sum(len(part[0]) for part in _PART.finditer(wait)) != len(wait):
            raise InvalidArgumentError(f"{wait!r} is not a time to wait: write it like '30s', '15m', '24h' or '7 days'")
        return sum(float(number) * _UNITS[unit] for number, unit, _ in parts)
    if isinstance(wait, bool) or not math.isfinite(wait) or wait < 0:
        raise InvalidArgumentError(f"a time to wait is a number of seconds, 0 or more, not {wait!r}")
    return float(wait)
