"""Bounces and other inbound mail: failure reports count, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import quopri
import smtplib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot.channels.email.bounces import TOGETHER, Reports, ReturnPaths
from approvals_bot.channels.email.lmtp import mail_in
from approvals_bot.channels.email.reports import read_failures
from approvals_bot.channels.email.sealed import MailedCopy
from approvals_bot.durable.tokens import Tokens
from approvals_bot.playground.mailbox import MailServer, ReceivedMail
from tests.support.posting import a_posting_service

PATHS = ReturnPaths("bounces@acme.eu", Tokens(["a-key-of-these-tests-that-has-32-bytes!"], installation="one"))


def report(action: str = "failed", *, kind: str = "multipart/report; report-type=delivery-status") -> bytes:
    """A delivery report as Postfix writes it."""
    return f"""From: MAILER-DAEMON@mx.acme.eu (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: {kind}; boundary="b"

--b
Content-Type: text/plain; charset=us-ascii

This is the mail system at host mx.acme.eu.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.acme.eu
Arrival-Date: Wed, 4 Nov 2026 10:05:00 +0000

Final-Recipient: rfc822; ann@acme.eu
Action: {action}
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <ann@acme.eu>: Recipient address rejected:
    User unknown

--b
Content-Type: text/rfc822-headers

Subject: Please decide: Deploy api 2.1

--b--
""".replace("\n", "\r\n").encode()


@dataclass
class Desk:
    """A service whose bounces come to `port`."""

    service: Any
    mailbox: MailServer
    port: int
    protocol: str

    async def send(self, to: str, content: bytes, sender: str = "") -> int:
        """Return the dialogue's last answer, as a relay sees it."""
        answer = await asyncio.to_thread(self._send, to, content, sender)
        await self.service.engine.settle()
        return answer

    def _send(self, to: str, content: bytes, sender: str) -> int:
        client = smtplib.LMTP if self.protocol == "lmtp" else smtplib.SMTP
        with client("127.0.0.1", self.port, timeout=20) as line:
            line.ehlo_or_helo_if_needed()
            for code, _ in (line.mail(sender), line.rcpt(to)):
                if code != 250:
                    return code
            return line.data(content)[0]

    async def first_mail(self, to: str) -> tuple[str, ReceivedMail, str]:
        """Open a request. Returns its mail to this person, and that mail's envelope sender."""
        run = await self.service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
        mail = next(mail for mail in self.mailbox.mails if mail.to == to)
        return run, mail, mail.envelope_sender

    async def copies(self, run: str) -> dict[str, tuple[str, str]]:
        view = await self.service.view(run)
        return {f"{copy['channel']} {copy['to']}": (copy["state"], copy["error"]) for copy in view["deliveries"]}


@asynccontextmanager
async def a_desk(open_service: Any, protocol: Any) -> AsyncIterator[Desk]:
    async with (
        a_posting_service(open_service, "https://approve.acme.eu", return_paths=PATHS) as (service, mailbox),
        mail_in(
            inlets=[Reports(service.engine, PATHS)], sock=socket.create_server(("127.0.0.1", 0)), protocol=protocol
        ) as port,
    ):
        yield Desk(service, mailbox, port, protocol)


@pytest.fixture
async def desk(open_service: Any) -> AsyncIterator[Desk]:
    async with a_desk(open_service, "lmtp") as opened:
        yield opened


@pytest.mark.check(58)
@pytest.mark.parametrize("protocol", ["lmtp", "smtp"])
async def test_a_bounce_marks_the_delivery_and_falls_back(open_service: Any, protocol: str) -> None:
    async with a_desk(open_service, protocol) as desk:
        run, mail, back = await desk.first_mail("ann@acme.eu")
        assert back.startswith("bounces+")
        assert len(back.partition("@")[0]) <= 64
        assert mail.sender == "Approvals <approvals@acme.eu>"  # people see no difference
        assert await desk.send(back.upper(), report()) == 250
        copies = await desk.copies(run)
        why = "the mail came back: 5.1.1: 550 5.1.1 <…>: Recipient address rejected: User unknown"
        assert copies["email ann@acme.eu"] == ("not_delivered", why)
        assert copies["email bo@acme.eu"][0] == "delivered"
        log = [str(event.data) for event in await desk.service.engine.events(run) if event.type == "step_created"]
        assert len([sent for sent in log if "'channel': 'slack'" in sent and "ann@acme.eu" in sent]) == 1
        assert await desk.send(back, report()) == 250  # a repeated report changes nothing
        assert await desk.copies(run) == copies
        lines = [line for line in await desk.service.engine.audit_lines() if line.entry.what == "mail_came_back"]
        assert [line.entry.run_id for line in lines] == [run, run]
        before = len(desk.mailbox.mails)
        for person in ("bo@acme.eu", "cy@acme.eu"):
            body = {"by": person, "choice": "approve"}
            assert (await desk.service.api.post(f"/api/runs/{run}/votes", json=body)).status_code == 201
        await desk.service.engine.settle()
        recipients = [mail.to for mail in desk.mailbox.mails[before:]]
        assert "ann@acme.eu" not in recipients  # nothing more goes to a missing mailbox
        assert await desk.send(back, report()) == 250  # accepted after the end, but changes nothing


@pytest.mark.check(58)
async def test_a_forged_bounce_does_nothing(desk: Desk) -> None:
    run, _, back = await desk.first_mail("ann@acme.eu")
    before = desk.service.content()
    local, _, domain = back.partition("@")
    name, copy, number, seal = local.replace("+", "-").split("-")
    other = ReturnPaths("bounces@acme.eu", Tokens(["another-key-that-has-32-bytes-too!!"], installation="one")).of(
        f"{run}-1-1"
    )
    assert other is not None
    for forged in (
        f"{name}+{copy}-{number}@{domain}",
        f"{name}+{copy}-{number}-{'a' * 16}@{domain}",
        f"{name}+{copy}-{int(number) + 1}-{seal}@{domain}",
        f"{name}+{copy[::-1]}-{number}-{seal}@{domain}",
        f"{name}+{copy}-{number}-{seal[:-1]}@{domain}",
        f"{local}@elsewhere.eu",
        f"approvals+{copy}-{number}-{seal}@{domain}",
        other,
        f"bounces@{domain}",
        "ann@acme.eu",
    ):
        assert await desk.send(forged, report()) == 550
    assert await desk.send(back, report(), sender="mallory@evil.example") == 550
    assert desk.service.content() == before


@pytest.mark.check(58)
@pytest.mark.parametrize(
    "content",
    [
        report("delayed"),
        report("delivered"),
        report("relayed"),
        report(kind="multipart/report; report-type=disposition-notification"),
        report(kind="multipart/mixed"),
        b"Subject: failed\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        b"",
        b"\xff\x00\r\n\r\n\xfe",
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\nno parts",
        b"Content-Type: multipart/report; report-type*=\xff''x; boundary=b\r\n\r\n--b\r\n\r\n--b--\r\n",
        b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(2_000)),
    ],
)
async def test_mail_that_is_no_failure_report_changes_nothing(desk: Desk, content: bytes) -> None:
    _, _, back = await desk.first_mail("ann@acme.eu")
    before = desk.service.content()
    assert await desk.send(back, content) == 250
    assert desk.service.content() == before


@pytest.mark.check(59)
async def test_auto_replies_loops_forgeries_and_replies_never_decide(desk: Desk) -> None:
    _, mail, back = await desk.first_mail("ann@acme.eu")
    assert "bounces" not in mail.headers["Reply-To"]  # an answer goes to the requester
    before = desk.service.content()
    quoted = f"approve\r\n\r\n> {mail.text}".replace("\n", "\r\n")
    for head in (
        "Auto-Submitted: auto-replied\r\nSubject: Out of office",
        "Precedence: bulk\r\nSubject: Vacation",
        "From: Ann Ode <ann@acme.eu>\r\nSubject: Re: Please decide",
        "Authentication-Results: mx.acme.eu; dmarc=pass\r\nFrom: ann@acme.eu\r\nSubject: approve",
    ):
        content = f"{head}\r\n\r\n{quoted}".encode()
        assert await desk.send(back, content) == 250  # like vacation programs: from the null sender
        for sender in ("ann@acme.eu", "approvals@acme.eu"):
            assert await desk.send(back, content, sender=sender) == 550
            assert await desk.send("approvals@acme.eu", content, sender=sender) == 550
    assert desk.service.content() == before


SEVERAL = timedelta(minutes=15)


@asynccontextmanager
async def a_digest(open_service: Any) -> AsyncIterator[tuple[Desk, list[str], ReceivedMail]]:
    """A desk, the requests in Ann's digest, and that mail."""
    async with (
        a_posting_service(open_service, "https://approve.acme.eu", return_paths=PATHS, digest=SEVERAL) as (
            service,
            box,
        ),
        mail_in(inlets=[Reports(service.engine, PATHS)], sock=socket.create_server(("127.0.0.1", 0))) as port,
    ):
        runs = [await service.start("deploy", {"version": f"2.{n}"}, requester="di@acme.eu") for n in range(8)]
        await service.clock.advance(SEVERAL)
        (mail,) = [mail for mail in box.mails if mail.to == "ann@acme.eu" and "requests are waiting" in mail.subject]
        yield Desk(service, box, port, "lmtp"), runs, mail


def came_back(mail: ReceivedMail, *, whole: bool) -> bytes:
    """Make a relay's report: with the whole mail, or with its headers alone."""
    raw = mail.raw.replace("\r\n", "\n").replace("\n", "\r\n").encode()
    head = b"message/rfc822\r\n\r\n" + raw if whole else b"text/rfc822-headers\r\n\r\n" + raw.partition(b"\r\n\r\n")[0]
    own, _, _ = report().partition(b"text/rfc822-headers")
    return own + head + b"\r\n\r\n--b--\r\n"


@pytest.mark.parametrize("whole", [True, False])
async def test_a_bounced_digest_shows_on_all_of_its_requests(open_service: Any, whole: bool) -> None:
    async with a_digest(open_service) as (desk, runs, mail):
        assert await desk.send(mail.envelope_sender, came_back(mail, whole=whole)) == 250
        states = [(await desk.copies(run))["email ann@acme.eu"][0] for run in runs]
        assert states == ["delivered"] * 5 + ["not_delivered"] * 3


async def test_a_report_affects_only_requests_that_we_sealed(open_service: Any) -> None:
    async with a_digest(open_service) as (desk, runs, mail):
        lines = mail.raw.replace("\r\n", "\n").split("\n")
        last = next(n for n, line in enumerate(lines) if line.startswith(TOGETHER)) + 3  # three copies, then the seal
        lines[last] = " aaaaaaaaaaaaaaaa"
        forged = replace(mail, raw="\n".join(lines))
        assert await desk.send(mail.envelope_sender, came_back(forged, whole=False)) == 250
        states = [(await desk.copies(run))["email ann@acme.eu"][0] for run in runs]
        assert states == ["delivered"] * 5 + ["not_delivered"] + ["delivered"] * 2


def test_the_reason_is_one_short_line_without_addresses() -> None:
    long = report().replace(b"User unknown", b"x" * 5_000 + b" bob@secret.example \x07")
    (failure,) = read_failures(long)
    assert len(failure.reason) <= 140
    assert "@" not in failure.reason
    (failure,) = read_failures(report().replace(b"Diagnostic-Code", b"X").replace(b"Status: ", b"S: "))
    assert failure.reason == "no reason was given"


def about(name: str, *, kind: str = "message/delivery-status", original: str = "") -> bytes:
    """A report about this mailbox, as the headers of RFC 3464 and 6533 name it."""
    also = f"\r\nOriginal-Recipient: {original}" if original else ""
    text = report().decode().replace("rfc822; ann@acme.eu", name + also).replace("message/delivery-status", kind)
    return text.encode()


GLOBAL = "message/global-delivery-status"
OF_ANN = [
    about("rfc822;ANN@Acme.EU"),
    about("rfc822; <ann@acme.eu>"),
    about("rfc822; ann+approvals@acme.eu"),
    about("ann@acme.eu"),
    about("rfc822; ann.ode@mail.acme.eu", original="rfc822; ann@acme.eu"),  # an alias, rewritten by its server
    about("utf-8; änn@acme.eu", kind=GLOBAL),  # the name of the same mailbox for those who can write it
    about("utf-8; ann@acme.eu", kind=GLOBAL),
    about(r"utf-8; \x{E4}nn@acme.eu", kind=GLOBAL),
    about("rfc822; ann@acme.eu").replace(b"failed", b"error"),  # OpenSMTPD
]
OF_OTHERS = [
    about("rfc822; bo@acme.eu"),  # somebody who has a card of their own
    about("rfc822; ann@elsewhere.example"),  # a mailbox to which Ann forwards mail
    about("utf-8; änne@acme.eu", kind=GLOBAL),
    about("rfc822; assistant@acme.eu", original="rfc822; assistant@acme.eu"),
]


@pytest.mark.check(58)
def test_a_report_of_any_standard_names_its_mailbox() -> None:
    for content in OF_ANN:
        (failure,) = read_failures(content)
        assert (failure.is_about(("ann@acme.eu",)), failure.blame) == (True, "recipient"), content.decode()


@pytest.mark.check(58)
async def test_a_report_about_somebody_else_marks_nobody(desk: Desk) -> None:
    await desk.first_mail("bo@acme.eu")
    _, _, back = await desk.first_mail("ann@acme.eu")
    before = desk.service.content()
    for content in (*OF_OTHERS, QMAIL.replace(b"ann@", b"bo@")):
        assert await desk.send(back, content) == 250
    assert desk.service.content() == before


def encoded(how: str) -> bytes:
    """A report about Ann whose status is encoded, as RFC 6533 allows."""
    head, status, rest = about("utf-8; änn@acme.eu", kind=GLOBAL).partition(f"Content-Type: {GLOBAL}\r\n\r\n".encode())
    blocks, border, tail = rest.partition(b"\r\n--b\r\n")
    body = base64.encodebytes(blocks) if how == "base64" else quopri.encodestring(blocks)
    status = status.rstrip() + f"\r\nContent-Transfer-Encoding: {how}\r\n\r\n".encode()
    return head + status + body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + border + tail


@pytest.mark.parametrize("how", ["base64", "quoted-printable"])
def test_an_encoded_status_is_decoded(how: str) -> None:
    (failure,) = read_failures(encoded(how))
    assert (failure.recipients, failure.blame) == (("änn@acme.eu",), "recipient")


@pytest.mark.parametrize("named", [b'"ann@acme.eu"', b"Ann Ode <ann@acme.eu>", b"ann@acme.eu (Ann Ode)"])
def test_a_name_beside_the_recipient_is_no_other_mailbox(named: bytes) -> None:
    (failure,) = read_failures(report().replace(b"rfc822; ann@acme.eu", b"rfc822; " + named))
    assert failure.recipients == ("ann@acme.eu",)


QMAIL = b"""From: MAILER-DAEMON@mx.acme.eu\r
Subject: failure notice\r
\r
Hi. This is the qmail-send program at mx.acme.eu.\r
I'm afraid I wasn't able to deliver your message to the following addresses.\r
This is a permanent error; I've given up. Sorry it didn't work out.\r
\r
<ann@acme.eu>:\r
Sorry, no mailbox here by that name. (#5.1.1)\r
\r
--- Below this line is a copy of the message.\r
\r
Return-Path: <approvals@acme.eu>\r
"""


@pytest.mark.check(58)
def test_an_old_servers_report_is_read_by_the_library() -> None:
    (failure,) = read_failures(QMAIL)
    assert failure.is_about(("ann@acme.eu",))


async def test_a_report_of_a_fault_of_ours_is_loud(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    run, _, back = await desk.first_mail("ann@acme.eu")
    ours = report().replace(b"5.1.1", b"5.7.26").replace(b"<ann@acme.eu>: Recipient address rejected:", b"blocked")
    assert await desk.send(back, ours) == 250
    because = "the mail came back: 5.7.26: 550 5.7.26 blocked User unknown"
    assert (await desk.copies(run))["email ann@acme.eu"] == ("retrying", because)
    (line,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "a fault of ours: 5.7.26" in line.getMessage()


async def test_a_mail_that_came_back_for_our_fault_is_sent_again(desk: Desk) -> None:
    run, first, back = await desk.first_mail("ann@acme.eu")
    ours = report().replace(b"5.1.1", b"5.7.26")

    def sent() -> list[ReceivedMail]:
        return [mail for mail in desk.mailbox.mails if mail.to == "ann@acme.eu"]

    for times, pause in enumerate((15, 30, 60), 1):
        assert await desk.send(back, ours) == 250
        assert await desk.send(back, ours) == 250  # repeated meanwhile
        await desk.service.clock.advance(timedelta(minutes=pause - 1))
        assert len(sent()) == times
        await desk.service.clock.advance(timedelta(minutes=1))
        assert len(sent()) == times + 1
        assert (await desk.copies(run))["email ann@acme.eu"][0] == "delivered"
    assert sent()[-1].subject == first.subject  # as if it were the first, which never arrived
    assert "References" not in sent()[-1].headers
    assert await desk.send(back, report()) == 250  # now for the mailbox's fault
    assert await desk.send(back, ours) == 250
    await desk.service.clock.advance(timedelta(hours=1))
    assert (await desk.copies(run))["email ann@acme.eu"][0] == "not_delivered"
    assert len(sent()) == 4


def test_a_return_address_fits_whatever_it_names() -> None:
    paths = ReturnPaths("a-ten-long@acme.eu", Tokens(["a-key-of-these-tests-that-has-32-bytes!"], installation="one"))
    run = "run_" + "0f" * 13 + "0"
    for request, copy in ((run, 1), (run, 9999), (f"{run}.1", 12), (f"{run}.99", 9999)):
        address = paths.of(f"{request}-{copy}-7")
        assert address is not None
        assert len(address.partition("@")[0]) <= 64
        assert paths.read(address) == MailedCopy(request, copy)
    assert paths.of("a code, which belongs to no copy") is None


def test_reports_of_servers_that_leave_something_out_are_read() -> None:
    (failure,) = read_failures(report(kind="multipart/report"))
    assert failure.is_about(("ann@acme.eu",))
    untyped = report().replace(b"Diagnostic-Code: smtp; 550 5.1.1", b"Diagnostic-Code: 550 5.7.26")
    (failure,) = read_failures(untyped.replace(b"Status: 5.1.1", b"Status: 5.0.0"))
    assert (failure.blame, failure.reason.partition(" <")[0]) == ("account", "5.0.0: 550 5.7.26")
