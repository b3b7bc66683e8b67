"""Parents and children in the simulation, while parents and children are cancelled, reset and continue as new runs."""

from __future__ import annotations

import asyncio
from typing import Any

from approvals_bot.durable.core.api import continue_as_new, create_hook, sleep, workflow
from approvals_bot.durable.core.children import run_child
from approvals_bot.durable.core.commands import OnParentClose
from approvals_bot.errors import RunCancelledError
from tests.support.simulation.auditor import Line, Violation
from tests.support.simulation.scenes import Scene
from tests.support.simulation.shapes import toil

MANNERS = ("quick", "fails", "hears", "continues", "nests", "lingers")
HOWS = ("waits", "waits", "times out", "times out, abandons", "leaves", "leaves, abandons")


@workflow(name="simulated: child")
async def child(name: str, manner: str) -> str:
    """Ends soon, or at a word, or as its own child does, in this manner."""
    match manner:
        case "fails":
            await toil(f"{name} tries")
            raise ValueError(f"{name} fails")
        case "hears":
            async with create_hook() as hook:
                return str(await hook)
        case "continues":
            await toil(f"{name} goes on")
            continue_as_new(name, "hears" if name.endswith("1") else "quick")
        case "nests":
            heard: str = await run_child(child, f"{name}/0", "hears")
            return f"{name}: {heard}"
        case "lingers":
            try:
                await sleep(5)
            except asyncio.CancelledError:
                await toil(f"{name} tidies up")
                raise
        case _:
            await toil(f"{name} works")
    return name


@workflow(name="simulated: parent")
async def parent(name: str, plan: list[tuple[str, str]], together: bool, rounds: int) -> list[str]:
    """Runs children side by side or one after another, and continues as a new run while some are open."""

    async def run(number: int, manner: str, how: str) -> str:
        policy: OnParentClose = "abandon" if "abandons" in how else "cancel"
        mine = f"{name}/{number}"
        try:
            if how.startswith("times out"):
                async with asyncio.timeout(3):
                    return await run_child(child, mine, manner, on_parent_close=policy)
            return await run_child(child, mine, manner, on_parent_close=policy)
        except TimeoutError:
            return f"{mine} is late"
        except RunCancelledError:
            return f"{mine} is cancelled"
        except ValueError as error:
            return str(error)

    left, waited = list[asyncio.Task[str]](), list[asyncio.Future[str]]()
    for number, (manner, how) in enumerate(plan):
        if how.startswith("leaves"):
            left.append(asyncio.create_task(run(number, manner, how)))
        elif together:
            waited.append(asyncio.create_task(run(number, manner, how)))
        else:
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            done.set_result(await run(number, manner, how))
            waited.append(done)
    outcomes = list(await asyncio.gather(*waited))
    await toil(f"{name} looks around")
    if rounds:
        continue_as_new(f"{name}'", plan, together, rounds - 1)
    return outcomes


class Family(Scene):
    shape = parent

    def input(self) -> tuple[Any, ...]:
        random = self.world.random
        plan = [(random.choice(MANNERS), random.choice(HOWS)) for _ in range(random.randrange(1, 4))]
        return self.family, plan, random.random() < 0.6, random.choice((0, 0, 1, 2))

    @property
    def family(self) -> str:
        return f"family {self.number} "

    @property
    def members(self) -> list[str]:
        return [
            run_id
            for run_id, history in self.world.auditor.runs.items()
            if history.lines and history.lines[0].data["input"].get("name", "").startswith(self.family)
        ]

    @property
    def is_over(self) -> bool:
        return all(self.world.auditor.runs[run_id].end for run_id in self.members)

    async def act(self) -> None:
        """Talk to those who listen, until all have ended: also those that go on without their parent."""
        number = 0
        while not self.is_over:
            await self.world.pause(6)
            for run_id in self.members:
                for token in [*self.world.auditor.runs[run_id].hooks.values()]:
                    number += 1
                    await self.resume(f"word {number}", f"{self.name}, word {number}", token)

    async def meddle(self) -> None:
        """Parents and children are cancelled and reset at any time."""
        random = self.world.random
        for _ in range(random.choice((0, 0, 1, 1, 2, 3))):
            await self.world.pause(9)
            run_id = random.choice(self.members)
            if random.random() < 0.4:
                await self.cancel(run_id)
            else:
                await self.reset(run_id)

    async def see_the_end(self) -> None:
        while not self.is_over:  # a reset came late
            await self.act()
        await super().see_the_end()

    def expected(self, lines: list[Line]) -> Any:
        """What came first of each child in its parent's log: its end, or the end of the patience with it."""
        name, plan = (lines[0].data["input"][key] for key in ("name", "plan"))
        started = {line.data["input"]["name"]: line.data["id"] for line in lines if line.type == "child_started"}
        outcomes = []
        for number, (_, how) in enumerate(plan):
            if not how.startswith("leaves"):
                mine = f"{name}/{number}"
                outcomes.append(_outcome(lines, mine, started.get(mine), how))
        return outcomes


def _outcome(lines: list[Line], name: str, number: int | None, how: str) -> str:
    is_timed = how.startswith("times out")
    if number is None and is_timed:  # its time was over before it had begun: a reset came in between
        return f"{name} is late"
    for line in lines:
        if line.type == "wait_completed" and is_timed and line.data["id"] == (number or 0) - 1:
            return f"{name} is late"
        if line.type == "child_ended" and line.data["id"] == number:
            match line.data["status"]:
                case "completed":
                    return str(line.data["result"])
                case "failed" if line.data["error"]["type"] == "ValueError":
                    return f"{name} fails"
                case _:  # or it failed because its own child was cancelled
                    return f"{name} is cancelled"
    raise Violation(f"the parent of {name} has ended, and hasn't heard of it")
