"""Running the service under uvicorn: one line when it is ready, reload without a restart, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from approvals_bot.app.service import Service
from approvals_bot.config.load import Configuration, visible
from approvals_bot.errors import ApprovalsBotError

LOOK = 1.0  # seconds between two looks at the files: a person who saves and then tries finds it done
SAVED = 0.2  # seconds without a change before a file is read; editors and checkouts write in several steps
BACKLOG = 2048  # connections that wait to be taken; as uvicorn has it
DRAIN = 5  # seconds for requests under way when the service ends; the engine's steps get as long again

T = TypeVar("T")

YOUNG = 5_000
"""Objects that are made until Python's collector looks for garbage among them; it starts at 700. A vote makes thousands
that are gone as soon as it is answered, by themselves."""

logger = logging.getLogger("approvals_bot.cli")


class AddressTakenError(ApprovalsBotError):
    """Nothing can listen there: another program does, or this one may not. The operator chooses another."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host = host
        self.port = port
        other = port + 1 if 1024 <= port < 65_535 else 8000
        super().__init__(
            f"Port {port} on {host} can't be used: {reason}. Choose another: PORT={other} or --port {other}."
        )


State = dict[Path, tuple[int, int, int]]
"""For each file: when it was changed, its size, and which file it is."""


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Where the configuration comes from: how it is read anew, and the files that say when.

    The workflows' files are watched as well, so `files` need not name them.
    """

    read: Callable[[], Configuration]
    files: Sequence[Path]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises its signals again once it has stopped, which would end the process before the engine is
        closed.
        """
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that is nobody else's from now on; who connects early waits. AddressTakenError if it can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise AddressTakenError(host, port, error.strerror or "unknown") from None
    return listening


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on uvloop's event loop where that is installed (`approvals-bot[fast]`)."""
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        return runner.run(main)


def _event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def settle_in() -> None:
    """What the process has made until now it keeps, so Python's collector need not look at it ever again. It did every
    thousand calls, for a tenth of a second each time: with what it does more rarely now, a tenth of all processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


async def serve(service: Service, listening: socket.socket, source: ConfigSource, ready: Callable[[], None]) -> None:
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

    def stop() -> None:
        server.should_exit = True
        service.engine.end_waiting()  # a long poll would outlast what requests get to end

    async with _signals(stop, lambda: _reload(service, source)):
        serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
        watching = asyncio.create_task(_watch(service, source, _state(service, source)), name="watch the configuration")
        while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn has a flag, and no event
            await asyncio.sleep(0.01)
        if server.started:
            settle_in()
            ready()
        try:
            await serving
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def _signals(stop: Callable[[], None], reload: Callable[[], None]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
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


async def _watch(service: Service, source: ConfigSource, known: State) -> None:
    """Reload when a file of the configuration is no longer as it was `known`.

    By looking, since what the system tells of a file gets lost where it is replaced (editors, checkouts, mounted
    volumes) and not changed in place.
    """
    while True:
        await asyncio.sleep(LOOK)
        found = await asyncio.to_thread(_state, service, source)
        if found == known:
            continue
        while known != found:
            known = found
            await asyncio.sleep(SAVED)
            found = await asyncio.to_thread(_state, service, source)
        _reload(service, source)


def _state(service: Service, source: ConfigSource) -> State:
    """What tells one content of a file from the next, without reading it. Files that aren't there are left out."""
    folder = service.configuration.service.server.workflows
    found = {}
    files = list(source.files)
    with contextlib.suppress(OSError):
        files += [*visible(folder, ".toml"), *visible(folder, ".py")]
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            found[file] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def _reload(service: Service, source: ConfigSource) -> None:
    try:
        later = service.reload(source.read())
    except (ApprovalsBotError, OSError) as error:
        logger.error("the configuration was not reloaded, the old one stays in force:\n%s", error)
    else:
        logger.info("the configuration was reloaded; open requests keep the one that they were opened with")
        if later:
            logger.warning("what has changed in %s takes effect only after a restart", " and ".join(later))
