"""People whom a proxy in front has signed in: `[login.proxy]`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from starlette.requests import Request as HttpRequest

from approvals_bot.approvals.acts import Actor
from approvals_bot.durable.engine import Engine
from approvals_bot.people import AddressError, People
from approvals_bot.web.guard import KEEPS_PEERS, TrustedProxies, peer_of, proxy_of

log = logging.getLogger(__name__)

AUDITED_EVERY = timedelta(minutes=1)


class ProxyHeader:
    """The header in which a proxy names the person. From elsewhere, anybody could write anything into it."""

    def __init__(self, engine: Engine, people: People, *, header: str, trusted: Sequence[str]) -> None:
        self._engine = engine
        self._people = people
        self._header = header.lower().encode()
        self._trusted = TrustedProxies(trusted)
        self._audited: datetime | None = None

    async def person_at(self, request: HttpRequest) -> str | None:
        """Return the address of the person that a trusted proxy names. From all others the header is dropped."""
        values = [value for name, value in request.scope["headers"] if name == self._header]
        if not values:
            return None
        peer = proxy_of(request.scope) or peer_of(request.scope)
        if peer not in self._trusted:
            await self._audit(peer if request.scope.get(KEEPS_PEERS, True) else "")
            return None
        try:
            return self._people.canonical(values[0].decode().strip()) if len(values) == 1 else None
        except (AddressError, UnicodeDecodeError):
            return None

    async def _audit(self, peer: str) -> None:
        now = self._engine.now()
        if self._audited is None or now - self._audited >= AUDITED_EVERY:
            self._audited = now
            said = {"event": "login_refused", "target": "proxy", "outcome": "untrusted_peer"}
            log.warning("a peer that isn't trusted named a signed-in person", extra=said)
            actor = Actor("person", "", peer=peer).as_json()
            data = {"method": "proxy", "because": "untrusted_peer"}
            await self._engine.audit("sign_in_refused", actor=actor, data=data)
