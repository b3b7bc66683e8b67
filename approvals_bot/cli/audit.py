"""`audit export` and `audit verify`: the audit log as a tamper-evident file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from approvals_bot.cli import terminal
from approvals_bot.cli.common import CONFIG, Config, Json, fail, misuse, with_engine
from approvals_bot.config.load import load_service
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.service.audit import Manifest, Verification, derive_key, verify_lines, write_export

BROKEN = "⚠ The audit log in the database was changed before the export, from line {} on."

ONLY_INTEGRITY = (
    "⚠ Only integrity was checked, not origin: anybody can rewrite the whole file with a new chain. "
    "Pass --config or --key to check who exported it."
)

app = typer.Typer(help="Export the audit log, or verify an export.", no_args_is_help=True)


@app.command()
def export(
    config: Config = CONFIG,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="The file to write; it must not exist. Default: standard output.", metavar="FILE"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export the audit log and all runs, chained and signed.

    The export is JSON lines. Each contains a hash of all lines before it; the last one is signed.

    \b
    Example: approvals-bot audit export --output audit.jsonl
    """

    async def write(engine: Engine, service: ServiceSettings) -> Manifest:
        with ExitStack() as stack:
            file: BinaryIO = sys.stdout.buffer if output is None else stack.enter_context(output.open("xb"))
            return await write_export(engine, _keys(service)[0], file)

    try:
        manifest = with_engine(config, write)
    except FileExistsError:
        fail(f"{output} already exists. Nothing was written. Choose another name.")
    counted = f"{_counted(manifest)}."
    if output is None:
        typer.echo(counted, err=True)  # standard output is the export
    else:
        terminal.say(asdict(manifest), f"{output}: {counted}", as_json)
    if manifest.broken_at is not None:
        fail(BROKEN.format(manifest.broken_at))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A file that `audit export` wrote.", metavar="FILE")],
    config: Annotated[
        Path | None, typer.Option("--config", help="Use the signing keys of this config.toml.", metavar="FILE")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Use this signing key: env:NAME or file:PATH.", metavar="SECRET")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify that an export hasn't been changed.

    Works offline. Exits with 1 if the file was changed. Without --config or --key, only integrity is checked, not
    origin.

    \b
    Example: approvals-bot audit verify audit.jsonl --config config.toml
    """
    keys = _given_keys(config, key)
    with file.open("rb") as lines:
        checked = verify_lines(lines, keys)
    terminal.say(checked.as_json(), _verification_text(checked), as_json)
    if checked.fault is not None or checked.manifest.broken_at is not None:
        raise typer.Exit(1)


def _keys(service: ServiceSettings) -> Sequence[bytes]:
    return [derive_key(key.get_secret_value()) for key in service.server.signing_keys]


def _given_keys(config: Path | None, key: str | None) -> Sequence[bytes]:
    """Return the keys to verify with; none if only the chain is to be checked."""
    if key is not None:
        kind, _, name = key.partition(":")
        match kind:
            case "env" if name in os.environ:
                return [derive_key(os.environ[name])]
            case "file":
                return [derive_key(Path(name).read_text("utf-8").strip())]
            case "env":
                fail(f"The environment variable {name} isn't set.")
            case _:
                misuse("Write --key as env:NAME or file:PATH; others could see a key on the command line.")
    if config is not None:
        return _keys(load_service(config, os.environ))
    return ()


def _counted(manifest: Manifest) -> str:
    return f"{manifest.audit:,} audit lines, {manifest.events:,} events in {manifest.runs:,} runs"


def _verification_text(checked: Verification) -> str:
    if checked.fault is not None:
        return f"⛔ Line {checked.fault.line}: {checked.fault.what}. Don't trust anything from there on."
    manifest = checked.manifest
    counted = _counted(manifest)
    broken = [BROKEN.format(checked.manifest.broken_at)] if checked.manifest.broken_at is not None else []
    if checked.origin == "checked":
        text = f"✅ Unchanged since it was exported with this key, {manifest.exported_at}: {counted}."
        return "\n".join([text, *broken])
    text = f"✅ The chain is intact: {counted}, exported {manifest.exported_at}."
    return "\n".join([text, *broken, ONLY_INTEGRITY])
