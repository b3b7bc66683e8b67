"""The approval, as a durable workflow on the public contract.

It reads like the thing itself: a rule decides, or people are asked stage by stage until there is a decision; then
everyone is told, and what follows is done. Votes, edits and withdrawals come through one webhook, times through timers,
and both end in one queue that is read by one reader: the log's order decides what came first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

from approvals_bot.approvals.acts import (
    Act,
    Edit,
    MailReturned,
    Message,
    Reassign,
    Reply,
    Stop,
    Vote,
    Withdraw,
    answer_of,
    read_message,
)
from approvals_bot.approvals.case import Case
from approvals_bot.approvals.coming_due import ComingDue
from approvals_bot.approvals.editions import KeptDefinition
from approvals_bot.approvals.eligibility import Found, RequestContext
from approvals_bot.approvals.follow_ups import FollowUps, actions_of
from approvals_bot.approvals.late import late_reply
from approvals_bot.approvals.lookup import find_people, find_rank
from approvals_bot.approvals.notifications import Copies
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.published import REQUEST, Board
from approvals_bot.approvals.reassignment import Rank
from approvals_bot.approvals.request import Decision, Opening, request_id
from approvals_bot.approvals.showing import Showing
from approvals_bot.approvals.stage import StageState
from approvals_bot.approvals.stages import Stages
from approvals_bot.approvals.telling import Telling
from approvals_bot.approvals.templates import TemplateError, render_line
from approvals_bot.approvals.timers import Due, StageTimers
from approvals_bot.approvals.views import decision_of, facts_of
from approvals_bot.durable.core.api import (
    Answer,
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


approval.kind = REQUEST


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
        message = await receive(request)
        match message:
            case None:
                reply = UNREADABLE
            case MailReturned():
                reply = Reply("bounced")
            case _:
                reply = late_reply(self.showing.view(), message, now())
        await answer(request, reply)

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
        match await receive(request):
            case None:
                await answer(request, UNREADABLE)
            case MailReturned(number, reason):
                await answer(request, Reply("bounced", self.copies.came_back(number, reason)))
            case Stop() as act:
                await answer(request, self.stop(act))
            case act:
                await self.act(act, request)

    async def act(self, act: Act, request: WebhookRequest) -> None:
        came_at, before, fields = now(), self.case.stage, self.case.content.fields
        assert before is not None, "a stage is open while nobody has decided"
        person = act.person if isinstance(act, Reassign) else ""
        rank = await self.find_rank(act) if isinstance(act, Reassign) else Rank()
        found = await self.stages.find(before, act.by, *([person] if is_mail(person) else []))
        if self.left is not None:
            self.give_up()
            await self.refuse_late(request)
            return
        reply = self.judge(act, found, rank, came_at)
        await answer(request, reply)
        if reply.changed:
            await self.go_on(before, is_edited=self.case.content.fields != fields)
            await self.due.catch_up()
        if reply.changed and isinstance(act, Reassign):
            self.telling.hand_over(before.handovers[-1])
        if reply.verdict in ("counted", "changed") and act.via == "email" and self.case.outcome is None:
            self.copies.confirm_vote(act.by)

    def judge(self, act: Act, found: Found, rank: Rank, came_at: datetime) -> Reply:
        self.case.meet(found.people)
        if (refused := self.case.refused_while_held(act, came_at)) is not None:
            return refused
        match act:
            case Withdraw() | Stop():
                return self.case.withdraw(act, came_at)
            case Edit():
                return self.case.edit(act)
            case _ if self.case.state == "changes_requested":
                return self.not_now(act, came_at)
            case Reassign():
                return self.case.hand_over(act, found, rank, came_at)
            case Vote():
                return self.case.vote(act, found, came_at)

    def stop(self, act: Stop) -> Reply:
        """A run that is one request has nothing to stop but that request."""
        return self.case.withdraw(act, now())

    async def find_rank(self, act: Reassign) -> Rank:
        """What the actor may do beyond their own place, as of now."""
        owners = (*(self.definition.workflow.owners or ()), *(OPERATOR if act.via == "cli" else ()))
        return await find_rank(act.by, act.person, owners, self.case.about)

    def not_now(self, act: Act, came_at: datetime) -> Reply:
        """A vote while the request is back with its requester."""
        asked = [vote for vote in self.case.ballot.votes if vote.stands and vote.choice == "changes"]
        who, requester = self.case.name(asked[-1].by), self.case.name(self.case.about.requester)
        params = {"by": who, "requester": requester, **self.case.moment(asked[-1].at, came_at, act.by)}
        return Reply("already_decided", code="with_requester", params=params)

    async def go_on(self, before: StageState, *, is_edited: bool) -> None:
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
            if is_edited:  # who has saved it looks at it at once
                self.show()
            await self.stages.advance("change" if is_edited else "request")
            if is_edited and case.outcome is None:
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


UNREADABLE = Reply("invalid", code="unreadable")


async def receive(request: WebhookRequest) -> Message | None:
    """The message; None for a body that holds none."""
    try:
        return read_message(await request.json())
    except ValueError:
        return None


async def answer(request: WebhookRequest, reply: Reply) -> None:
    """Tell the sender what became of it."""
    await request.respond_with(Answer.json(answer_of(reply)))
