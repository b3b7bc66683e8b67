"""A start that is repeated under its key: the same run, or a conflict that names what was sent otherwise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from approvals_bot import Engine, IdempotencyConflictError, InvalidArgumentError, Workflow, create_hook, workflow
from approvals_bot.durable.core.idempotency import MAX_SENT, abridged, difference
from approvals_bot.testing.fixtures import OpenEngine


async def conflict(engine: Engine, code: Workflow[..., Any], *args: Any, **named: Any) -> str:
    with pytest.raises(IdempotencyConflictError) as refused:
        await engine.start(code, *args, idempotency_key="k", **named)
    return refused.value.difference


async def released(open_engine: OpenEngine, *releases: Callable[[], tuple[Workflow[..., Any], Any]]) -> list[bool]:
    """Start each release's workflow with its argument under one key. Whether each start made a run."""
    found = []
    for release in releases:
        code, argument = release()
        async with open_engine() as engine:
            found.append((await engine.start(code, argument, idempotency_key="k")).is_new)
            await engine.settle()  # the run has ended: its key stays taken
        del code, argument  # the next release registers another function under this name
    return found


async def test_a_key_outlives_a_new_optional_parameter(open_engine: OpenEngine) -> None:
    def before() -> tuple[Workflow[..., Any], Any]:
        @workflow(name="pays")
        async def pays(order: str) -> None: ...

        return pays, "o1"

    def after() -> tuple[Workflow[..., Any], Any]:
        @workflow(name="pays")
        async def pays(order: str, currency: str = "EUR", tags: list[str] | None = None) -> None: ...

        return pays, "o1"

    assert await released(open_engine, before, after, before) == [True, False, False]


@pytest.mark.parametrize("kind", ["model", "dict for a model", "dataclass", "named tuple", "list of models"])
async def test_a_key_outlives_a_new_optional_field(open_engine: OpenEngine, kind: str) -> None:
    class OldLine(BaseModel):
        price: Decimal

    class NewLine(OldLine):
        note: str = ""

    class OldOrder(BaseModel):
        id: str
        lines: list[OldLine]

    class NewOrder(OldOrder):
        lines: list[NewLine]  # type: ignore[assignment]
        at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @dataclasses.dataclass
    class OldData:
        id: str

    @dataclasses.dataclass
    class NewData(OldData):
        tags: list[str] = dataclasses.field(default_factory=list)
        colour: str = "red"

    class OldPair(NamedTuple):
        id: str

    class NewPair(NamedTuple):
        id: str
        colour: str = "red"

    old, new = {
        "model": (
            OldOrder(id="1", lines=[OldLine(price=Decimal(2))]),
            NewOrder(id="1", lines=[NewLine(price=Decimal(2))]),
        ),
        "dict for a model": ({"id": "1", "lines": [{"price": 2}]}, {"id": "1", "lines": [{"price": 2}]}),
        "dataclass": (OldData("1"), NewData("1")),
        "named tuple": (OldPair("1"), NewPair("1")),
        "list of models": ([OldLine(price=Decimal(2))], [NewLine(price=Decimal(2))]),
    }[kind]  # fmt: skip
    types = {"dict for a model": (OldOrder, NewOrder), "list of models": (list[OldLine], list[NewLine])}

    def release(value: Any, annotation: Any) -> Callable[[], tuple[Workflow[..., Any], Any]]:
        async def pays(order: Any) -> None: ...

        pays.__annotations__["order"] = annotation
        return lambda: (workflow(name="pays")(pays), value)

    before, after = types.get(kind, (type(old), type(new)))
    assert await released(open_engine, release(old, before), release(new, after)) == [True, False]


async def test_a_key_outlives_a_new_rule_that_changes_values(open_engine: OpenEngine) -> None:
    class Old(BaseModel):
        price: str

    class New(BaseModel):
        price: Decimal

    def release(kind: type) -> Callable[[], tuple[Workflow[..., Any], Any]]:
        async def pays(order: Any) -> None: ...

        pays.__annotations__["order"] = kind
        return lambda: (workflow(name="pays")(pays), {"price": "2.50"})

    assert await released(open_engine, release(Old), release(New)) == [True, False]


async def test_a_conflict_names_the_difference_as_it_was_sent(open_engine: OpenEngine) -> None:
    @workflow
    async def books(flights: list[dict[str, Any]], seats: int = 1, *more: str, note: str = "", **rest: Any) -> None: ...

    @workflow
    async def other(flights: list[dict[str, Any]]) -> None: ...

    async with open_engine() as engine:
        run = await engine.start(books, [{"no": "LH1"}], 2, "x", extra=1, idempotency_key="k")
        await run.return_value()
        same = await engine.start(books, [{"no": "LH1"}], 2, "x", extra=1, idempotency_key="k", attributes={"a": "b"})
        assert (same.id, same.is_new) == (run.id, False)
        lh1 = [{"no": "LH1"}]
        assert await conflict(engine, books, [{"no": "LH2"}], 2, "x", extra=1) == (
            "input.flights[0].no was 'LH1', and is now 'LH2'"
        )
        assert await conflict(engine, books, [*lh1, *lh1], 2, "x", extra=1) == (
            "input.flights[1] was missing, and is now {'no': 'LH1'}"
        )
        assert await conflict(engine, books, lh1, 2, extra=1) == "input.more was ['x'], and is now missing"
        assert await conflict(engine, books, lh1, 2, "x", extra=1, note="") == "input.note was missing, and is now ''"
        assert await conflict(engine, books, lh1, 2, "x", extra=1.0) == "input.extra was 1, and is now 1.0"
        assert await conflict(engine, books, lh1, 2, "x", extra=True) == "input.extra was 1, and is now True"
        assert await conflict(engine, books, lh1, "2", "x", extra=1) == "input.seats was 2, and is now '2'"
        assert await conflict(engine, other, lh1) == "workflow was 'books', and is now 'other'"


async def test_positional_and_named_arguments_are_the_same_call(open_engine: OpenEngine) -> None:
    @workflow
    async def pays(order: str, cents: int = 5) -> None: ...

    async with open_engine() as engine:
        first = await engine.start(pays, "o1", 7, idempotency_key="k")
        assert (await engine.start(pays, "o1", cents=7, idempotency_key="k")).id == first.id
        assert (await engine.start(pays, cents=7, order="o1", idempotency_key="k")).id == first.id


async def test_common_values_are_compared_by_their_text(open_engine: OpenEngine) -> None:
    class Colour(Enum):
        RED = "red"

    @workflow
    async def takes(value: Any = None, typed: set[UUID] | None = None, colour: Colour = Colour.RED) -> None: ...

    values = [date(2026, 1, 2), Decimal("2.50"), UUID(int=1), b"\xff", (1, 2), {"a", "b"}, "text"]
    async with open_engine() as engine:
        for n, value in enumerate(values):
            run = await engine.start(takes, value, {UUID(int=2), UUID(int=1)}, Colour.RED, idempotency_key=f"k{n}")
            again = await engine.start(takes, value, {UUID(int=1), UUID(int=2)}, Colour.RED, idempotency_key=f"k{n}")
            assert again.id == run.id
            with pytest.raises(IdempotencyConflictError, match=r"input\.value was"):
                await engine.start(takes, "other", {UUID(int=1), UUID(int=2)}, idempotency_key=f"k{n}")


async def test_numbers_that_json_has_not_are_compared_too(open_engine: OpenEngine) -> None:
    @workflow
    async def measures(value: Any) -> Any:
        return await create_hook(token="more")

    async with open_engine() as engine:
        run = await engine.start(measures, [float("nan"), float("inf")], idempotency_key="k")
        assert not (await engine.start(measures, [float("nan"), float("inf")], idempotency_key="k")).is_new
        assert "inf" in await conflict(engine, measures, [float("nan"), float("-inf")])
        await engine.settle()
        await engine.resume_hook("more", float("nan"), resume_id="r")
        assert str(await run.return_value()) == "nan"
        await engine.resume_hook("more", float("nan"), resume_id="r")
        with pytest.raises(IdempotencyConflictError):
            await engine.resume_hook("more", float("inf"), resume_id="r")


async def test_what_was_sent_is_kept_within_a_limit(open_engine: OpenEngine) -> None:
    class Page(BaseModel):
        text: str
        size: int = 0

    @workflow
    async def prints(pages: list[Page], copies: int = 1) -> None: ...

    def book(end: str) -> list[dict[str, Any]]:
        return [{"text": "short"}, {"text": "x" * 300_000 + end}]

    async with open_engine() as engine:
        run = await engine.start(prints, book("1"), idempotency_key="k")
        assert (await engine.start(prints, book("1"), idempotency_key="k")).id == run.id
        created = (await run.events())[0].data
        assert len(repr(created["sent"])) < MAX_SENT
        assert await conflict(engine, prints, book("2")) == (
            "input.pages[1].text was another value (one of the two is too long to show)"
        )
        assert await conflict(engine, prints, [{"text": "long"}, *book("1")[1:]]) == (
            "input.pages[0].text was 'short', and is now 'long'"
        )
        plain = await engine.start(prints, [], 2, idempotency_key="plain")
        assert "sent" not in (await plain.events())[0].data  # it is the input, which the log has


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False).map(lambda number: number + 0.0)
    | st.text(max_size=5),
    lambda items: st.lists(items, max_size=4) | st.dictionaries(st.text(max_size=3), items, max_size=4),
)


@given(JSON, JSON, st.sampled_from([10, 300, MAX_SENT]))
def test_json_values_differ_exactly_if_their_texts_do(first: Any, second: Any, most: int) -> None:
    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True)

    same = text(first) == text(second)
    assert (difference(first, second, "") is None) == same
    assert (difference(abridged(first, most), abridged(second, most), "") is None) == same


async def test_a_start_whose_first_answer_was_lost_is_no_conflict(open_engine: OpenEngine) -> None:
    @workflow
    async def pays(order: str, cents: int = 5) -> None: ...

    async with open_engine() as engine:
        await engine.start(pays, "o1", idempotency_key="k")
    async with open_engine() as engine:  # another process, with nothing in its cache
        assert (await engine.start(pays, "o1", idempotency_key="k")).is_new is False


@pytest.mark.parametrize("key", ["", 17])
async def test_an_empty_key_is_refused(open_engine: OpenEngine, key: Any) -> None:
    @workflow(name="idempotency: no key")
    async def pays(order: str) -> None: ...

    async with open_engine() as engine:
        with pytest.raises(InvalidArgumentError, match="idempotency_key must be a string that is not empty, or None"):
            await engine.start(pays, "17", idempotency_key=key)
        assert (await engine.runs()).records == []
