"""A yes to a tool call that also covers the next calls of the tool, within limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from approvals_bot.approvals.standing_grants import StandingGrants
from approvals_bot.client.decision import Decision
from approvals_bot.people import People
from approvals_bot.service.standing import StoredGrants
from tests.support.whole_service import Service
from tests.web.test_tool_calls import ask, offer, vote

CEILINGS: dict[str, Any] = {
    "tools": ["pay"],
    "same": ["to.iban"],
    "at_most": {"price": 700},
    "count": 10,
    "sum": {"price": 3000},
    "until": "2h",
}
GIVEN: dict[str, Any] = {
    "tool": "pay",
    "same": ["to.iban"],
    "at_most": {"price": 650},
    "count": 5,
    "sum": {"price": 2000},
    "until": "1h",
}


@pytest.fixture
def calls(service: Service) -> Service:
    offer(service, allowance=CEILINGS)
    service.engine.resources[StandingGrants] = StoredGrants(service.engine)
    return service


def pay(price: Any = 10, iban: Any = "NO93") -> dict[str, Any]:
    return {"price": price, "to": {"iban": iban, "name": "Ann"}}


async def allowed(service: Service, **changes: Any) -> str:
    """Have a first call approved together with the next ones. Returns its run."""
    run: str = await ask(service, "s:first", arguments=pay(640))
    answer = await vote(service, run, allowance=GIVEN | changes)
    assert answer.status_code == 201, answer.text
    await service.clock.advance("1s")
    return run


async def state(service: Service, run: str) -> str:
    result = (await service.run(run))["result"]
    return Decision.model_validate(result).state if result else "waiting"


async def next_call(service: Service, key: str, arguments: Any) -> str:
    return await state(service, await ask(service, key, arguments=arguments))


@pytest.mark.agents(21)
async def test_the_next_calls_are_covered_within_the_limits(calls: Service) -> None:
    first = await allowed(calls)
    run = await ask(calls, "s:1", arguments=pay(600))
    result = Decision.model_validate((await calls.run(run))["result"])
    assert (result.state, result.allowance, result.by) == ("approved", first, f"allowance:{first}")
    (listed,) = (await calls.api.get("/api/allowances")).json()["grants"]
    assert (listed["id"], listed["used"], listed["used_sums"]) == (f"allowance:{first}", 1, {"price": "600"})
    for number, arguments in enumerate(
        [pay(651), pay(iban="SE1"), pay("10"), pay(-1), pay(None), {"price": 1}, {"to": {"iban": "NO93"}}, pay(True)]
    ):
        assert await next_call(calls, f"s:other{number}", arguments) == "waiting", arguments
    assert await next_call(calls, "s:2", pay(650)) == "approved"
    assert await next_call(calls, "s:3", pay(650)) == "approved"
    assert await next_call(calls, "s:4", pay(101)) == "waiting", "the sum would be 2,001"
    assert await next_call(calls, "s:5", pay(100)) == "approved"
    assert await next_call(calls, "s:6", pay(0)) == "approved"
    assert await next_call(calls, "s:7", pay(0)) == "waiting", "five are used; the first call doesn't count"


async def test_fifty_calls_at_once_use_it_five_times(calls: Service) -> None:
    await allowed(calls)
    runs = await asyncio.gather(*(ask(calls, f"s:{number}", arguments=pay(1)) for number in range(50)))
    await calls.engine.settle()
    assert [await state(calls, run) for run in runs].count("approved") == 5


async def test_it_ends_when_it_is_revoked_or_its_giver_has_left(calls: Service) -> None:
    first = await allowed(calls)
    groups: Any = calls.engine.resources[People].groups
    before = groups["sre"]
    groups["sre"] = ["bo@acme.eu", "di@acme.eu"]
    assert await next_call(calls, "s:1", pay()) == "waiting", "Cy has left the group"
    groups["sre"] = before
    assert await next_call(calls, "s:2", pay()) == "approved"
    assert (await calls.plain.delete(f"/api/allowances/{first}")).status_code == 403
    assert (await calls.api.delete(f"/api/allowances/{first}?by=cy@acme.eu")).status_code == 202
    assert await next_call(calls, "s:3", pay()) == "waiting"
    assert (await calls.api.delete(f"/api/allowances/{first}?by=cy@acme.eu")).status_code == 200
    assert (await calls.api.delete("/api/allowances/run_0")).status_code == 404


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"tool": "refund"}, "tool"),
        ({"same": []}, "same"),
        ({"same": ["to.iban", "to.bic"]}, "same"),
        ({"at_most": {"price": 701}}, "at_most"),
        ({"at_most": {}}, "at_most"),
        ({"count": 11}, "count"),
        ({"sum": {}}, "sum"),
        ({"until": "3h"}, "until"),
    ],
)
async def test_no_allowance_is_wider_than_the_file(calls: Service, changes: dict[str, Any], place: str) -> None:
    run = await ask(calls, arguments=pay())
    answer = await vote(calls, run, allowance=GIVEN | changes)
    assert answer.status_code == 422, answer.text
    assert f"allowance.{place}" in answer.json()["text"]
    assert await state(calls, run) == "waiting"
    refused = await vote(calls, run, choice="reject", comment="no", allowance=GIVEN)
    assert refused.status_code == 422, "a no covers nothing"


async def test_without_ceilings_there_are_no_allowances(service: Service) -> None:
    offer(service)
    run = await ask(service, arguments=pay())
    assert (await vote(service, run, allowance=GIVEN)).status_code == 422


async def test_a_covered_call_takes_no_place_among_the_open_ones(service: Service) -> None:
    offer(service, allowance=CEILINGS, budget={"open": 1, "calls": "4 per hour"})
    service.engine.resources[StandingGrants] = StoredGrants(service.engine)
    await allowed(service)
    assert await next_call(service, "s:open", pay(iban="SE1")) == "waiting"
    assert await next_call(service, "s:1", pay()) == "approved", "nobody is asked"
    await ask(service, "s:2", 429, arguments=pay(iban="SE1"))
    assert await next_call(service, "s:3", pay()) == "approved"
    await ask(service, "s:4", 429, arguments=pay())  # a covered call is one of the calls


@pytest.mark.parametrize(
    "narrower",
    [
        {"tools": ["refund"]},
        {"count": 4},
        {"until": "30m"},
        {"at_most": {"price": 649}},
        {"sum": {"price": 1999}},
        {"same": ["to.iban", "to.name"]},
    ],
)
async def test_a_narrower_file_ends_what_is_wider(calls: Service, narrower: dict[str, Any]) -> None:
    await allowed(calls)
    offer(calls, allowance=CEILINGS | narrower)
    assert await next_call(calls, "s:1", pay()) == "waiting"
    offer(calls, allowance=CEILINGS)
    assert await next_call(calls, "s:2", pay()) == "approved"


async def test_a_call_that_its_giver_cannot_decide_is_an_open_one(service: Service) -> None:
    offer(service, allowance=CEILINGS, budget={"open": 1})
    service.engine.resources[StandingGrants] = StoredGrants(service.engine)
    await allowed(service)
    groups: Any = service.engine.resources[People].groups
    groups["sre"] = ["bo@acme.eu", "di@acme.eu"]
    assert await next_call(service, "s:1", pay()) == "waiting", "Cy, who gave it, has left"
    await ask(service, "s:2", 429, arguments=pay())
