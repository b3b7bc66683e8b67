"""Copying an installation from one store to another, all or nothing: runs, events, hooks and the audit's chain.

Both stores have the same rows, so these are copied as they are. The target is written in one transaction and read back
before the commit; its digest must be that of the source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from approvals_bot.durable.core.events import from_micros
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.audit import audit_line, line_hash
from approvals_bot.durable.store.chain import key_id_of
from approvals_bot.durable.store.copying_tables import (
    INSTALLATION,
    TABLES,
    CopiedTable,
    Copyable,
    Row,
    opened_sqlite,
    sqlite_beside,
)
from approvals_bot.durable.store.encoding import as_given
from approvals_bot.errors import StoreCopyError


async def copy(source_url: str, target_url: str, say: Callable[[str], None], *, as_new: bool = False) -> dict[str, int]:
    """Copy everything, and return the number of rows of each table. `say` is called with lines on the progress.

    The copy is the same installation: links that were sent before work there. `as_new` makes it another one, for
    staging and the like, where none of them does.

    Raises StoreCopyError with the reason; nothing was written then.
    """
    _find(source_url)
    await (await connect(source_url)).close()  # migrates it: an older schema has other columns
    await (await connect(target_url)).close()
    async with opened(source_url) as source, opened(target_url) as target:
        if not await target.is_empty():
            raise StoreCopyError(
                "The target isn't empty. Copy into a new database: a copy never mixes with other runs."
            )
        tables = copied_tables(as_new=as_new)
        if not as_new:
            await target.forget_installation()
        counts, digest = await copy_rows(source, target, tables, say)
        if not any(count for name, count in counts.items() if name != INSTALLATION.name):
            raise StoreCopyError("The source is empty, so nothing was copied. Is it the right database?")
        say("Reading it back …")
        if await read_back(target, tables) != (counts, digest):
            raise StoreCopyError(
                "The copy doesn't read back as it was written. Nothing was kept, and the source is unchanged."
            )
    return {name: count for name, count in counts.items() if name != INSTALLATION.name}


def _find(source_url: str) -> None:
    """Refuse a file that doesn't exist: opening it would create it, and the copy would be empty."""
    file = source_url.removeprefix("sqlite:///")
    if file != source_url and not Path(file).exists():
        raise StoreCopyError(f"There is no file {file} to copy from. A relative path starts in the working directory.")


def copied_tables(*, as_new: bool) -> tuple[CopiedTable, ...]:
    """Return the tables to copy. Another installation keeps the ID that its database was made with."""
    return TABLES if as_new else (INSTALLATION, *TABLES)


def opened(url: str) -> AbstractAsyncContextManager[Copyable]:
    if url.startswith("sqlite:///"):
        return opened_sqlite(url.removeprefix("sqlite:///"))
    from approvals_bot.durable.store.postgres_tables import opened_postgres

    return opened_postgres(url)


def read_beside(url: str) -> AbstractAsyncContextManager[Copyable]:
    """Open a store's tables in one snapshot, beside the service. Nothing is written."""
    if url.startswith("sqlite:///"):
        return sqlite_beside(url.removeprefix("sqlite:///"))
    from approvals_bot.durable.store.postgres_tables import postgres_beside

    return postgres_beside(url)


async def copy_rows(
    source: Copyable,
    target: Copyable,
    tables: Sequence[CopiedTable],
    say: Callable[[str], None],
    *,
    is_backup: bool = False,
) -> tuple[dict[str, int], str]:
    """Copy these tables. Returns the number of rows of each, and the digest of all.

    `is_backup`: an audit that isn't as it was written is copied, too, since there may be no better one.
    """
    counts, digest, chain = dict[str, int](), hashlib.sha256(), _Chain()
    for table in tables:
        counts[table.name] = 0
        async for rows in source.rows(table):
            await target.add(table, rows)
            counts[table.name] += len(rows)
            _digest(digest, rows)
            if table.name == "audit" and not is_backup:
                chain.follow(rows)
            elif is_backup:
                say(f"{table.name}: {counts[table.name]:,} …")
        if table is not INSTALLATION:
            say(f"{table.name}: {counts[table.name]:,}")
    return counts, digest.hexdigest()


async def read_back(target: Copyable, tables: Sequence[CopiedTable]) -> tuple[dict[str, int], str]:
    """Return what `copy_rows` returned, if the target has the same."""
    counts, digest = dict[str, int](), hashlib.sha256()
    for table in tables:
        counts[table.name] = 0
        async for rows in target.rows(table):
            counts[table.name] += len(rows)
            _digest(digest, rows)
    return counts, digest.hexdigest()


def _digest(digest: Any, rows: Sequence[Row]) -> None:
    for row in rows:
        digest.update(json.dumps(row, default=_hash).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Chain:
    """The source's audit chain, checked line by line. `follow` raises StoreCopyError where it is broken.

    Lines under an audit key are copied as they are: `audit verify` checks those.
    """

    def __init__(self) -> None:
        self._before = ""

    def follow(self, rows: Sequence[Row]) -> None:
        for seq, at, what, who, run_id, data, digest in rows:
            named = as_given(what), as_given(who), as_given(run_id)
            line = audit_line(seq, from_micros(at), named, data, digest)
            if key_id_of(digest) == "" and line_hash(self._before, seq, at, line.entry, line.salt, None) != digest:
                raise StoreCopyError(
                    f"Line {seq} of the audit is not as it was written. Nothing was copied; check the source."
                )
            self._before = digest
