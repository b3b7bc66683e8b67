"""A service that real browsers can reach, and a Chromium that may not complain."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import uvicorn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: pages were not tried in a browser"
)


@contextmanager
def a_port() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@asynccontextmanager
async def serving(app: Any, bound: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def chromium(*, over_outage: bool = False, **context: Any) -> AsyncIterator[Any]:
    """A page of a fresh browser, where every error and every request to elsewhere fails the test.

    `over_outage`: the service is away for a while, and the browser says so.
    """
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pages were not tried")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await (await browser.new_context(**context)).new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            yield page
        finally:
            await browser.close()
        fine = ("status of 4", *(("net::ERR_",) if over_outage else ()))
        assert [text for text in complaints if not any(each in text for each in fine)] == []
