"""Signing in by an OpenID provider, by Slack, and by a proxy in front: what is forged signs nobody in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import RSAKey

from approvals_bot.app.service import Service, open_service
from approvals_bot.people import SourceUnavailable
from approvals_bot.service.catalog import read_configuration
from approvals_bot.web.openid import BrowserSecret, OpenIdClient, Provider, SignInRefused
from tests.support.browsing import a_port, serving
from tests.support.issuer import CLIENT, SECRET, Issuer

BASE = "https://approve.acme.eu"
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
[people."ann@acme.eu"]
name = "Ann Ode"
[people."cy@acme.eu"]
name = "Cy Rus"
[login]
methods = ["oidc", "proxy"]
[login.oidc]
issuer = "{issuer}"
client_id = "approvals"
client_secret = "env:SECRET"
[login.proxy]
header = "X-Auth-Request-Email"
trusted = ["10.0.0.0/8"]
"""


@dataclass
class House:
    """A service, its provider, and a browser."""

    service: Service
    issuer: Issuer
    browser: httpx2.AsyncClient

    async def start(self, path: str = "/login/oidc?next=/me") -> str:
        """Begin to sign in, and return where the provider leads the browser back to."""
        begun = await self.browser.get(path)
        assert begun.status_code == 303, begun.text
        async with httpx2.AsyncClient() as http:
            led = await http.get(begun.headers["location"])
        assert led.status_code == 307
        return str(led.headers["location"]).removeprefix(BASE)

    async def sign_in(self, path: str = "/login/oidc?next=/me") -> httpx2.Response:
        return await self.browser.get(await self.start(path))

    async def refusals(self) -> list[str]:
        lines = await self.service.engine.audit_lines()
        return [str(line.entry.data["because"]) for line in lines if line.entry.what == "sign_in_refused"]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "workflows").mkdir()
    env = {"KEY": "a signing key of the tests: 0123456789abcdef", "SECRET": SECRET}
    with a_port() as bound:
        issuer = Issuer(f"http://127.0.0.1:{bound.getsockname()[1]}")
        (tmp_path / "config.toml").write_text(CONFIG.format(issuer=issuer.url))
        configuration = read_configuration(tmp_path / "config.toml", env)
        async with (
            serving(issuer.app, bound),
            open_service(configuration) as service,
            browser_of(service) as http,
        ):
            yield House(service, issuer, http)


def browser_of(service: Service, peer: str = "192.0.2.7", **headers: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(service.app, client=(peer, 5000))
    return httpx2.AsyncClient(transport=transport, base_url=BASE, headers=headers)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_person_signs_in_at_their_provider(house: House, algorithm: str) -> None:
    house.issuer.header = {"alg": algorithm}
    done = await house.sign_in("/login/oidc?next=/inbox?cursor=x")
    assert (done.status_code, done.headers["location"]) == (303, "/inbox?cursor=x")
    assert (await house.browser.get("/inbox")).status_code == 200
    [asked] = house.issuer.asked
    assert asked["code_challenge_method"] == "S256"
    assert "prompt" not in asked
    [line] = [line.entry for line in await house.service.engine.audit_lines() if line.entry.what == "signed_in"]
    assert (line.who, line.data, line.actor is not None) == ("ann@acme.eu", {"method": "oidc"}, True)
    assert await house.refusals() == []


def claim(**claims: Any) -> Callable[[Issuer], None]:
    return lambda issuer: issuer.claims.update(claims)


def no_signature(issuer: Issuer) -> None:
    issuer.header = {"alg": "none"}


def public_key_as_secret(issuer: Issuer) -> None:
    key = issuer.keys["RS256"]
    assert isinstance(key, RSAKey)
    issuer.secret = key.as_pem(private=False)
    issuer.header = {"alg": "HS256", "kid": "r"}


def strange_key(issuer: Issuer) -> None:
    issuer.key = RSAKey.generate_key(2048, {"kid": "r"})


def unknown_key(issuer: Issuer) -> None:
    issuer.key = RSAKey.generate_key(2048, {"kid": "never seen"})


FORGED: dict[str, tuple[Callable[[Issuer], None], str]] = {
    "another issuer's": (claim(iss="https://evil.example"), "issuer"),
    "for another client": (claim(aud="others"), "audience"),
    "for two clients, and another's": (claim(aud=[CLIENT, "others"], azp="others"), "audience"),
    "expired": (claim(exp=1_700_000_000), "expired"),
    "without an end": (claim(exp=None), "expired"),
    "with an end that is no number": (claim(exp=float("nan")), "expired"),
    "that never ends": (claim(exp=float("inf")), "expired"),
    "of the future": (claim(iat=4_000_000_000), "issued_in_the_future"),
    "of another sign-in": (claim(nonce="another"), "nonce"),
    "without a nonce": (claim(nonce=None), "nonce"),
    "unsigned": (no_signature, "algorithm"),
    "signed with the public key as a secret": (public_key_as_secret, "algorithm"),
    "signed with somebody's key": (strange_key, "signature"),
    "signed with an unknown key": (unknown_key, "unknown_key"),
    "of an unverified address": (claim(email_verified=False), "unverified_address"),
    "of an address that is said to be verified": (claim(email_verified="true"), "unverified_address"),
    "without an address": (claim(email=None), "no_address"),
    "of somebody unknown": (claim(email="eve@acme.eu"), "unknown"),
}


@pytest.mark.parametrize("forged", FORGED)
async def test_a_forged_answer_signs_nobody_in(house: House, forged: str) -> None:
    lie, because = FORGED[forged]
    lie(house.issuer)
    await is_refused(house, await house.sign_in(), because)


async def is_refused(house: House, page: httpx2.Response, because: str) -> None:
    assert page.status_code == 403
    assert "You were not signed in" in page.text
    assert (await house.browser.get("/inbox")).status_code == 401
    assert (await house.refusals())[-1] == because


async def test_an_answer_counts_once_and_in_its_own_browser(house: House) -> None:
    house.issuer.is_strict = False
    back = await house.start()
    cookies = dict(house.browser.cookies)
    async with browser_of(house.service) as other:
        assert (await other.get(back)).status_code == 403
    assert await house.refusals() == ["state"]
    forged = back.replace("state=", "state=x")
    await is_refused(house, await house.browser.get(forged), "state")
    house.browser.cookies = httpx2.Cookies(cookies)
    assert (await house.browser.get(back)).status_code == 303
    house.browser.cookies = httpx2.Cookies(cookies)
    await is_refused(house, await house.browser.get(back), "replayed")
    swapped = await house.start()
    await house.start()  # in another tab: this browser has begun another sign-in since
    await is_refused(house, await house.browser.get(swapped), "state")


async def test_a_provider_that_refuses_or_is_away_signs_nobody_in(house: House) -> None:
    back = await house.start()
    state = parse_qs(urlsplit(back).query)["state"][0]
    refused = await house.browser.get(f"/login/oidc?error=access_denied&state={state}")
    await is_refused(house, refused, "refused_by_provider")
    back = await house.start()
    house.issuer.codes.clear()
    page = await house.browser.get(back)
    assert (page.status_code, "You were not signed in" in page.text) == (503, True)
    assert (await house.refusals())[-1] == "no_answer"


async def test_a_new_sign_in_is_asked_for_and_checked(house: House) -> None:
    assert (await house.sign_in("/login/oidc?again=1")).status_code == 303
    assert (house.issuer.asked[-1]["prompt"], house.issuer.asked[-1]["max_age"]) == ("login", "0")
    for auth_time in (1_700_000_000, None):
        house.issuer.claims = {"auth_time": auth_time}
        assert (await house.sign_in("/login/oidc?again=1")).status_code == 403
        assert (await house.refusals())[-1] == "not_signed_in_again"


async def test_a_sign_in_that_the_provider_remembers_proves_nothing(house: House) -> None:
    for path, proved in (("/login/oidc", False), ("/login/oidc?again=1", True)):
        assert (await house.sign_in(path)).status_code == 303
        [session] = await house.service.engine.store.sessions("ann@acme.eu")
        assert session.proved is proved


async def test_discovery_and_keys_are_read_once_in_ten_minutes(house: House) -> None:
    for _ in range(3):
        assert (await house.sign_in()).status_code == 303
    assert house.issuer.key_reads == 1


async def test_people_come_back_to_pages_of_ours_only(house: House) -> None:
    for path in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/a%0d%0ab"):
        done = await house.sign_in(f"/login/oidc?next={path}")
        assert done.headers["location"] == "/inbox"


@pytest.mark.parametrize(
    ("peer", "status"), [("10.1.2.3", 303), ("192.0.2.7", 401), ("::ffff:10.1.2.3", 401), ("", 401)]
)
async def test_only_a_trusted_proxy_says_who_has_signed_in(house: House, peer: str, status: int) -> None:
    named = {"X-Auth-Request-Email": "cy@acme.eu"}
    async with browser_of(house.service, peer) as browser:
        assert (await browser.get("/inbox", headers=named)).status_code == status
        assert (await browser.get("/inbox", headers=named)).status_code == (200 if status == 303 else 401)
        assert (await browser.get("/inbox", headers={"X-Auth-Request-Email": "ann@acme.eu"})).status_code == status
    if status == 401:
        assert await house.refusals() == ["untrusted_peer"]  # once a minute


async def test_a_proxys_session_ends_with_what_it_says(house: House) -> None:
    named = {"X-Auth-Request-Email": "cy@acme.eu"}
    async with browser_of(house.service, "10.1.2.3") as browser:
        assert (await browser.get("/inbox", headers=named)).status_code == 303
        assert (await browser.get("/inbox")).status_code == 401
        twice = [("X-Auth-Request-Email", "cy@acme.eu"), ("X-Auth-Request-Email", "ann@acme.eu")]
        assert (await browser.get("/inbox", headers=twice)).status_code == 401
        nobody = await browser.get("/inbox", headers={"X-Auth-Request-Email": "eve@acme.eu"})
        assert (nobody.status_code, "You were not signed in" in nobody.text) == (403, True)
        assert (await browser.get("/inbox", headers=named)).status_code == 200


async def test_an_answer_counts_once_however_fast_it_is_repeated(house: House) -> None:
    back = await house.start()
    cookies = dict(house.browser.cookies)
    state = parse_qs(urlsplit(back).query)["state"][0]

    async def forge() -> int:
        house.browser.cookies = httpx2.Cookies(cookies)
        return (await house.browser.get(f"/login/oidc?code=x&state={state}")).status_code

    assert set(await asyncio.gather(*(forge() for _ in range(3)))) <= {403, 503}
    assert (await house.refusals()).count("replayed") == 2


async def test_a_provider_that_is_down_is_asked_once_in_ten_seconds() -> None:
    calls, at = 0, datetime(2026, 11, 5, 9, tzinfo=UTC)

    async def fetch(url: str, **_: Any) -> bytes:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        raise SourceUnavailable("the identity provider", "it is down")

    provider = Provider("https://id.acme.eu", CLIENT, SECRET)
    client = OpenIdClient(provider, fetch=fetch, now=lambda: at, redirect_uri=f"{BASE}/login/oidc")

    async def start() -> None:
        with pytest.raises(SignInRefused, match="no_answer"):
            await client.authorization_url(BrowserSecret.new(), "state", again=False)

    await asyncio.gather(*(start() for _ in range(5)))
    at += timedelta(seconds=9)
    await start()
    assert calls == 1
    at += timedelta(seconds=1)
    await start()
    assert calls == 2
