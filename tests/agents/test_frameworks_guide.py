"""The examples of docs/agents.md for OpenAI's SDK and LangGraph, exactly as printed, with scripted models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agents.testing import function_call
from langgraph.checkpoint.memory import InMemorySaver

from approvals_bot.client import Approvals, digest_of
from tests.agents import langgraph_travel
from tests.agents.deciding import decide, end_of, open_calls
from tests.agents.openai_travel import Scripted
from tests.approvals.conftest import CFO, office
from tests.support.guides import example_with, functions_not_entered, loaded
from tests.support.scripted_service import scripted_service

__all__ = ["office"]


@contextmanager
def example(mark: str) -> Iterator[Any]:
    """Load the example with this mark, and check that all of its functions are called."""
    found = example_with(mark)
    with loaded(found) as module:
        yield module
        assert functions_not_entered(found, module) == set()


def decided(**result: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"run_id": "run_1", "url": "", "id": "run_1", "status": "completed", "result": result, "error": None}


@pytest.mark.agents(2)
async def test_a_clerk_of_openai_waits_over_http() -> None:
    refund = {"order": "R-1", "amount": 5}
    yes = decided(state="approved", tool="refund_order", arguments=refund, digest=digest_of("refund_order", refund))
    with example("async def answer(ap: Approvals") as guide, scripted_service(yes) as service:
        guide.clerk.model = Scripted(function_call("refund_order", refund, call_id="call_1"))
        async with Approvals(service.url, "key") as ap:
            assert json.loads(await guide.answer(ap, "ticket-1", "Refund R-1")) == ["refunded 5 for R-1"]


@pytest.mark.agents(2)
async def test_a_shipper_of_openai_is_held_and_durable(office: Any) -> None:
    with example("async def ship_step_by_step(") as guide:
        model = Scripted(function_call("ship_order", {"order": "R-1", "express": True}, call_id="call_1"))
        guide.shipper.model = guide.careful_shipper.model.inner = model
        async with office.open():
            for workflow in (guide.ship, guide.ship_step_by_step):
                run = await office.engine.start(workflow, "Ship R-1")
                (view,) = (await open_calls(office, run, 1)).values()
                await decide(office, view, "edit", by=CFO, answers={"express": False})
                assert json.loads(await end_of(run)) == ["shipped R-1"]


@pytest.mark.agents(2)
async def test_a_graph_waits_over_http() -> None:
    with example("async def converse(") as guide, scripted_service(decided(state="expired")) as service:
        model = langgraph_travel.Scripted(bookings=[("call_1", "LH1", 640)])
        graph = langgraph_travel.travel_graph(model, "batched", InMemorySaver())
        async with Approvals(service.url, "key") as ap:
            assert "Silence is not consent" in await guide.converse(ap, graph, "thread-1", "Book LH1")


@pytest.mark.agents(2)
async def test_payments_of_a_graph_are_held(office: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with example("async def pay_by_agent(") as guide:
        calls = [{"name": "pay_invoice", "args": {"invoice": "R-1", "amount": 5}, "id": "call_1"}]
        guide.init_chat_model = lambda name: langgraph_travel.Scripted(calls=calls)
        async with office.open():
            run = await office.engine.start(guide.pay_by_agent, "Pay R-1")
            (view,) = (await open_calls(office, run, 1)).values()
            await decide(office, view, "approve", by=CFO)
            assert json.loads(await end_of(run)) == ["paid 5 for R-1"]


@pytest.mark.agents(2)
@pytest.mark.parametrize(("choice", "sent"), [("approve", True), ("reject", False)])
async def test_a_letter_of_a_graph_is_held(
    office: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, sent: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with example("async def send_by_graph(") as guide:
        async with office.open():
            run = await office.engine.start(guide.send_by_graph, "letter-1", "Dear Ann")
            (view,) = (await open_calls(office, run, 1)).values()
            assert view.fields["arguments"] == {"question": "Send this letter?", "text": "Dear Ann"}
            await decide(office, view, choice, by=CFO, comment="so")
            assert await end_of(run) is sent
