"""A service and a fake Slack, each in its own process, and ways to use them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from benchmarks.acme import CHANNELS, CI_KEY, KEY, PEOPLE, click
from benchmarks.loader import Loaded, load, request
from benchmarks.measures import percentile
from benchmarks.parts.part import ROOT, Figures

JSON = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
AS_CI = JSON | {"Authorization": f"Bearer {CI_KEY}"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Served:
    """A running service."""

    url: str
    folder: Path
    process: subprocess.Popen[str]
    asked: int = PEOPLE  # possible approvers of a request

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def load(self, requests: Sequence[bytes], at_once: int, status: int) -> Loaded:
        """Send all requests. Raises RuntimeError if any response has another status."""
        found = uvloop.run(load(urlsplit(self.url).port or 80, requests, at_once))
        wrong = [answer for answer in found.answers if answer.status != status]
        if wrong:
            raise RuntimeError(
                f"{len(wrong)} of {len(requests)} responses have another status: {wrong[0].status} {wrong[0].body!r}"
            )
        return found

    def open(self, count: int, at_once: int = 20, first: int = 0) -> list[str]:
        """Open requests, each in the next channel, and return their runs' IDs."""
        asked = [
            {"workflow": f"deploy-{n % CHANNELS}", "input": {"version": str(n)}} for n in range(first, first + count)
        ]
        bodies = [json.dumps(each).encode() for each in asked]
        found = self.load([request("POST", f"{self.url}/api/runs", body, AS_CI) for body in bodies], at_once, 202)
        return [str(json.loads(answer.body)["run_id"]) for answer in found.answers]

    def vote(self, run: str, number: int) -> bytes:
        body = json.dumps({"by": f"person-{number % self.asked}@acme.eu", "choice": "approve"}).encode()
        return request("POST", f"{self.url}/api/runs/{run}/votes", body, JSON)

    def click(self, hook: str, number: int) -> bytes:
        """Build a click on Approve, signed like Slack's."""
        body, headers = click(hook, number)
        return request("POST", f"{self.url}/slack/events", body, headers)


@contextmanager
def served(*options: str, asked: int = PEOPLE, api: str = "") -> Iterator[Served]:
    """Start a service in a new folder. `asked`: the number of possible approvers; `api`: the URL of a fake Slack."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not api:
            slack = stack.enter_context(_process("benchmarks.fake_slack"))
            assert slack.stdout is not None
            api = slack.stdout.readline().strip()
        given = (str(folder), api, f"--asked={asked}", *options)
        service = stack.enter_context(_process("benchmarks.serving", *given))
        assert service.stdout is not None
        yield Served(json.loads(service.stdout.readline())["url"], folder, service, asked)


@contextmanager
def _process(module: str, *given: str) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-m", module, *given]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def of_load(name: str, found: Loaded) -> Figures:
    times = [answer.seconds for answer in found.answers]
    return {
        f"{name}.per_second": len(times) / found.seconds,
        f"{name}.p50_ms": percentile(times, 0.5) * 1000,
        f"{name}.p99_ms": percentile(times, 0.99) * 1000,
    }
