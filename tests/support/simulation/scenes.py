"""What people do with one run each, and what must have come of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Run, RunRecord
from approvals_bot.errors import (
    AlreadyResetError,
    HookConflictError,
    HookNotFoundError,
    RunEndedError,
    RunNotStalledError,
    StoreUnavailableError,
)
from tests.support.simulation import shapes
from tests.support.simulation.auditor import Line, Violation
from tests.support.simulation.loop import Process
from tests.support.simulation.world import NoAnswerError, SimulatedEngine, World


class SimulatedHands:
    """One process's; what they do is seen by the world."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def work(self, run_id: str, step_id: str, attempt: int) -> None:
        world = self._world
        number = step_id.rpartition(".")[2]
        history = world.auditor.runs[run_id]
        if ("step_started", int(number), attempt) not in history.once:
            world.fail(Violation(f"{step_id}: attempt {attempt} began before it was in the log"))
        if ("done", int(number)) in history.once and history.holder == self._process.name:
            world.fail(Violation(f"{step_id}: attempt {attempt} began after it was done"))
        world.count("attempts")
        if step_id not in world.fates:
            world.fates[step_id] = world.random.choice((0, 0, 0, 0, 1, 2, 3))
        patience = 0.3 if world.random.random() < 0.95 or world.is_calm else 40.0
        await world.pause(patience)
        if attempt <= world.fates[step_id]:
            raise ValueError("the seed's")

    async def send(self, token: str) -> None:
        if token not in self._world.opened:
            self._world.fail(Violation(f"{token} was sent before its hook was in the log"))


@dataclass
class Scene:
    """One run and its people. Subclasses say what people do, and what the result must be."""

    world: World
    number: int
    run_id: str = ""
    shape: ClassVar[Workflow[Any, Any]]

    async def play(self) -> None:
        world = self.world
        await world.pause(world.options.troubled / 2)
        await self.start(*self.input())
        meddling = world.loop.create_task(self.meddle())
        await self.act()
        await meddling
        await self.see_the_end()

    def input(self) -> tuple[Any, ...]:
        raise NotImplementedError

    async def act(self) -> None:
        """What people do until the run must be able to end."""

    def expected(self, lines: list[Line]) -> Any:
        """The result that this log means."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        return f"{self.shape.name.removeprefix('simulated: ')} {self.number}"

    @property
    def token(self) -> str:
        return f"token {self.number}"

    async def start(self, *args: Any) -> None:
        async def call(engine: SimulatedEngine) -> Run[Any]:
            return await engine.start(self.shape, *args, idempotency_key=self.name)

        runs = await self.world.twice(call, f"start {self.name}")
        self.run_id = self.world.keys[self.name] = self.world.auditor.before(runs[0].id)[-1]
        self.world.count("acked", len(runs))
        if len({self.world.auditor.last(run.id) for run in runs}) > 1:
            raise Violation(f"{self.name} was started as {[run.id for run in runs]}")
        self.world.record("people", f"{self.name} is {self.run_id[-6:]}")

    async def resume(self, payload: Any, resume_id: str, token: str | None = None) -> bool:
        """Give a payload, for certain. False: the hook was not open any more (or it had come already)."""
        token = token or self.token

        async def call(engine: SimulatedEngine) -> bool:
            try:
                info = await engine.resume_hook(token, payload, resume_id=resume_id)
            except HookNotFoundError:
                return False
            self.world.acked.append((info.run_id, info.hook_id, resume_id, payload))
            return True

        what = f"resume {token} with {payload} ({resume_id})"
        answers = await self.world.twice(call, what)
        self.world.count("acked", sum(answers))
        if any(answers) and self.world.random.random() < 0.1:  # much later, perhaps after the end
            await self.world.pause(20)
            if not await self.world.insist(call, f"{what} again"):
                raise Violation(f"{what} was acknowledged, and its repeat was refused")
        return any(answers)

    async def until_there_is(self, token: str) -> bool:
        """False: the run has ended instead."""
        while token not in self.world.auditor.tokens:
            if self.has_ended:
                return False
            await self.world.more_is_written()
        return True

    @property
    def has_ended(self) -> bool:
        return self.world.auditor.runs[self.last].end is not None

    @property
    def last(self) -> str:
        """The run that is in the place of the one that was started."""
        return self.world.auditor.last(self.run_id)

    async def meddle(self) -> None:
        """Few runs are cancelled, some are woken."""
        world = self.world
        if world.random.random() < 0.08:
            await world.pause(15)
            await self.cancel()
        elif world.random.random() < 0.2:
            await world.pause(10)
            await self.wake_up()

    async def cancel(self, run_id: str | None = None) -> None:
        """Cancel this run, or the scene's as it is now."""
        reason, run_id = f"by {self.name}", run_id or self.last

        async def call(engine: SimulatedEngine) -> str:
            try:
                await engine.cancel(run_id, reason)
            except RunEndedError as error:
                return error.status
            return "asked"

        status = await self.world.insist(call, f"cancel {self.name}: {run_id[-6:]}")
        chain = self.world.auditor.chain(run_id)
        asked = [history.cancellation for history in chain if history.cancellation is not None]
        if status == "asked" and not asked:
            raise Violation(f"{self.name}: it was cancelled, and the logs of {run_id} have nothing of that")
        if status != "asked" and not any(history.end and history.end.type == f"run_{status}" for history in chain):
            raise Violation(f"{self.name}: cancelling it answered {status!r}, and no log ends like that")
        self.world.count("cancelled", bool(asked))

    async def reset(self, run_id: str) -> None:
        """Reset a run to a random place in its log, as an operator does."""
        random, history = self.world.random, self.world.auditor.runs[run_id]
        to, drops = random.randrange(1, len(history.lines) + 1), random.random() < 0.25
        if drops:
            self.world.auditor.dropping.add(run_id)

        async def call(engine: SimulatedEngine) -> str | None:
            try:
                return (await engine.reset(run_id, to=to, drop_payloads=drops)).id
            except (AlreadyResetError, HookConflictError) as error:
                self.world.record("people", f"hear: {error}")
                return None

        made = await self.world.twice(call, f"reset {run_id[-6:]} to {to}{', drop' if drops else ''}")
        self.world.count("resets", sum(1 for each in made if each is not None))
        came = {each: self.world.auditor.runs[each] for each in made if each is not None}
        open_ones = [history for history in came.values() if history.end is None]
        if len(open_ones) > 1:  # the first is replaced only once it has ended
            raise Violation(f"{self.name}: {run_id} was reset, and {made} came of it")

    async def wake_up(self) -> None:
        async def call(engine: SimulatedEngine) -> int:
            self.world.auditor.waking.add(self.last)
            return await engine.wake_up(self.last)

        try:
            woken = await self.world.ask(call, f"wake {self.name}")
        except (NoAnswerError, StoreUnavailableError):
            return
        self.world.count("woken", woken)

    async def see_the_end(self) -> None:
        """Two people wait for the result: both see what the log says."""

        async def call(engine: SimulatedEngine) -> RunRecord:
            return await engine.wait(self.last, 15)

        while True:
            seen = await asyncio.gather(*(self.world.insist(call) for _ in range(2)))
            ended = [record for record in seen if record.has_ended]
            if ended:
                break
        history = self.world.auditor.runs[self.last]
        assert history.end is not None
        if history.cancellation is not None:
            if {record.status for record in ended} != {"cancelled"}:
                raise Violation(f"{self.name} was cancelled, but people saw {ended}")
            return
        result = history.end.data.get("result")
        expected = self.expected(history.lines)
        for record in ended:
            if record.status != "completed" or record.result != result or result != expected:
                raise Violation(f"{self.name} should give {expected}; log: {history.end.data}; seen: {record}")


def received(lines: list[Line]) -> list[Any]:
    return [line.data["payload"] for line in lines if line.type == "hook_received"]


class Job(Scene):
    shape = shapes.job

    def input(self) -> tuple[Any, ...]:
        return (self.world.random.randrange(1, 4),)

    def expected(self, lines: list[Line]) -> Any:
        parts = lines[0].data["input"]["parts"]
        (last,) = [line.data["id"] for line in lines if line.data.get("name") == "fragile"]
        fate = self.world.fates[f"{self.run_id}.{last}"]
        return ["first", *(f"part {i}" for i in range(parts)), "last" if fate <= 1 else "broken"]


class Decision(Scene):
    shape = shapes.decision

    def input(self) -> tuple[Any, ...]:
        return self.token, self.world.random.choice((1.0, 3.0, 10.0, 30.0))

    async def act(self) -> None:
        async def click(person: int) -> None:
            await self.world.pause(12)
            if await self.until_there_is(self.token):
                choice = self.world.random.choice(("approve", "reject"))
                await self.resume({"by": person, "choice": choice}, f"click of {person}")

        await asyncio.gather(*(click(person) for person in range(self.world.random.randrange(0, 5))))

    def expected(self, lines: list[Line]) -> Any:
        """What came first in the log: a click, or the end of the time."""
        for line in lines:
            if line.type == "hook_received":
                return line.data["payload"]
            if line.type == "wait_completed":
                break
        return {"by": "clock", "choice": "expired"}


class Ballot(Scene):
    shape = shapes.ballot
    need = 3

    def input(self) -> tuple[Any, ...]:
        return self.token, self.need

    async def act(self) -> None:
        async def vote(person: int, time: int) -> None:
            await self.world.pause(8)
            if await self.until_there_is(self.token):
                choice = self.world.random.choice(("yes", "no"))
                await self.resume({"by": f"p{person}", "choice": choice}, f"vote {person}.{time}")

        votes = [vote(person, time) for person in range(self.need) for time in range(2)]
        await asyncio.gather(*votes)

    def expected(self, lines: list[Line]) -> Any:
        votes: dict[str, str] = {}
        for vote in received(lines):
            if len(votes) < self.need:
                votes.setdefault(vote["by"], vote["choice"])
        return votes


class Impatient(Scene):
    shape = shapes.impatient

    def input(self) -> tuple[Any, ...]:
        return self.token, self.world.random.choice((0.7, 2.0, 5.0))

    async def act(self) -> None:
        if not await self.until_there_is(self.token):
            return
        for number in range(1, self.world.random.randrange(2, 6)):
            await self.world.pause(4)
            await self.resume(number, f"payload {number}")
        await self.resume(0, "the last")

    def expected(self, lines: list[Line]) -> Any:
        """All, in the order in which they came, up to the last."""
        numbers = received(lines)
        return numbers[: numbers.index(0) + 1]


class Shared(Scene):
    shape = shapes.shared
    common = "everybody's token"

    def input(self) -> tuple[Any, ...]:
        return self.common, self.world.random.randrange(1, 4)

    async def act(self) -> None:
        number = 0
        while not self.has_ended:
            number += 1
            if self.common in self.world.auditor.tokens:
                await self.resume(self.number * 1000 + number, f"{self.number}.{number}", self.common)
            await self.world.pause(2)

    def expected(self, lines: list[Line]) -> Any:
        """The first payload of each time that it had the token."""
        first: dict[int, Any] = {}
        for line in lines:
            if line.type == "hook_received":
                first.setdefault(line.data["id"], line.data["payload"])
        return list(first.values())


class Sleepy(Scene):
    shape = shapes.sleepy

    def input(self) -> tuple[Any, ...]:
        return ([self.world.random.choice((0.5, 2.0, 2.0, 7.0, 20.0)) for _ in range(3)],)

    def expected(self, lines: list[Line]) -> Any:
        """Each nap from when it was asked for to when it was over."""
        naps = lines[0].data["input"]["naps"]
        over = {line.data["id"]: line.at for line in lines if line.type == "wait_completed"}
        began = [line for line in lines if line.type == "wait_created" and line.data["kind"] == "sleep"]
        slept = [(over[line.data["id"]] - lines[0].at) / 1e6 for line in began]
        for nap, line, seconds in zip(naps, began, slept, strict=True):
            if seconds < nap and (self.run_id, line.data["id"]) not in self.world.auditor.woken:
                raise Violation(f"{self.name}: a nap of {nap} s took {seconds} s")
        return slept


class Racing(Scene):
    shape = shapes.racing

    def input(self) -> tuple[Any, ...]:
        return (self.token,)

    async def act(self) -> None:
        if await self.until_there_is(self.token):
            await self.world.pause(1.5)
            await self.resume(1, "one")
            await self.resume(2, "two")

    def expected(self, lines: list[Line]) -> Any:
        steps = {line.data["id"] for line in lines if line.data.get("name") == "toil"}
        naps = [line.data["id"] for line in lines if line.type == "wait_created"]
        for line in lines:
            if line.type == "hook_received":
                return "hook 1, 2"
            if line.type == "step_completed" and line.data["id"] in steps:
                return "step, 1"
            if line.type == "wait_completed" and line.data["id"] == naps[0]:
                return "sleep, 1"
        return None


class Desk(Scene):
    shape = shapes.desk
    calls = 3

    def input(self) -> tuple[Any, ...]:
        return (self.calls,)

    async def act(self) -> None:
        await asyncio.gather(*(self.call(f"call {number}") for number in range(self.calls)))

    async def call(self, text: str) -> None:
        await self.world.pause(10)
        while not self.has_ended and text not in self.heard():
            tokens = [line.data["token"] for line in self.lines if line.type == "hook_created"]
            if not tokens:
                await asyncio.sleep(0.3)
                continue
            token = tokens[0]

            async def post(engine: SimulatedEngine, token: str = token) -> tuple[int, bytes]:
                request = WebhookRequest(body=text.encode())
                answer = await engine.resume_webhook(token, request, timeout=8)
                return answer.status_code, bytes(answer.body)

            try:
                status, body = await self.world.ask(post, f"post {text}")
            except (NoAnswerError, StoreUnavailableError, HookNotFoundError):
                await self.world.pause(3)
                continue
            self.world.count("acked")
            if text not in self.heard():
                raise Violation(f"{self.name}: {text!r} was answered {status}, and is not in the log")
            if status != 504 and body.decode() != text.upper():
                raise Violation(f"{self.name}: {text!r} was answered {body!r}")

    @property
    def lines(self) -> list[Line]:
        return self.world.auditor.runs[self.run_id].lines

    def heard(self) -> list[str]:
        return [payload["text"] for payload in received(self.lines)]

    def expected(self, lines: list[Line]) -> Any:
        heard: list[str] = []
        for text in (payload["text"] for payload in received(lines)):
            if len(set(heard)) < self.calls:
                heard.append(text)
        return heard


class Mended(Scene):
    """A release with a bug comes and goes: nothing that was said is lost, and nothing that it did remains."""

    shape = shapes.mended
    need = 3

    def input(self) -> tuple[Any, ...]:
        return self.token, self.need

    async def act(self) -> None:
        if not await self.until_there_is(self.token):
            return
        for number in range(self.need):
            await self.world.pause(6)
            await self.resume(number, f"payload {number}")

    async def meddle(self) -> None:
        if self.world.random.random() < 0.5:
            await super().meddle()
            return
        await self.world.pause(15)

        async def call(engine: SimulatedEngine) -> bool:
            try:
                await engine.retry(self.run_id)
            except (RunNotStalledError, RunEndedError):
                return False
            return True

        self.world.count("retried", await self.world.insist(call, f"retry {self.name}"))

    def expected(self, lines: list[Line]) -> Any:
        return received(lines)[: self.need]


class Tidying(Scene):
    """Most are cancelled, and tidy up in many manners, or don't."""

    shape = shapes.tidying

    def input(self) -> tuple[Any, ...]:
        self.manner = self.world.random.choice(("raises", "returns", "fails", "swallows", "never ends"))
        return self.token, self.manner

    async def act(self) -> None:
        if await self.until_there_is(self.token):
            await self.world.pause(6)
            await self.resume("go on", "go on")

    async def meddle(self) -> None:
        if self.world.random.random() < 0.7:
            await self.world.pause(8)
            await self.cancel()

    async def see_the_end(self) -> None:
        await super().see_the_end()
        history = self.world.auditor.runs[self.run_id]
        asked, end = history.cancellation, history.end
        if asked is None or end is None or end.at >= asked.data["until"] or asked.batch == end.batch:
            return
        before = [line for line in history.lines if line.seq < asked.seq]
        over = {line.data["id"] for line in before if line.type == "step_completed"}
        if not any(line.type == "run_started" for line in before) or over.intersection(_steps(before, "second")):
            return  # it never began, or was at its end
        over = {line.data["id"] for line in history.lines if line.type == "step_completed"}
        if self.manner in ("swallows", "never ends") or not over.issuperset(_steps(history.lines, "tidied") or {0}):
            raise Violation(f"{self.name}: {self.manner}, and was ended at {end.at} before it had tidied up")

    def expected(self, lines: list[Line]) -> Any:
        return self.manner


def _steps(lines: list[Line], what: str) -> list[int]:
    return [line.data["id"] for line in lines if line.data.get("input") == {"what": what}]


SCENES: tuple[type[Scene], ...] = (Job, Decision, Decision, Ballot, Impatient, Shared, Sleepy, Racing, Desk, Tidying)


def resources(world: World, process: Process) -> Mapping[type, Any]:
    return {shapes.Hands: SimulatedHands(world, process)}
