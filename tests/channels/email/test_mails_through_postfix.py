"""Our mails through Postfix: TLS, greylisting, sizes, non-ASCII addresses, and bounces."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.port import Refused, TryAgain
from approvals_bot.channels.email.bounces import Reports, ReturnPaths
from approvals_bot.channels.email.lmtp import mail_in
from approvals_bot.channels.email.message import OutgoingMail
from approvals_bot.channels.email.smtp import Accepted, Relay
from approvals_bot.config.mail import MailAccount
from approvals_bot.durable.tokens import Tokens
from approvals_bot.playground.faults import Fault
from tests.support.postfix import SIZE_LIMIT, needs_postfix, postfix
from tests.support.posting import a_kept_port, a_posting_service, until

PATHS = ReturnPaths("bounces@acme.eu", Tokens(["a-key-of-these-tests-that-has-32-bytes!"], installation="one"))


def a_mail(to: str, size: int = 100, sender: str = "approvals@acme.eu") -> OutgoingMail:
    date = f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S} +0000"
    lines = ["From: approvals@acme.eu", "Subject: Please decide", f"Date: {date}", "Message-ID: <a@acme.eu>", ""]
    content = "\r\n".join([*lines, *["x" * 70] * (size // 72), ""]).encode()
    return OutgoingMail(sender, to, "a@acme.eu", content)


@pytest.mark.check(58)
@needs_postfix
async def test_postfix_accepts_rejects_and_bounces_our_mails(open_service: Any, tmp_path: Path) -> None:
    with a_kept_port() as port:
        async with (
            a_posting_service(open_service, "https://approve.acme.eu") as (service, mailbox),
            mail_in(inlets=[Reports(service.engine, PATHS)], sock=socket.create_server(("127.0.0.1", 0))) as bounces,
            postfix(tmp_path / "postfix", port=port, mailbox=mailbox.port, bounces=bounces) as real,
        ):
            stranger = Relay(MailAccount(host="127.0.0.1", port=port))  # its certificate isn't trusted
            assert isinstance(await stranger.deliver(a_mail("ann@acme.eu")), TryAgain)
            relay = Relay(MailAccount(host="127.0.0.1", port=port), tls_context=real.tls)
            assert await relay.check() is None
            assert await relay.deliver(a_mail("ann@acme.eu")) == Accepted()
            utf8 = replace(a_mail("änn@acme.eu"), needs_utf8=True)
            assert await relay.deliver(utf8) == Accepted()
            match await relay.deliver(a_mail("ann@acme.eu", SIZE_LIMIT * 2)):
                case Refused(error) as refused:
                    assert "552" in error
                    assert not refused.install
                case other:
                    raise AssertionError(other)
            grey = await relay.deliver(a_mail("grey@acme.eu"))
            assert isinstance(grey, TryAgain)
            assert grey.after is not None
            await until(lambda: len(mailbox.mails) == 2, 30)
            assert sorted(mail.to for mail in mailbox.mails) == ["ann@acme.eu", "änn@acme.eu"]

            run = await service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
            gone = Fault("error", "RCPT", channel="gone@acme.eu", code=550, error="5.1.1 no such user", times=None)
            mailbox.faults.add(gone)  # Postfix notices only after accepting the mail
            back = PATHS.of(f"{run}-1-1")
            assert back is not None
            assert await relay.deliver(a_mail("gone@acme.eu", sender=back)) == Accepted()
            first = (await service.view(run))["deliveries"][0]
            async with asyncio.timeout(30):
                while first["state"] != "not_delivered":
                    await asyncio.sleep(0.05)
                    first = (await service.view(run))["deliveries"][0]
            assert "5.1.1" in first["error"]
            await relay.aclose()
            await stranger.aclose()
