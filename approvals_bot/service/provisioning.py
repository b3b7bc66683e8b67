"""What an identity provider keeps here by SCIM: in the store, and as this process has read it last.

A change is written first, then read back in its turn, so every replica takes over the same changes in the same order.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from unicodedata import normalize

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.documents import AT_ONCE, DocumentRow, Refused
from approvals_bot.errors import StoreMissingError, StoreUnavailableError
from approvals_bot.people import IdentityRules, People
from approvals_bot.people.provisioned import ProvisionedPeople
from approvals_bot.people.roster import NOBODY, Rosters

Kind = Literal["User", "Group"]

LOOK_EVERY = 1.0  # seconds until a replica knows what was pushed to another

log = logging.getLogger("approvals_bot.service")


class Provisioning:
    """The users and groups that are pushed here. Keeps `rosters.pushed` up to date with them."""

    def __init__(self, engine: Engine, rosters: Rosters) -> None:
        self._engine = engine
        self._rosters = rosters
        self._people = ProvisionedPeople(IdentityRules())
        self._next: ProvisionedPeople | None = None  # made by other rules, and filled at the next reading
        self._index = _Index()
        self._read_to = 0
        self._last_id = 0
        self._reading = asyncio.Lock()

    @property
    def people(self) -> ProvisionedPeople:
        return self._people

    def use(self, rules: IdentityRules) -> None:
        """Apply these rules of which addresses are one person, from the next reading on."""
        if rules != (self._next or self._people).rules:
            self._next = ProvisionedPeople(rules)

    async def read(self) -> None:
        """Read what has changed. Raises StoreUnavailableError."""
        async with self._reading:
            people, index, read_to = self._people, self._index, self._read_to
            if self._next is not None:
                people, index, read_to = self._next, _Index(), 0
            while True:
                rows = await self._engine.store.documents(read_to)
                for row in rows:
                    index.put(row)
                    people.put(row.kind, row.id, row.document)
                    read_to = row.change
                if len(rows) < AT_ONCE:
                    break
            if people is self._next:
                self._next = None
            self._people, self._index, self._read_to = people, index, read_to
            # Without anybody in them, nobody is looked up in them.
            self._rosters.pushed = people.roster if any(people.counts()) else NOBODY

    async def keep_reading(self) -> None:
        """Read what other replicas have taken in, and everything again after new rules, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if not self._engine.store.is_shared and self._next is None:
                continue
            try:
                await self.read()
            except StoreUnavailableError:
                continue  # what is known still holds; the store's own trouble is logged elsewhere

    async def find(self, kind: Kind, id: str) -> DocumentRow | None:
        return await self._engine.store.document(kind, id)

    def ids(self, kind: Kind, value: str | None = None) -> list[str]:
        """Return the IDs of all resources of this kind, the oldest first, or of those that may have this value.

        Indexed are names, addresses and the provider's own IDs. More may be found than have the value.
        """
        return self._index.ids(kind, value)

    def new_id(self) -> str:
        """Return an ID greater than all before it, so that lists keep their order."""
        self._last_id = max(self._last_id + 1, to_micros(self._engine.now()))
        return f"{self._last_id:014x}-{secrets.token_hex(8)}"

    async def put(self, row: DocumentRow, actor: Mapping[str, Any]) -> Refused | None:
        """Write a resource with its line of the audit, and end the sessions of a person who may do nothing any more."""
        before = after = None
        if row.kind == "User":
            before = self._people.user(row.id)
            after = None if row.document is None else self._people.read_user(row.id, row.document)
        person = next((user.person.address for user in (after, before) if user and user.person), None)
        what = "deleted" if row.document is None else "changed" if row.change else "created"
        data: dict[str, Any] = {"resource": row.kind, "id": row.id}
        if after is not None:
            data["active"] = after.is_active
        if row.kind == "Group" and row.document is not None:
            data |= {"name": row.document.get("displayName"), "members": len(row.document.get("members") or ())}
        line = self._engine.audit_line(f"scim_{what}", who=person, actor=actor, data=data)
        written = await self._engine.store.put_document(row, line)
        if not isinstance(written, int):
            return written
        await self.read()
        for address in dict.fromkeys(each for user in (before, after) if user for each in user.addresses):
            if self._rosters.is_barred(address):
                await self._engine.store.end_sessions(person=address)
        return None


async def read_pushed(url: str, people: People) -> None:
    """Read what the identity provider keeps here, for a command: nothing is created, migrated or written.

    Raises StoreUnavailableError if the database can't be read. There is nobody if there is no database yet.
    """
    try:
        store = await connect(url, to_read=True)
    except StoreMissingError:
        return
    pushed, read_to = ProvisionedPeople(people.rules), 0
    try:
        while rows := await store.documents(read_to):
            read_to = rows[-1].change
            for row in rows:
                pushed.put(row.kind, row.id, row.document)
    finally:
        await store.close()
    people.rosters.pushed = pushed.roster


class _Index:
    """The IDs of resources, and by which values those are looked for."""

    def __init__(self) -> None:
        self._ids: dict[str, list[str]] = {"User": [], "Group": []}
        self._values: dict[tuple[str, str], tuple[str, ...]] = {}
        self._of: dict[tuple[str, str], tuple[str, ...]] = {}  # the values of each resource

    def put(self, row: DocumentRow) -> None:
        key, ids = (row.kind, row.id), self._ids[row.kind]
        at = bisect.bisect_left(ids, row.id)
        is_there = at < len(ids) and ids[at] == row.id
        for value in self._of.pop(key, ()):
            left = tuple(id for id in self._values[row.kind, value] if id != row.id)
            if left:
                self._values[row.kind, value] = left
            else:
                del self._values[row.kind, value]
        if row.document is None:
            if is_there:
                del ids[at]
            return
        if not is_there:
            ids.insert(at, row.id)
        self._of[key] = tuple(dict.fromkeys(map(folded, _values_of(row))))
        for value in self._of[key]:
            self._values[row.kind, value] = (*self._values.get((row.kind, value), ()), row.id)

    def ids(self, kind: str, value: str | None) -> list[str]:
        return list(self._ids[kind]) if value is None else sorted(self._values.get((kind, folded(value)), ()))


def folded(text: str) -> str:
    """Return the text as names of users are compared."""
    return normalize("NFC", normalize("NFC", text).lower())


def _values_of(row: DocumentRow) -> Iterator[str]:
    yield row.id
    document = row.document or {}
    for key in ("userName", "displayName", "externalId"):
        if isinstance(value := document.get(key), str):
            yield value
    for email in document.get("emails") or ():
        if isinstance(value := email.get("value"), str):
            yield value
