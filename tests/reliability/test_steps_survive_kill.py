"""Steps of a real process that is killed with SIGKILL: those in line for a limit, and those made in a body."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from tests.reliability.test_engine_survives_kill import Child

MANY = 400

PARKED = f"""
import asyncio, os, sys
from datetime import timedelta
from pathlib import Path
from approvals_bot import Engine, step, workflow
from approvals_bot.durable.engine import places

folder = Path(sys.argv[1])
places.MAX_IN_LINE, places.PARKED, places.PARKED_APART = 20, timedelta(seconds=2), timedelta(milliseconds=5)

@step(limit="erp")
async def call_erp(number: int) -> int:
    with (folder / "effects").open("a") as file:
        file.write(f"{{number}}\\n")
    return number

@workflow(name="in_line")
async def in_line(number: int) -> int:
    return await call_erp(number)

async def main() -> None:
    async with Engine.open(f"sqlite:///{{folder}}/runs.db", limits={{"erp": 1}}) as engine:
        if os.environ.get("START"):
            for number in range({MANY}):
                await engine.start(in_line, number)
            print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

NAMED = """
import asyncio, os, sys
from pathlib import Path
from approvals_bot import Engine, get_step_metadata, step, workflow

folder = Path(sys.argv[1])

def made(tool: str):
    async def call(number: int) -> str:
        metadata = get_step_metadata()
        with (folder / "effects").open("a") as file:
            file.write(f"{metadata.step_id} {metadata.name}\\n")
        if os.environ.get("BLOCK") == tool:
            print("in a step", flush=True)
            await asyncio.Event().wait()
        return f"{tool} {number}"
    return step(name=f"tool:{tool}", retries=0)(call)

@workflow(name="tools")
async def tools() -> list[str]:
    found = [await made("look")(1)]
    found += await asyncio.gather(*(made(tool)(number) for number, tool in enumerate(["book", "pay"], 2)))
    return [*found, await made("look")(4)]

async def main() -> None:
    async with Engine.open(f"sqlite:///{folder}/runs.db") as engine:
        await engine.start(tools, idempotency_key="the one")
        await asyncio.Event().wait()

asyncio.run(main())
""".replace("\\\\n", "\\n")


def effects(folder: Path) -> list[str]:
    file = folder / "effects"
    return file.read_text().splitlines() if file.exists() else []


async def test_runs_parked_behind_a_limit_go_on_after_a_kill(tmp_path: Path) -> None:
    child = await Child.begin(tmp_path, PARKED, START="yes")
    await child.says("ready")
    while len(effects(tmp_path)) < MANY // 8:  # another process writes it
        await asyncio.sleep(0.01)
    await child.kill()
    child = await Child.begin(tmp_path, PARKED)
    try:
        async with Engine(await connect(f"sqlite:///{tmp_path}/runs.db")).running(work=False) as looking:
            async with asyncio.timeout(60):
                while len((await looking.records(status="completed", limit=200)).records) < 200 or (
                    (await looking.records(status="running", limit=1)).records
                ):
                    await asyncio.sleep(0.1)
        done = effects(tmp_path)
        assert sorted({int(number) for number in done}) == list(range(MANY))
        assert len(done) <= MANY + 1  # the one that ran when the process was killed
    finally:
        await child.kill()


@pytest.mark.parametrize("at", ["look", "book", "pay"])
async def test_steps_made_in_a_body_go_on_after_a_kill(tmp_path: Path, at: str) -> None:
    child = await Child.begin(tmp_path, NAMED, BLOCK=at)
    await child.says("in a step")
    await child.kill()
    before = effects(tmp_path)
    child = await Child.begin(tmp_path, NAMED)
    try:
        async with Engine(await connect(f"sqlite:///{tmp_path}/runs.db")).running(work=False) as looking:
            run = looking.get_run((await looking.records()).records[0].id)
            async with asyncio.timeout(60):
                assert await run.return_value() == ["look 1", "book 2", "pay 3", "look 4"]
            started = [event.data for event in await run.events() if event.type == "step_started"]
    finally:
        await child.kill()
    assert [data["attempt"] for data in started] == [1, 1, 1, 1]
    after = effects(tmp_path)[len(before) :]
    assert f"{run.id}.4 tool:look" in after
    assert len(set(effects(tmp_path))) == 4  # an attempt that is made again has the same ID and name
