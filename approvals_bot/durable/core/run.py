"""The state of a run during a replay: numbers its commands, checks them against the log, and delivers events."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property, partial
from random import Random
from typing import Any, Literal
from uuid import UUID

from approvals_bot.durable.core import commands
from approvals_bot.durable.core.attributes import Attribute, Projection, decoded_attributes, with_changes
from approvals_bot.durable.core.bugs import FailureRules, where_raised
from approvals_bot.durable.core.commands import (
    CancelChild,
    CancelStep,
    CancelTimer,
    Command,
    CreateHook,
    CreateStep,
    Creation,
    Decision,
    DisposeHook,
    SetAttributes,
    StartChild,
    decision,
)
from approvals_bot.durable.core.companions import Companions
from approvals_bot.durable.core.events import (
    FACTS,
    Event,
    Log,
    began_at,
    closed_by,
    from_micros,
    is_creation,
    is_whole_step,
    made_in,
    new_run_id,
    number_of,
)
from approvals_bot.durable.core.hooks import Hook, Webhook, WebhookRequest
from approvals_bot.durable.core.lines import Lines, line_about_unseen
from approvals_bot.durable.core.loop import ContinuesAsNew, WorkflowLoop
from approvals_bot.durable.core.open_work import OF_CANCELLATION, OpenChild, OpenStep, OpenTimer, StepCode
from approvals_bot.durable.core.payload_schemas import schema_of
from approvals_bot.durable.core.registry import Workflow
from approvals_bot.durable.core.remote_errors import encode_error, step_error
from approvals_bot.durable.core.serialization import decode, encode
from approvals_bot.errors import CannotAnswerError, NondeterminismError, WorkflowBugError

_is_sleep: Callable[..., object] = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]
"""The callback that `asyncio.sleep` gives its timer. It distinguishes a sleep from a timeout."""


class RunState:
    """The state of one replay. All of it is derived from the log and thrown away afterwards."""

    own: dict[str, Attribute] | None = None  # the run's attributes, if the body has set any
    has_children = False  # the body has started some
    weight = 0  # characters of a log that this replay takes the memory of, besides its own: see `RunCache`

    def __init__(
        self, created: Event, entropy: bytes, link: Callable[[str], str], failures: FailureRules | None = None
    ) -> None:
        self.failures = failures or FailureRules()
        self._created = created
        self.run_id: str = created.data["run_id"]
        self.loop = WorkflowLoop(self)  # type: ignore[abstract]  # missing methods raise "do that in a @step"
        self.link = link
        self.name: str = created.data["workflow"]
        self.attributes: dict[str, Attribute] = decoded_attributes(created.data.get("attributes", {}))
        self.started_at = self.now = began_at(created)
        self.seq = created.seq  # of the event that is being delivered
        self.lines: Lines | None = None  # None: nobody logs them
        self.view: Any = None
        self.projector: Callable[[], Projection] | None = None
        self.companions = Companions()
        self.body: asyncio.Task[Any] | None = None
        self.continuing: ContinuesAsNew | None = None  # what the body has asked for, if it has
        self.cancellation: Event | None = None  # the `cancel_requested` that has been delivered
        self.is_cancelling = False  # the body has been interrupted
        self.drift: NondeterminismError | None = None
        self.token_is_settled = False  # since the last fact; the commands given with that hook come after it
        self._entropy = entropy
        self._count = 0
        self._recorded: dict[int, Event] = {}
        self._newest = 0  # the highest number among the recorded creations
        self._decided: set[Decision] = set()  # decisions that are in the log
        self._asked: dict[int, Creation] = {}
        self._new: dict[Decision, Command] = {}  # in the order asked
        self._answered: set[int] = set()
        self.steps: dict[int, OpenStep] = {}
        self.timers: dict[int, OpenTimer] = {}
        self.hooks: dict[int, Hook[Any]] = {}
        self.children: dict[int, OpenChild] = {}
        self.outcomes: list[BaseException] = []  # of children and agents: errors with which the body may fail
        self.schemas: dict[int, Any] = {}

    def expect(self, events: Log) -> None:
        """Take in the events that the log has now: what the code has asked for, or is going to ask for."""
        for event in events:
            decided = decision(event)
            if decided is None:
                continue
            self._decided.add(decided)
            self._new.pop(decided, None)
            for closed in closed_by(event):
                for over in (("hook_disposed", closed), ("wait_over", closed)):
                    self._decided.add(over)
                    self._new.pop(over, None)
            if not is_creation(event):
                continue
            number = event.data["id"]
            self._new.pop(("created", number), None)
            self._recorded[number] = event
            self._newest = max(self._newest, number)
            asked = self._asked.get(number)
            if asked is not None and not asked.is_as(event):
                self.drifts(number, commands.describe(event), str(asked))
            if number in self.timers:
                self.timers[number].resume_at = commands.resume_at(event)

    # ── commands of the code ──

    @cached_property
    def random(self) -> Random:
        return Random(self._seed())  # noqa: S311  # deterministic on purpose; tokens never come from here

    @cached_property
    def _uuids(self) -> Random:
        return Random(f"{self._seed()}/uuid4")  # noqa: S311

    def _seed(self) -> str:
        """Return the ID of the run that the log began in. So a reset changes no number in the copied part."""
        seed: str = self._created.data.get("seed", self.run_id)
        return seed

    def uuid4(self) -> UUID:
        return UUID(int=self._uuids.getrandbits(128), version=4)

    async def call_step(self, step: StepCode, args: Any, kwargs: Any) -> Any:
        number = self._count = self._count + 1
        recorded = self._recorded.get(number)
        # The step runs with its recorded input. If the log has another command here, `_ask` detects the drift.
        given = None if recorded is None else {} if is_whole_step(recorded) else recorded.data.get("input")
        given = step.signature.encode_call(args, kwargs) if given is None else given
        state = OpenStep(number, step, given, future=self.loop.create_future(), attributes=self.attributes)
        self._ask(CreateStep(number, step.name, given, step.limit))
        self.steps[number] = state
        assert state.future is not None
        try:
            result = await state.future
        except asyncio.CancelledError:
            self._give_up(number)
            raise
        try:
            return step.signature.result.decode(result)
        except Exception as error:
            self.drifts(number, f"a result of {step.name!r}", f"another type ({error})")
            raise

    def _give_up(self, number: int) -> None:
        """Cancel a step that the body no longer waits for. One that isn't durable yet must never start.

        If the log has its outcome further on, that came first: another process recorded it before the cancellation.
        """
        if self.steps.pop(number, None) is None:
            return
        if number not in self._recorded:
            self._new.pop(("created", number), None)
        elif (key := ("step_over", number)) not in self._decided:
            self._new[key] = CancelStep(number)

    def _asked_to_cancel(self, asked: Event) -> None:
        """Interrupt the body. The time that it has is one more timer, at which the engine ends the run."""
        self.cancellation = asked
        self.timers[OF_CANCELLATION] = OpenTimer(
            OF_CANCELLATION, from_micros(asked.data["until"]), "timeout", lambda: None
        )
        self.cancel(asked.data["reason"])

    def cancel(self, reason: str | None) -> None:
        """Interrupt the body where it waits, and let its companions finish. Repeats do nothing: it is tidying up."""
        if self.body is not None and not self.is_cancelling and not self.loop.closing:
            self.is_cancelling = True
            self.body.cancel(reason)

    def start_child(self, workflow: Workflow[Any, Any], args: Any, kwargs: Any, *options: Any) -> OpenChild:
        number = self._count = self._count + 1
        found = self._recorded.get(number)
        recorded = found.data if found is not None else {}
        # As for steps: a child keeps its recorded input, and `_ask` detects another command.
        given = recorded.get("input")
        given = workflow.signature.encode_call(args, kwargs) if given is None else given
        run_id = recorded.get("run_id") or new_run_id(
            self.now, hashlib.blake2b(self._secret(number, "child").encode()).digest()
        )
        self._ask(StartChild(number, run_id, workflow, given, *options))
        self.has_children = True
        child = self.children[number] = OpenChild(number, run_id, self.loop.create_future())
        return child

    def give_up_child(self, number: int) -> None:
        """Stop waiting for a child. It is asked to cancel, unless it goes on without its parent."""
        if self.loop.closing or self.children.pop(number, None) is None:
            return
        recorded = self._recorded.get(number)
        if recorded is None:  # it isn't durable yet, so it must never start
            self._new.pop(("created", number), None)
        elif recorded.data["on_parent_close"] == "cancel" and (key := ("child_over", number)) not in self._decided:
            self._new[key] = CancelChild(number)

    def create_hook(
        self, token: str | None, metadata: Any, schema: Any, answer: dict[str, Any] | None = None
    ) -> Hook[Any]:
        number = self._count = self._count + 1
        found = self._recorded.get(number)
        recorded = found.data if found is not None else {}
        hook_id = recorded.get("hook_id") or self._secret(number, "id")[:26]
        given = token if token is not None else recorded.get("token") or self._secret(number, "token")
        if found is not None and given != recorded.get("token", given) and self._is_of_earlier_run(given, found):
            token = given = recorded["token"]
        options = {
            "metadata": encode(metadata, Any, "metadata"),
            "answer": answer,
            "has_schema": schema is not None or None,
            "schema": None if schema is None or found is not None else schema_of(schema),
        }
        stated = {name: value for name, value in options.items() if value is not None}
        self._ask(CreateHook(number, hook_id, given, stated))
        if token is not None and recorded.get("token", token) != token:
            self.drifts(number, f"hook #{number} with token {recorded['token']!r}", f"the token {token!r}")
        made: type[Hook[Any]] = Hook if answer is None else Webhook
        hook = self.hooks[number] = made(self, number, hook_id, given, metadata, self._reader(number, schema, answer))
        hook.answer = answer
        if schema is not None:
            self.schemas[number] = schema
        return hook

    def set_attributes(self, changes: Mapping[str, Attribute | None]) -> None:
        with_changes(self.attributes, changes)  # raises before anything is asked for
        number = self._count = self._count + 1
        recorded = self._ask(SetAttributes(number, encode(changes)))
        if recorded is not None and recorded.type == "attributes_set":
            changes = decoded_attributes(recorded.data["attributes"])
        self.attributes = self.own = with_changes(self.attributes, changes)

    def _reader(self, number: int, schema: Any, answer: dict[str, Any] | None) -> Callable[[int, Any], Any]:
        """Return what a hook's payloads are decoded by."""
        if answer is None:
            return partial(self._payload, number, Any if schema is None else schema)
        can_answer = answer["mode"] == "manual"

        def read(seq: int, payload: Any) -> WebhookRequest:
            return WebhookRequest.decode(payload, partial(self._respond, number, seq) if can_answer else None)

        return read

    def _payload(self, number: int, schema: Any, seq: int, payload: Any) -> Any:
        """Decode a payload. One that fitted when it came, and no longer does, means that the code has drifted."""
        try:
            return decode(payload, schema)
        except Exception as error:
            self.drifts(number, f"a payload of hook #{number}", f"another type ({error})", seq)
            raise

    def _is_of_earlier_run(self, token: str, recorded: Event) -> bool:
        """Return whether the recorded token is this one, with the ID of the run that a reset copied it from."""
        was: str = recorded.data["token"]
        return was == token.replace(self.run_id, made_in(self._created, recorded.seq))

    def dispose_hook(self, number: int) -> None:
        if (key := ("hook_disposed", number)) not in self._decided:
            self._new[key] = DisposeHook(number)

    def start_timer(
        self, when: float, delay: float | None, callback: Callable[..., object], fire: Callable[[], None]
    ) -> int:
        number = self._count = self._count + 1
        kind: Literal["sleep", "timeout"] = "sleep" if callback is _is_sleep else "timeout"
        due = from_micros(round(when * 1_000_000))
        if due.timestamp() < when:  # rounded down: the loop's time would stop short of `when`, and anyio waits for it
            due += timedelta(microseconds=1)
        command = commands.StartTimer(number, due, kind, delay)
        recorded = self._ask(command)
        resume_at = command.resume_at if recorded is None else commands.resume_at(recorded)
        self.timers[number] = OpenTimer(number, resume_at, kind, fire)
        return number

    async def sleep_until(self, when: datetime) -> None:
        """Sleep like `asyncio.sleep`, but until an instant."""
        future = self.loop.create_future()
        timer = self.loop.call_at_instant(when.timestamp(), _is_sleep, future, None)
        try:
            await future
        finally:
            timer.cancel()

    def cancel_timer(self, number: int) -> None:
        if self.timers.pop(number, None) is None:
            return
        if number not in self._recorded:
            self._new.pop(("created", number), None)
        elif (key := ("wait_over", number)) not in self._decided:
            self._new[key] = CancelTimer(number)

    def _respond(self, number: int, seq: int, response: dict[str, Any]) -> None:
        if self.loop.closing:
            return
        if seq in self._answered:
            raise CannotAnswerError("this caller has already been answered")
        self._answered.add(seq)
        if (key := ("responded", seq)) not in self._decided:
            self._new[key] = commands.Respond(number, seq, response)

    def _ask(self, command: Creation) -> Event | None:
        """Return the recorded event of this command, or None if it is new.

        A mismatch is kept as drift. It isn't raised in the body, where an author's `except` could swallow it.
        """
        self._asked[command.id] = command
        recorded = self._recorded.get(command.id)
        if recorded is not None:
            if not command.is_as(recorded):
                self.drifts(command.id, commands.describe(recorded), str(command))
        elif not self.loop.closing:
            self._new["created", command.id] = command
        return recorded

    def _secret(self, number: int, purpose: str) -> str:
        mac = hashlib.blake2b(f"{purpose}:{number}".encode(), key=self._entropy, digest_size=32).digest()
        return urlsafe_b64encode(mac).decode().rstrip("=").replace("-", "a").replace("_", "b")

    def drifts(self, number: int, expected: str, got: str, seq: int = 0) -> None:
        if self.drift is None and not self.loop.closing:
            recorded = self._recorded.get(number)
            self.drift = NondeterminismError(seq or (recorded.seq if recorded else 0), expected, got)

    def fails_unseen(self, what: str, error: BaseException, *, is_late: bool) -> None:
        """Keep a log line about an error that nothing in the workflow has awaited.

        `is_late` says that it was noticed only after the last event had been delivered.
        """
        if self.lines is not None:
            self.lines.append((self.seq + is_late, line_about_unseen(what, error, self.run_id, self.name)))

    # ── events of the log ──

    def deliver(self, event: Event) -> None:
        """Deliver one event. At most one waiter continues because of it."""
        self.seq = event.seq
        self.now = max(self.now, event.at)  # a payload may have come before a run began that was started for later
        self.loop.now = self.now.timestamp()
        if event.type in FACTS:
            self.token_is_settled = False
        number: Any = event.data.get("id")
        if number not in self._asked and is_creation(event):
            self._drifted_from(event, f"nothing (it has asked for {self._count} so far)")
            return
        match event.type:
            case "step_created" if number in self.steps:
                self.steps[number].seq = event.seq
            case "step_started" if number in self.steps:
                state = self.steps[number]
                state.started.add(event.data["attempt"])
                state.first_started_at = state.first_started_at or event.at
            case "step_retrying" if number in self.steps:
                state = self.steps[number]
                state.failures = event.data["attempt"]
                state.retry_at = from_micros(event.data["retry_at"])
            case "step_completed" | "step_failed":
                done = self.steps.pop(number, None)
                if done is None or done.future is None or done.future.done():
                    return
                if event.type == "step_completed":
                    done.future.set_result(event.data["result"])
                else:
                    done.future.set_exception(step_error(done.step.name, event.data))
            case "hook_created":
                self.token_is_settled = True
                self.hooks[number_of(event)].registered(None)
            case "hook_conflict":
                self.token_is_settled = True
                self.hooks[number].registered(event.data["owner"])
            case "hook_received":
                self.hooks[number].receive(event.seq, event.data["payload"])
            case "wait_completed":
                timer = self.timers.pop(number, None)
                if timer is not None:
                    timer.fire()
            case "child_ended" if number in self.children:
                self.children.pop(number).end(event.data)
            case "child_cancelled" if number in self.children:
                self._drifted_from(event, f"child #{number} to go on")
            case "cancel_requested":
                self._asked_to_cancel(event)
            case "step_cancelled" if number in self.steps:
                self._drifted_from(event, f"step #{number} to go on")
            case "hook_responded" if event.data["to"] not in self._answered:
                self._drifted_from(event, f"no answer to event {event.data['to']}")
            case "hook_disposed" | "wait_cancelled" | "hook_responded":
                self._check_closed(event)
            case _:
                pass  # decisions that the code has made, too

    def _check_closed(self, event: Event) -> None:
        """Check that the code has closed what the log says that it closed."""
        for number in closed_by(event):
            if number in self.timers:
                self._drifted_from(event, f"wait #{number} to go on")
            elif number in self.hooks and not self.hooks[number].is_disposed:
                self._drifted_from(event, f"hook #{number} to stay open")

    def has_decided(self, event: Event) -> bool:
        """Return whether the code has made this decision, too."""
        number = event.data.get("id")
        if event.type == "step_started" or is_creation(event):
            return number in self._asked
        is_given_up = number in self._asked and number not in self.timers and number not in self.children
        return event.type in ("wait_cancelled", "child_cancelled") and is_given_up

    def _drifted_from(self, event: Event, got: str) -> None:
        self.drift = self.drift or NondeterminismError(event.seq, commands.describe(event), got)

    # ── the outcome ──

    def is_over_after(self, error: BaseException) -> bool:
        """Return whether this error of the body leaves its companions where they are: the replay is thrown away."""
        return self.loop.closing or self.bug_in(error) is not None

    def bug_in(self, error: BaseException) -> BaseException | None:
        """Return the error that stalls the run, or None if it fails with this one. A child's outcome is no bug."""
        return self.failures.bug_in(error, self.outcomes)

    def stall_on(self, errors: Iterable[BaseException]) -> None:
        """Raise WorkflowBugError for the first of these errors that is a bug. Nothing of the replay is kept then."""
        for error in errors:
            bug = self.bug_in(error)
            if bug is not None:
                said, where = encode_error(bug), where_raised(bug) or where_raised(error)
                raise WorkflowBugError(said["type"], said["message"], where, dict(self.schemas)) from bug

    def new_commands(self, *, ended: bool) -> list[Command]:
        """Return the commands that aren't in the log yet, in the order they were given.

        Nothing starts after the end, so steps and timers are left out, and children that the end would cancel. Hooks
        are kept: they were open until then.
        """
        new = list(self._new.values())
        if ended:
            return [c for c in new if commands.is_of_use_at_the_end(c)]
        for command in new:
            if isinstance(command, Creation) and command.id < self._newest:
                self.drifts(command.id, f"nothing at #{command.id}", str(command))
        return new
