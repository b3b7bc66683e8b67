"""Workflows that continue as new runs, and are reset, while payloads come all the time: by token, by the hook's ID, and
by `start_or_resume`, which starts the run that isn't there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from approvals_bot.durable.core.api import (
    continue_as_new,
    create_hook,
    create_webhook,
    publish,
    set_attributes,
    workflow,
)
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Run
from approvals_bot.errors import HookConflictError, HookNotFoundError
from tests.support.simulation.auditor import Line, RunHistory, Violation
from tests.support.simulation.scenes import Scene
from tests.support.simulation.shapes import toil
from tests.support.simulation.world import SimulatedEngine, World


@workflow(name="simulated: mailbox")
async def mailbox(
    token: str, most: int, at_once: int, taken: list[int] | None = None, secret: str | None = None
) -> list[int]:
    """Takes payloads in order, a few in each run, until it has enough or nobody has sent one for long."""
    taken = taken or []
    is_webhook = token.startswith("link")
    if secret is None:
        hook: Any = create_webhook(metadata=token) if is_webhook else create_hook(token=token)
    else:
        hook = create_hook(token=secret)
    for _ in range(at_once):
        set_attributes({"taken": len(taken), "odd": "odd" if len(taken) % 2 else None})
        publish({"taken": len(taken)})
        try:
            payload = await asyncio.wait_for(hook, 30)
        except TimeoutError:
            break
        taken.append(json.loads(await payload.text()) if is_webhook else payload)
        if taken[-1] % 3 == 0:
            await toil(f"note {taken[-1]}")
        if len(taken) >= most:
            break
    else:
        continue_as_new(token, most, at_once, taken, secret or hook.token)
    hook.dispose()
    await toil("put away")
    return taken


class Mailbox(Scene):
    """Several people send at once, and all of it is taken once, in the order in which it came."""

    shape = mailbox

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.manner = world.random.choice(("plain", "claims", "claims", "storm", "storm", "link"))
        self.sent = 0

    @property
    def token(self) -> str:
        return f"{'link' if self.manner == 'link' else 'box'} {self.number}"

    @property
    def runs(self) -> dict[str, RunHistory]:
        """All of this token, also those that came when others had ended."""
        return {
            run_id: history
            for run_id, history in self.world.auditor.runs.items()
            if history.lines and history.lines[0].data["input"].get("token") == self.token
        }

    @property
    def is_over(self) -> bool:
        return all(history.end for history in self.runs.values())

    @property
    def has_ended(self) -> bool:
        return self.is_over

    def input(self) -> tuple[Any, ...]:
        return self.token, self.world.random.randrange(2, 8), self.world.random.randrange(1, 4)

    async def play(self) -> None:
        world = self.world
        await world.pause(world.options.troubled / 2)
        arguments = self.input()
        if self.manner in ("plain", "link"):
            await self.start(*arguments)
        elif self.manner == "claims":
            await self.claim(arguments)
        meddling = world.loop.create_task(self.meddle())
        people = range(world.random.randrange(1, 4))
        await asyncio.gather(*(self.send(person, arguments) for person in people))
        await meddling
        await self.see_the_end()

    async def meddle(self) -> None:
        """Few are reset while people send, and some when they have ended."""
        random = self.world.random
        if random.random() < 0.6:
            return
        for _ in range(random.randrange(1, 3)):
            await self.world.pause(12)
            if runs := self.runs:
                await self.reset(random.choice([*runs, self.last, self.last]))

    async def claim(self, arguments: tuple[Any, ...]) -> None:
        """Start runs that want the same token from the beginning: only one gets it."""

        async def call(engine: SimulatedEngine) -> str | None:
            try:
                return (await start(engine)).id
            except HookConflictError:
                return None

        async def start(engine: SimulatedEngine) -> Run[Any]:
            return await engine.start("simulated: mailbox", *arguments, hook_token=self.token)

        for run_id in await self.world.twice(call, f"start with {self.token}"):
            if run_id is not None:
                self.world.count("claimed")

    async def send(self, person: int, arguments: Sequence[Any]) -> None:
        for number in range(self.world.random.randrange(1, 5)):
            await self.world.pause(5)
            payload, resume_id = person * 10 + number, f"{self.name}, {person}.{number}"
            if self.manner == "link":
                await self.post(payload, resume_id)
            elif self.manner == "storm" or (self.manner == "claims" and self.world.random.random() < 0.4):
                await self.start_or_resume(payload, resume_id, arguments)
            else:
                await self.resume(payload, resume_id)

    async def start_or_resume(self, payload: int, resume_id: str, arguments: Sequence[Any]) -> None:
        async def call(engine: SimulatedEngine) -> tuple[str, str]:
            info = await engine.start_or_resume(self.token, payload, mailbox, *arguments, resume_id=resume_id)
            self.world.acked.append((info.run_id, info.hook_id, resume_id, payload))
            return info.run_id, info.hook_id

        answers = await self.world.twice(call, f"start or resume {self.token} with {payload} ({resume_id})")
        self.world.count("acked", len(answers))
        self.world.count("started or resumed", len(answers))
        if len({hook_id for _, hook_id in answers}) > 1:
            raise Violation(f"{resume_id} was delivered to {answers}")

    async def post(self, payload: int, resume_id: str) -> None:
        """Send to the hook, wherever that has moved to."""
        while not (hooks := self.hooks()):
            if self.is_over:
                return
            await self.world.more_is_written()
        hook_id = hooks[0]

        async def call(engine: SimulatedEngine) -> bool:
            target = await engine.find(hook_id)
            if target is None:
                raise Violation(f"{self.name}: there is no hook {hook_id}")
            try:
                await engine.resume_webhook(target, WebhookRequest(body=str(payload).encode()), resume_id=resume_id)
            except HookNotFoundError:
                return False
            return True

        answers = await self.world.twice(call, f"post {payload} to {self.token} ({resume_id})")
        self.world.count("acked", sum(answers))
        came = [resume_id for resume_id, _ in _came(self.runs)]
        if any(answers) != (resume_id in came):
            raise Violation(f"{self.name}: {resume_id} was answered {answers}; the logs have {came}")

    def hooks(self) -> list[str]:
        lines = [line for history in self.runs.values() for line in history.lines]
        return [line.data["hook_id"] for line in lines if line.type == "hook_created" and "adopts" not in line.data]

    @property
    def last(self) -> str:
        """The run that has the token, or had it last."""
        return next(reversed(self.runs), "") if self.manner in ("claims", "storm") else super().last

    async def see_the_end(self) -> None:
        while not self.is_over:
            await self.world.more_is_written()
        if self.run_id and self.manner != "claims":
            await super().see_the_end()
        for run_id, history in self.runs.items():
            self.judge(run_id, history)

    def judge(self, run_id: str, history: RunHistory) -> None:
        """What a run has taken is what came to it, after what the run before had taken."""
        assert history.end is not None
        given = list(history.lines[0].data["input"].get("taken") or [])
        came = [_text(line) for line in history.lines if line.type == "hook_received"]
        if history.end.type == "run_continued":
            following = self.world.auditor.runs[history.end.data["next"]]
            moved = [_text(line) for line in following.lines[: following.copied] if line.type == "hook_received"]
            taken = list(following.lines[0].data["input"]["taken"])
            if taken + moved != given + came:
                raise Violation(f"{run_id} had {given + came}; after it, {taken} is taken, and {moved} has moved")
            self.world.count("continued")
        elif history.end.type == "run_completed":
            result, most = history.end.data["result"], history.lines[0].data["input"]["most"]
            late = [line.seq for line in history.lines if line.type == "wait_completed"]
            in_time = [
                _text(line)
                for line in history.lines
                if line.type == "hook_received" and line.seq < max(late, default=0)
            ]
            if result != (given + came)[: len(result)] or len(result) < min(most, len(given + in_time)):
                raise Violation(f"{run_id} has taken {result} of {given + came}, at most {most}")

    def expected(self, lines: list[Line]) -> Any:
        return lines[-1].data.get("result")


def _text(line: Line) -> int:
    payload = line.data["payload"]
    return int(payload["text"]) if isinstance(payload, dict) else int(payload)


def _came(runs: dict[str, RunHistory]) -> list[tuple[str, int]]:
    lines = [line for history in runs.values() for line in history.lines]
    return [(line.data["resume_id"], _text(line)) for line in lines if line.type == "hook_received"]
