"""The approval, as a durable workflow on the public contract.

It reads like the thing itself: a rule decides, or people are asked stage by stage until there is a decision; then
everyone is told, and what follows is done. Votes, edits and withdrawals come through one webhook, times through timers,
and both end in one queue that is read by one reader: the log's order decides what came first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from approvals_bot.approvals import text as sentences
from approvals_bot.approvals.case import Case
from approvals_bot.approvals.coming_due import ComingDue
from approvals_bot.approvals.editions import KeptDefinition
from approvals_bot.approvals.eligibility import Found, RequestContext
from approvals_bot.approvals.follow_ups import FollowUps, actions_of
from approvals_bot.approvals.heard import Heard, Said
from approvals_bot.approvals.late import late_verdict
from approvals_bot.approvals.lookup import find_people, find_rank
from approvals_bot.approvals.messages import act_of, answer, read_message
from approvals_bot.approvals.notifications import Copies
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.published import Board
from approvals_bot.approvals.reassignment import Rank, is_handing
from approvals_bot.approvals.request import Decision, Opening, request_id
from approvals_bot.approvals.showing import Showing
from approvals_bot.approvals.stage import StageState
from approvals_bot.approvals.stages import Stages
from approvals_bot.approvals.telling import Telling
from approvals_bot.approvals.templates import TemplateError, render_line
from approvals_bot.approvals.timers import Due, StageTimers
from approvals_bot.approvals.views import decision_of, facts_of
from approvals_bot.durable.core.api import (
    Webhook,
    WebhookRequest,
    create_webhook,
    get_workflow_metadata,
    now,
    projector,
    workflow,
)
from approvals_bot.people import is_mail

ON_CANCEL = {"kind": "stop", "by": "app:service", "via": "api"}
"""What code that cancels the run says by it: a request is withdrawn by its own workflow, which tells everybody."""

OPERATOR = ("app:cli",)
"""Who acts at the service's own terminal, and may do there what owners may."""


class Left:
    """In the queue: the workflow that asked waits no longer."""


@workflow(name="approval")
async def approval(opening: Opening, settings: KeptDefinition) -> Decision:
    """Ask for a decision as the workflow's file says, and return it. Withdrawn requests end as cancelled."""
    return await Asking(opening, settings).run()


approval.kind = "request"


class Asking:
    """One request on its way through its stages."""

    number = 0  # among the requests of its run; 0: the run is this request
    ends_with_changes = False  # whether asking for changes ends it, so that the workflow asks anew

    def __init__(self, opening: Opening, definition: Definition) -> None:
        about = RequestContext(
            requester=opening.requester.lower(),
            on_behalf_of=opening.on_behalf_of.lower() if opening.on_behalf_of else None,
            self_approval=definition.policy.self_approval,
        )
        self.definition = definition
        self.case = Case(definition, opening.fields, about)
        self.run_id = get_workflow_metadata().run_id
        self.id = request_id(self.run_id, self.number)
        self.left: str | None = None  # why the workflow waits for this no longer
        self.queue: asyncio.Queue[WebhookRequest | Due | Left] = asyncio.Queue()
        self.copies = Copies(
            run_id=self.id,
            card=lambda reader: self.showing.card(reader),
            newest=lambda: self.case.version,
            report=self.report,
            spawn=self.spawn,
        )
        self.timers = StageTimers(definition, put=self.queue.put_nowait, spawn=self.spawn)
        self.telling = Telling(self.case, self.copies, self.timers)
        self.showing = Showing(
            self.case,
            run_id=self.run_id,
            number=self.number,
            title=lambda: self.title,
            copies=self.copies,
            timers=self.timers,
            telling=self.telling,
        )
        self.stages = Stages(
            self.case, copies=self.copies, timers=self.timers, telling=self.telling, changed=self.changed
        )
        projector(Board).add(self.showing.view)
        self.due = ComingDue(self.case, timers=self.timers, telling=self.telling, stages=self.stages)

    async def run(self) -> Decision:
        """To the end: decided, everyone told."""
        await self.see_through()
        ended = self.case.outcome
        assert ended is not None, "it is decided"
        if ended.state == "withdrawn":
            raise asyncio.CancelledError(ended.comment or f"withdrawn by {ended.by}")
        return decision_of(self.case)

    async def see_through(self) -> None:
        if self.case.decide_by_rule(now()):
            self.show()
            self.case.meet((await find_people([], self.case.about)).people)
        try:
            async with asyncio.TaskGroup() as self.tasks:
                if self.case.outcome is None:
                    await self.ask()
                self.follow()
        except ExceptionGroup as failures:  # one cause is what the run's error should name
            raise failures.exceptions[0] from None

    # ── asking ──

    async def ask(self) -> None:
        """Until there is a decision."""
        webhook = create_webhook(respond_with="manual", metadata={"workflow": self.definition.id}, on_cancel=ON_CANCEL)
        self.showing.hook_id = webhook.hook_id
        pump = self.spawn(self.take_messages(webhook))
        self.show()
        await self.stages.advance()
        while self.case.outcome is None:
            message = await self.queue.get()
            if self.left is not None:
                self.give_up()
            if isinstance(message, WebhookRequest):
                await (self.hear(message) if self.left is None else self.refuse_late(message))
            elif isinstance(message, Due) and self.left is None:
                await self.due.come(message)
        self.timers.stop()
        webhook.dispose()
        await pump
        await self.answer_the_late()

    async def take_messages(self, webhook: Webhook) -> None:
        async for request in webhook:
            self.queue.put_nowait(request)

    async def answer_the_late(self) -> None:
        """Who came before the hook was closed, and after the decision, is told how it ended."""
        while not self.queue.empty():
            message = self.queue.get_nowait()
            if isinstance(message, WebhookRequest):
                await self.refuse_late(message)

    async def refuse_late(self, request: WebhookRequest) -> None:
        heard = await read_message(request)
        if isinstance(heard, Heard):
            word, text = late_verdict(self.showing.view(), heard.by, act_of(heard), now())
            heard = Said(word, text, False)
        await answer(request, heard)

    def leave(self, why: str) -> None:
        """The workflow waits for this no longer: from now on nothing can decide it."""
        if self.left is None:
            self.left = why
            self.queue.put_nowait(Left())

    def give_up(self) -> None:
        assert self.left is not None, "the workflow has left"
        self.case.decide("withdrawn", self.case.about.requester, now(), "api", self.left)

    # ── what comes in ──

    async def hear(self, request: WebhookRequest) -> None:
        """One message: decide, answer, and do what follows."""
        heard = await read_message(request)
        if isinstance(heard, Said):
            await answer(request, heard)
            return
        if heard.kind == "stop":
            await answer(request, self.stop(heard))
            return
        if heard.kind == "bounced":
            changed = self.copies.came_back(heard.copy, heard.reason)
            await answer(request, Said("bounced", "", changed))
            return
        came_at, before, fields = now(), self.case.stage, self.case.content.fields
        assert before is not None, "a stage is open while nobody has decided"
        rank = await self.find_rank(heard) if is_handing(heard) else Rank()
        found = await self.stages.find(before, heard.by, *([heard.person] if is_mail(heard.person) else []))
        if self.left is not None:
            self.give_up()
            await self.refuse_late(request)
            return
        said = self.judge(heard, found, rank, came_at)
        await answer(request, said)
        if said.changed:
            await self.go_on(before, is_edited=self.case.content.fields != fields, edition=heard.edition)
            await self.due.catch_up()
        if said.changed and is_handing(heard):
            self.telling.hand_over(before.handovers[-1])
        if said.verdict in ("counted", "changed") and heard.via == "email" and self.case.outcome is None:
            self.copies.confirm_vote(heard.by)

    def judge(self, heard: Heard, found: Found, rank: Rank, came_at: Any) -> Said:
        self.case.meet(found.people)
        if (refused := self.case.refused_while_held(heard, came_at)) is not None:
            return refused
        match heard.kind:
            case "withdraw":
                return self.case.withdraw(heard, came_at)
            case "edit":
                return self.case.edit(heard)
            case _ if self.case.state == "changes_requested":
                return self.not_now(heard, came_at)
            case "reassign" | "add":
                return self.case.hand_over(heard, found, rank, came_at)
            case _:
                return self.case.vote(heard, found, came_at)

    def stop(self, heard: Heard) -> Said:
        """A run that is one request has nothing to stop but that request."""
        return self.case.withdraw(heard, now())

    async def find_rank(self, heard: Heard) -> Rank:
        """What the sender may do beyond her own place, as of now."""
        owners = (*(self.definition.workflow.owners or ()), *(OPERATOR if heard.via == "cli" else ()))
        return await find_rank(heard.by, heard.person, owners, self.case.about)

    def not_now(self, heard: Heard, came_at: Any) -> Said:
        """A vote while the request is back with its requester."""
        asked = [vote for vote in self.case.ballot.votes if vote.stands and vote.choice == "changes"]
        zone = self.case.people[heard.by].zone if heard.by in self.case.people else "UTC"
        who, requester = self.case.name(asked[-1].by), self.case.name(self.case.about.requester)
        text = sentences.changes_asked(who, asked[-1].at, came_at, zone, requester)
        return Said("already_decided", text, False)

    async def go_on(self, before: StageState, *, is_edited: bool, edition: int) -> None:
        """After an act that changed something: hand back, open the next stage, or just show it."""
        case = self.case
        grace = self.definition.policy.grace
        if case.held is not None and grace is not None:
            self.timers.hold(now() + grace, case.times_held)
            self.changed()
            return
        self.timers.release()
        if case.outcome is not None or (is_edited and case.decide_by_rule(now())):
            return
        if case.state == "changes_requested" and not is_edited and self.ends_with_changes:
            asked = [vote for vote in case.ballot.votes if vote.stands and vote.choice == "changes"][-1]
            case.decide("changes_requested", asked.by, asked.at, asked.via, asked.comment)
            return
        if case.state == "changes_requested" and not is_edited:
            self.timers.hand_back(now())
            self.changed()
            self.telling.tell_requester("change")
            return
        following = case.next_stage()
        if following is not before or case.is_reset:
            case.is_reset = False
            if is_edited and edition < 2:
                self.copies.tell("change")
            if is_edited:  # who has saved it looks at it at once
                self.show()
            await self.stages.advance("change" if is_edited else "request")
            if is_edited and edition >= 2 and case.outcome is None:
                self.copies.tell("change")
            return
        if is_edited:
            case.seat(before, await self.stages.find(before))
            self.copies.tell("change")
        self.changed()

    # ── the end ──

    def follow(self) -> None:
        """Everyone is told, every copy is made true, and the file's actions are done."""
        case = self.case
        assert case.outcome is not None, "it is decided"
        self.copies.close()
        self.changed()
        self.telling.tell_requester("outcome")
        follow_ups = self.showing.follow_ups = FollowUps(
            run_id=self.id,
            about=case.about,
            facts=facts_of(case, self.id, self.showing.known().title),
            copies=self.copies,
            report=self.show,
            spawn=self.spawn,
        )
        follow_ups.start(actions_of(self.definition.on, case.outcome.outcome))
        self.show()

    # ── showing ──

    @property
    def title(self) -> str:
        template = self.definition.workflow.title or self.definition.id
        try:
            return render_line(template, facts_of(self.case, self.id)) or self.definition.id
        except TemplateError:  # a title that these values break must not stop the request
            return self.definition.id

    def changed(self) -> None:
        """The card has changed."""
        for who in self.case.stage.told if self.case.stage else ():
            self.telling.remember(who)
        self.copies.change(self.case.version)
        self.show()

    def report(self, is_news: bool) -> None:
        """A copy's state has changed."""
        if is_news:
            self.case.version += 1
            self.copies.change(self.case.version)
        self.show()

    def show(self) -> None:
        """The run's board shows it."""

    def spawn(self, task: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.tasks.create_task(task)
