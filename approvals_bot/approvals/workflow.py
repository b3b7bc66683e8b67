"""The approval: a durable workflow, written with the public API.

A rule decides, or people do, stage by stage; then everyone involved is notified, and the follow-ups run. Votes, edits
and withdrawals arrive through one webhook, deadlines and reminders through timers. Both go into one queue with one
reader, so the order of the log decides what came first.

The request is one frozen value. Each turn of the loop takes a message or a timer, makes the next request from it
(`apply`), and carries out the effects: it replies, starts timers, sends notifications. Pure functions decide which
timers and which notifications; `Copies` and `StageTimers` only execute them.
"""

from __future__ import annotations

import asyncio
from typing import Any, assert_never

from approvals_bot.approvals.acts import (
    Change,
    Comment,
    Edit,
    Extend,
    MailReturned,
    Reassign,
    Rejection,
    Remind,
    Reply,
    Revoke,
    Snooze,
    Stop,
    TakeOn,
    Talk,
    TryNow,
    Vote,
    Withdraw,
    parse_message,
    send_reply,
)
from approvals_bot.approvals.apply import apply, decided_by_rule, late_reply, withdrawn
from approvals_bot.approvals.break_glass import review_of
from approvals_bot.approvals.deciding import StagedRequest
from approvals_bot.approvals.fields import Fits
from approvals_bot.approvals.granted import Granting, KeptGrant
from approvals_bot.approvals.grants import keeps_grant
from approvals_bot.approvals.named_people import left_without_people, with_people_named
from approvals_bot.approvals.outcomes import result_of
from approvals_bot.approvals.picks import missing_picks
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.published import REQUEST, PublishedRequests
from approvals_bot.approvals.request import SERVICE, Opening, Request
from approvals_bot.approvals.resolution import find_people
from approvals_bot.approvals.rules import KeptDefinition
from approvals_bot.approvals.stages import context_of, presented, with_people
from approvals_bot.approvals.talk import talked, to_be_reminded
from approvals_bot.approvals.timers import Due, Time, next_look
from approvals_bot.approvals.without_votes import ask_for_review, decided_without_votes, with_standing
from approvals_bot.durable.core.api import Webhook, WebhookRequest, create_webhook, is_bug, now, projector, workflow
from approvals_bot.durable.core.serialization import Proven
from approvals_bot.people import is_mail


@workflow(name="approval")
async def approval(opening: Proven[Opening], settings: KeptDefinition) -> dict[str, Any]:
    """Request a decision as the workflow's file says, and return it. A withdrawn request ends its run as cancelled.

    A run that is cancelled cancels its request. Then it still notifies everyone, as it does after a decision.
    """
    pending = PendingRequest(opening, settings)
    whole = asyncio.create_task(pending.run())
    try:
        await asyncio.shield(whole)
    except asyncio.CancelledError as cancelled:
        pending.abandon(str(cancelled))
        await whole
    ended = pending.request.outcome
    assert ended is not None, "it is decided"
    if ended.state in ("withdrawn", "cancelled"):
        raise asyncio.CancelledError(ended.comment or f"{ended.state} by {ended.by}")
    if pending.kept is not None and pending.kept.cancelled is not None:
        raise asyncio.CancelledError(pending.kept.cancelled)
    return result_of(pending.request, opening.fields)


approval.kind, approval.must_finish = REQUEST, keeps_grant


class PendingRequest(StagedRequest):
    """One request, from its opening to its decision, and to the end of what it gives."""

    fits: Fits | None = None  # the author's own check of edited fields

    def __init__(
        self, opening: Opening, definition: Definition, number: int = 0, title: str | None = None, extends: str = ""
    ) -> None:
        super().__init__(opening, definition, number, title, extends)
        self.kept: KeptGrant | None = None  # what was given, until it has ended
        self.abandoned: str | None = None  # why nothing can decide this request any more
        self.deciding: asyncio.Task[Any] | None = None  # the task that opens stages and handles messages
        self.unanswered: WebhookRequest | None = None  # the message that is being handled
        self.webhook: tuple[Webhook, asyncio.Task[None]] | None = None  # while it is open, and what reads it
        self.settled = asyncio.Event()  # it is decided, and everyone will be notified
        self.review: Granting | None = None  # of a request that was opened without a vote
        self.shown: tuple[Request, Request] | None = None  # `request`, and its presented form
        projector(PublishedRequests).add(self.published)

    def published(self) -> Request:
        """Return the request as it is shown now. Called when the run is stored, since a replay passes many changes."""
        if self.shown is None or self.shown[0] is not self.request:
            self.shown = self.request, presented(self.request, self.rules)
        return self.shown[1].but(
            version=self.request.version + self.copies.failures,
            timers=self.timers.show(now()) if self.request.outcome is None else (),
            deliveries=self.copies.deliveries(),
            follow_ups=self.follow_ups.show(),
            rules=(*self.shown[1].rules, *self.follow_ups.rules),
            review=None if self.review is None else review_of(self.review.request, self.definition),
        )

    async def run(self) -> None:
        """Run the request to its end: decided, and everyone notified."""
        self.request = decided_by_rule(self.request, self.rules, now())
        if self.request.outcome is not None or self.definition.decides_without_votes:
            self.request = await decided_without_votes(self.request, self.rules)
        try:
            async with self.tasks:
                if self.request.outcome is None:
                    await self.decide()
                elif self.gives:
                    self.open_webhook()
                if (self.definition.standing or self.definition.allowance) is not None:
                    self.request = await with_standing(self.request, self.rules)
                self.finish()
                if self.definition.emergency is not None:
                    self.review = await ask_for_review(self)
                if self.gives:
                    self.kept = KeptGrant(self)
                    await self.kept.run()
                    await self.close_webhook()
        except ExceptionGroup as failures:  # the run's error should name one cause, and a bug before all others
            raise next(filter(is_bug, failures.exceptions), failures.exceptions[0]) from None

    async def decide(self) -> None:
        """Wait for the decision. Then close the webhook, unless what was approved is still to end."""
        self.open_webhook()
        self.deciding = asyncio.current_task()
        try:
            if self.abandoned is None:
                await self.handle_messages()
        except asyncio.CancelledError:
            if self.abandoned is None:  # a delivery has failed with a bug
                raise
        if self.abandoned is not None:
            self.abandon_request(self.abandoned)
        self.timers.stop()
        if not self.gives:
            await self.close_webhook()

    @property
    def gives(self) -> bool:
        """Whether it was approved, and its file says that this ends."""
        return self.definition.grant is not None and not self.request.extends and self.request.state == "approved"

    def another(self, definition: Definition | None = None, extends: str = "") -> PendingRequest:
        """Make another request of this run about the same fields: an extension, or a review by another definition."""
        number = projector(PublishedRequests).next_number - 1  # the run's own is 0
        return PendingRequest(self.opening, definition or self.definition, number, extends=extends)

    def finish(self) -> None:
        """Notify everyone, bring every copy up to date, and start the file's follow-ups."""
        ended = self.request.outcome
        assert ended is not None, "it is decided"
        self.copies.close(stays=self.gives)
        self.copies.show(self.request)
        self.notify_requester("outcome")
        self.follow_ups.start(ended.outcome, self.request, self.rules)
        self.settled.set()

    # Messages

    def open_webhook(self) -> None:
        webhook = create_webhook(respond_with="manual", metadata={"workflow": self.definition.id})
        self.request = self.request.but(hook_id=webhook.hook_id)
        self.webhook = webhook, self.tasks.create_task(self.take_messages(webhook))

    async def take_messages(self, webhook: Webhook) -> None:
        async for request in webhook:
            self.queue.put_nowait(request)

    async def handle_messages(self) -> None:
        """Open the first stage, and handle messages and timers until there is a decision."""
        await self.advance()
        while self.request.outcome is None:
            match await self.queue.get():
                case WebhookRequest() as message:
                    await self.receive(message)
                case Due() as due:
                    await self.handle_due(due)

    async def close_webhook(self) -> None:
        """Close the webhook, and answer what came too late."""
        assert self.webhook is not None, "it was opened"
        (webhook, pump), self.webhook = self.webhook, None
        webhook.dispose()
        await pump
        if self.unanswered is not None:
            await self.receive(self.unanswered)
        while not self.queue.empty():  # messages between the decision and the closing of the hook
            message = self.queue.get_nowait()
            if isinstance(message, WebhookRequest):
                await self.receive(message)

    def abandon(self, why: str) -> None:
        """End this request as cancelled, unless it is decided. Even its search for people is interrupted."""
        if self.kept is not None:
            self.kept.cancel(SERVICE, why)
        elif self.abandoned is None and self.request.outcome is None:
            self.abandoned = why
            if self.deciding is not None:
                self.deciding.cancel()
        if self.review is not None:
            self.review.abandon(why)

    def abandon_request(self, why: str) -> None:
        self.request, _ = withdrawn(self.request, Stop(SERVICE, why, "api"), now())

    async def receive(self, message: WebhookRequest) -> None:
        """Handle one message: apply it, reply, and carry out the effects. After the decision, reply that it is late."""
        came_at, is_late = now(), self.request.outcome is not None
        match await parse_message(message):
            case None:
                await send_reply(message, Reply("invalid", code="unreadable"))
            case MailReturned(number, reason, is_ours):
                is_new = not is_late and self.copies.mark_bounced(number, reason, is_ours=is_ours)
                await send_reply(message, Reply("bounced", is_new))
            case TryNow(_, channel, to):
                done = not is_late and self.copies.try_now(channel, to)
                code = "decided_before_trying" if is_late else "" if done else "not_tried"
                await send_reply(message, Reply("tried", done, code))
            case Revoke() | Extend() | Stop() | Withdraw() as act if self.kept is not None:
                await self.kept.receive(act, message)
            case (Revoke() | Extend()) as act:
                await send_reply(message, late_reply(self.request, act, came_at))
            case act if is_late:
                await send_reply(message, late_reply(self.request, act, came_at))
            case Stop() | Comment() | TakeOn() | Remind() | Snooze() as act:
                await self.talk(act, message)
            case act:
                await self.perform(act, message)

    async def perform(self, act: Change, message: WebhookRequest) -> None:
        came_at, before = now(), self.request
        assert before.stage is not None, "a stage is open while nobody has decided"
        rank, also, self.unanswered = None, list[str](), message
        if isinstance(act, Reassign):
            rank = await self.find_rank(act)
            also = [act.person] if is_mail(act.person) else []
        found = await self.find(before.stage, act.by, *also)
        ahead = [(stage, await self.find(stage)) for stage in self.ahead()] if isinstance(act, Vote) else []
        wrong: tuple[Rejection, ...] = ()
        if isinstance(act, Edit) or (isinstance(act, Vote) and (act.fields or act.answers)):
            act, wrong = await with_people_named(act, before, self.rules)
        after, reply = apply(
            before, act, came_at, rules=self.rules, found=found, rank=rank, fits=self.fits, ahead=ahead
        )
        if reply.changed and not wrong and after.fields is not before.fields:
            wrong = await left_without_people(after, self.rules, came_at)
        if reply.changed and wrong:
            after, reply = before, Reply("invalid", rejections=wrong)
        self.request, self.unanswered = after, None
        if self.rules.picks and missing_picks(before, self.definition, before.stage, found):  # somebody has left
            self.timers.add(next_look(now(), 0))
        await send_reply(message, reply)
        if reply.changed:
            await self.proceed(before.stage, came_at, is_edited=self.request.fields is not before.fields)
            while self.postponed and self.request.held is None and self.request.outcome is None:
                await self.handle_due(self.postponed.pop(0))  # the held decision was undone
        if reply.changed and isinstance(act, Reassign):
            self.announce_reassignment(before.stage.id)
        if reply.verdict in ("counted", "changed") and act.via == "email" and self.request.outcome is None:
            self.copies.confirm_vote(act.by)

    async def talk(self, act: Talk | Stop, message: WebhookRequest) -> None:
        """Take a cancellation, or what decides nothing: reply, show it, and notify those whom it is for."""
        came_at = now()
        if act.by not in self.request.people and is_mail(act.by):
            self.unanswered = message
            found = await find_people([], context_of(self.request, self.rules), [act.by])
            self.unanswered = None
            self.request = with_people(self.request, self.rules, found.people)
        if isinstance(act, Stop):
            await send_reply(message, self.stop(act))
            return
        self.request, reply = talked(self.request, act, came_at)
        await send_reply(message, reply)
        if not reply.changed:
            return
        match act:
            case Comment():
                self.copies.show(self.request)
                self.announce_comment(act)
            case TakeOn():
                self.copies.show(self.request)
            case Remind():
                self.copies.remind(to_be_reminded(self.request, came_at))
            case Snooze(until=until) if until is not None:
                self.timers.add(Time(until, "snooze", f"a reminder to {self.request.called(act.by)}, who snoozed it"))
            case Snooze():
                pass
            case _:
                assert_never(act)

    def stop(self, act: Stop) -> Reply:
        """Cancel the request: a run that is one request has nothing else to stop."""
        if self.request.reviews:
            return Reply("not_an_approver", code="review_stays")
        self.request, reply = withdrawn(self.request, act, now())
        return reply
