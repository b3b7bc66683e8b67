"""Sessions of people who have signed in to the pages: rows of the store, new at each sign-in.

A browser holds 32 random bytes, and the store their SHA-256. Every request reads the row again, so a session that one
replica ends is over at all of them, and a copy of the database signs nobody in.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.sessions import SessionRow

SEEN_EVERY = timedelta(minutes=1)  # a click more or less isn't worth a write
LONGEST_BROWSER = 60  # characters

IDLE = timedelta(hours=12)  # a working day
LIFETIME = timedelta(days=7)

_TOKEN = re.compile(r"[\w-]{43}", re.ASCII)  # 32 bytes, as `secrets.token_urlsafe` writes them


class Sessions:
    """Sessions, begun, found and ended.

    `idle`: how long a session lasts without a request; `lifetime`: how long it lasts at all.
    """

    def __init__(self, engine: Engine, *, idle: timedelta = IDLE, lifetime: timedelta = LIFETIME) -> None:
        self.engine = engine
        self._idle = idle
        self._lifetime = lifetime
        self.some_ended = asyncio.Event()  # set when this replica ends any, for pages that are still open in browsers

    @property
    def lifetime(self) -> timedelta:
        return self._lifetime

    async def begin(self, person: str, *, method: str, browser: str = "", proved: bool = True) -> str:
        """Begin a session, and return what the browser has to show from now on.

        `proved`: whether the person proved who they are just now.
        """
        token, now = secrets.token_urlsafe(32), self.engine.now()
        row = SessionRow(id_of(token), person, method, now, now, browser, now + self._lifetime, proved)
        await self.engine.store.add_session(row)
        return token

    async def find(self, token: str) -> SessionRow | None:
        """Return the session of this browser; None if it is none of ours, or is over."""
        if not _TOKEN.fullmatch(token):
            return None
        row = await self.engine.store.session(id_of(token))
        if row is None:
            return None
        if self._is_over(row):
            await self.engine.store.end_sessions(id=row.id)
            return None
        now = self.engine.now()
        if now - row.seen_at >= SEEN_EVERY:
            await self.engine.store.mark_session(row.id, now)
        return row

    async def list(self, person: str) -> Sequence[SessionRow]:
        """Return this person's sessions that aren't over, the newest first."""
        return [row for row in await self.engine.store.sessions(person) if not self._is_over(row)]

    async def end(self, id: str) -> None:
        await self.engine.store.end_sessions(id=id)
        self.some_ended.set()

    async def end_all(self, person: str) -> int:
        """End all sessions of this person, at every replica. Returns how many there were."""
        ended = await self.engine.store.end_sessions(person=person)
        self.some_ended.set()
        return ended

    def _is_over(self, row: SessionRow) -> bool:
        now = self.engine.now()
        return now >= min(row.created_at + self._lifetime, row.seen_at + self._idle)


def id_of(token: str) -> str:
    """Return the id of the session whose browser shows this."""
    return hashlib.sha256(token.encode()).hexdigest()


_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def browser_of(user_agent: str) -> str:
    """Return what people recognize their browser by: `Firefox on Linux`. For other programs, the first word."""
    browser = next((name for mark, name in _BROWSERS if f"{mark}/" in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if browser:
        return f"{browser} on {system}" if system else browser
    words = "".join(each for each in user_agent if each.isascii() and each.isprintable()).split()
    return words[0].partition("/")[0][:LONGEST_BROWSER] if words else ""
