"""Random bytes for ids and tokens: from the system, and never twice."""

from __future__ import annotations

import os

import pytest

from approvals_bot.durable.engine.replayer import EntropyPool


def test_no_draw_is_repeated_within_or_across_pools() -> None:
    pools = EntropyPool(), EntropyPool()
    drawn = [pool.draw() for _ in range(3 * EntropyPool.SUPPLY) for pool in pools]
    assert len(set(drawn)) == len(drawn)
    assert {len(each) for each in drawn} == {EntropyPool.SIZE}


def test_the_bytes_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[bytes] = []
    system = os.urandom

    def urandom(size: int) -> bytes:
        fetched.append(system(size))
        return fetched[-1]

    monkeypatch.setattr(os, "urandom", urandom)
    pool = EntropyPool()
    drawn = {pool.draw() for _ in range(EntropyPool.SUPPLY + 1)}
    size, whole = EntropyPool.SIZE, b"".join(fetched)
    assert len(fetched) == 2
    assert drawn <= {whole[at : at + size] for at in range(0, len(whole), size)}
