"""`auth.* users.* usergroups.* conversations.* team.*`: the workspace's people, groups and channels."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypeVar

from approvals_bot.playground.slack.calls import Call, MethodTable, SlackRefusedError, conversation, missing_scope
from approvals_bot.playground.slack.shapes import APP_ID, Conversation, Json, Message, User
from approvals_bot.playground.slack.workspace import Workspace

T = TypeVar("T")

DIRECTORY = MethodTable()
KINDS = {"public_channel": "channels:read", "private_channel": "groups:read", "im": "im:read", "mpim": "mpim:read"}
"""The kinds of conversations, and the scope that listing each needs."""


@DIRECTORY.answers("api.test")
def api_test(space: Workspace, call: Call) -> Json:
    if call.arguments.get("error"):
        raise SlackRefusedError(call.text("error"), args=call.arguments)
    return {"args": call.arguments}


@DIRECTORY.answers("auth.test")
def auth_test(space: Workspace, call: Call) -> Json:
    return {
        "url": f"{call.base_url}/playground/",
        "team": space.app.team_name,
        "user": space.bot.name.lower(),
        "team_id": space.app.team_id,
        "user_id": space.bot.id,
        "bot_id": space.bot.bot_id,
        "app_id": APP_ID,
        "is_enterprise_install": False,
        **({"enterprise_id": space.app.enterprise_id} if space.app.enterprise_id else {}),
    }


@DIRECTORY.answers("team.info")
def team_info(space: Workspace, call: Call) -> Json:
    if call.text("team", space.app.team_id) != space.app.team_id:
        raise SlackRefusedError("team_not_found")
    name = space.app.team_name
    return {"team": {"id": space.app.team_id, "name": name, "domain": name.lower(), "email_domain": "", "icon": {}}}


@DIRECTORY.answers("oauth.v2.access")
def oauth_access(space: Workspace, call: Call) -> Json:
    """Exchange the code `playground` for the bot token, which is all that an installation needs."""
    if call.text("code") != "playground":
        raise SlackRefusedError("invalid_code")
    return {
        "access_token": space.app.bot_token,
        "token_type": "bot",
        "scope": ",".join(space.app.scopes),
        "bot_user_id": space.bot.id,
        "app_id": APP_ID,
        "team": {"id": space.app.team_id, "name": space.app.team_name},
        "enterprise": None,
        "is_enterprise_install": False,
        "authed_user": {"id": next(iter(space.users))},
    }


# ── people ────────────────────────────────────────────────────────────────────────────────────────────────────────


@DIRECTORY.answers("users.info")
def users_info(space: Workspace, call: Call) -> Json:
    user = space.users.get(call.text("user"))
    if user is None:
        raise SlackRefusedError("user_not_found")
    return {"user": shown(space, call, user)}


@DIRECTORY.answers("users.list")
def users_list(space: Workspace, call: Call) -> Json:
    page, cursor = paged([*space.users.values()], call)
    return {
        "members": [shown(space, call, user) for user in page],
        "cache_ts": int(space.now().timestamp()),
        "response_metadata": {"next_cursor": cursor},
    }


@DIRECTORY.answers("users.lookupByEmail")
def users_lookup_by_email(space: Workspace, call: Call) -> Json:
    """Find a person, but neither people of other companies nor deactivated accounts."""
    user = space.by_address.get(call.text("email").lower())
    if user is None or user.kind in ("stranger", "partner", "deactivated"):
        raise SlackRefusedError("users_not_found")
    return {"user": shown(space, call, user)}


def shown(space: Workspace, call: Call, user: User) -> Json:
    return user.as_json(
        with_address="users:read.email" in call.scopes, home_team=space.app.team_id, enterprise=space.app.enterprise_id
    )


# ── user groups ───────────────────────────────────────────────────────────────────────────────────────────────────


@DIRECTORY.answers("usergroups.list")
def usergroups_list(space: Workspace, call: Call) -> Json:
    with_users = call.flag("include_users")
    return {"usergroups": [group.as_json(space.app.team_id, with_users) for group in space.groups.values()]}


@DIRECTORY.answers("usergroups.users.list")
def usergroups_users_list(space: Workspace, call: Call) -> Json:
    group = space.groups.get(call.text("usergroup"))
    if group is None:
        raise SlackRefusedError("no_such_subteam")
    return {"users": list(group.members)}


# ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────────


@DIRECTORY.answers("conversations.open")
def conversations_open(space: Workspace, call: Call) -> Json:
    if call.text("channel"):
        place = conversation(space, call)
        if not place.with_user:
            raise SlackRefusedError("method_not_supported_for_channel_type")
        return {"channel": {"id": place.id}, "no_op": True, "already_open": True}
    ids = [one.strip() for one in call.text("users").split(",") if one.strip()]
    if not ids:
        raise SlackRefusedError("users_list_not_supplied")
    if len(ids) > 1:
        raise SlackRefusedError("too_many_users")  # group messages aren't supported
    user = space.users.get(ids[0])
    if user is None:
        raise SlackRefusedError("user_not_found")
    if user.kind == "deactivated":
        raise SlackRefusedError("user_disabled")
    if user.kind == "bot":
        raise SlackRefusedError("cannot_dm_bot")
    call.need_scope("im:write")
    place = space.direct_message(user)
    return {"channel": place.as_json(space.bot.id) if call.flag("return_im") else {"id": place.id}}


@DIRECTORY.answers("conversations.info")
def conversations_info(space: Workspace, call: Call) -> Json:
    place = conversation(space, call)
    need_reading(call, place, "read")
    return {"channel": place.as_json(space.bot.id)}


@DIRECTORY.answers("conversations.members")
def conversations_members(space: Workspace, call: Call) -> Json:
    place = conversation(space, call)
    need_reading(call, place, "read")
    page, cursor = paged(sorted(place.members), call)
    return {"members": page, "response_metadata": {"next_cursor": cursor}}


@DIRECTORY.answers("conversations.list")
def conversations_list(space: Workspace, call: Call) -> Json:
    """List channels; private ones only if the bot is a member."""
    types = [one.strip() for one in call.text("types", "public_channel").split(",")]
    if not set(types) <= KINDS.keys():
        raise SlackRefusedError("invalid_types")
    for one in types:
        call.need_scope(KINDS[one])
    if not 1 <= call.number("limit", 100) < 1_000:
        raise SlackRefusedError("invalid_limit")
    found = [
        place
        for place in space.channels.values()
        if kind_of(place) in types
        and not (place.archived and call.flag("exclude_archived"))
        and (not place.private or space.bot.id in place.members)
    ]
    page, cursor = paged(found, call)
    return {"channels": [place.as_json(space.bot.id) for place in page], "response_metadata": {"next_cursor": cursor}}


@DIRECTORY.answers("conversations.history")
def conversations_history(space: Workspace, call: Call) -> Json:
    """List messages, newest first, without ephemeral messages and replies in threads."""
    place = readable(space, call)
    found = [message for message in reversed(space.messages_in(place.id)) if message.thread_ts in (None, message.ts)]
    return messages(space, call, [message for message in found if in_time(call, message)])


@DIRECTORY.answers("conversations.replies")
def conversations_replies(space: Workspace, call: Call) -> Json:
    """List a thread, oldest first: its first message regardless of the time range, and its replies."""
    place = readable(space, call)
    first = space.messages.get((place.id, call.text("ts")))
    if first is None or first.ephemeral_to:
        raise SlackRefusedError("thread_not_found")
    found = [message for message in space.messages_in(place.id) if message.thread_ts == first.ts != message.ts]
    return messages(space, call, [first, *(message for message in found if in_time(call, message))])


def readable(space: Workspace, call: Call) -> Conversation:
    place = conversation(space, call)
    need_reading(call, place, "history")
    if space.bot.id not in place.members:
        raise SlackRefusedError("not_in_channel" if call.method == "conversations.history" else "channel_not_found")
    return place


def in_time(call: Call, message: Message) -> bool:
    oldest = seconds(call, "oldest", "invalid_ts_oldest", 0.0)
    latest = seconds(call, "latest", "invalid_ts_latest", float("inf"))
    at = float(message.ts)
    return oldest < at < latest or (call.flag("inclusive") and at in (oldest, latest))


def messages(space: Workspace, call: Call, found: Sequence[Message]) -> Json:
    page, cursor = paged([message for message in found if not message.ephemeral_to], call)
    with_metadata = call.flag("include_all_metadata")
    return {
        "messages": [message.as_json(space.app.team_id, with_metadata) for message in page],
        "has_more": bool(cursor),
        "response_metadata": {"next_cursor": cursor},
    }


def kind_of(place: Conversation) -> str:
    if place.with_user:
        return "im"
    return "private_channel" if place.private else "public_channel"


def need_reading(call: Call, place: Conversation, what: str) -> None:
    kind = "im" if place.with_user else ("groups" if place.private else "channels")
    if f"{kind}:{what}" not in call.scopes:
        raise missing_scope(f"{kind}:{what}", call.scopes)


def seconds(call: Call, name: str, error: str, default: float) -> float:
    given = call.text(name)
    try:
        return float(given) if given else default
    except ValueError:
        raise SlackRefusedError(error) from None


def paged(items: Sequence[T], call: Call) -> tuple[list[T], str]:
    """Return a page and the cursor of the next one ("" at the end)."""
    limit = min(max(call.number("limit", 100), 1), 1000)
    start = 0
    if call.text("cursor"):
        try:
            start = int(base64.b64decode(call.text("cursor"), validate=True).removeprefix(b"next:"))
        except ValueError:
            raise SlackRefusedError("invalid_cursor") from None
    end = start + limit
    return list(items[start:end]), base64.b64encode(f"next:{end}".encode()).decode() if end < len(items) else ""
