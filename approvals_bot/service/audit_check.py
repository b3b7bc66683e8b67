"""What the store's chains show: which line or log was changed, and how. Pure: it reads nothing itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.store.audit import AUDIT_CUT, AuditLine, line_content
from approvals_bot.durable.store.chain import (
    ChainedEvent,
    ChainKey,
    RunHead,
    event_hash,
    key_id_of,
    seal,
    sealed_line_hash,
)
from approvals_bot.service.audit_key import compact
from approvals_bot.verify_evidence import signature_of, verify_signature

Kind = Literal["changed", "missing", "moved", "added", "cut"]

ADOPTED = "audit_adopted"
"""The line by which an operator accepts the lines before it that aren't under the audit key."""

RUN_ENDED, RUNS_SEALED = "run_ended", "runs_sealed"
"""Lines that name how far logs went, and the hash of their last event."""

RUNS_DELETED = "runs_deleted"
"""A line that names runs whose logs are gone on purpose, each with its last head."""


def cut_statement(seq: int, head: str, open_runs_head: str, key: str) -> dict[str, Any]:
    """Return what a line says about a cut, as it is signed by the key, if there is one.

    `seq` and `head`: the last line that is gone, and its hash. `open_runs_head`: the hash of the last line among those
    that named the heads of open logs, which an anchor may name. `key`: the public one; "" for none.
    """
    return {"kind": AUDIT_CUT, "seq": seq, "head": head, "open_runs_head": open_runs_head, "key": key}


class Cut(NamedTuple):
    """Where the audit was cut: up to line `seq` it is gone. `line` says so."""

    line: int
    micros: int  # its time
    seq: int
    head: str
    open_runs_head: str
    signer: str = ""  # a public key

    @classmethod
    def of(cls, line: int, at: int, data: Any) -> Cut | None:
        """Return what a line says. None if that isn't readable, or isn't as its key has signed it."""
        try:
            seq, head, open_runs, key = data["seq"], data["head"], data["open_runs_head"], data.get("key", "")
            unsigned = compact(cut_statement(seq, head, open_runs, key))
            if key and not verify_signature(bytes.fromhex(key), unsigned, signature_of(data["signature"])):
                return None
        except (ValueError, TypeError, LookupError, AttributeError):
            return None
        return cls(line, at, seq, head, open_runs, key) if isinstance(seq, int) else None


@dataclass(frozen=True, slots=True)
class ChainFault:
    """The first place where a chain is broken: in a line of the audit, or in an event of a run's log."""

    kind: Kind
    line: int | None = None  # of the audit
    run: str | None = None
    seq: int | None = None  # of the event

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class Heads:
    """How far the audit says that each log went: the heads that it names, in a temporary file.

    An installation may have had millions of runs. SQLite keeps two megabytes of this in memory.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE heads (run, seq INTEGER, head, PRIMARY KEY (run, seq)) WITHOUT ROWID")
        self._db.execute("CREATE TABLE runs (run PRIMARY KEY, is_ended DEFAULT 0, is_seen DEFAULT 0) WITHOUT ROWID")
        self._db.execute("BEGIN")  # and never a commit: nobody else reads it

    def take(self, what: str, run_id: str | None, data: Any) -> None:
        """Take the heads that a line of the audit names."""
        match what, data:
            case "run_ended", {"seq": int() as seq, "head": str() as head} if run_id is not None:
                self._name(run_id, seq, head)
                self._mark("is_ended", run_id)
            case "runs_sealed", {"heads": list() as heads}:
                for each in heads:
                    match each:
                        case [str() as run, int() as seq, str() as head]:
                            self._name(run, seq, head)
            case "runs_deleted", {"runs": list() as runs}:
                for each in runs:
                    match each:
                        case [str() as run, int() as seq, str() as head] if self.of(run).get(seq, head) == head:
                            self.seen(run)
            case _:
                pass

    def of(self, run_id: str) -> dict[int, str]:
        rows = self._db.execute("SELECT seq, head FROM heads WHERE run = ?", (_bytes(run_id),))
        return {seq: _text(head) for seq, head in rows}

    def is_ended(self, run_id: str) -> bool:
        row = self._db.execute("SELECT is_ended FROM runs WHERE run = ?", (_bytes(run_id),)).fetchone()
        return row is not None and bool(row[0])

    def seen(self, run_id: str) -> None:
        """Note that this run's log has been found."""
        self._mark("is_seen", run_id)

    def unseen(self) -> Iterator[tuple[str, RunHead]]:
        """Yield the runs that the audit names, and whose logs weren't found, each with its last head."""
        rows = self._db.execute(
            "SELECT run, max(seq), head FROM heads WHERE run NOT IN (SELECT run FROM runs WHERE is_seen) GROUP BY run"
        )
        for run, seq, head in rows:
            yield _text(run), RunHead(_text(run), seq, _text(head))

    def _name(self, run_id: str, seq: int, head: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?)", (_bytes(run_id), seq, _bytes(head)))

    def _mark(self, what: str, run_id: str) -> None:
        sql = f"INSERT INTO runs (run, {what}) VALUES (?, 1) ON CONFLICT DO UPDATE SET {what} = 1"  # noqa: S608  # ours
        self._db.execute(sql, (_bytes(run_id),))


def _bytes(text: str) -> bytes:
    """Return a text of a file as SQLite takes it: somebody may have written surrogates into it."""
    return text.encode("utf-8", "surrogatepass")


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")


class _First(NamedTuple):
    """A line whose chain can be checked once it is known where the audit was cut."""

    seq: int
    at: int
    what: str
    run_id: str | None
    sealed: str
    hash: str


class AuditChainCheck:
    """The audit's chain, read line by line. Without a key, lines under one can't be computed again."""

    def __init__(
        self, key: ChainKey | None, *, adjacent: bool = True, is_whole: bool = True, public: Sequence[str] = ()
    ) -> None:
        """`adjacent`: whether each line follows the one before; `is_whole`: whether the first comes first.

        `public`: the keys by one of which a cut has to be signed; none: any.
        """
        self._key = key
        self._public = public
        self._first: _First | None = None  # the first line, if what was before it should have been cut
        self.cut: Cut | None = None
        self._adjacent = adjacent
        self._is_whole = is_whole
        self._before: tuple[int, str] | None = None
        self._faults: list[ChainFault] = []
        self._not_keyed: list[int] = []  # lines that aren't under the key, although there is one
        self._adopted = 0  # those below this line are accepted
        self.keyed_from: int | None = None
        self.heads = Heads()

    def take(self, line: AuditLine) -> None:
        entry = line.entry
        sealed = seal(line.salt, line_content(entry))
        self.take_sealed(line.seq, to_micros(line.at), entry.what, entry.run_id, entry.data, sealed, line.hash)

    def take_sealed(
        self, seq: int, at: int, what: str, run_id: str | None, data: Any, sealed: str, hash: str
    ) -> ChainFault | None:
        """Take the next line. Returns what is wrong with it."""
        fault = self._fault(seq, at, what, run_id, sealed, hash)
        if fault is not None:
            self._faults.append(fault)
        self._before = seq, hash
        self._note_key(seq, what, data, hash)
        if what == AUDIT_CUT and self._is_whole:
            self.cut = Cut.of(seq, at, data)
        self.heads.take(what, run_id, data)
        return fault

    def _fault(self, seq: int, at: int, what: str, run_id: str | None, sealed: str, hash: str) -> ChainFault | None:
        before = self._before
        if before is None:
            if seq == 1:
                before = (0, "")
            elif self._is_whole:
                self._first = _First(seq, at, what, run_id, sealed, hash)
                return None
            elif self._adjacent:
                self._before = before = (seq - 1, "?")  # a selection that begins later: the line before isn't known
        if self._adjacent and before is not None and seq != before[0] + 1:
            return ChainFault("missing" if seq > before[0] + 1 else "moved", before[0] + 1, run_id)
        if before is None or before[1] == "?" or before[0] != seq - 1 or not self._can_check(hash):
            return None
        key = self._key if key_id_of(hash) else None
        if sealed_line_hash(before[1], seq, at, what, run_id, sealed, key) != hash:
            return ChainFault("changed", seq, run_id)
        return None

    def _can_check(self, hash: str) -> bool:
        name = key_id_of(hash)
        return name == "" or (self._key is not None and self._key.id == name)

    def _note_key(self, seq: int, what: str, data: Any, hash: str) -> None:
        if self._key is None:
            return
        if key_id_of(hash) != self._key.id:
            self._not_keyed = [*self._not_keyed[:1], seq] if self._not_keyed else [seq]
            return
        if self.keyed_from is None:
            self.keyed_from = seq
        if what == ADOPTED and isinstance(data, dict) and isinstance(data.get("below"), int):
            self._adopted = max(self._adopted, data["below"])

    def finished(self) -> list[ChainFault]:
        """Return what was found, once all lines were taken."""
        return [*self._faults, *self.at_end()]

    def at_end(self) -> list[ChainFault]:
        """Return what only shows once all lines were taken."""
        beginning = self._fault_at_beginning()
        late = [seq for seq in self._not_keyed if seq >= self._adopted]
        faults = [] if beginning is None else [beginning]
        if late and not any(fault.line is not None and fault.line <= late[0] for fault in [*self._faults, *faults]):
            faults.append(ChainFault("changed", late[0]))
        return faults

    def _fault_at_beginning(self) -> ChainFault | None:
        """Return what is wrong with the first line: the ones before it must have been cut, just there."""
        first, cut = self._first, self.cut
        if cut is not None and self._public and cut.signer not in self._public and cut.line >= self._adopted:
            return ChainFault("changed", cut.line)
        if first is None:
            return None if cut is None else ChainFault("added", 1)
        if cut is None or first.seq > cut.seq + 1:
            return ChainFault("missing", 1 if cut is None else cut.seq + 1)
        if first.seq <= cut.seq:
            return ChainFault("added", first.seq)
        if self._can_check(first.hash):
            key = self._key if key_id_of(first.hash) else None
            if sealed_line_hash(cut.head, *first[:-1], key) != first.hash:
                return ChainFault("changed", first.seq)
        return None


def log_fault(run_id: str, length: int, log: Sequence[ChainedEvent], heads: Heads) -> ChainFault | None:
    """Return what is wrong with a run's log. `length`: how many events its row says it has."""
    before = run_id
    for number, event in enumerate(log, 1):
        if event.seq != number:
            return ChainFault("missing", run=run_id, seq=number)
        if not event.hash:
            return ChainFault("added", run=run_id, seq=number)
        if event.hash != event.hash_after(before):
            return ChainFault("moved" if _belongs_elsewhere(run_id, event, log) else "changed", run=run_id, seq=number)
        before = event.hash
    return head_fault(run_id, {event.seq: event.hash for event in log}, max(length, len(log)), heads)


def _belongs_elsewhere(run_id: str, event: ChainedEvent, log: Sequence[ChainedEvent]) -> bool:
    """Return whether this event's content is that of another link of the chain."""
    before = run_id
    for other in log:
        sealed = seal(other.salt, event.text)
        if other.seq != event.seq and other.hash == event_hash(
            before, other.seq, event.kind, event.micros, event.key, sealed
        ):
            return True
        before = other.hash
    return False


def head_fault(run_id: str, hashes: dict[int, str], length: int, heads: Heads) -> ChainFault | None:
    """Return where a log isn't the one that the audit names."""
    if len(hashes) < length:
        return ChainFault("cut", run=run_id, seq=len(hashes) + 1)
    for seq, head in sorted(heads.of(run_id).items()):
        if seq not in hashes:
            return ChainFault("cut", run=run_id, seq=len(hashes) + 1)
        if hashes[seq] != head:
            return ChainFault("changed", run=run_id, seq=seq)
    if heads.is_ended(run_id) and len(hashes) > max(heads.of(run_id)):
        return ChainFault("added", run=run_id, seq=max(heads.of(run_id)) + 1)
    return None
