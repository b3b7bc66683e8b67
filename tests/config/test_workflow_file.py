"""Workflow files as values: short forms, and the round trip through a run's log."""

from __future__ import annotations

import json
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from approvals_bot.approvals.clock import Backoff
from approvals_bot.approvals.delivery_policy import CallTarget, Resume, SendDm
from approvals_bot.approvals.durations import LONGEST, duration_text, parse_duration
from approvals_bot.approvals.policy import Definition, digest, pinned
from approvals_bot.config.load import workflow_files

SAMPLES = workflow_files(Path(__file__).parents[2] / "workflows")


def definition(**tables: Any) -> Definition:
    about = {"id": "x", "title": "X", "request": ["*"]}
    stage = [{"id": "s", "from": ["ann@acme.eu"]}]
    return Definition.model_validate({"workflow": about, "stage": stage} | tables)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_definition_round_trips_through_the_log(path: Path) -> None:
    loaded = Definition.model_validate(tomllib.loads(path.read_text()))
    for dumped in (pinned(loaded), loaded.model_dump(mode="json")):
        again = Definition.model_validate(json.loads(json.dumps(dumped)))
        assert again == loaded
        assert digest(again) == digest(loaded)


def test_every_option_round_trips_through_the_log() -> None:
    loaded = definition(
        fields={
            "a": "string",
            "b": {"type": "date", "min": "2026-01-01", "default": "2026-02-02"},
            "c": {"type": "decimal", "min": 0.5, "max": 10, "default": 1.5, "required": False},
            "d": {"type": "boolean", "default": False},
        },
        policy={"reject": 2, "on_change": {"c": "reset-if-raised"}, "recheck": "at-quorum"},
        stage=[{"id": "s", "seat": [{"from": ["@a"], "need": "all", "notify": []}, {"from": ["@b"], "when": "d"}]}],
        deliver={"email": "after 90m"},
        clock={"deadline": "1h30m", "remind": {"first": "5m", "max": 3}, "on_deadline": "approve", "i_know": True},
        on={
            "ended": [
                {"http": "x", "json": {"a": [1, True, {"b": "{{ a }}"}]}},
                {"dm": "requester", "text": "t"},
                {"email": "ann@acme.eu", "text": "t"},
                {"slack": "#x", "text": "t"},
                {"resume": True},
            ]
        },
    )
    assert Definition.model_validate(json.loads(json.dumps(pinned(loaded)))) == loaded
    assert loaded.fields["c"].min == "0.5"
    assert loaded.stage[0].seats[0].notify == ()
    assert loaded.deliver.email == timedelta(minutes=90)


def test_digest_ignores_how_the_file_writes_a_value() -> None:
    short = definition(fields={"a": "string"}, clock={"deadline": "90m"})
    long = definition(fields={"a": {"type": "string", "required": True}}, clock={"deadline": "1h 30 min"})
    assert digest(short) == digest(long)
    assert digest(short) != digest(definition(fields={"a": "text"}, clock={"deadline": "90m"}))


def test_stage_with_one_seat_may_be_that_seat() -> None:
    one = definition(stage=[{"id": "s", "from": ["@a"], "need": 2}])
    other = definition(stage=[{"id": "s", "seat": [{"from": ["@a"], "need": 2}]}])
    assert one == other
    with pytest.raises(ValidationError, match="belongs in one of them"):
        definition(stage=[{"id": "s", "need": 2, "seat": [{"from": ["@a"]}]}])


def test_actions_are_distinguished_by_their_key() -> None:
    approved = [{"http": "x"}, {"dm": "requester", "text": "hi"}, {"resume": True}]
    loaded = definition(on={"approved": approved})
    assert [type(action) for action in loaded.on.approved] == [CallTarget, SendDm, Resume]
    for wrong in ({"http": "x", "dm": "y", "text": "z"}, {"text": "x"}, {"resume": False}):
        with pytest.raises(ValidationError):
            definition(on={"approved": [wrong]})


@pytest.mark.parametrize(
    ("written", "meant"),
    [(False, None), (True, timedelta(0)), ("after 10m", timedelta(minutes=10))],
)
def test_mail_is_sent_at_once_later_or_never(written: object, meant: timedelta | None) -> None:
    assert definition(deliver={"email": written}).deliver.email == meant


def test_reminders_back_off() -> None:
    backoff = Backoff.model_validate({"first": "15m", "backoff": 2, "max": 4})
    assert backoff.times() == tuple(timedelta(minutes=at) for at in (15, 45, 105, 225))
    clock = definition(clock={"deadline": "2h", "remind": {"first": "15m", "backoff": 2, "max": 4}}).clock
    assert clock.reminders() == tuple(timedelta(minutes=at) for at in (15, 45, 105))


def test_stage_offers_its_own_outcomes_or_the_policys() -> None:
    stages = [{"id": "a", "from": ["x@y.z"]}, {"id": "b", "from": ["x@y.z"], "outcomes": ["answer"]}]
    loaded = definition(stage=stages, policy={"outcomes": ["approve", "changes"]})
    assert [loaded.outcomes_of(stage) for stage in loaded.stage] == [("approve", "changes"), ("answer",)]


def test_edits_reset_unless_the_policy_says_otherwise() -> None:
    assert definition().policy.on_change_of("a") is None
    assert definition(policy={"on_change": "keep"}).policy.on_change_of("a") == "keep"
    some = definition(policy={"on_change": {"a": "keep"}}).policy
    assert (some.on_change_of("a"), some.on_change_of("b")) == ("keep", None)


@given(st.integers(0, int(LONGEST.total_seconds())).map(lambda seconds: timedelta(seconds=seconds)))
def test_durations_round_trip(span: timedelta) -> None:
    assert parse_duration(duration_text(span)) == span


@pytest.mark.parametrize(
    "text", ["", " ", "4", "h", "-4h", "4x", "1.5s", "1h-30m", "٣h", "9" * 80 + "d", "99999d", "4h;", "1e3s", "inf"]
)
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)
