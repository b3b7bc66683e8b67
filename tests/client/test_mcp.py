"""Our MCP tools, asked by the official client over stdio and HTTP, with a real service behind them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.context import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitRequestParams, ElicitResult
from starlette.requests import Request
from starlette.responses import JSONResponse

from approvals_bot.web.mcp import McpEndpoint
from tests.support.journey import Service, with_samples

ARGUMENTS = {"flight": "LH 441", "passenger": {"name": "Ann Ode", "bags": [1, 2]}}
KEY = "the-key-of-an-agent-in-these-tests"
GUIDE = "approvals-bot mcp"  # as docs/agents.md says it
COMMAND = ["-m", "approvals_bot", GUIDE.partition(" ")[2]]
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(with_samples(tmp_path_factory.mktemp("mcp")))
    service.environment = {"TRAVEL_AGENT_KEY": KEY}
    yield service.start("--fresh")
    service.stop()
    service.http.close()


def environment(service: Service, **other: str) -> dict[str, str]:
    return os.environ | {"APPROVALS_URL": str(service.http.base_url), "APPROVALS_KEY": KEY} | other


@asynccontextmanager
async def over_stdio(service: Service, **other: str) -> AsyncIterator[Client]:
    server = StdioServerParameters(command=sys.executable, args=COMMAND, env=environment(service, **other))
    async with Client(server) as client:
        yield client


@asynccontextmanager
async def over_http(service: Service) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=90, trust_env=False) as http,
        Client(streamable_http_client(f"{service.http.base_url}/mcp", http_client=http)) as client,
    ):
        yield client


OVER = {"stdio": over_stdio, "http": over_http}


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return dict(result.structured_content)


async def prompt(client: Client, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool("permission_prompt", arguments)
    (content,) = result.content
    found: dict[str, Any] = json.loads(content.text)  # type: ignore[union-attr]  # it is text
    return found


def request_with_key(service: Service, key: str) -> dict[str, Any] | None:
    headers = {"authorization": f"Bearer {KEY}"}
    found = service.api("GET", "/runs", params={"key": key}, headers=headers).json()["runs"]
    return dict(found[0]) if found else None


async def vote(service: Service, key: str, choice: str, **more: Any) -> None:
    run = await asyncio.to_thread(service.eventually, lambda: request_with_key(service, key))
    service.eventually(lambda: service.run(run["id"])["request"])
    answer = service.vote(run["id"], "ann@acme.eu", choice, **more)
    assert answer.status_code == 201, answer.text


@pytest.mark.agents(18)
@pytest.mark.parametrize("how", OVER)
async def test_the_answer_is_there_for_another_process(service: Service, how: str) -> None:
    key = f"{how}:1"
    async with OVER[how](service) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {
            "request_approval",
            "get_approval",
            "permission_prompt",
        }
        asked = {"action": "book_flight", "arguments": ARGUMENTS, "key": key}
        first = await call(client, "request_approval", **asked, wait_seconds=0)
        assert (first["status"], first["key"], first["arguments"]) == ("pending", key, None)
        assert "get_approval" in first["text"]
        assert first["url"].startswith(str(service.http.base_url))
        waiting = asyncio.create_task(call(client, "request_approval", **asked))
        await vote(service, key, "approve")
        decided = await waiting
        assert (decided["status"], decided["arguments"], decided["by"]) == ("approved", ARGUMENTS, "ann@acme.eu")
    async with OVER[how](service) as client:
        assert await call(client, "get_approval", key=key) | {"url": None} == decided | {"url": None}
        other = await client.call_tool("request_approval", asked | {"arguments": {"flight": "LH 9"}})
        assert other.is_error
        unknown = await client.call_tool("get_approval", {"key": "never"})
        assert unknown.is_error


@pytest.mark.agents(18)
async def test_the_permission_prompt_has_the_two_shapes_of_the_cli(service: Service) -> None:
    async with over_http(service) as client:
        asked = {"tool_name": "Bash", "input": {"command": "rm -rf build"}}
        waiting = asyncio.create_task(prompt(client, **asked, tool_use_id="toolu_1"))
        await vote(service, "claude:toolu_1", "reject", comment="not today")
        denied = await waiting
        assert set(denied) == {"behavior", "message"}
        assert denied["behavior"] == "deny"
        assert '"not today"' in denied["message"]
        waiting = asyncio.create_task(prompt(client, **asked, tool_use_id="toolu_2"))
        await vote(service, "claude:toolu_2", "edit", answers={"command": "ls build"})
        assert await waiting == {"behavior": "allow", "updatedInput": {"command": "ls build"}}
        waiting = asyncio.create_task(prompt(client, **asked, tool_use_id="toolu_3"))
        await vote(service, "claude:toolu_3", "approve")
        assert await waiting == {"behavior": "allow", "updatedInput": {"command": "rm -rf build"}}


async def test_calls_without_a_key_are_requests_of_their_own(service: Service) -> None:
    """A yes is for one call: the next one with the same arguments is asked about again."""
    async with over_http(service) as client:
        asked = {"action": "refund", "arguments": {"amount": 10}, "wait_seconds": 0}
        keys = [(await call(client, "request_approval", **asked))["key"] for _ in range(2)]
        assert len(set(keys)) == 2


@pytest.mark.agents(18)
def test_mcp_over_http_needs_a_key(service: Service) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = service.http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers)
        assert answer.status_code == 401
        assert "Bearer" in answer.headers["www-authenticate"]
    assert service.http.get("/mcp", headers={"Authorization": f"Bearer {KEY}"}).status_code == 405


@pytest.mark.agents(18)
async def test_clients_that_can_show_pages_get_the_request_s(service: Service) -> None:
    shown: list[ElicitRequestParams] = []

    async def show(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        shown.append(params)
        return ElicitResult(action="cancel")  # which decides nothing

    server = StdioServerParameters(command=sys.executable, args=COMMAND, env=environment(service))
    async with Client(server, elicitation_callback=show, mode="legacy") as client:
        asked = {"action": "book", "arguments": {}, "key": "shown:1"}
        waiting = asyncio.create_task(call(client, "request_approval", **asked))
        await vote(service, "shown:1", "approve")
        assert (await waiting)["status"] == "approved"
    (params,) = shown
    assert params.mode == "url"
    assert params.url.startswith(str(service.http.base_url))
    assert KEY not in str(params)


@pytest.mark.agents(13)
@pytest.mark.long  # 50 s
async def test_a_service_that_is_down_denies(service: Service, tmp_path: Path) -> None:
    async with over_stdio(service, APPROVALS_URL=NOBODY) as client:
        found = await prompt(client, tool_name="Bash", input={"command": "ls"})
        assert found["behavior"] == "deny"
        assert "can't be reached" in found["message"]


async def test_what_a_tool_asks_of_the_service_comes_from_the_callers_address() -> None:
    """In this process there is no connection, and 127.0.0.1 would be recorded."""
    seen: list[Any] = []

    async def service(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"])
        await JSONResponse({"detail": "no"}, 404)(scope, receive, send)

    endpoint = McpEndpoint(base_url="https://approve.acme.eu")
    endpoint.app = service

    async def entrance(scope: Any, receive: Any, send: Any) -> None:
        await (await endpoint.respond(Request(scope)))(scope, receive, send)

    async def ask(peer: str) -> None:
        transport = httpx2.ASGITransport(entrance, client=(peer, 5000))
        async with (
            httpx2.AsyncClient(transport=transport, headers={"Authorization": f"Bearer {KEY}"}) as http,
            Client(streamable_http_client("https://approve.acme.eu/mcp", http_client=http)) as client,
        ):
            await client.call_tool("get_approval", {"key": "a"})

    await asyncio.gather(*(ask(f"192.0.2.{number}") for number in range(3)))
    assert {tuple(client) for client in seen} == {(f"192.0.2.{number}", 5000) for number in range(3)}
