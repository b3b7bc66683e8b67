"""The connections that the running service keeps open: HTTP targets and channels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from approvals_bot.approvals.port import EMAIL, SLACK, Channel, Closes, WithTask
from approvals_bot.config import service as configured
from approvals_bot.config.channels import make_channel
from approvals_bot.outgoing import OutgoingTarget, OutgoingTargets, outgoing_targets

RESTART = 5.0  # seconds until a channel's failed task is restarted

log = logging.getLogger(__name__)


async def open_targets(
    stack: AsyncExitStack, service: configured.ServiceSettings, now: Callable[[], datetime]
) -> OutgoingTargets:
    """Open the targets in `[http.*]`; the stack closes them."""
    targets = {
        name: OutgoingTarget(str(target.url), target.secret.get_secret_value() if target.secret else None)
        for name, target in service.http.items()
    }
    return await stack.enter_async_context(
        outgoing_targets(
            targets=targets, allow_private=service.server.allow_private, now=now, proxy=service.server.outgoing_proxy
        )
    )


def channel_settings(service: configured.ServiceSettings) -> Mapping[str, Any]:
    """Return the settings of each configured channel: `[slack]`, `[email]`, `[channels.<name>]`."""
    built_in = {SLACK: service.slack, EMAIL: service.email}
    return {name: settings for name, settings in built_in.items() if settings is not None} | service.channels


def open_channels(stack: AsyncExitStack, service: configured.ServiceSettings) -> dict[str, Channel]:
    """Create every configured channel; the stack closes them."""
    channels: dict[str, Channel] = {}
    for name, settings in channel_settings(service).items():
        channels[name] = channel = make_channel(name, settings)
        if isinstance(channel, Closes):
            stack.push_async_callback(channel.aclose)
    return channels


def start_tasks(stack: AsyncExitStack, channels: Mapping[str, Channel]) -> None:
    """Start the channels' background tasks; the stack stops them."""
    for name, channel in channels.items():
        if isinstance(channel, WithTask):
            start_task(stack, _run(name, channel), f"the channel {name}")


def start_task(stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
    """Start a background task; the stack stops it."""
    stack.push_async_callback(_stop, asyncio.create_task(work, name=name))


async def _run(name: str, channel: WithTask) -> None:
    """Keep a channel's task running. A failure affects no other channel."""
    while True:
        try:
            await channel.run()
            return
        except Exception as error:  # noqa: BLE001  # a channel may come from another package
            log.error("The channel %s stopped working in the background (%s).", name, type(error).__name__)
            await asyncio.sleep(RESTART)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
