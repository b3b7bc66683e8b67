"""What systemd learns of a service with `Type=notify`: that it is ready, reloads, stops, and is alive."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

MICROSECOND = 1e-6


class Systemd:
    """The socket that systemd gave this process. Without one, nothing is sent."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = environment.get("WATCHDOG_USEC", "") if is_ours else ""
        self.watchdog = int(limit) * MICROSECOND if limit.isdecimal() else 0.0  # seconds; 0: systemd watches nothing

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that a reload begins. `ready` says that it is over."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(time.monotonic() / MICROSECOND)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    async def keep_alive(self) -> None:
        """Show the watchdog that the event loop runs, twice as often as it asks for, until cancelled."""
        while self._address and self.watchdog:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.sendto(text.encode(), self._address)
