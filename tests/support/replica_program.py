"""`approvals-bot`, as a replica of the tests: it notes which of its writes were refused because it had been fenced, and
may pretend to be of another release (`REPLICAS_RELEASE`)."""

from __future__ import annotations

import os
from pathlib import Path

from approvals_bot.cli import main
from approvals_bot.store import Append, Appended, Fenced, Stale, postgres_schema
from approvals_bot.store.postgres import PostgresStore

_append = PostgresStore.append
_known = postgres_schema.migrations()


async def _noted(self: PostgresStore, batch: Append) -> Appended | Stale | Fenced:
    result = await _append(self, batch)
    if isinstance(result, Fenced):
        with Path("fenced").open("a") as file:
            file.write(f"{os.getpid()} {batch.run_id}\n")
    return result


def _of_release(release: str) -> None:
    """`older`: without the last migration. `newer`: with the one of the file of that name, too."""
    match release:
        case "":
            return
        case "older":
            migrations = _known[:-1]
        case newer:
            migrations = [*_known, (newer, Path(newer).read_text(encoding="utf-8"))]
    postgres_schema.migrations = lambda: migrations  # type: ignore[assignment]


if __name__ == "__main__":
    PostgresStore.append = _noted  # type: ignore[method-assign]
    _of_release(os.environ.get("REPLICAS_RELEASE", ""))
    main()
