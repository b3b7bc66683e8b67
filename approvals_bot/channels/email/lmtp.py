"""Mail to us over LMTP or SMTP: a small server that the relay delivers bounces and replies to.

It accepts mail to addresses that we made: bounces from the null sender alone, as reports are sent, and replies from
people. Everything else is rejected during the dialogue, so the relay, never we, answers those who write there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal, cast

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session

from approvals_bot.channels.email.inbound import LARGEST_MAIL, Inlet
from approvals_bot.errors import ApprovalsBotError

NULL_SENDER = "<>"  # as aiosmtpd has it
SILENCE = 60.0  # seconds without a command, then the connection is closed
MOST_CONNECTIONS = 20  # at a time: one relay needs few

log = logging.getLogger(__name__)


@asynccontextmanager
async def mail_in(
    *, inlets: Sequence[Inlet], sock: socket.socket, protocol: Literal["lmtp", "smtp"] = "lmtp"
) -> AsyncIterator[int]:
    """Take mail at this listening socket for as long as the block runs. Yields the port."""
    connections: set[SMTP] = set()
    desk = Desk(inlets)
    loop = asyncio.get_running_loop()

    def accept() -> asyncio.Protocol:
        connections.difference_update(
            [one for one in connections if one.transport is None or one.transport.is_closing()]
        )
        if len(connections) >= MOST_CONNECTIONS:
            return _Busy()
        kind = LMTP if protocol == "lmtp" else SMTP
        connection = kind(desk, hostname="approvals-bot", data_size_limit=LARGEST_MAIL, timeout=SILENCE, loop=loop)
        connections.add(connection)
        return cast(asyncio.Protocol, connection)

    server = await loop.create_server(accept, sock=sock)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in connections:
            if connection.transport is not None:
                connection.transport.close()
        await server.wait_closed()


class Desk:
    """The answers in a mail's dialogue. The methods have aiosmtpd's names."""

    def __init__(self, inlets: Sequence[Inlet]) -> None:
        self._inlets = inlets

    async def handle_MAIL(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if address != NULL_SENDER and not any(inlet.takes_from_people for inlet in self._inlets):
            return "550 5.7.1 Only bounces are accepted here, and they come from <>"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if envelope.rcpt_tos:
            return "452 4.5.3 One recipient per mail"
        inlet = await self._inlet_of(address)
        if inlet is None:
            return "550 5.1.1 No such mailbox"
        if envelope.mail_from != NULL_SENDER and not inlet.takes_from_people:
            return "550 5.7.1 Only bounces are accepted here, and they come from <>"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        address = envelope.rcpt_tos[0]
        inlet = await self._inlet_of(address)
        assert inlet is not None, "RCPT accepts only addresses that an inlet knows"
        try:
            sender = (envelope.mail_from or "").replace(NULL_SENDER, "")
            counted = await inlet.take(address, sender, cast(bytes, envelope.content))
        except (ApprovalsBotError, OSError) as error:
            log.warning("A mail to us can't be stored now (%s); the relay will try again.", type(error).__name__)
            return "451 4.3.0 Not now"
        return "250 OK" if counted else "250 OK: it changes nothing"

    async def _inlet_of(self, address: str) -> Inlet | None:
        for inlet in self._inlets:
            if await inlet.knows(address):
                return inlet
        return None


class _Busy(asyncio.Protocol):
    """A connection over the limit: sent away and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(b"421 4.3.2 Too many connections, try again later\r\n")
        transport.close()
