"""The mail channel as one object for the service: sending, bounces and `doctor`'s checks."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from approvals_bot.approvals.port import CheckUp, Diagnosis, Dispatch, Receipt, Refused, Result, TryAgain
from approvals_bot.channels.email.bounces import Reports, ReturnPaths
from approvals_bot.channels.email.digests import Digests
from approvals_bot.channels.email.imap import Watch
from approvals_bot.channels.email.lmtp import mail_in
from approvals_bot.channels.email.message import Address, InvalidAddressError, OutgoingMail
from approvals_bot.channels.email.post import Mailer
from approvals_bot.channels.email.smtp import Accepted, Relay, Turns
from approvals_bot.config.hosts import is_loopback
from approvals_bot.config.mail import Email
from approvals_bot.durable.engine import Engine
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
        self._returns: tuple[Engine, ReturnPaths] | None = None
        self._watch: Watch | None = None
        self._listening: socket.socket | None = None

    def attach(self, host: ChannelHost) -> None:
        """Build what sends mail and what takes in bounces. Raises OSError if the bounce address is in use."""
        settings, bounces = self._settings, self._settings.bounces
        return_paths = ReturnPaths(bounces.address, host.tokens) if bounces else None
        turns = Turns(settings.rate.count, settings.rate.per) if settings.rate else None
        mailer = Mailer(relay=self._relay, sender=settings.sender, now=host.now, turns=turns, return_paths=return_paths)
        self._out = Digests(mailer, span=settings.digest, now=host.now) if settings.digest else mailer
        if bounces is None or return_paths is None:
            return
        self._returns = (host.engine, return_paths)
        if bounces.imap is not None:
            self._watch = Watch(Reports(host.engine, return_paths), return_paths, bounces.imap)
        if bounces.place is not None:
            family = socket.AF_INET6 if ":" in bounces.place[0] else socket.AF_INET
            self._listening = socket.create_server(bounces.place, family=family)

    async def send(self, dispatch: Dispatch) -> Result:
        """Send a mail, or hold it for a digest."""
        assert self._out is not None, "only an attached channel sends"
        return await self._out.send(dispatch)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        """Leave the mail as it is: its link shows the latest state."""
        assert self._out is not None, "only an attached channel sends"
        return await self._out.update(receipt, dispatch)

    async def run(self) -> None:
        """Take in bounces by LMTP or SMTP, from a mailbox, or both, until cancelled."""
        async with AsyncExitStack() as stack:
            if self._listening is not None and self._returns is not None and self._settings.bounces is not None:
                engine, return_paths = self._returns
                protocol = self._settings.bounces.protocol
                taking = mail_in(engine=engine, return_paths=return_paths, sock=self._listening, protocol=protocol)
                await stack.enter_async_context(taking)
            if self._watch is not None:
                stack.callback(self._watch.hang_up)
                await self._watch.run()
            else:
                await asyncio.Event().wait()

    def states(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """Return the state of the bounce mailbox, for `/readyz`."""
        return {} if self._watch is None else {"bounces_mailbox": self._watch.state}

    async def check(self, asked: CheckUp) -> Sequence[Diagnosis]:
        """Connect and log in to the relay, and send a test mail if `asked` names an address."""
        return await examine(self._relay, self._settings, asked.send_to)

    async def aclose(self) -> None:
        """Close the connection, and stop listening."""
        if self._listening is not None:
            self._listening.close()
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
