"""The authors' guide's examples of `request_approval`, and the sample, exactly as printed."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.durable.engine import Run
from approvals_bot.service.python_workflows import PACKAGE
from approvals_bot.service.read import request_of
from tests.support.guides import example_with, loaded

ROOT = Path(__file__).parents[2]
ANN, BO, CY, DI, CFO = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di", "cfo"))


def as_module(name: str, text: str) -> Iterator[Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, name, "exec"), module.__dict__)  # noqa: S102  # our own docs and samples
    yield module
    del sys.modules[name]


@pytest.fixture
def agents() -> Iterator[Any]:
    with loaded(example_with("async def book_for(")) as module:
        yield module


@pytest.fixture
def expenses() -> Iterator[Any]:
    with loaded(example_with("async def reimburse(")) as module:
        yield module


@pytest.fixture
def releases() -> Iterator[Any]:
    with loaded(example_with("async def release(version")) as module:
        yield module


@pytest.fixture
def publishing() -> Iterator[Any]:
    yield from as_module(f"{PACKAGE}.publishing", (ROOT / "workflows" / "publishing.py").read_text())


async def vote(office: Any, run: Run[Any], by: str, choice: str = "approve", **more: Any) -> str:
    view = request_of(await office.engine.record(run.id))
    assert view is not None
    hook = await office.engine.find_hook(view.hook_id)
    message = {"kind": "vote", "by": by, "choice": choice} | more
    answer = await office.engine.resume_webhook(hook.token, WebhookRequest.of_json(message), timeout=20)
    await office.settle()
    return str(json.loads(bytes(answer.body))["verdict"])


@pytest.mark.parametrize(
    ("choice", "more", "said"),
    [
        ("approve", {}, "booked LH1 for 300.00"),
        ("edit", {"fields": {"price": "250"}}, "booked LH1 for 250.00"),
        ("reject", {"comment": "too early"}, "No: too early"),
        ("answer", {"comment": "take the train"}, "They say: take the train"),
    ],
)
async def test_an_agents_tool_call(office: Any, agents: Any, choice: str, more: Any, said: str) -> None:
    async with office.open():
        run = await office.engine.start(agents.book_for, ANN, "LH1", Decimal(300), "<!channel> it is cheap")
        await office.settle()
        assert await vote(office, run, ANN, choice, **more) in ("decided", "counted")
        assert await run.return_value() == said


async def test_an_agents_request_expires(office: Any, agents: Any) -> None:
    async with office.open():
        run = await office.engine.start(agents.book_for, ANN, "LH1", Decimal(300), "")
        await office.settle()
        await office.clock.advance("15m")
        assert await run.return_value() == "No: nobody answered in time"


async def test_an_expense_has_stages_by_amount(office: Any, expenses: Any) -> None:
    async with office.open():
        small = await office.engine.start(expenses.reimburse, 50, "pens", CY)
        large = await office.engine.start(expenses.reimburse, 5_000, "chairs", CY)
        await office.settle()
        assert await vote(office, small, ANN) == "decided"
        assert await small.return_value() == f"paid, said {ANN}"
        assert await vote(office, large, ANN) == "counted"
        assert await vote(office, large, CFO) == "invalid", "finance always comments"
        assert await vote(office, large, CFO, "changes", comment="fewer") == "counted"
        assert await large.return_value() == "please change: fewer"


async def test_a_release_with_a_form_for_its_approvers(office: Any, releases: Any) -> None:
    async with office.open():
        run = await office.engine.start(releases.release, "2.1")
        late = await office.engine.start(releases.release, "2.2")
        await office.settle()
        assert await vote(office, run, ANN) == "invalid"
        assert await vote(office, run, ANN, answers={"window": "now"}) == "counted"
        assert await vote(office, run, BO, answers={"window": "tonight"}) == "decided"
        assert await run.return_value() == "2.1 goes out tonight"
        await office.clock.advance("4h")
        assert await late.return_value() == "nobody had time"


async def test_the_sample_goes_back_and_forth(office: Any, publishing: Any) -> None:
    async with office.open():
        run = await office.engine.start(publishing.publish_text, {"headline": "We ship!", "text": "Today."})
        await office.settle()
        assert await vote(office, run, ANN, "changes", comment="Say what.") == "counted"
        view = request_of(await office.engine.record(run.id))
        assert view is not None
        assert (view.id, view.fields["text"]) == (f"{run.id}.2", "Today.\n\nTo change: Say what.")
        assert await vote(office, run, BO, "edit", fields={"headline": "We ship 2.1!"}) == "decided"
        assert await run.return_value() == "online: We ship 2.1!"
