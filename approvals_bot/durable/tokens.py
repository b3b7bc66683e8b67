"""Signed tokens, which links carry.

The signature only filters out guesses. The store decides what a token may still do.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b32encode
from collections.abc import Sequence
from typing import Any

from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from approvals_bot.errors import InvalidTokenError

MIN_KEY_BYTES = 32  # the length of SHA-256's output; a shorter key would be the weakest part
WEBHOOK = "webhook.v1"
"""The purpose of webhooks' URLs. Their payload is `{"h": hook id, "g": generation}`."""

MAX_TOKEN = 500  # characters; ours have about 120


def check_keys(keys: Sequence[str | bytes]) -> list[bytes]:
    """Return signing keys as bytes. Raises ValueError for a short one."""
    found = [key.encode() if isinstance(key, str) else key for key in keys]
    for number, key in enumerate(found, 1):
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(
                f"signing key {number} has {len(key)} bytes; it needs {MIN_KEY_BYTES} or more. "
                "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
    return found


class Tokens:
    """A signer and reader of tokens. It signs with one key and accepts all, so rotating keys breaks no links.

    Each purpose of each installation has a salt of its own, so a token for one is worthless for another: also for the
    same purpose of a second database, such as a copy for staging that has the same keys. A token's text isn't canonical
    (its last character has spare bits): never use it as a key, use its payload.
    """

    def __init__(self, keys: Sequence[str | bytes], *, installation: str) -> None:
        """Sign with the first key. `installation` is the store's: `store.installation`, `engine.installation`."""
        self.installation = installation
        self.signs_with = ""
        self.use(keys)

    def use(self, keys: Sequence[str | bytes]) -> None:
        """Accept these keys from now on. If the one that signs isn't among them, the first signs."""
        if not keys:
            raise ValueError("no signing key is set, and links can't be signed without one")
        self._by_id = {self._id(key): key for key in check_keys(keys)}
        self.key_ids = tuple(self._by_id)
        self.sign_with(self.signs_with if self.signs_with in self._by_id else self.key_ids[0])

    def sign_with(self, key_id: str) -> None:
        """Sign with the key that has this id. Raises KeyError if there is none."""
        first = self._by_id[key_id]
        self.signs_with = key_id
        self._keys = [first, *(key for key in self._by_id.values() if key != first)]
        self._signers: dict[str, Signer] = {}  # by purpose

    def sign(self, purpose: str, payload: dict[str, Any]) -> str:
        """Return a token for this purpose that is safe in a URL's path."""
        text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        return self._signer(purpose).sign(base64_encode(text)).decode()

    def read(self, purpose: str, token: str) -> dict[str, Any]:
        """Return the token's payload. Raises InvalidTokenError if it isn't ours or is for another purpose."""
        if len(token) > MAX_TOKEN:
            raise InvalidTokenError()
        try:
            payload = json.loads(base64_decode(self._signer(purpose).unsign(token)).decode())
        except (BadData, UnicodeError, ValueError):
            raise InvalidTokenError() from None
        if not isinstance(payload, dict):
            raise InvalidTokenError()
        return payload

    def derive(self, purpose: str, payload: dict[str, Any]) -> list[bytes]:
        """Return 32 bytes that follow from a payload and a key, for each key: the one that signs comes first.

        For what is compared and not read, such as digits: compare with all, because another replica may sign with
        another key.
        """
        text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
        return [hmac.digest(key, self._salt(purpose).encode() + b"\0" + text, hashlib.sha256) for key in self._keys]

    def seal(self, purpose: str, text: str) -> str:
        """Return 16 letters and digits that only a holder of the key that signs can compute for a text.

        They serve where a token is too long or case may be lost, such as in a mail address. A guess has a chance of
        1 in 2⁸⁰.
        """
        return self._seal(self._keys[0], purpose, text)

    def is_sealed(self, purpose: str, text: str, seal: str) -> bool:
        """Return whether one of our keys sealed this text. Case doesn't matter."""
        given = seal.lower().encode()
        return any(hmac.compare_digest(own.encode(), given) for own in self.seals(purpose, text))

    def seals(self, purpose: str, text: str) -> list[str]:
        """Return the seal of each key for this text: the one that signs comes first."""
        return [self._seal(key, purpose, text) for key in self._keys]

    def _seal(self, key: bytes, purpose: str, text: str) -> str:
        signature = Signer(key, salt=self._salt(purpose), digest_method=hashlib.sha256).get_signature(text)
        return b32encode(base64_decode(signature)[:10]).decode().lower()

    def _id(self, key: bytes) -> str:
        """Return what stands for a key where others can read it. It reveals nothing about a random key."""
        return hmac.digest(key, self._salt("key id").encode(), hashlib.sha256).hex()[:16]

    def _salt(self, purpose: str) -> str:
        return f"{purpose}\0{self.installation}"

    def _signer(self, purpose: str) -> Signer:
        signer = self._signers.get(purpose)
        if signer is None:
            oldest_first = list(reversed(self._keys))  # itsdangerous signs with the last key of its list
            signer = self._signers[purpose] = Signer(
                oldest_first, salt=self._salt(purpose), digest_method=hashlib.sha256
            )
        return signer
