"""What somebody writes who is new to the keys, and what they read: file, line, key, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from approvals_bot.service.catalog import check_configuration

CONFIG = """\
[server]
base_url = "http://127.0.0.1:8000"
database = "sqlite:///a.db"
signing_keys = ["env:KEY"]
[email]
host = "127.0.0.1"
port = 2525
security = "none"
sender = "A <a@acme.eu>"
[groups]
core = ["c1@acme.eu", "c2@acme.eu"]
team-web = ["w1@acme.eu"]
team-data = ["d1@acme.eu"]
[calendars.office]
zone = "Europe/Berlin"
hours = "09:00-17:00"
"""
WORKFLOW = """\
[workflow]
id = "t"
title = "T"
request = ["*"]
[fields]
x = "string"
team = { type = "enum", values = ["web", "data"] }
due = "datetime"
[[stage]]
id = "s"
from = ["@core"]
[deliver]
email = true
[clock]
deadline = "1d"
"""
FIELD, FROM, DEADLINE = 'x = "string"', 'from = ["@core"]', 'deadline = "1d"'

SLIPS = [
    (
        FROM,
        '[[stage.any]]\nfrom = ["@core"]',
        '11: stage[0].any[0].seats: is missing; write seats = [{ from = ["@group"], need = 1 }]',
    ),
    (
        FROM,
        '[stage.any]\nseats = [{ from = ["@core"] }]',
        "11: stage[0].any: must be a list of tables (did you mean [[stage.any]]?)",
    ),
    (
        FROM,
        '[[stage.any]]\nseats = ["@core"]',
        '12: stage[0].any[0].seats[0]: must be a table, like { from = ["@group"] }',
    ),
    (
        FROM,
        '[[stage.any]]\nseats = [{ form = ["@core"] }]',
        "12: stage[0].any[0].seats[0].form: unknown key (did you mean from?)",
    ),
    (
        FROM,
        FROM + '\nveto = ["@core"]',
        "12: stage[0].veto: must be a table (did you mean [stage.veto]?)",
    ),
    (
        "email = true",
        'email = true\ndeadline = "3d"',
        "14: deliver.deadline: unknown key; it belongs in [[stage]] or [clock]",
    ),
    (FROM, FROM + '\nzone = "UTC"', "12: stage[0].zone: unknown key; it belongs in [clock] or"),
    (FROM, FROM + '\n[stage.clock]\ndeadline = "1h"', "12: stage[0].clock: unknown key; write [clock]"),
    (FIELD, FIELD + "\ncosts = ['money']", '7: fields.costs: must be a type, like "string", or a table'),
    (FIELD, 'x = "str"', "(did you mean string?)"),
    (FIELD, 'x = { type = "amount" }', "(did you mean money?)"),
    (FIELD, 'x = { type = "bool" }', "(did you mean boolean?)"),
    (DEADLINE, "deadline = 23:00", '15: syntax: text needs quotation marks: deadline = "23:00"'),
    (DEADLINE, 'deadline = "field:deu"', "15: clock.deadline: no field is called deu (did you mean field:due?)"),
    (DEADLINE, 'deadline = "11pm"', '"11pm" is not a deadline; write it like "4h", "23:00" or "field:needed_by"'),
    (DEADLINE, 'deadline = "due"', '"due" is not a deadline; write it like "4h", "23:00" or "field:needed_by"'),
    (DEADLINE, DEADLINE + '\nescalate = "1h"', "unknown key; it belongs at the top of the file, before all tables"),
    # What other programs call it
    (FROM, 'reviewers = ["@core"]', "11: stage[0].reviewers: unknown key (did you mean from?)"),
    (FROM, FROM + "\nquorum = 2", "12: stage[0].quorum: unknown key (did you mean need?)"),
    (FROM, FROM + "\nmin = 2", "12: stage[0].min: unknown key (did you mean need?)"),
    (FROM, FROM + "\nif = \"x == 'a'\"", "12: stage[0].if: unknown key (did you mean when?)"),
    (
        FIELD,
        'x = { type = "string", optional = true }',
        "fields.x.optional: unknown key (did you mean required = false?)",
    ),
    (FIELD, 'x = { type = "enum", options = ["a"] }', "6: fields.x.options: unknown key (did you mean values?)"),
    (DEADLINE, DEADLINE + '\ntimeout = "4h"', "16: clock.timeout: unknown key (did you mean deadline?)"),
    (
        "[clock]",
        '[[rule]]\nwhen = "x == x"\ndecision = "reject"\n[clock]',
        "14: rule: unknown key (did you mean auto?)",
    ),
    ("[clock]", "[policy]\nself_approval = false\n[clock]", '"skip-up" (did you mean never?)'),
    (
        FROM,
        FROM + "\ncomment = true",
        '12: stage[0].comment: must be "never", "optional", "on-reject" or "always" (did you',
    ),
    # How many
    (
        FROM,
        FROM + "\nneed = 0",
        '12: stage[0].need: write a whole number from 1 on, "all", "majority" or a share like "50%"',
    ),
    (FROM, FROM + "\nneed = 0.5", '(did you mean "50%"?)'),
    (FROM, FROM + '\nneed = "half"', '(did you mean "50%"?)'),
    (FROM, FROM + '\nneed = "2"', "(did you mean 2?)"),
    # Lists and addresses
    (FROM, 'from = "@core"', '11: stage[0].from: must be a list, like ["@core"]'),
    (FIELD, 'x = { type = "enum", values = "a, b" }', '6: fields.x.values: must be a list, like ["a", "b"]'),
    (FROM, 'from = ["@board"]', "11: stage[0].from[0]: no group is called board; add it to [groups] of config.toml"),
    (FROM, FROM + '\nwhen = "cost > 5"', "12: stage[0].when: no field is called cost; add it to [fields]; text needs"),
    (FROM, 'from = ["core"]', "slack:@usergroup, manager-of:requester, … (did you mean @core?)"),
    (FROM, 'from = ["manager"]', "(did you mean manager-of:requester?)"),
    (FROM, 'from = ["@slack:sre"]', "(did you mean slack:@sre?)"),
    (
        FROM,
        'from = ["#core"]',
        '11: stage[0].from[0]: "#core" is a channel, and where a card appears says nothing about',
    ),
    (FROM, 'from = ["a@acme.eu; b@acme.eu"]', '11: stage[0].from[0]: "a@acme.eu; b@acme.eu" are several addresses'),
    # Conditions and templates
    (FROM, FROM + "\nwhen = \"fields.x == 'a'\"", "12: stage[0].when: fields have their name alone (did you mean x?)"),
    (FROM, FROM + '\nwhen = "x is not null"', "12: stage[0].when: compare with == or !=, also with null: x != null"),
    (FROM, FROM + "\nwhen = \"x <> 'a'\"", "12: stage[0].when: compare with !="),
    (FROM, FROM + "\nwhen = \"x like 'a'\"", "12: stage[0].when: there is no `like`; use .starts_with, == or in"),
    (
        FROM,
        FROM + "\nwhen = \"team in 'web'\"",
        '12: stage[0].when: `in` takes a list in square brackets (did you mean ["web"]?)',
    ),
    (
        FROM,
        FROM + "\nwhen = \"team in ('web', 'data')\"",
        '12: stage[0].when: a list is in square brackets: ["a", "b"]',
    ),
    (FROM, FROM + "\nwhen = \"now.weekday == 'Friday'\"", "this compares a number with a string (did you mean 5?)"),
    (FROM, FROM + '\nwhen = "weekday == 5"', "12: stage[0].when: write now.weekday: 1 is Monday, 7 is Sunday"),
    (
        FROM,
        FROM + '\nwhen = "due > today"',
        '12: stage[0].when: compare with a date, like d"2026-01-31", or write now.weekday',
    ),
    (
        FROM,
        FROM + "\nwhen = 'outcome == \"approved\"'",
        "12: stage[0].when: the outcome is known in the follow-ups of [[on.…]] only",
    ),
    (
        FROM,
        FROM + '\nwhen = \'answer_of("s", "n") > 1\'',
        "of [[on.…]] only; to decide here by what approvers enter, let",
    ),
    (FROM, FROM + '\nwhen = "x in []"', '12: stage[0].when: nothing is in an empty list (did you mean ["a", "b"]?)'),
    ("email = true", 'slack = "deploys"', "(did you mean #deploys?)"),
    (DEADLINE, DEADLINE + '\nextends = "_d.toml"', "unknown key; it belongs at the top of the file, before all tables"),
    (FROM, 'From = ["@core"]', "11: stage[0].From: unknown key (did you mean from?)"),
    (FROM, 'from = ["@CORE"]', "11: stage[0].from[0]: no group is called CORE (did you mean @core?)"),
    (FROM, FROM + "\nneed = 2.0", "(did you mean 2?)"),
    (FROM, FROM + '\nneed = "50 %"', '(did you mean "50%"?)'),
    (
        DEADLINE,
        DEADLINE + '\n[labels]\napprove = "Pay {{ x }}"',
        "17: labels.approve: is shown as it is written: only texts that are templates take {{ … }}",
    ),
    (
        DEADLINE,
        DEADLINE + '\n[[on.ended]]\nDM = "requester"\ntext = "x"',
        "17: on.ended[0].DM: unknown key (did you mean dm?)",
    ),
    (DEADLINE, DEADLINE + '\n[[on.ended]]\nhtttp = "x"', "17: on.ended[0].htttp: unknown key (did you mean http?)"),
    (DEADLINE, DEADLINE + '\n[[on.ended]]\nurl = "https://x"', "17: on.ended[0].url: unknown key (did you mean http?)"),
    ('title = "T"', 'title = "T {{ fields.x }}"', "3: workflow.title: fields have their name alone (did you mean x?)"),
]


@pytest.mark.parametrize(("old", "new", "expected"), SLIPS, ids=lambda text: text[:40])
def test_newcomers_read_what_to_write_instead(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in WORKFLOW
    file = tmp_path / "workflows" / "t.toml"
    file.parent.mkdir()
    file.write_text(WORKFLOW.replace(old, new, 1))
    (tmp_path / "config.toml").write_text(CONFIG)
    problems = check_configuration(tmp_path / "config.toml", {"KEY": "k" * 32}).problems
    said = [str(problem) for problem in problems]
    assert any(line.startswith(f"{file}:") and expected in line for line in said), said
