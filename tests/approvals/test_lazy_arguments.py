"""Lazy arguments, made only if their step isn't recorded."""

from __future__ import annotations

from typing import Annotated

import pytest

from approvals_bot import RunFailedError, create_hook, step, workflow
from approvals_bot.approvals.delivery import LAZY, LazyArgumentError, lazily
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.rules import rules_of
from approvals_bot.testing.fixtures import OpenEngine

FILE = {
    "workflow": {"id": "pay", "request": ["*"]},
    "fields": {"sum": "integer"},
    "stage": [{"id": "a", "from": ["@a"]}],
}


@step
async def echo(text: Annotated[str, LAZY]) -> str:
    return text


@pytest.mark.drifts  # it counts what a replay does
async def test_a_lazy_argument_is_made_once_and_not_at_replays(
    open_engine: OpenEngine,
) -> None:
    made: list[str] = []

    @workflow
    async def asks_three_times() -> list[str]:
        def make(text: str) -> str:
            made.append(text)
            return text

        said = [await echo(lazily(lambda text=text: make(text))) for text in ("a", "b")]  # type: ignore[misc]
        said.append(await create_hook("the hook"))
        return [*said, await echo("plain")]

    async with open_engine() as engine:
        run = await engine.start(asks_three_times)
        await engine.settle()
        await engine.resume_hook("the hook", "c")
        assert await run.return_value() == ["a", "b", "c", "plain"]
    assert made == ["a", "b"]


async def test_an_error_in_a_lazy_argument_says_why(open_engine: OpenEngine) -> None:
    @workflow
    async def fails() -> str:
        def make() -> str:
            raise ValueError("no such thing")

        try:
            return await echo(lazily(make))
        except LazyArgumentError as failure:
            raise failure.cause from None

    async with open_engine() as engine:
        run = await engine.start(fails)
        with pytest.raises(RunFailedError, match="no such thing"):
            await run.return_value()


def test_rules_are_compiled_once_per_definition() -> None:
    first, second = Definition.model_validate(FILE), Definition.model_validate(FILE)
    assert rules_of(first) is rules_of(first)
    assert rules_of(first).digest == rules_of(second).digest
    assert rules_of(first).condition("sum > 3") is rules_of(first).condition("sum > 3")
    assert rules_of(first).ruling({"sum": 1}) is rules_of(first).ruling({"sum": 1})
