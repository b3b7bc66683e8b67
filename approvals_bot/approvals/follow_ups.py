"""What follows a decision: calls to targets and messages, each in its own task, each tried until it is done.

They come after the decision and can't change it. One that fails for good is shown on the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from approvals_bot.approvals.copies import Copies
from approvals_bot.approvals.eligibility import PeopleSource, RequestContext, SeatAsk
from approvals_bot.approvals.lookup import find_people
from approvals_bot.approvals.one_copy import Copy
from approvals_bot.approvals.pace import LONGEST_TRY, wait_before
from approvals_bot.approvals.policy import Action, Actions, CallTarget, Resume, SayInSlack, SendDm, SendMail
from approvals_bot.approvals.port import Destination, Mailbox, SlackChannel, SlackPerson
from approvals_bot.approvals.request import FollowUp, Outcome
from approvals_bot.approvals.targets import CallAgain, Called, CallRefused, CallResult, call_target
from approvals_bot.approvals.templates import Facts, TemplateError, render, render_json
from approvals_bot.durable.core.api import now, random
from approvals_bot.errors import StepFailedError
from approvals_bot.people import Person

NOBODY = "there is no person to tell"


def actions_of(actions: Actions, outcome: Outcome) -> tuple[Action, ...]:
    """What follows this outcome, in the order of the file. An answer has no list of its own, only `ended`."""
    own: Mapping[Outcome, tuple[Action, ...]] = {
        "approved": actions.approved,
        "rejected": actions.rejected,
        "expired": actions.expired,
        "cancelled": actions.cancelled,
    }
    return (*own.get(outcome, ()), *actions.ended)


@dataclass(eq=False)
class _Call:
    """A call to a target, and how far it is."""

    what: str
    state: Literal["sending", "done", "retrying", "failed"] = "sending"
    attempts: int = 0
    error: str = ""


class FollowUps:
    """The actions of one decided request."""

    def __init__(
        self,
        *,
        run_id: str,
        about: RequestContext,
        facts: Facts,
        copies: Copies,
        report: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._run_id = run_id
        self._about = about
        self._facts = facts
        self._copies = copies
        self._report = report
        self._spawn = spawn
        self._all: list[_Call | Copy] = []

    def show(self) -> tuple[FollowUp, ...]:
        return tuple(_shown(one) for one in self._all)

    def start(self, actions: tuple[Action, ...]) -> None:
        for number, action in enumerate(actions, 1):
            match action:
                case CallTarget():
                    call = _Call(f"call {action.http}")
                    self._all.append(call)
                    self._spawn(self._call(call, action, f"{self._run_id}-call-{number}"))
                case SayInSlack():
                    self._say(SlackChannel(action.slack), action.text)
                case SendDm():
                    self._spawn(self._tell(action.dm, action.text, SlackPerson))
                case SendMail():
                    self._spawn(self._tell(action.email, action.text, Mailbox))
                case Resume():
                    pass  # the run's result is what the waiting caller is handed

    async def _call(self, call: _Call, action: CallTarget, event_id: str) -> None:
        """POST until the target takes it, refuses it, or 48 hours are over."""
        until = now() + LONGEST_TRY
        try:
            body = render_json(action.json_, self._facts)
            assert isinstance(body, dict), "a table of the file stays a table"
        except TemplateError as fault:
            self._becomes(call, "failed", str(fault))
            return
        while True:
            call.attempts += 1
            match await _tried(action.http, event_id, body):
                case Called():
                    self._becomes(call, "done")
                    return
                case CallRefused(error):
                    self._becomes(call, "failed", error)
                    return
                case CallAgain(error, after):
                    wait = wait_before(call.attempts, after, random().random())
                    if now() + wait > until:
                        self._becomes(call, "failed", error)
                        return
                    self._becomes(call, "retrying", error)
                    await asyncio.sleep(wait.total_seconds())

    async def _tell(self, whom: str, text: str, by: Callable[[Person], Destination]) -> None:
        people = await self._people(whom)
        if not people:
            self._all.append(_Call(f"message to {whom}", "failed", 0, NOBODY))
            self._report()
        for person in people:
            self._say(by(person), text)

    async def _people(self, whom: str) -> list[Person]:
        """Who is meant. For a request that an app made, "requester" is the human it acts for."""
        if whom == "requester":
            whom = self._about.requester
            if whom.startswith("app:"):
                whom = self._about.on_behalf_of or ""
        if not whom:
            return []
        anyone = RequestContext(self._about.requester, self._about.on_behalf_of, self._about.fields, "allow")
        found = await find_people([SeatAsk(0, (PeopleSource((whom,)),))], anyone)
        return [found.people[address] for address in found.seats[0].eligible]

    def _say(self, to: Destination, text: str) -> None:
        try:
            written = render(text, self._facts)
        except TemplateError as error:
            self._all.append(_Call("message", "failed", 0, str(error)))
            self._report()
            return
        self._all.append(self._copies.say(to, written))

    def _becomes(self, call: _Call, state: Literal["done", "retrying", "failed"], error: str = "") -> None:
        call.state, call.error = state, error
        self._report()


async def _tried(target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
    try:
        return await call_target(target, event_id, body)
    except StepFailedError as failure:
        return CallAgain(failure.cause_message)


def _shown(one: _Call | Copy) -> FollowUp:
    if isinstance(one, _Call):
        return FollowUp(what=one.what, state=one.state, attempts=one.attempts, error=one.error)
    states: dict[str, Literal["sending", "done", "retrying", "failed"]] = {
        "sending": "sending",
        "delivered": "done",
        "retrying": "retrying",
        "not_delivered": "failed",
    }
    shown = one.show()
    way = "message in" if shown.to.startswith("#") else f"{'mail' if shown.channel == 'email' else 'message'} to"
    return FollowUp(what=f"{way} {shown.to}", state=states[one.state], attempts=one.attempts, error=one.error)
