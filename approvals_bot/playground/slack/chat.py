"""`chat.*`: posting, changing and deleting messages, by Slack's rules."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from approvals_bot.playground.slack.blocks import CHARACTERS_PER_MESSAGE, characters_in, check_blocks
from approvals_bot.playground.slack.calls import Call, MethodTable, SlackRefusedError, conversation
from approvals_bot.playground.slack.elements import BlockProblem
from approvals_bot.playground.slack.notified import unknown_mentions
from approvals_bot.playground.slack.shapes import Conversation, Json, Message
from approvals_bot.playground.slack.workspace import Workspace

CHAT = MethodTable()
TEXT_CHARACTERS = 40_000  # Slack cuts longer texts silently
METADATA_BYTES = 16_384
EVENT_TYPE = 255


@CHAT.answers("chat.postMessage")
def post_message(space: Workspace, call: Call) -> Json:
    place = place_to_post(space, call)
    if place.archived:
        raise SlackRefusedError("is_archived")
    if not place.with_user and space.bot.id not in place.members and "chat:write.public" not in call.scopes:
        raise SlackRefusedError("not_in_channel")
    text, blocks = content(space, call, "msg_blocks_too_long")
    message = space.post(
        place.id,
        space.bot,
        text,
        blocks,
        thread_ts=thread_of(space, call, place),
        metadata=metadata(call),
    )
    return {"channel": place.id, "ts": message.ts, "message": message.as_json(space.app.team_id, with_metadata=True)}


@CHAT.answers("chat.update")
def update(space: Workspace, call: Call) -> Json:
    place = conversation(space, call)
    if place.archived:
        raise SlackRefusedError("is_inactive")
    old = existing(space, place, call.text("ts"))
    if old.user != space.bot.id:
        raise SlackRefusedError("cant_update_message")
    text, blocks = content(space, call, "msg_too_long")
    new_metadata = metadata(call) if "metadata" in call.arguments else old.metadata
    # Text without blocks drops the blocks; blocks without text keep the text that notifications showed.
    message = space.keep(
        replace(
            old,
            text=text or old.text,
            blocks=tuple(space.with_ids(blocks)),
            metadata=new_metadata,
            edited=f"{space.now().timestamp():.6f}",
        )
    )
    return {
        "channel": place.id,
        "ts": message.ts,
        "text": message.text,
        "message": message.as_json(space.app.team_id, with_metadata=True),
    }


@CHAT.answers("chat.postEphemeral")
def post_ephemeral(space: Workspace, call: Call) -> Json:
    place = conversation(space, call, by_name=True)
    if place.archived:
        raise SlackRefusedError("is_archived")
    if space.bot.id not in place.members:
        raise SlackRefusedError("not_in_channel")
    user = call.text("user")
    if user not in place.members:
        raise SlackRefusedError("user_not_in_channel")
    text, blocks = content(space, call, "msg_too_long")
    thread_ts = call.text("thread_ts") or None
    return {"message_ts": space.post(place.id, space.bot, text, blocks, thread_ts=thread_ts, ephemeral_to=user).ts}


@CHAT.answers("chat.delete")
def delete(space: Workspace, call: Call) -> Json:
    place = conversation(space, call)
    message = existing(space, place, call.text("ts"))
    if message.user != space.bot.id:
        raise SlackRefusedError("cant_delete_message")
    space.delete(message)
    return {"channel": place.id, "ts": message.ts}


@CHAT.answers("chat.getPermalink")
def permalink(space: Workspace, call: Call) -> Json:
    place = conversation(space, call)
    message = existing(space, place, call.text("message_ts"))
    return {
        "channel": place.id,
        "permalink": f"{call.base_url}/playground/channels/{place.id}#m{message.ts.replace('.', '')}",
    }


def place_to_post(space: Workspace, call: Call) -> Conversation:
    """Return a channel by ID or name, or a person's direct message by their ID."""
    user = space.users.get(call.text("channel"))
    if user is None:
        return conversation(space, call, by_name=True)
    match user.kind:
        case "bot":
            raise SlackRefusedError("cannot_dm_bot")
        case "deactivated":
            raise SlackRefusedError("channel_not_found")
        case _:
            return space.direct_message(user)


def content(space: Workspace, call: Call, too_long: str) -> tuple[str, list[Json]]:
    """Return text and blocks, checked as Slack checks them. A mention of nobody, which Slack shows, is refused here."""
    text = call.text("text")[:TEXT_CHARACTERS]
    markdown = call.text("markdown_text")
    blocks = call.value("blocks", broken="invalid_blocks_format")
    if markdown and (text or blocks):
        raise SlackRefusedError("markdown_text_conflict")
    if not (text or markdown or blocks or call.value("attachments")):
        raise SlackRefusedError("no_text")
    if blocks is not None and not isinstance(blocks, list):
        raise SlackRefusedError("invalid_blocks_format")
    problems = check_blocks(blocks or [], "message")
    if problems:
        raise invalid_blocks(problems)
    if unknown := unknown_mentions(blocks or [], {**space.users, **space.groups}):
        raise invalid_blocks([BlockProblem("/blocks", f"mentions nobody: {one}") for one in unknown])
    if characters_in(blocks or []) > CHARACTERS_PER_MESSAGE:
        raise SlackRefusedError(too_long)
    return text or markdown, blocks or []


def invalid_blocks(problems: list[BlockProblem]) -> SlackRefusedError:
    lines = [problem.line() for problem in problems]
    return SlackRefusedError(
        "invalid_blocks", errors=[line[8:] for line in lines], response_metadata={"messages": lines}
    )


def metadata(call: Call) -> Json | None:
    given = call.value("metadata", broken="invalid_metadata_format")
    if given is None:
        return None
    match given:
        case {"event_type": str(event), "event_payload": dict(payload)} if 0 < len(event) <= EVENT_TYPE:
            if not all(is_flat(value) for value in payload.values()):
                raise SlackRefusedError("invalid_metadata_schema")
        case _:
            raise SlackRefusedError("invalid_metadata_format")
    if len(json.dumps(given).encode()) > METADATA_BYTES:
        raise SlackRefusedError("metadata_too_large")
    return dict(given)


def is_flat(value: Any, depth: int = 1) -> bool:
    """Check for scalars with at most one level of nesting."""
    match value:
        case dict():
            return depth > 0 and all(is_flat(part, depth - 1) for part in value.values())
        case list():
            return depth > 0 and all(is_flat(part, depth - 1) for part in value)
        case _:
            return True


def thread_of(space: Workspace, call: Call, place: Conversation) -> str | None:
    thread_ts = call.text("thread_ts") or None
    if thread_ts is None:
        return None
    parent = space.messages.get((place.id, thread_ts))
    if parent is None or parent.ephemeral_to:
        raise SlackRefusedError("cannot_reply_to_message")
    return parent.thread_ts or parent.ts


def existing(space: Workspace, place: Conversation, ts: str) -> Message:
    message = space.messages.get((place.id, ts))
    if message is None or message.ephemeral_to:
        raise SlackRefusedError("message_not_found")
    return message
