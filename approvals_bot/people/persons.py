"""A person, and what an address means: frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from approvals_bot.people.sources import ListedGroup, LiveSource, NestedGroup, SourceFault, SourceUnavailable


@dataclass(frozen=True, slots=True)
class Person:
    """A person is their address; the rest is how to reach and show them.

    `mail`: the mailbox as it is configured, if that is spelled differently. `numbers`: how they write numbers,
    "1.234,56"; "" for our own way.
    """

    address: str
    name: str
    slack: str | None = None
    zone: str = "UTC"
    mail: str = ""
    numbers: str = ""

    @property
    def mailbox(self) -> str:
        """The address that mail goes to."""
        return self.mail or self.address


@dataclass(frozen=True, slots=True)
class Resolved:
    """The people an address means right now.

    `why` completes "You are …" ("in release-managers"); if `persons` is empty, it says why. `errors`: why sources could
    not be read; membership is then unknown, not denied. `slack_group`: the handle of the Slack user group that it is.
    `missing`: pushed groups that aren't there (any more): nobody is in them, and nobody knows whom they keep out.
    """

    persons: tuple[Person, ...]
    why: str
    errors: tuple[SourceFault, ...] = ()
    slack_group: str = ""
    missing: tuple[SourceFault, ...] = ()

    def includes(self, person: str, source: str) -> bool:
        """Return whether this person is among them. Raises SourceUnavailable, about `source`, where nobody knows."""
        if any(each.address == person for each in self.persons):
            return True
        if self.errors:
            raise SourceUnavailable(source, str(self.errors[0]))
        return False


GroupSource = Sequence[str] | LiveSource | ListedGroup | NestedGroup
"""A group as it is configured: a list of addresses, a source that is read each time, a directory's, or other groups."""


@dataclass(frozen=True, slots=True)
class Directory:
    """On-call people and owners: {name: addresses} and {field: {value: addresses}}.

    `unreadable`: the paths of the lists of a live source that have entries, but no address.
    """

    oncall: Mapping[str, Sequence[str]] = field(default_factory=dict)
    owner_of: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    unreadable: frozenset[tuple[str, ...]] = frozenset()
