"""Always-replay mode: whatever an engine replays in a test is replayed once more from each new beginning of its log,
and a replay that has only been continued must have come to the same as a new one.

Of beginnings of the same shape (workflow, length, kinds and numbers of the last events) one is replayed in each test,
and of logs that grow by more than 64 events between two replays, 64 of the new beginnings. It is on for the rooms named
below, and for all with `ALWAYS_REPLAY=1` (off with `ALWAYS_REPLAY=0`). A test that means to drift says so:
`@pytest.mark.drifts`; so does one whose log is so long that each beginning takes too long: `@pytest.mark.long_log`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.events import Event, Log
from approvals_bot.durable.core.replay import ReplayResult, replay
from approvals_bot.durable.engine.replayer import Replayed
from tests.support.prefixes import divergences, same_outcome

ROOMS = ("agents", "approvals", "engine", "reliability")

ENOUGH = 1  # beginnings of one shape
RUNS = 16  # logs that are remembered, the latest; a heap full of them would slow the test down
MANY = 64  # new beginnings of one log

Shape = tuple[str, int, tuple[tuple[str, Any], ...]]

_outcome, _at_once = Replayed.outcome, Replayed.at_once


class AlwaysReplay:
    """What was replayed in this test, and what differed."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.beginnings = 0  # that were replayed
        self._seen: dict[str, list[Event]] = {}
        self._shapes: Counter[Shape] = Counter()

    def look(self, workflow: Workflow[Any, Any], log: Log, outcome: ReplayResult, entropy: bytes, link: Any) -> None:
        run_id = log[0].data["run_id"]
        seen = self._seen.pop(run_id, [])
        known = next((n for n, (a, b) in enumerate(zip(seen, log, strict=False)) if a != b), min(len(seen), len(log)))
        self._seen[run_id] = log[:]
        if len(self._seen) > RUNS:
            del self._seen[next(iter(self._seen))]
        # What the last known beginning asked for may be in the log only now.
        new = [length for length in range(max(known, 1), len(log) + 1) if self._is_new(workflow, log, length)]
        if new:
            self.beginnings += len(new)
            self.found += divergences(workflow, log, link, new[:: -(-len(new) // MANY)])
            if not same_outcome(outcome, replay(workflow, log, entropy=entropy, link=link)):
                self.found.append(f"{workflow.name}: the same {len(log)} events come to something else the second time")

    def _is_new(self, workflow: Workflow[Any, Any], log: Log, length: int) -> bool:
        """Whether few runs had these last events at this place: a test may start the same run a hundred times."""
        last = tuple((event.type, event.data.get("id")) for event in log[max(0, length - 4) : length + 1])
        shape = (workflow.name, length, last)
        self._shapes[shape] += 1
        return self._shapes[shape] <= ENOUGH


def _is_on(node: Any) -> bool:
    wanted = os.environ.get("ALWAYS_REPLAY", "")
    if wanted in ("0", "1"):
        return wanted == "1"
    return bool(set(ROOMS) & set(Path(str(node.path)).parts))


@pytest.fixture(autouse=True)
def always_replay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlwaysReplay | None]:
    if not _is_on(request.node) or any(map(request.node.get_closest_marker, ("drifts", "long_log"))):
        yield None
        return
    watched = AlwaysReplay()

    async def outcome_and_look(self: Replayed, log: Log) -> ReplayResult:
        outcome = await _outcome(self, log)  # which tries at_once, on the event loop, before it goes to a thread
        watched.look(self.workflow, log, outcome, self._entropy, self._replayer.link)
        return outcome

    def at_once_and_look(self: Replayed, log: Log) -> ReplayResult | None:
        outcome = _at_once(self, log)
        if outcome is not None:
            watched.look(self.workflow, log, outcome, self._entropy, self._replayer.link)
        return outcome

    monkeypatch.setattr(Replayed, "outcome", outcome_and_look)
    monkeypatch.setattr(Replayed, "at_once", at_once_and_look)
    yield watched
    assert watched.found == [], "replays differ:\n" + "\n".join(watched.found[:5])
