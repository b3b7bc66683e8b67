"""The example of `approve` in docs/agents.md, exactly as printed."""

from __future__ import annotations

from typing import Any

from tests.agents.test_approve import open_requests, send
from tests.approvals.conftest import CFO, office
from tests.support.guides import example_with, functions_not_entered, loaded

__all__ = ["office"]


async def test_an_agents_refunds_wait_for_people(office: Any) -> None:
    example = example_with("async def refund_desk(")
    with loaded(example) as guide:
        async with office.open():
            calls = [{"order": "a", "amount": 80}, {"order": "b", "amount": 900}]
            run = await office.engine.start(guide.refund_desk, calls)
            await office.settle()
            first, second = await open_requests(office, run)
            await send(office, second, by=CFO, choice="reject", comment="too dear")
            await send(office, first, by=CFO, choice="edit", answers={"amount": 60})
            done, refused = await run.return_value()
            assert done == "refunded 60.0 for a"
            assert "too dear" in refused
        assert functions_not_entered(example, guide) == set()
