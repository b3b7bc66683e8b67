"""Runs policy tests: plays each case with the workflow itself, and says what was expected, what happened and why.

Nothing is stored, sent or called. What the cases have met of a workflow's rules and stages is its coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import JsonValue

from approvals_bot.approvals import fields
from approvals_bot.approvals.acts import Change, Edit, Vote, Withdraw
from approvals_bot.approvals.ballot import eligible_voters, open_seats, stage_status, waiting_for
from approvals_bot.approvals.durations import duration_text
from approvals_bot.approvals.named_people import opening_with_people
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import DEADLINE, Opening, Request, RequestStage
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.config.policy_tests import Case, CaseVote, LoadedTests
from approvals_bot.durable.core.bugs import where_raised
from approvals_bot.errors import InvalidPayloadError, WorkflowBugError
from approvals_bot.people import People, is_mail
from approvals_bot.service.emergencies import emergency_definition
from approvals_bot.service.open import check_requester, permitted_opening
from approvals_bot.service.playing import PlayedGrants, PlayedRequest, played, with_example_files
from approvals_bot.service.refusals import OpeningRefused
from approvals_bot.service.tool_calls import known_opening

MakePeople = Callable[[Mapping[str, Sequence[str]]], People]
"""Makes the people of a configuration. Live sources aren't read; the mapping says who is in some of them."""


@dataclass(frozen=True, slots=True)
class Unmet:
    """An expectation that wasn't met. `key`: of the case."""

    key: str
    line: int
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.key}: expected {self.expected}, got {self.actual}"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of a case. `timeline`: what happened, line by line, with the reasons.

    `broken`: the bug of ours that it has met, and where; "" if it was played to its end.
    """

    name: str
    line: int
    outcome: str
    asked: tuple[str, ...]
    timeline: tuple[str, ...]
    failures: tuple[Unmet, ...]
    broken: str = ""

    @property
    def passed(self) -> bool:
        return not self.failures and not self.broken


@dataclass(frozen=True, slots=True)
class FileResult:
    """The results of a file's cases, and which rules and stages of its workflow they have met."""

    file: str
    workflow: str
    cases: tuple[CaseResult, ...]
    coverage: Mapping[str, bool]

    @property
    def missed(self) -> list[str]:
        return [item for item, is_met in self.coverage.items() if not is_met]


async def run_tests(tested: LoadedTests, make_people: MakePeople) -> FileResult:
    """Play every case of a file."""
    people, definition = make_people(tested.tests.groups), tested.definition
    coverage = dict.fromkeys(_items(definition), False)
    results = []
    for at, case in enumerate(tested.tests.case):
        happened = await _played(definition, case, people, tested.tests.case[:at])
        coverage.update(dict.fromkeys((*happened.requested, *_met(definition, happened.seen)), True))
        expected = await _expected(case, people)
        failures = () if happened.broken else tuple(_failures(tested, at, case, happened, expected))
        line = tested.line("case", at, "name")
        asked, timeline = tuple(happened.asked), tuple(happened.timeline)
        results.append(CaseResult(case.name, line, happened.outcome, asked, timeline, failures, happened.broken))
    return FileResult(str(tested.path), definition.id, tuple(results), coverage)


@dataclass(slots=True)
class _Happened:
    """What came of a case. `asked`: who could decide, and why; `reasons`: what `why` may mean.

    `requested`: what it has met of [[request]].
    """

    outcome: str = "waiting"
    detail: str = ""
    asked: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    timeline: list[str] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    broken: str = ""

    def note(self, what: str, reason: str = "") -> None:
        line = f"{what}: {reason}" if reason else what
        if line not in self.timeline:
            self.timeline.append(line)
        if reason:
            self.reasons.append(reason)


async def _played(definition: Definition, case: Case, people: People, earlier: Sequence[Case]) -> _Happened:
    """Play a case. A bug of ours, for which a real request would wait, says nothing about the policy."""
    happened, grants = _Happened(), PlayedGrants()
    try:
        for each in _covering(case, earlier):
            await _play(_Happened(), definition, _after(grants, each), people, grants)
        await _play(happened, definition, _after(grants, case), people, grants)
    except Exception as bug:  # noqa: BLE001  # whatever it is, the other cases are played
        what = str(bug) if isinstance(bug, WorkflowBugError) else f"{type(bug).__name__}: {bug} ({where_raised(bug)})"
        happened.outcome, happened.broken = "broken", what
        happened.note("broken", what)
    return happened


def _covering(case: Case, earlier: Sequence[Case]) -> list[Case]:
    """Return the cases whose approvals may cover this one, the first of them first."""
    found = list[Case]()
    while case.covered_by is not None:
        case = next(each for each in earlier if each.name == case.covered_by)
        found.insert(0, case)
    return found


def _after(grants: PlayedGrants, case: Case) -> Case:
    """Return the case, a minute after what was played before it unless it says when it is."""
    is_first = case.covered_by is None or "now" in case.model_fields_set
    return case if is_first else case.model_copy(update={"now": grants.now + timedelta(minutes=1)})


async def _play(happened: _Happened, definition: Definition, case: Case, people: People, grants: PlayedGrants) -> None:
    behalf = None if case.on_behalf_of is None else people.canonical(case.on_behalf_of)
    requester = people.identity(case.requester)
    try:
        await check_requester(definition, requester, requester, behalf, people)
        given = with_example_files(definition.fields, case.input)
        if definition.request is not None:
            happened.requested += await _requested(definition, given, requester, behalf, people, case.now)
        opening = await permitted_opening(definition, given, requester, behalf, people, case.now)
        if case.break_glass is not None:
            definition = await emergency_definition(definition, opening, case.break_glass, people, case.now)
    except OpeningRefused as refused:
        faults = "".join(f" {'.'.join(map(str, fault['loc']))}: {fault['msg']}." for fault in refused.errors)
        _refused(happened, f"{refused.detail}{faults}")
    except InvalidPayloadError as invalid:
        _refused(happened, str(invalid))
    else:
        with played(definition, opening, people, case.now, grants) as play:
            await _play_votes(play, case, opening, happened, people)


async def _requested(
    definition: Definition,
    given: Mapping[str, JsonValue],
    requester: str,
    behalf: str | None,
    people: People,
    at: datetime,
) -> list[str]:
    """Return what these values meet of [[request]]. Raises OpeningRefused or InvalidPayloadError."""
    values = fields.dump(definition.fields, fields.values(definition.fields, given))
    opening = await known_opening(definition, Opening(values, requester, behalf), people)
    opening = await opening_with_people(definition.fields, opening, people)
    found = rules_of(definition, opening).ruling(opening.fields).at(at).request_rules
    return [f"request {number}" if lets else f"request {number} when false" for number, lets in found.items()]


def _refused(happened: _Happened, why: str) -> None:
    happened.outcome, happened.detail = "refused", why
    happened.note("refused", why)


async def _play_votes(play: PlayedRequest, case: Case, opening: Opening, happened: _Happened, people: People) -> None:
    await play.open()
    noted = _note(happened, play, 0)
    passed = timedelta()
    for vote in case.votes:
        passed += vote.after
        await play.wait(play.now + vote.after)
        noted = _note(happened, play, noted)
        if vote.by is None:
            continue
        reply = await play.act(_act(vote, people.canonical(vote.by), opening))
        when = f"after {duration_text(passed)}, " if passed else ""
        happened.note(f"{when}{vote.by} ({vote.choice or 'approve'})", reply.text)
        noted = _note(happened, play, noted)
    _conclude(happened, play)
    happened.seen = [*play.seen]
    if play.request.is_open and case.outcome not in (None, "waiting", "refused"):
        await play.run_out()
        _note(happened, play, noted)
        waited = happened.detail
        _conclude(happened, play)
        if happened.outcome not in (case.outcome, "waiting"):
            happened.detail = f"{waited}; time alone makes it {happened.outcome} {happened.detail}"
            happened.outcome = "waiting"
        else:
            happened.seen = play.seen


def _act(vote: CaseVote, by: str, opening: Opening) -> Change:
    is_own = by in (opening.requester, opening.on_behalf_of)
    match vote.choice or "approve":
        case "withdraw":
            return Withdraw(by, vote.comment)
        case "edit" if is_own:
            return Edit(by, vote.fields)
        case choice:
            return Vote(by, choice, comment=vote.comment, answers=vote.answers, fields=vote.fields)


def _note(happened: _Happened, play: PlayedRequest, noted: int) -> int:
    """Note what the request has become since. Returns how many of its states are noted."""
    for request in play.seen[noted:]:
        for stage in request.stages:
            if stage.state == "skipped":
                happened.note(f"stage {stage.id} is skipped", stage.because)
            elif stage.state == "open":
                _note_open(happened, stage)
        for fault in request.unresolved:
            happened.note(f"{fault.source} can't be read in a test", "list its people under [groups] of the test file")
    return len(play.seen)


def _note_open(happened: _Happened, stage: RequestStage) -> None:
    because = f" ({stage.because})" if stage.because else ""
    if stage.because:
        happened.reasons.append(stage.because)
    for seat in stage.seats:
        for address, why in seat.eligible.items():
            happened.asked.setdefault(address, why)
            happened.reasons.append(why)
    people = ", ".join(eligible_voters(stage)) or "nobody"
    happened.note(f"stage {stage.id}{because} asks {people}")


def _conclude(happened: _Happened, play: PlayedRequest) -> None:
    """Say how the request ended, or whom it waits for."""
    request, ended = play.request, play.request.outcome
    if play.failure:
        happened.outcome, happened.detail = "failed", play.failure
        happened.note("failed", play.failure)
    elif ended is None:
        people = ", ".join(waiting_for(request)) or "nobody"
        happened.outcome, happened.detail = "waiting", f"for {people}"
    else:
        why = ended.because or ended.comment
        happened.outcome = ended.outcome
        happened.detail = f"by {ended.by}" + (f": {why}" if why else "")
        happened.note(f"{ended.state} by {ended.by}", why)


# What was expected


def _failures(
    tested: LoadedTests, at: int, case: Case, happened: _Happened, expected: Sequence[str]
) -> Iterator[Unmet]:
    def failed(key: str, expected: str, actual: str) -> Unmet:
        return Unmet(key, tested.line("case", at, key), expected, actual)

    if case.outcome is not None and case.outcome != happened.outcome:
        yield failed("outcome", case.outcome, f"{happened.outcome} {_in_brackets(happened.detail)}".rstrip())
    elif case.outcome is None and happened.outcome in ("refused", "failed"):
        yield failed("name", "a request", f"{happened.outcome} {_in_brackets(happened.detail)}")
    if case.asked is not None and {*expected} != {*happened.asked}:
        yield failed("asked", ", ".join(expected) or "nobody", ", ".join(happened.asked) or "nobody")
    for why in case.why:
        if not any(why.casefold() in reason.casefold() for reason in happened.reasons):
            reasons = "; ".join(dict.fromkeys(happened.reasons)) or "no reason"
            yield failed("why", f'"{why}"', reasons)


async def _expected(case: Case, people: People) -> list[str]:
    """Return the people that a case expects to be asked. Of a group, those who don't count as the requester."""
    barred = {people.identity(one) for one in (case.requester, case.on_behalf_of) if one}
    expected = dict[str, None]()
    for entry in case.asked or ():
        found = [person.address for person in (await people.resolve(entry, requester=case.requester)).persons]
        expected.update(dict.fromkeys(found if is_mail(entry) else (one for one in found if one not in barred)))
    return list(expected)


def _in_brackets(text: str) -> str:
    return f"({text})" if text else ""


# Coverage


def _items(definition: Definition) -> Iterator[str]:
    """Yield what the cases of a workflow may meet, in the order of its file."""
    for number, asked in enumerate(definition.request or (), 1):
        yield f"request {number}"
        if asked.when is not None:
            yield f"request {number} when false"
    for number, _ in enumerate(definition.auto, 1):
        yield from (f"auto {number}", f"auto {number} when false")
    for stage in definition.stage:
        yield f"stage {stage.id}"
        if stage.when is not None:
            yield f"stage {stage.id} when false"
        for name, seat in zip(_seat_names(stage), stage.seats, strict=True):
            yield f"{name} filled"
            if seat.when is not None:
                yield f"{name} when false"
        if stage.veto is not None:
            yield f"stage {stage.id} veto"
    for number, _ in enumerate(definition.escalate, 1):
        yield f"escalate {number}"
    if any(here.clock.deadline is not None for here in map(definition.in_stage, definition.stage)):
        yield "deadline"


def _seat_names(stage: Stage) -> list[str]:
    """Name the seats of a stage, in the order of their ids: `stage go any 2 seat 1` is one of an alternative."""
    if stage.alternatives is None:
        return [f"stage {stage.id} seat {number}" for number, _ in enumerate(stage.seats, 1)]
    return [
        f"stage {stage.id} any {at} seat {number}"
        for at, alternative in enumerate(stage.alternatives, 1)
        for number, _ in enumerate(alternative.seats, 1)
    ]


def _met(definition: Definition, seen: Sequence[Request]) -> Iterator[str]:
    """Yield what a request has met."""
    for request in seen:
        of_stages = sum(stage.when is not None for stage in definition.stage)
        for number, rule in enumerate(request.rules[: len(request.rules) - of_stages], 1):
            yield f"auto {number}" if rule.applies else f"auto {number} when false"
        for stage in request.stages:
            yield from _met_stage(definition, stage)
        ended = request.outcome
        if ended is not None and ended.by == DEADLINE:
            yield "deadline"


def _met_stage(definition: Definition, stage: RequestStage) -> Iterator[str]:
    name = f"stage {stage.id}"
    if stage.state == "skipped":
        yield f"{name} when false"
        return
    if stage.opened_at is None:
        return
    yield name
    rule = next(each for each in definition.stage if each.id == stage.id)
    there, still_open = {seat.id for seat in stage.seats}, open_seats(stage)
    for number, of_seat in enumerate(_seat_names(rule)):
        if number not in there:
            yield f"{of_seat} when false"
        elif number not in still_open:
            yield f"{of_seat} filled"
    if rule.veto is not None and stage_status(stage) == "rejected":  # nobody else may reject
        yield f"{name} veto"
    here = definition.in_stage(rule)
    late = here.clock.on_deadline == "escalate"
    for number, escalation in enumerate(here.escalate, 1):
        if any((each.to, each.mode) == (escalation.to, escalation.mode) for each in stage.escalations):
            yield f"escalate {number}"
            if late:
                yield "deadline"
