"""Starting Python workflows over HTTP, with a model or with arguments."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from approvals_bot.durable.core.api import workflow
from approvals_bot.service.catalog import Listed


class Order(BaseModel):
    id: str
    cents: int = 5


@workflow
async def with_a_model(order: Order) -> str:
    return f"{order.id} {order.cents}"


@workflow
async def with_a_model_or_none(order: Order | None) -> str:
    return order.id if order else "none"


@workflow
async def with_a_dict(order: dict[str, int]) -> int:
    return sum(order.values())


@workflow
async def with_anything(order):  # type: ignore[no-untyped-def]
    return order


@workflow
async def with_one(number: int) -> int:
    return 2 * number


@workflow
async def with_two(order: str, cents: int = 5) -> str:
    return f"{order} {cents}"


@workflow
async def with_names(order: Order, *, workflow: str, note: str | None = None) -> str:
    return f"{order.id} {workflow} {note}"


@workflow
async def with_nothing() -> str:
    return "done"


ALL = (
    with_a_model,
    with_a_model_or_none,
    with_a_dict,
    with_anything,
    with_one,
    with_two,
    with_names,
    with_nothing,
)


@pytest.fixture
async def programs(service: Any) -> Any:
    for each in ALL:
        service.workflows[each.name] = Listed(each)
    return service


@pytest.mark.parametrize(
    ("name", "given", "result"),
    [
        ("with_a_model", {"id": "a"}, "a 5"),
        ("with_a_model_or_none", {"id": "a"}, "a"),
        ("with_a_dict", {"x": 1, "y": 2}, 3),
        ("with_anything", {"x": 1}, {"x": 1}),
        ("with_one", {"number": 21}, 42),
        ("with_two", {"cents": 7, "order": "a"}, "a 7"),
        ("with_two", {"order": "a"}, "a 5"),
        ("with_names", {"order": {"id": "a"}, "workflow": "b"}, "a b None"),
        ("with_nothing", {}, "done"),
    ],
)
async def test_the_input_is_the_argument_or_has_the_arguments_by_name(
    programs: Any, name: str, given: dict[str, Any], result: Any
) -> None:
    run_id = await programs.start(name, given)
    assert (await programs.run(run_id))["result"] == result


@pytest.mark.parametrize(
    ("name", "given", "place"),
    [
        ("with_one", {}, ["input", "number"]),
        ("with_one", {"number": "x"}, ["input", "number"]),
        ("with_two", {"order": "a", "cent": 7}, ["input", "cent"]),
        ("with_names", {"order": {"id": 5}, "workflow": "x"}, ["input", "order", "id"]),
        ("with_nothing", {"x": 1}, ["input"]),
    ],
)
async def test_mismatches_between_file_and_function_are_named(
    programs: Any, name: str, given: dict[str, Any], place: list[str]
) -> None:
    answer = await programs.api.post("/api/runs", json={"workflow": name, "input": given})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == place
