"""The mail channel: what goes out, what comes back, and whether it works, behind one object for the service."""

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
from approvals_bot.config.mail import Email, is_loopback
from approvals_bot.durable.engine import Engine
from approvals_bot.service.host import ChannelHost

EXAMPLE_DOMAINS = ("example.com", "example.org", "example.net")


def make(settings: Email) -> EmailChannel:
    """Make the channel of `[email]`. The entry point `email`."""
    return EmailChannel(settings)


class EmailChannel:
    """One relay. It works once it is attached to a service; without one it can be examined."""

    def __init__(self, settings: Email) -> None:
        self._settings = settings
        self._relay = Relay(settings)
        self._out: Mailer | Digests | None = None
        self._returns: tuple[Engine, ReturnPaths] | None = None
        self._watch: Watch | None = None
        self._listening: socket.socket | None = None

    def attach(self, host: ChannelHost) -> None:
        """Build what sends mail and what takes bounces. OSError: the bounces' address can't be listened at."""
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
        """Leave the mail as it is: its link shows the newest state."""
        assert self._out is not None, "only an attached channel sends"
        return await self._out.update(receipt, dispatch)

    async def run(self) -> None:
        """Take the mails that come back, by LMTP or SMTP, from a mailbox, or both."""
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
        """Return how the mailbox of bounces is."""
        return {} if self._watch is None else {"bounces_mailbox": self._watch.state}

    async def check(self, asked: CheckUp) -> Sequence[Diagnosis]:
        """Try the relay, from connecting to logging in, and send a test mail if there is an address for one."""
        return await examine(self._relay, self._settings, asked.send_to)

    async def aclose(self) -> None:
        """Hang up, and stop listening."""
        if self._listening is not None:
            self._listening.close()
        await self._relay.aclose()


async def examine(relay: Relay, email: Email, send_to: str | None) -> list[Diagnosis]:
    """Try the relay, and send a test mail if there is an address for one."""
    where = f"{email.host}:{email.port}"
    match await relay.check():
        case TryAgain(error) | Refused(error):
            todo = "Look at [email]: host, port, security, username and password."
            return [Diagnosis("FAIL", "mail", f"{where}: {error}", todo), *_sender(email)]
    how = {"starttls": "by STARTTLS", "tls": "by TLS", "none": "unencrypted, on this machine"}[email.security]
    login = "logged in" if email.username else "no login"
    sent = [await _send(relay, email, send_to)] if send_to is not None else []
    return [Diagnosis("OK", "mail", f"{where} answers, {how}, {login}"), *_sender(email), *sent]


def _sender(email: Email) -> list[Diagnosis]:
    """What the sender's domain has to say in DNS, or mail is taken for spam. It isn't looked up here: only the
    receiver's view counts.
    """
    domain = Address.parse_sender(email.sender).domain
    if domain in EXAMPLE_DOMAINS:
        return [
            Diagnosis("WARN", "sender", f"{domain} is nobody's domain", "Set [email] sender to an address of yours.")
        ]
    relay = "mx" if is_loopback(email.host) else f"a:{email.host}"
    records = "\n".join(
        [
            f'{domain}.                     TXT  "v=spf1 {relay} -all"',
            f'<selector>._domainkey.{domain}.  TXT  "v=DKIM1; k=rsa; p=<the relay\'s public key>"',
            f'_dmarc.{domain}.              TXT  "v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}"',
        ]
    )
    return [
        Diagnosis("OK", "sender", f"mail comes from {domain}, which should have these records in DNS:", "", records)
    ]


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
        "This is a test by `approvals-bot doctor`. Mail works; there is nothing to do.",
        "",
    ]
    mail = OutgoingMail(sender.address, recipient.address, name, "\r\n".join(lines).encode("ascii", "replace"))
    match await relay.deliver(mail):
        case Accepted():
            return Diagnosis("OK", "test mail", f"the relay took it for {to}; look whether it arrives, and where")
        case outcome:
            return Diagnosis("FAIL", "test mail", outcome.error, "Ask who runs the relay.")
