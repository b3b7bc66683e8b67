"""Traces, by OpenTelemetry's API alone: its spans go nowhere until somebody sets up an SDK (`approvals-bot[otel]`).

A run keeps the `traceparent` of the call that started it, so its steps belong to that trace, in any process. A span is
named after a kind or a template, as lines of the log are; none has an address, a path or what people wrote.

The API is imported with the first span that needs it: commands that run nothing do without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT = "traceparent"
"""The header of W3C Trace Context, and the attribute in which a run keeps it."""

_NO_SPAN: AbstractContextManager[None] = nullcontext()


def span(name: str, parent: str = "", /, **fields: Any) -> AbstractContextManager[Span | None]:
    """Return a context that runs in a span of this name. `parent`: a `traceparent`; "" for the span that is current.

    Without a parent and without an SDK there is none, and this costs as little as a look into a dict.
    """
    if not parent and not is_recording():
        return _NO_SPAN
    from opentelemetry import trace

    context = _headers().extract({TRACEPARENT: parent}) if parent else None
    known = {field: value for field, value in fields.items() if value not in (None, "")}
    tracer = trace.get_tracer("approvals_bot")
    return _failing(tracer, name, context, known)


@contextmanager
def _failing(tracer: Tracer, name: str, context: Context | None, known: Mapping[str, Any]) -> Iterator[Span]:
    """Run in a span. An error is its class there: its message may quote what people sent."""
    from opentelemetry.trace import StatusCode

    with tracer.start_as_current_span(
        name, context, attributes=known, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def is_recording() -> bool:
    """Return whether somebody has set up an SDK, or the span of a caller is current."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if not hasattr(trace, "get_tracer_provider"):
        return False  # nobody has imported it, or a thread is just importing it: nothing has been set up yet
    has_sdk = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return has_sdk or trace.get_current_span().get_span_context().is_valid


def traceparent() -> str:
    """Return the `traceparent` of the span that is current; "" if there is none."""
    carrier: dict[str, str] = {}
    if is_recording():
        _headers().inject(carrier)
    return carrier.get(TRACEPARENT, "")


def trace_id() -> str:
    """Return the ID of the trace that is current; "" if there is none."""
    return traceparent()[3:35]


def link_to(parent: object) -> None:
    """Link the span that is current to another trace: that of the run which it is about."""
    if isinstance(parent, str) and parent and is_recording():
        from opentelemetry import trace

        found = trace.get_current_span(_headers().extract({TRACEPARENT: parent})).get_span_context()
        if found.is_valid:
            trace.get_current_span().add_link(found)


def parent_of(attributes: Mapping[str, Any]) -> str:
    """Return the `traceparent` among a run's attributes; "" if it has none."""
    found = attributes.get(TRACEPARENT)
    return found if isinstance(found, str) else ""


@cache
def _headers() -> TraceContextTextMapPropagator:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()
