"""Three MCP tools: ask people for approval, look again for the answer, and answer the CLI's permission prompt.

`approvals-bot mcp` serves them over stdio, the service over HTTP at `/mcp`. Waits are cut at 50 s, since clients give
up on a call after a minute: then the status is `pending`, and the text says to look again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, JsonValue

from approvals_bot.client.approvals import Approvals
from approvals_bot.client.decision import Decision
from approvals_bot.client.tool_request import OpenRequest
from approvals_bot.client.words import LOOK_AGAIN, UNAVAILABLE, DecisionState, error_text
from approvals_bot.errors import AgentError

LONGEST_WAIT = 50.0  # seconds for people; clients commonly give up after 60
LONGEST_CALL = 57.0  # seconds, with what the service itself takes

INSTRUCTIONS = (
    "Before an action that changes something outside of this conversation, call request_approval with the exact "
    "arguments of the action. If the status is `pending`, call get_approval with the key of the answer until it is "
    "something else. Only `approved` and `edited` allow the action, with exactly the `arguments` of the answer."
)

GiveApprovals = Callable[["Context"], AbstractAsyncContextManager[Approvals]]
"""Gives the client by which one call of a tool asks; over HTTP it has the caller's key."""


class McpAnswer(BaseModel):
    """What a tool returns. `arguments`: those that may run, so only after a yes; `url`: the request's page."""

    status: DecisionState
    key: str
    text: str
    by: str | None = None
    arguments: dict[str, JsonValue] | None = None
    url: str | None = None


def approvals_server(give: GiveApprovals, session: str = "") -> MCPServer:
    """Return the MCP server with our tools. `session`: the first part of keys that are made here; default: random."""
    server = _quiet_server()
    session = session or f"mcp-{secrets.token_hex(8)}"

    def new_key() -> str:
        """Return a key that no other call has: an answer is for one call, also if another has the same arguments."""
        return f"{session}:{secrets.token_hex(16)}"

    @server.tool()
    async def request_approval(
        action: str, arguments: dict[str, Any], context: Context, key: str = "", wait_seconds: float = 45
    ) -> McpAnswer:
        """Ask people whether this action may be done with exactly these arguments, and wait for their answer.

        Do the action only if the status is `approved` or `edited`, and only with the `arguments` of the answer. If it
        is `pending`, call get_approval with the `key` of the answer. Give the same `key` to ask for the same call
        again, e.g. after a lost connection.
        """
        with _as_results():
            async with asyncio.timeout(LONGEST_CALL), give(context) as approvals:
                key = key or new_key()
                request = await approvals.request(key, action, arguments)
                return await _answer(approvals, key, request, wait_seconds, context)

    @server.tool()
    async def get_approval(key: str, context: Context, wait_seconds: float = 45) -> McpAnswer:
        """Look again for the answer to request_approval, by the `key` of its answer."""
        with _as_results():
            async with asyncio.timeout(LONGEST_CALL), give(context) as approvals:
                found = await approvals.get(key)
                if found is None:
                    raise ToolError("No request has this key. Call request_approval; don't do the action without it.")
                return await _answer(approvals, key, found, wait_seconds, context)

    @server.tool(structured_output=False)
    async def permission_prompt(tool_name: str, input: dict[str, Any], context: Context, tool_use_id: str = "") -> str:
        """McpAnswer the permission prompt of an agent's command line (`--permission-prompt-tool`)."""
        try:
            key = f"claude:{tool_use_id}" if tool_use_id else new_key()
            async with give(context) as approvals:
                decision = await approvals.ask(key, tool_name, input, wait=LONGEST_WAIT)
            arguments = decision.arguments if decision.state == "edited" else input
            decision.require(arguments or {})
        except (AgentError, ValueError) as error:
            return json.dumps({"behavior": "deny", "message": error_text(error)})
        return json.dumps({"behavior": "allow", "updatedInput": arguments})

    return server


def _quiet_server() -> MCPServer:
    """Return a server without tools. What its constructor does to the process's logging is undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    server = MCPServer("approvals", instructions=INSTRUCTIONS)
    root.handlers[:] = handlers
    root.setLevel(level)
    return server


async def _answer(
    approvals: Approvals, key: str, found: OpenRequest | Decision, seconds: float, context: Context
) -> McpAnswer:
    if isinstance(found, OpenRequest):
        url: str | None = found.url
        async with _page_shown(context, found):
            decision = await _wait(approvals, found, seconds)
    else:
        url, decision = None, found
    arguments = decision.arguments if decision.approved else None
    text = LOOK_AGAIN.format(key=json.dumps(key)) if decision.state == "pending" else decision.text
    return McpAnswer(status=decision.state, key=key, text=text, by=decision.by, arguments=arguments, url=url)


async def _wait(approvals: Approvals, found: OpenRequest, seconds: float) -> Decision:
    return await approvals.wait(found, min(max(seconds, 0.0), LONGEST_WAIT))


@asynccontextmanager
async def _page_shown(context: Context, request: OpenRequest) -> AsyncIterator[None]:
    """Have the client show the request's page meanwhile, if it can (URL elicitation). The page asks to sign in.

    What the client answers to that decides nothing.
    """
    capabilities = context.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or elicitation.url is None or not request.url:
        yield
        return

    async def show() -> None:
        with suppress(MCPError):
            await context.elicit_url("Somebody has to approve this; this page shows who.", request.url, request.id)

    async with anyio.create_task_group() as group:
        group.start_soon(show)
        yield
        group.cancel_scope.cancel()
    with suppress(MCPError):
        await context.session.send_elicit_complete(request.id)


@contextmanager
def _as_results() -> Iterator[None]:
    """Turn our errors into results of the tool that say what to do. None of them is a yes."""
    try:
        yield
    except TimeoutError:
        raise ToolError(UNAVAILABLE) from None
    except (AgentError, ValueError) as error:  # a ValueError: a key or arguments that can't be sent
        raise ToolError(error_text(error)) from error
