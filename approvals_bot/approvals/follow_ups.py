"""Follow-ups of a decision: calls and messages, each in its own task and retried until it is done.

They can't change the decision. The request shows those that fail for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from approvals_bot.approvals.copies import Copies
from approvals_bot.approvals.delivery import LONGEST_TRY, attempt, call_target, wait_before
from approvals_bot.approvals.delivery_policy import Action, Actions, CallTarget, Resume, SayInSlack, SendDm, SendMail
from approvals_bot.approvals.eligibility import PeopleSource, RequestContext, SeatQuery
from approvals_bot.approvals.notifications import Copy, Progress
from approvals_bot.approvals.port import (
    EMAIL,
    SLACK,
    Called,
    Destination,
    FollowUp,
    Place,
    Refused,
    ToPerson,
    TryAgain,
)
from approvals_bot.approvals.request import Outcome
from approvals_bot.approvals.resolution import find_people
from approvals_bot.approvals.templates import Facts, TemplateError, render, render_json
from approvals_bot.durable.core.api import now, random
from approvals_bot.people import Person

State = Literal["sending", "done", "retrying", "failed"]

NOBODY = "there is no such person"


def actions_of(actions: Actions, outcome: Outcome) -> tuple[Action, ...]:
    """Return the actions of this outcome, in the order of the file. An answer has only those of `ended`."""
    own: Mapping[Outcome, tuple[Action, ...]] = {
        "approved": actions.approved,
        "rejected": actions.rejected,
        "expired": actions.expired,
        "cancelled": actions.cancelled,
    }
    return (*own.get(outcome, ()), *actions.ended)


class FollowUps:
    """The follow-ups of one decided request."""

    def __init__(self, request_id: str, facts: Facts, copies: Copies, tasks: asyncio.TaskGroup) -> None:
        """`tasks`: the group in which they run; it ends before the run does."""
        self._id = request_id
        self._facts = facts
        self._copies = copies
        self._tasks = tasks
        self._all: list[FollowUp | int] = []  # calls, and the numbers of messages' copies

    def show(self) -> tuple[FollowUp, ...]:
        """Return each follow-up with its state."""
        return tuple(one if isinstance(one, FollowUp) else _message(self._copies.all[one - 1]) for one in self._all)

    def start(self, actions: tuple[Action, ...]) -> None:
        for number, action in enumerate(actions, 1):
            match action:
                case CallTarget():
                    self._all.append(FollowUp(what=f"call {action.http}", state="sending", target=action.http))
                    self._tasks.create_task(self._call(len(self._all) - 1, action, f"{self._id}-call-{number}"))
                case SayInSlack():
                    self._send_text(Place(SLACK, action.slack), action.text)
                case SendDm():
                    self._tasks.create_task(self._send_to(action.dm, action.text, SLACK))
                case SendMail():
                    self._tasks.create_task(self._send_to(action.email, action.text, EMAIL))
                case Resume():
                    pass  # the waiting caller gets the run's result

    async def _call(self, at: int, action: CallTarget, event_id: str) -> None:
        """POST until the target accepts or refuses it, or 48 hours are over."""
        until, attempts = now() + LONGEST_TRY, 0
        try:
            body = render_json(action.json_, self._facts)
            assert isinstance(body, dict), "a table of the file stays a table"
        except TemplateError as fault:
            self._becomes(at, "failed", str(fault))
            return
        while True:
            attempts += 1
            self._change(at, attempts=attempts)
            match await attempt(call_target(action.http, event_id, body)):
                case Called(status):
                    self._change(at, state="done", error="", status=status)
                    return
                case Refused(error):
                    self._becomes(at, "failed", error)
                    return
                case TryAgain(error, after):
                    wait = wait_before(attempts, after, random().random())
                    if now() + wait > until:
                        self._becomes(at, "failed", error)
                        return
                    self._becomes(at, "retrying", error)
                    await asyncio.sleep(wait.total_seconds())

    async def _send_to(self, whom: str, text: str, channel: str) -> None:
        people = await self._people(whom)
        if not people:
            self._all.append(FollowUp(what=f"message to {whom}", state="failed", error=NOBODY))
        for person in people:
            self._send_text(ToPerson(channel, person), text)

    async def _people(self, whom: str) -> list[Person]:
        """Resolve the recipient. "requester" of an app's request is the person it acts for."""
        request = self._copies.request
        if whom == "requester":
            whom = request.requester
            if whom.startswith("app:"):
                whom = request.on_behalf_of or ""
        if not whom:
            return []
        anyone = RequestContext(request.requester, request.on_behalf_of, request.fields, "allow")
        found = await find_people([SeatQuery(0, (PeopleSource((whom,)),))], anyone)
        return [found.people[address] for address in found.seats[0].eligible]

    def _send_text(self, to: Destination, text: str) -> None:
        try:
            written = render(text, self._facts)
        except TemplateError as error:
            self._all.append(FollowUp(what="message", state="failed", error=str(error)))
            return
        self._all.append(self._copies.send_text(to, written))

    def _becomes(self, at: int, state: State, error: str = "") -> None:
        self._change(at, state=state, error=error)

    def _change(self, at: int, **changes: Any) -> None:
        call = self._all[at]
        assert isinstance(call, FollowUp), "messages are kept as numbers"
        self._all[at] = replace(call, **changes)


def _message(copy: Copy) -> FollowUp:
    """Return an operator's message as a follow-up."""
    shown = copy.delivery
    kind = "mail" if copy.is_mail else "message"
    what = f"{kind} in {shown.to}" if isinstance(copy.to, Place) else f"{kind} to {shown.to}"
    return FollowUp(what=what, state=_state_of(shown.state), attempts=shown.attempts, error=shown.error)


def _state_of(progress: Progress) -> State:
    match progress:
        case "sending" | "held":
            return "sending"
        case "delivered":
            return "done"
        case "retrying":
            return "retrying"
        case "not_delivered":
            return "failed"
