"""Whose chat it is: sessions and API keys in `serve`, and what a service without the chat has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from approvals_bot.app.service import Service, open_service
from approvals_bot.config.load import Configuration
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.service.catalog import load_catalog, read_configuration
from approvals_bot.service.sessions import Sessions

KEY = "a signing key of the tests: 0123456789abcdef"
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
[api_keys]
ci = "env:CI"
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
name = "Bo Lund"
[groups]
finance = ["fin@acme.eu"]
"""
OWN = """
from approvals_bot import workflow

@workflow
async def book_flight_chat(turn: dict) -> str:
    return ""
"""
CHAT = "[chat]\nenabled = true\n"
BOOK = "Book LH 441 for Ann Ode"


def configured(folder: Path, more: str = CHAT) -> Configuration:
    (folder / "workflows").mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CONFIG + more)
    return read_configuration(folder / "config.toml", {"KEY": KEY, "CI": "ci-key-of-the-tests-with-32-bytes"})


@asynccontextmanager
async def serving(folder: Path, more: str = CHAT) -> AsyncIterator[tuple[Service, httpx2.AsyncClient]]:
    async with open_service(configured(folder, more)) as service:
        transport = httpx2.ASGITransport(service.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://approve.acme.eu") as http:
            yield service, http


async def cookie(service: Service, person: str) -> dict[str, str]:
    return {"cookie": f"__Host-approvals={await Sessions(service.engine).begin(person, method='code')}"}


def message(chat: str, text: str = BOOK) -> dict[str, Any]:
    return {"id": chat, "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": text}]}]}


def calls(answer: httpx2.Response) -> list[str]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    found = [json.loads(line) for line in lines]
    return [each["toolCallId"] for each in found if each["type"] == "tool-approval-request"]


ASKS_ZOE = """
from approvals_bot import request_approval, workflow

@workflow(name="chat_owners_ask_zoe")
async def asks() -> str:
    await request_approval("Sign it?", stages=[{"id": "sign", "from": ["zoe@elsewhere.eu"]}])
    return ""
"""


async def test_people_whom_only_code_names_have_no_chats(tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "asks.py").write_text(ASKS_ZOE)
    async with serving(tmp_path) as (service, http):
        await service.engine.start("chat_owners_ask_zoe")
        await service.engine.settle()
        zoe, ann = await cookie(service, "zoe@elsewhere.eu"), await cookie(service, "ann@acme.eu")
        assert (await http.get("/inbox", headers=zoe)).status_code == 200
        assert (await http.post("/api/chat", json=message("c"), headers=zoe)).status_code == 404
        assert (await http.post("/chat/c", data={"text": BOOK, "message": "m"}, headers=zoe)).status_code == 404
        assert (await http.post("/api/chat", json=message("c"), headers=ann)).status_code == 200


async def test_a_refused_key_of_a_chat_is_in_the_audit(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, http):
        wrong = {"Authorization": "Bearer not-a-key-of-this-service-at-all"}
        for post in ("/api/chat", "/chat/hooks/approval"):
            assert (await http.post(post, json=message("c"), headers=wrong)).status_code == 401
        [line] = await service.engine.audit_lines(AuditFilter(what="key_refused"))
        assert (line.entry.who, line.entry.data) == (None, {"status": 401})


async def test_a_chat_needs_a_session_or_a_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, http):
        page = await http.get("/chat")
        assert (page.status_code, "Sign in" in page.text) == (401, True)
        assert (await http.post("/api/chat", json=message("c"))).status_code == 401
        assert (await http.get("/api/chat/c/stream")).status_code == 401
        assert (await http.post("/chat/hooks/approval", json={})).status_code == 401
        assert (await http.get("/")).status_code == 303
        described = (await http.get("/openapi.json")).json()["paths"]
        of_chat = {"/api/chat", "/api/chat/{id}/stream", "/api/chat/{id}/approvals/{call}"}
        assert {path for path in described if "chat" in path} == of_chat


async def test_another_persons_chat_is_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, http):
        ann, bo = await cookie(service, "ann@acme.eu"), await cookie(service, "bo@acme.eu")
        [call] = calls(await http.post("/api/chat", json=message("c"), headers=ann))
        yes, named = {"approved": True}, {"approved": True, "toolCallId": call}
        assert (await http.get("/chat/c", headers=bo)).status_code == 404
        assert (await http.post("/api/chat", json=message("c"), headers=bo)).status_code == 404
        assert (await http.get("/api/chat/c/stream", headers=bo)).status_code == 404
        assert (await http.post(f"/api/chat/c/approvals/{call}", json=yes, headers=bo)).status_code == 404
        assert (await http.post(f"/chat/c/approvals/{call}", data={"choice": "approve"}, headers=bo)).status_code == 404
        assert (await http.post("/chat/hooks/approval", json=named, headers=bo)).status_code == 404
        assert "Approve this booking?" in (await http.get("/chat/c", headers=ann)).text
        assert '"/chat/c"' in (await http.get("/chat", headers=ann)).text
        assert '"/chat/c"' not in (await http.get("/chat", headers=bo)).text
        assert (await http.post(f"/api/chat/c/approvals/{call}", json=yes, headers=ann)).json() == {"success": True}


async def test_an_open_stream_ends_with_its_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, http):
        ann = await cookie(service, "ann@acme.eu")
        (call,) = calls(await http.post("/api/chat", json=message("c"), headers=ann))
        reading = asyncio.create_task(http.get("/api/chat/c/stream?hold=1", headers=ann))
        await service.engine.settle()
        await Sessions(service.engine).end_all("ann@acme.eu")
        again = await cookie(service, "ann@acme.eu")
        yes = {"approved": True}
        assert (await http.post(f"/api/chat/c/approvals/{call}", json=yes, headers=again)).json() == {"success": True}
        seen = (await asyncio.wait_for(reading, 20)).text
        assert call in seen
        assert "tool-output-available" not in seen
        assert "[DONE]" not in seen


async def test_further_approvers_decide_after_the_owner(tmp_path: Path) -> None:
    async with serving(tmp_path, CHAT + 'approvers = ["@finance"]\n') as (service, http):
        ann = await cookie(service, "ann@acme.eu")
        [call] = calls(await http.post("/api/chat", json=message("c"), headers=ann))
        answer = await http.post(f"/api/chat/c/approvals/{call}", json={"approved": True}, headers=ann)
        assert answer.json() == {"success": True}
        shown = (await http.get("/chat/c", headers=ann)).text
        assert "Waiting for fin" in shown
        assert 'value="approve"' not in shown


@pytest.mark.agents(9)
async def test_the_same_yes_with_other_changes_is_another_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, http):
        ann = await cookie(service, "ann@acme.eu")
        [call] = calls(await http.post("/api/chat", json=message("c"), headers=ann))
        for price, status in ((600, 200), (600.0, 200), (1, 409)):
            body = {"approved": True, "arguments": {"price": price}}
            answer = await http.post(f"/api/chat/c/approvals/{call}", json=body, headers=ann)
            assert answer.status_code == status, answer.text
        answer = await http.post(f"/api/chat/c/approvals/{call}", json={"approved": True}, headers=ann)
        assert answer.status_code == 200


async def test_a_keys_chat_is_decided_by_its_approvers(tmp_path: Path) -> None:
    async with serving(tmp_path, CHAT + 'approvers = ["@finance"]\n') as (service, http):
        key = {"authorization": "Bearer ci-key-of-the-tests-with-32-bytes"}
        [call] = calls(await http.post("/api/chat", json=message("c"), headers=key))
        answer = await http.post(f"/api/chat/c/approvals/{call}", json={"approved": True}, headers=key)
        assert answer.status_code == 403
        [record] = (await service.engine.runs(waiting_for="fin@acme.eu")).records
        assert record.attributes["chat_owner"] == "app:ci"


async def test_a_keys_chat_needs_approvers(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, http):
        key = {"authorization": "Bearer ci-key-of-the-tests-with-32-bytes"}
        refused = await http.post("/api/chat", json=message("c"), headers=key)
        assert (refused.status_code, "approvers" in refused.json()["detail"]) == (422, True)


async def test_a_key_starts_no_chat_in_somebodys_name(tmp_path: Path) -> None:
    """The input of a turn says whose chat it is, and how its bookings are approved."""
    async with serving(tmp_path) as (service, http):
        key = {"authorization": "Bearer ci-key-of-the-tests-with-32-bytes"}
        turn = {"chat": "c", "message": "m", "text": BOOK, "owner": "ann@acme.eu", "approval": "webhook"}
        for given in (turn, {"turn": turn}):
            body = {"workflow": "book_flight_chat", "input": given}
            refused = await http.post("/api/runs", json=body, headers=key)
            assert refused.status_code == 403, refused.text
        assert not (await service.engine.runs("book_flight_chat")).records


async def test_a_cancelled_answer_says_so_and_runs_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, http):
        ann = await cookie(service, "ann@acme.eu")
        [call] = calls(await http.post("/api/chat", json=message("c"), headers=ann))
        [record] = (await service.engine.runs("book_flight_chat")).records
        await service.engine.cancel(record.id, "enough")
        await service.engine.wait(record.id, 5)
        shown = (await http.get("/chat/c", headers=ann)).text
        assert "This answer was cancelled." in shown
        assert "data-open" not in shown
        assert 'value="approve"' not in shown
        assert (await http.get("/api/chat/c/stream", headers=ann)).status_code == 204
        again = await http.post("/api/chat", json=message("c"), headers=ann)
        assert '"type": "error"' in again.text
        late = await http.post(f"/api/chat/c/approvals/{call}", json={"approved": True}, headers=ann)
        assert late.status_code == 409


async def test_a_webhook_can_be_what_a_booking_waits_for(tmp_path: Path) -> None:
    async with serving(tmp_path, CHAT + 'approval = "webhook"\n') as (service, http):
        ann = await cookie(service, "ann@acme.eu")
        one, two = calls(await http.post("/api/chat", json=message("c", f"{BOOK} and LH 442 for Bo Lund"), headers=ann))
        shown = (await http.get("/chat/c", headers=ann)).text
        url = shown.partition('<code class="whole">')[2].partition("<")[0]
        called = await http.post(url, json={"approved": False, "comment": "too dear"})
        assert called.status_code == 202
        yes = {"approved": True}
        assert (await http.post(f"/api/chat/c/approvals/{two}", json=yes, headers=ann)).json() == {"success": True}
        assert (await http.post(f"/api/chat/c/approvals/{two}", json=yes, headers=ann)).json()["success"] is True
        no = await http.post(f"/api/chat/c/approvals/{two}", json={"approved": False}, headers=ann)
        assert no.status_code == 409
        [record] = (await service.engine.runs("book_flight_chat")).records
        await service.engine.wait(record.id, 5)
        shown = (await http.get("/chat/c", headers=ann)).text
        assert "Booking rejected: too dear" in shown
        assert "Booked LH 442 for Bo Lund" in shown
        assert "/webhooks/" not in shown
        assert one in shown


async def test_without_its_table_there_is_no_chat(tmp_path: Path) -> None:
    async with serving(tmp_path, "") as (_, http):
        assert (await http.get("/chat")).status_code == 404
        assert (await http.post("/api/chat", json=message("c"))).status_code == 404
        assert "book_flight_chat" not in load_catalog(configured(tmp_path, "")).names()


def test_a_file_of_the_same_name_replaces_the_built_in_one(tmp_path: Path) -> None:
    configuration = configured(tmp_path)
    assert "book_flight_chat" in load_catalog(configuration).names()
    (tmp_path / "workflows" / "book_flight_chat.py").write_text(OWN)
    listed = load_catalog(configuration).find("book_flight_chat")
    assert listed is not None
    assert str(tmp_path) in listed.workflow.function.__code__.co_filename


@pytest.mark.parametrize(
    ("table", "key", "what"),
    [
        ('model = "gpt"', "chat.model", "openai:gpt"),
        ('model = "openai:gpt-5.2"', "chat.key", "missing"),
        ('approvers = ["@nobody"]', "chat.approvers", "no group is called nobody"),
        ('approvers = ["ann"]', "chat.approvers", ""),
        ('approval = "mail"', "chat.approval", ""),
    ],
)
def test_mistakes_in_the_table_have_a_line(tmp_path: Path, table: str, key: str, what: str) -> None:
    with pytest.raises(ConfigErrors) as failed:
        configured(tmp_path, CHAT + table + "\n")
    [problem] = failed.value.problems
    assert problem.key.startswith(key)
    assert what in problem.message
