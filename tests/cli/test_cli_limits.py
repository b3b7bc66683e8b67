"""A step that waits for a place of a limit: on the run's page, in the API, and in `show` and `explain`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2

from approvals_bot.app import open_service, read_configuration
from approvals_bot.app.service import Service
from approvals_bot.durable.engine import Run
from tests.support.small_site import Site

ERP = """\
import asyncio
from approvals_bot import step, workflow

@step(limit="shown-erp")
async def book(order: int) -> int:
    await asyncio.sleep(3600)
    return order

@workflow
async def books_in_the_erp(order: int) -> int:
    return await book(order)
"""
SETTINGS = """
[api_keys]
ci = { key = "file:signing.key", may_vote = true, may = ["operate"] }
[limits]
shown-erp = { at_once = 1 }
"""


async def test_a_step_in_line_says_so_everywhere(site: Site) -> None:
    site.write("workflows/erp.py", ERP)
    site.write("config.toml", site.config.read_text() + SETTINGS)
    async with open_service(read_configuration(site.config), open_pages=True) as service:
        service.engine.scheduler.closing = 0.0
        _, second = [await _in_hand(service, await service.engine.start("books_in_the_erp", n)) for n in (1, 2)]
        key = (site.folder / "signing.key").read_text()
        through = httpx2.ASGITransport(service.app)
        async with httpx2.AsyncClient(transport=through, base_url="http://127.0.0.1:8000") as web:
            found = await web.get(f"/api/runs/{second}", headers={"Authorization": f"Bearer {key}"})
            page = await web.get(f"/runs/{second}")
        wait = {"kind": "limit", "metadata": None, "name": "book", "attempts": 0, "limit": "shown-erp", "at_once": 1}
        assert [{k: v for k, v in each.items() if k != "since"} for each in found.json()["waiting"]] == [
            wait | {"place": 1}
        ]
        said = "book waits for the limit shown-erp, which lets 1 begin at a time"
        assert f"<li>A place: {said}; it is number 1 in line</li>" in page.text
        # Another process knows the limit, by the log, but not the line.
        shown = await asyncio.to_thread(site.type, "show", second)
        assert f"Waiting for a place: {said}\n" in shown.stdout
        shown = await asyncio.to_thread(site.type, "show", second, "--json")
        assert json.loads(shown.stdout)["waiting"][0]["place"] is None
        shown = await asyncio.to_thread(site.type, "explain", second)
        assert f"Waiting for a place: {said}\n" in shown.stdout


async def _in_hand(service: Service, run: Run[Any]) -> str:
    while not any(event.type == "step_created" for event in await run.events()):
        await asyncio.sleep(0.01)
    return run.id
