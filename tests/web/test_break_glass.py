"""Opening a request without a vote in the browser: by people who have just signed in, and by nobody else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from approvals_bot.app.service import Service, open_service
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.owed_lines import complete_lines
from approvals_bot.service.sessions import Sessions
from approvals_bot.testing import FakeClock
from tests.web.test_new_request import CONFIG, Browser, hidden

BASE = "https://approve.acme.eu"
ACCESS = """
[workflow]
id = "glass-access"
title = "Access to {{ account }}"
key = "{{ account }}"
request = ["*"]
owners = ["ann@acme.eu"]
[fields]
account = "string"
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[break_glass]
who = ["@buyers"]
review = { from = ["cy@acme.eu", "@buyers"], within = "24h" }
"""
KEYS = """
[api_keys]
desk = { key = "env:DESK", may_vote = true }
"""
DESK = "a key of thirty-two bytes or more"
WHY = "The database is down, and nobody answers"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "glass-access.toml").write_text(ACCESS)
    (tmp_path / "config.toml").write_text(CONFIG + KEYS)
    env = {"KEY": "a signing key of the tests: 0123456789", "DESK": DESK}
    async with open_service(read_configuration(tmp_path / "config.toml", env), clock=FakeClock()) as service:
        yield service


async def browser_of(service: Service, person: str, *, proved: bool = True) -> Browser:
    token = await Sessions(service.engine).begin(person, method="code", browser="Firefox on Linux", proved=proved)
    http = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(service.app), base_url=BASE, headers={"cookie": f"__Host-approvals={token}"}
    )
    return Browser(service, http)


async def test_a_fresh_sign_in_opens_it_without_a_vote(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(*args: object, **named: object) -> bool:
        raise StoreUnavailableError("the process dies between the start and the audit's line")

    bo = await browser_of(service, "bo@acme.eu")
    page = await bo.http.get("/requests/new/glass-access")
    assert 'name="break_glass" value="on"' in page.text
    assert '<details class="folded">' in page.text, "nobody goes without a vote by mistake"
    form = hidden(page.text) | {"break_glass": "on"}
    for reason in ("", "too short", "x" * 19, "\u200b" * 40):
        refused = await bo.send(form | {"reason": reason}, account="prod")
        assert refused.status_code == 422
        assert "Write at least 20 characters." in refused.text
        assert 'value="on" checked' in refused.text
        assert '<details class="folded" open>' in refused.text
    waiting = await bo.send(hidden(page.text), account="prod")
    with monkeypatch.context() as crash:
        crash.setattr("approvals_bot.service.open.write_line", dies)
        opened = await bo.send(form | {"reason": WHY}, account="prod")
    assert opened.status_code == 303
    assert opened.headers["location"] != waiting.headers["location"], "it isn't the one that waits for votes"
    again = await bo.send(form | {"reason": WHY}, account="prod")
    assert again.headers["location"] == opened.headers["location"], "sent twice, it is one request"
    id = opened.headers["location"].rpartition("/")[2].partition("?")[0]
    await service.engine.wait(id, 5)
    headers = {"authorization": f"Bearer {DESK}"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url=BASE, headers=headers) as api:
        seen = (await api.get(f"/api/runs/{id}")).json()
        assert seen["request"]["outcome"] == "approved"
        review = seen["request"]["review"]
        assert (review["state"], review["by"]) == ("waiting", None)
        own = await api.post(f"/api/runs/{id}.1/votes", json={"by": "bo@acme.eu", "choice": "approve"})
        assert own.status_code == 403
        voted = await api.post(f"/api/runs/{id}.1/votes", json={"by": "cy@acme.eu", "choice": "approve"})
        assert voted.status_code == 201
        assert voted.json()["text"] == "Your review was recorded. Everyone involved has been notified."
        seen = (await api.get(f"/api/runs/{id}?wait=5")).json()
        assert (seen["request"]["review"]["state"], seen["request"]["review"]["by"]) == ("approved", "cy@acme.eu")
    await complete_lines(service.engine)
    (line,) = await service.engine.audit_lines(AuditFilter(run_id=id, what="glass_broken"))
    assert line.entry.who == "bo@acme.eu"
    page = await bo.http.get(f"/requests/{id}")
    assert "Review: justified" in page.text


async def test_an_older_sign_in_is_refused_and_the_form_kept(service: Service) -> None:
    bo = await browser_of(service, "bo@acme.eu")
    form = hidden((await bo.http.get("/requests/new/glass-access")).text) | {"break_glass": "on", "reason": WHY}
    clock = service.engine.clock
    assert isinstance(clock, FakeClock)
    await clock.advance("1h")
    refused = await bo.send(form, account="prod")
    assert refused.status_code == 401
    assert "needs a sign-in of the last ten minutes" in refused.text
    assert await bo.runs() == 0
    back = re.search(r'name="next" value="(/requests/new/glass-access\?kept=\w+)"', refused.text)
    assert back
    later = await browser_of(service, "bo@acme.eu")
    page = (await later.http.get(back[1])).text
    assert WHY in page
    assert 'value="on" checked' in page
    assert (await later.send(hidden(page) | {"break_glass": "on", "reason": WHY}, account="prod")).status_code == 303
    unproved = await browser_of(service, "bo@acme.eu", proved=False)
    assert (await unproved.send(form, account="prod")).status_code in (401, 403)
    assert await bo.runs() == 1


async def test_others_and_keys_may_not(service: Service) -> None:
    cy = await browser_of(service, "cy@acme.eu")
    page = await cy.http.get("/requests/new/glass-access")
    assert "break_glass" not in page.text
    refused = await cy.send(hidden(page.text) | {"break_glass": "on", "reason": WHY}, account="prod")
    assert refused.status_code == 403
    headers = {"authorization": f"Bearer {DESK}"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url=BASE, headers=headers) as api:
        body = {"workflow": "glass-access", "input": {"account": "prod"}, "requester": "bo@acme.eu"}
        answer = await api.post("/api/runs", json=body | {"break_glass": "on", "reason": WHY})
        assert answer.status_code == 403
        assert "no key can" in answer.json()["detail"]
        answer = await api.post("/api/runs", json=body | {"input": {"account": "prod", "emergency": {"reason": WHY}}})
        assert answer.status_code == 422
    assert await cy.runs() == 0
