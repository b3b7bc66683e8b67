"""Simulation: who would get a request, by which channels, and when what would happen, without opening it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.ballot import by_alternative, size_of
from approvals_bot.approvals.business_time import length_text
from approvals_bot.approvals.eligibility import RequestContext, Resolution, ResolvedSeat, label_of, with_delegates
from approvals_bot.approvals.grants import length_fault
from approvals_bot.approvals.named_people import opening_with_people
from approvals_bot.approvals.notifications import personal, to_escalated
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import EMAIL, SLACK, ToPerson
from approvals_bot.approvals.request import Opening, Request, RequestStage
from approvals_bot.approvals.resolution import is_among, resolve_seats, with_groups
from approvals_bot.approvals.rules import IN_FIELD, Rules, facts_of, rules_of
from approvals_bot.approvals.stages import (
    TOO_FEW,
    carries_over,
    context_of,
    different_people,
    escalated,
    judged,
    opened,
    request_of,
    seat_queries,
    uncovered,
    why_undecidable,
)
from approvals_bot.approvals.standing_policy import MOST_TIMES
from approvals_bot.approvals.timers import Time, late_escalations, past_deadlines, stage_times
from approvals_bot.approvals.values import shown_duration
from approvals_bot.people import People, Person

NOT_REQUESTED = "the requester can't request these values, by [[request]]"


async def simulate(
    definition: Definition, opening: Opening, people: People, now: datetime, *, has_slack: bool = True
) -> dict[str, Any]:
    """Return what would happen if this were requested now, as JSON:

    - `who`: `[{person, stage, why, via}]`, everyone who could decide or reject, stage by stage.
    - `auto`: the rule that would decide without people, or null; rule 0 is `when_nobody`.
    - `timers`: `[{at, what}]` of the first stage. Each stage has its own, too, as if it opened now.
    - `problems`: why it would be refused.
    - `besides`: what the file allows besides votes on this request, if it has [standing] or [break_glass].
    - `stages`: `[{id, title, state, because, seats: [{label, need, of, share?, unread?}], skipped_seats: [{label,
      because}], veto: {label, need, of} or null, left_out: [{person, why}], away: [{person, back, delegate, trouble}],
      timers, escalations: [{at, to, mode, who: [{person, why, via}]}]}]`. `need` of so many people; `share`: how the
      file says that, if not as a number. Of alternatives, each seat has its `alternative`, from 1. Where the file picks
      a few of the people, `pick` says how many. Where earlier approvals count again, `carries_over` lists the people
      whose may.

    `has_slack`: False if Slack isn't configured, so that direct messages become mails. Raises InvalidPayloadError for
    invalid fields, and SourceUnavailable if a group that decides who may request this can't be read.
    """
    opening = await with_groups(definition, opening, people)
    opening = await opening_with_people(definition.fields, opening, people)
    rules = rules_of(definition, opening)
    request = judged(request_of(rules, opening, at=now), rules, now, *rules.stages)
    ruling = rules.ruling_of(request)
    if not ruling.may_be_requested:
        return _decided(None, [NOT_REQUESTED])
    if past := past_deadlines(definition, ruling.typed, now):
        return _decided(None, [f"{each.path[0]} {each.text}" for each in past])
    if fault := length_fault(definition, facts_of(request, rules)):
        return _decided(None, [f"{fault.path[0]} {fault.text}" if fault.path else fault.text])
    if (matched := ruling.automatic) is not None:
        number, rule, because = matched
        return _decided({"rule": number, "decision": rule.decision, "because": because})
    play = _Simulation(request, rules, people, now, has_slack)
    if why := uncovered(ruling):
        stages = [play.skipped(stage) for stage in request.stages]
        if (decision := definition.policy.when_nobody) is None:
            return _decided(None, [why], stages)
        return _decided({"rule": 0, "decision": decision, "because": why}, stages=stages)
    return await play.run()


def _decided(
    auto: dict[str, Any] | None, problems: Iterable[str] = (), stages: Iterable[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return a simulation in which nobody is asked."""
    return {"who": [], "auto": auto, "timers": [], "problems": [*problems], "stages": [*stages]}


def _besides(definition: Definition) -> list[str]:
    """Say what the file allows besides votes on this request."""
    found, rule = list[str](), definition.standing
    if rule is not None:
        same, most = " and ".join(readable(name).lower() for name in rule.match), rule.times or MOST_TIMES
        whose = "of anybody" if rule.for_ == "anyone" else "of the same requester"
        about = f"with the same {same}, {whose}, for {shown_duration(rule.lasts)}"
        total = f" and {rule.sum.max:f} of {readable(rule.sum.field).lower()} in all" if rule.sum is not None else ""
        found.append(f"An approval also covers later requests {about}: at most {most:,} of them{total}.")
    if definition.break_glass is not None:
        found.append(f"{', '.join(definition.break_glass.who)} can open it without a vote, in an emergency.")
    return found


@dataclass(frozen=True, slots=True)
class _Simulation:
    """A request as it would open, and where its people are looked up."""

    request: Request
    rules: Rules
    people: People
    now: datetime
    has_slack: bool

    async def run(self) -> dict[str, Any]:
        """Look at every stage, in order."""
        ahead = list[tuple[RequestStage, Resolution]]()
        who, problems, shown = list[dict[str, Any]](), list[str](), list[dict[str, Any]]()
        for stage in self.request.stages:
            if stage.state == "skipped":
                shown.append(self.skipped(stage))
                continue
            raw = await self._resolve(stage, context_of(self.request, self.rules, stage), self.now)
            found = with_delegates(raw, stage.seats)
            eligible = dict.fromkeys(address for seat in found.seats for address in seat.eligible)
            earlier = {address for _, before in ahead for seat in before.seats for address in seat.eligible}
            ahead.append((stage, found))
            who += [*self._asked(stage, found), *self._vetoing(stage, found.veto)]
            shown.append(await self._stage(stage, raw, found))
            if carries_over(self.rules.definition, self.rules.stages[stage.id]):
                shown[-1]["carries_over"] = [address for address in eligible if address in earlier]
            if reason := why_undecidable(self.request, self.rules, stage, found):
                problems.append(f"stage {stage.id}: {reason}")
        is_distinct = self.rules.definition.policy.distinct and not problems
        if is_distinct and (title := different_people(self.request, self.rules, ahead)):
            problems.append(f"stage {title}: {TOO_FEW}")
        timers: list[dict[str, Any]] = next((stage["timers"] for stage in shown if stage["state"] != "skipped"), [])
        whole: dict[str, Any] = {"who": who, "auto": None, "timers": timers, "problems": problems, "stages": shown}
        besides = _besides(self.rules.definition)
        return whole | ({"besides": besides} if besides else {})

    def skipped(self, stage: RequestStage) -> dict[str, Any]:
        """Return a stage that doesn't apply."""
        nothing: dict[str, Any] = {name: [] for name in ("seats", "left_out", "away", "timers", "escalations")}
        seats = self._skipped_seats(stage)
        return {**_about(stage), **nothing, "skipped_seats": seats, "veto": None}

    async def _stage(self, stage: RequestStage, raw: Resolution, found: Resolution) -> dict[str, Any]:
        times = stage_times(self._here(stage), self.now, self.rules.ruling(self.request.fields).typed)
        seats, is_choice = {seat.id: seat for seat in stage.seats}, len(by_alternative(stage.seats)) > 1
        about, rule = context_of(self.request, self.rules, stage), self.rules.stages[stage.id]
        return {
            **_about(stage),
            "seats": [
                _needed(label_of(rule.seats[each.id].from_, about, raw.people), seats[each.id].need, each)
                | ({"alternative": seats[each.id].alternative + 1} if is_choice else {})
                | ({} if (pick := rule.seats[each.id].pick) is None else {"pick": pick})
                for each in found.seats
            ],
            "skipped_seats": self._skipped_seats(stage),
            "veto": None
            if rule.veto is None or found.veto is None
            else _needed(label_of(rule.veto.from_, about, raw.people), rule.veto.need, found.veto),
            "left_out": [each async for each in self._left_out(stage, about, found)],
            "away": [_absence(address, found) for address in found.away],
            "timers": [{"at": _iso(time.at), "what": time.what} for time in sorted(times, key=lambda time: time.at)],
            "escalations": [each async for each in self._escalations(stage, raw, times)],
        }

    def _skipped_seats(self, stage: RequestStage) -> list[dict[str, Any]]:
        """Return the seats whose own condition is false."""
        rule, about = self.rules.stages[stage.id], context_of(self.request, self.rules, stage)
        skipped = self.rules.ruling_of(self.request).skipped_seats(rule).items()
        return [
            {"label": label_of(rule.seats[number].from_, about, self.request.people), "because": because}
            for number, because in skipped
        ]

    async def _resolve(self, stage: RequestStage, about: RequestContext, at: datetime | None) -> Resolution:
        return await resolve_seats(seat_queries(self.request, self.rules, stage), about, self.people, at=at)

    def _asked(self, stage: RequestStage, found: Resolution) -> Iterator[dict[str, Any]]:
        why: dict[str, list[str]] = {}
        notified = [address for seat in found.seats for address in seat.notified]
        for seat in found.seats:
            for address, reason in seat.eligible.items():
                why.setdefault(address, []).append(reason)
        for address, reasons in why.items():
            via = self._ways(stage, found.people[address], is_notified=address in notified)
            yield {"person": address, "stage": stage.id, "why": ", ".join(dict.fromkeys(reasons)), "via": via}

    def _vetoing(self, stage: RequestStage, veto: ResolvedSeat | None) -> Iterator[dict[str, Any]]:
        """Yield those who alone may reject, as approvers are shown."""
        for address, why in veto.eligible.items() if veto is not None else ():
            via = self._ways(stage, self.people.person(address), is_notified=True)
            yield {"person": address, "stage": stage.id, "why": f"may reject: {why}", "via": via}

    async def _left_out(
        self, stage: RequestStage, about: RequestContext, found: Resolution
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the people of the stage who may not decide, and why."""
        everybody = await self._resolve(stage, replace(about, self_approval="allow", exclude=()), None)
        entitled = {address for seat in everybody.seats for address in seat.eligible}
        for address in about.barred:
            if address in entitled and not any(address in seat.eligible for seat in found.seats):
                why = "the requester" if address == about.requester else "the person it is requested for"
                yield {"person": address, "why": why}
        for address in found.excluded:
            if address not in about.barred:
                yield {"person": address, "why": await self._why_excluded(address, about)}

    async def _why_excluded(self, address: str, about: RequestContext) -> str:
        definition = self.rules.definition
        for entry in definition.policy.exclude or ():
            if (name := entry.removeprefix(IN_FIELD)) != entry:
                if self._is_named(address, self.request.fields.get(name)):
                    return f"excluded as {definition.fields[name].label or readable(name)}"
            elif (await is_among(address, (entry,), about, self.people))[0]:
                return f"excluded as {label_of((entry,), about, self.request.people)}"
        return "excluded"

    def _is_named(self, address: str, value: JsonValue) -> bool:
        """Return whether a field's value, or one of a list, is this person."""
        texts = value if isinstance(value, list) else [value]
        return any(isinstance(text, str) and self.people.identity(text) == address for text in texts)

    async def _escalations(
        self, stage: RequestStage, found: Resolution, times: Sequence[Time]
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield whom each escalation reaches, if nobody has voted by then."""
        definition = self._here(stage)
        deadline = next((time.at for time in times if time.kind == "deadline"), None)
        at = {time.number: time.at for time in times if time.kind == "escalation"}
        if definition.clock.on_deadline == "escalate" and deadline is not None:
            at |= dict.fromkeys(late_escalations(definition, times), deadline)
        request = opened(self.request, self.rules, stage, found, self.now)
        for number in sorted(at, key=lambda number: at[number]):
            now_open, escalation = request.stage, definition.escalate[number]
            assert now_open is not None, "it was opened above"
            request = escalated(request, now_open, escalation)
            assert request.stage is not None, "it stays open"
            about = context_of(request, self.rules, request.stage)
            asks = seat_queries(request, self.rules, request.stage)
            reached = await resolve_seats(asks, about, self.people, at=at[number])
            reached = with_delegates(reached, request.stage.seats)
            yield {
                "at": _iso(at[number]),
                "to": list(escalation.to),
                "mode": escalation.mode,
                "who": [
                    {"person": one, "why": _why(one, reached), "via": self._escalated_ways(stage, reached.people[one])}
                    for one in reached.escalated
                ],
            }

    def _here(self, stage: RequestStage) -> Definition:
        return self.rules.in_stage(stage.id, self.request)

    def _escalated_ways(self, stage: RequestStage, person: Person) -> str:
        return ", ".join(self._own_ways(to_escalated(self._here(stage).deliver, person)))

    def _ways(self, stage: RequestStage, person: Person, *, is_notified: bool) -> str:
        """List the channels by which a person is notified: `#deploys, mail`."""
        deliver = self._here(stage).deliver
        ways = [deliver.slack] if deliver.slack else []
        ways += [to for to in deliver.channels.values() if to is not True]
        if is_notified:
            ways += self._own_ways(personal(deliver, person))
            if deliver.email:
                ways.append(f"mail after {length_text(deliver.email)}")
        return ", ".join(ways) or ("inbox" if is_notified else "not notified")

    def _own_ways(self, ways: Iterable[ToPerson]) -> list[str]:
        """Name the channels of a person's own cards, each once."""
        channels = (EMAIL if way.channel == SLACK and not self.has_slack else way.channel for way in ways)
        return list(dict.fromkeys({SLACK: "dm", EMAIL: "mail"}.get(channel, channel) for channel in channels))


def _about(stage: RequestStage) -> dict[str, Any]:
    return {"id": stage.id, "title": stage.title, "state": stage.state, "because": stage.because}


def _needed(label: str, need: int | str, seat: ResolvedSeat) -> dict[str, Any]:
    """Return how many of how many people are needed; of a list that can't be read, as far as it is known."""
    of = len(seat.eligible)
    found: dict[str, Any] = {"label": label, "need": size_of(need, of), "of": of}
    if isinstance(need, str):
        found["share"] = need
    if seat.errors:
        found["unread"] = [str(fault) for fault in seat.errors]
    return found


def _absence(address: str, found: Resolution) -> dict[str, Any]:
    """Return when somebody is back, and who is asked instead."""
    away = found.away[address]
    pairs = {absent: delegate for seat in found.seats for delegate, absent in seat.in_place_of.items()}
    return {
        "person": address,
        "back": away.back.isoformat(),
        "delegate": pairs.get(address),
        "trouble": away.trouble,
    }


def _why(address: str, found: Resolution) -> str:
    reasons = (seat.eligible[address] for seat in found.seats if address in seat.eligible)
    return ", ".join(dict.fromkeys(reasons))


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
