"""Mail, in, from a mailbox: where the relay can't hand bounces to us, we look for them by IMAP.

The mailbox should be for bounces alone: what was looked at is marked as read, and nothing is deleted. A report counts
if one of the headers that say where it was delivered has an address of ours; the address bears our seal, so a header is
as good as an envelope. All else is left as it is, and nothing decides.
"""

from __future__ import annotations

import asyncio
import imaplib
import logging
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from email import message_from_bytes
from email.utils import getaddresses
from typing import Any

from approvals_bot.channels.email.bounces import Reports, Returned, ReturnPaths
from approvals_bot.channels.email.lmtp import LARGEST_REPORT
from approvals_bot.config.mail import Imap
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import ApprovalsBotError

SILENCE = 15.0  # seconds that the server may take for an answer
AT_A_TIME = 50  # mails; the others are looked at next time
DELIVERED = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To")

log = logging.getLogger(__name__)


@asynccontextmanager
async def mailbox_in(*, engine: Engine, return_paths: ReturnPaths, mailbox: Imap) -> AsyncIterator[Watch]:
    """Looks while the block runs."""
    watch = Watch(Reports(engine, return_paths), return_paths, mailbox)
    looking = asyncio.create_task(watch.run(), name="the mailbox of bounces")
    try:
        yield watch
    finally:
        looking.cancel()
        watch.hang_up()
        await asyncio.gather(looking, return_exceptions=True)


class Watch:
    """Looks into the mailbox, each time by a line of its own."""

    def __init__(self, reports: Reports, return_paths: ReturnPaths, mailbox: Imap) -> None:
        self._reports = reports
        self._return_paths = return_paths
        self._mailbox = mailbox
        self._line: imaplib.IMAP4 | None = None
        self._trouble: str | None = "not looked yet"

    async def state(self) -> str:
        """As `/readyz` says it."""
        return "read" if self._trouble is None else f"not read: {self._trouble}"

    async def run(self) -> None:
        while True:
            try:
                await self.look()
                self._trouble = None
            except (imaplib.IMAP4.error, ApprovalsBotError, OSError) as error:
                self._trouble = _trouble(error)
                log.warning("The mailbox of bounces can't be read now (%s).", self._trouble)
            except Exception as error:  # noqa: BLE001  # who looks no more would seem to look, and find nothing
                self._trouble = "looking failed"
                log.error("Looking into the mailbox of bounces failed (%s).", type(error).__name__)
            await asyncio.sleep(self._mailbox.every.total_seconds())

    async def look(self) -> int:
        """Take what has come since; how many reports there were. A mail that can't be kept now stays unread."""
        found = await asyncio.to_thread(self._unread)
        taken = list[bytes]()
        reports = 0
        try:
            for uid, content in found.items():
                returned = self._about(content)
                reports += returned is not None and await self._reports.take(returned, content)
                taken.append(uid)
        finally:
            if taken:
                await asyncio.to_thread(self._mark, taken)
        return reports

    def hang_up(self) -> None:
        """Close the connection, so that nothing waits for the server any longer."""
        if self._line is not None:
            with suppress(OSError):
                self._line.shutdown()

    def _about(self, content: bytes) -> Returned | None:
        try:
            mail = message_from_bytes(content)
            named = [str(value) for header in DELIVERED for value in mail.get_all(header, ())]
            addresses = getaddresses(named)
        except Exception as error:  # noqa: BLE001  # the parser's, whatever was sent: it is no report then
            log.warning("A mail in the mailbox of bounces can't be read (%s).", type(error).__name__)
            return None
        found = (self._return_paths.read(address) for _, address in addresses)
        return next((each for each in found if each is not None), None)

    def _unread(self) -> dict[bytes, bytes]:
        """The mails by their UID. One that is too large to be a report is empty."""
        with self._open() as line:
            uids = _answer(line.uid("SEARCH", "UNSEEN"))[0] or b""
            return {uid: self._fetch(line, uid) for uid in bytes(uids).split()[:AT_A_TIME]}

    def _fetch(self, line: imaplib.IMAP4, uid: bytes) -> bytes:
        said = _answer(line.uid("FETCH", uid.decode(), "(RFC822.SIZE)"))[0] or b""  # nothing, if it has gone meanwhile
        size = re.search(rb"RFC822\.SIZE (\d+)", bytes(said))
        if size is None or int(size[1]) > LARGEST_REPORT:
            return b""
        parts = _answer(line.uid("FETCH", uid.decode(), "(BODY.PEEK[])"))
        return next((bytes(part[1]) for part in parts if isinstance(part, tuple)), b"")

    def _mark(self, uids: list[bytes]) -> None:
        with self._open() as line:
            _answer(line.uid("STORE", b",".join(uids).decode(), "+FLAGS.SILENT", r"(\Seen)"))

    @contextmanager
    def _open(self) -> Iterator[imaplib.IMAP4]:
        box, trusted = self._mailbox, ssl.create_default_context()
        if box.security == "tls":
            line: imaplib.IMAP4 = imaplib.IMAP4_SSL(box.host, box.port, ssl_context=trusted, timeout=SILENCE)
        else:
            line = imaplib.IMAP4(box.host, box.port, timeout=SILENCE)
        self._line = line
        try:
            if box.security == "starttls":
                line.starttls(trusted)
            line.login(box.username, box.password.get_secret_value())
            _answer(line.select(f'"{box.folder}"'))
            yield line
            line.logout()
        finally:
            self._line = None
            with suppress(OSError):  # it may be closed already
                line.shutdown()


def _answer(said: tuple[str, list[Any]]) -> list[Any]:
    if said[0] != "OK":
        raise imaplib.IMAP4.error(said[0])
    return said[1]


def _trouble(error: Exception) -> str:
    """In words that name nobody: servers quote names in their answers."""
    match error:
        case TimeoutError():
            return "it does not answer"
        case ssl.SSLError():
            return "TLS failed"
        case OSError():
            return "it can't be reached"
        case imaplib.IMAP4.error():
            return "it refuses the login or the folder"
        case _:
            return "the store is unavailable"
