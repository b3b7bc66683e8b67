"""Six-digit codes, mailed to the person a link was made for: without one, a forwarded link decides nothing.

A code follows from its token and the signing key, so any replica can check it and nothing is stored. The token is no
secret and reveals nothing about the digits. Attempts and sent codes are counted in memory, by each replica separately.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import InvalidTokenError

CODE = "code.v1"
DIGITS = "code-digits.v1"

CODE_TIME = timedelta(minutes=10)
MOST_TRIES = 5  # of one code: guessing succeeds for one code in 200,000
MOST_SENT = 5  # codes for one link in an hour: enough for its owner, and little spam if somebody else asks for them
SENT_TIME = timedelta(hours=1)

Binding = Mapping[str, Any]
"""What a code is valid for: one link, or one person's sign-in. Never for two kinds of things."""

Checked = Literal["right", "wrong", "over"]


class Codes:
    """Codes, issued and checked."""

    def __init__(
        self, *, tokens: Tokens, now: Callable[[], datetime], nonce: Callable[[], str] = secrets.token_urlsafe
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._nonce = nonce
        self._tried: dict[str, list[datetime]] = {}
        self._sent: dict[str, list[datetime]] = {}

    def issue(self, to: Binding) -> tuple[str, str] | None:
        """Return a new code's token and digits; None if too many were sent for this link or person."""
        if not self._allows(self._sent, repr(sorted(to.items())), MOST_SENT, SENT_TIME):
            return None
        bound = {**to, "n": self._nonce()}
        return self._tokens.sign(CODE, bound | {"t": self._now().timestamp()}), self._digits(bound)

    def is_open(self, to: Binding, token: str) -> bool:
        """Return whether this is the token of a code for this link that hasn't expired."""
        return self._bound(to, token) is not None

    def check(self, to: Binding, token: str, digits: str) -> Checked:
        """Check the digits. `over`: the code has expired or was tried too often, so a new one is needed."""
        bound = self._bound(to, token)
        if bound is None or len(self._lately(self._tried, bound["n"], CODE_TIME)) >= MOST_TRIES:
            return "over"
        given = "".join(digits.split())
        if hmac.compare_digest(given.encode(), self._digits(bound).encode()):
            return "right"  # not counted, because the page behind it sends the code with every press
        self._allows(self._tried, bound["n"], MOST_TRIES, CODE_TIME)
        return "wrong"

    def _bound(self, to: Binding, token: str) -> dict[str, Any] | None:
        try:
            payload = self._tokens.read(CODE, token)
        except InvalidTokenError:
            return None
        age = self._now().timestamp() - float(payload.pop("t"))
        return payload if to.items() <= payload.items() and age <= CODE_TIME.total_seconds() else None

    def _digits(self, bound: dict[str, Any]) -> str:
        """Derive the digits, which takes the signing key. The same binding always gives the same digits."""
        secret = hashlib.sha256(self._tokens.sign(DIGITS, bound).encode()).digest()
        return f"{int.from_bytes(secret, 'big') % 1_000_000:06}"

    def _lately(self, counted: dict[str, list[datetime]], key: str, within: timedelta) -> list[datetime]:
        return [at for at in counted.get(key, []) if at >= self._now() - within]

    def _allows(self, counted: dict[str, list[datetime]], key: str, most: int, within: timedelta) -> bool:
        """Count one more and return True, unless there were too many recently. Forgets old counts."""
        since = self._now() - within
        for other in [other for other, times in counted.items() if times[-1] < since]:
            del counted[other]
        times = self._lately(counted, key, within)
        if len(times) >= most:
            return False
        counted[key] = [*times, self._now()]
        return True
