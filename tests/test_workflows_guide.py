"""Every example of the authors' guide runs."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from approvals_bot import WebhookRequest, get_run
from approvals_bot.durable.engine import Engine
from approvals_bot.testing import FakeClock, after, play

GUIDE = Path(__file__).parent.parent / "docs" / "workflows.md"


@pytest.fixture(scope="module")
def examples() -> Iterator[list[types.ModuleType]]:
    """Each block of the guide as a module of its own, as a reader would paste it into a file."""
    made = []
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)):
        module = types.ModuleType(f"guide_{number}")
        sys.modules[module.__name__] = module
        exec(compile(block, f"docs/workflows.md, block {number + 1}", "exec"), module.__dict__)  # noqa: S102  # our docs
        made.append(module)
    yield made
    for module in made:
        del sys.modules[module.__name__]


def having(examples: list[types.ModuleType], name: str) -> types.ModuleType:
    (found,) = [module for module in examples if hasattr(module, name)]
    return found


async def test_steps(examples: list[types.ModuleType]) -> None:
    guide = having(examples, "pay")
    assert (await play(guide.pay, "a", 5)).result.startswith("receipt a")
    refused = await play(guide.pay, "a", 200_000)
    assert "more than this card may pay" in str(refused.error)
    assert refused.log[0].at == refused.ended_at, "a fatal error is not tried again"
    later = await play(guide.pay, "busy", 5)
    assert (later.ended_at - later.log[0].at).total_seconds() == 90, "three retries, each half a minute later"


async def test_waiting_for_somebody(examples: list[types.ModuleType]) -> None:
    guide = having(examples, "book_flight")
    booked = await play(guide.book_flight, "LH1", "call-1", answers={"call-1": {"approved": True}})
    assert booked.result == "booked LH1"
    rejected = await play(guide.book_flight, "LH1", "call-2", answers={"call-2": {"approved": False}})
    assert rejected.result == "rejected: no reason given"
    confirmed = await play(having(examples, "confirm").confirm, "ann@acme.eu", answers=[{"confirmed": True}])
    assert confirmed.result is True


async def test_strangers_cannot_fail_the_examples(examples: list[types.ModuleType]) -> None:
    junk = [WebhookRequest(body=body) for body in (b"{", b"[]", b"{}", b'{"confirmed": "yes"}')]
    confirmed = await play(having(examples, "confirm").confirm, "ann@acme.eu", answers=[*junk, {"confirmed": False}])
    assert confirmed.result is False
    form = WebhookRequest("POST", "", [("content-type", "application/x-www-form-urlencoded")], b"colour=red")
    assert (await play(having(examples, "publish_url").order, answers=[*junk, form])).result == "red for nobody"


async def test_time(examples: list[types.ModuleType]) -> None:
    guide = having(examples, "nudge")
    answered = await play(guide.nudge, "ann", answers=[after("2 days", "fine")])
    assert answered.result == "fine"
    assert len(answered.calls(guide.remind)) in (1, 2)
    silent = await play(guide.nudge, "bo")
    assert silent.result == "no answer"
    assert (silent.ended_at - silent.log[0].at).days == 10


async def test_versions(examples: list[types.ModuleType]) -> None:
    guide = having(examples, "greet_as_before")
    assert (await play(guide.greet_as_before, "Ann")).result == "Hello Ann"
    assert (await play(guide.greet, "Ann")).result == "Good day, Ann"


async def test_testing_and_running(examples: list[types.ModuleType], tmp_path: Path) -> None:
    await having(examples, "test_lunch").test_lunch()
    assert await having(examples, "main").main(f"sqlite:///{tmp_path}/runs.db") == 42


async def test_what_fails_a_run_and_what_stalls_it(examples: list[types.ModuleType], tmp_path: Path) -> None:
    share = having(examples, "share").share
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db", clock=FakeClock()) as engine:
        runs = [await engine.start(share, *given) for given in (("10", 4), ("10", 0), ("ten", 2))]
        await engine.settle()
        assert [await run.status() for run in runs] == ["completed", "failed", "stalled"]


async def test_a_hook_from_the_start(examples: list[types.ModuleType], tmp_path: Path) -> None:
    guide = having(examples, "on_push")
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db"):
        first = await guide.on_push(17, guide.Push(commit="a"), "delivery 1")
        assert await guide.on_push(17, guide.Push(commit="b", is_last=True), "delivery 2") == first
        assert await get_run(first).return_value() == ["checked out a", "checked out b"]
        assert await guide.on_push(17, guide.Push(commit="a"), "delivery 1") == first


async def test_a_run_that_never_ends(examples: list[types.ModuleType], tmp_path: Path) -> None:
    guide = having(examples, "cash_desk")
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db") as engine:
        run = await engine.start(guide.cash_desk, "north", per_run=2)
        await engine.settle()
        for n in range(5):
            await engine.resume_hook("desk-north", f"order {n}")
        await engine.resume_hook("desk-north", "close")
        assert await run.return_value() == 5
        assert await run.status() == "continued"


async def test_finding_runs_by_attributes(examples: list[types.ModuleType], tmp_path: Path) -> None:
    guide = having(examples, "invoice")
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db", clock=FakeClock()) as engine:
        runs = [
            await engine.start(guide.invoice, Decimal(amount), date(2026, 12, day))
            for day, amount in enumerate(("999.99", "1000.00", "4000"), 1)
        ]
        await engine.settle()
        assert await guide.large(engine) == [runs[2].id, runs[1].id]
        await engine.resume_hook("checked-4000", None)
        assert await runs[2].return_value() == "paid"
        assert await guide.large(engine) == [runs[1].id]
