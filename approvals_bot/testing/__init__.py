"""For the tests of those who write workflows.

- `play(workflow, …, answers=…, steps=…)` runs a workflow to its end in memory: no store, no waiting. Days pass at once.
- `FakeClock` is a clock for a real engine that stands still until it is moved: `await clock.advance("4h")`.
- `History` is a run as a table, one event at a time, for tests of the order of things.
- `pytest_plugins = ["approvals_bot.testing.fixtures"]` in a `conftest.py` gives the fixtures `clock` and `open_engine`.
"""

from approvals_bot.testing.clock import FakeClock
from approvals_bot.testing.history import History
from approvals_bot.testing.play import Later, Played, after, play

__all__ = ["FakeClock", "History", "Later", "Played", "after", "play"]
