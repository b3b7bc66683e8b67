"""Our mails before independent judges: maildev receives and parses them, html-validate reads their HTML."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from html import unescape
from pathlib import Path
from typing import Any

import httpx2
import pytest

from approvals_bot.approvals.card_model import Card, CardChoice, CardOutcome
from approvals_bot.approvals.port import Delivered, Dispatch, Receipt, ToPerson
from approvals_bot.channels.email import letter
from approvals_bot.channels.email.message import Address, OutgoingMail, compose
from approvals_bot.channels.email.post import Mailer
from approvals_bot.channels.email.smtp import Relay
from approvals_bot.config.mail import MailAccount
from approvals_bot.people import Person
from tests.support.judges import NEEDED_IN_MAIL, faults_in_html, judge

SENDER = "Approvals <approvals@acme.eu>"
LINK = "https://approve.acme.eu/decisions/signed.token-1"
HOSTILE = "=?utf-8?q?x=0D=0ABcc:=20spy@evil.example?= <b>\u202e\r\nBcc: spy@evil.example"


@dataclass
class MailDev:
    smtp: int
    http: httpx2.AsyncClient

    async def mails(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.http.get("/email")).json()
        return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
async def maildev() -> AsyncIterator[MailDev]:
    program = judge("maildev") / "bin" / "maildev"
    while True:
        smtp, web = free_port(), free_port()
        options = ["-s", str(smtp), "-w", str(web), "--ip", "127.0.0.1", "--web-ip", "127.0.0.1", "--silent"]
        process = await asyncio.create_subprocess_exec(
            "node", str(program), *options, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(60):
            while process.returncode is None and not (answers(smtp) and answers(web)):
                await asyncio.sleep(0.05)
        if process.returncode is None:  # else another test was faster to take one of the ports
            break
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{web}", trust_env=False, timeout=10) as http:
            yield MailDev(smtp, http)
    finally:
        process.terminate()
        await process.wait()


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.check(52)
async def test_an_independent_parser_reads_what_python_reads(
    maildev: MailDev, card: Card, now: datetime, outcome: CardOutcome
) -> None:
    ann = ToPerson("email", Person("ann@acme.eu", "Ann Ode", zone="Europe/Berlin"))
    decided = replace(card, state="approved", outcome=outcome, choices=())
    first = Dispatch("run_1-1-1", ann, card)
    thread = Receipt("ann@acme.eu", "x@acme.eu")
    dispatches = [
        first,
        Dispatch("run_1-1-2", ann, decided, "outcome", thread=thread),
        Dispatch("run_1-2-1", ToPerson("email", Person("bo@bücher.example.eu", "Bo „Ö“ Lund, CFO")), card),
        Dispatch("run_1-3-1", ann, replace(card, title=HOSTILE)),
        Dispatch("run_1-4-1", ann, replace(card, title="Ünïcode 👩‍🚀 deploy " * 12)),
        Dispatch("run_1-5-1", ann, card, "code", "Your code is 123456."),
    ]  # no address beyond ASCII: maildev's parser reads raw letters in headers as Latin-1
    dispatches = [replace(each, link=LINK) for each in dispatches]
    relay = Relay(MailAccount(host="127.0.0.1", port=maildev.smtp, security="none"))
    channel = Mailer(relay=relay, sender=SENDER, now=lambda: now)
    try:
        for each in dispatches:
            assert isinstance(await channel.send(each), Delivered)
    finally:
        await channel.aclose()
    found = await maildev.mails()
    assert len(found) == len(dispatches)
    theirs = {mail["headers"]["message-id"]: mail for mail in found}
    for each in dispatches:
        sent = compose(each, sender=Address.parse_sender(SENDER), now=now)
        assert_same(theirs[f"<{sent.message_id}>"], sent)


def assert_same(theirs: dict[str, Any], sent: OutgoingMail) -> None:
    """The other parser finds what Python's finds in the same bytes."""
    ours = email.message_from_bytes(sent.content, policy=email.policy.default)
    assert theirs["subject"] == str(ours["Subject"])
    assert [one["address"] for one in theirs["to"]] == [sent.recipient]
    assert [one["name"] for one in theirs["to"]] == [one.display_name for one in ours["To"].addresses]
    assert theirs["from"] == [{"address": "approvals@acme.eu", "name": "Approvals"}]
    assert [in_ascii(one["address"]) for one in theirs["envelope"]["to"]] == [sent.recipient]
    assert not theirs.get("cc")
    assert not theirs.get("bcc")
    # maildev guesses hidden recipients by comparing envelope and header, and does not know one domain in two spellings
    assert {in_ascii(one["address"]) for one in theirs.get("calculatedBcc", [])} <= {sent.recipient}
    headers = theirs["headers"]
    assert headers["auto-submitted"] == "auto-generated"
    for name in ("in-reply-to", "references"):
        assert headers.get(name) == (str(ours[name]) if ours[name] else None)
    text, html = ours.get_body(("plain",)), ours.get_body(("html",))
    assert text is not None
    assert html is not None
    assert theirs["text"].split() == text.get_content().split()
    assert seen_in(theirs["html"]) == seen_in(html.get_content())
    assert not theirs.get("attachments")


def in_ascii(address: str) -> str:
    """maildev shows domains in Unicode."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.encode('idna').decode()}"


def seen_in(html: str) -> tuple[list[str], list[str]]:
    """The words and the links of a document; maildev rewrites the markup."""
    body = re.sub(r"<!--.*?-->|<style.*?</style>", " ", html, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", " ", body)).split(), [
        unescape(link) for link in re.findall(r'href="([^"]*)"', body)
    ]


def test_the_html_of_every_mail_is_valid(card: Card, now: datetime, outcome: CardOutcome, tmp_path: Path) -> None:
    ann = ToPerson("email", Person("ann@acme.eu", "Ann Ode", zone="Europe/Berlin"))
    cy = ToPerson("email", Person("cy@acme.eu", "Cy Rus"))
    decided = replace(card, state="approved", outcome=outcome, choices=())
    back = replace(card, choices=(*card.choices, CardChoice("take_back", "Undo vote", "Undo vote")))
    mails = {
        "request": Dispatch("a", ann, card),
        "outcome": Dispatch("b", ann, decided, "outcome"),
        "voted": Dispatch("c", cy, back, "vote"),
        "code": Dispatch("d", ann, card, "code", "Your code is 123456."),
        "hostile": Dispatch("e", ann, replace(card, title=HOSTILE, why_me="</td></table><script>")),
    }
    pages = {name: letter.write(replace(dispatch, link=LINK), now).html for name, dispatch in mails.items()}
    assert faults_in_html(pages, tmp_path, allowed=NEEDED_IN_MAIL) == []
    broken = faults_in_html({"broken": pages["request"].replace("</h1>", "")}, tmp_path, allowed=NEEDED_IN_MAIL)
    assert broken  # the control: the judge does look
