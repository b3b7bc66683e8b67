"""`[grant]` in a workflow's file: each mistake is found, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from approvals_bot.config.messages import ConfigErrors
from approvals_bot.service.catalog import read_configuration

CONFIG = """
[server]
base_url = "http://127.0.0.1:8000"
signing_keys = ["env:KEY"]
[people."ann@acme.eu"]
[http.aws]
url = "https://aws.acme.eu/"
secret = "env:HMAC"
"""
FILE = """\
[workflow]
id = "access"
title = "Access"
request = ["ann@acme.eu"]
[fields]
role = "string"
hours = "integer"
[policy]
self_approval = "allow"
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[grant]
lasts = "{{ hours }}h"
max = "8h"
give = { http = "aws", json = { role = "{{ role }}" } }
take = { http = "aws", json = { role = "{{ role }}" } }
"""


def problems(folder: Path, text: str) -> list[str]:
    (folder / "config.toml").write_text(CONFIG)
    (folder / "workflows").mkdir()
    (folder / "workflows" / "access.toml").write_text(text)
    try:
        read_configuration(folder / "config.toml", {"KEY": "k" * 40, "HMAC": "h" * 40})
    except ConfigErrors as errors:
        return [str(problem).removeprefix(f"{folder}/workflows/access.toml:") for problem in errors.problems]
    return []


def test_a_complete_grant_is_fine(tmp_path: Path) -> None:
    assert problems(tmp_path, FILE) == []


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("{{ hours }}h", "{{ hour }}h", "14: grant.lasts: nothing is called hour (did you mean hours?)"),
        ("{{ hours }}h", "{{ decision.by }}", "14: grant.lasts: decision is not known before the decision"),
        ("{{ hours }}h", "soon", '14: grant.lasts: "soon" is not a duration'),
        ("{{ hours }}h", "0s", "14: grant.lasts: must be longer than 0s"),
        ("{{ hours }}h", "9h", "14: grant.lasts: is longer than max, 8h"),
        ('max = "8h"\n', "", "13: grant.max: is missing; lasts is a template"),
        ('give = { http = "aws"', 'give = { http = "awz"',
         "16: grant.give.http: there is no [http.awz] (did you mean aws?)"),
        ('give = { http = "aws"', 'give = { http = "badges"',
         "16: grant.give.http: there is no [http.badges]; add it to config.toml, with its url and a secret"),
        ("{{ hours }}h", "{{ hours }}", "14: grant.lasts: hours is a field of type integer, which has no unit; "
         'write "{{ hours }}d" or "{{ hours }}h"'),
        ('take = { http = "aws", json = { role = "{{ role }}', 'take = { http = "aws", json = { role = "{{ rol }}',
         "17: grant.take.json.role: nothing is called rol (did you mean role?)"),
        ("max =", "extend = 'always'\nmax =", "15: grant.extend: "),
    ],
)  # fmt: skip
def test_a_mistake_in_a_grant_is_found(tmp_path: Path, was: str, now: str, said: str) -> None:
    (found,) = problems(tmp_path, FILE.replace(was, now, 1))
    assert found.startswith(said)
