"""P1: a real server, eight people who click without a pause, and SIGKILL at random. What was answered is there.

CI kills a few times; `KILLS=60` as often as promised.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from threading import Event

import pytest

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.protocol import Filter

KILLS = int(os.environ.get("KILLS", "4"))
CLICKS = 60  # acknowledged for each kill, at least
RUNS = 120
PEOPLE = 8
SERVICE = Path(__file__).parents[1] / "support" / "clicked_service.py"


@contextmanager
def served(database: Path) -> Iterator[tuple[int, list[str]]]:
    """Port and webhooks; killed at the end, in the midst of whatever it does."""
    with subprocess.Popen(
        [sys.executable, str(SERVICE), str(database), str(RUNS)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines = list(iter(lambda: process.stdout.readline().strip(), "ready"))  # type: ignore[union-attr]
            yield int(lines[0]), lines[1:]
        finally:
            process.send_signal(signal.SIGKILL)


def clicks(person: int, life: int, port: int, tokens: list[str], over: Event) -> tuple[list[str], list[str]]:
    """Click until the service is gone. Gives what was acknowledged, and what was tried without an answer."""
    random = Random(f"{person}.{life}")  # noqa: S311  # which run this person clicks
    acknowledged, unanswered = list[str](), list[str]()
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not over.is_set():
        click = f"{person}.{life}.{len(acknowledged)}"
        unanswered = [click]
        try:
            line.request("POST", f"/{random.choice(tokens)}", json.dumps({"click": click}))
            answer = line.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            break
        assert answer.status == 202
        acknowledged.append(click)
        unanswered = []
    line.close()
    return acknowledged, unanswered


def live(life: int, database: Path) -> tuple[list[str], list[str]]:
    """One life of the service, and all that was clicked in it."""
    over = Event()
    with ThreadPoolExecutor(PEOPLE) as people:
        with served(database) as (port, tokens):
            clicking = [people.submit(clicks, person, life, port, tokens, over) for person in range(PEOPLE)]
            until = time.monotonic() + Random(life).uniform(1.0, 2.5)  # noqa: S311  # seconds it has to live
            while time.monotonic() < until:
                time.sleep(0.01)
        over.set()
        answers = [each.result() for each in clicking]
    return [c for acknowledged, _ in answers for c in acknowledged], [c for _, tried in answers for c in tried]


async def kept(database: Path) -> list[str]:
    """Every click that is in a log."""
    found: list[str] = []
    async with Engine.open(f"sqlite:///{database}") as engine:
        rows, _ = await engine.store.runs(Filter(limit=RUNS))
        for row in rows:
            for event in await engine.events(row.id):
                if event.type == "hook_received":
                    with suppress(KeyError):
                        found.append(json.loads(event.data["payload"]["text"])["click"])
    return found


@pytest.mark.promise(1)
@pytest.mark.timeout(60 + 60 * KILLS)
async def test_an_acknowledged_click_survives_kill_9(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    acknowledged: list[str] = []
    unanswered: list[str] = []
    for n in range(KILLS):
        took, tried = live(n, database)
        acknowledged += took
        unanswered += tried
    found = Counter(await kept(database))
    assert len(acknowledged) >= CLICKS * KILLS, "too little happened to mean something"
    assert [click for click in acknowledged if found[click] != 1] == []
    assert set(found) - set(acknowledged) <= set(unanswered)
    said = f"{KILLS} kills, {len(acknowledged)} acknowledged, {len(unanswered)} without an answer, 0 lost\n"
    sys.stdout.write(said)
