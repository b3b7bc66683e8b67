"""Whole approvals with Slack: opened over the API, card posted, a button pressed, card updated.

The stand-in for Slack runs here, so it knows when a card has arrived, and presses its button. One after the other, it
waits a moment before that, as people do, so the run has paused. With twenty at a time, it presses at once.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import uvloop
from aiohttp import web

from benchmarks.acme import CHANNELS
from benchmarks.fake_slack import answer_to
from benchmarks.loader import Connection, request
from benchmarks.measures import cpu_of, percentile
from benchmarks.parts.part import Figures, Scale, main, say
from benchmarks.parts.served import AS_CI, Served, served

MAY_DECIDE = 3
AT_ONCE = 20
PAUSE = 0.1  # seconds between a card and its press, alone
FIRST = 60  # approvals that aren't measured: every kind of call has been made, and templates are compiled


@dataclass
class Presses:
    """What was measured: seconds from each press to its acknowledgement, and those of all approvals together."""

    acknowledged: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Slack:
    """A fake of Slack's API, and the cards that arrive there."""

    def __init__(self) -> None:
        self.cards: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)  # hooks, by run
        self.updates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)  # by hook
        self._hooks: dict[str, str] = {}  # by the message's ts

    async def answer(self, call: web.Request) -> web.Response:
        given: dict[str, Any] = await call.json() if call.method == "POST" else {**call.query}
        answer = answer_to(call.match_info["method"], given)
        match call.match_info["method"]:
            case "chat.postMessage":
                run = given["metadata"]["event_payload"]["delivery_id"].partition("-")[0]
                self._hooks[str(answer["ts"])] = hook = next(_buttons(given["blocks"]))
                self.cards[run].put_nowait(hook)
            case "chat.update":
                self.updates[self._hooks[given["ts"]]].set()
            case _:
                pass
        return web.json_response({"ok": True} | answer)

    @asynccontextmanager
    async def serving(self, bound: socket.socket) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/api/{method}", self.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, bound).start()
        try:
            yield
        finally:
            await runner.cleanup()


def measure(scale: Scale) -> Figures:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        api = f"http://127.0.0.1:{bound.getsockname()[1]}/api/"
        with served(asked=MAY_DECIDE, api=api) as service:
            return uvloop.run(_measure(service, bound, scale))


async def _measure(service: Served, bound: socket.socket, scale: Scale) -> Figures:
    slack, numbers, pid = Slack(), count(), service.process.pid
    async with slack.serving(bound):
        await approve(service, slack, numbers, scale(FIRST, 5), 5)
        before, alone = cpu_of(pid), scale(150, 5)
        await approve(service, slack, numbers, alone, 1, PAUSE)
        cpu_alone = (cpu_of(pid) - before) / alone
        before, many = cpu_of(pid), scale(600, 20)
        presses = await approve(service, slack, numbers, many, AT_ONCE)
        cpu = (cpu_of(pid) - before) / many
    rate = many / presses.seconds
    say(f"alone: {cpu_alone * 1000:.1f} CPU ms; {AT_ONCE} at a time: {cpu * 1000:.1f} CPU ms, {rate:.0f}/s")
    return {
        "slack_approval.cpu_ms": cpu_alone * 1000,
        "slack_approval.busy_cpu_ms": cpu * 1000,
        "slack_approval.per_second": rate,
        "slack_approval.ack_p50_ms": percentile(presses.acknowledged, 0.5) * 1000,
        "slack_approval.ack_p99_ms": percentile(presses.acknowledged, 0.99) * 1000,
    }


async def approve(
    service: Served, slack: Slack, numbers: Iterator[int], number: int, at_once: int, pause: float = 0.0
) -> Presses:
    """Make so many approvals, so many at a time, each until its card shows the outcome."""
    presses, began, left = Presses(), time.perf_counter(), iter(range(number))

    async def one_after_the_other() -> None:
        async with Connection(urlsplit(service.url).port or 80) as connection:
            for _ in left:
                n = next(numbers)
                body = {"workflow": f"deploy-{n % CHANNELS}", "input": {"version": str(n)}}
                opened = await connection.send(
                    request("POST", f"{service.url}/api/runs", json.dumps(body).encode(), AS_CI), 202
                )
                hook = await slack.cards[json.loads(opened.body)["run_id"]].get()
                await asyncio.sleep(pause)
                pressed = await connection.send(service.click(hook, n % MAY_DECIDE), 200)
                presses.acknowledged.append(pressed.seconds)
                await slack.updates[hook].wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other())
    presses.seconds = time.perf_counter() - began
    return presses


def _buttons(blocks: list[dict[str, object]]) -> Iterator[str]:
    """Yield the values of a card's buttons: the request's hook."""
    for block in blocks:
        match block:
            case {"type": "actions", "elements": [{"value": str(hook)}, *_]}:
                yield hook


if __name__ == "__main__":
    main(measure)
