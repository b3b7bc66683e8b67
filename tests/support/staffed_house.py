"""A whole service with real mail and people in roles: what its pages show to each of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from approvals_bot.app.service import Service, open_service
from approvals_bot.config.load import Configuration
from approvals_bot.playground.mailbox import MailServer
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.sessions import Sessions
from approvals_bot.testing import FakeClock

BASE = "https://approve.acme.eu"
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": BASE}
ENV = {
    "KEY": "a signing key of the tests: 0123456789abcdef",
    "DESK": "a key of the desk, in the tests: 0123456789",
    "AUDIT": "ab" * 32,
}
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
[api_keys]
desk = {{ key = "env:DESK", may_vote = true }}
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
name = "Bo Lund"
[people."cy@acme.eu"]
name = "Cy Ek"
[people."di@acme.eu"]
name = "Di Oz"
[people."eve@acme.eu"]
name = "Eve"
[email]
host = "127.0.0.1"
port = {port}
security = "none"
sender = "Approvals <approvals@acme.eu>"
[roles]
viewer = ["cy@acme.eu"]
operator = ["di@acme.eu"]
auditor = ["audit@acme.eu"]
{more}
"""


@dataclass
class StaffedHouse:
    folder: Path
    service: Service
    mailbox: MailServer
    clock: FakeClock
    http: httpx2.AsyncClient

    async def as_person(self, person: str) -> httpx2.AsyncClient:
        """Return this person's browser."""
        token = await Sessions(self.service.engine).begin(person, method="code", browser="Firefox", proved=True)
        transport = httpx2.ASGITransport(self.service.app, client=("192.0.2.7", 5000))
        headers = OURS | {"cookie": f"__Host-approvals={token}"}
        return httpx2.AsyncClient(transport=transport, base_url=BASE, headers=headers)

    async def get(self, path: str, person: str = "") -> httpx2.Response:
        if not person:
            return await self.http.get(path)
        async with await self.as_person(person) as browser:
            return await browser.get(path)

    async def api(self, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        answer = await self.http.post(path, json=body, headers={"Authorization": f"Bearer {ENV['DESK']}"})
        await self.service.engine.settle()
        return answer

    async def open(self, workflow: str, requester: str = "bo@acme.eu", **fields: Any) -> str:
        answer = await self.api("/api/runs", {"workflow": workflow, "requester": requester, "input": fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    async def vote(self, run: str, by: str, choice: str = "approve") -> None:
        answer = await self.api(f"/api/runs/{run}/votes", {"by": by, "choice": choice, "comment": "So."})
        assert answer.status_code == 201, answer.text

    def configured(self) -> Configuration:
        return configured(self.folder)


def configured(folder: Path) -> Configuration:
    return read_configuration(folder / "config.toml", ENV)


def token_of(page: str) -> str:
    """Return the token of the page's form."""
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    assert found, page
    return found[1]


@asynccontextmanager
async def a_staffed_house(
    folder: Path, workflows: Mapping[str, str], port: int, more: str = "", *, database: str = ""
) -> AsyncIterator[StaffedHouse]:
    """Open a service with these workflow files, by id. `port`: of its relay; `more`: of its configuration."""
    (folder / "workflows").mkdir()
    config = CONFIG.format(port=port, more=more)
    (folder / "config.toml").write_text(config.replace("sqlite:///runs.db", database or "sqlite:///runs.db"))
    for id, text in workflows.items():
        (folder / "workflows" / f"{id}.toml").write_text(text)
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        mailbox = await stack.enter_async_context(MailServer(port=port))
        service = await stack.enter_async_context(open_service(configured(folder), clock=clock))
        transport = httpx2.ASGITransport(service.app, client=("192.0.2.7", 5000))
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url=BASE))
        yield StaffedHouse(folder, service, mailbox, clock, http)
