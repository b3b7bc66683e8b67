"""What `check` says of approvals that cover later requests, and of emergencies."""

from __future__ import annotations

from pathlib import Path

import pytest

from approvals_bot.config.messages import ConfigErrors
from approvals_bot.service.catalog import read_configuration

CONFIG = """
[server]
base_url = "http://127.0.0.1:8000"
signing_keys = ["env:KEY"]
[email]
host = "127.0.0.1"
security = "none"
sender = "a@acme.eu"
[groups]
ops = ["ann@acme.eu", "bo@acme.eu"]
"""
HEAD = """\
[workflow]
id = "access"
title = "{{ account }}"
request = ["*"]
owners = ["@ops"]
[fields]
account = { type = "string", pinned = true }
amount = { type = "money", currency = "EUR", required = false }
note = "text"
[deliver]
email = true
[clock]
deadline = "4h"
"""
STAGE = '[[stage]]\nid = "go"\nfrom = ["@ops"]\n'
STANDING = '[standing]\nmatch = ["account"]\nlasts = "30d"\n'
BREAK = '[break_glass]\nwho = ["@ops"]\nreview = { from = ["@ops"], within = "24h" }\n'


def problems_of(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "workflows").mkdir()
    file = tmp_path / "workflows" / "access.toml"
    file.write_text(HEAD + text)
    try:
        read_configuration(tmp_path / "config.toml", {"KEY": "k" * 40})
    except ConfigErrors as errors:
        return [str(problem).removeprefix(f"{file}:") for problem in errors.problems]
    return []


def test_a_file_with_both_tables_loads(tmp_path: Path) -> None:
    both = STANDING + 'times = 20\nfor = "anyone"\nsum = { field = "amount", max = "500" }\n' + BREAK
    assert problems_of(tmp_path, both + STAGE) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (STANDING.replace("account", "acount"), "15: standing.match[0]: no field is called acount (did you mean"),
        (STANDING.replace("account", "note"), "15: standing.match[0]: note isn't pinned, so no approver has signed it"),
        (STANDING.replace('["account"]', '["account", "account"]'), "15: standing.match: a field is listed twice"),
        (STANDING.replace('["account"]', "[]"), "15: standing.match: must not be empty"),
        (STANDING.replace("30d", "400d"), "16: standing.lasts: at most 366 days"),
        (STANDING + "times = 0\n", "17: standing.times: "),
        (STANDING + 'sum = { field = "note", max = "5" }\n', "17: standing.sum.field: a text field can't be added up"),
        (STANDING + 'sum = { field = "amont", max = "5" }\n', "17: standing.sum.field: no field is called amont (did"),
        (STANDING + 'sum = { field = "amount", max = "-5" }\n', "17: standing.sum.max: write a number above 0"),
        (STANDING + 'sum = { field = "amount", max = true }\n', "17: standing.sum.max: write a number above 0"),
        (BREAK.replace('who = ["@ops"]', 'who = ["@oops"]'), "15: break_glass.who[0]: no group is called oops"),
        (BREAK.replace('who = ["@ops"]', 'who = ["app:ci"]'), "15: break_glass.who[0]: no key in [api_keys]"),
        (BREAK.replace("24h", "60d"), "16: break_glass.review.within: at most 31 days"),
        (BREAK.replace('from = ["@ops"]', 'from = ["@oops"]'), "16: break_glass.review.from[0]: no group is called"),
        ('[emergency]\nreason = "x"\n', "14: emergency: unknown key"),
    ],
)
def test_mistakes_are_found_with_their_line(tmp_path: Path, text: str, problem: str) -> None:
    found = problems_of(tmp_path, text + STAGE)
    assert any(each.startswith(problem) for each in found), found


def test_questions_and_missing_owners_are_found(tmp_path: Path) -> None:
    asking = STANDING + STAGE + '[stage.ask]\nticket = "string"\n'
    (found,) = problems_of(tmp_path, asking)
    assert "stage[0].ask: nobody answers this in a request that [standing] covers" in found


def test_a_late_review_needs_somebody_to_ask(tmp_path: Path) -> None:
    global_head = HEAD.replace('owners = ["@ops"]\n', "")
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "access.toml").write_text(global_head + BREAK + STAGE)
    with pytest.raises(ConfigErrors, match=r"nobody is asked once a review is late: add workflow\.owners"):
        read_configuration(tmp_path / "config.toml", {"KEY": "k" * 40})
