"""The people of the configuration, with their live sources."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from approvals_bot import people as directory
from approvals_bot.app.connections import open_channels, open_targets
from approvals_bot.approvals.port import SLACK, WithMembers
from approvals_bot.config import directory as directories
from approvals_bot.config import groups as grouped
from approvals_bot.config import service as configured
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.outgoing import OutgoingTargets, TargetSource
from approvals_bot.people import People, SourceUnavailable
from approvals_bot.people.absences import Absence
from approvals_bot.people.roster import Rosters
from approvals_bot.service.directory import DirectoryFile, DirectoryReader, DirectorySource
from approvals_bot.service.provisioning import read_pushed

log = logging.getLogger("approvals_bot.app")


def build_plain_people(service: configured.ServiceSettings) -> People:
    """Build the people without live sources, for commands that run beside the service."""
    lists = {id: people for id in service.groups if (people := service.people_in(id)) is not None}
    tables = service.directory
    return People(
        _persons(service),
        lists,
        directory.Directory(tables.oncall, tables.owner_of) if isinstance(tables, directories.DirectoryTable) else None,
        away=_absences(service),
        managers=_managers(service),
        group_names=service.group_names,
        rules=service.rules,
    )


def known_people(service: configured.ServiceSettings) -> Sequence[directory.Person]:
    """List everybody the configuration names, without the members of live sources."""
    return build_plain_people(service).known()


def _persons(service: configured.ServiceSettings) -> list[directory.Person]:
    return [
        directory.Person(
            address,
            entry.name or "",
            entry.slack,
            entry.zone if "zone" in entry.model_fields_set else "",
            numbers=entry.number_format or "",
        )
        for address, entry in service.people.items()
    ]


def _managers(service: configured.ServiceSettings) -> dict[str, str]:
    return {address: entry.manager for address, entry in service.people.items() if entry.manager}


def _absences(service: configured.ServiceSettings) -> dict[str, list[Absence]]:
    return {
        address: [Absence(each.from_, each.until, each.delegate) for each in entry.away]
        for address, entry in service.people.items()
        if entry.away
    }


def directory_source(service: configured.ServiceSettings, targets: OutgoingTargets | None) -> DirectorySource | None:
    """Return where everybody is listed; None if nowhere. Without `targets`, one that has to be called isn't read."""
    match service.directory.people:
        case grouped.FileSourceEntry(file=path):
            return DirectoryFile(path)
        case grouped.HttpSourceEntry(http=name):
            return _Unread(name) if targets is None else TargetSource(name, targets)
        case _:
            return None


async def read_directory(service: configured.ServiceSettings, people: People, targets: OutgoingTargets | None) -> None:
    """Read everybody whom the directory lists, once, for a command."""
    reader = DirectoryReader(people.rosters, lambda: datetime.now(UTC))
    reader.use(people, directory_source(service, targets), service.directory.refresh.total_seconds())
    await reader.read()


async def _read_all(service: configured.ServiceSettings, people: People, targets: OutgoingTargets | None) -> None:
    """Read everybody whom the directory lists or an identity provider has pushed, once, for a command."""
    await read_directory(service, people, targets)
    if takes_pushes(service):
        try:
            await read_pushed(service.server.database.get_secret_value(), people)
        except StoreUnavailableError as error:
            log.warning("The people whom an identity provider has pushed are left out: %s", error)


def takes_pushes(service: configured.ServiceSettings) -> bool:
    """Return whether an identity provider may push people here."""
    return any("scim" in key.rights for key in service.api_keys.values())


def build_people(
    service: configured.ServiceSettings, slack: WithMembers | None, targets: OutgoingTargets | None
) -> People:
    """Build the people of the configuration, with their live sources.

    A source whose reader is None isn't read; its members are then unknown.
    """
    if slack is None and service.slack is not None:
        slack = _UnreadSlack()

    def source(given: object) -> Any:
        match given:
            case grouped.PeopleGroupEntry(people=people):
                return people
            case grouped.FileSourceEntry(file=path):
                return directory.FileSource(path)
            case grouped.HttpSourceEntry(http=name):
                return TargetSource(name, targets) if targets is not None else _Unread(name)
            case grouped.SlackGroupEntry(slack=handle):
                return directory.SlackGroupSource(handle.removeprefix("@"), (slack or _UnreadSlack()).members)
            case grouped.NestedGroupEntry():
                return given.as_group()
            case grouped.DirectoryGroupEntry(directory=name):
                return directory.ListedGroup("directory", name)
            case grouped.ScimGroupEntry(scim=name):
                return directory.ListedGroup("scim", name)
            case directories.DirectoryTable(oncall=oncall, owner_of=owners):
                return directory.Directory(oncall, owners)
            case _:
                return given

    return People(
        _persons(service),
        {name: source(group) for name, group in service.groups.items()},
        source(service.directory),
        slack.members if slack is not None else None,
        _absences(service),
        service.server.admins,
        _managers(service),
        service.group_names,
        service.rules,
        slack.has_member if slack is not None else None,
    )


def build_tested_people(
    service: configured.ServiceSettings, members: Mapping[str, Sequence[str]], rosters: Rosters
) -> People:
    """Build the people for policy tests. Nothing outside this machine is called.

    `rosters`: whom directories list. `members`: who is in some groups, by the group's id or, as `slack:@sre`, by the
    handle of a Slack user group.
    """
    listed = {name: grouped.PeopleGroupEntry(people=tuple(people)) for name, people in members.items()}
    groups = {name: listed.get(name, group) for name, group in service.groups.items()}
    people = build_people(service.model_copy(update={"groups": groups}), _ListedSlack(members), None)
    people.rosters = rosters
    return people


@asynccontextmanager
async def open_people(
    service: configured.ServiceSettings, now: Callable[[], datetime], *, live: bool = True
) -> AsyncIterator[People]:
    """Open the people alone, for commands. Without `live`, nothing outside this machine is called."""
    if not live:
        people = build_people(service, None, None)
        await _read_all(service, people, None)
        yield people
        return
    async with AsyncExitStack() as stack:
        targets = await open_targets(stack, service, now)
        slack = open_channels(stack, service).get(SLACK)
        people = build_people(service, slack if isinstance(slack, WithMembers) else None, targets)
        await _read_all(service, people, targets)
        yield people


@dataclass(frozen=True, slots=True)
class _Unread:
    """A live source that is never read."""

    name: str

    async def read(self) -> Any:
        raise SourceUnavailable(self.name, "it was not read")

    async def fetch(self, limit: int) -> bytes:
        raise SourceUnavailable(self.name, "it was not read")

    def state(self) -> None:
        """It stays as it is."""


@dataclass(frozen=True, slots=True)
class _ListedSlack:
    """A Slack whose user groups a policy test lists."""

    groups: Mapping[str, Sequence[str]]

    async def members(self, handle: str) -> Sequence[str]:
        if (people := self.groups.get(f"slack:@{handle}")) is None:
            raise SourceUnavailable(f"slack:@{handle}", "Slack was not called")
        return people

    async def has_member(self, address: str) -> bool:
        raise SourceUnavailable("Slack", "Slack was not called")


class _UnreadSlack:
    """A Slack that is never asked."""

    async def members(self, handle: str) -> Sequence[str]:
        raise SourceUnavailable(f"slack:@{handle}", "Slack was not called")

    async def has_member(self, address: str) -> bool:
        raise SourceUnavailable("Slack", "Slack was not called")
