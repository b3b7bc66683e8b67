"""A call is interrupted while it runs, and later calls on its thread are not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from approvals_bot import workflow
from approvals_bot.durable.core.loop import ReplayInterrupted
from approvals_bot.durable.engine.replayer import Interruptible, Watchdog
from approvals_bot.testing.fixtures import OpenEngine


def spin(seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return "done"


def test_a_call_that_takes_too_long_is_interrupted() -> None:
    watchdog = Watchdog(0.05)
    began = time.monotonic()
    with pytest.raises(ReplayInterrupted):
        watchdog.run(lambda: spin(30))
    assert time.monotonic() - began < 25
    assert watchdog.run(lambda: spin(0.001)) == "done"
    watchdog.close()


@pytest.fixture
def often_switched() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_switched")
def test_a_late_interruption_never_reaches_the_next_call() -> None:
    interrupted = 0
    for n in range(300):
        watched = Interruptible()
        delay = (n % 30) / 20_000  # around the end of the call, which takes 0.75 ms

        def bother(watched: Interruptible = watched, delay: float = delay) -> None:
            spin(0.0003 + delay)
            watched.interrupt()

        other = threading.Thread(target=bother)
        other.start()
        try:
            watched.run(lambda: spin(0.00075))
        except ReplayInterrupted:
            interrupted += 1
        spin(0.0002)  # the next call: no interruption may arrive here
        other.join()
        spin(0.0002)
    assert interrupted > 0


def test_the_watchdog_sleeps_without_calls_and_wakes_for_the_next() -> None:
    watchdog = Watchdog(0.05)
    assert watchdog.run(lambda: "once") == "once"
    until = time.monotonic() + 10
    while not watchdog._is_asleep and time.monotonic() < until:
        threading.Event().wait(0.02)
    assert watchdog._is_asleep
    with pytest.raises(ReplayInterrupted):
        watchdog.run(lambda: spin(30))
    watchdog.close()


@pytest.mark.drifts
async def test_ctrl_c_during_a_replay_does_not_end_the_run(open_engine: OpenEngine) -> None:
    main = threading.get_ident()
    pressed = []

    @workflow
    async def presses() -> str:
        if threading.get_ident() == main:
            pressed.append(1)
            raise KeyboardInterrupt  # as the signal's handler would
        return "went on"

    async with open_engine() as engine:
        assert await (await engine.start(presses)).return_value() == "went on"
    assert pressed


def test_the_watchdog_wakes_for_a_call_just_before_it_sleeps() -> None:
    watchdog = Watchdog(0.05)
    for pause in (0.0, 0.98, 1.0, 1.02, 1.04):
        time.sleep(pause)
        with pytest.raises(ReplayInterrupted):
            watchdog.run(lambda: spin(60))
    watchdog.close()
