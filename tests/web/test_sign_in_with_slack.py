"""Sign in with Slack: members of our workspace get in, guests and other teams don't."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from approvals_bot.app.service import open_service
from approvals_bot.service.catalog import read_configuration
from tests.support.browsing import a_port, serving
from tests.support.issuer import SECRET, Issuer
from tests.web.test_sign_in_by_others import House, browser_of

CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
allow_private = ["{address}"]
[slack]
bot_token = "env:SECRET"
signing_secret = "env:SECRET"
api_url = "{url}/api/"
[people."ann@acme.eu"]
name = "Ann Ode"
[login.slack]
client_id = "approvals"
client_secret = "env:SECRET"
"""
TEAM, USER = "https://slack.com/team_id", "https://slack.com/user_id"
USERS: dict[str, dict[str, Any]] = {
    "U0ANN": {},
    "U0GUEST": {"is_restricted": True},
    "U0GONE": {"deleted": True},
    "U0OTHER": {"team_id": "T0OTHER", "is_stranger": True},
}


async def auth_test(request: Request) -> Response:
    return JSONResponse({"ok": True, "team_id": "T0ACME", "user_id": "U0BOT", "bot_id": "B0"})


async def users_info(request: Request) -> Response:
    id = request.query_params.get("user", "")
    user = {"id": id, "team_id": "T0ACME", "profile": {"email": "ann@acme.eu", "real_name": "Ann"}} | USERS[id]
    return JSONResponse({"ok": True, "user": user})


async def other_call(request: Request) -> Response:
    return JSONResponse({"ok": False, "error": "users_not_found"})


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "workflows").mkdir()
    env = {"KEY": "a signing key of the tests: 0123456789abcdef", "SECRET": SECRET}
    with a_port() as bound:
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        issuer = Issuer(f"http://{address}")
        (tmp_path / "config.toml").write_text(CONFIG.format(address=address, url=issuer.url))
        configuration = read_configuration(tmp_path / "config.toml", env)
        app = Starlette(
            routes=[
                Route("/api/auth.test", auth_test, methods=["GET", "POST"]),
                Route("/api/users.info", users_info, methods=["GET", "POST"]),
                Route("/api/users.lookupByEmail", other_call, methods=["GET", "POST"]),
                Mount("/", issuer.app),
            ]
        )
        async with (
            serving(app, bound),
            open_service(configuration) as service,
            browser_of(service) as http,
        ):
            yield House(service, issuer, http)


def says(house: House, user: str, team: str = "T0ACME") -> None:
    house.issuer.claims = {USER: user, TEAM: team}


async def test_a_member_signs_in_with_slack(house: House) -> None:
    assert 'href="/login/slack"' in (await house.browser.get("/login")).text
    says(house, "U0ANN")
    done = await house.sign_in("/login/slack?next=/me")
    assert (done.status_code, done.headers["location"]) == (303, "/me")
    page = await house.browser.get("/me")
    assert "Ann Ode" in page.text
    assert "with Slack" in page.text
    assert house.issuer.asked[0]["scope"] == "openid email profile"


@pytest.mark.parametrize(
    ("user", "team", "because"),
    [
        ("U0GUEST", "T0ACME", "not_our_workspace"),
        ("U0GONE", "T0ACME", "not_our_workspace"),
        ("U0OTHER", "T0ACME", "not_our_workspace"),
        ("U0ANN", "T0OTHER", "not_our_workspace"),
        ("", "", "no_slack_user"),
    ],
)
async def test_guests_and_other_teams_are_refused(house: House, user: str, team: str, because: str) -> None:
    if user:
        says(house, user, team)
    page: httpx2.Response = await house.sign_in("/login/slack")
    assert (page.status_code, "You were not signed in" in page.text) == (403, True)
    assert await house.refusals() == [because]


async def test_an_answer_of_another_method_signs_nobody_in(house: House) -> None:
    says(house, "U0ANN")
    back = (await house.start("/login/slack")).replace("/login/slack", "/login/oidc")
    assert (await house.browser.get(back)).status_code == 404
    assert (await house.browser.get("/inbox")).status_code == 401


async def test_slack_proves_no_new_sign_in(house: House) -> None:
    """Its tokens don't say when somebody has signed in there."""
    says(house, "U0ANN")
    assert 'href="/login/slack' not in (await house.browser.get("/login?again")).text
    assert (await house.sign_in("/login/slack?again=1")).status_code == 303
    [session] = await house.service.engine.store.sessions("ann@acme.eu")
    assert not session.proved
