"""What has not arrived, as operators see it, and mend it: with a real relay."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import httpx2
import pytest

from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.playground.faults import Fault
from approvals_bot.service.deliveries import ATTEMPTED, list_deliveries
from tests.support.posting import a_kept_port
from tests.support.staffed_house import ENV, StaffedHouse, a_staffed_house, token_of

OPERATOR, ANN, BO, CY = "di@acme.eu", "ann@acme.eu", "bo@acme.eu", "cy@acme.eu"
GONE = "5.1.1 no such mailbox here"
SHIP = """
[workflow]
id = "ship"
title = "Ship {{ version }}"
request = ["*"]
[fields]
version = "string"
[[stage]]
id = "go"
from = ["ann@acme.eu", "cy@acme.eu"]
[deliver]
email = true
"""
NOTIFIES = (
    SHIP.replace('"ship"', '"notifies"').replace('"Ship', '"Notify').replace("email = true", "email = false")
    + """
[[on.approved]]
email = "bo@acme.eu"
text = "{{ request.title }} is approved."
"""
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[StaffedHouse]:
    with a_kept_port() as port:
        async with a_staffed_house(tmp_path, {"ship": SHIP, "notifies": NOTIFIES}, port) as house:
            yield house


def rows(page: str) -> list[str]:
    """Return the text of each row, without marks and with single spaces."""
    found = re.findall(r"<tr>(.*?)</tr>", page.partition("<tbody>")[2], re.DOTALL)
    return [unescape(" ".join(re.sub(r"<[^>]+>", " ", row).split())) for row in found]


def chosen(page: str) -> list[str]:
    return re.findall(r'name="delivery" value="([^"]+)"', page)


async def press(browser: httpx2.AsyncClient, page: str, path: str = "/deliveries/attempts", *ids: str) -> str:
    """Press the button of a form. Returns the page that follows."""
    sent = await browser.post(path, data={"form_token": token_of(page), "delivery": [*ids]})
    assert sent.status_code == 303, sent.text
    return (await browser.get(sent.headers["location"])).text


async def mails(house: StaffedHouse) -> list[str]:
    await house.service.engine.settle()
    return [mail.to for mail in house.mailbox.mails]


async def test_a_row_says_if_only_a_message_is_tried_again(house: StaffedHouse) -> None:
    run = await house.open("ship", version="2.2")
    house.mailbox.faults.add(Fault("error", "RCPT", times=None, code=450, error="4.2.2 later"))
    answer = await house.api(f"/api/runs/{run}/comments", {"by": BO, "text": "Is it ready?"})
    assert answer.status_code == 201, answer.text
    listed = rows((await house.get("/deliveries", OPERATOR)).text)
    assert [("⏳ Trying again a message about its card" in row) for row in listed] == [True, True], listed
    seen = await house.http.get(f"/api/runs/{run}", headers={"Authorization": f"Bearer {ENV['DESK']}"})
    assert {each["retried"] for each in seen.json()["request"]["deliveries"]} == {"reply"}


async def test_a_refused_mail_is_listed_and_tried_now_once(house: StaffedHouse) -> None:

    house.mailbox.faults.add(Fault("error", "RCPT", times=None, code=550, error=GONE))
    run = await house.open("ship", version="2.1")
    async with await house.as_person(OPERATOR) as di:
        page = (await di.get("/deliveries")).text
        assert [row.partition(" Try now")[0] for row in rows(page)] == [
            f"Ship 2.1 ship · opened less than a minute ago {to} email ⚠ Not delivered 1 try "
            f"the relay rejects the mail: 550 {GONE}"
            for to in (ANN, CY)
        ]
        first, second = chosen(page)
        assert ANN not in first  # nobody's address is in a URL
        house.mailbox.faults.clear()
        after = await press(di, page, f"/deliveries/{first}/attempts")
        assert "✓" in after
        assert "it is being tried now." in after
        assert await mails(house) == [ANN]
        assert "there was nothing to try" in await press(di, page, "/deliveries/attempts", first)
        page = (await di.get("/deliveries")).text
        assert chosen(page) == [second]
        await press(di, page, "/deliveries/attempts", second, second)
        assert await mails(house) == [ANN, CY]
        assert "Everything has arrived." in (await di.get("/deliveries")).text
        lines = await house.service.engine.audit_lines(AuditFilter(what=ATTEMPTED))
        assert [(line.entry.who, line.entry.run_id, line.entry.data["became"]) for line in lines] == [
            (OPERATOR, run, "tried"),
            (OPERATOR, run, "not_tried"),
            (OPERATOR, run, "tried"),
        ]
    await house.vote(run, ANN)
    record = await house.service.engine.record(run)
    assert record is not None
    assert record.status == "completed"
    assert (await mails(house))[:2] == [ANN, CY]


async def test_a_relay_that_is_down_is_tried_again_at_once(house: StaffedHouse) -> None:
    await house.mailbox.__aexit__()
    run = await house.open("ship", version="2.1")
    await house.clock.advance("20m")
    async with await house.as_person(OPERATOR) as di:
        page = (await di.get("/deliveries?state=retrying&channel=email&workflow=ship")).text
        assert ["⏳ Trying again" in row and "the relay can't be reached" in row for row in rows(page)] == [True] * 2
        await house.mailbox.__aenter__()
        await press(di, page, "/deliveries/attempts", *chosen(page))
        assert sorted(await mails(house)) == [ANN, CY]
        await house.clock.advance("2h")
        assert sorted(await mails(house)) == [ANN, CY]
        assert rows((await di.get("/deliveries")).text) == []
        for nothing in ("state=held", "channel=slack", "workflow=other", "state=not_delivered"):
            assert "Nothing matches" in (await di.get(f"/deliveries?{nothing}")).text
        assert (await di.get("/deliveries?state=lost")).status_code == 422
        assert (await di.get("/deliveries?cursor=no")).status_code == 404
    assert await house.service.engine.record(run)


async def test_after_the_decision_a_retry_sends_nothing(house: StaffedHouse) -> None:
    house.mailbox.faults.add(Fault("error", "RCPT", times=2, code=550, error=GONE))
    run = await house.open("ship", version="2.1")
    async with await house.as_person(OPERATOR) as di:
        page = (await di.get("/deliveries")).text
        await house.vote(run, ANN)
        before = await mails(house)
        after = await press(di, page, "/deliveries/attempts", *chosen(page), "run_none-0")
        assert after.count("the request is decided, so nothing was sent.") == 2
        assert "there is no such delivery." in after
        assert await mails(house) == before
        assert rows(after) == []


async def test_a_follow_up_that_failed_stays_listed(house: StaffedHouse) -> None:
    run = await house.open("notifies", version="4")
    house.mailbox.faults.add(Fault("error", "RCPT", times=None, code=550, error=GONE))
    await house.vote(run, ANN)
    record = await house.service.engine.record(run)
    assert record is not None
    assert record.status == "completed"
    async with await house.as_person(OPERATOR) as di:
        assert "Everything has arrived." in (await di.get("/deliveries")).text
        for path in ("/deliveries?of=follow-ups", "/deliveries?of=follow-ups&workflow=notifies"):
            (row,) = rows((await di.get(path)).text)
            assert row.startswith("Notify 4 notifies · opened ")
            assert row.endswith(f"⚠ Failed 1 try the relay rejects the mail: 550 {GONE}")
        assert "Nothing matches." in (await di.get("/deliveries?of=follow-ups&workflow=ship")).text
        assert (await di.get("/deliveries?of=follow-ups&cursor=no")).status_code == 404
    async with await house.as_person(ANN) as ann:
        assert (await ann.get("/deliveries?of=follow-ups")).status_code == 403


async def test_ended_runs_are_not_looked_through(house: StaffedHouse) -> None:
    house.mailbox.faults.add(Fault("error", "RCPT", times=None, code=550, error=GONE))
    done, open_one = await house.open("ship", version="1"), await house.open("ship", version="2")
    await house.vote(done, ANN)
    page = await list_deliveries(house.service.engine)
    assert {row.record.id for row in page.rows} == {open_one}
    first = await list_deliveries(house.service.engine, limit=1)
    assert first.cursor is None


async def test_deliveries_are_for_operators(house: StaffedHouse) -> None:
    house.mailbox.faults.add(Fault("error", "RCPT", times=None, code=550, error=GONE))
    await house.open("ship", version="2.1")
    async with await house.as_person(OPERATOR) as di:
        page = (await di.get("/deliveries")).text
        token, (first, _) = token_of(page), chosen(page)
        assert '<a href="/deliveries" aria-current="page">Deliveries</a>' in page
        for bad, status in (({"delivery": first}, 403), ({"form_token": token}, 422)):
            refused = await di.post("/deliveries/attempts", data=bad, headers={"Origin": "https://evil.example"})
            assert refused.status_code == 403
            assert (await di.post("/deliveries/attempts", data=bad)).status_code in (status, 303)
    for person, status in (("", 401), (BO, 403), (CY, 403), ("audit@acme.eu", 403)):
        shown = await house.get("/deliveries", person)
        assert shown.status_code == status
        assert "Ship" not in shown.text
        if person:
            async with await house.as_person(person) as browser:
                sent = await browser.post("/deliveries/attempts", data={"form_token": token, "delivery": first})
                assert sent.status_code == 403
