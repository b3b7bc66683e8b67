"""`evidence RUN` and `evidence verify FILE`: what an outsider needs to believe one request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from approvals_bot.cli import terminal
from approvals_bot.cli.audit import new_file, read_public_key
from approvals_bot.cli.common import FILE, config_option, fail, json_option, record_of, this_user, with_engine
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.evidence import make_evidence
from approvals_bot.service.read import request_of
from approvals_bot.verify_evidence import NotVerified
from approvals_bot.verify_evidence import verify as verify_evidence


class _RunOrVerify(click.Group):
    """`evidence RUN` is short for `evidence make RUN`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["make", *args]
        return super().resolve_command(ctx, args)


app = _RunOrVerify("evidence", help="Write the signed evidence of a request, or verify such a file.")


@app.command()
@click.argument("run", help="The run's ID.")
@config_option
@click.option(
    "--output", type=FILE, metavar="FILE", help="The file to write; it must not exist. Default: standard output."
)
def make(run: str, config: Path, output: Path | None) -> None:
    """Write the evidence of one request: its rules, votes, outcome and log, signed with the audit key.

    `evidence RUN` does the same.

    \b
    Example: approvals-bot evidence run_0198c1 --output evidence.json
    """

    async def write(engine: Engine, service: ServiceSettings) -> bytes:
        seed, record = service.audit.seed, await record_of(engine, run)
        only = request_of(record) if run != record.id else None
        key = None if seed is None else AuditKey(seed)
        return await make_evidence(engine, record, key, actor=this_user(), only=only)

    content = with_engine(config, write, upgrade=False)
    if output is None:
        sys.stdout.buffer.write(content)
        return
    try:
        with new_file(output) as file:
            file.write(content)
    except FileExistsError:
        fail(f"{output} already exists. Nothing was written. Choose another name.")
    click.echo(f"{output}: the evidence of {run}.")


@app.command()
@click.argument("file", type=FILE, help="A file that `evidence` wrote.")
@click.option(
    "--public-key", type=FILE, required=True, metavar="FILE", help="The public key, as `audit key` prints it."
)
@json_option
def verify(file: Path, public_key: Path, as_json: bool) -> None:
    """Verify that evidence is as it was signed, and that its log, votes and texts fit together.

    Works offline, as `python verify_evidence.py FILE KEY` does without this program. Exits with 1 if it isn't.

    \b
    Example: approvals-bot evidence verify evidence.json --public-key audit.pub
    """
    try:
        found = verify_evidence(file.read_bytes(), bytes.fromhex(read_public_key(public_key)))
    except NotVerified as error:
        terminal.say({"verified": False, "because": str(error)}, f"⛔ Not verified: {error}.", as_json)
        raise click.exceptions.Exit(1) from None
    run, votes = found["run"]["id"], len(found["votes"])
    text = f"✅ Run {run}: {votes} votes, {len(found['log'])} events, as they were signed on {found['made_at']}."
    terminal.say({"verified": True, "run": run, "made_at": found["made_at"]}, text, as_json)
