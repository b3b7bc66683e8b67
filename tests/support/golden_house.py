"""The house in which the golden journeys play, and the service in it. Nothing else uses it, so it never changes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from tests.support.golden import Book, anonymous
from tests.support.journey import Json, Service

CONFIG = """
[server]
base_url = "http://127.0.0.1:8000"
signing_keys = ["env:GOLDEN_SIGNING_KEY"]
workflows = "workflows"
admins = ["cfo@acme.eu"]
[slack]
bot_token = "env:GOLDEN_BOT_TOKEN"
signing_secret = "env:GOLDEN_SIGNING_SECRET"
[email]
host = "127.0.0.1"
sender = "Approvals <approvals@acme.eu>"
[people."ann@acme.eu"]
name = "Ann Ode"
slack = "U0ANN"
manager = "cfo@acme.eu"
zone = "Europe/Berlin"
[people."bo@acme.eu"]
name = "Bo Lund"
slack = "U0BO"
manager = "ann@acme.eu"
[people."cy@acme.eu"]
name = "Cy Rus"
[people."di@acme.eu"]
name = "Di Oz"
slack = "U0DI"
[people."eve@acme.eu"]
name = "Eve Moss"
[people."cfo@acme.eu"]
name = "Fay Cash"
slack = "U0CFO"
[groups]
managers = ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"]
[http.deploys]
url = "https://deploys.acme.eu/"
secret = "env:GOLDEN_TARGET_SECRET"
"""

DEPLOY = """
[workflow]
id = "deploy"
title = "Deploy {{ service }} {{ version }} to {{ env }}"
request = ["*", "app:dev"]
[fields]
service = "string"
version = { type = "string", pinned = true }
env = { type = "enum", values = ["staging", "prod"] }
note = { type = "string", required = false }
plan = { type = "text", required = false, view = "diff" }
[policy]
outcomes = ["approve", "reject", "changes"]
on_change = { note = "keep" }
[[auto]]
when = 'env == "staging"'
decision = "approve"
[[stage]]
id = "go"
from = ["@managers"]
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "4h"
remind = ["1h"]
on_deadline = "expire"
[[escalate]]
after = "2h"
to = ["cfo@acme.eu"]
mode = "add"
[[on.approved]]
http = "deploys"
json = { service = "{{ service }}", version = "{{ version }}", digest = "{{ request.digest }}" }
[[on.ended]]
dm = "requester"
text = "{{ request.title }}: {{ decision.outcome }} by {{ decision.by }}"
"""

PAIR = """
[workflow]
id = "pair"
title = "{{ what }}"
request = ["*"]
[fields]
what = { type = "string", pinned = true }
[policy]
reject = "all"
[[stage]]
id = "two"
from = ["@managers"]
need = 2
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "2d"
"""

TRIP = """
[workflow]
id = "trip"
title = "{{ passenger }} flies {{ flight }}"
request = ["*"]
[fields]
flight = { type = "string", pinned = true, editable = true }
passenger = { type = "string", pinned = true }
price = { type = "money", currency = "EUR", pinned = true, editable = true }
why = { type = "text", required = false, untrusted = true }
[[stage]]
id = "manager"
from = ["ann@acme.eu", "cy@acme.eu"]
outcomes = ["approve", "edit", "reject", "answer"]
[[stage]]
id = "finance"
when = "price > 800"
from = ["cfo@acme.eu"]
comment = "always"
[stage.ask]
budget_code = { type = "string", pattern = "[A-Z]{2}-[0-9]{4}" }
urgent = { type = "boolean", required = false }
[deliver]
dm = true
email = true
[clock]
deadline = "3d"
"""

PROGRAM = '''
"""Two workflows in Python: one waits for a system, one for people."""

from pathlib import Path

from pydantic import BaseModel

from approvals_bot import Approved, create_webhook, request_approval, step, workflow


class Guest(BaseModel):
    name: str


@step
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@step
async def announce(url: str) -> None:
    Path("webhook.txt").write_text(url)


@workflow
async def callback(guest: Guest) -> dict[str, str]:
    webhook = create_webhook()
    await announce(webhook.url)
    request = await webhook
    return {"guest": await greet(guest.name), "method": request.method, "body": await request.text()}


@workflow
async def welcome(guest: Guest) -> list[str]:
    said = []
    for what in ("A badge", "A key"):
        outcome = await request_approval(
            f"{what} for {guest.name}", fields=guest, approvers=["ann@acme.eu", "cy@acme.eu"],
            deliver={"dm": True, "email": True}, clock={"deadline": "2d"},
        )
        said.append(f"{what}: {'yes' if isinstance(outcome, Approved) else 'no'}")
    return said
'''

# A Monday, and so far ahead that the service's clock can always be moved there.
BEGINNING = datetime(2040, 1, 2, 9, 0, 3, tzinfo=UTC)
ACT = timedelta(minutes=10)  # from one act's beginning to the next one's; what happens within shares a minute
STEPS = "Card|Mailed|Outcome|Not sent|Looked up|Ran"
"""Beginnings of a timeline's lines about steps, which go on side by side and end in any order."""

# `approvals-bot dev` with its whole log. Loggers are named after modules, so their names are left out.
LOGGING_PROGRAM = """
import logging, runpy, sys
handler = logging.StreamHandler()
handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
logger = logging.getLogger("approvals_bot")
logger.addHandler(handler)
logger.setLevel(logging.INFO)
logger.propagate = False
runpy.run_module("approvals_bot", run_name="__main__", alter_sys=True)
"""


class GoldenHouse(Service):
    """The service, whose every act is written into a book."""

    def __init__(self, folder: Path, book: Book) -> None:
        super().__init__(folder, ("-c", LOGGING_PROGRAM))
        self.book = book
        self.acts_begin = BEGINNING
        self._seen_mails = 0
        self._seen_calls = 0
        self._seen_log = 0
        self._seen_messages: dict[tuple[str, str], str] = {}
        self.runs: list[str] = []

    # ── acts ──

    def begin(self) -> None:
        self.start("--config", "config.toml")
        self._move_to(BEGINNING)

    def act(self, name: str, after: timedelta = ACT) -> None:
        """Write down what the last act left behind, and go on to the next one."""
        self._look()
        self.acts_begin += after
        self._move_to(self.acts_begin)
        self.book.act(name)

    def end_of_acts(self) -> None:
        self._look()
        self.stop()
        self.book.close()

    def settle(self) -> None:
        """Until the engine has nothing to do: moving the clock by nothing waits for that."""
        self.play("POST", "/clock", json={"advance": "0s"})

    def _move_to(self, moment: datetime) -> None:
        self.settle()
        now = datetime.fromisoformat(self.play("POST", "/clock", json={"advance": "0s"})["now"])
        ahead = (moment - now).total_seconds()
        assert ahead > 0, "this machine was so slow that an act has run into the next one's time"
        self.play("POST", "/clock", json={"advance": f"{int(ahead * 1000)}ms"})

    # ── what was seen ──

    def answered(self, heading: str, answer: httpx2.Response) -> httpx2.Response:
        """Of an API call, or a page."""
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind.endswith("json"):
            shown = {"status": answer.status_code, "type": kind, "body": answer.json()}
            self.book.json(heading, shown)
        else:
            self.book.html(f"{heading} → {answer.status_code} {kind}", answer.text)
        return answer

    def pressed(self, heading: str, outcome: Json) -> Json:
        """Of what somebody did in Slack."""
        shown = {key: value for key, value in outcome.items() if key != "ack_ms"}
        self.book.json(heading, shown | {"view": shown["view"] and visible(shown["view"])})
        return outcome

    def show_run(self, run_id: str) -> None:
        self.answered("GET the run", self.api("GET", f"/runs/{run_id}"))

    def show_timeline(self, run_id: str) -> None:
        """The run's page and its events, in files of their own: they tell much of how the inside works."""
        page = self.page(f"/runs/{run_id}")
        self.book.html(f"the run's page → {page.status_code}", without_timeline(page.text), "timeline.html")
        events = self.events(run_id)
        types = [e["type"] for e in events]
        received = [e["data"].get("payload") for e in events if e["type"] == "hook_received"]
        shown = {
            "types": [each for each in types if not each.startswith("step_")],
            "steps": dict(sorted(Counter(each for each in types if each.startswith("step_")).items())),
            "payloads": received,
        }
        self.book.json("events", shown)

    def _look(self) -> None:
        """What came to people and systems since the last look. What comes at the same time comes in any order."""
        if not self.book._act:
            return
        self.settle()
        messages = []
        for message in self.play("GET", "/slack/messages"):
            key, state = (message["channel"], message["ts"]), json.dumps(message)
            if self._seen_messages.get(key) != state:
                self._seen_messages[key] = state
                messages.append(message | {"edited": bool(message["edited"])})
        for message in sorted(messages, key=anonymous):
            self.book.json(f"Slack, {message['channel_name']}", message)
        mails = self.mails()
        for mail in sorted(mails[self._seen_mails :], key=lambda m: anonymous([m["to"], m["subject"], m["text"]])):
            headers = {k: re.sub(r'boundary="[^"]*"', "boundary=…", v) for k, v in mail["headers"].items()}
            shown = "\n".join(f"{name}: {value}" for name, value in headers.items())
            self.book.text(f"mail to {mail['to']}", f"{shown}\n\n{mail['text']}")
            self.book.html(f"mail to {mail['to']}: {mail['subject']}", mail["html"])
        self._seen_mails = len(mails)
        calls = self.play("GET", "/http/requests")
        for call in sorted(calls[self._seen_calls :], key=anonymous):
            kept = {k: v for k, v in call["headers"].items() if k.startswith("webhook-") or k == "content-type"}
            self.book.json(f"called: {call['name']}", call | {"headers": kept})
        self._seen_calls = len(calls)
        log = self.log()
        mine = ("/playground", "has known security holes")  # of the machine that the journey runs on
        lines = [line for line in log[self._seen_log :].splitlines() if not any(each in line for each in mine)]
        self._seen_log = len(log)
        if lines:
            self.book.text("log", "\n".join(sorted(lines, key=anonymous)))

    # ── what people do: after each act all that follows from it has happened before the next look ──

    def api(self, method: str, path: str, **options: Any) -> httpx2.Response:
        answer = super().api(method, path, **options)
        if method != "GET":
            self.settle()
        return answer

    def click(self, user: str, card: Json, button: str) -> Json:
        before = self._ephemerals(user)
        outcome = super().click(user, card, button)
        return self._heard(user, outcome, before)

    def post(self, link: str, form: dict[str, str]) -> httpx2.Response:
        headers = {"origin": "null", "sec-fetch-site": "same-origin"}
        answer = self.http.post(link, data=form, headers=headers)
        self.settle()
        return self.page(answer.headers["location"]) if answer.status_code == 303 else answer

    def asks(self, workflow: str, by: str = "di@acme.eu", **input: Any) -> str:
        return self.open(workflow, by, **input)

    def card(self, title: str = "Deploy api 2.1 to prod") -> Json:
        """The newest card with this title; not what was said in its thread."""
        found: Json = [m for m in self.messages() if title in m["text"] and not m["thread_ts"]][-1]
        return found

    def newest(self, channel: str) -> Json:
        return self.messages(channel)[-1]

    def webhook(self) -> str:
        """The URL that the workflow announced to the system it waits for."""
        return (self.folder / "webhook.txt").read_text()

    def newest_ephemeral(self, user: str) -> Json:
        """The newest thing that only this person sees in Slack."""
        return self._ephemerals(user)[-1]

    def submits(self, user: str, view: Json, **values: Any) -> Json:
        """Fill in a modal by the names of its blocks. Which element is in a block, the block says."""
        elements = {b["block_id"]: b["element"]["action_id"] for b in view["blocks"] if b["type"] == "input"}
        filled = {block: {elements[block]: values[name]} for block in elements if (name := last(block)) in values}
        assert len(filled) == len(values), list(elements)
        body = {"user": user, "view_id": view["id"], "values": filled}
        before = self._ephemerals(user)
        return self._heard(user, self.play("POST", "/slack/submit", json=body), before)

    def _heard(self, user: str, outcome: Json, before: list[Json]) -> Json:
        """Add the ephemeral reply to the outcome: on a busy machine it comes after the fake Slack has answered."""
        self.settle()
        if outcome["view"] is None and outcome["ephemeral"] is None:
            new = self.eventually(lambda: [m for m in self._ephemerals(user) if m not in before])
            outcome["ephemeral"] = "\n".join(message["text"] for message in new)
        return outcome

    def _ephemerals(self, user: str) -> list[Json]:
        return [m for m in self.play("GET", "/slack/messages") if m["ephemeral_to"] == user]

    def hidden(self, link: str) -> dict[str, str]:
        """What a page's form has hidden, to be sent later."""
        return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', self.page(link).text))

    def signs_in(self, address: str) -> httpx2.Response:
        """By the digits of a mail. The browser is signed in until it signs out."""
        known = len(self.mails())
        asked = self.answered("asks for a code", self.post("/login", {"address": address}))
        mail = self.eventually(lambda: self.mails()[known:])[0]
        digits = re.search(r"\b\d{6}\b", mail["text"])
        assert digits
        fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', asked.text))
        return self.post("/login", fields | {"code": digits[0]})

    def typed(self, heading: str, *words: str) -> None:
        """A command beside the running service."""
        line = [sys.executable, "-m", "approvals_bot", *words, "--config", ".approvals/config.toml"]
        done = subprocess.run(
            line, cwd=self.folder, env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True, timeout=60
        )
        lines = (done.stdout + done.stderr).splitlines()
        steps = [line for line in lines if re.fullmatch(rf" +\d\d:\d\d:\d\d +({STEPS}) .+", line)]
        shown = [*(line for line in lines if line not in steps), *sorted(steps, key=anonymous)]
        self.book.text(f"{heading} → exit {done.returncode}", "\n".join(shown))
        self.settle()


def last(block_id: str) -> str:
    return block_id.rpartition(":")[2]


def without_timeline(page: str) -> str:
    """A run's page up to its timeline: steps side by side end in any order, and take as long as they take."""
    return page.partition("<h2>Timeline</h2>")[0]


def visible(view: Json) -> Json:
    """Of a modal what a person sees, and where its inputs are."""
    return {name: view.get(name) for name in ("type", "callback_id", "title", "submit", "close", "blocks")}


def furnish(folder: Path) -> Path:
    (folder / "config.toml").write_text(CONFIG)
    (folder / "workflows").mkdir()
    for name, text in (("deploy.toml", DEPLOY), ("pair.toml", PAIR), ("trip.toml", TRIP), ("welcome.py", PROGRAM)):
        (folder / "workflows" / name).write_text(text.lstrip())
    return folder
