"""Grants over the API: what is given, revoked and extended, and lists of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import JsonValue

from approvals_bot.approvals.grant_life import GrantLines
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Called, CallResult, Targets, TryAgain
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed
from approvals_bot.service.grants import StoredGrantLines, count_grants

ANN, BO, DI = "ann@acme.eu", "bo@acme.eu", "di@acme.eu"
ACCESS: dict[str, Any] = {
    "workflow": {"id": "access-api", "title": "Admin", "request": ["*"]},
    "fields": {"hours": "integer"},
    "stage": [{"id": "go", "from": [ANN]}],
    "deliver": {"email": True},
    "clock": {"deadline": "4h"},
    "grant": {
        "lasts": "{{ hours }}h",
        "max": "8h",
        "give": {"http": "give", "json": {"who": "{{ requester.email }}"}},
        "take": {"http": "take", "json": {"who": "{{ requester.email }}"}},
        "extend": "ask",
    },
}


@dataclass
class Recording:
    """Targets that accept everything while they aren't down."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    is_down: bool = False

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        self.calls.append((target, event_id))
        return TryAgain("no answer") if self.is_down else Called(200)


@pytest.fixture
def service(service: Any) -> Any:
    definition = Definition.model_validate(ACCESS)
    service.workflows["access-api"] = Listed(approval.under("access-api", pinned(definition)), definition)
    service.engine.resources[Targets] = Recording()
    service.engine.resources[GrantLines] = StoredGrantLines(service.engine)
    return service


async def test_a_grant_over_the_api(service: Any) -> None:
    post = service.api.post
    for hours in (0, 9):
        refused = await post("/api/runs", json={"workflow": "access-api", "input": {"hours": hours}, "requester": DI})
        assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["input", "hours"])
    run_id = await service.start("access-api", {"hours": 2}, requester=DI)
    path = f"/api/runs/{run_id}"
    assert (await post(f"{path}/revocation", json={"by": ANN})).status_code == 409
    await post(f"{path}/votes", json={"by": ANN, "choice": "approve"})
    shown = (await service.api.get(path, params={"wait": 30})).json()
    assert (shown["status"], shown["request"]["outcome"]) == ("running", "approved")
    await service.engine.settle()
    before = (await service.run(run_id))["request"]["grant"]
    assert (before["state"], before["taken_at"], before["attempts"]) == ("active", None, 1)

    assert (await post(f"{path}/extension", json={"by": DI, "lasts": "9h"})).status_code == 422
    assert (await post(f"{path}/extension", json={"by": ANN, "lasts": "1h"})).status_code == 403
    asked = await post(f"{path}/extension", json={"by": DI, "lasts": "1h", "reason": "not done"})
    assert (asked.status_code, asked.json()["verdict"]) == (202, "extending")
    await service.engine.settle()
    [extension] = (await service.run(run_id))["requests"]
    assert (extension["id"], extension["state"], extension["waiting_for"]) == (f"{run_id}.1", "waiting", [ANN])
    assert (await service.run(run_id))["request"]["state"] == "approved"
    assert (await post(f"{path}/votes", json={"by": ANN, "choice": "approve"})).status_code == 201
    await service.engine.settle()
    after = (await service.run(run_id))["request"]["grant"]
    assert after["until"] > before["until"]

    assert await count_grants(service.engine, ["access-api", "other"]) == ({"access-api": 1}, 0)
    assert (await post(f"{path}/revocation", json={"by": BO})).status_code == 403
    assert (await post(f"{path}/revocation", json={"by": DI, "reason": "done"})).status_code == 202
    await service.engine.settle()
    ended = (await service.run(run_id))["request"]["grant"]
    assert (ended["state"], ended["revoked_by"], ended["reason"]) == ("revoked", DI, "done")
    again = await post(f"{path}/revocation", json={"by": DI})
    assert (again.status_code, again.json()["text"]) == (200, "The grant is over already: revoked.")
    assert (await post(f"{path}/extension", json={"by": DI, "lasts": "1h"})).status_code == 409
    calls = service.engine.resources[Targets].calls
    assert [target for target, _ in calls] == ["give", "take"]

    found = await service.engine.audit_lines()
    lines = [(line.entry.what, line.entry.who, line.entry.actor) for line in found]
    acts = {(data["act"], data.get("reason")) for data in (line.entry.data for line in found) if "act" in data}
    assert {("revoke", "done"), ("extend", "not done")} <= acts
    about = [(what, who, actor["kind"]) for what, who, actor in lines if what.startswith("grant_")]
    assert about == [(f"grant_{what}", DI, "grant") for what in ("given", "extended", "taken")]


async def test_a_cancellation_removes_what_was_given_first(service: Any) -> None:
    run_id = await service.start("access-api", {"hours": 2}, requester=DI)
    await service.api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve"})
    await service.engine.settle()
    del service.workflows["access-api"]  # a run follows the file that it began with
    service.engine.resources[Targets].is_down = True
    path = f"/api/runs/{run_id}/cancellation"
    assert (await service.api.post(path, json={"by": BO})).status_code == 403
    cancelled = await service.api.post(path, json={"by": DI, "reason": "left"})
    assert (cancelled.status_code, cancelled.json()["verdict"]) == (202, "revoked")
    await service.clock.advance("1h")
    run = await service.run(run_id)
    assert (run["status"], run["request"]["grant"]["state"]) == ("running", "overdue")
    service.engine.resources[Targets].is_down = False
    await service.clock.advance("1h")
    run = await service.run(run_id)
    assert (run["status"], run["request"]["grant"]["state"]) == ("cancelled", "revoked")
    assert run["request"]["outcome"] == "approved"


async def test_a_reset_leaves_nothing_given(service: Any) -> None:
    run_id = await service.start("access-api", {"hours": 2}, requester=DI)
    path = f"/api/runs/{run_id}"
    await service.api.post(f"{path}/votes", json={"by": ANN, "choice": "approve"})
    await service.engine.settle()
    again = {"to": 1, "reason": "a wrong vote", "drop_payloads": True}
    refused = await service.api.post(f"{path}/reset", json=again)
    assert (refused.status_code, refused.json()["title"]) == (409, "Grant isn't over")
    await service.api.post(f"{path}/revocation", json={"by": ANN})
    await service.engine.settle()
    assert (await service.api.post(f"{path}/reset", json=again)).status_code == 202


async def test_lists_of_grants(service: Any) -> None:
    for requester in (DI, BO):
        run_id = await service.start("access-api", {"hours": 1}, requester=requester)
        await service.api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve"})
        await service.clock.advance("1s")  # the newest come first

    async def found(**asked: Any) -> list[str]:
        page = await service.api.get("/api/grants", params=asked)
        assert page.status_code == 200, page.text
        return [f"{each['requester']} {each['state']}" for each in page.json()["grants"]]

    assert await found() == [f"{BO} active", f"{DI} active"]
    assert await found(person="Di@ACME.eu", workflow="access-api") == [f"{DI} active"]
    assert await found(state="overdue") == []
    assert await found(workflow="other") == []
    first = (await service.api.get("/api/grants", params={"limit": 1})).json()
    assert await found(limit=1, cursor=first["cursor"]) == [f"{DI} active"]
    await service.clock.advance("1h")
    assert await found(state="ended") == [f"{BO} ended", f"{DI} ended"]
    assert (await service.api.get("/api/grants", params={"state": "gone"})).status_code == 422
    assert (await service.plain.get("/api/grants")).json()["grants"] == [], "a key lists what it has opened"
