"""Running the service under uvicorn: a line when it is ready, reloading without a restart, a clean shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from approvals_bot.app.service import Service
from approvals_bot.cli.interpreter import known_holes
from approvals_bot.cli.systemd import Systemd
from approvals_bot.cli.wire import BACKLOG, IDLE_TIME, file_limit, http_protocol, room, sweep
from approvals_bot.config.load import Configuration, visible
from approvals_bot.config.secret import secret_files
from approvals_bot.errors import ApprovalsBotError

POLL_EVERY = 1.0  # seconds between two looks at the files, so that a saved change is live when its author tries it
SETTLED_AFTER = 0.2  # seconds without a change before a file is read; editors and checkouts write in several steps
DRAIN = 5  # seconds for HTTP requests in progress at shutdown, and at the same time for the engine's running steps

STDERR = 2  # the file descriptor

LATEST = 9.5
"""Seconds from the first SIGTERM or Ctrl-C until the process is ended as by kill -9, if it still runs: a step may block
the event loop, or a look-up of a host may hang. Service managers commonly wait for 10 before they do the same."""

CONFIGURATION = "configuration"  # the key of its lasting trouble

T = TypeVar("T")

YOUNG = 5_000
"""Allocations before Python's collector runs; the default is 700. A vote allocates thousands of objects, but reference
counting frees them as soon as it is answered."""

logger = logging.getLogger("approvals_bot.cli")


class AddressTakenError(ApprovalsBotError):
    """The port is in use, or this program may not use it. The operator chooses another."""

    def __init__(self, host: str, port: int, reason: str, setting: str = "") -> None:
        """`setting`: where the port was chosen, if that isn't the option `--port`."""
        self.host = host
        self.port = port
        other = port + 1 if 1024 <= port < 65_535 else 8000
        choice = f"in {setting}" if setting else f"with --port {other} or PORT={other}"
        super().__init__(
            f"Port {port} on {host} can't be used: {reason}. Choose another {choice}, or end what uses it: "
            f"`ss -ltnp 'sport = :{port}'` names it."
        )


State = dict[Path, tuple[int, int, int]]
"""The modification time, size and inode of each file."""


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """A way to read the configuration, and the files whose changes trigger that.

    Workflow files and the files of secrets are always watched, so `files` needn't include them.
    """

    read: Callable[[], Configuration]
    files: Sequence[Path]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing: uvicorn would re-raise signals after its shutdown, before the engine is closed."""
        yield


def hold_standard_streams() -> None:
    """Open those of the descriptors 0, 1 and 2 that are closed, so that no socket or database gets their numbers.

    What C code writes to standard error, such as a traceback at a crash, would end up there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one


def listen(host: str, port: int, setting: str = "") -> socket.socket:
    """Reserve the port. Early clients wait in its backlog. Raises AddressTakenError, which names the setting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise AddressTakenError(host, port, error.strerror or "unknown", setting) from None
    return listening


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run like `asyncio.run`, on uvloop if it is installed (`approvals-bot[fast]`)."""
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        return runner.run(main)


def _event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def tune_garbage_collector() -> None:
    """Freeze the objects made at startup, and collect more rarely from now on.

    The collector would otherwise scan these long-lived objects every thousand calls, for 0.1 s each time. Both changes
    together save a tenth of all CPU time. Nothing is collected before: `serve` has 900 objects of garbage by then, and
    looking for them takes a twentieth of its CPU.
    """
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    gc.enable()


async def serve(
    service: Service,
    listening: socket.socket,
    source: ConfigSource,
    ready: Callable[[], None],
    scraped: socket.socket | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. Reloads on SIGHUP and when a configuration file changes.

    `scraped`: where the metrics are served, if they have a port of their own.
    """
    if (holes := known_holes()) is not None:
        logger.warning("%s", holes)
    most, backlog = room(file_limit())
    options = uvicorn.Config(
        service.app,
        http=http_protocol(most=most),
        ws="none",
        backlog=backlog,
        timeout_keep_alive=IDLE_TIME,
        proxy_headers=False,  # it would trust every local process; [server] trusted_proxies says whom
        access_log=False,  # it would log paths, which contain tokens; our own log has route templates
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
        h11_max_incomplete_event_size=64_000,
    )
    server = _Server(options)
    beside = [] if scraped is None else [(_metrics_server(service), scraped)]

    def stop() -> None:
        if server.should_exit:  # asked again: give nothing more time to finish
            server.force_exit = True
            service.engine.scheduler.hurry()
            return
        systemd.stopping()
        for each in (server, *(each for each, _ in beside)):
            each.should_exit = True
        logger.info("stopping: requests in progress may finish", extra={"event": "service_stopping"})
        service.engine.end_waiting()  # long polls would otherwise outlast DRAIN

    systemd = Systemd()
    _handle_signals(stop, lambda: None if server.should_exit else _reload(service, source, systemd))
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    others = [asyncio.create_task(each.serve(sockets=[own]), name="metrics") for each, own in beside]
    watching = asyncio.create_task(
        _watch(service, source, _state(service, source), systemd), name="watch the configuration"
    )
    living = asyncio.create_task(systemd.keep_alive(), name="the watchdog of systemd")
    sweeping = asyncio.create_task(sweep(server.server_state.connections), name="end idle connections")
    while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn has a flag but no event
        await asyncio.sleep(0.01)
    if server.started:
        tune_garbage_collector()
        ready()
        systemd.ready()
    try:
        await serving
    finally:
        watching.cancel()
        sweeping.cancel()
        living.cancel()
        await asyncio.gather(watching, sweeping, living, *others, return_exceptions=True)


def _metrics_server(service: Service) -> _Server:
    """Make the server of `[metrics] listen`, which serves nothing else."""

    async def only_metrics(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/metrics":
            await Response(status_code=404)(scope, receive, send)
        else:
            await service.app(scope, receive, send)

    return _Server(uvicorn.Config(only_metrics, access_log=False, log_config=None, lifespan="off", ws="none"))


def _handle_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """Call these at signals from now on. The process ends within LATEST seconds of the first one that stops it.

    `loop.add_signal_handler` would take no note of a signal while a step blocks the event loop. Python's own handlers
    run in between, and even during `time.sleep`. A C function that keeps the interpreter's lock still stops them.
    """
    loop, asked = asyncio.get_running_loop(), 0
    own = contextvars.copy_context()  # not that of the request or run which a signal happens to interrupt

    def on(call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end
            loop.call_soon_threadsafe(call, context=own)

    def end(number: int, frame: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            faulthandler.dump_traceback_later(LATEST, exit=True, file=STDERR)  # a thread in C, which needs no lock
        on(stop)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda number, frame: on(reload))


async def _watch(service: Service, source: ConfigSource, known: State, systemd: Systemd) -> None:
    """Reload when a configuration file differs from its `known` state.

    Polls, because file notifications get lost when a file is replaced instead of changed in place, which editors,
    checkouts and mounted volumes do.
    """
    while True:
        await asyncio.sleep(POLL_EVERY)
        found = await asyncio.to_thread(_state, service, source)
        if found == known:
            continue
        while known != found:
            known = found
            await asyncio.sleep(SETTLED_AFTER)
            found = await asyncio.to_thread(_state, service, source)
        _reload(service, source, systemd)


def _state(service: Service, source: ConfigSource) -> State:
    """Fingerprint the files without reading them. Missing files are left out."""
    folder = service.configuration.service.server.workflows
    found = {}
    files = [file for named in source.files for file in (named, *secret_files(named))]
    with contextlib.suppress(OSError):
        files += [*visible(folder, ".toml"), *visible(folder, ".py")]
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            found[file] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def _reload(service: Service, source: ConfigSource, systemd: Systemd) -> None:
    systemd.reloading()
    try:
        later = service.reload(source.read())
    except (ApprovalsBotError, OSError) as error:
        said = {"event": "config_refused", "error": type(error).__name__}
        logger.error("the configuration was not reloaded; the old one stays in force:\n%s", error, extra=said)
        service.monitoring.metrics.configuration_refused()
        text = "the configuration has a mistake, so the old one stays in force"
        mend = "Mend the line that `approvals-bot check` names"
        service.monitoring.troubles.begin(CONFIGURATION, "config_refused", text, mend, is_logged=True)
    else:
        done = "the configuration was reloaded; open requests keep the one they were opened with"
        service.monitoring.troubles.end(CONFIGURATION, "config_reloaded", done, is_logged=True)
        logger.info(done, extra={"event": "config_reloaded"})
        if later:
            logger.warning("changes in %s take effect after a restart", " and ".join(later))
    systemd.ready()
