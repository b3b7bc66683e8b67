"""Execution order is the same in every process, whatever its hash seed and the addresses of its objects."""

from __future__ import annotations

import os
import subprocess
import sys

CANCELS_TEN = """
import asyncio
from asyncio import as_completed
junk = [object() for _ in range({junk})]  # moves what comes after to other addresses
import anyio
from approvals_bot import create_hook, step, workflow
from approvals_bot.testing import History

@step
async def compensate(number: int) -> None: ...

@workflow
async def ten() -> None:
    async def one(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await compensate(number)
            raise
    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(one(number))
        await asyncio.sleep(1)
        raise RuntimeError("stop")

@workflow
async def scoped() -> None:
    async def one(number: int) -> None:
        with anyio.move_on_after(3600):
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await compensate(number)
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number)
        await create_hook(token="stop")
        group.cancel_scope.cancel()

@workflow
async def completing() -> None:
    for each in as_completed([compensate(n) for n in range(10)]):
        await each

run = History(ten)
run.decide()
run.fire(1 if run.log[-1].data["id"] == 1 else min(
    (e.data for e in run.log if e.type == "wait_created"), key=lambda d: d["resume_at"])["id"])
run.decide()
print([(e.type, e.data.get("id"), e.data.get("input")) for e in run.log])
third = History(scoped)
third.decide()
third.receive(1)
third.decide()
print([e.data["input"]["number"] for e in third.log if e.type == "step_created"])
other = History(completing)
other.decide()
print([e.data["input"]["number"] for e in other.log if e.type == "step_created"])
"""


def in_a_process(seed: int) -> str:
    return subprocess.run(
        [sys.executable, "-c", CANCELS_TEN.replace("{junk}", str(1 + seed * 17))],
        env=os.environ | {"PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_task_group_is_cancelled_in_the_same_order_everywhere() -> None:
    said = {in_a_process(seed) for seed in (0, 1, 2, 3)}
    assert len(said) == 1
    log, *births = said.pop().splitlines()
    assert log.count("step_created") == 10
    assert births == ["[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"] * 2, "of a group of anyio, and of as_completed"
