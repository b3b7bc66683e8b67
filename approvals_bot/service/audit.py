"""The exported audit: JSON lines, each chained to the one before, the last one signed.

    {"kind": "header", "format": "approvals-bot audit 1", "exported_at": …, "chain": …}
    {"kind": "audit", "seq", "at", "what", "who", "run_id", "data", "hash", "chain"}       entries of no run's log
    {"kind": "run", "run_id", "workflow", "status", "created_at", "events", "chain"}       followed by its log:
    {"kind": "event", "run_id", "seq", "type", "at", "data", "chain"}
    {"kind": "manifest", "lines", "audit", "runs", "events", …, "signature", "chain"}

`chain` is the SHA-256 of the previous chain (as text) and of the line's canonical JSON without its chain. A line must
be written exactly in that canonical form, so no byte of the file can change unnoticed. The manifest's signature is an
HMAC over the chain up to it and its own counts, with a key derived from the service's first signing key. Tokens, links
and secrets are removed before anything is hashed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Literal

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.encoding import link_entry
from approvals_bot.durable.store.protocol import AuditLine
from approvals_bot.service.read import iso, redact

FORMAT = "approvals-bot audit 1"
PURPOSE = b"approvals-bot audit export v1"
LONGEST_LINE = 8_000_000  # bytes; a payload has at most one million, and JSON may write each as six
PAGE = 200  # runs read at once


def derive_key(signing_key: str) -> bytes:
    """Derive the key that signs manifests from a signing key. It is good for nothing else."""
    return hmac.new(signing_key.encode(), PURPOSE, hashlib.sha256).digest()


def key_id(key: bytes) -> str:
    """Return a short id of this key, which reveals nothing about it."""
    return hashlib.sha256(b"id " + key).hexdigest()[:16]


def canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def link(before: str, value: Mapping[str, Any]) -> str:
    return hashlib.sha256(before.encode() + canonical(value)).hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The counts of an export. `broken_at`: the first line that breaks the store's own audit chain, if any."""

    exported_at: str
    lines: int
    audit: int
    runs: int
    events: int
    broken_at: int | None


class _ExportChain:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.head = ""
        self.lines = 0

    def add(self, value: dict[str, Any]) -> None:
        self.head = link(self.head, value)
        self._file.write(canonical(value | {"chain": self.head}) + b"\n")
        self.lines += 1


async def write_export(engine: Engine, key: bytes, file: BinaryIO) -> Manifest:
    """Write everything, newest run first. Runs that open meanwhile may be missing; each log is complete."""
    at = iso(engine.now())
    chain = _ExportChain(file)
    chain.add({"kind": "header", "format": FORMAT, "exported_at": at})
    audit = await engine.audit_lines()
    for line in audit:
        entry = asdict(line.entry) | {"data": redact(line.entry.data)}
        chain.add({"kind": "audit", "seq": line.seq, "at": iso(line.at), **entry, "hash": line.hash})
    runs = events = 0
    cursor: str | None = None
    while True:
        page = await engine.records(limit=PAGE, cursor=cursor)
        for record in page.records:
            log = await engine.events(record.id)
            chain.add(
                {
                    "kind": "run",
                    "run_id": record.id,
                    "workflow": record.workflow,
                    "status": record.status,
                    "created_at": iso(record.created_at),
                    "events": len(log),
                }
            )
            for event in log:
                chain.add(
                    {
                        "kind": "event",
                        "run_id": record.id,
                        **event._asdict(),
                        "at": iso(event.at),
                        "data": redact(event.data),
                    }
                )
            runs, events = runs + 1, events + len(log)
        cursor = page.cursor
        if cursor is None:
            break
    manifest = Manifest(at, chain.lines + 1, len(audit), runs, events, broken_at(audit))
    unsigned = {"kind": "manifest", **asdict(manifest), "key": key_id(key)}
    chain.add(unsigned | {"signature": _sign(key, chain.head, unsigned)})
    file.flush()
    return manifest


def _sign(key: bytes, head: str, manifest: Mapping[str, Any]) -> str:
    return hmac.new(key, head.encode() + canonical(manifest), hashlib.sha256).hexdigest()


def broken_at(audit: Sequence[AuditLine]) -> int | None:
    """Return the first line that breaks the store's own chain; None if it is intact."""
    before = ""
    for number, line in enumerate(audit, 1):
        _, digest = link_entry(before, line.seq, to_micros(line.at), line.entry)
        if line.seq != number or line.hash != digest:
            return number
        before = line.hash
    return None


@dataclass(frozen=True, slots=True)
class AuditFault:
    """The first line that was tampered with, and what is wrong with it."""

    line: int
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a file. `origin`: whether one of the given keys was checked and signed it."""

    fault: AuditFault | None = None
    origin: Literal["checked", "not checked"] = "not checked"
    manifest: Manifest = Manifest("", 0, 0, 0, 0, None)

    def as_json(self) -> dict[str, Any]:
        counted = asdict(self.manifest)
        del counted["lines"]
        fault = None if self.fault is None else asdict(self.fault)
        return {"intact": self.fault is None, "fault": fault, "origin": self.origin, **counted}


class _Faulty(Exception):
    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


def verify_lines(lines: Iterable[bytes], keys: Sequence[bytes]) -> Verification:
    """Verify a whole file. Never raises for what is in it."""
    reading = _Reading()
    number = 0
    try:
        for number, line in enumerate(lines, 1):  # noqa: B007  # the line where it stopped is the result
            reading.take(line)
        number += 1
        manifest = reading.finished()
        number -= 1
        origin = _origin(manifest, reading.before, keys)
    except _Faulty as fault:
        return Verification(AuditFault(number, fault.what))
    audit, runs, events = reading.counts.values()
    found = Manifest(manifest["exported_at"], reading.lines, audit, runs, events, manifest["broken_at"])
    return Verification(None, origin, found)


class _Reading:
    """The part of the file that was read so far."""

    def __init__(self) -> None:
        self.head = ""
        self.before = ""  # the chain before the last line
        self.lines = 0
        self.counts = {"audit": 0, "run": 0, "event": 0}
        self._exported_at = ""
        self._manifest: dict[str, Any] | None = None
        self._run = ("", 0)  # the run whose events come now, and how many
        self._come = 0

    def take(self, line: bytes) -> None:
        value = _parse(line)
        if self._manifest is not None:
            raise _Faulty("it comes after the manifest")
        chain = value.pop("chain", None)
        self.before, self.head = self.head, link(self.head, value)
        if chain != self.head:
            raise _Faulty("it was changed, or doesn't follow the line before")
        self.lines += 1
        self._place(value)

    def finished(self) -> dict[str, Any]:
        """Return the manifest, if its counts match what was read."""
        if self._manifest is None:
            raise _Faulty("the file ends without a manifest: its end is missing")
        said = [self._manifest.get(name) for name in ("exported_at", "lines", "audit", "runs", "events")]
        if said != [self._exported_at, self.lines, *self.counts.values()]:
            raise _Faulty("the manifest's counts don't match the file")
        return self._manifest

    def _place(self, value: dict[str, Any]) -> None:
        """Check that this kind of line may come here, and count it."""
        match value:
            case {"kind": "header", "format": "approvals-bot audit 1", "exported_at": str(at)} if self.lines == 1:
                self._exported_at = at
            case _ if self.lines == 1:
                raise _Faulty("it isn't the header of an exported audit")
            case {"kind": "audit"} if not self.counts["run"]:
                self.counts["audit"] += 1
            case {"kind": "run", "run_id": str(run), "events": int(events)} if self._come == self._run[1]:
                self._run, self._come = (run, events), 0
                self.counts["run"] += 1
            case {"kind": "event", "run_id": run} if run == self._run[0] and self._come < self._run[1]:
                self._come += 1
                self.counts["event"] += 1
            case {"kind": "manifest", "broken_at": int() | None} if self._come == self._run[1]:
                self._manifest = value
            case _:
                raise _Faulty("it is in the wrong place")


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise _Faulty("it is longer than any line we write")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise _Faulty("it isn't JSON") from None
    if not isinstance(value, dict) or _written(value) != line:
        raise _Faulty("it isn't in the canonical form")
    return value


def _written(value: dict[str, Any]) -> bytes:
    try:
        return canonical(value) + b"\n"
    except (ValueError, RecursionError):
        raise _Faulty("it isn't in the canonical form") from None


def _origin(manifest: dict[str, Any], before: str, keys: Sequence[bytes]) -> Literal["checked", "not checked"]:
    if not keys:
        return "not checked"
    unsigned = {name: value for name, value in manifest.items() if name != "signature"}
    signature = str(manifest.get("signature"))
    if any(hmac.compare_digest(_sign(key, before, unsigned).encode(), signature.encode()) for key in keys):
        return "checked"
    ids = ", ".join(key_id(key) for key in keys)
    raise _Faulty(f"none of the given keys ({ids}) signed this; it names the key {manifest.get('key')}")
