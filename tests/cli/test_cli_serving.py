"""How `serve` sets up its process, and what `dev` serves."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.cli import serving
from approvals_bot.cli.dev import Origin
from approvals_bot.cli.serving import YOUNG, run, tune_garbage_collector


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_objects_made_at_startup_are_never_collected() -> None:
    kept = [object() for _ in range(10)]
    tune_garbage_collector()
    assert gc.get_freeze_count() > len(kept)
    assert gc.get_threshold()[0] == YOUNG
    assert gc.isenabled()


async def _loop() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_service_uses_uvloop_if_installed() -> None:
    pytest.importorskip("uvloop")
    assert run(_loop()).startswith("uvloop")


def test_service_uses_asyncio_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(_loop()).startswith("asyncio")


def test_dev_serves_the_workflows_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples = {each.id for each in Origin(None, "http://127.0.0.1:8000").read().workflows}
    assert "deploy" in samples
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "tool-call.toml").write_text(
        """[workflow]
id      = "tool-call"
title   = "{{ agent }}: {{ tool }}"
may_ask = ["@ops"]

[[stage]]
id   = "go"
from = ["@ops"]

[budget]
open = 1
"""
    )
    (only,) = Origin(None, "http://127.0.0.1:8000").read().workflows
    assert only.budget is not None


async def test_a_signal_acts_outside_of_the_run_it_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)  # those of pytest's process stay
    current, seen = ContextVar("current", default="the service"), list[str]()
    serving._handle_signals(lambda: None, lambda: seen.append(current.get()))
    current.set("a run")
    handlers[signal.SIGHUP](signal.SIGHUP, None)
    await asyncio.sleep(0)
    assert seen == ["the service"]
