"""What a service manager and a container learn of a service."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from approvals_bot.cli import app
from approvals_bot.cli.systemd import Systemd
from tests.support.browsing import a_port, serving


async def test_systemd_learns_of_ready_reload_stop_and_life(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(5)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000"}
        systemd = Systemd(environment)
        systemd.ready()
        systemd.reloading()
        systemd.stopping()
        assert heard.recv(100) == b"READY=1"
        assert heard.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert heard.recv(100) == b"STOPPING=1"
        living = asyncio.create_task(systemd.keep_alive())
        for _ in range(2):
            assert await asyncio.to_thread(heard.recv, 100) == b"WATCHDOG=1"
        living.cancel()
        assert Systemd(environment | {"WATCHDOG_PID": str(os.getpid() + 1)}).watchdog == 0


def test_without_systemd_nothing_is_sent() -> None:
    Systemd({}).ready()
    asyncio.run(Systemd({}).keep_alive())


@pytest.mark.parametrize(("ready", "code"), [(False, 0), (True, 1)])
async def test_health_exits_as_the_service_answers(ready: bool, code: int) -> None:
    routes = [Route(path, lambda _, status=status: PlainTextResponse("", status)) for path, status in STATUS.items()]
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        words = ["health", "--url", url, *(["--ready"] if ready else [])]
        async with serving(Starlette(routes=routes), bound):
            assert (await asyncio.to_thread(CliRunner().invoke, app, words)).exit_code == code
    found = CliRunner().invoke(app, words)
    assert (found.exit_code, "Nothing answers" in found.output) == (1, True)


STATUS = {"/healthz": 200, "/readyz": 503}
