"""Follow-ups: calls and messages, each in its own task and retried until it is done.

They follow the opening, each stage that opens, and the decision, and can't change it. The request shows those that
fail for good.

A run that only waits for the decision is notified of it, as one more follow-up: the request's own run ends later, once
every copy of its card shows the decision.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from approvals_bot.approvals.card_model import FollowUp
from approvals_bot.approvals.copies import Copies
from approvals_bot.approvals.delivery import LONGEST_TRY, attempt, call_target, wait_before
from approvals_bot.approvals.delivery_policy import Action, Actions, CallTarget, Resume, SayInSlack, SendDm, SendMail
from approvals_bot.approvals.eligibility import PeopleSource, RequestContext, SeatQuery
from approvals_bot.approvals.notifications import Copy, Progress
from approvals_bot.approvals.outcomes import last_answers_of
from approvals_bot.approvals.port import EMAIL, SLACK, Called, Destination, Place, Refused, ToPerson, TryAgain
from approvals_bot.approvals.request import AppliedRule, Outcome, Request
from approvals_bot.approvals.resolution import find_people
from approvals_bot.approvals.rules import Rules, facts_of
from approvals_bot.approvals.templates import Facts, TemplateError, render, render_json, render_key
from approvals_bot.durable.core.api import define_hook, get_workflow_metadata, now, random, step
from approvals_bot.errors import HookNotFoundError
from approvals_bot.people import Person

State = Literal["sending", "done", "retrying", "failed"]

Event = Literal["opened", "stage"] | Outcome
"""What follow-ups follow: the opening, a stage that opens, or the decision."""

NOBODY = "there is no such person"
EMPTY = "its text is empty"

AWAITED_BY = "awaited_by"
"""Attribute of a request's run, if another run waits for the decision: the token of its hook."""

decision_made = define_hook()
"""Resumed, without a payload, once the request is decided. The request itself says how."""


@step
async def announce_decision(token: str) -> None:
    """Resume the hook of the run that waits for the decision, if it still does."""
    with suppress(HookNotFoundError):
        await decision_made.resume(token, None, resume_id=token)


def actions_of(actions: Actions, event: Event) -> tuple[Action, ...]:
    """Return the actions of this event, in the order of the file. An answer has only those of `ended`."""
    match event:
        case "opened" | "stage":
            return getattr(actions, event) or ()
        case "approved" | "rejected" | "expired" | "cancelled":
            return (*getattr(actions, event), *actions.ended)
        case _:
            return actions.ended


class FollowUps:
    """The follow-ups of one request."""

    def __init__(self, copies: Copies, tasks: asyncio.TaskGroup) -> None:
        """`tasks`: the group in which they run; it ends before the run does."""
        self._copies = copies
        self._tasks = tasks
        self._all: list[FollowUp | int] = []  # calls, and the numbers of messages' copies
        self._has_opened = False
        self.rules: tuple[AppliedRule, ...] = ()  # the conditions that were evaluated

    def show(self) -> tuple[FollowUp, ...]:
        """Return each follow-up with its state."""
        return tuple(one if isinstance(one, FollowUp) else _message(self._copies.all[one - 1]) for one in self._all)

    def start(self, event: Event, request: Request, rules: Rules) -> None:
        """Start the follow-ups of this event, and first those of the opening. A rule may decide without a stage.

        An extension of a grant has none: nothing was requested that hadn't been.
        """
        if request.extends:
            return
        if not self._has_opened and event in ("stage", "approved", "rejected"):
            self._start_of("opened", request, rules)
            self._has_opened = True
        if request.outcome is not None and rules.definition.deliver.builder:
            self._announce()
        self._start_of(event, request, rules)

    def _announce(self) -> None:
        """Notify the run that waits for this request's decision, if there is one."""
        token = get_workflow_metadata().attributes.get(AWAITED_BY)
        if isinstance(token, str):
            self._tasks.create_task(attempt(announce_decision(token)))

    def _start_of(self, event: Event, request: Request, rules: Rules) -> None:
        """Start the follow-ups of one event. In doubt, one with a condition doesn't run."""
        actions = actions_of(rules.definition.on, event)
        if not actions:
            return
        stage = request.stage if event == "stage" else None
        facts, prefix = facts_of(request, rules, stage), f"{request.id}-call"
        if event in ("opened", "stage"):
            prefix = f"{request.id}-{event}-{self._copies.round}"
        for number, action in enumerate(actions, 1):
            if action.when is not None:
                rule = judged_rule(f"{event} {number}", action.when, request, rules, facts, now())
                self.rules = (*self.rules, rule)
                if not rule.applies:
                    continue
            self._start(action, facts, f"{prefix}-{number}")

    def _start(self, action: Action, facts: Facts, event_id: str) -> None:
        match action:
            case CallTarget():
                self._all.append(FollowUp(what=f"call {action.http}", state="sending", target=action.http))
                self._tasks.create_task(self._call(len(self._all) - 1, action, event_id, facts))
            case SayInSlack():
                try:
                    channel = render_key(action.slack, facts)
                except TemplateError as error:
                    self._all.append(FollowUp(what="message", state="failed", error=str(error)))
                    return
                self._send_text(Place(SLACK, channel), action.text, facts)
            case SendDm():
                self._tasks.create_task(self._send_to(action.dm, action.text, SLACK, facts))
            case SendMail():
                self._tasks.create_task(self._send_to(action.email, action.text, EMAIL, facts))
            case Resume():
                pass  # the waiting caller gets the run's result

    async def _call(self, at: int, action: CallTarget, event_id: str, facts: Facts) -> None:
        """POST until the target accepts or refuses it, or 48 hours are over."""
        until, attempts = now() + LONGEST_TRY, 0
        try:
            body = render_json(action.json_, facts)
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

    async def _send_to(self, whom: str, text: str, channel: str, facts: Facts) -> None:
        people = await self._people(whom)
        if not people:
            self._all.append(FollowUp(what=f"message to {whom}", state="failed", error=NOBODY))
        for person in people:
            self._send_text(ToPerson(channel, person), text, facts)

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

    def _send_text(self, to: Destination, text: str, facts: Facts) -> None:
        try:
            written = render(text, facts)
        except TemplateError as error:
            self._all.append(FollowUp(what="message", state="failed", error=str(error)))
            return
        if not written.strip():
            self._all.append(FollowUp(what="message", state="failed", error=EMPTY))
            return
        self._all.append(self._copies.send_text(to, written))

    def _becomes(self, at: int, state: State, error: str = "") -> None:
        self._change(at, state=state, error=error)

    def _change(self, at: int, **changes: Any) -> None:
        call = self._all[at]
        assert isinstance(call, FollowUp), "messages are kept as numbers"
        self._all[at] = replace(call, **changes)


def judged_rule(name: str, when: str, request: Request, rules: Rules, facts: Facts, at: datetime) -> AppliedRule:
    """Evaluate the condition of a follow-up. `name`: the event, and its number there; `at`: the time of the event."""
    condition, known = rules.follow_up(when), rules.known(at)
    known = replace(known, stage=facts.stage.id if facts.stage is not None else "", answers=facts.answers)
    outcome = {} if request.outcome is None else {"outcome": request.outcome.outcome}
    judged = condition.judge({**outcome, **facts.fields, **condition.known(known)})
    values = {one: {**outcome, **request.fields}.get(one) for one in condition.names}
    given = replace(known, answers=last_answers_of(request))
    values |= {one.shown_as: given.value(one) for one in condition.about.values()}
    return AppliedRule(f"on.{name} when {when}", judged.holds is True, judged.because, values)


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
        case "not_delivered" | "not_sent":
            return "failed"
