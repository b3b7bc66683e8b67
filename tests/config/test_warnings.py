"""Warnings about a file that loads."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from approvals_bot.approvals.policy import Definition
from approvals_bot.config.warnings import warning_text, warnings_of
from approvals_bot.service.catalog import check_configuration

PAY = """\
[workflow]
id = "pay"
title = "Pay"
request = ["*"]
[policy]
reject = 1
[[stage]]
id = "first"
from = ["@a"]
[[stage]]
id = "second"
from = ["@a"]
[clock]
deadline = "4h"
[deliver]
dm = true
"""

WAITS = (
    'so a request that nobody decides waits forever; in [clock], write deadline = "3d", or none = true if that is meant'
)
SILENT = "approvers only find it in their inbox"
CARRIES = "changes nothing: no later stage takes an approval without answers or a comment"
ESCALATES = 'on_deadline = "escalate"\n[[escalate]]\nafter = "{after}"\nto = ["@b"]'
NOBODY = (
    "nobody is left to ask by then, since every [[escalate]] is earlier, so the request expires; "
    'write after = "4h" in one of them, or on_deadline = "expire"'
)
SECOND = 'id = "second"'


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        ({}, []),
        ({'deadline = "4h"': ""}, [f"13: warning: clock.deadline: there is none, {WAITS}"]),
        (
            {'deadline = "4h"': "", SECOND: f'{SECOND}\ndeadline = "1h"'},
            [f"14: warning: clock.deadline: there is none in stage first, {WAITS}"],
        ),
        ({'deadline = "4h"': "none = true", SECOND: f'{SECOND}\ndeadline = "1h"'}, []),
        ({"dm = true": ""}, [f"15: warning: deliver: nobody is notified of a request: {SILENT}"]),
        (
            {SECOND: f"{SECOND}\ndeliver = {{ dm = false }}"},
            [f"16: warning: deliver: nobody is notified of a request in stage second: {SILENT}"],
        ),
        (
            {
                "dm = true": "",
                'id = "first"': 'id = "first"\ndeliver = { email = true }',
                SECOND: f"{SECOND}\ndeliver = {{ email = true }}",
            },
            [],
        ),
        (
            {'deadline = "4h"': f'deadline = "4h"\n{ESCALATES.format(after="1h")}'},
            [f"15: warning: clock.on_deadline: {NOBODY}"],
        ),
        ({'deadline = "4h"': f'deadline = "4h"\n{ESCALATES.format(after="4h")}'}, []),
        ({"reject = 1": "carry_over = true"}, []),
        (
            {
                'title = "Pay"': 'title = "Pay {amount} at ${amount}"',
                "[policy]": '[fields]\namount = "integer"\n[policy]',
            },
            ["3: warning: workflow.title: {amount} stays as it is; for the field's value, write {{ amount }}"],
        ),
        ({'title = "Pay"': 'title = "Pay {{ amount }} {x}"', "[policy]": '[fields]\namount = "integer"\n[policy]'}, []),
        (
            {"reject = 1": "carry_over = true", SECOND: f'{SECOND}\ncomment = "always"'},
            [f"6: warning: policy.carry_over: {CARRIES}"],
        ),
    ],
)
def test_warnings_take_each_stages_own_keys(changes: dict[str, str], warnings: list[str], tmp_path: Path) -> None:
    file, text = tmp_path / "pay.toml", PAY
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    found = warnings_of(Definition.model_validate(tomllib.loads(text)), file)
    assert [warning_text(each).removeprefix(f"{file}:") for each in found] == warnings


SERVICE = """
[server]
base_url = "https://approve.acme.eu"
signing_keys = ["env:KEY"]
admins = ["@live"]
no_proxy = ["internal.acme.eu"]
[email]
host = "127.0.0.1"
security = "none"
sender = "Approvals <approvals@acme.eu>"
[groups]
live = { file = "live.json" }
[directory]
refresh = "10s"
[chat]
model = "scripted"
[login]
methods = ["code"]
[login.oidc]
issuer = "https://id.acme.eu"
client_id = "approvals"
client_secret = "env:KEY"
[audit]
anchor_every = "2h"
[alerts]
to = ["@live"]
"""


def test_what_config_toml_turns_off_itself_is_warned_of(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    (tmp_path / "workflows").mkdir()

    def warned(text: str) -> list[str]:
        config.write_text(text)
        checked = check_configuration(config, {"KEY": "a signing key of the tests: 0123456789abcdef"})
        assert [*checked.problems] == []
        return [warning_text(each).removeprefix(f"{config}:") for each in checked.warnings]

    nobody = "nobody is notified while these sources are down; add an address here, or to [server] admins"
    assert warned(SERVICE) == [
        "19: warning: login.oidc: isn't used, as it isn't among the methods; if it is meant, "
        'write methods = ["code", "oidc"] in [login]',
        "15: warning: chat.enabled: is false, so there is no chat, and nothing else in [chat] counts",
        f"26: warning: alerts.to: {nobody}",
        "24: warning: audit.anchor_every: changes nothing, since there are no anchors",
        "14: warning: directory.refresh: changes nothing, since no people are read from anywhere",
        "6: warning: server.no_proxy: changes nothing, since there is no proxy",
    ]
    used = SERVICE.replace('["code"]', '["oidc", "code"]').replace('admins = ["@live"]', 'admins = ["ann@acme.eu"]')
    for turned_off in (
        'no_proxy = ["internal.acme.eu"]',
        'refresh = "10s"',
        'model = "scripted"',
        'anchor_every = "2h"',
    ):
        used = used.replace(turned_off, "")
    assert warned(used) == []
    nobody_signs_in = (
        'base_url = "https://approve.acme.eu"\nsigning_keys = ["env:KEY"]\n[roles]\nviewer = ["ann@acme.eu"]'
    )
    assert warned(f"[server]\n{nobody_signs_in}\n[alerts]\n") == [
        "4: warning: roles: nobody can sign in to have a role: there is no [email], and no methods in [login]",
        "6: warning: alerts.to: lists nobody, so nobody is notified of anything",
    ]
