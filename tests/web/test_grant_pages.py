"""A grant on the request's page: its state, and the forms by which it ends or lasts longer."""

from __future__ import annotations

from approvals_bot.approvals.port import Targets
from tests.web.test_grants_api import Recording
from tests.web.test_request_page import send, shown
from tests.web.test_roles_on_pages import House, house  # noqa: F401  # the fixture

HTTP = """
[http.aws]
url = "https://aws.acme.eu/"
secret = "env:KEY"
[roles]"""
GRANT = """
[grant]
lasts = "2h"
max = "4h"
give = { http = "aws" }
take = { http = "aws" }
extend = "ask"
[deliver]"""


async def granted(house: House) -> str:  # noqa: F811
    run = await house.open()
    await send(house, run, "ann@acme.eu", "/decisions/", choice="approve")
    return run


async def test_a_grant_on_its_page(house: House) -> None:  # noqa: F811
    house.reconfigure("config.toml", "\n[roles]", HTTP)
    house.reconfigure("workflows/ship.toml", "\n[deliver]", GRANT)
    house.service.engine.resources[Targets] = Recording()
    run = await granted(house)
    for person, may_end, may_extend in (
        ("bo@acme.eu", True, True),  # the requester
        ("ann@acme.eu", True, False),  # an approver
        ("di@acme.eu", True, False),  # an operator
        ("eve@acme.eu", False, False),  # a viewer
    ):
        text = shown(await house.get(f"/requests/{run}", person))
        assert "🔑 Active until" in text
        assert ("End it now" in text, "Ask for more time" in text) == (may_end, may_extend), person
        assert "Withdraw" not in text

    assert "✅ Approved 🔑 Active until" in shown(await house.get("/runs", "di@acme.eu"))

    path = f"/requests/{run}/talk"
    wrong = await send(house, run, "bo@acme.eu", path, talk="extend", lasts="9h", reason="slow")
    assert (wrong.status_code, "a grant lasts at most 4h here" in wrong.text) == (422, True)
    asked = await send(house, run, "bo@acme.eu", path, talk="extend", lasts="1h", reason="slow")
    assert (asked.status_code, asked.headers["location"]) == (303, f"/requests/{run}?done=extending")
    assert "Until they approve, its end stays." in shown(await house.get(asked.headers["location"], "bo@acme.eu"))
    own = shown(await house.get(f"/requests/{run}", "bo@acme.eu"))
    assert "⏳ An extension by 1 hour was requested" in own
    assert "Ask for more time" not in own, "one at a time"
    extension = shown(await house.get(f"/requests/{run}.1", "ann@acme.eu"))
    assert "Extend by 1 hour: Deploy" in extension
    assert "slow" in extension
    inbox = shown(await house.get("/inbox", "ann@acme.eu"))
    assert "Extend by 1 hour: Deploy" in inbox

    for person, query, found in (
        ("bo@acme.eu", "", True),
        ("ann@acme.eu", "", False),  # an approver, who was given nothing
        ("di@acme.eu", "?state=active&workflow=ship&person=Bo@acme.eu", True),  # sees all
        ("di@acme.eu", "?state=ended", False),
    ):
        text = shown(await house.get(f"/grants{query}", person))
        assert ("Deploy ship Bo Lund 🔑 Active until" in text) is found, (person, query, text)
    assert (await house.get("/grants?state=gone", "di@acme.eu")).status_code == 422
    assert (await house.get("/grants")).status_code == 401

    ended = await send(house, run, "di@acme.eu", path, talk="revoke", reason="an incident")
    assert (ended.status_code, ended.headers["location"]) == (303, f"/requests/{run}?done=revoked")
    text = shown(await house.get(f"/requests/{run}", "bo@acme.eu"))
    assert "✖ Revoked by Di Oz (“an incident”)" in text
    assert "End it now" not in text
    assert "Cancelled" in shown(await house.get(f"/requests/{run}.1", "bo@acme.eu"))
