"""Cutting the audit: what is older than `[retention] audit` goes, from its beginning on, and a signed line says so.

Nothing goes that is about a run which is still here, or about one whose stub is. A stub goes once its run ended longer
ago than the audit is kept. The line has the hash at which the audit was cut, so the chain of what stays has its
beginning, and `audit verify` knows that the rest is gone on purpose.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.approvals.acts import SERVICE, Actor
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.audit import AUDIT_CUT, AuditEntry, AuditFilter, AuditLine
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.service.audit_check import RUNS_SEALED, cut_statement
from approvals_bot.service.audit_keeper import FILE, LOADED, RIGHTS
from approvals_bot.service.audit_key import AuditKey

AT_ONCE = 500  # lines that one transaction deletes; a click waits for it, so it is short
FILES_AT_ONCE = 20  # a file may have 100 kB


async def _no_rest() -> None: ...


async def cut_audit(
    engine: Engine,
    kept: timedelta,
    key: AuditKey | None,
    rest: Callable[[], Awaitable[None]] = _no_rest,
    *,
    actor: Actor = SERVICE,
) -> int:
    """Delete the lines of the audit that are older than it is kept, and return how many there were.

    `rest` is awaited between transactions. `actor`: who cuts it.
    """
    now, cut = engine.now(), 0
    while await engine.store.forget_stubs(now - kept, now, AT_ONCE):
        await rest()
    until = await _kept_from(engine, now - kept)
    while lines := await _oldest(engine, until):
        await rest()
        await _carry_on(engine, lines, until)
        cut += len(lines) if await _cut(engine, key, lines[-1], actor) else 0
    return cut


async def count_cut(engine: Engine, kept: timedelta) -> int:
    """Return how many lines `cut_audit` would delete now."""
    before, count, above = engine.now() - kept, 0, 0
    until = await _kept_from(engine, before)
    while lines := await _oldest(engine, until, above, forgotten=before):
        count, above = count + len(lines), lines[-1].seq
    return count


async def _kept_from(engine: Engine, before: datetime) -> datetime:
    """Return the time from which on lines stay: not later than the beginning of any run that is still here."""
    oldest, _ = await engine.store.runs(Filter(oldest_first=True, limit=1))
    return min([before, *(run.created_at for run in oldest)])


async def _oldest(
    engine: Engine, until: datetime, above: int = 0, forgotten: datetime | None = None
) -> list[AuditLine]:
    """Return the first lines of the audit after a number, up to one that has to stay.

    `forgotten`: as if the stubs of runs that ended before weren't here, whose keys are free.
    """
    lines = await engine.audit_lines(AuditFilter(above=above, limit=AT_ONCE))
    kept = await engine.store.stubs_among({line.entry.run_id for line in lines if line.entry.run_id is not None})
    if forgotten is not None:
        kept = {run_id for run_id in kept if not await _is_over(engine, run_id, forgotten)}
    for number, line in enumerate(lines):
        if line.at >= until or line.entry.run_id in kept:
            return lines[:number]
    return lines


async def _is_over(engine: Engine, run_id: str, before: datetime) -> bool:
    """Return whether the stub of a run may go: see `forget_stubs`."""
    stub = await engine.store.stub(run_id=run_id)
    return stub is None or (stub.ended_at < before and (stub.key_until is None or stub.key_until <= engine.now()))


async def _carry_on(engine: Engine, lines: Sequence[AuditLine], until: datetime) -> None:
    """Write again what stays in force: configurations, rights, and the files that runs which are still here follow."""
    last = {_group(line): line for line in lines if line.entry.what in (LOADED, RIGHTS, FILE)}
    for line in last.values():
        if not await _has_later(engine, line, until, lines[-1].seq):
            await engine.audit(line.entry.what, actor=SERVICE.as_json(), data=line.entry.data | {"copy_of": line.seq})


def _group(line: AuditLine) -> tuple[str, Any]:
    return line.entry.what, line.entry.data.get("workflow") if line.entry.what == FILE else None


async def _has_later(engine: Engine, line: AuditLine, until: datetime, above: int) -> bool:
    """Return whether a later line says the same, or replaces it for all runs that are still here."""
    while True:
        page = await engine.audit_lines(AuditFilter(what=line.entry.what, above=above, limit=FILES_AT_ONCE))
        for later in page:
            if _group(later) == _group(line) and (
                line.entry.what != FILE
                or later.at < until
                or later.entry.data.get("version") == line.entry.data.get("version")
            ):
                return True
        if len(page) < FILES_AT_ONCE:
            return False
        above = page[-1].seq


async def _cut(engine: Engine, key: AuditKey | None, last: AuditLine, actor: Actor) -> bool:
    """Cut after this line. Returns False if another replica was first."""
    sealed = await _newest(engine, AuditFilter(what=RUNS_SEALED, below=last.seq + 1, newest_first=True, limit=1))
    before = await _newest(engine, AuditFilter(what=AUDIT_CUT, newest_first=True, limit=1))
    earlier = "" if before is None else before.entry.data.get("open_runs_head", "")
    open_runs = earlier if sealed is None else sealed.hash
    data = cut_statement(last.seq, last.hash, open_runs, "" if key is None else key.public)
    if key is not None:
        data["signature"] = key.sign(data)
    entry = AuditEntry(AUDIT_CUT, data=data, actor=actor.as_json())
    return await engine.store.cut_audit(last.seq, entry, engine.now(), engine.audit_key) is not None


async def _newest(engine: Engine, which: AuditFilter) -> AuditLine | None:
    lines = await engine.audit_lines(which)
    return lines[0] if lines else None
