"""The counts and times of one service for Prometheus. Never a person, an address, a path or a token."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from starlette.responses import Response

from approvals_bot.durable.core.events import ENDINGS, Event
from approvals_bot.service.figures import OPEN, DecidedRequest, StoreFigures

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 6.0, 30.0)
"""Seconds. 0.5 is the promise to Slack, 2.5 Slack's patience, 6 a person's, 30 a long poll."""

CALLS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)  # seconds of a call to the store
LATE = (0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0)  # seconds

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
DECISIONS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY)

COMMITS = frozenset({"create", "create_with_hooks", "append", "record", "receive"})
"""The calls to the store that return once something is durable."""


class Metrics:
    """The counters of one service. Each service has its own registry, so that two in one process don't mix."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        self._stored = StoredMetrics()
        own.register(self._stored)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"approvals_{name}", text, labels, registry=own)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"approvals_{name}", text, labels, registry=own)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"approvals_{name}", text, labels, buckets=buckets, registry=own)

        self._build = gauge("build_info", "1, with the versions that run here.", "version", "python", "store")
        self.ready = gauge("ready", "1 if this process is ready for requests, as `/readyz` last said it.")
        self._requests = counter("http_requests", "HTTP requests by route and status.", "method", "route", "status")
        self._seconds = histogram(
            "http_request_seconds", "Seconds from a request to its answer, by route.", BUCKETS, "route"
        )
        self._runs_started = counter("runs_started", "Runs opened over the API, by workflow.", "workflow")
        self._schedules = counter(
            "schedule_times",
            "Times of schedules that this process decided on, by workflow and what became of them.",
            "workflow",
            "outcome",
        )
        self._runs_ended = counter(
            "runs_ended",
            "Runs that this process ended, by how: completed, failed, cancelled, reset or continued.",
            "status",
        )
        self._runs_stalled = counter(
            "runs_stalled",
            "Times that a run stalled in this process, by workflow: its code has a bug or doesn't fit its log.",
            "workflow",
        )
        self._near_limits = counter(
            "runs_near_limit",
            "Times that a run came beyond 40 or 80 percent of a limit in this process.",
            "limit",
            "percent",
        )
        self._decided = histogram(
            "request_decision_seconds",
            "Seconds from a request to its decision, of the decisions of this process.",
            DECISIONS,
            "workflow",
            "outcome",
        )
        self._resumed = histogram(
            "resume_seconds", "Seconds from a payload or another fact until this process took up its run.", LATE
        )
        self._late = histogram("timer_lateness_seconds", "Seconds by which this process took up runs too late.", LATE)
        self._takeovers = counter("lease_takeovers", "Runs that this process took over from one that let them go.")
        self._bad_entries = gauge(
            "people_bad_entries",
            "Entries of a live group or directory that are no address and were left out, by source, as last read.",
            "source",
        )
        self._unresolved = gauge(
            "groups_unresolved",
            "1 for a group or directory that could not be read when it was last asked: requests wait for it.",
            "source",
        )
        self._deliveries = counter(
            "deliveries",
            "Attempts to send or update a copy, by channel and what became of it.",
            "channel",
            "act",
            "outcome",
        )
        self._channel_up = gauge("channel_up", "1 if a channel works, as far as this process knows.", "channel")
        self._calls = counter(
            "outgoing_calls", "Calls of targets of [http], by target and what became of them.", "target", "outcome"
        )
        self._store_calls = histogram("store_call_seconds", "Seconds of calls to the store.", CALLS, "call")
        self._commits = histogram("store_commit_seconds", "Seconds until something was durable.", CALLS)
        self._store_errors = counter("store_errors", "Calls that the store could not answer, by why.", "kind")
        self._lines_lost = counter("log_lines_lost", "Lines of the log that could not be written.")
        self._lost_before = 0
        self._votes = counter("votes", "What people did, by verdict and channel.", "verdict", "via")
        self._logins = counter(
            "logins", "Sign-ins to the pages, by method and outcome: signed_in, or why not.", "method", "outcome"
        )
        self._keys_refused = counter("api_key_refusals", "Calls that were refused for their API key.")
        self._reloaded = gauge("config_last_reload_successful", "1 if the configuration could be read last time.")
        self._reloaded_at = gauge(
            "config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded."
        )
        self._configuration = gauge("config_info", "1, with the digest of the configuration in force.", "digest")

    def started(self, version: str, store: str) -> None:
        """Say what runs here."""
        self._build.labels(version, platform.python_version(), store).set(1)

    def configured(self, digest: str, at: datetime) -> None:
        """Take note of a configuration that is in force from now on."""
        self._configuration.clear()
        self._configuration.labels(digest).set(1)
        self._reloaded.set(1)
        self._reloaded_at.set(at.timestamp())

    def configuration_refused(self) -> None:
        self._reloaded.set(0)

    def signed_in(self, method: str, outcome: str) -> None:
        self._logins.labels(method, outcome).inc()

    def key_refused(self) -> None:
        self._keys_refused.inc()

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

    def run_taken_up(self, seconds: float, *, by_timer: bool) -> None:
        """Count a run that was due for this long."""
        (self._late if by_timer else self._resumed).observe(seconds)

    def taken_over(self) -> None:
        self._takeovers.inc()

    def people_read(self, bad_entries: Mapping[str, int], unreadable: Mapping[str, str]) -> None:
        """Take over how many entries of each live source of people are no address, and which can't be read."""
        for source, count in bad_entries.items():
            self._bad_entries.labels(source).set(count)
        for source, why in unreadable.items():
            self._unresolved.labels(source).set(1 if why else 0)

    def appended(self, run_id: str, events: Iterable[Event]) -> None:
        for event in events:
            if event.type in ENDINGS:
                self._runs_ended.labels(event.type.removeprefix("run_")).inc()

    def delivered(self, channel: str, act: str, outcome: str, delivery_id: str = "") -> None:
        self._deliveries.labels(channel, act, outcome).inc()

    def channel_is(self, channel: str, *, up: bool) -> None:
        self._channel_up.labels(channel).set(1 if up else 0)

    def called(self, target: str, outcome: str) -> None:
        self._calls.labels(target, outcome).inc()

    def store_answered(self, call: str, seconds: float) -> None:
        self._store_calls.labels(call).observe(seconds)
        if call in COMMITS:
            self._commits.observe(seconds)

    def lines_lost(self, count: int) -> None:
        """Take over how many lines of the log could not be written since the start."""
        self._lines_lost.inc(count - self._lost_before)
        self._lost_before = count

    def store_failed(self, kind: str) -> None:
        self._store_errors.labels(kind).inc()

    def voted(self, verdict: str, via: str) -> None:
        self._votes.labels(verdict, via).inc()

    def counted(self, figures: StoreFigures, now: datetime) -> None:
        """Take over the counts of the whole store."""
        self._stored.figures, self._stored.now = figures, now

    def decided(self, decisions: Iterable[DecidedRequest]) -> None:
        for workflow, outcome, seconds in decisions:
            self._decided.labels(workflow, outcome).observe(seconds)

    def response(self) -> Response:
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})


class StoredMetrics:
    """The metrics of the whole store. Before it has been counted, and of what there is none, there is nothing."""

    def __init__(self) -> None:
        self.figures: StoreFigures | None = None
        self.now: datetime | None = None

    def collect(self) -> Iterable[GaugeMetricFamily]:
        found, now = self.figures or StoreFigures(), self.now

        def family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"approvals_{name}", text, labels=labels)

        def age(at: datetime) -> float:
            return 0.0 if now is None else max(0.0, (now - at).total_seconds())

        runs = family("runs", "Runs in the store that haven't ended, by status.", "status")
        for status in OPEN if self.figures is not None else ():
            runs.add_metric([status], found.runs.get(status, 0))
        requests = family("requests_open", "Requests in the store that wait for a decision.", "workflow")
        for workflow, count in found.requests.items():
            requests.add_metric([workflow], count)
        oldest = family("request_oldest_open_seconds", "Age of the oldest request that waits.", "workflow")
        for workflow, at in found.oldest_request.items():
            oldest.add_metric([workflow], age(at))
        waiting = family("deliveries_waiting", "Copies that have not arrived, by channel and why.", "channel", "state")
        for (channel, state), count in found.deliveries.items():
            waiting.add_metric([channel, state], count)
        late = family(
            "delivery_oldest_waiting_seconds", "Age of the oldest run with a copy that has not arrived.", "channel"
        )
        for channel, at in found.oldest_delivery.items():
            late.add_metric([channel], age(at))
        size = family("store_size_bytes", "Size of the store.")
        if self.figures is not None:
            size.add_metric([], found.size)
        anchored = family("audit_last_anchor_timestamp_seconds", "When the last anchor of the audit was made.")
        if found.anchored_at is not None:
            anchored.add_metric([], found.anchored_at.timestamp())
        grants = family("grants_active", "Grants that are active, by workflow.", "workflow")
        for workflow, count in found.grants.items():
            grants.add_metric([workflow], count)
        overdue = family("grants_overdue", "Grants that have ended and could not be removed yet.")
        if self.figures is not None:
            overdue.add_metric([], found.overdue_grants)
        backup = family("backup_last_success_timestamp_seconds", "When the last backup was written.")
        if found.backed_up_at is not None:
            backup.add_metric([], found.backed_up_at.timestamp())
        return [runs, requests, oldest, waiting, late, size, anchored, grants, overdue, backup]
