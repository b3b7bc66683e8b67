"""Live sources of people: read at each lookup. A failure is an error, never a guess."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from approvals_bot.errors import ApprovalsBotError

LARGEST_FILE = 1_000_000  # bytes of a source's file


@dataclass(frozen=True, slots=True)
class SourceFault:
    """A source of people that can't be read, and why, in words for people."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source} can't be read ({self.reason})"


class SourceUnavailable(ApprovalsBotError):
    """A source of people can't be read now. Nothing was decided; the operator fixes it, and people try again.

    `is_lasting`: waiting doesn't help, as with a missing permission.
    """

    def __init__(self, source: str, reason: str, *, is_lasting: bool = False) -> None:
        self.source = source
        self.reason = reason
        self.is_lasting = is_lasting
        super().__init__(f'The source "{source}" can\'t be read: {reason}')

    @property
    def fault(self) -> SourceFault:
        return SourceFault(self.source, self.reason)


class LiveSource(Protocol):
    """A source of people that is read at each lookup. `name` is its name in the configuration."""

    @property
    def name(self) -> str: ...

    async def read(self) -> Any:
        """Return the source's JSON: {"people": [address, …]} for a group, or a directory's tables.

        Raises SourceUnavailable if it can't be read or isn't JSON.
        """


@dataclass(frozen=True, slots=True)
class NestedGroup:
    """A group made of others: everybody in `all`, but for those in `without`. Each is an address as files write it."""

    all: tuple[str, ...]
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group that has the members which a directory lists: the one that is read, or the one that is pushed."""

    kind: Literal["directory", "scim"]
    group: str

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.group}"


@dataclass(frozen=True, slots=True)
class FileSource:
    """A JSON file, read at each lookup."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    async def read(self) -> Any:
        return await asyncio.to_thread(self._read)

    def _read(self) -> Any:
        try:
            with self.path.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise SourceUnavailable(self.name, f"it is larger than {LARGEST_FILE:,} bytes")
            return json.loads(content)
        except OSError as error:
            raise SourceUnavailable(self.name, error.strerror or "it can't be opened") from None
        except (ValueError, RecursionError):
            raise SourceUnavailable(self.name, "it is not JSON") from None


@dataclass(frozen=True, slots=True)
class SlackGroupSource:
    """The members of a Slack user group, from a callable that asks Slack."""

    handle: str
    members: Callable[[str], Awaitable[Sequence[str]]]

    @property
    def name(self) -> str:
        return f"slack:@{self.handle}"

    async def read(self) -> Any:
        return {"people": list(await self.members(self.handle))}
