"""Stages: which of them apply, with which seats and people, and which one is open. Pure.

Each function takes a request and returns the next one. The compiled rules, the time and the people just looked up are
arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile

from pydantic import JsonValue

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals.ballot import (
    YES,
    by_alternative,
    can_be_filled,
    current_votes,
    in_place_of,
    missing_voters,
    open_seats,
    seats_for,
    size_of,
    stage_status,
    waiting_for,
)
from approvals_bot.approvals.clock import MORE, Escalation
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.eligibility import (
    CountedVote,
    PeopleSource,
    RequestContext,
    Resolution,
    ResolvedSeat,
    SeatQuery,
    label_of,
    with_delegates,
)
from approvals_bot.approvals.fields import form_field
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import MAX_AGE, Definition
from approvals_bot.approvals.reassignment import with_reassignments
from approvals_bot.approvals.request import (
    VETO,
    Escalated,
    Opening,
    RecordedVote,
    Request,
    RequestSeat,
    RequestStage,
)
from approvals_bot.approvals.rules import IN_FIELD, Rules, Ruling, facts_of
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.approvals.templates import Facts, TemplateError, render, render_line
from approvals_bot.approvals.values import shown_duration
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.people import Person, is_mail

MOST_REASONS = 5  # of stages that don't apply, in one sentence
MOST_WAYS = 200  # of choosing an alternative in each of several stages


class NobodyCanDecideError(ApprovalsBotError):
    """A request that nobody could decide. The operator fixes the workflow's file, or the groups it names."""

    def __init__(self, stage: str, why: str) -> None:
        """`stage`: "" if none applies."""
        self.stage = stage
        super().__init__(f"Nobody could decide this request: {f'in stage {stage!r}, ' if stage else ''}{why}.")


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
        allowance=definition.allowance,
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


def context_of(request: Request, rules: Rules, stage: RequestStage | None = None) -> RequestContext:
    """Return what the addresses in the file may refer to. `stage`: where people are to decide."""
    definition = rules.definition
    own = rules.stages[stage.id].self_approval if stage is not None else None
    return RequestContext(
        request.requester,
        request.on_behalf_of,
        request.fields,
        own or definition.policy.self_approval,
        definition.group_names,
        _excluded(request, definition) if definition.policy.exclude else (),
        forms.people_in(definition.fields, request.fields),
    )


def _excluded(request: Request, definition: Definition) -> tuple[str, ...]:
    """Return the addresses of those who may not decide; a field that holds no address excludes nobody."""
    named = list[JsonValue]()
    for entry in definition.policy.exclude or ():
        value = request.fields.get(entry.removeprefix(IN_FIELD)) if entry.startswith(IN_FIELD) else entry
        named += value if isinstance(value, list) else [value]
    texts = [entry for entry in named if isinstance(entry, str)]
    return tuple(entry for entry in texts if entry.startswith(("@", "slack:@")) or is_mail(entry))


def presented(request: Request, rules: Rules) -> Request:
    """Return the request as it is stored and shown, with the derived fields filled in."""
    specs = forms.sendable(rules.definition.fields) if request.state == "changes_requested" else {}
    return request.but(
        to_change=tuple(form_field(name, spec, request.fields.get(name)) for name, spec in specs.items()),
        waiting_for=waiting_for(request),
    )


def described(request: Request, rules: Rules) -> Request:
    """Fill in how the fields are shown. Call it whenever fields or people's names have changed."""
    specs, values, ruling = rules.definition.fields, request.fields, rules.ruling_of(request)
    about = rules.definition.workflow
    if about.title:
        title = _rendered(render_line, about.title, request, rules) or about.id
        request = request.but(title=f"Extend by {request.extends}: {title}" if request.extends else title)
    return request.but(
        instructions=_rendered(render, about.instructions, request, rules).strip() if about.instructions else "",
        shown=forms.shown_fields(specs, ruling.typed, request.was, request.people),
        numbers=tuple(name for name, spec in specs.items() if spec.type in forms.NUMBERS),
        files=tuple(name for name, spec in specs.items() if spec.holds_files),
        editable=tuple(forms.editable_field(name, spec, values) for name, spec in specs.items() if spec.editable),
        rules=ruling.applied,
    )


def planned(request: Request, rules: Rules) -> Request:
    """Decide which of the stages not yet opened apply, and with which seats.

    The result depends on the fields and on people's names. Call it whenever those have changed.
    """
    ruling, about = rules.ruling_of(request), context_of(request, rules)
    stages = []
    for stage, (applies, because) in zip(request.stages, ruling.plan, strict=True):
        state = "skipped" if not applies else "ahead" if stage.state == "skipped" else stage.state
        seats = stage.seats
        if stage.opened_at is None:
            rule = rules.stages[stage.id]
            found = ruling.seats(rule) if state != "skipped" else {}
            seats = tuple(
                _blank(rule, number, label_of(seat.from_, about, request.people)) for number, seat in found.items()
            )
        elif stage.state == "open":
            addresses = [rules.stages[stage.id].seats[seat.id].from_ for seat in seats]
            labels = [label_of(from_, about, request.people) for from_ in addresses]
            seats = tuple(replace(seat, label=label) for seat, label in zip(seats, labels, strict=True))
        is_same = (state, because, seats) == (stage.state, stage.because, stage.seats)
        stages.append(stage if is_same else replace(stage, state=state, because=because, seats=seats))
    return request.but(stages=tuple(stages))


def _blank(rule: Stage, number: int, label: str = "") -> RequestSeat:
    """Return a seat as the file has it, without people."""
    return RequestSeat(number, label, rule.seats[number].need, alternative=rule.alternative_of(number))


def _rendered(how: Callable[[str, Facts], str], template: str, request: Request, rules: Rules) -> str:
    """Render a text of the file; "" if these values break it: they must not stop the request."""
    try:
        return how(template, facts_of(request, rules))
    except TemplateError:
        return ""


def next_stage(request: Request, rules: Rules, at: datetime) -> tuple[Request, RequestStage | None]:
    """Find the first stage that applies and isn't complete, and mark those before it as done. None: all are.

    `at`: the time at which it is to open. A stage whose conditions ask for the time keeps it.
    """
    for stage in request.stages:
        if rules.is_timed:
            request = judged(request, rules, at, stage.id)
            stage = next(one for one in request.stages if one.id == stage.id)
        if stage.state == "skipped":
            continue
        seats = list(rules.ruling_of(request).seats(rules.stages[stage.id]))
        is_filled = stage.opened_at is not None and stage_status(stage) == "filled"
        if not is_filled or [seat.id for seat in stage.seats] != seats:
            return request, stage
        request = request.with_stage(replace(stage, state="done"))
    return request, None


def judged(request: Request, rules: Rules, at: datetime, *ids: str) -> Request:
    """Evaluate the conditions of these stages, which were to open at that time, unless they were before."""
    new = [stage.id for stage in request.stages if stage.id in ids and stage.judged_at is None]
    if not rules.is_timed or not new:
        return request
    stages = tuple(replace(stage, judged_at=at) if stage.id in new else stage for stage in request.stages)
    return described(planned(request.but(stages=stages), rules), rules)


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
        reject=policy.reject if rule.reject is None else rule.reject,
        recheck=policy.recheck,
        decide=rule.decide,
        asks=tuple(form_field(name, spec) for name, spec in rule.ask.items()),
    )
    request = seated(request.with_stage(stage), rules, stage, found)
    return _with_carried(request, rules) if rules.definition.policy.carry_over else request


def _with_carried(request: Request, rules: Rules) -> Request:
    """Count earlier approvals again in the stage that has just opened, unless their voters have voted in it since."""
    stage = request.stage
    assert stage is not None, "it has just opened"
    found = list[RecordedVote]()
    for origin, vote in _approvals_before(request, rules, stage):
        places = [one.place for one in (*current_votes(stage), *found)]
        has_voted = any(one.by == vote.by and one.at >= vote.at for one in stage.votes)
        if (
            (seats := seats_for(stage, vote.by))
            and not has_voted
            and (place := in_place_of(stage, vote.by)) not in places
        ):
            again = replace(vote.vote, choice="approve", comment="", answers={}, fields={})
            found.append(RecordedVote(again, vote.at, seats, in_place_of=place, carried_from=origin))
    return request.with_stage(replace(stage, votes=(*stage.votes, *found))) if found else request


def carries_over(definition: Definition, stage: Stage) -> bool:
    """Whether an earlier approval counts again in this stage: it asks nothing and needs no comment."""
    is_bare = not stage.ask and stage.comment != "always" and "approve" in definition.outcomes_of(stage)
    return definition.policy.carry_over is not None and is_bare


def _approvals_before(request: Request, rules: Rules, stage: RequestStage) -> list[tuple[str, RecordedVote]]:
    """Return the approvals of earlier stages that may count again in this one, each with its stage: people's last."""
    if not carries_over(rules.definition, rules.stages[stage.id]):
        return []
    found: dict[str, tuple[str, RecordedVote]] = {}
    for earlier in takewhile(lambda one: one.id != stage.id, request.stages):
        for vote in current_votes(earlier):
            if vote.choice in YES and not vote.carried_from:
                found[vote.by] = earlier.id, vote
    return list(found.values())


def without_orphans(request: Request) -> Request:
    """Void the votes that were carried over from one that no longer counts."""
    cast = {(one.id, vote.by, vote.at) for one in request.stages for vote in current_votes(one) if vote.choice in YES}
    for stage in request.stages:
        votes = tuple(
            replace(vote, counts=False)
            if vote.counts and vote.carried_from and (vote.carried_from, vote.by, vote.at) not in cast
            else vote
            for vote in stage.votes
        )
        request = request.with_stage(replace(stage, votes=votes)) if votes != stage.votes else request
    return request


def carried_through(
    request: Request,
    rules: Rules,
    following: RequestStage | None,
    ahead: Sequence[tuple[RequestStage, Resolution]],
    at: datetime,
) -> tuple[Request, RequestStage | None]:
    """Pass the stages that earlier approvals complete, from `following` on. Returns the first that they don't."""
    people = {stage.id: found for stage, found in ahead}
    while following is not None and following.id in people:
        tried = opened(request, rules, following, people[following.id], at)
        tried, after = next_stage(tried, rules, at)
        if after is not None and after.id == following.id:
            break
        request, following = tried, after
    return request, following


def seat_queries(request: Request, rules: Rules, stage: RequestStage) -> list[SeatQuery]:
    """Return the look-up of each seat of this stage, escalations included."""
    asks = []
    for number, seat in rules.ruling_of(request).seats(rules.stages[stage.id]).items():
        sources, notify = [PeopleSource(seat.from_)], seat.notify
        for more in stage.escalations:
            if number in more.seats:
                is_replacing = more.mode == "replace"
                to = tuple(address for address in more.to if address != MORE)
                sources.append(PeopleSource(to, more.owed, is_escalation=True, replaces=is_replacing))
                notify = None if more.mode == "replace" or notify is None else (*notify, *to)
        asks.append(SeatQuery(number, tuple(sources), notify))
    if (veto := rules.stages[stage.id].veto) is not None:
        asks.append(SeatQuery(VETO, (PeopleSource(veto.from_),)))
    return asks


def why_undecidable(request: Request, rules: Rules, stage: RequestStage, found: Resolution) -> str:
    """Explain why nobody could ever decide in this stage.

    Returns "" if somebody could, or if a source of people failed.
    """
    if found.errors:
        return ""
    about, people = context_of(request, rules, stage), request.people | found.people
    rule, nobody = rules.stages[stage.id], {place.id: place.nobody for place in found.seats}
    seats = [
        replace(_blank(rule, one.id, label_of(rule.seats[one.id].from_, about, people)), eligible=one.eligible)
        for one in found.seats
    ]
    if can_be_filled(seats):
        return ""
    return "; ".join(dict.fromkeys(_why_unfillable(each, nobody) for each in by_alternative(seats)))


def _why_unfillable(seats: Sequence[RequestSeat], nobody: Mapping[int, Sequence[str]]) -> str:
    """Explain why these seats can't all be filled. `nobody`: the addresses that match nobody, and why, by seat."""
    for seat in seats:
        if not seat.eligible:
            why = nobody[seat.id]
            return f"nobody can approve for {seat.label}" + (f" ({'; '.join(why)})" if why else "")
        if isinstance(seat.need, int) and len(seat.eligible) < seat.need:
            return f"{seat.label} needs {seat.need} people, and only {len(seat.eligible)} may decide"
    return "too few different people for its seats"


def seated(request: Request, rules: Rules, stage: RequestStage, found: Resolution) -> Request:
    """Fill the stage's seats with the people just resolved. A list that couldn't be read stays as it was."""
    request = with_people(request, rules, found.people)
    about, rule = context_of(request, rules, stage), rules.stages[stage.id]
    gone = decided_before(request, stage) if rules.definition.policy.distinct else frozenset()
    stage = replace(stage, requesters=about.barred, excluded=found.excluded)
    before = {seat.id: seat for seat in stage.seats}
    if found.away:
        votes = [CountedVote(vote.by, vote.in_place_of) for vote in current_votes(stage)]
        votes += [CountedVote(vote.by, vote.in_place_of) for _, vote in _approvals_before(request, rules, stage)]
        found = with_delegates(found, [_blank(rule, place.id) for place in found.seats], votes)
    if stage.reassignments:
        found = with_reassignments(found, stage.reassignments, request.people)
    seats, notified = list[RequestSeat](), dict[str, None]()
    for place in found.seats:
        known, eligible, unsure = not place.errors, dict(place.eligible), tuple[str, ...]()
        if gone:
            eligible = {address: why for address, why in eligible.items() if address not in gone}
        if not known and place.id in before:
            unsure = tuple(address for address in before[place.id].eligible if address not in eligible)
            eligible |= {address: before[place.id].eligible[address] for address in unsure}
        seat = rule.seats[place.id]
        was = before.get(place.id) or _blank(rule, place.id, label_of(seat.from_, about, request.people))
        found_in = place.slack_groups, place.ungrouped, place.errors, was.alternative
        need = _need(seat.need, was, eligible) if known else seat.need
        seats.append(RequestSeat(place.id, was.label, need, eligible, known, unsure, place.in_place_of, *found_in))
        notified.update(dict.fromkeys(address for address in place.notified if address not in gone))
    if found.veto is not None:
        stage = replace(stage, veto=_vetoing(request, rules, stage, found.veto))
        notified.update(dict.fromkeys(found.veto.notified))
    all_notified = tuple(dict.fromkeys([*stage.notified, *notified])) if found.errors else tuple(notified)
    return with_recipients(request, all_notified).with_stage(replace(stage, seats=tuple(seats), notified=all_notified))


def _vetoing(request: Request, rules: Rules, stage: RequestStage, found: ResolvedSeat) -> RequestSeat:
    """Return those who alone may reject. If they can't be read, those who could before are unsure."""
    rule, before = rules.stages[stage.id].veto, stage.veto.eligible if stage.veto is not None else {}
    assert rule is not None, "it was looked up"
    label = label_of(rule.from_, context_of(request, rules, stage), request.people)
    unsure = tuple(one for one in before if found.errors and one not in found.eligible)
    eligible = {**found.eligible, **{one: before[one] for one in unsure}}
    return RequestSeat(VETO, label, rule.need, eligible, not found.errors, unsure, unread=found.errors)


def decided_before(request: Request, stage: RequestStage) -> frozenset[str]:
    """Return the people whose votes count in other stages, themselves or in their place."""
    votes = (vote for other in request.stages if other.id != stage.id for vote in current_votes(other))
    return frozenset(address for vote in votes for address in (vote.by, vote.place))


TOO_FEW = "too few people are left who decide in no other stage"


def different_people(request: Request, rules: Rules, ahead: Iterable[tuple[RequestStage, Resolution]]) -> str:
    """Return the title of a stage for which too few people are left who decide in no other; "" if there is none.

    `ahead`: the stages that haven't opened, with their people as of now. One that can't be read is left out. Of
    stages with alternatives, one choice of them that leaves enough people is enough; of very many, that isn't said.
    """
    ways: list[tuple[RequestSeat, ...]] = [()]
    for stage, found in ahead:
        if found.errors:
            continue
        gone, rule, seats = decided_before(request, stage), rules.stages[stage.id], list[RequestSeat]()
        for place in found.seats:
            eligible = {address: why for address, why in place.eligible.items() if address not in gone}
            blank = _blank(rule, place.id)
            seats.append(replace(blank, need=size_of(blank.need, len(eligible)), eligible=eligible))
        tried = ([*way, *alternative] for way in ways for alternative in by_alternative(seats))
        ways = [tuple(way) for way in tried if can_be_filled(_together(way))]
        if not ways:
            return stage.title
        if len(ways) > MOST_WAYS:
            return ""
    return ""


def _together(seats: Sequence[RequestSeat]) -> list[RequestSeat]:
    """Return seats of several stages as those of one."""
    return [replace(seat, id=number, alternative=0) for number, seat in enumerate(seats)]


def _need(need: int | str, before: RequestSeat, eligible: Collection[str]) -> int | str:
    """Return how many votes a seat needs. A share is of those who may vote when the stage opens."""
    if isinstance(need, int) or need == "all":
        return need
    return before.need if isinstance(before.need, int) else size_of(need, len(eligible))


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


def uncovered(ruling: Ruling) -> str:
    """Explain why no rule decides these fields and no stage applies to them; "" if one does."""
    if ruling.automatic is not None or any(applies for applies, _ in ruling.plan):
        return ""
    reasons = dict.fromkeys(because for _, because in ruling.plan[:MOST_REASONS])
    return f"no stage applies to this request, because {'; '.join(reasons)}"
