"""Acts that come just after the start, before a Python workflow has requested anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.request_approval import request_approval
from approvals_bot.durable.core.api import sleep, step, workflow
from approvals_bot.service.catalog import Listed

ANN, BO = "ann@acme.eu", "bo@acme.eu"
CFO = "cfo@acme.eu"
YES = {"by": ANN, "choice": "approve"}
gate = asyncio.Event()


@step
async def think() -> None:
    await gate.wait()


@workflow
async def asks_later(title: str) -> str:
    await think()
    outcome = await request_approval(title, approvers=ANN, fields={"size": 1}, editable=["size"], deliver={})
    return type(outcome).__name__


@workflow
async def asks_twice() -> list[str]:
    first = await request_approval("First", approvers=ANN, deliver={})
    await sleep("1h")
    second = await request_approval("Second", approvers=ANN, deliver={})
    return [first.by, second.by]


@workflow
async def never_asks() -> None:
    raise ValueError("it can't be requested")


@pytest.fixture
async def office(open_service: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setitem(globals(), "gate", asyncio.Event())  # one of this test's loop
    async with open_service(open_pages=True) as service:
        service.engine.resources[Calendars] = Calendars({})
        for each in (asks_later, asks_twice, never_asks):
            service.workflows[each.name] = Listed(each)
        yield service


async def start(office: Any) -> str:
    """Start a run whose request is yet to come."""
    answer = await office.api.post(
        "/api/runs", json={"workflow": "asks_later", "input": {"title": "Go"}, "requester": CFO}
    )
    return str(answer.json()["run_id"])


def soon() -> None:
    asyncio.get_running_loop().call_later(0.3, gate.set)


ACTS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "vote": ("POST", "votes", YES, 201),
    "edit": ("PATCH", "fields", {"by": BO, "fields": {"size": 2}}, 403),  # found; it isn't Bo's
    "add an approver": ("POST", "approvers", {"by": ANN, "person": BO}, 201),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("number", ["", ".1"])
async def test_an_act_waits_for_a_request_that_is_about_to_come(office: Any, act: str, number: str) -> None:
    method, path, body, status = ACTS[act]
    run = await start(office)
    soon()
    answer = await office.api.request(method, f"/api/runs/{run}{number}/{path}", json=body)
    assert answer.status_code == status, answer.text


async def test_a_withdrawal_waits_for_its_numbered_request(office: Any) -> None:
    run = await start(office)
    soon()
    answer = await office.api.post(f"/api/runs/{run}.1/cancellation", json={"reason": "Not needed."})
    assert (answer.status_code, answer.json()["verdict"]) == (202, "taken_back")


async def test_the_page_waits_for_a_request_that_is_about_to_come(office: Any) -> None:
    run = await start(office)
    soon()
    page = await office.web.get(f"/requests/{run}")
    assert (page.status_code, "Go" in page.text) == (200, True)


@pytest.mark.parametrize("act", ACTS)
async def test_a_run_that_has_not_requested_yet_says_so(office: Any, act: str) -> None:
    method, path, body, _ = ACTS[act]
    run = await start(office)
    await office.clock.advance("1m")
    answer = await office.api.request(method, f"/api/runs/{run}/{path}", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (409, "urn:approvals-bot:not-requested-yet")
    assert problem["detail"].startswith("This run hasn't requested a decision yet.")
    gate.set()
    await office.engine.settle()
    assert (await office.api.post(f"/api/runs/{run}/votes", json=YES)).status_code == 201


async def test_the_second_request_is_not_there_yet(office: Any) -> None:
    run = await office.start("asks_twice", requester=CFO)
    await office.clock.advance("1m")
    early = await office.api.post(f"/api/runs/{run}.2/votes", json=YES)
    assert (early.status_code, early.json()["title"]) == (409, "Not requested yet")
    cancelled = await office.api.post(f"/api/runs/{run}.2/cancellation", json={})
    assert (cancelled.status_code, (await office.run(run))["status"]) == (409, "running")
    assert (await office.api.post(f"/api/runs/{run}.1/votes", json=YES)).status_code == 201
    await office.clock.advance("2h")
    assert (await office.api.post(f"/api/runs/{run}.2/votes", json=YES)).status_code == 201
    await office.engine.settle()
    assert (await office.api.post(f"/api/runs/{run}.3/votes", json=YES)).status_code == 404
    for wrong in ("0", "02", "x", "-1", ""):
        assert (await office.api.post(f"/api/runs/{run}.{wrong}/votes", json=YES)).status_code == 404


async def test_a_run_that_ended_without_a_request_says_that(office: Any) -> None:
    run = await office.start("never_asks")
    answer = await office.api.post(f"/api/runs/{run}/votes", json=YES)
    assert (answer.status_code, answer.json()["title"]) == (409, "Not a request")
    assert answer.json()["detail"] == (
        "This run has ended and takes no votes: it requested no decision. Nothing was changed."
    )
