"""What a chat costs that waits for people."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from approvals_bot.agents.chats import ChatForm, Chats
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.port import Channels
from approvals_bot.durable.core.serialization import json_text
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People, Person
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.python_workflows import import_programs
from tests.support.histories import SAMPLES

PAUSED = 8
ASK = "Book LH 441 for Ann Ode and LH 442 for Bo Lund"


@pytest.mark.agents(25)
async def test_a_paused_chat_costs_no_task(tmp_path: Path) -> None:
    workflow = next(each.workflow for each in import_programs(SAMPLES)[0] if each.workflow.name == "book_flight_chat")
    resources = {
        People: People([Person("ann@acme.eu", "Ann Ode")], {}),
        Calendars: Calendars({}),
        Channels: Channels({}, "https://example.test", None),
    }
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db", resources=resources) as engine:
        chats = Chats(engine, Catalog({"book_flight_chat": Listed(workflow)}), ChatForm())
        before = asyncio.all_tasks()
        for number in range(PAUSED):
            await chats.begin([], f"c{number}", "ann@acme.eu", "m", ASK)
        await engine.settle()
        async with asyncio.timeout(20):
            while len(asyncio.all_tasks() - before) > 0:
                await asyncio.sleep(0.05)
        page = await engine.runs(attributes={"chat_owner": "ann@acme.eu"}, limit=PAUSED)
        assert {record.status for record in page.records} == {"running"}
        for record in page.records:
            log = await engine.events(record.id)
            assert len(json_text([event.data for event in log])) < 50_000
            assert len(json_text([record.view, record.parts])) < 50_000
