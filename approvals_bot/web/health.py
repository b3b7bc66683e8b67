"""What load balancers and monitors ask: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from secrets import compare_digest
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from approvals_bot.approvals.port import ConnectionState
from approvals_bot.config.monitoring import MetricsTable
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import People
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.figures import FigureReader
from approvals_bot.service.replicas import Replicas, shown_installation
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.responses import RETRY_SOON, Problem

Connection = Callable[[], Awaitable[ConnectionState]]
"""Says how a connection is that we keep open."""


class Health:
    """`/healthz`, `/readyz`, `/metrics`."""

    def __init__(
        self,
        *,
        engine: Engine,
        metrics: Metrics,
        connections: Mapping[str, Connection],
        replicas: Replicas | None = None,
        figures: FigureReader | None = None,
        watch: ChannelWatch | None = None,
        scrape: MetricsTable | None = None,
    ) -> None:
        """`scrape`: who may read the metrics, and where."""
        self._engine = engine
        self._metrics = metrics
        self._connections = connections
        self._replicas = replicas
        self._figures = figures or FigureReader(engine, lambda: (), ())
        self._watch = watch
        self._scrape = scrape or MetricsTable()
        self._installation = shown_installation(engine.installation)

    async def alive(self, request: HttpRequest) -> Response:
        """The process answers. It says nothing about the store: restarting us would not mend that.

        `installation` lets `doctor` see whose service answers. It is a hash, which is all that it takes. `scheme` shows
        it whether a proxy says how people have come.
        """
        scheme = request.scope.get("scheme", "http")
        return JSONResponse({"status": "ok", "installation": self._installation, "scheme": scheme})

    async def ready(self, request: HttpRequest) -> Response:
        """The store takes writes and has the schema that this version needs; 503 otherwise.

        503, too, for a replica that lacks a key which others sign with, and for one that is about to end. Beside it are
        the number of replicas and the states of channels and connections, which don't make us unready: links, pages
        and the API work without. What the other side has said isn't for everybody.
        """
        state = await self._state()
        self._metrics.ready.set(state["status"] == "ready")
        status = 200 if state["status"] == "ready" else 503
        return JSONResponse(state, status, headers=None if status == 200 else RETRY_SOON)

    async def _state(self) -> dict[str, Any]:
        try:
            await self._engine.ready()
        except StoreUnavailableError:
            self._metrics.ready.set(0)
            raise
        if self._replicas is not None and self._replicas.missing:
            return {"status": "key_not_everywhere", "missing": self._replicas.missing}
        found: dict[str, Any] = {"status": "stopping" if self._engine.is_ending else "ready", "store": "up"}
        if self._watch is not None:
            found["channels"] = self._watch.words
        if self._replicas is not None:
            found["replicas"] = self._replicas.count
        return found | {name: (await state()).word for name, state in self._connections.items()}

    async def metrics(self, request: HttpRequest) -> Response:
        """The metrics of this process, and counts of the store."""
        place, token = self._scrape.place, self._scrape.token
        if place is not None and place[1] != (request.scope.get("server") or ("", 0))[1]:
            raise Problem(404)  # it is on a port of its own
        if token is not None and not _shows(request, token.get_secret_value()):
            raise Problem(401, detail="Send [metrics] token as `Authorization: Bearer <token>`.")
        if (figures := await self._figures.read()) is not None:
            self._metrics.counted(figures, self._engine.now())
            self._metrics.decided(self._figures.take_decisions())
        people = self._engine.resources.get(People)
        if people is not None:
            self._metrics.people_read(people.bad_entries, people.unreadable)
        return self._metrics.response()


def _shows(request: HttpRequest, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and compare_digest(given.strip().encode(), token.encode())
