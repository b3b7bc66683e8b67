"""The mail channel with real aiosmtplib against real aiosmtpd: retries, rejections, and TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from pydantic import SecretStr

from approvals_bot.approvals.card_model import Card
from approvals_bot.approvals.port import Delivered, Dispatch, Receipt, Refused, ToPerson, TryAgain
from approvals_bot.channels.email.message import OutgoingMail, message_id_of
from approvals_bot.channels.email.post import Mailer
from approvals_bot.channels.email.smtp import Accepted, Relay
from approvals_bot.config.mail import MailAccount
from approvals_bot.errors import ConfigError
from approvals_bot.people import Person
from tests.support.certificates import certificate

ANN = ToPerson("email", Person("ann@acme.eu", "Ann Ode"))


class Server:
    """A mail server with scripted answers."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}  # command → replies to come; "drop" disconnects after the work
        self.mails: list[Envelope] = []
        self.connections = 0
        self.commands: list[str] = []
        self.lines: list[SMTP] = []

    def next(self, command: str) -> str:
        self.commands.append(command)
        waiting = self.answers.get(command)
        return waiting.pop(0) if waiting else ""

    async def handle_MAIL(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if refusal := self.next("MAIL"):
            return refusal
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if refusal := self.next("RCPT"):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, line: SMTP, _: Session, envelope: Envelope) -> str:
        answer = self.next("DATA")
        if answer in ("", "drop"):
            self.mails.append(envelope)
        if answer == "drop":
            assert line.transport is not None
            line.transport.close()
        return answer or "250 OK"

    async def handle_NOOP(self, *_: Any) -> str:
        return self.next("NOOP") or "250 OK"


Start = Callable[..., Awaitable[tuple[Server, Mailer, Relay]]]


@pytest.fixture
async def start(now: datetime) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def starter(
            relay_options: dict[str, Any] | None = None, **server_options: Any
        ) -> tuple[Server, Mailer, Relay]:
            server = Server()
            loop = asyncio.get_running_loop()

            def line() -> SMTP:
                server.connections += 1
                new = SMTP(server, hostname="relay.test", loop=loop, enable_SMTPUTF8=True, **server_options)
                server.lines.append(new)
                return new

            listening = await loop.create_server(line, "127.0.0.1", 0)
            port = listening.sockets[0].getsockname()[1]
            options: dict[str, Any] = {"host": "127.0.0.1", "port": port, "security": "none"} | (relay_options or {})
            account = MailAccount(**{name: options.pop(name) for name in MailAccount.model_fields if name in options})
            relay = Relay(account, **options)
            channel = Mailer(
                relay=relay,
                sender="Approvals <bot@acme.eu>",
                now=lambda: now,
            )

            async def close() -> None:
                await channel.aclose()
                listening.close()
                for one in server.lines:
                    if one.transport is not None:
                        one.transport.close()
                await listening.wait_closed()
                await asyncio.sleep(0)

            stack.push_async_callback(close)
            return server, channel, relay

        yield starter


def dispatch(card: Card, number: int = 1, to: ToPerson = ANN) -> Dispatch:
    return Dispatch(f"run_1:{number}", to, card, link=f"https://x/{card.hook_id}")


async def test_a_mail_is_delivered_and_its_receipt_is_the_message_id(start: Start, card: Card) -> None:
    server, channel, _ = await start()
    answer = await channel.send(dispatch(card))
    message_id = message_id_of("run_1:1", "acme.eu")
    subject = "Please decide: Deploy api 2.1.0 to prod"
    assert answer == Delivered(Receipt("ann@acme.eu", message_id, 3, subject=subject))
    (mail,) = server.mails
    assert (mail.mail_from, mail.rcpt_tos) == ("bot@acme.eu", ["ann@acme.eu"])
    content = mail.content
    assert isinstance(content, bytes)
    assert f"Message-ID: <{message_id}>".encode() in content
    assert b"https://x/hook_1" in content


async def test_mails_share_one_connection_and_a_broken_one_is_replaced(start: Start, card: Card) -> None:
    server, channel, _ = await start()
    for number in range(3):
        assert isinstance(await channel.send(dispatch(card, number)), Delivered)
    assert server.connections == 1
    transport = server.lines[0].transport
    assert transport is not None
    transport.close()
    assert isinstance(await channel.send(dispatch(card, 9)), Delivered)
    assert (server.connections, len(server.mails)) == (2, 4)


async def test_fifty_mails_are_enough_for_one_connection(start: Start, card: Card) -> None:
    server, channel, _ = await start()
    for number in range(51):
        assert isinstance(await channel.send(dispatch(card, number)), Delivered)
    assert server.connections == 2


LATER = timedelta(minutes=1)


@pytest.mark.check(55)
@pytest.mark.parametrize(
    ("command", "reply", "expected"),
    [
        ("RCPT", "450 4.2.1 busy", TryAgain("the relay asks to try later: 450 4.2.1 busy", LATER)),
        ("RCPT", "452 full", TryAgain("the relay asks to try later: 452 full", LATER)),
        ("RCPT", "550 5.1.1 <ann@acme.eu> unknown", Refused("the relay rejects the mail: 550 5.1.1 <…> unknown")),
        ("MAIL", "451 later", TryAgain("the relay asks to try later: 451 later", LATER)),
        ("DATA", "554 5.7.1 spam", Refused("the relay rejects the mail: 554 5.7.1 spam", "message")),
        ("DATA", "552 5.3.4 too large", Refused("the relay rejects the mail: 552 5.3.4 too large", "message")),
        ("DATA", "421 4.3.2 closing", TryAgain("the relay asks to try later: 421 4.3.2 closing", LATER)),
    ],
)
async def test_a_reply_is_judged_by_whose_fault_it_is(
    start: Start, card: Card, command: str, reply: str, expected: TryAgain | Refused
) -> None:
    server, channel, _ = await start()
    server.answers[command] = [reply]
    assert await channel.send(dispatch(card)) == expected
    assert isinstance(await channel.send(dispatch(card)), Delivered)
    assert len(server.mails) == 1


@pytest.mark.check(55)
@pytest.mark.parametrize(
    ("command", "reply", "error"),
    [
        ("MAIL", "553 not yours", "the relay rejects our sender address: 553 not yours"),
        ("RCPT", "554 5.7.1 <ann@acme.eu>: Relay access denied", "554 5.7.1 <…>: Relay access denied"),
        ("DATA", "550 5.4.5 Daily user sending limit exceeded.", "550 5.4.5 Daily user sending limit exceeded."),
        ("DATA", "554 5.2.252 SendAsDenied; a@acme.eu not allowed to send as b@acme.eu", "554 5.2.252 SendAsDenied; "),
    ],
)
async def test_a_fault_of_our_account_stops_the_queue_loudly(
    start: Start, card: Card, caplog: pytest.LogCaptureFixture, command: str, reply: str, error: str
) -> None:
    time = 0
    server, channel, _ = await start({"monotonic": lambda: time})
    server.answers[command] = [reply] * 6
    tried = []
    while server.answers[command]:
        left = len(server.answers[command])
        answer = await channel.send(dispatch(card))
        assert isinstance(answer, Refused)
        assert answer.install
        assert error in answer.error
        tried += [time] * (left - len(server.answers[command]))
        time += 5
    assert tried == [0, 10, 30, 70, 130, 190]  # in between, nobody asked the relay
    assert caplog.text.count("Mail doesn't work") == 6
    assert "Check username and password of [email]." in caplog.text or "Have the relay let this account" in caplog.text
    assert "@acme.eu" not in caplog.text
    time += 55
    assert isinstance(await channel.send(dispatch(card)), Delivered)
    server.answers[command] = [reply]
    await channel.send(dispatch(card))
    time += 10  # the first stop again, because a mail was accepted since
    assert isinstance(await channel.send(dispatch(card)), Delivered)


async def test_a_rejected_mail_is_logged_once_without_its_address(
    start: Start, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    server, channel, _ = await start()
    server.answers["RCPT"] = ["550 5.1.1 <ann@acme.eu> unknown"]
    assert isinstance(await channel.send(dispatch(card)), Refused)
    (line,) = [one for one in caplog.records if one.name.startswith("approvals_bot") and one.levelname != "DEBUG"]
    said = "The relay rejected a mail: 550 5.1.1. What it said is on the page /deliveries"
    assert (line.levelname, line.getMessage()) == ("WARNING", said)


@pytest.mark.check(57)
async def test_a_connection_lost_after_the_text_is_retried_and_marked(start: Start, card: Card) -> None:
    server, channel, _ = await start()
    server.answers["DATA"] = ["drop"]
    assert isinstance(await channel.send(dispatch(card)), TryAgain)
    again = await channel.send(dispatch(card))
    assert isinstance(again, Delivered)
    assert again.uncertain
    first, second = (mail.content for mail in server.mails)
    assert first == second


async def test_an_unreachable_relay_is_retried(start: Start, card: Card) -> None:
    _, channel, _ = await start({"port": 1})
    assert await channel.send(dispatch(card)) == TryAgain("the relay can't be reached")


async def test_an_update_leaves_a_sent_mail_alone(start: Start, card: Card) -> None:
    server, channel, _ = await start()
    receipt = Receipt("ann@acme.eu", "x@acme.eu", 1)
    assert await channel.update(receipt, dispatch(card)) == Delivered(receipt)
    assert server.mails == []


@pytest.mark.check(54)
@pytest.mark.parametrize("address", ["a@b.eu, c@d.eu", "a@b.eu>\r\nRCPT TO:<c@d.eu", '"a b"@acme.eu', "nobody"])
async def test_an_invalid_address_never_reaches_the_relay(start: Start, card: Card, address: str) -> None:
    server, channel, _ = await start()
    answer = await channel.send(dispatch(card, to=ToPerson("email", Person(address, "x"))))
    assert isinstance(answer, Refused)
    assert address not in answer.error
    assert server.connections == 0


@pytest.mark.check(54)
async def test_non_ascii_addresses_need_a_relay_that_accepts_them(start: Start, card: Card) -> None:
    server, channel, _ = await start()
    answer = await channel.send(dispatch(card, to=ToPerson("email", Person("änn@bücher.eu", "Änn"))))
    assert isinstance(answer, Delivered)
    assert server.mails[0].rcpt_tos == ["änn@xn--bcher-kva.eu"]


# ── who may read along ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.check(56)
async def test_starttls_is_used_with_a_trusted_certificate(start: Start, card: Card, tmp_path: Path) -> None:
    tls = certificate(tmp_path, "127.0.0.1")
    trust = ssl.create_default_context(cafile=str(tmp_path / "127.0.0.1.pem"))
    server, channel, _ = await start(
        {"security": "starttls", "tls_context": trust}, tls_context=tls, require_starttls=True
    )
    assert isinstance(await channel.send(dispatch(card)), Delivered)
    assert len(server.mails) == 1


@pytest.mark.check(56)
@pytest.mark.parametrize("name", ["127.0.0.1", "somebody-else.example"])
async def test_an_untrusted_certificate_gets_no_mail(start: Start, card: Card, tmp_path: Path, name: str) -> None:
    trust = None
    tls = certificate(tmp_path, name)
    if name != "127.0.0.1":
        trust = ssl.create_default_context(cafile=str(tmp_path / f"{name}.pem"))
    server, channel, _ = await start({"security": "starttls", "tls_context": trust}, tls_context=tls)
    answer = await channel.send(dispatch(card))
    assert isinstance(answer, TryAgain)
    assert "certificate" in answer.error
    assert server.mails == []


@pytest.mark.check(56)
async def test_a_relay_with_stripped_starttls_gets_no_mail_or_password(
    start: Start, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    server, channel, _ = await start({"security": "starttls", "username": "bot", "password": SecretStr("s3cret")})
    answer = await channel.send(dispatch(card))
    assert answer == TryAgain("the relay offers no TLS, so nothing was sent (security = starttls)")
    assert server.commands == []
    assert "s3cret" not in caplog.text


@pytest.mark.check(56)
def test_plain_text_is_for_loopback_only() -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        Relay(MailAccount(host="smtp.acme.eu", port=25, security="none"))
    for host in ("localhost", "127.0.0.1", "::1"):
        Relay(MailAccount(host=host, port=25, security="none"))


@pytest.mark.check(55)
async def test_a_rejected_login_stops_the_queue_loudly_for_a_minute(
    start: Start, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    time = 1_000.0
    tries = 0

    def authenticate(*_: Any) -> AuthResult:
        nonlocal tries
        tries += 1
        return AuthResult(success=False, handled=False)

    server, channel, _ = await start(
        {"username": "bot", "password": SecretStr("s3cret"), "monotonic": lambda: time},
        authenticator=authenticate,
        auth_require_tls=False,
    )
    with caplog.at_level(logging.ERROR):
        answers = [await channel.send(dispatch(card, number)) for number in range(5)]
    assert all(isinstance(answer, Refused) and answer.install for answer in answers)
    tried = tries
    assert server.connections == 1
    assert caplog.text.count("rejects our login") == 1
    assert "s3cret" not in caplog.text
    time += 61
    await channel.send(dispatch(card))
    assert tries > tried


async def test_ten_mails_at_once_go_out_one_by_one(start: Start, card: Card) -> None:
    server, channel, _ = await start()
    answers = await asyncio.gather(*(channel.send(dispatch(card, number)) for number in range(10)))
    assert all(isinstance(answer, Delivered) for answer in answers)
    assert (len(server.mails), server.connections) == (10, 1)


async def test_a_relay_can_be_checked_without_sending(start: Start) -> None:
    server, _, relay = await start()
    assert await relay.check() is None
    assert server.mails == []


async def test_a_relay_with_dsn_is_asked_for_short_reports() -> None:
    said, is_over = list[str](), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay.test\r\n")
        while line := (await reader.readline()).decode().strip():
            said.append(line)
            if line == "DATA":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
            writer.write(b"250-relay.test\r\n250 DSN\r\n" if line.startswith("EHLO") else b"250 OK\r\n")
        writer.close()
        await writer.wait_closed()
        is_over.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        relay = Relay(MailAccount(host="127.0.0.1", port=server.sockets[0].getsockname()[1], security="none"))
        mail = OutgoingMail("approvals@acme.eu", "ann+x=y@acme.eu", "a@acme.eu", b"Subject: x\r\n\r\nx\r\n")
        assert await relay.deliver(mail) == Accepted()
        await relay.aclose()
        await is_over.wait()
    assert "MAIL FROM:<approvals@acme.eu> RET=HDRS" in said
    assert "RCPT TO:<ann+x=y@acme.eu> ORCPT=rfc822;ann+2Bx+3Dy@acme.eu" in said
