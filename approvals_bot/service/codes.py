"""Six digits, mailed to the person a link was made for: with them, a forwarded link decides nothing.

What a code is follows from its token and the signing key, so that any replica can check it and nothing is stored; the
token is no secret and says nothing of the digits. How often digits were tried, and codes sent, is counted in this
process: with several replicas each counts for itself.
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
MOST_TRIES = 5  # of one code: a guess is right once in 200,000 codes
MOST_SENT = 5  # codes for one link in an hour: what a person may need, and little to annoy them with
SENT_TIME = timedelta(hours=1)

Binding = Mapping[str, Any]
"""What a code is good for: one link, or one person's signing in. Never two things of different kinds."""

Checked = Literal["right", "wrong", "over"]


class Codes:
    """Makes codes and checks them."""

    def __init__(
        self, *, tokens: Tokens, now: Callable[[], datetime], nonce: Callable[[], str] = secrets.token_urlsafe
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._nonce = nonce
        self._tried: dict[str, list[datetime]] = {}
        self._sent: dict[str, list[datetime]] = {}

    def issue(self, to: Binding) -> tuple[str, str] | None:
        """A new code's token and digits; None when this link, or person, has had its share for now."""
        if not self._allows(self._sent, repr(sorted(to.items())), MOST_SENT, SENT_TIME):
            return None
        bound = {**to, "n": self._nonce()}
        return self._tokens.sign(CODE, bound | {"t": self._now().timestamp()}), self._digits(bound)

    def is_open(self, to: Binding, token: str) -> bool:
        """Whether this is the token of a code for this link that may still be entered."""
        return self._bound(to, token) is not None

    def check(self, to: Binding, token: str, digits: str) -> Checked:
        """Whether these digits are the code. `over`: too late or too often, a new code is needed."""
        bound = self._bound(to, token)
        if bound is None or len(self._lately(self._tried, bound["n"], CODE_TIME)) >= MOST_TRIES:
            return "over"
        given = "".join(digits.split())
        if hmac.compare_digest(given.encode(), self._digits(bound).encode()):
            return "right"  # and not counted: the page that it opens sends it along with every press
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
        """Six digits that only a holder of the signing key can tell. Signing the same twice gives the same."""
        secret = hashlib.sha256(self._tokens.sign(DIGITS, bound).encode()).digest()
        return f"{int.from_bytes(secret, 'big') % 1_000_000:06}"

    def _lately(self, counted: dict[str, list[datetime]], key: str, within: timedelta) -> list[datetime]:
        return [at for at in counted.get(key, []) if at >= self._now() - within]

    def _allows(self, counted: dict[str, list[datetime]], key: str, most: int, within: timedelta) -> bool:
        """Count one more, if there were not too many lately. What is long over is forgotten."""
        since = self._now() - within
        for other in [other for other, times in counted.items() if times[-1] < since]:
            del counted[other]
        times = self._lately(counted, key, within)
        if len(times) >= most:
            return False
        counted[key] = [*times, self._now()]
        return True
