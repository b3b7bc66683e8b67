"""A real process, killed with SIGKILL in each state of a run. The next one goes on; nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from approvals_bot import HookNotFoundError
from approvals_bot.durable.engine import Engine

CHILD = """
import asyncio, os, sys
from pathlib import Path
from approvals_bot import Engine, create_hook, get_step_metadata, sleep, step, workflow
from approvals_bot.durable.store import connect

folder = Path(sys.argv[1])

@step(retries=0)
async def slow(name: str) -> str:
    with (folder / "effects").open("a") as file:
        file.write(f"{get_step_metadata().step_id} {name}\\n")
    if os.environ.get("BLOCK") == name:
        print("in a step", flush=True)
        await asyncio.Event().wait()
    return name

@workflow(name="job")
async def job() -> list[str]:
    first = await slow("first")
    await sleep(0.3)
    answer = await create_hook(token="answer")
    return [first, answer, await slow("last")]

async def main() -> None:
    if os.environ.get("START") == "pending":
        async with Engine(await connect(f"sqlite:///{folder}/runs.db")).running(work=False) as engine:
            await engine.start(job, idempotency_key="the one")
            print("started", flush=True)
            os.kill(os.getpid(), 9)
    async with Engine.open(f"sqlite:///{folder}/runs.db") as engine:
        if os.environ.get("START"):
            await engine.start(job, idempotency_key="the one")
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Child:
    """The service, as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._said: set[str] = set()

    @classmethod
    async def begin(cls, folder: Path, program: str = CHILD, **environment: str) -> Child:
        (folder / "service.py").write_text(program)
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, str(folder / "service.py"), str(folder),
                env=os.environ | environment, stdout=asyncio.subprocess.PIPE,
            )
        )  # fmt: skip

    async def says(self, words: str) -> None:
        """Return once it has said this, before or after anything else."""
        assert self.process.stdout is not None
        while words not in self._said:
            line = await asyncio.wait_for(self.process.stdout.readline(), 30)
            assert line, f"the process ended before it said {words!r}"
            self._said.add(line.decode().strip())

    async def kill(self) -> None:
        # Not send_signal: that polls first, and a poll that finds the process dead takes the exit code from asyncio.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        assert await self.process.wait() == -signal.SIGKILL


async def state(engine: Engine) -> list[str]:
    records = (await engine.records()).records
    return [e.type for e in await engine.events(records[0].id)] if records else []


async def seen(engine: Engine, *types: str) -> None:
    async with asyncio.timeout(40):
        for type in types:
            while type not in (found := await state(engine)):
                assert "run_failed" not in found
                assert not (await engine.records(status="stalled")).records
                await asyncio.sleep(0.01)


@pytest.mark.promise(1)
@pytest.mark.parametrize("where", ["pending", "in a step", "asleep", "on a hook", "between click and resume"])
@pytest.mark.conformance(129)
async def test_another_process_continues_after_a_kill(tmp_path: Path, where: str) -> None:
    environment = {"START": where if where == "pending" else "yes"}
    if where == "in a step":
        environment["BLOCK"] = "first"
    if where == "between click and resume":
        environment["BLOCK"] = "last"
    child = await Child.begin(tmp_path, **environment)
    await child.says("started" if where == "pending" else "ready")
    from approvals_bot.durable.store import connect

    looking = Engine(await connect(f"sqlite:///{tmp_path}/runs.db"))
    async with looking.running(work=False):
        match where:
            case "in a step":
                await child.says("in a step")
            case "asleep":
                await seen(looking, "wait_created")
            case "on a hook" | "between click and resume":
                await seen(looking, "hook_created")
        if where == "between click and resume":
            await looking.resume_hook("answer", "yes", resume_id="click")
            await child.says("in a step")
        await child.kill()
        child = await Child.begin(tmp_path, START="yes")
        try:
            await child.says("ready")
            await seen(looking, "hook_created")
            try:
                await looking.resume_hook("answer", "yes", resume_id="click")
            except HookNotFoundError:
                assert where == "between click and resume"
            (record,) = (await looking.records()).records
            ended = await asyncio.wait_for(looking.wait(record.id), 30)
            assert (ended.status, ended.result) == ("completed", ["first", "yes", "last"])
            log = await looking.events(record.id)
            assert sum(e.type == "hook_received" for e in log) == 1
            assert sum(e.type == "step_completed" for e in log) == 2
            effects = (tmp_path / "effects").read_text().split("\n")[:-1]
            assert len(set(effects)) == 2
            assert len(effects) == (3 if where in ("in a step", "between click and resume") else 2)
        finally:
            await child.kill()
