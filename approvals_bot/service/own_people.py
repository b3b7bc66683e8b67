"""People's own settings: in the store, and as this process has read them last."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.personal import PersonalRow, list_personal
from approvals_bot.errors import StoreMissingError, StoreUnavailableError
from approvals_bot.people.own import OwnPeople, OwnSettings, own_settings

NEVERY = 5.0  # seconds until a replica knows what was set at another
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
            _take_over(row, self.known)

    async def set(self, person: str, settings: OwnSettings) -> None:
        """Write a person's settings. They hold here at once, and at other replicas within seconds."""
        await self._engine.store.set_personal(PersonalRow(person, settings.as_json(), self._engine.now()))
        self.known.by_address[person] = settings

    async def keep_reading(self) -> None:
        """Read what other replicas write, until cancelled. SQLite has one process for a file."""
        while self._engine.store.is_shared:
            await asyncio.sleep(NEVERY)
            try:
                await self.read()
            except StoreUnavailableError:
                continue  # what is known still holds; the store's own trouble is logged elsewhere


async def read_own_people(url: str) -> OwnPeople:
    """Read everybody's settings for a command: nothing is created, migrated or written.

    Nobody has any if there is no database yet, or an older one. Raises StoreUnavailableError if it can't be read.
    """
    known = OwnPeople()
    for row in await _read(url):
        _take_over(row, known)
    return known


async def _read(url: str) -> list[PersonalRow]:
    if url.startswith("sqlite:///"):
        return await asyncio.to_thread(_read_file, Path(url.removeprefix("sqlite:///")))
    try:
        store = await connect(url, to_read=True)
    except StoreMissingError:
        return []
    try:
        return await store.personal(NEVER)
    finally:
        await store.close()


def _read_file(path: Path) -> list[PersonalRow]:
    if not path.exists():
        return []
    # Without a -wal nobody has it open, and SQLite would make one, unless it takes the file as immutable.
    is_in_use = path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?{'mode=ro' if is_in_use else 'immutable=1'}"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as db:
            has_table = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'personal'").fetchone()
            return list_personal(db, NEVER) if has_table else []
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"The database file {path} can't be read: {error}") from error


def _take_over(row: PersonalRow, known: OwnPeople) -> None:
    try:
        known.by_address[row.person] = own_settings(row.settings)
    except (ValueError, TypeError, LookupError):
        logger.error("the settings of a person can't be read, and are left out")
