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
