"""API keys: which program calls, what it may do, and which runs it reaches.

A key reaches what it has opened itself, with `start` and `read`; other rights reach every run. `workflows` limits all
of them. What a key doesn't reach doesn't exist for it.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal

from approvals_bot.approvals.acts import Actor
from approvals_bot.config.api_keys import ApiKeyEntry, Right
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.protocol import StateRow, Store
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.read import iso

OPENER = "opener"
"""The attribute of a run that names the app which has opened it, `app:ci`."""

LAST_USES = "api_key"
"""How the counters begin that have the last use of a key."""

REMEMBERED_EVERY = timedelta(minutes=1)  # how often a key's last use is written
REMEMBERED_FOR = timedelta(days=800)

Reach = Literal["all", "own", "seen", "none"]
"""Whether a key may do something to a run: to any, to its own, only look at it, or not even know of it."""


# No twin of ApiKeyEntry: that is what the file says, with references and defaults; this is what it means.
@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller of the API.

    `secrets`: its values. `may`: its rights. `workflows`: those that it is limited to. `requesters`: the addresses of
    the people it may name as a requester, `*` for everybody who is known. `expires`: the first day without it.
    """

    name: str
    secrets: tuple[str, ...] = field(repr=False)
    may: frozenset[Right] = frozenset({"start", "read"})
    workflows: frozenset[str] | None = None
    requesters: tuple[str, ...] = ()
    expires: date | None = None

    @property
    def address(self) -> str:
        """The app's name in a request: `app:ci`."""
        return f"app:{self.name}"

    @property
    def reads_all(self) -> bool:
        return "read-all" in self.may

    def knows_workflow(self, workflow: str) -> bool:
        """Return whether the key may have to do with this workflow at all."""
        return self.workflows is None or workflow in self.workflows

    def actor(self, peer: str = "") -> Actor:
        """Return the app as the actor of what it does, called from this network address."""
        return Actor("app", self.address, self.name, peer=peer)


def api_keys(entries: Mapping[str, ApiKeyEntry], also: Mapping[str, str] | None = None) -> tuple[ApiKey, ...]:
    """Return the keys of a configuration. `also`: one more value of some of them, by name."""
    keys = []
    for name, entry in entries.items():
        secrets = [value.get_secret_value() for value in entry.key]
        if also is not None and name in also:
            secrets.append(also[name])
        workflows = None if entry.workflows is None else frozenset(entry.workflows)
        keys.append(ApiKey(name, tuple(secrets), entry.rights, workflows, entry.may_name, entry.expires))
    return tuple(keys)


def find_key(keys: Sequence[ApiKey], offered: str) -> ApiKey | None:
    """Return the key with this value. Compares all of them, in constant time: the time says nothing about any."""
    given, found = offered.encode("utf-8", "surrogateescape"), None
    for key in keys:
        for secret in key.secrets:
            if hmac.compare_digest(given, secret.encode()):
                found = key
    return found


async def has_opened(engine: Engine, key: ApiKey, record: RunRecord) -> bool:
    """Return whether the key has opened this run, or the run that it is a child of."""
    while record.attributes.get(OPENER) != key.address:
        parent = await engine.record(record.parent.run_id) if record.parent is not None else None
        if parent is None:
            return False
        record = parent
    return True


async def reach_of(engine: Engine, key: ApiKey, record: RunRecord, own: Right | None, others: Sequence[Right]) -> Reach:
    """Return how far the key reaches this run.

    `own`: the right that what it has opened itself needs; `others`: the rights of which any reaches all runs.
    """
    if not key.knows_workflow(record.workflow):
        return "none"
    if not key.may.isdisjoint(others):
        return "all"
    is_own = await has_opened(engine, key, record)
    if is_own and own in key.may:
        return "own"
    return "seen" if key.reads_all or (is_own and "read" in key.may) else "none"


async def may_resume(engine: Engine, key: ApiKey, record: RunRecord) -> bool:
    """Return whether the key may resume hooks of this run."""
    return await reach_of(engine, key, record, "start", ("operate",)) in ("all", "own")


class LastUses:
    """When each key was used last, as the store remembers it: once a minute at most."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._written: dict[str, datetime] = {}

    def note(self, key: ApiKey) -> None:
        """Note that the key is used now. Nobody waits for it, and a store that is away loses a note."""
        now, before = self._engine.now(), self._written.get(key.name)
        if before is not None and now - before < REMEMBERED_EVERY:
            return
        self._written[key.name] = now
        task = asyncio.get_running_loop().create_task(self._write(key.name, now), name="note a key's last use")
        self._engine.scheduler.keep_task(task)

    async def _write(self, name: str, at: datetime) -> None:
        with suppress(StoreUnavailableError):
            row = await self._engine.store.counter(counter_of(name))
            written = StateRow(counter_of(name), 1 if row is None else row.version + 1, {"at": iso(at)})
            await self._engine.store.set_counter(written, at, at + REMEMBERED_FOR)  # another process may be faster


async def last_use(store: Store, name: str) -> datetime | None:
    """Return when the key with this name was used last, give or take a minute; None if that isn't known."""
    row = await store.counter(counter_of(name))
    text = row.state.get("at") if row is not None else None
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def counter_of(name: str) -> str:
    """Return the name of the counter that has a key's last use."""
    return f"{LAST_USES} {name}"
