"""Calls that schemathesis makes up from our OpenAPI document: whatever comes, no answer is a 5xx."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed
from tests.support.served import served

schemathesis: Any = pytest.importorskip("schemathesis", reason="it is a dependency of development")

FEW, MANY = 120, 20_000  # calls in all


@pytest.fixture
async def asked(service: Any) -> Any:
    """A service with an open request."""
    definition = Definition.model_validate(
        {
            "workflow": {"id": "deploy", "title": "Deploy {{ service }}", "request": ["*", "app:desk"]},
            "fields": {"service": "string", "count": {"type": "integer", "required": False}},
            "stage": [{"id": "go", "from": ["@release-managers"], "need": 2}],
        }
    )
    service.workflows["deploy"] = Listed(approval.under("deploy", pinned(definition)), definition)
    service.run_id = await service.start("deploy", {"service": "api"})
    return service


async def test_no_generated_call_is_a_5xx(asked: Any) -> None:
    await play(asked, FEW)


@pytest.mark.long
@pytest.mark.timeout(3_600)
async def test_no_generated_call_of_many_is_a_5xx(asked: Any) -> None:
    await play(asked, MANY)


async def play(asked: Any, calls: int) -> None:
    document = (await asked.web.get("/openapi.json")).json()
    async with served("auto", app=asked.app) as site:
        url = f"http://127.0.0.1:{site.port}"
        document["servers"] = [{"url": url}]
        statuses = await asyncio.to_thread(generate, document, url, asked.run_id, calls)
    assert len(statuses) >= calls * 0.5  # a run that makes no calls would prove nothing
    assert {status for status in statuses if status >= 500} == set()
    assert {200, 404, 422} <= set(statuses)


def generate(document: dict[str, Any], url: str, run_id: str, calls: int) -> list[int]:
    """Make about so many calls, the same ones every time. Returns their statuses."""
    found: list[int] = []
    operations = [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]
    for operation in operations:
        _calls(operation, url, run_id, calls // len(operations), found)()
    return found


def _calls(operation: Any, url: str, run_id: str, count: int, found: list[int]) -> Callable[[], None]:
    @settings(
        max_examples=max(1, count),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(case=operation.as_strategy(), of_the_run=st.booleans())
    def calls(case: Any, of_the_run: bool) -> None:
        if of_the_run and "id" in (case.path_parameters or {}):
            case.path_parameters["id"] = run_id
        if case.query:
            case.query.pop("wait", None)  # the answer would take its time
        answer = case.call(base_url=url, headers={"Authorization": "Bearer desk-key"}, timeout=20)
        found.append(answer.status_code)
        assert answer.status_code < 500, answer.text

    return calls
