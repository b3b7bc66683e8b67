"""A service whose mails go over real SMTP into the playground's mailbox."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Channels
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels.email.bounces import ReturnPaths
from approvals_bot.channels.email.digests import Digests
from approvals_bot.channels.email.post import Mailer
from approvals_bot.channels.email.replies import ReplyAddresses
from approvals_bot.channels.email.smtp import Relay, Turns
from approvals_bot.config.mail import MailAccount
from approvals_bot.playground.mailbox import MailServer
from approvals_bot.service.catalog import Listed
from approvals_bot.web.links import DECISION


def deploy() -> Definition:
    return Definition.model_validate(
        {
            "workflow": {"id": "deploy", "title": "Deploy api {{ version }}", "request": ["*"]},
            "fields": {"version": {"type": "string", "pinned": True}, "plan": {"type": "text", "required": False}},
            "stage": [{"id": "go", "from": ["@release-managers"], "need": 2}],
            "deliver": {"email": True},
            "clock": {"deadline": "4h"},
        }
    )


@asynccontextmanager
async def a_posting_service(
    open_service: Any,
    url: str,
    turns: Turns | None = None,
    return_paths: ReturnPaths | None = None,
    digest: timedelta | None = None,
    replies: ReplyAddresses | None = None,
) -> AsyncIterator[tuple[Any, MailServer]]:
    async with AsyncExitStack() as stack:
        mailbox = await stack.enter_async_context(MailServer(port=stack.enter_context(a_kept_port())))
        opened: list[Any] = []

        async def link(hook_id: str, address: str) -> str:
            (service,) = opened
            hook = await service.engine.find_hook(hook_id)
            if hook is None:
                return ""
            recipients = (await service.view(hook.run_id))["recipients"]
            recipient = next(id for id, known in recipients.items() if known == address)
            return (
                f"{url}/decisions/{service.tokens.sign(DECISION, {'h': hook_id, 'r': recipient, 'g': hook.generation})}"
            )

        channel = Mailer(
            relay=Relay(
                MailAccount(host="127.0.0.1", port=mailbox.port, security="none"),
                monotonic=lambda: opened[0].clock.now().timestamp(),
            ),
            sender="Approvals <approvals@acme.eu>",
            now=lambda: opened[0].clock.now(),
            turns=turns,
            return_paths=return_paths,
            replies=replies,
        )
        stack.push_async_callback(channel.aclose)
        mail = Digests(channel, span=digest, now=lambda: opened[0].clock.now(), together=0.1) if digest else channel
        service = await stack.enter_async_context(
            open_service(channels=Channels({"email": mail}, url, link), base_url=url)
        )
        opened.append(service)
        service.link_of_hook = link
        service.mailer = channel
        service.workflows["deploy"] = Listed(approval.under("deploy", pinned(deploy())), deploy())
        yield service, mailbox


@contextmanager
def a_kept_port() -> Iterator[int]:
    """A port for a server that goes away and comes back: nobody else gets it in between."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


async def until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.02)
