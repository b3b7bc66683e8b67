"""Replaying every open run on the code that is here, without touching any: before a deployment, not after it."""

from __future__ import annotations

import secrets
import sys
import time
from dataclasses import dataclass

import typer

from approvals_bot.config.service import Service
from approvals_bot.core.registry import registry
from approvals_bot.engine import Engine, RunRecord
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.store import Status

OPEN: tuple[Status, ...] = ("pending", "running", "stalled")
PAGE = 200  # runs read at once
SAY_EVERY = 1.0  # seconds between two lines of progress


@dataclass(frozen=True, slots=True)
class Stalling:
    """A run that this code can't go on with."""

    run_id: str
    workflow: str
    why: str


async def replay_open_runs(engine: Engine, _: Service) -> tuple[int, list[Stalling]]:
    """How many runs are open, and which of them would stall. Nothing is written, no step is run."""
    checked, stalling = 0, list[Stalling]()
    said = time.monotonic()
    for status in OPEN:
        cursor: str | None = None
        while True:
            page = await engine.records(status=status, limit=PAGE, cursor=cursor)
            for record in page.records:
                checked += 1
                if why := await _why_it_stalls(engine, record):
                    stalling.append(Stalling(record.id, record.workflow, why))
                if time.monotonic() - said > SAY_EVERY and sys.stderr.isatty():
                    typer.echo(f"{checked:,} open runs replayed …", err=True)
                    said = time.monotonic()
            cursor = page.cursor
            if cursor is None:
                break
    return checked, stalling


async def _why_it_stalls(engine: Engine, record: RunRecord) -> str:
    found = await engine.store.read(record.id)
    if found is None or found[0].ended_at is not None:
        return ""
    row, log = found
    try:
        workflow = registry.get(row.code, row.version)
        await engine.replayer.replay(workflow, log, secrets.token_bytes(32))
    except ApprovalsBotError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # whatever a body's replay raises is what would stall its run
        return f"{type(error).__name__}: {error}"
    return ""
