"""One SMTP relay: hands over mails that are ready, and says what became of each.

The relay is asked over one connection that is kept for a minute. Every answer becomes a value: the mail was accepted,
was refused for good, may go through later, or its answer was lost after the text had been handed over.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import aiosmtplib

from approvals_bot.approvals.plain_text import one_line
from approvals_bot.approvals.port import Refused, TryAgain
from approvals_bot.channels.email.message import OutgoingMail
from approvals_bot.config.mail import MailAccount, is_loopback
from approvals_bot.errors import ConfigError

OPERATION_LIMIT = 15.0  # seconds for one command and its answer; RFC 5321 would wait minutes, a person would not
MAIL_LIMIT = 45.0  # seconds for one mail, connecting included
IDLE_LIMIT = 60.0  # seconds a connection is kept unused; relays hang up soon after
MAILS_PER_CONNECTION = 50  # then a new one: some relays count
REFUSED_LOGIN_PAUSE = 60.0  # seconds without another try, so that a wrong password does not lock the account

log = logging.getLogger(__name__)

V = TypeVar("V", TryAgain, Refused)

LATE = timedelta(seconds=30)  # who comes later than this for a turn has lost it: others may have gone in between
_WORDS = {1: "a second", 60: "a minute", 3_600: "an hour", 86_400: "a day"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The relay took the mail over."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke after the text had been handed over: it was accepted, or not."""

    error: str


class NoTlsError(aiosmtplib.SMTPException):
    """The relay offers no STARTTLS, which the account asks for."""

    def __init__(self) -> None:
        super().__init__("no STARTTLS")


class NoLoginError(aiosmtplib.SMTPException):
    """The relay offers no login that we can use."""

    def __init__(self) -> None:
        super().__init__("no login")


class Relay:
    """One mail server, over one connection at a time.

    TLS is required but towards loopback. `starttls` refuses a server that does not offer it, so nobody in between can
    strip it.
    """

    def __init__(
        self,
        account: MailAccount,
        *,
        local_hostname: str = "localhost",  # said in EHLO; never looked up, because that may wait for a name server
        tls_context: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if account.security == "none" and not is_loopback(account.host):
            raise ConfigError(f'email.security = "none" is for a relay on this machine only, not for {account.host!r}.')
        self._account = account
        self._local_hostname = local_hostname
        self._tls_context = tls_context
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._connection: aiosmtplib.SMTP | None = None
        self._sent = 0
        self._idle: asyncio.TimerHandle | None = None
        self._shut_until = 0.0
        self._shut_because = Refused("")
        self._handing_over = False

    async def deliver(self, mail: OutgoingMail) -> Accepted | Lost | TryAgain | Refused:
        """Hand one mail over. Returns within 45 seconds, whatever the relay does."""
        async with self._lock:
            if self._monotonic() < self._shut_until:
                return self._shut_because
            self._handing_over = False
            try:
                async with asyncio.timeout(MAIL_LIMIT):
                    return await self._hand_over(mail)
            except (aiosmtplib.SMTPException, OSError, ssl.SSLError, ValueError) as failure:
                return self._judge(failure)
            finally:
                self._handing_over = False

    async def aclose(self) -> None:
        async with self._lock:
            await self._hang_up()

    async def check(self) -> TryAgain | Refused | None:
        """Connect and log in, as a mail would, without sending one. None: all is well."""
        async with self._lock:
            try:
                async with asyncio.timeout(MAIL_LIMIT):
                    await self._connected()
            except (aiosmtplib.SMTPException, OSError, ssl.SSLError, ValueError) as failure:
                verdict = self._judge(failure)
                return verdict if not isinstance(verdict, Lost) else TryAgain(verdict.error)
            return None

    async def _hand_over(self, mail: OutgoingMail) -> Accepted:
        connection = await self._connected()
        options = [f"SIZE={len(mail.content)}"] if connection.supports_extension("size") else []
        encoding = "ascii"
        if mail.needs_utf8:
            if not connection.supports_extension("smtputf8"):
                raise aiosmtplib.SMTPNotSupported("the relay does not take addresses with letters beyond ASCII")
            options += ["SMTPUTF8", "BODY=8BITMIME"]
            encoding = "utf-8"
        try:
            await connection.mail(mail.sender, options=options, encoding=encoding)
            await connection.rcpt(mail.recipient, encoding=encoding)  # one recipient: its answer is the whole answer
            self._handing_over = True
            await connection.data(mail.content)
        except aiosmtplib.SMTPResponseException:  # an answer, so both sides still agree where they are
            with suppress(aiosmtplib.SMTPException, OSError):
                await connection.rset()
            self._wait_idle()
            raise
        except BaseException:  # a time-out, a break or a cancellation: out of step
            self._drop()
            raise
        self._sent += 1
        self._wait_idle()
        return Accepted()

    async def _connected(self) -> aiosmtplib.SMTP:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._connection is not None and self._sent >= MAILS_PER_CONNECTION:
            await self._hang_up()
        if self._connection is not None:
            try:
                await self._connection.noop()
                return self._connection
            except (aiosmtplib.SMTPException, OSError):
                self._drop()
        connection = aiosmtplib.SMTP(
            hostname=self._account.host,
            port=self._account.port,
            local_hostname=self._local_hostname,
            timeout=OPERATION_LIMIT,
            use_tls=self._account.security == "tls",
            start_tls=False,
            tls_context=self._tls_context,
        )
        try:
            await connection.connect()
            await self._greet(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._sent = connection, 0
        return connection

    async def _greet(self, connection: aiosmtplib.SMTP) -> None:
        """Encrypt the connection and log in, as far as the account says so."""
        await connection.ehlo()
        if self._account.security == "starttls":
            if not connection.supports_extension("starttls"):
                raise NoTlsError
            await connection.starttls(tls_context=self._tls_context)
            await connection.ehlo()
        if self._account.username is None or self._account.password is None:
            return
        try:
            await connection.login(self._account.username, self._account.password.get_secret_value())
        except aiosmtplib.SMTPException as failure:
            if type(failure) is aiosmtplib.SMTPException:  # the bare class: nothing was answered, no method suits
                raise NoLoginError from None
            raise

    def _wait_idle(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(IDLE_LIMIT, self._drop)

    async def _hang_up(self) -> None:
        if self._connection is not None and self._connection.is_connected:
            with suppress(aiosmtplib.SMTPException, OSError):
                await self._connection.quit(timeout=2.0)
        self._drop()

    def _drop(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _judge(self, failure: Exception) -> Lost | TryAgain | Refused:
        match failure:
            case aiosmtplib.SMTPAuthenticationError(code=code) if code >= 500:
                return self._shut(Refused(f"the relay refuses our login: {_said(failure)}", "install"))
            case aiosmtplib.SMTPSenderRefused(code=code) if code >= 500 and code != 552:  # 552: this mail is too large
                return self._loud(Refused(f"the relay refuses our sender address: {_said(failure)}", "install"))
            case aiosmtplib.SMTPConnectResponseError() | aiosmtplib.SMTPHeloError():
                return TryAgain(f"the relay does not serve us now: {_said(failure)}")
            case aiosmtplib.SMTPResponseException(code=code):
                if code == 421:
                    self._drop()
                if code < 500:
                    return TryAgain(f"the relay asks to try later: {_said(failure)}", _patience(code))
                log.warning("The relay refused a mail: %s", _said(failure))
                return Refused(f"the relay refuses the mail: {_said(failure)}")
            case aiosmtplib.SMTPNotSupported():
                return Refused(failure.message)
            case _ if self._handing_over:
                return Lost("the connection to the relay broke before it said whether it has the mail")
            case aiosmtplib.SMTPTimeoutError() | TimeoutError():
                return TryAgain("the relay does not answer in time")
            case ssl.SSLError():
                return self._loud(TryAgain("the relay's TLS certificate can't be trusted; nothing was sent"))
            case aiosmtplib.SMTPServerDisconnected() | aiosmtplib.SMTPConnectError() | OSError():
                if isinstance(failure.__cause__, ssl.SSLError):
                    return self._loud(TryAgain("the relay's TLS certificate can't be trusted; nothing was sent"))
                return TryAgain("the relay can't be reached")
            case NoTlsError():
                return self._loud(TryAgain("the relay offers no TLS, so nothing was sent (security = starttls)"))
            case NoLoginError():
                return self._shut(Refused("the relay offers no login that we can use", "install"))
            case _:
                return Refused(f"the mail can't be sent: {type(failure).__name__}")

    def _shut(self, verdict: Refused) -> Refused:
        self._shut_until = self._monotonic() + REFUSED_LOGIN_PAUSE
        self._shut_because = verdict
        return self._loud(verdict)

    def _loud(self, verdict: V) -> V:
        log.error("Mail does not work: %s. Look at [email] in the configuration.", verdict.error)
        return verdict


def _said(failure: Exception) -> str:
    """The relay's answer on one line, without the addresses that it likes to repeat."""
    assert isinstance(failure, aiosmtplib.SMTPResponseException), "only answers have a text"
    text = re.sub(r"<?[^\s<>]+@[^\s<>]+>?", "<…>", one_line(failure.message, 400))
    return one_line(f"{failure.code} {text}", 160)


def _patience(code: int) -> timedelta | None:
    """A full mailbox, a greylist or an overloaded relay want more than a moment."""
    return timedelta(minutes=1) if code in (421, 450, 451, 452) else None


class Turns:
    """A relay's allowance: no more than so many mails in any such span of time. A mail that comes too early is given a
    turn; turns are given in the order in which they are asked for."""

    def __init__(self, count: int, per: timedelta) -> None:
        self._count = count
        self._per = per
        self._given: deque[datetime] = deque(maxlen=count)  # the newest turns, oldest first; some are still to come
        self._waiting: dict[str, datetime] = {}

    def __str__(self) -> str:
        return f"{self._count} mail{'s' if self._count > 1 else ''} {_WORDS[int(self._per.total_seconds())]}"

    def wait(self, who: str, now: datetime) -> timedelta:
        """How long this one still has to wait for its turn, which is kept for it; nothing: it goes now."""
        turn = self._waiting.pop(who, None)
        if turn is None or turn < now - LATE:
            turn = max(now, self._given[0] + self._per) if len(self._given) == self._count else now
            self._given.append(turn)
        if turn > now:
            self._waiting[who] = turn
        self._forget(now)
        return max(timedelta(), turn - now)

    def _forget(self, now: datetime) -> None:
        """Turns that nobody came for, because their requests were decided."""
        for who, turn in [*self._waiting.items()]:  # in the order of their turns
            if turn >= now - LATE:
                break
            del self._waiting[who]
