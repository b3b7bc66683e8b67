"""The table of Web API methods, and their calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from math import ceil
from typing import Any

from approvals_bot.errors import ApprovalsBotError
from approvals_bot.playground.slack.shapes import Conversation, Json
from approvals_bot.playground.slack.workspace import Workspace


class SlackRefusedError(ApprovalsBotError):
    """The call is answered with `ok: false`; `error` is Slack's name for the reason."""

    def __init__(self, error: str, **more: Any) -> None:
        self.error = error
        self.more = more
        super().__init__(error)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a method, with its arguments merged from query, form and JSON."""

    method: str
    arguments: Json
    scopes: frozenset[str] = frozenset()
    base_url: str = ""
    socket_url: str = ""

    def text(self, name: str, default: str = "") -> str:
        value = self.arguments.get(name, default)
        if value is None:
            return default
        if isinstance(value, (dict, list)):
            raise wrong_arguments(f"must be a string: {name}")
        return str(value)

    def flag(self, name: str) -> bool:
        value = self.arguments.get(name, False)
        return value is True or str(value).lower() in ("1", "true")

    def number(self, name: str, default: int) -> int:
        try:
            return int(self.text(name, str(default)))
        except ValueError:
            raise wrong_arguments(f"must be an integer: {name}") from None

    def value(self, name: str, broken: str = "invalid_arguments") -> Any:
        """Return an argument that may be JSON in a string; None if absent or empty."""
        given = self.arguments.get(name)
        if isinstance(given, str):
            if not given.strip():
                return None
            try:
                return json.loads(given)
            except ValueError:
                raise SlackRefusedError(broken) from None
        return given

    def need_scope(self, scope: str) -> None:
        if scope not in self.scopes:
            raise missing_scope(scope, self.scopes)


Answerer = Callable[[Workspace, Call], Json]


@dataclass(slots=True)
class MethodTable:
    """The methods and the functions that answer them."""

    answerers: dict[str, Answerer] = field(default_factory=dict)

    def answers(self, method: str) -> Callable[[Answerer], Answerer]:
        def add(answerer: Answerer) -> Answerer:
            self.answerers[method] = answerer
            return answerer

        return add


def missing_scope(needed: str, scopes: frozenset[str]) -> SlackRefusedError:
    return SlackRefusedError("missing_scope", needed=needed, provided=",".join(sorted(scopes)))


def wrong_arguments(*lines: str) -> SlackRefusedError:
    return SlackRefusedError("invalid_arguments", response_metadata={"messages": [f"[ERROR] {line}" for line in lines]})


def conversation(space: Workspace, call: Call, *, by_name: bool = False) -> Conversation:
    """Return the call's channel. Private channels without the bot don't exist for it."""
    where = call.text("channel")
    found = space.find_channel(where) if by_name else space.channels.get(where)
    if found is None or (found.private and space.bot.id not in found.members):
        raise SlackRefusedError("channel_not_found")
    return found


COMMON_ERRORS = frozenset({
    "access_denied", "account_inactive", "fatal_error", "internal_error", "invalid_arg_name", "invalid_arguments",
    "invalid_auth", "invalid_form_data", "invalid_json", "invalid_post_type", "json_not_object", "missing_scope",
    "not_allowed_token_type", "not_authed", "ratelimited", "request_timeout", "service_unavailable", "token_expired",
    "token_revoked", "unknown_method",
})  # fmt: skip
"""Errors that every method may return; Slack documents them once, not per method."""

EXTRA_ERRORS: dict[str, frozenset[str]] = {
    "chat.postMessage": frozenset({"cannot_dm_bot"}),
    "conversations.open": frozenset({"cannot_dm_bot"}),
}
"""Seen in practice, but in no published list."""

CALLS_PER_MINUTE = {"t1": 1, "t2": 20, "t3": 50, "t4": 100, "t5": 600}
"""Calls per minute in Slack's tiers. t5 is "special": chat.postMessage is also limited to 1/s in each channel."""


@dataclass(frozen=True, slots=True)
class Method:
    name: str
    scopes: tuple[str, ...]  # a bot token needs one of these
    tier: str
    required: tuple[str, ...]
    arguments: frozenset[str]
    errors: frozenset[str]

    def may_answer(self, error: str) -> bool:
        return error in self.errors or error in COMMON_ERRORS or error in EXTRA_ERRORS.get(self.name, frozenset())


def load_methods() -> dict[str, Method]:
    text = (files("approvals_bot.playground") / "data" / "slack_methods.json").read_text(encoding="utf-8")
    return {
        name: Method(
            name,
            tuple(data["scopes"]),
            data["tier"],
            tuple(data["required"]),
            frozenset(data["arguments"]),
            frozenset(data["errors"]),
        )
        for name, data in json.loads(text).items()
    }


METHODS = load_methods()


SECONDS_PER_MESSAGE = 1.0
BURST_OF_MESSAGES = 3  # Slack allows a short burst before it answers 429


class Rates:
    """Token buckets on an injected clock. Off until `on` is set."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.on = False
        self.now = now
        self.buckets: dict[tuple[str, str], tuple[float, float]] = {}  # (method, channel) → (tokens, at)

    def wait(self, method: Method, channel: str | None) -> int:
        """Return the whole seconds that the caller must wait, or count the call and return 0."""
        if not self.on:
            return 0
        per_minute = CALLS_PER_MINUTE[method.tier]
        waits = [self.take((method.name, ""), per_minute / 60, per_minute)]
        if method.name == "chat.postMessage" and channel:
            waits.append(self.take((method.name, channel), 1 / SECONDS_PER_MESSAGE, BURST_OF_MESSAGES))
        return max(waits)

    def take(self, key: tuple[str, str], per_second: float, most: float) -> int:
        at = self.now().timestamp()
        tokens, since = self.buckets.get(key, (most, at))
        tokens = min(most, tokens + (at - since) * per_second)
        if tokens < 1:
            self.buckets[key] = (tokens, at)
            return max(1, ceil((1 - tokens) / per_second))
        self.buckets[key] = (tokens - 1, at)
        return 0
