"""`test`: policy tests beside the workflows, what they say of a failing case, and what no case has met."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.support.small_site import LEAVE, Site

PASSING = """\
[[case]]
name      = "a day off needs nobody"
requester = "bo@acme.eu"
input     = { days = 1 }
asked     = []
outcome   = "approved"
why       = "days is 1"

[[case]]
name      = "two colleagues decide, with a count"
requester = "bo@acme.eu"
input     = { days = 3 }
votes     = [
  { by = "ann@acme.eu", choice = "approve", answers = { count = 2 }, after = "30m" },
  { by = "cy@acme.eu", choice = "approve", answers = { count = 2 }, after = "3h" },
]
asked     = ["@managers"]
outcome   = "approved"
"""
EXPIRES = """
[[case]]
name      = "after four hours, it expires"
requester = "bo@acme.eu"
input     = { days = 3 }
outcome   = "expired"
"""
FAILING = """\
[[case]]
name      = "one is enough"
requester = "bo@acme.eu"
input     = { days = 3 }
votes     = [{ by = "bo@acme.eu" }, { by = "cy@acme.eu", answers = { count = 2 } }]
asked     = ["ann@acme.eu"]
outcome   = "approved"
why       = "because of the moon"
"""


@pytest.fixture
def tested(site: Site) -> Site:
    site.write("workflows/leave.test.toml", PASSING)
    return site


def failing(site: Site, text: str = FAILING) -> Path:
    return site.write("workflows/leave.test.toml", text)


def test_passing_cases_show_what_no_case_has_met(tested: Site) -> None:
    rows = [line.split("  ") for line in tested.type("test").stdout.splitlines()]
    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["workflow", "passed", "covered"],
        ["leave", "2 of 2", "4 of 5", "not met: deadline"],
    ]
    tested.type("migrate")
    assert tested.json("runs")["runs"] == []
    tested.write("workflows/leave.test.toml", PASSING + EXPIRES)
    assert "5 of 5" in tested.type("test").stdout


def test_failing_case_says_what_was_expected_and_why_not(site: Site) -> None:
    file = failing(site)
    lines = site.type("test", fails=True).stdout.splitlines()
    waits = "waiting (for ann@acme.eu; time alone makes it expired by deadline: Stage “Ok” wasn't decided in time.)"
    assert lines[:2] == [
        f"{file}:7: one is enough: outcome: expected approved, got {waits}",
        f"{file}:6: one is enough: asked: expected ann@acme.eu, got ann@acme.eu, cy@acme.eu",
    ]
    assert lines[2].startswith(f'{file}:8: one is enough: why: expected "because of the moon", got in Managers; ')
    assert lines[3:6] == [
        "    stage ok asks ann@acme.eu, cy@acme.eu",
        "    bo@acme.eu (approve): You can't approve your own request.",
        "    cy@acme.eu (approve): Counted: 1 of 2. Waiting for one more from Managers.",
    ]


def test_json_has_cases_and_coverage(site: Site) -> None:
    file = failing(site, PASSING + FAILING)
    found = site.json("test", fails=True)
    assert (found["passed"], found["failed"]) == (2, 1)
    (of_file,) = found["files"]
    assert (of_file["file"], of_file["workflow"]) == (str(file), "leave")
    assert of_file["coverage"] == {
        "auto 1": True,
        "auto 1 when false": True,
        "stage ok": True,
        "stage ok seat 1 filled": True,
        "deadline": False,
    }
    passed, _, failed = of_file["cases"]
    assert (passed["passed"], passed["outcome"], passed["failures"]) == (True, "approved", [])
    assert [each["key"] for each in failed["failures"]] == ["outcome", "asked", "why"]


ATTRIBUTES: dict[str, dict[str, str]] = {
    "testsuites": {},
    "testsuite": {
        "name": r"\S.*",
        "package": r".*",
        "id": r"\d+",
        "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
        "hostname": r"\S+",
        "tests": r"\d+",
        "failures": r"\d+",
        "errors": r"\d+",
        "time": r"[\d.]+",
    },
    "properties": {},
    "testcase": {"name": r".+", "classname": r"\S.*", "time": r"[\d.]+"},
    "failure": {"message": r".+", "type": r"\S+"},
    "error": {"message": r".+", "type": r"\S+"},
    "system-out": {},
    "system-err": {},
}
"""The elements of the published schema that we write, with their attributes: each is required there, or known."""

CHILDREN = {
    "testsuites": r"(testsuite )*",
    "testsuite": r"properties (testcase )*system-out system-err ",
    "testcase": r"(error |failure )?",
}


def check_junit(element: ET.Element) -> None:
    """Check an element and all below against the schema: attributes, their shapes, children and their order."""
    shapes = ATTRIBUTES[element.tag]
    assert {*element.attrib} == {*shapes}
    assert [name for name, shape in shapes.items() if not re.fullmatch(shape, element.get(name, ""))] == []
    assert re.fullmatch(CHILDREN.get(element.tag, ""), "".join(f"{child.tag} " for child in element))
    if element.tag == "testsuite":
        for counted, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            assert int(element.get(counted, "")) == sum(1 for _ in element.iter(tag))
    for child in element:
        check_junit(child)


def test_a_case_that_meets_a_bug_of_ours_is_broken(tested: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def miscount(*_: object) -> None:
        raise ZeroDivisionError("no seats")

    monkeypatch.setattr("approvals_bot.approvals.apply.stage_status", miscount)
    first, second = (case["name"] for case in tomllib.loads(PASSING)["case"])
    printed = tested.type("test", "--junit", str(tested.folder / "junit.xml"), fails=True).stdout.splitlines()[0]
    file = tested.folder / "workflows" / "leave.test.toml"
    assert printed.startswith(f"{file}:10: {second}: a bug in Approvals Bot, not in your policy, ended this case; ")
    assert "ZeroDivisionError: no seats (" in printed
    assert re.search(r"\.py:\d+\)$", printed)
    assert printed in tested.type("check", fails=True).stdout
    found = tested.json("test", fails=True)
    assert (found["passed"], found["failed"], found["broken"]) == (1, 0, 1)
    assert [case["outcome"] for case in found["files"][0]["cases"]] == ["approved", "broken"]
    root = ET.parse(tested.folder / "junit.xml").getroot()  # noqa: S314  # written here
    check_junit(root)
    assert {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")} == {
        first: [],
        second: ["error"],
    }


RULED = """\
[workflow]
id = "ruled"
title = "Ruled"
[fields]
size = "integer"
[[request]]
from = ["@managers"]
when = "size < 10"
[[request]]
from = ["cy@acme.eu"]
[[stage]]
id = "go"
from = ["@managers"]
[stage.veto]
from = ["di@acme.eu"]
[clock]
none = true
"""


@pytest.mark.parametrize(
    ("requester", "size", "vote", "outcome", "met"),
    [
        (
            "bo",
            1,
            '{ by = "di@acme.eu", choice = "reject", comment = "N" }',
            "rejected",
            {"request 1", "stage go veto"},
        ),
        ("bo", 1, '{ by = "ann@acme.eu", choice = "reject", comment = "N" }', "waiting", {"request 1"}),
        ("bo", 20, '{ by = "ann@acme.eu" }', "refused", {"request 1 when false"}),
        ("cy", 20, '{ by = "ann@acme.eu" }', "approved", {"request 1 when false", "request 2"}),
        ("di", 1, '{ by = "ann@acme.eu" }', "refused", set()),
    ],
)
def test_vetoes_and_who_may_request_what_are_covered(
    site: Site, requester: str, size: int, vote: str, outcome: str, met: set[str]
) -> None:
    site.write("workflows/ruled.toml", RULED)
    case = f'[[case]]\nname = "x"\nrequester = "{requester}@acme.eu"\ninput = {{ size = {size} }}\n'
    site.write("workflows/ruled.test.toml", f'{case}votes = [{vote}]\noutcome = "{outcome}"\n')
    (found,) = site.json("test")["files"]
    covered = ("request 1", "request 1 when false", "request 2", "stage go", "stage go seat 1 filled", "stage go veto")
    assert tuple(found["coverage"]) == covered
    of_rules = {*covered} - {"stage go", "stage go seat 1 filled"}
    assert {item for item, is_met in found["coverage"].items() if is_met} & of_rules == met


def test_junit_has_what_the_strict_schema_asks_for(site: Site) -> None:
    failing(site, PASSING + FAILING.replace("one is enough", "one is \\u0001 enough"))
    site.type("test", "--junit", str(site.folder / "junit.xml"), fails=True)
    root = ET.parse(site.folder / "junit.xml").getroot()  # noqa: S314  # written here
    assert (root.tag, root.attrib) == ("testsuites", {})
    check_junit(root)
    (suite,) = root
    attributes = {"name", "package", "id", "timestamp", "hostname", "tests", "failures", "errors", "time"}
    assert {*suite.attrib} == attributes
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 3, "system-out", "system-err"]
    assert {(*case.attrib,) for case in suite.iter("testcase")} == {("name", "classname", "time")}
    (failure,) = suite.iter("failure")
    assert {*failure.attrib} == {"message", "type"}
    assert "Counted: 1 of 2." in str(failure.text)


def test_check_plays_the_tests_too(tested: Site) -> None:
    tested.type("check")
    file = failing(tested)
    assert f"{file}:7: one is enough: outcome: expected approved" in tested.type("check", fails=True).stdout


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("outcome   =", "outcom    =", 6, "case[0].outcom: unknown key (did you mean outcome?)"),
        ('"approved"', '"aproved"', 6, "(did you mean approved?)"),
        ("{ days = 1 }", "{ dais = 1 }", 4, "case[0].input.dais: the workflow has no such field (did you mean days?)"),
        ('"@managers"', '"@manager"', 17, "no group is called manager (did you mean @managers?)"),
        ('"bo@acme.eu"', '"bo"', 3, "case[0].requester: write a person's address, or app:name"),
        ("count = 2 }, after", "count = 2 }, afer", 14, "case[1].votes[0].afer: unknown key (did you mean after?)"),
    ],
)
def test_file_that_cannot_be_meant_is_refused(tested: Site, old: str, new: str, line: int, says: str) -> None:
    file = failing(tested, PASSING.replace(old, new, 1))
    refused = tested.type("test", fails=2).stderr
    assert f"{file}:{line}: " in refused
    assert says in refused
    assert says in tested.type("check", fails=True).stdout


def test_what_cannot_be_played_exits_with_2(site: Site) -> None:
    assert "There are no policy tests" in site.type("test", fails=2).stderr
    assert "there is no such file" in site.type("test", "nothing.toml", fails=2).stderr
    site.write("workflows/other.test.toml", PASSING)
    assert "other.toml is not beside this file" in site.type("test", fails=2).stderr


def test_path_names_the_test_its_workflow_or_a_folder(tested: Site) -> None:
    tested.write("workflows/rest.toml", LEAVE.replace('"leave"', '"rest"'))
    tested.write("workflows/rest.test.toml", PASSING)
    for path in ("workflows/leave.test.toml", "workflows/leave.toml"):
        (one,) = tested.json("test", str(tested.folder / path))["files"]
        assert one["workflow"] == "leave"
    assert len(tested.json("test", str(tested.folder / "workflows"))["files"]) == 2


def test_no_secret_is_needed(tested: Site) -> None:
    config = tested.config.read_text()
    tested.write("config.toml", config.replace('"file:signing.key"', '"env:NO_SUCH_KEY"'))
    tested.type("test")
    assert "NO_SUCH_KEY is not set" in tested.type("check", fails=True).stdout


def test_people_of_live_groups_are_listed_in_the_test(tested: Site) -> None:
    config = tested.config.read_text() + '[http.hr]\nurl = "https://hr.acme.eu/x"\n'
    tested.write("config.toml", config.replace('others = ["di@acme.eu"]', 'others = { http = "hr" }'))
    tested.write("workflows/leave.toml", LEAVE.replace('from = ["@managers"]\nneed = 2', 'from = ["@others"]'))
    case = (
        PASSING[: PASSING.index("[[case]]", 9)].replace("days = 1", "days = 3").replace('why       = "days is 1"', "")
    )
    case = case.replace('"approved"', '"waiting"')
    unread = failing(tested, case.replace("asked     = []", 'asked     = ["eve@acme.eu"]'))
    assert "list its people under [groups] of the test file" in tested.type("test", fails=True).stdout
    unread.write_text('[groups]\nothers = ["eve@acme.eu"]\n' + unread.read_text())
    tested.type("test")


STEPS = """\
[workflow]
id = "steps"
title = "Steps"
request = ["*"]
[fields]
n = { type = "integer", editable = true }
[policy]
outcomes = ["approve", "reject", "changes", "edit"]
[[stage]]
id = "first"
from = ["ann@acme.eu"]
[[stage]]
id = "second"
when = "n > 5"
  [[stage.seat]]
  from = ["cy@acme.eu"]
  [[stage.seat]]
  when = "n > 7"
  from = ["di@acme.eu"]
[clock]
deadline = "2h"
[[escalate]]
after = "1h"
to = ["eve@acme.eu"]
"""
STEPS_TESTS = """\
[[case]]
name = "edited up, so the second stage opens"
requester = "bo@acme.eu"
input = { n = 1 }
votes = [{ by = "ann@acme.eu", choice = "edit", fields = { n = 9 } }, { by = "cy@acme.eu" }]
asked = ["ann@acme.eu", "cy@acme.eu", "di@acme.eu"]
outcome = "waiting"
why = "n is 9"
[[case]]
name = "small, and it escalates after an hour"
requester = "bo@acme.eu"
input = { n = 1 }
votes = [{ after = "61m" }]
asked = ["ann@acme.eu", "eve@acme.eu"]
outcome = "waiting"
why = "n is 1"
[[case]]
name = "middling: the second seat falls away"
requester = "bo@acme.eu"
input = { n = 6 }
now = 2026-03-02
votes = [
  { by = "ann@acme.eu", choice = "changes", comment = "why?" },
  { by = "bo@acme.eu", choice = "edit", fields = { n = 7 } },
  { by = "ann@acme.eu" },
  { by = "cy@acme.eu" },
]
outcome = "approved"
[[case]]
name = "withdrawn"
requester = "bo@acme.eu"
input = { n = 6 }
votes = [{ by = "bo@acme.eu", choice = "withdraw" }, { by = "ann@acme.eu" }]
outcome = "cancelled"
why = "withdrawn"
[[case]]
name = "no number"
requester = "bo@acme.eu"
input = { n = "x" }
outcome = "refused"
why = "n: "
"""


def test_edits_escalations_and_time_are_played(site: Site) -> None:
    site.write("workflows/steps.toml", STEPS)
    site.write("workflows/steps.test.toml", STEPS_TESTS)
    (found,) = site.json("test")["files"]
    missed = [item for item, is_met in found["coverage"].items() if not is_met]
    assert missed == ["stage second seat 2 filled", "deadline"]


def test_first_workflow_of_init_comes_with_tests_that_pass(site: Site) -> None:
    site.type("init", str(site.folder / "new"), "--what", "purchase")
    new = Site(site.folder / "new")
    assert "3 of 3" in new.type("test").stdout
    assert "no problems" in new.type("check").stdout


def test_alternatives_of_a_stage_are_covered_one_by_one(site: Site) -> None:
    ways = '{ seats = [{ from = ["ann@acme.eu"] }] }, { seats = [{ from = ["cy@acme.eu"] }] }'
    either = f'[[stage]]\nid = "first"\nany = [{ways}]\n'
    site.write("workflows/steps.toml", STEPS.partition("[[stage]]")[0] + either + "[clock]\nnone = true\n")
    case = '[[case]]\nname = "one way"\nrequester = "bo@acme.eu"\ninput = { n = 1 }\noutcome = "approved"\n'
    site.write("workflows/steps.test.toml", f'{case}votes = [{{ by = "cy@acme.eu" }}]\n')
    (found,) = site.json("test")["files"]
    assert found["coverage"] == {
        "stage first": True,
        "stage first any 1 seat 1 filled": False,
        "stage first any 2 seat 1 filled": True,
    }


ACCESS = """\
[workflow]
id = "access"
title = "Access to {{ account }}"
request = ["*"]
owners = ["ann@acme.eu"]
[fields]
account = { type = "string", pinned = true }
[[stage]]
id = "go"
from = ["@managers"]
[clock]
none = true
[standing]
match = ["account"]
lasts = "30d"
times = 1
[break_glass]
who = ["bo@acme.eu"]
review = { from = ["@managers"], within = "24h" }
"""
COVERED = """\
[[case]]
name = "first"
requester = "bo@acme.eu"
input = { account = "prod" }
votes = [{ by = "ann@acme.eu", after = "2h" }]
outcome = "approved"
[[case]]
name = "next"
requester = "bo@acme.eu"
input = { account = "prod" }
covered_by = "first"
asked = []
outcome = "approved"
why = "Covered by the approval of “Access to prod”"
[[case]]
name = "used up"
requester = "bo@acme.eu"
input = { account = "prod" }
covered_by = "next"
outcome = "waiting"
[[case]]
name = "another account"
requester = "bo@acme.eu"
input = { account = "dev" }
covered_by = "first"
outcome = "waiting"
[[case]]
name = "a month later"
requester = "bo@acme.eu"
input = { account = "prod" }
now = 2026-02-05T09:00:00Z
covered_by = "first"
outcome = "waiting"
[[case]]
name = "an emergency"
requester = "bo@acme.eu"
input = { account = "prod" }
break_glass = "The database is down, and nobody answers"
asked = []
outcome = "approved"
why = ["Opened without a vote by Bo", "nobody answers"]
[[case]]
name = "not on call"
requester = "cy@acme.eu"
input = { account = "prod" }
break_glass = "The database is down, and nobody answers"
outcome = "refused"
[[case]]
name = "no reason"
requester = "bo@acme.eu"
input = { account = "prod" }
break_glass = "hm"
outcome = "refused"
why = "20 characters"
"""


MAIL = """
[email]
host = "127.0.0.1"
port = 2525
security = "none"
sender = "approvals@acme.eu"
"""


def test_covered_requests_and_emergencies_are_played(site: Site) -> None:
    site.write("config.toml", site.config.read_text() + MAIL)
    site.write("workflows/access.toml", ACCESS)
    site.write("workflows/access.test.toml", COVERED)
    assert "8 of 8" in site.type("test").stdout
    for was, now, fault in (
        ('by = "next"', 'by = "another account"', "case[2].covered_by: no earlier case has this name"),
        ('"hm"', '"hm"\nvotes = [{ by = "ann@acme.eu" }]', "without a vote is decided before anybody votes"),
    ):
        site.write("workflows/access.test.toml", COVERED.replace(was, now))
        assert fault in site.type("test", fails=2).stderr
    site.write("workflows/access.test.toml", COVERED)
    site.write("workflows/access.toml", ACCESS.partition("[standing]")[0])
    assert "the workflow has no [break_glass]" in site.type("test", fails=2).stderr
