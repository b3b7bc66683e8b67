"""For load balancers and monitors: is the process up, may it get requests, what has it done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from approvals_bot.engine import Engine
from approvals_bot.web.metrics import Metrics

Connection = Callable[[], Awaitable[str]]
"""Says in a few words how a connection is that we keep open: `connected`, `not connected: invalid_auth`."""


class Health:
    """`/healthz`, `/readyz`, `/metrics`."""

    def __init__(self, *, engine: Engine, metrics: Metrics, connections: Mapping[str, Connection]) -> None:
        self._engine = engine
        self._metrics = metrics
        self._connections = connections

    async def alive(self, request: Request) -> Response:
        """The process answers. It says nothing about the store: restarting us would not mend that."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """The store takes writes and has the schema that this version needs; 503 otherwise.

        How the connections are is said beside it. It doesn't make us unready: links, pages and the API work without.
        """
        await self._engine.ready()
        return JSONResponse({"status": "ready"} | {name: await state() for name, state in self._connections.items()})

    async def metrics(self, request: Request) -> Response:
        return self._metrics.response()
