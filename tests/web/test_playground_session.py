"""Signing in as anybody on a developer's machine, and pages that then behave as in production."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from approvals_bot.approvals.policy import pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed
from tests.web.test_pages import EXPENSE, sound, spend

HERE = "http://127.0.0.1:8000"
OURS = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def office(open_service: Any) -> AsyncIterator[Any]:
    async with open_service(open_pages=True, loopback_only=True, base_url=HERE) as service:
        service.workflows["expense"] = Listed(approval.under("expense", pinned(EXPENSE)), EXPENSE)
        yield service


def caller(office: Any, address: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(office.app, client=(address, 1)), base_url=HERE)


async def sign_in(office: Any, person: str) -> httpx2.Response:
    answer: httpx2.Response = await office.web.post("/playground/session", json={"person": person})
    return answer


async def test_a_sign_in_page_offers_to_continue_as_anybody(office: Any) -> None:
    closed = await office.web.get("/requests/new")
    assert closed.status_code == 401
    assert "Continue as Ann Ode (playground)" in sound(closed)
    form = {"person": "ann@acme.eu", "next": "/requests/new"}
    answer = await office.web.post("/playground/session", data=form, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/requests/new")
    assert "expense" in sound(await office.web.get("/requests/new")).lower()


async def test_signed_in_pages_behave_as_in_production(office: Any) -> None:
    run_id = await spend(office)
    for path in ("/runs", f"/runs/{run_id}", f"/requests/{run_id}"):
        assert (await office.web.get(path)).status_code == 200  # nobody is signed in
    answer = await sign_in(office, "ann@acme.eu")
    assert (answer.status_code, answer.json()) == (200, {"person": "ann@acme.eu", "name": "Ann Ode"})
    assert "Ann Ode" in (await office.web.get("/me")).text
    refused = await office.web.get("/runs")
    assert (refused.status_code, "sign out" in refused.text) == (403, True)
    signed_out = await sign_in(office, "")
    assert (signed_out.status_code, signed_out.json()["person"]) == (200, "")
    assert (await office.web.get("/me")).status_code == 401
    said = [line.entry.what for line in await office.engine.audit_lines()]
    assert [what for what in said if what.startswith("signed_")] == ["signed_in", "signed_out"]


async def test_strangers_and_other_pages_sign_nobody_in(office: Any) -> None:
    ann = {"person": "ann@acme.eu"}
    assert (await sign_in(office, "nobody@else.eu")).status_code == 404
    assert (await sign_in(office, "not an address")).status_code == 422
    for elsewhere in (
        {"Origin": "http://127.0.0.1:9000", "Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
    ):
        for body in ({"json": ann}, {"data": ann}):
            answer = await office.web.post("/playground/session", headers=elsewhere, **body)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    async with caller(office, "10.0.0.7") as other:
        assert (await other.post("/playground/session", json=ann)).status_code == 403
    assert (await office.web.get("/me")).status_code == 401


async def test_production_has_no_such_route(service: Any) -> None:
    assert (await sign_in(service, "ann@acme.eu")).status_code == 404
    assert "playground" not in (await service.web.get("/login")).text


async def test_the_bare_address_leads_to_the_playground(office: Any) -> None:
    answer = await office.web.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/playground")
