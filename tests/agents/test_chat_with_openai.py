"""The booking chat with a model of OpenAI, against a local server that speaks its API."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse

from approvals_bot import workflow
from approvals_bot.agents import Chat, ChatContext, ChatTurn
from approvals_bot.agents.chat_model import ChatModel, chat_model
from approvals_bot.agents.chat_stream import Turn
from approvals_bot.agents.chats import NO_MODEL, ChatForm, Chats
from approvals_bot.agents.pydantic_ai import Durable
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.durable.engine import Engine
from approvals_bot.service.catalog import Catalog, Listed
from tests.support import fake_openai
from tests.support.journey import Service, with_samples
from tests.support.scripted_service import Answer, scripted_service

KEY = "sk-very-secret-0123456789"
BOOKING = {"flightNumber": "LH 441", "passengerName": "Ann Ode", "price": 640}
CONFIG = '\n[chat]\nenabled = true\nmodel = "openai:gpt-test"\nkey = "env:MODEL_KEY"\n'


def chunks(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


def test_a_model_of_openai_books_a_flight(tmp_path: Path) -> None:
    answers = (
        fake_openai.calls(("call_a", "bookingApproval", BOOKING)),
        fake_openai.calls(("call_b", "bookFlight", BOOKING)),
        fake_openai.text("Your flight ", "is ", "booked."),
        fake_openai.refusal(401, f"Incorrect API key provided: {KEY}."),
        fake_openai.text("Here I am."),
    )
    service = Service(with_samples(tmp_path / "site"))
    sample = service.folder / "config.example.toml"
    (service.folder / "config.toml").write_text(sample.read_text() + CONFIG)
    with scripted_service(*answers) as openai:
        service.environment |= {"MODEL_KEY": KEY, "OPENAI_BASE_URL": f"{openai.url}/v1"}
        try:
            service.start("--config", "config.toml")

            def send(text: str, id: str) -> list[dict[str, Any]]:
                message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
                return chunks(service.http.post("/api/chat", json={"id": "c", "messages": [message]}))

            asked = send("Book LH 441 for me", "m1")
            assert [each["input"] for each in asked if each["type"] == "tool-input-available"] == [BOOKING]
            service.http.post("/api/chat/c/approvals/call_a", json={"approved": True}).raise_for_status()
            page = service.eventually(lambda: "is booked." in (shown := service.http.get("/chat/c").text) and shown)
            assert "Booked LH 441 for Ann Ode: $640." in page
            assert {each.path for each in openai.received} == {"/v1/responses"}
            assert {each.headers["authorization"] for each in openai.received} == {f"Bearer {KEY}"}
            assert all(each.body["stream"] for each in openai.received)

            refused = send("Are you there?", "m2")
            assert [each["errorText"] for each in refused if each["type"] == "error"] == [NO_MODEL]
            page = service.http.get("/chat/c").text
            assert "Send it again" in page
            again = service.post("/chat/c", {"message": "m3", "text": "", "example": "Are you there?"})
            assert again.status_code == 200
            page = service.eventually(lambda: "Here I am." in (shown := service.http.get("/chat/c").text) and shown)
            assert "Send it again" not in page
        finally:
            service.end()
            service.http.close()
    assert KEY not in service.log()
    assert not [line for line in service.stored() if KEY in line]


agent = Agent(
    chat_model(lambda messages: unused(messages)),
    name="openai_chat",
    deps_type=ChatContext,
    capabilities=[Durable(model_step={"retry_delay": "1ms"})],
)
openai_sample = Chat(agent)


def unused(messages: list[ModelMessage]) -> ModelResponse:
    raise AssertionError("the script answers only without a model")


@workflow
async def openai_sample_chat(turn: ChatTurn) -> str:
    return await openai_sample.answer(turn)


async def answered(folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, *answers: Answer) -> tuple[Turn, str, int]:
    """The turn that comes of these answers, its log, and the number of requests."""
    with scripted_service(*answers) as openai:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{openai.url}/v1")
        resources = {ChatModel: ChatModel("openai:gpt-test", key)}
        async with Engine.open(f"sqlite:///{folder}/runs.db", resources=resources) as engine:
            chats = Chats(engine, Catalog({CHAT_WORKFLOW: Listed(openai_sample_chat)}), ChatForm())
            run_id = await chats.begin([], "c", "ann@acme.eu", "m", "Hello?")
            await engine.wait(run_id, 10)
            return await chats.turn(run_id), str(await engine.events(run_id)), len(openai.received)


@pytest.mark.parametrize(("status", "requests"), [(500, 4), (429, 4), (401, 1), (400, 1)])
async def test_an_error_of_the_provider_is_a_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, requests: int
) -> None:
    key = f"{KEY}-{status}"  # one client for each key
    turn, log, received = await answered(tmp_path, monkeypatch, key, fake_openai.refusal(status, f"key {key} is bad"))
    assert (turn.error, turn.can_retry, received) == (NO_MODEL, True, requests)
    assert key not in log
    assert f"status_code: {status}" in log


async def test_a_passing_error_is_not_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = fake_openai.refusal(503, "later"), fake_openai.text("Hel", "lo")
    turn, _, received = await answered(tmp_path, monkeypatch, f"{KEY}-503", *answers)
    assert (turn.error, turn.view.texts, received) == ("", "Hello", 2)


async def test_regenerating_a_failed_answer_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = fake_openai.refusal(401, "no"), fake_openai.text("Hel", "lo")
    with scripted_service(*answers) as openai:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{openai.url}/v1")
        resources = {ChatModel: ChatModel("openai:gpt-test", f"{KEY}-again")}
        async with Engine.open(f"sqlite:///{tmp_path}/runs.db", resources=resources) as engine:
            chats = Chats(engine, Catalog({CHAT_WORKFLOW: Listed(openai_sample_chat)}), ChatForm())

            async def begin(again: bool) -> str:
                turns = await chats.turns("c", "ann@acme.eu")
                run_id = await chats.begin(turns or [], "c", "ann@acme.eu", "m", "Hello?", again=again)
                await engine.wait(run_id, 10)
                return run_id

            failed = await begin(again=True)
            assert await begin(again=False) == failed, "the same message again begins nothing"
            retried = await begin(again=True)
            assert retried != failed
            assert (await chats.turn(retried)).view.texts == "Hello"
            assert await begin(again=True) == retried, "an answer that ended well is only repeated"


async def test_two_people_who_begin_one_chat_id_at_once_have_one_each(tmp_path: Path) -> None:
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db") as engine:
        chats = Chats(engine, Catalog({CHAT_WORKFLOW: Listed(openai_sample_chat)}), ChatForm())
        people = "ann@acme.eu", "bo@acme.eu"
        await asyncio.gather(*(chats.begin([], "c", person, "m", "Hello?") for person in people))
        for person in people:
            turns = await chats.turns("c", person)
            assert [turn.view.turn.owner for turn in turns or ()] == [person]
        assert await chats.turns("c", "cy@acme.eu") is None


WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "openai" else super().find_spec(name, path, target)

sys.meta_path = [Hidden if finder is PathFinder else finder for finder in sys.meta_path]
from pydantic import SecretStr
from approvals_bot.config.chat import ChatTable
try:
    ChatTable(enabled=True, model="openai:gpt-test", key=SecretStr("k"))
except ValueError as error:
    print(error)
"""


def test_a_missing_package_is_named_at_the_start() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert "pip install openai" in done.stdout
