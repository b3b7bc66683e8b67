"""The mail channel: what goes out, what comes back, and whether it works, behind one object for the service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack

from approvals_bot.approvals.port import CheckUp, Diagnosis, Dispatch, Receipt, Result
from approvals_bot.channels.email.bounces import ReturnPaths
from approvals_bot.channels.email.check import examine
from approvals_bot.channels.email.digests import Digests
from approvals_bot.channels.email.imap import Watch
from approvals_bot.channels.email.lmtp import mail_in
from approvals_bot.channels.email.post import Mailer
from approvals_bot.channels.email.reports import Reports
from approvals_bot.channels.email.smtp import Relay, Turns
from approvals_bot.config.mail import Email
from approvals_bot.durable.engine import Engine
from approvals_bot.service.host import Host


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

    def attach(self, host: Host) -> None:
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
