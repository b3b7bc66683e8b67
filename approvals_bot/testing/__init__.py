"""Tools for testing your workflows.

- `play(workflow, …, answers=…, steps=…)` runs a workflow to its end in memory, without a store. Days pass instantly.
- `FakeClock` is a clock for a real engine that only moves when you move it: `await clock.advance("4h")`.
- `History` builds a run's log one event at a time, to test what happens in which order.
- `pytest_plugins = ["approvals_bot.testing.fixtures"]` in a `conftest.py` adds the fixtures `clock` and `open_engine`.
"""

from approvals_bot.testing.clock import FakeClock
from approvals_bot.testing.history import History
from approvals_bot.testing.play import Later, Played, after, play

__all__ = ["FakeClock", "History", "Later", "Played", "after", "play"]
