"""`[directory]` of config.toml: who is there, who is on call, and who owns what."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from approvals_bot.approvals.base import Frozen, Slug, refuse
from approvals_bot.approvals.durations import Duration
from approvals_bot.config.groups import FileSourceEntry, HttpSourceEntry
from approvals_bot.config.mail import MailAddress

SHORTEST_REFRESH = timedelta(seconds=5)


def _people(value: object) -> object:
    return [value] if isinstance(value, str) else value


People = Annotated[
    tuple[MailAddress, ...],
    BeforeValidator(_people),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


def _refresh(value: timedelta) -> timedelta:
    if value < SHORTEST_REFRESH:
        raise refuse("the whole directory is read each time; at least 5s", "5m")
    return value


Refresh = Annotated[Duration, AfterValidator(_refresh)]


def _kind_of_people(value: object) -> str:
    return "HttpSourceEntry" if isinstance(value, HttpSourceEntry) or _has(value, "http") else "FileSourceEntry"


PeopleSource = Annotated[
    Annotated[FileSourceEntry, Tag("FileSourceEntry")] | Annotated[HttpSourceEntry, Tag("HttpSourceEntry")],
    Discriminator(_kind_of_people),
]


class ListedPeople(Frozen):
    """Where everybody is listed. `refresh`: how often it is read; a file is read when it changes, too."""

    people: PeopleSource | None = None
    refresh: Refresh = timedelta(minutes=5)


class DirectoryTable(ListedPeople):
    """On-call people and owners: `oncall.<name>`, `owner-of.<field>.<value>`."""

    oncall: dict[Slug, People] = Field(default_factory=dict)
    owner_of: dict[str, dict[str, People]] = Field(default_factory=dict, alias="owner-of")


class DirectoryFileEntry(FileSourceEntry, ListedPeople):
    """On-call people and owners in a JSON file."""


class DirectoryHttpEntry(HttpSourceEntry, ListedPeople):
    """On-call people and owners that a target of [http.*] answers with."""


def _has(value: object, key: str) -> bool:
    return isinstance(value, dict) and key in value


def _kind_of_directory(value: object) -> str:
    if isinstance(value, DirectoryFileEntry) or _has(value, "file"):
        return "DirectoryFileEntry"
    return "DirectoryHttpEntry" if isinstance(value, DirectoryHttpEntry) or _has(value, "http") else "DirectoryTable"


Directory = Annotated[
    Annotated[DirectoryTable, Tag("DirectoryTable")]
    | Annotated[DirectoryFileEntry, Tag("DirectoryFileEntry")]
    | Annotated[DirectoryHttpEntry, Tag("DirectoryHttpEntry")],
    Discriminator(_kind_of_directory),
]
