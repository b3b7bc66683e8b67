"""The raw limits of this machine: SQLite, PostgreSQL and signing without an engine."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from itertools import count
from pathlib import Path

from benchmarks.measures import per_second
from benchmarks.parts.part import Figures, Scale, main, say
from benchmarks.postgres import server

ROW = "x" * 200  # characters, about the size of an event


def measure(scale: Scale) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        figures = commits(Path(folder) / "rows.db", scale.seconds(4))
        say(f"SQLite: {figures['raw.sqlite.commits']:,.0f} commits/s")
    figures |= signing(scale.seconds(1))
    try:
        figures |= postgres(scale.seconds(4))
    except Exception as error:  # noqa: BLE001  # the other limits don't need it
        say(f"PostgreSQL could not be measured: {error}")
    return figures


def commits(file: Path, seconds: float) -> Figures:
    """Measure one-row commits per second, and rows per second in commits of 50, in WAL at `synchronous=FULL`."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT")

        def one() -> None:
            db.execute("INSERT INTO rows (data) VALUES (?)", (ROW,))

        def fifty() -> None:
            db.execute("BEGIN IMMEDIATE")
            for _ in range(50):
                db.execute("INSERT INTO rows (data) VALUES (?)", (ROW,))
            db.execute("COMMIT")

        return {
            "raw.sqlite.commits": per_second(one, seconds),
            "raw.sqlite.rows_of_50": per_second(fifty, seconds) * 50,
        }


def signing(seconds: float) -> Figures:
    """Measure the microseconds to sign, and to verify, one of our tokens."""
    from approvals_bot.durable.tokens import Tokens

    tokens = Tokens(["a-key-of-the-benchmark-that-has-32-bytes!"], installation="benchmark")
    token = tokens.sign("webhook.v1", {"h": "hook_0123456789abcdef", "g": 1})
    return {
        "raw.token.sign_us": 1e6
        / per_second(lambda: tokens.sign("webhook.v1", {"h": "hook_0123456789", "g": 1}), seconds),
        "raw.token.read_us": 1e6 / per_second(lambda: tokens.read("webhook.v1", token), seconds),
    }


def postgres(seconds: float) -> Figures:
    """Measure asyncpg's one-row commits per second on one connection, with fsync on."""
    with server() as there:
        return asyncio.run(_postgres(there.url, seconds))


async def _postgres(url: str, seconds: float) -> Figures:
    import asyncpg

    db = await asyncpg.connect(url)
    try:
        await db.execute("CREATE TABLE rows (id bigint PRIMARY KEY, data text NOT NULL)")
        ids, loop = count(), asyncio.get_running_loop()
        done, began = 0, loop.time()
        while done < 20 or loop.time() < began + seconds:
            await db.execute("INSERT INTO rows VALUES ($1, $2)", next(ids), ROW)
            done += 1
        rate = done / (loop.time() - began)
        say(f"PostgreSQL: {rate:,.0f} commits/s")
        return {"raw.postgres.commits": rate}
    finally:
        await db.close()


if __name__ == "__main__":
    main(measure)
