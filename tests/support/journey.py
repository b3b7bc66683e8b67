"""The product as a user starts it, in a process of its own, with nothing of ours replaced.

The process is forked from one that has made the imports (`tests.support.forked`), unless the start itself is tested.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2

from tests.support.forked import Forked

READY = 60.0  # seconds from the start to the line that says it is ready
SOON = 30.0  # seconds for what takes a moment on an idle machine

PROGRAM = ("-m", "approvals_bot")

Json = dict[str, Any]


class Service:
    """`approvals-bot dev`, driven from outside: over HTTP, and by signals.

    `program`: what Python runs, in an interpreter of its own.
    """

    def __init__(self, folder: Path, program: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.program = program
        self.port = 0
        self.said = ""  # the line that it prints when it is ready
        self.environment: dict[str, str] = {}  # besides that of the tests
        self.process: subprocess.Popen[str] | Forked | None = None
        self.http = httpx2.Client(timeout=20.0, trust_env=False)

    # ── the process ──

    def start(self, *options: str, command: str = "dev", by_environment: bool = False) -> Service:
        """Start it and wait until it is ready. A second start uses the same port."""
        self.launch(*options, command=command, by_environment=by_environment)
        self.said = self._first_line()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said)
        assert found, f"not ready: {self.said!r}\n{self.log()}"
        self.port = int(found[1])
        self.http.base_url = f"http://127.0.0.1:{self.port}"
        return self

    def launch(self, *options: str, command: str = "dev", by_environment: bool = False) -> None:
        port = () if by_environment else ("--port", str(self.port))
        line = [command, *port, *options]
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | self.environment
        if by_environment:
            environment["PORT"] = str(self.port)
        program = self.program or (PROGRAM if "PYTHONPATH" in self.environment else None)
        with (self.folder / "log.txt").open("a") as log:
            if program is None:
                self.process = Forked(line, self.folder, environment, log)
                return
            self.process = subprocess.Popen(
                [sys.executable, *program, *line],
                cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def log(self) -> str:
        """Return standard error of all starts so far."""
        return (self.folder / "log.txt").read_text()

    def _first_line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.process.stdout, selectors.EVENT_READ)
            if not waiting.select(READY):
                return "(nothing)"
        return self.process.stdout.readline()

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def stop(self) -> int:
        """Stop it as an operator does; return the exit status."""
        return self.end()[0]

    def end(self) -> tuple[int, str]:
        """Send SIGTERM; return the exit status and what it printed since it was ready."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGTERM)
        rest = self.process.stdout.read()
        return self._reap(), rest

    def _reap(self) -> int:
        assert self.process is not None
        status = self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return status

    # ── the API ──

    def api(self, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {"authorization": "Bearer dev"} | options.pop("headers", {})
        return self.http.request(method, f"/api{path}", headers=headers, **options)

    def open(self, workflow: str = "deploy", requester: str = "bo@acme.eu", **input: Any) -> str:
        given = input or {"service": "api", "version": "2.1", "env": "prod"}
        answer = self.api("POST", "/runs", json={"workflow": workflow, "input": given, "requester": requester})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    def run(self, run_id: str, wait: int = 0) -> Json:
        answer = self.api("GET", f"/runs/{run_id}", params={"wait": wait} if wait else {})
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def settled(self, run_id: str) -> Json:
        """Return the run once every copy is delivered and nothing more is going on."""

        def quiet() -> Json | None:
            found = self.run(run_id)
            sent = found["request"]["deliveries"]
            return found if sent and all(d["state"] == "delivered" for d in sent) else None

        self.eventually(quiet)
        time.sleep(0.3)  # a last re-rendering of the cards may be under way
        return self.run(run_id)

    def ended(self, run_id: str) -> Json:
        found = self.run(run_id, wait=int(SOON))
        assert found["status"] == "completed", found
        return found

    def events(self, run_id: str) -> list[Json]:
        found: list[Json] = self.api("GET", f"/runs/{run_id}/events").json()["events"]
        return found

    def vote(self, run_id: str, by: str, choice: str, **more: Any) -> httpx2.Response:
        return self.api("POST", f"/runs/{run_id}/votes", json={"by": by, "choice": choice, **more})

    # ── the playground ──

    def play(self, method: str, path: str, **options: Any) -> Any:
        answer = self.http.request(method, f"/playground{path}", **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def messages(self, channel: str = "#deploys") -> list[Json]:
        """The cards of a channel; what only one person sees is left out."""
        found = self.play("GET", "/slack/messages")
        return [m for m in found if channel in (m["channel"], m.get("channel_name")) and not m["ephemeral_to"]]

    def card(self, title: str = "Deploy api 2.1 to prod") -> Json:
        """The newest card with this title, once it is there."""
        return self.eventually(lambda: [m for m in self.messages() if title in m["text"]][-1:])[0]  # type: ignore[no-any-return]

    def click(self, user: str, card: Json, button: str) -> Json:
        body = {"user": user, "channel": card["channel"], "ts": card["ts"], "button": button}
        found: Json = self.play("POST", "/slack/click", json=body)
        return found

    def mails(self, to: str = "") -> list[Json]:
        return [m for m in self.play("GET", "/mail/messages") if to in str(m["to"])]

    def link(self, to: str) -> str:
        """The newest decision link mailed to this person."""
        mail = self.eventually(lambda: [m for m in self.mails(to) if "/decisions/" in m["text"]][-1:])[0]
        found = re.search(r"http://\S+/decisions/\S+", mail["text"])
        assert found
        return found[0]

    # ── pages, as a browser without scripts sends them ──

    def page(self, link: str) -> httpx2.Response:
        return self.http.get(link, follow_redirects=True)

    def press(self, link: str, choice: str, **fields: str) -> httpx2.Response:
        """Open the page, fill in the form, press the button, and look at what comes."""
        shown = self.page(link)
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', shown.text))
        assert hidden, shown.text
        return self.post(link, hidden | {"choice": choice} | fields)

    def post(self, link: str, form: dict[str, str]) -> httpx2.Response:
        headers = {"origin": "null", "sec-fetch-site": "same-origin"}
        return self.http.post(link, data=form, headers=headers, follow_redirects=True)

    # ── looking at it from outside ──

    def stored(self) -> list[str]:
        """Everything that the store has, as SQL."""
        with sqlite3.connect(f"file:{self.folder}/.approvals/approvals.db?mode=ro", uri=True) as db:
            dumped = list(db.iterdump())
        db.close()
        return dumped

    def eventually(self, look: Callable[[], Any], seconds: float = SOON) -> Any:
        """Return what `look` finds, as soon as it finds something."""
        until = time.monotonic() + seconds
        while True:
            found = look()
            if found:
                return found
            assert time.monotonic() < until, "it has not happened"
            time.sleep(0.02)


def with_samples(folder: Path) -> Path:
    """The folder, with the samples as a fresh clone has them."""
    folder.mkdir(exist_ok=True)
    root = Path(__file__).parent.parent.parent
    shutil.copy(root / "config.example.toml", folder)
    shutil.copytree(root / "workflows", folder / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def buttons(card: Json) -> list[str]:
    """What the buttons of a Slack message say."""
    return [
        element["text"]["text"]
        for block in card["blocks"]
        if block["type"] == "actions"
        for element in block["elements"]
        if element["type"] == "button"
    ]


def comment_input(view: Json) -> tuple[str, str]:
    """Where a modal takes the comment: its block's and its element's id."""
    for block in view["blocks"]:
        if block["type"] == "input":
            return block["block_id"], block["element"]["action_id"]
    raise AssertionError(view)
