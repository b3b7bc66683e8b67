"""Mail: the relay, from connecting to logging in; the sender's DNS records; and a test mail, if asked for."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from approvals_bot.approvals.port import Diagnosis, Refused, TryAgain
from approvals_bot.channels.email.message import Address, InvalidAddressError, OutgoingMail
from approvals_bot.channels.email.smtp import Accepted, Relay
from approvals_bot.config.mail import Email, is_loopback

EXAMPLE_DOMAINS = ("example.com", "example.org", "example.net")


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
