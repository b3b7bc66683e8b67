"""Anchors: signed statements of how far the audit went, kept where the database's owner can't rewrite them.

    {"seq": 812, "head": "…", "open_runs_head": "…", "at": "2026-11-29T08:00:00Z", "key": "…", "signature": "…"}

`seq` and `head` are a line of the audit and its hash, which covers all lines before it. `open_runs_head` is the hash of
the last line before it that names the heads of open logs; empty if there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from approvals_bot.service.audit_check import RUNS_SEALED, Cut, Kind
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.read import iso
from approvals_bot.verify_evidence import verify_anchor


@dataclass(frozen=True, slots=True)
class Anchor:
    """What an anchor says."""

    seq: int
    head: str
    open_runs_head: str
    at: datetime
    key: str
    signature: str = ""

    def as_json(self) -> dict[str, Any]:
        unsigned = {
            "seq": self.seq,
            "head": self.head,
            "open_runs_head": self.open_runs_head,
            "at": iso(self.at),
            "key": self.key,
        }
        return unsigned | ({"signature": self.signature} if self.signature else {})


def sign_anchor(key: AuditKey, seq: int, head: str, open_runs_head: str, at: datetime) -> Anchor:
    unsigned = Anchor(seq, head, open_runs_head, at, key.public)
    return Anchor(seq, head, open_runs_head, at, key.public, key.sign(unsigned.as_json()))


class AnchorError(ValueError):
    """A line of a file of anchors that isn't an anchor of this key."""


def read_anchors(lines: Iterable[bytes], public_keys: Iterable[str]) -> list[Anchor]:
    """Return the anchors of a file, in their order. Raises AnchorError for a line that no given key has signed."""
    known, found = list(public_keys), list[Anchor]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            anchor = anchor_of(value)
            signed = any(verify_anchor(value, bytes.fromhex(key)) for key in known)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise AnchorError(f"line {number} isn't an anchor") from None
        if known and not signed:
            raise AnchorError(f"line {number} isn't signed by the audit key")
        if found and (anchor.seq < found[-1].seq or anchor.at < found[-1].at):
            raise AnchorError(f"line {number} is older than the line before")
        if found and anchor == found[-1]:
            raise AnchorError(f"line {number} is there twice")
        if json.dumps(anchor.as_json(), separators=(",", ":")).encode() != line.strip():
            raise AnchorError(f"line {number} isn't written as anchors are")
        found.append(anchor)
    return found


def anchor_of(value: Mapping[str, Any]) -> Anchor:
    at = datetime.fromisoformat(value["at"])
    return Anchor(value["seq"], value["head"], value["open_runs_head"], at, value["key"], value["signature"])


class AnchorCheck:
    """The audit's lines as anchors see them: the hash of each that one names, and of the line before with open logs."""

    def __init__(self, anchors: Iterable[Anchor]) -> None:
        self._wanted = {anchor.seq for anchor in anchors}
        self._found: dict[int, tuple[str, str]] = {}
        self._open_runs = ""  # the hash of the last line that names open logs
        self._last = 0
        self.cut: Cut | None = None  # lines that are gone on purpose

    def take(self, seq: int, hash: str, what: str) -> None:
        if what == RUNS_SEALED:
            self._open_runs = hash
        if seq in self._wanted:
            self._found[seq] = hash, self._open_runs
        self._last = max(self._last, seq)

    def compare(self, anchor: Anchor) -> Kind | None:
        """Return how the lines differ from what the anchor says; None if they don't."""
        if anchor.seq > self._last:
            return "cut"
        if self.cut is not None and anchor.seq <= self.cut.seq:
            return "changed" if anchor.seq == self.cut.seq and anchor.head != self.cut.head else None
        if anchor.seq not in self._found:
            return "missing"
        head, open_runs = self._found[anchor.seq]
        if not open_runs and self.cut is not None:
            open_runs = self.cut.open_runs_head
        return None if (head, open_runs) == (anchor.head, anchor.open_runs_head) else "changed"
