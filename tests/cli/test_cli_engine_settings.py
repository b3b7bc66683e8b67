"""Settings of the engine in config.toml: threads of steps, and the time that cancelled runs have."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from approvals_bot.app import open_service, read_configuration
from approvals_bot.durable.core.events import Event, from_micros
from tests.support.small_site import HELLO, Site


async def test_the_service_uses_the_settings_of_its_file(site: Site) -> None:
    _set(site, 'step_threads = 3\ncancel_grace = "5m"')
    site.write("config.toml", f"{site.config.read_text()}\n[hook]\nmax_waiting = 64\n")
    async with open_service(read_configuration(site.config)) as service:
        threads = service.engine.scheduler.executor.all_gates[0]
        engine = service.engine
        assert (threads.most, engine.scheduler.cancel_grace, engine.max_waiting) == (3, timedelta(minutes=5), 64)


def test_cancel_beside_the_service_gives_the_same_time(site: Site) -> None:
    _set(site, 'cancel_grace = "5m"')
    site.write("workflows/hello.py", HELLO)
    run = site.start("hello", name="the end")
    site.work()
    site.type("cancel", run)
    (asked,) = [event for event in asyncio.run(_events(site, run)) if event.type == "cancel_requested"]
    given = from_micros(asked.data["until"]) - asked.at
    assert timedelta(minutes=4) < given < timedelta(minutes=6)  # `at` is read a moment after `until`


async def _events(site: Site, run: str) -> list[Event]:
    async with open_service(read_configuration(site.config)) as service:
        return await service.engine.events(run)


def _set(site: Site, settings: str) -> None:
    site.write("config.toml", site.config.read_text().replace("[server]", f"[server]\n{settings}", 1))
