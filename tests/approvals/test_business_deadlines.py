"""Requests in business time: nothing is due while nobody is there."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot.approvals.business_time import Calendar
from approvals_bot.approvals.policy import Definition, digest, pinned
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate

ANN, BO, CY, DI = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di"))

LEAVE = """
[workflow]
id = "leave"
title = "Time off"
request = ["*"]
[[stage]]
id = "ok"
from = ["ann@acme.eu"]
[deliver]
email = true
[clock]
deadline = "3 business days"
remind = ["4 business hours", "1 business day"]
on_deadline = "reject"
[clock.calendar]
zone = "Europe/Berlin"
hours = "09:00-17:00"
[[escalate]]
after = "2 business days"
to = ["bo@acme.eu"]
"""

FRIDAY_EVENING = datetime(2026, 3, 6, 16, 30, tzinfo=UTC)  # 17:30 in Berlin


async def wait_until(office: Any, moment: datetime) -> None:
    await office.clock.advance(moment - office.clock.now())


def reminders(office: Any) -> int:
    return sum(mail.occasion == "reminder" for mail in office.email.sent)


async def test_nothing_is_due_over_a_weekend(office: Any) -> None:
    await wait_until(office, FRIDAY_EVENING)
    async with office.open():
        opened = await office.ask(LEAVE, {}, by=DI)
        await wait_until(office, datetime(2026, 3, 9, 7, 59, tzinfo=UTC))  # Monday, a minute before opening
        assert [mail.occasion for mail in office.email.sent] == ["request"]
        await wait_until(office, datetime(2026, 3, 9, 12, 0, tzinfo=UTC))  # 13:00: four hours after the opening
        assert reminders(office) == 1
        await wait_until(office, datetime(2026, 3, 11, 7, 59, tzinfo=UTC))
        assert office.email.to(BO) == []
        await wait_until(office, datetime(2026, 3, 11, 8, 0, tzinfo=UTC))  # two days after the opening
        assert len(office.email.to(BO)) == 1
        assert reminders(office) == 2
        assert (await opened.view()).deadline == datetime(2026, 3, 12, 8, 0, tzinfo=UTC)
        await wait_until(office, datetime(2026, 3, 12, 8, 0, tzinfo=UTC))
        assert (await opened.record()).result["decision"] == "rejected"


async def test_deadlines_survive_a_restart(office: Any) -> None:
    await wait_until(office, FRIDAY_EVENING)
    async with office.open():
        opened = await office.ask(LEAVE, {}, by=DI)
    await wait_until(office, datetime(2026, 3, 9, 12, 0, tzinfo=UTC))
    async with office.open():
        await office.settle()
        assert reminders(office) == 1
        assert (await opened.view()).state == "waiting"


async def test_a_simulation_lists_all_times(office: Any) -> None:
    definition = Definition.model_validate(tomllib.loads(LEAVE))
    said = await simulate(definition, Opening({}, DI), office.people, FRIDAY_EVENING)
    assert said["timers"] == [
        {"at": "2026-03-09T12:00:00Z", "what": "a reminder to people who still owe a vote"},
        {"at": "2026-03-10T08:00:00Z", "what": "a reminder to people who still owe a vote"},
        {"at": "2026-03-11T08:00:00Z", "what": "escalation: bo@acme.eu is asked too"},
        {"at": "2026-03-12T08:00:00Z", "what": "deadline after 3 business days: then it is rejected"},
    ]


@pytest.mark.parametrize("remind", [["1 business day", "3h"], {"first": "2 business hours", "max": 4}])
async def test_wall_clock_and_business_times_can_be_mixed(office: Any, remind: Any) -> None:
    content = tomllib.loads(LEAVE)
    content["clock"]["remind"] = remind
    said = await simulate(Definition.model_validate(content), Opening({}, DI), office.people, FRIDAY_EVENING)
    times = [datetime.fromisoformat(timer["at"].replace("Z", "+00:00")) for timer in said["timers"]]
    assert times == sorted(times)
    assert times[0] - FRIDAY_EVENING == (timedelta(hours=3) if isinstance(remind, list) else timedelta(hours=65.5))


def test_a_calendar_by_name_is_pinned_with_the_definition() -> None:
    content = tomllib.loads(LEAVE)
    content["clock"]["calendar"] = "office"
    calendar = Calendar.model_validate({"zone": "Europe/Berlin", "hours": "09:00-17:00", "holidays": ["2026-12-25"]})
    named = Definition.model_validate(content)
    whole = named.with_calendar({"office": calendar, "shop": calendar})
    kept = json.loads(json.dumps(pinned(whole)))
    assert kept["clock"]["calendar"]["holidays"] == ["2026-12-25"]
    assert Definition.model_validate(kept) == whole
    assert digest(whole) != digest(named)


def test_the_only_calendar_needs_no_name() -> None:
    content = tomllib.loads(LEAVE)
    del content["clock"]["calendar"]
    calendar = Calendar.model_validate({"zone": "UTC", "hours": "09:00-17:00"})
    assert Definition.model_validate(content).with_calendar({"office": calendar}).clock.calendar == calendar
    assert Definition.model_validate(content).with_calendar({"a": calendar, "b": calendar}).clock.calendar is None
    content["clock"] = {"deadline": "4h"}
    content.pop("escalate")
    assert Definition.model_validate(content).with_calendar({"office": calendar}).clock.calendar is None
