"""The common cycle on DBOS: asynchronous steps, `recv` and `send`, as in its tutorial on communication.

    python benchmarks/others/dbos_cycle.py URL --cycles 200 --at-once 50 [--fast] [--commits]

`--fast` uses its fastest settings: the notification listener and the wait for results poll every 10 ms instead of every
second. On PostgreSQL, both variants use LISTEN/NOTIFY, its default.
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

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from dbos import DBOS, DBOSConfig

from benchmarks.measures import SqliteCommits, many


@DBOS.step()
async def add(a, b):
    return a + b


@DBOS.workflow()
async def cycle():
    first = await add(1, 1)
    answer = await DBOS.recv_async("decision", timeout_seconds=300)
    return {"sum": await add(first, 1), "approved": answer["approved"], "comment": answer["comment"]}


async def one(polling, resumed, whole):
    began = time.perf_counter()
    handle = await DBOS.start_workflow_async(cycle)
    sent = time.perf_counter()
    await DBOS.send_async(handle.workflow_id, {"approved": True, "comment": "fine"}, "decision")
    result = await handle.get_result(polling_interval_sec=polling)
    ended = time.perf_counter()
    assert result["sum"] == 3, result
    resumed.append(ended - sent)
    whole.append(ended - began)


async def measure(given, commits):
    cycle = partial(one, 0.01 if given.fast else 1.0)
    await cycle([], [])
    return await many(cycle, given.cycles, given.at_once, commits)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("url")
    options.add_argument("--cycles", type=int, default=200)
    options.add_argument("--at-once", type=int, default=50)
    options.add_argument("--fast", action="store_true")
    options.add_argument("--commits", action="store_true")
    given = options.parse_args()
    commits = SqliteCommits()
    if given.commits:
        commits.watch()
    config: DBOSConfig = {
        "name": f"bench-{uuid.uuid4().hex[:8]}",
        "system_database_url": given.url,
        "log_level": "ERROR",
    }
    if given.fast:
        config["notification_listener_polling_interval_sec"] = 0.01
    DBOS(config=config)
    DBOS.launch()
    found = asyncio.run(measure(given, commits))
    print(json.dumps(found), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
