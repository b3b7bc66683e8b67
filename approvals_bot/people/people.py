"""Whom an address means right now: groups, managers, owners, on-call people, and the sources that know them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from approvals_bot.people.absences import Absence
from approvals_bot.people.addresses import (
    AddressError,
    GroupAddress,
    IdentityRules,
    InField,
    ManagerOf,
    OnBehalfOf,
    OnCall,
    OwnerOf,
    PersonAddress,
    SlackGroupAddress,
    is_mail,
    parse_address,
)
from approvals_bot.people.lookup import PersonLookup, listed_in
from approvals_bot.people.persons import Directory, GroupSource, Person, Resolved
from approvals_bot.people.sources import (
    ListedGroup,
    LiveSource,
    NestedGroup,
    SlackGroupSource,
    SourceUnavailable,
)

NO_LIST = 'expected a list of email addresses, like {"people": ["ann@acme.eu"]}'
READ_LIMIT = 1.9  # seconds; a look-up of all sources may take 2
MOST_PEOPLE = 5_000  # in one group; more is a mistake, and each may get a card

log = logging.getLogger(__name__)


ACRONYM = 3  # letters; a group's id no longer than this is one


def group_label(id: str) -> str:
    """Make a name for people from the id of a group: `release-managers` → "Release managers", `sre` → "SRE"."""
    words = id.replace("-", " ").replace("_", " ")
    return words.upper() if len(words) <= ACRONYM else words[:1].upper() + words[1:]


class People(PersonLookup):
    """Whom an address means right now, and whether anybody knows somebody: live sources are asked each time."""

    def __init__(
        self,
        persons: Iterable[Person] = (),
        groups: Mapping[str, GroupSource] | None = None,
        directory: Directory | LiveSource | None = None,
        slack_group: Callable[[str], Awaitable[Sequence[str]]] | None = None,
        away: Mapping[str, Sequence[Absence]] | None = None,
        admins: Sequence[str] = (),
        managers: Mapping[str, str] | None = None,
        group_names: Mapping[str, str] | None = None,
        rules: IdentityRules | None = None,
        in_workspace: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """Collect what the configuration says about people; all mappings are by address.

        `slack_group` returns the addresses of a Slack user group's members, or raises SourceUnavailable. `away`: each
        person's absences. `admins`: the people who may reassign every request. `managers`: each person's manager.
        `group_names`: what people read instead of a group's id, by that id. `rules`: which addresses are one person.
        `in_workspace` asks whether somebody in the Slack workspace has this address, or raises SourceUnavailable.

        `bad_entries` counts, by live source, what was no address when it was last read, and so was left out.
        `unreadable`: why sources could not be read when they were last asked, by their names; "" for those that could
        be read since.
        """
        super().__init__(persons, groups, directory, away, managers, rules)
        self._slack_group = slack_group
        self._in_workspace = in_workspace
        self.admins = tuple(admins)
        self.bad_entries: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.group_names = dict(group_names or {})

    async def knows(self, address: str) -> bool:
        """Check whether anybody knows this person: the configuration, a group, the directory, or last of all Slack.

        Raises AddressError for what is not an address, and SourceUnavailable if the person is in no source that can be
        read, and at least one can't.
        """
        person = self.canonical(address)
        if self.rosters.is_barred(person):
            return False
        if self._is_named(person):
            return True
        unavailable = self.rosters.unread()
        for is_listed in (*self._live_groups(), self._live_directory, self._workspace):
            try:
                if await is_listed(person):
                    return True
            except SourceUnavailable as error:
                unavailable = error
        if unavailable is not None:
            raise unavailable
        return False

    async def read_sources(self) -> None:
        """Read every live source once, to fill `bad_entries`. One that is down is passed over."""
        for name, source in self.groups.items():
            if not isinstance(source, Sequence | NestedGroup | ListedGroup):
                with suppress(SourceUnavailable):
                    await self._group(name)
        with suppress(SourceUnavailable):
            await self._tables()

    async def read_again(self) -> None:
        """Read the sources again that could not be read when they were last asked, so `unreadable` is of now."""
        for source, why in [*self.unreadable.items()]:
            if why:
                try:
                    await self._read_source(source, why)
                except SourceUnavailable as error:
                    self.unreadable[source] = error.reason

    async def _read_source(self, source: str, why: str) -> None:
        """Read the source of this name. Raises SourceUnavailable. `why`: what was wrong the last time."""
        for group, found in self.groups.items():
            if not isinstance(found, Sequence | NestedGroup | ListedGroup) and found.name == source:
                await self._group(group)
                return
        if source.startswith("slack:@"):
            self._members(source, await _read(self._slack(source.removeprefix("slack:@"))))
        elif source == self._directory_name and (await self._tables()).unreadable:
            raise SourceUnavailable(source, why)  # it can be read, but some list in it is none

    def _live_groups(self) -> Iterator[Callable[[str], Awaitable[bool]]]:
        for name, source in self.groups.items():
            if not isinstance(source, Sequence | NestedGroup | ListedGroup):
                yield partial(self._is_member, name)

    async def _is_member(self, group: str, person: str) -> bool:
        return any(each.address == person for each in (await self._group(group)).persons)

    async def _live_directory(self, person: str) -> bool:
        if isinstance(self.directory, Directory):
            return False
        return any(self._is_same(each, person) for each in listed_in(await self._tables()))

    async def _workspace(self, person: str) -> bool:
        return self._in_workspace is not None and await self._in_workspace(self.person(person).mailbox)

    def _is_same(self, text: object, person: str) -> bool:
        try:
            return isinstance(text, str) and self.canonical(text) == person
        except AddressError:
            return False

    async def is_in(self, address: str, group: str) -> bool:
        """Check whether this person is in the group now. Raises SourceUnavailable if that can't be known."""
        if isinstance(source := self.groups.get(group), ListedGroup):  # which may have thousands of members
            identity = self.canonical(address)
            if (fault := self.rosters.missing(source)) is not None:
                raise SourceUnavailable(fault.source, fault.reason)
            return identity in self.rosters.members(source) and not self.rosters.is_barred(identity)
        resolved = await self.resolve(f"@{group}", requester=address)
        return resolved.includes(self.canonical(address), f"@{group}")

    async def resolve(
        self,
        address: str,
        *,
        requester: str,
        on_behalf_of: str | None = None,
        fields: Mapping[str, Any] | None = None,
        approver: str | None = None,
    ) -> Resolved:
        """Return the people an address means now.

        `requester` is a mail address or "app:<name>"; for an app, `manager-of:requester` uses `on_behalf_of`. `fields`
        are the request's values, typed or JSON. `approver` is the person whose manager `manager-of:approver` means.

        Raises ValueError for an invalid address. A source that fails doesn't raise; it is in the result's `errors`.
        """
        found = await self._resolve(address, requester, on_behalf_of, fields, approver)
        if not self.rosters.barred:
            return found
        persons = tuple(person for person in found.persons if not self.rosters.is_barred(person.address))
        left = "everybody whom it means has left" if found.persons and not persons else found.why
        return replace(found, persons=persons, why=left)

    async def _resolve(
        self,
        address: str,
        requester: str,
        on_behalf_of: str | None,
        fields: Mapping[str, Any] | None,
        approver: str | None,
    ) -> Resolved:
        try:
            match parse_address(address):
                case PersonAddress(mail):
                    return Resolved((self.person(mail),), "named in the workflow")
                case GroupAddress(name):
                    return await self._group(name)
                case SlackGroupAddress(handle):
                    found = self._members(f"slack:@{handle}", await _read(self._slack(handle)))
                    return replace(found, slack_group=handle)
                case OnBehalfOf():
                    if on_behalf_of is None:
                        return Resolved((), "the request isn't on anybody's behalf")
                    return Resolved((self.person(on_behalf_of),), "the person this is requested for")
                case ManagerOf(whom, levels):
                    human = on_behalf_of if requester.startswith("app:") else requester
                    of = {"requester": human, "approver": approver, "on-behalf-of": on_behalf_of}[whom]
                    return self._manager(of, whom, levels)
                case OwnerOf(name):
                    return await self._owner(name, (fields or {}).get(name))
                case InField(name):
                    return self._in_field(name, (fields or {}).get(name))
                case OnCall(name):
                    listed = await self._in_directory("oncall", name)
                    return self._listed(listed, f"on call for {name}", f"nobody is on call for {name}")
        except SourceUnavailable as error:
            self.unreadable[error.source] = error.reason
            return Resolved((), str(error), (error.fault,))

    async def _group(self, name: str) -> Resolved:
        source = self.groups.get(name)
        if source is None:
            return Resolved((), f"there is no group {name}")
        if isinstance(source, NestedGroup):
            return await self._nested(name, source)
        if isinstance(source, ListedGroup):
            members, shown = self.rosters.members(source), self._shown(name)
            if len(members) > MOST_PEOPLE:
                raise SourceUnavailable(source.name, f"it has more than {MOST_PEOPLE:,} people")
            found = self._listed(members, f"in {shown}", f"nobody is in {self.group_names.get(name, name)}")
            missing = self.rosters.missing(source)
            return found if missing is None else replace(found, missing=(missing,))
        if isinstance(source, Sequence):
            shown = self._shown(name)
            return self._listed(source, f"in {shown}", f"nobody is in {self.group_names.get(name, name)}")
        found = self._members(name, await _read(source), source.name)
        return replace(found, slack_group=source.handle) if isinstance(source, SlackGroupSource) else found

    async def _nested(self, name: str, group: NestedGroup) -> Resolved:
        """Return everybody in a group's parts but for those whom it leaves out.

        As long as what it leaves out can't be read, nobody is sure to be in it: the group can't be read either.
        """
        parts = [await self.resolve(one, requester="") for one in group.all]
        without = [await self.resolve(one, requester="") for one in group.without]
        if faults := tuple(fault for part in without for fault in (*part.errors, *part.missing)):
            return Resolved((), str(faults[0]), faults)
        out = {person.address for part in without for person in part.persons}
        among = {person.address: person for part in parts for person in part.persons if person.address not in out}
        faults, shown = tuple(fault for part in parts for fault in part.errors), self._shown(name)
        made_of = ", ".join(map(self._shown_part, group.all))
        if group.without:
            made_of += f" without {', '.join(map(self._shown_part, group.without))}"
        called = f"in {shown}" if among else f"nobody is in {self.group_names.get(name, name)}"
        why = f"{called} ({made_of})"
        missing = tuple(fault for part in parts for fault in part.missing)
        return Resolved(tuple(among.values()), why, faults, missing=missing)

    def _shown(self, group: str) -> str:
        """Return the name of a group for people: that of the configuration, or one made of its id."""
        return self.group_names.get(group) or (group_label(group) if group in self.groups else group)

    def _shown_part(self, text: str) -> str:
        name = text.removeprefix("slack:").removeprefix("@")
        return self.person(text).name if is_mail(text) else self._shown(name)

    def _members(self, group: str, found: Any, source: str | None = None) -> Resolved:
        name = self._shown(group)
        members = found.get("people") if isinstance(found, Mapping) else found
        return self._listed(
            self._addresses(members, source or group),
            f"in {name}",
            f"nobody is in {self.group_names.get(group, group)}",
        )

    def _addresses(self, found: Any, source: str) -> Sequence[str]:
        """Return the addresses in a live group's list, without what isn't one.

        Raises SourceUnavailable for what is no list of addresses at all.
        """
        addresses, bad = _readable(found)
        if (bad and not addresses) or not isinstance(found, str | list):
            raise SourceUnavailable(source, NO_LIST)
        if len(addresses) > MOST_PEOPLE:
            raise SourceUnavailable(source, f"it has more than {MOST_PEOPLE:,} people")
        self.note_read(source, bad)
        return addresses

    def note_read(self, source: str, count: int) -> None:
        """Note that a source was read, and how many of its entries are no addresses."""
        if self.unreadable.get(source):
            self.unreadable[source] = ""
        if count != self.bad_entries.get(source, 0):
            self.bad_entries[source] = count
            if count:
                log.warning(
                    "the source %s has %d entries that aren't email addresses; they are left out", source, count
                )

    def _manager(self, of: str | None, whom: str, levels: int) -> Resolved:
        if of is None:
            missing = "person this is requested for" if whom == "on-behalf-of" else whom
            return Resolved((), f"there is no {missing}")
        person, below, why = self.person(of), set[str](), ""
        for _ in range(levels):
            manager = self.manager_of(person.address)
            below.add(person.address)
            if manager is None:
                row = self.rosters.row(person.address)
                had_one = person.address in self._managers or (row is not None and row.manager)
                return Resolved((), f"{person.name} has no manager{' who is still here' if had_one else ''}")
            if manager.address in below:
                return Resolved((), f"{manager.name} is below their own manager")
            why, person = f"the manager of {person.name}", manager
        return Resolved((person,), why)

    async def _owner(self, name: str, value: Any) -> Resolved:
        if value is None:
            return Resolved((), f"the request has no {name}")
        owners = await self._in_directory("owner-of", name, str(value))
        return self._listed(owners, f"the owner of {name} {value}", f"nobody owns {name} {value}")

    def _in_field(self, name: str, value: Any) -> Resolved:
        named = [each for each in (value if isinstance(value, list) else [value]) if each]
        addresses = [each for each in named if is_mail(str(each))]
        return self._listed(addresses, "named in the request", f"the request has no {name}")

    def _listed(self, addresses: Iterable[str], why: str, nobody: str) -> Resolved:
        persons = self._different(addresses)
        return Resolved(persons, why if persons else nobody)

    def _slack(self, handle: str) -> SlackGroupSource:
        if self._slack_group is None:
            raise SourceUnavailable(f"slack:@{handle}", "Slack is not configured")
        return SlackGroupSource(handle, self._slack_group)

    async def _in_directory(self, table: Literal["oncall", "owner-of"], *path: str) -> Sequence[str]:
        """Return a list of the directory. Raises SourceUnavailable if it can't be read."""
        found = await self._tables()
        if (table, *path) in found.unreadable:
            raise SourceUnavailable(self._directory_name, NO_LIST)
        match path:
            case (name,):
                return found.oncall.get(name, ())
            case (field, value):
                return found.owner_of.get(field, {}).get(value, ())
        return ()

    @property
    def _directory_name(self) -> str:
        return "directory" if isinstance(self.directory, Directory) else self.directory.name

    async def _tables(self) -> Directory:
        if isinstance(self.directory, Directory):
            return self.directory
        oncall, owners = _objects(await _read(self.directory), self._directory_name)
        unreadable, bad = set[tuple[str, ...]](), 0

        def listed(given: Any, *path: str) -> Sequence[str]:
            nonlocal bad
            addresses, wrong = _readable(given)
            bad += wrong
            if wrong and not addresses:
                unreadable.add(path)
            return addresses

        found = Directory(
            {name: listed(people, "oncall", name) for name, people in oncall.items()},
            {
                field: {value: listed(people, "owner-of", field, value) for value, people in of.items()}
                for field, of in owners.items()
            },
        )
        self.note_read(self._directory_name, bad)
        return replace(found, unreadable=frozenset(unreadable))


async def _read(source: LiveSource) -> Any:
    """Read a source, from another turn of the event loop on: a look-up may be given up where it first waits."""
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(READ_LIMIT):
            return await source.read()
    except TimeoutError:
        raise SourceUnavailable(source.name, "it doesn't answer") from None


def _objects(found: Any, source: str) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """Return the two tables of a live directory. Raises SourceUnavailable for anything else."""
    match found:
        case {"oncall": dict()} | {"owner-of": dict()}:
            oncall, owners = found.get("oncall", {}), found.get("owner-of", {})
        case _:
            raise SourceUnavailable(source, 'it has neither "oncall" nor "owner-of"')
    if not isinstance(oncall, dict) or not all(isinstance(of, dict) for of in (owners, *owners.values())):
        raise SourceUnavailable(source, '"oncall" and "owner-of" must be objects')
    return oncall, owners


def _readable(found: Any) -> tuple[list[str], int]:
    """Return the addresses in a live source's list, and how many of its entries are none."""
    entries = found if isinstance(found, list) else [found]
    addresses = [each for each in entries if isinstance(each, str) and is_mail(each)]
    return addresses, len(entries) - len(addresses)
