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
from datetime import datetime
from typing import Any, assert_never

from approvals_bot.approvals.acts import (
    Change,
    Comment,
    Extend,
    MailReturned,
    Reassign,
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
)
from approvals_bot.approvals.announcements import Announcements
from approvals_bot.approvals.apply import (
    apply,
    approved,
    changes_vote,
    decided,
    decided_by_rule,
    decided_by_vote,
    late_reply,
    taken_effect,
    withdrawn,
)
from approvals_bot.approvals.ballot import current_votes, owed, stage_status
from approvals_bot.approvals.break_glass import review_of
from approvals_bot.approvals.copies import Copies
from approvals_bot.approvals.eligibility import Resolution, label_of
from approvals_bot.approvals.fields import Fits
from approvals_bot.approvals.follow_ups import FollowUps
from approvals_bot.approvals.granted import Granting, KeptGrant, as_extension
from approvals_bot.approvals.hook_messages import parse_message, send_reply
from approvals_bot.approvals.named_people import left_without_people, with_people_named
from approvals_bot.approvals.notifications import late_mails, places
from approvals_bot.approvals.outcomes import result_of
from approvals_bot.approvals.picks import lacking, only_picked, with_picks
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import Occasion
from approvals_bot.approvals.published import REQUEST, PublishedRequests
from approvals_bot.approvals.reassignment import Rank
from approvals_bot.approvals.request import DEADLINE, OPERATOR, SERVICE, Opening, Request, RequestStage
from approvals_bot.approvals.resolution import find_people, find_rank
from approvals_bot.approvals.rules import KeptDefinition, rules_of
from approvals_bot.approvals.stages import (
    NobodyCanDecideError,
    context_of,
    described,
    escalated,
    next_stage,
    opened,
    planned,
    presented,
    request_of,
    seat_queries,
    seated,
    why_undecidable,
    with_people,
)
from approvals_bot.approvals.talk import snoozes_over, talked, to_be_reminded
from approvals_bot.approvals.timers import (
    Due,
    StageTimers,
    Time,
    escalates_to,
    late_escalations,
    moved_times,
    naming,
    next_look,
    second_deadline,
    stage_times,
    with_deadline,
)
from approvals_bot.approvals.without_votes import ask_for_review, decided_without_votes, with_standing
from approvals_bot.durable.core.api import (
    Webhook,
    WebhookRequest,
    create_webhook,
    get_workflow_metadata,
    is_bug,
    now,
    projector,
    workflow,
)
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


approval.kind = REQUEST


class PendingRequest:
    """One request, from its opening to its decision."""

    fits: Fits | None = None  # the author's own check of edited fields
    ends_with_changes = False  # whether requesting changes ends it; the workflow then makes a new request

    def __init__(
        self, opening: Opening, definition: Definition, number: int = 0, title: str | None = None, extends: str = ""
    ) -> None:
        """`number`: among the requests of its run; 0: the run is this request. `title`: if there is no file.

        `extends`: how much longer the grant of the run's request may last by this one, as people read it.
        """
        run_id = get_workflow_metadata().run_id
        self.opening, self.definition = opening, definition
        rules = self.rules = rules_of(definition, opening)
        request = request_of(rules, opening, run_id=run_id, number=number, at=now(), title=title)
        self.request = described(request if not extends else as_extension(request, extends), rules)
        self.kept: KeptGrant | None = None  # what was given, until it has ended
        self.abandoned: str | None = None  # why nothing can decide this request any more
        self.deciding: asyncio.Task[Any] | None = None  # the task that opens stages and handles messages
        self.unanswered: WebhookRequest | None = None  # the message that is being handled
        self.has_opened = False
        self.late: list[int] = []  # escalations to run at the stage's deadline
        self.postponed: list[Due] = []  # timers that fired while a decision was held
        self.webhook: tuple[Webhook, asyncio.Task[None]] | None = None  # while it is open, and what reads it
        self.queue: asyncio.Queue[WebhookRequest | Due | None] = asyncio.Queue()  # None: its grant has ended
        self.settled = asyncio.Event()  # it is decided, and everyone will be notified
        self.tasks = asyncio.TaskGroup()
        self.copies = Copies(self.request, self.tasks)
        self.announce = Announcements(self.copies, definition.to_requester)
        self.timers = StageTimers(self.queue, self.tasks)
        self.follow_ups = FollowUps(self.copies, self.tasks)
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

    def open_webhook(self) -> None:
        webhook = create_webhook(respond_with="manual", metadata={"workflow": self.definition.id})
        self.request = self.request.but(hook_id=webhook.hook_id)
        self.webhook = webhook, self.tasks.create_task(self.take_messages(webhook))

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

    async def handle_messages(self) -> None:
        """Open the first stage, and handle messages and timers until there is a decision."""
        await self.advance()
        while self.request.outcome is None:
            match await self.queue.get():
                case WebhookRequest() as message:
                    await self.receive(message)
                case Due() as due:
                    await self.handle_due(due)

    async def take_messages(self, webhook: Webhook) -> None:
        async for request in webhook:
            self.queue.put_nowait(request)

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

    # Messages

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
        act, wrong = await with_people_named(act, before, self.rules)
        after, reply = apply(
            before, act, came_at, rules=self.rules, found=found, rank=rank, fits=self.fits, ahead=ahead
        )
        if reply.changed and (wrong := wrong or await left_without_people(before, after, self.rules, came_at)):
            after, reply = before, Reply("invalid", rejections=wrong)
        self.request, self.unanswered = after, None
        if self.rules.picks and lacking(before, self.definition, before.stage, found):  # somebody has left
            self.timers.add(next_look(now(), 0))
        await send_reply(message, reply)
        if reply.changed:
            await self.proceed(before.stage, came_at, is_edited=self.request.fields is not before.fields)
            while self.postponed and self.request.held is None and self.request.outcome is None:
                await self.handle_due(self.postponed.pop(0))  # the held decision was undone
        if reply.changed and isinstance(act, Reassign):
            self.announce.reassigned(self.request, self.here.deliver, before.stage.id)
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
                self.request = self.announce.comment(self.request, act)
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

    async def look_up(self, stage: RequestStage, *also: str) -> Resolution:
        asks = seat_queries(self.request, self.rules, stage)
        return await find_people(asks, context_of(self.request, self.rules, stage), also, now())

    async def find(self, stage: RequestStage, *also: str) -> Resolution:
        """Look people up; where the file picks a few, those who were picked."""
        found = await self.look_up(stage, *also)
        return only_picked(self.request, self.definition, stage, found) if self.rules.picks else found

    async def find_and_pick(self, stage: RequestStage, *also: str) -> Resolution:
        """Look people up; where the file picks a few, pick until there are enough."""
        found = await self.look_up(stage, *also)
        if self.rules.picks:
            self.request, found = await with_picks(self.request, self.definition, stage, found)
        return found

    def ahead(self) -> list[RequestStage]:
        """Return the stages in which an approval may matter, too: it counts there again, or takes its voter away."""
        looks = self.definition.policy.distinct or self.definition.policy.carry_over
        return [one for one in self.request.stages if one.state == "ahead"] if looks else []

    async def find_rank(self, act: Reassign) -> Rank:
        """Look up what the actor may do beyond their own place, as of now."""
        owners = (*(self.definition.workflow.owners or ()), *(OPERATOR if act.via == "cli" else ()))
        return await find_rank(act.by, act.person, owners, context_of(self.request, self.rules))

    async def proceed(self, before: RequestStage, at: datetime, *, is_edited: bool) -> None:
        """Continue after a change: back to the requester, to the next stage, or just update the cards."""
        grace = self.definition.policy.grace
        self.timers.cancel("grace")
        if self.request.held is not None and grace is not None:
            self.timers.add(Time(now() + grace, "grace", "the decision takes effect", self.request.times_held))
            self.copies.show(self.request)
            return
        if is_edited and self.request.outcome is None:
            self.request = decided_by_rule(self.request, self.rules, now())
        if self.request.outcome is not None:
            return
        if self.request.state == "changes_requested" and not is_edited:
            self.return_to_requester()
            return
        if is_edited:
            self.request = planned(self.request, self.rules)
        self.request, following = next_stage(self.request, self.rules, at)
        if following is None or following.id != before.id or self.request.is_reset:
            await self.advance("change" if is_edited else "request", at)
            if is_edited and self.request.outcome is None:
                self.copies.notify_all("change")
            return
        if is_edited:
            self.request = seated(self.request, self.rules, following, await self.find(following))
            self.move_deadline(self.open_stage())
            self.copies.move(places(self.here.deliver))
            self.copies.notify_all("change")
            self.announce.stage(self.request, self.here.deliver, "change")  # to people and places without a card
        self.copies.show(self.request)

    def return_to_requester(self) -> None:
        """Return the request to its requester for changes, or end it with `changes_requested`."""
        if self.ends_with_changes:
            self.request = decided_by_vote(self.request, "changes_requested", changes_vote(self.request))
            return
        self.start_timers(self.second_deadline())
        self.copies.show(self.request)
        self.request = self.announce.to_requester(self.request, "change")

    # Stages

    async def advance(self, occasion: Occasion = "request", at: datetime | None = None) -> None:
        """Open the next stage; approve if every one that applies is complete. `at`: None if the request opens."""
        self.request, stage = next_stage(self.request, self.rules, at or self.request.asked_at)
        if stage is None:
            self.request = approved(self.request, self.rules, now())
            return
        opened_at = now()
        here = self.rules.in_stage(stage.id, self.request)
        times = stage_times(here, opened_at, self.rules.ruling(self.request.fields).typed)
        targets = escalates_to(here, times)
        found = await self.find_and_pick(stage, *(address for address in targets if is_mail(address)))
        self.request = opened(self.request, self.rules, stage, found, opened_at)
        if not self.has_opened and (why := why_undecidable(self.request, self.rules, stage, found)):
            raise NobodyCanDecideError(stage.id, why)
        self.has_opened = True
        opens = self.open_stage()
        if opens.votes and stage_status(opens) == "filled":  # by votes that count again
            await self.advance(occasion)
            return
        self.start_timers(self.named(times) if targets else times)
        self.late = late_escalations(self.definition, times)
        self.look_again_if_needed(found, 0)
        if occasion == "change":
            self.copies.move(places(here.deliver))
        self.copies.begin_round(places(here.deliver))
        self.copies.show(self.request)
        self.announce.stage(self.request, self.here.deliver, occasion)
        self.follow_ups.start("stage", self.request, self.rules)

    def named(self, times: tuple[Time, ...]) -> tuple[Time, ...]:
        """Return these times, with a deadline that names those to whom the stage escalates."""
        targets, about = escalates_to(self.here, times), context_of(self.request, self.rules)
        return naming(self.here, times, label_of(targets, about, self.request.people))

    def move_deadline(self, stage: RequestStage) -> None:
        """Move the deadline of the open stage, and what depends on it, after an edit of the field that holds it."""
        typed = self.rules.ruling(self.request.fields).typed
        moved = moved_times(self.here, stage, self.request.deadline, typed)
        if moved is not None:
            times, self.late = moved
            times = self.named(times) if self.late else times
            self.timers.cancel("deadline", "reminder", "escalation")
            self.timers.add(*(time for time in times if time.at > now()))
            self.request = with_deadline(self.request, times)

    def second_deadline(self) -> tuple[Time, ...]:
        """Return one more deadline of the open stage, from now."""
        opened_at, values = self.open_stage().opened_at or now(), self.rules.ruling(self.request.fields).typed
        return second_deadline(self.here, now(), opened_at, values)

    def start_timers(self, times: tuple[Time, ...]) -> None:
        """Replace all timers with these."""
        self.timers.stop()
        self.timers.add(*times)
        self.request = with_deadline(self.request, times)

    async def escalate(self, stage: RequestStage, numbers: list[int]) -> None:
        for number in numbers:
            self.request = escalated(self.request, stage, self.here.escalate[number])
            stage = self.open_stage()
        found = await self.find_and_pick(stage)
        self.request = seated(self.request, self.rules, stage, found)
        self.look_again_if_needed(found, 0)
        self.copies.show(self.request)
        self.copies.notify_all("escalation", only_places=True)
        self.announce.found(self.request, self.here.deliver, stage.notified, found.escalated)
        if not found.escalated:  # such as a manager whom nobody knows: those who were asked before are asked again
            self.copies.remind(to_be_reminded(self.request, now()), in_places=False)

    async def look_again(self, stage: RequestStage, times: int) -> None:
        """Resolve the stage once more, and send cards to people who weren't found before."""
        found, before = await self.find_and_pick(stage), (self.request.unresolved, owed(self.request))
        self.request = seated(self.request, self.rules, stage, found)
        if before != (self.request.unresolved, owed(self.request)):
            self.request = self.request.but(version=self.request.version + 1)  # cards show both
        self.look_again_if_needed(found, times)
        self.copies.show(self.request)
        self.announce.found(
            self.request,
            self.here.deliver,
            stage.notified,
            [address for address in found.escalated if address not in stage.notified],
        )

    def look_again_if_needed(self, found: Resolution, times: int) -> None:
        """Set timers to resolve again: when a source failed, and when an absence begins or ends."""
        self.timers.cancel("people")
        if found.errors:
            self.timers.add(next_look(now(), times))
        at, deadline = found.changes_at, self.request.deadline
        if at is not None and (deadline is None or at < deadline) and not self.timers.has(at):
            self.timers.add(Time(at, "absence", "another check of absences"))

    def open_stage(self) -> RequestStage:
        assert self.request.stage is not None, "a stage is open"
        return self.request.stage

    @property
    def here(self) -> Definition:
        """The definition as it is in the open stage."""
        stage = self.request.stage
        return self.definition if stage is None else self.rules.in_stage(stage.id, self.request)

    # Timers

    async def handle_due(self, due: Due) -> None:
        """Handle a timer that fired. One of a closed stage no longer counts."""
        stage = self.request.stage
        if due.round != self.timers.round or stage is None:
            return
        if self.request.held is not None and due.kind != "grace":
            self.postponed.append(due)
            return
        match due.kind:
            case "grace":
                if self.request.held is not None and due.number == self.request.times_held:
                    self.request = taken_effect(self.request)
            case "deadline":
                await self.reach_deadline(stage)
            case "reminder":
                self.copies.remind(to_be_reminded(self.request, now()))
            case "snooze":
                self.request, people = snoozes_over(self.request, now())
                self.copies.remind(people)
            case "mail":
                if not current_votes(stage):
                    self.copies.send(late_mails(self.request, self.copies.all))
            case "escalation":
                await self.escalate(stage, [due.number])
            case "people":
                await self.look_again(stage, due.number)
            case "absence":
                self.request = self.request.but(version=self.request.version + 1)  # others may be asked now
                await self.look_again(stage, 0)
            case kind:
                assert_never(kind)

    async def reach_deadline(self, stage: RequestStage) -> None:
        """Act on the deadline, which came before a decision."""
        because = f"Stage “{stage.title}” wasn't decided in time."
        on_deadline = self.here.clock.on_deadline
        if self.request.state == "changes_requested":
            on_deadline, because = "expire", "The requested changes didn't come in time."
        if on_deadline == "escalate" and self.late:
            late, self.late = self.late, []  # the next deadline is the last
            times = self.second_deadline()
            self.timers.add(*times)
            self.request = with_deadline(self.request, times)
            await self.escalate(stage, late)
            return
        state: Any = {"reject": "rejected", "approve": "approved"}.get(on_deadline, "expired")
        self.request = decided(self.request, state, DEADLINE, now(), "clock", because=because)

    def finish(self) -> None:
        """Notify everyone, bring every copy up to date, and start the file's follow-ups."""
        ended = self.request.outcome
        assert ended is not None, "it is decided"
        self.copies.close(stays=self.gives)
        self.copies.show(self.request)
        self.request = self.announce.to_requester(self.request, "outcome")
        self.follow_ups.start(ended.outcome, self.request, self.rules)
        self.settled.set()
