"""People's own settings: in the store, and as this process has read them last."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.personal import PersonalRow, list_personal
from approvals_bot.errors import ApprovalsBotError, StoreMissingError, StoreUnavailableError
from approvals_bot.people import AddressError, People
from approvals_bot.people.absences import Absence
from approvals_bot.people.own import OwnPeople, OwnSettings, own_settings
from approvals_bot.service.known import KnownPeople

READ_EVERY = 5.0  # seconds until a replica knows what was set at another
SKEW = timedelta(minutes=5)  # by which the clocks of two machines may differ
NEVER = datetime(1970, 1, 1, tzinfo=UTC)

logger = logging.getLogger("approvals_bot.service")


MOST_AWAY = 20  # absences of one person

NO_DAYS = "Enter the first and the last day. The last one can't be before the first, or over."
TOO_MANY = f"Nothing was added: at most {MOST_AWAY} absences can be planned."
NO_DELEGATE = "Nothing was added: nobody here knows this delegate, or it's you."


class AbsenceRefused(ApprovalsBotError):
    """An absence that can't be kept; the message says why. `about`: which of its values is wrong."""

    def __init__(self, about: Literal["first", "delegate"], why: str) -> None:
        self.about = about
        super().__init__(why)


def absence_id(absence: Absence) -> str:
    """Return the id of an absence among those of its person."""
    return f"{absence.first} {absence.last} {' '.join(absence.delegates)}".strip()


def absence_text(absence: Absence, people: People) -> str:
    """Return the absence in words: `24 Dec 2026 to 31 Dec 2026, Bo Lund in your place`."""
    days = " to ".join(f"{day.day} {day:%b %Y}" for day in (absence.first, absence.last))
    delegates = ", ".join(people.person(one).name for one in absence.delegates)
    return f"{days}, {delegates} in your place" if delegates else days


def current_absences(absences: Iterable[Absence], today: date) -> list[Absence]:
    """Return the absences that aren't over, in order."""
    return sorted((each for each in absences if each.last >= today), key=lambda each: each.first)


async def add_absence(
    engine: Engine, settings: OwnSettings, person: str, first: str, last: str, delegate: str
) -> OwnSettings:
    """Return the settings with one more absence. Raises AbsenceRefused, or SourceUnavailable."""
    try:
        days = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        raise AbsenceRefused("first", NO_DAYS) from None
    if days[1] < days[0] or days[1] < (engine.now() - timedelta(days=1)).date():
        raise AbsenceRefused("first", NO_DAYS)
    delegates: tuple[str, ...] = ()
    if delegate:
        people: People = engine.resources[People]
        try:
            delegates = (people.canonical(delegate),)
        except AddressError:
            raise AbsenceRefused("delegate", NO_DELEGATE) from None
        if delegates == (person,) or not await engine.resources[KnownPeople].knows(delegates[0]):
            raise AbsenceRefused("delegate", NO_DELEGATE)
    if len(settings.away) >= MOST_AWAY:
        raise AbsenceRefused("first", TOO_MANY)
    away = {*settings.away, Absence(*days, delegates)}
    return replace(settings, away=tuple(sorted(away, key=lambda each: each.first)))


def remove_absences(settings: OwnSettings, ids: Collection[str]) -> OwnSettings:
    """Return the settings without these absences."""
    return replace(settings, away=tuple(each for each in settings.away if absence_id(each) not in ids))


class OwnPeopleStore:
    """Reads and writes `known`, in which people are looked up without a query."""

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

    async def change(self, person: str, settings: OwnSettings, actor: Mapping[str, str]) -> None:
        """Write a person's settings, and audit who has changed them."""
        before = self.known.of(person)
        await self.set(person, settings)
        data = {"was": before.as_json(), "now": settings.as_json()}
        await self._engine.audit("settings_changed", who=person, actor=actor, data=data)

    async def keep_reading(self) -> None:
        """Read what other replicas write, until cancelled. SQLite has one process for a file."""
        while self._engine.store.is_shared:
            await asyncio.sleep(READ_EVERY)
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
