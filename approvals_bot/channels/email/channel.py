"""The mail channel as one object for the service: sending, bounces, replies and `doctor`'s checks."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from approvals_bot.approvals.port import (
    CheckUp,
    ConnectionState,
    Diagnosis,
    Dispatch,
    Receipt,
    Refused,
    Result,
    TryAgain,
)
from approvals_bot.channels.email.bounces import Reports, ReturnPaths
from approvals_bot.channels.email.digests import Digests
from approvals_bot.channels.email.imap import Watch
from approvals_bot.channels.email.inbound import Inlet
from approvals_bot.channels.email.message import Address, InvalidAddressError, OutgoingMail
from approvals_bot.channels.email.post import Mailer
from approvals_bot.channels.email.replies import ReplyAddresses, ReplyInlet
from approvals_bot.channels.email.smtp import Accepted, Relay, Turns
from approvals_bot.config.hosts import is_loopback
from approvals_bot.config.mail import Email, MailIn
from approvals_bot.service.host import ChannelHost

EXAMPLE_DOMAINS = ("example.com", "example.org", "example.net")


def make(settings: Email) -> EmailChannel:
    """Make the channel of `[email]`. The entry point `email`."""
    return EmailChannel(settings)


class EmailChannel:
    """Mail through one relay. It sends once attached to a service; `check` works before that, too."""

    def __init__(self, settings: Email) -> None:
        self._settings = settings
        self._relay = Relay(settings)
        self._out: Mailer | Digests | None = None
        self._watches: list[Watch] = []
        self._listening: list[tuple[socket.socket, MailIn, list[Inlet]]] = []

    def attach(self, host: ChannelHost) -> None:
        """Build what sends mail, and what takes it in. Raises OSError if an address to listen on is in use."""
        settings, bounces, replies = self._settings, self._settings.bounces, self._settings.replies
        return_paths = ReturnPaths(bounces.address, host.tokens) if bounces else None
        reply_addresses = ReplyAddresses(replies.address, host.tokens) if replies else None
        mailer = Mailer(
            relay=self._relay,
            sender=settings.sender,
            now=host.now,
            turns=Turns(settings.rate.count, settings.rate.per) if settings.rate else None,
            return_paths=return_paths,
            replies=reply_addresses,
        )
        self._out = Digests(mailer, span=settings.digest, now=host.now) if settings.digest else mailer
        if bounces is not None and return_paths is not None:
            self._take_in(Reports(host.engine, return_paths), bounces)
        if replies is not None and reply_addresses is not None:
            self._take_in(ReplyInlet(host, reply_addresses, replies.trusted_authserv, mailer.answer), replies)

    def _take_in(self, inlet: Inlet, by: MailIn) -> None:
        """Prepare to take mail in. Bounces and replies may come to the same address of ours."""
        if by.imap is not None:
            self._watches.append(Watch(inlet, by.imap))
        if by.place is None:
            return
        shared = next((inlets for _, other, inlets in self._listening if other.place == by.place), None)
        if shared is not None:
            shared.append(inlet)
            return
        family = socket.AF_INET6 if ":" in by.place[0] else socket.AF_INET
        self._listening.append((socket.create_server(by.place, family=family), by, [inlet]))

    async def send(self, dispatch: Dispatch) -> Result:
        """Send a mail, or hold it for a digest."""
        assert self._out is not None, "only an attached channel sends"
        return await self._out.send(dispatch)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        """Leave the mail as it is: its link shows the latest state."""
        assert self._out is not None, "only an attached channel sends"
        return await self._out.update(receipt, dispatch)

    async def run(self) -> None:
        """Take in bounces and replies by LMTP or SMTP, from mailboxes, or both, until cancelled."""
        async with AsyncExitStack() as stack:
            if self._listening:
                from approvals_bot.channels.email.lmtp import mail_in  # its library is of the extra `listen`
            for sock, by, inlets in self._listening:
                await stack.enter_async_context(mail_in(inlets=inlets, sock=sock, protocol=by.protocol))
            async with asyncio.TaskGroup() as tasks:
                for watch in self._watches:
                    stack.callback(watch.hang_up)
                    tasks.create_task(watch.run())
                await asyncio.Event().wait()

    def states(self) -> Mapping[str, Callable[[], Awaitable[ConnectionState]]]:
        """Return the state of each mailbox that is read, for `/readyz`."""
        return {f"{watch.name}_mailbox": watch.state for watch in self._watches}

    async def probe(self) -> ConnectionState:
        """Connect and log in to the relay, unless it has just refused the login."""
        verdict = await self._relay.probe()
        return ConnectionState("up") if verdict is None else ConnectionState("down", verdict.error)

    async def check(self, asked: CheckUp) -> Sequence[Diagnosis]:
        """Connect and log in to the relay, and send a test mail if `asked` names an address."""
        return await examine(self._relay, self._settings, asked.send_to)

    async def aclose(self) -> None:
        """Close the connection, and stop listening."""
        for sock, _, _ in self._listening:
            sock.close()
        await self._relay.aclose()


async def examine(relay: Relay, email: Email, send_to: str | None) -> list[Diagnosis]:
    """Connect and log in to the relay, and send a test mail if `send_to` is an address."""
    where = f"{email.host}:{email.port}"
    match await relay.check():
        case TryAgain(error) | Refused(error):
            todo = "Check host, port, security, username and password in [email]."
            return [Diagnosis("FAIL", "mail", f"{where}: {error}", todo), *_sender(email)]
    how = {"starttls": "by STARTTLS", "tls": "by TLS", "none": "unencrypted, on this machine"}[email.security]
    login = "logged in" if email.username else "no login"
    sent = [await _send(relay, email, send_to)] if send_to is not None else []
    return [Diagnosis("OK", "mail", f"{where} answers, {how}, {login}"), *_sender(email), *sent]


def _sender(email: Email) -> list[Diagnosis]:
    """List the DNS records that the sender's domain needs, or mail ends up in spam.

    They aren't looked up here: what counts is what the receiving server sees.
    """
    domain = Address.parse_sender(email.sender).domain
    if domain in EXAMPLE_DOMAINS:
        return [
            Diagnosis("WARN", "sender", f"{domain} is an example domain", "Set [email] sender to an address of yours.")
        ]
    relay = "mx" if is_loopback(email.host) else f"a:{email.host}"
    records = "\n".join(
        [
            f'{domain}.                     TXT  "v=spf1 {relay} -all"',
            f'<selector>._domainkey.{domain}.  TXT  "v=DKIM1; k=rsa; p=<the relay\'s public key>"',
            f'_dmarc.{domain}.              TXT  "v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}"',
        ]
    )
    return [Diagnosis("OK", "sender", f"mail comes from {domain}, which needs these DNS records:", "", records)]


async def _send(relay: Relay, email: Email, to: str) -> Diagnosis:
    sender = Address.parse_sender(email.sender)
    try:
        recipient = Address.parse(to)
    except InvalidAddressError as error:
        return Diagnosis("FAIL", "test mail", str(error), "Give --send one mail address.")
    name = f"doctor-{secrets.token_hex(8)}@{sender.domain}"
    now = datetime.now(UTC)
    lines = [
        f"From: {sender.address}",
        f"To: {recipient.address}",
        "Subject: Approvals Bot: a test",
        f"Date: {now:%a, %d %b %Y %H:%M:%S} +0000",
        f"Message-ID: <{name}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "This is a test from `approvals-bot doctor`. Mail works, and there's nothing to do.",
        "",
    ]
    mail = OutgoingMail(sender.address, recipient.address, name, "\r\n".join(lines).encode("ascii", "replace"))
    match await relay.deliver(mail):
        case Accepted():
            return Diagnosis("OK", "test mail", f"the relay accepted it for {to}; check the inbox and the spam folder")
        case outcome:
            return Diagnosis("FAIL", "test mail", outcome.error, "Ask the relay's administrator.")
