"""People without Slack sign in with a code, see their inbox, and decide."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from approvals_bot.approvals.port import Channels, Delivered, Dispatch, Receipt, Result, place_name
from approvals_bot.durable.core.api import workflow
from approvals_bot.playground.mailbox import MailServer
from approvals_bot.web import list_pages
from tests.support.browsing import a_port, serving
from tests.support.posting import a_posting_service, until

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}


@dataclass
class Browser:
    """Somebody's browser: it keeps its cookies."""

    service: Any
    mailbox: MailServer
    http: httpx2.AsyncClient

    async def post(self, path: str, **form: str) -> httpx2.Response:
        answer = await self.http.post(path, data=form, headers=OURS)
        await self.service.engine.settle()
        return answer

    async def digits_for(self, address: str) -> tuple[dict[str, str], str]:
        """Return the hidden fields of the page for the code, and the digits from the mail."""
        before = len(self.mailbox.mails)
        asked = await self.post("/login", address=address)
        assert asked.status_code == 200
        await until(lambda: len(self.mailbox.mails) > before)
        mail = self.mailbox.mails[-1]
        assert mail.to == address
        assert "http" not in mail.text  # nothing to open, so nothing for a scanner to open
        found = re.search(r"\b\d{6}\b", mail.text)
        assert found
        return hidden(asked), found[0]

    async def sign_in(self, address: str) -> httpx2.Response:
        fields, digits = await self.digits_for(address)
        return await self.post("/login", **fields, code=digits)


def hidden(page: httpx2.Response) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))


@workflow
async def passes_by() -> None:
    """A run that concerns nobody."""


@pytest.fixture
async def browser(open_service: Any) -> AsyncIterator[Browser]:
    async with a_posting_service(open_service, "https://approve.acme.eu") as (service, mailbox):
        transport = httpx2.ASGITransport(service.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://approve.acme.eu") as http:
            yield Browser(service, mailbox, http)


async def test_a_person_signs_in_and_decides_what_is_waiting(browser: Browser) -> None:
    runs = [await browser.service.start("deploy", {"version": f"2.{n}"}, requester="di@acme.eu") for n in range(2)]
    assert (await browser.http.get("/inbox")).status_code == 401
    done = await browser.sign_in("ann@acme.eu")
    assert (done.status_code, done.headers["location"]) == (303, "/inbox")
    cookie = done.headers["set-cookie"]
    assert cookie.startswith("__Host-approvals=")
    for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=604800"):
        assert word in cookie
    inbox = await browser.http.get("/inbox?person=bo@acme.eu")  # the session says whose inbox it is, not the query
    assert "2 requests are waiting for you" in inbox.text
    page, *_ = re.findall(r'<a href="(/decisions/[^"]+)">Deploy api 2\.0</a>', inbox.text)
    first = re.findall(r">(Deploy api 2\.\d)</a>", inbox.text)[0]
    for show, title in (
        ("", first),
        (runs[0], "Deploy api 2.0"),
        (runs[1], "Deploy api 2.1"),
        ("run_of_others", first),
    ):
        beside = (await browser.http.get(f"/inbox?show={show}")).text.partition('id="shown"')[2]
        preview = beside.partition("</section>\n</div>")[0]
        assert f'<h2 id="shown-title">{title}</h2>' in preview
        assert "Waiting for Ann Ode" in preview
        assert preview.count("<a ") == 1, "it leads to the request's page, and decides nothing"
    shown = await browser.http.get(page)
    assert ('<nav aria-label="Pages">' in shown.text, "This link is personal" in shown.text) == (True, False)
    forwarded = await browser.http.get(page, headers={"cookie": ""})
    assert ('<nav aria-label="Pages">' in forwarded.text, "This link is personal" in forwarded.text) == (False, True)
    answer = await browser.post(page, **hidden(shown), choice="approve")
    assert answer.status_code == 303
    (vote,) = (await browser.service.run(runs[0]))["request"]["votes"]
    assert (vote["by"], vote["via"]) == ("ann@acme.eu", "inbox")
    inbox = await browser.http.get("/inbox")
    assert "1 request is waiting for you" in inbox.text
    assert "<title>(1) Inbox · " in inbox.text
    assert f'href="/requests/{runs[0]}"' in (await browser.http.get("/inbox?box=decided")).text
    left = await browser.post("/logout")
    assert left.headers["location"] == "/login?signed-out=1"
    assert (await browser.http.get("/inbox")).status_code == 401
    assert "You&#39;re signed out." in (await browser.http.get(left.headers["location"])).text


async def test_a_request_opens_only_for_people_it_concerns(browser: Browser) -> None:
    run = await browser.service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
    for person, status, offered in (
        ("ann@acme.eu", 200, 'name="choice" value="approve"'),
        ("di@acme.eu", 200, 'name="own" value="withdraw"'),
        ("cfo@acme.eu", 404, ""),
    ):
        await browser.sign_in(person)
        page = await browser.http.get(f"/requests/{run}")
        assert page.status_code == status
        assert ('action="/decisions/' in page.text) == bool(offered)
        assert offered in page.text
        assert (await browser.http.get("/runs")).status_code == 403  # runs are for viewers
        assert (await browser.http.get(f"/runs/{run}")).status_code == (200 if offered else 403)
    await browser.sign_in("di@acme.eu")
    inbox = await browser.http.get("/inbox")
    assert "You're all caught up." in inbox.text
    assert "<title>Inbox · " in inbox.text
    assert f'href="/requests/{run}"' in (await browser.http.get("/inbox?box=asked")).text
    wrong = await browser.http.get("/inbox?box=mine")
    assert (wrong.status_code, "waiting, asked, decided" in wrong.text) == (422, True)


async def test_own_requests_and_votes_are_found_behind_many_newer_runs(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_pages, "PAGE", 2)
    service = browser.service
    await browser.sign_in("ann@acme.eu")
    voted = await service.start("deploy", {"version": "0.9"}, requester="di@acme.eu")
    vote = {"by": "ann@acme.eu", "choice": "approve"}
    assert (await service.api.post(f"/api/runs/{voted}/votes", json=vote)).status_code == 201
    own = []
    for number in range(5):
        own.append(await service.start("deploy", {"version": f"1.{number}"}, requester="ann@acme.eu"))
        await service.clock.advance("1m")
    for _ in range(120):
        await service.engine.start(passes_by)
    await service.engine.settle()

    async def listed(box: str) -> list[str]:
        seen, path = list[str](), f"/inbox?box={box}"
        while path:
            text = (await browser.http.get(path)).text
            seen += re.findall(r'href="/requests/(run_\w+)"', text.partition('id="shown"')[0])
            older = re.search(r'<a href="([^"]+)" rel="next">', text)
            path = older[1].replace("&amp;", "&") if older else ""
        return seen

    assert await listed("asked") == own[::-1]
    assert (await service.api.post(f"/api/runs/{own[4]}/cancellation", json={"reason": "no"})).status_code == 202
    await service.engine.settle()
    assert await listed("asked") == [*own[3::-1], own[4]]  # open ones come first
    assert await listed("decided") == [voted]
    assert await listed("asked&q=API+1.2") == [own[2]]
    assert await listed("waiting&workflow=deploy&q=nothing") == []
    assert (await browser.http.get("/inbox?box=asked&cursor=x")).status_code == 404


async def test_sign_in_reveals_no_address_and_mails_no_stranger(browser: Browser) -> None:
    known = await browser.post("/login", address="ann@acme.eu")
    await until(lambda: len(browser.mailbox.mails) == 1)
    stranger = await browser.post("/login", address="eve@elsewhere.eu")

    def blank(page: httpx2.Response) -> str:
        text = page.text
        for value in hidden(page).values():
            text = text.replace(value, "…")
        return text

    assert (known.status_code, blank(known)) == (stranger.status_code, blank(stranger))
    await browser.digits_for("bo@acme.eu")
    assert [mail.to for mail in browser.mailbox.mails] == ["ann@acme.eu", "bo@acme.eu"]


class SlowMail:
    """A mail channel with a slow relay."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, dispatch: Dispatch) -> Result:
        await asyncio.sleep(0.3)
        self.sent.append(place_name(dispatch.to))
        return Delivered(Receipt("inbox", "1"))

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return Delivered(receipt)


async def test_digits_under_way_arrive_when_the_service_stops(open_service: Any) -> None:
    slow = SlowMail()
    async with open_service(channels=Channels({"email": slow})) as service:
        with a_port() as bound:
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            async with serving(service.app, bound), httpx2.AsyncClient(base_url=url, trust_env=False) as http:
                page = await http.post("/login", data={"address": "ann@acme.eu"}, headers=OURS)
                assert page.status_code == 200
                assert slow.sent == []  # the page waits for no mail, so its response time reveals no address
    assert slow.sent == ["ann@acme.eu"]


async def test_digits_open_one_persons_inbox_for_ten_minutes_and_five_tries(browser: Browser) -> None:
    fields, digits = await browser.digits_for("ann@acme.eu")
    stolen = await browser.post("/login", **(fields | {"address": "bo@acme.eu"}), code=digits)
    assert stolen.status_code == 403
    for _ in range(5):
        assert (await browser.post("/login", **fields, code="000000")).status_code == 403
    late = await browser.post("/login", **fields, code=digits)
    assert "tried too often" in late.text
    fields, digits = await browser.digits_for("ann@acme.eu")
    await browser.service.clock.advance("11m")
    assert "expired, was used, or was tried" in (await browser.post("/login", **fields, code=digits)).text
    assert "__Host-approvals" not in browser.http.cookies
    for _ in range(8):
        await browser.digits_for("ann@acme.eu")
    assert (await browser.post("/login", address="ann@acme.eu")).status_code == 429


async def test_a_session_ends_with_its_day_and_is_made_by_nobody_else(browser: Browser) -> None:
    await browser.sign_in("ann@acme.eu")
    assert (await browser.http.get("/inbox")).status_code == 200
    good = browser.http.cookies["__Host-approvals"]
    run = await browser.service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
    link = (await browser.service.link(run, "ann@acme.eu")).removeprefix("/decisions/")
    for bad in ("", "x", good[:-6], link, f".{good}", good * 9):
        browser.http.cookies = httpx2.Cookies({"__Host-approvals": bad})
        assert (await browser.http.get("/inbox")).status_code == 401
    assert (await browser.http.get(f"/decisions/{good}")).status_code == 404
    browser.http.cookies = httpx2.Cookies({"__Host-approvals": good})
    await browser.service.clock.advance("13h")
    assert (await browser.http.get("/inbox")).status_code == 401


async def test_forms_from_elsewhere_sign_nobody_in_or_out(browser: Browser) -> None:
    fields, digits = await browser.digits_for("ann@acme.eu")
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    for form in ({"address": "ann@acme.eu"}, fields | {"code": digits}):
        assert (await browser.http.post("/login", data=form, headers=foreign)).status_code == 403
    assert "__Host-approvals" not in browser.http.cookies
    assert (await browser.post("/login", **fields, code=digits)).status_code == 303
    assert (await browser.http.post("/logout", headers=foreign)).status_code == 403
    assert (await browser.http.get("/inbox")).status_code == 200
    assert (await browser.post("/login", address="no address")).status_code == 422


async def test_form_token_vouches_where_the_browser_does_not(browser: Browser) -> None:
    fields, digits = await browser.digits_for("ann@acme.eu")
    form = fields | {"code": digits}
    kept = dict(browser.http.cookies)
    headers = {"Origin": "null"}  # of an old Safari, and of a page without an origin
    assert (await browser.http.post("/login", data={"address": "ann@acme.eu"}, headers=headers)).status_code == 403
    browser.http.cookies = httpx2.Cookies({})  # a form of another site has none with it
    assert (await browser.http.post("/login", data=form, headers=headers)).status_code == 403
    browser.http.cookies = httpx2.Cookies(kept)
    assert (await browser.http.post("/login", data=form, headers=headers)).status_code == 303
    inbox = hidden(await browser.http.get("/inbox"))
    for fake in ({}, {"form_token": fields["form_token"]}):
        assert (await browser.http.post("/logout", data=fake, headers={"Origin": "null"})).status_code == 403
    assert (await browser.http.post("/logout", data=inbox, headers={"Origin": "null"})).status_code == 303
    assert (await browser.http.get("/inbox")).status_code == 401


async def test_without_mail_nobody_is_asked_for_an_address(service: Any) -> None:
    page = await service.web.get("/login")
    assert "<form" not in page.text
