"""A process that dies at its k-th write to the database, for each k; and one that comes after it and finishes the work.

    python dying_process.py FOLDER FIRST STEP whole|torn|alternately [early]

For k = FIRST, FIRST + STEP … until nothing is left to die at: a real process on the real driver works off the job, and
is killed by SIGKILL just before its k-th write, truncation, sync or deletion (`torn`: with half of a write done). A
second process finds what it left. One line of JSON each: what was acknowledged, and what was found. `early` plants a
bug: what is asked for is acknowledged before it is done; it ends when that is found.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from approvals_bot import Engine, HookNotFoundError, WebhookRequest, create_hook, create_webhook, sleep, step, workflow
from approvals_bot.durable.core.api import Answer
from tests.support.watched_sqlite import Operation, watch

RESULT = ["first", {"approved": True}, "asking", "last"]
ANSWER = b"thanks for asking"

Acknowledge = Callable[[str], None]


@step
async def act(what: str) -> str:
    return what


@workflow(name="job of a dying process")
async def job() -> list[Any]:
    hook, webhook = create_hook(token="answer"), create_webhook(respond_with="manual")
    first = await act("first")
    payload = await hook
    await sleep(0.01)
    request = await webhook
    await request.respond_with(Answer(f"thanks for {await request.text()}"))
    return [first, payload, await request.text(), await act("last")]


async def work(database: Path, acknowledge: Acknowledge, early: bool = False) -> None:
    """Do what people do. Safe to repeat when no answer came."""
    url = f"sqlite:///{database}"
    async with Engine.open(url, signing_keys=["k" * 40], base_url="https://example.test") as engine:
        acknowledge("open")
        run = await engine.start(job, idempotency_key="the one")
        acknowledge("started")
        hooks = await _until_open(engine, run.id)
        if early:
            acknowledge("resumed")
        try:
            await engine.resume_hook("answer", {"approved": True}, resume_id="one click")
            acknowledge("resumed")
            await engine.audit("looked", who="ann@acme.eu", actor={"kind": "rule"}, run_id=run.id)
            acknowledge("audited")
            answer = await engine.resume_webhook(hooks["webhook"], WebhookRequest(body=b"asking"), timeout=5)
            if bytes(answer.body) == ANSWER:
                acknowledge("answered")
            else:
                assert answer.status_code == 504, "the first request was taken; later ones get no answer"
        except HookNotFoundError:
            assert (await run.status()) == "completed"
        assert await asyncio.wait_for(run.return_value(), 20) == RESULT
        acknowledge("completed")


async def _until_open(engine: Engine, run_id: str) -> dict[str, str]:
    async with asyncio.timeout(20):
        while True:
            made = [e.data for e in await engine.events(run_id) if e.type == "hook_created"]
            if len(made) == 2:
                return {"webhook" if "answer" in data else "hook": data["token"] for data in made}
            await asyncio.sleep(0.002)


# ── before death ──────────────────────────────────────────────────────────────────────────────────────────────────


def live_until(k: int, torn: bool, early: bool, database: Path, acks: Path) -> None:
    """In a process of its own."""
    seen = 0

    def see(operation: Operation) -> None:
        nonlocal seen
        seen += 1
        if seen == k:
            if torn and operation.kind == "write":
                operation.carry_out_half()
            os.kill(os.getpid(), signal.SIGKILL)

    watch(see)
    log = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def acknowledge(what: str) -> None:
        os.write(log, f"{what}\n".encode())

    asyncio.run(work(database, acknowledge, early))


# ── after death ───────────────────────────────────────────────────────────────────────────────────────────────────

SHOWN_BY = {
    "open": "SELECT count(*) FROM sqlite_master WHERE name = 'events'",
    "started": "SELECT count(*) FROM events WHERE type = 'run_created'",
    "resumed": "SELECT count(*) FROM events WHERE type = 'hook_received' AND data LIKE '%one click%'",
    "audited": "SELECT count(*) FROM audit WHERE what = 'looked'",
    "answered": "SELECT count(*) FROM events WHERE type = 'hook_responded'",
    "completed": "SELECT count(*) FROM events WHERE type = 'run_completed'",
}


def examine(database: Path, acknowledged: list[str]) -> dict[str, Any]:
    """Check the database that a dead process left: its integrity, and which acknowledged facts are lost."""
    with closing(sqlite3.connect(database)) as db:
        integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
        lost = [what for what in acknowledged if not _count(db, SHOWN_BY[what])]
        return {"integrity": integrity, "acknowledged": acknowledged, "lost": lost}


def _count(db: sqlite3.Connection, query: str) -> int:
    try:
        return int(db.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # the table isn't there
        return 0


def finish(database: Path) -> dict[str, Any]:
    """Let another process take over, and repeat everything that got no answer."""
    asyncio.run(work(database, lambda what: None))
    with closing(sqlite3.connect(database)) as db:
        log = db.execute("SELECT seq, type FROM events ORDER BY run_id, seq").fetchall()
        clicks = _count(db, SHOWN_BY["resumed"])
    types = [str(type) for _, type in log]
    return {
        "gaps": [seq for seq, _ in log] != list(range(1, len(log) + 1)),
        "ends": types.count("run_completed"),
        "clicks": clicks,
        "steps": types.count("step_completed"),
    }


def in_a_fork(work: Callable[[], Any]) -> int:
    """Run `work` in a fork; return its exit status, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # this process ends here, whatever it was
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(k: int, torn: bool, early: bool, folder: Path) -> dict[str, Any]:
    """Let a process die at its k-th write, and report what it left behind."""
    database, acks, report = folder / "runs.db", folder / "acknowledged", folder / "report.json"
    ended = in_a_fork(lambda: live_until(k, torn, early, database, acks))
    acknowledged = acks.read_text().splitlines() if acks.exists() else []
    found: dict[str, Any] = {"k": k, "torn": torn, "ended": ended}
    # SQLite is never used in this process: what it remembers would be inherited by those that are forked from here.
    in_a_fork(lambda: report.write_text(json.dumps(examine(database, acknowledged))))
    found |= json.loads(report.read_text())
    report.unlink()
    found["finished"] = in_a_fork(lambda: report.write_text(json.dumps(finish(database))))
    if report.exists():
        found |= json.loads(report.read_text())
    _clear(folder)
    return found


def _clear(folder: Path) -> None:
    for left in folder.iterdir():
        left.unlink()


def main(folder: Path, first: int, step: int, how: str, *options: str) -> None:
    for k in itertools.count(first, step):
        torn = how == "torn" or (how == "alternately" and k % 2 == 0)
        found = die_at(k, torn, "early" in options, folder)
        sys.stdout.write(json.dumps(found) + "\n")
        if found["ended"] != -signal.SIGKILL or ("early" in options and found["lost"]):
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
