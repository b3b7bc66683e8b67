"""The exported audit: JSON lines, each chained to the one before, the last one signed.

    {"n": 1, "kind": "header", "format": "approvals-bot audit 2", "exported_at", "selected", "chain"}
    {"n", "kind": "audit", "seq", "at", "what", "who", "actor", "run_id", "data", "salt" | "sealed", "hash", "chain"}
    {"n", "kind": "run", "run_id", "workflow", "status", "created_at", "events", "length", "chain"}, then its log:
    {"n", "kind": "event", "run_id", "seq", "type", "at", "key", "data", "salt" | "sealed", "hash", "chain"}
    {"n", "kind": "manifest", "lines", "audit", "runs", "events", "faults", …, "key", "signature", "chain"}

`chain` is the SHA-256 of the previous chain (as text) and of the line's JSON without its chain. A line must be written
exactly as we write it, so no byte of the file can change unnoticed. `hash` is the store's own chain (store/chain.py).
Tokens, links and secrets are removed. What had some has its seal (store/chain.py) instead of its salt.

The manifest is signed by the audit key, if there is one, else with an HMAC under a key derived from the service's first
signing key. `faults` are what the store's chains show: what was changed in the database before the export.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from approvals_bot.durable.core.events import from_micros
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.audit import ALL_LINES, AuditFilter, AuditLine, line_content
from approvals_bot.durable.store.chain import ChainedEvent, seal
from approvals_bot.service.audit_check import RUNS_DELETED, AuditChainCheck, ChainFault, log_fault
from approvals_bot.service.audit_key import AuditKey, compact
from approvals_bot.service.owed_lines import complete_lines
from approvals_bot.service.read import iso, redact

FORMAT = "approvals-bot audit 2"
PURPOSE = b"approvals-bot audit export v1"
PAGE = 200  # runs or lines read at once
MOST_FAULTS = 100  # that a manifest lists


def derive_key(signing_key: str) -> bytes:
    """Derive the key that signs manifests from a signing key. It is good for nothing else."""
    return hmac.new(signing_key.encode(), PURPOSE, hashlib.sha256).digest()


def key_id(key: bytes) -> str:
    """Return a short id of this key, which reveals nothing about it."""
    return hashlib.sha256(b"id " + key).hexdigest()[:16]


def link(head: str, value: Mapping[str, Any]) -> str:
    """Return the chain after this line."""
    return hashlib.sha256(head.encode() + compact(value)).hexdigest()


def mac(key: bytes, head: str, manifest: Mapping[str, Any]) -> str:
    """Return the signature of a manifest under a key derived from a signing key."""
    return hmac.new(key, head.encode() + compact(manifest), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Selection:
    """What to export. Runs are those that the selected lines name, or all."""

    which: AuditFilter = ALL_LINES
    workflow: str | None = None

    @property
    def is_everything(self) -> bool:
        return self == Selection()

    def as_json(self) -> dict[str, Any]:
        given = {name: value for name, value in asdict(self.which).items() if value != getattr(ALL_LINES, name)}
        shown = {name: iso(value) if isinstance(value, datetime) else value for name, value in given.items()}
        return shown | ({} if self.workflow is None else {"workflow": self.workflow})


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The counts of an export, and what was found wrong in the database, at most MOST_FAULTS.

    `keyed_from`: the first line of the audit that is under the audit key, if there is one. `deleted`: runs that
    retention has deleted since the audit was exported, with the number and the hash of their last events.
    """

    exported_at: str
    lines: int
    audit: int
    runs: int
    events: int
    faults: list[dict[str, Any]] = field(default_factory=list)
    keyed_from: int | None = None
    deleted: list[Any] = field(default_factory=list)


class _ExportChain:
    def __init__(self, file: BinaryIO, progress: Callable[[int], None]) -> None:
        self._file = file
        self._progress = progress
        self.head = ""
        self.lines = 0

    def add(self, value: dict[str, Any]) -> None:
        self.lines += 1
        value = {"n": self.lines} | value
        self.head = link(self.head, value)
        self._file.write(compact(value | {"chain": self.head}) + b"\n")
        self._progress(self.lines)


async def write_export(
    engine: Engine,
    key: AuditKey | bytes,
    file: BinaryIO,
    selection: Selection = EVERYTHING,
    progress: Callable[[int], None] = lambda lines: None,
) -> Manifest:
    """Write the audit and the logs. Runs that open meanwhile may be missing; each log is complete.

    `key`: the audit key, or the one derived from a signing key. The database's own chains are checked on the way.
    """
    await complete_lines(engine)
    at = iso(engine.now())
    chain = _ExportChain(file, progress)
    chain.add({"kind": "header", "format": FORMAT, "exported_at": at, "selected": selection.as_json()})
    own = key if isinstance(key, AuditKey) else None
    check = AuditChainCheck(
        None if own is None else own.chain,
        is_whole=not selection.as_json(),
        public=() if own is None else [own.public],
    )
    named: set[str] = set()
    audit = last = 0
    async for line in stored_lines(engine, selection.which):
        check.take(line)
        last = line.seq
        if await is_selected(engine, line, selection):
            chain.add(audit_as_json(line))
            audit += 1
            if line.entry.run_id is not None and selection.as_json():  # of all runs, nobody asks which are named
                named.add(line.entry.run_id)
    faults = check.finished()
    runs = events = 0
    async for record in _runs(engine, selection, named):
        log = await engine.store.chained(record.id)
        if not log and await engine.record(record.id) is None:  # retention has just deleted it
            continue
        found = log_fault(record.id, record.seq, log, check.heads)
        if found is not None:
            faults.append(found)
        chain.add(_run_as_json(record, len(log)))
        for event in log:
            chain.add({"kind": "event", "run_id": record.id, **event_as_json(event)})
        runs, events = runs + 1, events + len(log)
        check.heads.seen(record.id)
    deleted = []
    if selection.is_everything:
        async for line in stored_lines(engine, AuditFilter(above=last)):
            if line.entry.what == RUNS_DELETED:
                check.heads.take(RUNS_DELETED, None, line.entry.data)
                deleted += line.entry.data["runs"]
        faults += [ChainFault("missing", run=run, seq=head.seq) for run, head in check.heads.unseen()]
    manifest = Manifest(
        at, chain.lines + 1, audit, runs, events, [each.as_json() for each in faults[:MOST_FAULTS]], check.keyed_from,
        deleted,
    )  # fmt: skip
    _sign(chain, manifest, key)
    file.flush()
    return manifest


def _sign(chain: _ExportChain, manifest: Manifest, key: AuditKey | bytes) -> None:
    before = chain.head
    if isinstance(key, AuditKey):
        unsigned = {"n": chain.lines + 1, "kind": "manifest", **asdict(manifest), "key": key.public, "before": before}
        chain.add(unsigned | {"signature": key.sign(unsigned)})
    else:
        unsigned = {"n": chain.lines + 1, "kind": "manifest", **asdict(manifest), "key": key_id(key), "before": before}
        chain.add(unsigned | {"signature": mac(key, before, unsigned)})


async def stored_lines(engine: Engine, which: AuditFilter = ALL_LINES) -> AsyncIterator[AuditLine]:
    """Yield the lines of the audit in a range of time or numbers, by pages."""
    above = which.above
    while True:
        page = AuditFilter(since=which.since, until=which.until, above=above, below=which.below, limit=PAGE)
        lines = await engine.audit_lines(page)
        for line in lines:
            yield line
        if len(lines) < PAGE:
            return
        above = lines[-1].seq


async def is_selected(engine: Engine, line: AuditLine, selection: Selection) -> bool:
    which, entry = selection.which, line.entry
    if selection.workflow is not None:
        record = None if entry.run_id is None else await engine.record(entry.run_id)
        if record is None or record.workflow != selection.workflow:
            return False
    wanted = ((which.who, entry.who), (which.what, entry.what), (which.run_id, entry.run_id))
    return all(each is None or each == found for each, found in wanted)


async def _runs(engine: Engine, selection: Selection, named: set[str]) -> AsyncIterator[RunRecord]:
    if not selection.is_everything and selection.workflow is None:
        for run_id in sorted(named | ({selection.which.run_id} if selection.which.run_id else set())):
            record = await engine.record(run_id)
            if record is not None:
                yield record
        return
    cursor: str | None = None
    while True:
        page = await engine.records(limit=PAGE, cursor=cursor, workflow=selection.workflow)
        for record in page.records:
            yield record
        cursor = page.cursor
        if cursor is None:
            return


def audit_as_json(line: AuditLine) -> dict[str, Any]:
    """Return a line of the audit as exports and evidence have it."""
    entry = line.entry
    data, actor = redact(entry.data), redact(entry.actor)
    is_whole = (data, actor) == (entry.data, entry.actor)
    sealed = {"salt": line.salt} if is_whole else {"sealed": seal(line.salt, line_content(entry))}
    return {
        "kind": "audit", "seq": line.seq, "at": iso(line.at), "what": entry.what, "who": entry.who, "actor": actor,
        "run_id": entry.run_id, "data": data, **sealed, "hash": line.hash,
    }  # fmt: skip


def event_as_json(event: ChainedEvent) -> dict[str, Any]:
    """Return an event as exports and evidence have it. Redacted data comes with its seal."""
    try:
        data = json.loads(event.text)
    except (ValueError, RecursionError):
        data = None
    shown = redact(data)
    is_whole = shown == data and compact(shown).decode() == event.text
    sealed = {"salt": event.salt} if is_whole else {"sealed": event.seal}
    return {
        "seq": event.seq, "type": event.kind, "at": iso(from_micros(event.micros)), "key": event.key, "data": shown,
        **sealed, "hash": event.hash,
    }  # fmt: skip


def _run_as_json(record: RunRecord, events: int) -> dict[str, Any]:
    return {
        "kind": "run", "run_id": record.id, "workflow": record.workflow, "status": record.status,
        "created_at": iso(record.created_at), "events": events, "length": record.seq,
    }  # fmt: skip
