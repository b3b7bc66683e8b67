"""Running the service under uvicorn: one line when it is ready, reload without a restart, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from watchfiles import awatch

from approvals_bot.app import Service, read_configuration
from approvals_bot.errors import ConfigError

DRAIN = 5  # seconds for requests under way when the service ends; the engine's steps get as long again

logger = logging.getLogger("approvals_bot")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises its signals again once it has stopped, which would end the process before the engine is
        closed.
        """
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. OSError if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


async def serve(service: Service, listening: socket.socket, config: Path, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; reload on SIGHUP and when a file of the configuration changes."""
    options = uvicorn.Config(
        service.app,
        access_log=False,  # it would print paths, and paths have tokens; ours logs the route's template
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
        h11_max_incomplete_event_size=64_000,
    )
    server = _Server(options)
    async with _signals(server, lambda: _reload(service, config)):
        serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
        watching = asyncio.create_task(_watch(service, config), name="watch the configuration")
        while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn has a flag, and no event
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        try:
            await serving
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def _signals(server: uvicorn.Server, reload: Callable[[], None]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    handlers = {signal.SIGINT: stop, signal.SIGTERM: stop}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = reload
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


async def _watch(service: Service, config: Path) -> None:
    """Reload when a file of the configuration changes. Where that can't be watched, SIGHUP still works."""
    folder = service.configuration.service.server.workflows
    watched = [path for path in (config, folder) if path.exists()]
    if not watched:
        return
    try:
        async for changes in awatch(*watched, debounce=300, step=100):
            if any(path.endswith((".toml", ".py")) for _, path in changes):
                _reload(service, config)
    except (OSError, RuntimeError) as error:
        logger.warning("changes of the configuration are not noticed (%s); send SIGHUP to reload", error)


def _reload(service: Service, config: Path) -> None:
    try:
        service.reload(read_configuration(config))
    except ConfigError as error:
        logger.error("the configuration was not reloaded, the old one stays in force:\n%s", error)
    else:
        logger.warning("the configuration was reloaded; open requests keep the one that they were opened with")
