"""The stages of a request, one after the other: opened, escalated, and looked at again for whom they ask."""

from __future__ import annotations

from collections.abc import Callable

from approvals_bot.approvals.ballot import standing_votes
from approvals_bot.approvals.case import Case
from approvals_bot.approvals.eligibility import Found, seats_that_fail
from approvals_bot.approvals.lookup import find_people
from approvals_bot.approvals.notifications import Copies
from approvals_bot.approvals.port import Occasion
from approvals_bot.approvals.stage import StageState
from approvals_bot.approvals.telling import Telling
from approvals_bot.approvals.timers import StageTimers
from approvals_bot.durable.core.api import now
from approvals_bot.errors import ApprovalsBotError

NO_STAGE = "rule:0"
"""Who decided, when no stage applies to a request."""


class NobodyCanDecideError(ApprovalsBotError):
    """Nobody could decide this request. The operator's to mend: the workflow's file, or the groups it names."""

    def __init__(self, stage: str, why: str) -> None:
        self.stage = stage
        super().__init__(f"Nobody could decide this request: in stage {stage!r}, {why}.")


class Stages:
    """Opens the stages of one request, and asks and tells the people of the open one."""

    def __init__(
        self, case: Case, *, copies: Copies, timers: StageTimers, telling: Telling, changed: Callable[[], None]
    ) -> None:
        """`changed` is called when cards show something else."""
        self._case = case
        self._copies = copies
        self._timers = timers
        self._telling = telling
        self._changed = changed
        self._has_opened = False

    async def advance(self, occasion: Occasion = "request") -> None:
        """Open the stage that comes next; decide when there is none."""
        stage = self._case.next_stage()
        if stage is None:
            self._approve()
            return
        opened_at = now()
        found = await self.find(stage)
        self._case.open(stage, found, opened_at)
        if not self._has_opened:
            self._refuse_if_nobody_can(stage, found)
        self._has_opened = True
        self._timers.start(opened_at)
        if found.errors:
            self._timers.look_again(now(), 0)
        self._timers.look_when_somebody_leaves(found.changes_at)
        self._copies.begin()
        self._changed()
        self._telling.send_cards(stage, occasion)

    def _approve(self) -> None:
        """Every stage is complete: the last vote decided. Without a vote, no stage applied."""
        votes = sorted(
            (vote for stage in self._case.stages if stage.ballot for vote in standing_votes(stage.ballot)),
            key=lambda vote: vote.at,
        )
        if votes:
            self._case.decide("approved", votes[-1].by, votes[-1].at, votes[-1].via, votes[-1].comment)
        else:
            self._case.decide("approved", NO_STAGE, now(), "rule", because="no stage applies to this request")

    def _refuse_if_nobody_can(self, stage: StageState, found: Found) -> None:
        rules = dict(self._case.content.seats(stage.rule))
        assert stage.ballot is not None, "it was just opened"
        seats = zip(self._case.asks(stage), stage.ballot.seats, strict=True)
        why = seats_that_fail([(ask, seat.label, rules[ask.id].need) for ask, seat in seats], found)
        if why:
            raise NobodyCanDecideError(stage.rule.id, why)

    async def find(self, stage: StageState, *also: str) -> Found:
        return await find_people(self._case.asks(stage), self._case.about, also, now())

    async def escalate(self, stage: StageState, numbers: list[int]) -> None:
        for number in numbers:
            rule = self._case.definition.escalate[number]
            self._case.escalate(stage, rule.to, rule.mode)
        told = stage.told
        self._case.seat(stage, await self.find(stage))
        self._changed()
        self._copies.tell("escalation", only_channels=True)
        self._telling.send_cards(stage, "escalation", but=told)

    async def look_again(self, stage: StageState, times: int) -> None:
        """Ask once more for people whose source was down when the stage opened, and tell those who are found."""
        told, found = stage.told, await self.find(stage)
        self._case.seat(stage, found)
        if found.errors:
            self._timers.look_again(now(), times)
        self._timers.look_when_somebody_leaves(found.changes_at)
        self._changed()
        self._telling.send_cards(stage, "request", but=told)
