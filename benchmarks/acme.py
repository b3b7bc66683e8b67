"""The service for measurements over HTTP: fifty people, many channels, and Slack's payload for a click."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import uvicorn

from approvals_bot.app import open_service, read_configuration
from approvals_bot.cli.serving import tune_garbage_collector
from approvals_bot.durable.engine import Engine

SECRET = "the signing secret of the benchmark"
KEY = "a-key-of-the-benchmark-that-has-32-bytes!"  # votes: a key passes on no votes in what it opened itself
CI_KEY = "the-key-that-opens-requests-has-32-bytes"
PEOPLE = 50
CHANNELS = 400  # a channel accepts about one message per second, so consecutive requests go to different channels
CONFIG = """
[server]
base_url = "{url}"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
workflows = "workflows"
[api_keys]
ci = "env:CI_KEY"
desk = {{ key = "env:KEY", may_vote = true }}
[slack]
bot_token = "env:TOKEN"
signing_secret = "env:SECRET"
api_url = "{api}"
"""
PERSON = '[people."person-{n}@acme.eu"]\nslack = "U{n:08}"\n'
APPROVAL = """
[workflow]
id = "deploy-%s"
title = "Deploy {{ version }}"
request = ["*", "app:ci"]
[fields]
version = { type = "string", pinned = true }
[[stage]]
id = "go"
from = [%s]
comment = "never"
[deliver]
slack = "#deploys-%s"
[clock]
deadline = "1 day"
"""


@asynccontextmanager
async def serving(
    folder: Path, api: str, channels: int = CHANNELS, asked: int = PEOPLE
) -> AsyncIterator[tuple[str, Engine]]:
    """Run the service behind uvicorn, and yield its URL and engine.

    `api`: Slack's URL; `asked`: the number of possible approvers. Workflows are read from the folder.
    """
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        bound.listen(2048)
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        _write(folder, url, api, channels, asked)
        environment = {"KEY": KEY, "CI_KEY": CI_KEY, "TOKEN": "xoxb-benchmark", "SECRET": SECRET}
        async with open_service(read_configuration(folder / "config.toml", environment)) as running:
            server = uvicorn.Server(uvicorn.Config(running.app, log_config=None, access_log=False, lifespan="off"))
            serving = asyncio.create_task(server.serve(sockets=[bound]))
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0.01)
            tune_garbage_collector()  # as `approvals-bot serve` does
            try:
                yield url, running.engine
            finally:
                server.should_exit = True
                await serving


def _write(folder: Path, url: str, api: str, channels: int, asked: int) -> None:
    people = ", ".join(f'"person-{number}@acme.eu"' for number in range(asked))
    (folder / "workflows").mkdir(exist_ok=True)
    for n in range(channels):
        (folder / "workflows" / f"deploy-{n}.toml").write_text(APPROVAL % (n, people, n))
    persons = "".join(PERSON.format(n=number) for number in range(PEOPLE))
    (folder / "config.toml").write_text(CONFIG.format(url=url, api=api) + persons)


def click(hook: str, number: int) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a click on Approve, signed like Slack's."""
    payload = {
        "type": "block_actions",
        "team": {"id": "T1", "domain": "acme"},
        "user": {"id": f"U{number % PEOPLE:08}", "team_id": "T1"},
        "api_app_id": "A1",
        "container": {"type": "message", "message_ts": f"{number}.1", "channel_id": "C1", "is_ephemeral": False},
        "channel": {"id": "C1", "name": "deploys"},
        "message": {"ts": f"{number}.1", "bot_id": "B1", "app_id": "A1"},
        "trigger_id": f"{number}.2",
        "actions": [{"type": "button", "action_id": "vote:approve", "block_id": "choices:1:", "value": hook}],
    }
    body, at = urlencode({"payload": json.dumps(payload)}).encode(), str(int(time.time()))
    mac = hmac.new(SECRET.encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
    signed = {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={mac}"}
    return body, {"Content-Type": "application/x-www-form-urlencoded"} | signed
