"""An approved request whose grant hasn't ended: what people do about it, and who is notified of what becomes of it.

Its webhook stays open. An extension is one more request of the run, which asks the same people for the same fields.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from approvals_bot.approvals.acts import Comment, Extend, Reply, Revoke, Stop, Withdraw, send_reply
from approvals_bot.approvals.apply import withdrawn
from approvals_bot.approvals.card_model import ChoiceName
from approvals_bot.approvals.copies import Copies
from approvals_bot.approvals.eligibility import PeopleSource, SeatQuery
from approvals_bot.approvals.grant_life import GrantFact, GrantLife
from approvals_bot.approvals.grants import LONGEST_REASON, refuse_extension, refuse_revocation, reply_to_revocation
from approvals_bot.approvals.notifications import Notification, to_escalated
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reassignment import Rank
from approvals_bot.approvals.request import SERVICE, RecordedComment, Request, RequestGrant
from approvals_bot.approvals.resolution import find_people, find_rank
from approvals_bot.approvals.rules import Rules
from approvals_bot.approvals.stages import context_of, with_people, with_recipients
from approvals_bot.approvals.timers import Due
from approvals_bot.approvals.values import duration_in_words
from approvals_bot.durable.core.api import WebhookRequest, is_bug, now
from approvals_bot.durable.core.context import cancellation_reason, is_cancelled
from approvals_bot.people import is_mail

FOR_EXTENSIONS: tuple[ChoiceName, ...] = ("approve", "reject")
"""The choices about an extension, which nobody can edit or hand back."""

ONLY_BY_VOTES: dict[str, None] = {"standing": None, "allowance": None, "emergency": None, "break_glass": None}
"""What the definition of an extension lacks: neither an earlier approval nor an emergency makes a grant longer."""


class Granting(Protocol):
    """The request that gives something, in its run."""

    definition: Definition
    rules: Rules
    request: Request
    copies: Copies
    tasks: asyncio.TaskGroup
    settled: asyncio.Event
    has_opened: bool
    queue: asyncio.Queue[WebhookRequest | Due | None]

    async def run(self) -> None:
        """Run the request to its end."""

    async def receive(self, message: WebhookRequest) -> None:
        """Handle one message."""

    def abandon(self, why: str) -> None:
        """End the request as cancelled, unless it is decided."""

    def another(self, definition: Definition | None = None, extends: str = "") -> Granting:
        """Make another request of the same run: an extension, or one that follows another definition."""


def as_extension(request: Request, extends: str) -> Request:
    """Return a request that is about nothing but the length of a grant. `extends`: by how much, as people read it."""
    stages = (replace(stage, outcomes=_of_extension(stage.outcomes)) for stage in request.stages)
    return request.but(extends=extends, stages=tuple(stages))


def _of_extension(outcomes: tuple[ChoiceName, ...]) -> tuple[ChoiceName, ...]:
    return tuple(choice for choice in FOR_EXTENSIONS if choice in outcomes or choice == "approve")


class KeptGrant:
    """The grant of an approved request, until it has ended."""

    def __init__(self, pending: Granting) -> None:
        policy = pending.definition.grant
        assert policy is not None, "its file has one"
        self._pending = pending
        self._policy = policy
        self._extension: Granting | None = None  # the one that waits for a decision
        self.cancelled: str | None = None  # why the run is to end as cancelled
        self._life = GrantLife(policy, pending.request, pending.rules, self._changed)

    async def run(self) -> None:
        """Keep the grant, and take messages, until it has ended."""
        if is_cancelled():  # after the decision, and before there was a grant to revoke
            self.cancel(SERVICE, cancellation_reason() or "")
        self._pending.tasks.create_task(self._live())
        if self._pending.request.grant is None:  # there is one from now on: the first message may be about it
            self._changed(self._life.grant, None)
        while (message := await self._pending.queue.get()) is not None:
            if isinstance(message, WebhookRequest):
                await self._pending.receive(message)
        self._pending.copies.release()

    async def _live(self) -> None:
        await self._life.run()
        self._pending.queue.put_nowait(None)

    def cancel(self, by: str, why: str) -> None:
        """End the grant, and the run as cancelled after it."""
        self.cancelled = self.cancelled or why or f"cancelled by {by}"
        if not self._pending.request.grant or reply_to_revocation(self._pending.request).changed:
            self._life.revoke(by, why)

    # What people do

    async def receive(self, act: Revoke | Extend | Stop | Withdraw, message: WebhookRequest) -> None:
        """Revoke the grant, or ask whether it may last longer. A cancellation revokes it first."""
        match act:
            case Extend():
                await send_reply(message, self._ask(act))
            case Revoke():
                await self._revoke(act, message)
            case Stop() | Withdraw():
                may = isinstance(act, Stop) or act.by.startswith("app:")  # as before the decision
                revocation = Revoke(act.by, act.reason, act.via, actor=act.actor, operates=may)
                reply = await self._revoke(revocation, message)
                if reply.verdict == "revoked":
                    self.cancelled = act.reason.strip() or f"cancelled by {act.by}"

    async def _revoke(self, act: Revoke, message: WebhookRequest) -> Reply:
        request = self._pending.request
        owners, rank = self._pending.definition.workflow.owners or (), Rank()
        if refuse_revocation(request, act, rank) is not None:
            rank = await find_rank(act.by, "", owners, context_of(request, self._pending.rules))
        if act.by not in request.people and is_mail(act.by):
            found = await find_people([], context_of(request, self._pending.rules), [act.by])
            self._pending.request = with_people(self._pending.request, self._pending.rules, found.people)
        reply = refuse_revocation(request, act, rank) or reply_to_revocation(self._pending.request)
        await send_reply(message, reply)
        if reply.changed:
            self._life.revoke(act.by, act.reason)
        return reply

    def _ask(self, act: Extend) -> Reply:
        """Ask for an extension of the same people who have approved the grant."""
        is_asked = self._extension is not None
        lasts = refuse_extension(self._pending.request, self._policy, act, now(), is_asked=is_asked)
        if isinstance(lasts, Reply):
            return lasts
        asked = self._pending.definition.model_copy(update=ONLY_BY_VOTES)
        self._extension = self._pending.another(asked, extends=duration_in_words(lasts))
        if act.reason.strip():
            said = Comment(act.by, act.reason.strip()[:LONGEST_REASON], act.via, actor=act.actor)
            extension = self._extension.request
            self._extension.request = extension.but(comments=(RecordedComment(said, now()),))
        self._pending.tasks.create_task(self._run(self._extension))
        self._pending.tasks.create_task(self._await_decision(self._extension, lasts))
        return Reply("extending", True)

    async def _run(self, extension: Granting) -> None:
        """Run an extension. One that nobody can decide is cancelled, and the grant ends when it was to end."""
        try:
            await extension.run()
        except Exception as failure:
            if is_bug(failure):
                raise
            if extension.request.outcome is None:
                extension.request, _ = withdrawn(extension.request, Stop(SERVICE, str(failure)), now())
            extension.settled.set()

    async def _await_decision(self, extension: Granting, lasts: timedelta) -> None:
        await extension.settled.wait()
        self._extension = None
        ended = extension.request.outcome
        if ended is not None and ended.outcome == "approved" and self._life.grant.state == "active":
            await self._life.extend(lasts, ended.by)

    # Notifications

    def _changed(self, grant: RequestGrant, what: GrantFact | None) -> None:
        """Show the grant, and notify people of what has happened."""
        before = self._pending.request
        is_shown = what is not None or before.grant is None or before.grant.state != grant.state
        request = before.but(grant=grant, version=before.version + is_shown)
        self._pending.request = request
        if is_shown:
            self._pending.copies.show(request)
        if grant.state not in ("giving", "active") and self._extension is not None:
            self._extension.abandon("the grant has ended")
        was_overdue = before.grant is not None and before.grant.state == "overdue"
        match what:
            case "grant_taken" if not was_overdue and grant.state == "ended":
                for address in dict.fromkeys((request.requester, request.on_behalf_of)):
                    self._pending.copies.notify_one(address or "", "outcome")
            case "grant_overdue" | "grant_not_given" | "grant_taken":
                self._pending.copies.notify_all("outcome")
                if what != "grant_taken" or was_overdue:
                    self._pending.tasks.create_task(self._notify_owners())
            case _:
                pass

    async def _notify_owners(self) -> None:
        """Notify the workflow's owners, whose target doesn't remove the grant."""
        definition = self._pending.definition
        owners = tuple(owner for owner in definition.workflow.owners or () if not owner.startswith("app:"))
        if not owners:
            return
        about = replace(context_of(self._pending.request, self._pending.rules), self_approval="allow", exclude=())
        found = await find_people([SeatQuery(0, (PeopleSource(owners),))], about)
        request = with_people(self._pending.request, self._pending.rules, found.people)
        people = [found.people[address] for address in found.seats[0].eligible]
        self._pending.request = with_recipients(request, [person.address for person in people])
        self._pending.copies.show(self._pending.request)
        ways = (way for person in people for way in to_escalated(definition.to_requester, person))
        known = {(copy.to.channel, copy.reader) for copy in self._pending.copies.all}
        self._pending.copies.send(
            Notification(way, "outcome") for way in ways if (way.channel, way.person.address) not in known
        )
