"""`retry` and `reset`, one run or many."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from approvals_bot.cli import app
from tests.support.small_site import Site

BROKEN = """\
from approvals_bot import create_hook, workflow

@workflow
async def tea_price(item: str) -> str:
    raise ValueError(f"no price for {item}")

@workflow
async def tea_order(item: str) -> str:
    answer = await create_hook(f"order-{item}")
    raise AttributeError("the order has no total")
"""
MENDED = BROKEN.replace('raise ValueError(f"no price for {item}")', "return item").replace(
    'raise AttributeError("the order has no total")', "return answer"
)
WHY = ("--reason", "Release 1.4.1 mends it")


@pytest.fixture
def broken(site_on_each_store: Site) -> Site:
    """Two failed runs of `tea_price`, and one stalled run of `tea_order`."""
    site = site_on_each_store
    site.write("workflows/shop.py", BROKEN)
    for workflow, item in (("tea_price", "tea"), ("tea_price", "milk"), ("tea_order", "tea")):
        site.json("start", workflow, "--input", json.dumps({"item": item}))
    site.work()
    site.type("resume", "order-tea", "--payload", '"yes"')
    site.work()
    assert states(site) == {"tea_price": ["failed", "failed"], "tea_order": ["stalled"]}
    return site


def states(site: Site) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run in site.json("runs")["runs"]:
        found.setdefault(run["workflow"], []).append(run["status"])
    return found


def typed(site: Site, *words: str, answer: str = "") -> Any:
    return CliRunner().invoke(app, [*words, "--config", str(site.config)], input=answer)


def audited(site: Site, what: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in typed(site, "audit", "export").stdout.splitlines()]
    return [line for line in lines if line.get("what") == what]


def test_everything_that_a_release_broke_is_repaired(broken: Site) -> None:
    shown = broken.json("retry", "--dry-run", *WHY)
    assert shown["count"] == 3
    assert sorted(run["act"] for run in shown["runs"]) == ["new_run", "new_run", "retry"]
    assert states(broken)["tea_price"] == ["failed", "failed"]
    broken.write("workflows/shop.py", MENDED)
    done = broken.json("retry", "--yes", *WHY)
    assert (done["count"], done["errors"]) == (3, 0)
    broken.work()
    assert states(broken) == {"tea_price": ["completed", "completed", "failed", "failed"], "tea_order": ["completed"]}
    lines = audited(broken, "run_attempted") + audited(broken, "run_retried")
    assert {(line["who"], line["data"]["reason"]) for line in lines} == {("app:cli", "Release 1.4.1 mends it")}
    assert {(line["run_id"], line["data"]["next_run"]) for line in lines} == (
        {(run["run_id"], run["next_run"]) for run in done["runs"]}
    )


def test_filters_choose_the_runs(broken: Site) -> None:
    def found(*filters: str) -> int:
        return int(broken.json("retry", "--dry-run", *WHY, *filters)["count"])

    assert found("--workflow", "tea_price") == 2
    assert found("--status", "stalled") == 1
    assert found("--error", "PRICE FOR TEA") == 1
    assert found("--error", "valueerror") == 2
    assert found("--since", "1h") == 3
    assert found("--since", "2099-01-01") == 0
    assert found("--since", "2020-01-01T10:00Z", "--status", "failed", "--workflow", "tea_order") == 0
    assert found("--status", "cancelled") == 0


def test_it_asks_first_and_only_on_a_terminal(broken: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = typed(broken, "retry", *WHY)
    assert (refused.exit_code, "add --yes" in refused.stderr) == (2, True)
    monkeypatch.setattr("approvals_bot.cli.repairs._has_terminal", lambda: True)
    no = typed(broken, "retry", *WHY, answer="n\n")
    assert no.exit_code == 0
    for words in ("3 runs:", "1 stalled run tries again with", "2 runs start again", "Nothing was changed."):
        assert words in no.stdout
    assert states(broken)["tea_price"] == ["failed", "failed"]
    yes = typed(broken, "retry", "--workflow", "tea_price", *WHY, answer="y\n")
    assert (yes.exit_code, "2 done, 0 refused." in yes.stdout) == (0, True)


def test_one_error_stops_nothing_and_shows_in_the_exit_code(broken: Site) -> None:
    done = broken.type("reset", "--to", "4", "--yes", *WHY, fails=True)
    assert "1 done, 2 refused." in done.stdout
    assert done.stderr.count("has the events 1 to 3") == 2


def test_a_run_goes_on_from_before_the_bug(broken: Site) -> None:
    (run,) = [each["id"] for each in broken.json("runs", "--status", "stalled")["runs"]]
    log = broken.json("show", run)["events"]
    to = next(event["seq"] for event in log if event["type"] == "hook_created")
    broken.write("workflows/shop.py", MENDED)
    new = broken.json("reset", run, "--to", str(to), *WHY)["next_run"]
    broken.work()
    assert broken.json("show", new)["result"] == "yes"
    old = broken.json("show", run)
    assert (old["status"], old["next_run"]) == ("reset", new)
    assert f"It was reset: run {new} goes on in its place." in broken.type("show", run).stdout
    assert f"goes on as {new}" in broken.type("runs").stdout
    (line,) = audited(broken, "run_reset")
    assert (line["run_id"], line["data"]["next_run"], line["data"]["to"]) == (run, new, to)


def test_a_run_that_was_reset_is_not_repaired_again(broken: Site) -> None:
    old = broken.json("runs", "--status", "failed")["runs"][0]["id"]
    new = broken.json("reset", old, "--to", "2", *WHY)["next_run"]
    for words in (("retry",), ("reset", "--to", "1")):
        found = {run["run_id"] for run in broken.json(*words, "--dry-run", *WHY)["runs"]}
        assert old not in found, words
    for option in ((), ("--dry-run",)):
        assert f"run {new} is in its place" in broken.type("retry", old, *option, *WHY, fails=True).stderr
    assert f"{old}  tea_price  failed" in broken.type("runs").stdout
    assert f"goes on as {new}" in broken.type("runs").stdout


def test_a_second_attempt_says_that_there_was_one(broken: Site) -> None:
    old = broken.json("runs", "--status", "failed")["runs"][0]["id"]
    assert f"{old} starts again as" in broken.type("retry", old, *WHY).stdout
    assert f"{old} was started again as" in broken.type("retry", old, *WHY).stdout


def test_what_makes_no_sense_is_a_wrong_option(broken: Site) -> None:
    for words in (
        ("retry",),
        ("retry", "run_x", "--reason", " "),
        ("retry", "run_x", "--workflow", "tea_price", *WHY),
        ("retry", "--status", "broken", "--yes", *WHY),
        ("retry", "--status", "completed", "--dry-run", *WHY),
        ("retry", "--since", "yesterday", "--yes", *WHY),
        ("reset", "run_x", *WHY),
        ("reset", "run_x", "--to", "0", *WHY),
    ):
        assert typed(broken, *words).exit_code == 2, words
    assert "No run has the ID" in broken.type("retry", "run_x", *WHY, fails=True).stderr
    well = broken.start()
    for option in ((), ("--dry-run",)):
        assert "nothing to retry" in broken.type("retry", well, *option, *WHY, fails=True).stderr
