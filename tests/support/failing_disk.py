"""The real service on a disk that fails on demand: `python failing_disk.py …` does what `approvals-bot …` does.

The fault is the content of the file that FAILING_DISK names, while it exists: `full`, `write-error`,
`sync-error`, `slow`, or `hung`. FAILING_DISK_OF limits it to paths that contain this text.

FAILING_DISK_EARLY plants a bug, as a control: payloads are acknowledged before they are written.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from approvals_bot.cli import main
from approvals_bot.durable.engine import Engine, HookInfo
from tests.support.watched_sqlite import Operation, watch

FULL, WRITE_ERROR, SYNC_ERROR = 13, 10 | 3 << 8, 10 | 4 << 8  # SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC
SLOW = 0.3  # seconds for a sync: a disk on a network, on a bad day


def trouble(operation: Operation) -> int | None:
    if os.environ.get("FAILING_DISK_OF", "") not in operation.path:
        return None
    match (said := _said()), operation.kind:
        case "full", "write":
            if operation.path.endswith("-wal"):  # (who closes the database's own file gives up SQLite's locks on it)
                operation.carry_out_half()  # as far as there was room
            return FULL
        case "write-error", "write":
            return WRITE_ERROR
        case "sync-error", "sync":
            return SYNC_ERROR
        case "slow", "sync":
            time.sleep(SLOW)
        case "hung", "sync":
            while _said() == said:
                time.sleep(0.01)
    return None


def _said() -> str:
    try:
        return Path(os.environ["FAILING_DISK"]).read_text()
    except FileNotFoundError:
        return ""


def acknowledge_early() -> None:
    """Plant the bug."""
    real = Engine.resume_hook
    kept = dict[asyncio.Task[Any], None]()

    def over(task: asyncio.Task[Any]) -> None:
        del kept[task]
        task.exception()  # nobody hears of it

    async def early(self: Engine, token: str, payload: Any, *, resume_id: str | None = None, **more: Any) -> HookInfo:
        task = asyncio.create_task(real(self, token, payload, resume_id=resume_id, **more))
        kept[task] = None
        task.add_done_callback(over)
        return await self.get_hook_by_token(token)

    Engine.resume_hook = early  # type: ignore[method-assign]


if __name__ == "__main__":
    watch(trouble)
    if os.environ.get("FAILING_DISK_EARLY"):
        acknowledge_early()
    main()
