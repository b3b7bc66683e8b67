"""Steps of Workflow Builder while `serve` is killed: one request an execution, one completion, whatever is repeated.

Slack, the playground's fake, goes on: it counts every call that completes a step. The service is a process of its own.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tomllib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition
from approvals_bot.channels.slack.manifest import SCOPES, function
from approvals_bot.playground import SeedApp
from approvals_bot.playground.slack.functions import executed
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, FakeSlack, run_fake_slack
from tests.support.journey import PROGRAM, Service

DESK = "the key of the desk, which has 32 bytes"
CONFIG = """
[server]
base_url     = "http://127.0.0.1:{port}"
database     = "sqlite:///approvals.db"
signing_keys = ["env:SIGN_WITH"]
[api_keys]
desk = {{ key = "env:DESK_KEY", may_vote = true, may = ["start", "read-all", "vote"], requesters = ["*"] }}
[slack]
bot_token      = "env:BOT_TOKEN"
signing_secret = "env:SIGNING_SECRET"
api_url        = "{api}"
[people."ann@acme.eu"]
slack = "U0ANN"
[people."bo@acme.eu"]
slack = "U0BO"
"""
WORKFLOW = """
[workflow]
id      = "deploy"
title   = "Deploy {{ version }}"
request = ["*"]
[fields]
version = "string"
[[stage]]
id   = "go"
from = ["ann@acme.eu"]
[deliver]
builder = true
slack   = "#deploys"
[clock]
deadline = "4h"
"""


class House:
    """`serve` in a process of its own, and Slack, which outlives it."""

    def __init__(self, fake: FakeSlack, service: Service) -> None:
        self.fake, self.service = fake, service

    async def start(self) -> None:
        await asyncio.to_thread(self.service.start, command="serve")

    async def run(self, number: int) -> str:
        """Run the step; Slack sends its event until it is acknowledged, and then once more."""
        person = self.fake.playground.person
        running, ack = await person.run_step("ask_deploy", {"requester": "U0BO", "version": str(number)})
        payload = person.payloads.event(executed(person.space, running))
        acknowledged = int(ack.status == 200)
        async with asyncio.timeout(120):
            while acknowledged < 2:
                acknowledged += (await person.outbound.send("events_api", payload)).status == 200
                await asyncio.sleep(0.05)
        return str(running.id)

    async def api(self, method: str, path: str, **more: Any) -> Any:
        """Call the API until the service answers."""
        headers = {"authorization": f"Bearer {DESK}"}
        async with asyncio.timeout(120):
            while True:
                try:
                    answer = await asyncio.to_thread(self.service.api, method, path, headers=headers, **more)
                except Exception:  # noqa: BLE001  # it is being killed
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code < 500:
                    return answer.json()

    async def vote(self, run_id: str) -> None:
        answer = await self.api("POST", f"/runs/{run_id}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
        assert answer["verdict"] in ("decided", "already_decided", "already_voted"), answer

    async def kill_and_start(self) -> None:
        await asyncio.to_thread(self.service.kill)
        await self.start()


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app = SeedApp(
        BOT_TOKEN,
        SIGNING_SECRET,
        scopes=SCOPES,
        functions={"ask_deploy": function(Definition.model_validate(tomllib.loads(WORKFLOW)))},
    )
    async with run_fake_slack(app=app, events_url=f"http://127.0.0.1:{port}/slack/events") as fake:
        (folder / "workflows").mkdir()
        (folder / "workflows" / "deploy.toml").write_text(WORKFLOW)
        (folder / "config.toml").write_text(CONFIG.format(port=port, api=fake.playground.api_url))
        service = Service(folder, PROGRAM)
        service.port = port
        service.environment = {
            "SIGN_WITH": "k" * 40,
            "DESK_KEY": DESK,
            "BOT_TOKEN": BOT_TOKEN,
            "SIGNING_SECRET": SIGNING_SECRET,
        }
        opened = House(fake, service)
        try:
            await opened.start()
            yield opened
        finally:
            if service.process is not None:
                await asyncio.to_thread(service.kill)
            service.http.close()


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_killed_in_the_middle_each_step_completes_once(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        running = [asyncio.create_task(it.run(number)) for number in range(100)]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(1.0)
        await it.kill_and_start()
        ids = await asyncio.gather(*running)
        found: list[str] = []
        async with asyncio.timeout(120):
            while len(found) < 100:
                page = await it.api("GET", "/runs", params={"workflow": "deploy", "limit": 200})
                found = [one["id"] for one in page["runs"]]
        assert len(set(found)) == 100
        voting = [asyncio.create_task(it.vote(one)) for one in found]
        await asyncio.wait(voting[:30])
        began = asyncio.get_running_loop().time()
        await it.kill_and_start()
        await asyncio.gather(*voting)
        executions = it.fake.playground.workspace.executions
        async with asyncio.timeout(120):
            while any(executions[one].state == "running" for one in ids):
                await asyncio.sleep(0.05)
        took = asyncio.get_running_loop().time() - began
        await asyncio.sleep(3.0)  # whatever would be reported twice
    calls = Counter(
        f"{one.method} {one.answer}" for one in it.fake.playground.web_api.seen if one.method.startswith("functions.")
    )
    sys.stdout.write(f"{dict(calls)}, {took:.1f} s\n")
    assert calls["functions.completeSuccess ok"] == 100
    again = calls.total() - 100  # reports whose answer the killed process had, and couldn't write down
    assert again <= 5
    assert calls["functions.completeSuccess execution_not_in_running_state"] == again
    assert len({one.outputs["run_id"] for one in executions.values()}) == 100
