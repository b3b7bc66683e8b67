"""The real `aiosmtplib` against the playground's mailbox."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage
from typing import TYPE_CHECKING

import aiosmtplib
import pytest

from approvals_bot.playground.mailbox import MailServer

if TYPE_CHECKING:
    from tests.playground.conftest import Rig


def mail(to: str = "ann@acme.eu", subject: str = "Deploy api 2.1 – entscheiden?") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Approvals <approvals@acme.eu>"
    message["To"] = f"Ann Ode <{to}>"
    message["Subject"] = subject
    message["Message-ID"] = "<h1.1@acme.eu>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("Open https://approve.acme.eu/decisions/abc\n")
    message.add_alternative("<p>Open <a href='https://approve.acme.eu/decisions/abc'>it</a></p>", subtype="html")
    return message


async def send(rig: Rig, message: EmailMessage, to: list[str] | None = None) -> None:
    await aiosmtplib.send(
        message,
        hostname="127.0.0.1",
        port=rig.playground.smtp_port,
        recipients=to,
        start_tls=False,
        timeout=5,
        local_hostname="test",
    )


async def test_mail_is_kept_with_its_parts(rig: Rig) -> None:
    await send(rig, mail())
    [kept] = await rig.call("/mail/messages")
    assert kept["to"] == "ann@acme.eu"
    assert kept["from"] == "Approvals <approvals@acme.eu>"
    assert kept["subject"] == "Deploy api 2.1 – entscheiden?"
    assert kept["text"].strip() == "Open https://approve.acme.eu/decisions/abc"
    assert "<a href=" in kept["html"]
    assert kept["headers"]["Auto-Submitted"] == "auto-generated"
    assert kept["headers"]["Message-ID"] == "<h1.1@acme.eu>"
    assert "=?utf-8?" in kept["raw"]


async def test_mails_are_numbered_in_order(rig: Rig) -> None:
    for name in ("one", "two"):
        await send(rig, mail(subject=name))
    kept = await rig.call("/mail/messages")
    assert [(m["id"], m["subject"]) for m in kept] == [("m1", "one"), ("m2", "two")]


@pytest.mark.parametrize(("code", "command"), [(451, "DATA"), (550, "RCPT"), (452, "RCPT"), (554, "MAIL")])
async def test_scripted_refusal_has_its_code_and_ends(rig: Rig, code: int, command: str) -> None:
    await rig.call("/mail/faults", {"kind": "error", "method": command, "code": code})
    with pytest.raises((aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused)) as caught:
        await send(rig, mail())
    match caught.value:
        case aiosmtplib.SMTPRecipientsRefused(recipients=[error]) | (aiosmtplib.SMTPResponseException() as error):
            assert error.code == code
        case other:
            raise AssertionError(f"unexpected {other!r}")
    await send(rig, mail())
    assert len(await rig.call("/mail/messages")) == 1


async def test_fault_can_affect_one_recipient(rig: Rig) -> None:
    await rig.call("/mail/faults", {"kind": "error", "method": "RCPT", "code": 550, "channel": "bo@acme.eu"})
    await send(rig, mail("ann@acme.eu"))
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await send(rig, mail("bo@acme.eu"))


@pytest.mark.parametrize(("kind", "kept"), [("drop_before", 0), ("drop_after", 1)])
async def test_drop_loses_the_connection_with_or_without_the_mail(rig: Rig, kind: str, kept: int) -> None:
    await rig.call("/mail/faults", {"kind": kind, "method": "DATA"})
    with pytest.raises((aiosmtplib.SMTPServerDisconnected, ConnectionError)):
        await send(rig, mail())
    assert len(await rig.call("/mail/messages")) == kept


async def test_mailbox_closes_with_a_client_still_connected() -> None:
    async with MailServer() as mailbox:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=mailbox.port, start_tls=False, local_hostname="test")
        await client.connect()
    async with asyncio.timeout(5):
        while client.is_connected:
            await asyncio.sleep(0.01)
    client.close()
