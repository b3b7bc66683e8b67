"""What Slack publishes about each Web API method: scopes, tier, arguments and error names.

The data is reduced from slack-ruby/slack-api-ref (MIT, its licence lies beside it). The stand-in answers with no error
name that isn't published for the method, but for those named here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

COMMON_ERRORS = frozenset({
    "access_denied", "account_inactive", "fatal_error", "internal_error", "invalid_arg_name", "invalid_arguments",
    "invalid_auth", "invalid_form_data", "invalid_json", "invalid_post_type", "json_not_object", "missing_scope",
    "not_allowed_token_type", "not_authed", "ratelimited", "request_timeout", "service_unavailable", "token_expired",
    "token_revoked", "unknown_method",
})  # fmt: skip
"""Errors that every method may answer; Slack documents them once, not per method."""

EXTRA_ERRORS: dict[str, frozenset[str]] = {
    "chat.postMessage": frozenset({"cannot_dm_bot"}),
    "conversations.open": frozenset({"cannot_dm_bot"}),
}
"""Seen in the wild, but in no published list."""

CALLS_PER_MINUTE = {"t1": 1, "t2": 20, "t3": 50, "t4": 100, "t5": 600}
"""Slack's tiers. t5 is its "special": chat.postMessage has one message per second and channel besides."""


@dataclass(frozen=True, slots=True)
class Method:
    name: str
    scopes: tuple[str, ...]  # a bot token needs one of them
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
