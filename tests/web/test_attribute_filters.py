"""`GET /api/runs?attr.amount.gte=100`: runs by their attributes, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from approvals_bot.durable.core.api import set_attributes, workflow
from approvals_bot.durable.core.attributes import Settable
from approvals_bot.service.catalog import Listed


@workflow
async def attributes_over_http(amount: int) -> None:
    set_attributes(stage="checked", doubled=2 * amount)


@pytest.fixture
async def office(open_service: Any) -> AsyncIterator[Any]:
    async with open_service() as service:
        service.workflows[attributes_over_http.name] = Listed(attributes_over_http)
        yield service


async def ids(office: Any, **query: Any) -> list[str]:
    answer = await office.api.get("/api/runs", params={name.replace("__", "."): each for name, each in query.items()})
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["runs"]]


async def filled(office: Any) -> dict[str, str]:
    values: dict[str, dict[str, Settable]] = {
        "cheap": {"amount": Decimal("99.99"), "due": "2026-11-30", "order": "4711"},
        "even": {"amount": 100, "due": "2026-12-01", "order": 4711, "a.b": 1},
        "dear": {"amount": 1250.5, "due": "2026-12-24", "urgent": True},
        "text": {"amount": "100", "urgent": "true"},
    }
    made = {}
    for name, attributes in values.items():
        await office.clock.advance("1m")
        run = await office.engine.start(attributes_over_http, 3, attributes=attributes)
        made[name] = run.id
    await office.engine.settle()
    return made


async def test_ranges_are_of_numbers_and_of_texts(office: Any) -> None:
    made = await filled(office)
    assert await ids(office, attr__amount__gte="100") == [made["dear"], made["even"]]
    assert await ids(office, attr__amount__gt="100.00") == [made["dear"]]
    assert await ids(office, attr__amount__lt="1e2") == [made["cheap"]]
    assert await ids(office, attr__amount__gte="99.99", attr__amount__lte="100") == [made["even"], made["cheap"]]
    assert await ids(office, attr__amount__gte='"100"') == [made["text"]]
    assert await ids(office, attr__due__lt="2026-12-02") == [made["even"], made["cheap"]]
    both = {"attr__due__gte": "2026-12-01", "attr__amount__lt": "500"}
    assert await ids(office, **both) == await ids(office, **both, status="completed") == [made["even"]]
    assert await ids(office, **both, workflow="attributes_over_http") == [made["even"]]
    assert await ids(office, **both, status="running") == []


async def test_a_value_is_found_as_a_number_and_as_a_text(office: Any) -> None:
    made = await filled(office)
    assert await ids(office, attr__order="4711") == [made["even"], made["cheap"]]
    assert await ids(office, attr__order='"4711"') == await ids(office, attr__order__eq='"4711"') == [made["cheap"]]
    assert await ids(office, attr__urgent="true") == [made["text"], made["dear"]]
    assert await ids(office, attr__due__in="2026-12-24,2026-11-30") == [made["dear"], made["cheap"]]
    assert len(await ids(office, attr__stage="checked", attr__doubled="6")) == 4
    assert await ids(office, **{"attr.a.b.eq": "1"}) == [made["even"]]


async def test_pages_of_a_range_go_on_where_they_ended(office: Any) -> None:
    made = await filled(office)
    asked = {"attr.amount.gt": "0", "limit": "2"}
    first = (await office.api.get("/api/runs", params=asked)).json()
    second = (await office.api.get("/api/runs", params=asked | {"cursor": first["cursor"]})).json()
    assert [run["id"] for run in (*first["runs"], *second["runs"])] == [made["dear"], made["even"], made["cheap"]]
    assert second["cursor"] is None
    answer = await office.api.get("/api/runs", params={"cursor": first["cursor"]})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "cursor"])


WRONG = {
    "attr.amount.like": "1",
    "attr.": "1",
    "attr..gte": "1",
    "attr.$waiting_for": "ann@acme.eu",
    "attr.$waiting_for.gte": "a",
    "attr.amount.gte": "true",
    "attr.amount.lt": "1e2000",
    "attr.name": "x" * 257,
    "attr.name.gte": '"\\x"',
    "attr.region.in": ",".join(map(str, range(30))),
    "attribute.amount": "1",
}


@pytest.mark.parametrize("parameter", WRONG)
async def test_a_wrong_filter_is_refused_by_its_name(office: Any, parameter: str) -> None:
    answer = await office.api.get("/api/runs", params={parameter: WRONG[parameter]})
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["errors"]] == [["query", parameter]]


async def test_conditions_that_do_not_go_together_are_refused(office: Any) -> None:
    for query in ("attr.a=1&attr.a=2", "attr.a=1&attr.a.in=2", "&".join(f"attr.a{n}=1" for n in range(11))):
        answer = await office.api.get(f"/api/runs?{query}")
        assert answer.status_code == 422, query


async def test_a_filter_needs_a_key_like_any_list(office: Any) -> None:
    await filled(office)
    answer = await office.web.get("/api/runs?attr.amount.gte=1")
    assert (answer.status_code, "runs" in answer.json()) == (401, False)
