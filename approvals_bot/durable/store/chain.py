"""The two kinds of chains that show what was changed: one of each run's log, and the audit's.

A hash covers the hash before it, so nothing can be changed, removed, moved or inserted without the rest of the chain
being computed again. Neither covers the content itself but its seal, the SHA-256 of a random salt and the content: the
content can be erased later, with its salt, and the chain still holds. Where content was erased, the row keeps the seal
in the place of the salt.

A run's chain begins with the run's id, and isn't keyed: who can write to the database can compute it. What vouches for
it is the audit, which names the last hash of each run. The audit's chain is an HMAC if the service has an audit key,
which the database doesn't hold.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

CHAIN_PURPOSE = b"approvals-bot audit chain v1"
SEALED = "="
"""What a seal begins with in the place of a salt."""


class ChainKey(NamedTuple):
    """The key of the audit's chain, and its public name, with which the hashes begin."""

    id: str
    secret: bytes

    @classmethod
    def derive(cls, seed: bytes) -> Self:
        """Derive the key of the chain from the audit key. It is good for nothing else."""
        secret = hmac.new(seed, CHAIN_PURPOSE, hashlib.sha256).digest()
        return cls(hashlib.sha256(b"id " + secret).hexdigest()[:16], secret)


def new_salt() -> str:
    return os.urandom(16).hex()


def seal(salt: str, content: str) -> str:
    """Return the seal of this content; the one in the place of the salt, if the content was erased."""
    if salt.startswith(SEALED):
        return salt.removeprefix(SEALED)
    return hashlib.sha256((salt + content).encode()).hexdigest()


# ── a run's log ───────────────────────────────────────────────────────────────────────────────────────────────────


class ChainedEvent(NamedTuple):
    """A row of a log with its link of the chain. `salt` and `hash` are empty where the link is missing."""

    seq: int
    kind: str
    micros: int
    key: str
    text: str  # its data, as JSON
    salt: str
    hash: str

    @property
    def seal(self) -> str:
        return seal(self.salt, self.text)

    def hash_after(self, before: str) -> str:
        """Return what its hash should be after this one."""
        return event_hash(before, self.seq, self.kind, self.micros, self.key, self.seal)


def event_hash(before: str, seq: int, type: str, at: int, key: str, sealed: str) -> str:
    """Return the hash of an event. `before`: the one of the event before, or the run's id; `at` is in microseconds."""
    return hashlib.sha256(f"{before}\n{seq}\n{type}\n{at}\n{key}\n{sealed}".encode()).hexdigest()


def chain_rows(run_id: str, before: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, int, str, str]]:
    """Return the links (run, seq, salt, hash) of new rows (run, seq, type, at, key, data) that follow one another."""
    links = []
    for _, seq, type, at, key, data in rows:
        salt = new_salt()
        before = event_hash(before, seq, type, at, key, seal(salt, data))
        links.append((run_id, seq, salt, before))
    return links


class RunHead(NamedTuple):
    """How far a run's log went, and the hash of its last event then."""

    run_id: str
    seq: int
    hash: str


# ── the audit ─────────────────────────────────────────────────────────────────────────────────────────────────────


def sealed_line_hash(
    before: str, seq: int, at: int, what: str, run_id: str | None, sealed: str, key: ChainKey | None
) -> str:
    """Return the hash of a line: a SHA-256, or with a key its id, a dot and the HMAC."""
    covered = json.dumps([before, seq, at, what, run_id, sealed]).encode()
    if key is None:
        return hashlib.sha256(covered).hexdigest()
    return f"{key.id}.{hmac.new(key.secret, covered, hashlib.sha256).hexdigest()}"


def key_id_of(hash: str) -> str:
    """Return the id of the key that made a line's hash; empty if none did."""
    return hash.partition(".")[0] if "." in hash else ""
