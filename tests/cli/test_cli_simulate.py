"""What would be asked of whom, before anything is."""

from __future__ import annotations

from house import LEAVE, House


def test_a_simulation_has_exactly_who_auto_and_timers(house: House) -> None:
    found = house.json("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu")
    assert set(found) == {"who", "auto", "timers"}
    assert found["auto"] is None
    assert [set(one) for one in found["who"]] == [{"person", "stage", "why", "via"}] * 2
    assert [one["person"] for one in found["who"]] == ["ann@acme.eu", "cy@acme.eu"]
    assert [set(one) for one in found["timers"]] == [{"at", "what"}] * 2
    assert house.json("runs")["runs"] == []


def test_people_read_it_stage_by_stage(house: House) -> None:
    text = house.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu").stdout
    in_order = [
        "leave: if it were opened now",
        "Stage ok asks",
        "ann@acme.eu",
        "in 1 hour",
        "in 4 hours",
        "Nothing was",
    ]
    assert sorted(in_order, key=text.index) == in_order


def test_a_rule_that_would_decide_is_named(house: House) -> None:
    found = house.json("simulate", "leave", "--input", '{"days": 1}', "--requester", "bo@acme.eu")
    assert (found["who"], found["auto"]["rule"], found["auto"]["decision"]) == ([], 1, "approve")
    text = house.type("simulate", "leave", "--input", '{"days": 1}', "--requester", "bo@acme.eu").stdout
    assert text.startswith("leave: approved by rule 1, and nobody is asked\n  the days is 1 (1 or less)")


def test_who_may_not_ask_learns_it_and_the_command_fails(house: House) -> None:
    said = house.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "eve@acme.eu", fails=True)
    assert "Stage ok asks" in said.stdout
    assert "eve@acme.eu may not open 'leave'" in said.stderr


def test_what_nobody_could_decide_fails(house: House) -> None:
    house.write(
        "workflows/leave.toml", LEAVE.replace('from = ["@managers"]\nneed = 2', 'from = ["manager-of:requester"]')
    )
    said = house.type("simulate", "leave", "--input", '{"days": 3}', "--requester", "ann@acme.eu", fails=True)
    assert "It asks nobody." in said.stdout
    assert "Ann Ode has no manager" in said.stderr


def test_live_sources_are_left_alone_unless_asked_for(house: House) -> None:
    house.write(
        "config.toml", house.config.read_text() + 'far = { http = "hr" }\n[http.hr]\nurl = "http://127.0.0.1:9"\n'
    )
    house.write("workflows/leave.toml", LEAVE.replace('from = ["@managers"]', 'from = ["@far"]'))
    words = ("simulate", "leave", "--input", '{"days": 3}', "--requester", "bo@acme.eu")
    assert house.json(*words)["who"] == []  # who is in it isn't known, which is no reason to say that nobody is
    assert house.json(*words, "--live")["who"] == []


def test_fields_that_do_not_fit_are_named(house: House) -> None:
    said = house.type("simulate", "leave", "--input", '{"days": "three"}', fails=True)
    assert "input.days" in said.stderr


def test_a_python_workflow_can_not_be_foreseen(house: House) -> None:
    house.write("workflows/one.py", "from approvals_bot import workflow\n\n@workflow\nasync def one() -> None: ...\n")
    assert "only running it can tell" in house.type("simulate", "one", fails=True).stderr
