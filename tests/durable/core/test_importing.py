"""Importing changes nothing. An open engine changes what `core/sandbox` documents, and restores it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import approvals_bot

IMPORTED = (
    "approvals_bot",
    "approvals_bot.testing",
    "approvals_bot.durable.engine",
    "approvals_bot.durable.core.replay",
)

LOOK = """
import sys
hooks = []
sys.addaudithook(lambda event, args: hooks.append(event) if event == "sys.addaudithook" else None)
import asyncio, builtins, json, os, random, select, signal, socket, ssl, subprocess, threading, time, types, uuid
import contextvars, datetime, logging, selectors, concurrent.futures.thread
from concurrent.futures import ThreadPoolExecutor  # the package imports it when it is first used
import asyncio.base_events, asyncio.events, asyncio.futures, asyncio.tasks, asyncio.timeouts
ROOMS = [
    module for name, module in sorted(sys.modules.items())
    if name.partition(".")[0] in {
        "asyncio", "builtins", "os", "random", "socket", "subprocess", "threading", "time", "uuid", "datetime",
        "logging", "selectors", "concurrent", "contextvars", "signal", "ssl", "select", "_thread", "_asyncio", "posix",
    }
]

def look():
    seen = {}
    for room in ROOMS:
        for name, value in list(vars(room).items()):
            if callable(value):
                seen[room.__name__, name] = (value, getattr(value, "__code__", None))
                if isinstance(value, type) and value.__module__ == room.__name__:
                    for inner, function in list(vars(value).items()):
                        if callable(function):
                            seen[room.__name__, name, inner] = (function, getattr(function, "__code__", None))
    return seen

def changed(before):
    now = look()
    return sorted(
        ".".join(place) for place in before.keys() | now.keys()
        if place not in before or place not in now
        or any(a is not b for a, b in zip(before[place], now[place]))
    )

before = look()
"""


def _run(program: str, *given: Path) -> Any:
    command = [sys.executable, "-c", LOOK + program, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", IMPORTED)
def test_importing_patches_nothing_and_adds_no_audit_hook(module: str) -> None:
    assert _run(f"import {module}; print(json.dumps([changed(before), len(hooks)]))") == [[], 0]


def test_what_an_open_engine_patches_is_restored(tmp_path: Path) -> None:
    program = """
import approvals_bot.durable.engine
from asyncio import as_completed  # as an author's file has it, long before an engine opens

async def main():
    async with approvals_bot.Engine.open(f"sqlite:///{sys.argv[1]}/one.db") as one:
        during = changed(before)
        async with approvals_bot.Engine.open(f"sqlite:///{sys.argv[1]}/other.db"):
            pass
        still = changed(before)
    return during, still, changed(before), len(hooks)

print(json.dumps(asyncio.run(main())))
"""
    during, still, after, hooks = _run(program, tmp_path)
    patched = {f"{module}.{name}" for module in ("asyncio", "asyncio.tasks") for name in ("gather", "as_completed")}
    if sys.version_info < (3, 13):
        patched |= {"time.sleep", "threading.Thread.start"}
    assert patched <= set(during)
    assert still == during  # the first engine is still open
    assert (after, hooks) == ([], 1)  # Python can't take an audit hook away; ours does nothing from now on


def test_the_root_imports_nothing_before_it_is_used() -> None:
    loaded = _run("import approvals_bot; print(json.dumps([name for name in sys.modules if 'approvals_bot.' in name]))")
    assert loaded == []


def test_every_public_name_is_importable_listed_and_star_imported() -> None:
    everything: dict[str, Any] = {}
    exec("from approvals_bot import *", everything)  # noqa: S102
    for name in approvals_bot.__all__:
        assert everything[name] is getattr(approvals_bot, name)
        assert name in dir(approvals_bot)
    assert sorted(approvals_bot.__all__) == list(approvals_bot.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = approvals_bot.no_such_name


def test_every_error_is_importable_from_the_root() -> None:
    from approvals_bot import errors

    kept_inside = {"StoreCopyError"}  # only commands raise it
    assert {name for name in vars(errors) if name.endswith("Error")} - kept_inside <= set(approvals_bot.__all__)
