"""Working beside the service: on its database, and leaving the work to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from approvals_bot.cli.show import quiet_logs
from approvals_bot.config.load import load_service
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine, RunRecord, SystemClock, TimeSource
from approvals_bot.durable.store import connect
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import RunNotFoundError

T = TypeVar("T")


def with_engine(
    config: Path, use: Callable[[Engine, ServiceSettings], Coroutine[Any, Any, T]], *, upgrade: bool = True
) -> T:
    """Run `use` with an engine that starts, resumes and looks, but works on nothing. Without `upgrade` the database's
    schema is left as it is, and an older one refused.

    Only config.toml is read: a workflow's file that is wrong just now keeps nobody from looking at a run.
    """
    quiet_logs()
    service = load_service(config, os.environ)

    async def run() -> T:
        async with engine_of(service, clock_of(config), upgrade=upgrade) as engine:
            return await use(engine, service)

    return asyncio.run(run())


@asynccontextmanager
async def engine_of(service: ServiceSettings, clock: TimeSource, *, upgrade: bool = True) -> AsyncIterator[Engine]:
    """The engine by itself, for who has read the configuration already."""
    tokens = Tokens([key.get_secret_value() for key in service.server.signing_keys])
    store = await connect(service.server.database.get_secret_value(), upgrade=upgrade)
    engine = Engine(store, tokens=tokens, base_url=str(service.server.base_url), clock=clock)
    async with engine.running(work=False):
        yield engine


def clock_of(config: Path) -> TimeSource:
    """The clock of the service beside which this works: the playground's may have been moved."""
    moved = config.parent / "clock.json"
    if not moved.exists():
        return SystemClock()
    from approvals_bot.cli.dev import PlaygroundClock

    return PlaygroundClock(moved)


async def record_of(engine: Engine, run: str) -> RunRecord:
    """RunNotFoundError if there is no such run."""
    from approvals_bot.service.read import find_record

    record = await find_record(engine, run)
    if record is None:
        raise RunNotFoundError(run)
    return record
