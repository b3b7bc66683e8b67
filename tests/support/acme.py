"""Acme, the company of the forty scenarios: people, groups, workflows, and the real service with its fakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.support.journey import Json, Service

ANN, BO, CY, DI, CFO = (f"{name}@acme.eu" for name in ("ann", "bo", "cy", "di", "cfo"))
TOKYO, BERLIN = "aki@acme.eu", "bea@acme.eu"

CONFIG = """
[server]
base_url = "http://127.0.0.1:8000"
signing_keys = ["env:APPROVALS_KEY"]
workflows = "workflows"
[api_keys]
ci = "env:CI_KEY"
[slack]
bot_token = "env:SLACK_BOT_TOKEN"
signing_secret = "env:SLACK_SIGNING_SECRET"
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
[people."cfo@acme.eu"]
name = "Fay Cash"
slack = "U0CFO"
[people."aki@acme.eu"]
name = "Aki Mori"
zone = "Asia/Tokyo"
[people."bea@acme.eu"]
name = "Bea Kurz"
zone = "Europe/Berlin"
[groups]
managers = ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"]
a = ["ann@acme.eu", "bo@acme.eu"]
b = ["ann@acme.eu", "cy@acme.eu"]
live = { file = "live.json" }
[directory]
oncall.ops = ["cfo@acme.eu"]
[calendars.office]
zone = "Europe/Berlin"
hours = "09:00-17:30"
[http.target]
url = "https://target.acme.eu/"
secret = "env:TARGET_SECRET"
"""

FORM = """
[fields]
what = { type = "string", pinned = true }
note = { type = "string", required = false }
plan = { type = "text", required = false, view = "diff" }
"""

BOTH_WAYS = """[deliver]
slack = "#deploys"
email = true
"""
CALLS_THE_TARGET = """[[on.approved]]
http = "target"
json = { what = "{{ what }}" }
"""
WORKFLOWS = {
    "one": """
[policy]
outcomes = ["approve", "reject", "changes"]
[[stage]]
id = "go"
from = ["@managers"]
"""
    + BOTH_WAYS
    + CALLS_THE_TARGET,
    "two": """
[policy]
on_change = { note = "keep" }
[[stage]]
id = "go"
from = ["@managers"]
need = 2
"""
    + BOTH_WAYS
    + CALLS_THE_TARGET,
    "seats": """
[[stage]]
id = "go"
[[stage.seat]]
from = ["@a"]
[[stage.seat]]
from = ["@b"]
[deliver]
slack = "#deploys"
""",
    "only-ann": """
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[deliver]
email = true
""",
    "up": """
[policy]
self_approval = "skip-up"
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[deliver]
email = true
""",
    "code": """
[[stage]]
id = "go"
from = ["cy@acme.eu"]
[deliver]
email = true
link_auth = "code"
""",
    "late-mail": """
[[stage]]
id = "go"
from = ["@managers"]
[deliver]
slack = "#deploys"
email = "after 10m"
""",
    "live": """
[[stage]]
id = "go"
from = ["@live"]
[deliver]
slack = "#deploys"
""",
    "careful": """
[policy]
grace = "30s"
[[stage]]
id = "go"
from = ["@managers"]
need = 2
"""
    + BOTH_WAYS
    + CALLS_THE_TARGET,
    "live-at-quorum": """
[policy]
recheck = "at-quorum"
[[stage]]
id = "go"
from = ["@live"]
need = 2
[deliver]
slack = "#deploys"
""",
    "three": """
[policy]
reject = "any"
[[stage]]
id = "go"
from = ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu", "cfo@acme.eu"]
need = 3
[deliver]
slack = "#deploys"
""",
    "zones": """
[[stage]]
id = "go"
from = ["aki@acme.eu", "bea@acme.eu"]
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "8d"
""",
    "timed": """
[[stage]]
id = "go"
from = ["@managers"]
[deliver]
slack = "#deploys"
[clock]
deadline = "4h"
""",
}


class Acme(Service):
    """The service at Acme, and what people do with it. Each request is found by what it is about."""

    def ask(self, workflow: str, what: str, by: str = DI, **more: Any) -> str:
        return self.open(workflow, by, what=what, **more)

    def asks(self, workflow: str, what: str, by: str = DI, **more: Any) -> str:
        """Open a request as `ask` does, and wait until it waits for approvers."""
        run_id = self.ask(workflow, what, by, **more)
        self.eventually(lambda: self.request(run_id) and self.request(run_id)["waiting_for"])
        return run_id

    def request(self, run_id: str) -> Json:
        found: Json = self.run(run_id)["request"]
        return found

    def card(self, title: str = "Scenario") -> Json:
        """Return the newest card with this title; replies in its thread don't count."""
        found = self.eventually(lambda: [m for m in self.messages() if title in m["text"] and not m["thread_ts"]])
        card: Json = found[-1]
        return card

    def link_of(self, to: str, what: str) -> str:
        """Return the newest link to this request that was mailed to this person."""

        def newest() -> list[Json]:
            return [m for m in self.mails(to) if what in m["subject"] and "/decisions/" in m["text"]][-1:]

        found = re.search(r"http://\S+/decisions/\S+", self.eventually(newest)[0]["text"])
        assert found
        return found[0]

    def calls(self, what: str) -> list[Json]:
        """Wait for calls to the target about this request, and return them."""
        return list(self.eventually(lambda: self.reached(what)))

    def reached(self, what: str) -> list[Json]:
        return [call for call in self.play("GET", "/http/requests") if (call["json"] or {}).get("what") == what]

    def live(self, *people: str) -> None:
        """Set the members of @live. Without any, its source can't be read."""
        file = self.folder / "live.json"
        file.write_text(json.dumps({"people": people}) if people else "{")

    def advance(self, time: str) -> None:
        self.play("POST", "/clock", json={"advance": time})

    def fault(self, where: str, **fault: Any) -> None:
        self.play("POST", f"/{where}/faults", json=fault)

    def mended(self) -> None:
        for where in ("slack", "mail", "http"):
            self.play("DELETE", f"/{where}/faults")

    def submit(self, user: str, view: Json, comment: str) -> Json:
        """Fill in a modal's comment and send it."""
        inputs = [block for block in view["blocks"] if block["type"] == "input"]
        values = {inputs[0]["block_id"]: {inputs[0]["element"]["action_id"]: comment}}
        body = {"user": user, "view_id": view["id"], "values": values}
        found: Json = self.play("POST", "/slack/submit", json=body)
        return found

    def slack_says(self, method: str, **arguments: Any) -> Json:
        """Call a method of the fake Slack with the app's own token."""
        token = (self.folder / ".approvals" / "secrets" / "SLACK_BOT_TOKEN").read_text()
        answer = self.http.post(
            f"/playground/slack/api/{method}", json=arguments, headers={"authorization": f"Bearer {token}"}
        )
        found: Json = answer.json()
        assert found["ok"], found
        return found


def furnish(folder: Path, workflows: dict[str, str] | None = None) -> Path:
    """Write Acme's configuration into a folder."""
    (folder / "config.toml").write_text(CONFIG)
    (folder / "workflows").mkdir()
    for id, text in (WORKFLOWS if workflows is None else workflows).items():
        head = f'[workflow]\nid = "{id}"\ntitle = "{{{{ what }}}}"\nrequest = ["*", "app:dev"]\n'
        (folder / "workflows" / f"{id}.toml").write_text(head + FORM + text)
    (folder / "live.json").write_text(json.dumps({"people": [ANN, BO, CY]}))
    return folder
