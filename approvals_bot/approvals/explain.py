"""Explanation of a pending request: the approvers and why, each rule with its values, and what comes next. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from approvals_bot.approvals.acts import Act, act_word
from approvals_bot.approvals.ballot import Count, counts, missing
from approvals_bot.approvals.given_grants import ALLOWANCE
from approvals_bot.approvals.reassignment import reassignment_text
from approvals_bot.approvals.request import BREAK_GLASS, AppliedRule, Request, RequestStage
from approvals_bot.approvals.standing_grants import covers_text
from approvals_bot.approvals.text import waiting
from approvals_bot.approvals.values import shown_date


def explain(view: Request) -> dict[str, Any]:
    """Explain why a request waits, as JSON.

    Returns `waiting_for: [{person, stage, why}]`, `rules: [{rule, values, applies, because}]`, `next: [{at, what}]`,
    and `acts: [{at, by, what, via, actor}]`: the votes that count and the reassignments, each with the person it is
    `by`, and who performed it: an app, for example. `reached`: `[{person, channel, state}]`, a line for each card of a
    person it waits for. `stages`: `[{id, title, state, because, seats: [{label, have, need, of, unread}], left_out:
    [{person, why}], delegates: [{person, instead_of}]}]`; `of` is null until the stage opens. Of alternatives, each
    seat has its `alternative`, from 1.
    """
    return {
        "waiting_for": _waiting_for(view),
        "unresolved": [{"source": fault.source, "reason": fault.reason} for fault in view.unresolved],
        "rules": [
            *(_rule(rule) for rule in view.rules),
            *_votes_needed(view),
            *_picks(view),
            *_carried(view),
            *_reassignments(view),
            *_without_votes(view),
        ],
        "next": [*({"at": _iso(timer.at), "what": timer.what} for timer in view.timers), *_end_of_grant(view)],
        "acts": _acts(view),
        "reached": _reached(view),
        "stages": [_stage(stage) for stage in view.stages],
    }


def _end_of_grant(view: Request) -> list[dict[str, Any]]:
    grant = view.grant
    if grant is None or grant.state != "active" or grant.until is None:
        return []
    return [{"at": _iso(grant.until), "what": "the grant ends and is removed"}]


def _waiting_for(view: Request) -> list[dict[str, Any]]:
    stage = view.stage
    if stage is None:
        return []
    if view.state == "changes_requested":
        return [{"person": view.requester, "stage": stage.id, "why": "changes were asked for"}]
    return [{"person": address, "stage": stage.id, "why": _why(stage, address)} for address in view.waiting_for]


def _reached(view: Request) -> list[dict[str, Any]]:
    return [
        {"person": address, "channel": copy.channel, "state": copy.state}
        for address in view.waiting_for
        for copy in view.deliveries
        if copy.to == address
    ]


def _stage(stage: RequestStage) -> dict[str, Any]:
    """Return how far each seat of a stage is, and who may not decide there."""
    is_known, is_choice = stage.opened_at is not None, len({seat.alternative for seat in stage.seats}) > 1
    every = counts(stage)
    sizes = {seat: size for counted in every for seat, size in counted.sizes.items()}
    filled = [seat for counted in every for seat in counted.seated.values()]
    left_out = [*((one, "the requester") for one in stage.requesters), *((one, "excluded") for one in stage.excluded)]
    return {
        "id": stage.id,
        "title": stage.title,
        "state": stage.state,
        "because": stage.because,
        "seats": [
            {
                "label": seat.label,
                "have": filled.count(seat.id),
                "need": sizes[seat.id] if is_known else seat.need,
                "of": len(seat.eligible) if is_known else None,
                "unread": [str(fault) for fault in seat.unread],
            }
            | ({"alternative": seat.alternative + 1} if is_choice else {})
            for seat in stage.seats
        ],
        "left_out": [{"person": one, "why": why} for one, why in dict(left_out).items()],
        "delegates": [
            {"person": delegate, "instead_of": absent}
            for seat in stage.seats
            for delegate, absent in seat.in_place_of.items()
        ],
    }


def _why(stage: RequestStage, address: str) -> str:
    """List all reasons why this person is an approver: they may be eligible for several seats."""
    return ", ".join(dict.fromkeys(seat.eligible[address] for seat in stage.seats if address in seat.eligible))


def _votes_needed(view: Request) -> list[dict[str, Any]]:
    """Describe each opened stage, or each of its alternatives, as a rule: votes cast, needed and missing."""
    found = []
    for stage in view.stages:
        every = counts(stage) if stage.state in ("open", "done") else ()
        for number, counted in enumerate(every):
            found.append(
                {
                    "rule": f"stage {stage.id}: {'or ' if number else ''}{_seats(stage, counted)}",
                    "values": {"have": counted.have, "need": counted.need},
                    "applies": stage.state == "open",
                    "because": _because(stage, counted),
                }
            )
        if stage.veto is not None and stage.state in ("open", "done"):
            against = sum(vote.counts and vote.choice == "reject" for vote in stage.votes)
            found.append(
                {
                    "rule": f"stage {stage.id}: only {stage.veto.label} can reject",
                    "values": {"have": against, "need": stage.veto.need},
                    "applies": stage.state == "open",
                    "because": ", ".join(stage.veto.eligible) or "nobody",
                }
            )
    return found


def _rule(rule: AppliedRule) -> dict[str, Any]:
    return {"rule": rule.rule, "values": rule.values, "applies": rule.applies, "because": rule.because}


def _without_votes(view: Request) -> list[dict[str, Any]]:
    """Describe the earlier approval or the emergency that decided, and what this approval covers of later requests."""
    found = []
    ended = view.outcome
    if ended is not None and ended.by.startswith(("grant:", ALLOWANCE, BREAK_GLASS)):
        found.append({"rule": ended.by, "values": {}, "applies": True, "because": ended.because})
    if view.standing is not None:
        grant = view.standing.grant
        because = covers_text(grant, shown_date(grant.until.date()))
        found.append({"rule": grant.id, "values": {"by": list(grant.givers)}, "applies": True, "because": because})
    return found


def _carried(view: Request) -> list[dict[str, Any]]:
    return [
        {
            "rule": f"stage {stage.id}: the approval of {vote.by} in stage {vote.carried_from} counts again",
            "values": {},
            "applies": vote.counts,
            "because": "carry_over",
        }
        for stage in view.stages
        for vote in stage.votes
        if vote.carried_from
    ]


def _picks(view: Request) -> list[dict[str, Any]]:
    """Describe who was picked for each seat, in the order of the picks."""
    found = []
    for stage in view.stages:
        for seat in stage.seats:
            if picked := view.picks.get(f"{stage.id} {seat.id}"):
                found.append(
                    {
                        "rule": f"stage {stage.id}: {len(picked)} of {seat.label} were picked",
                        "values": {"picked": [*picked]},
                        "applies": stage.state == "open",
                        "because": "their last turn was longest ago; ties are broken at random",
                    }
                )
    return found


def _reassignments(view: Request) -> list[dict[str, Any]]:
    return [
        {
            "rule": f"stage {done.stage}: {done.act.person} was asked",
            "values": {},
            "applies": True,
            "because": reassignment_text(done.act, view.people),
        }
        for done in view.reassignments
    ]


def _acts(view: Request) -> list[dict[str, Any]]:
    done: list[tuple[datetime, Act]] = [
        (vote.at, vote.vote) for vote in view.votes if vote.counts and not vote.carried_from
    ]
    done += [(each.at, each.act) for each in view.reassignments]
    return [
        {
            "at": _iso(at),
            "by": act.by,
            "what": act_word(act),
            "via": act.via,
            "actor": None if act.actor is None else act.actor.as_json(),
        }
        for at, act in sorted(done, key=lambda each: each[0])
    ]


def _seats(stage: RequestStage, counted: Count) -> str:
    seats = [seat for seat in stage.seats if seat.id in counted.sizes]
    return " and ".join(f"{'everyone' if seat.need == 'all' else seat.need} of {seat.label}" for seat in seats)


def _because(stage: RequestStage, counted: Count) -> str:
    if unread := dict.fromkeys(fault for seat in stage.seats if seat.id in counted.sizes for fault in seat.unread):
        return "; ".join(map(str, unread))
    if stage.state == "done":
        return "it is over"
    return waiting((lack.label, lack.count) for lack in missing(stage, counted)) or "every seat is filled"


def _iso(at: Any) -> str:
    return str(at.isoformat()).replace("+00:00", "Z")
