"""What a running service offers to an inbound channel."""

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
    """The service around a channel. A reload of the configuration replaces `people` and `workflows`.

    `link(hook_id, address)` returns a person's own page of a request; `counted(verdict, via)` is called for each act.
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
    """An inbound channel: it gets its host before the service starts."""

    def attach(self, host: ChannelHost) -> None:
        """Get ready to run in this service. Raises OSError if an address is in use."""
