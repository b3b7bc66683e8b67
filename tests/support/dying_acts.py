"""What callers do to an engine whose process dies at one call of its store, or gets no answer from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from approvals_bot import StoreUnavailableError
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.protocol import OpenStore
from approvals_bot.durable.tokens import Tokens
from approvals_bot.testing import FakeClock
from tests.support.dying_store import Died, DyingStore

How = Literal["dies before", "dies after", "no answer before", "no answer after"]

Act = Callable[[Engine], Awaitable[Any]]
"""Something that people or time do. A caller that gets no answer does it again."""

READS = {"read", "hook", "runs", "next_wake", "changed", "check"}


class DiesAtAWrite(DyingStore):
    """Dying at a read is dying at the write before or after it, so only writes are counted."""

    def __getattr__(self, name: str) -> Any:
        if name in READS and not self.is_dead:
            return getattr(self._store, name)
        return super().__getattr__(name)


class Silent(DyingStore):
    """One call is not answered, but the process lives."""

    def _die_if(self, condition: bool) -> None:
        if condition:
            raise StoreUnavailableError("(planted)")


@asynccontextmanager
async def live(
    path: Path, clock: FakeClock, at: int | None, how: How, resources: Mapping[type, Any]
) -> AsyncIterator[tuple[Engine, DyingStore]]:
    kind = DiesAtAWrite if how.startswith("dies") else Silent
    store = kind(await connect(f"sqlite:///{path}"), at, "before" if how.endswith("before") else "after")
    engine = Engine(
        cast(OpenStore, store),
        tokens=Tokens(["k" * 40], installation=store.installation),
        base_url="https://example.test",
        clock=clock,
        resources=resources,
    )  # it has every method of the store it wraps
    engine.scheduler.closing = 0.0
    async with engine.running():
        yield engine, store


async def play_acts(
    acts: Sequence[Act],
    path: Path,
    clock: FakeClock,
    at: int | None,
    how: How,
    resources: Mapping[type, Any] = MappingProxyType({}),
) -> tuple[Any, int]:
    """Do all acts, in a new process after each death. Call `at` of the first process's store is the planted one.

    Returns what the last act returned, and how many store calls the last process made.
    """
    done, planted, seen = 0, at, None
    while True:
        try:
            async with live(path, clock, planted, how, resources) as (engine, store):
                while done < len(acts):
                    seen = await until_done(acts[done], engine, store)
                    done += 1
                calls = store.calls
            return seen, calls
        except (Died, StoreUnavailableError):  # it died, or couldn't even begin
            planted = None


async def until_done(act: Callable[[Engine], Awaitable[Any]], engine: Engine, store: DyingStore) -> Any:
    while True:
        task = asyncio.ensure_future(act(engine))
        for _ in range(3000):
            await asyncio.wait([task], timeout=0.005)
            if task.done() or store.is_dead:
                break
        if store.is_dead or not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert store.is_dead, "stuck on a live process"
            raise Died
        try:
            return task.result()
        except StoreUnavailableError:
            continue  # as people do when they read "try again"
