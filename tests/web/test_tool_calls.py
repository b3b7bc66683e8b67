"""Tool calls over HTTP: who is asked, what the answer is, repeated keys, and refusals with their places."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Channels, Delivered, Dispatch, Receipt
from approvals_bot.approvals.workflow import approval
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import digest_of
from approvals_bot.client.exchange import decision_of
from approvals_bot.people import People
from approvals_bot.service.catalog import Listed
from tests.support.whole_service import Opened, Service

FILE: dict[str, Any] = {
    "workflow": {"id": "tool-call", "title": "{{ agent }}: {{ tool }}", "may_ask": ["@finance", "di@acme.eu"]},
    "stage": [{"id": "go", "from": ["@sre"]}],
}
PAY = {"tool": "pay", "arguments": {"price": 640, "to": {"iban": "NO93", "name": "Ann"}}}


def offer(service: Service, **tables: Any) -> None:
    file = Definition.model_validate(FILE | tables, context={})
    service.workflows["tool-call"] = Listed(approval.under("tool-call", pinned(file)), file)


@pytest.fixture
def calls(service: Service) -> Service:
    offer(service)
    return service


async def ask(service: Service, key: str = "s:call_1", status: int = 202, **input: Any) -> Any:
    """Ask as the key `ci`, which may not vote."""
    body = {"workflow": "tool-call", "input": PAY | input}
    answer = await service.plain.post("/api/runs", json=body, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code == status, answer.text
    await service.engine.settle()
    return answer.json()["run_id"] if status < 300 else answer.json()


async def vote(service: Service, run: str, by: str = "cy@acme.eu", choice: str = "approve", **more: Any) -> Any:
    answer = await service.api.post(f"/api/runs/{run}/votes", json={"by": by, "choice": choice, **more})
    await service.engine.settle()
    return answer


async def test_the_result_is_the_decision(calls: Service) -> None:
    run = await ask(calls, why="the invoice is due", agent="Payer", tool_call_id="call_1")
    shown = await calls.run(run)
    assert shown["request"]["title"] == "Payer: pay"
    assert shown["request"]["waiting_for"] == ["bo@acme.eu", "cy@acme.eu", "di@acme.eu"]
    assert shown["request"]["digest"] == digest_of("pay", PAY["arguments"])  # type: ignore[arg-type]
    assert "decision" not in shown
    assert (await vote(calls, run, comment="fine")).status_code == 201
    shown = await calls.run(run)
    assert shown["status"] == "completed"
    decision = Decision.model_validate(shown["result"])
    assert (decision.state, decision.by, decision.comment) == ("approved", "cy@acme.eu", "fine")
    decision.require(PAY["arguments"])  # type: ignore[arg-type]
    assert Decision.model_validate(shown["decision"]).state == "approved"


async def test_an_approver_edits_a_leaf(calls: Service) -> None:
    run = await ask(calls)
    answer = await vote(calls, run, choice="edit", answers={"to.name": "Bo", "price": 600})
    assert answer.status_code == 201, answer.text
    decision = Decision.model_validate((await calls.run(run))["result"])
    assert decision.state == "edited"
    assert decision.arguments == {"price": 600, "to": {"iban": "NO93", "name": "Bo"}}
    assert "price 640 → 600" in decision.text


async def test_an_approver_answers(calls: Service) -> None:
    arguments = {"filter": {"$": "tuple", "v": [1]}}  # named as the log marks types
    run = await ask(calls, arguments=arguments)
    assert (await vote(calls, run, choice="answer", comment="ask Bo first")).status_code == 201
    decision = Decision.model_validate((await calls.run(run))["result"])
    assert (decision.state, decision.comment, decision.arguments) == ("answered", "ask Bo first", arguments)


async def test_silence_expires_a_call(calls: Service) -> None:
    run = await ask(calls, deadline="5m")
    await calls.clock.advance(301)
    decision = Decision.model_validate((await calls.run(run))["result"])
    assert decision.state == "expired"


@pytest.mark.parametrize(
    ("to", "asked"),
    [
        (["@finance"], ["cfo@acme.eu"]),
        (["CFO@acme.eu", "di@acme.eu"], ["cfo@acme.eu", "di@acme.eu"]),
        (["ann@acme.eu"], ["bo@acme.eu", "cy@acme.eu", "di@acme.eu"]),
        (["@finance", "ann@acme.eu"], ["bo@acme.eu", "cy@acme.eu", "di@acme.eu"]),
        (["@sre"], ["bo@acme.eu", "cy@acme.eu", "di@acme.eu"]),
    ],
)
async def test_an_agent_asks_only_whom_it_may(calls: Service, to: list[str], asked: list[str]) -> None:
    body = {"workflow": "tool-call", "input": PAY | {"to": to}}
    answer = (await calls.plain.post("/api/runs", json=body, headers={"Idempotency-Key": "s:1"})).json()
    assert (await calls.run(answer["run_id"]))["request"]["waiting_for"] == asked
    are_others = "di@acme.eu" in asked and len(asked) == 3
    assert ("may_ask" in answer.get("note", "")) == are_others, "the agent learns that others are asked"


async def test_conditions_choose_stages_by_tool(service: Service) -> None:
    stages = [
        {"id": "money", "when": 'tool == "pay"', "from": ["@finance"]},
        {"id": "rest", "when": 'tool != "pay"', "from": ["@sre"]},
    ]
    offer(service, stage=stages)
    assert (await service.run(await ask(service, "s:1")))["request"]["waiting_for"] == ["cfo@acme.eu"]
    assert (await service.run(await ask(service, "s:2", tool="look")))["request"]["stage"] == "rest"


async def test_a_repeated_key_is_the_same_request(calls: Service) -> None:
    run = await ask(calls, why="first")
    assert await ask(calls, status=200, why="said otherwise", deadline="1m") == run
    await vote(calls, run, choice="reject", comment="no")
    assert await ask(calls, status=200) == run
    calls.workflows.pop("tool-call")
    offer(calls, stage=[{"id": "go", "from": ["nobody@acme.eu"]}])
    assert await ask(calls, status=200) == run


@pytest.mark.agents(15)
async def test_a_key_with_other_arguments_names_the_leaf(calls: Service) -> None:
    run = await ask(calls)
    arguments = {"price": 640, "to": {"iban": "NO94", "name": "Ann"}}
    problem = await ask(calls, status=409, arguments=arguments)
    assert problem["run_id"] == run
    assert problem["difference"] == "arguments.to.iban was 'NO93', and is now 'NO94'"
    assert problem["difference"] in problem["detail"]
    assert (await ask(calls, status=409, tool="refund"))["difference"] == "tool was 'pay', and is now 'refund'"


@pytest.mark.agents(15)
async def test_fifty_calls_at_once_are_one_request(calls: Service) -> None:
    body = {"workflow": "tool-call", "input": PAY}
    headers = {"Idempotency-Key": "s:call_1"}
    answers = await asyncio.gather(*(calls.plain.post("/api/runs", json=body, headers=headers) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert len({answer.json()["run_id"] for answer in answers}) == 1


async def test_the_id_of_the_call_is_its_key_without_a_header(calls: Service) -> None:
    run = await ask(calls, key="", tool_call_id="call_9")
    assert await ask(calls, key="call_9", status=200) == run
    problem = await ask(calls, key="", status=422)
    assert problem["errors"][0]["loc"] == ["header", "Idempotency-Key"]


@pytest.mark.parametrize(
    ("input", "loc"),
    [
        ({"tool": ""}, ["input", "tool"]),
        ({"tool": 7}, ["input", "tool"]),
        ({"arguments": []}, ["input", "arguments"]),
        ({"args": {}}, ["input", "args"]),
        ({"to": []}, ["input", "to"]),
        ({"to": ["@finance", "ops team"]}, ["input", "to", 1]),
        ({"deadline": "soon"}, ["input", "deadline"]),
        ({"arguments": {"n": 2**53}}, ["input", "arguments", "n"]),
        ({"expects": {"type": "nothing"}}, ["input", "expects"]),
        ({"arguments": {"text": "x" * 65_600}}, ["input", "arguments"]),
    ],
)
async def test_a_bad_call_is_refused_with_its_place(calls: Service, input: Any, loc: list[Any]) -> None:
    problem = await ask(calls, status=422, **input)
    assert [error["loc"] for error in problem["errors"]] == [loc], problem


async def test_without_a_file_nobody_is_asked(service: Service) -> None:
    file = Definition.model_validate({"workflow": FILE["workflow"]}, context={})
    service.workflows["tool-call"] = Listed(approval.under("tool-call", pinned(file)), file)
    problem = await ask(service, status=422)
    assert "workflows/tool-call.toml" in problem["detail"]


@pytest.mark.agents(14)
async def test_arguments_may_be_twenty_deep(calls: Service) -> None:
    deep: Any = 1
    for _ in range(19):
        deep = {"a": deep}
    run = await ask(calls, "s:1", arguments=deep | {"b": 1})
    assert (await calls.run(run))["request"]["fields"]["arguments"] == deep | {"b": 1}
    for _ in range(2):
        deep = {"a": deep}
    assert (await ask(calls, "s:2", status=422, arguments=deep))["errors"][0]["loc"][:2] == ["input", "arguments"]


async def test_a_key_may_not_vote_on_its_own_request(calls: Service) -> None:
    body = {"workflow": "tool-call", "input": PAY}
    own = await calls.api.post("/api/runs", json=body, headers={"Idempotency-Key": "a"})
    refused = await vote(calls, own.json()["run_id"])
    assert refused.status_code == 403
    assert "app:desk made this request itself" in refused.json()["detail"]
    by_ann = {"by": "cfo@acme.eu", "person": "ann@acme.eu"}
    handed_over = await calls.api.post(f"/api/runs/{own.json()['run_id']}/approvers", json=by_ann)
    assert (handed_over.status_code, handed_over.json()["title"]) == (403, "Own request")
    named = await calls.api.post(
        "/api/runs", json=body | {"requester": "ann@acme.eu"}, headers={"Idempotency-Key": "b"}
    )
    assert (await vote(calls, named.json()["run_id"])).status_code == 201
    other = await ask(calls)
    assert (await vote(calls, other)).status_code == 201


async def test_runs_are_found_by_key_and_session(calls: Service) -> None:
    runs = {key: await ask(calls, key) for key in ("s:1", "s:2", "s", "s1:1", "t:1")}
    await vote(calls, runs["s:1"])

    async def found(**query: str) -> dict[str, str]:
        answer = await calls.plain.get("/api/runs", params=query)
        assert answer.status_code == 200, answer.text
        return {run["key"]: run["id"] for run in answer.json()["runs"]}

    assert await found(key="s:1") == {"s:1": runs["s:1"]}
    assert await found(key="s") == {key: runs[key] for key in ("s", "s:1", "s:2")}
    assert await found(key="s", open="true") == {key: runs[key] for key in ("s", "s:2")}
    assert await found(key="s", open="false") == {"s:1": runs["s:1"]}
    assert await found(key="") == runs
    assert await found(key="nothing") == {}
    assert (await calls.api.get("/api/runs", params={"key": "s"})).json()["runs"] == []
    page = (await calls.plain.get("/api/runs", params={"key": "s:2"})).json()["runs"]
    assert page[0]["url"].endswith(f"/requests/{runs['s:2']}")
    assert (await calls.plain.get("/api/runs", params={"open": "yes"})).status_code == 422


async def test_its_own_key_withdraws_a_call(calls: Service) -> None:
    run = await ask(calls)
    answer = await calls.plain.post(f"/api/runs/{run}/cancellation", json={"reason": "the user left"})
    assert answer.status_code == 202, answer.text
    await calls.engine.settle()
    shown = await calls.run(run)
    assert shown["decision"]["state"] == "withdrawn"
    assert shown["decision"]["comment"] == "the user left"
    assert (await calls.plain.post(f"/api/runs/{run}/cancellation", json={})).status_code == 409


async def test_a_long_poll_ends_with_the_decision(calls: Service) -> None:
    run = await ask(calls)

    async def poll() -> Any:
        return (await calls.plain.get(f"/api/runs/{run}", params={"wait": "30"})).json()

    waiting = [asyncio.create_task(poll()) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in waiting)
    await vote(calls, run)
    for shown in await asyncio.wait_for(asyncio.gather(*waiting), 20):
        assert shown["decision"]["state"] == "approved"


async def test_a_service_that_stops_answers_long_polls(calls: Service) -> None:
    run = await ask(calls)
    polling = asyncio.create_task(calls.plain.get(f"/api/runs/{run}", params={"wait": "30"}))
    await asyncio.sleep(0.1)
    calls.engine.end_waiting()
    shown = (await asyncio.wait_for(polling, 20)).json()
    assert (shown["status"], "decision" in shown) == ("running", False)


@pytest.mark.agents(22)
async def test_a_call_above_the_budget_is_refused_and_reaches_nobody(service: Service) -> None:
    offer(service, budget={"calls": "2 per hour", "sum": {"price": "5000 per day"}})
    for n in range(2):
        await ask(service, f"s:{n}")
    answer = await service.plain.post(
        "/api/runs", json={"workflow": "tool-call", "input": PAY}, headers={"Idempotency-Key": "s:2"}
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3600")
    assert "its budget (calls, 2 per hour). Ask again after " in answer.json()["detail"]
    await ask(service, "s:3", status=429)
    assert len((await service.engine.runs("tool-call")).records) == 2
    lines = [line.entry for line in await service.engine.audit_lines() if line.entry.what == "budget_spent"]
    assert [(line.who, line.data) for line in lines] == [("app:ci", {"session": "s", "budget": "calls = 2 per hour"})]
    assert await ask(service, "s:1", status=200), "a call that was asked before costs nothing"
    await ask(service, "other:1")
    await service.clock.advance("61m")
    await ask(service, "s:2")


@pytest.mark.agents(22)
async def test_a_sum_of_an_argument_is_a_budget(service: Service) -> None:
    offer(service, budget={"sum": {"price": "1000 per day"}})
    await ask(service, "s:1")
    await ask(service, "s:2", status=429)
    await ask(service, "s:3", arguments={"price": "360.00"})
    await ask(service, "s:4", arguments={"n": 1})
    problem = await ask(service, "s:5", status=422, arguments={"price": "a lot"})
    assert problem["errors"][0]["loc"] == ["input", "arguments", "price"]


@pytest.mark.agents(23)
async def test_a_rejected_call_that_is_retried_stays_within_open(service: Service) -> None:
    offer(service, budget={"open": 3})
    opened = 0
    for n in range(10):
        body = {"workflow": "tool-call", "input": PAY}
        answer = await service.plain.post("/api/runs", json=body, headers={"Idempotency-Key": f"s:{n}"})
        await service.engine.settle()
        if answer.status_code == 429:
            assert "once one of its requests has been decided" in answer.json()["detail"]
            break
        opened += 1
    assert opened == 3
    (newest, *_) = (await service.engine.runs("tool-call", is_open=True)).records
    await vote(service, newest.id, choice="reject", comment="too dear")
    decision = Decision.model_validate((await service.run(newest.id))["decision"])
    assert decision.text.startswith("Rejected by Cy Rus")
    assert decision.text.endswith("Do not try this or an equivalent action again; ask the user.")
    await ask(service, "s:again")
    await ask(service, "s:once more", status=429)


@pytest.mark.agents(22)
async def test_admins_are_notified_once(open_service: Opened) -> None:
    sent: list[Dispatch] = []

    class Mail:
        """A channel that keeps what it sends."""

        async def send(self, dispatch: Dispatch) -> Delivered:
            sent.append(dispatch)
            return Delivered(Receipt("x", "y"))

        async def update(self, receipt: Receipt, dispatch: Dispatch) -> Delivered:
            return Delivered(receipt)

    async with open_service(channels=Channels({"email": Mail()})) as service:
        people: Any = service.engine.resources[People]
        people.admins = ("@finance", "cfo@acme.eu")
        offer(service, budget={"calls": "1 per hour"})
        await ask(service, "s:1")
        for n in range(3):
            await ask(service, f"s:again {n}", status=429)
        async with asyncio.timeout(20):
            while not any(dispatch.text for dispatch in sent):
                await asyncio.sleep(0.01)
    notices = [dispatch for dispatch in sent if dispatch.text]
    assert [dispatch.to.person.address for dispatch in notices] == ["cfo@acme.eu"]  # type: ignore[union-attr]
    assert "The agent ci has used the budget of its session s (calls, 1 per hour)." in notices[0].text


async def test_a_channel_that_hangs_holds_up_no_decision(open_service: Opened) -> None:
    gone = asyncio.Event()

    class Hanging:
        """A channel that doesn't get through once there is a decision."""

        async def send(self, dispatch: Dispatch) -> Delivered:
            return Delivered(Receipt("x", "y"))

        async def update(self, receipt: Receipt, dispatch: Dispatch) -> Delivered:
            await gone.wait()
            return Delivered(receipt)

    async with open_service(channels=Channels({"slack": Hanging()})) as service:
        offer(service, deliver={"slack": "#ops"}, budget={"open": 1})
        run = await ask(service, "s:1")
        await ask(service, "s:2", status=429)
        polling = asyncio.create_task(service.plain.get(f"/api/runs/{run}", params={"wait": "30"}))
        body = {"by": "cy@acme.eu", "choice": "approve"}
        assert (await service.api.post(f"/api/runs/{run}/votes", json=body)).status_code == 201
        shown = (await asyncio.wait_for(polling, 20)).json()
        assert shown["status"] == "running"
        decision = decision_of(shown, None)
        assert decision is not None
        assert (decision.state, decision.approved) == ("approved", True)
        await ask(service, "s:2")  # what is decided isn't open, whatever becomes of its card
        gone.set()


@pytest.mark.agents(13)
async def test_a_call_to_which_no_stage_applies_is_refused(service: Service) -> None:
    offer(service, stage=[{"id": "money", "when": 'tool == "pay"', "from": ["@finance"]}])
    problem = await ask(service, status=422, tool="Pay")
    assert "no stage applies to this request" in problem["detail"]
    run = await ask(service, tool="Pay", to=["di@acme.eu"])
    assert (await service.run(run))["request"]["waiting_for"] == ["di@acme.eu"]
