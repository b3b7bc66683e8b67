"""What each kind of key may do: the table of routes and rights, walked route by route."""

from __future__ import annotations

import asyncio
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.workflow import approval
from approvals_bot.config.api_keys import ApiKeyEntry, Right
from approvals_bot.durable.core.api import create_hook, workflow
from approvals_bot.durable.core.children import run_child
from approvals_bot.service.catalog import Listed
from approvals_bot.service.keys import OPENER, ApiKey, api_keys, find_key, last_use
from approvals_bot.web.keys import NEEDS
from approvals_bot.web.openapi import document

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
BETWEEN = re.compile(r"(?<=<!-- needs -->\n).*?(?=<!-- end of needs -->)", re.DOTALL)
RIGHTS: tuple[Right, ...] = get_args(Right)
OF_RUNS = [(method, path) for method, path in NEEDS if path.startswith(("/api/runs/{id}", "/api/hooks"))]
BODIES: dict[str, dict[str, Any]] = {
    "/votes": {"by": "ann@acme.eu", "choice": "approve"},
    "/approvers": {"by": "di@acme.eu", "person": "cy@acme.eu"},
    "/comments": {"by": "di@acme.eu", "text": "Hm."},
    "/claim": {"by": "di@acme.eu"},
    "/snooze": {"by": "di@acme.eu"},
    "/fields": {"by": "di@acme.eu", "fields": {"version": "3"}},
    "/attempts": {"reason": "again"},
    "/reset": {"reason": "again", "to": 1},
    "/cancellation": {"reason": "no"},
    "/extension": {"lasts": "1h"},
}
DEPLOY = Definition.model_validate(
    {
        "workflow": {"id": "keyed-deploy", "request": ["*", "app:ci", "app:desk", "app:other"]},
        "fields": {"version": "string"},
        "stage": [{"id": "go", "from": ["ann@acme.eu", "bo@acme.eu"]}],
    }
)


@workflow
async def keys_wait_for_hook(token: str) -> Any:
    return await create_hook(token)


@workflow
async def keys_start_a_child() -> Any:
    return await run_child(keys_wait_for_hook, "of-a-child")


def table() -> str:
    rows = ["| Call | Enough for what the key has opened | Enough for any run |", "|---|---|---|"]
    for (method, path), needs in NEEDS.items():
        shown = path.replace(":path", "")
        others = ", ".join(f"`{right}`" for right in needs.others)
        rows.append(f"| `{method} {shown}` | {f'`{needs.own}`' if needs.own else ''} | {others} |")
    return "\n".join(rows) + "\n"


def secret_of(name: str) -> str:
    return f"the-secret-of-{name}-in-the-tests"


def key(*rights: Right, **more: Any) -> ApiKey:
    name = "-".join(rights)
    return ApiKey(name, (secret_of(name),), frozenset(rights), **more)


ONE_RIGHT = [key(right) for right in RIGHTS]
SEEING = key("start", "read-all")
DEPLOYER = ApiKey("deployer", (secret_of("deployer"),), frozenset(RIGHTS), workflows=frozenset({"keyed-deploy"}))
NAMER = ApiKey("namer", (secret_of("namer"), "the-older-secret-of-namer"), requesters=("@finance", "zoe@acme.eu"))
TRUSTED = ApiKey("trusted", (secret_of("trusted"),), requesters=("*",))


@pytest.fixture
async def office(open_service: Any) -> Any:
    async with open_service(also=[*ONE_RIGHT, SEEING, DEPLOYER, NAMER, TRUSTED]) as service:
        service.workflows[keys_wait_for_hook.name] = Listed(keys_wait_for_hook)
        service.workflows["keyed-deploy"] = Listed(approval.under("keyed-deploy", pinned(DEPLOY)), DEPLOY)
        yield service


class Caller:
    """The calls of one key, about a run that it or somebody else has opened."""

    def __init__(self, office: Any, key: ApiKey) -> None:
        self.office = office
        self.key = key
        self.headers = {"Authorization": f"Bearer {key.secrets[0]}"}

    async def open(self, opener: str, number: int) -> tuple[str, str]:
        """Open a request and a run with a hook, as this app; their id and token."""
        opened = self.office.workflows["keyed-deploy"].workflow
        opening = Opening({"version": "2"}, "di@acme.eu")
        run = await self.office.engine.start(opened, opening, attributes={OPENER: opener})
        token = f"keyed-{opener}-{number}"
        await self.office.engine.start(keys_wait_for_hook, token, attributes={OPENER: opener})
        await self.office.engine.settle()
        return run.id, token

    async def call(self, method: str, path: str, run: str, token: str) -> Any:
        url = path.replace("{id}", run).replace("{token:path}", token)
        body = next((body for end, body in BODIES.items() if path.endswith(end)), {})
        sent = {"json": body} if method != "GET" else {}
        return await self.office.web.request(method, url, headers=self.headers, **sent)


def verdict(answer: Any) -> str:
    """Return whether the key was refused, the run didn't exist for it, or it got through."""
    title = answer.json().get("title", "") if answer.status_code >= 400 else ""
    if answer.status_code == 403 and title.startswith("Key may not"):
        return "lacks"
    return "nothing" if title in ("Run not found", "Hook not found") else "through"


@pytest.mark.parametrize("called", OF_RUNS, ids=" ".join)
async def test_each_route_takes_only_keys_with_its_right(office: Any, called: tuple[str, str]) -> None:
    needs = NEEDS[called]
    for number, of in enumerate([*ONE_RIGHT, SEEING]):
        caller = Caller(office, of)
        others = await caller.call(*called, *await caller.open("app:other", number))
        own = await caller.call(*called, *await caller.open(of.address, number))
        if not of.may.isdisjoint(needs.others):
            expected = ("through", "through")
        elif needs.own in of.may:
            expected = ("lacks" if of is SEEING else "nothing", "through")
        else:
            expected = ("lacks", "lacks")
        assert (verdict(others), verdict(own)) == expected, (called, of.name, others.text, own.text)
        assert verdict(own) != "lacks" or f"'{of.name}'" in own.json()["detail"]


@pytest.mark.parametrize("called", [each for each in OF_RUNS if each[1].startswith("/api/runs")], ids=" ".join)
async def test_a_run_out_of_reach_is_answered_like_none(office: Any, called: tuple[str, str]) -> None:
    caller = Caller(office, DEPLOYER)
    _, token = await caller.open("app:deployer", 1)
    run = (await office.engine.get_hook_by_token(token)).run_id
    there, nowhere = await caller.call(*called, run, token), await caller.call(*called, "0" * len(run), token)
    one, other = (answer.text.replace(answer.headers["x-request-id"], "") for answer in (there, nowhere))
    assert one.replace(run, "") == other.replace("0" * len(run), "")


@pytest.mark.parametrize("called", OF_RUNS, ids=" ".join)
async def test_a_key_of_one_workflow_reaches_no_other(office: Any, called: tuple[str, str]) -> None:
    caller = Caller(office, DEPLOYER)
    _, token = await caller.open("app:deployer", 1)
    run = (await office.engine.get_hook_by_token(token)).run_id
    assert verdict(await caller.call(*called, run, token)) == "nothing"


async def test_a_key_lists_what_it_reaches(office: Any) -> None:
    reader, deployer = Caller(office, ONE_RIGHT[RIGHTS.index("read")]), Caller(office, DEPLOYER)
    own, _ = await reader.open("app:read", 1)
    await reader.open("app:other", 2)
    mine = (await office.web.get("/api/runs?workflow=keyed-deploy", headers=reader.headers)).json()["runs"]
    assert [run["id"] for run in mine] == [own]
    seen = (await office.web.get("/api/runs", headers=deployer.headers)).json()["runs"]
    assert {run["workflow"] for run in seen} == {"keyed-deploy"}
    other = await office.web.get("/api/runs?workflow=keys_wait_for_hook", headers=deployer.headers)
    assert other.status_code == 422
    body = {"workflow": "keys_wait_for_hook", "input": {"token": "x"}}
    assert (await office.web.post("/api/runs", headers=deployer.headers, json=body)).status_code == 404


async def test_children_of_its_runs_are_reached_by_a_key(office: Any) -> None:
    office.workflows[keys_start_a_child.name] = Listed(keys_start_a_child)
    run = await office.engine.start(keys_start_a_child, attributes={OPENER: "app:start-read-all"})
    await office.engine.settle()
    hook = await office.engine.get_hook_by_token("of-a-child")
    assert hook.run_id != run.id
    caller = Caller(office, SEEING)
    assert verdict(await caller.call("POST", "/api/hooks/{token:path}", "", "of-a-child")) == "through"


async def test_a_key_names_only_whom_it_may(office: Any) -> None:
    async def opened(requester: str, secret: str = NAMER.secrets[0]) -> Any:
        body = {"workflow": "keyed-deploy", "input": {"version": "1"}, "requester": requester}
        return await office.web.post("/api/runs", json=body, headers={"Authorization": f"Bearer {secret}"})

    assert (await opened("cfo@acme.eu")).status_code == 202
    assert (await opened("cfo@acme.eu", NAMER.secrets[1])).status_code == 202  # until the older value is taken out
    refused = await opened("ann@acme.eu")
    assert (refused.status_code, refused.json()["title"]) == (403, "Not allowed to request for others")
    assert "'namer'" in refused.json()["detail"]
    assert "ann@acme.eu" in refused.json()["detail"]
    (line,) = [each.entry for each in await office.engine.audit_lines() if each.entry.what == "opening_refused"]
    assert (line.who, line.data["for"], line.data["because"]) == ("app:namer", "ann@acme.eu", "naming_not_allowed")
    unknown = await opened("zoe@acme.eu")  # may be named, but nobody knows them
    assert (unknown.status_code, unknown.json()["title"]) == (403, "Person unknown")
    # A desk's key vouches for colleagues whom no file lists, and for nobody from elsewhere.
    assert (await opened("o'brien@acme.eu", TRUSTED.secrets[0])).status_code == 202
    stranger = await opened("zoe@elsewhere.example", TRUSTED.secrets[0])
    assert (stranger.status_code, stranger.json()["title"]) == (403, "Person unknown")


async def test_a_run_keeps_who_opened_it(office: Any) -> None:
    body = {"workflow": "keyed-deploy", "input": {"version": "1"}, "requester": "cfo@acme.eu"}
    headers = {"Authorization": f"Bearer {NAMER.secrets[0]}"}
    run = (await office.web.post("/api/runs", json=body, headers=headers)).json()["run_id"]
    first = (await office.api.get(f"/api/runs/{run}/events")).json()["events"][0]["data"]
    assert first["actor"] == {"kind": "app", "id": "app:namer", "key": "namer", "peer": "127.0.0.1"}
    assert first["attributes"] == {OPENER: "app:namer"}


async def test_the_requester_a_key_has_named_may_withdraw_by_it(office: Any) -> None:
    body = {"workflow": "keyed-deploy", "input": {"version": "1"}, "requester": "cfo@acme.eu"}
    headers = {"Authorization": f"Bearer {NAMER.secrets[0]}"}
    run = (await office.web.post("/api/runs", json=body, headers=headers)).json()["run_id"]
    path = f"/api/runs/{run}/cancellation"
    refused = await office.web.post(path, json={"by": "ann@acme.eu"}, headers=headers)
    assert (refused.status_code, refused.json()["title"]) == (403, "Key may not vote")
    assert (await office.web.post(path, json={"by": "cfo@acme.eu"}, headers=headers)).status_code == 202
    await office.engine.settle()
    assert (await office.run(run))["request"]["state"] == "withdrawn"


async def test_a_key_is_refused_from_its_last_day_on(open_service: Any, caplog: pytest.LogCaptureFixture) -> None:
    old = ApiKey("old", (secret_of("old"),), expires=date(2026, 1, 3))
    async with open_service(also=[old]) as service:
        headers = {"Authorization": f"Bearer {old.secrets[0]}"}
        assert (await service.web.get("/api/runs", headers=headers)).status_code == 200
        await service.clock.advance("2d")
        refused = await service.web.get("/api/runs", headers=headers)
        assert refused.status_code == 401
        assert "expired: 2026-01-03" in refused.json()["detail"]
    assert "because it expired on 2026-01-03. `approvals-bot keys new old` makes another value" in caplog.text


async def test_the_last_use_of_a_key_is_remembered(office: Any) -> None:
    async def used(at: datetime) -> None:
        """Wait for the note. Nobody else does, so that no call takes longer."""
        await office.api.get("/api/runs")
        async with asyncio.timeout(20):
            while await last_use(office.engine.store, "desk") != at:
                await asyncio.sleep(0.01)

    assert await last_use(office.engine.store, "desk") is None
    first = office.clock.now()
    await used(first)
    await office.clock.advance("30s")
    await office.api.get("/api/runs")
    await asyncio.sleep(0.1)
    assert await last_use(office.engine.store, "desk") == first
    await office.clock.advance("31s")
    await used(first + timedelta(seconds=61))


def test_each_operation_of_the_document_names_its_right() -> None:
    paths = document("http://x")["paths"]
    for (method, path), needs in NEEDS.items():
        operations = paths.get(path.replace(":path", ""))
        if operations is not None:
            operation = operations[method.lower()]
            assert operation["security"] == [{"key": [right]} for right in needs.any_of]
            assert needs.in_words in operation["description"]


def test_the_documented_table_is_that_of_the_routes() -> None:
    found = BETWEEN.search(DOCUMENT.read_text())
    assert found is not None
    assert found[0] == table(), table()


def test_rights_follow_from_the_forms_of_an_entry() -> None:
    def made(**entry: Any) -> ApiKey:
        value = SecretStr("x" * 32)
        return api_keys({"k": ApiKeyEntry.model_validate({"key": value, **entry})})[0]

    assert made().may == {"start", "read"}
    assert made().requesters == ()
    assert made(may_vote=True).may == {"start", "read-all", "vote"}
    assert made(may_vote=True).requesters == ("*",)
    assert made(may_vote=True, may=["operate"]).may == {"start", "read-all", "vote", "operate"}
    assert made(may=["scim"]).may == {"scim"}
    assert made(may_vote=True, requesters=["ann@acme.eu"]).requesters == ("ann@acme.eu",)


def test_no_repr_shows_a_secret() -> None:
    assert secret_of("namer") not in repr(NAMER)
    assert find_key([NAMER], "the-older-secret-of-namer") is NAMER
    assert find_key([NAMER], "") is None


if __name__ == "__main__":
    DOCUMENT.write_text(BETWEEN.sub(lambda _: table(), DOCUMENT.read_text()))


async def test_no_key_acts_for_a_requester_it_may_not_name(office: Any) -> None:
    operator = Caller(office, key("operate"))
    run, _ = await operator.open("app:other", 1)
    refused = await operator.office.web.post(
        f"/api/runs/{run}/cancellation", json={"by": "di@acme.eu"}, headers=operator.headers
    )
    assert (refused.status_code, refused.json()["title"]) == (403, "Key may not vote")
    starter = Caller(office, key("start"))
    own, _ = await starter.open("app:start", 2)  # its requester was named by the workflow's own code
    for path, method in (("cancellation", "POST"), ("fields", "PATCH")):
        body = BODIES[f"/{path}"] | {"by": "di@acme.eu"}
        answer = await office.web.request(method, f"/api/runs/{own}/{path}", json=body, headers=starter.headers)
        assert (answer.status_code, answer.json()["title"]) == (403, "Not allowed to request for others")


async def test_another_keys_request_stays_unknown_in_a_conflict(office: Any) -> None:
    table = {"id": "keyed-deploy", "request": ["*", "app:start"], "key": "{{ version }}"}
    file = DEPLOY.model_copy(update={"workflow": type(DEPLOY.workflow).model_validate(table)})
    office.workflows["keyed-deploy"] = Listed(approval.under("keyed-deploy", pinned(file)), file)
    body = {"workflow": "keyed-deploy", "input": {"version": "9"}, "requester": "cfo@acme.eu"}

    async def opened(by: ApiKey, **more: Any) -> Any:
        return await office.web.post("/api/runs", json=body | more, headers=Caller(office, by).headers)

    run = (await opened(NAMER)).json()["run_id"]
    again = await opened(key("start"), requester="app:start")
    assert again.status_code == 409
    assert run not in again.text
    assert "cfo" not in again.text


async def test_a_cancelled_run_has_a_line_with_its_actor(office: Any) -> None:
    operator = Caller(office, key("operate"))
    _, token = await operator.open("app:other", 3)
    run = (await office.engine.get_hook_by_token(token)).run_id
    path = f"/api/runs/{run}/cancellation"
    assert (await office.web.post(path, json={"reason": "enough"}, headers=operator.headers)).status_code == 202
    [line] = [line.entry for line in await office.engine.audit_lines() if line.entry.what == "run_cancelled"]
    assert (line.who, line.run_id, line.data) == ("app:operate", run, {"reason": "enough"})
    assert line.actor is not None
    assert (line.actor["kind"], line.actor["key"]) == ("app", "operate")
