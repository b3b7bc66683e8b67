"""docs/performance.md and its charts agree with benchmarks/results.json, and every figure is explained."""

from __future__ import annotations

import json

import pytest

from benchmarks import report
from benchmarks.__main__ import median_of
from benchmarks.figures import PROMISES, said

RESULTS = json.loads(report.RESULTS.read_text())


@pytest.mark.parametrize("name", sorted(report.texts(RESULTS)))
def test_page_and_charts_match_the_results(name: str) -> None:
    assert (report.ROOT / name).read_text() == report.texts(RESULTS)[name], (
        "update it with: python -m benchmarks.report"
    )


def test_every_figure_is_explained() -> None:
    named = {*report.values_of(RESULTS), *(promise.key for promise in PROMISES)}
    assert [key for key in sorted(named) if said(key) is None] == []


def test_missed_promise_shows_its_factor() -> None:
    some = {"parts": {"cycle": _part({"cycle.sqlite.uvloop.per_second": 500.0, "cycle.sqlite.uvloop.cpu_ms": 0.4})}}
    page = report.texts(some)["docs/performance.md"]
    assert "| ≥ 2,000 | 500 |  | **missed by 4 ×** |" in page
    assert "| ≤ 0.5 ms | 0.4 ms |  | kept |" in page


def test_failed_skipped_and_trial_parts_say_so() -> None:
    some = {
        "parts": {
            "dbos": {"at": "2026-01-01", "scale": 1, "load": 0.1, "seconds": 1, "skipped": "no registry"},
            "restate": {"at": "2026-01-01", "scale": 1, "load": 0.1, "seconds": 1, "failed": "it hung"},
            "cycle": _part({}) | {"scale": 0.01},
        }
    }
    page = report.texts(some)["docs/performance.md"]
    assert "skipped: no registry" in page
    assert "**failed**: it hung" in page
    assert "too small to mean anything: cycle." in page


def test_figures_in_a_page_are_updated() -> None:
    text = "up to <!--= a.b -->7<!--/--> or <!--= a.b * 3600 -->–<!--/-->, <!--= c -->9<!--/-->"
    assert report.filled_in(text, {"a.b": 12.0}) == (
        "up to <!--= a.b -->12<!--/--> or <!--= a.b * 3600 -->43,200<!--/-->, <!--= c -->–<!--/-->"
    )


def test_figures_of_rounds_are_medians_with_their_spread() -> None:
    rounds = [{"figures": {"approval.cpu_ms": value}, "seconds": 2.0} for value in (12.0, 9.0, 10.5)]
    found = median_of(rounds)
    assert found == {"figures": {"approval.cpu_ms": 10.5}, "spread": {"approval.cpu_ms": [9.0, 12.0]}, "seconds": 6.0}
    page = report.texts({"parts": {"approval": _part({}) | found}})["docs/performance.md"]
    assert "| ≤ 10 ms | 10.5 ms | 9–12 | **missed by 1.05 ×** |" in page


def test_failed_round_fails_the_part() -> None:
    rounds = [{"figures": {"approval.cpu_ms": 1.0}, "seconds": 2.0}, {"failed": "it hung", "seconds": 1.0}]
    assert median_of(rounds) == {"failed": "it hung", "seconds": 3.0}


def test_old_code_is_shown_beside_new_code() -> None:
    some = {
        "parts": {"cycle": _part({"cycle.sqlite.uvloop.cpu_ms": 0.4}) | {"old": {"cycle.sqlite.uvloop.cpu_ms": 0.8}}}
    }
    assert "| `cycle.sqlite.uvloop.cpu_ms` | 0.8 | 0.4 | 0.5 |" in report.texts(some)["docs/performance.md"]


def _part(figures: dict[str, float]) -> dict[str, object]:
    return {"at": "2026-01-01", "scale": 1, "load": 0.1, "seconds": 1, "figures": figures}
