"""Bounces over LMTP or SMTP: a small server that the relay delivers them to. No mail decides anything.

It accepts mail from the null sender (as reports are sent) to addresses that we made (`channels/email/bounces.py`), and
drops mail that isn't a failure report. Everything else is rejected during the dialogue, so the relay, never we, answers
a person who replies to such an address.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, cast

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session

from approvals_bot.channels.email.bounces import Reports, ReturnPaths
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import ApprovalsBotError

LARGEST_REPORT = 1_000_000  # bytes; a report may include the bounced mail, and ours have less than 250 kB
SILENCE = 60.0  # seconds without a command, then the connection is closed
MOST_CONNECTIONS = 20  # at a time: one relay needs few

log = logging.getLogger(__name__)


@asynccontextmanager
async def mail_in(
    *, engine: Engine, return_paths: ReturnPaths, sock: socket.socket, protocol: Literal["lmtp", "smtp"] = "lmtp"
) -> AsyncIterator[int]:
    """Take mail at this listening socket for as long as the block runs. Yields the port."""
    connections: set[SMTP] = set()
    desk = Desk(Reports(engine, return_paths), return_paths)
    loop = asyncio.get_running_loop()

    def accept() -> asyncio.Protocol:
        connections.difference_update(
            [one for one in connections if one.transport is None or one.transport.is_closing()]
        )
        if len(connections) >= MOST_CONNECTIONS:
            return _Busy()
        kind = LMTP if protocol == "lmtp" else SMTP
        connection = kind(desk, hostname="approvals-bot", data_size_limit=LARGEST_REPORT, timeout=SILENCE, loop=loop)
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

    def __init__(self, reports: Reports, return_paths: ReturnPaths) -> None:
        self._reports = reports
        self._return_paths = return_paths

    async def handle_MAIL(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if address != "<>":
            return "550 5.7.1 Only bounces are accepted here, and they come from <>"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if envelope.rcpt_tos:
            return "452 4.5.3 One recipient per report"
        if self._return_paths.read(address) is None:
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        returned = self._return_paths.read(envelope.rcpt_tos[0])
        assert returned is not None, "RCPT accepts only addresses that can be read"
        try:
            is_report = await self._reports.take(returned, cast(bytes, envelope.content))
        except (ApprovalsBotError, OSError) as error:
            log.warning("A bounce can't be stored now (%s); the relay will try again.", type(error).__name__)
            return "451 4.3.0 Not now"
        return "250 OK" if is_report else "250 OK: not a failure report"


class _Busy(asyncio.Protocol):
    """A connection over the limit: sent away and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(b"421 4.3.2 Too many connections, try again later\r\n")
        transport.close()
