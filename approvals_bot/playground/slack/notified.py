"""Notifications by Slack's default settings: to people who are mentioned or written to, and to nobody else.

A message in a channel shows up there, but rings no bell. An edit never does.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from approvals_bot.playground.slack.shapes import Conversation, Json, Message, UserGroup

MENTION = re.compile(
    r"<(?:@(?P<user>[UW]\w+)|!subteam\^(?P<group>S\w+)|!(?P<range>here|channel|everyone))(?:\|[^>]*)?>"
)
EVERYBODY = "*"


def notified_by(
    message: Message, place: Conversation, groups: Mapping[str, UserGroup], earlier: Iterable[Message]
) -> tuple[str, ...]:
    """Return the ids of the people whom this message of a conversation notifies, as it is posted.

    A direct message notifies its reader, and a reply in a thread those who wrote in the thread; both notify everybody
    whom they mention, as far as they are members of the conversation. `earlier`: messages before it.
    """
    found = dict[str, None]()
    if place.with_user and message.thread_ts in (None, message.ts):
        found[place.with_user] = None
    if message.thread_ts:
        thread = [one for one in earlier if one.channel == place.id and message.thread_ts in (one.ts, one.thread_ts)]
        found |= dict.fromkeys(one.user for one in thread if not one.ephemeral_to and not one.bot_id)
    for mentioned in mentions_in(list(message.blocks) if message.blocks else message.text):
        if mentioned == EVERYBODY:
            found |= dict.fromkeys(sorted(place.members))
        elif mentioned in groups:
            found |= dict.fromkeys(groups[mentioned].members)
        else:
            found[mentioned] = None
    return tuple(user for user in found if user in place.members and user != message.user)


def mentions_in(shown: Any) -> Iterator[str]:
    """Yield the ids of people and user groups that blocks or a text mention."""
    match shown:
        case {"type": "user", "user_id": str(user)}:
            yield user
        case {"type": "usergroup", "usergroup_id": str(group)}:
            yield group
        case {"type": "broadcast"}:
            yield EVERYBODY
        case {"type": "mrkdwn", "text": str(text)}:
            yield from mentions_in(text)
        case {"type": "plain_text" | "text"}:
            return
        case dict():
            for part in shown.values():
                if isinstance(part, dict | list):
                    yield from mentions_in(part)
        case list():
            for part in shown:
                if isinstance(part, dict | list):
                    yield from mentions_in(part)
        case str():
            for found in MENTION.finditer(shown):
                yield found["user"] or found["group"] or EVERYBODY


def unknown_mentions(blocks: list[Json], known: Container[str]) -> list[str]:
    """Return the ids that blocks mention, and that nobody in this workspace has."""
    return [one for one in mentions_in(blocks) if one not in known and one != EVERYBODY]
