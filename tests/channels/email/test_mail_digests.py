"""Digests: the first few requests come one by one, the rest in one mail, and none later than promised."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from tests.support.posting import a_posting_service

SPAN = timedelta(minutes=15)
URL = "https://approve.acme.eu"


async def start(service: Any, count: int) -> list[str]:
    return [await service.start("deploy", {"version": f"2.{n}"}, requester="di@acme.eu") for n in range(count)]


async def states(service: Any, runs: list[str], to: str) -> list[str]:
    views = [await service.view(run) for run in runs]
    return [copy["state"] for view in views for copy in view["deliveries"] if copy["to"] == to]


async def test_the_first_requests_come_one_by_one_the_rest_together(open_service: Any) -> None:
    async with a_posting_service(open_service, URL, digest=SPAN) as (service, mailbox):
        runs = await start(service, 9)
        first = [mail for mail in mailbox.mails if mail.to == "ann@acme.eu"]
        assert len(first) == 5
        assert await states(service, runs, "ann@acme.eu") == ["delivered"] * 5 + ["held"] * 4
        (held, *_) = [copy for copy in (await service.view(runs[8]))["deliveries"] if copy["to"] == "ann@acme.eu"]
        assert held["error"] == "held for a digest: this person gets many requests, so they come in one mail"
        assert held["attempts"] == 0
        for person in ("bo@acme.eu", "cy@acme.eu"):  # one of those is decided meanwhile
            body = {"by": person, "choice": "approve"}
            assert (await service.api.post(f"/api/runs/{runs[5]}/votes", json=body)).status_code == 201
        before = len(mailbox.mails)
        await service.clock.advance("15m")
        digests = [mail for mail in mailbox.mails[before:] if "requests are waiting for you" in mail.subject]
        assert sorted(mail.to for mail in digests) == ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"]
        (digest,) = [mail for mail in digests if mail.to == "ann@acme.eu"]
        assert digest.subject == "3 requests are waiting for you"
        assert re.findall(r"Deploy api 2\.\d", digest.text) == ["Deploy api 2.6", "Deploy api 2.7", "Deploy api 2.8"]
        assert (await states(service, runs[6:], "ann@acme.eu")) == ["delivered"] * 3

        links = re.findall(rf"{URL}(/decisions/\S+)", digest.text)
        assert len(set(links)) == 3
        assert not any("choice" in link for link in links)
        assert set(re.findall(rf'href="{URL}(/decisions/[^"]+)"', digest.html)) == set(links)
        content = service.content()
        for link in links:  # opening decides nothing
            assert (await service.web.get(link)).status_code == 200
        assert service.content() == content
        page = await service.web.get(links[0])
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
        ours = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
        answer = await service.web.post(links[0], data=hidden | {"choice": "approve"}, headers=ours)
        assert answer.status_code == 303
        await service.engine.settle()
        assert [vote["by"] for vote in (await service.run(runs[6]))["request"]["votes"]] == ["ann@acme.eu"]
        assert (await service.run(runs[7]))["request"]["votes"] == []


async def test_an_urgent_request_is_never_held(open_service: Any) -> None:
    async with a_posting_service(open_service, URL, digest=timedelta(hours=1)) as (service, mailbox):
        await start(service, 8)  # each within 4 hours
        assert len([mail for mail in mailbox.mails if mail.to == "ann@acme.eu"]) == 8


async def test_held_mails_survive_a_restart_and_leave_within_two_spans(open_service: Any) -> None:
    async with a_posting_service(open_service, URL, digest=SPAN) as (service, mailbox):
        runs = await start(service, 7)
    async with a_posting_service(open_service, URL, digest=SPAN) as (service, mailbox):
        await service.clock.advance("30m")
        assert await states(service, runs, "ann@acme.eu") == ["delivered"] * 7
        assert [mail.to for mail in mailbox.mails].count("ann@acme.eu") >= 1


async def test_a_digest_that_the_relay_defers_is_retried(open_service: Any) -> None:
    async with a_posting_service(open_service, URL, digest=SPAN) as (service, mailbox):
        runs = await start(service, 8)
        await mailbox.__aexit__()
        await service.clock.advance("15m")
        assert await states(service, runs, "ann@acme.eu") == ["delivered"] * 5 + ["retrying"] * 3
        await mailbox.__aenter__()
        await service.clock.advance("5m")
        assert await states(service, runs, "ann@acme.eu") == ["delivered"] * 8
        ids = [mail.headers["Message-ID"] for mail in mailbox.mails]
        assert len(ids) == len(set(ids))
