"""People as a directory lists them: a file, an HTTP source, or an identity provider that pushes them.

    {"people": [{"address": "ann@acme.eu", "name": "Ann Ode", "slack": "U0ANN", "manager": "cfo@acme.eu",
                 "zone": "Europe/Berlin", "away": [{"from": "2026-12-24", "until": "2026-12-31",
                 "delegate": ["bo@acme.eu"]}], "groups": ["sre"]}]}

A roster is an immutable value: each reading makes a new one, and a look-up costs the same however many people there
are. A faulty entry is left out, or only the one thing in it that is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from approvals_bot.people.absences import Absence
from approvals_bot.people.addresses import AddressError, IdentityRules
from approvals_bot.people.persons import Person
from approvals_bot.people.sources import ListedGroup, SourceFault, SourceUnavailable

LARGEST_DIRECTORY = 64_000_000  # bytes; 50,000 people are about 10 MB
MOST_FAULTS = 20  # faults that are named; all are counted
LONGEST_NAME = 200  # characters

_SLACK_ID = re.compile(r"[UW][A-Z0-9]{2,20}")
_SPACE = re.compile(r"[ \t\n\r]*")


class Row(NamedTuple):
    """What a directory says about a person. Name and time zone are "" where it says none, and so is the manager."""

    person: Person
    manager: str
    away: tuple[Absence, ...]


@dataclass(frozen=True, slots=True)
class EntryFault:
    """What is wrong with an entry. `line`: of the file, from 1; `key`: `people[3].zone`."""

    line: int
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Roster:
    """Everybody whom one directory lists, by identity.

    `groups`: the identities in each group, in order. `barred`: the people who may do nothing any more, whatever files
    say. `bad`: how many entries have a fault, of which `faults` names the first.
    """

    rows: Mapping[str, Row] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, None]] = field(default_factory=dict)
    by_slack: Mapping[str, str] = field(default_factory=dict)
    domains: Set[str] = frozenset()
    absent: tuple[str, ...] = ()  # everybody with absences
    barred: Set[str] = frozenset()
    bad: int = 0
    faults: tuple[EntryFault, ...] = ()


NOBODY = Roster()


@dataclass(slots=True)
class Rosters:
    """The rosters that people are looked up in, as this process has read them last.

    `listed`: what `[directory] people` names; `pushed`: what an identity provider keeps here. `fault`: why there is no
    `listed` one: it could not be read since the start.
    """

    listed: Roster = NOBODY
    pushed: Roster = NOBODY
    fault: SourceFault | None = None

    def row(self, person: str) -> Row | None:
        """Return what the directory says about this person; what it lists counts before what is pushed."""
        return self.listed.rows.get(person) or self.pushed.rows.get(person)

    def is_barred(self, person: str) -> bool:
        return person in self.pushed.barred

    @property
    def barred(self) -> Set[str]:
        return self.pushed.barred

    @property
    def has_absences(self) -> bool:
        return bool(self.listed.absent or self.pushed.absent)

    def absent(self) -> Iterator[str]:
        """Yield everybody with absences."""
        yield from self.listed.absent
        yield from self.pushed.absent

    def has_domain(self, domain: str) -> bool:
        return domain in self.listed.domains or domain in self.pushed.domains

    def by_slack(self, user_id: str) -> str | None:
        return self.listed.by_slack.get(user_id) or self.pushed.by_slack.get(user_id)

    def members(self, group: ListedGroup) -> Mapping[str, None]:
        """Return who is in this group, in order. Raises SourceUnavailable."""
        if group.kind == "directory":
            self.check()
        found = (self.listed if group.kind == "directory" else self.pushed).groups.get(group.group)
        return {} if found is None else found

    def missing(self, group: ListedGroup) -> SourceFault | None:
        """Return that nobody has pushed this group, or it was deleted or renamed since; None for all others.

        Nobody is in it, which is safe where it lets people in. Where it keeps people out, nobody knows whom.
        """
        if group.kind == "directory" or group.group in self.pushed.groups:
            return None
        return SourceFault(group.name, "the identity provider has no such group")

    def unread(self) -> SourceUnavailable | None:
        """Return that the directory could not be read since the start, so that nobody knows who is in it."""
        return None if self.fault is None else SourceUnavailable(self.fault.source, self.fault.reason)

    def check(self) -> None:
        """Raise SourceUnavailable if the directory could not be read since the start."""
        if (unread := self.unread()) is not None:
            raise unread


def merged(given: Person | None, listed: Person) -> Person:
    """Return one person of two accounts. What the configuration gives counts before what a directory lists."""
    if given is None:
        return listed
    return replace(
        given,
        name=given.name or listed.name,
        slack=given.slack or listed.slack,
        zone=given.zone or listed.zone,
        mail=given.mail or listed.mail,
    )


def completed(person: Person) -> Person:
    """Return the person with the name and the time zone that are shown where nobody gave any."""
    if person.name and person.zone:
        return person
    return replace(person, name=person.name or person.address.partition("@")[0], zone=person.zone or "UTC")


# ── reading ──


def read_roster(content: bytes, rules: IdentityRules, source: str) -> Roster:
    """Parse a directory's JSON into a roster. Raises SourceUnavailable if it isn't a directory at all.

    It is read entry by entry: the interpreter may run something else in between, which is why a thread can do it beside
    an event loop.
    """
    if len(content) > LARGEST_DIRECTORY:
        raise SourceUnavailable(source, f"it is larger than {LARGEST_DIRECTORY:,} bytes")
    try:
        text = content.decode("utf-8-sig")
        reading = _RosterBuilder(rules, text)
        for at, position, entry in _entries(text):
            reading.add(at, position, entry)
        return reading.roster()
    except (ValueError, RecursionError):
        raise SourceUnavailable(source, 'it is not JSON like {"people": [{"address": "ann@acme.eu"}]}') from None


def _entries(text: str) -> Iterator[tuple[int, int, Any]]:
    """Yield the number, the position and the value of each element of `people`. Raises ValueError for other JSON."""
    decode, at = json.JSONDecoder().raw_decode, _after_space(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    at, has_people = _after_space(text, at + 1), False
    while text[at : at + 1] != "}":
        key, at = decode(text, at)
        at = _after_space(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise ValueError("no key")
        at = _after_space(text, at + 1)
        if key == "people" and text[at : at + 1] == "[":
            has_people, number, at = True, 0, _after_space(text, at + 1)
            while text[at : at + 1] != "]":
                entry, end = decode(text, at)
                yield number, at, entry
                number, at = number + 1, _after_comma(text, end, "]")
            at += 1
        else:
            _, at = decode(text, at)
        at = _after_comma(text, at, "}")
    if not has_people or _after_space(text, at + 1) != len(text):
        raise ValueError("no people")


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None, "it matches nothing, too"
    return found.end()


def _after_comma(text: str, at: int, closing: str) -> int:
    """Return where the next element begins, or the bracket that closes the list."""
    at = _after_space(text, at)
    if text[at : at + 1] == closing:
        return at
    if text[at : at + 1] != ",":
        raise ValueError("no comma")
    after = _after_space(text, at + 1)
    if text[after : after + 1] == closing:
        raise ValueError("a comma before the end")
    return after


class _FaultError(Exception):
    """What is wrong with one value of an entry."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


@dataclass(slots=True)
class _RosterBuilder:
    """Collects the entries of a directory, and their faults, into a roster."""

    rules: IdentityRules
    text: str
    rows: dict[str, Row] = field(default_factory=dict)
    groups: dict[str, dict[str, None]] = field(default_factory=dict)
    slack: dict[str, str] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    bad: int = 0
    faults: list[EntryFault] = field(default_factory=list)
    _zones: dict[str, bool] = field(default_factory=dict)
    _last_bad: int = -1

    def add(self, at: int, position: int, entry: Any) -> None:
        """Add the entry with this number, and note its faults."""

        def noted(key: str, message: str) -> None:
            if at != self._last_bad:
                self.bad, self._last_bad = self.bad + 1, at
            if len(self.faults) < MOST_FAULTS:
                line = self.text.count("\n", 0, position) + 1
                self.faults.append(EntryFault(line, f"people[{at}]{key and f'.{key}'}", message))

        if not isinstance(entry, dict):
            noted("", "is not an object")
            return
        address = entry.get("address")
        try:
            person = self._address(address)
        except _FaultError as fault:
            noted("address", fault.message)
            return
        if person in self.rows:
            noted("address", "another entry is about the same person, and counts")
            return

        def value(key: str, read: Any, missing: Any) -> Any:
            given = entry.get(key)
            if given is None or given == "":
                return missing
            try:
                return read(given)
            except _FaultError as fault:
                noted(key, fault.message)
                return missing

        slack = value("slack", self._slack, "")
        if slack and self.slack.setdefault(slack, person) != person:
            noted("slack", "another person has this Slack ID, so it is nobody's: a press could be by either")
            self.shared.add(slack)
        self.rows[person] = Row(
            Person(
                person,
                value("name", _name, ""),
                slack or None,
                value("zone", self._zone, ""),
                "" if address == person else str(address),
            ),
            value("manager", self._address, ""),
            value("away", self._away, ()),
        )
        for group in value("groups", _groups, ()):
            self.groups.setdefault(group, {})[person] = None

    def roster(self) -> Roster:
        rows = self.rows
        if self.shared:
            shared = [row for row in rows.values() if row.person.slack in self.shared]
            rows |= {row.person.address: row._replace(person=replace(row.person, slack=None)) for row in shared}
        return Roster(
            rows=rows,
            groups=self.groups,
            by_slack={slack: person for slack, person in self.slack.items() if slack not in self.shared},
            domains=frozenset(person.rpartition("@")[2] for person in rows),
            absent=tuple(person for person, row in rows.items() if row.away),
            bad=self.bad,
            faults=tuple(self.faults),
        )

    def _address(self, given: Any) -> str:
        if not isinstance(given, str):
            raise _FaultError("is missing" if given is None else "is not an email address")
        try:
            return self.rules.canonical(given)
        except AddressError as error:
            raise _FaultError(str(error)) from None

    def _slack(self, given: Any) -> str:
        if not isinstance(given, str) or not _SLACK_ID.fullmatch(given):
            raise _FaultError('is not a Slack user ID like "U0ANN"')
        return given

    def _zone(self, given: Any) -> str:
        if isinstance(given, str) and given not in self._zones:
            self._zones[given] = _is_zone(given)
        if not isinstance(given, str) or not self._zones[given]:
            raise _FaultError('is not a time zone like "Europe/Berlin"')
        return given

    def _away(self, given: Any) -> tuple[Absence, ...]:
        if not isinstance(given, list):
            raise _FaultError("is not a list")
        return tuple(map(self._absence, given))

    def _absence(self, given: Any) -> Absence:
        try:
            first, last = date.fromisoformat(given["from"]), date.fromisoformat(given["until"])
            delegates = given.get("delegate", ())
        except (TypeError, KeyError, ValueError, AttributeError):
            raise _FaultError('write {"from": "2026-12-24", "until": "2026-12-31"}') from None
        if last < first:
            raise _FaultError("ends before it begins")
        listed: Sequence[Any] = [delegates] if isinstance(delegates, str) else delegates
        if not isinstance(listed, list | tuple):
            raise _FaultError("its delegate is not an address")
        return Absence(first, last, tuple(dict.fromkeys(map(self._address, listed))))


def _name(given: Any) -> str:
    if not isinstance(given, str) or len(given) > LONGEST_NAME or not given.isprintable():
        raise _FaultError(f"is not a name of at most {LONGEST_NAME} characters")
    return given.strip()


def _groups(given: Any) -> Sequence[str]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise _FaultError("is not a list of names")
    return given


def _is_zone(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
