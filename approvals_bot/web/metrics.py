"""What monitors read: whether the service is up and ready, and counts and times for Prometheus.

Never a person, an address, a path or a token.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from approvals_bot.approvals.port import ConnectionState
from approvals_bot.durable.core.events import ENDINGS, Event
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.protocol import Filter, Status
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import People
from approvals_bot.service.replicas import Replicas

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 6.0, 30.0)
"""Seconds. 0.5 is the promise to Slack, 2.5 Slack's patience, 6 a person's, 30 a long poll."""

STALLED = Filter(status="stalled")
MOST_COUNTED = 100_000  # runs; more than that are as alarming
COUNT_EVERY = 15.0  # seconds


class Metrics:
    """The counters of one service. Each service has its own registry, so that two in one process don't mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "approvals_http_requests",
            "HTTP requests by route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "approvals_http_request_seconds",
            "Seconds from a request to its answer, by route.",
            ("route",),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._runs_started = Counter(
            "approvals_runs_started", "Runs opened over the API, by workflow.", ("workflow",), registry=self._registry
        )
        self._schedules = Counter(
            "approvals_schedule_times",
            "Times of schedules that this process decided on, by workflow and what became of them.",
            ("workflow", "outcome"),
            registry=self._registry,
        )
        self._runs_ended = Counter(
            "approvals_runs_ended",
            "Runs that this process ended, by how: completed, failed, cancelled, reset or continued.",
            ("status",),
            registry=self._registry,
        )
        self._runs_stalled = Counter(
            "approvals_runs_stalled",
            "Times that a run stalled in this process, by workflow: its code has a bug or doesn't fit its log.",
            ("workflow",),
            registry=self._registry,
        )
        self._near_limits = Counter(
            "approvals_runs_near_limit",
            "Times that a run came beyond 40 or 80 percent of a limit in this process.",
            ("limit", "percent"),
            registry=self._registry,
        )
        self._runs = Gauge("approvals_runs", "Runs in the store that need a fix.", ("status",), registry=self._registry)
        self._bad_entries = Gauge(
            "approvals_people_bad_entries",
            "Entries of a live group or directory that are no address and were left out, by source, as last read.",
            ("source",),
            registry=self._registry,
        )
        self._unresolved = Gauge(
            "approvals_groups_unresolved",
            "1 for a group or directory that could not be read when it was last asked: requests wait for it.",
            ("source",),
            registry=self._registry,
        )
        self._deliveries = Counter(
            "approvals_deliveries",
            "Attempts to send or update a copy, by channel and what became of it.",
            ("channel", "act", "outcome"),
            registry=self._registry,
        )
        self._last_anchor = Gauge(
            "approvals_audit_last_anchor_timestamp_seconds",
            "Time of the last anchor of the audit that got to a place outside.",
            registry=self._registry,
        )
        self._votes = Counter(
            "approvals_votes", "What people did, by verdict and channel.", ("verdict", "via"), registry=self._registry
        )

        self._logins = Counter(
            "approvals_logins",
            "Sign-ins to the pages, by method and outcome: signed_in, or why not.",
            ("method", "outcome"),
            registry=self._registry,
        )

    def signed_in(self, method: str, outcome: str) -> None:
        self._logins.labels(method, outcome).inc()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        # a caller may send any word as its method; each would be a new time series
        known = method if method in METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def run_started(self, workflow: str) -> None:
        self._runs_started.labels(workflow).inc()

    def scheduled(self, workflow: str, outcome: str) -> None:
        self._schedules.labels(workflow, outcome).inc()

    def run_stalled(self, workflow: str) -> None:
        self._runs_stalled.labels(workflow).inc()

    def run_near_limit(self, limit: str, percent: int) -> None:
        self._near_limits.labels(limit, str(percent)).inc()

    def runs_counted(self, status: Status, count: int) -> None:
        self._runs.labels(status).set(count)

    def people_read(self, bad_entries: Mapping[str, int], unreadable: Mapping[str, str]) -> None:
        """Take over how many entries of each live source of people are no address, and which can't be read."""
        for source, count in bad_entries.items():
            self._bad_entries.labels(source).set(count)
        for source, why in unreadable.items():
            self._unresolved.labels(source).set(1 if why else 0)

    def appended(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.type in ENDINGS:
                self._runs_ended.labels(event.type.removeprefix("run_")).inc()

    def delivered(self, channel: str, act: str, outcome: str) -> None:
        self._deliveries.labels(channel, act, outcome).inc()

    def voted(self, verdict: str, via: str) -> None:
        self._votes.labels(verdict, via).inc()

    def anchored(self, at: datetime) -> None:
        self._last_anchor.set(at.timestamp())

    def response(self) -> Response:
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})


def shown_installation(id: str) -> str:
    """Return what distinguishes installations, without the ID that tokens are bound to."""
    return hashlib.sha256(f"approvals-bot installation {id}".encode()).hexdigest()[:16]


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
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._connections = connections
        self._replicas = replicas
        self._installation = shown_installation(engine.installation)
        self._counted_at = -math.inf  # seconds of the monotonic clock

    async def alive(self, request: HttpRequest) -> Response:
        """The process answers. It says nothing about the store: restarting us would not mend that.

        `installation` lets `doctor` see whose service answers. It is a hash, which is all that it takes.
        """
        return JSONResponse({"status": "ok", "installation": self._installation})

    async def ready(self, request: HttpRequest) -> Response:
        """The store takes writes and has the schema that this version needs; 503 otherwise.

        503, too, for a replica that lacks a key which others sign with. Beside it are the number of replicas and the
        states of connections, which don't make us unready: links, pages and the API work without. What the other side
        has said isn't for everybody.
        """
        await self._engine.ready()
        if self._replicas is not None and self._replicas.missing:
            return JSONResponse({"status": "key_not_everywhere", "missing": self._replicas.missing}, status_code=503)
        replicas = {} if self._replicas is None else {"replicas": self._replicas.count}
        states = {name: (await state()).word for name, state in self._connections.items()}
        return JSONResponse({"status": "ready"} | replicas | states)

    async def metrics(self, request: HttpRequest) -> Response:
        """The metrics of this process, and the count of stalled runs in the store, at most COUNT_EVERY old."""
        if self._counted_at + COUNT_EVERY < time.monotonic():
            with suppress(StoreUnavailableError):  # the counts of this process are wanted then all the more
                self._metrics.runs_counted("stalled", await self._engine.count_runs(STALLED, MOST_COUNTED))
                self._counted_at = time.monotonic()
        people = self._engine.resources.get(People)
        if people is not None:
            self._metrics.people_read(people.bad_entries, people.unreadable)
        return self._metrics.response()
