"""The service under a path of a larger site, behind a proxy that takes the path off."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed

ROOT = "/approve"
OURS = {"origin": "https://apps.acme.eu", "sec-fetch-site": "same-origin"}


def behind_a_proxy(app: ASGIApp) -> ASGIApp:
    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        assert path.startswith(f"{ROOT}/"), f"{path} is another part of the site"
        await app({**scope, "path": path.removeprefix(ROOT)}, receive, send)

    return proxy


@pytest.fixture
async def site(open_service: Any) -> AsyncIterator[Any]:
    async with open_service(base_url=f"https://apps.acme.eu{ROOT}", open_pages=True) as service:
        definition = Definition.model_validate(
            {
                "workflow": {"id": "deploy", "title": "Deploy {{ service }}", "request": ["*", "app:desk"]},
                "fields": {"service": "string"},
                "stage": [{"id": "go", "from": ["@release-managers"]}],
            }
        )
        service.workflows["deploy"] = Listed(approval.under("deploy", pinned(definition)), definition)
        through = httpx2.ASGITransport(behind_a_proxy(service.app))
        async with (
            httpx2.AsyncClient(transport=through, base_url="https://apps.acme.eu") as service.web,
            httpx2.AsyncClient(
                transport=through, base_url=f"https://apps.acme.eu{ROOT}", headers={"Authorization": "Bearer desk-key"}
            ) as service.api,
        ):
            yield service


async def test_every_page_leads_to_pages_of_ours(site: Any) -> None:
    run_id = await site.start("deploy", {"service": "api"})
    link = ROOT + await site.link(run_id, "ann@acme.eu")
    ahead, seen = [link, f"{ROOT}/inbox", f"{ROOT}/runs", f"{ROOT}/login?signed-out=1", f"{ROOT}/nowhere"], set[str]()
    forms = set[str]()
    while ahead:
        path = ahead.pop().replace("&amp;", "&")
        if path in seen:
            continue
        seen.add(path)
        page = await site.web.get(path)
        expected = {f"{ROOT}/nowhere": 404, f"{ROOT}/requests/new": 401}  # nobody has signed in
        sent_to = 405 if path in forms and page.status_code == 405 else 200  # it takes what the form sends, and no GET
        assert page.status_code == expected.get(path, sent_to), path
        forms.update(re.findall(r'action="(/[^"]*)"', page.text))
        ahead += re.findall(r'(?:href|src|action)="(/[^"]*)"', page.text)
    assert {f"{ROOT}/requests/{run_id}", f"{ROOT}/runs/{run_id}", f"{ROOT}/static/approvals.css"} <= seen


async def test_a_press_and_a_new_run_lead_to_where_they_can_be_seen(site: Any) -> None:
    answer = await site.api.post("/api/runs", json={"workflow": "deploy", "input": {"service": "api"}})
    run_id = answer.json()["run_id"]
    assert answer.headers["location"] == f"{ROOT}/api/runs/{run_id}"
    await site.engine.settle()
    link = ROOT + await site.link(run_id, "ann@acme.eu")
    page = (await site.web.get(link)).text
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)) | {"choice": "approve"}
    pressed = await site.web.post(link, data=form, headers=OURS)
    assert (pressed.status_code, pressed.headers["location"]) == (303, f"{link}?done=decided")
    left = await site.web.post(f"{ROOT}/logout", headers=OURS)
    assert left.headers["location"] == f"{ROOT}/login?signed-out=1"
