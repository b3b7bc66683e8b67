"""What people find on their screens, by the names they know it by, with a sentence for whatever isn't there."""

from __future__ import annotations

from typing import Any

from approvals_bot.errors import ApprovalsBotError
from approvals_bot.playground.slack.blocks import elements_of
from approvals_bot.playground.slack.shapes import Conversation, Json, Message, User, View
from approvals_bot.playground.slack.workspace import Workspace


class NoSuchThingError(ApprovalsBotError):
    """There is no such person, channel, message or view. HTTP 404."""


class CannotDoError(ApprovalsBotError):
    """It exists, but this person can't do that with it. HTTP 409."""


class Screen:
    """Looks things up for a person; raises `NoSuchThingError` and `CannotDoError`."""

    def __init__(self, space: Workspace) -> None:
        self.space = space

    def user(self, who: str) -> User:
        user = self.space.find_user(who)
        if user is None:
            known = ", ".join(u.id for u in self.space.users.values() if u.kind != "bot")
            raise NoSuchThingError(f"Nobody in this workspace is called {who!r}; there are: {known}.")
        return user

    def place(self, channel: str, user: User | None = None) -> Conversation:
        """By name or id; a person's id, name or address with the bot's direct message to her."""
        found = self.space.find_channel(channel)
        if found is None and (other := self.space.find_user(channel)) and other.kind != "bot":
            found = self.space.direct_message(other)
        if found is None:
            known = ", ".join(c.label for c in self.space.channels.values() if not c.with_user) or "none"
            raise NoSuchThingError(f"There is no channel {channel!r}; there are: {known}.")
        if user and found.private and user.id not in found.members:
            raise CannotDoError(f"{user.name} is not a member of {found.label} and can't see it.")
        return found

    def message_of(self, user: User, place: Conversation, ts: str) -> Message:
        message = self.space.messages.get((place.id, ts))
        if message is None:
            raise NoSuchThingError(f"There is no such message: nothing in {place.label} has the ts {ts!r}.")
        if message.ephemeral_to not in (None, user.id):
            raise NoSuchThingError(f"There is no such message for {user.name}: it is visible to somebody else only.")
        return message

    def view_of(self, user: User, view_id: str) -> View:
        view = self.space.views.get(view_id)
        if view is None or view.user != user.id:
            raise NoSuchThingError(f"{user.name} has no view {view_id!r} on the screen.")
        if view.given["type"] == "modal" and self.space.top_modal(user.id) is not view:
            raise CannotDoError("Another modal lies on top of this one.")
        return view

    def find_element(
        self, blocks: list[Json], button: str, action_id: str, block_id: str, what: str
    ) -> tuple[Json, Json]:
        if not (button or action_id):
            raise CannotDoError("Say which button: by its label (`button`) or its `action_id`.")
        blocks = [block for block in blocks if block_id in ("", block["block_id"])]
        labels = []
        for block, element in elements_of(blocks):
            label = str((element.get("text") or {}).get("text", "")) if element["type"] == "button" else ""
            labels.append(label or element["action_id"])
            if element["action_id"] == action_id if action_id else label.strip().lower() == button.strip().lower():
                return block, element
        if button:  # a label that begins with what was asked for, when only one does: "Approve deploy of api 2.1"
            close = [
                (block, element)
                for block, element in elements_of(blocks)
                if element["type"] == "button" and element["text"]["text"].lower().startswith(button.lower())
            ]
            if len(close) == 1:
                return close[0]
        wanted = f"action {action_id!r}" if action_id else f"button {button!r}"
        raise CannotDoError(f"This {what} has no {wanted}; it has: {', '.join(labels) or 'none'}.")


def plain_text(message: Message) -> str:
    """The words of a message: its text, else those of its blocks."""
    return message.text or "\n".join(words_in(list(message.blocks)))


def words_in(value: Any) -> list[str]:
    match value:
        case {"type": "divider"}:
            return []
        case dict():
            own = [value["text"]] if isinstance(value.get("text"), str) else []
            return own + [word for part in value.values() if isinstance(part, (dict, list)) for word in words_in(part)]
        case list():
            return [word for part in value for word in words_in(part)]
        case _:
            return []
