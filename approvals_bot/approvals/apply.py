"""The life of a request, as pure functions: it opens, people act, stage follows stage, and it ends.

Each function takes a request and returns the next one. The compiled rules, the time and the people just looked up are
arguments: the workflow provides them, and carries out the effects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals.acts import (
    Act,
    Actor,
    Change,
    Edit,
    Reassign,
    Rejection,
    Reply,
    Stop,
    Vote,
    Withdraw,
    act_word,
)
from approvals_bot.approvals.ballot import (
    can_be_filled,
    cast,
    current_votes,
    missing_voters,
    open_seats,
    refusal,
    reset,
    stage_status,
    vote_of,
    waiting_for,
)
from approvals_bot.approvals.clock import Escalation
from approvals_bot.approvals.eligibility import (
    CountedVote,
    PeopleSource,
    RequestContext,
    Resolution,
    SeatQuery,
    label_of,
    with_delegates,
)
from approvals_bot.approvals.fields import form_field
from approvals_bot.approvals.json_values import same_json
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import MAX_AGE, Deliver
from approvals_bot.approvals.port import State, Via
from approvals_bot.approvals.reassignment import Rank, reassigned, with_reassignments
from approvals_bot.approvals.request import (
    NO_STAGE,
    Escalated,
    Opening,
    RecordedVote,
    Request,
    RequestOutcome,
    RequestSeat,
    RequestStage,
)
from approvals_bot.approvals.rules import Rules, Ruling, facts_of
from approvals_bot.approvals.templates import Facts, TemplateError, render, render_line
from approvals_bot.approvals.values import shown_duration
from approvals_bot.people import Person

MOST_REASONS = 5  # of stages that don't apply, in one sentence


def request_of(
    rules: Rules, opening: Opening, *, run_id: str = "", number: int = 0, at: datetime, title: str | None = None
) -> Request:
    """Make the request as it opens, before anybody is asked. `described` adds what is only shown.

    `title`: used if the file has no title. Raises InvalidPayloadError for invalid fields.
    """
    definition, ruling = rules.definition, rules.ruling(opening.fields)
    policy = definition.policy
    request = Request(
        run_id=run_id,
        number=number,
        workflow=definition.id,
        definition=rules.digest,
        title=definition.id if title is None else title,
        requester=opening.requester,
        on_behalf_of=opening.on_behalf_of,
        asked_at=at,
        digest=ruling.digest,
        fields=ruling.fields,
        stages=tuple(
            RequestStage(rule.id, rule.title or readable(rule.id), outcomes=definition.outcomes_of(rule))
            for rule in definition.stage
        ),
        labels=definition.labels.given(),
        link_auth=definition.deliver.link_auth,
        max_age=_max_age(definition.deliver),
        email_replies=definition.deliver.email_replies or "comment",
        grace=shown_duration(policy.grace) if policy.grace else "",
        reassign=policy.reassign or "approvers",
    )
    return planned(request, rules)


def _max_age(deliver: Deliver) -> int:
    """Return how many seconds before a decision its sign-in may be; 0 where none is asked for."""
    return int((deliver.max_age or MAX_AGE).total_seconds()) if deliver.link_auth == "login" else 0


def context_of(request: Request, rules: Rules) -> RequestContext:
    """Return what the addresses in the file may refer to."""
    definition = rules.definition
    return RequestContext(
        request.requester,
        request.on_behalf_of,
        request.fields,
        definition.policy.self_approval,
        definition.group_names,
    )


def presented(request: Request, rules: Rules) -> Request:
    """Return the request as it is stored and shown, with the derived fields filled in."""
    specs = forms.sendable(rules.definition.fields) if request.state == "changes_requested" else {}
    return request.but(
        to_change=tuple(
            form_field(name, spec, request.fields.get(name)) for name, spec in forms.sendable(specs).items()
        ),
        waiting_for=waiting_for(request),
    )


def described(request: Request, rules: Rules) -> Request:
    """Fill in how the fields are shown. Call it whenever fields or people's names have changed."""
    specs, values, ruling = rules.definition.fields, request.fields, rules.ruling(request.fields)
    about = rules.definition.workflow
    if about.title:
        request = request.but(title=_rendered(render_line, about.title, request, rules) or about.id)
    return request.but(
        instructions=_rendered(render, about.instructions, request, rules).strip() if about.instructions else "",
        shown=forms.shown_fields(specs, ruling.typed, request.was),
        numbers=tuple(name for name, spec in specs.items() if spec.type in forms.NUMBERS),
        files=tuple(name for name, spec in specs.items() if spec.type == "file"),
        editable=tuple(forms.editable_field(name, spec, values) for name, spec in specs.items() if spec.editable),
        rules=ruling.applied,
    )


def planned(request: Request, rules: Rules) -> Request:
    """Decide which of the stages not yet opened apply, and with which seats.

    The result depends on the fields and on people's names. Call it whenever those have changed.
    """
    ruling, about = rules.ruling(request.fields), context_of(request, rules)
    stages = []
    for stage, (applies, because) in zip(request.stages, ruling.plan, strict=True):
        state = "skipped" if not applies else "ahead" if stage.state == "skipped" else stage.state
        seats = stage.seats
        if stage.opened_at is None:
            found = ruling.seats(rules.stages[stage.id]) if state != "skipped" else {}
            seats = tuple(
                RequestSeat(number, label_of(seat.from_, about, request.people), seat.need)
                for number, seat in found.items()
            )
        elif stage.state == "open":
            addresses = [rules.stages[stage.id].seat[seat.id].from_ for seat in seats]
            labels = [label_of(from_, about, request.people) for from_ in addresses]
            seats = tuple(replace(seat, label=label) for seat, label in zip(seats, labels, strict=True))
        is_same = (state, because, seats) == (stage.state, stage.because, stage.seats)
        stages.append(stage if is_same else replace(stage, state=state, because=because, seats=seats))
    return request.but(stages=tuple(stages))


def _rendered(how: Callable[[str, Facts], str], template: str, request: Request, rules: Rules) -> str:
    """Render a text of the file; "" if these values break it: they must not stop the request."""
    try:
        return how(template, facts_of(request, rules))
    except TemplateError:
        return ""


def next_stage(request: Request, rules: Rules) -> tuple[Request, RequestStage | None]:
    """Find the first stage that applies and isn't complete, and mark those before it as done. None: all are."""
    ruling = rules.ruling(request.fields)
    for stage in request.stages:
        if stage.state == "skipped":
            continue
        seats = list(ruling.seats(rules.stages[stage.id]))
        is_filled = stage.opened_at is not None and stage_status(stage) == "filled"
        if not is_filled or [seat.id for seat in stage.seats] != seats:
            return request, stage
        request = request.with_stage(replace(stage, state="done"))
    return request, None


def opened(request: Request, rules: Rules, stage: RequestStage, found: Resolution, at: datetime) -> Request:
    """Open this stage with the people just looked up."""
    policy, rule = rules.definition.policy, rules.stages[stage.id]
    request = request.but(
        stages=tuple(replace(one, state="ahead") if one.state == "open" else one for one in request.stages),
        state="waiting",
        is_reset=False,
        claim=request.claim if request.claim is not None and request.claim.stage == stage.id else None,
        snoozes={},  # what is to be decided is new
        version=request.version + 1,
    )
    stage = replace(
        stage,
        state="open",
        opened_at=at,
        seats=(),
        comment=rule.comment,
        reject=policy.reject,
        recheck=policy.recheck,
        asks=tuple(form_field(name, spec) for name, spec in rule.ask.items()),
    )
    return seated(request.with_stage(stage), rules, stage, found)


def seat_queries(request: Request, rules: Rules, stage: RequestStage) -> list[SeatQuery]:
    """Return the look-up of each seat of this stage, escalations included."""
    asks = []
    for number, seat in rules.ruling(request.fields).seats(rules.stages[stage.id]).items():
        sources, notify = [PeopleSource(seat.from_)], seat.notify
        for more in stage.escalations:
            if number in more.seats:
                is_replacing = more.mode == "replace"
                sources.append(PeopleSource(more.to, more.owed, is_escalation=True, replaces=is_replacing))
                notify = None if more.mode == "replace" or notify is None else (*notify, *more.to)
        asks.append(SeatQuery(number, tuple(sources), notify))
    return asks


def why_undecidable(request: Request, rules: Rules, stage: RequestStage, found: Resolution) -> str:
    """Explain why nobody could ever decide in this stage.

    Returns "" if somebody could, or if a source of people failed.
    """
    if found.errors:
        return ""
    about, people = context_of(request, rules), request.people | found.people
    given = rules.ruling(request.fields).seats(rules.stages[stage.id])
    seats = [
        RequestSeat(seat.id, label_of(given[seat.id].from_, about, people), given[seat.id].need, seat.eligible)
        for seat in found.seats
    ]
    if can_be_filled(seats):
        return ""
    for seat, place in zip(seats, found.seats, strict=True):
        if not seat.eligible:
            return f"nobody can approve for {seat.label}" + (f" ({'; '.join(place.nobody)})" if place.nobody else "")
        if isinstance(seat.need, int) and len(seat.eligible) < seat.need:
            return f"{seat.label} needs {seat.need} people, and only {len(seat.eligible)} may decide"
    return "too few different people for its seats"


def seated(request: Request, rules: Rules, stage: RequestStage, found: Resolution) -> Request:
    """Fill the stage's seats with the people just resolved. A list that couldn't be read stays as it was."""
    request = with_people(request, rules, found.people)
    about, needs = context_of(request, rules), rules.ruling(request.fields).seats(rules.stages[stage.id])
    stage = replace(stage, requesters=about.barred)
    before = {seat.id: seat for seat in stage.seats}
    if found.away:
        votes = [CountedVote(vote.by, vote.in_place_of) for vote in current_votes(stage)]
        found = with_delegates(found, {number: seat.need for number, seat in needs.items()}, votes)
    if stage.reassignments:
        found = with_reassignments(found, stage.reassignments, request.people)
    seats, notified = list[RequestSeat](), dict[str, None]()
    for place in found.seats:
        known, eligible, unsure = not place.errors, dict(place.eligible), tuple[str, ...]()
        if not known and place.id in before:
            unsure = tuple(address for address in before[place.id].eligible if address not in eligible)
            eligible |= {address: before[place.id].eligible[address] for address in unsure}
        rule = needs[place.id]
        label = before[place.id].label if place.id in before else label_of(rule.from_, about, request.people)
        found_in = place.slack_groups, place.ungrouped, place.errors
        seats.append(RequestSeat(place.id, label, rule.need, eligible, known, unsure, place.in_place_of, *found_in))
        notified.update(dict.fromkeys(place.notified))
    all_notified = tuple(dict.fromkeys([*stage.notified, *notified])) if found.errors else tuple(notified)
    return with_recipients(request, all_notified).with_stage(replace(stage, seats=tuple(seats), notified=all_notified))


def with_recipients(request: Request, addresses: Iterable[str]) -> Request:
    """Give these people opaque ids, for links to carry instead of their addresses.

    An id is made of the address, not counted: after a reset other people may be asked, and nobody's old link may become
    theirs.
    """
    known = {*request.recipients.values()}
    new = {_recipient_id(request.hook_id, address): address for address in addresses if address not in known}
    return request.but(recipients={**request.recipients, **new})


def _recipient_id(hook_id: str, address: str) -> str:
    return hashlib.blake2b(f"{hook_id} {address}".encode(), digest_size=9).hexdigest()


def escalated(request: Request, stage: RequestStage, escalation: Escalation) -> Request:
    """Add people to every seat that is still open, or replace them."""
    more = Escalated(escalation.to, escalation.mode, open_seats(stage), missing_voters(stage))
    changed = replace(stage, escalations=(*stage.escalations, more))
    return request.with_stage(changed, version=request.version + 1)


def with_people(request: Request, rules: Rules, people: Mapping[str, Person]) -> Request:
    """Take over the names and contact details just looked up, and the identities of those who count as the requester.

    Those may have changed: a workflow in Python may have named them in another spelling, and today's configuration may
    say of more addresses that they are one person.
    """
    behalf = request.on_behalf_of
    request = request.but(
        requester=_identity_of(request.requester, people),
        on_behalf_of=None if behalf is None else _identity_of(behalf, people),
    )
    if all(request.people.get(address) == person for address, person in people.items()):
        return request
    return planned(described(request.but(people={**request.people, **people}), rules), rules)


def _identity_of(key: str, people: Mapping[str, Person]) -> str:
    return people[key].address if key in people else key


def apply(
    request: Request,
    act: Change,
    at: datetime,
    *,
    rules: Rules,
    found: Resolution,
    rank: Rank | None = None,
    fits: forms.Fits | None = None,
) -> tuple[Request, Reply]:
    """Apply an act. Returns the next request, and the reply to the actor.

    `found`: the people of the open stage, as of now. `rank`: what the actor of a Reassign may do. `fits`: the
    author's own check of edited fields.
    """
    request = with_people(request, rules, found.people)
    if request.held is not None and not _may_change_mind(request, act):
        return request, held_reply(request, request.held, act, at)
    match act:
        case Withdraw() | Stop():
            return _withdraw(request, act, at)
        case Edit():
            return _edit(request, act, rules, fits)
        case _ if request.state == "changes_requested":
            return request, not_now(request, act, at)
        case Reassign():
            return _reassign(request, act, at, rules, found, rank or Rank())
        case Vote():
            return _vote(request, act, at, rules, found, fits)


def late_reply(request: Request, act: Act, now: datetime) -> Reply:
    """Reply to an actor who comes after the end. `now`: the reply names the day only if it isn't today."""
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
    request: Request, act: Vote, at: datetime, rules: Rules, found: Resolution, fits: forms.Fits | None
) -> tuple[Request, Reply]:
    """Count one person's choice, with the people of the open stage as resolved at the click."""
    assert request.stage is not None, "a stage is open"
    request = seated(request, rules, request.stage, found)
    stage = request.stage
    assert stage is not None, "it stays open"
    act = replace(act, comment=act.comment.strip())
    answers, rejections = forms.read_answers(rules.stages[stage.id], act, request.number_format(act.by))
    if act.choice == "edit":
        request, act, rejections = _edited_by_approver(request, act, at, rules, rejections, fits)
        if request.outcome is not None:
            return request, Reply("decided", True, "rule_decided")
        assert request.stage is not None, "it stays open"
        stage = request.stage
    invalid = Reply("invalid", rejections=rejections) if rejections else None
    stage, reply = cast(stage, act, at, request.digest, answers=answers, invalid=invalid)
    if not reply.changed:
        return request, _refused(request, act, reply)
    request = request.with_stage(stage, version=request.version + 1, held=None)
    state: State
    match stage_status(stage):
        case "open":
            return request, reply
        case "changes_requested":
            return request.but(state="changes_requested"), reply
        case "filled":
            request, following = next_stage(planned(request, rules) if act.choice == "edit" else request, rules)
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
    changes = _covered(changes, rules)
    if isinstance(changes, tuple):
        return request, act, changes
    if rejections or refusal(stage, act, request.digest) is not None:
        return request, act, rejections
    request, voids = _changed(request, changes, rules)
    request = _all_reset(request) if voids else request
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


def _edit(request: Request, act: Edit, rules: Rules, fits: forms.Fits | None) -> tuple[Request, Reply]:
    """Change fields for the requester. Votes are reset as the policy says, and always after requested changes."""
    if act.by not in (request.requester, request.on_behalf_of):
        return request, Reply("not_an_approver", code="not_yours")
    changes = forms.requester_changes(rules.definition, request.fields, act, fits, request.number_format(act.by))
    changes = _covered(changes, rules)
    if isinstance(changes, tuple):
        return request, Reply("invalid", rejections=changes)
    request, resets = _changed(request, changes, rules)
    if resets:
        request = _all_reset(request)
    stage = request.stage
    if request.state == "changes_requested" and stage is not None:
        # "waiting" at once: a page loaded before the stage is open again must not ask for the changes
        request, resets = request.with_stage(reset(stage), state="waiting"), True
    request = request.but(is_reset=request.is_reset or resets, version=request.version + 1)
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
    return described(request, rules), forms.voids_votes(definition.policy, before.typed, after.typed)


def _covered(changes: forms.Changed, rules: Rules) -> forms.Changed:
    """Return the changed fields, or their rejection if nobody would decide them."""
    if isinstance(changes, tuple):
        return changes
    why = uncovered(rules.ruling(forms.dump(rules.definition.fields, changes)))
    return (Rejection((), "nobody_would_decide", {"why": why}),) if why else changes


def _all_reset(request: Request) -> Request:
    return request.but(is_reset=True, stages=tuple(reset(stage) for stage in request.stages))


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
    actor = Actor("rule", by) if via in ("rule", "clock") else actor
    place = next((vote.in_place_of for vote in request.votes if vote.counts and vote.by == by and vote.at == at), "")
    return request.but(
        state=state,
        outcome=RequestOutcome(state, by, because, place, actor, at=at, via=via, comment=comment),
        stages=tuple(replace(stage, state="done") if stage.state == "open" else stage for stage in request.stages),
        deadline=None,
        on_deadline="",
        version=request.version + 1,
    )


def uncovered(ruling: Ruling) -> str:
    """Explain why no rule decides these fields and no stage applies to them; "" if one does."""
    if ruling.automatic is not None or any(applies for applies, _ in ruling.plan):
        return ""
    reasons = dict.fromkeys(because for _, because in ruling.plan[:MOST_REASONS])
    return f"no stage applies to this request, because {'; '.join(reasons)}"


def decided_by_nobody(request: Request, rules: Rules, at: datetime) -> Request:
    """Decide a request to which no stage applies, as `when_nobody` says. Returns it unchanged if that isn't set."""
    decision = rules.definition.policy.when_nobody
    if decision is None:
        return request
    state: State = "approved" if decision == "approve" else "rejected"
    because = uncovered(rules.ruling(request.fields))
    return decided(request, state, NO_STAGE, at, "rule", because=because)


def decided_by_rule(request: Request, rules: Rules, at: datetime) -> Request:
    """Let the first matching rule decide without people. Returns the request unchanged if none matches."""
    matched = rules.ruling(request.fields).automatic
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
