"""What is on this machine: the configuration, the keys, the store, and where links lead."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from approvals_bot.approvals.port import Diagnosis
from approvals_bot.config.mail import is_loopback
from approvals_bot.config.messages import ConfigProblem
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.store import connect
from approvals_bot.errors import StoreUnavailableError

LITTLE_SPACE = 500_000_000  # bytes on the database's disk; below, an operator wants to know
FEW_SIGNS = 12  # different characters in a key; a random one of 32 bytes has about 20 at least


def configuration(path: Path, problems: Sequence[ConfigProblem]) -> Diagnosis:
    if problems:
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        text = "\n".join(str(problem) for problem in problems)
        return Diagnosis("FAIL", "configuration", f"{path} has {count}", "Mend these lines.", text)
    return Diagnosis("OK", "configuration", f"{path} and its workflows")


def base_url(service: ServiceSettings) -> Diagnosis:
    url = str(service.server.base_url)
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        todo = "Set [server] base_url to the https address that people reach this service by."
        return Diagnosis("WARN", "base_url", f"{url} is this machine: links open nowhere else", todo)
    if parts.scheme != "https":
        todo = "Put TLS in front of the service, and write https:// in [server] base_url."
        return Diagnosis("FAIL", "base_url", f"{url} is not encrypted: whoever listens could decide by a link", todo)
    return Diagnosis("OK", "base_url", url)


def signing_keys(service: ServiceSettings) -> Iterator[Diagnosis]:
    keys = [key.get_secret_value() for key in service.server.signing_keys]
    for number, key in enumerate(keys, 1):
        if len(set(key)) < FEW_SIGNS:
            todo = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            yield Diagnosis("WARN", "signing keys", f"key {number} looks as if a person had made it up", todo)
    if len(set(keys)) < len(keys):
        yield Diagnosis("WARN", "signing keys", "one stands there twice", "Take the second out.")
    yield Diagnosis("OK", "signing keys", f"{len(keys)}; the first signs, all are accepted")


async def store(service: ServiceSettings) -> Sequence[Diagnosis]:
    """Opening it applies what its schema lacks, and fails where SQLite can't be made to keep WAL and FULL."""
    url = service.server.database.get_secret_value()
    try:
        opened = await connect(url)
    except (StoreUnavailableError, ValueError, ModuleNotFoundError) as error:
        return [Diagnosis("FAIL", "store", str(error), "Look at [server] database, and who may write there.")]
    try:
        await opened.check()
    except StoreUnavailableError as error:
        return [Diagnosis("FAIL", "store", str(error), "Nothing can be accepted until it can be written to.")]
    finally:
        await opened.close()
    if not url.startswith("sqlite:///"):
        return await _postgres(url)
    found = [Diagnosis("OK", "store", "SQLite is writable, in WAL with synchronous=FULL, its schema is current")]
    return [*found, *_space(Path(url.removeprefix("sqlite:///")))]


async def _postgres(url: str) -> Sequence[Diagnosis]:
    """What a PostgreSQL server's own settings mean for what people were told is taken."""
    from approvals_bot.durable.store.postgres_schema import examine

    found = await examine(url)
    findings = [Diagnosis("OK", "store", f"PostgreSQL {found.version} is writable, its schema is current")]
    if not found.fsync:
        todo = "Set fsync = on: without it, a power cut may take the whole database along."
        findings.append(Diagnosis("FAIL", "store", "the server has fsync=off", todo))
    if found.asynchronous_standbys and not found.synchronous_standbys:
        names = ", ".join(found.asynchronous_standbys)
        todo = "Set synchronous_standby_names, or accept that a failover may forget the last decisions."
        findings.append(Diagnosis("WARN", "store", f"the standby {names} is asynchronous", todo))
    if not found.hears:
        todo = "Connect to the server itself or to a pool in session mode (PgBouncer: pool_mode = session)."
        what = "NOTIFY does not arrive, as behind a pool in transaction mode: replicas hear of each other late"
        findings.append(Diagnosis("WARN", "store", what, todo))
    return findings


def _space(database: Path) -> Iterator[Diagnosis]:
    free = shutil.disk_usage(database.absolute().parent).free
    if free < LITTLE_SPACE:
        what = f"only {free / 1e6:,.0f} MB are free where the database lies"
        yield Diagnosis("WARN", "store", what, "Make room: without it, clicks are refused.")
