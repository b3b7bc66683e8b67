"""Attempts and resets over the API, and what a reset does to pages and links that people have."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot import create_hook, step, workflow
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed
from tests.web.test_decisions import form_of, open_request, press

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
IS_BROKEN = {"release": True}


@step(retries=0)
async def work_out(answer: str) -> str:
    if IS_BROKEN["release"]:
        raise ValueError("release 1.4.0 is wrong")
    return answer.upper()


@workflow
async def question(token: str) -> str:
    return await work_out(await create_hook(token))


@workflow
async def wrong() -> str:
    if IS_BROKEN["release"]:
        raise AttributeError("no such attribute")
    return str(await create_hook("wrong"))


@pytest.fixture(autouse=True)
def broken() -> None:
    IS_BROKEN["release"] = True


@pytest.fixture
async def asked(service: Any) -> Any:
    definition = Definition.model_validate(
        {
            "workflow": {"id": "deploy", "title": "Deploy {{ service }} {{ version }}", "request": ["*", "app:desk"]},
            "fields": {"service": "string", "version": {"type": "string", "pinned": True}},
            "stage": [{"id": "go", "from": ["@release-managers"], "need": 2}],
            "clock": {"deadline": "4h"},
        }
    )
    service.workflows["deploy"] = Listed(approval.under("deploy", pinned(definition)), definition)
    for each in (question, wrong):
        service.workflows[each.name] = Listed(each)
    return service


async def repair(service: Any, run_id: str, act: str, **body: Any) -> Any:
    answer = await service.api.post(f"/api/runs/{run_id}/{act}", json={"reason": "a bad release", **body})
    await service.engine.settle()
    return answer


async def reset(service: Any, run_id: str, to: int, **more: Any) -> str:
    answer = await repair(service, run_id, "reset", to=to, **more)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/api/runs/{answer.json()['run_id']}"
    return str(answer.json()["run_id"])


async def seq_of(service: Any, run_id: str, type: str) -> int:
    seqs: list[int] = [event.seq for event in await service.engine.events(run_id) if event.type == type]
    return max(seqs)


# ── links, pages and votes of a request that was reset ──


async def test_links_and_open_forms_reach_the_new_run(asked: Any) -> None:
    run_id = await open_request(asked)
    ann, bo = await asked.link(run_id, "ann@acme.eu"), await asked.link(run_id, "bo@acme.eu")
    form = form_of(await asked.web.get(bo), "approve")
    new = await reset(asked, run_id, await seq_of(asked, run_id, "hook_created"))
    assert (await press(asked, ann, "approve")).status_code == 303
    assert (await asked.web.post(bo, data=form, headers=OURS)).status_code == 303
    await asked.engine.settle()
    assert (await asked.run(new))["request"]["outcome"] == "approved"
    assert [vote["by"] for vote in (await asked.run(new))["request"]["votes"]] == ["ann@acme.eu", "bo@acme.eu"]
    old = await asked.run(run_id)
    assert (old["status"], old["next_run"], old["request"]["waiting_for"]) == ("reset", new, [])


async def test_votes_after_the_event_count_again(asked: Any) -> None:
    run_id = await open_request(asked)
    to = await seq_of(asked, run_id, "hook_created")
    await press(asked, await asked.link(run_id, "ann@acme.eu"), "approve")
    new = await reset(asked, run_id, to)
    assert [vote["by"] for vote in (await asked.run(new))["request"]["votes"]] == ["ann@acme.eu"]
    dropped = await reset(asked, new, to, drop_payloads=True)
    assert (await asked.run(dropped))["request"]["votes"] == []


async def test_the_old_page_leads_to_the_new_request(open_service: Any) -> None:
    async with open_service(open_pages=True) as service:
        definition = Definition.model_validate(
            {
                "workflow": {"id": "deploy", "title": "Deploy", "request": ["*", "app:desk"]},
                "fields": {"service": "string", "version": "string"},
                "stage": [{"id": "go", "from": ["@release-managers"], "need": 2}],
            }
        )
        service.workflows["deploy"] = Listed(approval.under("deploy", pinned(definition)), definition)
        run_id = await open_request(service)
        new = await reset(service, run_id, 3)
        leads = await service.web.get(f"/requests/{run_id}", follow_redirects=False)
        assert (leads.status_code, leads.headers["location"]) == (303, new)
        assert new in (await service.web.get(f"/runs/{run_id}")).text
        assert f"from event 3 of run {run_id}" in (await service.web.get(f"/runs/{new}")).text
        inbox = (await service.web.get("/inbox?person=ann@acme.eu")).text
        assert (f"/requests/{new}" in inbox, f"/requests/{run_id}" in inbox) == (True, False)


async def test_acts_by_the_old_id_reach_the_new_run_or_say_so(asked: Any) -> None:
    run_id = await open_request(asked, requester="cfo@acme.eu")
    new = await reset(asked, run_id, 3)
    vote = {"by": "ann@acme.eu", "choice": "approve"}
    assert (await asked.api.post(f"/api/runs/{run_id}/votes", json=vote)).status_code == 201
    assert [each["by"] for each in (await asked.run(new))["request"]["votes"]] == ["ann@acme.eu"]
    refused = await asked.api.post(f"/api/runs/{run_id}/cancellation", json={})
    assert (refused.status_code, refused.json()["next_run"]) == (409, new)


async def test_a_link_never_becomes_another_persons(asked: Any) -> None:
    """An id of a recipient that is counted would be the next person's after a reset."""
    run_id = await open_request(asked)
    before = (await asked.view(run_id))["recipients"]
    new = await reset(asked, run_id, await seq_of(asked, run_id, "hook_created"))
    after = (await asked.view(new))["recipients"]
    assert before == after
    assert all(len(id) > 10 for id in after)


# ── the API ──


async def test_a_failed_run_starts_again_once(asked: Any) -> None:
    run_id = await asked.start("question", {"token": "q"})
    await asked.engine.resume_hook("q", "yes")
    await asked.engine.settle()
    assert (await asked.run(run_id))["status"] == "failed"
    first = await repair(asked, run_id, "attempts")
    again = await repair(asked, run_id, "attempts")
    assert (first.status_code, again.status_code) == (202, 200)
    new = first.json()["run_id"]
    assert (again.json()["run_id"], new == run_id) == (new, False)
    lines = [line.entry for line in await asked.engine.audit_lines() if line.entry.what == "run_attempted"]
    assert [(line.who, line.run_id, line.data["next_run"], line.data["reason"]) for line in lines] == (
        [("app:desk", run_id, new, "a bad release")] * 2
    )


async def test_a_failed_run_goes_on_from_before_the_bug(asked: Any) -> None:
    run_id = await asked.start("question", {"token": "q"})
    await asked.engine.resume_hook("q", "yes")
    await asked.engine.settle()
    IS_BROKEN["release"] = False
    new = await reset(asked, run_id, await seq_of(asked, run_id, "hook_created"))
    assert ((await asked.run(new))["status"], (await asked.run(new))["result"]) == ("completed", "YES")
    found = await asked.run(run_id)
    assert (found["status"], found["next_run"]) == ("failed", new)
    (line,) = [line.entry for line in await asked.engine.audit_lines() if line.entry.what == "run_reset"]
    assert (line.who, line.run_id, line.data["next_run"], line.data["reason"]) == (
        ("app:desk", run_id, new, "a bad release")
    )


async def test_a_stalled_run_is_retried_in_place(asked: Any) -> None:
    run_id = await asked.start("wrong")
    assert (await asked.run(run_id))["status"] == "stalled"
    IS_BROKEN["release"] = False
    answer = await repair(asked, run_id, "attempts")
    assert (answer.status_code, answer.json()["run_id"]) == (202, run_id)
    assert (await asked.run(run_id))["status"] == "running"


async def test_a_key_needs_the_right_to_operate(asked: Any) -> None:
    run_id = await asked.start("question", {"token": "q"})
    for act, body in (("attempts", {"reason": "x"}), ("reset", {"to": 1, "reason": "x"})):
        refused = await asked.plain.post(f"/api/runs/{run_id}/{act}", json=body)
        assert (refused.status_code, refused.json()["title"]) == (403, "Key may not operate")
        assert (await asked.web.post(f"/api/runs/{run_id}/{act}", json=body)).status_code == 401
    assert (await asked.run(run_id))["status"] == "running"


async def test_what_cannot_be_done_says_why_and_changes_nothing(asked: Any) -> None:
    run_id = await asked.start("question", {"token": "q"})
    other = await asked.start("question", {"token": "other"})
    assert (await repair(asked, "run_unknown", "attempts")).status_code == 404
    assert (await repair(asked, "run_unknown", "reset", to=1)).status_code == 404
    is_open = await repair(asked, run_id, "attempts")
    assert (is_open.status_code, is_open.json()["title"]) == (409, "Run is open")
    too_far = await repair(asked, run_id, "reset", to=99)
    assert (too_far.status_code, too_far.json()["errors"][0]["loc"]) == (422, ["to"])
    for wrong_body in ({"to": 0}, {"to": "3"}, {"to": 3, "reason": ""}, {"to": 3, "more": 1}, {}):
        assert (await repair(asked, run_id, "reset", **wrong_body)).status_code == 422
    for no_reason in ("", " \n"):
        assert (await repair(asked, run_id, "attempts", reason=no_reason)).status_code == 422
    assert (await asked.run(run_id))["status"] == "running"

    await asked.engine.cancel(other)
    owner = await asked.start("question", {"token": "other"})
    taken = await repair(asked, other, "reset", to=3)
    assert (taken.status_code, taken.json()["run_id"], "other" in taken.json()["detail"]) == (409, owner, False)
    new = await reset(asked, run_id, 3)
    again = await repair(asked, run_id, "reset", to=3)
    assert (again.status_code, again.json()["run_id"]) == (200, new)
    elsewhere = await repair(asked, run_id, "reset", to=2)
    assert (elsewhere.status_code, elsewhere.json()["next_run"]) == (409, new)
