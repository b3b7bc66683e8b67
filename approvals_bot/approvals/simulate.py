"""What a workflow would do with a request, without opening it: who is asked, how each is told, and what comes when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from approvals_bot.approvals.business_time import length_text
from approvals_bot.approvals.case import Case
from approvals_bot.approvals.eligibility import Found, RequestContext, find, label_of, seats_that_fail, with_stand_ins
from approvals_bot.approvals.policy import Definition, Deliver
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.stage import StageState
from approvals_bot.approvals.timers import times_of
from approvals_bot.people import People


async def simulate(definition: Definition, opening: Opening, people: People, now: datetime) -> dict[str, Any]:
    """`{"who": [{person, stage, why, via}], "auto", "timers": [{at, what}]}`, and `"problems"`.

    `auto` is the rule that would decide, or null. `timers` are those of the first stage, as if it opened now; a
    later stage's count from when it opens. Raises InvalidPayloadError for fields that don't fit.
    """
    case = case_of(definition, opening)
    matched = case.content.automatic()
    if matched is not None:
        number, rule, because = matched
        auto = {"rule": number, "decision": rule.decision, "because": because}
        return {"who": [], "auto": auto, "timers": [], "problems": []}
    who, problems = [], []
    stages = [stage for stage in case.stages if stage.state != "skipped"]
    for stage in stages:
        needs = {number: seat.need for number, seat in case.content.seats(stage.rule)}
        found = with_stand_ins(await find(case.asks(stage), case.about, people, at=now), needs)
        who += list(_asked(stage, found, definition.deliver))
        problems += _problems(case, stage, found)
    timers = [{"at": _iso(at), "what": what} for at, what in times_of(definition, now)] if stages else []
    return {"who": who, "auto": None, "timers": timers, "problems": problems}


async def who_could_not_decide(definition: Definition, opening: Opening, people: People) -> tuple[str, ...]:
    """Why nobody could ever decide this request, stage by stage; empty when it can be opened.

    A source of people that can't be read now leaves it open: it is read again when the stage opens.
    """
    case = case_of(definition, opening)
    if case.content.automatic() is not None:
        return ()
    problems: list[str] = []
    for stage in case.stages:
        if stage.state != "skipped":
            problems += _problems(case, stage, await find(case.asks(stage), case.about, people))
    return tuple(problems)


def case_of(definition: Definition, opening: Opening) -> Case:
    """The request as it would be opened."""
    behalf = opening.on_behalf_of.lower() if opening.on_behalf_of else None
    about = RequestContext(opening.requester.lower(), behalf, opening.fields, definition.policy.self_approval)
    return Case(definition, opening.fields, about)


def _asked(stage: StageState, found: Found, deliver: Deliver) -> Iterator[dict[str, Any]]:
    why: dict[str, list[str]] = {}
    told = [who for seat in found.seats for who in seat.told]
    for seat in found.seats:
        for who, reason in seat.eligible.items():
            why.setdefault(who, []).append(reason)
    for who, reasons in why.items():
        via = _ways(deliver, is_told=who in told)
        yield {"person": who, "stage": stage.rule.id, "why": ", ".join(dict.fromkeys(reasons)), "via": via}


def _ways(deliver: Deliver, *, is_told: bool) -> str:
    """By which ways a person hears of it: `#deploys, mail`."""
    ways = [deliver.slack] if deliver.slack else []
    if is_told and deliver.dm:
        ways.append("dm")
    if is_told and deliver.email is not None:
        ways.append(f"mail after {length_text(deliver.email)}" if deliver.email else "mail")
    return ", ".join(ways) or ("inbox" if is_told else "not told")


def _problems(case: Case, stage: StageState, found: Found) -> list[str]:
    rules, people = dict(case.content.seats(stage.rule)), case.people | found.people
    asks = case.asks(stage)
    seats = [(ask, label_of(rules[ask.id].from_, case.about, people), rules[ask.id].need) for ask in asks]
    why = seats_that_fail(seats, found)
    return [f"stage {stage.rule.id}: {why}"] if why else []


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
