"""A workflow's compiled file, as of the start of a request, and what it says about a request's fields.

A run keeps its definition in its log, and every replay needs it. So a process parses and compiles each definition once,
and evaluates each form's values once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Annotated, Any, get_args

from pydantic import JsonValue, WrapValidator

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals import policy
from approvals_bot.approvals.circumstances import Known
from approvals_bot.approvals.conditions import Condition, Judgement
from approvals_bot.approvals.field_addresses import fields_of
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.json_values import same_json
from approvals_bot.approvals.outcomes import last_answers_of
from approvals_bot.approvals.policy import Auto, Definition, OnChange
from approvals_bot.approvals.request import AppliedRule, Opening, Outcome, Request, RequestStage, plain_name
from approvals_bot.approvals.stage_policy import Seat, Stage
from approvals_bot.approvals.templates import AboutDecision, AboutRequest, AboutStage, Facts, Who, render_key
from approvals_bot.approvals.used_fields import fields_in_texts
from approvals_bot.durable.core.serialization import json_text

IN_FIELD = "field:"
"""What the address of people begins with whom a field names."""

KEPT = 1024  # definitions, of the requests replayed last; each file has two: as it was read, and as logs have it
KEPT_RULINGS = 1024

OUTCOME = {"outcome": FieldSpec(type="enum", values=get_args(Outcome))}
"""What conditions of follow-ups call the outcome of the request."""


class Rules:
    """One version of a workflow's file, compiled; with rules about the requester, for one requester.

    `requester` and `groups`: the requester, and those of `named_groups` that they are in.
    """

    def __init__(
        self, definition: Definition, requester: str = "", groups: Sequence[str] = (), base: Rules | None = None
    ) -> None:
        self.definition = definition
        self.requester = requester
        self.groups = groups
        self.stages = {stage.id: stage for stage in definition.stage}
        self._base = base
        self._conditions: dict[str, Condition] = {} if base is None else base._conditions
        self._last: tuple[Mapping[str, JsonValue], Ruling] | None = None  # the values asked about last

    @cached_property
    def digest(self) -> str:
        return policy.digest(self.definition) if self._base is None else self._base.digest

    @cached_property
    def named_groups(self) -> tuple[str, ...]:
        """What the file asks about its requesters: the addresses of `requester.in(…)` and of [[request]]."""
        found = dict.fromkeys(entry for rule in self.definition.request or () for entry in rule.from_)
        compiled = [*map(self.condition, self.definition.conditions()), *self._follow_ups]
        for one in (one for each in compiled for one in each.about.values() if one.kind == "in"):
            found.update(dict.fromkeys(one.names))
        return tuple(found)

    @property
    def _follow_ups(self) -> list[Condition]:
        """The conditions of follow-ups."""
        return [self.follow_up(one.when) for one in self.definition.follow_ups() if one.when is not None]

    @cached_property
    def is_about_requester(self) -> bool:
        return (
            bool(self.definition.request)
            or any(
                "requester" in when and any(one.is_of_requester for one in self.condition(when).about.values())
                for when in self.definition.conditions()
            )
            or any(one.is_of_requester for each in self._follow_ups for one in each.about.values())
        )

    @cached_property
    def is_timed(self) -> bool:
        """Whether a rule asks what time it is."""
        return any(
            ("now" in when or "business_hours" in when) and self.condition(when).is_timed
            for when in self.definition.conditions()
        )

    @cached_property
    def deadline_fields(self) -> tuple[str, ...]:
        return self.definition.deadline_fields()

    @cached_property
    def picks(self) -> bool:
        """Whether a seat picks a few of its people."""
        return any(seat.pick is not None for stage in self.definition.stage for seat in stage.seats)

    @cached_property
    def names_people_by_fields(self) -> bool:
        """Whether an address depends on a field, so that an edit may leave a seat without people."""
        return any(address.startswith(IN_FIELD) or fields_of(address) for address in addresses_of(self.definition))

    @cached_property
    def untrusted(self) -> frozenset[str]:
        """The fields whose values are quoted in what people read."""
        fields = self.definition.fields.items()
        return frozenset(name for name, spec in fields if spec.untrusted and not spec.is_of_call)

    @cached_property
    def used_fields(self) -> frozenset[str]:
        """The fields that the file uses, but for what people read: an edit of one asks for votes again."""
        named = {name for when in self.definition.conditions() for name in self.condition(when).names}
        named.update(name for each in self._follow_ups for name in each.names)
        return fields_in_texts(self.definition) | named

    def on_change_of(self, field: str) -> OnChange:
        """Return what editing this field does to the votes. By default they are kept if nothing depends on it."""
        said = self.definition.policy.on_change_of(field)
        if said is not None:
            return said
        return "reset" if self.definition.fields[field].pinned or field in self.used_fields else "keep"

    def voids_votes(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
        """Whether a change of (typed) fields voids the votes so far."""
        for name in after:
            if not same_json(before.get(name), after[name]):
                rule = self.on_change_of(name)
                if rule == "reset" or (rule == "reset-if-raised" and forms.raised(before.get(name), after[name])):
                    return True
        return False

    def in_stage(self, id: str, request: Request) -> Definition:
        """Return the definition as it is in this stage of a request, with the Slack channel that its fields name."""
        here = self.definition.in_stage(self.stages[id])
        if here.deliver.slack is None or "{" not in here.deliver.slack:
            return here
        channel = render_key(here.deliver.slack, facts_of(request, self))
        return here.model_copy(update={"deliver": here.deliver.model_copy(update={"slack": channel})})

    def condition(self, when: str) -> Condition:
        """Return the compiled condition. Compiled once: it takes longer than a whole replay."""
        known = self._conditions.get(when)
        if known is None:
            known = self._conditions[when] = Condition(when, self.definition.fields)
        return known

    def follow_up(self, when: str) -> Condition:
        """Return the compiled condition of a follow-up, which may also ask for the outcome, answers and the stage."""
        known = self._conditions.get(f"[[on]] {when}")
        if known is None:
            definition = self.definition
            fields, asks = {**OUTCOME, **definition.fields}, {stage.id: stage.ask for stage in definition.stage}
            known = self._conditions[f"[[on]] {when}"] = Condition(when, fields, asks)
        return known

    def ruling_of(self, request: Request) -> Ruling:
        """Return what the file says about a request, with the times that it keeps: of its opening and its stages'."""
        ruling = self.ruling(request.fields)
        if not self.is_timed:
            return ruling
        return ruling.at(request.asked_at, {stage.id: stage.judged_at for stage in request.stages})

    def known(self, at: datetime | None) -> Known:
        """Return what conditions may know at this time."""
        definition = self.definition
        zone, calendars = definition.clock.zone or "UTC", definition.calendars or {}
        return Known(self.requester, self.groups, at, zone, calendars)

    def ruling(self, fields: Mapping[str, JsonValue]) -> Ruling:
        """Return what the file says about these fields. Raises InvalidPayloadError if they are invalid."""
        # A request keeps its values in one object, and asks some twenty times (benchmarks/parts/approval.py).
        if self._last is None or self._last[0] is not fields:
            self._last = fields, _ruling(self, json.dumps(fields))
        return self._last[1]


class Ruling:
    """What a workflow's file says about one form's values. Stages and seats of unknown conditions apply."""

    def __init__(self, rules: Rules, fields: Mapping[str, JsonValue]) -> None:
        definition = rules.definition
        self._rules = rules
        self.typed = forms.values(definition.fields, fields)
        self.fields = forms.dump(definition.fields, self.typed)
        self.digest = forms.digest(definition.id, rules.digest, definition.fields, self.typed)
        self._judged: dict[tuple[str, datetime | None], Judgement] = {}
        self._opened_at: datetime | None = None
        self._stages: Mapping[str, datetime | None] | None = {}

    def at(self, opened_at: datetime, stages: Mapping[str, datetime | None] | None = None) -> Ruling:
        """Return it for these times: of the opening, and those at which the stages were to open.

        None: they all open at once. A stage without a time is yet to come.
        """
        made = copy(self)
        for derived in ("automatic", "plan", "applied"):
            made.__dict__.pop(derived, None)
        made._judged, made._opened_at, made._stages = {}, opened_at, stages
        return made

    @cached_property
    def automatic(self) -> tuple[int, Auto, str] | None:
        """The first rule that decides without people: its number from 1, the rule, and its reason."""
        for number, rule in enumerate(self._rules.definition.auto, 1):
            judged = self._judge(rule.when)
            if judged.holds is True:
                return number, rule, judged.because
        return None

    @property
    def may_be_requested(self) -> bool:
        """Whether [[request]] lets this requester have these values. A rule of fields that aren't given doesn't."""
        return self._rules.definition.request is None or any(self.request_rules.values())

    @property
    def request_rules(self) -> dict[int, bool]:
        """The [[request]] rules about this requester, by number from 1: whether each lets them have these values."""
        return {
            number: rule.when is None or self._judge(rule.when).holds is True
            for number, rule in enumerate(self._rules.definition.request or (), 1)
            if any(entry in self._rules.groups for entry in rule.from_)
        }

    @cached_property
    def plan(self) -> tuple[tuple[bool, str], ...]:
        """Whether each stage applies, and why or why not."""
        return tuple(self._applies(rule) for rule in self._rules.definition.stage)

    @property
    def not_opening(self) -> tuple[str, ...]:
        """The stages that don't apply, so that nothing they say matters. Without a time: at any time."""
        stages = zip(self._rules.definition.stage, self.plan, strict=True)
        return tuple(rule.id for rule, (applies, _) in stages if not applies)

    @cached_property
    def applied(self) -> tuple[AppliedRule, ...]:
        """The conditions that were evaluated, with their results."""
        definition, decides = self._rules.definition, self.automatic
        autos = definition.auto if decides is None else definition.auto[: decides[0]]
        found = [
            self._applied(f"auto {number}: {rule.decision} when {rule.when}", rule.when, self._judge(rule.when).holds)
            for number, rule in enumerate(autos, 1)
        ]
        for rule in definition.stage:
            if rule.when is not None:
                holds = self._judge(rule.when, rule.id).holds is not False
                found.append(self._applied(f"stage {rule.id} when {rule.when}", rule.when, holds, rule.id))
        return tuple(found)

    def seats(self, rule: Stage) -> dict[int, Seat]:
        """Return the stage's seats that apply, by number."""
        return {
            number: seat
            for number, seat in enumerate(rule.seats)
            if seat.when is None or self._judge(seat.when, rule.id).holds is not False
        }

    def skipped_seats(self, rule: Stage) -> dict[int, str]:
        """Return why the others don't apply, by number."""
        left = self.seats(rule)
        return {
            number: self._judge(seat.when, rule.id).because
            for number, seat in enumerate(rule.seats)
            if seat.when is not None and number not in left
        }

    def _applies(self, rule: Stage) -> tuple[bool, str]:
        because = ""
        if rule.when is not None:
            judged = self._judge(rule.when, rule.id)
            if judged.holds is False:
                return False, judged.because
            because = judged.because
        return (True, because) if self.seats(rule) else (False, "none of its seats applies")

    def _judge(self, when: str, stage: str = "") -> Judgement:
        condition, at = self._rules.condition(when), None
        if condition.is_timed:
            at = self._at(stage)
        judged = self._judged.get((when, at))
        if judged is None:
            typed = {**self.typed, **condition.known(self._rules.known(at))} if condition.about else self.typed
            is_early = condition.is_timed and at is None
            judged = condition.judge_whenever(typed) if is_early else condition.judge(typed)
            self._judged[when, at] = judged
        return judged

    def _at(self, stage: str) -> datetime | None:
        return self._opened_at if not stage or self._stages is None else self._stages.get(stage)

    def _applied(self, text: str, when: str, applies: bool | None, stage: str = "") -> AppliedRule:
        condition = self._rules.condition(when)
        values = {name: self.fields[name] for name in condition.names}
        known = condition.known(self._rules.known(self._at(stage)))
        values |= {condition.about[name].shown_as: value for name, value in known.items() if value is not None}
        return AppliedRule(text, applies is True, self._judge(when, stage).because, values)


def rules_of(definition: Definition, opening: Opening | None = None) -> Rules:
    """Return the compiled rules, made once for the same object: comparing definitions by content takes too long.

    `opening`: of the request, for rules about its requester.
    """
    rules = _kept.get(id(definition))
    if rules is None or rules.definition is not definition:
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        rules = _kept[id(definition)] = Rules(definition)
    if opening is None or not rules.is_about_requester:
        return rules
    return _for_requester(rules, opening.requester, opening.groups)


@lru_cache(maxsize=KEPT)
def _for_requester(rules: Rules, requester: str, groups: tuple[str, ...]) -> Rules:
    return Rules(rules.definition, requester, groups, rules)


def addresses_of(definition: Definition) -> Iterator[str]:
    """Yield every address of those who decide: of seats, vetoes and escalations."""
    for stage in definition.stage:
        yield from (address for seat in stage.seats for address in seat.from_)
        yield from stage.veto.from_ if stage.veto is not None else ()
    yield from (address for escalation in definition.escalate for address in escalation.to)


def facts_of(request: Request, rules: Rules, stage: RequestStage | None = None) -> Facts:
    """Return what the file's templates may name. `stage`: the one that opens."""
    asks = {stage.id: stage.ask for stage in rules.definition.stage}
    answered = last_answers_of(request) if request.votes else {}
    answers = {stage: forms.values(asks[stage], given) for stage, given in answered.items()}
    ended = request.outcome
    decision = ended and AboutDecision(ended.outcome, _who(request, ended.by), ended.comment, ended.via)
    return Facts(
        workflow=request.workflow,
        fields=_with_names(rules.ruling(request.fields).typed, request, rules),
        requester=_who(request, request.requester),
        on_behalf_of=_who(request, request.on_behalf_of) if request.on_behalf_of else Who(),
        request=AboutRequest(request.id, request.title, request.digest),
        decision=decision or AboutDecision(),
        answers={stage: answers.get(stage, {}) for stage in asks},
        untrusted=rules.untrusted,
        revision=request.definition,
        stage=AboutStage(stage.id, stage.title) if stage is not None else None,
    )


def _with_names(typed: Mapping[str, Any], request: Request, rules: Rules) -> Mapping[str, Any]:
    """Return the values with people in the place of their addresses."""
    people = [name for name, spec in rules.definition.fields.items() if spec.holds_people and typed.get(name)]
    return {**typed, **{name: _named(request, typed[name]) for name in people}} if people else typed


def _named(request: Request, value: str | tuple[str, ...]) -> Who | tuple[Who, ...]:
    return _who(request, value) if isinstance(value, str) else tuple(_who(request, each) for each in value)


def _who(request: Request, key: str) -> Who:
    return Who(key, request.people[key].name if key in request.people else plain_name(key))


_kept: dict[int, Rules] = {}  # by their definition's id, the oldest first


@lru_cache(maxsize=KEPT_RULINGS)
def _ruling(rules: Rules, text: str) -> Ruling:
    return Ruling(rules, json.loads(text))


def _known(value: Any, read: Callable[[Any], Definition]) -> Definition:
    return _read(json_text(value)) if isinstance(value, dict) else read(value)


@lru_cache(maxsize=KEPT)
def _read(text: str) -> Definition:
    return Definition.model_validate(json.loads(text))


KeptDefinition = Annotated[Definition, WrapValidator(_known)]
"""A definition as logs keep it: the same JSON gives the same object."""
