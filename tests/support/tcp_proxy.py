"""A TCP proxy that can go silent or slow, as networks do, without closing anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Dial = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Proxy:
    """In a thread of its own. `silent`: takes connections and bytes, and passes nothing on. `delay`: seconds for each
    piece that is passed on."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self.port = 0
        self.silent = False
        self.delay = 0.0
        self._loop = asyncio.new_event_loop()
        self._writers: list[asyncio.StreamWriter] = []

    def start(self) -> None:
        ready = threading.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                server.close()
                for writer in self._writers:
                    writer.transport.abort()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._serving = self._loop.create_task(serve())
            self._loop.run_until_complete(self._serving)
            others = asyncio.all_tasks(self._loop)
            for task in others:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
            self._loop.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(
            OSError, asyncio.CancelledError
        ):  # cancelled at the end; Python 3.11's streams would say so aloud
            there, back = await self._dial()
            self._writers.append(back)
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        was_silent = False
        with suppress(OSError):
            while piece := await reader.read(65536):
                was_silent = was_silent or self.silent
                if was_silent:
                    continue  # what was swallowed stays swallowed: this connection is dead, and nobody has said so
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(piece)
                await writer.drain()
        if not was_silent:
            writer.transport.abort()


@contextmanager
def proxy(dial: Dial) -> Iterator[Proxy]:
    made = Proxy(dial)
    made.start()
    try:
        yield made
    finally:
        made.stop()
