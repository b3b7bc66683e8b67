"""The actor of each line of the audit: a person with session and address, a key, or the service itself."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from approvals_bot.app.service import open_service
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.deliveries import list_deliveries
from approvals_bot.testing import FakeClock
from tests.web.test_roles_on_pages import BASE, CONFIG, DESK, KEY, OURS, House, write

ANN, BO, CY, DI = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu", "di@acme.eu"
PEER = "192.0.2.7"
OP = "a key of an operator, in the tests: 0123456789"
MORE = """
[login]
methods = ["code", "proxy"]
[login.proxy]
header = "X-Auth-Request-Email"
trusted = ["192.0.2.0/24"]
[audit]
peers = "{peers}"
key = "env:SEED"
"""
NAPS = """
import asyncio
from approvals_bot import create_hook, create_webhook, sleep, workflow

@workflow
async def naps_{peers}() -> None:
    hook, call = create_hook(), create_webhook()
    await asyncio.gather(hook, call, sleep("9d"))

@workflow
async def fails_{peers}() -> None:
    raise ValueError("no")
"""
OF_NOBODY = {"run_ended", "runs_sealed", "text_shown"}
"""Lines by which nobody acts: they name the heads of logs, and a text that an act refers to."""

BY_SERVICE = {"service_started", "configuration_loaded", "rights_changed", "workflow_file"}
BY_KEY = {"key_refused", "opening_refused"}
BY_LINK = {"form_refused"}
BY_PEOPLE = {
    *("signed_in", "signed_out", "signed_out_everywhere", "settings_changed", "audit_exported", "runs_exported"),
    *("evidence_made", "acted", "act_refused", "delivery_attempted", "run_woken", "hook_resumed", "run_cancelled"),
    *("run_attempted", "run_reset"),
}
"""Lines of people who have signed in."""


@pytest.fixture(params=["keep", "none"])
async def peers(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def house(tmp_path: Path, peers: str) -> AsyncIterator[House]:
    config = CONFIG.replace("[people.", 'op = { key = "env:OP", may = ["read-all", "operate"] }\n[people.', 1)
    config = config.replace("port = 2525", "port = 1")  # nobody listens there
    config = config.replace('["di@acme.eu"]', '["di@acme.eu"]\nauditor = ["di@acme.eu"]')
    write(tmp_path, config=config + MORE.format(peers=peers))
    (tmp_path / "workflows" / "naps.py").write_text(NAPS.format(peers=peers))
    env = {"KEY": KEY, "DESK": DESK, "OP": OP, "SEED": "5e" * 32}
    clock = FakeClock()
    async with open_service(read_configuration(tmp_path / "config.toml", env), clock=clock) as service:
        transport = httpx2.ASGITransport(service.app, client=(PEER, 5000))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            yield House(tmp_path, service, http, clock)


class Browser:
    """Somebody who has signed in."""

    def __init__(self, house: House, cookie: dict[str, str]) -> None:
        self._http, self._headers = house.http, OURS | cookie

    async def get(self, path: str) -> httpx2.Response:
        return await self._http.get(path, headers=self._headers)

    async def post(self, path: str, **form: str) -> httpx2.Response:
        sent = await self._http.post(path, data=form, headers=self._headers)
        assert sent.status_code in (200, 303, 403, 409, 422), (path, sent.status_code, sent.text)
        return sent


async def do_everything(house: House, peers: str) -> set[str]:
    """Do each kind of act that a browser or a program can do. Returns the ids of the runs."""
    engine, desk = house.service.engine, {"Authorization": f"Bearer {DESK}"}
    ann, bo, cy, di = [Browser(house, await house.cookie(person)) for person in (ANN, BO, CY, DI)]
    runs = [await house.open() for _ in range(5)]
    views = [await house.request(run) for run in runs]

    form = {"address": ANN, "code": "123456", "code_token": "x"}
    assert (await house.http.post("/login", data=form, headers=OURS)).status_code == 403
    assert (await house.http.get("/inbox", headers={"X-Auth-Request-Email": BO})).status_code == 303
    house.http.cookies.clear()

    await cy.post("/me/settings", act="zone", zone="Asia/Tokyo")
    opened = await bo.post("/requests", workflow="ship", once="a")
    runs.append(opened.headers["location"].rpartition("/")[2].partition("?")[0])
    await ann.post("/inbox/votes", request=f"{views[0].id}:{views[0].digest}", choice="approve")
    await engine.settle()
    await ann.post("/inbox/votes", request=f"{views[0].id}:{views[0].digest}", choice="reject")
    for talk in ("comment", "claim", "snooze-1h"):
        await ann.post(f"/requests/{runs[1]}/talk", talk=talk, remark="x")
    await bo.post(f"/requests/{runs[1]}/talk", talk="remind")
    page = (await ann.get(f"/requests/{runs[1]}")).text
    own = re.findall(r'action="(/decisions/[^"?]+)', page)[0]
    token = re.findall(r'name="form_token" value="([^"]+)"', page)
    for each in token:
        await ann.post(own, choice="reject", comment="no", form_token=each)
    link = await house.link(runs[2], ANN)
    await ann.post(link, choice="approve", form_token="x")
    token = re.findall(r'name="form_token" value="([^"]+)"', (await house.http.get(link)).text)
    await ann.post(link, choice="approve", form_token=token[0])

    await house.clock.advance(timedelta(hours=1))
    await engine.settle()
    (delivery, *_) = (await list_deliveries(engine)).rows
    await di.post(f"/deliveries/{delivery.id}/attempts")

    naps, fails = [
        (await house.api("/api/runs", {"workflow": f"{name}_{peers}", "input": {}})).json()["run_id"]
        for name in ("naps", "fails")
    ]
    page = (await di.get(f"/runs/{naps}")).text
    hooks = set(re.findall(rf"/runs/{naps}/hooks/([^/\"]+)/payloads", page))
    assert len(hooks) == 2
    await di.post(f"/runs/{naps}/wakeups", reason="r")
    for hook in hooks:
        await di.post(f"/runs/{naps}/hooks/{hook}/payloads", reason="r", payload="{}")
    await engine.settle()
    await di.post(f"/runs/{fails}/attempts", reason="r")
    reset = await di.post(f"/runs/{fails}/reset", reason="r", to="1")
    other = (await house.api("/api/runs", {"workflow": f"naps_{peers}", "input": {}})).json()["run_id"]
    await di.post(f"/runs/{other}/cancellation", reason="r")
    await di.post(f"/runs/{runs[3]}/cancellation", reason="r")
    for path in ("/audit.csv", "/audit.jsonl", "/runs.csv", f"/requests/{runs[0]}/evidence"):
        assert (await di.get(path)).status_code == 200, path

    for key, path, body in (
        ("unknown", "/api/runs", {}),
        (OP, "/api/runs", {"workflow": "ship", "input": {}}),
        (DESK, "/api/runs", {"workflow": f"naps_{peers}", "requester": "x@elsewhere.eu", "input": {}}),
    ):
        refused = await house.http.post(path, json=body, headers={"Authorization": f"Bearer {key}"})
        assert refused.status_code in (401, 403), refused.text
    for path, said in (
        (f"/api/runs/{runs[4]}/comments", {"by": ANN, "text": "x"}),
        (f"/api/runs/{runs[4]}/votes", {"by": ANN, "choice": "approve"}),
    ):
        assert (await house.http.post(path, json=said, headers=desk)).status_code == 201
    await engine.settle()
    await bo.post("/logout")
    await cy.post("/me")
    return {*runs, naps, fails, other, reset.headers["location"].rpartition("/")[2].partition("?")[0]}


async def test_each_line_says_who_acted(house: House, peers: str, tmp_path: Path) -> None:
    runs = await do_everything(house, peers)
    lines = [line.entry for line in await house.service.engine.audit_lines()]
    seen = {line.what for line in lines}
    assert {*BY_SERVICE, *BY_KEY, *BY_LINK, *BY_PEOPLE, "sign_in_refused"} <= seen
    for line in lines:
        actor = line.actor or {}
        assert line.what in OF_NOBODY or actor.get("kind"), line
        if line.what in BY_SERVICE:
            assert actor == {"kind": "rule", "id": "service"}, line
        elif actor.get("kind") == "app":
            assert actor["key"] in ("desk", "op", "unknown"), line
            assert actor.get("id", "app:unknown") == f"app:{actor['key']}", line
        elif actor.get("kind") == "person" and line.what in BY_PEOPLE:
            assert actor["id"] == line.who, line
            assert len(actor["session"]) > 30, line
        elif actor.get("kind") == "mail":
            assert (actor["id"], line.who) == (ANN, ANN), line
        if line.what not in (*OF_NOBODY, *BY_SERVICE):
            assert actor.get("peer") == (PEER if peers == "keep" else None), line
    said = {line.what for line in lines if (line.actor or {}).get("kind") == "person"}
    assert said >= BY_PEOPLE
    assert {"app", "mail", "person"} <= {(line.actor or {}).get("kind") for line in lines if line.what == "acted"}
    if peers == "none":
        with closing(sqlite3.connect(tmp_path / "runs.db")) as db:
            kept = [text for text in db.iterdump() if PEER in text]
        assert kept == []
        for run in runs:
            assert PEER not in repr(await house.service.engine.events(run))
