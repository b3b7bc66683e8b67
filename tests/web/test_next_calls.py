"""A yes that covers the next calls of a tool, given on a page, and what its giver sees of it."""

from __future__ import annotations

import json

import httpx2
import pytest

from approvals_bot.client.decision import Decision
from tests.web.test_pages import sound
from tests.web.test_request_page import send, shown
from tests.web.test_roles_on_pages import DESK, OURS, House, configured, house  # noqa: F401  # the fixture

FILE = """
[workflow]
id = "tool-call"
title = "{{ agent }}: {{ tool }}"
[[stage]]
id = "go"
from = ["ann@acme.eu", "cy@acme.eu"]
[allowance]
tools = ["pay"]
same = ["to.iban"]
at_most = { price = 700 }
count = 10
sum = { price = 3000 }
until = "2h"
[deliver]
email = "after 1h"
"""
LIMITS = {"count": "2", "until": "1h", "at_most.price": "650.50", "sum.price": "3000"}
ANN = "ann@acme.eu"


@pytest.fixture
def calls(house: House) -> House:  # noqa: F811
    (house.folder / "workflows" / "tool-call.toml").write_text(FILE)
    house.service.reload(configured(house.folder))
    return house


async def call(house: House, key: str, price: object = 640, iban: str = "NO93", tool: str = "pay") -> str:  # noqa: F811
    input = {"tool": tool, "arguments": {"price": price, "to": {"iban": iban}}}
    headers = {"Authorization": f"Bearer {DESK}", "Idempotency-Key": key}
    answer = await house.http.post("/api/runs", json={"workflow": "tool-call", "input": input}, headers=headers)
    assert answer.status_code == 202, answer.text
    await house.service.engine.settle()
    return str(answer.json()["run_id"])


async def decision(house: House, run: str) -> Decision | None:  # noqa: F811
    record = await house.service.engine.record(run)
    assert record is not None
    return Decision.model_validate(record.result) if record.result else None


async def approve_with_next(house: House, run: str, **limits: str) -> httpx2.Response:  # noqa: F811
    given = {f"allowance.{name}": text for name, text in (LIMITS | limits).items()}
    return await send(house, run, ANN, "/decisions/", next_calls="yes", **given)


async def test_a_person_approves_the_next_calls_on_the_page(calls: House) -> None:
    run = await call(calls, "s:1")
    page = await calls.get(f"/requests/{run}", ANN)
    assert "Later calls of pay by the same requester" in shown(page)
    assert 'to.iban = "NO93"' in shown(page)
    for name, text in {"count": "10", "until": "2h", "at_most.price": "700", "sum.price": "3000"}.items():
        assert f'name="allowance.{name}" type="text" value="{text}"' in page.text, "the file's ceilings"
    for wrong, place, why in (
        ({"count": "11"}, "count", "Goes further than the file"),
        ({"at_most.price": "dear"}, "at_most.price", "Must be a number"),
        ({"until": "3h"}, "until", "Goes further than the file"),
        ({"count": ""}, "count", "Must be a whole number"),
    ):
        refused = await approve_with_next(calls, run, **wrong)
        assert refused.status_code == 422, refused.text
        assert why in sound(refused).partition(f'id="allowance.{place}.fault"')[2].partition("</p>")[0], wrong
        assert 'next-calls" open' in refused.text, "the form is open where it is wrong"
    assert await decision(calls, run) is None
    given = await approve_with_next(calls, run)
    assert (given.status_code, given.headers["location"]) == (303, f"/requests/{run}?done=decided")
    await calls.clock.advance("1s")
    page = await calls.get(f"/requests/{run}", ANN)
    assert "at most 2 of them, price up to 3000 in all, price up to 650.5 in each." in shown(page)
    covered = await call(calls, "s:2", price=650.5)
    found = await decision(calls, covered)
    assert found is not None
    assert (found.state, found.allowance) == ("approved", run)
    assert "by Ann Ode: use 1 of 2, until" in shown(await calls.get(f"/requests/{covered}", ANN))
    assert (await calls.get(f"/requests/{covered}", "bo@acme.eu")).status_code == 404, "not concerned"
    assert await decision(calls, await call(calls, "s:3", price=651)) is None


async def test_plain_approval_covers_one_call(calls: House) -> None:
    run = await call(calls, "s:1")
    await send(calls, run, ANN, "/decisions/", choice="approve", **{"allowance.count": "x", "allowance.until": "2h"})
    assert (await calls.request(run)).standing is None


async def test_next_calls_are_offered_only_within_the_file(calls: House) -> None:
    other = await call(calls, "s:1", tool="refund")
    assert "next calls" not in (await calls.get(f"/requests/{other}", ANN)).text
    refused = await approve_with_next(calls, other)
    assert (refused.status_code, await decision(calls, other)) == (422, None)
    run = await call(calls, "s:2")
    assert "next calls" not in (await calls.get(f"/requests/{run}", "eve@acme.eu")).text, "no approver"
    two = json.dumps(["ann@acme.eu", "cy@acme.eu"])
    calls.reconfigure("workflows/tool-call.toml", f"from = {two}", f"from = {two}\nneed = 2")
    run = await call(calls, "s:3")
    assert "next calls" not in (await calls.get(f"/requests/{run}", ANN)).text, "they can't approve it alone"


async def test_the_inbox_lists_what_is_given_and_revokes_it(calls: House) -> None:
    run = await call(calls, "s:1")
    await approve_with_next(calls, run)
    await calls.clock.advance("1s")
    await call(calls, "s:2")
    inbox = await calls.get("/inbox", ANN)
    assert "desk: pay · 1 of 2 used, until" in shown(inbox)
    assert "Next calls" not in (await calls.get("/inbox", "cy@acme.eu")).text, "another has given it"
    token = inbox.text.partition(f'action="/requests/{run}/talk"')[2].partition('value="')[2].partition('"')[0]
    form, headers = {"form_token": token, "talk": "revoke"}, OURS | await calls.cookie(ANN)
    signed = await calls.link(run, ANN)
    assert "Revoke" not in (await calls.get(signed, ANN)).text
    assert (await calls.http.post(signed, data={"talk": "revoke"}, headers=OURS)).status_code == 403, "has no proof"
    done = await calls.http.post(f"/requests/{run}/talk", data=form, headers=headers)
    assert (done.status_code, done.headers["location"]) == (303, f"/requests/{run}?done=revoked")
    page = shown(await calls.get(done.headers["location"], ANN))
    assert ("Revoked" in page, "End it now" in page) == (True, False)
    assert await decision(calls, await call(calls, "s:3")) is None, "the next call asks"
    assert "Next calls" not in (await calls.get("/inbox", ANN)).text
