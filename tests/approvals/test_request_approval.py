"""`request_approval` in Python workflows, on a real engine and store, with channels that record."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from approvals_bot import (
    Approved,
    Ask,
    ChangesRequested,
    Clock,
    Deliver,
    Edited,
    Escalation,
    Policy,
    Seat,
    Stage,
    publish,
    request_approval,
    sleep,
    workflow,
)
from approvals_bot.approvals.business_time import Calendar
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.durable.core.events import is_whole_step
from approvals_bot.durable.engine import Engine, Run
from approvals_bot.durable.store import connect
from approvals_bot.errors import HookNotFoundError, RunCancelledError, RunFailedError
from approvals_bot.service.read import find_record, request_of, requests_of

ANN, BO, CY, DI, CFO = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di", "cfo"))


async def views(office: Any, run: Run[Any]) -> list[Request]:
    record = await office.engine.record(run.id)
    return list(requests_of(record))


async def vote(office: Any, view: Request, by: str, choice: str = "approve", **more: Any) -> str:
    hook = await office.engine.find_hook(view.hook_id)
    message = {"kind": "vote", "by": by, "choice": choice, "comment": "so" if choice != "approve" else ""} | more
    answer = await office.engine.resume_webhook(hook.token, WebhookRequest.of_json(message), timeout=20)
    await office.settle()
    return str(json.loads(bytes(answer.body))["verdict"])


async def test_an_approval_says_who_when_how_and_to_what(office: Any) -> None:
    @workflow
    async def buy(what: str) -> list[Any]:
        outcome = await request_approval(
            f"Buy {what}", fields={"what": what, "price": Decimal("12.50"), "by": date(2026, 3, 9)}, approvers=ANN
        )
        match outcome:
            case Approved(by=by, comment=comment, via=via, fields=fields):
                outcome.require({"what": what, "price": Decimal("12.5"), "by": date(2026, 3, 9)})
                return [by, via, comment, fields["price"], fields["by"], outcome.at]
            case _:
                return []

    async with office.open():
        run = await office.engine.start(buy, "a {{ chair }}")
        await office.settle()
        (view,) = await views(office, run)
        assert (view.id, view.title, view.state) == (f"{run.id}.1", "Buy a {{ chair }}", "waiting")
        assert view.waiting_for == (ANN,)
        assert view.digest, "everything is pinned unless it is said otherwise"
        assert [sent.card.title for sent in office.slack.to(ANN)] == ["Buy a {{ chair }}"]
        assert office.slack.sent[0].card.url == f"http://127.0.0.1/requests/{run.id}.1"
        assert await vote(office, view, BO) == "not_an_approver"
        assert await vote(office, view, ANN, comment="fine", via="slack") == "decided"
        assert await run.return_value() == [ANN, "slack", "fine", Decimal("12.50"), date(2026, 3, 9), view.asked_at]
        assert office.slack.newest(ANN).card.state == "approved"
        (view,) = await views(office, run)
        assert (view.state, view.waiting_for) == ("approved", ())


async def test_simultaneous_requests_have_numbers(office: Any) -> None:
    @workflow
    async def three() -> list[str]:
        opened = [request_approval(f"Number {n}", approvers=address) for n, address in ((1, ANN), (2, BO), (3, ANN))]
        return [type(outcome).__name__ for outcome in await asyncio.gather(*opened)]

    async with office.open():
        run = await office.engine.start(three)
        await office.settle()
        first, second, third = await views(office, run)
        assert [view.number for view in (first, second, third)] == [1, 2, 3]
        found = await office.engine.records(waiting_for=BO)
        assert [record.id for record in found.records] == [run.id]
        assert await vote(office, third, ANN, "reject") == "decided"
        assert await vote(office, second, BO) == "decided"
        record = await find_record(office.engine, f"{run.id}.2")
        assert record is not None
        assert (shown := request_of(record))
        assert (shown.title, shown.state) == ("Number 2", "approved")
        assert (await office.engine.records(waiting_for=BO)).records == []
        published = request_of(await office.engine.record(run.id))
        assert published is not None
        assert published.number == 1, "the run stands for the one that is open"
        assert await vote(office, first, ANN) == "decided"
        assert await run.return_value() == ["Approved", "Approved", "Rejected"]
        ids = [sent.delivery_id for sent in (*office.slack.sent, *office.email.sent)]
        assert len(ids) == len(set(ids))


async def test_a_loop_can_request_again_after_requested_changes(office: Any) -> None:
    @workflow
    async def release_notes() -> str:
        text, rounds = "first", 0
        while True:
            rounds += 1
            match await request_approval(
                "Publish?", fields={"text": text}, approvers=ANN, outcomes=["approve", "changes", "reject"]
            ):
                case ChangesRequested(comment=wish):
                    text = wish
                case Approved():
                    return f"{text} after {rounds}"
                case _:
                    return "no"

    async with office.open():
        run = await office.engine.start(release_notes)
        await office.settle()
        assert await vote(office, (await views(office, run))[-1], ANN, "changes", comment="second") == "counted"
        first, second = await views(office, run)
        assert (first.state, second.state) == ("changes_requested", "waiting")
        assert second.fields == {"text": "second"}
        assert office.slack.newest(ANN).card.state in ("changes_requested", "waiting")
        assert office.slack.to(ANN)[1].card.fields[0].value == "second"
        assert await vote(office, second, ANN) == "decided"
        assert await run.return_value() == "second after 2"


async def test_a_workflow_that_stops_waiting_cancels_its_request(office: Any) -> None:
    @workflow
    async def hasty() -> str:
        try:
            async with asyncio.timeout(3600):
                await request_approval("Now?", approvers=ANN)
        except TimeoutError:
            await sleep("1h")
            return "went on"
        return "answered"

    async with office.open():
        run = await office.engine.start(hasty)
        await office.settle()
        (view,) = await views(office, run)
        await office.clock.advance("1h")
        (view,) = await views(office, run)
        assert view.state == "cancelled"
        assert office.slack.newest(ANN).card.state == "cancelled"
        with pytest.raises(HookNotFoundError):
            await vote(office, view, ANN)
        await office.clock.advance("1h")
        assert await run.return_value() == "went on"


async def test_a_vote_counted_too_late_decides_nothing(office: Any) -> None:
    """Once the workflow got `TimeoutError`, nobody may read "approved"."""

    @workflow
    async def hasty() -> str:
        try:
            async with asyncio.timeout(60):
                await request_approval("Now?", approvers="@live")
        except TimeoutError:
            return "too late"
        return "answered"

    entered, go = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        entered.set()
        await go.wait()
        return {"people": [BO]}

    async with office.open():
        run = await office.engine.start(hasty)
        await office.settle()
        (view,) = await views(office, run)
        office.live.read = slow
        casting = asyncio.create_task(vote(office, view, BO))
        await entered.wait()
        moving = asyncio.create_task(office.clock.advance(61))
        while not any(event.type == "wait_completed" for event in await office.engine.events(run.id)):
            await asyncio.sleep(0.01)
        go.set()
        assert await casting == "withdrawn"
        await moving
        assert await run.return_value() == "too late"
        (view,) = await views(office, run)
        assert view.state == "cancelled"


async def test_pending_requests_are_cancelled_when_the_workflow_ends(office: Any) -> None:
    @workflow
    async def race() -> str:
        both = [asyncio.ensure_future(request_approval(f"To {address}", approvers=address)) for address in (ANN, BO)]
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result().by

    async with office.open():
        run = await office.engine.start(race)
        await office.settle()
        first, _ = await views(office, run)
        assert await vote(office, first, ANN) == "decided"
        assert await run.return_value() == ANN
        assert [view.state for view in await views(office, run)] == ["approved", "cancelled"]
        assert office.slack.newest(BO).card.state == "cancelled"


async def test_stopping_the_run_ends_all_its_requests(office: Any) -> None:
    seen: list[str] = []

    @workflow
    async def two() -> None:
        try:
            await asyncio.gather(*(request_approval(f"To {address}", approvers=address) for address in (ANN, BO)))
        finally:
            seen.append("cleaned up")

    async with office.open():
        run = await office.engine.start(two)
        await office.settle()
        first, _ = await views(office, run)
        assert await vote(office, first, "app:ci", kind="stop", reason="not needed") == "taken_back"
        with pytest.raises(RunCancelledError):
            await run.return_value()
        assert seen
        assert [view.state for view in await views(office, run)] == ["cancelled", "cancelled"]
        assert {office.slack.newest(address).card.state for address in (ANN, BO)} == {"cancelled"}


async def test_cancelling_a_run_cancels_its_requests(office: Any) -> None:
    seen: list[str] = []

    @workflow
    async def one() -> None:
        try:
            await request_approval("Now?", approvers=ANN)
        finally:
            seen.append("cleaned up")

    async with office.open():
        run = await office.engine.start(one)
        await office.settle()
        await run.cancel(reason="enough")
        with pytest.raises(RunCancelledError, match="enough"):
            await run.return_value()
        assert await run.status() == "cancelled"
        assert seen
        (view,) = await views(office, run)
        assert (view.state, view.waiting_for) == ("cancelled", ())
        assert office.slack.newest(ANN).card.state == "cancelled"


async def test_a_run_cancelled_offline_tidies_up_later(office: Any) -> None:
    @workflow
    async def one_offline() -> None:
        await request_approval("Now?", approvers=ANN)

    async with office.open():
        run_id = (await office.engine.start(one_offline)).id
        await office.settle()
    looking = Engine(await connect(office.url), clock=office.clock)
    async with looking.running(work=False):
        await looking.cancel(run_id, reason="enough")
        assert await looking.get_run(run_id).status() == "running"
    async with office.open():
        run = office.engine.get_run(run_id)
        with pytest.raises(RunCancelledError, match="enough"):
            await run.return_value()
        (view,) = await views(office, run)
        assert (view.state, view.waiting_for) == ("cancelled", ())
        assert office.slack.newest(ANN).card.state == "cancelled"


async def test_edited_fields_are_not_plainly_approved(office: Any) -> None:
    @workflow
    async def pays_what_was_edited() -> str:
        outcome = await request_approval(
            "Pay?",
            fields={"to": "Bo", "cents": 900},
            editable=["cents"],
            approvers=ANN,
            outcomes=["approve", "edit", "reject"],
        )
        match outcome:
            case Edited(fields=fields):
                outcome.require(fields)
                outcome.require({"to": "Bo", "cents": 900})
            case Approved():
                return "plain"
        return "?"

    async with office.open():
        run = await office.engine.start(pays_what_was_edited)
        await office.settle()
        (view,) = await views(office, run)
        assert await vote(office, view, ANN, "edit", fields={"cents": 100}) == "decided"
        with pytest.raises(RunFailedError, match="is not what is about to be done"):
            await run.return_value()


async def test_stages_forms_clock_and_answers_work_as_in_a_file(office: Any) -> None:
    @dataclass
    class Deploy:
        service: str
        canary: bool = False

    @workflow
    async def deploy() -> Any:
        outcome = await request_approval(
            "Deploy",
            fields=Deploy("api"),
            stages=[
                {"id": "go", "from": ["@release-managers"], "ask": {"window": {"type": "enum", "values": ["a", "b"]}}},
                {"id": "sre", "from": ["@sre"], "need": 2},
            ],
            deliver={"slack": "#deploys"},
            clock={"deadline": "4h", "remind": ["1h"]},
            requester=DI,
        )
        return [type(outcome).__name__, outcome.answers, outcome.all_answers, outcome.by]

    async with office.open():
        run = await office.engine.start(deploy)
        await office.settle()
        (view,) = await views(office, run)
        assert [timer.at - view.asked_at for timer in view.timers] == [timedelta(hours=1), timedelta(hours=4)]
        assert await vote(office, view, DI) == "own_request"
        assert await vote(office, view, ANN) == "invalid"
        assert await vote(office, view, ANN, answers={"window": "b"}) == "counted"
        assert await vote(office, view, BO) == "counted"
        await office.clock.advance("4h")
        assert await run.return_value() == ["Expired", {"window": "b"}, {"go": {ANN: {"window": "b"}}}, "deadline"]


TABLES: dict[str, Any] = {
    "stages": [
        {"id": "sre", "from": [ANN, BO], "need": 2, "ask": {"window": {"type": "enum", "values": ["now", "later"]}}},
        {"id": "both", "seat": [{"from": [CY]}, {"from": [CFO], "notify": []}], "comment": "always"},
    ],
    "form": {"price": {"type": "money", "currency": "EUR"}},
    "deliver": {"slack": "#deploys", "email": "after 10m"},
    "clock": {"deadline": "4h", "remind": ["30m"], "on_deadline": "reject"},
    "policy": {"reject": 2, "grace": "30s", "on_change": {"price": "reset-if-raised"}},
    "escalate": [{"after": "1h", "to": [DI], "mode": "replace"}],
}


async def test_models_and_tables_of_a_file_are_equivalent(office: Any) -> None:
    @workflow
    async def by_tables() -> None:
        await request_approval("Deploy", fields={"price": "5"}, **TABLES)

    @workflow
    async def by_models() -> None:
        await request_approval(
            "Deploy",
            fields={"price": "5"},
            stages=[
                Stage(id="sre", from_=[ANN, BO], need=2, ask={"window": Ask(type="enum", values=["now", "later"])}),
                Stage(id="both", seat=[Seat(from_=[CY]), Seat(from_=[CFO], notify=[])], comment="always"),
            ],
            form={"price": Ask(type="money", currency="EUR")},
            deliver=Deliver(slack="#deploys", email="after 10m"),
            clock=Clock(deadline="4h", remind=[timedelta(minutes=30)], on_deadline="reject"),
            policy=Policy(reject=2, grace=timedelta(seconds=30), on_change={"price": "reset-if-raised"}),
            escalate=[Escalation(after="1h", to=[DI], mode="replace")],
        )

    async with office.open():
        opened = []
        for each in (by_tables, by_models):
            run = await office.engine.start(each)
            await office.settle()
            log = await office.engine.events(run.id)
            kept = next(event.data["result"]["definition"] for event in log if is_whole_step(event))
            opened.append({**kept, "workflow": {}})
        assert opened[0] == opened[1]


def test_an_invalid_model_names_the_fault() -> None:
    with pytest.raises(ValueError, match="silence would approve"):
        Clock(deadline="4h", on_deadline="approve")
    with pytest.raises(ValueError, match="from"):
        Seat(from_=[])


def test_a_file_has_no_trailing_underscore() -> None:
    with pytest.raises(ValueError, match="from_"):
        Seat.model_validate({"from_": [ANN]}, context={})


async def test_requests_survive_restarts_and_changed_code(office: Any) -> None:
    def define(title: str, address: str) -> Any:
        @workflow(name="asking")
        async def asking() -> str:
            outcome = await request_approval(title, approvers=address)
            return f"{type(outcome).__name__} by {outcome.by}"

        return asking

    before = define("Before?", ANN)
    async with office.open():
        run = await office.engine.start(before)
        await office.settle()
    after = define("After?", BO)
    async with office.open():
        (view,) = await views(office, run)
        assert await vote(office, view, BO) == "not_an_approver"
        assert await vote(office, view, ANN, "reject") == "decided"
        (view,) = await views(office, run)
        assert view.title == "Before?"
        assert await office.engine.get_run(run.id).return_value() == f"Rejected by {ANN}"
    assert before is not after


async def test_a_workflow_can_still_publish_its_own_value(office: Any) -> None:
    @workflow
    async def busy() -> None:
        publish({"progress": 1})
        await request_approval("Now?", approvers=ANN)
        publish({"progress": 2})
        await sleep("1h")

    async with office.open():
        run = await office.engine.start(busy)
        await office.settle()
        assert (await office.engine.record(run.id)).view == {"progress": 1}
        await vote(office, (await views(office, run))[0], ANN)
        assert (await office.engine.record(run.id)).view == {"progress": 2}


async def test_many_requests_keep_the_projection_small(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("approvals_bot.approvals.published.MOST_ENDED", 3)

    @workflow
    async def many() -> int:
        for number in range(5):
            await request_approval(f"Number {number}", approvers=ANN, deliver={})
        return 5

    async with office.open():
        run = await office.engine.start(many)
        await office.settle()
        for _ in range(5):
            (view,) = [view for view in await views(office, run) if view.is_open]
            assert await vote(office, view, ANN) == "decided"
        assert await run.return_value() == 5
        shown = await views(office, run)
        assert (len(shown), shown[-1].number) == (3, 5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "pass either approvers"),
        ({"approvers": ANN, "stages": [{"id": "a", "from": [BO]}]}, "pass either approvers"),
        ({"approvers": ANN, "fields": {"it": object()}}, "a field can't show a object"),
        ({"approvers": ANN, "pinned": ["it"]}, "no field named 'it'"),
        ({"approvers": ANN, "clock": {"deadine": "4h"}}, "deadine"),
        ({"approvers": ANN, "clock": {"deadline": "2 business days"}}, "2 business days needs a calendar"),
        ({"approvers": "@nobody"}, "nobody can approve|Nobody could decide"),
        ({"stages": [{"id": "a", "from": [ANN]}, {"id": "a", "from": [BO]}]}, "two stages are named 'a'"),
    ],
)
async def test_invalid_arguments_raise_an_error_with_the_reason(office: Any, given: Any, says: str) -> None:
    @workflow
    async def asking() -> None:
        await request_approval("Now?", **given)

    async with office.open():
        run = await office.engine.start(asking)
        await office.settle()
        with pytest.raises(RunFailedError, match=says):
            await run.return_value()
        assert not office.slack.sent


async def test_business_days_use_a_calendar_of_the_service(office: Any) -> None:
    @workflow
    async def patient() -> str:
        clock = {"deadline": "1 business day", "calendar": "office"}
        return type(await request_approval("Now?", approvers=ANN, clock=clock)).__name__

    office.calendars["office"] = Calendar.model_validate({"zone": "UTC", "hours": "09:00-17:00"})
    async with office.open():
        await office.clock.advance("4 days 7h")  # Friday afternoon
        run = await office.engine.start(patient)
        await office.settle()
        (view,) = await views(office, run)
        assert view.deadline is not None
        assert (view.deadline - view.asked_at) == timedelta(days=3)
        await office.clock.advance("3 days")
        assert await run.return_value() == "Expired"
