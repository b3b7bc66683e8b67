"""A run's log, built one event at a time: you append what happened, the workflow what it decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.attributes import Projection
from approvals_bot.durable.core.commands import Command, Creation, describe, resume_at
from approvals_bot.durable.core.durations import Duration, as_seconds
from approvals_bot.durable.core.events import Event, EventType, Log, NewEvent, closed_by, is_creation
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.core.lines import Lines
from approvals_bot.durable.core.remote_errors import encode_error
from approvals_bot.durable.core.replay import ReplayResult, replay
from approvals_bot.durable.core.serialization import encode

START = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)


class History:
    """The store and the outside world for one run, in memory.

    `decide()` replays the log and appends the workflow's decisions; `complete`, `fail`, `receive` and `fire` append
    what happened. Steps, hooks and waits are numbered from 1, in the order in which the code creates them. `taken`:
    tokens that other runs own, `{token: run id}`.

    Example:
        history = History(expense, 420)
        assert history.decide() == ["hook #1"]
        history.receive(1, {"approved": True})
        assert history.decide() == ["run_completed"]
    """

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        *args: Any,
        run_id: str = "run_1",
        start: datetime = START,
        taken: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.workflow = workflow
        self.now = start
        self.log: Log = []
        self.outcome: ReplayResult | None = None
        self.view: Any = None
        self.projection: Projection | None = None
        self._taken = dict(taken or {})
        self._lines = Lines()
        data = {"run_id": run_id, "workflow": workflow.name, "input": workflow.signature.encode_call(args, kwargs)}
        self._append(NewEvent("run_created", data | {"settings": workflow.settings}))

    # ── what the workflow does ──

    def decide(self) -> list[str]:
        """Replay and append the decisions. Returns them as text: `step #1 'charge'`, `wait #2`, `run_completed`."""
        decisions: list[str] = []
        while True:
            seen = len(self.log)
            self.outcome = self.replay(self.log, self._lines)
            self._lines.log(self._lines.logged or 0)
            self._lines.logged = seen
            self.view = self.view if self.outcome.view is None else self.outcome.view
            self.projection = self.outcome.projection or self.projection
            decided = [self._append_decision(command) for command in self.outcome.commands]
            decisions += [words for words, _ in decided]
            lost_a_token = any(event.type == "hook_conflict" for _, event in decided)
            if self.outcome.ended or not (self.outcome.replay_again or lost_a_token):
                return decisions

    def _append_decision(self, command: Command) -> tuple[str, NewEvent]:
        event = self._with_owner(command.event(self.now))
        self._append(event)
        return describe(self.log[-1]), event

    def replay(self, log: Log, lines: Lines | None = None) -> ReplayResult:
        """Return what the workflow would ask for, given this log."""
        link = "https://example.test/{}".format
        return replay(self.workflow, log, entropy=b"history", link=link, lines=lines)

    def check_prefixes(self) -> None:
        """Check that replaying each beginning of the log leads to what the log continues with.

        Raises AssertionError or NondeterminismError if the workflow depends on anything but its log.
        """
        recorded = {event.data["id"]: describe(event) for event in self.log if is_creation(event)}
        for length in range(1, len(self.log) + 1):
            for command in self.replay(self.log[:length]).commands:
                if not isinstance(command, Creation):
                    continue
                asked = str(command)
                assert recorded.get(command.id, asked) == asked, (length, recorded[command.id], asked)

    # ── what the outside world does ──

    def complete(self, step: int, result: Any = None) -> None:
        """Append that a step returned this."""
        self._append(NewEvent("step_completed", {"id": step, "result": encode(result)}))

    def fail(self, step: int, error: Exception, attempts: int = 1) -> None:
        """Append that a step failed for good."""
        self._append(NewEvent("step_failed", {"id": step, "attempts": attempts, "error": encode_error(error)}))

    def receive(self, hook: int, payload: Any = None, *, keep_headers: Iterable[str] = ()) -> None:
        """Append that a hook received a payload (for a webhook, a WebhookRequest)."""
        encoded = payload.encode(keep_headers) if isinstance(payload, WebhookRequest) else encode(payload)
        resume_id = f"resume-{len(self.log)}"
        self._append(NewEvent("hook_received", {"id": hook, "resume_id": resume_id, "payload": encoded}))

    def fire(self, wait: int) -> None:
        """Advance the time to the end of a wait, and append that it ended."""
        self.now = max(self.now, self.due(wait))
        self._append(NewEvent("wait_completed", {"id": wait}))

    def happened(self, type: EventType, data: dict[str, Any]) -> None:
        """Append any other event."""
        self._append(NewEvent(type, data))

    def due(self, wait: int) -> datetime:
        """Return when a wait ends."""
        return resume_at(next(e for e in self.log if e.type == "wait_created" and e.data["id"] == wait))

    def advance(self, duration: Duration) -> None:
        """Advance the time, without firing anything."""
        self.now += timedelta(seconds=as_seconds(duration, self.now))

    # ── the result ──

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.log]

    @property
    def result(self) -> Any:
        """The run's result. Raises AssertionError if it hasn't completed."""
        assert self.log[-1].type == "run_completed", self.log[-1]
        return self.workflow.signature.result.decode(self.log[-1].data["result"])

    @property
    def error(self) -> dict[str, Any]:
        """The run's error. Raises AssertionError if it hasn't failed."""
        assert self.log[-1].type == "run_failed", self.log[-1]
        error: dict[str, Any] = self.log[-1].data["error"]
        return error

    def _append(self, event: NewEvent) -> None:
        self.log.append(Event(len(self.log) + 1, event.type, self.now, event.data))

    def _with_owner(self, event: NewEvent) -> NewEvent:
        """Add a token's owner, as a store does: a token has one live owner."""
        if event.type != "hook_created":
            return event
        owner = self._taken.get(event.data["token"]) or self._own_live_token(event.data["token"])
        if owner is None:
            return event
        taken = {name: event.data[name] for name in ("id", "hook_id", "token")}
        return NewEvent("hook_conflict", {**taken, "owner": owner})

    def _own_live_token(self, token: str) -> str | None:
        disposed = {number for event in self.log for number in closed_by(event)}
        live = (e for e in self.log if e.type == "hook_created" and e.data["id"] not in disposed)
        own: str = self.log[0].data["run_id"]
        return own if any(e.data["token"] == token for e in live) else None
