"""Verifies a file that `approvals-bot evidence` wrote, with nothing but Python's standard library.

    python verify_evidence.py evidence.json audit.pub

`audit.pub` holds the service's public key, as `approvals-bot audit key` prints it. Exits with 0 if the file is as it
was signed, its log is one unbroken chain, and the votes are those of the log; otherwise with 1 and the reason.
"""

# ruff: noqa: T201  # it is a command of its own

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

# ── Ed25519, as in RFC 8032, 5.1 ──────────────────────────────────────────────────────────────────────────────────────

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)  # of -1

Point = tuple[int, int, int, int]  # in extended coordinates: X, Y, Z and T, where x = X/Z, y = Y/Z and xy = T/Z
NEUTRAL: Point = (0, 1, 1, 0)


def _sum(a: Point, b: Point) -> Point:
    k, l = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P  # noqa: E741  # short, as the formulas
    m, n = 2 * D * a[3] * b[3] % P, 2 * a[2] * b[2] % P
    e, f, g, h = l - k, n - m, n + m, l + k
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(number: int, point: Point) -> Point:
    result = NEUTRAL
    for bit in bin(number)[2:]:
        result = _sum(result, result)
        if bit == "1":
            result = _sum(result, point)
    return result


def _equal(a: Point, b: Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def _decoded(text: bytes) -> Point | None:
    """Return the point with this encoding: y, and the lowest bit of x in the highest bit. None if there is none."""
    number = int.from_bytes(text, "little")
    y, odd = number & ((1 << 255) - 1), number >> 255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and odd):
        return None
    if x & 1 != odd:
        x = P - x
    return x, y, 1, x * y % P


BASE = _decoded((4 * pow(5, -1, P) % P).to_bytes(32, "little")) or NEUTRAL


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether this key has made the signature of this message."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key, commitment = _decoded(public_key), _decoded(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    return _equal(_times(scalar, BASE), _sum(commitment, _times(int.from_bytes(digest, "little") % ORDER, key)))


# ── the evidence ──────────────────────────────────────────────────────────────────────────────────────────────────────

FORMAT = "approvals-bot evidence 1"


class NotVerified(Exception):
    """What is wrong with the file."""


def compact(value: Any) -> bytes:
    """Return JSON as it is hashed and signed: ASCII without spaces, its keys in the order of the file."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def written(value: Any) -> bytes:
    """Return the file of an evidence, byte by byte."""
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def verify(content: bytes, public_key: bytes) -> dict[str, Any]:
    """Return the evidence in the file. Raises NotVerified if it isn't as this key has signed it."""
    try:
        evidence: dict[str, Any] = json.loads(content)
        same = isinstance(evidence, dict) and written(evidence) == content
    except (ValueError, RecursionError):
        raise NotVerified("it isn't JSON") from None
    if not same or evidence.get("format") != FORMAT:
        raise NotVerified("it isn't written as evidence is")
    signed = {name: value for name, value in evidence.items() if name != "signature"}
    if evidence.get("key") != public_key.hex():
        raise NotVerified("it names another public key")
    try:
        signature = signature_of(evidence["signature"])
    except (KeyError, TypeError, ValueError):
        raise NotVerified("it has no signature") from None
    if list(evidence)[-1] != "signature" or not verify_signature(public_key, compact(signed), signature):
        raise NotVerified("the signature is of another content, or by another key")
    try:
        _check_log(evidence)
        _check_votes(evidence)
        files = [file for file in evidence["rules"]["files"] if file is not None]
        if any(hashlib.sha256(file["text"].encode()).hexdigest() != file["sha256"] for file in files):
            raise NotVerified("the workflow's file is another one")
        if evidence["anchor"] is not None and not verify_anchor(evidence["anchor"], public_key):
            raise NotVerified("the anchor isn't signed by this key")
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        raise NotVerified("parts of it are missing") from None
    return evidence


def _check_log(evidence: dict[str, Any]) -> None:
    """Each event's hash covers the hash before it; the first one's, the run's id."""
    before = evidence["run"]["id"]
    for number, event in enumerate(evidence["log"], 1):
        content = json.dumps(event["data"], separators=(",", ":"))
        sealed = event.get("sealed") or hashlib.sha256((event["salt"] + content).encode()).hexdigest()
        parts = (before, event["seq"], event["type"], _micros(event["at"]), event["key"], sealed)
        before = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
        if event["seq"] != number or event["hash"] != before:
            raise NotVerified(f"event {number} of the log isn't as it was written")
    if evidence["head"] != {"seq": len(evidence["log"]), "hash": before}:
        raise NotVerified("the log is longer than what is here")
    for line in evidence["audit"]:
        ending = line["data"] if line["what"] == "run_ended" else {"seq": len(evidence["log"]), "head": before}
        if (ending["seq"], ending["head"]) != (len(evidence["log"]), before):
            raise NotVerified(f"line {line['seq']} of the audit names another log")


def _check_votes(evidence: dict[str, Any]) -> None:
    """Each vote is in the log, with the same person, choice and digest. Of other requests' events, there are seals."""
    received = [each["data"]["payload"] for each in evidence["log"] if each["type"] == "hook_received" and each["data"]]
    sent = [json.loads(payload["text"]) for payload in received if isinstance(payload.get("text"), str)]
    known = {(vote.get("by"), vote.get("choice"), vote.get("digest")) for vote in sent if vote.get("kind") == "vote"}
    for vote in evidence["votes"]:
        cast = {(vote["by"], vote["choice"], digest) for digest in (vote["digest"], None)}  # None: it wasn't said
        if not cast & known:
            raise NotVerified(f"the log has no such vote by {vote['by']}")
        text = evidence["shown"].get(vote["shown"] or "")
        if text is not None and hashlib.sha256(text.encode()).hexdigest() != vote["shown"]:
            raise NotVerified(f"the text that {vote['by']} saw is another one")


def signature_of(text: str) -> bytes:
    """Return a signature as it is written: 64 bytes in lower case. Raises ValueError for every other spelling."""
    if (signature := bytes.fromhex(text)).hex() != text:
        raise ValueError(text)
    return signature


def verify_anchor(anchor: dict[str, Any], public_key: bytes) -> bool:
    """Return whether this key has signed the anchor."""
    signed = {name: anchor[name] for name in ("seq", "head", "open_runs_head", "at", "key")}
    named = anchor["key"] == public_key.hex()
    return named and verify_signature(public_key, compact(signed), signature_of(anchor["signature"]))


def _micros(at: str) -> int:
    """Return a time of the file, such as 2026-11-29T08:00:00.25Z, in microseconds since 1970."""
    from datetime import datetime, timedelta, timezone

    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  # Python 3.10 has no datetime.UTC
    return (datetime.fromisoformat(at.replace("Z", "+00:00")) - epoch) // timedelta(microseconds=1)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python verify_evidence.py EVIDENCE PUBLIC_KEY_FILE", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], "rb") as file, open(arguments[1], encoding="ascii") as key:
            evidence = verify(file.read(), bytes.fromhex(key.read().strip()))
    except (OSError, ValueError, NotVerified) as error:
        print(f"NOT VERIFIED: {error}")
        return 1
    print(f"Verified: run {evidence['run']['id']}, {len(evidence['votes'])} votes, {len(evidence['log'])} events.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
