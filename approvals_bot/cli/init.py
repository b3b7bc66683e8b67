"""`approvals-bot init`: a configuration that works at once, small enough to be read whole."""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
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

[people."@you@"]
name = "You"
[people."@colleague@"]
name = "A Colleague"

[groups]
approvers = ["@you@", "@colleague@"]
"""

WORKFLOW = """\
# Who may decide, and how they hear of it. The file's name is the workflow's name.
[workflow]
id      = "@what@"
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


@dataclass(frozen=True, slots=True)
class Answers:
    """The three answers, and what is proposed for each."""

    you: str = "you@example.com"
    colleague: str = "colleague@example.com"
    what: str = "first"

    def check(self) -> None:
        """ValueError says which can't be used."""
        for address in (self.you, self.colleague):
            if not re.fullmatch(r"[^\s@\"\\]+@[^\s@\"\\]+", address):
                raise ValueError(f"{address!r} is not a mail address. Nothing was written.")
        if self.you.lower() == self.colleague.lower():
            raise ValueError("The two addresses are one person, and nobody decides alone. Nothing was written.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", self.what):
            raise ValueError(
                f"{self.what!r} is no name of a file: one word of letters and digits. Nothing was written."
            )

    def fill(self, text: str) -> str:
        for mark, answer in (("@you@", self.you), ("@colleague@", self.colleague), ("@what@", self.what)):
            text = text.replace(mark, answer)
        return text


PROPOSED = Answers()


def write_beginning(folder: Path, answers: Answers) -> Iterator[str]:
    """Write the files and say what they are. FileExistsError if there is a config.toml; nothing is overwritten."""
    answers.check()
    config = folder / "config.toml"
    if config.exists():
        raise FileExistsError(f"{config} exists. Nothing was changed; choose another folder, or edit that file.")
    kept = folder / "secrets"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "workflows").mkdir(exist_ok=True)
    config.write_text(answers.fill(CONFIG), "utf-8")
    yield f"{config}: the service: people, groups, keys, mail, Slack"
    for name in ("signing.key", "ci.key"):
        file = kept / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(48), "ascii")
        yield f"{file}: secret; keep it out of version control"
    first = folder / "workflows" / f"{answers.what}.toml"
    if not first.exists():
        first.write_text(answers.fill(WORKFLOW), "utf-8")
    yield f"{first}: a first approval"
    named = shlex.quote(str(config))
    yield f"Next: approvals-bot dev --config {named}   (everything on this machine, with a mailbox to look into)"
    body = {"workflow": answers.what, "requester": answers.you, "input": {"what": "A first try"}}
    yield (
        "Then ask for something: curl http://127.0.0.1:8000/api/runs -H 'Authorization: Bearer dev' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )
