"""`check --runs`: which open runs the new code would stall or end, and which ended runs would end otherwise."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc

import pytest

from approvals_bot.cli.check_runs import Progress, RunsReport, check_runs
from approvals_bot.cli.common import with_engine
from approvals_bot.durable.store import postgres_schema, sqlite
from tests.support.small_site import LEAVE, Site

FIRST = """\
from approvals_bot import create_hook, step, workflow

@step
async def look() -> int:
    return 1

@workflow
async def wait() -> None:
    await look()
    await create_hook(token="go")
"""


def test_check_runs_lists_open_runs_that_would_stall(site_on_each_store: Site) -> None:
    site = site_on_each_store
    site.write("workflows/waits.py", FIRST)
    waiting, request = site.json("start", "wait")["run_id"], site.start(days=3)
    site.work()
    found = site.json("check", "--runs")["runs"]
    assert (found["checked"], found["would_stall"], found["would_end"]) == (2, [], [])
    assert "2 open runs continue with this code." in site.type("check", "--runs").stdout

    site.write("workflows/waits.py", FIRST.replace("    await look()\n", ""))
    found = site.json("check", "--runs", fails=True)["runs"]
    assert (found["checked"], [each["run_id"] for each in found["would_stall"]]) == (2, [waiting])
    assert found["would_stall"][0]["error"] == "NondeterminismError"
    assert "recorded" in found["would_stall"][0]["why"]
    text = site.type("check", "--runs", fails=True).stdout
    assert f"{waiting}  wait: would stall: NondeterminismError: " in text
    assert "Of 2 open runs, 1 would stall on this code." in text
    assert request not in text
    assert site.json("show", waiting)["status"] == "running"  # nothing was changed


def test_check_runs_names_people_who_count_as_two(site_on_each_store: Site) -> None:
    site = site_on_each_store
    site.write("workflows/leave.toml", LEAVE.replace("need = 2", "need = 3").replace("ask ", "# ask "))
    site.write(
        "config.toml", site.config.read_text().replace('"cy@acme.eu"]', '"cy@acme.eu", "di@acme.eu", "ann@acme.com"]')
    )
    run = site.start()
    site.work()
    for by in ("ann@acme.eu", "ann@acme.com"):
        site.type("vote", run, "--by", by, "--choice", "approve")
        site.work()
    assert site.json("check", "--runs")["runs"]["one_person"] == []
    identity = '\n[identity]\ndomains = { "acme.com" = "acme.eu" }\n'
    site.write("config.toml", site.config.read_text().replace(', "ann@acme.com"', "") + identity)
    found = site.json("check", "--runs", fails=True)["runs"]
    addresses = ["ann@acme.eu", "ann@acme.com"]
    assert found["one_person"] == [{"request_id": run, "workflow": "leave", "addresses": addresses}]
    text = site.type("check", "--runs", fails=True).stdout
    assert f"{run}  leave: ann@acme.eu and ann@acme.com are one person, and count as two" in text
    assert "Mend this code" not in text


def test_check_runs_leaves_an_older_schema_alone(site_on_each_store: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site_on_each_store.start()
    store = sqlite if "sqlite:" in site_on_each_store.config.read_text() else postgres_schema
    name = "_migrations" if store is sqlite else "migrations"
    known = getattr(store, name)()
    with monkeypatch.context() as newer:
        newer.setattr(store, name, lambda: [*known, ("9999_newer.sql", "SELECT 1;")])
        refused = site_on_each_store.type("check", "--runs", fails=True)
        assert f"it has schema {len(known)}, but this program works with {len(known) + 1}" in refused.output
        assert "approvals-bot migrate" in refused.output
    assert site_on_each_store.json("check", "--runs")["runs"]["checked"] == 1, "the older program still works"


def test_check_runs_creates_no_database(site: Site) -> None:
    settings = site.config.read_text().replace("sqlite:///approvals.db", "sqlite:///mistyped/approvals.db")
    site.write("config.toml", settings)
    assert "There is no database" in site.type("check", "--runs", fails=True).stderr
    assert not (site.folder / "mistyped").exists()


def test_run_whose_code_is_gone_would_stall(site: Site) -> None:
    site.write("workflows/waits.py", FIRST.replace("wait()", "gone()"))
    site.json("start", "gone")
    site.work()
    site.write("workflows/waits.py", "")
    from approvals_bot.durable.core.registry import registry

    registry._kept.pop(("gone", None), None)  # as in a new process
    found = site.json("check", "--runs", fails=True)["runs"]["would_stall"]
    assert "No workflow named 'gone'" in found[0]["why"]


ANSWERED = """\
from pydantic import BaseModel
from approvals_bot import define_hook, workflow

class Reply(BaseModel):
    text: str

reply = define_hook(schema=Reply)

@workflow
async def answered(name: str) -> str:
    hook = reply.create(token=f"to-{name}")
    said = await hook
    return said.text
"""


def answered(site: Site, name: str, text: str | None = None) -> str:
    """Start a run that waits for a reply, and let it reply if there is a text. Returns its ID."""
    run = str(site.json("start", "answered", "--input", f'{{"name": "{name}"}}')["run_id"])
    site.work()
    if text is not None:
        site.type("resume", f"to-{name}", "--payload", f'{{"text": "{text}"}}')
        site.work()
    return run


def test_runs_that_would_fail_are_named_with_class_and_line(site_on_each_store: Site) -> None:
    site = site_on_each_store
    path = site.write("workflows/answers.py", ANSWERED)
    waiting = answered(site, "ann")
    broken = ANSWERED.replace("    said =", "    raise ValueError(name)\n    said =")
    path.write_text(broken)
    found = site.json("check", "--runs", fails=True)["runs"]
    assert [(each["run_id"], each["workflow"], each["error"], each["why"]) for each in found["would_end"]] == [
        (waiting, "answered", "ValueError", "ann")
    ]
    assert found["would_end"][0]["where"].endswith("workflows/answers.py:12")
    assert "would fail: ValueError at " in site.type("check", "--runs", fails=True).stdout
    assert site.json("show", waiting)["status"] == "running"


def test_runs_that_would_complete_are_named(site: Site) -> None:
    path = site.write("workflows/answers.py", ANSWERED)
    waiting = answered(site, "ann")
    path.write_text(ANSWERED.replace("    hook =", "    return name\n    hook ="))
    found = site.json("check", "--runs", fails=True)["runs"]
    assert [(each["run_id"], each["change"]) for each in found["would_stall"]] == [(waiting, "stalls")]  # no hook
    path.write_text(ANSWERED.replace("    said =", "    return name\n    said ="))
    found = site.json("check", "--runs", fails=True)["runs"]
    assert [(each["run_id"], each["change"], each["why"]) for each in found["would_end"]] == [
        (waiting, "ends", 'it would end: completed with "ann"')
    ]


def test_run_that_has_yet_to_handle_its_payload_may_end(site: Site) -> None:
    site.write("workflows/answers.py", ANSWERED)
    answered(site, "ann")
    site.type("resume", "to-ann", "--payload", '{"text": "yes"}')  # nobody works on it yet
    assert site.json("check", "--runs")["runs"]["would_end"] == []


def test_ended_runs_find_a_bug_in_handling_the_next_payload(site_on_each_store: Site) -> None:
    site = site_on_each_store
    path = site.write("workflows/answers.py", ANSWERED)
    waiting, ended = answered(site, "ann"), answered(site, "bo", "yes")
    path.write_text(ANSWERED.replace("return said.text", "return said.txt"))
    printed = site.type("check", "--runs").stdout
    assert "1 open run continues with this code." in printed
    assert "1 ended run of answered could be replayed, too" in printed
    assert "--ended 30d" in printed
    found = site.json("check", "--runs", "--ended", "30d", fails=True)["runs"]
    assert (found["checked"], found["would_stall"], found["would_end"]) == (1, [], [])
    (named,) = found["ended"]["would_differ"]
    assert (named["run_id"], named["workflow"], named["error"]) == (ended, "answered", "AttributeError")
    assert named["where"].endswith("workflows/answers.py:13")
    printed = site.type("check", "--runs", "--ended", "30d", fails=True).stdout
    assert "Of 1 ended run, 1 would " in printed
    assert waiting not in printed


def test_a_stricter_hook_of_an_open_run_is_named(site_on_each_store: Site) -> None:
    site = site_on_each_store
    path = site.write("workflows/answers.py", ANSWERED)
    waiting = answered(site, "ann")
    path.write_text(ANSWERED.replace("text: str", "text: str\n    colour: str = 'red'"))
    assert site.json("check", "--runs")["runs"]["would_refuse"] == []
    path.write_text(ANSWERED.replace("text: str", "text: str\n    colour: str"))
    (named,) = site.json("check", "--runs", fails=True)["runs"]["would_refuse"]
    assert (named["run_id"], named["why"]) == (waiting, "its hook is stricter: payload.colour: is required now")
    printed = site.type("check", "--runs", fails=True).stdout
    assert "Of 1 open run, 1 would refuse answers that it takes now on this code." in printed


def test_a_payload_that_a_stricter_schema_refuses_stalls_its_run(site: Site) -> None:
    early = ANSWERED.replace("said = await hook", "await create_hook(token='later')\n    said = await hook")
    early = early.replace("import define_hook", "import create_hook, define_hook")
    path = site.write("workflows/answers.py", early)
    waiting = answered(site, "ann", "yes")
    path.write_text(early.replace("text: str", "text: int"))
    (named,) = site.json("check", "--runs", fails=True)["runs"]["would_stall"]
    assert (named["run_id"], named["error"]) == (waiting, "DeserializationError")


OTHERWISE = [
    ("return said.text", "return said.text.upper()", 'was: completed with "yes"; now: completed with "YES"'),
    ("return said.text", "raise ValueError(1)", "1"),
    ("    return said.text", '    await reply.create(token="x")', "now: it would go on waiting"),
]


@pytest.mark.parametrize(("old", "new", "why"), OTHERWISE, ids=[why for *_, why in OTHERWISE])
def test_ended_runs_that_would_end_otherwise_are_named(site: Site, old: str, new: str, why: str) -> None:
    path = site.write("workflows/answers.py", ANSWERED)
    answered(site, "bo", "yes")
    path.write_text(ANSWERED.replace(old, new))
    (named,) = site.json("check", "--runs", "--ended", "1h", fails=True)["runs"]["ended"]["would_differ"]
    assert why in named["why"]


def test_unchanged_code_ends_as_before_however_it_ended(site: Site) -> None:
    site.write("workflows/answers.py", ANSWERED)
    site.write(
        "workflows/fails.py", FIRST.replace("wait()", "fails()").replace("    await look()", "    raise ValueError")
    )
    completed, cancelled = answered(site, "ann", "yes"), answered(site, "bo")
    site.type("cancel", cancelled)
    failed = site.json("start", "fails")["run_id"]
    approved, expired = site.start(days=1), site.start(days=3)
    site.work()
    site.type("cancel", expired)
    site.work()
    statuses = {run["id"]: run["status"] for run in site.json("runs")["runs"]}
    assert [statuses[run] for run in (completed, cancelled, failed, approved, expired)] == [
        "completed", "cancelled", "failed", "completed", "cancelled",
    ]  # fmt: skip
    found = site.json("check", "--runs", "--ended", "30d")["runs"]["ended"]
    assert (found["checked"], found["would_differ"]) == (5, [])


def test_ended_counts_only_recent_runs_and_needs_runs(site: Site) -> None:
    site.write("workflows/answers.py", ANSWERED)
    answered(site, "ann", "yes")
    assert site.json("check", "--runs", "--ended", "0.001s")["runs"]["ended"]["checked"] == 0
    assert "--ended needs --runs" in site.type("check", "--ended", "30d", fails=2).stderr
    assert "is not a duration" in site.type("check", "--runs", "--ended", "soon", fails=2).stderr


def test_limit_bounds_the_list_and_counts_all(site: Site) -> None:
    path = site.write("workflows/answers.py", ANSWERED)
    for name in ("ann", "bo", "cy"):
        answered(site, name)
    path.write_text(ANSWERED.replace("    said =", "    raise ValueError(name)\n    said ="))
    found = site.json("check", "--runs", "--limit", "2", fails=True)["runs"]
    assert (len(found["would_end"]), found["more"]) == (2, 1)
    printed = site.type("check", "--runs", "--limit", "2", fails=True).stdout
    assert "Of 3 open runs, 3 would fail on this code. 1 more isn't listed." in printed


def test_memory_does_not_grow_with_the_number_of_runs(site: Site) -> None:
    site.write("workflows/answers.py", ANSWERED)
    site.type("check")  # imports and registers the workflow

    def peak(runs: int) -> int:
        async def start(engine: object, _: object) -> None:
            from approvals_bot.durable.engine import Engine

            assert isinstance(engine, Engine)
            for number in range(runs):
                await engine.start("answered", f"{runs}-{number}" + "x" * 5_000)

        with_engine(site.config, start)
        report = RunsReport(10, print_lines=False)

        async def check(engine: object, service: object) -> None:
            tracemalloc.start()
            await check_runs(engine, service, report=report, ended=None)  # type: ignore[arg-type]  # as with_engine calls it

        with_engine(site.config, check)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report.open.checked >= runs
        return found

    few, many = peak(100), peak(1_500)
    assert many < few * 1.5 + 1_000_000, (few, many)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_lines_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("approvals_bot.cli.check_runs.PROGRESS_EVERY", 0.0)
    monkeypatch.setattr("approvals_bot.cli.check_runs.LINE_EVERY", 0.0)
    shown: list[str] = []
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress("open runs replayed")
        progress.show(1_200)
        progress.clear()
        shown.append(stream.getvalue())
    assert shown[0].startswith("\r1,200 open runs replayed, ")
    assert shown[0].endswith("\r\x1b[K")
    assert shown[1].startswith("1,200 open runs replayed, ")
    assert shown[1].endswith("a second …\n")


def test_check_runs_knows_the_workflows_of_the_service() -> None:
    program = (
        "import approvals_bot.cli.check_runs; from approvals_bot.durable.core.registry import registry; "
        "print(*(name for name, _ in registry._kept))"
    )
    known = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"workflow_builder_step", "slack_reply"} <= set(known)
