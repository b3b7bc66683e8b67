"""The common cycle on LangGraph: three nodes. The middle one calls `interrupt` and is resumed by `Command(resume=…)`.

    python benchmarks/others/langgraph_cycle.py FILE --cycles 200 --at-once 50 --durability sync [--commits]

Written as in its documentation on persistence and interrupts, with the asynchronous SQLite checkpointer, which sets WAL
and leaves `synchronous` at SQLite's FULL. `durability`: "sync" writes each step before the next one, "async", the
default, writes it concurrently, and "exit" writes only when the run pauses or ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TypedDict

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from benchmarks.measures import SqliteCommits, many


class State(TypedDict, total=False):
    sum: int
    approved: bool
    comment: str


async def first(state: State) -> State:
    return {"sum": 2}


async def wait(state: State) -> State:
    answer = interrupt({"question": "approve?"})
    return {"approved": answer["approved"], "comment": answer["comment"]}


async def second(state: State) -> State:
    return {"sum": state["sum"] + 1}


def build(saver):
    graph = StateGraph(State)
    for name, node in (("first", first), ("wait", wait), ("second", second)):
        graph.add_node(name, node)
    for before, after in ((START, "first"), ("first", "wait"), ("wait", "second"), ("second", END)):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


async def one(graph, durability, resumed, whole):
    config = {"configurable": {"thread_id": uuid.uuid4().hex}}
    began = time.perf_counter()
    await graph.ainvoke({"sum": 1}, config, durability=durability)
    sent = time.perf_counter()
    result = await graph.ainvoke(Command(resume={"approved": True, "comment": "fine"}), config, durability=durability)
    ended = time.perf_counter()
    assert result["sum"] == 3, result
    resumed.append(ended - sent)
    whole.append(ended - began)


async def measure(given, commits):
    async with AsyncSqliteSaver.from_conn_string(given.file) as saver:
        cycle = partial(one, build(saver), given.durability)
        await cycle([], [])
        return await many(cycle, given.cycles, given.at_once, commits)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("file")
    options.add_argument("--cycles", type=int, default=200)
    options.add_argument("--at-once", type=int, default=50)
    options.add_argument("--durability", choices=("sync", "async", "exit"), default="async")
    options.add_argument("--commits", action="store_true")
    given = options.parse_args()
    commits = SqliteCommits()
    if given.commits:
        commits.watch()
    print(json.dumps(asyncio.run(measure(given, commits))), flush=True)


if __name__ == "__main__":
    main()
