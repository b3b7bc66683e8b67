"""Lists by ranges of attributes: the right runs, in the order of the values, a page at a time, on both stores."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from approvals_bot.durable.core.attributes import Attribute, Comparison, conditions_of
from approvals_bot.durable.core.events import NewEvent
from approvals_bot.durable.store.encoding import value_key
from approvals_bot.durable.store.protocol import Append, Filter, Lease, OpenStore, Parent, RunRecord, Status
from approvals_bot.errors import InvalidArgumentError, LimitExceededError
from tests.support.new_runs import T0, new_run

NUMBERS: list[Attribute] = [
    0, 1, -1, 7, 10, 99, 100, Decimal("100.00"), 100.5, 101, 1000, 10**20, 10**20 + 1, -(10**20), -100, -99.5,
    0.1 + 0.2, Decimal("0.30"), 0.3, 1e-300, -1e-300, 1.7976931348623157e308, Decimal("-0.000"), -0.0,
    Decimal("1E+3"), 10**255,
]  # fmt: skip
TEXTS: list[Attribute] = [
    "",
    "a",
    "A",
    "ann",
    "ann@acme.eu",
    "b",
    "é",
    "z\\",
    "z]",
    "Z",
    "\U0001f600",
    "\uffff",
    "100",
    "2026-12-01",
]
STATUS: tuple[Status, ...] = ("pending", "running", "completed")


def as_decimal(value: Any) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def kind_of(value: Any) -> str:
    return "text" if isinstance(value, str) else "yes or no" if isinstance(value, bool) else "number"


def comparable(value: Any) -> Any:
    return value if kind_of(value) != "number" else as_decimal(value)


def test_keys_sort_as_their_values_do() -> None:
    for values in (NUMBERS, TEXTS):
        for one in values:
            for other in values:
                for compare in (operator.lt, operator.eq):
                    expected = compare(comparable(one), comparable(other))
                    assert compare(value_key(one).encode(), value_key(other).encode()) == expected, (one, other)


def test_random_numbers_sort_as_decimals() -> None:
    dice = random.Random(16)  # noqa: S311
    for _ in range(20_000):
        one, other = (
            Decimal(dice.randrange(-(10 ** dice.randrange(1, 30)), 10 ** dice.randrange(1, 30))).scaleb(
                dice.randrange(-40, 40)
            )
            for _ in range(2)
        )
        assert (value_key(one) < value_key(other), value_key(one) == value_key(other)) == (one < other, one == other)


SIGNS = {"eq": operator.eq, "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def holds(condition: Comparison, value: Any) -> bool:
    if condition.operator == "in":
        return any(holds(Comparison("eq", (one,)), value) for one in condition.values)
    (wanted,) = condition.values
    return kind_of(value) == kind_of(wanted) and bool(SIGNS[condition.operator](comparable(value), comparable(wanted)))


async def fill(store: OpenStore) -> list[RunRecord]:
    """Store some runs, of two workflows and in three statuses, with values of all kinds."""
    dice = random.Random(4)  # noqa: S311
    for number in range(60):
        given: dict[str, Any] = {"amount": dice.choice(NUMBERS + TEXTS[:3] + [True])}
        if dice.random() < 0.8:
            given["team"] = dice.choice(["red", "blue", "green"])
        if dice.random() < 0.8:
            given["name"] = dice.choice(TEXTS)
        at = T0 + timedelta(seconds=number // 3)
        run = new_run(f"r{dice.randrange(1000):03}{number:02}", f"w{number % 2}", "w", None, {}, attributes=given)
        lease = Lease("me", at, at + timedelta(minutes=1)) if number % 3 else None
        created = await store.create(run._replace(row=run.row._replace(created_at=at)), at, lease)
        if number % 3 and created.claimed is not None:
            ends = [NewEvent("run_completed", {"result": None})] if number % 3 == 2 else []
            await store.append(Append(created.run_id, 1, 1, [NewEvent("run_started", {}), *ends], at, release=True))
    rows, _ = await store.runs(Filter(limit=100))
    assert len(rows) == 60
    return rows


def filters() -> Iterator[dict[str, Any]]:
    dice = random.Random(5)  # noqa: S311
    for _ in range(60):
        pool = NUMBERS if dice.random() < 0.7 else TEXTS
        low, high = dice.choice(pool), dice.choice(pool)
        amount: Any = dice.choice(
            [{"gte": low}, {"gt": low}, {"lt": high}, {"lte": high}, {"gte": low, "lt": high}, {"gt": low, "lte": high},
             low, [low, high, True], {"gte": low, "in": [low, high]}]
        )  # fmt: skip
        asked: dict[str, Any] = {"amount": amount}
        if dice.random() < 0.3:
            asked["name"] = {dice.choice(["gte", "lt"]): dice.choice(TEXTS)}
        if dice.random() < 0.3:
            asked = {"team": dice.choice(["red", ["red", "blue"]])} | asked
        yield {
            "attributes": asked,
            "workflow": dice.choice([None, None, "w0"]),
            "status": dice.choice([None, None, *STATUS]),
            "oldest_first": dice.random() < 0.5,
        }


async def test_every_page_is_what_a_filter_and_a_sort_give(store: OpenStore) -> None:
    rows, found_any = await fill(store), 0
    for asked in filters():
        conditions = conditions_of(asked["attributes"])
        matching = [
            row
            for row in rows
            if all(
                name in row.attributes and holds(c, row.attributes[name])
                for name in conditions
                for c in conditions[name]
            )
            and asked["workflow"] in (None, row.workflow)
            and asked["status"] in (None, row.status)
        ]
        ranged = next((name for name, each in conditions.items() if any(c.operator[0] in "gl" for c in each)), None)

        def place(row: RunRecord, ranged: str | None = ranged) -> Any:
            return (comparable(row.attributes[ranged]) if ranged else row.created_at, row.id)

        expected = [row.id for row in sorted(matching, key=place, reverse=not asked["oldest_first"])]
        seen, cursor = list[str](), None
        while True:
            page, cursor = await store.runs(Filter(**asked, cursor=cursor, limit=3))
            assert len(page) <= 3
            seen += [row.id for row in page]
            if cursor is None:
                break
        assert seen == expected, asked
        assert await store.count(Filter(**asked), 100) == len(expected)
        found_any += bool(expected)
    assert found_any > 20


async def test_pages_stay_as_they_are_while_runs_are_added(store: OpenStore) -> None:
    for number in range(6):
        await store.create(new_run(f"r{number}", "w", "w", None, {}, attributes={"amount": number * 10}), T0)
    asked: dict[str, Any] = {"attributes": {"amount": {"gte": 10}}, "limit": 2}
    first, cursor = await store.runs(Filter(**asked))
    for number, amount in enumerate((45, 35, 100, 5)):  # before the cursor, after it, above all, below all
        await store.create(new_run(f"new{number}", "w", "w", None, {}, attributes={"amount": amount}), T0)
    second, cursor = await store.runs(Filter(**asked, cursor=cursor))
    third, _ = await store.runs(Filter(**asked, cursor=cursor))
    assert [[row.attributes["amount"] for row in page] for page in (first, second, third)] == [
        [50, 40],
        [35, 30],
        [20, 10],
    ]


@pytest.mark.parametrize("cursor", ["1.r", "v.", "vÿ.r", "x", "v1", "v=.r0", "vAA.r0"])
async def test_another_list_gave_this_cursor(store: OpenStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await store.runs(Filter(attributes={"amount": {"gte": 1}}, cursor=cursor))


async def test_a_cursor_by_value_is_none_by_time(store: OpenStore) -> None:
    for number in range(2):
        await store.create(new_run(f"r{number}", "w", "w", None, {}, attributes={"amount": number}), T0)
    _, cursor = await store.runs(Filter(attributes={"amount": {"gte": 0}}, limit=1))
    assert cursor is not None
    with pytest.raises(ValueError, match="cursor"):
        await store.runs(Filter(cursor=cursor))


REFUSED: dict[str, tuple[Any, type[Exception]]] = {
    "an unknown operator": ({"like": "x"}, InvalidArgumentError),
    "no operator": ({}, InvalidArgumentError),
    "a range of booleans": ({"gt": True}, InvalidArgumentError),
    "nothing": ({"eq": None}, InvalidArgumentError),
    "a list in a range": ({"gt": [1]}, InvalidArgumentError),
    "infinity": ({"lt": float("inf")}, InvalidArgumentError),
    "a long text": ({"lt": "x" * 257}, LimitExceededError),
    "many values": ([*range(21)], LimitExceededError),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_filter_that_can_not_be_is_refused(what: str) -> None:
    wanted, kind = REFUSED[what]
    with pytest.raises(kind, match="amount"):
        conditions_of({"amount": wanted})


def test_a_projection_has_no_ranges() -> None:
    with pytest.raises(InvalidArgumentError, match="projections"):
        conditions_of({"$waiting_for": {"gte": "a"}})
    with pytest.raises(LimitExceededError):
        conditions_of({f"a{number}": 1 for number in range(11)})


async def test_a_list_has_whole_rows_of_children(store: OpenStore, damage: Callable[[str], None]) -> None:
    await store.create(new_run("r", "w", "w", None, {}, attributes={"amount": 1}), T0)
    damage("UPDATE runs SET parent = 'p', parent_number = 1, on_parent_close = 'cancel'")
    for which in (Filter(), Filter(attributes={"amount": {"gte": 1}})):
        ((row,), _) = await store.runs(which)
        assert row.parent == Parent("p", 1, "cancel")
