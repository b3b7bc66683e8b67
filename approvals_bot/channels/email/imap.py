"""Mail to us from a mailbox, read over IMAP, for relays that can't deliver it to us: bounces, or replies.

The mailbox should be for one of them alone: mails that were read are marked as such, and nothing is deleted. A mail
counts if one of its delivery headers has an address of ours; the address carries our seal, so a header is as good as an
envelope. All other mail is left alone.
"""

from __future__ import annotations

import asyncio
import imaplib
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from email import message_from_bytes
from email.utils import getaddresses, parseaddr
from functools import partial
from typing import Any, TypeVar

from approvals_bot.approvals.port import ConnectionState
from approvals_bot.channels.email.inbound import LARGEST_MAIL, Inlet
from approvals_bot.channels.email.oauth import Bearer, NoTokenError
from approvals_bot.config.mail import Imap
from approvals_bot.errors import ApprovalsBotError

SILENCE = 15.0  # seconds that the server may take for an answer
AT_A_TIME = 50  # mails; the others are looked at next time
DELIVERED = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To")

T = TypeVar("T")

log = logging.getLogger(__name__)


@asynccontextmanager
async def mailbox_in(*, inlet: Inlet, mailbox: Imap) -> AsyncIterator[Watch]:
    """Watch the mailbox for as long as the block runs."""
    watch = Watch(inlet, mailbox)
    looking = asyncio.create_task(watch.run(), name="a mailbox of ours")
    try:
        yield watch
    finally:
        looking.cancel()
        watch.hang_up()
        await asyncio.gather(looking, return_exceptions=True)


class LoginRejectedError(imaplib.IMAP4.error):
    """The server rejects the token. The message has nothing of its answer, which may contain names."""


class Watch:
    """A periodic look into the mailbox, over a new connection each time."""

    def __init__(self, inlet: Inlet, mailbox: Imap, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._inlet = inlet
        self._mailbox = mailbox
        self._bearer = Bearer(mailbox.oauth, monotonic=monotonic) if mailbox.oauth is not None else None
        self._connection: imaplib.IMAP4 | None = None
        self._state = ConnectionState("connecting")

    @property
    def name(self) -> str:
        """What the mailbox is for."""
        return self._inlet.name

    async def state(self) -> ConnectionState:
        """Return whether the last look could read the mailbox, or else why not."""
        return self._state

    async def run(self) -> None:
        while True:
            try:
                await self.look()
                self._state = ConnectionState("up")
            except (imaplib.IMAP4.error, ApprovalsBotError, OSError) as error:
                self._state = ConnectionState("down", _trouble(error))
                log.warning("The mailbox of %s can't be read now (%s).", self._inlet.name, self._state.why)
            except Exception as error:  # noqa: BLE001  # a dead watcher would look just like an empty mailbox
                self._state = ConnectionState("down", "looking failed")
                log.error("Reading the mailbox of %s failed (%s).", self._inlet.name, type(error).__name__)
            await asyncio.sleep(self._mailbox.every.total_seconds())

    async def look(self) -> int:
        """Take in new mails, and return how many counted. A mail that can't be stored now stays unread."""
        found = await self._logged_in(self._unread)
        taken = list[bytes]()
        counted = 0
        try:
            for uid, content in found.items():
                found_by = await self._addressed(content)
                counted += found_by is not None and await self._inlet.take(*found_by, content)
                taken.append(uid)
        finally:
            if taken:
                await self._logged_in(partial(self._mark, taken))
        return counted

    def hang_up(self) -> None:
        """Close the connection, so that nothing waits for the server any longer."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown()

    async def _addressed(self, content: bytes) -> tuple[str, str] | None:
        """Return the address of ours that a mail came to, and its envelope sender; None if it came to none."""
        try:
            mail = message_from_bytes(content)
            named = [str(value) for header in DELIVERED for value in mail.get_all(header, ())]
            addresses = [address for _, address in getaddresses(named)]
            sender = parseaddr(str(mail.get("Return-Path") or mail.get("From", "")))[1]
        except Exception as error:  # noqa: BLE001  # a stranger's bytes may make the parser raise anything
            log.warning("A mail in a mailbox of ours can't be parsed (%s).", type(error).__name__)
            return None
        for address in addresses:
            if await self._inlet.knows(address):
                return address, sender
        return None

    async def _logged_in(self, do: Callable[[str], T]) -> T:
        """Do this in a thread, with our password or a token; with another token once more, if that was rejected."""
        if self._bearer is None:
            assert self._mailbox.password is not None, "a mailbox has a password or tokens"
            return await asyncio.to_thread(do, self._mailbox.password.get_secret_value())
        token = await self._bearer.token()
        try:
            return await asyncio.to_thread(do, token)
        except LoginRejectedError:
            newer = await self._bearer.renewed(token)
            if newer is None:
                raise
            return await asyncio.to_thread(do, newer)

    def _unread(self, secret: str) -> dict[bytes, bytes]:
        """Return the unread mails by UID. One that is too large is empty."""
        with self._open(secret) as connection:
            uids = _answer(connection.uid("SEARCH", "UNSEEN"))[0] or b""
            return {uid: self._fetch(connection, uid) for uid in bytes(uids).split()[:AT_A_TIME]}

    def _fetch(self, connection: imaplib.IMAP4, uid: bytes) -> bytes:
        said = _answer(connection.uid("FETCH", uid.decode(), "(RFC822.SIZE)"))[0] or b""  # empty if it is gone by now
        size = re.search(rb"RFC822\.SIZE (\d+)", bytes(said))
        if size is None or int(size[1]) > LARGEST_MAIL:
            return b""
        parts = _answer(connection.uid("FETCH", uid.decode(), "(BODY.PEEK[])"))
        return next((bytes(part[1]) for part in parts if isinstance(part, tuple)), b"")

    def _mark(self, uids: list[bytes], secret: str) -> None:
        with self._open(secret) as connection:
            _answer(connection.uid("STORE", b",".join(uids).decode(), "+FLAGS.SILENT", r"(\Seen)"))

    @contextmanager
    def _open(self, secret: str) -> Iterator[imaplib.IMAP4]:
        box, trusted = self._mailbox, ssl.create_default_context()
        if box.security == "tls":
            connection: imaplib.IMAP4 = imaplib.IMAP4_SSL(box.host, box.port, ssl_context=trusted, timeout=SILENCE)
        else:
            connection = imaplib.IMAP4(box.host, box.port, timeout=SILENCE)
        self._connection = connection
        try:
            if box.security == "starttls":
                connection.starttls(trusted)
            self._log_in(connection, secret)
            _answer(connection.select(f'"{box.folder}"'))
            yield connection
            connection.logout()
        finally:
            self._connection = None
            with suppress(OSError):  # it may be closed already
                connection.shutdown()

    def _log_in(self, connection: imaplib.IMAP4, secret: str) -> None:
        user = self._mailbox.username
        if self._bearer is None:
            connection.login(user, secret)
            return
        first = f"user={user}\x01auth=Bearer {secret}\x01\x01".encode()
        try:  # a second challenge says in JSON what is wrong, and wants an empty answer before the NO
            connection.authenticate("XOAUTH2", lambda challenge: b"" if challenge else first)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error:
            raise LoginRejectedError("NO") from None


def _answer(said: tuple[str, list[Any]]) -> list[Any]:
    if said[0] != "OK":
        raise imaplib.IMAP4.error(said[0])
    return said[1]


def _trouble(error: Exception) -> str:
    """Describe the error without quoting the server, whose answers contain names."""
    match error:
        case TimeoutError():
            return "it does not answer"
        case ssl.SSLError():
            return "TLS failed"
        case OSError():
            return "it is unreachable"
        case NoTokenError():
            return f"there is no access token: {error}"
        case imaplib.IMAP4.error():
            return "it rejects the login or the folder"
        case _:
            return "the store is unavailable"
