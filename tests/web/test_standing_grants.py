"""Standing grants over HTTP: what they cover, what is listed of them, and how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from approvals_bot.app.service import Service, open_service
from approvals_bot.approvals.acts import Actor
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.read import request_of
from approvals_bot.service.repairs import reset
from approvals_bot.service.revocations import counted_grant
from approvals_bot.service.sessions import Sessions
from tests.web.test_new_request import BASE, CONFIG

ACCESS = """
[workflow]
id = "covering-access"
title = "Access to {{ account }}"
request = ["*"]
[fields]
account = { type = "string", pinned = true }
price = { type = "money", currency = "EUR", required = false }
[standing]
match = ["account"]
lasts = "30d"
times = 20
sum = { field = "price", max = "500" }
[[stage]]
id = "go"
from = ["ann@acme.eu"]
"""
DESK = "a key of thirty-two bytes or more"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "covering-access.toml").write_text(ACCESS)
    (tmp_path / "config.toml").write_text(CONFIG + '[api_keys]\ndesk = { key = "env:DESK", may_vote = true }\n')
    env = {"KEY": "a signing key of the tests: 0123456789", "DESK": DESK}
    async with open_service(read_configuration(tmp_path / "config.toml", env)) as service:
        yield service


async def test_a_grant_is_used_listed_and_revoked(service: Service) -> None:
    headers = {"authorization": f"Bearer {DESK}"}
    transport = httpx2.ASGITransport(service.app)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE, headers=headers) as api:

        async def opened(**fields: str) -> dict[str, Any]:
            body = {"workflow": "covering-access", "input": {"account": "prod", **fields}, "requester": "bo@acme.eu"}
            id = (await api.post("/api/runs", json=body)).json()["run_id"]
            await service.engine.wait(id, 2 if fields else 0.3)
            run: dict[str, Any] = (await api.get(f"/api/runs/{id}")).json()
            return run

        first = await opened()
        voted = await api.post(f"/api/runs/{first['id']}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
        assert voted.status_code == 201
        gives = (await api.get(f"/api/runs/{first['id']}?wait=5")).json()["request"]["standing"]
        grant = f"grant:{first['id']}"
        assert (gives["id"], gives["times"], gives["sums"]) == (grant, 20, {"price": "500"})
        covered = await opened(price="120")
        assert covered["result"]["by"] == grant
        assert (await opened())["request"]["outcome"] is None, "without an amount, it isn't covered"
        listed = (await api.get("/api/grants?person=bo@acme.eu&state=active")).json()["grants"]
        assert [(each["id"], each["used"], each["used_sums"], each["uses"]) for each in listed] == [
            (grant, 1, {"price": "120.00"}, [covered["id"]])
        ]
        assert (await api.get("/api/grants?state=revoked")).json()["grants"] == []
        token = await Sessions(service.engine).begin("bo@acme.eu", method="code", browser="")
        page = await api.get(f"/requests/{first['id']}", headers={"cookie": f"__Host-approvals={token}"})
        assert "1 of 20 used" in page.text
        assert covered["id"] in page.text

        assert "End it now" in page.text, "the requester may"
        path = f"/api/runs/{first['id']}/revocation"
        assert (await api.post(path, json={"by": "cy@acme.eu", "reason": "no"})).status_code == 403
        ended = await api.post(path, json={"by": "bo@acme.eu", "reason": "done"})
        assert (ended.status_code, ended.json()["text"]) == (202, "It covers no further requests from now on.")
        again = await api.post(path, json={"by": "ann@acme.eu"})
        assert (again.status_code, again.json()["verdict"]) == (200, "revoked")
        assert (await opened(price="1"))["request"]["outcome"] is None
        (listed,) = (await api.get("/api/grants?state=revoked")).json()["grants"]
        assert (listed["revoked_by"], listed["reason"]) == ("bo@acme.eu", "done")
        (line,) = await service.engine.audit_lines(AuditFilter(run_id=first["id"], what="grant_revoked"))
        assert line.entry.who == "bo@acme.eu"


async def test_a_reset_ends_what_the_approval_covers(service: Service) -> None:
    headers = {"authorization": f"Bearer {DESK}"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url=BASE, headers=headers) as api:
        body = {"workflow": "covering-access", "input": {"account": "dev", "price": "1"}, "requester": "bo@acme.eu"}
        id = (await api.post("/api/runs", json=body)).json()["run_id"]
        await service.engine.wait(id, 0.3)
        await api.post(f"/api/runs/{id}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
        assert (await api.get(f"/api/runs/{id}?wait=5")).json()["request"]["standing"]
    done = await reset(
        service.engine, id, 1, who="ann@acme.eu", actor=Actor("cli", "root"), reason="a wrong vote", drop_payloads=True
    )
    record = await service.engine.record(id)
    assert record is not None
    request = request_of(record)
    assert request is not None
    assert request.standing is not None
    kept = await counted_grant(service.engine, request.standing)
    assert kept is not None
    assert kept.revoked is not None
    assert kept.revoked.reason == "a wrong vote"
    assert done.next_run != id
    (line,) = await service.engine.audit_lines(AuditFilter(run_id=id, what="grant_revoked"))
    assert line.entry.who == "ann@acme.eu"
