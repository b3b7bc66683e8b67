"""`[groups]` of config.toml: people by address, live sources, and groups made of others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, WithJsonSchema, model_validator

from approvals_bot.approvals.base import Frozen, Label, Slug, Text, nearest, refuse
from approvals_bot.config.mail import MailAddress
from approvals_bot.people import NestedGroup
from approvals_bot.people.addresses import GroupAddress, PersonAddress, SlackGroupAddress, canonical, parse_address

LONGEST_SHOWN = 100  # characters of a list that an error repeats

DEEPEST = 10
"""How many groups may stand inside each other."""


def in_folder(path: Path, info: ValidationInfo) -> Path:
    """Resolve a relative path against the folder of the file that contains it."""
    return Path((info.context or {}).get("folder", "")) / path


def _path(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise refuse("a path is missing")
    return in_folder(Path(value), info) if isinstance(value, (str, Path)) else value


FolderPath = Annotated[Path, BeforeValidator(_path)]


class FileSourceEntry(Frozen):
    """A JSON file, read at each lookup."""

    file: FolderPath


class HttpSourceEntry(Frozen):
    """A target in [http.*], requested with GET at each lookup."""

    http: Slug


class GroupEntry(Frozen):
    """A group. `name` is what people read instead of the group's id."""

    name: Label | None = None


class PeopleGroupEntry(GroupEntry):
    """People by their addresses. In the file also a plain list."""

    people: tuple[MailAddress, ...]

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        people, path = (value.get("people"), ("people",)) if isinstance(value, dict) else (value, ())
        for at, address in enumerate(people if isinstance(people, list) else ()):
            if isinstance(address, str) and address.startswith("@"):
                shown = json.dumps(people, ensure_ascii=False)
                both = f"{{ all = {shown} }}" if len(shown) < LONGEST_SHOWN else "{ all = […] }"
                raise refuse(f"{address} is a group, and this is a list of people", both, at=(*path, at))
        return value if isinstance(value, dict) else {"people": value}


class SlackGroupEntry(GroupEntry):
    """The members of a Slack user group. In the file also "slack:@sre"."""

    slack: Annotated[str, Field(pattern=r"^@\S{1,80}$")]

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        if isinstance(value, str) and not value.startswith("slack:"):
            raise refuse('write a list of addresses, or a Slack user group like "slack:@sre"', f'["{value}"]')
        return {"slack": value.removeprefix("slack:")} if isinstance(value, str) else value


class FileGroupEntry(FileSourceEntry, GroupEntry):
    """The people that a JSON file lists."""


class HttpGroupEntry(HttpSourceEntry, GroupEntry):
    """The people that a target of [http.*] answers with."""


class DirectoryGroupEntry(GroupEntry):
    """The people of `[directory] people` whose `groups` have this name."""

    directory: Text


class ScimGroupEntry(GroupEntry):
    """The people of a group that the identity provider pushes, by its display name."""

    scim: Text


def _members(value: object) -> object:
    return [value] if isinstance(value, str) else value


Members = Annotated[
    tuple[Text, ...],
    BeforeValidator(_members),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""Groups and people: "@core", "slack:@sre", "ann@acme.eu"."""


class NestedGroupEntry(GroupEntry):
    """Everybody in some groups, but for those in others. In the file also a list of groups."""

    all: Annotated[Members, Field(min_length=1)]
    not_: Annotated[Members, Field(alias="not")] = ()

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        return {"all": value} if isinstance(value, list) else value

    def as_group(self) -> NestedGroup:
        return NestedGroup(self.all, self.not_)


_KINDS = {
    "people": "PeopleGroupEntry",
    "slack": "SlackGroupEntry",
    "file": "FileGroupEntry",
    "http": "HttpGroupEntry",
    "directory": "DirectoryGroupEntry",
    "scim": "ScimGroupEntry",
    "all": "NestedGroupEntry",
    "not": "NestedGroupEntry",
}


def _kind_of(value: object) -> str:
    """Say which form of a group this is. Errors are then about that form alone."""
    match value:
        case GroupEntry():
            return type(value).__name__
        case str():
            return "SlackGroupEntry"
        case dict():
            meant = [nearest(key, _KINDS) for key in value]
            return next((kind for key, kind in _KINDS.items() if key in meant), "PeopleGroupEntry")
        case [_, *_] if all(isinstance(one, str) and one.startswith(("@", "slack:")) for one in value):
            return "NestedGroupEntry"
        case _:
            return "PeopleGroupEntry"


Group = Annotated[
    Annotated[PeopleGroupEntry, Tag("PeopleGroupEntry")]
    | Annotated[SlackGroupEntry, Tag("SlackGroupEntry")]
    | Annotated[FileGroupEntry, Tag("FileGroupEntry")]
    | Annotated[HttpGroupEntry, Tag("HttpGroupEntry")]
    | Annotated[DirectoryGroupEntry, Tag("DirectoryGroupEntry")]
    | Annotated[ScimGroupEntry, Tag("ScimGroupEntry")]
    | Annotated[NestedGroupEntry, Tag("NestedGroupEntry")],
    Discriminator(_kind_of),
]

Groups = Mapping[str, GroupEntry]

Fault = tuple[tuple[str | int, ...], str, str]
"""Where in [groups] something is wrong, what, and what was probably meant."""


def nesting_faults(groups: Groups, *, has_slack: bool) -> Iterator[Fault]:
    """Yield what is wrong with groups made of others: names that nobody has, and circles."""
    for name, group in groups.items():
        if not isinstance(group, NestedGroupEntry):
            continue
        sides: tuple[tuple[Literal["all", "not"], Sequence[str]], ...] = (("all", group.all), ("not", group.not_))
        for key, members in sides:
            for at, text in enumerate(members):
                if found := _fault_of(text, groups, has_slack=has_slack):
                    yield (name, key, at), *found
        if circle := _circle(name, groups):
            what = f"is a circle: {' → '.join(f'@{one}' for one in circle)}"
            yield (name,), what if len(circle) <= DEEPEST else f"has more than {DEEPEST} groups inside each other", ""


def _fault_of(text: str, groups: Groups, *, has_slack: bool) -> tuple[str, str] | None:
    try:
        address = parse_address(text)
    except ValueError as error:
        return str(error), ""
    match address:
        case GroupAddress(name) if name not in groups:
            near = nearest(name, groups)
            return f"no group is called {name}", near and f"@{near}"
        case SlackGroupAddress() if not has_slack:
            return "Slack is not configured", ""
        case GroupAddress() | SlackGroupAddress() | PersonAddress():
            return None
        case _:
            return "a group is made of groups and people: write @group, slack:@usergroup or ann@acme.eu", ""


def _inside(name: str, groups: Groups) -> Iterator[str]:
    group = groups.get(name)
    if isinstance(group, NestedGroupEntry):
        yield from (text[1:] for text in (*group.all, *group.not_) if text.startswith("@"))


def _circle(start: str, groups: Groups) -> list[str]:
    """Return the way from a group back to itself, or one that is too deep; [] if there is neither."""
    ways, done = [[start]], set[str]()
    while ways:
        way = ways.pop()
        for inner in _inside(way[-1], groups):
            if inner == start or len(way) >= DEEPEST:
                return [*way, inner]
            if inner not in done:
                done.add(inner)
                ways.append([*way, inner])
    return []


def listed_people(groups: Groups, name: str) -> tuple[str, ...] | None:
    """Return a group's members as the file lists them; None if only a live source knows, or if there is no such group.

    Call it once `nesting_faults` has found nothing.
    """
    match groups.get(name):
        case PeopleGroupEntry(people=people):
            return people
        case NestedGroupEntry(all=members, not_=without):
            among, out = _listed(groups, members), _listed(groups, without)
            if among is None or out is None:
                return None
            barred = {*map(canonical, out)}
            return tuple(one for one in among if canonical(one) not in barred)
        case _:
            return None


def _listed(groups: Groups, members: Sequence[str]) -> dict[str, None] | None:
    found = dict[str, None]()
    for text in members:
        people = (text,) if not text.startswith(("@", "slack:")) else listed_people(groups, text[1:])
        if people is None:
            return None
        found.update(dict.fromkeys(people))
    return found


def slack_handles(groups: Groups) -> list[str]:
    """List the Slack user groups that these groups are made of, by their handles without the @."""
    found = dict[str, None]()
    for group in groups.values():
        match group:
            case SlackGroupEntry(slack=handle):
                found[handle.removeprefix("@")] = None
            case NestedGroupEntry(all=members, not_=without):
                for text in (*members, *without):
                    if text.startswith("slack:@"):
                        found[text.removeprefix("slack:@")] = None
            case _:
                pass
    return list(found)
