"""One SMTP relay: sends mails that are ready, and says what became of each.

One connection is kept open for a minute of idleness. Every answer becomes a value: the mail was accepted, was refused
for good, may go through later, or its answer was lost after the whole text had been sent.
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
from approvals_bot.channels.email.blame import Command, blame_for
from approvals_bot.channels.email.message import OutgoingMail
from approvals_bot.channels.email.oauth import Bearer, NoTokenError
from approvals_bot.config.hosts import is_loopback
from approvals_bot.config.mail import MailAccount
from approvals_bot.errors import ConfigError

OPERATION_LIMIT = 15.0  # seconds for one command and its answer; RFC 5321 allows minutes, people don't
MAIL_LIMIT = 45.0  # seconds for one mail, connecting included
IDLE_LIMIT = 60.0  # seconds a connection is kept unused; relays hang up soon after
MAILS_PER_CONNECTION = 50  # some relays limit them
FIRST_STOP, LONGEST_STOP = 10.0, 60.0  # seconds that nothing is sent after our account was refused, doubled each time;
# the longest at once after a rejected login, because repeating a wrong password could lock the account
PATIENCE = timedelta(minutes=1)  # what greylists and busy relays want, which is what most 4xx are

log = logging.getLogger(__name__)

V = TypeVar("V", TryAgain, Refused)

LATE = timedelta(seconds=30)  # a turn lapses when its mail comes later than this: others may have gone in between
_WORDS = {1: "a second", 60: "a minute", 3_600: "an hour", 86_400: "a day"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The relay accepted the mail."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke after the whole text was sent, so the mail may have been accepted."""

    error: str


class NoTlsError(aiosmtplib.SMTPException):
    """The relay offers no STARTTLS, but the account requires it."""

    def __init__(self) -> None:
        super().__init__("no STARTTLS")


class NoLoginError(aiosmtplib.SMTPException):
    """The relay offers no login that we can use."""

    def __init__(self) -> None:
        super().__init__("no login")


class Relay:
    """One mail server, over one connection at a time.

    TLS is required except on loopback. `starttls` refuses a server that doesn't offer it, so nobody in between can
    strip it.
    """

    def __init__(
        self,
        account: MailAccount,
        *,
        local_hostname: str = "localhost",  # sent in EHLO; never looked up, because that may wait for a name server
        tls_context: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if account.security == "none" and not is_loopback(account.host):
            raise ConfigError(f'email.security = "none" is for a relay on this machine only, not for {account.host!r}.')
        self._account = account
        self._local_hostname = local_hostname
        self._tls_context = tls_context
        self._monotonic = monotonic
        self._bearer = Bearer(account.oauth, monotonic=monotonic) if account.oauth is not None else None
        self._lock = asyncio.Lock()
        self._connection: aiosmtplib.SMTP | None = None
        self._sent = 0
        self._idle: asyncio.TimerHandle | None = None
        self._stopped_until = 0.0
        self._stopped_because = Refused("")
        self._stops = 0  # in a row, without an accepted mail in between
        self._is_sending_text = False
        self._is_probing = False

    async def deliver(self, mail: OutgoingMail) -> Accepted | Lost | TryAgain | Refused:
        """Send one mail. Returns within 45 seconds, whatever the relay does."""
        async with self._lock:
            if self._monotonic() < self._stopped_until:
                return self._stopped_because
            self._is_sending_text = False
            try:
                async with asyncio.timeout(MAIL_LIMIT):
                    return await self._transfer(mail)
            except (aiosmtplib.SMTPException, NoTokenError, OSError, ssl.SSLError, ValueError) as failure:
                return self._judge(failure)
            finally:
                self._is_sending_text = False

    async def aclose(self) -> None:
        async with self._lock:
            await self._hang_up()

    async def probe(self) -> TryAgain | Refused | None:
        """Check as `check` does, but not while nothing is sent because the relay has refused the login."""
        if self._monotonic() < self._stopped_until:
            return self._stopped_because
        self._is_probing = True
        try:
            return await self.check()
        finally:
            self._is_probing = False

    async def check(self) -> TryAgain | Refused | None:
        """Connect and log in, as for a mail, without sending one. Returns None if that works."""
        async with self._lock:
            try:
                async with asyncio.timeout(MAIL_LIMIT):
                    await self._connected()
            except (aiosmtplib.SMTPException, NoTokenError, OSError, ssl.SSLError, ValueError) as failure:
                verdict = self._judge(failure)
                return verdict if not isinstance(verdict, Lost) else TryAgain(verdict.error)
            return None

    async def _transfer(self, mail: OutgoingMail) -> Accepted:
        connection = await self._connected()
        options = [f"SIZE={len(mail.content)}"] if connection.supports_extension("size") else []
        encoding = "ascii"
        if mail.needs_utf8:
            if not connection.supports_extension("smtputf8"):
                raise aiosmtplib.SMTPNotSupported("the relay doesn't accept addresses with non-ASCII letters")
            options += ["SMTPUTF8", "BODY=8BITMIME"]
            encoding = "utf-8"
        original = list[str]()
        if connection.supports_extension("dsn"):
            options += ["RET=HDRS"]  # a report needs no text of ours, and the text has the person's link
            original = [] if mail.needs_utf8 else [f"ORCPT=rfc822;{_xtext(mail.recipient)}"]
        try:
            await connection.mail(mail.sender, options=options, encoding=encoding)
            # one recipient: its answer is the whole answer
            await connection.rcpt(mail.recipient, options=original, encoding=encoding)
            self._is_sending_text = True
            await connection.data(mail.content)
        except aiosmtplib.SMTPResponseException:  # an answer, so both sides are still in step
            with suppress(aiosmtplib.SMTPException, OSError):
                await connection.rset()
            self._wait_idle()
            raise
        except BaseException:  # a timeout, a lost connection or a cancellation: out of step
            self._drop()
            raise
        self._sent += 1
        self._stops = 0
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
        """Encrypt the connection and log in, as the account requires."""
        await connection.ehlo()
        if self._account.security == "starttls":
            if not connection.supports_extension("starttls"):
                raise NoTlsError
            await connection.starttls(tls_context=self._tls_context)
            await connection.ehlo()
        username, password = self._account.username, self._account.password
        if username is not None and self._bearer is not None:
            await self._log_in_by_token(connection, username, self._bearer)
        elif username is not None and password is not None:
            try:
                await connection.login(username, password.get_secret_value())
            except aiosmtplib.SMTPException as failure:
                if type(failure) is aiosmtplib.SMTPException:  # the bare class: no answer, no method in common
                    raise NoLoginError from None
                raise

    async def _log_in_by_token(self, connection: aiosmtplib.SMTP, username: str, bearer: Bearer) -> None:
        """Log in by XOAUTH2; with another token at once, if the first was rejected and there may be one."""
        if "xoauth2" not in connection.server_auth_methods:
            raise NoLoginError
        token = await bearer.token()
        try:
            await connection.auth_xoauth2(username, token)
        except aiosmtplib.SMTPAuthenticationError as rejected:
            newer = await bearer.renewed(token) if rejected.code >= 500 else None
            if newer is None:
                raise
            await connection.auth_xoauth2(username, newer)

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
            case aiosmtplib.SMTPResponseException():
                return self._judge_reply(failure, _command_of(failure))
            case aiosmtplib.SMTPNotSupported():
                return Refused(failure.message)
            case _ if self._is_sending_text:
                return Lost("the connection to the relay was lost before it confirmed the mail")
            case aiosmtplib.SMTPTimeoutError() | TimeoutError():
                return TryAgain("the relay doesn't answer in time")
            case ssl.SSLError():
                return self._loud(_untrusted(failure))
            case aiosmtplib.SMTPServerDisconnected() | aiosmtplib.SMTPConnectError() | OSError():
                if isinstance(failure.__cause__, ssl.SSLError):
                    return self._loud(_untrusted(failure.__cause__))
                return TryAgain("the relay can't be reached")
            case NoTlsError():
                return self._loud(TryAgain("the relay offers no TLS, so nothing was sent (security = starttls)"))
            case NoTokenError():
                return self._stop(f"there is no access token: {failure}", "login")
            case NoLoginError():
                return self._stop("the relay offers no login that we can use", "login")
            case _:
                return Refused(f"the mail can't be sent: {type(failure).__name__}")

    def _judge_reply(self, reply: aiosmtplib.SMTPResponseException, command: Command) -> TryAgain | Refused:
        """Judge a refusal by who is to blame for it."""
        if reply.code == 421:
            self._drop()
        match blame_for(reply.code, one_line(reply.message, 400), command):
            case "nobody" if isinstance(reply, aiosmtplib.SMTPConnectError | aiosmtplib.SMTPHeloError):
                return TryAgain(f"the relay is not available now: {_said(reply)}")
            case "nobody":
                return TryAgain(f"the relay asks to try later: {_said(reply)}", PATIENCE)
            case "account":
                return self._stop(f"{_NOT_OURS[command]}: {_said(reply)}", command)
            case blame:
                log.warning("The relay rejected a mail: %s. What it said is on the page /deliveries", _code_of(reply))
                return Refused(
                    f"the relay rejects the mail: {_said(reply)}", "message" if blame == "message" else "other"
                )

    def _stop(self, error: str, command: Command) -> Refused:
        """Send nothing for a while: all mail would be refused like this one, and trying may make it worse."""
        length = LONGEST_STOP if command == "login" else min(FIRST_STOP * 2 ** min(self._stops, 16), LONGEST_STOP)
        self._stops += 1
        self._stopped_until = self._monotonic() + length
        self._stopped_because = self._loud(Refused(error, "install"), _MENDS[command])
        return self._stopped_because

    def _loud(
        self, verdict: V, mend: str = "Check host, port and security of [email], and the relay's certificate"
    ) -> V:
        if not self._is_probing:  # a probe would find the same every 30 seconds
            log.error("Mail doesn't work: %s. %s.", verdict.error, mend)
        return verdict


def _untrusted(error: ssl.SSLError) -> TryAgain:
    """Say why the relay isn't trusted: its certificate has expired, is for another name, or of an unknown issuer."""
    why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason or "no TLS"
    return TryAgain(f"the relay's TLS certificate isn't trusted ({one_line(why, 160).rstrip('.')}); nothing was sent")


_NOT_OURS: dict[Command, str] = {
    "login": "the relay rejects our login",
    "sender": "the relay rejects our sender address",
    "recipient": "the relay accepts no mail from our account",
    "text": "the relay accepts no mail from our account",
}


_MENDS: dict[Command, str] = {
    "login": "Check username and password of [email]",
    "sender": "Have the relay let this account send as the sender of [email], or change that",
    "recipient": "Have the relay let this account send, or log in with another username of [email]",
    "text": "Have the relay let this account send, or log in with another username of [email]",
}


def _command_of(failure: aiosmtplib.SMTPResponseException) -> Command:
    """Return the command that was answered."""
    match failure:
        case aiosmtplib.SMTPSenderRefused():
            return "sender"
        case aiosmtplib.SMTPRecipientRefused():
            return "recipient"
        case aiosmtplib.SMTPAuthenticationError() | aiosmtplib.SMTPConnectError() | aiosmtplib.SMTPHeloError():
            return "login"
        case _:
            return "text"


def _xtext(address: str) -> str:
    """Encode an address for ORCPT (RFC 3461, 4)."""
    return re.sub(r"[^!-*,-<>-~]", lambda found: f"+{ord(found[0]):02X}", address)


def _code_of(reply: aiosmtplib.SMTPResponseException) -> str:
    """Return the reply's code without its words, which may name the recipient: `550 5.1.1`."""
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", reply.message)
    return f"{reply.code} {enhanced[0]}" if enhanced else str(reply.code)


def _said(failure: Exception) -> str:
    """Return the relay's answer on one line, without the addresses in it."""
    assert isinstance(failure, aiosmtplib.SMTPResponseException), "only answers have a text"
    text = re.sub(r"<?[^\s<>]+@[^\s<>]+>?", "<…>", one_line(failure.message, 400))
    return one_line(f"{failure.code} {text}", 160)


class Turns:
    """A relay's rate limit: so many mails in any such span of time.

    A mail over the limit gets a turn; turns are given in the order of the requests for them.
    """

    def __init__(self, count: int, per: timedelta) -> None:
        self._count = count
        self._per = per
        self._given: deque[datetime] = deque(maxlen=count)  # the newest turns, oldest first; some are still to come
        self._waiting: dict[str, datetime] = {}

    def __str__(self) -> str:
        return f"{self._count} mail{'s' if self._count > 1 else ''} {_WORDS[int(self._per.total_seconds())]}"

    def wait(self, key: str, now: datetime) -> timedelta:
        """Return how long this mail has to wait for its turn, which is kept for it; zero means now."""
        turn = self._waiting.pop(key, None)
        if turn is None or turn < now - LATE:
            turn = max(now, self._given[0] + self._per) if len(self._given) == self._count else now
            self._given.append(turn)
        if turn > now:
            self._waiting[key] = turn
        self._forget(now)
        return max(timedelta(), turn - now)

    def _forget(self, now: datetime) -> None:
        """Forget lapsed turns: their requests were decided before the mail was due."""
        for key, turn in [*self._waiting.items()]:  # in the order of their turns
            if turn >= now - LATE:
                break
            del self._waiting[key]
