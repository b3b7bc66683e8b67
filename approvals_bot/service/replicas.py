"""This process among those that serve the installation, and the choice of the key that it signs with.

A rotation must break no link while the replicas are restarted, or reload, one after the other. So a replica says which
keys it accepts before it is ready, and signs with the first of its own that every known replica accepts. One that lacks
a key that another replica signs with isn't ready: it would answer 404 to people whose links are good.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from approvals_bot.durable.store.protocol import OpenStore
from approvals_bot.durable.store.replicas import ReplicaRow
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.troubles import Troubles

EVERY = 5.0  # seconds between two writes of a replica's row
SILENT = 30.0  # seconds without one, after which a replica is gone
SKEW = timedelta(minutes=5)  # by which the clocks of two machines may differ

KEY, GONE = "key_not_everywhere", "replica_gone"

logger = logging.getLogger("approvals_bot.service")


def choose_key(own: Sequence[str], others: Iterable[ReplicaRow], now: str | None) -> str:
    """Return the first of a replica's keys that all others accept; of none, the first.

    `now` is the one that it signs with. It never goes back from that to a later one, because there are links of it: a
    replica that joins without it isn't ready.
    """
    known = [frozenset(other.key_ids) for other in others]
    accepted = [id for id in own if all(id in ids for ids in known)]
    best = accepted[0] if accepted else own[0]
    return now if now is not None and now in own and own.index(now) < own.index(best) else best


def missing_keys(own: Sequence[str], others: Iterable[ReplicaRow]) -> list[str]:
    """Return the keys that other replicas sign with and this one doesn't accept."""
    return sorted({other.signs_with for other in others}.difference(own))


@dataclass(slots=True)
class LastWrite:
    """When a replica was last seen to write its row, by this process's own clock: those of machines differ."""

    seen_at: datetime
    since: float


class Replicas:
    """This process's row, and what those of the others mean for it."""

    def __init__(
        self,
        store: OpenStore,
        tokens: Tokens,
        *,
        version: str,
        now: Callable[[], datetime],
        config_digest: str = "",
        id: str = "",
        troubles: Troubles | None = None,
    ) -> None:
        self.id = id or secrets.token_hex(8)
        self.config_digest = config_digest
        self.others: list[ReplicaRow] = []
        self.missing: list[str] = []  # keys that others sign with and this process lacks
        self._store = store
        self._tokens = tokens
        self._version = version
        self._now = now
        self._troubles = troubles or Troubles(now)
        self._since = now()
        self._heard: dict[str, LastWrite] = {}
        self._signs_with: str | None = None  # None: it has signed nothing yet
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """How many replicas there are, this one among them."""
        return len(self.others) + 1

    @property
    def is_first(self) -> bool:
        """Whether no other replica has a lower ID."""
        return all(self.id < other.id for other in self.others)

    async def announce(self) -> None:
        """Say which keys this process accepts, and choose the one to sign with. Raises StoreUnavailableError."""
        while True:
            said = self._row()
            time = asyncio.get_running_loop().time()
            self.others = self._living(await self._store.announce(said), time)
            self._look(said.key_ids)
            if self._row()[5:7] == said[5:7]:  # else the others are to know at once
                return

    async def keep_announcing(self) -> None:
        """Announce this process every few seconds and when its keys have changed, until cancelled.

        SQLite has one process for a file: there, only changes are written, and an idle service leaves its disk alone.
        """
        while True:
            try:
                async with asyncio.timeout(EVERY if self._store.is_shared else None):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                await self.announce()
            except StoreUnavailableError:  # the store's own line says so
                if not self._store.is_shared:
                    await asyncio.sleep(EVERY)
                    self._changed.set()

    async def leave(self) -> None:
        """Delete this process's row, so that the others needn't wait until it counts as gone."""
        try:
            await self._store.leave(self.id)
        except StoreUnavailableError as error:
            logger.warning("this replica could not say that it ends: %s", error)

    def use(self, keys: Sequence[str], config_digest: str) -> None:
        """Accept these keys from now on. Which of them signs is chosen once the others are known to accept it.

        They are read again for that: one that has just started may not be among `others` yet.
        """
        self.config_digest = config_digest
        self._tokens.use(keys)
        self._look_for_missing(self._tokens.key_ids)
        self._changed.set()

    def _look(self, key_ids: Sequence[str]) -> None:
        self._signs_with = choose_key(key_ids, self.others, self._signs_with)
        self._tokens.sign_with(self._signs_with)
        self._look_for_missing(key_ids)

    def _look_for_missing(self, key_ids: Sequence[str]) -> None:
        before, self.missing = self.missing, missing_keys(key_ids, self.others)
        if self.missing and self.missing != before:
            text = f"this replica isn't ready, because others sign with a key that it lacks ({', '.join(self.missing)})"
            mend = "Add that key to [server] signing_keys here, or wait until nobody signs with it"
            self._troubles.begin(f"{KEY} {self.id}", KEY, text, mend, target=self.id)
        elif before and not self.missing:
            text = "this replica has every key that others sign with, and is ready"
            self._troubles.end(f"{KEY} {self.id}", KEY, text)

    def _row(self) -> ReplicaRow:
        schema = self._store.schema
        ids, digest = self._tokens.key_ids, self.config_digest
        signs_with = self._tokens.signs_with
        return ReplicaRow(self.id, self._version, self._since, self._now(), schema, ids, signs_with, digest)

    def _living(self, rows: Iterable[ReplicaRow], time: float) -> list[ReplicaRow]:
        """Leave out replicas that are silent, and forget them."""
        heard: dict[str, LastWrite] = {}
        found = []
        for row in rows:
            known = self._heard.get(row.id)
            if known is None:
                is_old = row.seen_at < self._now() - SKEW  # it died before this process began
                known = LastWrite(row.seen_at, -math.inf if is_old else time)
            elif known.seen_at != row.seen_at:
                known = LastWrite(row.seen_at, time)
            heard[row.id] = known
            if time - known.since < SILENT:
                found.append(row)
            elif any(other.id == row.id for other in self.others):
                text = f"the replica {row.id} has been silent for {SILENT:.0f} seconds, without having stopped"
                mend = "See on its machine why it ended or hangs, and start it again; the others do its work"
                self._troubles.begin(f"{GONE} {row.id}", GONE, text, mend, target=row.id)
        living = {row.id for row in found}
        for trouble in self._troubles:
            if trouble.event == GONE and (trouble.target in living or trouble.target not in heard):
                self._troubles.end(trouble.key, GONE, f"the replica {trouble.target} is back, or forgotten")
        self._heard = heard
        return found


def digest_of(parts: Mapping[str, str]) -> str:
    """Return what shows whether two replicas have the same configuration, secrets aside."""
    whole = "\0".join(f"{name}\0{text}" for name, text in sorted(parts.items()))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def shown_installation(id: str) -> str:
    """Return what distinguishes installations, without the ID that tokens are bound to."""
    return hashlib.sha256(f"approvals-bot installation {id}".encode()).hexdigest()[:16]
