"""What `GET /api/runs/{id}` says of a run's published value and of what it waits for, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlsplit

import jsonschema
import pytest
from pydantic import BaseModel

from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request_approval import request_approval
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import create_hook, create_webhook, publish, sleep, step, workflow
from approvals_bot.durable.tokens import Tokens
from approvals_bot.service.catalog import Listed
from approvals_bot.service.keys import OPENER
from approvals_bot.service.waiting import Mask
from approvals_bot.web.openapi import document

ANN = "ann@acme.eu"
OWN_TOKEN = "order/17/of/ann@acme.eu"


class Order(BaseModel):
    number: int = 17


@workflow
async def waits_for_desk(order: Order) -> str:
    webhook = create_webhook(metadata={"order": order.number})
    publish(
        {
            "url": webhook.url,
            "text": f"Call {webhook.url}.",
            "elsewhere": f"https://proxy.example/forward?to={quote(webhook.url, safe='')}&x=1",
            webhook.url: ["a key"],
            "forged": webhook.url[:-3] + "AAA",
            "decisions": webhook.url.replace("/webhooks/", "/decisions/"),
            "plain": "/webhooks/about.html",
        }
    )
    return await (await webhook).text()


@workflow
async def hook_of_a_token(order: Order) -> Any:
    random, own, short = create_hook(), create_hook(OWN_TOKEN, metadata={"again": OWN_TOKEN}), create_hook("1")
    publish({"token": random.token, "said": f"use {random.token}!", "own": OWN_TOKEN, "short": "1", "time": "10:41"})
    return [await random, await own, await short]


gate = asyncio.Event()


@step(retries=1, retry_delay=1)
async def think() -> None:
    await gate.wait()


@workflow
async def waits_in_many_ways() -> None:
    hook = create_hook("many")

    async def limited() -> None:
        async with asyncio.timeout(7200):
            await hook

    async with asyncio.TaskGroup() as group:
        group.create_task(think())
        group.create_task(sleep("1h"))
        group.create_task(limited())


@workflow
async def asks_by_webhook_and_request() -> str:
    webhook = create_webhook()
    first, _ = await asyncio.gather(request_approval("Go?", approvers=ANN, deliver={}), webhook)
    return first.by


ONLY_DESK = Definition.model_validate(
    {
        "workflow": {"id": "waits_for_desk", "run": "x:waits_for_desk", "request": ["app:desk"]},
        "fields": {"number": "integer"},
    }
)
DEPLOY = Definition.model_validate(
    {"workflow": {"id": "deploy", "request": ["*"]}, "fields": {"v": "string"}, "stage": [{"id": "go", "from": [ANN]}]}
)


@pytest.fixture
async def office(open_service: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setitem(globals(), "gate", asyncio.Event())
    async with open_service(open_pages=True) as service:
        service.engine.resources[Calendars] = Calendars({})
        for each in (waits_for_desk, hook_of_a_token, waits_in_many_ways, asks_by_webhook_and_request):
            service.workflows[each.name] = Listed(each)
        service.workflows["deploy"] = Listed(approval.under("deploy", pinned(DEPLOY)), DEPLOY)
        yield service


async def opened_by_ci(office: Any, workflow: Any, *args: Any) -> str:
    run = await office.engine.start(workflow, *args, attributes={OPENER: "app:ci"})
    await office.engine.settle()
    id: str = run.id
    return id


async def shown_to(client: Any, run: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/api/runs/{run}")).json()
    schemas = document("http://x")["components"]["schemas"]
    jsonschema.validate(found, {"$ref": "#/components/schemas/RunDetails", "components": {"schemas": schemas}})
    return found


async def test_a_published_url_can_be_read_and_called(office: Any) -> None:
    run = await opened_by_ci(office, waits_for_desk, Order(number=4))
    found = await shown_to(office.plain, run)
    url = found["view"]["url"]
    assert found["waiting"] == [
        {
            "kind": "webhook",
            "since": "2026-01-01T09:00:00Z",
            "metadata": {"order": 4},
            "token": found["waiting"][0]["token"],
            "url": url,
        }
    ]
    assert (await office.web.post(urlsplit(url).path, content=b"hello")).status_code == 202
    ended = (await office.plain.get(f"/api/runs/{run}?wait=5")).json()
    assert (ended["status"], ended["result"], ended["waiting"]) == ("completed", "hello", [])


async def test_only_keys_that_may_start_it_see_a_webhooks_url(office: Any) -> None:
    office.workflows["waits_for_desk"] = Listed(waits_for_desk, ONLY_DESK)
    run = await opened_by_ci(office, waits_for_desk, Order(number=4))
    whole = await shown_to(office.api, run)
    url = whole["view"]["url"]
    assert whole["waiting"][0]["url"] == url
    masked = await shown_to(office.plain, run)
    base = url.rpartition("/")[0]
    assert masked["waiting"] == [
        {"kind": "webhook", "since": "2026-01-01T09:00:00Z", "metadata": {"order": 4}},
    ]
    assert masked["view"] == {
        "url": f"{base}/(redacted)",
        "text": f"Call {base}/(redacted).",
        "elsewhere": f"https://proxy.example/forward?to={quote(base + '/', safe='')}(redacted)&x=1",
        f"{base}/(redacted)": ["a key"],
        "forged": whole["view"]["forged"],  # no signature of ours: it opens nothing
        "decisions": whole["view"]["decisions"],
        "plain": "/webhooks/about.html",
    }
    assert url.rpartition("/")[2] not in str(masked).replace(masked["view"]["decisions"], "")


@pytest.mark.parametrize(
    ("request_", "sees"),
    [(["app:ci"], True), (["*"], True), (["@engineers"], True), (["app:desk"], False), (["ann@acme.eu"], True)],
)
async def test_who_may_start_it_is_what_its_file_says(office: Any, request_: list[str], sees: bool) -> None:
    about = ONLY_DESK.workflow.model_copy(update={"request": tuple(request_)})
    office.workflows["waits_for_desk"] = Listed(waits_for_desk, ONLY_DESK.model_copy(update={"workflow": about}))
    run = await opened_by_ci(office, waits_for_desk, Order())
    assert ("url" in (await shown_to(office.plain, run))["waiting"][0]) is sees
    may_name_people = request_ in (["*"], ["@engineers"], ["ann@acme.eu"])  # both keys may name people
    assert ("url" in (await shown_to(office.api, run))["waiting"][0]) is (may_name_people or request_ == ["app:desk"])


async def test_a_workflow_that_is_not_listed_any_more_shows_nobody(office: Any) -> None:
    run = await office.start("waits_for_desk", {"number": 4})
    del office.workflows["waits_for_desk"]
    assert "url" not in (await shown_to(office.api, run))["waiting"][0]


async def test_tokens_of_hooks_are_hidden_from_others_too(office: Any) -> None:
    run = await opened_by_ci(office, hook_of_a_token, Order())
    whole = await shown_to(office.plain, run)
    random = whole["view"]["token"]
    assert [wait["token"] for wait in whole["waiting"]] == [random, OWN_TOKEN, "1"]
    assert whole["waiting"][1]["metadata"] == {"again": OWN_TOKEN}
    del office.workflows["hook_of_a_token"]
    masked = await shown_to(office.plain, run)
    hidden = "(redacted)"
    assert masked["view"] == {
        "token": hidden,
        "said": f"use {hidden}!",
        "own": hidden,
        "short": hidden,
        "time": "10:41",
    }
    assert [wait.get("token") for wait in masked["waiting"]] == [None, None, None]
    assert masked["waiting"][1]["metadata"] == {"again": hidden}


async def test_every_kind_of_waiting_is_shown(office: Any) -> None:
    run = (await office.api.post("/api/runs", json={"workflow": "waits_in_many_ways"})).json()["run_id"]
    while len(waiting := (await shown_to(office.api, run))["waiting"]) < 4 or not waiting[1]["attempts"]:
        await asyncio.sleep(0.01)
    start = {"since": "2026-01-01T09:00:00Z", "metadata": None}
    assert waiting == [
        {"kind": "hook", **start, "token": "many"},
        {"kind": "step", **start, "name": "think", "attempts": 1},
        {"kind": "sleep", **start, "until": "2026-01-01T10:00:00Z"},
        {"kind": "timeout", **start, "until": "2026-01-01T11:00:00Z"},
    ]
    gate.set()
    await office.engine.settle()
    assert (await office.api.post("/api/hooks/many", json=1)).status_code == 200
    await office.clock.advance("61m")
    assert (await shown_to(office.api, run))["waiting"] == []


async def test_a_requests_own_webhook_is_nobodys_to_call(office: Any) -> None:
    run = await office.start("deploy", {"v": "1"}, requester="bo@acme.eu")
    assert (await shown_to(office.api, run))["waiting"] == [
        {"kind": "webhook", "since": "2026-01-01T09:00:00Z", "metadata": {"workflow": "deploy"}}
    ]
    several = await office.start("asks_by_webhook_and_request")
    for id in (several, f"{several}.1"):
        kinds = [(wait["kind"], "url" in wait) for wait in (await shown_to(office.api, id))["waiting"]]
        assert kinds == [("webhook", True), ("webhook", False)]


async def test_lists_of_runs_stay_short(office: Any) -> None:
    await office.start("waits_for_desk", {"number": 4})
    (listed,) = (await office.api.get("/api/runs")).json()["runs"]
    assert not {"view", "waiting"} & listed.keys()


async def test_the_runs_page_shows_them_on_this_machine(office: Any) -> None:
    run = await office.start("waits_for_desk", {"number": 4})
    url = (await shown_to(office.api, run))["view"]["url"]
    page = (await office.web.get(f"/runs/{run}")).text
    assert f'A call to this webhook: <code class="whole">{url}</code>' in page
    assert "<h2>Published</h2>" in page


def test_a_token_under_another_key_is_no_secret_of_ours() -> None:
    other = Tokens(["o" * 32], installation="another").sign("webhook.v1", {"h": "x", "g": 1})
    assert Mask(Tokens(["m" * 32], installation="another"))(f"/webhooks/{other}") == f"/webhooks/{other}"
