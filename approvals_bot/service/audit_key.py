"""The audit key: it makes the audit's chain, and signs exports, anchors and evidence (Ed25519)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from approvals_bot.durable.store.chain import ChainKey


def compact(value: Mapping[str, Any]) -> bytes:
    """Return JSON as it is hashed and signed: ASCII without spaces, its keys in their order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


@dataclass(frozen=True)
class AuditKey:
    """The key of 32 bytes, which the database doesn't hold. Only its public half may be given to others."""

    seed: bytes

    def __repr__(self) -> str:
        return f"AuditKey({self.public})"

    @cached_property
    def chain(self) -> ChainKey:
        return ChainKey.derive(self.seed)

    @cached_property
    def public(self) -> str:
        """The public key, in hexadecimal."""
        public: bytes = self._private().public_key().public_bytes_raw()
        return public.hex()

    def sign(self, value: Mapping[str, Any]) -> str:
        """Return the signature of this JSON, in hexadecimal."""
        signature: bytes = self._private().sign(compact(value))
        return signature.hex()

    def _private(self) -> Any:
        # imported late: it takes 20 ms, and few processes sign
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)
