"""`POST /mcp`: our MCP tools over streamable HTTP, for callers with an API key.

No session is kept, so any replica may answer any call. A tool asks by the service's own API, in this
process and with the caller's key, so it can do what that key can do, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from approvals_bot.web.responses import Problem

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context

    from approvals_bot.client import Approvals

_caller: ContextVar[tuple[str, int]] = ContextVar("caller")
"""The address and port that the call came from. What its tools ask of the service comes from there, too."""

LARGEST_BODY = 262_144  # bytes; four times the arguments that a request takes


class McpEndpoint:
    """The endpoint. `app`: the whole service, set when it is built."""

    def __init__(self, *, base_url: str) -> None:
        self._base_url = base_url
        self._server: MCPServer | None = None
        self.app: ASGIApp | None = None

    async def respond(self, request: HttpRequest) -> ASGIApp:
        """Return what answers this call. Raises Problem 501 without the package `mcp`."""
        try:
            from approvals_bot.client.mcp import approvals_server
        except ModuleNotFoundError as error:
            if error.name != "mcp":
                raise
            raise Problem(
                501, detail="MCP isn't installed here. Install it with `pip install 'approvals-bot[mcp]'`, and restart."
            ) from None
        if self._server is None:
            self._server = approvals_server(self._approvals)
        return _McpCall(self._server)

    @asynccontextmanager
    async def _approvals(self, context: Context) -> AsyncIterator[Approvals]:
        import httpx2

        from approvals_bot.client import Approvals

        _, _, key = (context.headers or {}).get("authorization", "").partition(" ")
        assert self.app is not None
        transport = httpx2.ASGITransport(app=self.app, client=_caller.get())
        async with Approvals(self._base_url, key.strip(), transport=transport) as approvals:
            yield approvals


class _McpCall:
    """One call, answered in the task of its request, so that nothing of it outlives the answer."""

    def __init__(self, server: MCPServer) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from mcp.server.transport_security import TransportSecuritySettings

        # The key in a header is what keeps other sites' pages out, so the names of hosts need no check.
        open_to_hosts = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        self._server.streamable_http_app(  # makes a new manager, which serves one call
            stateless_http=True,
            json_response=True,
            transport_security=open_to_hosts,
            max_request_body_size=LARGEST_BODY,
        )
        manager = self._server.session_manager
        _caller.set(tuple(scope.get("client") or ("", 0)))
        async with manager.run():
            await manager.handle_request(scope, receive, send)
