"""The engine against a model in a dict: any order of starts, resumes, cancellations, waits and restarts gives the same
answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import chain
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from approvals_bot import (
    HookNotFoundError,
    IdempotencyConflictError,
    RunEndedError,
    RunNotFoundError,
    create_hook,
    publish,
    sleep,
    step,
    workflow,
)
from approvals_bot.durable.core.run import RunState
from approvals_bot.durable.engine import Engine, HookInfo, intake
from approvals_bot.durable.store import sqlite_reading
from approvals_bot.testing import FakeClock

T = TypeVar("T")

REST = 10  # seconds that a run sleeps when it has what it wants
NAMES = st.sampled_from(["a", "b", "c"])
PAYLOADS = st.sampled_from([0, 1, None, "", False, {"approved": True}])


@step
async def noted(value: Any) -> Any:
    return value


@workflow(name="modelled")
async def modelled(token: str, need: int, seconds: int) -> list[Any]:
    """Take `need` payloads, or those that arrive within `seconds`, then sleep and return them."""
    taken: list[Any] = []
    async with create_hook(token=token) as hook:
        try:
            async with asyncio.timeout(seconds):
                while len(taken) < need:
                    taken.append(await noted(await hook))
                    publish([*taken])
        except TimeoutError:
            taken.append("too late")
    await sleep(REST)
    return taken


@dataclass
class Expected:
    """A run in the model. Times are in seconds since the start."""

    id: str
    need: int
    seconds: int
    deadline: int
    payloads: dict[str, Any] = field(default_factory=dict)  # by resume id, in the order in which they came
    closed_at: int | None = None
    is_late: bool = False
    is_cancelled: bool = False

    def at(self, now: int) -> None:
        """Move the model's time forward."""
        if self.closed_at is None and now >= self.deadline:
            self.closed_at, self.is_late = self.deadline, True

    def status(self, now: int) -> str:
        if self.is_cancelled:
            return "cancelled"
        return "completed" if self.closed_at is not None and now >= self.closed_at + REST else "running"

    @property
    def is_open(self) -> bool:
        """Whether its hook takes payloads."""
        return self.closed_at is None and not self.is_cancelled

    @property
    def result(self) -> list[Any]:
        return [*self.payloads.values(), *(["too late"] if self.is_late else [])]


class EngineAndDict(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.now = 0
        self.model: dict[str, list[Expected]] = {"a": [], "b": [], "c": []}
        self.sent: list[tuple[str, Any, str]] = []
        self.open()

    def open(self) -> None:
        self.stack = AsyncExitStack()
        opening = Engine.open(f"sqlite:///{self.folder.name}/runs.db", clock=self.clock)
        self.engine = self.run(self.stack.enter_async_context(opening))
        self.run(self.engine.settle())

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def newest(self, name: str) -> Expected | None:
        return self.model[name][-1] if self.model[name] else None

    @rule(name=NAMES, need=st.integers(1, 3), seconds=st.sampled_from([5, 60]), again=st.booleans())
    def start(self, name: str, need: int, seconds: int, again: bool) -> None:
        """Start the run of this name; `again`: its next one, which gets the token that the last one has freed."""
        known = self.newest(name)
        if known is not None and again and not known.is_open:
            known = None
        generation = len(self.model[name]) - (known is not None)
        try:
            run = self.run(self.engine.start(modelled, name, need, seconds, idempotency_key=f"{name}{generation}"))
        except IdempotencyConflictError as conflict:
            owner = conflict.run_id
            assert known is not None
            assert owner == known.id
            assert (need, seconds) != (known.need, known.seconds)
            return
        self.run(self.engine.settle())
        assert run.is_new is (known is None)
        if known is None:
            self.model[name].append(Expected(run.id, need, seconds, self.now + seconds))
        else:
            assert (run.id, need, seconds) == (known.id, known.need, known.seconds)

    @rule(name=NAMES, payload=PAYLOADS, resume_id=st.sampled_from(["x", "y", "z"]))
    def resume(self, name: str, payload: Any, resume_id: str) -> None:
        self.sent.append((name, payload, resume_id))
        self.receive(name, payload, resume_id)

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(0, 5))
    def resume_again(self, back: int) -> None:
        """Send one of the latest payloads again, perhaps after its run has ended and another has its token."""
        self.receive(*self.sent[-1 - min(back, len(self.sent) - 1)])

    def receive(self, name: str, payload: Any, resume_id: str) -> None:
        first = next((run for run in self.model[name] if resume_id in run.payloads), None)
        live = next((run for run in self.model[name] if run.is_open), None)
        try:
            hook = self.run(self.engine.resume_hook(name, payload, resume_id=resume_id))
        except HookNotFoundError:
            assert first is live is None
            return
        except IdempotencyConflictError as conflict:
            owner = conflict.run_id
            assert first is not None
            assert owner == first.id
            assert repr(first.payloads[resume_id]) != repr(payload)
            return
        self.run(self.engine.settle())
        if first is not None:  # answered as it was, and not delivered again
            assert hook.run_id == first.id
            assert repr(first.payloads[resume_id]) == repr(payload)
            return
        assert live is not None
        assert hook.run_id == live.id
        live.payloads[resume_id] = payload
        if len(live.payloads) == live.need:
            live.closed_at = self.now

    @rule(name=NAMES)
    def cancel(self, name: str) -> None:
        known = self.newest(name)
        run = self.engine.get_run(known.id if known else "run_unknown")
        try:
            self.run(run.cancel(reason="enough"))
        except RunNotFoundError:
            assert known is None
        except RunEndedError as ended:
            status = ended.status
            assert known is not None
            assert known.status(self.now) == status != "running"
        else:
            assert known is not None
            assert known.status(self.now) == "running"
            known.is_cancelled = True
            self.run(self.engine.settle())

    @rule(seconds=st.sampled_from([1, 4, 10, 60]))
    def advance(self, seconds: int) -> None:
        self.now += seconds
        self.run(self.clock.advance(seconds))
        for known in chain(*self.model.values()):
            if not known.is_cancelled:
                known.at(self.now)

    @rule()
    def restart(self) -> None:
        self.run(self.stack.aclose())
        self.open()

    @invariant()
    def they_agree(self) -> None:
        for known in chain(*self.model.values()):
            record = self.run(self.engine.record(known.id))
            assert record is not None
            assert record.status == known.status(self.now)
            assert record.view == (list(known.payloads.values()) or None)
            if record.status == "completed":
                assert record.result == known.result
        for name, runs in self.model.items():
            try:
                owner: str | None = self.run(self.engine.get_hook_by_token(name)).run_id
            except HookNotFoundError:
                owner = None
            assert owner == next((run.id for run in runs if run.is_open), None), name
        listed = self.run(self.engine.records()).records if any(self.model.values()) else []
        assert {record.id for record in listed} == {known.id for known in chain(*self.model.values())}

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.run(self.stack.aclose())
            self.runner.close()
            self.folder.cleanup()


TestEngineAndDict = EngineAndDict.TestCase
TestEngineAndDict.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


# ── a machine that can't fail says nothing ────────────────────────────────────────────────────────────────────────


def counts_what_comes_twice(patch: pytest.MonkeyPatch) -> None:
    real = Engine.resume_hook

    async def resume_hook(self: Engine, token: str, payload: Any, *, resume_id: str | None = None) -> HookInfo:
        return await real(self, token, payload)

    patch.setattr(Engine, "resume_hook", resume_hook)


def overlooks_that_a_key_was_used_for_something_else(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(intake, "find_difference", lambda first, workflow, sent: None)


def forgets_a_resume_id_with_its_run(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sqlite_reading, "hook_that_took", lambda *_: None)


def writes_a_repeat_again_after_the_end(patch: pytest.MonkeyPatch) -> None:
    """The repeat goes to the run that has the token now."""
    real = Engine.resume_hook

    async def resume_hook(self: Engine, token: str, payload: Any, *, resume_id: str | None = None) -> HookInfo:
        hook = await self.store.hook(token=token)
        return await real(self, token, payload, resume_id=resume_id if hook is None else f"{hook.id} {resume_id}")

    patch.setattr(Engine, "resume_hook", resume_hook)


def interrupts_nobody_who_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunState, "cancel", lambda *_: None)


BUGS = (
    counts_what_comes_twice,
    forgets_a_resume_id_with_its_run,
    writes_a_repeat_again_after_the_end,
    overlooks_that_a_key_was_used_for_something_else,
    interrupts_nobody_who_is_cancelled,
)


@pytest.mark.drifts
@pytest.mark.parametrize("plant", BUGS)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(EngineAndDict, settings=settings(TestEngineAndDict.settings, phases=[Phase.generate]))
