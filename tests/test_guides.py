"""Every example of the authors' pages in docs/ is run, and each of its functions is called.

Each runner below belongs to the one example that has its mark. An example without a runner, and a function that a
runner doesn't reach, fail the test. `RUN_ELSEWHERE` and `NOT_RUN` list the exceptions, with their reasons.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import tomllib
import types
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from approvals_bot import RunCancelledError, WebhookRequest, get_run
from approvals_bot.agents import ChatTurn
from approvals_bot.approvals.agent_policy import CallAllowance
from approvals_bot.client.digests import request_digest
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.testing import FakeClock, after, play
from tests.support.guides import DOCS, PAGES, Example, example_with, examples, functions_not_entered, loaded
from tests.support.judges import node_packages
from tests.support.small_site import Site, install

TESTS = Path(__file__).parent

RUN_ELSEWHERE = {
    "async def book_for(": "approvals/test_request_approval_guide.py",
    "async def reimburse(": "approvals/test_request_approval_guide.py",
    "async def release(version": "approvals/test_request_approval_guide.py",
    "async def answer(ap: Approvals": "agents/test_frameworks_guide.py",
    "async def ship_step_by_step(": "agents/test_frameworks_guide.py",
    "async def converse(": "agents/test_frameworks_guide.py",
    "async def pay_by_agent(": "agents/test_frameworks_guide.py",
    "async def send_by_graph(": "agents/test_frameworks_guide.py",
    "async def refund_desk(": "agents/test_approve_guide.py",
    "approvals-bot mcp": "client/test_mcp.py",
    "trip-17:call-1": "client/test_agents_guide.py",
    "def work_on(task": "client/test_agents_guide.py",
    "async def plan_trip(": "client/test_agents_guide.py",
    "async def clean_up(": "client/test_agents_guide.py",
    "async def begin(": "client/test_agents_guide.py",
    '"type": "http"': "client/test_agents_guide.py",
    "def multiply(x": "client/test_agents_guide.py",
    "approvals-bot dev &": "client/test_agents_guide.py",
    "async def support(ap: Approvals": "agents/test_pydantic_ai_guide.py",
    "async def trip(question: str)": "agents/test_pydantic_ai_guide.py",
}
"""Examples that need a service with people: their marks, and the tests that run them, which have the mark, too."""

NOT_RUN: dict[str, str] = {}
"""Examples that no test runs, by their marks, with the reason. At most five."""


@dataclass(frozen=True)
class Here:
    """What a runner may use: a folder, a clock, an engine on a file of its own, and commands."""

    folder: Path
    clock: FakeClock
    open_engine: Callable[..., AbstractAsyncContextManager[Engine]]

    def site(self) -> Site:
        return install(self.folder)


Runner = Callable[[types.ModuleType, Here], Awaitable[None]]
RUNNERS: dict[str, Runner] = {}
TEXT_RUNNERS: dict[str, Callable[[str, Here], None]] = {}


def runs(mark: str) -> Callable[[Runner], Runner]:
    """Register the runner of the Python example that has this text."""

    def register(runner: Runner) -> Runner:
        RUNNERS[mark] = runner
        return runner

    return register


def uses(mark: str) -> Callable[[Callable[[str, Here], None]], Callable[[str, Here], None]]:
    """Register what uses the text of an example that isn't Python."""

    def register(runner: Callable[[str, Here], None]) -> Callable[[str, Here], None]:
        TEXT_RUNNERS[mark] = runner
        return runner

    return register


# ── the rule ──

EXAMPLES = [
    example for example in examples(*PAGES) if example.page != "from-workflow-sdk.md"
]  # tests/web has a test of it


def marks_in(example: Example) -> list[str]:
    return [mark for mark in (*RUNNERS, *TEXT_RUNNERS, *RUN_ELSEWHERE, *NOT_RUN) if mark in example.text]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.place)
def test_every_example_has_exactly_one_runner(example: Example) -> None:
    assert len(marks_in(example)) == 1, f"{example.place}: write a runner for it, with a text that only it has"


def test_every_runner_has_its_example() -> None:
    marks = [mark for example in EXAMPLES for mark in marks_in(example)]
    assert sorted(marks) == sorted([*RUNNERS, *TEXT_RUNNERS, *RUN_ELSEWHERE, *NOT_RUN])


def test_few_examples_are_not_run_here() -> None:
    assert len(NOT_RUN) <= 5
    assert all(len(reason) > 20 for reason in NOT_RUN.values())
    for mark, file in RUN_ELSEWHERE.items():
        assert repr(mark).strip("'") in (TESTS / file).read_text(), f"{file} doesn't run {mark}"


def test_links_lead_to_headings() -> None:
    for page in [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]:
        for file, anchor in re.findall(r"\]\(((?:docs/)?[\w-]*(?:\.md)?)#([\w-]+)\)", page.read_text()):
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name} links to {file}"
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name} links to {file}#{anchor}"


# ── docs/workflows.md ──


@runs("def is_approved(body")
async def checking_a_digest(guide: Any, here: Here) -> None:
    digest = request_digest("deploy", "1f0c", {"version": "2.1"})
    body = {"version": "2.1", "file": "1f0c", "digest": digest}
    assert guide.is_approved(body, {"1f0c"})
    assert not guide.is_approved(body, {"2f0c"})
    assert not guide.is_approved(body | {"version": "2.2"}, {"1f0c"})
    assert not guide.is_approved(body | {"digest": request_digest("sandbox", "1f0c", {"version": "2.1"})}, {"1f0c"})


@runs("async def pay(order")
async def steps(guide: Any, here: Here) -> None:
    assert (await play(guide.pay, "a", 5)).result.startswith("receipt a")
    refused = await play(guide.pay, "a", 200_000)
    assert "more than this card may pay" in str(refused.error)
    assert refused.log[0].at == refused.ended_at, "a fatal error is not tried again"
    later = await play(guide.pay, "busy", 5)
    assert (later.ended_at - later.log[0].at).total_seconds() == 90, "three retries, each half a minute later"


@runs("async def book_and_notify(")
async def steps_with_options(guide: Any, here: Here) -> None:
    assert (await play(guide.book_and_notify, "R-1")).result == ["booked R-1", "notify {'invoice': 'R-1'}"]


@runs("async def book_flight(")
async def waiting_for_an_answer(guide: Any, here: Here) -> None:
    booked = await play(guide.book_flight, "LH1", "call-1", answers={"call-1": {"approved": True}})
    assert booked.result == "booked LH1"
    rejected = await play(guide.book_flight, "LH1", "call-2", answers={"call-2": {"approved": False}})
    assert rejected.result == "rejected: no reason given"


@runs("async def on_push(")
async def a_hook_from_the_start(guide: Any, here: Here) -> None:
    async with here.open_engine():
        first = await guide.on_push(17, guide.Push(commit="a"), "delivery 1")
        assert await guide.on_push(17, guide.Push(commit="b", is_last=True), "delivery 2") == first
        assert await get_run(first).return_value() == ["checked out a", "checked out b"]
        assert await guide.on_push(17, guide.Push(commit="a"), "delivery 1") == first


JUNK = [WebhookRequest(body=body) for body in (b"{", b"[]", b"{}", b'{"confirmed": "yes"}')]


@runs("async def confirm(address")
async def a_webhook(guide: Any, here: Here) -> None:
    assert (await play(guide.confirm, "ann@acme.eu", answers=[{"confirmed": True}])).result is True
    assert (await play(guide.confirm, "ann@acme.eu", answers=[*JUNK, {"confirmed": False}])).result is False


@runs("async def publish_url(")
async def a_form(guide: Any, here: Here) -> None:
    sent = [("content-type", "application/x-www-form-urlencoded"), ("x-shop-id", "17"), ("cookie", "secret")]
    played = await play(guide.order, answers=[*JUNK, WebhookRequest("POST", "", sent, b"colour=red")])
    assert played.result == "red for 17"
    assert "secret" not in str(played.log)


@runs("async def relocation(")
async def showing_progress(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.relocation, "ann")
        await engine.settle()
        assert (await run.wait(0)).view == {"person": "ann", "done": 0, "next": "flat"}
        await engine.resume_hook("flat-ann", None)
        await engine.settle()
        assert (await run.wait(0)).view == {"person": "ann", "done": 1, "next": "visa"}


@runs("async def nudge(")
async def time(guide: Any, here: Here) -> None:
    answered = await play(guide.nudge, "ann", answers=[after("2 days", "fine")])
    assert answered.result == "fine"
    assert len(answered.calls(guide.remind)) in (1, 2)
    silent = await play(guide.nudge, "bo")
    assert silent.result == "no answer"
    assert (silent.ended_at - silent.log[0].at).days == 10


@runs("async def booking(seats")
async def cancelling(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.booking, 2)
        await engine.settle()
        await run.cancel("the concert is off")
        with pytest.raises(RunCancelledError, match="the concert is off"):
            await run.return_value()
        released = [e.data["input"] for e in await run.events() if e.data.get("name") == "release"]
        assert released == [{"reservation": "R-2", "why": "the concert is off"}]


@runs("async def contract(document")
async def runs_of_other_workflows(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.contract, "lease", ["ann", "bo"])
        await here.clock.advance(1)
        await engine.resume_hook("lease-ann", True)
        await engine.resume_hook("lease-bo", True)
        assert await run.return_value() == "signed"
        late = await engine.start(guide.contract, "sale", ["ann"])
        await here.clock.advance("14 days")
        assert await late.return_value() == "expired"
        await here.clock.advance(60)
        (child,) = (await engine.records(status="cancelled")).records
        assert child.workflow == "sign"


@runs("async def plan_renewals(")
async def runs_for_later(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        await guide.plan_renewals()
        assert [run.status for run in (await engine.records()).records] == ["pending", "pending"]
        await here.clock.advance("2 hours")
        assert [run.result for run in (await engine.records(status="completed")).records] == ["acme.org renewed"]
        await here.clock.advance("10000 days")
        renewed = {
            run.result for run in (await engine.records(status="completed")).records
        }  # in any order: created at once
        assert renewed == {"acme.org renewed", "acme.eu renewed"}


@runs("async def restock(")
async def logging(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.restock, "tea")
        await engine.settle()
        await engine.resume_hook("restock-tea", True)
        await run.return_value()
        assert [e.data["name"] for e in await run.events() if e.type == "step_created"] == ["order"]


@runs("async def test_lunch(")
async def a_test_of_a_workflow(guide: Any, here: Here) -> None:
    await guide.test_lunch()


READS_A_CLOCK = """\
import time
from approvals_bot import workflow

@workflow
async def late_of_the_guide() -> float:
    return time.time()
"""


@uses("approvals-bot start pay")
def starting_an_example(text: str, here: Here) -> None:
    site = here.site()
    site.write("workflows/pay.py", example_with("async def pay(order").text)
    typed(site, text)
    (row,) = site.json("runs")["runs"]
    assert (row["workflow"], row["status"]) == ("pay", "completed")


@uses("approvals-bot-lint")
def pre_commit(text: str, here: Here) -> None:
    (entry,) = re.findall(r"^ +entry: approvals-bot (\w+)$", text, re.MULTILINE)
    (files,) = re.findall(r"^ +files: (\S+)$", text, re.MULTILINE)
    site = here.site()
    file = site.write("workflows/clock.py", READS_A_CLOCK)
    assert re.match(files, "workflows/clock.py")
    assert "AB101" in site.type(entry, str(file), fails=True).stdout


# ── docs/runs.md ──


@runs("async def double(number")
async def starting(guide: Any, here: Here) -> None:
    assert await guide.main(f"sqlite:///{here.folder}/own.db") == 42


@runs("async def share(amount")
async def what_fails_a_run_and_what_stalls_it(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        started = [await engine.start(guide.share, *given) for given in (("10", 4), ("10", 0), ("ten", 2))]
        await engine.settle()
        assert [await run.status() for run in started] == ["completed", "failed", "stalled"]


@runs("async def cash_desk(")
async def a_run_that_never_ends(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.cash_desk, "north", per_run=2)
        await engine.settle()
        for n in range(5):
            await engine.resume_hook("desk-north", f"order {n}")
        await engine.resume_hook("desk-north", "close")
        assert await run.return_value() == 5
        assert await run.status() == "continued"


@runs("async def invoice(amount")
async def finding_runs_by_attributes(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        runs = [
            await engine.start(guide.invoice, Decimal(amount), date(2026, 12, day))
            for day, amount in enumerate(("999.99", "1000.00", "4000"), 1)
        ]
        await engine.settle()
        assert await guide.large(engine) == [runs[2].id, runs[1].id]
        await engine.resume_hook("checked-4000", None)
        assert await runs[2].return_value() == "paid"
        assert await guide.large(engine) == [runs[1].id]


@runs("async def greet_as_before(")
async def versions(guide: Any, here: Here) -> None:
    assert (await play(guide.greet_as_before, "Ann")).result == "Hello Ann"
    assert (await play(guide.greet, "Ann")).result == "Good day, Ann"


@runs("async def mend(engine")
async def bugs_and_failures(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        with loaded(guide_share := example_with("async def share(amount")) as other:
            stalled, failed = [await engine.start(other.share, *given) for given in (("ten", 2), ("10", 0))]
            await engine.settle()
            again = await guide.mend(engine, stalled.id, failed.id)
            await engine.settle()
            assert (await stalled.status(), await again.status()) == ("stalled", "failed")
            assert again.id != failed.id
            assert functions_not_entered(guide_share, other) == set()


@runs("await engine.reset(run_id, to=")
async def going_on_from_an_earlier_event(guide: Any, here: Here) -> None:
    with loaded(example_with("async def booking(seats")) as other:
        async with here.open_engine() as engine:
            run = await engine.start(other.booking, 2)
            await engine.settle()
            new = await guide.before_the_bad_release(engine, run.id)
            await engine.settle()
            await engine.resume_hook("paid-R-2", "yes")
            assert await new.return_value() == await run.return_value() == "yes"


# ── docs/agents.md ──


@runs("async def shop_chat(")
async def a_chat_of_ones_own(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        asked = ChatTurn(chat="c", message="m", text="Refund it", owner="app:shop", approval="webhook")
        run = await engine.start(guide.shop_chat, asked)
        await engine.settle()
        record = await engine.record(run.id)
        assert record is not None
        target = await engine.find(record.view["parts"][0]["webhook"])
        assert target is not None
        await engine.resume_webhook(target, WebhookRequest.of_json({"approved": True}))
        assert "paid 0 back for a" in await run.return_value()


@uses("useChat({")
def a_page_of_the_ai_sdk(text: str, here: Here) -> None:
    folder = node_packages(TESTS / "support" / "ai_sdk" / "7")
    for names, package in re.findall(r'^import \{ (.+) \} from "(.+)";$', text, re.MULTILINE):
        asked = f"console.log([{names}].every((each) => typeof each === 'function'))"
        program = f'import {{ {names} }} from "{package}"; {asked}'
        command = ["node", "--input-type=module", "-e", program]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.strip() == "true", done.stderr


@uses('"allowance": {"tool": "pay"')
def a_vote_that_covers_the_next_calls(text: str, here: Here) -> None:
    allowance = CallAllowance.model_validate(json.loads(text)["allowance"])
    assert (allowance.tool, allowance.count) == ("pay", 5)


@uses("[chat]\nenabled   = true")
def a_chat_in_the_configuration(text: str, here: Here) -> None:
    ServiceSettings.model_validate(
        tomllib.loads(text)
        | {
            "server": {"base_url": "https://approve.acme.eu", "signing_keys": ["env:KEY"]},
            "groups": {"finance": ["fin@acme.eu"]},
        },
        context={"env": {"OPENAI_API_KEY": "sk-of-the-guide", "KEY": "k" * 40}},
    )


# ── docs/from-temporal.md ──


@runs("async def salary(")
async def activities(guide: Any, here: Here) -> None:
    async with here.open_engine(limits={"bank": 5}) as engine:
        paid = await (await engine.start(guide.salary, ["a", "b"], 5)).return_value()
        assert paid == ["a: 5 (.1)", "b: 5 (.2)"]
        failed = await engine.start(guide.salary, ["a"], 0)
        await engine.settle()
        assert await failed.status() == "failed"


@runs("async def transcode(")
async def polling(guide: Any, here: Here) -> None:
    percent = iter((10, 60, 100))
    played = await play(guide.transcode, "cat", steps={guide.progress_of: lambda job: next(percent)})
    assert played.result == "job-cat"
    assert (played.ended_at - played.log[0].at).total_seconds() == 120
    per_round = (len(played.log) - len((await play(guide.transcode, "cat", steps={guide.progress_of: 100})).log)) / 2
    assert per_round * 60 == 300, "the page says how many events an hour takes"
    async with here.open_engine() as engine:
        run = await engine.start(guide.transcode, "dog")
        await engine.settle()
        assert await run.status() == "failed", "the page's step has no body: None is no percentage"


@runs("async def shopping_cart(")
async def signals(guide: Any, here: Here) -> None:
    async with here.open_engine():
        first = await guide.add("ann", guide.Item(article="tea"), "request 1")
        assert await guide.add("ann", guide.Item(article="pens", quantity=3), "request 2") == first
        assert await guide.add("ann", guide.Item(article="tea"), "request 1") == first
        await guide.check_out("ann")
        assert await get_run(first).return_value() == "1 × tea, 3 × pens"
        assert await guide.add("ann", guide.Item(article="ink"), "request 3") != first


@runs("async def onboarding(")
async def queries(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.onboarding, "ann")
        await engine.settle()
        assert await guide.state_of(run.id) == {"person": "ann", "done": [], "waiting_for": "laptop"}
        await engine.resume_hook("laptop-ann", None)
        await engine.settle()
        assert await guide.state_of(run.id) == {"person": "ann", "done": ["laptop"], "waiting_for": "badge"}


@runs("async def thermostat(")
async def updates(guide: Any, here: Here) -> None:
    bodies = (b"{", b'{"degrees": 26}', b'{"degrees": 18}', b'{"degrees": 0}')
    played = await play(guide.thermostat, "lab", answers=[WebhookRequest(body=body) for body in bodies])
    assert played.result == 0
    assert [answer.status_code for answer in played.responses] == [400, 422, 200, 200]
    assert [answer.body for answer in played.responses[2:]] == [
        b'{"before": 20, "now": 18}',
        b'{"before": 18, "now": 0}',
    ]


@runs("async def ticket_answer(")
async def timers(guide: Any, here: Here) -> None:
    answered = await play(guide.ticket_answer, "T1", answers=[after("5 hours", "done")])
    assert (answered.result, len(answered.calls(guide.escalate))) == ("done", 1)
    silent = await play(guide.ticket_answer, "T2")
    assert silent.result == "closed without an answer"
    assert (silent.ended_at - silent.log[0].at).total_seconds() == 36 * 3600


@runs("async def trip(city")
async def cancellation(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.trip, "Rome")
        await engine.settle()
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await run.return_value()
        steps = [e.data["name"] for e in await run.events() if e.type == "step_created"]
        assert steps == ["reserve_hotel", "cancel_hotel"]
        asked, reserved = asyncio.Event(), asyncio.Event()

        async def reserve_slowly(city: str) -> str:
            asked.set()
            await reserved.wait()
            return f"hotel in {city}"

        guide.reserve_hotel.function = reserve_slowly
        early = await engine.start(guide.trip, "Oslo")
        await asked.wait()
        await early.cancel()
        reserved.set()
        with pytest.raises(RunCancelledError):
            await early.return_value()
        done = [e.data["input"] for e in await early.events() if e.data.get("name") == "cancel_hotel"]
        assert done == [{"reservation": "hotel in Oslo"}], "a reservation under way is cancelled when it is there"


@runs("async def cheapest(")
async def children(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.cheapest, "chair", ["acme", "initech"])
        await engine.settle()
        await engine.resume_hook("chair-acme", 90)
        await engine.resume_hook("chair-initech", 80)
        assert await run.return_value() == "initech"


@runs("async def meter(")
async def continue_as_new(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run = await engine.start(guide.meter, "m1", readings=2)
        await engine.settle()
        for reading in (1, 2, 3, -1):
            await engine.resume_hook("meter-m1", reading)
        assert await run.return_value() == 6
        assert await run.status() == "continued"


@runs("async def large_claims(")
async def search_attributes(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        small, large = [await engine.start(guide.claim, amount) for amount in (10, 1000)]
        await engine.settle()
        assert await guide.large_claims(engine) == [large.id]
        await engine.resume_hook("claim-1000", None)
        await large.return_value()
        assert await guide.large_claims(engine) == []
        assert await small.status() == "running"


@runs("async def parcel(order")
async def versions_side_by_side(guide: Any, here: Here) -> None:
    assert (await play(guide.parcel_before, "A")).calls(guide.insure_parcel) == []
    assert (await play(guide.parcel, "A")).calls(guide.insure_parcel) == [{"order": "A"}]
    async with here.open_engine() as engine:
        run = await engine.start("parcel", "B")
        assert await run.return_value() == "shipped B"
        assert next(e.data["name"] for e in await run.events() if e.type == "step_created") == "insure_parcel"


@runs("async def test_dunning(")
async def a_played_test(guide: Any, here: Here) -> None:
    await guide.test_dunning()
    assert await guide.send_invoice.function("acme") is None


def typed(site: Site, text: str, run: str = "") -> str:
    """Type each line of a shell example, with its $RUN, and return what the last one printed."""
    said = ""
    for line in text.splitlines():
        command, *words = shlex.split(line.replace("$RUN", run))
        assert command == "approvals-bot"
        said = site.type(*words).stdout
        site.work()
    return said


def scheduled(site: Site, toml: str, program: str) -> datetime:
    """Put a workflow's file beside its program, check them, and return the next time of its only schedule."""
    ((workflow, file),) = re.findall(r'^id += "([\w-]+)"\nrun += "(\w+):', toml, re.MULTILINE)
    site.write(f"workflows/{file}.py", program)
    site.write(f"workflows/{workflow}.toml", toml)
    site.type("check")
    site.type("migrate")
    (schedule,) = site.json("schedules")["schedules"]
    return datetime.fromisoformat(schedule["next"][0]).astimezone(ZoneInfo("Europe/Berlin"))


@uses('run     = "reports:weekly_report"')
def a_schedule(text: str, here: Here) -> None:
    next_time = scheduled(here.site(), text, example_with("async def weekly_report(").text)
    assert (next_time.weekday(), next_time.hour) == (0, 9)


@runs("async def weekly_report(")
async def what_a_schedule_starts(guide: Any, here: Here) -> None:
    assert (await play(guide.weekly_report, guide.Report(days=7))).result == "the last 7 days"


@uses('run     = "books:close_books"')
def a_schedule_for_users_of_temporal(text: str, here: Here) -> None:
    program = "from approvals_bot import workflow\n\n@workflow\nasync def close_books() -> None: ...\n"
    next_time = scheduled(here.site(), text, program)
    assert (next_time.day, next_time.hour) == (1, 6)


@uses("check --runs --ended 30d\n")
def replay_tests(text: str, here: Here) -> None:
    site = here.site()
    site.start()
    site.work()
    assert "1 open run continues with this code" in typed(site, text)


@uses("approvals-bot runs --status stalled")
def operating(text: str, here: Here) -> None:
    site = here.site()
    run = site.start()
    site.work()
    typed(site, text, run)
    assert {row["status"] for row in site.json("runs")["runs"]} == {"cancelled", "running"}


# ── docs/from-dbos.md ──


@runs("async def dbos_checkout(")
async def a_checkout(guide: Any, here: Here) -> None:
    async with here.open_engine() as engine:
        run_id = await guide.open_checkout("A-1")
        assert await guide.open_checkout("A-1") == run_id
        await engine.settle()
        assert (await get_run(run_id).wait(0)).view == {"link": "https://pay.acme.eu/A-1"}
        await engine.resume_hook("payment-A-1", "paid")
        assert await get_run(run_id).return_value() == "paid"
        late = await guide.open_checkout("A-2")
        await here.clock.advance("1h")
        assert await get_run(late).return_value() == "not paid"


# ── the examples, each by its runner ──

PYTHON = [each for each in EXAMPLES if any(mark in RUNNERS for mark in marks_in(each))]
TEXTS = [each for each in EXAMPLES if any(mark in TEXT_RUNNERS for mark in marks_in(each))]


@pytest.mark.parametrize("example", PYTHON, ids=lambda example: example.place)
async def test_an_example_does_what_it_says(example: Example, tmp_path: Path, clock: Any, open_engine: Any) -> None:
    (mark,) = marks_in(example)
    with loaded(example) as module:
        await RUNNERS[mark](module, Here(tmp_path, clock, open_engine))
        assert functions_not_entered(example, module) == set()


@pytest.mark.parametrize("example", TEXTS, ids=lambda example: example.place)
def test_an_example_of_a_file_or_command(example: Example, tmp_path: Path, clock: Any, open_engine: Any) -> None:
    (mark,) = marks_in(example)
    TEXT_RUNNERS[mark](example.text, Here(tmp_path, clock, open_engine))
