"""`audit export`, `audit verify`: everything that happened, as a file that shows whether it was changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from approvals_bot.cli import show
from approvals_bot.cli.common import CONFIG, Config, Json, fail, with_engine
from approvals_bot.config.load import load_service
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.service.audit import Manifest, Verification, derive_key, verify_lines, write_export

BROKEN = "⚠ The database's own audit was changed before it was exported, from its line {} on."

ONLY_INTEGRITY = (
    "⚠ Only integrity was checked, not origin: whoever rewrites the whole file can make a new chain. "
    "Give --config or --key to check who exported it."
)

app = typer.Typer(help="Export everything that happened, or verify it.", no_args_is_help=True)


@app.command()
def export(
    config: Config = CONFIG,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write to this file, which must not exist yet.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the audit and all logs, chained and signed.

    As JSON lines: each has the hash of all before it, and the last a signature.
    """

    async def write(engine: Engine, service: ServiceSettings) -> Manifest:
        with ExitStack() as stack:
            file: BinaryIO = sys.stdout.buffer if output is None else stack.enter_context(output.open("xb"))
            return await write_export(engine, _keys(service)[0], file)

    try:
        manifest = with_engine(config, write)
    except FileExistsError:
        fail(f"{output} exists. Nothing was written; choose another name.")
    counted = f"{manifest.audit:,} lines of audit, {manifest.events:,} events of {manifest.runs:,} runs."
    if output is None:
        typer.echo(counted, err=True)  # standard output is the export
    else:
        show.say(asdict(manifest), f"{output}: {counted}", as_json)
    if manifest.broken_at is not None:
        fail(BROKEN.format(manifest.broken_at))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What `audit export` wrote.", metavar="FILE")],
    config: Annotated[
        Path | None, typer.Option("--config", help="Take the signing keys from this file.", metavar="FILE")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="A signing key of the service: env:NAME or file:PATH.", metavar="SECRET")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether an exported file is as it was written.

    Works offline. Exits 1 if it is not.
    """
    keys = _given_keys(config, key)
    with file.open("rb") as lines:
        checked = verify_lines(lines, keys)
    show.say(checked.as_json(), _said(checked), as_json)
    if checked.fault is not None or checked.manifest.broken_at is not None:
        raise typer.Exit(1)


def _keys(service: ServiceSettings) -> Sequence[bytes]:
    return [derive_key(key.get_secret_value()) for key in service.server.signing_keys]


def _given_keys(config: Path | None, key: str | None) -> Sequence[bytes]:
    """None given: only the chain is checked."""
    if key is not None:
        kind, _, name = key.partition(":")
        match kind:
            case "env" if name in os.environ:
                return [derive_key(os.environ[name])]
            case "file":
                return [derive_key(Path(name).read_text("utf-8").strip())]
            case "env":
                fail(f"The environment has no {name}.")
            case _:
                fail("--key is written env:NAME or file:PATH; a key on the command line would be seen by others.")
    if config is not None:
        return _keys(load_service(config, os.environ))
    return ()


def _said(checked: Verification) -> str:
    if checked.fault is not None:
        return f"⛔ Line {checked.fault.line}: {checked.fault.what}. Nothing from there on can be trusted."
    manifest = checked.manifest
    counted = f"{manifest.audit:,} lines of audit, {manifest.events:,} events of {manifest.runs:,} runs"
    broken = [BROKEN.format(checked.manifest.broken_at)] if checked.manifest.broken_at is not None else []
    if checked.origin == "checked":
        said = f"✅ Unchanged since it was exported with this key, {manifest.exported_at}: {counted}."
        return "\n".join([said, *broken])
    said = f"✅ The chain is whole: {counted}, exported {manifest.exported_at}."
    return "\n".join([said, *broken, ONLY_INTEGRITY])
