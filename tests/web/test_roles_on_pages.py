"""What people see and do by role, their own page, and rights that end when they leave."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from approvals_bot.app.service import Service, open_service
from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.card_model import Via
from approvals_bot.approvals.request import Request
from approvals_bot.config.load import Configuration
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.durable.tokens import Tokens
from approvals_bot.service.act import perform
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.read import request_of
from approvals_bot.service.sessions import Sessions
from approvals_bot.testing import FakeClock
from approvals_bot.web.links import Links

KEY, DESK = "a signing key of the tests: 0123456789abcdef", "a key of the desk, in the tests: 0123456789"
BASE = "https://approve.acme.eu"
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": BASE}
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
[api_keys]
desk = { key = "env:DESK", may_vote = true }
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
name = "Bo Lund"
[people."di@acme.eu"]
name = "Di Oz"
[people."eve@acme.eu"]
name = "Eve"
[groups]
sre = { file = "sre.json" }
[email]
host = "127.0.0.1"
port = 2525
security = "none"
sender = "Approvals <approvals@acme.eu>"
[roles]
viewer = ["@sre"]
operator = ["di@acme.eu"]
"""
WORKFLOW = """
[workflow]
id = "{id}"
title = "Deploy"
request = ["*"]
viewers = ["eve@acme.eu"]
[[stage]]
id = "go"
from = ["ann@acme.eu", "cy@acme.eu"]
[deliver]
email = "after 1h"
{more}
"""


@dataclass
class House:
    folder: Path
    service: Service
    http: httpx2.AsyncClient
    clock: FakeClock

    async def cookie(self, person: str, method: str = "code") -> dict[str, str]:
        token = await Sessions(self.service.engine).begin(
            person, method=method, browser="Firefox on Linux", proved=method == "code"
        )
        return {"cookie": f"__Host-approvals={token}"}

    async def api(self, path: str, body: dict[str, object]) -> httpx2.Response:
        answer = await self.http.post(path, json=body, headers={"Authorization": f"Bearer {DESK}"})
        await self.service.engine.settle()
        return answer

    async def open(self) -> str:
        body: dict[str, object] = {"workflow": "ship", "requester": "bo@acme.eu", "input": {}}
        answer = await self.api("/api/runs", body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    async def get(self, path: str, person: str = "") -> httpx2.Response:
        return await self.http.get(path, headers=await self.cookie(person) if person else {})

    async def request(self, run: str) -> Request:
        record = await self.service.engine.record(run)
        view = None if record is None else request_of(record)
        assert view is not None
        return view

    async def link(self, run: str, person: str) -> str:
        engine = self.service.engine
        tokens = Tokens([KEY], installation=engine.installation)
        links = Links(engine=engine, tokens=tokens, base_url="", now=self.clock.now)
        return await links.url((await self.request(run)).hook_id, person)

    def reconfigure(self, file: str, change: str, to: str = "") -> None:
        path = self.folder / file
        assert change in path.read_text()
        path.write_text(path.read_text().replace(change, to))
        self.service.reload(configured(self.folder))


def configured(folder: Path) -> Configuration:
    return read_configuration(folder / "config.toml", {"KEY": KEY, "DESK": DESK})


def write(folder: Path, more: str = "", config: str = CONFIG) -> None:
    (folder / "workflows").mkdir(exist_ok=True)
    (folder / "config.toml").write_text(config)
    (folder / "sre.json").write_text('["cy@acme.eu"]')
    (folder / "workflows" / "ship.toml").write_text(WORKFLOW.format(id="ship", more=more))


@pytest.fixture
async def house(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    write(tmp_path, getattr(request, "param", ""))
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(open_service(configured(tmp_path), clock=clock))
        transport = httpx2.ASGITransport(service.app, client=("192.0.2.7", 5000))
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url=BASE))
        yield House(tmp_path, service, http, clock)


async def test_errors_keep_the_menu_of_who_is_signed_in(house: House) -> None:
    menu = '<a href="/requests/new">New request</a>'
    for path, status in (("/nowhere", 404), ("/requests/run_no", 404), ("/inbox?box=mine", 422), ("/inbox/votes", 405)):
        page = await house.get(path, "bo@acme.eu")
        assert (page.status_code, menu in page.text) == (status, True), path
    for path in ("/nowhere", "/decisions/forged"):
        assert menu not in (await house.get(path)).text
    assert menu not in (await house.get("/decisions/forged", "bo@acme.eu")).text


async def test_pages_open_by_role_and_concern(house: House) -> None:
    run = await house.open()
    for person, request, runs in (
        ("", 401, 401),
        ("bo@acme.eu", 200, 403),  # the requester
        ("ann@acme.eu", 200, 403),  # an approver
        ("cy@acme.eu", 200, 200),  # a viewer, by group
        ("di@acme.eu", 200, 200),  # an operator
        ("eve@acme.eu", 200, 403),  # sees the requests of this workflow
    ):
        for path in (f"/requests/{run}", f"/runs/{run}"):
            assert (await house.get(path, person)).status_code == request, (person, path)
        for path in ("/runs", "/runs/none"):
            expected = 404 if (path, runs) == ("/runs/none", 200) else runs
            assert (await house.get(path, person)).status_code == expected, (person, path)
    house.reconfigure("workflows/ship.toml", 'viewers = ["eve@acme.eu"]')
    assert (await house.get(f"/requests/{run}", "eve@acme.eu")).status_code == 404
    assert "This page is for viewers" in (await house.get("/runs", "bo@acme.eu")).text
    assert (await house.get("/")).headers["location"] == "/inbox"


async def test_owners_see_their_workflow_with_its_file(house: House) -> None:
    run = await house.open()
    people = ("ann@acme.eu", "eve@acme.eu", "bo@acme.eu")
    owned = 'request = ["app:desk"]\nowners = ["app:desk", "ann@acme.eu"]'
    house.reconfigure("workflows/ship.toml", 'request = ["*"]', owned)
    pages = [await house.get("/workflows/ship", person) for person in people]
    assert [page.status_code for page in pages] == [200, 200, 404]  # the owner, a viewer, and neither
    assert "from = [&#34;ann@acme.eu&#34;, &#34;cy@acme.eu&#34;]" in pages[0].text
    house.reconfigure("workflows/ship.toml", '"ann@acme.eu"]\nviewers', '"di@acme.eu"]\nviewers')
    assert (await house.get("/workflows/ship", "ann@acme.eu")).status_code == 404
    assert (await house.get(f"/requests/{run}", "ann@acme.eu")).status_code == 200  # an approver all the same


async def test_a_role_whose_group_is_down_shows_nothing(house: House) -> None:
    run = await house.open()
    (house.folder / "sre.json").write_text("oops")
    for path in ("/runs", f"/runs/{run}"):
        page = await house.get(path, "eve@acme.eu")
        assert (page.status_code, "ship" in page.text) == (503, False)
        assert "read" in page.text
    assert (await house.get("/runs", "di@acme.eu")).status_code == 200  # named by address


async def test_an_operators_role_gives_no_vote(house: House) -> None:
    run = await house.open()
    path = f"/api/runs/{run}/votes"
    refused = await house.api(path, {"by": "di@acme.eu", "choice": "approve"})
    assert (refused.status_code, refused.json()["verdict"]) == (403, "not_an_approver")
    page = await house.get(f"/requests/{run}", "di@acme.eu")
    assert "/decisions/" not in page.text


async def test_people_see_and_end_their_sessions(house: House) -> None:
    here, there, bo = [await house.cookie(each) for each in ("ann@acme.eu", "ann@acme.eu", "bo@acme.eu")]
    page = await house.http.get("/me", headers=here)
    assert page.text.count("Firefox on Linux") == 2
    assert page.text.count("this browser") == 1
    assert "a code by email" in page.text
    token = page.text.partition('name="form_token" value="')[2].partition('"')[0]
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    by_old_browser = {"Origin": "null"}
    for headers, form in ((by_old_browser, ""), (by_old_browser, "x"), (elsewhere, token)):
        refused = await house.http.post("/me", data={"form_token": form}, headers=headers | here)
        assert refused.status_code == 403
    assert (await house.http.post("/me", data={"form_token": token}, headers=by_old_browser | bo)).status_code == 403
    done = await house.http.post("/me", data={"form_token": token}, headers=by_old_browser | here)
    assert done.headers["location"] == "/login?signed-out=1"
    for cookie, status in ((here, 401), (there, 401), (bo, 200)):
        assert (await house.http.get("/me", headers=cookie)).status_code == status
    lines = await house.service.engine.audit_lines()
    assert [line.entry.data for line in lines if line.entry.what == "signed_out_everywhere"] == [{"sessions": 2}]


async def test_rights_end_when_a_person_leaves(house: House) -> None:
    (house.folder / "sre.json").write_text("[]")
    run = await house.open()
    link = await house.link(run, "cy@acme.eu")
    assert (await house.get(link)).status_code == 200
    assert (await house.get("/inbox", "cy@acme.eu")).status_code == 200
    house.reconfigure("workflows/ship.toml", ', "cy@acme.eu"')  # the open run has pinned the file of before
    assert (await house.get(link)).status_code == 404
    assert (await house.get("/inbox", "cy@acme.eu")).status_code == 401
    reply = await perform(house.service.engine, await house.request(run), Vote("cy@acme.eu", "approve", via="api"))
    assert (reply.verdict, reply.code, reply.changed) == ("not_an_approver", "left", False)
    (house.folder / "sre.json").write_text("oops")
    assert (await house.get(link)).status_code == 503
    reply = await perform(house.service.engine, await house.request(run), Vote("cy@acme.eu", "approve", via="api"))
    assert reply.verdict == "group_unknown"
    (house.folder / "sre.json").write_text('["cy@acme.eu"]')  # they are back, in a group
    assert (await house.get(link)).status_code == 200


BY_CODE = """
from approvals_bot import request_approval, workflow

@workflow(name="{name}")
async def asks() -> str:
    outcome = await request_approval("Sign the lease?", stages=[{{"id": "sign", "from": ["{person}"]}}])
    return type(outcome).__name__
"""


async def test_a_person_whom_only_code_names_has_its_requests_alone(house: House) -> None:
    zoe = "zoe@elsewhere.eu"
    (house.folder / "workflows" / "lease.py").write_text(BY_CODE.format(name="lease_asks_zoe", person=zoe))
    house.reconfigure("workflows/ship.toml", '"cy@acme.eu"', f'"cy@acme.eu", "{zoe}"')
    shipped = await house.open()
    leased = (await house.service.engine.start("lease_asks_zoe")).id
    await house.service.engine.settle()
    link, cookie = await house.link(shipped, zoe), await house.cookie(zoe)
    assert (await house.http.get(f"/requests/{shipped}", headers=cookie)).status_code == 200
    house.reconfigure("workflows/ship.toml", f', "{zoe}"')
    for path, status in (
        (f"/requests/{leased}", 200),
        (f"/requests/{shipped}", 404),
        (f"/requests/{shipped}/evidence", 404),
        (f"/live?run={shipped}", 404),
        ("/requests/new/ship", 404),
        (link, 404),
    ):
        assert (await house.http.get(path, headers=cookie)).status_code == status, path
    assert "ship" not in (await house.http.get("/requests/new", headers=cookie)).text.lower()
    view = await house.request(leased)
    assert (await perform(house.service.engine, view, Vote(zoe, "approve", via="inbox"))).changed
    await house.service.engine.settle()
    assert (await house.http.get("/inbox", headers=cookie)).status_code == 401, "nothing of the code's is open any more"


SIGN_IN = 'link_auth = "login"\nmax_age = "5m"'


@pytest.mark.parametrize("house", [SIGN_IN], indirect=True)
async def test_a_decision_needs_a_sign_in_of_just_now(house: House) -> None:
    run = await house.open()
    link = await house.link(run, "ann@acme.eu")
    page = await house.get(link)
    assert "Sign in to decide" in page.text
    assert 'name="choice"' not in page.text
    again = f"/login?again=1&amp;next={link}"
    assert again in page.text
    old, proxied, bo = (
        await house.cookie("ann@acme.eu"),
        await house.cookie("ann@acme.eu", "oidc"),
        await house.cookie("bo@acme.eu"),
    )
    await house.clock.advance("6m")
    new = await house.cookie("ann@acme.eu")
    shown = await house.http.get(link, headers=new)
    assert 'name="choice"' in shown.text
    form = {"form_token": shown.text.partition('name="form_token" value="')[2].partition('"')[0], "choice": "approve"}
    for cookie in ({}, old, proxied, bo):
        refused = await house.http.post(link, data=form, headers=OURS | cookie)
        assert (refused.status_code, "needs a new sign-in" in refused.text) == (403, True)
    assert (await house.http.post(link, data=form, headers=OURS | new)).status_code == 303
    await house.service.engine.settle()
    assert (await house.request(run)).state == "approved"


@pytest.mark.parametrize("house", [SIGN_IN], indirect=True)
@pytest.mark.parametrize("via", ["slack", "chat"])
async def test_a_press_elsewhere_leads_to_the_sign_in(house: House, via: Via) -> None:
    run = await house.open()
    reply = await perform(house.service.engine, await house.request(run), Vote("ann@acme.eu", "approve", via=via))
    assert (reply.code, reply.changed) == ("sign_in_needed", False)
    assert f"{BASE}/requests/{run}" in reply.text
    assert (await house.request(run)).is_open


@pytest.mark.parametrize(
    ("change", "to", "expected"),
    [
        ('viewer = ["@sre"]', 'viewer = ["@sr"]', "no group is called sr"),
        ('viewer = ["@sre"]', 'viewer = ["nobody"]', "is not an email address"),
        ("[roles]", '[login]\nmethods = ["oidc"]\n[roles]', "there is no [login.oidc]"),
        (
            "[roles]",
            '[login]\nmethods = ["slack"]\n[login.slack]\nclient_id = "1"\nclient_secret = "env:KEY"\n[roles]',
            "there is no [slack]",
        ),
        ("[roles]", '[login]\nlifetime = "365d"\n[roles]', "90 days at most"),
        (
            "[roles]",
            '[login.oidc]\nissuer = "http://id.acme.eu"\nclient_id = "a"\nclient_secret = "env:KEY"\n[roles]',
            "an issuer has https",
        ),
        (
            "[roles]",
            '[login.proxy]\nheader = "X-User"\ntrusted = ["10/8"]\n[roles]',
            'write a network like "10.0.0.0/8"',
        ),
        ("[roles]", '[login]\nmethods = ["code", "code"]\n[roles]', "is listed twice"),
    ],
)
def test_mistakes_in_login_and_roles_are_named(tmp_path: Path, change: str, to: str, expected: str) -> None:
    write(tmp_path, config=CONFIG.replace(change, to))
    with pytest.raises(ConfigErrors) as errors:
        configured(tmp_path)
    assert expected in str(errors.value)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('link_auth = "code"\nmax_age = "5m"', 'applies to link_auth = "login" only'),
        ('link_auth = "login"', "nobody can sign in"),
    ],
)
def test_mistakes_about_sign_ins_of_workflows_are_named(tmp_path: Path, more: str, expected: str) -> None:
    proxy = '[login]\nmethods = ["proxy"]\n[login.proxy]\nheader = "X-User"\ntrusted = ["10.0.0.0/8"]\n[roles]'
    write(tmp_path, more, CONFIG.replace("[roles]", proxy))
    with pytest.raises(ConfigErrors) as errors:
        configured(tmp_path)
    assert expected in str(errors.value)


def links(page: httpx2.Response) -> list[tuple[str, str]]:
    """Return the words and paths of a page's navigation, the current one with a star."""
    nav = page.text.partition('<nav aria-label="Pages">')[2].partition("</nav>")[0]
    found = re.findall(r'<a href="([^"]+)"( aria-current="page")?>([^<]+)</a>', nav)
    return [(word + ("*" if current else ""), path) for path, current, word in found]


async def test_the_navigation_has_what_a_person_may_open(house: House) -> None:
    for person, paths, more in (
        ("bo@acme.eu", ("/inbox", "/requests/new", "/me"), set()),
        ("cy@acme.eu", ("/inbox", "/runs", "/me"), {"Requests"}),
        ("di@acme.eu", ("/inbox", "/runs", "/workflows/ship"), {"Requests"}),
    ):
        for path in paths:
            page = await house.get(path, person)
            shown = links(page)
            assert {"Inbox", "New request", "You"} | more <= {word.strip("*") for word, _ in shown}, (person, path)
            assert [to for word, to in shown if word.endswith("*")] in ([path], ["/runs"], ["/workflows"])
            for _, to in shown:
                assert (await house.get(to, person)).status_code == 200, (person, to)
    assert links(await house.get("/runs", "bo@acme.eu")) == [
        (word.strip("*"), to) for word, to in links(await house.get("/inbox", "bo@acme.eu"))
    ]
    assert links(await house.get("/inbox")) == []
    (house.folder / "sre.json").unlink()
    assert (await house.get("/inbox", "bo@acme.eu")).status_code == 200
    assert "Requests" not in dict(links(await house.get("/inbox", "bo@acme.eu")))
