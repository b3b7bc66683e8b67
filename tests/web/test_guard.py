"""The guard before every request: sizes, one Host, our one cookie, the peer behind a proxy, refused tokens."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot.service.audited import AUDITED_A_MINUTE, AUDITED_OF_PEER, MOST_PEERS, AuditedRefusals, PeerCounts
from approvals_bot.web.guard import (
    COOKIE_BYTES,
    HEADER_BYTES,
    REFUSED_A_MINUTE,
    URL_BYTES,
    RefusedTokens,
    TrustedProxies,
    admit,
    cookie_of,
    is_loopback_host,
    peer_of,
    proxy_of,
)
from approvals_bot.web.responses import Problem

NAME = "__Host-approvals"


def scope(*headers: tuple[bytes, bytes], path: bytes = b"/", query: bytes = b"", peer: str = "192.0.2.1") -> Any:
    client = (peer, 4711) if peer else None
    return {"headers": [*headers], "raw_path": path, "query_string": query, "client": client, "scheme": "http"}


def cookies(*lines: str) -> Any:
    return scope(*((b"cookie", line.encode("latin-1")) for line in lines))


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([f"{NAME}=abc"], "abc"),
        ([f"a=1; {NAME}=abc;b=2"], "abc"),
        ([f"a=1;{NAME}=abc=="], "abc=="),
        (["a=1", f"\t{NAME}=abc "], "abc"),
        ([f"{NAME}=abc; {NAME}=abc"], "abc"),
        ([f'{NAME}="a\\"b"'], '"a\\"b"'),
        ([f"{NAME}=abc; {NAME}=other"], ""),
        ([f"{NAME}=abc", f"{NAME}=other"], ""),
        ([f"{NAME.lower()}=abc"], ""),
        ([f"x{NAME}=abc"], ""),
        ([f"{NAME} =abc"], ""),
        ([f"{NAME}"], ""),
        (["", ";;;", "="], ""),
        ([f"{NAME}=abc; x={'y' * COOKIE_BYTES}"], ""),
        ([], ""),
    ],
)
def test_only_the_exact_cookie_is_read(lines: list[str], value: str) -> None:
    assert cookie_of(cookies(*lines), NAME) == value


def test_no_cookie_costs_more_than_its_length() -> None:
    worst = [f'{NAME}="' + '\\"' * 3_900 + '"', ";" * 7_900, "=;" * 3_900, f"{NAME}=a;" * 400, "\\" * 7_900]
    started = time.process_time()
    for line in worst:
        cookie_of(cookies(line), NAME)
    assert time.process_time() - started < 0.02


HOST = (b"host", b"approve.acme.eu")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (scope(HOST), None),
        (scope(), 400),
        (scope(HOST, HOST), 400),
        (scope((b"host", b"")), 400),
        (scope(HOST, (b"content-length", b"3"), (b"transfer-encoding", b"chunked")), 400),
        (scope(HOST, (b"content-length", b"3")), None),
        (scope(HOST, (b"transfer-encoding", b"chunked")), None),
        (scope(HOST, path=b"/" + b"a" * (URL_BYTES - 1)), None),
        (scope(HOST, path=b"/", query=b"a" * URL_BYTES), 414),
        (scope(HOST, (b"x", b"y" * (HEADER_BYTES - 100))), None),
        (scope(HOST, (b"x", b"y" * HEADER_BYTES)), 431),
        (scope(HOST, *[(b"a", b"")] * 8_000), 431),
        (scope(HOST, (b"cookie", b"y" * COOKIE_BYTES)), None),
        (scope(HOST, (b"cookie", b"y" * COOKIE_BYTES), (b"cookie", b"y")), 431),
    ],
)
def test_a_request_has_one_meaning_and_bounded_length(given: Any, status: int | None) -> None:
    if status is None:
        admit(given)
        return
    with pytest.raises(Problem) as refusal:
        admit(given)
    assert (refusal.value.status, refusal.value.headers) == (status, {"Connection": "close"})


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "127.8.8.8:1", "[::1]", "[::1]:8000"],
)
def test_names_of_this_machine_are_loopback(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8000", "[::1].evil"),
        *("localhost@evil.example", "127.0.0.1:80@evil.example", "[::2]", "0.0.0.0", "10.0.0.1", "127.1", "::1"),
        *("[", "]", "[]:80", "localhost:", "localhost:a", "localhost:8000:1", "[::ffff:127.0.0.1]", "2130706433"),
        *("localhost ", "localhost.", "local host", "::1:8000"),
    ],
)
def test_no_other_name_is_loopback(host: str) -> None:
    assert not is_loopback_host(host)


async def test_open_pages_answer_only_to_this_machine(open_service: Any) -> None:
    async with open_service(open_pages=True, loopback_only=True, base_url="http://127.0.0.1:8000") as service:
        for path in ("/runs", "/api/runs", "/healthz", "/nothing"):
            answer = await service.api.get(path, headers={"Host": "evil.example"})
            assert answer.status_code == 421, path
        assert (await service.web.get("/runs", headers={"Host": "localhost:8000"})).status_code == 200
        assert (await service.api.get("/api/runs", headers={"Host": "[::1]:8000"})).status_code == 200


async def test_a_strange_host_breaks_nothing(service: Any) -> None:
    for host in ("[", "a:b:c", "é".encode("latin-1"), "x" * 3_000):
        for path in ("/inbox", "/api/runs", "/nothing"):
            assert (await service.api.get(path, headers={"Host": host})).status_code < 500, (host, path)


PROXIES = TrustedProxies(["10.0.0.0/8", "::1", "192.0.2.9"])


@pytest.mark.parametrize(
    ("peer", "reported", "seen", "proxy"),
    [
        ("192.0.2.1", ["203.0.113.5"], "192.0.2.1", ""),
        ("10.1.1.1", ["203.0.113.5"], "203.0.113.5", "10.1.1.1"),
        ("10.1.1.1", ["6.6.6.6, 203.0.113.5"], "203.0.113.5", "10.1.1.1"),
        ("10.1.1.1", ["6.6.6.6", "203.0.113.5, 10.2.2.2"], "203.0.113.5", "10.1.1.1"),
        ("10.1.1.1", [], "10.1.1.1", "10.1.1.1"),
        ("10.1.1.1", ["nonsense"], "10.1.1.1", "10.1.1.1"),
        ("10.1.1.1", ["203.0.113.5, nonsense, 10.2.2.2"], "10.2.2.2", "10.1.1.1"),
        ("10.1.1.1", ["203.0.113.5:4711"], "203.0.113.5", "10.1.1.1"),
        ("::1", ["[2001:db8::7]:4711"], "2001:db8::7", "::1"),
        ("::ffff:10.1.1.1", ["::ffff:203.0.113.5"], "203.0.113.5", "10.1.1.1"),
        ("", ["203.0.113.5"], "", ""),
    ],
)
def test_only_a_trusted_proxy_says_where_a_call_came_from(
    peer: str, reported: list[str], seen: str, proxy: str
) -> None:
    given = scope(*((b"x-forwarded-for", line.encode()) for line in reported), peer=peer)
    PROXIES.apply(given)
    assert (peer_of(given), proxy_of(given)) == (seen, proxy)


def test_only_a_trusted_proxy_says_which_scheme_was_used() -> None:
    for peer, scheme in (("10.1.1.1", "https"), ("192.0.2.1", "http")):
        given = scope((b"x-forwarded-proto", b"https"), peer=peer)
        PROXIES.apply(given)
        assert given["scheme"] == scheme


def refused(counts: RefusedTokens, peer: str) -> int:
    try:
        counts.refuse(scope(peer=peer))
    except Problem as problem:
        return problem.status if 0 < int(problem.headers["Retry-After"]) <= 60 else 0
    return 404


def test_refused_tokens_are_limited_by_peer_and_minute() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    counts = RefusedTokens(lambda: now)
    assert {refused(counts, "192.0.2.1") for _ in range(REFUSED_A_MINUTE)} == {404}
    assert refused(counts, "192.0.2.1") == 429
    assert refused(counts, "192.0.2.2") == 404
    assert {refused(counts, f"2001:db8::{n:x}") for n in range(REFUSED_A_MINUTE)} == {404}
    assert refused(counts, "2001:db8::ffff:1") == 429  # a /64 is one caller's
    assert refused(counts, "2001:db8:0:1::1") == 404
    now += timedelta(minutes=1)
    assert refused(counts, "192.0.2.1") == 404


def test_counts_of_refused_tokens_stay_bounded() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    counts = PeerCounts(lambda: now)
    for number in range(MOST_PEERS + 500):
        counts.add(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
    assert len(counts._counts) == MOST_PEERS


async def test_https_is_remembered_and_plain_http_works(open_service: Any) -> None:
    async with open_service(base_url="https://approve.acme.eu") as service:
        for path in ("/login", "/decisions/x", "/api/runs", "/healthz"):
            headers = (await service.web.get(path)).headers
            assert headers["strict-transport-security"] == "max-age=31536000"
            assert headers["referrer-policy"] == "no-referrer"


async def test_pages_on_plain_http_say_where_their_forms_come_from(open_service: Any) -> None:
    async with open_service(base_url="http://approvals.internal") as service:
        for path, policy in (("/login", "same-origin"), ("/inbox", "same-origin"), ("/decisions/x", "no-referrer")):
            headers = (await service.web.get(path)).headers
            assert "strict-transport-security" not in headers
            assert headers["referrer-policy"] == policy
        ours, foreign = {"Origin": "http://approvals.internal"}, {"Origin": "null"}
        form = {"address": "ann@acme.eu"}
        assert (await service.web.post("/login", data=form, headers=ours)).status_code == 200
        assert (await service.web.post("/login", data=form, headers=foreign)).status_code == 403


def test_the_audit_has_room_for_each_peer_and_for_all() -> None:
    now = datetime(2026, 11, 5, 9, tzinfo=UTC)
    audited = AuditedRefusals(lambda: now)
    assert sum(audited.has_room("192.0.2.1") for _ in range(100)) == AUDITED_OF_PEER
    assert audited.has_room("192.0.2.2")
    assert sum(audited.has_room(f"10.0.{n // 250}.{n % 250}") for n in range(5_000)) == AUDITED_A_MINUTE - 11
    assert audited.has_room("192.0.2.1", about="ann@acme.eu run_1")
    assert not audited.has_room("192.0.2.1", about="ann@acme.eu run_1")
    now += timedelta(minutes=1)
    assert audited.has_room("192.0.2.1")


def test_v4_peers_at_a_v6_socket_are_counted_one_by_one() -> None:
    counts = PeerCounts(lambda: datetime(2026, 11, 5, 9, tzinfo=UTC))
    counts.add("::ffff:192.0.2.1")
    assert counts.add("::ffff:192.0.2.2")[0] == 0
    assert counts.add("192.0.2.1")[0] == 1
