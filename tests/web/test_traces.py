"""Traces: a run belongs to the trace of the call that started it, wherever it goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from approvals_bot.durable.core.tracing import span, trace_id, traceparent
from tests.structure.test_traced import IN_SLACK, SECRETS, open_house

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {"authorization": f"Bearer {SECRETS['ci.key']}"}
BODY = {"workflow": IN_SLACK, "input": {"service": "canaryfield", "version": "2"}, "requester": "bo@acme.eu"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def of_trace(spans: InMemorySpanExporter, id: str) -> dict[str, ReadableSpan]:
    return {
        each.name: each
        for each in spans.get_finished_spans()
        if each.context is not None and trace.format_trace_id(each.context.trace_id) == id
    }


async def test_a_run_belongs_to_the_trace_of_its_caller(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    async with open_house(tmp_path) as house:
        answer = await house.http.post("/api/runs", json=BODY, headers=HEADERS | {"traceparent": CALLER})
        run_id = answer.json()["run_id"]
        await house.service.engine.settle()
        vote = {"by": "ann@acme.eu", "choice": "approve"}
        await house.http.post(f"/api/runs/{run_id}/votes", json=vote, headers=HEADERS)
        await house.service.engine.settle()
    callers = of_trace(spans, CALLER[3:35])
    assert {"POST /api/runs", "activation", "step send_copy", "deliver slack"} <= callers.keys()
    sent = callers["step send_copy"].attributes
    assert sent is not None
    assert (sent["run_id"], sent["workflow"], sent["attempt"]) == (run_id, IN_SLACK, 1)
    name = "POST /api/runs/{id}/votes"
    voted = next(each for each in spans.get_finished_spans() if each.name == name)
    assert [trace.format_trace_id(link.context.trace_id) for link in voted.links] == [CALLER[3:35]]
    said = " ".join(f"{each.name} {dict(each.attributes or {})}" for each in spans.get_finished_spans())
    assert [each for each in ("acme.eu", "canaryfield", *SECRETS.values()) if each in said] == []


async def test_without_an_sdk_a_run_keeps_its_callers_trace(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        plain = await house.http.post("/api/runs", json=BODY, headers=HEADERS)
        traced = await house.http.post("/api/runs", json=BODY, headers=HEADERS | {"traceparent": CALLER})
        await house.service.engine.settle()
        runs = [await house.service.engine.read(each.json()["run_id"]) for each in (plain, traced)]
    kept = [run[0].attributes.get("traceparent") for run in runs]
    assert kept == [None, CALLER]


def test_without_caller_and_sdk_there_is_no_span() -> None:
    with span("step a") as current:
        assert (current, traceparent(), trace_id()) == (None, "", "")
    with span("step a", CALLER):
        assert (traceparent(), trace_id()) == (CALLER, CALLER[3:35])


def test_a_thread_that_imports_the_library_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))  # half of it
    with span("step a") as current:
        assert current is None


def test_a_span_has_the_class_of_an_error_alone(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="known"), span("step look"):
        raise ValueError("bo@acme.eu isn't known")
    (ended,) = spans.get_finished_spans()
    assert (ended.status.is_ok, ended.status.description, ended.events) == (False, "ValueError", ())
