"""The real approval, in the simulation: two people press opposite buttons, wherever their clicks land."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.acts import Reply, Vote
from approvals_bot.approvals.card_model import ChoiceName
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import (
    Called,
    CallResult,
    Channels,
    Delivered,
    Dispatch,
    Receipt,
    Result,
    Targets,
    TryAgain,
)
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.workflow import approval
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import People, Person
from approvals_bot.service.act import perform
from tests.support.simulation.auditor import Line, Violation
from tests.support.simulation.scenes import Scene
from tests.support.simulation.world import NoAnswerError, SimulatedEngine, World

DEPLOY = """
[workflow]
id = "deploy"
title = "Deploy {{ service }}"
request = ["*"]
[fields]
service = { type = "string", pinned = true }
[[stage]]
id = "go"
from = ["ann@acme.eu", "cy@acme.eu"]
need = 1
[deliver]
email = true
[clock]
deadline = "4h"
[[on.approved]]
http = "deploy-api"
json = { service = "{{ service }}" }
"""
NAMES = {"ann@acme.eu": "Ann Ode", "cy@acme.eu": "Cy Rus", "bo@acme.eu": "Bo Lund"}
WORDS = frozenset({"decided", "already_decided", "already_voted", "received"})


class Outside:
    """A mail server and an API, which fail now and then."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def send(self, dispatch: Dispatch) -> Result:
        await self._world.pause(0.5)
        if self._world.random.random() < 0.1:
            return TryAgain("the seed's")
        return Delivered(Receipt("place", dispatch.delivery_id, dispatch.card.version))

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        await self._world.pause(0.5)
        return Delivered(receipt)

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        self._world.called.add(event_id)
        return Called(200)


class Approval(Scene):
    shape = approval.under("simulated deploy", pinned(Definition.model_validate(tomllib.loads(DEPLOY))))

    def input(self) -> tuple[Any, ...]:
        return (Opening({"service": f"api {self.number}"}, "bo@acme.eu"),)

    async def meddle(self) -> None:
        """Nobody wakes it: its deadline is a sleep, so it would expire."""
        if self.world.random.random() < 0.1:
            await self.world.pause(15)
            await self.cancel()

    async def act(self) -> None:
        self.world.count("approvals")
        choices: list[ChoiceName] = ["approve", "reject"]
        self.world.random.shuffle(choices)
        await self.world.pause(10)
        both = zip(("ann@acme.eu", "cy@acme.eu"), choices, strict=True)
        await asyncio.gather(*(self.vote(by, choice) for by, choice in both))

    async def vote(self, by: str, choice: ChoiceName) -> None:
        while not (hooks := [line for line in self.lines if line.type == "hook_created"]):
            if self.has_ended:
                return
            await self.world.more_is_written()
        await self.world.pause(1)
        hook_id = hooks[0].data["hook_id"]

        async def press(engine: SimulatedEngine) -> Reply:
            return await perform(engine, hook_id, Vote(by, choice, comment="so"), timeout=8)

        while True:
            try:
                verdict = await self.world.ask(press, f"{by} presses {choice}")
                break
            except (NoAnswerError, StoreUnavailableError):
                await self.world.pause(3)
        self.world.record("people", f"{by} sees: {verdict.verdict}, {verdict.text}")
        self.world.count("acked")
        await self.believe(by, choice, verdict)

    async def believe(self, by: str, choice: str, verdict: Reply) -> None:
        """Check that the reply agrees with the log."""
        history = self.world.auditor.runs[self.run_id]
        if history.end is not None and history.end.type == "run_cancelled":
            return
        if history.cancellation is not None and verdict.verdict in ("withdrawn", "received"):
            return  # it tidies up, and its end comes later
        first = self.first(self.lines)
        if first is not None and first["kind"] == "stop":  # the run is being cancelled, and its end comes later
            if verdict.verdict not in ("withdrawn", "received"):  # received: nobody has worked on the run since
                raise Violation(f"{self.name}: {by} saw {verdict}; the request was withdrawn before")
            return
        winner = self.winner(self.lines)
        if verdict.verdict not in WORDS or winner is None:
            raise Violation(f"{self.name}: {by} saw {verdict}; the first vote is {winner}")
        has_won = winner == (by, choice)
        if verdict.verdict == "decided" and not has_won:
            raise Violation(f"{self.name}: {by} saw that their {choice} decided; it was {winner}")
        if verdict.verdict == "already_decided" and NAMES[winner[0]] not in verdict.text:
            raise Violation(f"{self.name}: {by} saw {verdict.text!r}; it was {winner}")

    @property
    def lines(self) -> list[Line]:
        return self.world.auditor.runs[self.run_id].lines

    def winner(self, lines: list[Line]) -> tuple[str, str] | None:
        """One seat, so the first vote in the log decides."""
        vote = self.first(lines)
        return None if vote is None or vote["kind"] == "stop" else (vote["by"], vote["choice"])

    def first(self, lines: list[Line]) -> dict[str, Any] | None:
        """Return the first act in the log, None if there is none."""
        for line in lines:
            if line.type == "hook_received":
                act: dict[str, Any] = json.loads(line.data["payload"]["text"])
                return act
        return None

    def expected(self, lines: list[Line]) -> Any:
        """The first vote's outcome, and nothing was called that it doesn't allow."""
        by, choice = self.winner(lines) or ("", "")
        result: dict[str, Any] = next(line.data["result"] for line in lines if line.type == "run_completed")
        called = [event_id for event_id in self.world.called if self.run_id in event_id]
        if len(called) != (choice == "approve"):
            raise Violation(f"{self.name}: {by} said {choice}, and called was {called}")
        state = {"approve": "approved", "reject": "rejected"}[choice]
        return result | {"by": by, "decision": state, "outcome": state, "approved": choice == "approve"}


def resources(world: World) -> Mapping[type, Any]:
    outside = Outside(world)
    people = People([Person(address, name) for address, name in NAMES.items()])
    return {Channels: Channels({"email": outside}, "https://example.test"), People: people, Targets: outside}
