"""The people of a service's file, ready to be asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from approvals_bot.config import service as config
from approvals_bot.config.service import Service
from approvals_bot.people import Directory, FileSource, LiveSource, People, Person, SlackGroupSource, SourceUnavailable

SlackMembers = Callable[[str], Awaitable[Sequence[str]]]
"""From a Slack user group's handle, without the @, to its members' mail addresses. Raises SourceUnavailable."""

OpenTarget = Callable[[str], LiveSource]
"""From the name of an [http.*] target to the source that GETs it."""


def people_of(service: Service, slack_members: SlackMembers | None = None, target: OpenTarget | None = None) -> People:
    """Everybody config.toml names. Sources without what reads them are unavailable, not empty."""
    persons = [
        Person(address, entry.name or address.partition("@")[0], entry.slack, entry.manager, entry.zone)
        for address, entry in service.people.items()
    ]
    groups = {name: _source(group, slack_members, target) for name, group in service.groups.items()}
    return People(persons, groups, _directory(service.directory, target), slack_members)


def _source(
    group: tuple[str, ...] | config.SlackGroup | config.FileSource | config.HttpSource,
    slack_members: SlackMembers | None,
    target: OpenTarget | None,
) -> Sequence[str] | LiveSource:
    match group:
        case tuple():
            return group
        case config.SlackGroup(slack=handle):
            return SlackGroupSource(handle.removeprefix("@"), slack_members or _no_slack)
        case config.FileSource(file=path):
            return FileSource(path)
        case config.HttpSource(http=name):
            return target(name) if target is not None else _Closed(name)


def _directory(
    directory: config.DirectoryTable | config.FileSource | config.HttpSource, target: OpenTarget | None
) -> Directory | LiveSource:
    match directory:
        case config.DirectoryTable(oncall=oncall, owner_of=owner_of):
            return Directory(oncall, owner_of)
        case config.FileSource(file=path):
            return FileSource(path)
        case config.HttpSource(http=name):
            return target(name) if target is not None else _Closed(name)


async def _no_slack(handle: str) -> Sequence[str]:
    raise SourceUnavailable(f"slack:@{handle}", "Slack is not configured")


class _Closed:
    """A target that nothing here can call."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def read(self) -> object:
        raise SourceUnavailable(self.name, "nothing here can call it")
