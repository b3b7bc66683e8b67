"""The Slack workspace's people, their addresses and the members of user groups, cached briefly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from approvals_bot.channels.slack.client import AnswerLostError, NeverError, SlackClient, SlackError
from approvals_bot.channels.slack.reasons import LATER
from approvals_bot.people import Person, SourceUnavailable

GROUP_MEMORY = 5.0  # seconds; each click asks Slack
GROUP_SPARE = 60.0  # seconds; only while Slack refuses to be asked more often
USER_MEMORY = 60.0  # seconds; how long a deactivated user may still count as active
ADDRESS_MEMORY = 3_600.0  # seconds; an address hardly ever moves to another account
ABSENCE_MEMORY = 120.0  # seconds; a person without an account may get one
GROUP_ID_MEMORY = 60.0  # seconds
NO_GROUP = "no_such_subteam"  # Slack's code for a user group that isn't there
LOOK_UPS = 5  # users looked up at the same time

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlackUser:
    """A user as Slack describes them.

    The address counts only of those whom `SlackTeam.has` counts as ours: elsewhere, anybody may claim it.
    """

    id: str
    name: str
    address: str | None
    team: str
    enterprise: str = ""  # of the Enterprise Grid that their workspace is in
    zone: str = "UTC"
    is_deleted: bool = False
    is_bot: bool = False
    is_guest: bool = False  # single- or multi-channel guest
    is_stranger: bool = False  # from another workspace, by Slack Connect; but not if they share a channel with us

    @property
    def is_member(self) -> bool:
        """An active person, no guest, and as far as Slack says so, of ours."""
        return not (self.is_deleted or self.is_bot or self.is_guest or self.is_stranger)


class SlackPeople:
    """Lookups of people and groups. Every method raises SourceUnavailable if Slack doesn't answer."""

    def __init__(self, client: SlackClient, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self.is_ours: Callable[[SlackUser], bool] = lambda user: user.is_member  # replaced where our team is known
        self._users: BriefCache[SlackUser | None] = BriefCache(USER_MEMORY, monotonic)
        self._by_address: BriefCache[SlackUser | None] = BriefCache(ADDRESS_MEMORY, monotonic, absent=ABSENCE_MEMORY)
        self._configured: BriefCache[SlackUser | None] = BriefCache(ADDRESS_MEMORY, monotonic)
        self._groups: BriefCache[tuple[str, ...]] = BriefCache(GROUP_MEMORY, monotonic, GROUP_SPARE)
        self._group_ids: BriefCache[str | None] = BriefCache(GROUP_ID_MEMORY, monotonic)

    async def user(self, user_id: str) -> SlackUser | None:
        """Return the user with this id; None if Slack has no such user."""
        return await self._users.get(user_id, self._ask_user)

    async def id_of(self, address: str) -> str | None:
        """Return the Slack id of the account with this address; None if there is none."""
        user = await self._by_address.get(address, self._ask_address)
        return None if user is None else user.id

    async def user_id(self, person: Person, *, to_act: bool = False) -> str | None:
        """Return this person's Slack id, as configured, else by their address; None if they have no account.

        `to_act`: the account of a guest or a partner, or one that is deactivated, doesn't count, since nobody may act
        in Slack with it. Of a configured one, that is asked for, and if Slack doesn't say, it counts.
        """
        if person.slack:
            return person.slack if not to_act or await self._may_act(person.slack) else None
        for address in dict.fromkeys((person.mailbox, person.address)):
            user = await self._by_address.get(address, self._ask_address)
            if user is not None and (not to_act or self.is_ours(user)):
                return user.id
        return None

    async def _may_act(self, user_id: str) -> bool:
        try:
            user = await self._configured.get(user_id, self._ask_user)
        except SourceUnavailable:
            return True
        return user is None or self.is_ours(user)

    async def group_id(self, handle: str) -> str | None:
        """Return the id of the user group with this handle; None if there is none."""
        return await self._group_ids.get(handle, self._ask_group_id)

    async def has_member(self, address: str) -> bool:
        """Return whether an active member, and no guest, has this address."""
        user_id = await self.id_of(address)
        user = await self.user(user_id) if user_id is not None else None
        return user is not None and self.is_ours(user)

    async def members(self, usergroup: str) -> tuple[str, ...]:
        """Return the addresses of a user group's active members. Takes a handle (`sre`, `@sre`) or an id (`S0…`)."""
        return await self._groups.get(usergroup.removeprefix("slack:").removeprefix("@"), self._ask_members)

    def forget_groups(self) -> None:
        """Forget the members of all groups: Slack says that one has changed."""
        self._groups.forget()

    async def _ask_user(self, user_id: str) -> SlackUser | None:
        try:
            answer = await self._client.ask("users.info", get=True, user=user_id)
        except NeverError as no:
            if no.code in ("user_not_found", "user_not_visible"):
                return None
            raise _unavailable("Slack", no) from None
        except SlackError as failure:
            raise _unavailable("Slack", failure) from None
        return _user(answer["user"])

    async def _ask_address(self, address: str) -> SlackUser | None:
        try:
            answer = await self._client.ask("users.lookupByEmail", get=True, email=address)
        except NeverError as no:
            if no.code == "users_not_found":
                return None
            raise _unavailable("Slack", no) from None
        except SlackError as failure:
            raise _unavailable("Slack", failure) from None
        return _user(answer["user"])

    async def _ask_members(self, group: str) -> tuple[str, ...]:
        try:
            group_id = await self._group_id(group)
            answer = await self._client.ask("usergroups.users.list", get=True, usergroup=group_id)
        except SlackError as failure:
            kind = TooOftenError if failure.code == "ratelimited" else SourceUnavailable
            raise kind(f"slack:@{group}", _reason(failure), is_lasting=isinstance(failure, NeverError)) from None
        gate = asyncio.Semaphore(LOOK_UPS)

        async def one(user_id: str) -> SlackUser | None:
            async with gate:
                try:
                    return await self.user(user_id)
                except SourceUnavailable as error:
                    raise SourceUnavailable(f"slack:@{group}", error.reason, is_lasting=error.is_lasting) from None

        users = await asyncio.gather(*(one(user_id) for user_id in answer.get("users") or ()))
        return tuple(sorted(user.address for user in users if user and self.is_ours(user) and user.address))

    async def _ask_group_id(self, handle: str) -> str | None:
        try:
            return await self._group_id(handle)
        except SlackError as failure:
            if failure.code == NO_GROUP:
                return None
            raise _unavailable(f"slack:@{handle}", failure) from None

    async def _group_id(self, group: str) -> str:
        answer = await self._client.ask("usergroups.list", get=True)
        for found in answer.get("usergroups") or ():
            if group in (found.get("handle"), found.get("id")):
                return str(found["id"])
        raise NeverError("usergroups.list", NO_GROUP, "no user group has this handle")


def _reason(failure: SlackError) -> str:
    return LATER if isinstance(failure, AnswerLostError) else failure.reason  # nothing was sent that may have arrived


def _unavailable(source: str, failure: SlackError) -> SourceUnavailable:
    return SourceUnavailable(source, _reason(failure), is_lasting=isinstance(failure, NeverError))


def _user(said: dict[str, Any]) -> SlackUser:
    profile = said.get("profile") or {}
    address = profile.get("email")
    return SlackUser(
        id=str(said["id"]),
        name=str(profile.get("real_name") or said.get("real_name") or said.get("name") or said["id"]),
        address=str(address) if address else None,
        team=str(said.get("team_id") or ""),
        enterprise=str((said.get("enterprise_user") or {}).get("enterprise_id") or said.get("enterprise_id") or ""),
        zone=str(said.get("tz") or "UTC"),
        is_deleted=bool(said.get("deleted")),
        is_bot=bool(said.get("is_bot")) or said.get("id") == "USLACKBOT",
        is_guest=bool(said.get("is_restricted") or said.get("is_ultra_restricted")),
        is_stranger=bool(said.get("is_stranger")),
    )


class TooOftenError(SourceUnavailable):
    """Slack doesn't want to be asked so often."""


class BriefCache(Generic[T]):
    """A cache with a lifetime in seconds. Failures aren't cached, and a key is looked up once at a time.

    `spare`: the age up to which an answer is good enough while Slack doesn't want to be asked. `absent`: the lifetime
    of None, if that's another.
    """

    def __init__(
        self, seconds: float, monotonic: Callable[[], float], spare: float = 0.0, *, absent: float | None = None
    ) -> None:
        self._seconds, self._spare = seconds, spare
        self._absent = seconds if absent is None else absent
        self._forgotten = 0  # times
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, T]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    def forget(self) -> None:
        self._known.clear()
        self._forgotten += 1

    async def get(self, key: str, ask: Callable[[str], Awaitable[T]]) -> T:
        lock = self._asking.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                known = self._known.get(key)
                if known is not None and known[0] > self._monotonic():
                    return known[1]
                begun, forgotten = self._monotonic(), self._forgotten
                try:
                    answer = await ask(key)
                except TooOftenError:
                    if known is not None and known[0] - self._seconds + self._spare > self._monotonic():
                        return known[1]
                    raise
                if forgotten == self._forgotten:  # else it may be from before the change
                    self._known[key] = (begun + (self._absent if answer is None else self._seconds), answer)
                return answer
        finally:
            if not lock.locked():
                self._asking.pop(key, None)
            if len(self._known) > 10_000:
                now = self._monotonic()
                self._known = {one: kept for one, kept in self._known.items() if kept[0] + self._spare > now}
