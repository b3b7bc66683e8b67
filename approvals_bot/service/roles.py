"""Roles: to see all requests and runs, to act on them, and to read the audit.

They are read at each request, so a person who leaves a group loses its role at once. A role gives no vote: who decides
is only what a workflow says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from approvals_bot.config.login import Role
from approvals_bot.people import People, SourceUnavailable


class Roles:
    """Roles, by the addresses and @groups of the configuration."""

    def __init__(self, people: People, entries: Mapping[Role, Sequence[str]] | None = None) -> None:
        self._people = people
        self._entries = dict(entries or {})

    @property
    def named(self) -> Sequence[str]:
        """The addresses and @groups that have a role."""
        return [entry for entries in self._entries.values() for entry in entries]

    async def of(self, address: str) -> frozenset[Role]:
        """Return this person's roles. Operators and auditors are viewers, too.

        Raises SourceUnavailable if a group can't be read: nobody gets in by it then, or stays in.
        """
        found = {role for role, entries in self._entries.items() if await self.is_among(address, entries)}
        return frozenset({*found, "viewer"} if found else found)

    async def has(self, address: str, role: Role) -> bool:
        """Return whether this person has this role. Raises SourceUnavailable if that is unknown."""
        return await self.is_among(address, self.named if role == "viewer" else self._entries.get(role, ()))

    async def is_viewer(self, address: str) -> bool:
        """Return whether this person is a viewer, by whichever role. Raises SourceUnavailable if that is unknown."""
        return await self.is_among(address, self.named)

    async def is_among(self, address: str, entries: Sequence[str]) -> bool:
        """Return whether these addresses and @groups name this person. Raises SourceUnavailable."""
        unavailable: SourceUnavailable | None = None
        for entry in entries:
            try:
                if await self._is(address, entry):
                    return True
            except SourceUnavailable as error:
                unavailable = error  # another entry may name them
        if unavailable is not None:
            raise unavailable
        return False

    async def _is(self, address: str, entry: str) -> bool:
        if entry.startswith("@"):
            return await self._people.is_in(address, entry[1:])
        return self._people.canonical(entry) == self._people.canonical(address)
