"""The published view of a request, made from its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import JsonValue

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals.ballot import room, seating
from approvals_bot.approvals.case import Case
from approvals_bot.approvals.content import JudgedRule
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.port import CardField, FormField
from approvals_bot.approvals.reassignment import told_of
from approvals_bot.approvals.request import (
    AppliedRule,
    Decision,
    RecordedReassignment,
    RecordedVote,
    Request,
    RequestSeat,
    RequestStage,
    plain_name,
)
from approvals_bot.approvals.stage import StageState
from approvals_bot.approvals.templates import AboutDecision, AboutRequest, Facts, Who
from approvals_bot.approvals.values import shown_duration


def view_of(
    case: Case,
    *,
    run_id: str,
    number: int = 0,
    hook_id: str,
    title: str,
    asked_at: datetime,
    deadline: datetime | None,
    on_deadline: str,
    recipients: Mapping[str, str],
) -> Request:
    """What people, pages and the API see of this case. What is on its way to them comes on top."""
    definition = case.definition
    return Request(
        run_id=run_id,
        number=number,
        hook_id=hook_id,
        workflow=definition.id,
        definition=case.content.edition.digest,
        version=case.version,
        state=case.state,
        title=title,
        requester=case.about.requester,
        on_behalf_of=case.about.on_behalf_of,
        asked_at=asked_at,
        digest=case.content.digest,
        fields=case.content.fields,
        shown=tuple(_shown(case, name, spec) for name, spec in definition.fields.items()),
        editable=_asks(case, [name for name, spec in definition.fields.items() if spec.editable]),
        to_change=_asks(case, definition.fields) if case.state == "changes_requested" else (),
        stages=tuple(_stage(case, stage) for stage in case.stages),
        votes=_votes(case),
        handovers=_handovers(case),
        people=case.people,
        waiting_for=case.waiting_for,
        deadline=deadline,
        on_deadline=on_deadline,
        outcome=case.outcome,
        recipients=dict(recipients),
        link_auth=definition.deliver.link_auth,
        held=case.held,
        grace=shown_duration(definition.policy.grace) if definition.policy.grace else "",
        reassign=definition.policy.reassign or "approvers",
        rules=tuple(_rule(rule) for rule in case.content.rules),
    )


def ask_of(name: str, spec: FieldSpec, value: JsonValue = None) -> FormField:
    """A field as a form asks for it."""
    shown = "" if value is None else ("true" if value else "false") if isinstance(value, bool) else str(value)
    return FormField(name, label(name), spec.type, spec.required, spec.values or (), spec.pattern, shown)


def _asks(case: Case, names: Iterable[str]) -> tuple[FormField, ...]:
    """These fields of the request, with what they say now."""
    return tuple(ask_of(name, case.definition.fields[name], case.content.fields.get(name)) for name in names)


def label(name: str) -> str:
    """`budget_code` → "Budget code"."""
    words = name.replace("_", " ")
    return words[0].upper() + words[1:]


def facts_of(case: Case, run_id: str, title: str = "") -> Facts:
    """What templates may name."""
    ended = case.outcome
    decision = (
        AboutDecision(ended.outcome, _who(case, ended.by), ended.comment, ended.via) if ended else AboutDecision()
    )
    asked = {stage.rule.id: stage.rule.ask for stage in case.stages}
    answers = {stage: forms.values(asked[stage], given) for stage, given in answers_of(case).items()}
    return Facts(
        workflow=case.definition.id,
        fields=case.content.typed,
        requester=_who(case, case.about.requester),
        on_behalf_of=_who(case, case.about.on_behalf_of) if case.about.on_behalf_of else Who(),
        request=AboutRequest(run_id, title, case.content.digest),
        decision=decision,
        answers={stage: answers.get(stage, {}) for stage in asked},
    )


def answers_of(case: Case) -> dict[str, dict[str, JsonValue]]:
    """What approvers filled in, by stage; of two people's answers to one question, the later."""
    found: dict[str, dict[str, JsonValue]] = {}
    for stage in case.stages:
        for vote in stage.ballot.votes if stage.ballot else ():
            if vote.stands and vote.answers:
                found.setdefault(stage.rule.id, {}).update(vote.answers)
    return found


def decision_of(case: Case) -> Decision:
    """The result of the run."""
    ended = case.outcome
    assert ended is not None, "it is decided"
    return Decision(
        approved=ended.state == "approved",
        decision=ended.outcome,
        by=ended.by,
        comment=ended.comment,
        fields=case.content.fields,
        answers=answers_of(case),
        digest=case.content.digest,
        outcome=ended.outcome,
        at=ended.at,
        via=ended.via,
        version=case.content.edition.digest,
        in_place_of=ended.in_place_of,
    )


def _shown(case: Case, name: str, spec: FieldSpec) -> CardField:
    fields = case.definition.fields
    was: str | None = None
    if name in case.content.was:
        was = forms.shown(fields, name, forms.values({name: spec}, {name: case.content.was[name]}).get(name))
    return CardField(
        name=name,
        label=label(name),
        value=forms.shown(fields, name, case.content.typed.get(name)),
        kind="diff" if spec.view == "diff" else "long" if spec.type == "text" else "short",
        pinned=spec.pinned,
        was=was,
        untrusted=spec.untrusted and name in case.content.typed and case.content.typed[name] is not None,
    )


def _stage(case: Case, stage: StageState) -> RequestStage:
    rule, ballot = stage.rule, stage.ballot
    if ballot is None:
        seats = tuple(
            RequestSeat(
                id=number,
                label=case.label(seat.from_),
                need=seat.need,
                room=seat.need if isinstance(seat.need, int) else 0,
            )
            for number, seat in (case.content.seats(rule) if stage.state != "skipped" else [])
        )
        return RequestStage(
            id=rule.id,
            title=stage.title,
            state=stage.state,
            because=stage.because,
            seats=seats,
            outcomes=case.definition.outcomes_of(rule),
        )
    seated = seating(ballot)
    return RequestStage(
        id=rule.id,
        title=stage.title,
        state=stage.state,
        because=stage.because,
        seats=tuple(
            RequestSeat(
                id=seat.id,
                label=seat.label,
                need=seat.need,
                room=room(seat, also=[who for who, at in seated.items() if at == seat.id]),
                eligible={who: stage.why[seat.id][who] for who in seat.eligible},
                filled_by=tuple(who for who, at in seated.items() if at == seat.id),
                known=seat.known,
                unsure=seat.unsure,
                in_place_of=dict(seat.in_place_of),
            )
            for seat in ballot.seats
        ),
        outcomes=ballot.outcomes,
        comment=ballot.comment,
        reject=ballot.reject,
        recheck=ballot.recheck,
        requesters=ballot.requesters,
        asks=tuple(ask_of(name, spec) for name, spec in rule.ask.items()),
        opened_at=stage.opened_at,
    )


def _votes(case: Case) -> tuple[RecordedVote, ...]:
    votes = [
        RecordedVote(
            stage=stage.rule.id,
            by=vote.by,
            choice=vote.choice,
            at=vote.at,
            via=vote.via,
            comment=vote.comment,
            answers=dict(vote.answers),
            digest=vote.digest or "",
            seats=vote.seats,
            stands=vote.stands,
            in_place_of=vote.in_place_of,
        )
        for stage in case.stages
        for vote in (stage.ballot.votes if stage.ballot else ())
    ]
    return tuple(sorted(votes, key=lambda vote: vote.at))


def _handovers(case: Case) -> tuple[RecordedReassignment, ...]:
    return tuple(
        RecordedReassignment(
            stage=stage.rule.id,
            by=each.by,
            person=each.person,
            instead_of=each.instead_of,
            reason=each.reason,
            at=each.at,
            via=each.via,
            text=told_of(each, case.people),
        )
        for stage in case.stages
        for each in stage.handovers
    )


def _rule(rule: JudgedRule) -> AppliedRule:
    values = {name: rule.fields[name] for name in rule.names}
    return AppliedRule(rule=rule.rule, values=values, applies=rule.applies, because=rule.because)


def _who(case: Case, key: str) -> Who:
    return Who(key, case.people[key].name if key in case.people else plain_name(key))
