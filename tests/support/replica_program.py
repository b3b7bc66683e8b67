"""`approvals-bot`, as a replica of the tests: it notes which of its writes were refused because it had been fenced, and
may pretend to be the next release, with one migration more (`REPLICAS_SCHEMA`: its file)."""

from __future__ import annotations

import os
from pathlib import Path

from approvals_bot.cli import main
from approvals_bot.durable.store import postgres_schema
from approvals_bot.durable.store.postgres import PostgresStore
from approvals_bot.durable.store.protocol import Append, Appended, Fenced, Stale

_append = PostgresStore.append
_known = postgres_schema.migrations()


async def _noted(self: PostgresStore, batch: Append) -> Appended | Stale | Fenced:
    result = await _append(self, batch)
    if isinstance(result, Fenced):
        with Path("fenced").open("a") as file:
            file.write(f"{os.getpid()} {batch.run_id}\n")
    return result


def _have(schema: str) -> None:
    """As the next release: this file's migration, too."""
    migrations = [*_known, (schema, Path(schema).read_text(encoding="utf-8"))]
    postgres_schema.migrations = lambda: migrations  # type: ignore[assignment]


if __name__ == "__main__":
    PostgresStore.append = _noted  # type: ignore[method-assign]
    if os.environ.get("REPLICAS_SCHEMA"):
        _have(os.environ["REPLICAS_SCHEMA"])
    main()
