"""`audit export`, `audit verify` and `audit key`: the audit as a tamper-evident file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

import click

from approvals_bot.cli import terminal
from approvals_bot.cli.common import FILE, config_option, fail, json_option, misuse, this_user, with_engine
from approvals_bot.config.load import load_service
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.service.anchors import AnchorError, read_anchors
from approvals_bot.service.audit import Manifest, Selection, derive_key, write_export
from approvals_bot.service.audit_check import ADOPTED, ChainFault
from approvals_bot.service.audit_csv import write_csv
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.audit_verify import Keys, Verification, verify_lines

PROGRESS_AFTER = 1.0  # seconds without a sign of life; then a line each second

ONLY_INTEGRITY = (
    "⚠ Only integrity was checked, not origin: anybody can rewrite the whole file with a new chain. "
    "Pass --public-key, --config or --key to check who exported it."
)
NO_ANCHORS = "⚠ Without --anchors, the database is only as safe as the audit key and those who can write to it."
NOT_KEYED = "⚠ The audit had no key, so anybody who can write to the database could have rewritten it before."

app = click.Group("audit", help="Export the audit log, or verify an export.")


@app.command()
@config_option
@click.option(
    "--output", type=FILE, metavar="FILE", help="The file to write; it must not exist. Default: standard output."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    help="jsonl can be verified; csv is a table of the audit's lines.",
)
@click.option("--since", metavar="SEQ|TIME", help="Only from this line or time on, like 812 or 2026-11-28.")
@click.option("--until", metavar="TIME", help="Only before this time.")
@click.option("--workflow", help="Only runs of this workflow.")
@click.option("--run", metavar="RUN", help="Only this run.")
@json_option
def export(
    config: Path,
    output: Path | None,
    form: Literal["jsonl", "csv"],
    since: str | None,
    until: str | None,
    workflow: str | None,
    run: str | None,
    as_json: bool,
) -> None:
    """Export the audit log and all runs, chained and signed.

    The export is JSON lines. Each contains a hash of all lines before it; the last one is signed. With --since,
    --until, --workflow or --run it has the lines selected by them, and the logs of the runs that these name. Exits with
    1 if the database was changed since the lines were written.

    \b
    Example: approvals-bot audit export --output audit.jsonl
    """
    selection = Selection(replace(_since(since), until=_time(until, "--until"), run_id=run), workflow)

    async def write(engine: Engine, service: ServiceSettings) -> Manifest | int:
        with ExitStack() as stack:
            file: BinaryIO = sys.stdout.buffer if output is None else stack.enter_context(new_file(output))
            data = {"selected": selection.as_json(), "format": form}
            await engine.audit("audit_exported", actor=this_user().as_json(), data=data)
            if form == "csv":
                return await write_csv(engine, file, selection, _progress())
            return await write_export(engine, _signing(service), file, selection, _progress())

    try:
        written = with_engine(config, write, upgrade=False)
    except FileExistsError:
        fail(f"{output} already exists. Nothing was written. Choose another name.")
    manifest = written if isinstance(written, Manifest) else None
    counted = f"{_counted(manifest)}." if manifest is not None else f"{written:,} audit lines."
    if output is None:
        click.echo(counted, err=True)  # standard output is the export
    else:
        terminal.say(asdict(manifest) if manifest else {"audit": written}, f"{output}: {counted}", as_json)
    if manifest is not None and manifest.faults:
        fail("\n".join(_fault_text(each) for each in manifest.faults[:5]))


@app.command()
@click.argument("file", type=FILE, help="A file that `audit export` wrote.")
@click.option("--config", type=FILE, metavar="FILE", help="Use the keys of this config.toml.")
@click.option("--key", metavar="SECRET", help="Use this signing key: env:NAME or file:PATH.")
@click.option("--public-key", type=FILE, metavar="FILE", help="Use this public key, as `audit key` prints it.")
@click.option("--anchors", type=FILE, metavar="FILE", help="Compare with the anchors in this file.")
@json_option
def verify(
    file: Path, config: Path | None, key: str | None, public_key: Path | None, anchors: Path | None, as_json: bool
) -> None:
    """Verify that an export hasn't been changed, and what its chains say about the database.

    Works offline. Exits with 1 if the file was changed, or the database before the export; it names the line, the run
    and the kind of change. Without a key, only integrity is checked, not origin.

    \b
    Example: approvals-bot audit verify audit.jsonl --public-key audit.pub --anchors anchors.jsonl
    """
    keys = _given_keys(config, key, public_key)
    found = []
    if anchors is not None:
        try:
            with anchors.open("rb") as lines:
                found = read_anchors(lines, keys.public)
        except AnchorError as error:
            fail(f"{anchors}: {error}. Don't trust this file.")
        if not keys.public:
            misuse("--anchors needs --public-key or --config: anybody can write anchors.")
    with file.open("rb") as lines:
        checked = verify_lines(lines, keys, found)
    terminal.say(checked.as_json(), _verification_text(checked, bool(found)), as_json)
    if not checked.is_sound:
        raise click.exceptions.Exit(1)


@app.command()
@config_option
@click.option("--adopt", is_flag=True, help="Accept the lines that were written before there was this key.")
@json_option
def key_command(config: Path, adopt: bool, as_json: bool) -> None:
    """Print the public key by which exports, anchors and evidence are verified.

    With --adopt, lines written without this key are accepted as they are from now on. Check them before: nothing undoes
    that.

    \b
    Example: approvals-bot audit key > audit.pub
    """
    service = load_service(config, os.environ)
    seed = service.audit.seed
    if seed is None:
        fail(f"{config} has no [audit] key. `openssl rand -hex 32` makes one.")
    public = AuditKey(seed).public
    if adopt:

        async def accept(engine: Engine, _: ServiceSettings) -> None:
            newest = await engine.audit_lines(AuditFilter(newest_first=True, limit=1))
            below = newest[0].seq + 1 if newest else 1
            await engine.audit(ADOPTED, actor=this_user().as_json(), data={"below": below, "key": public})

        with_engine(config, accept)
    terminal.say({"key": public}, public, as_json)


def new_file(path: Path) -> BinaryIO:
    """Create a file that only its owner can read, whatever the umask."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _progress() -> Callable[[int], None]:
    """Return a function that is called with the number of lines, and says so on standard error once a second."""
    said_at = time.monotonic()

    def progress(lines: int) -> None:
        nonlocal said_at
        if lines % 100 == 0 and time.monotonic() > said_at + PROGRESS_AFTER:
            said_at = time.monotonic()
            click.echo(f"{lines:,} lines …", err=True)

    return progress


def _since(given: str | None) -> AuditFilter:
    if given is not None and given.isascii() and given.isdigit() and len(given) < 16:
        return AuditFilter(above=int(given) - 1)
    return AuditFilter(since=_time(given, "--since"))


def _time(given: str | None, option: str) -> datetime | None:
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        misuse(f"{option}: write a time like 2026-11-28 or 2026-11-28T10:00Z.")
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _signing(service: ServiceSettings) -> AuditKey | bytes:
    return AuditKey(service.audit.seed) if service.audit.seed is not None else _derived(service)[0]


def _derived(service: ServiceSettings) -> Sequence[bytes]:
    return [derive_key(key.get_secret_value()) for key in service.server.signing_keys]


def _given_keys(config: Path | None, key: str | None, public_key: Path | None) -> Keys:
    """Return the keys to verify with; none if only the chain is to be checked."""
    if public_key is not None:
        return Keys(public=[read_public_key(public_key)])
    if key is not None:
        kind, _, name = key.partition(":")
        match kind:
            case "env" if name in os.environ:
                return Keys(derived=[derive_key(os.environ[name])])
            case "file":
                return Keys(derived=[derive_key(Path(name).read_text("utf-8").strip())])
            case "env":
                fail(f"The environment variable {name} isn't set.")
            case _:
                misuse("Write --key as env:NAME or file:PATH; others could see a key on the command line.")
    if config is not None:
        service = load_service(config, os.environ)
        if service.audit.seed is not None:
            own = AuditKey(service.audit.seed)
            return Keys(public=[own.public], chain=own.chain)
        return Keys(derived=_derived(service))
    return Keys()


def read_public_key(file: Path) -> str:
    """Return the public key in a file, in hexadecimal."""
    text = file.read_text("ascii").strip()
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        fail(f"{file} isn't a public key; `approvals-bot audit key` prints it.")
    return text


def _counted(manifest: Manifest) -> str:
    return f"{manifest.audit:,} audit lines, {manifest.events:,} events in {manifest.runs:,} runs"


def _fault_text(fault: dict[str, object]) -> str:
    """Say where the database was changed, by a fault as manifests have it."""
    each = ChainFault(**fault)  # type: ignore[arg-type]  # as our own manifest has it
    if each.line is not None:
        return f"⚠ The audit log in the database was changed before the export, from line {each.line} on ({each.kind})."
    at = f"at event {each.seq} ({each.kind})"
    return f"⚠ The log of run {each.run} in the database was changed before the export, {at}."


def _verification_text(checked: Verification, anchored: bool) -> str:
    if checked.fault is not None:
        at = f"Line {checked.fault.line} ({checked.fault.kind})"
        run = f" in run {checked.fault.run}" if checked.fault.run else ""
        return f"⛔ {at}{run}: {checked.fault.what}. Don't trust anything from there on."
    manifest = checked.manifest
    counted = _counted(manifest)
    notes = [_fault_text(each) for each in manifest.faults[:5]]
    if checked.broken is not None:
        run = f", run {checked.broken.run}" if checked.broken.run else ""
        notes.append(f"⛔ Line {checked.broken.line} ({checked.broken.kind}{run}): {checked.broken.what}.")
    if checked.cut_at is not None:
        notes.append(
            f"The audit was cut on {checked.cut_on}: lines 1 to {checked.cut_at:,} are gone on purpose"
            + (f", and {checked.older_anchors:,} anchors are about those." if checked.older_anchors else ".")
        )
    if checked.newer_anchor is not None:
        notes.append(f"⚠ This export is older than the anchor of {checked.newer_anchor}, which it isn't compared with.")
    if checked.proved_at is not None:
        notes.append(
            f"Anchors vouch for the lines up to {checked.proved_until}, {checked.proved_at}. "
            "What is younger is only as safe as the database."
        )
    elif manifest.keyed_from is None:
        notes.append(NOT_KEYED)
    elif not anchored:
        notes.append(NO_ANCHORS)
    if checked.origin == "checked":
        mark = "✅" if checked.is_sound else "⛔"
        text = f"{mark} Unchanged since it was exported with this key, {manifest.exported_at}: {counted}."
        return "\n".join([text, *notes])
    text = f"✅ The chain is intact: {counted}, exported {manifest.exported_at}."
    return "\n".join([text, *notes, ONLY_INTEGRITY])
