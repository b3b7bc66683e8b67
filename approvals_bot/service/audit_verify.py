"""Verifying an exported audit offline: is the file as it was written, and the database as the chains say it was?"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from approvals_bot.durable.core.events import from_micros, to_micros
from approvals_bot.durable.store.chain import SEALED, ChainedEvent, ChainKey, seal
from approvals_bot.service.anchors import Anchor, AnchorCheck
from approvals_bot.service.audit import FORMAT, Manifest, key_id, link, mac
from approvals_bot.service.audit_check import RUNS_DELETED, AuditChainCheck, ChainFault, Cut, Kind, log_fault
from approvals_bot.service.audit_key import compact
from approvals_bot.service.read import iso
from approvals_bot.verify_evidence import signature_of, verify_signature

LONGEST_LINE = 8_000_000  # bytes; a payload has at most one million, and JSON may write each as six


@dataclass(frozen=True, slots=True)
class AuditFault:
    """The first place that was tampered with: its line in the file, what kind of change, and the run it belongs to.

    `entry`: the number of the line of the audit, or of the event in its run's log, if it is known.
    """

    kind: Kind
    line: int
    what: str
    run: str | None = None
    entry: int | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """What to verify with: public keys, keys derived from signing keys, and the key of the audit's chain."""

    public: Sequence[str] = ()
    derived: Sequence[bytes] = ()
    chain: ChainKey | None = None

    def __bool__(self) -> bool:
        return bool(self.public or self.derived)


NO_KEYS = Keys()


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a file. `origin`: whether one of the given keys was checked and signed it.

    `fault`: where the file was changed since the export. `broken`: where the database was changed before it, as its
    chains and the anchors show; the manifest lists what the exporter found.

    `proved_until`: the line of the audit up to which anchors vouch for the database, and the time of the last one that
    does. `newer_anchor`: the time of an anchor that was made after the export. `cut_at`: the line of the audit up to
    which it was cut on purpose, and `cut_on`: when; `older_anchors`: how many anchors are about what is gone.
    """

    fault: AuditFault | None = None
    origin: Literal["checked", "not checked"] = "not checked"
    manifest: Manifest = field(default_factory=lambda: Manifest("", 0, 0, 0, 0))
    broken: AuditFault | None = None
    proved_until: int | None = None
    proved_at: str | None = None
    newer_anchor: str | None = None
    cut_at: int | None = None
    cut_on: str | None = None
    older_anchors: int = 0

    @property
    def is_sound(self) -> bool:
        return self.fault is None and self.broken is None and not self.manifest.faults

    def as_json(self) -> dict[str, Any]:
        counted = asdict(self.manifest)
        del counted["lines"]
        fault, broken = (None if each is None else asdict(each) for each in (self.fault, self.broken))
        proved = {
            "proved_until": self.proved_until, "proved_at": self.proved_at, "newer_anchor": self.newer_anchor,
            "cut_at": self.cut_at, "cut_on": self.cut_on, "older_anchors": self.older_anchors,
        }  # fmt: skip
        return (
            {"intact": self.fault is None, "fault": fault, "broken": broken, "origin": self.origin} | counted | proved
        )


class _Faulty(Exception):
    def __init__(self, what: str, kind: Kind = "changed") -> None:
        self.what: str = what
        self.kind: Kind = kind
        super().__init__(what)


def verify_lines(lines: Iterable[bytes], keys: Keys = NO_KEYS, anchors: Sequence[Anchor] = ()) -> Verification:
    """Verify a whole file. Never raises for what is in it."""
    reading, rest = _Reading(keys, anchors), iter(lines)
    number = 0
    try:
        for number, line in enumerate(rest, 1):
            reading.take(number, line)
        number += 1
        manifest = reading.finished()
        number -= 1
        origin = _origin(manifest, reading.before, keys)
    except _Faulty as fault:
        return Verification(AuditFault(_kind(fault, number, rest), number, fault.what, reading.run_id))
    audit, runs, events = reading.counts.values()
    found = Manifest(
        manifest["exported_at"], reading.lines, audit, runs, events, manifest["faults"], manifest["keyed_from"]
    )
    broken = reading.broken[0] if reading.broken else None
    checked = Verification(None, origin, found, broken)
    if reading.cut is not None:
        checked = replace(checked, cut_at=reading.cut.seq, cut_on=iso(from_micros(reading.cut.micros)))
    return _with_anchors(checked, reading, anchors)


def _with_anchors(checked: Verification, reading: _Reading, anchors: Sequence[Anchor]) -> Verification:
    """Compare what the file says with the anchors. Those made after the export say nothing about it."""
    if not anchors:
        return checked
    exported_at = _time(checked.manifest.exported_at)
    older = [anchor for anchor in anchors if anchor.at <= exported_at]
    newer = [anchor.as_json()["at"] for anchor in anchors if anchor.at > exported_at]
    checked = replace(checked, newer_anchor=newer[-1] if newer else None)
    for anchor in older:
        wrong = reading.anchored.compare(anchor)
        if wrong is not None:
            what = f"the anchor of {anchor.as_json()['at']} names another state of the audit"
            return replace(checked, broken=AuditFault(wrong, reading.line_of(anchor.seq), what, None, anchor.seq))
    gone = [anchor for anchor in older if reading.cut is not None and anchor.seq <= reading.cut.seq]
    checked = replace(checked, older_anchors=len(gone))
    if len(older) > len(gone):
        return replace(checked, proved_until=older[-1].seq, proved_at=older[-1].as_json()["at"])
    return checked


def _kind(fault: _Faulty, number: int, rest: Iterator[bytes]) -> Kind:
    """Say what happened to the line that should be here: each has its number, so the rest of the file shows it."""
    if fault.kind not in ("changed", "missing"):
        return fault.kind
    for line in rest:
        try:
            value = json.loads(line[:LONGEST_LINE])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("n") == number:
            return "moved" if fault.kind == "missing" else "added"
    return fault.kind


class _Reading:
    """The part of the file that was read so far, and what the chains in it show about the database."""

    def __init__(self, keys: Keys, anchors: Sequence[Anchor]) -> None:
        self.head = ""
        self.before = ""  # the chain before the last line
        self.lines = 0
        self.counts = {"audit": 0, "run": 0, "event": 0}
        self.run_id: str | None = None
        self.anchored = AnchorCheck(anchors)
        self.broken: list[AuditFault] = []
        self._keys = keys
        self._audit = AuditChainCheck(keys.chain)
        self._header: dict[str, Any] | None = None
        self._manifest: dict[str, Any] | None = None
        self._is_whole = True
        self._run_at = 0  # the line of the run whose events come now
        self._expected = (0, 0)  # how many events come, and how many its row says there are
        self._log: list[ChainedEvent] = []
        self._audit_at: tuple[int, int] | None = None  # the first line of the audit: in the file, and its number

    @property
    def cut(self) -> Cut | None:
        return self._audit.cut

    def line_of(self, seq: int) -> int:
        """Return where in the file this line of the audit is, or should be."""
        at, first = self._audit_at or (2, 1)
        return max(2, min(at + seq - first, at + self.counts["audit"]))

    def take(self, number: int, line: bytes) -> None:
        value = _parse(line)
        if self._manifest is not None:
            raise _Faulty("it comes after the manifest", "added")
        chain = value.pop("chain", None)
        if value.get("n") != number:
            raise _numbered(value.get("n"), number)
        self.before, self.head = self.head, link(self.head, value)
        if chain != self.head:
            raise _Faulty("it was changed, or doesn't follow the line before")
        self.lines += 1
        self._place(value)

    def finished(self) -> dict[str, Any]:
        if self._manifest is None:
            raise _Faulty("the end of the file is missing", "cut")
        return self._manifest

    def _place(self, value: dict[str, Any]) -> None:
        """Check that a line may come here, and take it."""
        match value:
            case {"kind": "header", "format": str() as form, "selected": dict() as selected} if self._header is None:
                if form != FORMAT:
                    raise _Faulty(f"it is of another version: {form}")
                self._header, self._is_whole = value, not selected
                self._audit = AuditChainCheck(
                    self._keys.chain,
                    adjacent=not selected.keys() - _RANGES,
                    is_whole=not selected,
                    public=self._keys.public,
                )
            case {"kind": "audit"} if self._header is not None and self.counts["run"] == 0:
                self._take_audit(value)
            case {"kind": "run", "run_id": str() as run_id, "events": int() as events, "length": int() as length} if (
                self._is_complete()
            ):
                self._finish_run()
                self.counts["run"] += 1
                self.run_id, self._expected, self._log, self._run_at = run_id, (events, length), [], self.lines
            case {"kind": "event", "run_id": str() as run_id} if run_id == self.run_id:
                self.counts["event"] += 1
                self._log.append(_event_of(value))
            case {"kind": "manifest", "exported_at": str(), "faults": list()} if self._is_complete():
                counted = [value.get("lines"), *(value.get(name) for name in ("audit", "runs", "events"))]
                if counted != [self.lines, *self.counts.values()]:
                    raise _Faulty("it counts other lines than there are")
                self._finish_run()
                self._audit.heads.take(RUNS_DELETED, None, {"runs": value.get("deleted")})
                self._finish()
                self._manifest = value
            case _:
                raise _Faulty("it is in the wrong place", "moved")

    def _take_audit(self, value: dict[str, Any]) -> None:
        try:
            seq, at, what, run_id, hash = (
                value["seq"],
                _time(value["at"]),
                value["what"],
                value["run_id"],
                value["hash"],
            )
            content = json.dumps([value["who"], value["actor"], value["data"]], sort_keys=True)
            sealed = value["sealed"] if "sealed" in value else seal(value["salt"], content)
            fault = self._audit.take_sealed(seq, to_micros(at), what, run_id, value["data"], sealed, hash)
            self.anchored.take(seq, hash, what)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            raise _Faulty("it isn't a line of the audit") from None
        self.counts["audit"] += 1
        if self._audit_at is None:
            self._audit_at = self.lines, seq
        if fault is not None:
            self._break(self.lines, fault)

    def _is_complete(self) -> bool:
        return self._header is not None and len(self._log) == self._expected[0]

    def _finish_run(self) -> None:
        """Check the log that is complete now."""
        if self.run_id is not None:
            fault = log_fault(self.run_id, self._expected[1], self._log, self._audit.heads)
            if fault is not None:
                self._break(self._run_at + min(fault.seq or 0, len(self._log)), fault)
            self._audit.heads.seen(self.run_id)
        self.run_id = None

    def _finish(self) -> None:
        """Check what needs the whole file."""
        self.anchored.cut = self._audit.cut
        for fault in self._audit.at_end():
            self._break(self.line_of(fault.line or 0), fault)
        if self._is_whole:
            for run_id, head in self._audit.heads.unseen():
                self._break(self.lines, ChainFault("missing", run=run_id, seq=head.seq))

    def _break(self, line: int, fault: ChainFault) -> None:
        about = "the audit's chain" if fault.line is not None else "the chain of this log"
        what = f"{about} in the database is broken here"
        self.broken.append(AuditFault(fault.kind, line, what, fault.run, fault.line or fault.seq))


_RANGES = {"above", "below", "since", "until"}
"""Selections of lines that follow one another."""


def _event_of(value: dict[str, Any]) -> ChainedEvent:
    try:
        at = to_micros(_time(value["at"]))
        salt = SEALED + value["sealed"] if "sealed" in value else value["salt"]
        data = compact(value["data"]).decode()
        return ChainedEvent(value["seq"], value["type"], at, value["key"], data, salt, value["hash"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _Faulty("it isn't an event") from None


def _numbered(found: Any, number: int) -> _Faulty:
    if not isinstance(found, int):
        return _Faulty("it isn't one of the lines we wrote", "added")
    if found > number:
        return _Faulty(f"line {number} isn't here", "missing")
    return _Faulty(f"it is line {found}, which doesn't belong here", "added" if found == number - 1 else "moved")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise _Faulty("it is longer than any line we write")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise _Faulty("it isn't JSON") from None
    if not isinstance(value, dict) or _written(value) != line:
        raise _Faulty("it isn't written as we write lines")
    return value


def _written(value: Mapping[str, Any]) -> bytes:
    try:
        return compact(value) + b"\n"
    except (ValueError, RecursionError):
        raise _Faulty("it isn't written as we write lines") from None


def _has_signed(public: str, message: bytes, signature: str) -> bool:
    try:
        return verify_signature(bytes.fromhex(public), message, signature_of(signature))
    except ValueError:
        return False


def _origin(manifest: dict[str, Any], before: str, keys: Keys) -> Literal["checked", "not checked"]:
    if manifest.get("before") != before:
        raise _Faulty("it was signed for other lines")
    if not keys:
        return "not checked"
    unsigned = {name: value for name, value in manifest.items() if name != "signature"}
    signature, named = str(manifest.get("signature")), str(manifest.get("key"))
    for public in keys.public:
        if named == public and _has_signed(public, compact(unsigned), signature):
            return "checked"
    for key in keys.derived if not keys.public else ():
        if hmac.compare_digest(mac(key, before, unsigned).encode(), signature.encode()):
            return "checked"
    ids = ", ".join([*keys.public, *(key_id(key) for key in keys.derived)])
    raise _Faulty(f"none of the given keys ({ids}) signed this; it names the key {named}")
