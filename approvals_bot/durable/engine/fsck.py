"""Whether all that a store has derived from its logs is what they say, and whether the logs are whole.

A run is its events. Its row, hooks and attributes are indexes, which can be made again (`rebuilt`); events never are.
What a run shows is compared with a replay where its code is here.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from approvals_bot.durable.core.attributes import attributes_after
from approvals_bot.durable.core.events import (
    ENDINGS,
    EVENT_TYPES,
    FACTS,
    Event,
    Log,
    from_micros,
    hooks_of,
    is_whole_step,
    number_of,
    to_micros,
)
from approvals_bot.durable.core.registry import Registry
from approvals_bot.durable.core.replay import ReplayResult
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.engine.batch import LogIndex, next_wake
from approvals_bot.durable.engine.fsck_families import Families
from approvals_bot.durable.engine.replayer import Replayer
from approvals_bot.durable.store.audit import AUDIT_CUT, AuditLine, audit_line, line_hash
from approvals_bot.durable.store.chain import ChainedEvent, ChainKey, key_id_of
from approvals_bot.durable.store.copying_tables import TABLES, CopiedTable, Copyable
from approvals_bot.durable.store.encoding import (
    as_given,
    indexed,
    own_json,
    own_pairs,
    readable_json,
    storable,
)
from approvals_bot.durable.store.protocol import REPLACED

Kind = Literal["store", "log", "chain", "run", "family", "hook", "attribute", "wake", "view", "audit", "stray"]
Row = dict[str, Any]

DERIVED: frozenset[Kind] = frozenset({"run", "family", "hook", "attribute", "wake", "view"})
"""What can be made again from the logs."""

_BY_NAME = {table.name: table for table in TABLES}


class StoreFault(NamedTuple):
    """Something that isn't as it should be. `run_id`: the run it is about; `what`: a sentence."""

    kind: Kind
    run_id: str | None
    what: str


@dataclass(slots=True)
class Rebuilt:
    """What a run's indexes should be: columns of its row, its hooks and its attributes. None: as they are."""

    row: Row = field(default_factory=dict)
    hooks: list[Row] | None = None
    attributes: list[Row] | None = None


@dataclass(slots=True)
class FsckCounts:
    """How much was examined. `not_replayed` counts the runs whose code isn't here, by workflow."""

    runs: int = 0
    events: int = 0
    lines: int = 0
    not_replayed: dict[str, int] = field(default_factory=dict)


class _Groups:
    """The rows of a table, run by run, in the order of the runs' IDs."""

    def __init__(self, tables: Copyable, name: str, *order: str) -> None:
        self.table = _BY_NAME[name]
        wanted = CopiedTable(name, self.table.columns, ("run_id", *order), self.table.at_once)
        self._chunks = tables.rows(wanted)
        self._rows: list[Row] = []
        self._next = 0
        self.strays = 0  # rows of runs that don't exist
        self.stray: str | None = None  # one of those

    async def of(self, run_id: str) -> list[Row]:
        """Return the rows of a run. Rows of runs that come before it have none, since this one is the next there is."""
        found: list[Row] = []
        while (row := await self._peek()) is not None and row["run_id"] <= run_id:
            if row["run_id"] == run_id:
                found.append(row)
            else:
                self._is_stray(row)
            self._next += 1
        return found

    async def finish(self) -> Iterator[StoreFault]:
        """Return a fault if there are rows of runs that don't exist."""
        while (row := await self._peek()) is not None:
            self._is_stray(row)
            self._next += 1
        return iter(
            [StoreFault("stray", self.stray, f"{self.strays:,} rows of {self.table.name} are of runs that don't exist")]
            if self.strays
            else []
        )

    def _is_stray(self, row: Row) -> None:
        self.strays += 1
        self.stray = self.stray or row["run_id"]

    async def _peek(self) -> Row | None:
        if self._next == len(self._rows):
            chunk = await anext(self._chunks, None)
            self._rows, self._next = [_named(self.table, row) for row in chunk or ()], 0
        return self._rows[self._next] if self._rows else None


def _named(table: CopiedTable, row: Sequence[Any]) -> Row:
    return dict(zip(table.columns, row, strict=True))


class _Stored(NamedTuple):
    """A run as the store has it."""

    row: Row
    events: list[Row]
    links: list[Row]
    hooks: list[Row]
    attributes: list[Row]
    taken: list[Row]


async def examine(
    tables: Copyable, replayer: Replayer, registry: Registry, key: ChainKey | None, examined: FsckCounts
) -> AsyncIterator[tuple[list[StoreFault], Rebuilt | None]]:
    """Yield the faults of each run that has some, with what would mend them, and then those of the rest."""
    groups = [
        _Groups(tables, "events", "seq"),
        _Groups(tables, "chain", "seq"),
        _Groups(tables, "hooks", "id"),
        _Groups(tables, "attributes", "name", "value"),
        _Groups(tables, "taken", "hook_id", "resume_id"),
        _Groups(tables, "owed_lines", "id"),
    ]
    families = Families()
    async for chunk in tables.rows(_BY_NAME["runs"]):
        for values in chunk:
            row = _named(_BY_NAME["runs"], values)
            parts = [await each.of(row["id"]) for each in groups]
            stored = _Stored(row, *parts[:-1])
            examined.runs += 1
            examined.events += len(stored.events)
            faults, log = _check_log(stored)
            faults += [StoreFault("stray", row["id"], "the audit owes a line of an event that isn't there")] * any(
                owed["seq"] > len(stored.events) for owed in parts[-1]
            )
            families.add(row, log)
            rebuilt = None
            if log is not None:
                shown = await _replays(stored, log, replayer, registry, examined)
                found, rebuilt = _check_indexes(stored, log, shown)
                faults += found
            if faults:
                yield faults, rebuilt
    for family_fault in families.faults():
        mend = None if family_fault.row is None else Rebuilt(family_fault.row)
        yield [StoreFault("family", family_fault.run_id, family_fault.what)], mend
    strays = [fault for each in groups for fault in await each.finish()]
    if strays:
        yield strays, None
    async for faults in _check_audit(tables, key, examined):
        yield faults, None


# ── logs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_log(stored: _Stored) -> tuple[list[StoreFault], Log | None]:
    """Check a run's log and its chain. Returns the log, if it is whole."""
    id, faults, log = stored.row["id"], list[StoreFault](), Log()

    def fault(kind: Kind, what: str) -> None:
        faults.append(StoreFault(kind, id, what))

    links = {link["seq"]: link for link in stored.links}
    before, last = id, None
    for expected, event in enumerate(stored.events, 1):
        seq = event["seq"]
        if seq != expected:
            fault("log", f"event {expected} is missing" if seq > expected else f"event {seq} is numbered wrongly")
            return faults, None
        link = links.pop(seq, None)
        if link is None:
            fault("chain", f"event {seq} has no link in the chain")
        else:
            chained = ChainedEvent(
                seq, event["type"], event["at"], event["key"], event["data"], link["salt"], link["hash"]
            )
            if chained.hash_after(before) != link["hash"]:
                fault("chain", f"event {seq} is not as it was written")
            before = link["hash"]
        if last is not None and event["at"] < last:
            fault("log", f"event {seq} is earlier than the one before")
        last = event["at"]
        log.append(Event(seq, event["type"], from_micros(event["at"]), readable_json(event["data"], dict) or {}))
        if not _is_readable(event, log[-1]):
            fault("log", f"event {seq} can't be read")
            return faults, None
    if links:
        fault("chain", f"the chain has links of {len(links):,} events that aren't there")
    if not log or log[0].type != "run_created":
        fault("log", "its log doesn't begin with run_created")
        return faults, None
    if any(event.type in ENDINGS for event in log[:-1]):
        fault("log", "its log goes on after its end")
    if faults:
        return faults, None  # what a changed log says counts for nothing
    return faults, log


def _is_readable(stored: Row, event: Event) -> bool:
    if event.type not in EVENT_TYPES or readable_json(stored["data"], dict) is None:
        return False
    try:
        return bool(storable(event.key) == stored["key"])
    except (LookupError, ValueError):
        return False


# ── what is derived from them ─────────────────────────────────────────────────────────────────────────────────────


class _Shown(NamedTuple):
    """What a run shows and waits for, by a replay of its log up to an event."""

    seq: int
    whole: bool  # that was the last event
    result: ReplayResult
    wake_at: int | None


async def _replays(
    stored: _Stored, log: Log, replayer: Replayer, registry: Registry, examined: FsckCounts
) -> list[_Shown]:
    """Replay a run as of each event since its last decision. Empty, if it can't be replayed here."""
    row = stored.row
    if row["status"] in REPLACED | {"pending", "stalled"}:
        return []
    shown: list[_Shown] = []
    decided = max((e.seq for e in log if e.type not in FACTS | ENDINGS or is_whole_step(e)), default=1)
    try:
        workflow = registry.get(row["code"], row["version"])
        for seq in range(len(log), decided - 1, -1):
            part = log[:seq]
            result = await replayer.replay(workflow, part, secrets.token_bytes(32))
            shown.append(_Shown(seq, seq == len(log), result, _wake_of(result, part)))
    except Exception:  # noqa: BLE001  # whatever it raises: `check --runs` says what
        examined.not_replayed[row["workflow"]] = examined.not_replayed.get(row["workflow"], 0) + 1
        return []
    return shown


ANY_TIME = 2**62
"""The latest time to wake a run whose step is under way. It was due when a process took it, whenever that was."""


def _wake_of(result: ReplayResult, log: Log) -> int | None:
    """Return when a run is to be woken, at the latest."""
    if any(step.retry_at is None for step in result.steps):
        return ANY_TIME
    wake = next_wake(result, (), log[-1].at, LogIndex(log).waits)
    return None if wake is None else to_micros(wake)


def _check_indexes(stored: _Stored, log: Log, shown: list[_Shown]) -> tuple[list[StoreFault], Rebuilt | None]:
    faults, rebuilt = list[StoreFault](), Rebuilt()
    for found in (  # in this order: attributes have the status that the row should have
        _check_row(stored, log, rebuilt),
        _check_unread(stored, log, shown, rebuilt),
        _check_view(stored, shown, rebuilt),
        _check_wake(stored, log, shown, rebuilt),
        _check_hooks(stored, log, rebuilt),
        _check_attributes(stored, log, shown, rebuilt),
        _check_taken(stored),
    ):
        faults += [StoreFault(kind, stored.row["id"], what) for kind, what in found]
    return faults, rebuilt if faults else None


_Found = Iterator[tuple[Kind, str]]


def _check_row(stored: _Stored, log: Log, rebuilt: Rebuilt) -> _Found:
    row, first, last = stored.row, log[0].data, log[-1]
    expected: Row = {"seq": len(log)}
    if last.type in ENDINGS:
        expected |= {"status": last.type.removeprefix("run_"), "ended_at": to_micros(last.at)}
    else:
        decided = any(event.type not in FACTS - {"run_started"} for event in log[1:])
        fits = {"running", "stalled"} if decided and "reset_of" not in first else {"pending", "running", "stalled"}
        expected |= {"ended_at": None, "status": row["status"] if row["status"] in fits else min(fits)}
    if "reset_of" not in first:
        expected["created_at"] = to_micros(log[0].at)
    expected["received"] = sum(len(event["data"]) for event in stored.events if event["type"] == "hook_received")
    if row["next_run"] is not None or "parent" in first:
        expected["idempotency_key"] = None  # it is the next run's, or there has never been one
    for name, value in expected.items():
        if row[name] != value and not (name == "received" and _has_urls(stored)):
            yield "run", f"its row has {name} {row[name]!r}, its log says {value!r}"
            rebuilt.row[name] = value


def _has_urls(stored: _Stored) -> bool:
    """Return whether a payload holds a signed URL, which the store keeps in another length."""
    return any("~hook~" in event["data"] for event in stored.events if event["type"] == "hook_received")


def _check_unread(stored: _Stored, log: Log, shown: list[_Shown], rebuilt: Rebuilt) -> _Found:
    """Check how many payloads wait for the body, which decides whether a hook takes one more."""
    if log[-1].type in ENDINGS:
        return
    there = Counter[str](readable_json(stored.row["unread"] or "{}", dict) or {})
    right = [_unread_after(each, log) for each in shown] or [there & _received(log)]
    if len(log) > 1 and log[1].type == "hook_received":  # a start with a payload counts it, whether it was taken or not
        right += [each + Counter({str(log[1].data["id"]): 1}) for each in right]
    if there not in right:
        yield "run", f"its row has unread payloads {dict(there)!r}, its log says {dict(right[0])!r}"
        rebuilt.row["unread"] = to_json(dict(right[0]), "unread") if right[0] else None


def _unread_after(shown: _Shown, log: Log) -> Counter[str]:
    left = {str(number): count for number, count in shown.result.unread.items()}
    return Counter(left) + _received(log[shown.seq :])


def _received(log: Log) -> Counter[str]:
    return Counter(str(event.data["id"]) for event in log if event.type == "hook_received")


def _check_view(stored: _Stored, shown: list[_Shown], rebuilt: Rebuilt) -> _Found:
    if not shown or any(_shows(stored.row, each) for each in shown):
        return
    yield "view", "what it shows isn't what a replay of its log shows"
    rebuilt.row |= _texts(shown[0])


def _texts(shown: _Shown) -> Row:
    """Return the columns that keep what a run shows."""
    result = shown.result
    return {
        "view": None if result.view is None else to_json(result.view, "view"),
        "parts": None if result.projection is None else to_json(result.projection.parts, "parts"),
    }


def _shows(row: Row, shown: _Shown) -> bool:
    texts = _texts(shown)
    return all(given is None or row[name] == given or "~hook~" in (row[name] or "") for name, given in texts.items())


def _check_wake(stored: _Stored, log: Log, shown: list[_Shown], rebuilt: Rebuilt) -> _Found:
    row = stored.row
    due = row["wake_at"]
    if log[-1].type in ENDINGS:
        if due is not None:
            yield "wake", "it has ended, and is to be woken"
            rebuilt.row["wake_at"] = None
        return
    if row["status"] == "stalled":
        return
    index = LogIndex(log)
    if shown:
        times = [each.wake_at for each in shown if each.whole]
    else:
        times = [to_micros(at) for at in index.waits.values()] or ([to_micros(log[-1].at)] if len(log) == 1 else [])
    expected = min((at for at in times if at is not None), default=None)
    if expected is None and shown and not _shows(row, shown[0]) and due is None:
        expected = to_micros(log[-1].at)  # it hasn't taken the last facts
    if expected is not None and (due is None or due > max(expected, row["created_at"])) and len(log) > 1:
        yield "wake", "it is to be woken later than its log says" if due is not None else "nothing would wake it"
        rebuilt.row["wake_at"] = to_micros(log[-1].at) if expected == ANY_TIME else expected
    elif due is None and row["status"] == "pending":
        yield "wake", "it hasn't begun, and nothing would wake it"
        rebuilt.row["wake_at"] = to_micros(log[-1].at)


def _check_hooks(stored: _Stored, log: Log, rebuilt: Rebuilt) -> _Found:
    row = stored.row
    there = {hook["id"]: hook for hook in stored.hooks}
    expected = {each["id"]: each for each in _hooks_by_log(stored, log)}
    has_another = row["next_run"] is not None or log[-1].type in ("run_reset", "run_continued")
    if has_another or (log[-1].type in ENDINGS and log[0].data.keys() & {"reset_of", "continues"}):
        # They are the next run's, or that of a later reset of the same one; but for those that it alone has.
        expected = {id: hook for id, hook in expected.items() if id in there}
    found = False
    for id, hook in expected.items():
        if id not in there:
            found = True
            yield "hook", f"its hook {id} isn't in the index"
            continue
        wrong = [name for name in _COMPARED if _as_number(there[id][name]) != _as_number(hook[name])]
        if wrong:
            found = True
            yield "hook", f"its hook {id} has another {', '.join(wrong)} in the index than in its log"
    for id in there.keys() - expected.keys():
        found = True
        yield "hook", f"the index has a hook {id} that its log doesn't have"
    if found:
        rebuilt.hooks = [hook | _kept(there.get(id)) for id, hook in expected.items()]


_COMPARED = ("number", "token", "is_webhook", "is_live")


def _as_number(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _kept(hook: Row | None) -> Row:
    """Return what isn't in a log: which generation of links counts."""
    return {"generation": 1} if hook is None else {"generation": hook["generation"]}


def _hooks_by_log(stored: _Stored, log: Log) -> Iterator[Row]:
    created = {hook["hook_id"]: (hook, log[0].at) for hook in log[0].data.get("hooks", ())}
    for event in log:
        if event.type == "hook_created":
            adopted = created.get(event.data["hook_id"], ({}, event.at))[0]
            created[event.data["hook_id"]] = (adopted | event.data | {"id": number_of(event)}, event.at)
    has_ended = log[-1].type in ENDINGS
    for hook in hooks_of(log):
        data, at = created[hook.id]
        answer = data.get("answer")
        yield {
            "id": storable(hook.id),
            "run_id": stored.row["id"],
            "number": hook.number,
            "token": storable(hook.token),
            "is_webhook": answer is not None,
            "has_schema": bool(data.get("has_schema")),
            "answer": None if answer is None else to_json(answer),
            "metadata": to_json(data.get("metadata"), "metadata"),
            "created_at": to_micros(at),
            "is_live": hook.is_open and not has_ended,
        }


def _check_attributes(stored: _Stored, log: Log, shown: list[_Shown], rebuilt: Rebuilt) -> _Found:
    row = stored.row | rebuilt.row
    own = attributes_after(log)
    if own_json(own) != row["attributes"] and "~hook~" not in row["attributes"]:
        yield "attribute", "its own attributes aren't those of its log"
        rebuilt.row["attributes"] = own_json(own)
    wanted = {(name, value): row["created_at"] for name, value, _ in own_pairs(own)}
    of_projection = [each for each in stored.attributes if each["name"].startswith("$")]
    made = _projected(stored, shown)
    if made is not None:
        wanted |= {(name, value): at or row["created_at"] for name, value, at in made.pairs}
        if row["indexed"] != made.digest:
            rebuilt.row["indexed"] = made.digest
            yield "attribute", "the digest of what lists find it by is another one"
    elif row["status"] not in REPLACED:
        wanted |= {(each["name"], each["value"]): each["created_at"] for each in of_projection}
    there = {(each["name"], each["value"]): each for each in stored.attributes}
    is_right = {key: (each["workflow"], each["status"], each["created_at"]) for key, each in there.items()} == {
        key: (row["workflow"], row["status"], at) for key, at in wanted.items()
    }
    if not is_right and not any("~hook~" in each["value"] for each in stored.attributes):
        yield "attribute", "lists find it by other values than its own"
        rebuilt.attributes = [
            {
                "run_id": row["id"], "name": name, "value": value, "workflow": row["workflow"],
                "status": row["status"], "created_at": at,
            }
            for (name, value), at in sorted(wanted.items())
        ]  # fmt: skip


def _projected(stored: _Stored, shown: list[_Shown]) -> Any:
    """Return what lists find a run by, according to a replay. None if there is none, or it has none."""
    fitting = [each for each in shown if _shows(stored.row, each)] or shown[:1]
    for each in fitting:
        if each.result.projection is not None:
            made = indexed(each.result.projection.attributes)
            if made.digest == stored.row["indexed"] or each is fitting[-1]:
                return made
    return None


def _check_taken(stored: _Stored) -> _Found:
    by_seq = {event["seq"]: event for event in stored.events}
    for taken in stored.taken:
        event = by_seq.get(taken["seq"])
        if event is None or event["type"] != "hook_received":
            yield "stray", f"a hook has taken its event {taken['seq']}, which is no payload"


# ── the audit ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _check_audit(tables: Copyable, key: ChainKey | None, examined: FsckCounts) -> AsyncIterator[list[StoreFault]]:
    before, expected = "", None
    first: AuditLine | None = None
    cut: dict[str, Any] = {}
    async for chunk in tables.rows(_BY_NAME["audit"]):
        faults: list[StoreFault] = []
        for seq, at, what, who, run_id, data, digest in chunk:
            examined.lines += 1
            if expected is None and seq != 1:
                first = audit_line(
                    seq, from_micros(at), (as_given(what), as_given(who), as_given(run_id)), data, digest
                )
            if what == AUDIT_CUT:
                cut = audit_line(seq, from_micros(at), (what, None, None), data, digest).entry.data
            if expected is not None and seq != expected:
                faults.append(StoreFault("audit", None, f"line {expected} of the audit is missing"))
            named = as_given(what), as_given(who), as_given(run_id)
            line = audit_line(seq, from_micros(at), named, data, digest)
            by = key_id_of(digest)
            if by == "" or (key is not None and by == key.id):
                with_key = key if by else None
                is_first = expected is None and seq != 1  # what came before was deleted
                if not is_first and line_hash(before, seq, at, line.entry, line.salt, with_key) != digest:
                    faults.append(StoreFault("audit", None, f"line {seq} of the audit is not as it was written"))
            before, expected = digest, seq + 1
        if faults:
            yield faults
    if first is not None and (found := _check_cut(first, cut, key)):
        yield [StoreFault("audit", None, found)]


def _check_cut(first: AuditLine, cut: Mapping[str, Any], key: ChainKey | None) -> str:
    """Return what is wrong with an audit that begins with this line. `cut`: what its last cut says."""
    if cut.get("seq") != first.seq - 1:
        return f"the lines before line {first.seq} of the audit are missing"
    by = key_id_of(first.hash)
    if by and (key is None or key.id != by):
        return ""
    at, with_key = to_micros(first.at), key if by else None
    is_right = line_hash(cut.get("head", ""), first.seq, at, first.entry, first.salt, with_key) == first.hash
    return "" if is_right else f"line {first.seq} of the audit, the first one, is not as it was written"


def as_json(fault: StoreFault) -> dict[str, Any]:
    return {"kind": fault.kind, "run_id": fault.run_id, "what": fault.what, "derived": fault.kind in DERIVED}
