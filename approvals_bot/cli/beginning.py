"""`approvals-bot init`: a configuration that works at once, small enough to be read whole."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

CONFIG = """\
# Approvals Bot: the service's file. `approvals-bot check` tells what is wrong with it, with the line.
[server]
base_url     = "http://127.0.0.1:8000"             # people's links are made from this
database     = "sqlite:///approvals.db"
signing_keys = ["file:secrets/signing.key"]        # first signs, all verify: put a new one in front to rotate
workflows    = "workflows"

[api_keys]
ci = { key = "file:secrets/ci.key", may_vote = false }   # Authorization: Bearer <what is in that file>

# [slack]                                          # `approvals-bot slack manifest` prints the app to create
# bot_token      = "env:SLACK_BOT_TOKEN"
# signing_secret = "env:SLACK_SIGNING_SECRET"

[email]
host     = "127.0.0.1"
port     = 25
security = "none"                                  # starttls or tls for a relay that isn't this machine
sender   = "Approvals <approvals@example.com>"

[people."you@example.com"]
name = "You"
[people."colleague@example.com"]
name = "A Colleague"

[groups]
approvers = ["you@example.com", "colleague@example.com"]
"""

WORKFLOW = """\
# Who may decide, and how they hear of it. The file's name is the workflow's name.
[workflow]
id      = "first"
title   = "{{ what }}"
request = ["*", "app:ci"]            # who may ask: every person, and the app "ci"

[fields]
what = { type = "string", pinned = true }
why  = { type = "text", required = false }

[[stage]]
id   = "ok"
from = ["@approvers"]                # one of them decides; whoever asked never decides alone
need = 1

[deliver]
email = true

[clock]
deadline    = "2d"
remind      = ["4h", "1d"]
on_deadline = "expire"
"""


def write_beginning(folder: Path) -> Iterator[str]:
    """Write the files and say what they are. FileExistsError if there is a config.toml; nothing is overwritten."""
    config = folder / "config.toml"
    if config.exists():
        raise FileExistsError(f"{config} exists. Nothing was changed; choose another folder, or edit that file.")
    kept = folder / "secrets"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "workflows").mkdir(exist_ok=True)
    config.write_text(CONFIG)
    yield f"{config}: the service: people, groups, keys, mail, Slack"
    for name in ("signing.key", "ci.key"):
        file = kept / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(48))
        yield f"{file}: secret; keep it out of version control"
    first = folder / "workflows" / "first.toml"
    if not first.exists():
        first.write_text(WORKFLOW)
    yield f"{first}: a first approval"
    yield f"Next: approvals-bot dev --config {config}   (everything on this machine, with a mailbox to look into)"
