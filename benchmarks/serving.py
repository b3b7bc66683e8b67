"""The service as `open_service` builds it, behind uvicorn with uvloop and httptools, in a process to be measured.

Prints its URL as JSON; then answers lines on standard input: `webhooks N` starts N runs that wait for a call and gives
their URLs; `hooks RUN …` gives the hook of each request, `posted RUN …` once its card is posted; `commits` how many
commits there were (with --commits).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from approvals_bot.app import open_service, read_configuration
from approvals_bot.engine import Engine
from benchmarks.measures import SqliteCommits

SECRET = "the signing secret of the benchmark"
KEY = "a-key-of-the-benchmark-that-has-32-bytes!"
PEOPLE = 50
CHANNELS = 200  # a channel takes about a message a second, so each request of a row of them goes to another
CONFIG = """
[server]
base_url = "{url}"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
workflows = "workflows"
[api_keys]
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
request = ["*", "app:desk"]
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
CALLED = """
from approvals_bot import create_webhook, workflow

@workflow
async def called() -> str:
    request = await create_webhook()
    return request.method
"""


def write(folder: Path, url: str, api: str) -> None:
    people = [f"person-{number}@acme.eu" for number in range(PEOPLE)]
    (folder / "workflows").mkdir()
    for n in range(CHANNELS):
        text = APPROVAL % (n, ", ".join(f'"{one}"' for one in people), n)
        (folder / "workflows" / f"deploy-{n}.toml").write_text(text)
    (folder / "workflows" / "called.py").write_text(CALLED)
    persons = "".join(PERSON.format(n=number) for number in range(PEOPLE))
    (folder / "config.toml").write_text(CONFIG.format(url=url, api=api) + persons)


async def serve(folder: Path, api: str, commits: SqliteCommits) -> None:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        bound.listen(2048)
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        write(folder, url, api)
        environment = {"KEY": KEY, "TOKEN": "xoxb-benchmark", "SECRET": SECRET}
        async with open_service(read_configuration(folder / "config.toml", environment)) as running:
            server = uvicorn.Server(uvicorn.Config(running.app, log_config=None, access_log=False, lifespan="off"))
            serving = asyncio.create_task(server.serve(sockets=[bound]))
            while not server.started:  # noqa: ASYNC110  # uvicorn tells nobody
                await asyncio.sleep(0.01)
            _say({"url": url})
            try:
                while line := await asyncio.to_thread(sys.stdin.readline):
                    _say(await answer(running.engine, commits, *line.split()))
            finally:
                server.should_exit = True
                await serving


async def answer(engine: Engine, commits: SqliteCommits, what: str, *given: str) -> Any:
    match what:
        case "webhooks":
            runs = [(await engine.start("called")).id for _ in range(int(given[0]))]
            return [await webhook(engine, run) for run in runs]
        case "hooks" | "posted":
            return [await hook_of(engine, run, what == "posted") for run in given]
        case _:
            return commits.count


async def webhook(engine: Engine, run: str) -> str:
    while True:
        for event in await engine.events(run):
            if event.type == "hook_created":
                return engine.link(event.data["hook_id"])
        await asyncio.sleep(0.01)


async def hook_of(engine: Engine, run: str, posted: bool) -> str:
    """The hook of a request, once it waits for votes (and its card is posted)."""
    with engine._news.of(run, None, 1.0) as news:
        while True:
            record = await engine.record(run)
            view = (record.view if record is not None else None) or {}
            copies = view.get("deliveries", ())
            if view.get("waiting_for") and (
                not posted or (copies and all(copy["state"] == "delivered" for copy in copies))
            ):
                return str(view["hook_id"])
            await news.next()


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("api", help="the URL of what stands in for Slack's API")
    options.add_argument("--commits", action="store_true")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    commits = SqliteCommits()
    if given.commits:
        commits.watch()
    import uvloop

    uvloop.run(serve(given.folder, given.api, commits))


if __name__ == "__main__":
    main()
