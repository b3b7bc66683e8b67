"""The table of Web API methods, and what a call is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from approvals_bot.errors import ApprovalsBotError
from approvals_bot.playground.slack.shapes import Conversation, Json
from approvals_bot.playground.slack.workspace import Workspace


class SlackRefusedError(ApprovalsBotError):
    """The stand-in answers `ok: false`; `error` is Slack's name for why."""

    def __init__(self, error: str, **more: Any) -> None:
        self.error = error
        self.more = more
        super().__init__(error)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a method, its arguments merged from query, form and JSON."""

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

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.arguments.get(name, default)
        return value is True or str(value).lower() in ("1", "true")

    def number(self, name: str, default: int) -> int:
        try:
            return int(self.text(name, str(default)))
        except ValueError:
            raise wrong_arguments(f"must be an integer: {name}") from None

    def value(self, name: str, broken: str = "invalid_arguments") -> Any:
        """An argument that may come JSON-encoded in a string; None when absent or empty."""
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
class Table:
    """Which function answers which method."""

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
    """The channel that the call names; a private one that the bot is not in does not exist for it."""
    where = call.text("channel")
    found = space.find_channel(where) if by_name else space.channels.get(where)
    if found is None or (found.private and space.bot.id not in found.members):
        raise SlackRefusedError("channel_not_found")
    return found
