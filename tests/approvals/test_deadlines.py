"""Deadlines at a time of day, and in a field of the request."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from approvals_bot.approvals.clock import Clock
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.timers import past_deadlines, second_deadline, stage_times
from approvals_bot.approvals.workflow import approval
from approvals_bot.config.warnings import warnings_of
from approvals_bot.errors import InvalidPayloadError
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.open import open_run
from tests.approvals.conftest import ANN, BO, DI, START

NIGHT = """
[workflow]
id = "night"
title = "Night"
request = ["*"]
[fields]
note = "string"
[[stage]]
id = "go"
from = ["ann@acme.eu", "bo@acme.eu"]
need = 2
[clock]
deadline = "23:00"
zone = "Europe/Berlin"
remind = ["2h", "20h"]
"""
NEEDED = NIGHT.replace('note = "string"', 'note = "string"\nneeded_by = "datetime"').replace(
    'deadline = "23:00"', 'deadline = "field:needed_by"'
)
MOVING = NEEDED + '[policy]\non_change = "keep"\n'
NOON = "2026-03-03T12:00:00Z"


def definition(text: str) -> Definition:
    return Definition.model_validate(tomllib.loads(text), context={})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def deadline_of(definition: Definition, opened_at: datetime, **values: Any) -> datetime | None:
    return next((time.at for time in stage_times(definition, opened_at, values) if time.kind == "deadline"), None)


@pytest.mark.parametrize(
    ("clock", "opened", "due"),
    [
        ("23:00", "2026-03-02T10:00+01:00", "2026-03-02T23:00+01:00"),
        ("23:00", "2026-03-02T22:59:59+01:00", "2026-03-02T23:00+01:00"),
        ("23:00", "2026-03-02T23:00+01:00", "2026-03-03T23:00+01:00"),  # at the very moment: the next one
        ("0:30", "2026-03-02T23:59+01:00", "2026-03-03T00:30+01:00"),
        ("02:30", "2026-03-29T00:00+01:00", "2026-03-29T03:00+02:00"),  # skipped: when the clocks change
        ("02:30", "2026-10-25T00:00+02:00", "2026-10-25T02:30+02:00"),  # twice: the first
        ("02:30", "2026-10-25T02:10+01:00", "2026-10-26T02:30+01:00"),  # in the second pass: the next day
    ],
)
def test_a_time_of_day_is_the_next_one(clock: str, opened: str, due: str) -> None:
    assert deadline_of(definition(NIGHT.replace("23:00", clock)), at(opened)) == at(due)


def test_a_time_of_day_is_in_utc_without_a_zone() -> None:
    plain = definition(NIGHT.replace('zone = "Europe/Berlin"\n', ""))
    assert deadline_of(plain, at("2026-03-02T22:30Z")) == at("2026-03-02T23:00Z")


def test_a_date_lasts_until_its_end_in_the_clocks_zone() -> None:
    dated = definition(NEEDED.replace('"datetime"', '{ type = "date", required = false }'))
    assert deadline_of(dated, START, needed_by=at("2026-03-03T00:00Z").date()) == at("2026-03-04T00:00+01:00")
    assert deadline_of(dated, START) is None
    assert past_deadlines(dated, {"needed_by": START.date()}, START) == ()
    assert [one.path for one in past_deadlines(dated, {"needed_by": START.date()}, START + timedelta(days=1))] == [
        ("needed_by",)
    ]


def test_one_more_deadline_is_a_field_to_come_or_as_long() -> None:
    needed = definition(NEEDED)
    values = {"needed_by": START + timedelta(hours=2)}
    hour = timedelta(hours=1)
    assert [time.at for time in second_deadline(needed, START + hour, START, values)] == [START + 2 * hour]
    assert [time.at for time in second_deadline(needed, START + 2 * hour, START, values)] == [START + 4 * hour]
    night = definition(NIGHT)
    assert [time.at for time in second_deadline(night, at("2026-03-02T23:00+01:00"), START)] == [
        at("2026-03-03T23:00+01:00")
    ]
    assert second_deadline(needed, START, START, {}) == ()


@pytest.mark.parametrize("text", ["23:60", "24:00", "4", "field", "23:00:00", "tomorrow"])
def test_what_is_no_deadline_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="write"):
        Clock(deadline=text)


def test_a_local_time_of_toml_is_a_time_of_day() -> None:
    assert definition(NIGHT.replace('"23:00"', "23:00:00")) == definition(NIGHT)
    kept = json.loads(json.dumps(pinned(definition(NIGHT))))
    assert kept["clock"]["deadline"] == "23:00"
    assert Definition.model_validate(kept) == definition(NIGHT)


async def test_a_request_expires_at_a_time_of_day(office: Any) -> None:
    async with office.open():
        opened = await office.ask(NIGHT, {"note": "x"})
        assert await opened.vote(ANN) == "counted"
        await office.clock.advance("12h 59m")  # it is 9:00 UTC, and 10:00 there
        view = await opened.view()
        assert (view.state, view.deadline) == ("waiting", at("2026-03-02T23:00+01:00"))
        await office.clock.advance("1m")
        assert (await opened.view()).state == "expired"
        in_time = await office.ask(NIGHT, {"note": "x"})  # at 23:00
        assert (await in_time.view()).deadline == at("2026-03-03T23:00+01:00")
        assert [await in_time.vote(ANN), await in_time.vote(BO)] == ["counted", "decided"]


async def test_an_edit_moves_a_deadline_in_a_field(office: Any) -> None:
    """Reminders and votes stay; a time that has passed is refused with its place."""
    async with office.open():
        opened = await office.ask(MOVING, {"note": "x", "needed_by": "2026-03-02T12:00:00Z"})
        assert await opened.vote(ANN) == "counted"
        await office.clock.advance("1h")
        said = await opened.act(kind="edit", by=DI, fields={"needed_by": "2026-03-02T09:30:00Z"})
        assert (said["verdict"], said["text"]) == (
            "invalid",
            "needed_by: has passed, and it is the request's deadline. Nothing was changed.",
        )
        assert (await opened.view()).deadline == at("2026-03-02T12:00Z")
        said = await opened.act(kind="edit", by=DI, fields={"needed_by": NOON})
        assert said["text"] == "Saved. The votes so far still count."
        view = await opened.view()
        assert view.deadline == at(NOON)
        assert [timer.what for timer in view.timers] == [
            "a reminder to people who still owe a vote",
            "a reminder to people who still owe a vote",  # after 20 hours, which is before the new deadline
            "deadline: then it expires",
        ]
        await office.clock.advance("25h")
        assert (await opened.view()).state == "waiting"
    async with office.open():
        await office.clock.advance("1h")
        assert (await opened.view()).state == "expired"


async def test_an_earlier_deadline_runs_what_would_come_later(office: Any) -> None:
    text = MOVING.replace("[clock]\n", '[clock]\non_deadline = "escalate"\n')
    text += '[[escalate]]\nafter = "4h"\nto = ["cfo@acme.eu"]\n'
    async with office.open():
        opened = await office.ask(text, {"note": "x", "needed_by": NOON})
        await opened.act(kind="edit", by=DI, fields={"needed_by": "2026-03-02T10:00:00Z"})
        assert "escalates to" in (await opened.view()).on_deadline
        await office.clock.advance("1h")
        view = await opened.view()
        assert view.stage is not None
        assert [more.to for more in view.stage.escalations] == [("cfo@acme.eu",)]
        assert view.deadline == at("2026-03-02T11:00Z")  # as long again
        await opened.act(kind="edit", by=DI, fields={"needed_by": NOON})
        view = await opened.view()
        assert (view.deadline, view.on_deadline) == (at(NOON), "then it expires")


async def test_a_deadline_in_the_past_opens_no_request(office: Any) -> None:
    async with office.open():
        needed = definition(NEEDED)
        listed = Listed(approval.under(needed.id, pinned(needed)), needed)

        async def open_with(needed_by: str) -> Any:
            return await open_run(
                engine=office.engine,
                workflows=Catalog({"night": listed}),
                people=office.people,
                name="night",
                input={"note": "x", "needed_by": needed_by},
                opener=DI,
            )

        with pytest.raises(InvalidPayloadError) as refused:
            await open_with("2026-03-02T09:00:00Z")
        assert refused.value.errors == [
            {"loc": ["input", "needed_by"], "msg": "has passed, and it is the request's deadline"}
        ]
        assert await open_with("2026-03-02T09:00:01Z")
        opening = Opening({"note": "x", "needed_by": "2026-03-02T09:00:00Z"}, DI)
        said = await simulate(needed, opening, office.people, office.clock.now())
        assert said["problems"] == ["needed_by has passed, and it is the request's deadline"]


def test_a_deadline_that_may_be_missing_is_warned_of(tmp_path: Path) -> None:
    text = NEEDED.replace('"datetime"', '{ type = "datetime", required = false }') + "[deliver]\ndm = true\n"
    file = tmp_path / "night.toml"
    for meant, found in (
        (
            "",
            ["a request without needed_by waits forever; make needed_by required, or set none = true if that is meant"],
        ),
        ("none = true\n", []),
    ):
        file.write_text(text.replace("[clock]\n", f"[clock]\n{meant}"))
        assert [each.message for each in warnings_of(definition(file.read_text()), file)] == found


STAGED = """
[workflow]
id = "staged"
title = "Staged"
request = ["*"]
[fields]
note = { type = "string" }
first_by = { type = "datetime" }
last_by = { type = "datetime" }
[policy]
on_change = { note = "keep", last_by = "keep", first_by = "reset" }
[[stage]]
id = "first"
from = ["ann@acme.eu"]
deadline = "field:first_by"
[[stage]]
id = "last"
from = ["bo@acme.eu"]
deadline = "field:last_by"
on_deadline = "reject"
[clock]
deadline = "23:00"
"""
STAGED_INPUT = {"note": "x", "first_by": "2026-03-02T12:00:00Z", "last_by": "2026-03-02T15:00:00Z"}


async def test_each_stage_ends_by_its_own_field(office: Any) -> None:
    """An edit moves the deadline of the open stage. One of a stage that is over may pass, unless it opens again."""
    async with office.open():
        opened = await office.ask(STAGED, STAGED_INPUT)
        assert (await opened.view()).deadline == at("2026-03-02T12:00Z")
        said = await opened.act(kind="edit", by=DI, fields={"last_by": "2026-03-02T08:00:00Z"})
        assert said["text"].startswith("last_by: has passed")
        assert await opened.vote(ANN) == "counted"
        assert (await opened.view()).deadline == at("2026-03-02T15:00Z")
        await office.clock.advance("4h")  # it is 13:00 UTC
        said = await opened.act(kind="edit", by=DI, fields={"note": "y", "last_by": "2026-03-02T16:00:00Z"})
        assert said["text"] == "Saved. The votes so far still count."
        assert (await opened.view()).deadline == at("2026-03-02T16:00Z")
        said = await opened.act(kind="edit", by=DI, fields={"first_by": "2026-03-02T12:30:00Z"})
        assert said["text"].startswith("first_by: has passed")
        await office.clock.advance("3h")
        view = await opened.view()
        assert (view.state, view.outcome.by) == ("rejected", "deadline")
        last = await office.ask(STAGED.replace("field:last_by", "18:00"), {**STAGED_INPUT, "first_by": NOON})
        assert await last.vote(ANN) == "counted"
        assert (await last.view()).deadline == at("2026-03-02T18:00Z")


async def test_a_past_deadline_of_a_later_stage_opens_no_request(office: Any) -> None:
    opening = Opening({**STAGED_INPUT, "last_by": "2026-03-02T08:00:00Z"}, DI)
    said = await simulate(definition(STAGED), opening, office.people, office.clock.now())
    assert said["problems"] == ["last_by has passed, and it is the request's deadline"]


def test_a_stage_that_may_have_no_deadline_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "staged.toml"
    file.write_text(STAGED.replace('last_by = { type = "datetime" }', 'last_by = { type = "date", required = false }'))
    found = [each for each in warnings_of(definition(file.read_text()), file) if "waits forever" in each.message]
    assert [each.key for each in found] == ["stage[1].deadline"]
