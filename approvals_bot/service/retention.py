"""Deleting what ended long ago: archived first, named in the audit, then deleted. A stub of each run stays.

The archive has a line of JSON for each run, with its log and the hashes of its chain, and lines for the content of its
files. It is on the disk before anything is deleted. The audit names the last hash of each deleted run, so `audit
verify` knows that these logs are gone on purpose.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import json
import logging
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from approvals_bot.approvals.acts import SERVICE, Actor
from approvals_bot.approvals.published import FILE
from approvals_bot.config.load import Configuration
from approvals_bot.durable.core.attributes import projected
from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.core.idempotency import digest_of_start
from approvals_bot.durable.core.private_files import lock, sync_folder
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.engine.runs import NO_EVENTS
from approvals_bot.durable.store.chain import ChainedEvent
from approvals_bot.durable.store.encoding import as_given
from approvals_bot.durable.store.protocol import Filter, StateRow
from approvals_bot.durable.store.retention import Deletable, DeletableRun, Stub, key_digest
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.audit_check import RUNS_DELETED
from approvals_bot.service.audit_cut import cut_audit
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.read import iso, requests_of
from approvals_bot.service.troubles import Troubles

FIRST = 60.0  # seconds after the start of a service
EVERY = timedelta(hours=1)
AT_ONCE = 100  # runs that the audit names in one line
IN_ONE = 10  # runs that one transaction deletes; a click waits for it, so it is short
REST = 9  # times as long as it worked, it pauses: nine tenths of the store are for people
KEY_KEPT = timedelta(days=90)  # for which an idempotency key still finds its deleted run
COUNTER = "retention"
ARCHIVE = "archive"  # the key of its lasting trouble

_FILE = re.compile(r"\bfile_[0-9a-f]{32}\b")
_LOGGED = re.compile(r'(?<!\\)"id": ?"(file_[0-9a-f]{32})"')  # in JSON, but not in a text that somebody has written

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """How long runs are kept after their end, by workflow; None: for good. `others`: of all others."""

    others: timedelta | None = None
    by_workflow: Mapping[str, timedelta] = field(default_factory=dict)

    @classmethod
    def of(cls, configuration: Configuration) -> RetentionRules:
        own = {each.id: each.workflow.retention for each in configuration.workflows}
        return cls(configuration.service.retention.ended, {id: kept for id, kept in own.items() if kept is not None})

    def searches(self, now: datetime) -> list[Deletable]:
        """Return where to look for what may be deleted now."""
        own = [Deletable(now - kept, only=name) for name, kept in sorted(self.by_workflow.items())]
        if self.others is None:
            return own
        return [*own, Deletable(now - self.others, but=tuple(sorted(self.by_workflow)))]


@dataclass(slots=True)
class Deleted:
    """What a pass has deleted. `damaged`: runs that stay, because their logs aren't as they were written."""

    runs: int = 0
    events: int = 0
    files: int = 0
    archive: Path | None = None
    damaged: int = 0


class Pauses:
    """Pauses after some work each, so many times as long as each took, so that clicks come in between."""

    def __init__(self, rest: int) -> None:
        self._rest = rest
        self._begun = time.perf_counter()

    async def take(self) -> None:
        await asyncio.sleep(self._rest * (time.perf_counter() - self._begun))
        self._begun = time.perf_counter()


class Archive:
    """A file of gzipped JSON lines. `flush` returns once they are on the disk.

    `begin` makes the file and locks it, before what it is to hold is read. `erase` rewrites what is in the database
    first and archives then, and waits for the lock, so nothing that was read before comes into an archive after it.
    """

    def __init__(self, folder: Path, at: datetime) -> None:
        name = f"runs-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}.jsonl.gz"
        self.path = folder / name
        self._raw: BinaryIO | None = None
        self._packed: gzip.GzipFile | None = None
        self._is_flushed = False  # then runs may have been deleted

    @property
    def has_begun(self) -> bool:
        return self._packed is not None

    def begin(self) -> None:
        """Make the file, and lock it. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._raw = os.fdopen(descriptor, "wb")
        lock(self._raw)
        self._packed = gzip.GzipFile(self.path.name, "wb", fileobj=self._raw)

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line. Raises OSError."""
        assert self._packed is not None
        self._packed.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def flush(self) -> None:
        """Write everything to the disk, the file's name included.

        Raises OSError, also if that name is another file's now, or nobody's: what was written would be lost.
        """
        if self._packed is None or self._raw is None:
            return
        self._packed.flush()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        if not os.path.samestat(os.fstat(self._raw.fileno()), os.stat(self.path)):
            raise OSError(errno.ESTALE, "another file was put in its place", str(self.path))
        sync_folder(self.path)
        self._is_flushed = True

    def close(self) -> None:
        """Write the file's end to the disk, and close it. Raises OSError. It is deleted if nothing needs it."""
        if self._packed is None or self._raw is None:
            return
        try:
            self._packed.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
        finally:
            if not self._is_flushed:
                self.path.unlink(missing_ok=True)
            with suppress(OSError):  # what it still has to write has failed before
                self._raw.close()


async def delete_ended(
    engine: Engine,
    policy: RetentionRules,
    archive: Path | None,
    *,
    actor: Actor = SERVICE,
    rest: int = REST,
    progress: Callable[[Deleted], None] = lambda done: None,
) -> Deleted:
    """Delete the runs that ended long enough ago. Raises OSError if the archive can't be written; then nothing is lost.

    `rest`: how many times as long as it worked it pauses after each run and each transaction.
    """
    now, done, pauses = engine.now(), Deleted(), Pauses(rest)
    file = None if archive is None else Archive(archive, now)
    try:
        for which in policy.searches(now):
            async for found in _pages(engine, which, file):
                await _delete(engine, found, file, actor, done, pauses)
                progress(done)
    finally:
        if file is not None:
            await asyncio.to_thread(file.close)
            done.archive = file.path if done.runs else None
    return done


async def count_ended(engine: Engine, policy: RetentionRules) -> int:
    """Return how many runs `delete_ended` would delete now."""
    count = 0
    for which in policy.searches(engine.now()):
        async for found in _pages(engine, which):
            count += len(found)
    return count


async def _pages(engine: Engine, which: Deletable, file: Archive | None = None) -> AsyncIterator[list[DeletableRun]]:
    """Yield what may be deleted, page by page, each run once. If there is any, the archive begins."""
    which = which._replace(most=AT_ONCE)
    while found := await engine.store.deletable(which):
        if file is not None and not file.has_begun:
            await asyncio.to_thread(file.begin)
            continue  # idempotency keys may name people who were erased just now
        yield found
        which = which._replace(after=(found[-1].ended_at, found[-1].run_id))


class _Going(NamedTuple):
    """A run that is deleted: what stays of it, and its hooks and files."""

    stub: Stub
    hooks: tuple[str, ...]
    files: list[str]


async def _delete(
    engine: Engine, found: list[DeletableRun], file: Archive | None, actor: Actor, done: Deleted, pauses: Pauses
) -> None:
    """Delete these runs, but those that others still need."""
    going: list[_Going] = []
    named = Counter[str]()  # the files that these runs have
    for ended in found:
        await pauses.take()
        read = await engine.store.read(ended.run_id, after=NO_EVENTS, patient=True)
        if read is None or still_covers(read[0], engine.now()):
            continue
        record, chained = read[0], await engine.store.chained(ended.run_id)
        if not is_whole(record, chained):  # nobody could look into that any more
            done.damaged += 1
            continue
        own = await _own_files(engine, record, chained, named)
        if file is not None:
            await asyncio.to_thread(file.add, archived(record, ended, chained))
            async for line in _file_lines(engine, own):
                await asyncio.to_thread(file.add, line)
        going.append(_Going(stub_of(record, ended, chained, engine.now()), ended.hooks, own))
    if not going:
        return
    if file is not None:
        await asyncio.to_thread(file.flush)
    ended_runs = [[each.stub.run_id, each.stub.seq, each.stub.head] for each in going]
    about = {"runs": ended_runs, "archive": file.path.name if file is not None else None}
    await engine.audit(RUNS_DELETED, actor=actor.as_json(), data=about)
    for start in range(0, len(going), IN_ONE):
        await pauses.take()
        runs = going[start : start + IN_ONE]
        files = [id for each in runs for id in each.files]
        done.runs += await engine.store.delete_runs([(each.stub, each.hooks) for each in runs], files)
        done.events += sum(each.stub.seq for each in runs)
        done.files += len(files)


def is_whole(record: RunRecord, chained: Sequence[ChainedEvent]) -> bool:
    """Return whether a log is as it was written, from its first event to the last."""
    before = record.id
    for number, event in enumerate(chained, 1):
        if event.seq != number or event.hash != event.hash_after(before):
            return False
        before = event.hash
    return len(chained) == record.seq


def still_covers(record: RunRecord, now: datetime) -> bool:
    """Return whether an approval of this run still covers later requests."""
    return any(each.standing is not None and each.standing.grant.until > now for each in requests_of(record))


def stub_of(record: RunRecord, ended: DeletableRun, chained: list[ChainedEvent], now: datetime) -> Stub:
    """Return what stays of a run that is deleted now."""
    requests = requests_of(record)
    outcome = requests[-1].outcome if requests else None
    head = chained[-1].hash if chained else ""
    stub = Stub(
        record.id,
        record.workflow,
        record.kind,
        outcome.state if outcome is not None else record.status,
        ended.ended_at,
        record.seq,
        head,
    )
    if ended.key is None or not chained:
        return stub
    return stub._replace(
        key=key_digest(ended.key),
        input=digest_of_start(json.loads(chained[0].text)),
        key_until=now + KEY_KEPT,
    )


def archived(record: RunRecord, ended: DeletableRun, chained: list[ChainedEvent]) -> dict[str, Any]:
    """Return the line of a run in the archive. Each event's data is text, as its seal covers it."""
    return {
        "kind": "run",
        "run_id": record.id,
        "workflow": record.workflow,
        "code": record.code,
        "version": record.version,
        "status": record.status,
        "created_at": iso(record.created_at),
        "ended_at": iso(ended.ended_at),
        "key": as_given(ended.key),
        "events": [
            {
                "seq": event.seq,
                "type": event.kind,
                "at": event.micros,
                "key": event.key,
                "data": event.text,
                "salt": event.salt,
                "hash": event.hash,
            }
            for event in chained
        ],
    }


async def _own_files(engine: Engine, record: RunRecord, chained: list[ChainedEvent], named: Counter[str]) -> list[str]:
    """Return the files that this run has and no other one, but for those before it that are deleted with it.

    Files that an edit has replaced are in its log alone. `named`: in how many of those runs each file is shown; this
    run is added.
    """
    shown = dict.fromkeys(_FILE.findall(json.dumps(record.parts)))
    named.update(shown.keys())
    logged = dict.fromkeys(id for event in chained for id in _LOGGED.findall(event.text))
    ids = [*shown, *[id for id in logged if id not in shown and await _is_claimed(engine, id)]]
    return [
        id
        for id in ids
        if await engine.count_runs(Filter(attributes={projected(FILE): id}), named[id] + 1) <= named[id]
    ]


async def _is_claimed(engine: Engine, id: str) -> bool:
    row = await engine.store.file(id)
    return row is not None and row.until is None


async def _file_lines(engine: Engine, files: list[str]) -> AsyncIterator[dict[str, Any]]:
    for id in files:
        number = 0
        while (part := await engine.store.file_part(id, number)) is not None:
            yield {"kind": "file", "id": id, "part": number, "content": base64.b64encode(part).decode()}
            number += 1


class RetentionKeeper:
    """The task of a service that deletes what ended long ago: hourly, one replica at a time."""

    def __init__(
        self, engine: Engine, configuration: Callable[[], Configuration], troubles: Troubles | None = None
    ) -> None:
        """`configuration`: the one in force. `troubles`: where it is noted that the archive can't be written."""
        self._engine = engine
        self._configuration = configuration
        self._troubles = troubles or Troubles(engine.now)

    async def run(self) -> None:
        """Delete until the task is cancelled."""
        await asyncio.sleep(FIRST)
        while True:
            try:
                if ARCHIVE in self._troubles or await self._is_its_turn():
                    await self.delete()
                    self._troubles.end(ARCHIVE, "archive_back", "the archive can be written to again")
            except StoreUnavailableError:
                pass  # the store's own line says so
            except OSError as error:
                text = f"the archive can't be written ({error.strerror or type(error).__name__}); nothing is deleted"
                mend = "Let the service's user write to [retention] archive, and free some space there"
                self._troubles.begin(ARCHIVE, "archive_failed", text, mend)
            await asyncio.sleep(FIRST)

    async def delete(self) -> Deleted:
        """Delete what may be deleted now."""
        configuration = self._configuration()
        done = await delete_ended(
            self._engine, RetentionRules.of(configuration), configuration.service.retention.archive
        )
        if done.runs:
            log.info("%d runs that ended long ago were deleted", done.runs, extra={"event": "retention_ran"})
        if done.damaged:
            log.warning(
                "%d runs that ended long ago stay, because their logs aren't as they were written; "
                "`approvals-bot fsck` names them",
                done.damaged,
            )
        service = configuration.service
        if service.retention.audit is not None:
            key = None if service.audit.seed is None else AuditKey(service.audit.seed)
            cut = await cut_audit(self._engine, service.retention.audit, key, Pauses(REST).take)
            if cut:
                log.info("%d old lines of the audit were deleted", cut, extra={"event": "retention_ran"})
        return done

    async def _is_its_turn(self) -> bool:
        """Return whether an hour has passed since any replica did this, and this one is the first to see it."""
        policy = RetentionRules.of(self._configuration())
        cuts = self._configuration().service.retention.audit is not None
        if policy.others is None and not policy.by_workflow and not cuts:
            return False
        now, last = self._engine.now(), await self._engine.store.counter(COUNTER)
        due = 0 if last is None else last.state.get("next", 0)
        if to_micros(now) < due <= to_micros(now + EVERY):  # what is later was noted before the clock was set back
            return False
        return await self._engine.store.set_counter(_next(last, now), now, now + 2 * EVERY)


def _next(last: StateRow | None, now: datetime) -> StateRow:
    return StateRow(COUNTER, 1 if last is None else last.version + 1, {"next": to_micros(now + EVERY)})
