"""Mail, in: reports of mails that came back. Nothing else that is mailed to us is read, and nothing decides.

A small LMTP (or SMTP) server of our own for the relay to hand bounces to. It takes mail for addresses that we made
(`channels/email/bounces.py`), from nobody (as reports come), and drops what is no report of a failure. Everything else
is refused in the dialogue, so that the relay, and never we, answers a person who replied to such an address.
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

LARGEST_REPORT = 1_000_000  # bytes; a report may bear the mail that came back, and ours have less than 250 kB
SILENCE = 60.0  # seconds without a command, then the line is closed
MOST_LINES = 20  # at a time: one relay needs few

log = logging.getLogger(__name__)


@asynccontextmanager
async def mail_in(
    *, engine: Engine, return_paths: ReturnPaths, sock: socket.socket, protocol: Literal["lmtp", "smtp"] = "lmtp"
) -> AsyncIterator[int]:
    """Take mail at this socket, which is listened at, while the block runs. Gives the port."""
    lines: set[SMTP] = set()
    desk = Desk(Reports(engine, return_paths), return_paths)
    loop = asyncio.get_running_loop()

    def new_line() -> asyncio.Protocol:
        lines.difference_update([line for line in lines if line.transport is None or line.transport.is_closing()])
        if len(lines) >= MOST_LINES:
            return _Busy()
        kind = LMTP if protocol == "lmtp" else SMTP
        line = kind(desk, hostname="approvals-bot", data_size_limit=LARGEST_REPORT, timeout=SILENCE, loop=loop)
        lines.add(line)
        return cast(asyncio.Protocol, line)

    server = await loop.create_server(new_line, sock=sock)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for line in lines:
            if line.transport is not None:
                line.transport.close()
        await server.wait_closed()


class Desk:
    """Answers one mail's dialogue. What aiosmtpd asks its owner bears aiosmtpd's names."""

    def __init__(self, reports: Reports, return_paths: ReturnPaths) -> None:
        self._reports = reports
        self._return_paths = return_paths

    async def handle_MAIL(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if address != "<>":
            return "550 5.7.1 Only reports of mails that came back are taken here, and they come from <>"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if envelope.rcpt_tos:
            return "452 4.5.3 One report is about one mail"
        if self._return_paths.read(address) is None:
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        returned = self._return_paths.read(envelope.rcpt_tos[0])
        assert returned is not None, "it was read when it was named"
        try:
            is_report = await self._reports.take(returned, cast(bytes, envelope.content))
        except (ApprovalsBotError, OSError) as error:
            log.warning("A report can't be kept now (%s); the relay will try again.", type(error).__name__)
            return "451 4.3.0 Not now"
        return "250 OK" if is_report else "250 OK: not a report of a failure"


class _Busy(asyncio.Protocol):
    """One line too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(b"421 4.3.2 Too many lines, come back later\r\n")
        transport.close()
