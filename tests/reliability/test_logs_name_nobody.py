"""Acts of every kind in a running service: its log at level debug names nobody, and nothing secret."""

from __future__ import annotations

import asyncio
import json
import re
import smtplib
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from slack_sdk.signature import SignatureVerifier

from approvals_bot.people import Person
from approvals_bot.playground import SeedApp, SeedChannel, User
from approvals_bot.playground.faults import Fault
from approvals_bot.playground.mailbox import MailServer, ReceivedMail
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, run_fake_slack
from tests.support.faulty_house import KEY, House, Served, Target, a_house

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ANN, BO, CY = "ann-canary7@acme.eu", "bo-canary7@acme.eu", "cy-canary7@acme.eu"
STRANGER = "stranger-canary7@evil.example"
SCIM_KEY, OLD_KEY = "scim-canary7-key-with-32-bytes-at-least", "old-canary7-key-with-32-bytes-at-least"

MORE = """
[email]
host = "127.0.0.1"
port = {smtp}
security = "none"
sender = "Approvals <approvals@acme.eu>"
[email.replies]
address = "approvals@acme.eu"
listen = "127.0.0.1:{lmtp}"
trusted_authserv = ["mx.acme.eu"]
[slack]
bot_token = "file:bot.token"
signing_secret = "file:slack.secret"
api_url = "{slack}"
app_id = "A0APPROVE"
[http.iam]
url = "http://127.0.0.1:{iam}/path-canary7"
secret = "file:iam.secret"
[http.hr]
url = "http://127.0.0.1:{hr}/path-canary7"
[groups]
sre = {{ http = "hr" }}
[directory]
people = {{ file = "people.json" }}
[roles]
operator = ["{bo}"]
[log]
format = "json"
level = "debug"
[alerts]
to = ["{ann}"]
[api_keys.idp]
key = "file:scim.key"
may = ["scim"]
"""

GRANT = """
[grant]
lasts = "4h"
give = { http = "iam", json = { who = "{{ requester.email }}" } }
take = { http = "iam", json = { who = "{{ requester.email }}" } }
"""

CODE = """
from approvals_bot import step, workflow
@step(retries=0)
async def breaks(what: str) -> str:
    raise OSError(f"canary7 {what}")
@workflow(name="fails-code")
async def fails(given: dict[str, str]) -> str:
    return await breaks(given["version"])
@workflow(name="stalls-code")
async def stalls(given: dict[str, str]) -> str:
    raise KeyError("canary7")
"""


@dataclass
class Seen:
    """A service whose acts are watched, and the secrets that came up in them."""

    served: Served
    mailbox: MailServer
    secrets: set[str] = field(default_factory=set)

    def browser(self) -> httpx2.AsyncClient:
        headers = {"origin": "http://127.0.0.1:1", "sec-fetch-site": "same-origin"}
        return httpx2.AsyncClient(base_url=self.served.url, headers=headers, timeout=30.0, trust_env=False)

    async def mail_to(self, person: str, about: str = "") -> ReceivedMail:
        until = time.monotonic() + 60
        while True:
            for mail in reversed(self.mailbox.mails):
                if mail.to == person and about in mail.subject + mail.text:
                    return mail
            assert time.monotonic() < until, [(mail.to, mail.subject) for mail in self.mailbox.mails]
            await asyncio.sleep(0.1)

    def path_of(self, url: str) -> str:
        path = re.sub(r"^https?://[^/]+", "", url)
        self.secrets |= {part for part in path.split("/") if len(part) >= 40}
        return path


def form(page: str) -> dict[str, str]:
    """Return the hidden inputs of a page's forms."""
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))


async def test_a_log_at_debug_names_nobody_and_no_secret(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        iam, hr = Target(body='{"canary7": 1}'), Target(body=json.dumps({"people": [ANN, "nonsense canary7"]}))
        for target in (iam, hr):
            await target.start(stack)
        mailbox = await stack.enter_async_context(MailServer(port=0))
        people = (User(Person(ANN, "Ann Canary7", "U0ANN")), User(Person(BO, "Bo Canary7", "U0BO")))
        fake = await stack.enter_async_context(
            run_fake_slack(
                app=SeedApp(BOT_TOKEN, SIGNING_SECRET), people=people, channels=(SeedChannel("deploys"),), groups=()
            )
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            lmtp = free.getsockname()[1]
        house = await stack.enter_async_context(a_house(tmp_path))
        for name, text in (
            ("mail.password", "password-canary7"),
            ("bot.token", BOT_TOKEN),
            ("slack.secret", SIGNING_SECRET),
            ("iam.secret", "secret-canary7-" * 4),
            ("scim.key", SCIM_KEY),
            ("people.json", json.dumps({"people": [{"address": CY, "zone": "canary7"}, {"address": "no canary7"}]})),
            ("workflows/code.py", CODE),
        ):
            house.write(name, text)
        house.allowed = (iam.port, hr.port)
        house.more = MORE.format(
            smtp=mailbox.port, lmtp=lmtp, slack=fake.playground.api_url, iam=iam.port, hr=hr.port, ann=ANN, bo=BO
        )
        configure(house)
        seen = Seen(await house.serve(), mailbox)
        await calls_of_programs(seen)
        await signs_in(seen)
        await decides_by_mail(seen, lmtp)
        await presses_in_slack(seen)
        await pushes_people(seen)
        await gets_a_grant(seen)
        await meets_faults(seen, house, fake, mailbox, hr)
        seen.served.process.terminate()
        await seen.served.process.wait()
    judge(seen)


def configure(house: House) -> None:
    house.configure()
    config = house.folder / "config.toml"
    text = config.read_text().replace("ann@acme.eu", ANN).replace("bo@acme.eu", BO)
    house.write("config.toml", text.replace("may_vote = true", 'may_vote = true, requesters = ["*"]'))
    for name, approver, deliver, more in (
        ("deploy", ANN, 'email = true\nemail_replies = "decide"\ni_know = true', ""),
        ("card", ANN, 'slack = "#deploys"', ""),
        ("access", ANN, "email = true", GRANT),
        ("grouped", "@sre", "email = true", ""),
    ):
        house.workflow(name, deliver, approver, more)


async def ask(seen: Seen, workflow: str, **more: Any) -> str:
    given = {"version": "field-canary7"}
    body = {"workflow": workflow, "input": given, "requester": BO} | more
    answer = await seen.served.call("POST", "/api/runs", body)
    return str(answer.json().get("run_id"))


async def calls_of_programs(seen: Seen) -> None:
    """Calls of the API: good ones, wrong ones, and ones with a key that isn't there."""
    run = await ask(seen, "deploy")
    vote = {"by": ANN, "choice": "reject", "comment": "comment-canary7"}
    assert (await seen.served.call("POST", f"/api/runs/{run}/votes", vote)).status_code == 201
    await ask(seen, "deploy", requester=STRANGER)
    await ask(seen, "deploy", input={"version": 7, "other-canary7": 1})
    await ask(seen, "workflow-canary7")
    call = seen.served.call
    await call("GET", f"/api/runs?q=query-canary7&requester={BO}")
    await call("GET", "/api/runs/run-canary7")
    await call("GET", "/path-canary7/else")
    await call("GET", "/api/runs", key=OLD_KEY)
    await call("POST", "/api/hooks/token-canary7", {"canary7": 1})
    await call("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "method-canary7", "params": {"canary7": 1}})
    await ask(seen, "fails-code")
    await ask(seen, "stalls-code")


async def signs_in(seen: Seen) -> None:
    """Sign-ins by code, pages with a session, a wrong code, and a stranger."""
    async with seen.browser() as http:
        page = (await http.get("/login")).text
        await http.post("/login", data=form(page) | {"address": STRANGER})
        answer = await http.post("/login", data=form(page) | {"address": BO})
        assert answer.status_code == 200, answer.text
        page = answer.text
        code = re.search(r"\b(\d{6})\b", (await seen.mail_to(BO, "Your code is")).text)
        assert code is not None
        await http.post("/login", data=form(page) | {"code": "000000"})
        answer = await http.post("/login", data=form(page) | {"code": code[1]})
        assert answer.status_code == 303, answer.text
        seen.secrets |= {form(page)["code_token"], *http.cookies.values()}
        for path in (
            "/inbox?q=query-canary7",
            "/runs?requester=" + BO,
            "/me",
            "/operations",
            "/audit",
            "/requests/new/deploy",
        ):
            await http.get(path)
        page = (await http.get("/requests/new/deploy")).text
        await http.post("/requests", data=form(page) | {"version": "typed-canary7"})


async def decides_by_mail(seen: Seen, lmtp: int) -> None:
    """Decisions behind a link, and by replies: right, wrong and forged."""
    await ask(seen, "deploy")
    mail = await seen.mail_to(ANN)
    link = re.search(r"http\S+/decisions/\S+", mail.text)
    assert link is not None
    path = seen.path_of(link[0])
    replies_to = mail.raw
    sealed = re.search(r"[\w.-]+\+[\w.+-]+@acme\.eu", replies_to)
    assert sealed is not None
    seen.secrets.add(sealed[0].partition("@")[0])

    def reply(text: str, sender: str) -> None:
        passed = "Authentication-Results: mx.acme.eu; dmarc=pass header.from=acme.eu"
        head = f"{passed}\r\nFrom: {sender}\r\nTo: {sealed[0]}\r\nSubject: Re: canary7\r\nMessage-ID: <canary7@acme.eu>"
        with smtplib.LMTP("127.0.0.1", lmtp, timeout=20) as line:
            line.sendmail(sender, [sealed[0]], f"{head}\r\n\r\n{text}\r\n")

    await asyncio.to_thread(reply, "comment-canary7 of mine", ANN)
    await asyncio.to_thread(reply, "approve", STRANGER)
    async with seen.browser() as http:
        page = (await http.get(path)).text
        await http.post(path, data=form(page) | {"choice": "approve", "comment": "comment-canary7"})
        await http.get(path[:-3] + "abc")
    await ask(seen, "deploy")
    await asyncio.to_thread(reply, "approve", ANN)


async def presses_in_slack(seen: Seen) -> None:
    """A card, a press of somebody unknown, and a forged one."""
    await ask(seen, "card")
    press = {
        "type": "block_actions",
        "user": {"id": "U0CANARY7"},
        "actions": [{"action_id": "vote", "value": "canary7"}],
    }
    body = httpx2.QueryParams({"payload": json.dumps(press)})
    for secret in (SIGNING_SECRET, "another"):
        content = str(body).encode()
        at = str(int(time.time()))
        signature = SignatureVerifier(secret).generate_signature(timestamp=at, body=content)
        signed = {"x-slack-request-timestamp": at, "x-slack-signature": signature or ""}
        headers = signed | {"content-type": "application/x-www-form-urlencoded"}
        async with seen.browser() as http:
            await http.post("/slack/events", content=content, headers=headers)


async def pushes_people(seen: Seen) -> None:
    """People and groups of an identity provider, and what it gets wrong."""
    call, at = seen.served.call, "/scim/v2"
    schema = "urn:ietf:params:scim:schemas:core:2.0:User"
    await call("POST", f"{at}/Users", {"schemas": [schema], "userName": "dee-canary7@acme.eu"}, key=SCIM_KEY)
    await call("POST", f"{at}/Users", {"schemas": [schema], "userName": "no canary7"}, key=SCIM_KEY)
    await call("GET", f'{at}/Users?filter=userName eq "dee-canary7@acme.eu"', key=SCIM_KEY)
    await call("POST", f"{at}/Users", {"schemas": [schema], "userName": "dee-canary7@acme.eu"}, key=OLD_KEY)


async def gets_a_grant(seen: Seen) -> None:
    run = await ask(seen, "access")
    vote = {"by": ANN, "choice": "approve", "comment": "comment-canary7"}
    assert (await seen.served.call("POST", f"/api/runs/{run}/votes", vote)).status_code == 201
    async with asyncio.timeout(60):
        while not (await seen.served.call("GET", "/api/grants")).json()["grants"]:
            await asyncio.sleep(0.1)
    await seen.served.call("POST", f"/api/runs/{run}/revocation", {"by": ANN, "reason": "reason-canary7"})


async def meets_faults(seen: Seen, house: House, fake: Any, mailbox: MailServer, hr: Target) -> None:
    """Refusals of the relay, of Slack and of sources, whose words name people; and a file with a mistake."""
    mailbox.faults.add(Fault("error", "RCPT", times=None, code=550, error=f"5.1.1 no {ANN} in canary7"))
    fake.fault("error", "chat.postMessage", times=None, error="channel_not_found")
    hr.body = "<html>canary7"
    for workflow in ("deploy", "card", "grouped"):
        await ask(seen, workflow)
    seen.served.mark()
    house.write("workflows/deploy.toml", '[workflow]\ntitle = "canary7 {{ version }}"\nfrom = ["' + STRANGER + '"]\n')
    await seen.served.log_shows("a broken workflow", "config_refused")
    async with asyncio.timeout(60):
        while "source_down" not in seen.served.log.read_text():
            await asyncio.sleep(0.2)


def judge(seen: Seen) -> None:
    text = seen.served.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all({"ts", "level", "event"} <= line.keys() for line in lines)
    events = {line["event"] for line in lines}
    wanted = {"request", "delivery_done", "delivery_refused", "key_refused", "login_refused", "run_stalled"}
    assert events >= wanted | {"config_refused", "source_down", "service_stopped"}, events
    assert len(lines) > 60
    named = [f"{line['logger']}: {line['message']}" for line in lines if "canary7" in json.dumps(line).lower()]
    assert named == []
    secrets = {KEY, SCIM_KEY, OLD_KEY, BOT_TOKEN, SIGNING_SECRET, "k" * 40} | seen.secrets
    assert len(seen.secrets) >= 4
    assert [secret for secret in secrets if secret in text] == []
