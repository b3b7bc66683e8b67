"""People's own settings: in the store, and as this process has read them last."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.personal import PersonalRow
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people.own import OwnPeople, OwnSettings, own_settings

EVERY = 5.0  # seconds until a replica knows what was set at another
SKEW = timedelta(minutes=5)  # by which the clocks of two machines may differ
NEVER = datetime(1970, 1, 1, tzinfo=UTC)

logger = logging.getLogger("approvals_bot.service")


class OwnPeopleStore:
    """Reads and writes `known`, which people are looked up in: who is asked takes no query more."""

    def __init__(self, engine: Engine) -> None:
        self.known = OwnPeople()
        self._engine = engine
        self._since = NEVER

    async def read(self) -> None:
        """Read what has changed. Raises StoreUnavailableError."""
        for row in await self._engine.store.personal(max(self._since - SKEW, NEVER)):
            self._since = max(self._since, row.changed_at)
            try:
                self.known.by_address[row.person] = own_settings(row.settings)
            except (ValueError, TypeError, LookupError):
                logger.error("the settings of a person can't be read, and are left out")

    async def set(self, person: str, settings: OwnSettings) -> None:
        """Write a person's settings. They hold here at once, and at other replicas within seconds."""
        await self._engine.store.set_personal(PersonalRow(person, settings.as_json(), self._engine.now()))
        self.known.by_address[person] = settings

    async def keep_reading(self) -> None:
        """Read what other replicas write, until cancelled. SQLite has one process for a file."""
        while self._engine.store.is_shared:
            await asyncio.sleep(EVERY)
            try:
                await self.read()
            except StoreUnavailableError:
                continue  # what is known still holds; the store's own trouble is logged elsewhere
