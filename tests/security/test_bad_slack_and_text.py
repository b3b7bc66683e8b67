"""Bad inputs by their number: what pretends to come from Slack, and text that would like to be more than text."""

from __future__ import annotations

import asyncio
import email
import email.policy
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest

from approvals_bot.approvals.card_model import Card, CardField, Name
from approvals_bot.approvals.port import Dispatch, ToPerson
from approvals_bot.channels.email.message import Address, compose
from approvals_bot.channels.slack import blocks
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.people import Person
from approvals_bot.playground import APP_ID
from approvals_bot.playground.slack.blocks import check_blocks
from tests.support.fake_slack import SIGNING_SECRET
from tests.support.slack_office import Office

FORM = "application/x-www-form-urlencoded"
NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)

Headers = dict[str, str | bytes]


def press(office: Office, **changes: Any) -> dict[str, Any]:
    """Return the payload of Ann's press on Approve."""
    actions = next(block for block in office.card.blocks if block["type"] == "actions")
    team = office.playground.workspace.app.team_id
    payload = {
        "type": "block_actions",
        "api_app_id": APP_ID,
        "team": {"id": team, "domain": "play"},
        "user": {"id": "U0ANN"},
        "trigger_id": "1.2.3",
        "container": {"type": "message", "channel_id": office.card.channel, "message_ts": office.card.ts},
        "channel": {"id": office.card.channel, "name": "deploys"},
        "message": office.card.as_json(team, with_metadata=True),
        "actions": [{"type": "button", **actions["elements"][0], "block_id": actions["block_id"], "action_ts": "1"}],
    }
    return payload | changes


def body_of(payload: dict[str, Any]) -> bytes:
    return urlencode({"payload": json.dumps(payload)}).encode()


def signed(office: Office, body: bytes, *, later: int = 0, secret: str = SIGNING_SECRET) -> Headers:
    stamp = str(int(office.clock.now().timestamp()) + later)
    mac = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"Content-Type": FORM, "X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={mac}"}


async def send(office: Office, body: bytes, headers: Headers, *more: tuple[str, str]) -> int:
    pairs = [(name, value.decode("latin-1") if isinstance(value, bytes) else value) for name, value in headers.items()]
    async with office.http.post(f"{office.url}/slack/events", data=body, headers=[*pairs, *more]) as answer:
        assert "Traceback" not in await answer.text()
        return answer.status


Forged = Callable[[Office, bytes], tuple[bytes, Headers]]

FORGED: dict[str, Forged] = {
    "B01 no signature": lambda office, body: (body, {"Content-Type": FORM}),
    "B02 wrong secret": lambda office, body: (body, signed(office, body, secret="another secret")),
    "B03 6 minutes old": lambda office, body: (body, signed(office, body, later=-360)),
    "B04 6 minutes ahead": lambda office, body: (body, signed(office, body, later=360)),
    "B05 timestamp abc": lambda office, body: (body, signed(office, body) | {"X-Slack-Request-Timestamp": "abc"}),
    "B06 timestamp of 5,000 digits": lambda office, body: (
        body,
        signed(office, body) | {"X-Slack-Request-Timestamp": "1" * 5_000},
    ),
    "B07 signature with é": lambda office, body: (body, signed(office, body) | {"X-Slack-Signature": "v0=é"}),
    "B08 body not UTF-8": lambda office, body: (b"payload=\xff\xfe", signed(office, b"payload=\xff\xfe")),
    "B09 body changed after signing": lambda office, body: (body.replace(b"%7B", b"%7b"), signed(office, body)),
}


@pytest.mark.parametrize("number", FORGED)
async def test_a_forged_request_is_refused(office: Office, number: str) -> None:
    run_id = await office.ask()
    await refused(office, run_id, *FORGED[number](office, body_of(press(office))))


async def refused(office: Office, run_id: str, body: bytes, headers: Headers, *more: tuple[str, str]) -> None:
    """Send it: the answer is a 401, nothing changes, and the audit has one line, without the secret."""
    lines, votes = await office.engine.audit_lines(), await office.votes(run_id)
    assert await send(office, body, headers, *more) == 401
    added = [line.entry for line in (await office.engine.audit_lines())[len(lines) :]]
    assert [entry.what for entry in added] == ["slack_refused"]
    assert SIGNING_SECRET not in str(added)
    assert await office.votes(run_id) == votes


async def test_two_signatures_are_refused(office: Office) -> None:
    """B10."""
    run_id, body = await office.ask(), body_of(press(office))
    headers = signed(office, body)
    await refused(office, run_id, body, headers, ("X-Slack-Signature", str(headers["X-Slack-Signature"])))


async def test_an_exact_replay_is_refused(office: Office) -> None:
    """B11."""
    run_id = await office.ask(stage=[{"id": "go", "from": ["ann@acme.eu", "cy@acme.eu"], "need": 2}])
    body = body_of(press(office))
    headers = signed(office, body)
    assert await send(office, body, headers) == 200
    async with asyncio.timeout(60):  # its line comes after the acknowledgement
        while not await office.engine.audit_lines(AuditFilter(what="acted")):
            await asyncio.sleep(0.01)
    await refused(office, run_id, body, headers)
    assert len(await office.votes(run_id)) == 1


@pytest.mark.parametrize(
    "changes",
    [{"team": {"id": "T0OTHER"}, "user": {"id": "U0ANN", "team_id": "T0OTHER"}}, {"api_app_id": "A0OTHER"}],
    ids=["B12 other team", "B13 other app"],
)
async def test_another_team_or_app_is_refused(office: Office, changes: dict[str, Any]) -> None:
    run_id = await office.ask()
    body = body_of(press(office, **changes))
    await refused(office, run_id, body, signed(office, body))


@pytest.mark.parametrize("number", ["B14 a message that we did not post", "B15 the value of another request"])
async def test_a_press_on_something_else_is_not_counted(office: Office, number: str) -> None:
    run_id = await office.ask()
    payload = press(office)
    if number.startswith("B14"):
        payload["message"] = payload["message"] | {"bot_id": "B0OTHER", "app_id": "A0OTHER", "metadata": None}
    else:
        other = await office.engine.record(await office.ask())
        assert other is not None
        payload["actions"][0]["value"] = other.parts[0]["hook_id"]
    body = body_of(payload)
    assert await send(office, body, signed(office, body)) == 200
    assert await office.votes(run_id) == []
    lines = [line.entry for line in await office.engine.audit_lines() if line.entry.what == "act_refused"]
    assert [line.who for line in lines] == ["slack:U0ANN"]


TEXTS = {
    "B64 CRLF in a subject": "api\r\nBcc: eve@evil.example",
    "B65 encoded word with CRLF": "=?utf-8?q?a=0D=0ABcc:_eve@evil.example?=",
    "B66 two addresses": "a@b.example, c@d.example",
    "B67 quoted local part": '"a b"@acme.eu',
    "B68 a line of 2,000 characters": "x" * 2_000,
    "B69 <!channel>": "<!channel>",
    "B70 <@U1>": "<@U1>",
    "B71 a link with another name": "<https://evil.example|https://good.example>",
    "B72 an escaped mention": "&lt;!here&gt;",
    "B73 <script>": "</td><script>alert(1)</script><img src=x onerror=alert(1)>",
    "B74 a javascript: link": "[a](javascript:alert(1)) javascript:alert(1)",
    "B75 bidi override": "gpj.\u202eexe",
    "B76 50,000 characters": "long " * 10_000,
}


class Tags(HTMLParser):
    """The tags of a page, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src") or name.startswith("on")]


def dispatch_of(text: str) -> Dispatch:
    """Return the dispatch of a card with this text wherever people's text can be."""
    card = Card(
        run_id="run_1",
        hook_id="hook_1",
        workflow="deploy",
        version=1,
        state="waiting",
        title=f"Deploy {text}",
        requester=Name("bo@acme.eu", text),
        asked_at=NOW,
        digest="5f1c",
        fields=(CardField("version", "Version", text, pinned=True), CardField("plan", text, text, "long")),
        instructions=text,
        notes=(text,),
        url="https://approve.acme.eu/requests/run_1",
    )
    to = ToPerson("email", Person("ann@acme.eu", "Ann Ode"))
    return Dispatch("run_1-1", to, card, link="https://approve.acme.eu/decisions/x")


def mrkdwn_in(value: Any) -> list[str]:
    """Return all text of Slack's markup in these blocks."""
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    own = [value["text"]] if isinstance(value, dict) and value.get("type") == "mrkdwn" else []
    return own + [text for one in inside for text in mrkdwn_in(one)]


@pytest.mark.parametrize("number", TEXTS)
def test_text_stays_text_in_slack(number: str) -> None:
    top, shown = blocks.card_message(dispatch_of(TEXTS[number]).card)
    assert check_blocks(shown, "message") == []
    for markup in (top, *mrkdwn_in(shown)):
        assert not any(sign in markup for sign in ("<!channel", "<!here", "<@", "<https://evil", "\u202e"))
    assert "\u202e" not in json.dumps(shown, ensure_ascii=False)
    assert len(json.dumps(shown)) < 13_000


@pytest.mark.parametrize("number", TEXTS)
def test_text_stays_text_in_mail(number: str) -> None:
    mail = compose(dispatch_of(TEXTS[number]), sender=Address.parse("approvals@acme.eu", "Approvals"), now=NOW)
    raw = mail.content
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    read = email.message_from_bytes(raw, policy=email.policy.default)
    assert [read["Bcc"], read.get_all("To"), read["Subject"].count("\n")] == [None, ["Ann Ode <ann@acme.eu>"], 0]
    html = read.get_body(("html",))
    assert html is not None
    tags = Tags(html.get_content())
    assert not tags.names & {"script", "img", "iframe", "object"}
    assert all(link.startswith("https://approve.acme.eu/") for link in tags.links)
    assert "\u202e" not in html.get_content()
