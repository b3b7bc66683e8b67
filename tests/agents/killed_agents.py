"""A process with agents of two frameworks that is killed: `python -m tests.agents.killed_agents FOLDER`.

$BLOCK says where each agent gets stuck, after which "ready" is printed. Without it, the runs end and are printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from approvals_bot import workflow
from approvals_bot.agents.langgraph import hold as hold_graph
from approvals_bot.agents.openai import durable, hold
from approvals_bot.service.read import requests_of
from tests.agents.deciding import decide
from tests.agents.langgraph_travel import Travel
from tests.agents.openai_travel import travel_agent
from tests.approvals.conftest import ANN, make_office

held, called = travel_agent("held: "), durable(travel_agent("durable: "))
graphs = {mode: Travel(mode, mark=f"{mode}: ") for mode in ("batched", "per_call")}
KINDS = ("held", "durable", *graphs)


@workflow(name="killed agents: travel")
async def travels(kind: str) -> list[str]:
    if kind in graphs:
        values = await hold_graph(graphs[kind].graph, kind, {"messages": [("user", "to Oslo")]}, to=ANN)
        text = values["messages"][-1]["content"]
    else:
        text = await hold(held if kind == "held" else called, "to Oslo", to=ANN)
    outputs: list[str] = json.loads(text)
    return outputs


async def approve_all(office: Any, run_id: str) -> None:
    record = await office.engine.record(run_id)
    for view in requests_of(record):
        if view.state == "waiting":
            await decide(office, view, "approve")


def is_stuck(folder: Path, block: str) -> bool:
    """Whether each agent has come to where it gets stuck, and what is beside that is over.

    In `per_call` mode, an answer that comes while the graph is busy with another one waits for it.
    """
    effects = (folder / "effects").read_text().splitlines() if (folder / "effects").exists() else []
    wanted = [f"{kind}: {block}" for kind in KINDS]
    if block != "model":
        wanted += [f"{kind}: book LH1" for kind in KINDS]
        wanted += [f"{kind}: book LH3" for kind in KINDS if kind != "per_call"]
    return set(wanted) <= set(effects)


async def main(folder: Path) -> None:
    block = os.environ.get("BLOCK", "")
    Travel.path = folder / "threads.db"
    office = make_office(f"sqlite:///{folder}/runs.db")
    async with office.open():
        runs = {kind: await office.engine.start(travels, kind, idempotency_key=kind) for kind in KINDS}
        while block and not is_stuck(folder, block):
            for run in runs.values():
                await approve_all(office, run.id)
            await asyncio.sleep(0.05)
        if block:
            await asyncio.sleep(0.3)  # results beside it are recorded
            print("ready", flush=True)
            await asyncio.Event().wait()
        ended = asyncio.gather(*(run.return_value() for run in runs.values()))
        while not ended.done():
            for run in runs.values():
                await approve_all(office, run.id)
            await asyncio.wait([ended], timeout=0.05)
        records = [await office.engine.record(run.id) for run in runs.values()]
        requests = [len(requests_of(record)) for record in records if record is not None]
        print(json.dumps([dict(zip(KINDS, await ended, strict=True)), requests]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
