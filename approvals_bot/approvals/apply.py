"""What people do to a request, and how it ends. Pure.

Each function takes a request and returns the next one. The compiled rules, the time and the people just looked up are
arguments: the workflow provides them, and carries out the effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals.acts import (
    Act,
    Actor,
    Change,
    Edit,
    Extend,
    Reassign,
    Rejection,
    Reply,
    Revoke,
    Stop,
    Vote,
    Withdraw,
    act_word,
)
from approvals_bot.approvals.ballot import (
    YES,
    cast,
    current_votes,
    refusal,
    reset,
    stage_status,
    vote_of,
)
from approvals_bot.approvals.call_limits import allowance_faults
from approvals_bot.approvals.card_model import State, Via
from approvals_bot.approvals.eligibility import (
    Resolution,
)
from approvals_bot.approvals.grants import fault_after_edit, reply_without_grant
from approvals_bot.approvals.json_values import same_json
from approvals_bot.approvals.picks import was_picked_for
from approvals_bot.approvals.reassignment import Rank, reassigned
from approvals_bot.approvals.request import (
    NO_STAGE,
    LastEdit,
    RecordedVote,
    Request,
    RequestOutcome,
    RequestStage,
)
from approvals_bot.approvals.rules import Rules
from approvals_bot.approvals.stages import (
    NobodyCanDecideError,
    carried_through,
    described,
    different_people,
    next_stage,
    planned,
    seated,
    uncovered,
    with_people,
    without_orphans,
)
from approvals_bot.approvals.timers import past_deadlines


def apply(
    request: Request,
    act: Change,
    at: datetime,
    *,
    rules: Rules,
    found: Resolution,
    rank: Rank | None = None,
    fits: forms.Fits | None = None,
    ahead: Sequence[tuple[RequestStage, Resolution]] = (),
) -> tuple[Request, Reply]:
    """Apply an act. Returns the next request, and the reply to the actor.

    `found`: the people of the open stage, as of now. `rank`: what the actor of a Reassign may do. `fits`: the
    author's own check of edited fields. `ahead`: the stages to come with their people, if a vote may matter there.
    """
    request = with_people(request, rules, found.people)
    if request.held is not None and not _may_change_mind(request, act):
        return request, held_reply(request, request.held, act, at)
    match act:
        case Withdraw() | Stop() | Edit() if request.reviews:
            return request, Reply("not_an_approver", code="review_stays")
        case Withdraw() | Stop():
            return _withdraw(request, act, at)
        case Edit():
            return _edit(request, act, at, rules, fits)
        case _ if request.state == "changes_requested":
            return request, not_now(request, act, at)
        case Reassign():
            return _reassign(request, act, at, rules, found, rank or Rank())
        case Vote():
            after, reply = _vote(request, act, at, rules, found, fits, ahead)
            if not rules.definition.policy.distinct or not ahead or act.choice not in YES:
                return after, reply
            title = different_people(after, rules, ahead)
            needed_later = Reply("not_an_approver", code="needed_later", params={"stage": title})
            return (request, needed_later) if title else (after, reply)


def late_reply(request: Request, act: Act, now: datetime) -> Reply:
    """Reply to an actor who comes after the end. `now`: the reply names the day only if it isn't today."""
    if isinstance(act, Revoke | Extend):
        return reply_without_grant(request, act)
    ended = request.outcome
    if ended is None:
        return Reply("already_decided", code="takes_no_votes")
    address = request.acting(ended.by, ended.in_place_of).text if ended.via != "clock" else ""
    params = {"by": address, **_moment(request, ended.at, now, act.by)}
    match ended.state:
        case "expired" | "withdrawn":
            return Reply(ended.state, code="ended", params={**params, "state": ended.state})
        case "cancelled":
            return Reply("withdrawn", code="ended", params={**params, "state": ended.state})
        case _:
            pass
    for vote in request.votes:
        if vote.counts and vote.by == act.by and vote.choice == act_word(act):
            return Reply("already_voted", code="voted_before_the_end", params={**params, "choice": vote.choice})
    return Reply("already_decided", code="ended", params={**params, "state": ended.state})


def _vote(
    request: Request,
    act: Vote,
    at: datetime,
    rules: Rules,
    found: Resolution,
    fits: forms.Fits | None,
    ahead: Sequence[tuple[RequestStage, Resolution]],
) -> tuple[Request, Reply]:
    """Count one person's choice, with the people of the open stage as resolved at the click."""
    assert request.stage is not None, "a stage is open"
    request = seated(request, rules, request.stage, found)
    stage = request.stage
    assert stage is not None, "it stays open"
    act = replace(act, comment=act.comment.strip())
    answers, rejections = forms.read_answers(rules.stages[stage.id], act, request.number_format(act.by))
    if act.allowance is not None:
        rejections = (*rejections, *allowance_faults(rules.definition.allowance, act, request))
    if act.choice == "edit":
        request, act, rejections = _edited_by_approver(request, act, at, rules, rejections, fits)
        if request.outcome is not None:
            return request, Reply("decided", True, "rule_decided")
        assert request.stage is not None, "it stays open"
        stage = request.stage
    invalid = Reply("invalid", rejections=rejections) if rejections else None
    stage, reply = cast(stage, act, at, request.digest, answers=answers, invalid=invalid)
    if request.reviews and reply.verdict == "decided":
        reply = replace(reply, code="reviewed")
    if not reply.changed:
        return request, _refused(request, act, reply)
    request = request.with_stage(stage, version=request.version + 1, held=None)
    if carries := rules.definition.policy.carry_over:
        request = without_orphans(request)
    state: State
    match stage_status(stage):
        case "open":
            return request, reply
        case "changes_requested":
            return request.but(state="changes_requested"), reply
        case "filled":
            request, following = next_stage(planned(request, rules) if act.choice == "edit" else request, rules, at)
            if carries and act.choice != "edit":  # after an edit other people may decide
                request, following = carried_through(request, rules, following, ahead, at)
            if following is not None:
                return request, Reply("counted", True, params={**reply.params, "next_stage": following.title})
            state = "approved"
        case "rejected" | "answered" as state:
            pass
    if rules.definition.policy.grace is not None:
        return _hold(request, stage.id, state, act, at)
    return decided(request, state, act.by, at, act.via, act.comment, actor=act.actor), reply


def _edited_by_approver(
    request: Request,
    act: Vote,
    at: datetime,
    rules: Rules,
    rejections: tuple[Rejection, ...],
    fits: forms.Fits | None,
) -> tuple[Request, Vote, tuple[Rejection, ...]]:
    """Apply an approver's edit to the fields, if their vote counts. A rule may decide the request then.

    The vote approves the edited fields, so it loses the digest of those that were shown. `rejections`: what is wrong
    with their answers.
    """
    stage = request.stage
    assert stage is not None, "a stage is open"
    stage_rules, number_format = rules.stages[stage.id], request.number_format(act.by)
    changes = forms.approver_changes(rules.definition, stage_rules, request.fields, act, fits, number_format)
    changes = _covered(request, changes, rules, at)
    if isinstance(changes, tuple):
        return request, act, changes
    if rejections or refusal(stage, act, request.digest) is not None:
        return request, act, rejections
    before, (request, voids) = request, _changed(request, changes, rules)
    request = _all_reset(request, but=stage.id) if voids else request
    request = _with_edit(before, request, act.by)
    return decided_by_rule(request, rules, at), replace(act, digest=None), ()


def _hold(request: Request, stage_id: str, state: State, act: Vote, at: datetime) -> tuple[Request, Reply]:
    """Hold the decision for the grace period, in which its vote can be undone."""
    stage = next(one for one in request.stages if one.id == stage_id)
    request = request.with_stage(
        replace(stage, state="open"),
        times_held=request.times_held + 1,
        held=RequestOutcome(state, act.by, actor=act.actor, at=at, via=act.via, comment=act.comment),
    )
    return request, Reply("counted", True, "held", {"outcome": state.capitalize(), "grace": request.grace})


def _refused(request: Request, act: Vote, reply: Reply) -> Reply:
    """Refuse a vote. People who voted in an earlier stage read that, not that they may not vote."""
    if reply.verdict in ("not_an_approver", "own_request") and any(
        vote_of(stage, act.by) for stage in request.stages if stage.state == "done"
    ):
        return Reply("already_voted", code="stage_is_over")
    if reply == Reply("not_an_approver") and request.stage is not None and was_picked_for(request, request.stage):
        return Reply("not_an_approver", code="not_picked")
    return reply


def _may_change_mind(request: Request, act: Act) -> bool:
    """Whether the grace period allows this act: a voter's change of mind, or a withdrawal."""
    stage = request.stage
    has_voted = isinstance(act, Vote) and stage is not None and vote_of(stage, act.by) is not None
    return has_voted or isinstance(act, Withdraw)


def held_reply(request: Request, held: RequestOutcome, act: Act, at: datetime) -> Reply:
    """Reply to an act that comes in the grace period of a decision."""
    params = {"state": held.state, "by": request.called(held.by), **_moment(request, held.at, at, act.by)}
    return Reply("already_decided", code="ended", params=params)


def not_now(request: Request, act: Act, at: datetime) -> Reply:
    """Reply to a vote while the request is back with its requester."""
    vote = changes_vote(request)
    params = {"by": request.called(vote.by), "requester": request.called(request.requester)}
    return Reply("already_decided", code="with_requester", params={**params, **_moment(request, vote.at, at, act.by)})


def changes_vote(request: Request) -> RecordedVote:
    """Return the vote that requests changes."""
    assert request.stage is not None, "a stage is open"
    return [vote for vote in current_votes(request.stage) if vote.choice == "changes"][-1]


def _moment(request: Request, at: datetime, now: datetime, reader: str) -> dict[str, str]:
    """Return a past time, as parameters of a reply to this reader."""
    zone = request.people[reader].zone if reader in request.people else "UTC"
    return {"at": at.isoformat(), "now": now.isoformat(), "zone": zone}


def _reassign(
    request: Request, act: Reassign, at: datetime, rules: Rules, found: Resolution, rank: Rank
) -> tuple[Request, Reply]:
    """Reassign a place, or add an approver."""
    assert request.stage is not None, "a stage is open"
    request = seated(request, rules, request.stage, found)
    stage = request.stage
    assert stage is not None, "it stays open"
    done = reassigned(request, stage, act, rank, at)
    if isinstance(done, Reply):
        return request, done
    stage = replace(stage, reassignments=(*stage.reassignments, done))
    request = seated(request.with_stage(stage, version=request.version + 1), rules, stage, found)
    instead_of = done.act.instead_of
    params = {"person": request.called(done.act.person), "instead_of": request.called(instead_of or "")}
    return request, Reply("reassigned" if instead_of else "added", True, params=params)


def _edit(request: Request, act: Edit, at: datetime, rules: Rules, fits: forms.Fits | None) -> tuple[Request, Reply]:
    """Change fields for the requester. Votes are reset as the policy says, and always after requested changes."""
    if act.by not in (request.requester, request.on_behalf_of):
        return request, Reply("not_an_approver", code="not_yours")
    if request.extends:
        return request, Reply("not_an_approver", code="no_edits_of_extensions")
    changes = forms.requester_changes(rules.definition, request.fields, act, fits, request.number_format(act.by))
    changes = _covered(request, changes, rules, at)
    if isinstance(changes, tuple):
        return request, Reply("invalid", rejections=changes)
    before, (request, resets) = request, _changed(request, changes, rules)
    if resets:
        request = _all_reset(request)
    stage = request.stage
    if request.state == "changes_requested" and stage is not None:
        # "waiting" at once: a page loaded before the stage is open again must not ask for the changes
        request, resets = request.with_stage(replace(reset(stage), judged_at=None), state="waiting"), True
    request = request.but(is_reset=request.is_reset or resets, version=request.version + 1)
    request = _with_edit(before, request, act.by)
    return request, Reply("edited", True, "edited_and_reset" if resets else "")


def _withdraw(request: Request, act: Withdraw | Stop, at: datetime) -> tuple[Request, Reply]:
    """Withdraw the request for its requester, or cancel it for an app."""
    if act.by not in (request.requester, request.on_behalf_of) and not act.by.startswith("app:"):
        return request, Reply("not_an_approver", code="not_yours")
    return withdrawn(request, act, at)


def withdrawn(request: Request, act: Withdraw | Stop, at: datetime) -> tuple[Request, Reply]:
    """End the request before its decision: withdrawn by its requester, cancelled by anybody else."""
    is_own = act.by in (request.requester, request.on_behalf_of)
    state: State = "withdrawn" if is_own else "cancelled"
    ended = decided(request, state, act.by, at, act.via, act.reason.strip(), actor=act.actor)
    return ended, Reply("taken_back", True, "withdrawal" if is_own else "cancellation")


def _changed(request: Request, typed: dict[str, Any], rules: Rules) -> tuple[Request, bool]:
    """Set the new values. Returns also whether they void the votes so far."""
    definition = rules.definition
    before, after = rules.ruling(request.fields), rules.ruling(forms.dump(definition.fields, typed))
    was = {name: now for name in typed if not same_json(after.fields.get(name), now := request.fields.get(name))}
    request = request.but(fields=after.fields, digest=after.digest, was={**request.was, **was})
    return described(request, rules), rules.voids_votes(before.typed, after.typed)


def _covered(request: Request, changes: forms.Changed, rules: Rules, at: datetime) -> forms.Changed:
    """Return the changed fields, or their rejection if nobody would decide them, or their deadline is over."""
    if isinstance(changes, tuple):
        return changes
    ruling = rules.ruling(forms.dump(rules.definition.fields, changes))
    voids = rules.voids_votes(rules.ruling(request.fields).typed, changes)
    if rules.is_timed:
        ruling = ruling.at(request.asked_at, _times_after_edit(request, at, voids=voids))
    if rules.deadline_fields:
        done = [stage.id for stage in request.stages if stage.state == "done" and not voids]
        if past := past_deadlines(rules.definition, changes, at, {*done, *ruling.not_opening}):
            return past
    if not ruling.may_be_requested:
        return (Rejection((), "not_requestable"),)
    if rules.definition.grant is not None and (fault := fault_after_edit(request, ruling.fields, rules)):
        return (fault,)
    why = uncovered(ruling)
    return (Rejection((), "nobody_would_decide", {"why": why}),) if why else changes


def _with_edit(before: Request, request: Request, by: str) -> Request:
    """Note what an edit has done to the votes."""
    had, kept = (sum(vote.counts for vote in each.votes) for each in (before, request))
    return request.but(last_edit=LastEdit(by, kept, had - kept) if had else None)


def _times_after_edit(request: Request, at: datetime, *, voids: bool) -> dict[str, datetime]:
    """Return when each stage opens or was to open, if an edit at that time is taken. A new opening is a new time."""
    is_returned = request.state == "changes_requested"
    again = [stage.id for stage in request.stages if voids or (is_returned and stage.state == "open")]
    return {stage.id: at if stage.id in again else stage.judged_at or at for stage in request.stages}


def _all_reset(request: Request, but: str = "") -> Request:
    """Void all votes. The stages open again, so conditions ask again what time it is; not in the stage `but`."""
    stages = (reset(stage) for stage in request.stages)
    stages = (stage if stage.id == but else replace(stage, judged_at=None) for stage in stages)
    return request.but(is_reset=True, stages=tuple(stages))


def decided(
    request: Request,
    state: State,
    by: str,
    at: datetime,
    via: Via,
    comment: str = "",
    because: str = "",
    actor: Actor | None = None,
) -> Request:
    """End the request. It ends once, for good. Rules and deadlines need no actor: they act themselves."""
    assert request.outcome is None, "a request is decided once"
    actor = Actor("rule", by) if actor is None and via in ("rule", "clock") else actor
    place = next((vote.in_place_of for vote in request.votes if vote.counts and vote.by == by and vote.at == at), "")
    return request.but(
        state=state,
        outcome=RequestOutcome(state, by, because, place, actor, at=at, via=via, comment=comment),
        stages=tuple(replace(stage, state="done") if stage.state == "open" else stage for stage in request.stages),
        deadline=None,
        on_deadline="",
        version=request.version + 1,
    )


def approved(request: Request, rules: Rules, at: datetime) -> Request:
    """Approve: every stage is complete, and the last vote decided. Without a stage, decide as the file says.

    Raises NobodyCanDecideError if it says nothing: what nobody was asked about is never approved.
    """
    votes = [vote for vote in request.votes if vote.counts and not vote.carried_from]
    if votes:
        last = votes[-1]
        return decided(request, "approved", last.by, last.at, last.vote.via, last.vote.comment, actor=last.vote.actor)
    request = decided_by_nobody(request, rules, at)
    if request.outcome is None:
        raise NobodyCanDecideError("", uncovered(rules.ruling_of(request)))
    return request


def decided_by_vote(request: Request, state: State, last: RecordedVote) -> Request:
    """End the request by this vote."""
    vote = last.vote
    return decided(request, state, last.by, last.at, vote.via, vote.comment, actor=vote.actor)


def decided_by_nobody(request: Request, rules: Rules, at: datetime) -> Request:
    """Decide a request to which no stage applies, as `when_nobody` says. Returns it unchanged if that isn't set."""
    decision = rules.definition.policy.when_nobody
    if decision is None:
        return request
    state: State = "approved" if decision == "approve" else "rejected"
    because = uncovered(rules.ruling_of(request))
    return decided(request, state, NO_STAGE, at, "rule", because=because)


def decided_by_rule(request: Request, rules: Rules, at: datetime) -> Request:
    """Let the first matching rule decide without people. Returns the request unchanged if none matches."""
    matched = rules.ruling_of(request).automatic
    if matched is None:
        return request
    number, rule, because = matched
    state: State = "approved" if rule.decision == "approve" else "rejected"
    return decided(request, state, f"rule:{number}", at, "rule", because=because)


def taken_effect(request: Request) -> Request:
    """Make the held decision final, once the grace period is over."""
    held = request.held
    assert held is not None, "a decision was held"
    request = request.but(held=None)
    return decided(request, held.state, held.by, held.at, held.via, held.comment, actor=held.actor)
