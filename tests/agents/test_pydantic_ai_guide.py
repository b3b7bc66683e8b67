"""The examples of pydantic-ai in docs/agents.md."""

from __future__ import annotations

from typing import Any

from approvals_bot.client import Approvals, digest_of
from approvals_bot.service.read import requests_of
from tests.agents.test_pydantic_ai_approvals_in_workflows import office, send
from tests.approvals.conftest import CFO
from tests.support.guides import example_with, loaded
from tests.support.scripted_service import scripted_service

__all__ = ["office"]


async def test_the_example_over_http_refunds_once_approved() -> None:
    arguments: dict[str, Any] = {"order": "a", "amount": 0}
    result = {
        "state": "approved", "tool": "refund", "arguments": arguments, "digest": digest_of("refund", arguments)
    }  # fmt: skip
    answer = {
        "run_id": "r",
        "id": "r",
        "url": "http://a.test/r",
        "status": "completed",
        "result": result,
        "error": None,
    }
    with loaded(example_with("async def support(ap: Approvals")) as module, scripted_service((200, answer)) as service:
        async with Approvals(service.url, "key") as ap:
            said = await module.support(ap, "ticket-17", "Refund order a")
    assert said == '{"refund":"refunded 0 for a"}'
    assert service.received[0].body["input"]["to"] == ["@finance"]


async def test_the_example_in_a_workflow_books_once_approved(office: Any) -> None:
    with loaded(example_with("async def trip(question: str)")) as module:
        async with office.open():
            run = await office.engine.start(module.trip, "to Oslo")
            await office.settle()
            (request,) = requests_of(await office.engine.record(run.id))
            await send(office, request, by=CFO)
            assert await run.return_value() == '{"find_flights":["LH 441 to a"],"reserve_flight":"reserved a for 0"}'
