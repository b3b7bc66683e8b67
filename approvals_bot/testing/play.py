"""`play`: runs a workflow from start to end in memory, without waiting."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from approvals_bot.durable.core.api import Step, StepMetadata, Workflow, WorkflowMetadata
from approvals_bot.durable.core.context import StepContext
from approvals_bot.durable.core.durations import Duration, as_seconds
from approvals_bot.durable.core.events import Event, Log, closed_by
from approvals_bot.durable.core.hooks import Answer, WebhookRequest, decode_body
from approvals_bot.durable.core.open_work import OpenStep, StepCode
from approvals_bot.durable.core.remote_errors import decode_error
from approvals_bot.durable.engine.executor import attempt
from approvals_bot.testing.history import START, History


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that arrives some time after the run began to wait for it."""

    duration: Duration
    payload: Any


def after(duration: Duration, payload: Any) -> Later:
    """Delay an answer: `answers=[after("2 days", {"approved": True})]`."""
    return Later(duration, payload)


@dataclass(frozen=True, slots=True)
class Played:
    """A played run. `result` if it completed, `error` if it failed; `waits_for`: the hooks it still waits for.

    If it continues as a new run, the log's last event has the input of that.
    """

    status: Literal["completed", "failed", "cancelled", "continued", "running"]
    result: Any
    error: BaseException | None
    view: Any
    parts: list[Any]
    ended_at: datetime
    log: Log = field(repr=False)
    responses: list[Answer] = field(default_factory=list)
    waits_for: list[str] = field(default_factory=list)

    def calls(self, step: Step[..., Any]) -> list[dict[str, Any]]:
        """Return the arguments of each call of a step, by name, as the log stores them."""
        return [
            e.data["input"] for e in self.log if e.type == "step_created" and e.data["name"] == step.name
        ]  # fmt: skip


Answers = Iterable[Any] | Mapping[str, Any]


async def play(
    workflow: Workflow[..., Any],
    *args: Any,
    answers: Answers = (),
    steps: Mapping[Step[..., Any], Any] | None = None,
    resources: Mapping[type, Any] | None = None,
    start: datetime = START,
    **kwargs: Any,
) -> Played:
    """Run a workflow until it ends or waits for an answer that isn't given.

    `answers`: a list of payloads, each for the hook that has been open the longest; or `{token: payload}` and
    `{token: [payload, payload]}` for hooks with their own tokens. For a webhook, pass a WebhookRequest or a JSON value
    to POST. With `after("2 days", payload)`, time passes first, and timers that are due by then fire before it.

    `steps`: replacements for steps: `{charge: "receipt 1"}` is returned, `{charge: ValueError("no funds")}` is raised
    at each attempt, and an `async def` is called with the step's arguments but without its resources. Other steps run
    for real. Retries happen, without their delays.

    Example:
        played = await play(expense, 420, answers={"expense-420": after("1 day", {"approved": True})})
        assert played.result == "paid"
    """
    return await _Player(History(workflow, *args, start=start, **kwargs), answers, steps or {}, resources or {}).play()


class _Player:
    def __init__(
        self, history: History, answers: Answers, steps: Mapping[Step[..., Any], Any], resources: Mapping[type, Any]
    ) -> None:
        self._history = history
        self._steps = {step.name: does for step, does in steps.items()}
        self._resources = resources
        self._by_token = {k: _queue(v) for k, v in answers.items()} if isinstance(answers, Mapping) else {}
        self._in_order = deque() if isinstance(answers, Mapping) else deque(answers)

    async def play(self) -> Played:
        while True:
            self._history.decide()
            outcome = self._history.outcome
            assert outcome is not None
            if outcome.ended or not await self._go_on(outcome.steps):
                return self._played()

    async def _go_on(self, steps: list[OpenStep]) -> bool:
        """Let the next thing happen: a step ends, an answer arrives, or a timer fires. False if nothing can."""
        moments: list[tuple[datetime, int, Any]] = []
        for state in steps:
            moments.append((state.retry_at or self._history.now, 0, state))
        answer = self._next_answer()
        if answer is not None:
            moments.append((answer[0], 1, answer))
        moments += [(at, 2, number) for number, at in self._timers().items()]
        if not moments:
            return False
        at, kind, what = min(moments, key=lambda moment: moment[:2])
        self._history.now = max(self._history.now, at)
        match kind:
            case 0:
                await self._attempt(what)
            case 1:
                self._answer(what)
            case _:
                self._history.fire(what)
        return True

    # ── steps ──

    async def _attempt(self, state: OpenStep) -> None:
        history, number = self._history, state.failures + 1
        created = history.log[0]
        started = state.first_started_at or history.now
        context = StepContext(
            StepMetadata(state.step.name, f"{created.data['run_id']}.{state.id}", number, started),
            WorkflowMetadata(created.data["workflow"], created.data["run_id"], created.at, {}),
        )
        history.happened("step_started", {"id": state.id, "attempt": number})
        state.step = self._replaced(state.step)
        fact = await attempt(state, context, self._resources, lambda: history.now, _is_cancelled)
        history.happened(fact.type, fact.data)

    def _replaced(self, step: StepCode) -> StepCode:
        if step.name not in self._steps:
            return step
        does = self._steps[step.name]
        replaced = copy.copy(step)
        replaced.signature = copy.copy(step.signature)
        replaced.signature.needs = {}
        replaced.function = does if callable(does) and not isinstance(does, type) else _always(does)
        return replaced

    # ── answers and timers ──

    def _next_answer(self) -> tuple[datetime, Event, Any] | None:
        for hook in self._open_hooks():
            queue = self._by_token.get(hook.data["token"], self._in_order)
            if queue:
                payload = queue[0]
                if not isinstance(payload, Later):
                    return self._history.now, hook, payload
                since = max(e.at for e in self._history.log if e.type in ("hook_created", "hook_received"))
                return since + timedelta(seconds=as_seconds(payload.duration, since)), hook, payload.payload
        return None

    def _answer(self, answer: tuple[datetime, Event, Any]) -> None:
        _, hook, payload = answer
        self._by_token.get(hook.data["token"], self._in_order).popleft()
        if "answer" in hook.data and not isinstance(payload, WebhookRequest):
            payload = WebhookRequest.of_json(payload)
        keep_headers = hook.data.get("answer", {}).get("keep_headers", ())
        self._history.receive(hook.data["id"], payload, keep_headers=keep_headers)

    def _open_hooks(self) -> list[Event]:
        log = self._history.log
        disposed = {number for e in log for number in closed_by(e)}
        return [e for e in log if e.type == "hook_created" and e.data["id"] not in disposed]

    def _timers(self) -> dict[int, datetime]:
        outcome = self._history.outcome
        return {} if outcome is None else {timer.id: self._history.due(timer.id) for timer in outcome.timers}

    # ── the end ──

    def _played(self) -> Played:
        history, last = self._history, self._history.log[-1]
        status = last.type.removeprefix("run_") if last.type.startswith("run_") else "running"
        return Played(
            status=status,  # type: ignore[arg-type]  # an ended run has one of these statuses
            result=history.result if status == "completed" else None,
            error=decode_error(last.data["error"]) if status == "failed" else None,
            view=history.view,
            parts=[] if history.projection is None else history.projection.parts,
            ended_at=history.now,
            log=history.log,
            responses=[_answer_of(e.data["answer"]) for e in history.log if e.type == "hook_responded"],
            waits_for=[] if status != "running" else [f"hook {hook.data['token']}" for hook in self._open_hooks()],
        )


def _is_cancelled(error: BaseException) -> bool:
    """Check whether the surrounding test is being cancelled."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _queue(answers: Any) -> deque[Any]:
    return deque(answers if isinstance(answers, list) else [answers])


def _always(does: Any) -> Any:
    async def instead(*_: Any, **__: Any) -> Any:
        if isinstance(does, Exception):
            raise does
        return does

    return instead


def _answer_of(answer: dict[str, Any]) -> Answer:
    return Answer(decode_body(answer), answer["status"], [(name, value) for name, value in answer["headers"]])
