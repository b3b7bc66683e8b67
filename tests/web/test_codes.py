"""Requests that need a six-digit code by email besides the link."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Channels, Delivered, Dispatch, Receipt, Result, Targets, ToPerson, TryAgain
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.service.catalog import Listed
from approvals_bot.service.codes import Codes
from approvals_bot.web.links import Links
from tests.support.whole_service import KEY
from tests.web.test_grants_api import Recording

WHO = ("ann@acme.eu", "192.0.2.1")  # the address and the peer
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}


class Post:
    """A mail channel that keeps what it is given; `works` says whether it delivers."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.works = True

    async def send(self, dispatch: Dispatch) -> Result:
        assert isinstance(dispatch.to, ToPerson)
        if not self.works:
            return TryAgain("greylisted", timedelta(minutes=5))
        if dispatch.text:
            self.texts.append((dispatch.to.person.address, dispatch.text))
        return Delivered(Receipt(dispatch.to.person.address, dispatch.delivery_id))

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return Delivered(receipt)

    def digits(self) -> str:
        found = re.search(r"\d{6}", self.texts[-1][1])
        assert found is not None
        return found[0]


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
async def guarded(open_service: Any, post: Post) -> AsyncIterator[Any]:
    """A service that lists `access`, whose links need a code."""
    async with open_service(channels=Channels({"email": post})) as service:
        offer(service)
        yield service


def offer(service: Any, need: int = 2, **more: Any) -> None:
    definition = Definition.model_validate(
        {
            "workflow": {"id": "access", "title": "Access to {{ account }}", "request": ["*"]},
            "fields": {"account": "string"},
            "stage": [{"id": "go", "from": ["@release-managers"], "need": need}],
            "deliver": {"email": True, "link_auth": "code"},
            "clock": {"deadline": "8h"},
            **more,
        }
    )
    service.workflows["access"] = Listed(approval.under("access", pinned(definition)), definition)


async def open_link(service: Any, who: str = "ann@acme.eu") -> str:
    run_id = await service.start("access", {"account": "prod"}, requester="di@acme.eu")
    path: str = await service.link(run_id, who)
    return path


def hidden(page: httpx2.Response) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))


async def ask_for_code(service: Any, path: str) -> httpx2.Response:
    """Press "Send the code", and return the next page."""
    page = await service.web.get(path)
    answer = await service.web.post(path, data=hidden(page) | {"send_code": "yes"}, headers=OURS)
    assert answer.status_code == 303, answer.text
    following: httpx2.Response = await service.web.get(answer.headers["location"])
    return following


async def test_without_a_code_the_page_offers_no_choice_and_takes_none(guarded: Any) -> None:
    path = await open_link(guarded)
    page = await guarded.web.get(path)
    assert 'name="choice"' not in page.text
    assert "email a six-digit code to ann@acme.eu" in page.text
    before = guarded.content()["events"]
    for form in ({}, {"code": "000000"}, {"code": "", "code_token": "made-up"}):
        answer = await guarded.web.post(path, data=hidden(page) | {"choice": "approve", **form}, headers=OURS)
        assert answer.status_code == 403
        assert "nothing was changed" in answer.text
    assert guarded.content()["events"] == before


async def test_the_mailed_digits_let_the_person_decide(guarded: Any, post: Post) -> None:
    path = await open_link(guarded)
    page = await ask_for_code(guarded, path)
    assert post.texts[-1][0] == "ann@acme.eu"
    assert post.digits() not in page.text
    digits = f" {post.digits()[:3]} {post.digits()[3:]} "
    answer = await guarded.web.post(path, data=hidden(page) | {"choice": "approve", "code": digits}, headers=OURS)
    assert answer.status_code == 303
    assert "Counted: 1 of 2" in (await guarded.web.get(answer.headers["location"])).text
    audit = [line.entry.what for line in await guarded.engine.audit_lines()]
    assert "code_sent" in audit


async def test_a_grant_is_ended_with_a_code_too(guarded: Any, post: Post) -> None:
    offer(guarded, 1, grant={"lasts": "2h", "give": {"http": "aws"}, "take": {"http": "aws"}})
    guarded.engine.resources[Targets] = Recording()
    path = await open_link(guarded)
    page = await ask_for_code(guarded, path)
    voted = {"choice": "approve", "code": post.digits()}
    assert (await guarded.web.post(path, data=hidden(page) | voted, headers=OURS)).status_code == 303
    await guarded.engine.settle()
    closed = await guarded.web.get(path)
    assert ("End it now" in closed.text, "email a six-digit code" in closed.text) == (False, True)
    page = await ask_for_code(guarded, path)
    shown = await guarded.web.post(path, data=hidden(page) | {"look": "yes", "code": post.digits()}, headers=OURS)
    assert "End it now" in shown.text
    without = {name: text for name, text in hidden(shown).items() if name != "proof"} | {"talk": "revoke"}
    assert (await guarded.web.post(path, data=without, headers=OURS)).status_code == 403
    ended = await guarded.web.post(path, data=hidden(shown) | {"talk": "revoke"}, headers=OURS)
    assert (ended.status_code, ended.headers["location"]) == (303, f"{path}?done=revoked")


async def test_digits_are_good_for_their_link_ten_minutes_and_five_tries(guarded: Any, post: Post) -> None:
    path = await open_link(guarded)
    page, right = await ask_for_code(guarded, path), post.digits()
    wrong = f"{(int(right) + 1) % 1_000_000:06}"

    async def tried(page: httpx2.Response, digits: str) -> str:
        form = hidden(page) | {"choice": "approve", "code": digits}
        answer = await guarded.web.post(path, data=form, headers=OURS)
        assert answer.status_code == 403
        if "not the code" in answer.text:
            return "wrong"
        return "over" if "expired, was used" in answer.text else "?"

    assert [await tried(page, wrong) for _ in range(6)] == ["wrong"] * 5 + ["over"]
    assert await tried(page, right) == "over"

    page, right = await ask_for_code(guarded, path), post.digits()
    await guarded.clock.advance("11m")
    form_token = hidden(await guarded.web.get(path))["form_token"]
    stale = hidden(page) | {"form_token": form_token, "choice": "approve", "code": right}
    answer = await guarded.web.post(path, data=stale, headers=OURS)
    assert "expired, was used, or was tried" in answer.text

    page, right = await ask_for_code(guarded, path), post.digits()
    other = await open_link(guarded, "bo@acme.eu")
    theirs = hidden(await guarded.web.get(other))
    form = theirs | {"code_token": hidden(page)["code_token"], "choice": "approve", "code": right}
    assert (await guarded.web.post(other, data=form, headers=OURS)).status_code == 403


async def test_any_replica_can_check_a_code_and_another_key_can_not(guarded: Any, post: Post, store_url: str) -> None:
    path = (await open_link(guarded)).removeprefix("/decisions/")
    now = guarded.clock.now
    link = await Links(engine=guarded.engine, tokens=guarded.tokens, base_url="", now=now).open(path)
    assert link is not None
    async with Engine.open(store_url, signing_keys=[KEY], clock=guarded.clock) as other:
        here, there = Codes(guarded.engine, tokens=guarded.tokens), Codes(other, tokens=guarded.tokens)
        issued = await here.issue(link.binding, *WHO)
        assert issued is not None
        token, digits = issued
        assert re.fullmatch(r"\d{6}", digits)
        stranger = Codes(
            other, tokens=Tokens(["another-key-that-has-32-bytes-too!!"], installation=guarded.tokens.installation)
        )
        assert await stranger.check(link.binding, token, digits, *WHO) == "over"
        assert await there.check(link.binding, token, digits, *WHO) == "right"
        assert await here.check(link.binding, token, digits, *WHO) == "over"  # it counts once


async def test_only_so_many_codes_are_sent_and_a_failing_mailbox_is_said(guarded: Any, post: Post) -> None:
    path = await open_link(guarded)

    async def ask() -> httpx2.Response:
        form = hidden(await guarded.web.get(path)) | {"send_code": "yes"}
        answer: httpx2.Response = await guarded.web.post(path, data=form, headers=OURS)
        return answer

    post.works = False
    assert (await ask()).status_code == 503
    post.works = True
    assert [(await ask()).status_code for _ in range(10)] == [303] * 9 + [429]
    assert len(post.texts) == 9
    await guarded.clock.advance("61m")
    assert (await ask()).status_code == 303


async def test_looking_sends_no_code(guarded: Any, post: Post) -> None:
    path = await open_link(guarded)
    for _ in range(20):
        await guarded.web.get(f"{path}?send_code=yes&code=x")
        await guarded.web.head(path)
    cross = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    form = hidden(await guarded.web.get(path)) | {"send_code": "yes"}
    assert (await guarded.web.post(path, data=form, headers=cross)).status_code == 403
    assert post.texts == []
