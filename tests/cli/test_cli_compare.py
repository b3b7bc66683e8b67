"""`compare`: what a changed workflow file would have made of past requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_site import LEAVE, Site, install


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def past(site: Site) -> dict[str, str]:
    """Requests of the past, by what became of them."""
    runs = {"decided": site.start(days=3), "auto": site.start(days=1), "open": site.start(days=4)}
    site.work()
    for by in ("ann@acme.eu", "cy@acme.eu"):
        site.type("vote", runs["decided"], "--by", by, "--choice", "approve", "--answer", "count=2")
    site.work()
    return runs


def test_unchanged_file_would_change_nothing(site: Site, past: dict[str, str]) -> None:
    text = site.type("compare", str(site.folder / "workflows/leave.toml")).stdout
    assert text.startswith("0 of 3 requests of leave since ")
    assert site.json("runs")["runs"][0]["id"] == past["open"]


def test_what_would_differ_is_listed_with_both_courses(site: Site, past: dict[str, str]) -> None:
    one_is_enough = LEAVE.replace("need = 2", "need = 1").replace(
        'from = ["@managers"]', 'from = ["@managers", "@others"]'
    )
    changed = site.write("changed.toml", one_is_enough)
    found = site.json("compare", str(changed), fails=True)
    assert (found["workflow"], found["compared"], found["not_played"], found["more"]) == ("leave", 3, [], 0)
    assert [each["run_id"] for each in found["differ"]] == [past["open"], past["decided"]]
    asks, decided = found["differ"]
    assert (asks["was"]["outcome"], asks["would_be"]["outcome"]) == ("waiting", "waiting")
    assert {*asks["would_be"]["asked"]} - {*asks["was"]["asked"]} == {"di@acme.eu"}
    assert (decided["was"]["by"], decided["would_be"]["by"]) == ("cy@acme.eu", "ann@acme.eu")
    text = site.type("compare", str(changed), "--limit", "1", fails=True).stdout
    assert "waiting (for ann@acme.eu, cy@acme.eu) → waiting (for ann@acme.eu, cy@acme.eu, di@acme.eu)" in text
    assert "    also asks di@acme.eu" in text
    assert text.splitlines()[-2].startswith("2 of 3 requests of leave since ")
    assert text.splitlines()[-1] == "1 more aren't listed."


def test_requests_on_postgresql_are_compared(tmp_path: Path, postgres_url: str) -> None:
    site = install(tmp_path)
    site.write("config.toml", site.config.read_text().replace("sqlite:///approvals.db", postgres_url))
    run = site.start(days=3)
    site.work()
    changed = site.write("changed.toml", LEAVE.replace("days <= 1", "days <= 3"))
    (found,) = site.json("compare", str(changed), fails=True)["differ"]
    assert (found["run_id"], found["was"]["outcome"], found["would_be"]["by"]) == (run, "waiting", "rule:1")


def test_rules_and_refusals_of_the_changed_file_count(site: Site, past: dict[str, str]) -> None:
    changed = site.write("changed.toml", LEAVE.replace("days <= 1", "days <= 3"))
    (found,) = site.json("compare", str(changed), fails=True)["differ"]
    assert (found["run_id"], found["was"]["by"], found["would_be"]["by"]) == (past["decided"], "cy@acme.eu", "rule:1")
    changed.write_text(LEAVE.replace("pinned = true", "pinned = true, max = 3"))
    (found,) = site.json("compare", str(changed), fails=True)["differ"]
    assert (found["run_id"], found["would_be"]["outcome"]) == (past["open"], "refused")
    assert "days" in found["would_be"]["why"]


def test_what_cannot_be_compared_exits_with_2(site: Site, past: dict[str, str]) -> None:
    changed = site.write("changed.toml", LEAVE.replace("need = 2", "nede = 2"))
    assert "changed.toml" in site.type("compare", str(changed), fails=2).stderr
    assert "--since" in site.type("compare", str(changed), "--since", "soon", fails=2).stderr
    other = site.write("other.toml", LEAVE.replace('"leave"', '"other"'))
    assert "There are no requests of other." in site.type("compare", str(other)).stdout
    refund = '[workflow]\nid = "refund"\nrequest = ["*"]\nrun = "code:refund"\n'
    assert "is no approval" in site.type("compare", str(site.write("refund.toml", refund)), fails=2).stderr
