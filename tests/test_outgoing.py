"""Outgoing calls reach configured targets only, and no private network."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import connector, web
from aiohttp.abc import AbstractResolver
from aiohttp.test_utils import TestServer

from approvals_bot.approvals.port import Called, Refused, TryAgain
from approvals_bot.config.proxy import Proxy
from approvals_bot.outgoing import (
    AddressRefused,
    Allowed,
    OutgoingTarget,
    check_address,
    fetch_text,
    is_public,
    outgoing_targets,
    signature_headers,
)
from approvals_bot.people import SourceUnavailable
from tests.support.certificates import certificate
from tests.support.web_proxy import web_proxy

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def now() -> datetime:
    return NOW


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "169.254.169.254",
        "100.64.0.1",
        "fd00::1",
        "fe80::1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "2002:7f00:1::",
        "2001:db8::1",
        "::",
        "fec0::1",
    ],
)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111"])
def test_public_addresses_may_be_called(address: str) -> None:
    assert is_public(address)
    check_address(address, 443, Allowed())


def test_listed_address_may_be_called_on_its_port_only() -> None:
    check_address("127.0.0.1", 9000, Allowed(["127.0.0.1:9000"]))
    with pytest.raises(AddressRefused):
        check_address("127.0.0.1", 9001, Allowed(["127.0.0.1:9000"]))


async def test_target_gets_signed_json_and_its_response_is_understood() -> None:
    seen: list[tuple[dict[str, str], bytes]] = []
    answers = iter([web.Response(), web.Response(status=503, headers={"Retry-After": "7"}), web.Response(status=404)])

    async def take(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.read()))
        return next(answers)

    app = web.Application()
    app.router.add_post("/deploys", take)
    async with TestServer(app) as server:
        targets = {"deploy": OutgoingTarget(str(server.make_url("/deploys")), "s" * 32)}
        async with outgoing_targets(targets=targets, allow_private=[f"127.0.0.1:{server.port}"], now=now) as outgoing:
            first = await outgoing.post("deploy", "evt_1", {"version": "2.1"})
            second = await outgoing.post("deploy", "evt_1", {"version": "2.1"})
            third = await outgoing.post("deploy", "evt_1", {"version": "2.1"})
    assert first == Called(200)
    assert isinstance(second, TryAgain)
    assert second.after is not None
    assert second.after.total_seconds() == 7
    assert isinstance(third, Refused)
    headers, body = seen[0]
    assert body == b'{"version":"2.1"}'
    expected = signature_headers("s" * 32, "evt_1", NOW, body)
    assert {name: headers[name] for name in expected} == expected


async def test_unlisted_private_target_is_never_called() -> None:
    called: list[str] = []

    async def take(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        urls = [
            f"http://127.0.0.1:{server.port}/",
            f"http://localhost:{server.port}/",
            f"http://2130706433:{server.port}/",
        ]
        targets = {str(i): OutgoingTarget(url, "s" * 32) for i, url in enumerate(urls)}
        async with outgoing_targets(targets=targets, allow_private=[], now=now) as outgoing:
            results = [await outgoing.post(name, "evt_1", {}) for name in targets]
    assert not called
    assert [type(result) for result in results[:2]] == [Refused, Refused]
    assert not isinstance(results[2], Called)


async def test_redirects_are_not_followed() -> None:
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"})

    app = web.Application()
    app.router.add_post("/", away)
    async with TestServer(app) as server:
        targets = {"away": OutgoingTarget(str(server.make_url("/")), "s" * 32)}
        async with outgoing_targets(targets=targets, allow_private=[f"127.0.0.1:{server.port}"], now=now) as outgoing:
            assert isinstance(await outgoing.post("away", "evt_1", {}), Refused)


async def test_unreachable_target_is_retried() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    targets = {"dead": OutgoingTarget(f"http://127.0.0.1:{port}/", "s" * 32)}
    async with outgoing_targets(targets=targets, allow_private=[f"127.0.0.1:{port}"], now=now) as outgoing:
        assert isinstance(await outgoing.post("dead", "evt_1", {}), TryAgain)


async def test_an_untrusted_certificate_and_a_lack_of_tls_are_said(tmp_path: Path) -> None:
    strange, plain = TestServer(web.Application(), scheme="https"), TestServer(web.Application())
    await strange.start_server(ssl=certificate(tmp_path, "127.0.0.1"))
    await plain.start_server()
    async with strange, plain:
        for port, why in ((strange.port, "its certificate isn't trusted: self-signed"), (plain.port, "no TLS: ")):
            with pytest.raises(SourceUnavailable) as failed:
                await fetch_text(f"https://127.0.0.1:{port}/", allowed=[f"127.0.0.1:{port}"])
            assert why in failed.value.reason


@pytest.mark.parametrize(
    ("listed", "host", "same"),
    [
        ("bücher.internal:80", "xn--bcher-kva.internal", True),
        ("xn--bcher-kva.internal:80", "BÜCHER.internal.", True),
        ("Erp.Acme.eu:80", "erp.acme.eu", True),
        ("erp.acme.eu.:80", "erp.acme.eu", True),
        ("[::1]:80", "::1", True),
        ("[FD00::1]:80", "[fd00:0:0::1]", True),
        ("127.0.0.1:80", "１２７.０.０.１", True),
        ("erp.acme.eu:80", "erp.acme.eu.evil.example", False),
        ("erp.acme.eu:81", "erp.acme.eu", False),
    ],
)
def test_places_are_compared_as_name_servers_know_them(listed: str, host: str, same: bool) -> None:
    assert ((host, 80) in Allowed([listed])) is same


class Names(AbstractResolver):
    """A name server whose answers change from one look-up to the next."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        of = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [{"hostname": host, "host": address, "port": port, "family": of, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("answer", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "2130706433"])
async def test_an_address_that_was_not_checked_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """Whatever a resolver lets through, the socket itself is checked once more."""
    called: list[str] = []

    async def take(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    monkeypatch.setattr("approvals_bot.outgoing.checked_resolver", lambda allowed: Names(answer))
    async with TestServer(app) as server:
        targets = {"erp": OutgoingTarget(f"http://erp.example:{server.port}/", "s" * 32)}
        async with outgoing_targets(targets=targets, allow_private=[], now=now) as outgoing:
            result = await outgoing.post("erp", "evt_1", {})
    assert not called
    assert not isinstance(result, Called)


async def test_an_allowed_names_address_is_allowed_for_its_own_calls_only() -> None:
    called: list[str] = []

    async def take(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_post("/{path}", take)
    async with TestServer(app) as server:
        listed = f"localhost:{server.port}"
        targets = {
            "listed": OutgoingTarget(f"http://{listed}/listed", "s" * 32),
            "other": OutgoingTarget(f"http://127.0.0.1:{server.port}/other", "s" * 32),
        }
        async with outgoing_targets(targets=targets, allow_private=[listed], now=now) as outgoing:
            for _ in range(2):
                assert isinstance(await outgoing.post("listed", "evt_1", {}), Called)
                assert isinstance(await outgoing.post("other", "evt_1", {}), Refused)
    assert called == ["/listed", "/listed"]


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f.1",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "１２７.0.0.1",
        "localhost.",
        "deploy.acme.eu@127.0.0.1",
    ],
)
async def test_no_spelling_of_this_machine_is_called(host: str) -> None:
    called: list[str] = []

    async def take(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        targets = {"erp": OutgoingTarget(f"http://{host}:{server.port}/", "s" * 32)}
        async with outgoing_targets(targets=targets, allow_private=[], now=now) as outgoing:
            assert not isinstance(await outgoing.post("erp", "evt_1", {}), Called)
    assert not called


async def test_a_proxy_takes_what_is_not_on_private_addresses() -> None:
    seen: list[str] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(str(request.url) if request.host.startswith("erp.example") else f"direct {request.path}")
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    async with TestServer(app) as server:
        own = f"127.0.0.1:{server.port}"
        targets = {
            "erp": OutgoingTarget("http://erp.example/hooks", "s" * 32),
            "near": OutgoingTarget(f"http://{own}/near", "s" * 32),
            "private": OutgoingTarget("http://10.1.2.3/x", "s" * 32),
        }
        async with outgoing_targets(
            targets=targets, allow_private=[own], now=now, proxy=Proxy(f"http://{own}")
        ) as outgoing:
            results = [await outgoing.post(name, "evt_1", {}) for name in targets]
    assert seen == ["http://erp.example/hooks", "direct /near"]
    assert [type(result) for result in results] == [Called, Called, Refused]


async def test_a_proxy_gets_names_and_looks_them_up_itself(tmp_path: Path) -> None:
    """By CONNECT: what is said to the target is not for the proxy."""
    tls = certificate(tmp_path, "erp.example")
    connector._SSL_CONTEXT_VERIFIED.load_verify_locations(tmp_path / "erp.example.pem")  # it is for this name only
    seen: list[str] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(f"{request.host}{request.path}")
        return web.Response()

    app = web.Application()
    app.router.add_post("/hooks", take)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=tls)
    async with server:
        assert server.port is not None
        async with web_proxy({"erp.example:443": server.port}, "bot:pass") as proxy:
            targets = {"erp": OutgoingTarget("https://erp.example/hooks", "s" * 32)}
            named = Proxy(f"http://bot:pass@127.0.0.1:{proxy.port}")
            async with outgoing_targets(targets=targets, allow_private=[], now=now, proxy=named) as outgoing:
                assert await outgoing.post("erp", "evt_1", {}) == Called(200)
    assert (proxy.seen, seen) == (["CONNECT erp.example:443"], ["erp.example/hooks"])


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:{port}/",  # no_proxy names it: called directly, and checked
        "http://127.0.0.1:{port}/",
        "http://api.localhost:{port}/",  # this would be the proxy's own machine
        "http://2130706433:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://10.1.2.3/",
    ],
)
async def test_a_proxy_is_no_way_around_the_checks(url: str) -> None:
    called: list[str] = []

    async def take(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server, web_proxy({}) as proxy:
        targets = {"erp": OutgoingTarget(url.format(port=server.port), "s" * 32)}
        named = Proxy.of(proxy.url, ["localhost"])
        async with outgoing_targets(targets=targets, allow_private=[], now=now, proxy=named) as outgoing:
            assert isinstance(await outgoing.post("erp", "evt_1", {}), Refused)
    assert (called, proxy.seen) == ([], [])


@pytest.mark.parametrize(
    ("host", "is_taken"),
    [
        ("erp.acme.eu", False),
        ("acme.eu", True),
        ("evilacme.eu", True),
        ("a.b.acme.eu", False),
        ("hr.example", False),
        ("x.hr.example", True),
        ("xn--bcher-kva.example", False),
    ],
)
def test_hosts_without_a_proxy_are_named_or_below_a_domain(host: str, is_taken: bool) -> None:
    proxy = Proxy.of("http://proxy.example:3128", [".Acme.eu", "hr.example", "bücher.example"])
    assert proxy is not None
    assert proxy.takes(host) is is_taken
