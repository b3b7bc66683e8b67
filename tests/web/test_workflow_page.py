"""The page of a workflow: who may request it, and when it starts on its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from approvals_bot.app import open_service, read_configuration
from approvals_bot.testing import FakeClock

CONFIG = """
[server]
base_url     = "http://127.0.0.1:8000"
signing_keys = ["file:key"]
"""
DEPLOY = """
[workflow]
id          = "deploy"
title       = "Deploy {{ version }}"
description = "Puts a version into production."
request     = ["*"]
[fields]
version = "string"
[[stage]]
id   = "go"
from = ["bo@acme.eu"]
[[schedule]]
id    = "nightly"
cron  = "30 2 * * *"
zone  = "Europe/Berlin"
input = { version = "nightly" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "workflows").mkdir()
    for name, text in (("config.toml", CONFIG), ("key", "k" * 40), ("workflows/deploy.toml", DEPLOY)):
        (tmp_path / name).write_text(text)
    return tmp_path / "config.toml"


async def test_a_workflows_page_has_its_next_times(config: Path) -> None:
    clock = FakeClock(datetime(2026, 3, 28, 12, tzinfo=UTC))
    async with open_service(read_configuration(config), clock=clock, open_pages=True) as service:
        transport = httpx2.ASGITransport(app=service.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as web:
            page = (await web.get("/workflows/deploy")).text
            assert "Puts a version into production." in page
            assert "Sun 29 Mar 2026, 03:00 in Berlin" in page  # the clocks skip 02:30
            assert "Mon 30 Mar 2026, 02:30 in Berlin" in page
            assert "none yet" in page
            await clock.advance("1 day")
            (run,) = (await service.engine.records()).records
            assert f'<a href="/runs/{run.id}">started {run.id}</a>' in (await web.get("/workflows/deploy")).text
            assert (await web.get("/workflows/nothing")).status_code == 404


async def test_a_workflows_page_is_for_open_pages_alone(config: Path, clock: FakeClock) -> None:
    async with open_service(read_configuration(config), clock=clock) as service:
        transport = httpx2.ASGITransport(app=service.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as web:
            answer = await web.get("/workflows/deploy")
            assert answer.status_code == 401
            assert "nightly" not in answer.text


async def test_a_workflow_of_a_sub_folder_has_a_name_with_a_slash(config: Path, clock: FakeClock) -> None:
    nested = config.parent / "workflows" / "team-a"
    nested.mkdir()
    theirs = DEPLOY.replace("Puts", "Their own: puts").replace('["bo@acme.eu"]', '["ann@acme.eu"]')
    (nested / "deploy.toml").write_text(theirs)
    key = 'ci = { key = "file:key", requesters = ["*"], workflows = ["team-a/deploy"] }'
    config.write_text(f"{CONFIG}[api_keys]\n{key}\n")
    headers = {"authorization": f"Bearer {'k' * 40}", "idempotency-key": "once"}
    async with open_service(read_configuration(config), clock=clock, open_pages=True) as service:
        transport = httpx2.ASGITransport(app=service.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as web:
            for path in (
                "/workflows/team-a/deploy",
                "/workflows/team-a%2Fdeploy",
                "/workflows/team-a/deploy/simulation",
            ):
                assert "Their own: puts" in (await web.get(path)).text
            assert "Their own: puts" not in (await web.get("/workflows/deploy")).text
            assert 'href="/workflows/team-a/deploy"' in (await web.get("/workflows")).text
            for path, status in (("/workflows/team-a", 404), ("/requests/new/team-a/deploy", 401)):
                assert (await web.get(path)).status_code == status
            body = {"workflow": "team-a/deploy", "requester": "bo@acme.eu", "input": {"version": "2.1"}}
            made = [await web.post("/api/runs", json=body, headers=headers) for _ in range(2)]
            assert [answer.status_code for answer in made] == [202, 200]
            refused = await web.post("/api/runs", json=body | {"workflow": "deploy"}, headers=headers)
            assert refused.status_code == 404
            await service.engine.settle()
            listed = await web.get("/api/runs?workflow=team-a%2Fdeploy&waiting_for=ann@acme.eu", headers=headers)
            (run,) = listed.json()["runs"]
            assert (run["workflow"], run["request"]["state"]) == ("team-a/deploy", "waiting")
            assert run["id"] in (await web.get("/runs?workflow=team-a/deploy")).text
            assert 'workflow="team-a/deploy"' in (await web.get("/metrics")).text
            await clock.advance("2 days")
            names = {record.workflow for record in (await service.engine.records()).records}
            assert names == {"deploy", "team-a/deploy"}
