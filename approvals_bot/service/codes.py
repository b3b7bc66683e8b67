"""Six-digit codes, mailed to the person a link was made for: without one, a forwarded link decides nothing.

A code follows from its token and the signing key, so any replica can check it. The token is no secret and reveals
nothing about the digits. A code counts once, and its tries are counted in the store. What it proved is then shown by
another token, which is good for the same link for ten minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import InvalidTokenError
from approvals_bot.service.attempts import Attempts, change_counter

CODE = "code.v1"
DIGITS = "code-digits.v1"
PROOF = "code-proof.v1"

CODE_TIME = timedelta(minutes=10)
MOST_TRIES = 5  # of one code: guessing succeeds for one code in 200,000

Binding = Mapping[str, Any]
"""What a code is valid for: one link, or one person's sign-in. Never for two kinds of things."""

Checked = Literal["right", "wrong", "over", "too_many"]


class Codes:
    """Codes, issued and checked."""

    def __init__(self, engine: Engine, *, tokens: Tokens, nonce: Callable[[], str] = secrets.token_urlsafe) -> None:
        self._engine = engine
        self._tokens = tokens
        self._nonce = nonce
        self._attempts = Attempts(engine)

    async def issue(self, to: Binding, address: str, peer: str) -> tuple[str, str] | None:
        """Return a new code's token and digits; None if too many were asked for."""
        if not await self._attempts.take("code", address, peer):
            return None
        bound = {**to, "n": self._nonce()}
        return self._tokens.sign(CODE, bound | {"t": self._engine.now().timestamp()}), self._digits(bound)[0]

    def is_open(self, to: Binding, token: str) -> bool:
        """Return whether this is the token of a code for this link that hasn't expired."""
        return self._read(CODE, to, token) is not None

    async def check(self, to: Binding, token: str, digits: str, address: str, peer: str) -> Checked:
        """Check the digits. Right digits count once.

        `over`: the code has expired, has counted, or was tried too often, so a new one is needed. `too_many`: this peer
        has guessed too often for this address.
        """
        bound = self._read(CODE, to, token)
        if bound is None:
            return "over"
        if not await self._attempts.take("guess", address, peer):
            return "too_many"
        given = "".join(digits.split()).encode()
        is_right = any(hmac.compare_digest(given, each.encode()) for each in self._digits(bound))

        def decide(state: Mapping[str, Any]) -> dict[str, Any] | None:
            tries = state.get("tries", 0)
            return None if tries >= MOST_TRIES else {"tries": MOST_TRIES if is_right else tries + 1}

        name = f"code {hashlib.sha256(str(bound['n']).encode()).hexdigest()[:32]}"
        is_counted = await change_counter(self._engine, name, self._engine.now() + 2 * CODE_TIME, decide)
        if not is_counted:
            return "over"
        if not is_right:
            return "wrong"
        for kind in ("guess", "code"):
            await self._attempts.give_back(kind, address, peer)
        await self._attempts.welcome(address, peer)
        return "right"

    def prove(self, to: Binding) -> str:
        """Make the proof that right digits came for this link just now."""
        return self._tokens.sign(PROOF, {**to, "t": self._engine.now().timestamp()})

    def is_proven(self, to: Binding, proof: str) -> bool:
        """Return whether right digits came for this link lately."""
        return self._read(PROOF, to, proof) is not None

    def _read(self, purpose: str, to: Binding, token: str) -> dict[str, Any] | None:
        try:
            payload = self._tokens.read(purpose, token)
        except InvalidTokenError:
            return None
        age = self._engine.now().timestamp() - float(payload.pop("t"))
        return payload if to.items() <= payload.items() and age <= CODE_TIME.total_seconds() else None

    def _digits(self, bound: dict[str, Any]) -> list[str]:
        """Derive the digits, which takes a signing key: under the one that signs now, then under the others.

        The replica that sent them may have signed with another one. The same binding always gives the same digits.
        """
        return [f"{int.from_bytes(secret, 'big') % 1_000_000:06}" for secret in self._tokens.derive(DIGITS, bound)]
