"""Measures how soon a Slack click is acknowledged while Slack's API is down and a thousand cards are waiting.

    python -m benchmarks.slack_ack [--waiting 1000] [--clicks 500] [--rate 20] [--down hang|refuse]

The service from `open_service` runs behind uvicorn, with a fake Slack API that answers once (so that the service knows
its workspace) and then hangs or breaks every connection. Clicks are signed and arrive on a schedule, as people's do,
even if earlier ones haven't been acknowledged. Service and clients share this process, so the figures include both.
Every click must decide its request, or else the measurement fails.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from approvals_bot.durable.engine import Engine, RunRecord
from benchmarks.acme import CI_KEY, click, serving

TARGET = 500.0  # milliseconds at the 99th percentile


@dataclass
class Slack:
    """A fake Slack API: `up`, or every call hangs, or every connection breaks."""

    state: str = "up"
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        if self.state != "up":
            self.calls += 1
            if self.state == "hang":
                await self.hanging.wait()
            if request.transport is not None:
                request.transport.close()
        match request.match_info["method"]:
            case "auth.test":
                return web.json_response(
                    {"ok": True, "team_id": "T1", "app_id": "A1", "user_id": "UBOT", "bot_id": "B1"}
                )
            case _:
                return web.json_response({"ok": False, "error": "internal_error"})


@asynccontextmanager
async def serving_slack(slack: Slack) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/api/{method}", slack.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/api/"
    finally:
        slack.hanging.set()
        await runner.cleanup()


async def open_requests(session: aiohttp.ClientSession, url: str, count: int) -> list[str]:
    room = asyncio.Semaphore(20)

    async def one(number: int) -> str:
        body = {"workflow": "deploy-0", "input": {"version": str(number)}}
        async with (
            room,
            session.post(f"{url}/api/runs", json=body, headers={"Authorization": f"Bearer {CI_KEY}"}) as answer,
        ):
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["run_id"])

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def hooks_of(engine: Engine, runs: Sequence[str]) -> list[str]:
    """Return each request's hook once it waits for votes."""
    found = []
    for run in runs:
        while (record := await engine.record(run)) is None or not _request(record).get("waiting_for"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        found.append(str(_request(record)["hook_id"]))
    return found


def _request(record: RunRecord) -> dict[str, Any]:
    """Return the run's request, if it has published one yet."""
    return record.parts[0] if record.parts else {}


async def waiting(engine: Engine, runs: Sequence[str]) -> int:
    """Count the requests whose card isn't delivered yet."""
    records = [await engine.record(run) for run in runs]
    views = [_request(record) for record in records if record is not None]
    return sum(any(copy["state"] in ("sending", "retrying") for copy in view.get("deliveries", ())) for view in views)


async def press(session: aiohttp.ClientSession, url: str, hook: str, number: int) -> float:
    """Send a signed click and return the milliseconds until it was acknowledged."""
    body, headers = click(hook, number)
    began = time.perf_counter()
    async with session.post(f"{url}/slack/events", data=body, headers=headers) as answer:
        await answer.read()
        assert answer.status == 200, answer.status
    return (time.perf_counter() - began) * 1000


async def clicks(session: aiohttp.ClientSession, url: str, hooks: Sequence[str], rate: float) -> list[float]:
    began, sent = time.perf_counter(), []
    for number, hook in enumerate(hooks):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        sent.append(asyncio.create_task(press(session, url, hook, number)))
    return list(await asyncio.gather(*sent))


async def measure(down: str, count: int, clicked: int, rate: float) -> bool:
    slack = Slack()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            serving_slack(slack) as api,
            serving(Path(folder), api, channels=1) as (url, engine),
            aiohttp.ClientSession() as session,
        ):
            first = await open_requests(session, url, 1)
            await press(session, url, (await hooks_of(engine, first))[0], 0)  # the service learns its workspace
            slack.state = down
            runs = await open_requests(session, url, count + clicked)
            hooks = await hooks_of(engine, runs[:clicked])
            await asyncio.sleep(2)  # the first attempts have been made
            before, calls = await waiting(engine, runs), slack.calls
            took = sorted(await clicks(session, url, hooks, rate))
            after = await waiting(engine, runs[clicked:])
            decided = [await engine.record(run) for run in runs[:clicked]]
            votes = sum(_request(one).get("state") == "approved" for one in decided if one is not None)
    p50, p99 = took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.99))]
    sys.stdout.write(
        f"{down:>7}: {len(took)} clicks at {rate:g}/s, ack p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {took[-1]:.0f} ms; "
        f"{votes} decided; {before} cards waited before, {after} of {count} after; {calls}+ failed calls to Slack\n"
    )
    return votes == clicked and before >= count and after == count and p99 < TARGET


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--waiting", type=int, default=1_000, help="waiting cards")
    options.add_argument("--clicks", type=int, default=500)
    options.add_argument("--rate", type=float, default=20.0, help="clicks per second")
    options.add_argument("--down", choices=("hang", "refuse", "both"), default="both")
    given = options.parse_args()
    logging.disable(logging.ERROR)  # a warning for each failed call would be measured too
    ways = ("hang", "refuse") if given.down == "both" else (given.down,)
    good = [asyncio.run(measure(way, given.waiting, given.clicks, given.rate)) for way in ways]
    sys.exit(
        0 if all(good) else f"missed the target: all clicks counted, all cards still waiting, and p99 < {TARGET:g} ms"
    )


if __name__ == "__main__":
    main()
