"""Play seeds."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import pytest

from approvals_bot.durable.core.context import open_engines
from approvals_bot.durable.engine import scheduler as scheduling
from approvals_bot.durable.engine.troubles import log_failure, log_step_failure
from tests.support.simulation import approving, checks, families, mailboxes, scenes, scheduled
from tests.support.simulation.auditor import Violation
from tests.support.simulation.store import Database, SqliteDatabase
from tests.support.simulation.world import World

APPROVALS = 20  # of so many seeds one plays the real approval
RELEASES = 7  # of so many seeds one has a release with a bug in it
RELATED = 3  # of so many seeds one has runs with relatives
MOST_NODES = 3
GROUPS: dict[str, tuple[type[scenes.Scene], ...]] = {
    "families": (families.Family,),
    "mailboxes": (mailboxes.Mailbox,),
    "schedules": (scheduled.Scheduled,),
}
"""Runs that have to do with other runs, or are in the place of others."""

LONGEST = 250.0  # virtual seconds after which everybody must have what they wait for


@dataclass
class Played:
    """What came of one seed."""

    seed: int
    found: BaseException | None
    counts: Counter[str]
    trace: list[tuple[float, str, str]] = field(repr=False)
    options: str = ""

    def to_be_sent(self) -> Played:
        """Return a copy for another process: no trace if nothing was found, no traceback if something was."""
        if self.found is None:
            return replace(self, trace=[])
        return replace(self, found=Violation(f"{type(self.found).__name__}: {self.found}"))

    def timeline(self, last: int | None = None) -> str:
        """Format what happened, for a person to read."""
        lines = self.trace if last is None else self.trace[-last:]
        shown = [f"{at:9.3f}  {who:<9} {what}" for at, who, what in lines]
        return "\n".join([f"seed {self.seed}: {self.options}", *shown, f"→ {self.found or 'all is well'}"])


class Simulation:
    """Plays one seed after another on one database."""

    def __init__(self, database: Database, group: str | None = None) -> None:
        self._database = database
        self._group = group

    def close(self) -> None:
        self._database.close()

    def play(self, seed: int) -> Played:
        """Never raises for what it finds."""
        self._database.clear()
        world = World(seed, self._database)
        outside = approving.resources(world)
        world.resources_of = lambda process: {**outside, **scenes.resources(world, process)}
        found: BaseException | None = None
        with _undisturbed(world):
            try:
                world.play(partial(_play_scenes, group=self._group))
                checks.check(world, replayed="all" if seed % 16 == 0 else "decided" if seed % 2 == 0 else "whole")
            except Exception as error:  # noqa: BLE001  # whatever it is, it is what was found
                found = error
        counts = Counter(world.counts)
        counts["takeovers"] += world.auditor.takeovers
        return Played(seed, found, counts, world.trace, str(world.options))


async def _play_scenes(world: World, group: str | None) -> None:
    chosen: list[type[scenes.Scene]]
    releasing: asyncio.Task[None] | None = None
    if group is not None:
        chosen = [world.random.choice(GROUPS[group]) for _ in range(world.random.randrange(1, 4))]
    elif world.seed % APPROVALS == 0:  # the real one, alone: it takes as long as all others together
        chosen = [approving.Approval]
    elif world.seed % RELEASES == 3:
        fate = Random(f"releases of {world.seed}")  # noqa: S311  # it shall be repeatable
        chosen = [scenes.Mended] * fate.randrange(1, 4)
        releasing = world.loop.create_task(world.release(fate))
    elif world.seed % RELATED == 1:
        related = [scene for group in GROUPS.values() for scene in group]
        chosen = [world.random.choice(related) for _ in range(world.random.randrange(1, 3))]
    else:
        chosen = [world.random.choice(scenes.SCENES) for _ in range(world.random.randrange(2, 5))]
    cast = [scene(world, number) for number, scene in enumerate(chosen)]
    try:
        async with asyncio.timeout(LONGEST):
            async with asyncio.TaskGroup() as playing:
                for scene in cast:
                    playing.create_task(scene.play())
    except TimeoutError:
        open_ones = [scene.name for scene in cast if not scene.has_ended]
        raise Violation(f"after {LONGEST:.0f} s these have not come to an end: {open_ones}") from None
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    world.calm()
    if releasing is not None:
        releasing.cancel()
    await asyncio.sleep(0.1)


@contextmanager
def _undisturbed(world: World) -> Iterator[None]:
    """The engine's module-level things as this world wants them, and back again."""
    log = logging.getLogger("approvals_bot.durable.engine")
    was, propagates = log.level, log.propagate
    around = list(open_engines)
    listener = _Listener(world)
    log.addHandler(listener)
    log.setLevel(logging.ERROR)
    log.propagate = False
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scheduling, "POLL", world.options.poll)
            patch.setattr(scheduling, "LOOK", world.options.poll * 2)
            yield
    finally:
        log.setLevel(was)
        log.propagate = propagates
        log.removeHandler(listener)
        open_engines[:] = around


class _Listener(logging.Handler):
    """An error in the engine's own log is a finding, except for a step or run that the seed made fail."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.funcName in (log_failure.__name__, log_step_failure.__name__):
            return
        error = Violation(f"the engine logged an error: {record.getMessage()}")
        error.__cause__ = record.exc_info[1] if record.exc_info else None
        self._world.fail(error)


def play(seeds: Iterable[int], database: Database | None = None, group: str | None = None) -> Iterator[Played]:
    """Play these seeds, on SQLite unless another database is given, all of them with scenes of this group if one is.
    Findings are returned, not raised."""
    simulation = Simulation(database or SqliteDatabase(MOST_NODES), group)
    try:
        for seed in seeds:
            yield simulation.play(seed)
    finally:
        if database is None:
            simulation.close()
