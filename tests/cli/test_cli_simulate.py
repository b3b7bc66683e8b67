"""`simulate`: who a request would notify, and when, without opening one."""

from __future__ import annotations

from tests.support.small_site import LEAVE, Site


def test_simulation_json_has_who_auto_and_timers(site: Site) -> None:
    found = site.json("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu")
    assert set(found) == {"who", "auto", "timers", "stages"}
    assert [(seat["need"], seat["of"]) for stage in found["stages"] for seat in stage["seats"]] == [(2, 2)]
    assert found["auto"] is None
    assert [set(one) for one in found["who"]] == [{"person", "stage", "why", "via"}] * 2
    assert [one["person"] for one in found["who"]] == ["ann@acme.eu", "cy@acme.eu"]
    assert [set(one) for one in found["timers"]] == [{"at", "what"}] * 2
    assert site.json("runs")["runs"] == []


def test_simulation_text_goes_stage_by_stage(site: Site) -> None:
    text = site.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu").stdout
    in_order = [
        "leave: if a request were opened now",
        "Approvers of stage ok",
        "ann@acme.eu",
        "in 1 hour",
        "in 4 hours",
        "Nothing was",
    ]
    assert sorted(in_order, key=text.index) == in_order


def test_simulation_names_the_rule_that_would_decide(site: Site) -> None:
    found = site.json("simulate", "leave", "--input", '{"days": 1}', "--requester", "bo@acme.eu")
    assert (found["who"], found["auto"]["rule"], found["auto"]["decision"]) == ([], 1, "approve")
    text = site.type("simulate", "leave", "--input", '{"days": 1}', "--requester", "bo@acme.eu").stdout
    assert text.startswith("leave: approved by rule 1, without approvers\n  the days is 1 (1 or less)")


def test_simulation_fails_for_a_requester_without_permission(site: Site) -> None:
    refused = site.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "eve@acme.eu", fails=True)
    assert "Approvers of stage ok" in refused.stdout
    assert "eve@acme.eu can't open 'leave'" in refused.stderr


def test_simulation_fails_if_nobody_could_decide(site: Site) -> None:
    site.write(
        "workflows/leave.toml", LEAVE.replace('from = ["@managers"]\nneed = 2', 'from = ["manager-of:requester"]')
    )
    refused = site.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "ann@acme.eu", fails=True)
    assert "There are no approvers." in refused.stdout
    assert "Ann Ode has no manager" in refused.stderr


def test_simulation_reads_live_sources_only_with_live(site: Site) -> None:
    site.write(
        "config.toml",
        site.config.read_text() + 'far = { http = "hr" }\n[http.hr]\nurl = "http://127.0.0.1:9"\n',
    )
    site.write("workflows/leave.toml", LEAVE.replace('from = ["@managers"]', 'from = ["@far"]'))
    words = ("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu")
    assert site.json(*words)["who"] == []  # its members are unknown, which is no reason to call it empty
    assert site.json(*words, "--live")["who"] == []


def test_simulation_names_invalid_fields(site: Site) -> None:
    refused = site.type("simulate", "leave", "--input", '{"days": "three"}', fails=True)
    assert "input.days" in refused.stderr


def test_python_workflows_cannot_be_simulated(site: Site) -> None:
    site.write("workflows/one.py", "from approvals_bot import workflow\n\n@workflow\nasync def one() -> None: ...\n")
    assert "can't be simulated" in site.type("simulate", "one", fails=True).stderr
