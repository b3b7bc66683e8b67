"""Sessions of people who signed in to the pages: signed tokens that end with their time, or with the signing key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import InvalidTokenError

SESSION = "session.v1"
SESSION_TIME = timedelta(hours=12)  # a working day: signing in again costs one mail


class Sessions:
    """Sessions, begun and read. Nothing is stored."""

    def __init__(self, *, tokens: Tokens, now: Callable[[], datetime]) -> None:
        self._tokens = tokens
        self._now = now

    def begin(self, address: str) -> str:
        """Return the token of a new session of this person."""
        return self._tokens.sign(SESSION, {"a": address, "t": self._now().timestamp()})

    def who(self, token: str) -> str | None:
        """Return the address of the session's person; None if it is invalid or has ended."""
        try:
            session = self._tokens.read(SESSION, token)
        except InvalidTokenError:
            return None
        age = self._now().timestamp() - float(session["t"])
        return str(session["a"]) if age <= SESSION_TIME.total_seconds() else None
