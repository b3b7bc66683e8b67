"""Acts count for a person whom a channel has identified, and no other way in makes one."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot import request_approval, run_child, workflow
from approvals_bot.approvals.acts import Vote, message_of
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.service.catalog import Listed

ANN, DI = "ann@acme.eu", "di@acme.eu"


@workflow
async def child_that_asks() -> str:
    outcome = await request_approval("Pay 80 euros?", approvers=[ANN, DI], deliver={})
    return outcome.by


@workflow
async def parent_that_asks_in_a_child() -> str:
    return await run_child(child_that_asks)


@pytest.fixture
async def child(service: Any) -> tuple[Any, str]:
    """The service, and the run of a child that asks for what Di wants."""
    service.engine.resources[Calendars] = Calendars({})
    service.workflows[child_that_asks.name] = Listed(child_that_asks)
    service.workflows[parent_that_asks_in_a_child.name] = Listed(parent_that_asks_in_a_child)
    await service.start(parent_that_asks_in_a_child.name, requester=DI)
    (record,) = (await service.engine.runs(child_that_asks.name)).records
    return service, record.id


async def test_a_child_asks_for_whom_its_parent_was_started(child: Any) -> None:
    """Otherwise people would approve their own requests by way of a workflow that has children."""
    service, run = child
    assert (await service.run(run))["request"]["waiting_for"] == [ANN]
    own = await service.api.post(f"/api/runs/{run}/votes", json={"by": DI, "choice": "approve"})
    assert (own.status_code, own.json()["verdict"]) == (403, "own_request")
    voted = await service.api.post(f"/api/runs/{run}/votes", json={"by": ANN, "choice": "approve"})
    assert voted.status_code == 201, voted.text
    await service.engine.settle()
    assert (await service.run(run))["result"] == ANN


async def test_a_call_of_a_requests_hook_is_no_vote(child: Any) -> None:
    """An operator's payload gets no further, even where a request's row can't be read."""
    service, run = child
    hook = next(event.data["hook_id"] for event in await service.engine.events(run) if event.type == "hook_created")
    target, vote = await service.engine.find(hook), message_of(Vote(ANN, digest=None))
    await service.engine.send_to_webhook(target, WebhookRequest.of_json(vote, f"https://x.eu/webhooks/{hook}"))
    await service.engine.settle()
    assert (await service.run(run))["request"]["votes"] == []
    await service.engine.send_to_webhook(target, WebhookRequest.of_json(vote))
    await service.engine.settle()
    assert (await service.run(run))["result"] == ANN
