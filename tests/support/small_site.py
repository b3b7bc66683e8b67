"""A small configuration in its own folder, with commands typed as an operator types them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from approvals_bot.app import open_service, read_configuration
from approvals_bot.cli import app

CONFIG = """\
[server]
base_url     = "http://127.0.0.1:8000"
database     = "sqlite:///approvals.db"
signing_keys = ["file:signing.key"]
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
name = "Bo Lund"
manager = "ann@acme.eu"
[groups]
managers = ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"]
others = ["di@acme.eu"]
"""

LEAVE = """\
[workflow]
id      = "leave"
title   = "{{ days }} days off"
request = ["@managers"]
[fields]
days = { type = "integer", pinned = true }
why  = { type = "text", required = false }
[[auto]]
when     = "days <= 1"
decision = "approve"
[[stage]]
id   = "ok"
from = ["@managers"]
need = 2
ask  = { count = "integer", paid = { type = "boolean", required = false } }
[clock]
deadline = "4h"
remind   = ["1h"]
"""

HELLO = """\
from pydantic import BaseModel
from approvals_bot import define_hook, sleep, workflow

class Guest(BaseModel):
    name: str

class Reply(BaseModel):
    text: str

reply = define_hook(schema=Reply)

@workflow
async def hello(guest: Guest) -> str:
    async with reply.create(token=f"hello-{guest.name}") as hook:
        said = await hook
    await sleep("7 days")
    return said.text
"""

KEY = "a signing key of the tests, and of nothing else: 0123456789"


class Site:
    """A folder with a configuration, in which commands are typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def type(self, *words: str, fails: bool | int = False) -> Result:
        """Run a command, and check its exit code and that it prints no traceback. `fails=2`: wrong arguments."""
        result = CliRunner().invoke(app, [*words, *self._config(words)])
        assert "Traceback" not in result.output
        assert result.exit_code == int(fails), (result.output, result.exception)
        return result

    def json(self, *words: str, fails: bool = False) -> Any:
        return json.loads(self.type(*words, "--json", fails=fails).stdout)

    def start(self, workflow: str = "leave", requester: str = "bo@acme.eu", **input: Any) -> str:
        """Start a run and return its ID."""
        given = json.dumps(input or {"days": 3})
        found = self.json("start", workflow, "--input", given, "--requester", requester)
        return str(found["run_id"])

    def work(self) -> None:
        """Run the service until it is idle."""

        async def until_quiet() -> None:
            async with open_service(read_configuration(self.config)) as service:
                await service.engine.settle()

        asyncio.run(until_quiet())

    def _config(self, words: tuple[str, ...]) -> list[str]:
        takes_none = words[0] in ("init", "schema", "--help", "--version") or words[1:2] == ("verify",)
        return [] if takes_none or "--config" in words or "--help" in words else ["--config", str(self.config)]


def install(folder: Path) -> Site:
    site = Site(folder)
    site.write("config.toml", CONFIG)
    site.write("signing.key", KEY)
    site.write("workflows/leave.toml", LEAVE)
    return site
