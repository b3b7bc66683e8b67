"""People, and the addresses that name them.

A person is their mail address; everything else only helps to reach them. A workflow names people by *addresses*:

    ann@acme.eu · @group · slack:@usergroup · manager-of:requester|approver|on-behalf-of · on-behalf-of
    owner-of:<field> · oncall:<name>

Addresses are resolved when a stage opens and again at the click. Live sources (a file, Slack, a URL) are read each time
and never cached here. A source that can't be read is an error of the resolution, never an empty group: its members
learn that their group can't be checked, and an outage neither lets anybody in nor shuts anybody out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from approvals_bot.people import absences
from approvals_bot.people.absences import Absence, Away
from approvals_bot.people.addresses import (
    Address,
    AddressError,
    GroupAddress,
    IdentityRules,
    ManagerOf,
    OnBehalfOf,
    OnCall,
    OwnerOf,
    PersonAddress,
    SlackGroupAddress,
    canonical,
    is_mail,
    parse_address,
)
from approvals_bot.people.sources import FileSource, LiveSource, SlackGroupSource, SourceUnavailable

__all__ = [
    "Address",
    "AddressError",
    "Directory",
    "FileSource",
    "GroupAddress",
    "IdentityRules",
    "LiveSource",
    "ManagerOf",
    "OnBehalfOf",
    "OnCall",
    "OwnerOf",
    "People",
    "Person",
    "PersonAddress",
    "Resolved",
    "SlackGroupAddress",
    "SlackGroupSource",
    "SourceUnavailable",
    "canonical",
    "is_mail",
    "parse_address",
]

MOST_PEOPLE = 5_000  # in one group; more is a mistake, and each may get a card


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Person:
    """A person is their address; the rest is how to reach and show them."""

    address: str
    name: str
    slack: str | None = None
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The people an address means right now.

    `why` completes "You are …" ("in release-managers"); if `persons` is empty, it says why. `errors`: why sources could
    not be read; membership is then unknown, not denied.
    """

    persons: tuple[Person, ...]
    why: str
    errors: tuple[str, ...] = ()


# ── the directory ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Directory:
    """On-call people and owners: {name: addresses} and {field: {value: addresses}}."""

    oncall: Mapping[str, Sequence[str]] = field(default_factory=dict)
    owner_of: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)


# ── the people ────────────────────────────────────────────────────────────────────────────────────────────────────


class People:
    """Everybody the configuration names, and everybody else by address."""

    def __init__(
        self,
        persons: Iterable[Person] = (),
        groups: Mapping[str, Sequence[str] | LiveSource] | None = None,
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
        """
        self.rules = rules or IdentityRules()
        self._in_workspace = in_workspace
        self._persons = {person.address.lower(): person for person in persons}
        self._by_slack = {person.slack: person for person in self._persons.values() if person.slack}
        self._groups = dict(groups or {})
        self._directory = directory if directory is not None else Directory()
        self._slack_group = slack_group
        self.admins = tuple(admins)
        self.group_names = dict(group_names or {})
        self._managers = {address.lower(): manager.lower() for address, manager in (managers or {}).items()}
        self._away = {address.lower(): tuple(each) for address, each in (away or {}).items()}

    def canonical(self, text: str) -> str:
        """Return the address by which this person is compared and stored. Raises AddressError."""
        return self.rules.canonical(text)

    async def knows(self, address: str) -> bool:
        """Check whether anybody knows this person: the configuration, a group, the directory, or last of all Slack.

        Raises AddressError for what is not an address, and SourceUnavailable if the person is in no source that can be
        read, and at least one can't.
        """
        person = self.canonical(address)
        if any(each.address == person for each in self.known()):
            return True
        unavailable: SourceUnavailable | None = None
        for name, source in self._groups.items():
            if not isinstance(source, Sequence):
                resolved = await self._live(name)
                if isinstance(resolved, SourceUnavailable):
                    unavailable = resolved
                elif any(each.address == person for each in resolved.persons):
                    return True
        if not isinstance(self._directory, Directory):
            try:
                tables = await self._tables()
                if person in {self.canonical(each) for each in _listed_in(tables)}:
                    return True
            except SourceUnavailable as error:
                unavailable = error
        if self._in_workspace is not None and await self._in_workspace(person):
            return True
        if unavailable is not None:
            raise unavailable
        return False

    async def _live(self, name: str) -> Resolved | SourceUnavailable:
        try:
            return await self._group(name)
        except SourceUnavailable as error:
            return error

    def person(self, address: str) -> Person:
        """Return the person with this address. The name of an unknown one is the address's local part."""
        address = address.lower()
        return self._persons.get(address) or Person(address, address.partition("@")[0])

    def manager_of(self, address: str) -> Person | None:
        """Return this person's manager, or None."""
        manager = self._managers.get(address.lower())
        return None if manager is None else self.person(manager)

    def by_slack(self, user_id: str) -> Person | None:
        """Return the person with this Slack ID in the configuration, or None.

        Others are found by the mail address that Slack has for them.
        """
        return self._by_slack.get(user_id)

    def away(self, address: str, at: datetime) -> Away | None:
        """Return this person's absence at this time, with its delegates; None if they aren't away."""
        return absences.away(address.lower(), at, self._absences) if self._away else None

    def next_change(self, address: str, at: datetime) -> datetime | None:
        """Return when this person next leaves or comes back, by today's configuration; None for never."""
        return absences.next_change(address.lower(), at, self._absences) if self._away else None

    @property
    def absences(self) -> Mapping[str, Sequence[Absence]]:
        """Every configured absence, by address: past, present and future."""
        return self._away

    def _absences(self, address: str) -> tuple[Sequence[Absence], str]:
        return self._away.get(address, ()), self.person(address).zone

    def known(self) -> tuple[Person, ...]:
        """List everybody the configuration names, as a person, manager, group member or in the directory."""
        addresses = dict.fromkeys(self._persons)
        addresses.update(dict.fromkeys(self._managers.values()))
        for planned in self._away.values():
            addresses.update(dict.fromkeys(delegate for absence in planned for delegate in absence.delegates))
        for members in self._groups.values():
            if isinstance(members, Sequence):
                addresses.update(dict.fromkeys(member.lower() for member in members))
        if isinstance(self._directory, Directory):
            addresses.update(dict.fromkeys(member.lower() for member in _listed_in(self._directory)))
        return tuple(self.person(address) for address in addresses)

    @property
    def groups(self) -> Mapping[str, Sequence[str] | LiveSource]:
        return self._groups

    @property
    def directory(self) -> Directory | LiveSource:
        return self._directory

    async def is_in(self, address: str, group: str) -> bool:
        """Check whether this person is in the group now. Raises SourceUnavailable if that can't be known."""
        resolved = await self.resolve(f"@{group}", requester=address)
        if resolved.errors:
            raise SourceUnavailable(f"@{group}", resolved.errors[0])
        return any(person.address == address.lower() for person in resolved.persons)

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
        try:
            match parse_address(address):
                case PersonAddress(mail):
                    return Resolved((self.person(mail),), "named in the workflow")
                case GroupAddress(name):
                    return await self._group(name)
                case SlackGroupAddress(handle):
                    return self._members(f"slack:@{handle}", await _read(self._slack(handle)))
                case OnBehalfOf():
                    if on_behalf_of is None:
                        return Resolved((), "the request isn't on anybody's behalf")
                    return Resolved((self.person(on_behalf_of),), "the person this is requested for")
                case ManagerOf(whom):
                    human = on_behalf_of if requester.startswith("app:") else requester
                    of = {"requester": human, "approver": approver, "on-behalf-of": on_behalf_of}[whom]
                    return self._manager(of, whom)
                case OwnerOf(name):
                    return await self._owner(name, (fields or {}).get(name))
                case OnCall(name):
                    table = (await self._tables()).oncall
                    return self._listed(table.get(name, ()), f"on call for {name}", f"nobody is on call for {name}")
        except SourceUnavailable as error:
            return Resolved((), str(error), (str(error),))

    async def _group(self, name: str) -> Resolved:
        source = self._groups.get(name)
        if source is None:
            return Resolved((), f"there is no group {name}")
        if isinstance(source, Sequence):
            return self._members(name, list(source))
        return self._members(name, await _read(source), source.name)

    def _members(self, group: str, found: Any, source: str | None = None) -> Resolved:
        name = self.group_names.get(group, group)
        members = found.get("people") if isinstance(found, Mapping) else found
        return self._listed(_addresses(members, source or group), f"in {name}", f"nobody is in {name}")

    def _manager(self, of: str | None, whom: str) -> Resolved:
        if of is None:
            missing = "person this is requested for" if whom == "on-behalf-of" else whom
            return Resolved((), f"there is no {missing}")
        person = self.person(of)
        manager = self.manager_of(of)
        if manager is None:
            return Resolved((), f"{person.name} has no manager")
        return Resolved((manager,), f"the manager of {person.name}")

    async def _owner(self, name: str, value: Any) -> Resolved:
        if value is None:
            return Resolved((), f"the request has no {name}")
        owners = (await self._tables()).owner_of.get(name, {}).get(str(value), ())
        return self._listed(owners, f"the owner of {name} {value}", f"nobody owns {name} {value}")

    def _listed(self, addresses: Iterable[str], why: str, nobody: str) -> Resolved:
        persons = tuple(self.person(address) for address in dict.fromkeys(each.lower() for each in addresses))
        return Resolved(persons, why if persons else nobody)

    def _slack(self, handle: str) -> SlackGroupSource:
        if self._slack_group is None:
            raise SourceUnavailable(f"slack:@{handle}", "Slack is not configured")
        return SlackGroupSource(handle, self._slack_group)

    async def _tables(self) -> Directory:
        if isinstance(self._directory, Directory):
            return self._directory
        return _directory(await _read(self._directory), self._directory.name)


def _listed_in(directory: Directory) -> Iterator[str]:
    for table in (directory.oncall, *directory.owner_of.values()):
        for members in table.values():
            yield from members


async def _read(source: LiveSource) -> Any:
    """Read a source, from another turn of the event loop on: a look-up may be given up where it first waits."""
    await asyncio.sleep(0)
    return await source.read()


def _directory(found: Any, source: str) -> Directory:
    match found:
        case {"oncall": dict()} | {"owner-of": dict()}:
            oncall, owners = found.get("oncall", {}), found.get("owner-of", {})
        case _:
            raise SourceUnavailable(source, 'it has neither "oncall" nor "owner-of"')
    if not isinstance(oncall, dict) or not all(isinstance(of, dict) for of in (owners, *owners.values())):
        raise SourceUnavailable(source, '"oncall" and "owner-of" must be objects')
    return Directory(
        {name: _addresses(people, source) for name, people in oncall.items()},
        {name: {value: _addresses(people, source) for value, people in of.items()} for name, of in owners.items()},
    )


def _addresses(found: Any, source: str) -> Sequence[str]:
    people = [found] if isinstance(found, str) else found
    if not isinstance(people, list) or not all(isinstance(each, str) and is_mail(each) for each in people):
        raise SourceUnavailable(source, 'expected a list of email addresses, like {"people": ["ann@acme.eu"]}')
    if len(people) > MOST_PEOPLE:
        raise SourceUnavailable(source, f"it has more than {MOST_PEOPLE:,} people")
    return people
