"""How the process of `serve` is set up for a long life."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator

import pytest

from approvals_bot.cli.serving import YOUNG, run, settle_in


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_what_there_is_when_the_service_begins_is_never_looked_at_by_the_collector_again() -> None:
    kept = [object() for _ in range(10)]
    settle_in()
    assert gc.get_freeze_count() > len(kept)
    assert gc.get_threshold()[0] == YOUNG
    assert gc.isenabled()


async def _loop() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_the_service_runs_on_uvloop_where_that_is_installed() -> None:
    pytest.importorskip("uvloop")
    assert run(_loop()).startswith("uvloop")


def test_without_uvloop_it_runs_on_the_loop_of_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(_loop()).startswith("asyncio")
