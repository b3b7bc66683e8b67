"""The common cycle on Restate: its server, a Python SDK service on hypercorn, and an awakeable resolved over HTTP.

    python benchmarks/others/restate_cycle.py SERVER FOLDER --cycles 200 --at-once 50

SERVER is the program from npm. Client and service share a process; the server's CPU time is measured separately. As in
the SDK's documentation, the client sends the invocation, resolves the awakeable over the ingress, and attaches to the
result, each in one request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import httpx
import hypercorn.asyncio
import hypercorn.config
import restate

from benchmarks.measures import cpu_of, own_cpu, percentile

opened: dict[str, asyncio.Future[str]] = {}
cycles = restate.Service("cycles")


async def add(a, b):
    return a + b


@cycles.handler()
async def run(ctx: restate.Context, key: str) -> dict:
    first = await ctx.run_typed("first", add, restate.RunOptions(), 1, 1)
    name, decided = ctx.awakeable()
    if key in opened and not opened[key].done():
        opened[key].set_result(name)  # gives the client the name without the cost of another step
    answer = await decided
    total = await ctx.run_typed("second", add, restate.RunOptions(), first, 1)
    return {"sum": total, "approved": answer["approved"], "comment": answer["comment"]}


async def one(client, ingress, resumed, whole):
    key = uuid.uuid4().hex
    opened[key] = asyncio.get_running_loop().create_future()
    began = time.perf_counter()
    result = asyncio.create_task(client.post(f"{ingress}/cycles/run", json=key))
    name = await opened[key]
    sent = time.perf_counter()
    answer = await client.post(
        f"{ingress}/restate/awakeables/{name}/resolve", json={"approved": True, "comment": "fine"}
    )
    answer.raise_for_status()
    found = (await result).json()
    ended = time.perf_counter()
    del opened[key]
    assert found["sum"] == 3, found
    resumed.append(ended - sent)
    whole.append(ended - began)


async def measure(client, ingress, server, count, at_once):
    resumed, whole, room = [], [], asyncio.Semaphore(at_once)

    async def limited():
        async with room:
            await one(client, ingress, resumed, whole)

    began, cpu, served = time.perf_counter(), own_cpu(), cpu_of(server, family=True)
    await asyncio.gather(*(limited() for _ in range(count)))
    return {
        "cycles": count,
        "seconds": time.perf_counter() - began,
        "cpu": own_cpu() - cpu,
        "server_cpu": cpu_of(server, family=True) - served,
        "resumed_p50": percentile(resumed, 0.5),
        "resumed_p99": percentile(resumed, 0.99),
        "whole_p50": percentile(whole, 0.5),
    }


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


async def ready(client, url, seconds=60):
    until = time.monotonic() + seconds
    while True:
        try:
            if (await client.get(url)).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > until:
            raise RuntimeError(f"{url} is not ready after {seconds} s")
        await asyncio.sleep(0.1)


async def main(given):
    ingress, admin, node, service = (free_port() for _ in range(4))
    environment = os.environ | {
        "RESTATE_BASE_DIR": given.folder,
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RUST_LOG": "error",
        "DO_NOT_TRACK": "1",
    }
    log = Path(given.folder) / "server.log"
    with ExitStack() as stack:
        output = stack.enter_context(log.open("w"))
        server = stack.enter_context(
            subprocess.Popen([given.server], env=environment, cwd=given.folder, stdout=output, stderr=output)  # noqa: ASYNC220
        )
        stack.callback(server.kill)
        config = hypercorn.config.Config()
        config.bind = [f"127.0.0.1:{service}"]
        stop = asyncio.Event()
        serving = asyncio.create_task(
            hypercorn.asyncio.serve(restate.app([cycles]), config, shutdown_trigger=stop.wait)
        )
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
            try:
                await ready(client, f"http://127.0.0.1:{admin}/health")
                answer = await client.post(
                    f"http://127.0.0.1:{admin}/deployments", json={"uri": f"http://127.0.0.1:{service}"}
                )
                answer.raise_for_status()
                url = f"http://127.0.0.1:{ingress}"
                await ready(client, f"{url}/restate/health")
                await measure(client, url, server.pid, 5, 5)
                many = await measure(client, url, server.pid, given.cycles, given.at_once)
                alone = await measure(client, url, server.pid, max(5, given.cycles // 10), 1)
            except BaseException:
                sys.stderr.write(log.read_text()[-1500:])
                raise
            print(json.dumps({"many": many, "alone": alone}), flush=True)
        stop.set()
        await serving


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("server")
    options.add_argument("folder")
    options.add_argument("--cycles", type=int, default=200)
    options.add_argument("--at-once", type=int, default=50)
    asyncio.run(main(options.parse_args()))
