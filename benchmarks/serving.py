"""The service from `open_service`, behind uvicorn with uvloop and httptools, in a process to be measured.

Prints its URL as JSON, and then answers lines on standard input: `webhooks N` starts N runs that wait for a call and
returns their URLs; `hooks RUN …` returns each request's hook, `posted RUN …` once its card is posted; `commits` returns
the number of commits (with --commits). `ended N` writes N runs that ended long ago, and returns links to some; `retain`
begins to delete them, as the service does hourly; `retained` deletes the rest without a pause, and returns the count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.notifier import Subscription
from approvals_bot.durable.tokens import Tokens
from approvals_bot.service.retention import Deleted, RetentionRules, delete_ended
from approvals_bot.web.links import DECISION
from benchmarks.acme import CHANNELS, KEY, PEOPLE, serving
from benchmarks.ended_store import KEPT, copy_ended
from benchmarks.measures import SqliteCommits

CALLED = """
from approvals_bot import create_webhook, workflow

@workflow
async def called() -> str:
    request = await create_webhook()
    return request.method
"""


async def serve(folder: Path, api: str, asked: int, commits: SqliteCommits) -> None:
    (folder / "workflows").mkdir()
    (folder / "workflows" / "called.py").write_text(CALLED)
    async with serving(folder, api, CHANNELS, asked) as (url, engine):
        _say({"url": url})
        while line := await asyncio.to_thread(sys.stdin.readline):
            _say(await answer(engine, folder, commits, *line.split()))


async def answer(engine: Engine, folder: Path, commits: SqliteCommits, what: str, *given: str) -> Any:
    match what:
        case "webhooks":
            runs = [(await engine.start("called")).id for _ in range(int(given[0]))]
            return [await webhook(engine, run) for run in runs]
        case "hooks" | "posted":
            return [await hook_of(engine, run, what == "posted") for run in given]
        case "ended":
            return await long_ago(engine, folder, given[0], int(given[1]))
        case "retain" | "retained":
            return await retain(engine, folder, is_last=what == "retained")
        case _:
            return commits.count


async def webhook(engine: Engine, run: str) -> str:
    while True:
        for event in await engine.events(run):
            if event.type == "hook_created":
                return engine.link(event.data["hook_id"])
        await asyncio.sleep(0.01)


async def hook_of(engine: Engine, run: str, posted: bool) -> str:
    """Return a request's hook once it waits for votes, and with `posted` once its card is posted."""
    with Subscription(engine.notifier, run, None, 1.0) as subscription:
        while True:
            record = await engine.record(run)
            view = record.parts[0] if record is not None and record.parts else {}
            copies = view.get("deliveries", ())
            if view.get("waiting_for") and (
                not posted or (copies and all(copy["state"] == "delivered" for copy in copies))
            ):
                return str(view["hook_id"])
            await subscription.changed()


CHUNK = 500
"""Ended runs that are written in one transaction."""

_retaining: list[asyncio.Task[Deleted]] = []


async def long_ago(engine: Engine, folder: Path, run: str, count: int) -> list[str]:
    """Write so many copies of an ended run, and return decision links of forty of them.

    After each chunk the service writes, too, and so checkpoints: a WAL with all of them would take it many seconds.
    """
    hooks = list[str]()
    for start in range(0, count, CHUNK):
        while await engine.store.seal_ended(engine.now(), engine.audit_key, 100):
            pass
        chunk = range(start, min(count, start + CHUNK))
        hooks += await asyncio.to_thread(copy_ended, folder / "runs.db", run, chunk)
    tokens = Tokens([KEY], installation=engine.store.installation)
    return [tokens.sign(DECISION, {"h": hook, "r": "1", "g": 1}) for hook in hooks[:: max(1, count // 40)][:40]]


async def retain(engine: Engine, folder: Path, *, is_last: bool) -> int:
    """Begin to delete what ended long ago; or end that, delete the rest, and return how many runs were deleted."""
    rules, archive = RetentionRules(others=KEPT), folder / "archive"
    if not is_last:
        _retaining.append(asyncio.create_task(delete_ended(engine, rules, archive)))
        return 0
    for task in _retaining:
        task.cancel()
        await asyncio.wait([task])
    await delete_ended(engine, rules, archive, rest=0)
    return await engine.store.deleted()


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("api", help="the URL of the fake Slack API")
    options.add_argument("--asked", type=int, default=PEOPLE, help="the number of possible approvers")
    options.add_argument("--commits", action="store_true")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    commits = SqliteCommits()
    if given.commits:
        commits.watch()
    import uvloop

    uvloop.run(serve(given.folder, given.api, given.asked, commits))


if __name__ == "__main__":
    main()
