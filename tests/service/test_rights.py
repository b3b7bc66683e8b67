"""What the audit keeps of a configuration: whatever says who may do something, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.config.load import Configuration
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.rights import changes, rights_of

SECRET = "a secret of the tests: 0123456789abcdefghij"
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:SECRET"]
[api_keys]
token = { key = "env:SECRET", may = ["start"] }
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
name = "Bo Lund"
[people."eve@acme.eu"]
name = "Eve"
[groups]
key = ["ann@acme.eu"]
[directory.oncall]
name = "ann@acme.eu"
[slack]
bot_token = "env:SECRET"
signing_secret = "env:SECRET"
external_users = "deny"
[email]
host = "127.0.0.1"
security = "none"
sender = "approvals@acme.eu"
[email.replies]
address = "reply@acme.eu"
listen = "127.0.0.1:2526"
trusted_authserv = ["mx.acme.eu"]
"""
SHIP = """
[workflow]
id = "ship"
title = "Ship it"
[fields]
amount = "integer"
[[request]]
from = ["bo@acme.eu"]
when = "amount < 10"
[[stage]]
id = "go"
from = ["@key"]
[deliver]
email = true
link_auth = "login"
[[schedule]]
id = "weekly"
cron = "0 9 * * 1"
requester = "bo@acme.eu"
input = { amount = 1 }
"""


def configured(folder: Path, old: str = "", new: str = "") -> Configuration:
    (folder / "workflows").mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CONFIG.replace(old, new) if old else CONFIG)
    (folder / "workflows" / "ship.toml").write_text(SHIP.replace(old, new) if old else SHIP)
    return read_configuration(folder / "config.toml", {"SECRET": SECRET})


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('may = ["start"]', 'may = ["start", "vote"]', "api_keys.token.may"),
        ('key = ["ann@acme.eu"]', 'key = ["ann@acme.eu", "eve@acme.eu"]', "groups.key.people"),
        ('name = "ann@acme.eu"', 'name = "eve@acme.eu"', "directory.oncall.name"),
        ('external_users = "deny"', 'external_users = "see-only"', "external_users"),
        ('["mx.acme.eu"]', '["mx.acme.eu", "mx.evil.example"]', "trusted_authserv"),
        ('link_auth = "login"', 'link_auth = "code"', "workflows.ship.deliver.link_auth"),
        ("amount < 10", "amount < 1000", "workflows.ship.request"),
        ('cron = "0 9 * * 1"', 'cron = "* * * * *"', "workflows.ship.schedule"),
        ('from = ["@key"]', 'from = ["eve@acme.eu"]', "workflows.ship.stage"),
    ],
)
def test_a_change_of_what_people_may_do_is_named(tmp_path: Path, old: str, new: str, path: str) -> None:
    before: Any = rights_of(configured(tmp_path))
    after = rights_of(configured(tmp_path, old, new))
    assert [change["path"] for change in changes(before, after)] == [path]
    assert SECRET not in json.dumps([before, after])
