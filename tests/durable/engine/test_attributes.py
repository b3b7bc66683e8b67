"""Attributes of runs: what a body sets is durable with its decision, typed, limited, and the same on every replay."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from approvals_bot import (
    ApprovalsBotError,
    InvalidArgumentError,
    LimitExceededError,
    NotInWorkflowError,
    RunFailedError,
    create_hook,
    get_workflow_metadata,
    run_child,
    set_attributes,
    step,
    workflow,
)
from approvals_bot.durable.engine import Engine
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

VALUES: dict[str, Any] = {
    "text": "red",
    "empty": "",
    "whole": 420,
    "large": 10**20,
    "negative": -7,
    "float": 0.1 + 0.2,
    "money": Decimal("100.00"),
    "yes": True,
    "no": False,
}
"""What comes back as it was given."""


@workflow
async def attributes_of_all_types() -> dict[str, Any]:
    set_attributes(VALUES)
    await create_hook("attributes/types")
    return dict(get_workflow_metadata().attributes)


async def attributes_of(engine: Engine, run_id: str) -> dict[str, Any]:
    record = await engine.record(run_id)
    assert record is not None
    return record.attributes


async def found(engine: Engine, **asked: Any) -> list[str]:
    return [run.id for run in (await engine.runs(attributes=asked)).records]


def exactly(values: dict[str, Any]) -> dict[str, tuple[type, str]]:
    return {name: (type(value), repr(value)) for name, value in values.items()}


async def test_each_type_comes_back_with_its_value_and_type(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        run = await engine.start(attributes_of_all_types)
        await engine.settle()
        assert exactly(await attributes_of(engine, run.id)) == exactly(VALUES)
        for name, value in VALUES.items():
            assert await found(engine, **{name: value}) == [run.id], name
    async with open_engine() as engine:  # replays in another process
        await engine.resume_hook("attributes/types", None)
        assert exactly(await run_again(engine, run.id)) == exactly(VALUES)
        assert exactly(await attributes_of(engine, run.id)) == exactly(VALUES)


async def run_again(engine: Engine, run_id: str) -> Any:
    return await engine.get_run(run_id).return_value()


async def test_a_start_takes_the_same_types(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        given = VALUES | {"due": date(2026, 12, 1), "gone": None}
        run = await engine.start(attributes_at_the_start, attributes=given)
        kept = VALUES | {"due": "2026-12-01"}
        assert exactly(await run.return_value()) == exactly(kept | {"stage": "done"})
        assert exactly(await attributes_of(engine, run.id)) == exactly(kept | {"stage": "done"})


@workflow
async def attributes_at_the_start() -> dict[str, Any]:
    set_attributes(stage="done")
    return dict(get_workflow_metadata().attributes)


async def test_numbers_are_equal_as_decimals_and_never_to_texts(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        ids = {}
        given: dict[str, Any] = {"int": 100, "decimal": Decimal("100.00"), "float": 100.0, "text": "100", "yes": True}
        for name, value in given.items():
            ids[name] = (await engine.start(attributes_at_the_start, attributes={"amount": value})).id
        numbers = [ids["float"], ids["decimal"], ids["int"]]
        equals: list[Any] = [100, 100.0, Decimal("1E+2")]
        for equal in equals:
            assert sorted(await found(engine, amount=equal)) == sorted(numbers)
        assert await found(engine, amount="100") == [ids["text"]]
        assert await found(engine, amount=True) == [ids["yes"]]
        assert await found(engine, amount=1) == []


async def test_dates_are_iso_texts(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        at = datetime(2026, 11, 29, 9, 30, 15, 999_999, tzinfo=timezone(timedelta(hours=1)))
        run = await engine.start(attributes_at_the_start, attributes={"at": at, "on": date(2026, 1, 2)})
        await run.return_value()
        kept = await attributes_of(engine, run.id)
        assert (kept["at"], kept["on"]) == ("2026-11-29T08:30:15Z", "2026-01-02")
        assert await found(engine, at=at) == await found(engine, at="2026-11-29T08:30:15Z") == [run.id]


# ── what a body changes ──


@workflow
async def attributes_in_stages() -> dict[str, Any]:
    set_attributes({"stage": "legal", "amount": 10})
    seen = await attributes_seen_by_a_step()
    await create_hook("attributes/stages")
    set_attributes(stage=None, amount=20)
    return seen | {"later": await attributes_seen_by_a_step()}


@step
async def attributes_seen_by_a_step() -> dict[str, Any]:
    return dict(get_workflow_metadata().attributes)


@pytest.mark.conformance(140)
async def test_a_body_adds_changes_and_removes_attributes(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(attributes_in_stages, attributes={"team": "red"})
        await engine.settle()
        assert await attributes_of(engine, run.id) == {"team": "red", "stage": "legal", "amount": 10}
        assert await found(engine, stage="legal", team="red") == [run.id]
        await engine.resume_hook("attributes/stages", None)
        first = {"team": "red", "stage": "legal", "amount": 10}
        assert await run.return_value() == first | {"later": {"team": "red", "amount": 20}}
        assert await attributes_of(engine, run.id) == {"team": "red", "amount": 20}
        assert await found(engine, stage="legal") == await found(engine, amount=10) == []
        assert await found(engine, amount=20, team="red") == [run.id]
        page = await engine.runs(status="completed", attributes={"amount": 20})
        assert [one.id for one in page.records] == [run.id], "its status is followed"
        log = await run.events()
        assert [event.data["attributes"] for event in log if event.type == "attributes_set"] == [
            {"stage": "legal", "amount": 10},
            {"stage": None, "amount": 20},
        ]


@workflow
async def attributes_and_an_error() -> None:
    set_attributes(at="the end")
    raise ValueError("no")


async def test_what_an_ending_body_set_is_kept(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(attributes_and_an_error)
        with pytest.raises(RunFailedError):
            await run.return_value()
        assert [event.type for event in await run.events()] == [
            "run_created", "run_started", "attributes_set", "run_failed",
        ]  # fmt: skip
        assert await found(engine, at="the end") == [run.id]


@workflow
async def attributes_and_a_bug() -> None:
    set_attributes(at="the bug")
    raise TypeError("no")


async def test_a_stalled_run_keeps_the_attributes_it_had(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(attributes_and_a_bug, attributes={"at": "the start"})
        await engine.settle()
        assert await run.status() == "stalled"
        assert await attributes_of(engine, run.id) == {"at": "the start"}


@workflow(name="attributes_drift")
async def attributes_drift() -> dict[str, Any]:
    set_attributes(amount=1)
    await create_hook("attributes/drift")
    return dict(get_workflow_metadata().attributes)


@pytest.mark.drifts
async def test_a_replay_takes_the_values_of_the_log(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_engine() as engine:
        run = await engine.start(attributes_drift)
        await engine.settle()

    async def other() -> dict[str, Any]:
        set_attributes(amount=2)
        await create_hook("attributes/drift")
        return dict(get_workflow_metadata().attributes)

    monkeypatch.setattr(attributes_drift, "function", other)
    async with open_engine() as engine:
        await engine.resume_hook("attributes/drift", None)
        assert await run_again(engine, run.id) == {"amount": 1}


async def test_code_that_sets_none_where_the_log_has_some_stalls(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine() as engine:
        run = await engine.start(attributes_drift)
        await engine.settle()

    async def other() -> dict[str, Any]:
        return {"got": await create_hook("attributes/drift")}

    monkeypatch.setattr(attributes_drift, "function", other)
    async with open_engine() as engine:
        await engine.resume_hook("attributes/drift", None)
        await engine.settle()
        record = await engine.record(run.id)
        assert record is not None
        assert (record.status, "attributes #1" in str(record.stalled)) == ("stalled", True)


async def test_a_reset_has_the_attributes_of_its_events(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(attributes_in_stages, attributes={"team": "red"})
        await engine.settle()
        before = len(await run.events())
        await engine.resume_hook("attributes/stages", None)
        await run.return_value()
        new = await engine.reset(run.id, to=before, drop_payloads=True)
        assert await attributes_of(engine, new.id) == {"team": "red", "stage": "legal", "amount": 10}
        assert await found(engine, stage="legal") == [new.id]


async def test_an_attempt_starts_with_the_first_attributes(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(attributes_and_an_error, attributes={"money": Decimal("1.50"), "at": "the start"})
        with pytest.raises(RunFailedError):
            await run.return_value()
        again = await engine.attempt(run.id)
        (created, *_) = await again.events()
        assert created.data["attributes"] == {"money": {"$": "Decimal", "v": "1.50"}, "at": "the start"}


# ── what is refused ──

WRONG: dict[str, tuple[dict[Any, Any], type[Exception], str]] = {
    "a reserved name": ({"$waiting_for": "ann"}, InvalidArgumentError, "reserved"),
    "a name that is no text": ({7: "x"}, InvalidArgumentError, "name must be a string"),
    "a long name": ({"n" * 257: "x"}, LimitExceededError, "name"),
    "a long text": ({"a": "x" * 257}, LimitExceededError, "length of attribute 'a'"),
    "a long number": ({"a": 10**256}, LimitExceededError, "length of attribute 'a'"),
    "a long Decimal": ({"a": Decimal("0." + "1" * 256)}, LimitExceededError, "length of attribute 'a'"),
    "a huge Decimal": ({"a": Decimal("1E+2000")}, LimitExceededError, "powers of ten"),
    "a list": ({"a": ["x"]}, InvalidArgumentError, "not list"),
    "infinity": ({"a": float("inf")}, InvalidArgumentError, "inf"),
    "no number": ({"a": Decimal("NaN")}, InvalidArgumentError, "NaN"),
    "a local time": ({"a": datetime(2026, 1, 1)}, InvalidArgumentError, "time zone"),  # noqa: DTZ001
    "too many": ({f"a{n}": n for n in range(65)}, LimitExceededError, "number of attributes"),
}


@workflow
async def attributes_that_are_refused(name: str) -> str:
    set_attributes(whole=True)
    try:
        set_attributes(WRONG[name][0])
    except ApprovalsBotError as error:
        return f"{type(error).__name__}: {error}"
    return "taken"


@pytest.mark.parametrize("name", WRONG)
async def test_what_can_not_be_kept_is_refused(open_engine: OpenEngine, name: str) -> None:
    given, kind, words = WRONG[name]
    async with open_engine() as engine:
        with pytest.raises(kind, match=words):
            await engine.start(attributes_at_the_start, attributes=given)
        run = await engine.start(attributes_that_are_refused, name)
        said = await run.return_value()
        assert said.startswith(kind.__name__), said
        assert words in said
        assert await attributes_of(engine, run.id) == {"whole": True}, "the others stay"


FOR_DI = {"requester": "di@acme.eu", "on_behalf_of": "bo@acme.eu", "opener": "app:ci", "team": "red"}


@workflow
async def attributes_of_a_child() -> dict[str, Any]:
    return dict(get_workflow_metadata().attributes)


@workflow
async def attributes_of_the_start_that_are_refused() -> tuple[list[str], dict[str, Any]]:
    refused = list[str]()
    for name in ("requester", "on_behalf_of", "opener"):
        for value in ("ann@acme.eu", None):
            try:
                set_attributes({name: value})
            except InvalidArgumentError:
                refused.append(name)
        try:
            await run_child(attributes_of_a_child, attributes={name: "ann@acme.eu"})
        except InvalidArgumentError:
            refused.append(name)
    return refused, await run_child(attributes_of_a_child, attributes={"team": "blue"})


async def test_a_body_cannot_say_for_whom_it_runs(open_engine: OpenEngine) -> None:
    """That decides who may approve what it asks for, and which keys reach it. Its children run for the same people."""
    async with open_engine() as engine:
        run = await engine.start(attributes_of_the_start_that_are_refused, attributes=FOR_DI)
        refused, of_child = await run.return_value()
        assert [refused.count(name) for name in ("requester", "on_behalf_of", "opener")] == [3, 3, 3]
        assert of_child == {"requester": "di@acme.eu", "on_behalf_of": "bo@acme.eu", "team": "blue"}
        assert await attributes_of(engine, run.id) == FOR_DI


def test_only_a_body_sets_attributes() -> None:
    with pytest.raises(NotInWorkflowError):
        set_attributes(a=1)


@step
async def attributes_set_in_a_step() -> str:
    try:
        set_attributes(a=1)
    except NotInWorkflowError:
        return "refused"
    return "taken"


@workflow
async def attributes_from_a_step() -> str:
    return await attributes_set_in_a_step()


async def test_a_step_sets_none(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        assert await (await engine.start(attributes_from_a_step)).return_value() == "refused"


@workflow
async def attributes_up_to_the_limit(several: int) -> int:
    for number in range(several):
        set_attributes({f"a{number}": number, "n" * 256: "x" * 256})
    return len(get_workflow_metadata().attributes)


async def test_the_limit_is_on_all_together(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        assert await (await engine.start(attributes_up_to_the_limit, 63)).return_value() == 64
        with pytest.raises(RunFailedError, match="number of attributes"):
            await (await engine.start(attributes_up_to_the_limit, 64)).return_value()


async def test_attributes_without_names_are_refused(open_engine: OpenEngine) -> None:
    untyped: Any = ["red"]
    async with open_engine() as engine:
        with pytest.raises(InvalidArgumentError, match=r"values by their names, .* not \['red'\]"):
            await engine.start(attributes_of_all_types, attributes=untyped)


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ({"limit": 0}, "limit must be a whole number, 1 or more, not 0"),
        ({"limit": "9"}, "limit must be a whole number, 1 or more, not '9'"),
        ({"status": "done"}, "'done' is no status of a run; one of: pending, running, completed"),
    ],
)
async def test_a_list_that_cannot_be_names_what_is_wrong(
    open_engine: OpenEngine, which: dict[str, Any], says: str
) -> None:
    async with open_engine() as engine:
        await engine.start(attributes_of_all_types)
        with pytest.raises(InvalidArgumentError, match=says):
            await engine.runs(**which)
