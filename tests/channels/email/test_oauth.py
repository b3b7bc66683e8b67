"""Logging in by XOAUTH2 at servers that check the bearer: tokens come from a command or a token server."""

from __future__ import annotations

import asyncio
import imaplib
import logging
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiosmtpd.smtp import MISSING, SMTP, AuthResult
from pydantic import SecretStr, ValidationError

from approvals_bot.approvals.port import Refused, TryAgain
from approvals_bot.channels.email.imap import Watch
from approvals_bot.channels.email.message import OutgoingMail
from approvals_bot.channels.email.oauth import Bearer, NoTokenError
from approvals_bot.channels.email.smtp import Accepted, Relay
from approvals_bot.config.mail import Imap, MailAccount, OAuth
from approvals_bot.config.service import ServiceSettings
from tests.support.imap_server import ImapServer, imap_server
from tests.support.web_proxy import web_proxy

USER, SECRET = "approvals@acme.eu", "client-secret-of-a-test"
MAIL = OutgoingMail("approvals@acme.eu", "ann@acme.eu", "a@acme.eu", b"Subject: x\r\n\r\nx\r\n")


@dataclass
class Bearers:
    """What a mail server thinks of tokens: those it takes, and how often it was asked."""

    good: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:
        named = dict(part.split("=", 1) for part in b64decode(args[1]).decode().split("\x01") if part)
        token = named["auth"].removeprefix("Bearer ")
        self.asked.append(token)
        if named == {"user": USER, "auth": f"Bearer {token}"} and token in self.good:
            return AuthResult(success=True, handled=False, auth_data=token)
        said = await server.challenge_auth(b'{"status":"400","schemes":"Bearer"}')
        assert said in (b"", MISSING), "a client answers that with an empty line"
        return AuthResult(success=False, handled=False)

    async def handle_DATA(self, *_: Any) -> str:
        return "250 OK"


@asynccontextmanager
async def smtp_server(bearers: Bearers) -> AsyncIterator[int]:
    loop, lines = asyncio.get_running_loop(), list[SMTP]()

    def line() -> SMTP:
        lines.append(SMTP(bearers, hostname="relay.test", loop=loop, auth_require_tls=False))
        return lines[-1]

    server = await loop.create_server(line, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in lines:
            if each.transport is not None:
                each.transport.close()
        await server.wait_closed()


@asynccontextmanager
async def token_server(answers: list[Any], seen: list[dict[str, str]]) -> AsyncIterator[str]:
    async def issue(request: web.Request) -> web.Response:
        seen.append({name: str(value) for name, value in (await request.post()).items()})
        answer = answers.pop(0)
        return web.json_response(answer) if isinstance(answer, dict) else web.Response(status=answer, text=SECRET)

    app = web.Application()
    app.router.add_post("/token", issue)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    finally:
        await runner.cleanup()


def by_server(url: str) -> OAuth:
    return OAuth(token_url=url, client_id="our-app", client_secret=SecretStr(SECRET), scope="https://mail/.default")


def by_command(folder: Path, lines: str) -> OAuth:
    """Tokens from a command that prints the next of these lines each time."""
    (folder / "tokens").write_text(lines)
    program = (
        "import pathlib; p = pathlib.Path('tokens'); first, _, rest = p.read_text().partition('\\n'); "
        "p.write_text(rest); print(first)"
    )
    return OAuth(token_command=("sh", "-c", f'cd {folder} && {sys.executable} -c "$0"', program))


@pytest.fixture
def box() -> Iterator[ImapServer]:
    with imap_server(USER, "unused") as server:
        yield server


async def test_a_relay_takes_the_bearer_of_a_token_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bearers, seen = Bearers({"first-token"}), list[dict[str, str]]()
    answers: list[Any] = [{"access_token": "first-token", "expires_in": 3599}, {"access_token": "second-token"}]
    async with token_server(answers, seen) as url, smtp_server(bearers) as port:
        time = 1_000.0
        relay = Relay(
            MailAccount(host="127.0.0.1", port=port, security="none", username=USER, oauth=by_server(url)),
            monotonic=lambda: time,
        )
        assert await relay.deliver(MAIL) == Accepted()
        assert seen == [
            {
                "grant_type": "client_credentials",
                "client_id": "our-app",
                "client_secret": SECRET,
                "scope": "https://mail/.default",
            }
        ]
        await relay.aclose()
        time += 30
        assert await relay.deliver(MAIL) == Accepted()  # with the token that we have
        assert len(seen) == 1

        await relay.aclose()
        bearers.good = {"second-token"}  # the first is revoked
        match await relay.deliver(MAIL):  # and was fetched less than a minute ago
            case Refused(error, "install"):
                assert "rejects our login: 535" in error
            case other:
                raise AssertionError(other)
        time += 61
        assert await relay.deliver(MAIL) == Accepted()
        assert bearers.asked == ["first-token"] * 4 + ["second-token"]
        await relay.aclose()
    assert not any(secret in caplog.text for secret in ("first-token", "second-token", SECRET))


async def test_a_token_is_replaced_before_it_ends() -> None:
    answers: list[Any] = [{"access_token": "one", "expires_in": 120}, 500, {"access_token": "two", "expires_in": 120}]
    time = 0.0
    async with token_server(answers, []) as url:
        bearer = Bearer(by_server(url), monotonic=lambda: time)
        assert await bearer.token() == "one"
        time = 59.0
        assert await bearer.token() == "one"
        time = 61.0
        for _ in range(3):  # the server isn't asked again for a minute
            with pytest.raises(NoTokenError, match="answered 500"):
                await bearer.token()
        time = 122.0
        assert await bearer.token() == "two"
    assert answers == []


async def test_what_is_no_token_stops_the_queue_without_quoting_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with token_server([{"error": SECRET}], []) as url:
        ways = {
            "ended with status 3": OAuth(token_command=("sh", "-c", f"echo {SECRET}; exit 3")),
            "can't be run": OAuth(token_command=("/no/such/program", SECRET)),
            "is none": OAuth(token_command=("echo", f"{SECRET} and more")),
            "no access token": by_server(url),
            "can't be reached": by_server("http://127.0.0.1:1/token"),
        }
        async with smtp_server(Bearers()) as port:
            for why, oauth in ways.items():
                account = MailAccount(host="127.0.0.1", port=port, security="none", username=USER, oauth=oauth)
                relay = Relay(account)
                for _ in range(2):
                    verdict = await relay.deliver(MAIL)
                    assert isinstance(verdict, Refused)
                    assert verdict.install
                    assert why in verdict.error
                await relay.aclose()
    assert caplog.text.count("Mail doesn't work") == len(ways)
    assert SECRET not in caplog.text


async def test_a_relay_without_xoauth2_gets_no_token() -> None:
    class Plain:
        async def handle_DATA(self, *_: Any) -> str:
            return "250 OK"

    async with smtp_server(Plain()) as port:  # type: ignore[arg-type]  # a server without that method
        oauth = OAuth(token=SecretStr("a-token"))
        relay = Relay(MailAccount(host="127.0.0.1", port=port, security="none", username=USER, oauth=oauth))
        verdict = await relay.check()
        assert isinstance(verdict, Refused | TryAgain)
        assert "no login that we can use" in verdict.error
        await relay.aclose()


async def test_a_mailbox_takes_the_bearer_of_a_command(
    box: ImapServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    box.tokens = {"second-token"}
    mailbox = Imap(
        host="127.0.0.1",
        port=box.port,
        security="none",
        username=USER,
        oauth=by_command(tmp_path, "first-token\nsecond-token\nthird-token\n"),
        every=timedelta(minutes=5),
    )
    time = 0.0
    watch = Watch(Nothing(), mailbox, monotonic=lambda: time)
    box.put(b"Subject: hello\r\n\r\nhello\r\n")
    with pytest.raises(imaplib.IMAP4.error, match="NO"):
        await watch.look()
    time = 61.0
    assert await watch.look() == 0
    assert all(mail.is_read for mail in box.mails.values())
    assert box.logins == 4  # refused, refused, then one for reading and one for marking
    assert not any(token in caplog.text for token in ("first-token", "second-token"))


class Nothing:
    """An inlet that knows no address."""

    name = "nothing"
    takes_from_people = True

    async def knows(self, address: str) -> bool:
        return False

    async def take(self, address: str, sender: str, content: bytes) -> bool:
        raise AssertionError(address)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, "one of token"),
        ({"token": SecretStr("x"), "token_command": ("cat", "x")}, "one of token"),
        ({"token_url": "https://id.acme.eu/token", "client_id": "x"}, "client_secret"),
        ({"token_url": "http://id.acme.eu/token", "client_id": "x", "client_secret": SecretStr("x")}, "https"),
        ({"token": SecretStr("x"), "scope": "mail"}, "token_url"),
    ],
)
def test_oauth_has_exactly_one_way(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        OAuth(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"username": "x"},
        {"password": SecretStr("x")},
        {"oauth": OAuth(token=SecretStr("x"))},
        {"username": "x", "password": SecretStr("x"), "oauth": OAuth(token=SecretStr("x"))},
    ],
)
def test_an_account_has_one_whole_login(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MailAccount(host="127.0.0.1", **given)


async def test_a_token_server_is_asked_through_the_services_proxy() -> None:
    names = {"KEY": "k" * 40, "SECRET": SECRET}
    oauth = {"token_url": "https://login.example/token", "client_id": "a", "client_secret": "env:SECRET"}
    box = {"host": "imap.example", "username": USER, "oauth": oauth}
    email = {"host": "smtp.example", "username": USER, "sender": USER, "oauth": oauth}
    email |= {"bounces": {"address": "bounces@acme.eu", "imap": box}}

    def oauths(**server: Any) -> list[OAuth]:
        server |= {"base_url": "https://approve.acme.eu", "signing_keys": ["env:KEY"]}
        given = {"server": server, "email": email}
        settings = ServiceSettings.model_validate(given, context={"env": names, "folder": "."})
        assert settings.email is not None
        return settings.email.oauths

    async with web_proxy({}) as proxy:
        for each in oauths(proxy=proxy.url):
            with pytest.raises(NoTokenError):
                await Bearer(each).token()
        assert proxy.seen == ["CONNECT login.example:443"] * 2
    assert [each.proxy_url for each in oauths(proxy=proxy.url, no_proxy=[".example"])] == [None, None]
