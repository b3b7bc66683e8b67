"""What a time does that has come while a request is open."""

from __future__ import annotations

from approvals_bot.approvals.ballot import standing_votes
from approvals_bot.approvals.case import Case
from approvals_bot.approvals.request import DEADLINE
from approvals_bot.approvals.stage import StageState
from approvals_bot.approvals.stages import Stages
from approvals_bot.approvals.telling import Telling
from approvals_bot.approvals.timers import Due, StageTimers
from approvals_bot.durable.core.api import now


class ComingDue:
    """Reminders, late mails, escalations, the deadline, the end of the grace period."""

    def __init__(self, case: Case, *, timers: StageTimers, telling: Telling, stages: Stages) -> None:
        self._case = case
        self._timers = timers
        self._telling = telling
        self._stages = stages
        self._put_off: list[Due] = []  # what came while a decision could still be taken back

    async def catch_up(self) -> None:
        """What came due while a decision was held, once it is taken back."""
        while self._put_off and self._case.held is None and self._case.outcome is None:
            await self.come(self._put_off.pop(0))

    async def come(self, due: Due) -> None:
        """A time has come; one of a stage that is closed counts no more."""
        stage = self._case.stage
        if due.round != self._timers.round or stage is None:
            return
        if self._case.held is not None and due.kind != "grace":
            self._put_off.append(due)
            return
        match due.kind:
            case "grace":
                if self._case.held is not None and due.number == self._case.times_held:
                    self._case.take_effect()
            case "deadline":
                await self._end_in_time(stage)
            case "reminder":
                self._telling.remind(stage)
            case "mail":
                if not standing_votes(self._case.ballot):
                    self._telling.send_late_mails(stage)
            case "escalation":
                await self._stages.escalate(stage, [due.number])
            case "people":
                await self._stages.look_again(stage, due.number)
            case "absence":
                self._case.version += 1  # whoever is asked now is another, or asked in another's place
                await self._stages.look_again(stage, 0)

    async def _end_in_time(self, stage: StageState) -> None:
        """The deadline has come before a decision."""
        because = f"Nobody decided in time in stage “{stage.title}”."
        on_deadline = self._case.definition.clock.on_deadline
        if self._case.state == "changes_requested":
            on_deadline, because = "expire", "The changes that were asked for did not come in time."
        match on_deadline:
            case "escalate" if not self._timers.is_extended and self._timers.escalations_at_deadline():
                self._timers.extend(now())
                await self._stages.escalate(stage, self._timers.escalations_at_deadline())
            case "reject":
                self._case.decide("rejected", DEADLINE, now(), "clock", because=because)
            case "approve":
                self._case.decide("approved", DEADLINE, now(), "clock", because=because)
            case _:
                self._case.decide("expired", DEADLINE, now(), "clock", because=because)
