"""Opening a request in the browser: the form, what is wrong with it, and who would be asked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx2
import pytest

from approvals_bot.app.service import Service, open_service
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.read import request_of
from approvals_bot.service.sessions import Sessions

BASE = "https://approve.acme.eu"
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": BASE}
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
name = "Bo Lund"
[people."cy@acme.eu"]
name = "Cy Rus"
[people."di@acme.eu"]
name = "Di Oz"
[groups]
buyers = ["bo@acme.eu"]
[email]
host = "127.0.0.1"
port = 2525
security = "none"
sender = "Approvals <approvals@acme.eu>"
"""
BUY = """
[workflow]
id = "buy-things"
title = "Buy {{ what }}"
description = "For anything that costs money."
request = ["@buyers", "di@acme.eu"]
on_behalf_of = "optional"
[fields]
what = { type = "string", label = "What to buy", max_length = 40 }
price = { type = "money", currency = "EUR", min = "1.00", max = "5000" }
urgent = "boolean"
places = { type = "list", of = "enum", values = ["Rome", "Oslo, north"], required = false }
items = { type = "list", of = "string", required = false }
lead = { type = "person", in = ["@buyers"], required = false }
why = { type = "text", required = false }
[[auto]]
when = "price < 5"
decision = "approve"
[[stage]]
id = "money"
from = ["ann@acme.eu"]
"""
WITH_FILE = """
[workflow]
id = "file-things"
title = "File"
request = ["@buyers"]
[fields]
what = "string"
plan = "file"
more = { type = "list", of = "file", required = false }
[[stage]]
id = "go"
from = ["ann@acme.eu"]
"""
CLOSED = """
[workflow]
id = "closed-things"
title = "Closed"
request = ["ann@acme.eu"]
[[stage]]
id = "go"
from = ["cy@acme.eu"]
"""


@dataclass
class Browser:
    """A browser in which somebody has signed in."""

    service: Service
    http: httpx2.AsyncClient

    async def form(self, workflow: str = "buy-things") -> dict[str, str]:
        """Return the inputs of a new form that people don't see."""
        page = await self.http.get(f"/requests/new/{workflow}")
        assert page.status_code == 200
        return hidden(page.text)

    async def send(self, form: dict[str, str], **typed: str) -> httpx2.Response:
        body = form | {f"field.{name}": value for name, value in typed.items()}
        return await self.http.post("/requests", data=body, headers=OURS)

    async def runs(self) -> int:
        return len((await self.service.engine.records()).records)


def hidden(page: str) -> dict[str, str]:
    form = page.partition('action="/requests"')[2]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "buy-things.toml").write_text(BUY)
    (tmp_path / "workflows" / "closed-things.toml").write_text(CLOSED)
    (tmp_path / "workflows" / "file-things.toml").write_text(WITH_FILE)
    (tmp_path / "config.toml").write_text(CONFIG)
    configuration = read_configuration(tmp_path / "config.toml", {"KEY": "a signing key of the tests: 0123456789"})
    async with open_service(configuration) as service:
        token = await Sessions(service.engine).begin("bo@acme.eu", method="code", browser="Firefox on Linux")
        transport = httpx2.ASGITransport(service.app)
        cookie = {"cookie": f"__Host-approvals={token}"}
        async with httpx2.AsyncClient(transport=transport, base_url=BASE, headers=cookie) as http:
            yield Browser(service, http)


async def test_people_see_the_workflows_they_may_request(browser: Browser) -> None:
    page = await browser.http.get("/requests/new")
    assert page.status_code == 200
    assert '<a href="/requests/new/buy-things">Buy things</a>' in page.text
    assert "For anything that costs money." in page.text
    assert "closed-things" not in page.text
    assert (await browser.http.get("/requests/new/closed-things")).status_code == 404
    assert (await browser.http.get("/requests/new/nothing")).status_code == 404


async def test_a_file_is_sent_with_the_form_and_uploaded_once(browser: Browser) -> None:
    page = (await browser.http.get("/requests/new/file-things")).text
    assert 'enctype="multipart/form-data"' in page
    assert 'name="field.plan" type="file" required' in page
    form = hidden(page)

    async def send(texts: dict[str, Any], name: str = "", content: bytes = b"") -> httpx2.Response:
        files = {"field.plan": (name, content, "application/pdf")} if name else {"none": ("", b"")}
        return await browser.http.post("/requests", data=form | texts, files=files, headers=OURS)

    for texts, name, content, why in (
        ({"field.what": "a"}, "", b"", "Is required."),
        ({"field.what": "a"}, "plan.pdf", b"", "Is empty."),
        ({"field.what": "a", "kept.plan": "file_" + "0" * 32}, "", b"", "Is required."),
    ):
        refused = await send(texts, name, content)
        assert (refused.status_code, why in refused.text) == (422, True), refused.text
    assert (await send({"field.what": "a"}, "plan.pdf", b"x" * 10_100_000)).status_code == 413
    shown = await send({"field.what": "", "approvers": "yes"})
    assert shown.status_code == 200  # whether a file is there changes nothing about who decides
    wrong = await send({"field.what": ""}, "plän.pdf", b"%PDF-1.4 a plan")
    assert wrong.status_code == 422
    assert "plän.pdf is attached." in wrong.text
    found = re.search(r'name="kept.plan" value="(file_[0-9a-f]{32})"', wrong.text)
    assert found
    more = [("field.more", (f"{name}.txt", name.encode(), "text/plain")) for name in ("one", "two")]
    body = form | {"field.what": "", "kept.plan": found[1]}
    wrong = await browser.http.post("/requests", data=body, files=more, headers=OURS)
    kept = re.findall(r'name="kept.more" value="(file_[0-9a-f]{32})"', wrong.text)
    assert (wrong.status_code, len(kept), "two.txt is attached." in wrong.text) == (422, 2, True)
    sent = await send({"field.what": "a", "kept.plan": found[1], "kept.more": kept})
    assert (sent.status_code, await browser.runs()) == (303, 1)
    await browser.service.engine.settle()
    (record,) = (await browser.service.engine.records()).records
    request = request_of(record)
    assert request is not None
    assert (request.fields["plan"]["id"], request.fields["plan"]["name"]) == (found[1], "plän.pdf")  # type: ignore[index,call-overload]
    assert [each["name"] for each in request.fields["more"]] == ["one.txt", "two.txt"]  # type: ignore[union-attr,call-overload,index]
    shown = await browser.http.get(sent.headers["location"])
    assert all(f"/files/{id}" in shown.text for id in kept)
    second = await browser.http.get(f"{sent.headers['location'].partition('?')[0]}/files/{kept[1]}")
    assert (second.content, "More 2 of 2" in shown.text) == (b"two", True)
    downloaded = await browser.http.get(f"{sent.headers['location'].partition('?')[0]}/files/{found[1]}")
    assert downloaded.content == b"%PDF-1.4 a plan"


async def test_nobody_gets_a_form_without_a_session(browser: Browser) -> None:
    for path in ("/requests/new", "/requests/new/buy-things"):
        page = await browser.http.get(path, headers={"cookie": ""})
        assert (page.status_code, "Sign in" in page.text) == (401, True)
    sent = await browser.http.post("/requests", data=await browser.form(), headers=OURS | {"cookie": ""})
    assert (sent.status_code, await browser.runs()) == (401, 0)


async def test_a_form_sent_twice_is_one_request(browser: Browser) -> None:
    form = await browser.form()
    first = await browser.send(form, what="A chair", price="120.00")
    again = await browser.send(form, what="A chair", price="120.00")
    assert (first.status_code, again.status_code) == (303, 303)
    assert first.headers["location"] == again.headers["location"]
    other = await browser.send(form, what="A table", price="120.00")
    assert (other.status_code, "was sent before" in other.text, 'value="A table"' in other.text) == (409, True, True)
    assert await browser.runs() == 1
    await browser.service.engine.settle()
    (record,) = (await browser.service.engine.records()).records
    request = request_of(record)
    assert request is not None
    assert (request.requester, request.title, request.fields["price"]) == ("bo@acme.eu", "Buy A chair", "120.00")
    page = await browser.http.get(first.headers["location"])
    assert (page.status_code, "Your request was sent." in page.text) == (200, True)


async def test_what_is_wrong_stands_at_its_field_and_nothing_is_lost(browser: Browser) -> None:
    form = await browser.form()
    sent = await browser.send(form, what="A chair", price="900", lead="cy@acme.eu")
    assert (sent.status_code, "Must be one of Buyers." in sent.text, 'value="cy@acme.eu"' in sent.text) == (
        422,
        True,
        True,
    )
    sent = await browser.send(form, what="A chair", price="9000", urgent="true", why="Mine <broke> & I fell.")
    assert (sent.status_code, await browser.runs()) == (422, 0)
    assert re.search(r'id="field.price"[^>]* aria-invalid="true" aria-describedby="price.fault"', sent.text)
    assert re.search(r'<p class="fault" id="price.fault">[^<]*5[,.]?000', sent.text)
    assert '<a href="#field.price">Price</a>: ' in sent.text, "the summary leads to the field"
    assert 'value="9000"' in sent.text
    assert re.search(r'name="field.urgent" value="true" checked', sent.text)
    assert "Mine <broke> & I fell." in unescape(sent.text)
    assert "<broke>" not in sent.text
    lists = {"items": "a lamp\r\n\r\n<!channel>", "places:1": "true"}
    unfit = await browser.send(form, what="A chair", price="9000", **lists)
    assert re.search(r'name="field.places:0" value="true"> Rome', unfit.text)
    assert re.search(r'name="field.places:1" value="true" checked> Oslo, north', unfit.text)
    assert "a lamp\n\n&lt;!channel&gt;</textarea>" in unfit.text.replace("\r", "")
    mended = await browser.send(hidden(sent.text), what="A chair", price="900", lead="Bo@ACME.eu", **lists)
    assert (mended.status_code, await browser.runs()) == (303, 1)
    await browser.service.engine.settle()
    page = await browser.http.get(mended.headers["location"])
    assert "Bo Lund (bo@acme.eu)" in page.text
    (record,) = (await browser.service.engine.records()).records
    request = request_of(record)
    assert request is not None
    assert (request.fields["items"], request.fields["places"]) == (["a lamp", "<!channel>"], ["Oslo, north"])


async def test_a_wrong_colleague_is_said_at_its_input(browser: Browser) -> None:
    form = await browser.form() | {"on_behalf_of": "nobody"}
    sent = await browser.send(form, what="A chair", price="900")
    assert (sent.status_code, await browser.runs()) == (422, 0)
    assert 'id="on_behalf_of.fault"' in sent.text
    assert '<a href="#on_behalf_of">On behalf of</a>: ' in sent.text
    assert 'value="A chair"' in sent.text
    for extra in ({}, {"approvers": "yes"}):
        sent = await browser.send(form | extra, what="A chair", price="lots")
        assert all(f'id="{name}.fault"' in sent.text for name in ("on_behalf_of", "price")), "all is said at once"


async def test_who_decides_is_shown_before_anything_is_sent(browser: Browser) -> None:
    form = await browser.form() | {"approvers": "yes"}
    shown = await browser.send(form, what="A chair", price="900")
    assert (shown.status_code, await browser.runs()) == (200, 0)
    assert "Ann Ode" in shown.text
    assert "Nothing was sent yet." in shown.text
    assert 'value="A chair"' in shown.text
    at_once = await browser.send(form, what="A nail", price="2")
    assert "Approved at once" in at_once.text
    unfit = await browser.send(form, what="A chair", price="cheap")
    assert (unfit.status_code, 'id="price.fault"' in unfit.text, await browser.runs()) == (200, True, 0)


async def test_a_form_from_elsewhere_opens_nothing(browser: Browser) -> None:
    form = await browser.form()
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        body = form | {"field.what": "A chair", "field.price": "900"}
        sent = await browser.http.post("/requests", data=body, headers=headers)
        assert (sent.status_code, 'value="A chair"' in sent.text) == (403, True)
    forged = await browser.http.post("/requests", data=body | {"form_token": "x"}, headers={"Origin": "null"})
    assert forged.status_code == 403
    assert await browser.runs() == 0


async def test_what_was_typed_survives_the_end_of_a_session(browser: Browser) -> None:
    form, sessions = await browser.form(), Sessions(browser.service.engine)
    await sessions.end_all("bo@acme.eu")
    kept = set()
    for what in ("A desk", "A <chair>"):  # the newest is kept, so an old browser can't fill the store
        away = await browser.send(form, what=what, price="120.00", urgent="true")
        assert away.status_code == 401
        kept.add(unescape(re.findall(r'name="next" value="([^"]+)"', away.text)[0]))
    (back,) = kept
    assert back.startswith("/requests/new/buy-things?kept=")
    assert "chair" not in back
    pages = []
    for person in ("di@acme.eu", "bo@acme.eu"):
        token = await sessions.begin(person, method="code", browser="Firefox on Linux", proved=True)
        browser.http.headers["cookie"] = f"__Host-approvals={token}"
        pages.append((await browser.http.get(back)).text)
    planted, page = pages
    assert ("chair" in planted, hidden(planted)["once"] == form["once"]) == (False, False), "a link fills nobody's form"
    assert "your session was over" in page
    assert 'value="A &lt;chair&gt;"' in page
    assert 'value="120.00"' in page
    again = hidden(page)
    assert again["once"] == form["once"]
    assert (await browser.send(again, what="A <chair>", price="120.00", urgent="true")).status_code == 303
    assert await browser.runs() == 1
    for other in ("/requests/new/file-things?" + back.partition("?")[2], "/requests/new/buy-things?kept=none"):
        assert "chair" not in (await browser.http.get(other)).text
    await sessions.end_all("bo@acme.eu")
    forged = await browser.send(again | {"form_token": "x"}, what="A chair")
    assert forged.status_code == 401
    assert "kept=" not in forged.text


async def test_who_decides_is_beside_the_form_at_once(browser: Browser) -> None:
    page = (await browser.http.get("/requests/new/buy-things")).text
    assert page.index('class="beside"') < page.index('action="/requests"') < page.index('id="approvers"')
    assert "1 of Ann Ode" in page.partition('id="approvers"')[2]
    shown = await browser.send(await browser.form() | {"approvers": "yes"}, what="A chair", price="120.00")
    assert "Needs 1 of 1, Ann Ode." in shown.text
