"""Rules about the time: what a stage asks when it would open, it keeps."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from approvals_bot import Clock, RunFailedError, Stage, request_approval, workflow
from approvals_bot.approvals.business_time import Calendar
from approvals_bot.approvals.circumstances import Known
from approvals_bot.approvals.conditions import Condition, ConditionError
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.reach import gaps_of
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.open import open_run
from approvals_bot.service.refusals import OpeningRefused
from tests.approvals.conftest import ANN, BO, CY, DI, START, OpenedRequest
from tests.approvals.test_request_approval import views

BERLIN = Calendar.model_validate({"zone": "Europe/Berlin", "hours": "09:00-17:00", "holidays": ["2026-03-03"]})
FIELDS = {"amount": FieldSpec(type="integer"), "kind": FieldSpec(type="enum", values=("a", "b"))}

FILE = """
[workflow]
id = "timed"
title = "Timed {{ kind }}"
request = ["*"]
[fields]
kind = { type = "enum", values = ["a", "b"] }
[[auto]]
when = 'kind == "b" and business_hours("berlin")'
decision = "approve"
[[stage]]
id = "team"
from = ["ann@acme.eu"]
[[stage]]
id = "late"
from = ["bo@acme.eu"]
when = 'now.hour >= 18'
[[stage]]
id = "last"
from = ["cy@acme.eu"]
[clock]
zone = "Europe/Berlin"
"""


def file(text: str = FILE) -> Definition:
    return Definition.model_validate(tomllib.loads(text), context={}).with_calendar({"berlin": BERLIN})


async def opened(office: Any, definition: Definition, **fields: Any) -> OpenedRequest:
    run = await office.engine.start(approval.under(definition.id, pinned(definition)), Opening(fields, DI))
    await office.settle()
    return OpenedRequest(office, run)


@pytest.mark.parametrize(
    ("when", "at", "holds", "because"),
    [
        ("now.weekday >= 6", "2026-03-07T12:00Z", True, "the weekday is Saturday (Saturday or later)"),
        ("now.weekday in [6, 7]", "2026-03-02T12:00Z", False, "the weekday is Monday (not Saturday or Sunday)"),
        ("now.weekday == 1", "2026-03-01T23:30Z", True, "the weekday is Monday"),  # there it is past midnight
        ("now.hour == 2", "2026-10-25T01:10Z", True, "the hour is 2"),  # in the second pass of the hour
        ("now.hour < 9", "2026-03-02T07:59Z", True, "the hour is 8 (before 9)"),
        ('business_hours("berlin")', "2026-03-02T07:59Z", False, "“business hours of berlin” is no"),
        ('business_hours("berlin")', "2026-03-02T08:00Z", True, "“business hours of berlin” is yes"),
        ('business_hours("berlin")', "2026-03-02T16:00Z", False, "“business hours of berlin” is no"),
        ('business_hours("berlin")', "2026-03-03T12:00Z", False, "“business hours of berlin” is no"),  # a holiday
    ],
)
def test_conditions_ask_what_time_it_is(when: str, at: str, holds: bool, because: str) -> None:
    condition = Condition(when, FIELDS)
    known = Known(at=datetime.fromisoformat(at), zone="Europe/Berlin", calendars={"berlin": BERLIN})
    judged = condition.judge(condition.known(known))
    assert (judged.holds, judged.because) == (holds, because)
    assert condition.judge_whenever({}).holds is None


def test_what_holds_at_any_time_is_known_before() -> None:
    condition = Condition("now.hour >= 18 and amount > 5", FIELDS)
    assert condition.judge_whenever({"amount": 9}).because == "it depends on when the stage opens"
    judged = condition.judge_whenever({"amount": 5})
    assert judged.holds is False
    assert judged.because == "now.hour >= 18 and amount > 5 is not true at any time (amount: 5)"


@pytest.mark.parametrize(
    ("when", "message", "meant"),
    [
        ("now.hours > 3", "write now.weekday", "now.hour"),
        ("now.day == 1", "write now.weekday", "now.weekday"),
        ("now > 3", "write now.weekday", ""),
        ("nwo.hour == 3", "no field is called nwo", "now"),
        ("now.weekday == 0", "now.weekday is never 0; 1 is Monday, 7 is Sunday", ""),
        ("24 > now.hour", "now.hour is never 24; it is 0 to 23", ""),
        ("now.weekday in [0, 6]", "now.weekday is never 0", ""),
        ("now.hour", "must be true or false", ""),
        ('now.weekday == "sat"', 'now.weekday and "sat" can\'t be equal', "6"),
        ("business_hours(berlin)", 'write business_hours("name")', ""),
        ('business_hours("a") == 3', 'business_hours("a") and 3 can\'t be equal', ""),
        ('busines_hours("a")', "no field is called busines_hours", "business_hours"),
        ('answer_of("team", "code") == "x"', "in the follow-ups of [[on.…]] only", ""),
    ],
)
def test_what_is_no_time_is_refused(when: str, message: str, meant: str) -> None:
    with pytest.raises(ConditionError) as refused:
        Condition(when, FIELDS)
    assert message in str(refused.value)
    assert refused.value.suggestion == meant


def test_fields_may_have_these_names() -> None:
    condition = Condition("now.hour == 9 and amount > 0", {"now": FieldSpec(type="datetime"), **FIELDS})
    assert (condition.about, condition.judge({"now": START, "amount": 1}).holds) == ({}, True)


async def test_a_stage_keeps_the_time_when_it_would_open(office: Any) -> None:
    """It is 10:00 in Berlin. Later the stage applies; once asked, it stays as it is, also after a restart."""
    async with office.open():
        early, late = await opened(office, file(), kind="a"), await opened(office, file(), kind="a")
        view = await early.view()
        ahead = view.stages[1]
        assert (ahead.state, ahead.because) == ("ahead", "it depends on when the stage opens")
        assert await early.vote(ANN) == "counted"
        view = await early.view()
        assert [stage.state for stage in view.stages] == ["done", "skipped", "open"]
        assert view.stages[1].because == "the hour is 10 (before 18)"
        await office.clock.advance("8h")
        assert await late.vote(ANN) == "counted"
        assert [stage.state for stage in (await late.view()).stages] == ["done", "open", "ahead"]
        rules = {rule["rule"]: rule for rule in explain(await late.view())["rules"]}
        rule = rules["stage late when now.hour >= 18"]
        assert (rule["values"], rule["applies"], rule["because"]) == (
            {"now.hour": 18},
            True,
            "the hour is 18 (18 or later)",
        )
    async with office.open():
        await office.clock.advance("10h")  # 4:00 there
        assert (await late.vote(BO), await late.vote(CY)) == ("counted", "decided")
        assert await early.vote(CY) == "decided"
        assert [stage.state for stage in (await early.view()).stages] == ["done", "skipped", "done"]


async def test_an_edit_asks_again_only_where_a_stage_opens_again(office: Any) -> None:
    text = FILE.replace("kind = { type", 'note = "string"\nkind = { type')
    text += '[policy]\non_change = { note = "keep" }\noutcomes = ["approve", "changes"]\n'
    async with office.open():
        kept, again = [await opened(office, file(text), kind="a", note="x") for _ in range(2)]
        await office.clock.advance("8h")
        assert [await one.vote(ANN) for one in (kept, again)] == ["counted", "counted"]
        await office.clock.advance("8h")
        await kept.act(kind="edit", by=DI, fields={"note": "y"})
        assert [stage.state for stage in (await kept.view()).stages] == ["done", "open", "ahead"]
        assert (await again.vote(BO, "changes")) == "counted"
        await again.act(kind="edit", by=DI, fields={"note": "y"})
        assert [stage.state for stage in (await again.view()).stages] == ["done", "skipped", "open"]


async def test_an_edit_may_not_leave_a_night_without_stages(office: Any) -> None:
    """By the time of the edit, for what opens again."""
    text = FILE.replace('["a", "b"]', '["a", "b", "c"]')
    for stage in ("team", "last"):
        text = text.replace(f'id = "{stage}"', f'id = "{stage}"\nwhen = \'kind == "a"\'')
    async with office.open():
        one = await opened(office, file(text), kind="a")
        await office.clock.advance("7h")  # 17:00 there
        said = await one.act(kind="edit", by=DI, fields={"kind": "c"})
        assert said["text"].startswith("Nobody could decide it like this: no stage applies to this request, because ")
        await office.clock.advance("1h")
        assert (await one.act(kind="edit", by=DI, fields={"kind": "c"}))["verdict"] == "edited"
        assert (await one.view()).stages[1].state == "open"


async def test_rules_and_requests_ask_once_at_the_opening(office: Any) -> None:
    text = FILE + "[[request]]\nfrom = [\"*\"]\nwhen = 'now.weekday < 6'\n"
    definition = file(text.replace('request = ["*"]\n', ""))
    listed = Listed(approval.under(definition.id, pinned(definition)), definition)

    async def ask(kind: str) -> Any:
        return await open_run(
            engine=office.engine,
            workflows=Catalog({"timed": listed}),
            people=office.people,
            name="timed",
            input={"kind": kind},
            opener=DI,
        )

    async with office.open():
        by_rule = OpenedRequest(office, await ask("b"))
        await office.settle()
        assert (await by_rule.view()).state == "approved"
        assert (await by_rule.view()).rules[0].values == {"kind": "b", 'business_hours("berlin")': True}
        one = OpenedRequest(office, await ask("a"))
        await office.clock.advance("5d")  # on Saturday, the file would let nobody request it
        await one.act(kind="edit", by=DI, fields={"kind": "b"})
        assert (await one.view()).state == "approved"  # it was opened in business hours
        with pytest.raises(OpeningRefused) as refused:
            await ask("a")
        assert refused.value.code == "values_not_allowed"


async def test_a_simulation_plays_at_its_time(office: Any) -> None:
    async def stages_at(hours: int, kind: str = "a") -> Any:
        said = await simulate(file(), Opening({"kind": kind}, DI), office.people, START + timedelta(hours=hours))
        return said["auto"] or [stage["id"] for stage in said["stages"] if stage["state"] != "skipped"]

    assert await stages_at(0) == ["team", "last"]
    assert await stages_at(8) == ["team", "late", "last"]
    assert (await stages_at(0, "b"))["decision"] == "approve"
    assert await stages_at(24, "b") == ["team", "last"]  # a holiday
    last = '[[stage]]\nid = "last"\nfrom = ["cy@acme.eu"]\n'
    night = file(FILE.replace(last, "").replace('id = "team"', "id = \"team\"\nwhen = 'now.hour > 20'"))
    said = await simulate(night, Opening({"kind": "a"}, DI), office.people, START)
    assert said["problems"] == [
        "no stage applies to this request, because the hour is 10 (20 or earlier); the hour is 10 (before 18)"
    ]


def gaps(*whens: str) -> list[str]:
    head = '[workflow]\nid = "t"\ntitle = "T"\nrequest = ["*"]\n[clock]\nzone = "Europe/Berlin"\n'
    stages = "".join(f'[[stage]]\nid = "s{at}"\nfrom = ["@a"]\nwhen = \'{when}\'\n' for at, when in enumerate(whens))
    end = ": such a request can't be opened; add a stage for it"
    return [gap.message.removesuffix(end) for gap in gaps_of(file(head + stages))]


@pytest.mark.parametrize(
    ("whens", "found"),
    [
        (["now.weekday < 6"], ["no stage applies to now.weekday = 6"]),
        (["now.weekday < 6", "now.weekday >= 6"], []),
        (["now.hour >= 8", "now.hour < 7"], ["no stage applies to now.hour = 7"]),
        (["now.hour >= 8", "now.hour < 8"], []),
        (["now.hour > 22 and now.hour < 3", "now.hour >= 0"], ["never applies: no values make it true"]),
        (['business_hours("berlin")'], ['no stage applies to business_hours("berlin") = false']),
        (['business_hours("berlin")', 'not business_hours("berlin")'], []),
        (['not business_hours("berlin")', "now.weekday < 6"], []),  # on no Saturday is it open
        (
            ['not business_hours("berlin")', "now.weekday < 5"],
            ['no stage applies to business_hours("berlin") = true, now.weekday = 5'],
        ),
    ],
)
def test_gaps_name_a_time(whens: list[str], found: list[str]) -> None:
    assert gaps(*whens) == found


@workflow(name="timed_by_a_program")
async def timed_by_a_program(deadline: str, when: str, day: str) -> str:
    stage = Stage(id="go", from_=["ann@acme.eu"], when=when)
    clock = Clock(deadline=deadline, zone="Europe/Berlin")
    fields = {"needed_by": date.fromisoformat(day), "size": 3}
    return type(await request_approval("Go", stages=[stage], fields=fields, clock=clock)).__name__


@pytest.mark.parametrize(
    ("deadline", "when", "day", "says"),
    [
        ("field:size", "size > 1", "2026-03-09", "the deadline is in the field 'size', which is no date or datetime"),
        ("field:due", "size > 1", "2026-03-09", "the deadline is in the field 'due', which is no date or datetime"),
        ("field:needed_by", "size > 1", "2026-03-01", "needed_by: has passed, and it is the request's deadline"),
        ("23:00", 'business_hours("paris")', "2026-03-09", "config.toml has no calendar named 'paris'"),
        ("23:00", "now.hour < 9", "2026-03-09", "Nobody could decide this request: no stage applies"),
    ],
)
async def test_programs_ask_for_times_that_there_are(
    office: Any, deadline: str, when: str, day: str, says: str
) -> None:
    async with office.open():
        run = await office.engine.start(timed_by_a_program, deadline, when, day)
        with pytest.raises(RunFailedError, match=re.escape(says)):
            await run.return_value()


async def test_a_program_asks_in_business_hours_only(office: Any) -> None:
    office.calendars["berlin"] = BERLIN
    async with office.open():
        run = await office.engine.start(
            timed_by_a_program, "field:needed_by", 'business_hours("berlin") and now.weekday == 1', "2026-03-02"
        )
        await office.settle()
        (view,) = await views(office, run)
        assert view.stage is not None
        assert view.stage.because == "“business hours of berlin” is yes and the weekday is Monday"
        assert view.deadline == datetime(2026, 3, 2, 23, tzinfo=UTC)  # the end of the day there
        await office.clock.advance("14h")
        assert await run.return_value() == "Expired"
