"""Who looks at the playground, and what of a conversation she sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from approvals_bot.playground.seed import SeedPerson
from approvals_bot.playground.slack.person import CannotDoError, NoSuchThingError
from approvals_bot.playground.slack.shapes import Conversation, Message, User
from approvals_bot.playground.slack.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks: a person of the configuration, with her Slack account if she has one."""

    key: str  # as in `?as=`
    person: SeedPerson
    user: User | None


@dataclass(frozen=True, slots=True)
class Thread:
    """A message with the replies under it."""

    message: Message
    author: User | None
    said_at: datetime
    replies: tuple[Thread, ...] = ()


class Readers:
    """Everybody who may look."""

    def __init__(self, people: Sequence[SeedPerson], space: Workspace) -> None:
        self.people = people
        self.space = space

    def everybody(self) -> list[Reader]:
        return [self.reader_of(person) for person in self.people]

    def threads(self, place: Conversation, reader: Reader) -> list[Thread]:
        """The conversation as this reader sees it, replies under what they answer."""
        me = reader.user.id if reader.user else ""
        seen = [m for m in self.space.messages_in(place.id) if m.ephemeral_to in (None, me)]
        replies: dict[str, list[Thread]] = {}
        for message in seen:
            if message.thread_ts not in (None, message.ts):
                replies.setdefault(str(message.thread_ts), []).append(self.thread(message))
        return [
            self.thread(message, tuple(replies.get(message.ts, ())))
            for message in seen
            if message.thread_ts in (None, message.ts)
        ]

    def thread(self, message: Message, replies: tuple[Thread, ...] = ()) -> Thread:
        said_at = datetime.fromtimestamp(float(message.ts), UTC)
        return Thread(message, self.space.users.get(message.user), said_at, replies)

    def reader(self, key: str | None) -> Reader:
        """Who `?as=` names; the first person when nobody is named."""
        everybody = self.everybody()
        if not everybody:
            raise NoSuchThingError("There is nobody in this playground; the configuration names no people.")
        if key is None:
            return everybody[0]
        found = next((one for one in everybody if key.lower() in (one.key.lower(), one.person.address.lower())), None)
        if found is None:
            raise NoSuchThingError(f"Nobody here is {key!r}.")
        return found

    def reader_of(self, person: SeedPerson) -> Reader:
        user = self.space.by_address.get(person.address.lower())
        return Reader(user.id if user else person.address, person, user)

    def user_of(self, reader: Reader) -> User:
        if reader.user is None:
            raise CannotDoError(f"{reader.person.name} isn't in Slack.")
        return reader.user

    def name_of(self, one: str) -> str:
        if one in self.space.users:
            return self.space.users[one].name
        if one in self.space.groups:
            return self.space.groups[one].handle
        return self.space.channels[one].name if one in self.space.channels else one
