"""How much of the package one act walks through: files, functions and lines of code.

`TRACE_TABLE=file` writes down what ran in each journey, the longest files and functions first.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from approvals_bot.app.service import Service, open_service
from approvals_bot.people import Person
from approvals_bot.playground import Playground, SeedApp, SeedChannel, User, routes
from approvals_bot.playground.mailbox import ReceivedMail
from approvals_bot.playground.slack.shapes import Message
from approvals_bot.service.catalog import read_configuration
from approvals_bot.testing import FakeClock
from tests.support.browsing import a_port, serving
from tests.support.traced import Traced, Tracer

MOST = (101, 598, 4890)
"""Files, functions, and lines of code of these functions that one act may walk through."""

OF_SLACK = ("channels/slack/", "config/hosts.py")  # the playground, which presses here, asks who calls it
# A mail's way in is a page behind a signed link, whose person somebody still has to know. Slack says who presses there.
OF_MAIL = (
    "channels/email/",
    "web/",
    "durable/tokens.py",
    "service/known.py",
    "service/catalog.py",
    "people/persons.py",  # the mailbox of a person
    "approvals/zones.py",  # Slack writes times in the reader's zone
)

TIMES = 3  # each journey is made so often; what it walks through is what ran each time

CONFIG = """
[server]
base_url     = "{url}"
database     = "sqlite:///approvals.db"
signing_keys = ["file:signing.key"]
[api_keys]
ci = {{ key = "file:ci.key", may_vote = true }}
[slack]
bot_token      = "file:bot.token"
signing_secret = "file:signing.secret"
api_url        = "{url}/playground/slack/api/"
app_id         = "A0APPROVE"
[email]
host     = "127.0.0.1"
port     = {smtp}
security = "none"
sender   = "Approvals <approvals@acme.eu>"
[people."ann@acme.eu"]
name  = "Ann Ode"
slack = "U0ANN"
[people."bo@acme.eu"]
name  = "Bo Lund"
slack = "U0BO"
[people."cy@acme.eu"]
name = "Cy Rus"
[people."di@acme.eu"]
name = "Di Moe"
"""

WORKFLOW = """
[workflow]
id      = "{id}"
title   = "Deploy {{{{ service }}}} {{{{ version }}}}"
request = ["*"]
[fields]
service = "string"
version = {{ type = "string", pinned = true }}
[[stage]]
id   = "go"
from = ["{approver}"]
[deliver]
{deliver}
[clock]
deadline = "4h"
"""

IN_SLACK, BY_MAIL = "deploy-in-slack", "deploy-by-mail"
"""Each channel on its own, for the approver and the requester: only so can press and mail be compared."""

WORKFLOWS = {
    IN_SLACK: {"approver": "ann@acme.eu", "deliver": 'slack = "#deploys"'},
    BY_MAIL: {"approver": "cy@acme.eu", "deliver": "email = true"},
}
REQUESTERS = {IN_SLACK: "bo@acme.eu", BY_MAIL: "di@acme.eu"}

SECRETS = {"signing.key": "k" * 40, "ci.key": "c" * 40, "bot.token": "xoxb-1", "signing.secret": "s" * 40}
PEOPLE = (
    User(Person("ann@acme.eu", "Ann Ode", "U0ANN")),
    User(Person("bo@acme.eu", "Bo Lund", "U0BO")),
    User(Person("cy@acme.eu", "Cy Rus")),
    User(Person("di@acme.eu", "Di Moe")),
)


Act = Callable[[], Awaitable[None]]


@dataclass
class House:
    """The whole service on a port of its own, with the stand-ins that it talks to."""

    service: Service
    clock: FakeClock
    playground: Playground
    http: httpx2.AsyncClient

    async def begin(self, workflow: str = IN_SLACK) -> None:
        """`POST /api/runs`, until the card or the mail is out."""
        given = {"service": "api", "version": "2.1"}
        body = {"workflow": workflow, "input": given, "requester": REQUESTERS[workflow]}
        headers = {"authorization": f"Bearer {SECRETS['ci.key']}"}
        answer = await self.http.post("/api/runs", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        await self.service.engine.settle()

    async def press(self) -> Act:
        """A press in Slack that decides."""
        await self.begin()
        card = self._cards()[-1]
        body = {"user": "U0ANN", "channel": card.channel, "ts": card.ts, "button": "Approve"}

        async def act() -> None:
            answer = await self.http.post("/playground/slack/click", json=body)
            assert answer.json()["status"] == 200, answer.text
            await self._decided("Approved by Ann Ode")

        return act

    async def mail(self) -> Act:
        """The form of the page that a mail leads to, sent with the choice that decides."""
        await self.begin(BY_MAIL)
        mail = self._mails("cy@acme.eu")[-1]
        link = re.findall(r"http://\S+/decisions/\S+", mail.text)[0]
        page = await self.http.get(link)
        form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
        headers = {"origin": "null", "sec-fetch-site": "same-origin"}

        async def act() -> None:
            answer = await self.http.post(link, data=form | {"choice": "approve"}, headers=headers)
            assert answer.status_code == 303, answer.text
            await self.service.engine.settle()
            assert "Approved" in self._mails("di@acme.eu")[-1].subject

        return act

    async def deadline(self) -> Act:
        """Time passes until the request expires."""
        await self.begin()

        async def act() -> None:
            await self.clock.advance("4h")
            await self._decided("Expired at the deadline")

        return act

    async def start(self) -> Act:
        """`POST /api/runs` to the first card."""
        return self.begin

    async def _decided(self, words: str) -> None:
        await self.service.engine.settle()
        assert words in str(self._cards()[-1])

    def _mails(self, to: str) -> list[ReceivedMail]:
        return [mail for mail in self.playground.mailbox.mails if mail.to == to]

    def _cards(self) -> list[Message]:
        return [one for one in self.playground.workspace.messages.values() if not one.ephemeral_to]


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    for name, text in SECRETS.items():
        (folder / name).write_text(text)
    (folder / "workflows").mkdir()
    for id, parts in WORKFLOWS.items():
        (folder / f"workflows/{id}.toml").write_text(WORKFLOW.format(id=id, **parts))
    clock = FakeClock()
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        playground = Playground(
            app=SeedApp(SECRETS["bot.token"], SECRETS["signing.secret"]),
            people=PEOPLE,
            channels=[SeedChannel("deploys")],
            groups=[],
            base_url=url,
            events_url=f"{url}/slack/events",
            now=clock.now,
            signing_clock=lambda: clock.now().timestamp(),
        )
        async with playground, httpx2.AsyncClient(base_url=url, trust_env=False) as http:
            (folder / "config.toml").write_text(CONFIG.format(url=url, smtp=playground.smtp_port))
            configuration = read_configuration(folder / "config.toml")
            async with (
                open_service(configuration, clock=clock, extra=routes(playground)) as service,
                serving(service.app, bound),
            ):
                yield House(service, clock, playground, http)


JOURNEYS = {"press": House.press, "mail": House.mail, "deadline": House.deadline, "start": House.start}


async def trace(folder: Path) -> dict[str, Traced]:
    """What each journey walks through, once nothing is imported or cached for the first time any more."""
    tracer = Tracer()
    found = {}
    with tracer.installed():
        async with open_house(folder) as house:
            for prepare in (House.press, House.mail, House.deadline):
                await (await prepare(house))()
            for name, prepare in JOURNEYS.items():
                times = []
                for _ in range(TIMES):
                    act = await prepare(house)
                    with tracer.noting() as functions:
                        await act()
                    times.append(functions)
                found[name] = Traced(frozenset.intersection(*map(frozenset, times)))
    return found


async def test_an_act_stays_below_its_ceilings(tmp_path: Path) -> None:
    found = await trace(tmp_path)
    sizes = {name: (len(ran.files), len(ran), ran.lines) for name, ran in found.items()}
    if table := os.environ.get("TRACE_TABLE"):
        Path(table).write_text("\n".join(_tables(found, sizes)) + "\n")
    assert all(size <= most for found in sizes.values() for size, most in zip(found, MOST, strict=True)), sizes
    press, mail = found["press"].files, found["mail"].files
    assert [file for file in press - mail if not file.startswith(OF_SLACK)] == []
    assert [file for file in mail - press if not file.startswith(OF_MAIL)] == []


def _tables(found: dict[str, Traced], sizes: dict[str, tuple[int, int, int]]) -> Iterator[str]:
    yield f"{'':10} files functions lines   (at most: {MOST})"
    yield from (f"{name:10} {files:5} {functions:9} {lines:5}" for name, (files, functions, lines) in sizes.items())
    for one, other in (("press", "mail"), ("mail", "press")):
        yield f"only {one}, not {other}: {', '.join(sorted(found[one].files - found[other].files))}"
    for name, ran in found.items():
        yield f"\n=== {name}: lines, functions, file; below: lines of each function ==="
        yield from ran.table()
