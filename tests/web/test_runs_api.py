"""The API of runs and requests."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import create_hook, publish, workflow
from approvals_bot.service.catalog import Listed
from approvals_bot.service.history import history_of


class Guest(BaseModel):
    name: str
    age: int = 30


@workflow
async def greet(guest: Guest) -> str:
    publish({"hook_id": "not a request", "seen": guest.name})
    said = await create_hook(f"reply/{guest.name}")
    return f"{guest.name}: {said}"


@workflow
async def tick() -> str:
    return "tock"


DEFINITIONS: dict[str, dict[str, Any]] = {
    "deploy": {
        "workflow": {"title": "Deploy {{ version }}", "request": ["@engineers", "app:ci"]},
        "fields": {"version": {"type": "string", "pinned": True}, "env": {"type": "enum", "values": ["dev", "prod"]}},
        "auto": [{"when": 'env == "dev"', "decision": "approve"}],
        "stage": [{"id": "go", "from": ["@release-managers"]}],
    },
    "expense": {
        "workflow": {"title": "{{ amount }}", "request": ["*"]},
        "fields": {"amount": {"type": "money", "currency": "EUR", "min": "0.01"}},
        "stage": [{"id": "manager", "from": ["manager-of:requester"]}],
    },
    "access": {
        "workflow": {"title": "Access to {{ env }}", "request": ["*"]},
        "fields": {"env": {"type": "enum", "values": ["dev", "prod"]}},
        "request": [{"from": ["*"], "when": 'env == "dev"'}, {"from": ["@release-managers"]}],
        "stage": [{"id": "go", "from": ["ann@acme.eu", "di@acme.eu"]}],
    },
    "flight": {
        "workflow": {
            "title": "Book {{ flight }}",
            "request": ["app:ci"],
            "on_behalf_of": "required",
            "key": "{{ call }}",
        },
        "fields": {"call": "string", "flight": {"type": "string", "editable": True}},
        "stage": [{"id": "traveller", "from": ["on-behalf-of"], "outcomes": ["approve", "edit", "reject"]}],
    },
}


@pytest.fixture
async def office(service: Any) -> Any:
    """A service that lists two Python workflows and three approvals."""
    service.workflows[greet.name] = Listed(greet)
    service.workflows[tick.name] = Listed(tick)
    for name, tables in DEFINITIONS.items():
        definition = Definition.model_validate(tables | {"workflow": {"id": name, **tables["workflow"]}})
        service.workflows[name] = Listed(approval.under(name, pinned(definition)), definition)
    return service


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert {"type", "title", "status", "detail"} <= found.keys()
    return found


def places(answer: Any) -> list[list[Any]]:
    return [error["loc"] for error in problem(answer, 422)["errors"]]


PROD = {"version": "2.1", "env": "prod"}


# ── opening ──


async def test_the_url_of_a_run_is_the_page_of_its_request(office: Any) -> None:
    for name, input, page in (("deploy", PROD, "requests"), ("tick", {}, "runs")):
        asked = {"workflow": name, "input": input, "requester": "bo@acme.eu"}
        opened = await office.api.post("/api/runs", json=asked)
        assert opened.status_code == 202, opened.text
        assert opened.json()["url"].endswith(f".eu/{page}/{opened.json()['run_id']}")


async def test_a_run_is_started_waited_for_and_read(office: Any) -> None:
    run_id = await office.start("greet", {"name": "Ann"})
    waiting = await office.run(run_id)
    assert waiting == {
        "id": run_id,
        "workflow": "greet",
        "status": "running",
        "result": None,
        "error": None,
        "created_at": "2026-01-01T09:00:00+00:00",
        "ended_at": None,
        "stalled": None,
        "request": None,
        "view": {"hook_id": "not a request", "seen": "Ann"},
        "waiting": [{"kind": "hook", "since": "2026-01-01T09:00:00Z", "metadata": None, "token": "reply/Ann"}],
    }
    assert (await office.api.post("/api/hooks/reply/Ann", json="hello")).status_code == 200
    ended = (await office.api.get(f"/api/runs/{run_id}?wait=5")).json()
    assert (ended["status"], ended["result"]) == ("completed", "Ann: hello")


async def test_without_a_key_every_call_is_401_and_says_how(office: Any, open_service: Any) -> None:
    for path in ("/api/runs", "/api/runs/x", "/api/runs/x/events", "/api/hooks/x"):
        assert problem(await office.web.get(path), 401)
        answer = await office.web.get(path, headers={"Authorization": "Bearer wrong"})
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert problem(await office.web.get(path, headers={"Authorization": "Basic ZGVzay1rZXk="}), 401)


async def test_a_service_without_keys_lets_nobody_in(open_service: Any) -> None:
    async with open_service(keys=False) as service:
        for client in (service.api, service.web):
            assert "no API keys" in problem(await client.get("/api/runs"), 401)["detail"]
        empty = await service.web.get("/api/runs", headers={"Authorization": "Bearer "})
        assert problem(empty, 401)


async def test_values_that_the_requester_may_not_have_are_403(office: Any) -> None:
    asked = {"workflow": "access", "requester": "di@acme.eu", "input": {"env": "prod"}}
    assert "with these values" in problem(await office.api.post("/api/runs", json=asked), 403)["detail"]
    opened = await office.api.post("/api/runs", json=asked | {"input": {"env": "dev"}})
    assert opened.status_code == 202
    await office.engine.settle()
    path = f"/api/runs/{opened.json()['run_id']}/fields"
    edited = await office.api.patch(path, json={"by": "di@acme.eu", "fields": {"env": "prod"}})
    assert "can't request these values" in problem(edited, 422)["detail"]


async def test_a_repeated_key_is_the_same_run_or_a_conflict(office: Any) -> None:
    body, key = {"workflow": "greet", "input": {"name": "Ann"}}, {"Idempotency-Key": "abc"}
    first = await office.api.post("/api/runs", json=body, headers=key)
    again = await office.api.post("/api/runs", json=body, headers=key)
    other = await office.api.post("/api/runs", json=body | {"input": {"name": "Bo"}}, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert "Ann" in problem(other, 409)["detail"]
    assert "Bo" in other.json()["detail"]
    assert (await office.plain.post("/api/runs", json=body, headers=key)).status_code == 202  # another app's key


async def test_a_key_compares_the_body_as_it_was_sent(office: Any) -> None:
    async def send(**changed: Any) -> Any:
        body = {"workflow": "greet", "input": {"name": "Ann", "age": 4}} | changed
        return await office.api.post("/api/runs", json=body, headers={"Idempotency-Key": "k"})

    first = await send()
    assert (await send(requester="app:desk", input={"age": 4, "name": "Ann"})).json() == first.json()
    assert "requester was 'app:desk', and is now 'ann@acme.eu'" in problem(
        await send(requester="ann@acme.eu"), 409
    )["detail"]  # fmt: skip
    assert "input.age was 4, and is now 4.0" in problem(await send(input={"name": "Ann", "age": 4.0}), 409)["detail"]
    assert "input.age was 4, and is now missing" in problem(await send(input={"name": "Ann"}), 409)["detail"]
    await office.api.post("/api/hooks/reply/Ann", json="hello")
    await office.engine.settle()
    ended = await send()
    assert (ended.status_code, ended.json()) == (200, first.json())


@pytest.mark.parametrize("name", ["expense", "flight"])
async def test_a_key_outlives_a_new_field_with_a_default(office: Any, name: str) -> None:
    """`flight` has a key of its own, so it needs none from the caller."""
    kept: dict[str, tuple[dict[str, Any], str | None]] = {
        "expense": ({"workflow": "expense", "input": {"amount": "5"}, "requester": "bo@acme.eu"}, "abc"),
        "flight": ({"workflow": "flight", "input": {"call": "c", "flight": "L"}, "on_behalf_of": "ann@acme.eu"}, None),
    }  # fmt: skip
    body, key = kept[name]
    headers = {} if key is None else {"Idempotency-Key": key}
    api = office.api if key else office.plain
    first = await api.post("/api/runs", json=body, headers=headers)
    assert first.status_code == 202
    tables = DEFINITIONS[name]
    fields = tables["fields"] | {"cost_centre": {"type": "string", "default": "C1"}}
    tables = tables | {"workflow": {"id": name, **tables["workflow"]}, "fields": fields}
    definition = Definition.model_validate(tables)
    office.workflows[name] = Listed(approval.under(name, pinned(definition)), definition)
    again = await api.post("/api/runs", json=body, headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())
    spelled = body | {"input": {**body["input"], "cost_centre": "C1"}}
    assert (await api.post("/api/runs", json=spelled, headers=headers)).status_code == (409 if key else 200)
    other = body | {"input": {**body["input"], "cost_centre": "C2"}}
    assert (
        "input.cost_centre was missing"
        in problem(await api.post("/api/runs", json=other, headers=headers), 409)["detail"]
    )


async def test_a_workflows_own_key_opens_one_request_per_call(office: Any) -> None:
    body = {"workflow": "flight", "input": {"call": "c1", "flight": "LH 1"}, "on_behalf_of": "ann@acme.eu"}
    first = await office.plain.post("/api/runs", json=body)
    again = await office.plain.post("/api/runs", json=body)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    other = await office.plain.post("/api/runs", json=body | {"input": {"call": "c1", "flight": "LH 2"}})
    assert "LH 2" in problem(other, 409)["detail"]


async def test_what_cannot_be_started_starts_nothing(office: Any) -> None:
    before = office.content()
    post = office.api.post
    assert problem(await post("/api/runs", json={"workflow": "no-such"}), 404)["title"] == "Workflow not found"
    assert places(await post("/api/runs", json={})) == [["workflow"]]
    assert places(await post("/api/runs", json={"workflow": "greet", "input": [], "extra": 1})) == [
        ["input"],
        ["extra"],
    ]
    assert places(await post("/api/runs", json={"workflow": "greet", "input": {"age": "x"}})) == [
        ["input", "name"],
        ["input", "age"],
    ]
    assert places(await post("/api/runs", json={"workflow": "tick", "input": {"a": 1}})) == [["input"]]
    amount = {"workflow": "expense", "requester": "bo@acme.eu", "input": {"amount": "0", "amuont": 1}}
    assert sorted(places(await post("/api/runs", json=amount))) == [["input", "amount"], ["input", "amuont"]]
    blank = await post("/api/runs", json={"workflow": "tick"}, headers={"Idempotency-Key": " "})
    assert places(blank) == [["header", "Idempotency-Key"]]
    assert office.content() == before


async def test_only_listed_requesters_can_open_a_request(office: Any) -> None:
    async def opened(client: Any, workflow: str, requester: str | None, **more: Any) -> int:
        input = {"deploy": PROD, "expense": {"amount": "5"}}[workflow]
        body = {"workflow": workflow, "input": input, **({"requester": requester} if requester else {}), **more}
        status: int = (await client.post("/api/runs", json=body)).status_code
        return status

    assert await opened(office.plain, "deploy", None) == 202  # app:ci is listed
    assert await opened(office.plain, "deploy", "cfo@acme.eu") == 403  # nobody it may name
    assert await opened(office.plain, "deploy", "cy@acme.eu") == 202
    assert await opened(office.api, "deploy", None) == 403
    assert await opened(office.api, "deploy", "Ann@ACME.eu") == 202  # an engineer
    assert await opened(office.api, "deploy", "cfo@acme.eu") == 403
    assert await opened(office.api, "expense", None) == 403  # "*" is every person, and no app
    assert await opened(office.api, "expense", "bo@acme.eu") == 202
    assert await opened(office.api, "expense", "app:ci") == 422
    assert await opened(office.api, "expense", "nobody") == 422


async def test_a_person_must_be_named_where_one_is_required(office: Any) -> None:
    body = {"workflow": "flight", "input": {"call": "c1", "flight": "LH 1"}}
    assert places(await office.plain.post("/api/runs", json=body)) == [["on_behalf_of"]]
    assert places(await office.plain.post("/api/runs", json=body | {"on_behalf_of": "me"})) == [["on_behalf_of"]]


async def test_a_request_that_nobody_could_decide_is_refused(office: Any) -> None:
    body = {"workflow": "expense", "input": {"amount": "5"}, "requester": "cfo@acme.eu"}  # has no manager
    refused = problem(await office.api.post("/api/runs", json=body), 422)
    assert refused["title"] == "Nobody could decide"
    assert (await office.api.get("/api/runs")).json()["runs"] == []


# ── a request ──


async def test_a_request_shows_its_state(office: Any) -> None:
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")
    request = (await office.run(run_id))["request"]
    assert request["title"] == "Deploy 2.1"
    assert request["fields"] == PROD
    assert (request["state"], request["stage"], request["votes"]) == ("waiting", "go", [])
    assert sorted(request["waiting_for"]) == ["ann@acme.eu", "cy@acme.eu"]
    assert request["digest"]


async def test_a_request_is_shown_at_once_after_it_was_opened(office: Any) -> None:
    answer = await office.plain.post("/api/runs", json={"workflow": "deploy", "input": PROD})
    assert (await office.run(answer.json()["run_id"]))["request"]["state"] == "waiting"


async def vote(client: Any, run_id: str, by: str, choice: str, **more: Any) -> Any:
    return await client.post(f"/api/runs/{run_id}/votes", json={"by": by, "choice": choice, **more})


async def test_votes_have_the_status_and_sentence_of_their_verdict(office: Any) -> None:
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")
    stranger = problem(await vote(office.api, run_id, "di@acme.eu", "approve"), 403)
    own = problem(await vote(office.api, run_id, "bo@acme.eu", "approve"), 403)
    silent = problem(await vote(office.api, run_id, "ann@acme.eu", "reject"), 422)
    stale = problem(await vote(office.api, run_id, "ann@acme.eu", "approve", digest="0" * 64), 409)
    assert [each["verdict"] for each in (stranger, own, silent, stale)] == [
        "not_an_approver",
        "own_request",
        "invalid",
        "request_changed",
    ]
    assert all(each["text"] == each["detail"] for each in (stranger, own, silent, stale))
    decided = await vote(office.api, run_id, "Ann@acme.eu", "approve", comment="Go.")
    assert decided.status_code == 201
    assert decided.json() == {
        "verdict": "decided",
        "text": "Approved. Everyone involved has been notified.",
    }
    await office.engine.settle()
    assert (await vote(office.api, run_id, "ann@acme.eu", "approve")).status_code == 200
    late = problem(await vote(office.api, run_id, "cy@acme.eu", "reject", comment="No."), 409)
    assert late["text"].startswith("Already decided by Ann Ode at 09:00")
    run = await office.run(run_id)
    assert (run["status"], run["result"]["approved"], run["result"]["by"]) == ("completed", True, "ann@acme.eu")
    assert (run["request"]["state"], run["request"]["outcome"]) == ("approved", "approved")


async def test_a_repeated_key_has_the_answer_of_the_first(office: Any) -> None:
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")

    async def again(key: str, by: str, choice: str, client: Any = office.api, **more: str) -> tuple[int, Any]:
        body = {"by": by, "choice": choice, **more}
        answer = await client.post(f"/api/runs/{run_id}/votes", json=body, headers={"Idempotency-Key": key})
        await office.engine.settle()
        return answer.status_code, {name: each for name, each in answer.json().items() if name != "instance"}

    stranger = await again("1", "di@acme.eu", "approve")
    assert (stranger[0], await again("1", "di@acme.eu", "approve")) == (403, stranger)
    first = await again("2", "ann@acme.eu", "approve", comment="Go.")
    assert (first[0], first[1]["verdict"]) == (201, "decided")
    assert (await office.run(run_id))["status"] == "completed"
    payloads = len([event for event in await office.engine.events(run_id) if event.type == "hook_received"])
    for _ in range(2):
        assert await again("2", "ann@acme.eu", "approve", comment="Go.") == first, "also after the run's end"
    status, other = await again("2", "ann@acme.eu", "reject", comment="No.")
    assert (status, "other input" in other["detail"]) == (409, True)
    assert (await again("3", "ann@acme.eu", "approve"))[0] == 200, "another call learns that it counted before"
    assert (await again("x" * 300, "ann@acme.eu", "approve"))[0] == 422
    after = [event for event in await office.engine.events(run_id) if event.type == "hook_received"]
    assert len(after) == payloads


async def test_a_key_that_may_not_vote_cannot(office: Any) -> None:
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")
    refused = problem(await vote(office.plain, run_id, "ann@acme.eu", "approve"), 403)
    assert refused["title"] == "Key may not vote"
    assert (await office.run(run_id))["request"]["votes"] == []
    edit = await office.plain.patch(f"/api/runs/{run_id}/fields", json={"by": "bo@acme.eu", "fields": {"version": "3"}})
    assert problem(edit, 404)["title"] == "Run not found"  # nor know of what others have opened


async def test_votes_are_checked_before_they_are_passed_on(office: Any) -> None:
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")
    assert places(await vote(office.api, run_id, "ann@acme.eu", "explode")) == [["choice"]]
    assert places(await office.api.post(f"/api/runs/{run_id}/votes", json={})) == [["by"], ["choice"]]
    assert places(await vote(office.api, run_id, "ann@acme.eu", "reject", comment="x" * 5_001)) == [["comment"]]
    assert problem(await vote(office.api, "run_no", "ann@acme.eu", "approve"), 404)
    run = await office.start("tick", {})
    assert problem(await vote(office.api, run, "ann@acme.eu", "approve"), 409)["title"] == "Not a request"


async def test_a_request_that_a_rule_decided_takes_no_votes(office: Any) -> None:
    run_id = await office.start("deploy", PROD | {"env": "dev"}, requester="bo@acme.eu")
    late = problem(await vote(office.api, run_id, "ann@acme.eu", "reject", comment="No."), 409)
    assert late["verdict"] == "already_decided"
    edit = await office.api.patch(f"/api/runs/{run_id}/fields", json={"by": "bo@acme.eu", "fields": {"version": "3"}})
    assert problem(edit, 409)


async def test_requesters_edit_and_approvers_change_editable_fields(office: Any) -> None:
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")

    async def edit(by: str, **fields: Any) -> Any:
        return await office.api.patch(f"/api/runs/{run_id}/fields", json={"by": by, "fields": fields})

    before = (await office.run(run_id))["request"]["digest"]
    assert (await edit("bo@acme.eu", version="2.2")).status_code == 200
    assert problem(await edit("ann@acme.eu", version="2.3"), 403)
    assert problem(await edit("bo@acme.eu", env="moon"), 422)
    request = (await office.run(run_id))["request"]
    assert request["fields"]["version"] == "2.2"
    assert request["digest"] != before
    body = {"workflow": "flight", "input": {"call": "c1", "flight": "LH 1"}, "on_behalf_of": "ann@acme.eu"}
    flight = (await office.plain.post("/api/runs", json=body)).json()["run_id"]
    changed = await vote(office.api, flight, "ann@acme.eu", "edit", fields={"flight": "LH 2"})
    assert changed.json()["verdict"] == "decided", changed.text
    await office.engine.settle()
    assert (await office.run(flight))["result"]["fields"]["flight"] == "LH 2"


async def test_cancelling_ends_runs_and_their_requests(office: Any) -> None:
    plain, request = (
        await office.start("greet", {"name": "Ann"}),
        await office.start("deploy", PROD, requester="bo@acme.eu"),
    )
    for run_id in (plain, request):
        answer = await office.api.post(f"/api/runs/{run_id}/cancellation", json={"reason": "Not needed."})
        assert answer.status_code == 202
        await office.engine.settle()
        assert (await office.run(run_id))["status"] == "cancelled"
        again = await office.api.post(f"/api/runs/{run_id}/cancellation", json={})
        assert problem(again, 409)["title"] == "Run has ended"
    assert (await office.run(request))["request"]["state"] == "cancelled"
    assert (await office.run(plain))["error"]["message"] == "Not needed."
    assert problem(await office.api.post("/api/runs/run_no/cancellation", json={}), 404)


async def test_a_cancelled_run_says_until_when_it_tidies_up(office: Any) -> None:
    @workflow(name="tidies up over http")
    async def tidies_up() -> None:
        try:
            await create_hook(token="never")
        finally:
            await create_hook(token="tidied")

    run_id = (await office.engine.start(tidies_up)).id
    await office.engine.settle()
    assert "cancellation" not in await office.run(run_id)
    for _ in range(2):
        answer = await office.api.post(f"/api/runs/{run_id}/cancellation", json={"reason": "Not needed."})
        assert answer.status_code == 202
    run = await office.run(run_id)
    assert (run["status"], run["cancellation"]["reason"]) == ("running", "Not needed.")
    assert run["cancellation"]["at"] < run["cancellation"]["until"]
    texts = [entry.text for entry in history_of(await office.engine.events(run_id)).entries]
    assert any(text.startswith("Run asked to cancel by app:desk. It has until") for text in texts)
    await office.engine.resume_hook("tidied", None)
    await office.engine.settle()
    run = await office.run(run_id)
    assert (run["status"], "cancellation" in run) == ("cancelled", False)


# ── finding ──


async def test_runs_are_listed_by_workflow_status_and_person(office: Any) -> None:
    ids = []
    for requester in ("bo@acme.eu", "ann@acme.eu", "di@acme.eu"):
        ids.append(await office.start("deploy", PROD, requester=requester))
        await office.clock.advance("1s")  # the order of runs is that of their times
    ids.append(await office.start("tick"))

    async def found(query: str = "") -> list[str]:
        answer = await office.api.get(f"/api/runs{query}")
        assert answer.status_code == 200, answer.text
        return [run["id"] for run in answer.json()["runs"]]

    assert await found() == ids[::-1]
    assert await found("?workflow=tick") == ids[3:]
    assert await found("?status=completed") == ids[3:]
    assert await found("?waiting_for=ann@acme.eu") == [ids[0], ids[2]]
    assert await found("?waiting_for=Ann@ACME.eu") == [ids[0], ids[2]]
    assert await found("?waiting_for=nobody@acme.eu") == []
    first = (await office.api.get("/api/runs?limit=3")).json()
    rest = (await office.api.get("/api/runs", params={"limit": 3, "cursor": first["cursor"]})).json()
    assert [run["id"] for page in (first, rest) for run in page["runs"]] == ids[::-1]
    assert rest["cursor"] is None


@pytest.mark.parametrize(
    "query",
    [
        "workflow=no-such",
        "status=done",
        "waiting_for=ann",
        "cursor=made-up",
        "limit=0",
        "limit=nan",
        "limit=1000",
        "limit=2.9",
        "limit=1_0",
        "limit=%D9%A3",
        "state=x",
        "status=running&status=failed",
        "workflow=",
        "waiting_for=a%00@b.c",
    ],
)
async def test_a_filter_that_means_nothing_is_refused(office: Any, query: str) -> None:
    assert places(await office.api.get(f"/api/runs?{query}"))[0][0] == "query"


@pytest.mark.parametrize("wait", ["soon", "-1", "inf", "nan", "1e9", ""])
async def test_a_wait_that_is_no_time_is_refused(office: Any, wait: str) -> None:
    assert places(await office.api.get(f"/api/runs/run_x?wait={wait}")) == [["query", "wait"]]


async def test_a_request_of_a_cancelled_run_is_not_waiting(office: Any) -> None:
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")
    link = await office.link(run_id, "ann@acme.eu")
    assert "Approve" in (await office.web.get(link)).text
    await office.engine.get_run(run_id).cancel("by mistake")
    shown = await office.run(run_id)
    assert (shown["status"], shown["request"]["state"], shown["request"]["waiting_for"]) == (
        "cancelled",
        "cancelled",
        [],
    )
    page = await office.web.get(link)
    assert page.status_code == 410
    assert "<button" not in page.text
    late = await office.api.post(f"/api/runs/{run_id}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
    assert (late.status_code, late.json()["verdict"]) == (409, "withdrawn")
    assert (await office.api.get("/api/runs?waiting_for=ann@acme.eu")).json()["runs"] == []


async def test_unknown_runs_are_404(office: Any) -> None:
    for path in ("/api/runs/run_no", "/api/runs/run_no/events", "/api/runs/a%00b"):
        assert problem(await office.api.get(path), 404)


async def test_events_show_no_token_and_no_link(office: Any) -> None:
    run_id = await office.start("greet", {"name": "Ann"})
    answer = await office.api.get(f"/api/runs/{run_id}/events")
    events = answer.json()["events"]
    assert [event["type"] for event in events] == ["run_created", "run_started", "hook_created"]
    assert [event["seq"] for event in events] == [1, 2, 3]
    assert "reply/Ann" not in answer.text
    request = await office.start("deploy", PROD, requester="bo@acme.eu")
    text = (await office.api.get(f"/api/runs/{request}/events")).text
    hook = await office.engine.find_hook((await office.view(request))["hook_id"])
    assert hook.token not in text


# ── hooks ──


async def test_hooks_are_looked_at_and_resumed_by_their_token(office: Any) -> None:
    run_id = await office.start("greet", {"name": "Ann"})
    shown = await office.api.get("/api/hooks/reply/Ann")
    assert shown.json() == {
        "run_id": run_id,
        "hook_id": shown.json()["hook_id"],
        "token": "reply/Ann",
        "metadata": None,
        "created_at": "2026-01-01T09:00:00+00:00",
        "is_webhook": False,
    }
    key = {"Idempotency-Key": "once"}
    first = await office.api.post("/api/hooks/reply%2FAnn", json={"a": 1}, headers=key)
    assert first.json() == shown.json()
    await office.engine.settle()
    again = await office.api.post("/api/hooks/reply/Ann", json={"a": 1}, headers=key)
    assert (again.status_code, again.json()) == (200, first.json())  # the run has ended, and the answer is the same
    other = await office.api.post("/api/hooks/reply/Ann", json={"a": True}, headers=key)
    assert "payload.a was 1, and is now True. Nothing was changed." in problem(other, 409)["detail"]
    assert problem(await office.api.post("/api/hooks/reply/Ann", json=1), 404)["title"] == "Hook not found"
    assert problem(await office.api.get("/api/hooks/reply/Ann"), 404)["title"] == "Hook not found"
    assert problem(await office.api.get("/api/hooks/"), 404)


@pytest.mark.parametrize("key", ["", " ", "k" * 201, "a\tb"])
async def test_an_unusable_idempotency_key_is_refused(office: Any, key: str) -> None:
    run_id = await office.start("greet", {"name": "Ann"})
    refused = await office.api.post("/api/hooks/reply/Ann", json={"a": 1}, headers={"Idempotency-Key": key})
    assert places(refused) == [["header", "Idempotency-Key"]]
    assert (await office.run(run_id))["status"] == "running"


async def test_a_webhooks_token_is_not_resumed_by_the_api(office: Any) -> None:
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")
    hook = await office.engine.find_hook((await office.view(run_id))["hook_id"])
    forged = {"kind": "vote", "by": "ann@acme.eu", "choice": "approve", "via": "slack"}
    assert problem(await office.api.post(f"/api/hooks/{hook.token}", json=forged), 404)["title"] == "Hook not found"
    assert (await office.run(run_id))["request"]["votes"] == []


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ann@acme", "no dot"),
        ("!ann@acme.eu", "exclusion"),
        ("a\u200bnn@acme.eu", "invisible character"),
        ("@x", "not"),
    ],
)
async def test_an_address_that_names_nobody_is_refused_where_it_comes_in(office: Any, address: str, says: str) -> None:
    for key in ("requester", "on_behalf_of"):
        body = {"workflow": "deploy", "input": PROD, "requester": "bo@acme.eu", key: address}
        refused = await office.api.post("/api/runs", json=body)
        assert problem(refused, 422)
        assert places(refused) == [[key]]
        assert says in refused.text
    run_id = await office.start("deploy", PROD, requester="bo@acme.eu")
    voted = await office.api.post(f"/api/runs/{run_id}/votes", json={"by": address, "choice": "approve"})
    assert places(voted) == [["by"]]
    listed = await office.api.get("/api/runs", params={"waiting_for": address})
    assert (listed.status_code, says in listed.text) == (422, True)
