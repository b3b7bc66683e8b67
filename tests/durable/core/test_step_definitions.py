"""What may be a step or a workflow, what a step says about its attempts, and what is refused at import."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from approvals_bot import DefinitionError, FatalError, RetryableError, Step, WorkflowBugError, step, workflow
from approvals_bot.testing import History, play

HERE = __file__


def generator(n: int) -> Iterator[int]:
    yield n


async def async_generator(n: int) -> AsyncIterator[int]:
    yield n


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Bank:
    offset = 1

    def charge(self, amount: int) -> int:
        return amount + self.offset

    async def refund(self, amount: int) -> int:
        return amount - self.offset

    @classmethod
    def named(cls, name: str) -> str:
        return name

    @staticmethod
    def fee(amount: int) -> int:
        return amount // 10

    def __call__(self, amount: int) -> int:
        return amount


@step
def already(n: int) -> int:
    return n


@workflow(name="test_step_definitions started elsewhere")
async def started_elsewhere() -> None: ...


REFUSED: list[tuple[Any, str]] = [
    (Bank.charge, r"charge\(\) is a method, and its `self` isn't in the log"),
    (Bank.refund, r"refund\(\) is a method"),
    (Bank.__dict__["named"], r"named\(\) is a class method"),
    (generator, r"generator\(\) is a generator"),
    (async_generator, r"async_generator\(\) is a generator"),
    (wrapped(generator), r"generator\(\) is a generator"),
    (functools.partial(Bank.fee, 3), "a partial has no annotations"),
    (Bank, "Bank is a class"),
    (print, r"print\(\) is built in"),
    (Bank(), "Bank is an object that can be called"),
    (already, "already is a step already"),
    (started_elsewhere, "test_step_definitions started elsewhere is a workflow"),
    (property(lambda _: 1), "a property is no function"),
    (17, "17 is not a function"),
]


@pytest.mark.parametrize("decorator", [step, step(retries=1), step(name="named"), workflow], ids="abcd")
@pytest.mark.parametrize(("given", "why"), REFUSED, ids=[why[:12] for _, why in REFUSED])
def test_what_can_not_be_a_step_or_workflow_is_refused(decorator: Any, given: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why) as caught:
        decorator(given)
    assert str(caught.value).startswith(f"{HERE}:{caught.value.line}: ")


def test_a_refusal_names_the_line_of_the_function() -> None:
    with pytest.raises(DefinitionError) as caught:
        step(generator)
    assert (caught.value.file, caught.value.line) == (HERE, generator.__code__.co_firstlineno)


def test_a_method_is_refused_in_its_class() -> None:
    with pytest.raises(DefinitionError, match=r"pay\(\) is a method"):

        class Till:
            @step
            async def pay(self, amount: int) -> int:
                return amount

    with pytest.raises(DefinitionError, match=r"pay\(\) is a method"):

        class Shop:
            @workflow
            async def pay(self, amount: int) -> int:
                return amount


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(DefinitionError, match="a lambda has no name"):
        step(lambda n: n)
    assert step(name="same")(lambda n: n).name == "same"


def test_a_workflow_is_an_async_def() -> None:
    with pytest.raises(DefinitionError, match=r"fee\(\) needs to be an `async def`"):
        workflow(Bank.fee)  # type: ignore[arg-type]


class Steps:
    """Static methods are functions, whichever decorator comes first."""

    @staticmethod
    @step
    def inside(amount: int) -> int:
        return amount + 1

    @step
    @staticmethod
    def outside(amount: int) -> int:
        return amount + 2


bank = Bank()
ACCEPTED: list[tuple[Step[..., Any], int]] = [
    (step(bank.charge), 8),
    (step(bank.refund), 6),
    (step(Bank.fee), 0),
    (step(Bank.__dict__["fee"]), 0),
    (Steps.inside, 8),
    (Steps.outside, 9),
    (Steps().outside, 9),
    (step(wrapped(Bank.fee)), 0),
    (step(functools.cache(Bank.fee)), 0),
]


@pytest.mark.parametrize(("made", "result"), ACCEPTED)
async def test_what_can_be_a_step_runs_as_one(made: Step[..., Any], result: int) -> None:
    @workflow
    async def calls_it() -> int:
        return int(await made(7))

    assert (await play(calls_it)).result == result


# ── settings ──


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"retries": -1}, "retries must be a whole number, 0 or more, not -1"),
        ({"retries": True}, "retries must be a whole number"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": "soon"}, "timeout: 'soon' is not a duration"),
        ({"retry_delay": -1}, "retry_delay: a duration must be a number, 0 or more"),
        ({"retry_delay": "2h"}, "retry_delay is 7200 s, which is more than max_delay, 3600 s"),
        ({"max_delay": "0.5s"}, "retry_delay is 1 s, which is more than max_delay, 0.5 s"),
        ({"backoff": 0.5}, "backoff must be a number, 1 or more, not 0.5"),
        ({"backoff": float("nan")}, "backoff must be a number"),
        ({"backoff": float("inf")}, "backoff must be a number"),
        ({"backoff": True}, "backoff must be a number"),
        ({"jitter": 0.1}, "jitter must be True or False"),
        ({"limit": ""}, "limit must be the name of a limit"),
        ({"limit": 5}, "limit must be the name of a limit"),
        ({"name": ""}, "name must be text that isn't empty"),
        ({"name": 5}, "name must be text"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(f"@step: {why}")) as caught:
        step(**settings)
    assert caught.value.file == HERE


def delays(made: Step[..., Any], most: int, seed: str = "run.1") -> list[float]:
    return [made.delay(failures, seed) for failures in range(1, most + 1)]


async def plain() -> None: ...


def test_delays_grow_up_to_the_longest() -> None:
    assert delays(step(jitter=False)(plain), 8) == [1, 4, 16, 64, 256, 1024, 3600, 3600]
    assert delays(step(jitter=False, retry_delay="2s", backoff=1)(plain), 3) == [2, 2, 2]
    assert delays(step(jitter=False, backoff=10, max_delay="1m")(plain), 3) == [1, 10, 60]
    assert delays(step(retry_delay=0)(plain), 3) == [0, 0, 0]
    assert step(jitter=False, backoff=1e300)(plain).delay(10_000, "run.1") == 3600


def test_jitter_takes_off_up_to_half_the_same_for_each_seed() -> None:
    made = step()(plain)
    spread = [made.delay(3, f"run.{n}") for n in range(1000)]
    assert all(8 <= delay <= 16 for delay in spread)
    assert min(spread) < 8.2
    assert max(spread) > 15.8
    assert delays(made, 5) == delays(step()(plain), 5)


async def test_the_retry_time_is_in_the_log() -> None:
    @step(retries=3, retry_delay="10s", backoff=2)
    async def fails() -> None:
        raise ValueError("busy")

    @step(retries=1)
    async def asks_for_a_time() -> None:
        raise RetryableError("busy", retry_after="5m")

    @workflow
    async def retries() -> None:
        for each in (asks_for_a_time, fails):
            try:
                await each()
            except FatalError:
                continue

    log = (await play(retries)).log
    waits = [e.data["retry_at"] / 1e6 - e.at.timestamp() for e in log if e.type == "step_retrying"]
    assert waits[0] == 300
    for wait, longest in zip(waits[1:], (10, 20, 40), strict=True):
        assert longest / 2 <= wait <= longest


# ── steps made at run time ──


async def test_steps_made_in_a_body_are_found_again_by_a_replay() -> None:
    calls: list[str] = []

    def tool(name: str) -> Step[[int], str]:
        @step(name=f"tool:{name}", retries=0)
        async def call(amount: int) -> str:
            calls.append(f"{name} {amount}")
            return f"{name} {amount}"

        return call

    @workflow
    async def books() -> list[str]:
        tools = {name: tool(name) for name in ("book", "cancel")}
        first = await tools["book"](1)
        second, third = await asyncio.gather(tools["cancel"](2), tools["book"](3))
        return [first, second, third]

    played = await play(books)
    assert played.result == ["book 1", "cancel 2", "book 3"]
    assert [e.data["name"] for e in played.log if e.type == "step_created"] == ["tool:book", "tool:cancel", "tool:book"]
    again = History(books)
    for event in played.log[1:]:
        again.happened(event.type, event.data)
    again.decide()
    assert len(calls) == 3


@pytest.mark.parametrize("broken", [lambda: step(generator), lambda: step(retries=-1), lambda: step(unresolvable)])
async def test_a_step_that_can_not_be_made_in_a_body_stalls_the_run(broken: Callable[[], Any]) -> None:
    @workflow
    async def makes_it() -> None:
        await broken()(1)

    with pytest.raises(WorkflowBugError):
        await play(makes_it)


async def unresolvable(n: int) -> None: ...


unresolvable.__annotations__["n"] = "NoSuchType"
