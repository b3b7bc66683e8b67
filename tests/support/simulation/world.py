"""The world of one seed: nodes that start, stall and die, people who ask them, and one database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.events import Log, to_micros
from approvals_bot.durable.core.replay import Replay, ReplayResult
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.cache import RunCache
from approvals_bot.durable.engine.replayer import Replayer
from approvals_bot.durable.engine.schedules import NotStarted, Schedule, ScheduledRun
from approvals_bot.durable.store.protocol import Append, Appended, Fenced, OpenStore, Stale
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import WorkflowBugError
from tests.support.simulation.auditor import Auditor, Line, Violation
from tests.support.simulation.loop import Process, VirtualLoop
from tests.support.simulation.options import Options
from tests.support.simulation.shapes import RELEASE
from tests.support.simulation.store import INSTALLATION, Database, Mishap, never

T = TypeVar("T")

BEGIN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
KEYS = Tokens(["k" * 40], installation=INSTALLATION)
PATIENCE = 20.0  # virtual seconds that people wait for an answer, before they ask again


class NoAnswerError(Exception):
    """The node died or took too long: the caller doesn't know what came of the call."""


class InlineReplayer(Replayer):
    """A replayer that runs inline: in virtual time nothing takes long, and there are no threads."""

    def __init__(self, link: Callable[[str], str], node: Node) -> None:
        super().__init__(link)
        self._world = node.world
        self._is_bad = node.is_bad

    def inline(self, workflow: Workflow[Any, Any], replay: Replay, events: Log) -> ReplayResult | None:
        RELEASE.is_bad = self._is_bad
        try:
            return replay.deliver(events)
        except WorkflowBugError:
            self._world.count("bugs met")
            raise
        finally:
            RELEASE.is_bad = False

    def throw_away(self, replay: Replay) -> None:
        replay.close()


class SimulatedEngine(Engine):
    """The real engine, with chance from the seed, and without threads."""

    def __init__(self, node: Node, store: OpenStore, resources: Mapping[type, Any]) -> None:
        super().__init__(store, tokens=KEYS, base_url="https://example.test", clock=node, resources=resources)
        self.replayer = self.scheduler.replayer = InlineReplayer(self.link, node)
        self.scheduler.entropy = lambda: node.world.random.randbytes(32)
        self.scheduler.cancel_grace = timedelta(seconds=15)
        self.scheduler._owner = node.process.name


class Node:
    """A machine on which one process follows another."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.births = 0
        self.is_bad = False  # whether its process runs the release with the bug
        self.skew = timedelta(seconds=world.random.uniform(-1, 1) * world.options.skew / 2)
        self.process = Process(f"node{number}.0")
        self.process.is_dead = True
        self.engine: SimulatedEngine | None = None
        self._cache = RunCache()
        self.stop = asyncio.Event()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked: dict[asyncio.Future[Any], None] = {}  # a set has another order in another process

    def now(self) -> datetime:
        return self.world.now() + self.skew

    async def live(self) -> None:
        """Start a process, and another one when it has gone."""
        world = self.world
        while True:
            self.births += 1
            self.is_bad = world.bad_from <= world.loop.time() < world.bad_until
            self.process = Process(f"node{self.number}.{self.births}")
            self.stop, self.gone, self.asked = asyncio.Event(), world.loop.create_future(), {}
            world.loop.join(self.process)
            world.record(self.process.name, "starts")
            main = self._main(self.process)
            self.process.context.copy().run(world.loop.create_task, main)
            await self.gone
            if world.is_calm:
                await asyncio.sleep(0.1)
            else:
                await asyncio.sleep(world.random.uniform(0.1, 8))

    async def _main(self, process: Process) -> None:
        world = self.world
        store = world.database.store(self.number, NodeFate(self, process), world.auditor, world.holders)
        engine = SimulatedEngine(self, store, world.resources_of(process))
        world.use_schedules(engine)
        self._cache = engine.scheduler.cache
        try:
            async with engine.running():
                self.engine = engine
                await self.stop.wait()
                self.engine = None
        except Exception as error:  # noqa: BLE001  # a process that ends without being asked is a finding
            world.fail(error)
        world.record(process.name, "has stopped")
        self._bury(process)

    def crash(self, why: str) -> None:
        if not self.process.is_dead:
            self.world.count("crashes")
            self.world.record(self.process.name, f"CRASHES {why}")
            self._bury(self.process)

    def forget(self) -> None:
        """Close cached coroutines here: collected later, they would be closed on no loop at all."""
        self._cache.close()

    def _bury(self, process: Process) -> None:
        self.engine = None
        self.forget()
        self.world.loop.bury(process)
        for reply in self.asked:
            if not reply.done():
                reply.set_exception(NoAnswerError("the connection was lost"))
        if not self.gone.done():
            self.gone.set_result(None)

    async def ask(self, call: Callable[[SimulatedEngine], Awaitable[T]]) -> T:
        """Call the engine as a person does, over the network. NoAnswerError leaves open what came of it."""
        engine = self.engine
        if engine is None or self.process.is_dead:
            raise NoAnswerError("nobody is there")
        reply: asyncio.Future[T] = self.world.loop.create_future()
        asked = self.asked
        asked[reply] = None
        self.process.context.copy().run(self.world.loop.create_task, _serve(engine, call, reply))
        try:
            return await asyncio.wait_for(reply, PATIENCE)
        except TimeoutError:
            raise NoAnswerError("no answer in time") from None
        finally:
            del asked[reply]


async def _serve(
    engine: SimulatedEngine, call: Callable[[SimulatedEngine], Awaitable[T]], reply: asyncio.Future[T]
) -> None:
    try:
        result = await call(engine)
    except Exception as error:  # noqa: BLE001  # the person hears of it
        if not reply.done():
            reply.set_exception(error)
            with suppress(Exception):
                reply.exception()
    else:
        if not reply.done():
            reply.set_result(result)


class NodeFate:
    """What happens to a process at its database."""

    def __init__(self, node: Node, process: Process) -> None:
        self._node = node
        self.process = process
        self._world = node.world

    async def before(self, *, writes: bool) -> None:
        world, options = self._world, self._world.options
        random = world.random.random
        await asyncio.sleep(self._delay())
        if world.is_calm:
            return
        if writes and random() < options.crash_at_write / 2:
            self._node.crash("before a write")
            await never()
        if writes and random() < options.stall_at_write:
            world.stall(self.process, 17 + 20 * random())
            await asyncio.sleep(0)
        if world.is_down or random() < (options.refused if writes else options.refused / 4):
            world.count("refused")
            raise Mishap("the seed's")

    async def after(self, *, writes: bool) -> None:
        world, options = self._world, self._world.options
        random = world.random.random
        if not world.is_calm and writes:
            if random() < options.crash_at_write / 2:
                self._node.crash("after a write")
                await never()
            if random() < options.lost_reply:
                world.count("lost replies")
                world.record(self.process.name, "never hears of it")
                await asyncio.sleep(self._delay())
                raise Mishap("the seed's, after the commit")
        if writes:
            await asyncio.sleep(self._delay())

    def committed(self, notes: list[Any]) -> None:
        world = self._world
        clock = to_micros(self._node.now())
        for changes in notes:
            if changes:
                try:
                    world.written(self.process, world.auditor.committed(changes, self.process.name, clock))
                except Violation as violation:
                    world.fail(violation)

    def arrives(self, deliver: Callable[[str], None], message: str) -> None:
        world, lost = self._world, self._world.options.lost_reply
        if world.is_calm or world.random.random() >= lost:
            world.loop.call_later(self._delay(), deliver, message, context=self.process.context.copy())

    def judge(self, batch: Append, result: Appended | Stale | Fenced) -> None:
        self._world.judge(batch, result)

    def _delay(self) -> float:
        world = self._world
        random = world.random.random
        if not world.is_calm and random() < world.options.slow_call:
            return random() * 3
        return random() * 0.02


class World:
    """One seed's."""

    def __init__(self, seed: int, database: Database) -> None:
        self.seed = seed
        self.random = Random(seed)  # noqa: S311  # it shall be repeatable
        self.options = Options.drawn(self.random)
        self.loop = VirtualLoop(self.random, shuffled=self.options.shuffled)
        self.database = database
        self.auditor = Auditor()
        self.counts: dict[str, int] = {}
        self.trace: list[tuple[float, str, str]] = []
        self.is_calm = False
        self.calm_since: datetime | None = None
        self.is_down = False
        self.holders: set[object] = set()
        self.nodes: list[Node] = []
        self._more: asyncio.Future[None] | None = None
        self.fates: dict[str, int] = {}  # how often each step fails, by its id
        self.acked: list[tuple[str, str, str, Any]] = []  # run, hook, resume id, payload: acknowledged
        self._is_planned = True
        self._planned: dict[
            str, tuple[Schedule, Callable[[Engine, datetime], Awaitable[ScheduledRun | NotStarted]]]
        ] = {}
        self.keys: dict[str, str] = {}  # the first run of each idempotency key
        self.called: set[str] = set()  # ids of the calls that an API got
        self.opened: set[str] = set()  # tokens of all hooks that are or were open
        self.bad_from = self.bad_until = 0.0  # seconds; processes born then have the bug
        self.resources_of: Callable[[Process], Mapping[type, Any]] = lambda _: {}

    def fail(self, error: BaseException) -> None:
        """Something was found: the simulation ends here."""
        if self.loop.failure is None:
            self.loop.failure = error

    # ── recording ──

    def record(self, who: str, what: str) -> None:
        self.trace.append((self.loop.time(), who, what))

    def count(self, what: str, times: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + times

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.loop.time())

    def written(self, process: Process, lines: list[tuple[str, Line]]) -> None:
        self.count("writes")
        if self._more is not None:
            self._more.set_result(None)
            self._more = None
        for run_id, line in lines:
            if line.type == "hook_created":
                self.opened.add(line.data["token"])
            elif line.type == "run_created":
                self.opened.update(hook["token"] for hook in line.data.get("hooks", ()))
            self.trace.append((self.loop.time(), process.name, f"{run_id[-6:]} {line.seq} {line.type} {line.data}"))

    def judge(self, batch: Append, result: Appended | Stale | Fenced) -> None:
        """Look at what came of an append."""
        history = self.auditor.runs[batch.run_id]
        match result:
            case Stale():
                self.count("stale appends")
            case Fenced():
                self.count("fenced writes")
                self.record("store", f"{batch.run_id[-6:]} fences epoch {batch.epoch} (it is {history.epoch})")
            case Appended(events) if events:
                line = history.lines[events[0].seq - 1]
                if line.type != events[0].type:
                    self.fail(Violation(f"{batch.run_id}: {events[0]} was answered, but {line} is in the log"))

    async def more_is_written(self) -> None:
        """Wait for the next write of any process."""
        if self._more is None:
            self._more = self.loop.create_future()
        await asyncio.shield(self._more)

    # ── asking ──

    async def ask(self, call: Callable[[SimulatedEngine], Awaitable[T]], what: str = "") -> T:
        """Ask any node once."""
        node = self.random.choice(self.nodes)
        if what:
            self.record("people", f"{what} at {node.process.name}")
        return await node.ask(call)

    async def insist(self, call: Callable[[SimulatedEngine], Awaitable[T]], what: str = "") -> T:
        """Repeat a call until it is answered, as people do after "try again". `call` must be safe to repeat."""
        from approvals_bot.errors import StoreUnavailableError

        while True:
            try:
                return await self.ask(call, what)
            except (NoAnswerError, StoreUnavailableError):
                self.count("asked again")
                await self.pause(3)

    async def twice(self, call: Callable[[SimulatedEngine], Awaitable[T]], what: str = "") -> list[T]:
        """Insist, often with two callers at the same time; return all answers."""
        if self.random.random() >= self.options.doubled:
            return [await self.insist(call, what)]
        self.count("doubled")
        return list(await asyncio.gather(self.insist(call, what), self.insist(call, what)))

    async def pause(self, most: float) -> None:
        await asyncio.sleep(self.random.random() * most)

    # ── schedules ──

    def plan(
        self, schedule: Schedule, starter: Callable[[Engine, datetime], Awaitable[ScheduledRun | NotStarted]]
    ) -> None:
        """Let all nodes have this schedule, whose runs are started like this."""
        self._planned[schedule.name] = (schedule, starter)
        for node in self.nodes:
            if node.engine is not None:
                self.use_schedules(node.engine)

    def unplan(self) -> None:
        """Take all schedules away."""
        self._is_planned = False
        for node in self.nodes:
            if node.engine is not None:
                self.use_schedules(node.engine)

    def use_schedules(self, engine: Engine) -> None:
        async def start(schedule: Schedule, at: datetime) -> ScheduledRun | NotStarted:
            return await self._planned[schedule.name][1](engine, at)

        engine.schedules.use([schedule for schedule, _ in self._planned.values() if self._is_planned], start)

    # ── playing ──

    def play(self, history: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        self.loop.play(self._play(history))

    async def _play(self, history: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        self.nodes = [Node(self, number) for number in range(self.options.nodes)]
        living = [self.loop.create_task(node.live()) for node in self.nodes]
        fate = self.loop.create_task(self._mishaps())
        try:
            await history(self)
        finally:
            for task in (*living, fate):
                task.cancel()
            for node in self.nodes:
                node.forget()

    async def release(self, random: Random) -> None:
        """Deploy a release with a bug, on one node after another, and later one without."""
        self.bad_from = random.choice((0.0, random.uniform(0, self.options.troubled / 2)))
        self.bad_until = self.bad_from + random.uniform(2, self.options.troubled)
        for at in (self.bad_from, self.bad_until):
            await asyncio.sleep(max(0.0, at - self.loop.time()))
            for node in self.nodes:
                self.record(node.process.name, "is asked to stop, for a release")
                node.stop.set()
                await asyncio.sleep(random.uniform(0, 3))

    def calm(self) -> None:
        """End all faults; stalled and dead processes come back."""
        if self.is_calm:
            return
        self.is_calm, self.is_down, self.calm_since = True, False, self.now()
        self.record("fate", "is calm from now on")
        for node in self.nodes:
            node.process.is_stalled = False

    async def _mishaps(self) -> None:
        every, random = self.options.mishap_every, self.random
        until = self.loop.time() + self.options.troubled
        while every and self.loop.time() < until:
            await asyncio.sleep(random.expovariate(1 / every))
            node = random.choice(self.nodes)
            if self.is_calm:
                return
            match random.randrange(5):
                case 0:
                    node.crash("(killed)")
                case 1 | 2:
                    self.stall(node.process, random.choice((2.0, 20.0, 40.0)))
                case 3:
                    self.count("stops")
                    self.record(node.process.name, "is asked to stop")
                    node.stop.set()
                case _:
                    self.loop.create_task(self._outage(random.uniform(0.1, 6)))
        await asyncio.sleep(max(0.0, until - self.loop.time()))
        self.calm()

    def stall(self, process: Process, seconds: float) -> None:
        """Stop it, and let it go on later, as if nothing had been."""

        def go_on() -> None:
            process.is_stalled = False
            self.record(process.name, "goes on")

        if not process.is_dead and not process.is_stalled:
            self.count("stalls")
            self.record(process.name, f"STALLS for {seconds:.0f} s")
            process.is_stalled = True
            self.loop.call_later(seconds, go_on, context=self.loop.outside.context.copy())

    async def _outage(self, seconds: float) -> None:
        self.count("outages")
        self.record("store", f"is down for {seconds:.1f} s")
        self.is_down = True
        await asyncio.sleep(seconds)
        self.is_down = False
