"""The rights that a configuration gives: what the audit keeps of it, never a secret."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from approvals_bot.approvals.policy import Definition
from approvals_bot.config.load import Configuration
from approvals_bot.config.service import ServiceSettings

OF_THE_SERVICE = ("people", "groups", "directory", "api_keys", "roles", "identity", "login", "chat")
"""Tables by which people and programs may do something."""

NOT_OF_A_WORKFLOW = {"fields", "labels", "on", "settings", "group_names"}
"""Tables of a workflow's file that say nothing about who may do something. Of all others it is kept what they say."""

BY_CHOSEN_NAME = {"people", "groups", "api_keys"}
"""Of those, the ones whose keys are names that somebody has chosen: a group may be called `token`."""

SECRETS = {"key", "client_secret", "secret", "token"}
NOT_RIGHTS = SECRETS | {"name", "title", "label", "labels", "zone", "model"}
"""Keys that say nothing about what anybody may do."""

MOST_CHANGES = 200  # that a line of the audit names


def rights_of(configuration: Configuration) -> dict[str, Any]:
    """Return what this configuration says about who may do what, as JSON."""
    service = _dumped(configuration.service, OF_THE_SERVICE)
    tables = Definition.model_fields.keys() - NOT_OF_A_WORKFLOW
    workflows = {each.id: _dumped(each, tables) for each in configuration.workflows}
    slack, email = configuration.service.slack, configuration.service.email
    replies = None if email is None else email.replies
    outside = {
        "admins": list(configuration.service.server.admins),
        "external_users": "deny" if slack is None else slack.external_users,
        "trusted_authserv": [] if replies is None else list(replies.trusted_authserv),
    }
    return {**service, **outside, "workflows": workflows}


def _dumped(model: ServiceSettings | Definition, tables: Collection[str]) -> dict[str, Any]:
    known = {name for name in tables if name in type(model).model_fields}
    dumped = model.model_dump(mode="json", include=known, exclude_defaults=True, by_alias=True)
    return {name: _table(name, value) for name, value in dumped.items()}


def _table(name: str, value: Any) -> Any:
    if name == "directory":  # it has chosen names at every depth, and no secrets
        return value
    if name in BY_CHOSEN_NAME:
        return {chosen: _without_secrets(each) for chosen, each in value.items()}
    return _without_secrets(value)


def _without_secrets(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_secrets(each) for key, each in value.items() if key not in NOT_RIGHTS}
        case list():
            return [_without_secrets(each) for each in value]
        case _:
            return value


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is different, at most MOST_CHANGES: `{"path", "added", "removed"}` of lists, else `was` and `now`."""
    found = []
    for change in _changes(before, after, ""):
        found.append(change)
        if len(found) == MOST_CHANGES:
            break
    return found


def _changes(before: Any, after: Any, path: str) -> Iterator[dict[str, Any]]:
    if before == after:
        return
    match before, after:
        case dict(), dict():
            for key in sorted(before.keys() | after.keys()):
                yield from _changes(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        case list(), list() if all(isinstance(each, str) for each in (*before, *after)):
            added, removed = sorted(set(after) - set(before)), sorted(set(before) - set(after))
            yield {"path": path, "added": added, "removed": removed}
        case _:
            yield {"path": path, "was": before, "now": after}
