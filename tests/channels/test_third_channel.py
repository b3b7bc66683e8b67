"""A third channel is added without touching the package: registered by an entry point, against a real HTTP server."""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

from approvals_bot.app.service import Service, open_service
from approvals_bot.cli.doctor import examine
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.playground.mailbox import MailServer
from approvals_bot.service.catalog import read_configuration
from approvals_bot.testing import FakeClock

PACKAGE = Path(__file__).parents[2] / "approvals_bot"
CHANNEL = Path(__file__).parent / "third" / "chat_by_webhook.py"
BASE_URL = "https://approve.acme.eu"
DESK_KEY = "desk-key-of-the-tests-with-32-bytes"
ENV = {
    "KEY": "a-key-of-the-tests-that-has-32-bytes!",
    "DESK": DESK_KEY,
    "CHAT": "of-the-chat",
}
CONFIG = """
[server]
base_url     = "https://approve.acme.eu"
database     = "sqlite:///approvals.db"
signing_keys = ["env:KEY"]
[api_keys.desk]
key      = "env:DESK"
may_vote = true
[people."di@acme.eu"]
name = "Di Oz"
[email]
host     = "127.0.0.1"
port     = {mail}
security = "none"
sender   = "Approvals <approvals@acme.eu>"
[channels.chat]
url    = "{chat}"
secret = "env:CHAT"
"""
WORKFLOW = """
[workflow]
id      = "{id}"
title   = "Deploy {{{{ service }}}}"
request = ["*", "app:desk"]
[fields]
service = "string"
[[stage]]
id   = "go"
from = ["ann@acme.eu", "bo@acme.eu"]
[deliver]
chat = {to}
"""


@dataclass
class ChatServer:
    """The chat server: it keeps its messages, and refuses on demand."""

    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    heartbeats: int = 0
    refusals: dict[str, list[int]] = field(default_factory=dict)  # by place: the next answers
    strangers: set[str] = field(default_factory=set)  # people and places that it never knows

    async def post(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer of-the-chat"
        message = await request.json()
        if refusals := self.refusals.get(message["to"]):
            return web.json_response({"error": "busy"}, status=refusals.pop(0), headers={"Retry-After": "1"})
        if message["to"] in self.strangers:
            return web.json_response({"error": f"{message['to']} is nobody here"}, status=404)
        id = request.match_info.get("id") or f"m{len(self.messages) + 1}"
        self.messages[id] = message
        return web.json_response({"id": id})

    async def beat(self, request: web.Request) -> web.Response:
        self.heartbeats += 1
        return web.json_response({})

    async def places(self, request: web.Request) -> web.Response:
        return web.json_response({"places": ["#ops"]})

    def to(self, place: str) -> dict[str, Any]:
        """The only message there."""
        (found,) = [message for message in self.messages.values() if message["to"] == place]
        return found

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.add_routes([web.post("/messages", self.post), web.put("/messages/{id}", self.post)])
        app.add_routes([web.post("/heartbeat", self.beat), web.get("/places", self.places)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    """Install the channel like another package: its module and its metadata, somewhere on Python's path."""
    site = tmp_path / "site-packages"
    about = site / "chat_by_webhook-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(CHANNEL, site)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: chat-by-webhook\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[approvals_bot.channels]\nchat = chat_by_webhook:make\n")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(site))
    sys.modules.pop("chat_by_webhook", None)
    importlib.invalidate_caches()


@dataclass
class Desk:
    """A service with the chat, and everything around it."""

    service: Service
    chat: ChatServer
    mailbox: MailServer
    http: httpx2.AsyncClient
    clock: FakeClock
    config: Path

    async def open(self, workflow: str) -> str:
        body = {"workflow": workflow, "input": {"service": "api"}, "requester": "di@acme.eu"}
        answer = await self.http.post("/api/runs", json=body, headers={"Authorization": f"Bearer {DESK_KEY}"})
        assert answer.status_code == 202, answer.text
        await self.service.engine.settle()
        return str(answer.json()["run_id"])

    async def copies(self, run: str) -> list[tuple[str, str, str]]:
        answer = await self.http.get(f"/api/runs/{run}", headers={"Authorization": f"Bearer {DESK_KEY}"})
        return [(copy["channel"], copy["to"], copy["state"]) for copy in answer.json()["request"]["deliveries"]]

    async def approve(self, link: str) -> None:
        """Follow the link as a person would: look, and press."""
        path = link.removeprefix(BASE_URL)
        page = await self.http.get(path)
        assert page.status_code == 200, page.text
        form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
        own = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
        answer = await self.http.post(path, data=form | {"choice": "approve"}, headers=own)
        assert answer.status_code == 303, answer.text
        await self.service.engine.settle()


@pytest.fixture
async def desk(tmp_path: Path, installed: None) -> AsyncIterator[Desk]:
    chat, clock = ChatServer(), FakeClock()
    async with chat.serving() as url, MailServer() as mailbox:
        config = write(tmp_path, url, mailbox.port)
        async with open_service(read_configuration(config, ENV), clock=clock) as service:
            transport = httpx2.ASGITransport(service.app)
            async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as http:
                yield Desk(service, chat, mailbox, http, clock, config)


def write(folder: Path, url: str, mail: int, **workflows: str) -> Path:
    config = folder / "config.toml"
    config.write_text(CONFIG.format(chat=url, mail=mail))
    (folder / "workflows").mkdir(exist_ok=True)
    for id, to in (workflows or {"place": '"#ops"', "people": "true"}).items():
        (folder / "workflows" / f"{id}.toml").write_text(WORKFLOW.format(id=id, to=to))
    return config


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def test_a_third_channel_is_small_and_unknown_to_the_package() -> None:
    assert len(CHANNEL.read_text().splitlines()) <= 120
    known = [path for path in PACKAGE.rglob("*.py") if "chat_by_webhook" in path.read_text()]
    assert known == []


async def test_a_place_gets_the_page_that_asks_for_a_sign_in(desk: Desk) -> None:
    run = await desk.open("place")
    card = desk.chat.to("#ops")
    assert card["title"] == "Deploy api"
    assert card["link"] == f"{BASE_URL}/requests/{run}"
    assert len(desk.chat.messages) == 1  # and no personal links
    page = await desk.http.get(f"/requests/{run}")
    assert page.status_code == 401
    assert "Deploy api" not in page.text


async def test_each_person_gets_their_own_link_and_every_copy_is_updated(desk: Desk) -> None:
    run = await desk.open("people")
    ann, bo = desk.chat.to("ann@acme.eu"), desk.chat.to("bo@acme.eu")
    assert ann["link"].startswith(f"{BASE_URL}/decisions/")
    assert bo["link"].startswith(f"{BASE_URL}/decisions/")
    assert ann["link"] != bo["link"]
    await desk.approve(ann["link"])
    record = await desk.service.engine.record(run)
    assert record is not None
    assert (record.status, record.result["decision"], record.result["by"]) == ("completed", "approved", "ann@acme.eu")
    assert [desk.chat.to(person)["state"] for person in ("ann@acme.eu", "bo@acme.eu")] == ["approved", "approved"]


async def test_a_busy_channel_is_retried_and_a_refused_place_falls_back(desk: Desk) -> None:
    desk.chat.refusals["#ops"] = [503, 503]
    first = await desk.open("place")
    assert await desk.copies(first) == [("chat", "#ops", "retrying")]
    await desk.clock.advance("15s")
    assert await desk.copies(first) == [("chat", "#ops", "delivered")]
    desk.chat.messages.clear()
    desk.chat.strangers = {"#ops"}
    await desk.open("place")
    assert desk.chat.to("ann@acme.eu")["link"].startswith(f"{BASE_URL}/decisions/")


async def test_people_unknown_to_a_channel_get_a_mail(desk: Desk) -> None:
    desk.chat.strangers = {"bo@acme.eu"}
    run = await desk.open("people")
    assert await desk.copies(run) == [("chat", "ann@acme.eu", "delivered"), ("email", "bo@acme.eu", "delivered")]
    (mail,) = desk.mailbox.mails
    assert mail.to == "bo@acme.eu"


async def test_its_routes_are_mounted_and_its_task_runs_with_the_service(desk: Desk) -> None:
    answer = await desk.http.get("/chat/hello?name=Ann")
    assert answer.json() == {"hello": "Ann"}
    await until(lambda: desk.chat.heartbeats >= 2)


async def test_doctor_asks_the_channel_about_named_places(desk: Desk, tmp_path: Path) -> None:
    url = str(desk.service.configuration.service.channels["chat"]["url"])
    write(tmp_path, url, desk.mailbox.port, place='"#ops"', elsewhere='"#nowhere"')
    found = [(each.state, each.what) for each in await examine(desk.config, ENV) if each.about == "chat"]
    assert ("FAIL", "#nowhere (of elsewhere) doesn't exist") in found
    assert [state for state, _ in found] == ["OK", "FAIL"]


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("[channels.chat]", "[channels.chatt]", "channels.chatt: no channel with this name is installed"),
        ("[channels.chat]", "[channels.slack]", "channels.slack: slack has a table of its own"),
        ('secret = "env:CHAT"', "", "channels.chat.secret: is missing"),
        ('secret = "env:CHAT"', 'secret = "env:NOT_SET"', "channels.chat: the environment variable NOT_SET is not set"),
        ('url    = "http', 'url    = "ftp', "channels.chat: this channel can't be created: url is a URL"),
    ],
)
def test_a_fault_in_its_table_is_a_load_error(
    tmp_path: Path, installed: None, written: str, instead: str, said: str
) -> None:
    config = write(tmp_path, "http://127.0.0.1:1", 25, place='"#ops"')
    config.write_text(config.read_text().replace(written, instead))
    with pytest.raises(ConfigErrors) as errors:
        read_configuration(config, ENV)
    lines = [str(problem) for problem in errors.value.problems]
    assert any(said in line and line.startswith(f"{config}:") for line in lines), lines


@pytest.mark.parametrize(("to", "said"), [("chatt = true", "did you mean chat?"), ("chat = 3", "deliver.chat")])
def test_a_misspelt_channel_in_deliver_is_a_load_error(tmp_path: Path, installed: None, to: str, said: str) -> None:
    config = write(tmp_path, "http://127.0.0.1:1", 25, place='"#ops"')
    file = tmp_path / "workflows" / "place.toml"
    file.write_text(file.read_text().replace('chat = "#ops"', to))
    with pytest.raises(ConfigErrors) as errors:
        read_configuration(config, ENV)
    (problem,) = errors.value.problems
    assert said in str(problem)
    assert problem.line == file.read_text().splitlines().index(to) + 1
