"""Schedules in workflow files, in the whole service: what they open, and who may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from approvals_bot.app import open_service, read_configuration
from approvals_bot.app.service import Service
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.durable.engine.schedules import ScheduleState, read_state
from approvals_bot.service.catalog import load_catalog
from approvals_bot.service.read import request_of
from approvals_bot.testing import FakeClock

CONFIG = """
[server]
base_url     = "http://127.0.0.1:8000"
signing_keys = ["file:key"]
[api_keys]
ci = "file:ci"
[groups]
engineers = ["ann@acme.eu"]
sre       = { file = "sre.json" }
"""
DEPLOY = """
[workflow]
id      = "deploy"
title   = "Deploy {{ version }}"
request = ["@engineers"]
[fields]
version = "string"
[[stage]]
id   = "go"
from = ["bo@acme.eu"]
"""
NIGHTLY = """
[[schedule]]
id    = "nightly"
cron  = "0 3 * * *"
zone  = "Europe/Berlin"
input = { version = "nightly" }
"""
PROGRAM = """
from pydantic import BaseModel
from approvals_bot import workflow

class Report(BaseModel):
    days: int
    groups: list[str] = []

@workflow
async def scheduled_report(report: Report) -> int:
    return report.days
"""
FORM = """
[workflow]
id      = "report"
run     = "reports:scheduled_report"
request = ["@engineers"]
[[schedule]]
id    = "hourly"
cron  = "0 * * * *"
input = { days = 3 }
"""

Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes workflow files beside a config.toml, and returns that."""
    (tmp_path / "workflows").mkdir()
    for name, text in (("config.toml", CONFIG), ("key", "k" * 40), ("ci", "c" * 40)):
        (tmp_path / name).write_text(text)

    def files(texts: Mapping[str, str]) -> Path:
        for name, text in texts.items():
            (tmp_path / "workflows" / name).write_text(text)
        return tmp_path / "config.toml"

    return files


async def state_of(service: Service, name: str) -> ScheduleState:
    (row,) = [row for row in await service.engine.store.schedules() if row.name == name]
    state = read_state(row)
    assert state is not None
    return state


async def test_a_schedule_opens_a_request_like_any_other(write: Write, clock: FakeClock) -> None:
    config = write({"deploy.toml": DEPLOY + NIGHTLY})
    async with open_service(read_configuration(config), clock=clock) as service:
        await clock.advance("1 day")
        (record,) = (await service.engine.records()).records
        request = request_of(record)
        assert request is not None
        assert (request.title, request.requester, request.state) == ("Deploy nightly", "app:schedule", "waiting")
        assert f"{record.created_at:%Y-%m-%d %H:%M}" == "2026-01-02 02:00"
        started = (await service.engine.events(record.id))[0].data
        assert started["sent"] == {"schedule": "nightly", "at": "2026-01-02T02:00:00+00:00"}
        assert "schedule" not in started["settings"]
        last = (await state_of(service, "deploy/nightly")).last
        assert last is not None
        assert (last.outcome, last.run_id) == ("started", record.id)


async def test_a_schedule_starts_a_python_workflow(write: Write, clock: FakeClock) -> None:
    config = write({"reports.py": PROGRAM, "report.toml": FORM})
    async with open_service(read_configuration(config), clock=clock) as service:
        await clock.advance("2 hours")
        records = (await service.engine.records("report")).records
        assert [(record.result, record.attributes) for record in records] == [(3, {"requester": "app:schedule"})] * 2


async def test_its_requester_must_be_allowed_to_request(write: Write, clock: FakeClock, tmp_path: Path) -> None:
    by_di = NIGHTLY + 'requester = "di@acme.eu"\n'
    config = write({"deploy.toml": DEPLOY.replace("@engineers", "@sre") + by_di})
    (tmp_path / "sre.json").write_text('{"people": ["cy@acme.eu"]}')
    async with open_service(read_configuration(config), clock=clock) as service:
        await clock.advance("1 day")
        last = (await state_of(service, "deploy/nightly")).last
        assert last is not None
        assert last.outcome == "refused"
        assert "di@acme.eu can't open 'deploy'" in (last.why or "")
        (tmp_path / "sre.json").write_text('{"people": ["di@acme.eu"]}')
        await clock.advance("1 day")
        (record,) = (await service.engine.records()).records
        request = request_of(record)
        assert request is not None
        assert request.requester == "di@acme.eu"


async def test_a_start_waits_for_a_group_that_cannot_be_read(write: Write, clock: FakeClock, tmp_path: Path) -> None:
    by_di = NIGHTLY + 'requester = "di@acme.eu"\n'
    config = write({"deploy.toml": DEPLOY.replace("@engineers", "@sre") + by_di})
    async with open_service(read_configuration(config), clock=clock) as service:
        await clock.advance("17 hours 10 minutes")
        assert (await service.engine.records()).records == []
        (tmp_path / "sre.json").write_text('{"people": ["di@acme.eu"]}')
        await clock.advance("1 minute")
        assert len((await service.engine.records()).records) == 1


async def test_a_reload_takes_up_changed_schedules(write: Write, clock: FakeClock) -> None:
    config = write({"deploy.toml": DEPLOY})
    async with open_service(read_configuration(config), clock=clock) as service:
        await clock.advance("1 day")
        write({"deploy.toml": DEPLOY + NIGHTLY.replace("0 3", "0 11")})
        service.reload(read_configuration(config))
        await clock.advance("2 hours")
        assert len((await service.engine.records()).records) == 1
        write({"deploy.toml": DEPLOY})
        service.reload(read_configuration(config))
        await clock.advance("2 days")
        assert len((await service.engine.records()).records) == 1
        assert (await state_of(service, "deploy/nightly")).rule is None


async def test_an_ordinary_requester_gains_nothing_by_a_schedule(write: Write) -> None:
    listed = load_catalog(read_configuration(write({"deploy.toml": DEPLOY + NIGHTLY}))).find("deploy")
    assert listed is not None
    assert listed.definition is not None
    assert listed.definition.workflow.request == ("@engineers",)


@pytest.mark.parametrize(
    ("schedule", "line", "problem"),
    [
        ('cron = "0 61 * * *"', 13, "schedule[0].cron: is not a cron expression: bad hour"),
        ('cron = "0 0 30 2 *"', 13, "schedule[0].cron: is not a cron expression: bad day-of-month"),
        ('cron = "0 3 * * *"\nzone = "Europe/Bonn"', 14, 'schedule[0].zone: "Europe/Bonn" is not a time zone'),
        ('cron = "0 3 * * *"\ncatch_up = "8d"', 14, "schedule[0].catch_up: at most a week can be caught up with"),
        ('cron = "0 3 * * *"\noverlap = "quue"', 14, 'schedule[0].overlap: must be "skip", "queue" or "allow"'),
        ('cron = "0 3 * * *"\nrequester = "bo"', 14, "schedule[0].requester: write a person's address, or app:name"),
        ('cron = "0 3 * * *"\nrequester = "app:c"', 14, "schedule[0].requester: no key in [api_keys] is called c"),
        ('cron = "0 3 * * *"\nrequester = "app:ci"', 14, "schedule[0].requester: workflow.request doesn't list app:ci"),
        (
            'cron = "0 3 * * *"\nrequester = "bo@acme.eu"',
            14,
            "schedule[0].requester: workflow.request doesn't list bo@",
        ),
        ('cron = "0 3 * * *"', 11, "schedule[0].input: version is required"),
        ('cron = "0 3 * * *"\ninput = { version = 3 }', 14, "schedule[0].input.version: must be text"),
        ('cron = "0 3 * * *"\ninput = { versoin = "3" }', 14, "schedule[0].input.versoin: no such field"),
        ('cron = "0 3 * * *"\nevery = "1d"', 14, "schedule[0].every: unknown key"),
    ],
)
def test_a_wrong_schedule_is_refused_where_it_stands(write: Write, schedule: str, line: int, problem: str) -> None:
    text = f'{DEPLOY}[[schedule]]\nid = "nightly"\n{schedule}\n'
    with pytest.raises(ConfigErrors) as refused:
        read_configuration(write({"deploy.toml": text}))
    assert any(f"deploy.toml:{line}: {problem}" in str(each) for each in refused.value.problems), str(refused.value)


def test_two_schedules_of_a_workflow_have_two_names(write: Write) -> None:
    with pytest.raises(ConfigErrors, match='another schedule is called "nightly"'):
        read_configuration(write({"deploy.toml": DEPLOY + NIGHTLY + NIGHTLY}))


def test_the_input_for_a_python_workflow_is_checked_by_its_type(write: Write) -> None:
    text = FORM.replace("days = 3", 'days = "x", groups = "sre"')
    config = write({"reports.py": PROGRAM, "report.toml": text})
    with pytest.raises(ConfigErrors) as refused:
        load_catalog(read_configuration(config))
    assert [each.key for each in refused.value.problems] == ["schedule[0].input.days", "schedule[0].input.groups"]


def test_a_schedule_names_nobody_that_its_request_is_for(write: Write) -> None:
    text = DEPLOY.replace('request = ["@engineers"]', 'request = ["@engineers"]\non_behalf_of = "required"') + NIGHTLY
    with pytest.raises(ConfigErrors, match=r"workflow\.on_behalf_of requires"):
        read_configuration(write({"deploy.toml": text}))


def test_no_api_key_takes_the_name_of_schedules(write: Write, tmp_path: Path) -> None:
    config = write({"deploy.toml": DEPLOY})
    config.write_text(CONFIG.replace("ci =", "schedule ="))
    with pytest.raises(ConfigErrors, match="give the key another name"):
        read_configuration(config)
