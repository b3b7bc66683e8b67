"""Every Python block of docs/from-workflow-sdk.md does what the page says."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from approvals_bot import HookNotFoundError, Run
from approvals_bot.testing import play

PAGE = Path(__file__).parents[2] / "docs" / "from-workflow-sdk.md"
BLOCK = re.compile(r"```python\n# (\w+)\.py\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, Any]]:
    """The blocks as the files that they name; later ones import earlier ones."""
    found: dict[str, Any] = {}
    for name, code in BLOCK.findall(PAGE.read_text()):
        assert name not in sys.modules
        found[name] = sys.modules[name] = types.ModuleType(name)
        exec(compile(code, f"docs/from-workflow-sdk.md, {name}.py", "exec"), found[name].__dict__)  # noqa: S102  # our docs
    yield found
    for name in found:
        del sys.modules[name]


@asynccontextmanager
async def browser(service: Any, *files: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """An application with the routes of these files, and a client for it."""
    app = Starlette(routes=[route for file in files for route in file.routes])
    app.state.engine = service.engine
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://acme.eu") as client:
        yield client


@pytest.fixture
async def waiting(files: dict[str, Any], service: Any) -> Run[Any]:
    """A run of the agent that waits for the approval of its tool call `call-1`."""
    agent = files["agent"]

    async def one_call(question: str, so_far: list[Any]) -> Any:
        booking = agent.Booking(flight_number="LH1", passenger_name="<Ann>", price=90)
        return None if so_far else agent.Part(tool="bookingApproval", tool_call_id="call-1", input=booking)

    agent.ask_model.function = one_call
    run: Run[Any] = await service.engine.start(agent.travel_agent, "a flight, please")
    await service.engine.settle()
    return run


def test_every_block_says_which_file_it_is() -> None:
    text = PAGE.read_text()
    names = [name for name, _ in BLOCK.findall(text)]
    assert len(names) == text.count("```python") == len(set(names)) == 11


def test_every_block_is_run_by_a_test_or_another_block() -> None:
    code, run = PAGE.read_text() + Path(__file__).read_text(), set[str]()
    for name, _ in BLOCK.findall(PAGE.read_text()):
        if f'files["{name}"]' in code or f"from {name} import" in code:
            run.add(name)
    assert run == {name for name, _ in BLOCK.findall(PAGE.read_text())}


def test_the_tool_describes_itself_to_the_model(files: dict[str, Any]) -> None:
    described = files["agent"].TOOLS["bookingApproval"].described()
    assert described["description"] == "Request human approval before booking a flight."
    assert described["input_schema"]["properties"]["flight_number"]["description"] == "Flight number to book"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"approved": True}, "Booking approved for <Ann> on flight LH1"),
        ({"approved": True, "comment": "enjoy"}, "Booking approved for <Ann> on flight LH1: enjoy"),
        ({"approved": False}, "Booking rejected: no reason given"),
        ({"approved": False, "comment": "too dear"}, "Booking rejected: too dear"),
    ],
)
async def test_the_approval_route(
    files: dict[str, Any], service: Any, waiting: Run[Any], answer: dict[str, Any], said: str
) -> None:
    async with browser(service, files["api"]) as ui:
        refused = await ui.post("/hooks/approval", json={"tool_call_id": "call-1", "approved": "perhaps"})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["loc"] == ["approved"]
        taken = await ui.post("/hooks/approval", json={"tool_call_id": "call-1", **answer})
        assert taken.json() == {"success": True}
        assert await waiting.return_value() == [said]
        late = await ui.post("/hooks/approval", json={"tool_call_id": "call-1", **answer})
        assert late.status_code == 404


async def test_the_approval_page_and_the_chat(files: dict[str, Any], service: Any, waiting: Run[Any]) -> None:
    async with browser(service, files["pages"], files["chat"]) as ui:
        before = (await ui.get(f"/chats/{waiting.id}")).text
        assert 'href="/bookings/call-1"' in before
        page = (await ui.get("/bookings/call-1")).text
        assert "Flight: LH1<br>Passenger: &lt;Ann&gt;<br>Price: $90" in page
        answered = await ui.post("/bookings/call-1", data={"approved": "true", "comment": "enjoy"})
        assert answered.status_code == 303
        assert await waiting.return_value() == ["Booking approved for <Ann> on flight LH1: enjoy"]
        after = (await ui.get(f"/chats/{waiting.id}")).text
        assert after == "<p>Booking approved for &lt;Ann&gt; on flight LH1: enjoy</p>"
        assert (await ui.get("/bookings/call-1")).status_code == 404
        assert (await ui.post("/bookings/call-1", data={"approved": "false"})).status_code == 409
        assert (await ui.get("/chats/unknown")).status_code == 404


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"approved": True}, "Booking approved for Ann on flight LH1"),
        ({"approved": False, "comment": "too dear"}, "Booking rejected: too dear"),
    ],
)
async def test_webhooks_directly(files: dict[str, Any], service: Any, answer: dict[str, Any], said: str) -> None:
    webhooks, urls = files["webhooks"], list[str]()

    async def notify(person: str, url: str) -> None:
        urls.append(url)

    webhooks.notify.function = notify
    booking = {"flight_number": "LH1", "passenger_name": "Ann", "price": 90}
    run = await service.engine.start(webhooks.book_by_link, booking, "bo@acme.eu")
    await service.engine.settle()
    assert (await service.web.get(urls[0])).status_code == 200
    assert await run.status() == "running", "looking never resumes"
    for junk in (b"{", b"[]", b'{"approved": "yes"}'):
        assert (await service.web.post(urls[0], content=junk)).status_code == 202
    assert (await service.web.post(urls[0], json=answer)).status_code == 202
    assert await run.return_value() == said


async def test_resume_hook_in_a_route(files: dict[str, Any], service: Any, waiting: Run[Any]) -> None:
    async with browser(service, files["basic_route"]) as ui:
        unknown = await ui.post("/resume", json={"token": "call-2", "data": {"approved": True}})
        assert (unknown.status_code, unknown.json()) == (404, {"error": "Hook not found"})
        taken = await ui.post("/resume", json={"token": "call-1", "data": {"approved": True}})
        assert taken.json() == {"success": True, "run_id": waiting.id}
    assert await waiting.return_value() == ["Booking approved for <Ann> on flight LH1"]


async def test_resume_hook_with_types(files: dict[str, Any], service: Any, waiting: Run[Any]) -> None:
    async with browser(service, files["typed_route"]) as ui:
        assert (await ui.post("/approvals", json={"token": "call-1"})).status_code == 422
        assert (await ui.post("/approvals", json={"token": "call-2", "approved": True})).status_code == 404
        taken = await ui.post("/approvals", json={"token": "call-1", "approved": False, "comment": "no"})
        assert taken.json() == {"run_id": waiting.id}
    assert await waiting.return_value() == ["Booking rejected: no"]


async def test_resume_hook_from_a_server_action(files: dict[str, Any], waiting: Run[Any]) -> None:
    actions = files["actions"]
    assert await actions.approve_request("call-1", True) == waiting.id
    assert await waiting.return_value() == ["Booking approved for <Ann> on flight LH1"]
    with pytest.raises(ValueError, match="Invalid approval token"):
        await actions.approve_request("call-1", True)


async def test_resume_hook_from_a_generic_webhook_handler(
    files: dict[str, Any], service: Any, waiting: Run[Any]
) -> None:
    async with browser(service, files["generic_webhook"]) as sender:
        assert (await sender.post("/incoming", json={"approved": True})).status_code == 400
        assert (await sender.post("/incoming?token=call-2", json={"approved": True})).status_code == 404
        assert (await sender.post("/incoming?token=call-1", json={"approved": []})).status_code == 422
        same = {"x-delivery-id": "delivery-7"}
        taken = await sender.post("/incoming?token=call-1", json={"approved": True}, headers=same)
        assert taken.json() == {"success": True, "run_id": waiting.id}
        await waiting.return_value()
        await sender.post("/incoming?token=call-1", json={"approved": True}, headers=same)
    assert sum(event.type == "hook_received" for event in await waiting.events()) == 1


async def test_get_hook_by_token(files: dict[str, Any], waiting: Run[Any]) -> None:
    looking = files["looking"]
    assert await looking.approve_small("call-1")
    assert await waiting.return_value() == ["Booking approved for <Ann> on flight LH1: below 100"]
    with pytest.raises(HookNotFoundError):
        await looking.approve_small("call-1")


async def test_the_agent_plays_in_memory_too(files: dict[str, Any]) -> None:
    agent = files["agent"]
    dear = agent.Part(
        tool="bookingApproval",
        tool_call_id="call-9",
        input=agent.Booking(flight_number="LH9", passenger_name="Bo", price=9000),
    )
    played = await play(
        agent.travel_agent,
        "a flight",
        answers={"call-9": {"approved": False}},
        steps={agent.ask_model: lambda question, so_far: None if so_far else dear},
    )
    assert played.result == ["Booking rejected: no reason given"]
