"""Attempts to sign in, counted in the store, so limits hold over all replicas and across restarts.

An address and a peer are counted together: guessing from elsewhere locks nobody out. What has succeeded is given back,
so an office behind one address can sign in however many people it has. Codes for one address are also counted over all
peers, so nobody's mailbox is filled from many places; a peer where that person has signed in lately still gets one.
Counters are named by digests, and each is
deleted once its last attempt is an hour old, so there are never more than an hour has brought.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from ipaddress import IPv6Network, ip_address
from typing import Any, Literal

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.protocol import StateRow

PERIOD = timedelta(hours=1)
MOST_OF_PAIR = 10  # within PERIOD, by one address from one peer
MOST_OF_PEER = 100  # within PERIOD, from one peer, for all addresses together
MOST_OF_ADDRESS = 60  # codes within PERIOD, for one address from all peers together: 300 tries, five for each code
REMEMBERED = timedelta(days=90)  # how long a peer is one where a person has signed in

Kind = Literal["code", "guess", "login", "comment"]
"""A code that is sent, digits that are tried, an answer that another service gives about a person, and a comment."""


class Attempts:
    """Attempts, counted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def take(self, kind: Kind, address: str, peer: str) -> bool:
        """Count one more attempt. Returns whether it is allowed; if it isn't, nothing is counted."""
        limits = [MOST_OF_PEER, MOST_OF_PAIR]
        if kind == "code" and not await self._has_welcomed(address, peer):
            limits.append(MOST_OF_ADDRESS)
        counted: list[str] = []
        for name, most in zip(_names(kind, address, peer), limits, strict=False):
            if not await self._add(name, most):
                for each in counted:
                    await self._drop(each)
                return False
            counted.append(name)
        return True

    async def give_back(self, kind: Kind, address: str, peer: str) -> None:
        """Uncount an attempt that has succeeded."""
        for name in _names(kind, address, peer):
            await self._drop(name)

    async def welcome(self, address: str, peer: str) -> None:
        """Remember that this person has signed in from this peer."""
        now = self._engine.now()
        until = now + REMEMBERED
        name = _name("welcome", network_of(peer), address)
        await change_counter(self._engine, name, until, lambda state: {"until": to_micros(until)})

    async def _has_welcomed(self, address: str, peer: str) -> bool:
        row = await self._engine.store.counter(_name("welcome", network_of(peer), address))
        return row is not None and bool(row.state.get("until", 0) > to_micros(self._engine.now()))

    async def take_of_peer(self, kind: Kind, peer: str) -> bool:
        """Count one more attempt from this peer, whatever address it may be about. Returns whether it is allowed."""
        return await self._add(_name(kind, network_of(peer)), MOST_OF_PEER)

    async def give_back_of_peer(self, kind: Kind, peer: str) -> None:
        """Uncount an attempt from this peer that has succeeded."""
        await self._drop(_name(kind, network_of(peer)))

    async def take_of_person(self, kind: Kind, address: str, most: int) -> bool:
        """Count one more of this person, wherever they are. Returns whether that makes at most `most`."""
        return await self._add(_name(kind, "", address), most)

    async def give_back_of_person(self, kind: Kind, address: str) -> None:
        """Uncount what came to nothing."""
        await self._drop(_name(kind, "", address))

    async def _add(self, name: str, most: int) -> bool:
        now = self._engine.now()

        def decide(state: Mapping[str, Any]) -> dict[str, Any] | None:
            recent = _recent(state, now)
            return None if len(recent) >= most else {"at": [*recent, to_micros(now)]}

        return await change_counter(self._engine, name, now + PERIOD, decide)

    async def _drop(self, name: str) -> None:
        now = self._engine.now()

        def decide(state: Mapping[str, Any]) -> dict[str, Any] | None:
            recent = _recent(state, now)
            return {"at": recent[:-1]} if recent else None

        await change_counter(self._engine, name, now + PERIOD, decide)


async def change_counter(
    engine: Engine, name: str, until: datetime, decide: Callable[[Mapping[str, Any]], dict[str, Any] | None]
) -> bool:
    """Write what `decide` makes of the counter's state, {} for a new one. None: nothing is written, and this is False.

    Whenever another process has written first, one of its attempts was decided, so this ends.
    """
    while True:
        row = await engine.store.counter(name)
        following = decide({} if row is None else row.state)
        if following is None:
            return False
        written = StateRow(name, 1 if row is None else row.version + 1, following)
        if await engine.store.set_counter(written, engine.now(), until):
            return True


def _names(kind: Kind, address: str, peer: str) -> list[str]:
    """Name the counters of an attempt: the peer's, the pair's, and of a code the address's."""
    network = network_of(peer)
    names = [_name(kind, network), _name(kind, network, address)]
    return [*names, _name(kind, "", address)] if kind == "code" else names


def _name(*parts: str) -> str:
    return f"attempts {hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"


def _recent(state: Mapping[str, Any], now: datetime) -> list[int]:
    since = to_micros(now - PERIOD)
    return [at for at in state.get("at", ()) if at > since]


def network_of(peer: str) -> str:
    """Return what stands for one caller: their address; of IPv6 the /64, all of which is theirs."""
    try:
        ip = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or IPv6Network((ip, 64), strict=False).network_address)
