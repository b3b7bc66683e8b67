"""What a running service offers to a channel that takes things in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People
from approvals_bot.service.catalog import Catalog


@dataclass(slots=True)
class ChannelHost:
    """The service around a channel. `people` and `workflows` are others after a reload of the configuration.

    `link(hook_id, address)` is a person's own page of a request; `counted(verdict, via)` is told of each act.
    """

    engine: Engine
    tokens: Tokens
    people: People
    workflows: Catalog
    base_url: str
    now: Callable[[], datetime]
    link: Callable[[str, str], Awaitable[str]]
    counted: Callable[[str, str], None]


@runtime_checkable
class Attached(Protocol):
    """A channel that takes things in: it is handed its host before the service starts."""

    def attach(self, host: ChannelHost) -> None:
        """Get ready to be used in this service. OSError: an address can't be listened at."""
