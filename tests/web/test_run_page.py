"""A run's page in production: who sees what of it, and what operators do there."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from approvals_bot.durable.core.api import create_hook, create_webhook, sleep, step, workflow
from approvals_bot.durable.engine import Run
from approvals_bot.durable.store.audit import AuditEntry
from tests.web.test_pages import sound
from tests.web.test_roles_on_pages import OURS, House, house  # noqa: F401  # the fixture

SECRET, WHY = "card 4711", "A bad release"


@step(retries=1, retry_delay="0s")
async def charge_a_card(order: str) -> str:
    raise ValueError(f"no funds for {order}")


@step
async def weigh_a_parcel(order: str) -> int:
    return len(order)


@workflow
async def pays_badly() -> None:
    await charge_a_card(SECRET)


@workflow
async def dozes_and_waits() -> int:
    weight = await weigh_a_parcel(SECRET)
    await sleep("3d")
    answer: int = await create_hook(schema=int, token="typed-by-hand-17")
    return weight + answer


@workflow
async def waits_for_a_call() -> None:
    await create_webhook()


async def begin(house: House, what: Any) -> str:  # noqa: F811
    run: Run[Any] = await house.service.engine.start(what)
    await house.service.engine.settle()
    return run.id


async def status_of(house: House, run: str) -> str:  # noqa: F811
    await house.service.engine.settle()
    record = await house.service.engine.record(run)
    assert record is not None
    return record.status


async def press(house: House, run: str, path: str, person: str = "di@acme.eu", **form: str) -> httpx2.Response:  # noqa: F811
    """Send a form from the run's page, with a reason unless another is given."""
    cookie = await house.cookie(person)
    page = await house.http.get(f"/runs/{run}", headers=cookie)
    token = page.text.partition('name="form_token" value="')[2].partition('"')[0]
    fields = {"form_token": token, "reason": WHY} | form
    answer = await house.http.post(f"/runs/{run}{path}", data=fields, headers=OURS | cookie)
    await house.service.engine.settle()
    return answer


async def audited(house: House, what: str) -> list[AuditEntry]:  # noqa: F811
    return [line.entry for line in await house.service.engine.audit_lines() if line.entry.what == what]


async def test_people_concerned_see_what_happened_viewers_all(house: House) -> None:  # noqa: F811
    run = await house.open()
    await house.api(f"/api/runs/{run}/votes", {"by": "ann@acme.eu", "choice": "approve", "comment": "Fine by me"})
    for person, is_viewer, operates in (
        ("bo@acme.eu", False, False),  # the requester
        ("eve@acme.eu", False, False),  # sees the requests of this workflow
        ("cy@acme.eu", True, False),  # a viewer
        ("di@acme.eu", True, True),  # an operator
    ):
        text = sound(await house.get(f"/runs/{run}", person))
        for words in ("Bo Lund opened the request.", "Ann Ode approved via the API", "Fine by me", "Reply: Approved."):
            assert words in text, (person, words)
        assert "Looked up Ann Ode and cy" in text, "a step by what it did, not by its function"
        assert ("<p>Input</p>" in text or "<p>Output</p>" in text) == is_viewer, person
        assert ("hook_received" in text) == is_viewer, person
        assert ("What you can do" in text) == operates, person
        data = await house.get(f"/runs/{run}.json", person)
        assert data.status_code == (200 if is_viewer else 403)
    assert [event["seq"] for event in data.json()["events"]][:2] == [1, 2]
    begun = await house.service.engine.start_by({"kind": "person", "id": "bo@acme.eu"}, dozes_and_waits)
    await house.service.engine.settle()
    own = await house.get(f"/runs/{begun.id}", "bo@acme.eu")
    assert (own.status_code, "Run started by Bo Lund." in own.text, SECRET in own.text) == (200, True, False)
    assert (await house.get(f"/runs/{begun.id}", "eve@acme.eu")).status_code == 403
    stranger = await house.get(f"/runs/{await begin(house, pays_badly)}", "bo@acme.eu")
    assert stranger.status_code == 403
    assert SECRET not in stranger.text


async def test_a_failed_run_says_where_its_step_failed(house: House) -> None:  # noqa: F811
    run = await begin(house, pays_badly)
    text = sound(await house.get(f"/runs/{run}", "di@acme.eu"))
    assert f"ValueError: no funds for {SECRET}" in text
    assert "test_run_page.py:" in text.partition("Raised at")[2][:60]
    assert "in step <code>charge_a_card</code>, attempt 2." in text
    assert text.count("Attempt 1, ") == 1
    assert "“charge a card” failed: card 4711, " in text


async def test_no_reader_of_a_run_gets_what_resumes_it(house: House) -> None:  # noqa: F811
    run = await begin(house, waits_for_a_call)
    for path in (f"/runs/{run}", f"/runs/{run}.json"):
        page = await house.get(path, "di@acme.eu")
        assert page.status_code == 200
        assert "/webhooks/" not in page.text
    dozing = await begin(house, dozes_and_waits)
    await press(house, dozing, "/wakeups")
    for path in (f"/runs/{dozing}", f"/runs/{dozing}.json"):
        assert "typed-by-hand-17" not in (await house.get(path, "cy@acme.eu")).text


async def test_an_operator_wakes_resumes_and_ends_runs(house: House) -> None:  # noqa: F811
    run = await begin(house, dozes_and_waits)
    page = sound(await house.get(f"/runs/{run}", "di@acme.eu"))
    assert "This sleep ends now, and the run goes on." in page
    assert (await press(house, run, "/wakeups", reason=" ")).status_code == 422, "without a reason nothing is done"
    for person in ("bo@acme.eu", "cy@acme.eu"):
        assert (await press(house, run, "/wakeups", person)).status_code == 403
    foreign = await press(house, run, "/wakeups", form_token="x")
    assert foreign.headers.get("location") == f"/runs/{run}?done=woken", "the browser vouches for it"
    assert (await press(house, run, "/wakeups")).status_code == 409
    page = sound(await house.get(f"/runs/{run}?done=woken", "di@acme.eu"))
    assert "Its sleeps are over" in page
    hook = page.partition(f"/runs/{run}/hooks/")[2].partition("/payloads")[0]
    for payload, fault in (("[", "JSON"), ('"five"', "valid integer")):
        wrong = await press(house, run, f"/hooks/{hook}/payloads", payload=payload, act=f"resume-{hook}")
        assert wrong.status_code == 422
        at = sound(wrong).partition(f'id="fault.resume-{hook}.payload">')[2].partition("</p>")[0]
        assert fault in at, "the mistake is said at its field"
        assert WHY in wrong.text
    done = await press(house, run, f"/hooks/{hook}/payloads", payload="5")
    assert (done.status_code, await status_of(house, run)) == (303, "completed")
    other = await begin(house, dozes_and_waits)
    assert (await press(house, other, f"/hooks/{hook}/payloads", payload="5")).status_code == 409
    assert (await press(house, other, "/cancellation")).headers["location"] == f"/runs/{other}?done=cancelled"
    assert await status_of(house, other) == "cancelled"
    again = await press(house, other, "/attempts")
    new = again.headers["location"].removeprefix("/runs/").removesuffix("?done=attempted")
    page = sound(await house.get(f"/runs/{new}?done=attempted", "di@acme.eu"))
    assert f"as another attempt at run {other}" in page
    for what in ("run_woken", "hook_resumed", "run_cancelled", "run_attempted"):
        (line,) = await audited(house, what)
        assert (line.who, line.data["reason"], (line.actor or {})["kind"]) == ("di@acme.eu", WHY, "person"), what


async def test_a_reset_is_shown_before_it_is_done(house: House) -> None:  # noqa: F811
    run = await begin(house, dozes_and_waits)
    shown = sound(await house.get(f"/runs/{run}?to=2", "di@acme.eu"))
    assert "A new run goes on from event 2" in shown
    assert "This step runs again:" in shown
    assert "<li>Ran “weigh a parcel”</li>" in shown
    assert "Show what it does" in sound(await house.get(f"/runs/{run}?to=99", "di@acme.eu"))
    for to, status in (("x", 422), ("99", 422)):
        assert (await press(house, run, "/reset", to=to)).status_code == status
    done = await press(house, run, "/reset", to="2")
    new = done.headers["location"].removeprefix("/runs/").removesuffix("?done=reset")
    assert (await status_of(house, run), await status_of(house, new)) == ("reset", "running")
    assert [line.data["reason"] for line in await audited(house, "run_reset")] == [WHY]


async def test_an_operator_cancels_a_request_and_never_votes(house: House) -> None:  # noqa: F811
    run = await house.open()
    view = await house.request(run)
    vote = json.dumps({"kind": "vote", "by": "ann@acme.eu", "choice": "approve", "via": "inbox"})
    refused = await press(house, run, f"/hooks/{view.hook_id}/payloads", payload=vote)
    assert (refused.status_code, (await house.request(run)).votes) == (403, ())
    assert "nobody can send it in their place" in sound(refused)
    assert (await press(house, run, "/cancellation", reason="Ordered twice")).status_code == 303
    ended = await house.request(run)
    assert (ended.state, ended.outcome and ended.outcome.by) == ("cancelled", "di@acme.eu")
    text = sound(await house.get(f"/requests/{run}", "bo@acme.eu"))
    assert "Cancelled by Di Oz via the inbox" in " ".join(text.split())
    assert "Ordered twice" in text
    assert [line.data.get("reason") for line in await audited(house, "acted")] == ["Ordered twice"]


CLOCK = '[clock]\ndeadline = "4h"\nremind = ["1h"]\non_deadline = "expire"'


@pytest.mark.parametrize("house", [CLOCK], indirect=True)
async def test_no_act_on_an_approvals_run_stands_for_a_vote(house: House) -> None:  # noqa: F811
    run = await house.open()
    for path in ("/wakeups", "/attempts"):  # neither its deadline nor a decision comes by an operator's hand
        refused = await press(house, run, path)
        assert (refused.status_code, await status_of(house, run)) == (409, "running"), path
        assert "othing was changed." in sound(refused), path
    await house.api(f"/api/runs/{run}/votes", {"by": "ann@acme.eu", "choice": "reject", "comment": "Not yet"})
    assert (await house.request(run)).state == "rejected"
    reset = await press(house, run, "/reset", to="2")
    again = reset.headers["location"].removeprefix("/runs/").removesuffix("?done=reset")
    view = await house.request(again)
    assert (view.state, view.votes, view.requester) == ("waiting", (), "bo@acme.eu"), "everybody is asked once more"
    assert [await status_of(house, each) for each in (run, again)] == ["reset", "running"]
