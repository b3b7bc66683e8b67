"""A request played in memory: the real workflow against a log that grows, without an engine, a store or channels.

Policy tests and `compare` play what people do. Time passes at once, and timers fire in their order. People are looked
up as in a service; nothing is delivered, and nothing is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.acts import Change, Reply, message_of, read_answer
from approvals_bot.approvals.apply import late_reply
from approvals_bot.approvals.delivery_policy import StageDeliver
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.files import StoredFile
from approvals_bot.approvals.given_grants import StandingGrant
from approvals_bot.approvals.picks import PickQuery, Picks, chosen
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.standing_grants import (
    CountedUse,
    GrantUse,
    StandingGrants,
    grants_in,
    with_grant,
    with_use,
)
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core import sandbox
from approvals_bot.durable.core.commands import events_of
from approvals_bot.durable.core.events import Event, NewEvent, closed_by, new_run_id
from approvals_bot.durable.core.hooks import WebhookRequest, decode_body
from approvals_bot.durable.core.open_work import OpenStep
from approvals_bot.durable.core.replay import Replay, ReplayResult
from approvals_bot.people import People

MOST_TIMERS = 2_000
"""Timers that one request fires. Past them, it is left waiting: a list that can't be read is read every few minutes."""


@contextmanager
def played(
    definition: Definition, opening: Opening, people: People, at: datetime, grants: PlayedGrants | None = None
) -> Iterator[PlayedRequest]:
    """Provide a request to play, and throw its run away at the end, wherever it waits.

    `grants`: what earlier requests have given; None: nothing.
    """
    with sandbox.installed():
        play = PlayedRequest(definition, opening, people, at, grants or PlayedGrants())
        try:
            yield play
        finally:
            play.close()


class PlayedRequest:
    """One request, from its opening on; `played` makes it.

    `now`: the time it has come to. `seen`: the request after each change. `failure`: why its run failed, as it does
    where nobody can decide.
    """

    def __init__(
        self, definition: Definition, opening: Opening, people: People, at: datetime, grants: PlayedGrants
    ) -> None:
        workflow = approval.under(definition.id, pinned(_undelivered(definition)))
        given = workflow.signature.encode_call((opening,), {})
        data = {"run_id": new_run_id(at, bytes(8)), "workflow": workflow.name, "input": given}
        self._created = Event(1, "run_created", at, data | {"settings": workflow.settings})
        self._replay = Replay(workflow, self._created, entropy=b"", link=str)
        self._resources: dict[type, Any] = {People: people, Picks: _PlayedPicks(), StandingGrants: grants}
        self._grants = grants
        self._length = 1
        self._hook: int | None = None  # the number of the hook that takes acts, as long as it is open
        self._answers: dict[int, dict[str, Any]] = {}  # by the act's place in the log
        self._outcome: ReplayResult | None = None
        self._fired = 0
        self._published: JsonValue = None  # the request as it was published last
        self.now = at
        self.seen: list[Request] = []
        self.failure = ""

    @property
    def request(self) -> Request:
        return self.seen[-1]

    async def open(self) -> None:
        """Open the request. Raises WorkflowBugError for a bug in the workflow."""
        await self._deliver([self._created])

    async def act(self, act: Change) -> Reply:
        """Let somebody act now. Returns the reply that they get."""
        if self._hook is None or self.failure:
            return late_reply(self.request, act, self.now)
        payload = WebhookRequest.of_json(message_of(act)).encode()
        data = {"id": self._hook, "resume_id": f"act-{self._length}", "payload": payload}
        came = self._event(NewEvent("hook_received", data))
        await self._deliver([came])
        return read_answer(decode_body(self._answers[came.seq]))

    async def wait(self, until: datetime) -> None:
        """Let time pass, and fire what is due by then."""
        while await self._fire_next(until):
            pass
        self.now = max(self.now, until)

    async def run_out(self) -> None:
        """Let time pass until the request is decided, or nothing is left that time alone would change."""
        while self.request.is_open and not self.request.unresolved and await self._fire_next(None):
            pass

    def close(self) -> None:
        self._replay.close()

    async def _fire_next(self, until: datetime | None) -> bool:
        timers = [] if self._outcome is None or self._outcome.ended else self._outcome.timers
        due = min(timers, key=lambda timer: (timer.resume_at, timer.id), default=None)
        if due is None or (until is not None and due.resume_at > until) or self._fired >= MOST_TIMERS:
            return False
        self._fired += 1
        self.now = max(self.now, due.resume_at)
        await self._deliver([self._event(NewEvent("wait_completed", {"id": due.id}))])
        return True

    async def _deliver(self, events: list[Event]) -> None:
        """Deliver these events, and those that they lead to, until the run waits for people or time."""
        while events:
            self._outcome = outcome = self._replay.deliver(events)
            self._note(outcome)
            events = [self._event(event) for event in events_of(outcome.commands, self.now)]
            if outcome.ended:
                return
            if not events:
                events = [await self._run_step(step) for step in self._steps(outcome)]

    def _note(self, outcome: ReplayResult) -> None:
        parts = outcome.projection.parts if outcome.projection is not None else []
        if parts and parts[0] != self._published:
            self._published = parts[0]
            self.seen.append(Request.model_validate(parts[0]))

    def _steps(self, outcome: ReplayResult) -> Iterator[OpenStep]:
        """Yield the open steps that read, pick or count. Others are deliveries and calls, which stay on their way."""
        for step in outcome.steps:
            needs = {*step.step.signature.needs.values()}
            if (step.step.only_reads or needs & {Picks, StandingGrants}) and self._resources.keys() >= needs:
                yield step

    async def _run_step(self, state: OpenStep) -> Event:
        signature = state.step.signature
        args, kwargs = signature.decode_call(state.input)
        needs = {name: self._resources[kind] for name, kind in signature.needs.items()}
        self._grants.now = self.now
        result = await state.step.function(*args, **kwargs, **needs)
        return self._event(NewEvent("step_completed", {"id": state.id, "result": signature.result.encode(result)}))

    def _event(self, new: NewEvent) -> Event:
        self._length += 1
        event = Event(self._length, new.type, self.now, new.data)
        match event.type:
            case "hook_created":
                self._hook = event.data["id"]
            case "hook_responded":
                self._answers[event.data["to"]] = event.data["answer"]
            case "run_failed":
                self.failure = event.data["error"]["message"]
            case _:
                pass
        if self._hook in closed_by(event):
            self._hook = None
        return event


def _undelivered(definition: Definition) -> Definition:
    """Return the definition without deliveries: nothing arrives here, and making their cards takes half of the time."""
    nowhere = StageDeliver.model_validate(dict.fromkeys(("slack", "dm", "email", *definition.deliver.channels), False))
    stages = tuple(stage.model_copy(update={"deliver": None}) for stage in definition.stage)
    return definition.model_copy(update={"deliver": definition.deliver.but(nowhere), "stage": stages})


class _PlayedPicks(Picks):
    """Whose turn it was in this request alone: nobody has had one before it."""

    def __init__(self) -> None:
        self._turns: dict[str, dict[str, Any]] = {}

    async def pick(self, query: PickQuery) -> tuple[str, ...]:
        picked, after = chosen(self._turns.get(query.turns, {}), query)
        if after is not None:
            self._turns[query.turns] = after
        return picked


class PlayedGrants(StandingGrants):
    """What the approvals of the requests that are played one after another cover of later ones."""

    def __init__(self) -> None:
        self.now = datetime.min.replace(tzinfo=UTC)
        self._lists: dict[str, Mapping[str, Any]] = {}

    async def give(self, scope: str, grant: StandingGrant) -> None:
        self._keep(scope, with_grant(self._lists.get(scope, {}), grant))

    async def active(self, scope: str) -> tuple[StandingGrant, ...]:
        kept = grants_in(self._lists.get(scope, {}))
        return tuple(each.grant for each in kept if each.state(self.now) == "active")

    async def use(self, scope: str, id: str, use: GrantUse) -> CountedUse | None:
        counted, after = with_use(self._lists.get(scope, {}), id, use, self.now)
        self._keep(scope, after)
        return counted

    def _keep(self, scope: str, after: Mapping[str, Any] | None) -> None:
        if after is not None:
            self._lists[scope] = after


def with_example_files(of: Mapping[str, FieldSpec], given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Put a file in the place of each name of one, as if it had been uploaded: what is only played has none."""
    return {
        name: StoredFile(value, value, 0, "", "").as_json()
        if isinstance(value, str) and name in of and of[name].type == "file"
        else value
        for name, value in given.items()
    }
