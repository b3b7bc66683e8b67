"""Simulation: who would get a request, by which channels, and when what would happen, without opening it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from approvals_bot.approvals.ballot import by_alternative, size_of
from approvals_bot.approvals.business_time import length_text
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.eligibility import Resolution, ResolvedSeat, with_delegates
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening, RequestStage
from approvals_bot.approvals.resolution import resolve_seats, with_groups
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.stages import (
    context_of,
    different_people,
    request_of,
    seat_queries,
    uncovered,
    why_undecidable,
)
from approvals_bot.approvals.timers import past_deadlines, stage_times
from approvals_bot.people import People

TOO_FEW = "too few people are left who decide in no other stage"


async def simulate(definition: Definition, opening: Opening, people: People, now: datetime) -> dict[str, Any]:
    """Return `{"who": [{person, stage, why, via}], "auto", "timers": [{at, what}], "problems", "stages"}`.

    `auto` is the rule that would decide, or null; rule 0 is `when_nobody`. `timers` are those of the first stage, as if
    it opened now; those of later stages start when they open. `stages`, unless a rule decides: `[{id, state, because,
    seats: [{label, need, of}]}]`, `need` of so many people; of alternatives, each seat has its `alternative`, from 1.
    Raises InvalidPayloadError for invalid fields.
    """
    opening = await with_groups(definition, opening, people)
    rules = rules_of(definition, opening)
    request = request_of(rules, opening, at=now)
    if not rules.ruling(request.fields).may_be_requested:
        why = "the requester can't request these values, by [[request]]"
        return {"who": [], "auto": None, "timers": [], "problems": [why]}
    if past := past_deadlines(definition, rules.ruling(request.fields).typed, now):
        problems = [f"{each.path[0]} {each.text}" for each in past]
        return {"who": [], "auto": None, "timers": [], "problems": problems}
    matched = rules.ruling(request.fields).automatic
    if matched is not None:
        number, rule, because = matched
        auto = {"rule": number, "decision": rule.decision, "because": because}
        return {"who": [], "auto": auto, "timers": [], "problems": []}
    why = uncovered(rules.ruling(request.fields))
    if why:
        decision = definition.policy.when_nobody
        if decision is None:
            return {"who": [], "auto": None, "timers": [], "problems": [why]}
        return {"who": [], "auto": {"rule": 0, "decision": decision, "because": why}, "timers": [], "problems": []}
    ahead = list[tuple[RequestStage, Resolution]]()
    approvers, problems, shown = list[dict[str, Any]](), list[str](), list[dict[str, Any]]()
    stages = [stage for stage in request.stages if stage.state != "skipped"]
    for stage in request.stages:
        if stage.state == "skipped":
            shown.append(_stage_shown(stage, ()))
            continue
        about = context_of(request, rules, stage)
        found = await resolve_seats(seat_queries(request, rules, stage), about, people, at=now)
        found = with_delegates(found, stage.seats)
        ahead.append((stage, found))
        shown.append(_stage_shown(stage, found.seats))
        vetoing = list(_vetoing(stage, found.veto, definition.deliver))
        approvers += list(_asked(stage, found, definition.deliver))
        approvers += vetoing
        if reason := why_undecidable(request, rules, stage, found):
            problems.append(f"stage {stage.id}: {reason}")
    if definition.policy.distinct and not problems and (title := different_people(request, rules, ahead)):
        problems.append(f"stage {title}: {TOO_FEW}")
    typed = rules.ruling(request.fields).typed
    times = sorted(stage_times(definition, now, typed), key=lambda time: time.at) if stages else []
    timers = [{"at": _iso(time.at), "what": time.what} for time in times]
    return {"who": approvers, "auto": None, "timers": timers, "problems": problems, "stages": shown}


async def find_undecidable_stage(
    definition: Definition, opening: Opening, people: People, now: datetime
) -> tuple[str, str] | None:
    """Find the first stage that nobody could ever decide, and why; None if there is none. "": no stage applies.

    A source of people that can't be read now doesn't count: it is read again when the stage opens.
    """
    rules = rules_of(definition, opening)
    request = request_of(rules, opening, at=now)
    if rules.ruling(request.fields).automatic is not None:
        return None
    if definition.policy.when_nobody is None and (why := uncovered(rules.ruling(request.fields))):
        return "", why
    ahead = list[tuple[RequestStage, Resolution]]()
    for stage in request.stages:
        if stage.state != "skipped":
            found = await resolve_seats(seat_queries(request, rules, stage), context_of(request, rules, stage), people)
            ahead.append((stage, found))
            if reason := why_undecidable(request, rules, stage, found):
                return stage.id, reason
    title = different_people(request, rules, ahead) if definition.policy.distinct else ""
    return (title, TOO_FEW) if title else None


def _stage_shown(stage: RequestStage, seats: Sequence[ResolvedSeat]) -> dict[str, Any]:
    """Return whether a stage applies and why, and how many of how many people each seat needs."""
    known, is_choice = {seat.id: seat for seat in stage.seats}, len(by_alternative(stage.seats)) > 1
    needed = [
        {"label": known[one.id].label, "need": size_of(known[one.id].need, len(one.eligible)), "of": len(one.eligible)}
        | ({"alternative": known[one.id].alternative + 1} if is_choice else {})
        for one in seats
    ]
    return {"id": stage.id, "state": stage.state, "because": stage.because, "seats": needed}


def _vetoing(stage: RequestStage, veto: ResolvedSeat | None, deliver: Deliver) -> Iterator[dict[str, Any]]:
    """Yield those who alone may reject, as approvers are shown."""
    for address, why in veto.eligible.items() if veto is not None else ():
        via = _ways(deliver, is_notified=True)
        yield {"person": address, "stage": stage.id, "why": f"may reject: {why}", "via": via}


def _asked(stage: RequestStage, found: Resolution, deliver: Deliver) -> Iterator[dict[str, Any]]:
    why: dict[str, list[str]] = {}
    notified = [address for seat in found.seats for address in seat.notified]
    for seat in found.seats:
        for address, reason in seat.eligible.items():
            why.setdefault(address, []).append(reason)
    for address, reasons in why.items():
        via = _ways(deliver, is_notified=address in notified)
        yield {"person": address, "stage": stage.id, "why": ", ".join(dict.fromkeys(reasons)), "via": via}


def _ways(deliver: Deliver, *, is_notified: bool) -> str:
    """List the channels by which a person is notified: `#deploys, mail`."""
    ways = [deliver.slack] if deliver.slack else []
    if is_notified and deliver.dm:
        ways.append("dm")
    if is_notified and deliver.email is not None:
        ways.append(f"mail after {length_text(deliver.email)}" if deliver.email else "mail")
    return ", ".join(ways) or ("inbox" if is_notified else "not notified")


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
