"""A real SMTP server on loopback that keeps every mail, and fails as scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from typing import TYPE_CHECKING, Any, cast

from approvals_bot.playground.faults import Fault, Faults
from approvals_bot.playground.slack.shapes import Numbers

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, Envelope, Session

LARGEST_MAIL = 25_000_000  # bytes, the limit of large providers


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """A mail as it arrived. `to` are the envelope's addresses, not the header's."""

    id: str
    at: datetime
    to: str
    sender: str
    subject: str
    text: str
    html: str
    headers: dict[str, str]
    raw: str
    envelope_sender: str = ""  # where it would bounce to

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "to": self.to,
            "from": self.sender,
            "subject": self.subject,
            "text": self.text,
            "html": self.html,
            "headers": self.headers,
            "raw": self.raw,
        }


class MailServer:
    """The SMTP server; it listens while its context is open.

    `port` 0 lets the system choose one, which `self.port` then has. `remember` is called before a mail is acknowledged.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        faults: Faults | None = None,
        remember: Callable[[], None] = lambda: None,
    ) -> None:
        self.host = host
        self.port = port
        self.now = now
        self.faults = faults or Faults()
        self.remember = remember
        self.mails: list[ReceivedMail] = []
        self.numbers = Numbers()
        self.server: asyncio.Server | None = None
        self.sessions: list[SMTP] = []

    async def __aenter__(self) -> MailServer:
        from aiosmtpd.smtp import SMTP  # of the extra `dev`

        loop = asyncio.get_running_loop()

        def new_session() -> SMTP:
            session = SMTP(
                self, hostname="playground", data_size_limit=LARGEST_MAIL, enable_SMTPUTF8=True, loop=loop, timeout=300
            )
            self.sessions.append(session)
            return session

        self.server = await loop.create_server(new_session, self.host, self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.close()
        for session in self.sessions:
            cut(session)
        await self.server.wait_closed()
        await asyncio.sleep(0)  # lets the sessions notice that they were cut

    def find(self, mail_id: str) -> ReceivedMail | None:
        return next((mail for mail in self.mails if mail.id == mail_id), None)

    # aiosmtpd's hooks, by its names

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = await self.fault_reply("MAIL", server)
        if refusal:
            return refusal
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = await self.fault_reply("RCPT", server, address)
        if refusal:
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        fault = self.faults.next("DATA", *envelope.rcpt_tos)
        refusal = await self.refuse(fault, server)
        if refusal:
            return refusal
        self.mails.append(self.read(cast(bytes, envelope.content), envelope.rcpt_tos, envelope.mail_from or ""))
        self.remember()
        if fault and fault.kind == "drop_after":
            cut(server)
        return "250 OK: kept"

    async def fault_reply(self, command: str, server: SMTP, *places: str) -> str:
        return await self.refuse(self.faults.next(command, *places), server)

    async def refuse(self, fault: Fault | None, server: SMTP) -> str:
        """Return the reply of a scripted refusal, or "" to let the command pass."""
        match fault:
            case Fault(kind="error" | "rate_limited" | "server_error"):
                reason = fault.error if fault.error != "internal_error" else "scripted fault"
                return f"{fault.code} {reason}"
            case Fault(kind="slow" | "delayed"):
                await asyncio.sleep(fault.seconds)
            case Fault(kind="drop_before"):
                cut(server)
                return "421 dropped"
        return ""

    def read(self, raw: bytes, to: list[str], envelope_sender: str = "") -> ReceivedMail:
        parsed = message_from_bytes(raw, policy=default_policy)
        return ReceivedMail(
            id=f"m{next(self.numbers)}",
            at=self.now(),
            to=", ".join(to),
            sender=str(parsed.get("From", "")),
            subject=str(parsed.get("Subject", "")),
            text=part(parsed, "plain"),
            html=part(parsed, "html"),
            headers={name: "\n".join(str(v) for v in parsed.get_all(name, [])) for name in parsed},
            raw=raw.decode("utf-8", "replace"),
            envelope_sender=envelope_sender,
        )


def cut(session: SMTP) -> None:
    """Break the connection, as a network failure does."""
    if isinstance(session.transport, asyncio.Transport):
        session.transport.abort()


def part(mail: EmailMessage, kind: str) -> str:
    """Return the text or HTML part, or "" if the mail has none."""
    body = mail.get_body(preferencelist=(kind,))
    return str(body.get_content()) if body else ""
