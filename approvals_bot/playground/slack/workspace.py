"""The fake Slack's state: one workspace with people, channels, user groups, messages and views.

Permissions are checked by the Web API methods.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from approvals_bot.people import Person
from approvals_bot.playground.slack.notified import notified_by
from approvals_bot.playground.slack.shapes import (
    APP_ID,
    Conversation,
    Execution,
    Json,
    Message,
    Numbers,
    ResponseUrl,
    SeedApp,
    SeedChannel,
    SeedGroup,
    Trigger,
    User,
    UserGroup,
    View,
    id_part,
)


class Workspace:
    """The whole state. Time and randomness are arguments, so a script always produces the same IDs."""

    def __init__(
        self,
        app: SeedApp,
        people: Sequence[User],
        channels: Sequence[SeedChannel],
        groups: Sequence[SeedGroup],
        *,
        now: Callable[[], datetime],
        secret: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self.app = app
        self.now = now
        self.secret = secret
        self.bot = User(Person("", app.name, "U0" + id_part(app.name)), "bot")
        self.users = {user.id: user for user in (*people, self.bot) if user.in_slack}
        self.by_address = {user.address.lower(): user for user in self.users.values() if user.address}
        self.groups: dict[str, UserGroup] = {
            g.id: UserGroup(g.id, g.handle, g.name or g.handle, tuple(self.ids_of(g.members))) for g in groups
        }
        self.channels: dict[str, Conversation] = {}
        self.add_people_and_channels((), channels)
        self.groups_set: set[str] = set()  # handles of groups whose members were changed through the JSON API
        self.messages: dict[tuple[str, str], Message] = {}
        self.touched: set[tuple[str, str]] = set()  # messages posted, changed or deleted since the last write
        self.executions: dict[str, Execution] = {}
        self.views: dict[str, View] = {}
        self.modals: dict[str, list[str]] = {}  # user → view ids, the topmost last
        self.homes: dict[str, str] = {}  # user → view id
        self.triggers: dict[str, Trigger] = {}
        self.response_urls: dict[str, ResponseUrl] = {}
        self.last_ts: dict[str, int] = {}
        self.numbers = Numbers()
        self.onlookers: list[asyncio.Future[None]] = []

    # people and places

    def add_people_and_channels(self, people: Sequence[User], channels: Sequence[SeedChannel]) -> None:
        """Add people and channels that are new. New people join every public channel."""
        for user in people:
            if user.in_slack and user.id not in self.users:
                self.users[user.id] = self.by_address[user.address.lower()] = user
                for known in self.channels.values():
                    if not known.private and not known.with_user:
                        known.members.add(user.id)
        for channel in channels:
            if channel.id not in self.channels:
                self.channels[channel.id] = Conversation(channel, self.members_of(channel))

    def ids_of(self, addresses: Iterable[str]) -> list[str]:
        return [self.by_address[a.lower()].id for a in addresses if a.lower() in self.by_address]

    def members_of(self, channel: SeedChannel) -> set[str]:
        if channel.members is None:
            members = {
                u.id for u in self.users.values() if u.kind in ("member", "guest", "stranger", "partner", "sister")
            }
        else:
            members = set(self.ids_of(channel.members))
        return members | ({self.bot.id} if channel.has_bot else set())

    def find_user(self, name: str) -> User | None:
        """Find a person by ID, address, name or handle."""
        name = name.strip().removeprefix("@")
        return next((user for user in self.users.values() if user.is_called(name)), None)

    def name_of(self, one: str) -> str:
        """Return the displayed name of a person, user group or channel ID."""
        if one in self.users:
            return self.users[one].name
        if one in self.groups:
            return self.groups[one].handle
        return self.channels[one].name if one in self.channels else one

    def find_channel(self, where: str) -> Conversation | None:
        """Find a channel by ID, or by name with or without `#`."""
        if where in self.channels:
            return self.channels[where]
        name = where.strip().removeprefix("#").lower()
        return next((c for c in self.channels.values() if c.name == name and not c.with_user), None)

    def direct_message(self, user: User) -> Conversation:
        """Return the bot's conversation with a person, creating it if needed."""
        place = Conversation(SeedChannel(user.handle, private=True), {user.id, self.bot.id}, with_user=user.id)
        return self.channels.setdefault(place.id, place)

    def set_group(self, handle: str, members: Sequence[str]) -> None:
        """Replace the members of a user group."""
        for group in self.groups.values():
            if group.handle == handle.removeprefix("@"):
                self.groups[group.id] = replace(group, members=tuple(self.ids_of(members)))
                self.groups_set.add(group.id)

    # messages

    def next_ts(self, channel: str) -> str:
        """Return a ts that is unique and increases within a channel, like Slack's: seconds and microseconds."""
        micros = max(int(self.now().timestamp() * 1_000_000), self.last_ts.get(channel, 0) + 1)
        self.last_ts[channel] = micros
        return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"

    def post(
        self,
        channel: str,
        user: User,
        text: str,
        blocks: Sequence[Json] = (),
        *,
        thread_ts: str | None = None,
        metadata: Json | None = None,
        ephemeral_to: str | None = None,
    ) -> Message:
        message = Message(
            channel=channel,
            ts=self.next_ts(channel),
            user=user.id,
            text=text,
            blocks=tuple(self.with_ids(blocks)),
            thread_ts=thread_ts,
            metadata=metadata,
            ephemeral_to=ephemeral_to,
            by_app=APP_ID if user.kind == "bot" else None,
            bot_id=user.bot_id,
        )
        place, earlier = self.channels[channel], self.messages.values()
        notified = () if ephemeral_to else notified_by(message, place, self.groups, earlier)
        return self.keep(replace(message, notified=notified))

    def keep(self, message: Message) -> Message:
        self.messages[message.channel, message.ts] = message
        self.touched.add((message.channel, message.ts))
        self.changed()
        return message

    def delete(self, message: Message) -> None:
        del self.messages[message.channel, message.ts]
        self.touched.add((message.channel, message.ts))
        self.changed()

    def with_ids(self, blocks: Sequence[Json]) -> list[Json]:
        """Add IDs to blocks and interactive elements without one, as Slack does."""
        named = []
        for block in blocks:
            mine = {"type": block["type"], "block_id": block.get("block_id") or self.short_id()} | block
            if block["type"] in ("actions", "context_actions"):
                mine["elements"] = [{"action_id": self.short_id()} | one for one in block["elements"]]
            for part in ("accessory", "element"):
                if part in block and block[part].get("type") != "image":
                    mine[part] = {"action_id": self.short_id()} | block[part]
            named.append(mine)
        return named

    def short_id(self) -> str:
        return f"b{next(self.numbers):04d}"

    def messages_in(self, channel: str) -> list[Message]:
        found = [m for m in self.messages.values() if m.channel == channel]
        return sorted(found, key=lambda m: m.ts)

    # views

    def new_view(self, user: str, given: Json, previous: View | None = None) -> View:
        view_id = f"V{next(self.numbers):06d}"
        view = View(
            id=view_id,
            given=given | {"blocks": self.with_ids(given["blocks"])},
            user=user,
            hash=self.new_hash(),
            root=previous.root if previous else view_id,
            previous=previous.id if previous else None,
        )
        self.views[view_id] = view
        self.changed()
        return view

    def change_view(self, view: View, given: Json) -> View:
        view.given = given | {"blocks": self.with_ids(given["blocks"])}
        view.hash = self.new_hash()
        view.errors = {}
        known = {block["block_id"] for block in view.blocks}
        view.values = {block: state for block, state in view.values.items() if block in known}
        self.changed()
        return view

    def new_hash(self) -> str:
        return f"{int(self.now().timestamp())}.{next(self.numbers):04d}"

    def top_modal(self, user: str) -> View | None:
        stack = self.modals.get(user)
        return self.views[stack[-1]] if stack else None

    def close_modals(self, user: str) -> None:
        for view_id in self.modals.pop(user, []):
            self.views.pop(view_id, None)

    def close_top_modal(self, user: str) -> None:
        stack = self.modals.get(user, [])
        if stack:
            self.views.pop(stack.pop(), None)
        if not stack:
            self.modals.pop(user, None)

    def view_json(self, view: View) -> Json:
        given = view.given
        return {
            "id": view.id,
            "team_id": self.app.team_id,
            "type": given["type"],
            "blocks": view.blocks,
            "private_metadata": given.get("private_metadata", ""),
            "callback_id": given.get("callback_id", ""),
            "state": {"values": view.values},
            "hash": view.hash,
            "title": given.get("title"),
            "clear_on_close": given.get("clear_on_close", False),
            "notify_on_close": given.get("notify_on_close", False),
            "close": given.get("close"),
            "submit": given.get("submit"),
            "submit_disabled": given.get("submit_disabled", False),
            "previous_view_id": view.previous,
            "root_view_id": view.root,
            "app_id": APP_ID,
            "external_id": given.get("external_id", ""),
            "app_installed_team_id": self.app.team_id,
            "bot_id": self.bot.bot_id,
        }

    # watching for changes

    def changed(self) -> None:
        """Wake everybody who waits in `next_change`."""
        for onlooker in self.onlookers:
            if not onlooker.done():
                onlooker.set_result(None)
        self.onlookers.clear()

    async def next_change(self) -> None:
        """Wait until a message or view is posted or changed."""
        onlooker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.onlookers.append(onlooker)
        await onlooker

    # for the payloads of interactions

    def new_trigger(self, user: str) -> str:
        trigger = f"{next(self.numbers)}.{int(self.now().timestamp())}.{self.secret()}"
        self.triggers[trigger] = Trigger(user, self.now())
        return trigger

    def new_response_url(self, user: str, channel: str, ts: str | None) -> str:
        """Return the secret part of a response URL; the caller adds the base."""
        key = self.secret()
        self.response_urls[key] = ResponseUrl(user, channel, ts, self.now())
        return key
