"""Sends traces where the environment says, by the variables that every OpenTelemetry SDK reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

log = logging.getLogger("approvals_bot.cli")


def set_up_traces(*, version: str, replica: str) -> Callable[[], None]:
    """Send spans to the endpoint that OTEL_EXPORTER_OTLP_ENDPOINT names, if any. Returns what sends the last ones."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return lambda: None
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        log.warning("no traces are sent: that needs pip install 'approvals-bot[otel]'")
        return lambda: None
    about = {"service.name": "approvals-bot", "service.version": version, "service.instance.id": replica}
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown
