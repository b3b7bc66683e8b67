"""What a check of the audit keeps of the runs that it names: not in memory, for there may be millions."""

from __future__ import annotations

import tracemalloc

from approvals_bot.durable.store.chain import RunHead
from approvals_bot.service.anchors import AnchorCheck, sign_anchor
from approvals_bot.service.audit_check import Heads
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.testing import FakeClock


def test_heads_are_found_again_in_any_spelling() -> None:
    heads = Heads()
    heads.take("runs_sealed", None, {"heads": [["run_1", 3, "c"], ["run_\ud800", 1, "a"], "damaged"]})
    heads.take("run_ended", "run_1", {"seq": 5, "head": "e"})
    heads.take("run_ended", None, {"seq": 5, "head": "e"})
    assert (heads.of("run_1"), heads.is_ended("run_1")) == ({3: "c", 5: "e"}, True)
    assert (heads.of("run_2"), heads.is_ended("run_\ud800")) == ({}, False)
    heads.seen("run_1")
    assert list(heads.unseen()) == [("run_\ud800", RunHead("run_\ud800", 1, "a"))]


def test_memory_of_a_check_does_not_grow_with_the_runs() -> None:
    anchor = sign_anchor(AuditKey(bytes(32)), 8_000, "h8000", "h7999", FakeClock().now())
    heads, anchored = Heads(), AnchorCheck([anchor])
    tracemalloc.start()
    try:
        for number in range(1, 10_001):
            heads.take("run_ended", f"run_{number:025}", {"seq": 9, "head": f"{number:064}"})
            heads.seen(f"run_{number:025}")
            anchored.take(number, f"h{number}", "runs_sealed" if number % 2 else "run_ended")
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 1_000_000
    assert list(heads.unseen()) == []
    assert anchored.compare(anchor) is None
