"""For load balancers and monitors: is the process up, may it get requests, what has it done."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from approvals_bot.engine import Engine
from approvals_bot.web.metrics import Metrics


class Health:
    """`/healthz`, `/readyz`, `/metrics`."""

    def __init__(self, *, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def alive(self, request: Request) -> Response:
        """The process answers. It says nothing about the store: restarting us would not mend that."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """The store takes writes and has the schema that this version needs; 503 otherwise."""
        await self._engine.ready()
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        return self._metrics.response()
