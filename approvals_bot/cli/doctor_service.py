"""What `doctor` says about the service as it runs: its address, keys, waits, growth, anchors, and limits."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from approvals_bot.approvals.port import Diagnosis
from approvals_bot.approvals.published import IN_TROUBLE, trouble_word
from approvals_bot.cli.wire import MOST_CONNECTIONS, file_limit
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.core.attributes import projected
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.durable.store.protocol import Filter, OpenStore
from approvals_bot.durable.store.replicas import ReplicaRow
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.outgoing import address_of, fetch_text
from approvals_bot.people import SourceUnavailable
from approvals_bot.service.audit_keeper import ANCHORED
from approvals_bot.service.replicas import SILENT, shown_installation

MOST_COUNTED = 1_000_000
WEEK = timedelta(days=7)
LONG = timedelta(hours=1)  # that a delivery may wait
LATE = timedelta(days=1)  # that old lines of the audit may wait
LITTLE_ROOM = 30  # days
MANY_RUNS, LARGE = 1_000_000, 10e9  # runs, and bytes of a store
PLACE_MEND = "Let the service's user write there; run doctor as that user."
FEW_FILES = MOST_CONNECTIONS + 512  # our own connections, and the files beside them


async def check_service(service: ServiceSettings, now: datetime) -> list[Diagnosis]:
    """Examine the service by its store, and at its own address. Writes nothing."""
    found = [_check_open_files(), *await _check_issuer(service)]
    url = service.server.database.get_secret_value()
    with suppress(StoreUnavailableError, ValueError, ModuleNotFoundError):  # the store's own check has reported it
        store = await connect(url, to_read=True)
        try:
            living = [row for row in await store.replicas() if now - row.seen_at < _silent(store)]
            found += [*_check_keys(living), *await _check_address(service, store.installation, bool(living))]
            found += [each async for each in _check_waits(store, now)]
            found += [*await _check_growth(store, url, now), *await _check_retention(service, store, now)]
            found += await _check_anchors(service, store, now)
        finally:
            await store.close()
    return found


def _silent(store: OpenStore) -> timedelta:
    """Return for how long a living process may be silent. An only process writes its row when something changes."""
    return timedelta(seconds=SILENT) if store.is_shared else timedelta(days=36_500)


def _check_keys(living: Sequence[ReplicaRow]) -> Iterator[Diagnosis]:
    for row in living:
        missing = sorted({other.signs_with for other in living}.difference(row.key_ids))
        if missing:
            what = f"the replica {row.id} lacks {', '.join(missing)}, which others sign with; it isn't ready"
            yield Diagnosis("WARN", "keys of replicas", what, "Add that key to its [server] signing_keys.")


async def _check_address(service: ServiceSettings, installation: str, is_running: bool) -> list[Diagnosis]:
    """Ask `base_url` whether it leads to this installation, and whether the proxy says how people came."""
    base, about = str(service.server.base_url).rstrip("/"), "address"
    if not is_running:
        return [Diagnosis("OK", about, "no process serves this installation now, so base_url was not asked")]
    try:
        allowed = [*service.server.allow_private, address_of(base)]
        said = json.loads(await fetch_text(f"{base}/healthz", allowed=allowed, proxy=service.server.outgoing_proxy))
        other, scheme = str(said["installation"]), str(said.get("scheme", ""))
    except SourceUnavailable as error:
        todo = "Check DNS, the proxy, its certificate and the firewall, or run doctor from where people are."
        return [Diagnosis("WARN", about, f"{base} can't be reached from here: {error.reason}", todo)]
    except (ValueError, KeyError, TypeError):
        return [Diagnosis("FAIL", about, f"{base} is another service", "Correct [server] base_url, or the proxy.")]
    if other != shown_installation(installation):
        todo = "Correct [server] base_url or database, or the proxy: links would lead to the other one."
        return [Diagnosis("FAIL", about, f"{base} is another installation", todo)]
    if base.startswith("https:") and scheme == "http":
        todo = "Have it send X-Forwarded-Proto and X-Forwarded-For, and name its network in [server] trusted_proxies."
        return [Diagnosis("WARN", about, "the proxy doesn't say how people came, or isn't trusted", todo)]
    return [Diagnosis("OK", about, f"{base} leads to this installation")]


async def _check_waits(store: OpenStore, now: datetime) -> AsyncIterator[Diagnosis]:
    count = await store.count(Filter(status="stalled"), MOST_COUNTED)
    if count:
        todo = "`approvals-bot runs --status stalled` lists them, `explain RUN` says why each waits."
        yield Diagnosis(
            "WARN", "stalled runs", f"{count:,} {'run waits' if count == 1 else 'runs wait'} for a fix", todo
        )
    else:
        yield Diagnosis("OK", "stalled runs", "none")
    which = Filter(attributes={projected(IN_TROUBLE): trouble_word()}, is_open=True, oldest_first=True, limit=1)
    first, _ = await store.runs(which)
    if first and now - first[0].created_at > LONG:
        waiting = await store.count(which, MOST_COUNTED)
        what = (
            f"cards of {waiting:,} open requests have not arrived, of the oldest since {first[0].created_at:%d %b %Y}"
        )
        yield Diagnosis("WARN", "deliveries", what, "The page /deliveries says why, and lets you try again.")
    else:
        yield Diagnosis("OK", "deliveries", "none waits for long")


async def _check_growth(store: OpenStore, url: str, now: datetime) -> list[Diagnosis]:
    """Say for how many days the database's disk has room, if it grows as in the last week."""
    recent = await store.count(Filter(opened_after=now - WEEK), MOST_COUNTED)
    runs = await store.count(Filter(), MOST_COUNTED)
    size = (await store.load()).size
    if store.is_shared or not recent or not runs:
        return []
    daily = recent / WEEK.days * size / runs
    days = int(_free(Path(url.removeprefix("sqlite:///"))) / daily)
    what = f"room for {days:,} days more, at {recent:,} runs a week and {size / runs / 1_000:,.0f} kB a run"
    if days < LITTLE_ROOM:
        return [Diagnosis("WARN", "disk", what, "Free some space, or move the database to a larger disk.")]
    return [Diagnosis("OK", "disk", what)]


async def _check_retention(service: ServiceSettings, store: OpenStore, now: datetime) -> list[Diagnosis]:
    """Warn of a large store from which nothing is ever deleted, and say what a cut of the audit waits for."""
    archive = service.retention.archive
    if archive is not None and (barred := barrier(archive / "runs")) is not None:
        what = f"{barred} can't be written to by this user, so nothing is archived or deleted"
        return [Diagnosis("FAIL", "retention", what, PLACE_MEND)]
    if service.retention.audit is not None:
        first = await store.audit_lines(AuditFilter(limit=1))
        oldest, _ = await store.runs(Filter(oldest_first=True, limit=1))
        due = now - service.retention.audit - LATE
        if first and first[0].at < due and oldest and oldest[0].created_at < due:
            what = f"the audit goes back to {first[0].at:%d %b %Y}, since run {oldest[0].id} of that time is still here"
            todo = "Set [retention] ended, end the run, or keep the audit longer."
            return [Diagnosis("WARN", "retention", what, todo)]
    runs, size = await store.count(Filter(), MOST_COUNTED), (await store.load()).size
    if service.retention.ended is not None or (runs < MANY_RUNS and size < LARGE):
        return []
    what = f"{runs:,} runs and {size / 1e9:,.1f} GB, and nothing is ever deleted"
    return [Diagnosis("WARN", "retention", what, "Set [retention] ended, such as 400d, and archive to keep a copy.")]


def barrier(file: Path) -> Path | None:
    """Return what keeps this user from writing to a file: itself, or the folder it would be made in. None: nothing."""
    there = next(path for path in (file, *file.absolute().parents) if path.exists())
    return None if os.access(there, os.W_OK) else there


def _free(path: Path) -> int:
    return shutil.disk_usage(path.absolute().parent).free


async def _check_anchors(service: ServiceSettings, store: OpenStore, now: datetime) -> list[Diagnosis]:
    if service.audit.seed is None:
        return []
    lines = await store.audit_lines(AuditFilter(what=ANCHORED, newest_first=True, limit=1))
    todo = "It is made while the service runs; its log says `anchor_failed` if it can't be."
    if not lines:
        return [Diagnosis("WARN", "anchors", "the audit has none yet", todo)]
    age = now - lines[0].at
    what = f"the last one was made {lines[0].at:%Y-%m-%d %H:%M} UTC"
    for place in service.audit.anchors:
        if place.file is not None and (barred := barrier(Path(place.file))) is not None:
            return [Diagnosis("FAIL", "anchors", f"{barred} can't be written to by this user", PLACE_MEND)]
    if age > 2 * service.audit.anchor_every:
        return [Diagnosis("WARN", "anchors", what, todo)]
    return [Diagnosis("OK", "anchors", what)]


async def _check_issuer(service: ServiceSettings) -> list[Diagnosis]:
    """Read the discovery document of the OpenID provider, which sign-ins need."""
    oidc = service.login.oidc
    if oidc is None:
        return []
    url = f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        allowed = [*service.server.allow_private, address_of(oidc.issuer)]
        found = json.loads(await fetch_text(url, allowed=allowed, proxy=service.server.outgoing_proxy))
        issuer = found["issuer"]
    except SourceUnavailable as error:
        return [
            Diagnosis("FAIL", "sign-in", f"{oidc.issuer} can't be read: {error.reason}", "Check [login.oidc] issuer.")
        ]
    except (ValueError, KeyError, TypeError):
        return [Diagnosis("FAIL", "sign-in", f"{url} is no discovery document", "Check [login.oidc] issuer.")]
    if issuer != oidc.issuer:
        what = f"the provider calls itself {issuer}, so nobody could sign in"
        return [Diagnosis("FAIL", "sign-in", what, "Write [login.oidc] issuer just like that.")]
    return [Diagnosis("OK", "sign-in", f"{oidc.issuer} answers")]


def _check_open_files() -> Diagnosis:
    limit = file_limit()
    if limit < FEW_FILES:
        todo = "Raise it: `ulimit -n`, LimitNOFILE= of systemd, --ulimit nofile= of a container."
        return Diagnosis("WARN", "open files", f"this user may open {limit:,}, so connections will be refused", todo)
    return Diagnosis("OK", "open files", f"up to {limit:,}")
