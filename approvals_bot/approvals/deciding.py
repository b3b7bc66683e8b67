"""A request while people decide it: who is asked in each stage, and what time and changes do to it.

Pure functions decide which timers and which notifications; `Copies` and `StageTimers` only execute them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, assert_never

from approvals_bot.approvals.acts import Comment, Reassign
from approvals_bot.approvals.apply import (
    approved,
    changes_vote,
    decided,
    decided_by_rule,
    decided_by_vote,
    taken_effect,
)
from approvals_bot.approvals.ballot import current_votes, owed, stage_status
from approvals_bot.approvals.copies import Copies
from approvals_bot.approvals.eligibility import Resolution, label_of
from approvals_bot.approvals.follow_ups import FollowUps
from approvals_bot.approvals.granted import as_extension
from approvals_bot.approvals.notifications import (
    Notification,
    escalation_notifications,
    late_mails,
    places,
    requester_notifications,
    stage_notifications,
    to_new_approver,
)
from approvals_bot.approvals.picks import only_picked, with_picks
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import Occasion, ToPerson
from approvals_bot.approvals.reassignment import Rank
from approvals_bot.approvals.request import DEADLINE, OPERATOR, Opening, RequestStage
from approvals_bot.approvals.resolution import find_people, find_rank
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.stages import (
    NobodyCanDecideError,
    context_of,
    described,
    escalated,
    next_stage,
    opened,
    planned,
    request_of,
    seat_queries,
    seated,
    why_undecidable,
    with_recipients,
)
from approvals_bot.approvals.talk import comment_cards, comment_copies, snoozes_over, to_be_reminded
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
from approvals_bot.durable.core.api import WebhookRequest, get_workflow_metadata, now
from approvals_bot.people import is_mail


class StagedRequest:
    """A request that people decide, stage by stage."""

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
        self.has_opened = False
        self.late: list[int] = []  # escalations to run at the stage's deadline
        self.postponed: list[Due] = []  # timers that fired while a decision was held
        self.queue: asyncio.Queue[WebhookRequest | Due | None] = asyncio.Queue()  # None: its grant has ended
        self.tasks = asyncio.TaskGroup()
        self.copies = Copies(self.request, self.tasks)
        self.timers = StageTimers(self.queue, self.tasks)
        self.follow_ups = FollowUps(self.copies, self.tasks)

    def open_stage(self) -> RequestStage:
        assert self.request.stage is not None, "a stage is open"
        return self.request.stage

    @property
    def here(self) -> Definition:
        """The definition as it is in the open stage."""
        stage = self.request.stage
        return self.definition if stage is None else self.rules.in_stage(stage.id, self.request)

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

    # Stages

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
            self.announce_stage("change")  # to people and places without a card
        self.copies.show(self.request)

    def return_to_requester(self) -> None:
        """Return the request to its requester for changes, or end it with `changes_requested`."""
        if self.ends_with_changes:
            self.request = decided_by_vote(self.request, "changes_requested", changes_vote(self.request))
            return
        self.start_timers(self.second_deadline())
        self.copies.show(self.request)
        self.notify_requester("change")

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
        self.announce_stage(occasion)
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
        self.announce_found(stage, found.escalated)
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
        self.announce_found(stage, [address for address in found.escalated if address not in stage.notified])

    def look_again_if_needed(self, found: Resolution, times: int) -> None:
        """Set timers to resolve again: when a source failed, and when an absence begins or ends."""
        self.timers.cancel("people")
        if found.errors:
            self.timers.add(next_look(now(), times))
        at, deadline = found.changes_at, self.request.deadline
        if at is not None and (deadline is None or at < deadline) and not self.timers.has(at):
            self.timers.add(Time(at, "absence", "another check of absences"))

    # Notifications

    def announce_stage(self, occasion: Occasion, notified: tuple[str, ...] = ()) -> None:
        """Send the open stage's cards. `notified`: people who had theirs before."""
        self.copies.send(stage_notifications(self.request, self.here.deliver, self.copies.all, occasion, notified))

    def announce_found(self, before: RequestStage, escalated: Sequence[str]) -> None:
        """Send cards to people who weren't found before, and to those to whom the stage escalates now."""
        known = (*before.notified, *escalated)
        if not set(self.open_stage().notified) <= set(known):  # a place hears of a look that found somebody
            self.announce_stage("request", known)
        self.copies.send(escalation_notifications(self.request, self.here.deliver, escalated))

    def announce_reassignment(self, stage_id: str) -> None:
        """Send the new approver their own card, and notify the person whose place they took."""
        act = next(stage for stage in self.request.stages if stage.id == stage_id).reassignments[-1].act
        ways = to_new_approver(self.here.deliver, self.request.people[act.person])
        self.copies.send(Notification(way, "request") for way in ways)
        if act.instead_of and act.instead_of != act.by:
            self.copies.notify_one(act.instead_of, "reassigned")

    def announce_comment(self, comment: Comment) -> None:
        """Notify those who have to do with the request, each where they got their card."""
        cards = [*comment_cards(self.request, self.definition.to_requester, self.copies.all, comment)]
        self.add_recipients(cards)
        self.copies.notify_comment(comment_copies(self.request, self.copies.all, comment), len(self.request.comments))
        self.copies.send(cards)

    def notify_requester(self, occasion: Occasion) -> None:
        """Notify the requester, and the person they act for."""
        ways = self.definition.to_requester
        cards = [*requester_notifications(self.request, ways, self.copies.all, occasion)]
        self.copies.send(cards)
        self.add_recipients(cards)

    def add_recipients(self, cards: Iterable[Notification]) -> None:
        people = [sent.to.person.address for sent in cards if isinstance(sent.to, ToPerson)]
        self.request = with_recipients(self.request, people)

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
