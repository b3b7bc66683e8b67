"""Requests and votes beside a directory of 50,000 people, as CPU time against the same beside one of 50.

Both services run in this process and take turns, so that the ratio doesn't depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

from approvals_bot.app import open_service, read_configuration
from approvals_bot.app.service import Service
from approvals_bot.approvals.acts import Vote
from approvals_bot.people import IdentityRules, People
from approvals_bot.people.roster import read_roster
from approvals_bot.service.act import perform
from approvals_bot.service.open import open_run
from approvals_bot.service.read import request_of
from benchmarks.parts.part import ROOT, Figures, Scale, main, say

FEW = 50
SPAN = 10  # people below one manager
TEAMS = 500
KEY = "a signing key of the benchmark, with 32 bytes"
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
[email]
host = "127.0.0.1"
port = 2525
security = "none"
sender = "Approvals <approvals@acme.eu>"
[groups]
team = { directory = "team-1" }
[directory]
people = { file = "people.json" }
"""
WORKFLOW = """
[workflow]
id = "spend"
title = "Spend"
request = ["*"]
[[stage]]
id = "manager"
from = ["manager-of:requester", "@team"]
[deliver]
email = "after 1 day"
[clock]
deadline = "7d"
"""


def measure(scale: Scale) -> Figures:
    many = scale(50_000, 500)
    with tempfile.TemporaryDirectory() as folder:
        sites = {size: write_site(Path(folder) / str(size), size) for size in (FEW, many)}
        few, lots = asyncio.run(cpu_of_both([sites[FEW], sites[many]], [FEW, many], scale(9, 2), scale(20, 3)))
        content = (sites[many] / "people.json").read_bytes()
        began = time.process_time()
        read_roster(content, IdentityRules(), "people.json")
        reading = time.process_time() - began
        checking = min(check(sites[many]) for _ in range(scale(3)))
    say(f"{few[0]:.2f} and {lots[0]:.2f} CPU ms to open, {few[1]:.2f} and {lots[1]:.2f} to vote")
    return {
        "directory.open_cpu_ms": lots[0],
        "directory.open_ratio": lots[0] / few[0],
        "directory.vote_cpu_ms": lots[1],
        "directory.vote_ratio": lots[1] / few[1],
        "directory.read_cpu_s": reading,
        "directory.check_cpu_s": checking,
    }


def write_site(folder: Path, size: int) -> Path:
    """Write a configuration with a directory of this many people."""
    people = [
        {
            "address": f"person-{number}@acme.eu",
            "name": f"Person {number}",
            "slack": f"U{number:08}",
            "manager": f"person-{number // SPAN}@acme.eu",
            "zone": "Europe/Berlin",
            "away": [{"from": "2020-12-24", "until": "2020-12-31"}] if number % 20 == 0 else [],
            "groups": ["team-1"] if number < SPAN else [f"team-{number % TEAMS}-more"],
        }
        for number in range(size)
    ]
    (folder / "workflows").mkdir(parents=True)
    (folder / "people.json").write_text(json.dumps({"people": people}, indent=1))
    (folder / "config.toml").write_text(CONFIG)
    (folder / "workflows" / "spend.toml").write_text(WORKFLOW)
    return folder


async def cpu_of_both(folders: list[Path], sizes: list[int], rounds: int, each: int) -> list[tuple[float, float]]:
    """Return the CPU milliseconds of an opening and of a vote at each site, as the median of rounds in turn."""
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(open_service(read_configuration(folder / "config.toml", {"KEY": KEY})))
            for folder in folders
        ]
        gc.freeze()
        found: list[list[tuple[float, float]]] = [[] for _ in services]
        for number in range(rounds + 1):
            for at, service in enumerate(services):
                one = await a_round(service, sizes[at], each, number * each)
                found[at] += [one] if number else []  # the first warms up
    return [(median(opened for opened, _ in all_), median(voted for _, voted in all_)) for all_ in found]


async def a_round(service: Service, size: int, count: int, first: int) -> tuple[float, float]:
    engine, runs = service.engine, []
    began = time.process_time()
    for number in range(first, first + count):
        requester = f"person-{SPAN + number % (size - SPAN)}@acme.eu"
        run = await open_run(
            engine=engine,
            workflows=service.catalog,
            people=engine.resources[People],
            name="spend",
            input={},
            opener=requester,
        )
        runs.append(run.id)
        await engine.settle()
    opened = time.process_time() - began
    requests = [request_of(record) for run in runs if (record := await engine.record(run)) is not None]
    began = time.process_time()
    for request in requests:
        assert request is not None
        reply = await perform(engine, request, Vote("person-5@acme.eu", "approve", via="inbox"))
        assert reply.verdict == "decided", reply
        await engine.settle()
    return opened / count * 1000, (time.process_time() - began) / count * 1000


def check(folder: Path) -> float:
    """Return the CPU seconds of `check`."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "approvals_bot", "check", "--config", str(folder / "config.toml")],
        cwd=ROOT,
        env=os.environ | {"KEY": KEY},
        check=True,
        capture_output=True,
    )
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main(measure)
