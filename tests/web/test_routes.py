"""Every route: its headers, methods, limits and place in the OpenAPI document."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import httpx2
import jsonschema
import pytest
from jsonschema.validators import Draft202012Validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router

from approvals_bot.durable.core.api import create_hook, create_webhook, publish, workflow
from approvals_bot.durable.store.protocol import MAX_UNREAD
from approvals_bot.durable.tokens import Tokens
from approvals_bot.service.catalog import Listed
from approvals_bot.service.replicas import shown_installation
from approvals_bot.web.router import Resource
from approvals_bot.web.routes import build

PATHS = (
    "/api/runs",
    "/api/runs/x",
    "/api/runs/x/events",
    "/api/runs/x/cancellation",
    "/api/runs/x/fields",
    "/api/runs/x/votes",
    "/api/hooks/x",
    "/webhooks/x",
    "/decisions/x",
    "/inbox",
    "/requests/x",
    "/runs",
    "/runs/x",
    "/login",
    "/openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
    "/static/approvals.css",
    "/static/nothing",
    "/static/../routes.py",
    "/",
    "/nothing/here",
    "/api/nothing",
    "/api/runs/",
    "/.env",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")


@workflow
async def call_me() -> str:
    webhook = create_webhook()
    publish({"url": webhook.url})
    return (await webhook).method


async def test_check_47_every_answer_bears_the_security_headers(service: Any) -> None:
    for path in PATHS:
        for method in METHODS:
            answer = await service.api.request(method, path)
            assert answer.status_code < 500, (method, path)
            headers = answer.headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy, (method, path)
            assert "frame-ancestors 'none'" in policy
            assert "form-action 'self'" in policy
            assert "base-uri 'none'" in policy
            assert "script-src" not in policy
            assert headers["x-frame-options"] == "DENY"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-robots-tag"] == "noindex, nofollow"
            assert headers["cache-control"] == "no-store" or path.startswith("/static/")


async def test_an_unsupported_method_is_405_and_names_the_others(service: Any) -> None:
    for path in PATHS[:18]:
        answer = await service.api.request("TRACE", path)
        assert answer.status_code == 405, path
        allowed = answer.headers["allow"].split(", ")
        for method in METHODS:
            status = (await service.api.request(method, path)).status_code
            assert (status == 405) == (method not in allowed), (method, path)


async def test_errors_are_problems_for_programs_and_pages_for_people(service: Any) -> None:
    for path in PATHS:
        answer = await service.api.request("BREW", path)
        is_page = answer.headers["content-type"].startswith("text/html")
        for_programs = path.startswith(("/api/", "/webhooks/", "/openapi", "/healthz", "/readyz", "/metrics"))
        assert is_page != for_programs, path
        if for_programs:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/runs"),
        ("POST", "/api/runs/x/cancellation"),
        ("PATCH", "/api/runs/x/fields"),
        ("POST", "/api/runs/x/votes"),
        ("POST", "/api/hooks/x"),
    ],
)
async def test_bodies_of_the_api_have_limits(service: Any, method: str, path: str) -> None:
    async def status(content: bytes, **headers: str) -> int:
        answer = await service.api.request(method, path, content=content, headers=headers)
        assert answer.headers["content-type"] == "application/problem+json"
        found: int = answer.status_code
        return found

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100_000

    assert await status(b'"' + b"x" * 1_000_000 + b'"') == 413
    assert (await service.api.request(method, path, content=chunks())).status_code == 413
    assert await status(b"{}", **{"Content-Encoding": "gzip"}) == 415
    assert await status(b"{}", **{"Content-Length": "abc"}) == 400
    assert await status(b'{"a": NaN}') == 400
    assert await status(b"[" * 30 + b"]" * 30) == 400
    assert await status(b"") == 400


async def webhook_of(service: Any, workflow: Any = call_me) -> str:
    service.workflows[workflow.name] = Listed(workflow)
    run_id = await service.start(workflow.name)
    url: str = (await service.view(run_id))["url"]
    return url


@pytest.mark.conformance(64, 65)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_call_of_a_webhook_resumes_its_run_and_a_look_does_not(service: Any, method: str) -> None:
    url = await webhook_of(service)
    before = service.content()
    for _ in range(20):
        assert (await service.web.get(url)).status_code == 200
        assert (await service.web.head(url)).status_code == 200
        assert (await service.web.options(url)).status_code == 405
    assert service.content() == before
    assert (await service.web.request(method, url, json={"a": 1})).status_code == 202
    await service.engine.settle()
    run = (await service.api.get("/api/runs?status=completed")).json()["runs"][0]
    assert run["result"] == method
    ended = await service.web.request(method, url)
    assert ended.status_code == 404
    assert (await service.web.get(url)).status_code == 404


@workflow
async def keep_me() -> list[Any]:
    webhook = create_webhook(keep_headers=["x-part"])
    publish({"url": webhook.url})
    request = await webhook
    return [hashlib.sha256(await request.body()).hexdigest(), request.headers.getlist("x-part")]


@pytest.mark.conformance(68)
@pytest.mark.parametrize("body", [b"", bytes(range(256)) * 250])
async def test_a_binary_body_and_repeated_headers_pass_the_route(service: Any, body: bytes) -> None:
    url = await webhook_of(service, keep_me)
    sent = await service.web.post(url, content=body, headers=[("x-part", "1"), ("X-Part", "2")])
    assert sent.status_code == 202
    await service.engine.settle()
    run = (await service.api.get("/api/runs?status=completed")).json()["runs"][0]
    assert run["result"] == [hashlib.sha256(body).hexdigest(), ["1", "2"]]


@workflow
async def plain_hook() -> Any:
    return await create_hook(token="plain")


@pytest.mark.conformance(57)
async def test_a_plain_hooks_token_is_404_on_the_webhook_route(service: Any) -> None:
    service.workflows[plain_hook.name] = Listed(plain_hook)
    run_id = await service.start("plain_hook")
    hook = await service.engine.get_hook_by_token("plain")
    before = service.content()
    for token in ("plain", service.tokens.sign("webhook.v1", {"h": hook.hook_id, "g": 1})):
        assert (await service.web.post(f"/webhooks/{token}", json="no")).status_code == 404
    assert service.content() == before
    assert (await service.api.post("/api/hooks/plain", json="yes")).status_code == 200
    await service.engine.settle()
    assert (await service.run(run_id))["result"] == "yes"


async def test_a_full_hook_is_429_with_a_time_to_try_again(service: Any) -> None:
    @workflow(name="takes none")
    async def takes_none() -> None:
        create_hook("surplus")
        await create_webhook()

    service.workflows["takes none"] = Listed(takes_none)
    run_id = await service.start("takes none", {})
    await service.engine.settle()
    for number in range(MAX_UNREAD):
        await service.engine.resume_hook("surplus", number)
    before = service.content()
    refused = await service.api.post("/api/hooks/surplus", json=1)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert (refused.json()["title"], refused.json()["run_id"]) == ("Too many payloads", run_id)
    assert service.content() == before


async def test_a_called_webhook_that_nobody_awaits_is_429(service: Any) -> None:
    @workflow(name="takes one")
    async def takes_one() -> None:
        webhook = create_webhook()
        publish({"url": webhook.url})
        await webhook
        await create_hook("for ever")

    service.workflows["takes one"] = Listed(takes_one)
    run_id = await service.start("takes one", {})
    await service.engine.settle()
    url = (await service.view(run_id))["url"]
    answers = [(await service.web.post(url)).status_code for _ in range(1 + MAX_UNREAD + 3)]
    assert answers == [202] * (1 + MAX_UNREAD) + [429] * 3
    assert (await service.run(run_id))["status"] == "running"


async def test_the_url_of_a_webhook_stays_out_of_the_log(service: Any) -> None:
    url = await webhook_of(service)
    await service.web.post(f"{url}?from=ci", json={})
    token = url.rpartition("/")[2]
    events = await service.engine.events((await service.api.get("/api/runs")).json()["runs"][0]["id"])
    received = next(event for event in events if event.type == "hook_received")
    assert token not in repr(received)
    assert "?from=ci" in received.data["payload"]["url"]


@pytest.mark.conformance(56)
async def test_bad_webhook_urls_are_one_404_and_bad_bodies_refused(service: Any) -> None:
    url = await webhook_of(service)
    hook_id = (await service.engine.events((await service.api.get("/api/runs")).json()["runs"][0]["id"]))[2].data[
        "hook_id"
    ]
    foreign = Tokens(["another-key-that-has-32-bytes-too!!"], installation=service.tokens.installation).sign(
        "webhook.v1", {"h": hook_id, "g": 1}
    )
    salted = service.tokens.sign("decision.v1", {"h": hook_id, "g": 1})
    unknown = service.tokens.sign("webhook.v1", {"h": "nothing", "g": 1})
    older = service.tokens.sign("webhook.v1", {"h": hook_id, "g": 0})
    before = service.content()
    bodies = set()
    for token in (foreign, salted, unknown, older, "x", url.rpartition("/")[2][:-4]):
        for method in ("GET", "POST", "DELETE"):
            answer = await service.web.request(method, f"/webhooks/{token}")
            assert answer.status_code == 404
            bodies.add(answer.text.replace(answer.headers["x-request-id"], ""))
    assert len(bodies) == 1
    assert (await service.web.post(url, content=b"x" * 70_000)).status_code == 413
    assert (await service.web.post(url, content=b"x", headers={"Content-Encoding": "br"})).status_code == 415
    json = {"Content-Type": "application/json"}
    assert (await service.web.post(url, content=b'{"a": 1, "a": 2}', headers=json)).status_code == 400
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    refused = await service.web.post(url, content=b"--b\r\nno form", headers=form)
    assert (refused.status_code, refused.json()["title"]) == (400, "Invalid form")
    assert "part 1 has no header" in refused.json()["detail"]
    assert service.content() == before
    assert (await service.web.post(url, content=b"\xff any bytes")).status_code == 202


# ── for machines ──


async def test_the_openapi_document_is_valid_and_complete(service: Any) -> None:
    document = (await service.web.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item if method != "parameters"
    }
    router = service.web._transport.app._app._app
    routed = {
        (method, re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path))
        for route in router.routes
        if isinstance(route, Route)
        if isinstance(route.endpoint, Resource)
        for method in route.endpoint.methods
        if method != "HEAD"
    }
    for_programs = {
        (m, p) for m, p in routed if p.startswith(("/api", "/webhooks", "/openapi", "/healthz", "/readyz", "/metrics"))
    }
    assert described == for_programs
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert "$defs" not in schema, name
    references = set(
        re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', (await service.web.get("/openapi.json")).text)
    )
    assert references <= document["components"]["schemas"].keys()
    operations = [
        op["operationId"] for item in document["paths"].values() for op in item.values() if isinstance(op, dict)
    ]
    assert len(operations) == len(set(operations))


async def test_answers_are_as_the_openapi_document_says(service: Any) -> None:
    document = (await service.web.get("/openapi.json")).json()
    service.workflows[call_me.name] = Listed(call_me)
    run_id = await service.start("call_me")

    def fits(answer: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(answer.json(), schema, cls=Draft202012Validator)

    fits(await service.api.get(f"/api/runs/{run_id}"), "Run")
    fits(await service.api.get("/api/runs"), "RunPage")
    fits(await service.api.get(f"/api/runs/{run_id}/events"), "Events")
    fits(await service.api.post("/api/runs", json={"workflow": "call_me"}), "StartedRun")
    fits(await service.api.post("/api/runs", json={}), "Problem")


async def test_the_service_says_that_it_lives_and_is_ready(service: Any) -> None:
    installation = shown_installation(service.engine.installation)
    assert (await service.web.get("/healthz")).json() == {
        "status": "ok",
        "installation": installation,
        "scheme": "https",
    }
    assert service.engine.installation not in installation
    assert (await service.web.get("/readyz")).json() == {"status": "ready", "store": "up"}


async def test_a_store_with_another_schema_makes_it_unready_but_alive(service: Any) -> None:
    with closing(sqlite3.connect(service.database)) as store:
        store.execute("PRAGMA user_version = 99")
    unready = await service.web.get("/readyz")
    assert unready.status_code == 503
    assert unready.json()["title"] == "Store unavailable"
    assert unready.headers["retry-after"]
    assert (await service.web.get("/healthz")).status_code == 200


async def test_metrics_count_by_route_and_name_nobody(service: Any) -> None:
    url = await webhook_of(service)
    await service.web.get(url)
    await service.web.get("/decisions/some-token")
    await service.web.get("/api/runs?waiting_for=ann@acme.eu")
    await service.web.request("BREW", "/some/where")
    text = (await service.web.get("/metrics")).text
    assert 'approvals_http_requests_total{method="GET",route="/webhooks/{signed}",status="200"} 1.0' in text
    assert 'approvals_http_requests_total{method="other",route="(no route)",status="404"} 1.0' in text
    assert 'approvals_runs_started_total{workflow="call_me"} 1.0' in text
    for secret in ("@", "some-token", url.rpartition("/")[2], "/some/where"):
        assert secret not in text


async def test_check_48_the_log_names_routes_and_never_paths(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "approvals_bot"):
        await service.web.get("/decisions/some-token")
        await service.api.get("/api/runs?waiting_for=ann@acme.eu")
        await service.web.get("/static/mark.svg")
    lines = [record.getMessage() for record in caplog.records if record.name == "approvals_bot.access"]
    assert [re.sub(r" [\d.]+ ms$", "", line) for line in lines] == [
        "GET /decisions/{signed} 404",
        "GET /api/runs 200",
        "GET /static/* 200",
    ]


async def test_what_a_stranger_asks_for_is_no_error_in_our_log(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    for path in PATHS:
        for method in METHODS:
            await service.web.request(method, path)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_stopping_service_answers_what_it_gives_up_on(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def last(request: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = build(
        engine=service.engine,
        tokens=service.tokens,
        people=service.engine.resources.popitem()[1],
        workflows=service.workflows,
        api_keys=[],
        base_url="https://approve.acme.eu",
        extra=[Route("/api/lasts", Resource({"GET": last}))],
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x") as client:
        asking = asyncio.create_task(client.get("/api/lasts"))
        await begun.wait()
        asking.cancel()
        answer = await asking
    assert (answer.status_code, answer.json()["title"]) == (503, "Service stopping")
    assert "retry-after" in answer.headers
    assert "content-security-policy" in answer.headers
    assert caplog.text == ""


async def test_error_pages_have_headings_for_people(service: Any) -> None:
    page = await service.web.post("/inbox")
    assert (page.status_code, page.headers["allow"]) == (405, "GET, HEAD")
    assert "<h1>This page can&#39;t do that</h1>" in page.text
    assert "This address takes only GET, HEAD." in page.text


async def test_an_unexpected_error_is_a_500_without_its_message(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def explode(request: Request) -> Response:
        raise RuntimeError(" ".join(("secret", "words")))

    async def explode_too(request: Request) -> Response:
        return await explode(request)

    app = build(
        engine=service.engine,
        tokens=service.tokens,
        people=service.engine.resources.popitem()[1],
        workflows=service.workflows,
        api_keys=[],
        base_url="https://approve.acme.eu",
        extra=[Route("/explode", explode), Mount("/more", Router([Route("/api", explode_too)]))],
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://approve.acme.eu") as client:
        answer = await client.get("/explode")
        assert answer.status_code == 500
        assert "it has been logged" in answer.text
        assert (await client.get("/more/api")).status_code == 500
    assert "secret words" not in answer.text + caplog.text
    assert "RuntimeError while answering /explode" in caplog.text
    assert "RuntimeError while answering /more/api" in caplog.text
