"""Calls to other services: only to configured targets, and only to permitted addresses.

A target's name is resolved, every resulting address is checked, and the address of each socket is checked once more
before it connects. So no name server, and no other spelling of an address, can point a call at this machine or its
neighbours. Redirects aren't followed, and proxies from the environment aren't used. Private addresses are refused
unless `[server] allow_private` lists them; those and `no_proxy` are called directly, all else through `[server] proxy`.
The proxy looks up the names that it gets, so nothing here can check their addresses.

aiohttp is imported by the functions that need it: it takes 0.1 s of CPU, and a service without targets never calls.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import os
import socket
import ssl
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlsplit

from pydantic import JsonValue

from approvals_bot.approvals.port import Called, CallResult, Refused, TryAgain
from approvals_bot.config.proxy import Proxy, ascii_host
from approvals_bot.durable.core.tracing import TRACEPARENT, span, traceparent
from approvals_bot.people import SourceUnavailable

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

CALL_LIMIT = 10.0  # seconds for a whole call; a target that needs longer should answer 202 and continue on its own
ANSWER_LIMIT = 64_000  # bytes read of a response; the rest doesn't matter
SOURCE_LIMIT = 1_000_000  # bytes of the response of a source of people

_PUBLIC_V6 = ipaddress.ip_network("2000::/3")
_REFUSED = [
    ipaddress.ip_network(text)
    for text in (
        # `ipaddress.is_global` calls some of these global, so this is our own list: RFC 6890 and later additions
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
]

_found: ContextVar[set[tuple[str, int]]] = ContextVar("found")
"""The private addresses that an allowed name has, as found in this call: they count for no other call."""

log = logging.getLogger(__name__)


class AddressRefused(OSError):
    """This address may not be called: it is private, and `[server] allow_private` doesn't list it."""


def is_public(address: str) -> bool:
    """Check whether this is an address on the public internet. Anything but a plain address isn't."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _PUBLIC_V6:
        return False
    return not any(ip in network for network in _REFUSED if network.version == ip.version)


class Allowed:
    """The private places that may be called: hosts with their ports, names compared as name servers know them."""

    def __init__(self, places: Iterable[str] = ()) -> None:
        self._places = {_place(text) for text in places}

    def __contains__(self, place: tuple[str, int]) -> bool:
        host, port = place
        return (ascii_host(host), port) in self._places

    def plus(self, host: str, port: int) -> Allowed:
        """Return these places and one more."""
        more = Allowed()
        more._places = self._places | {(ascii_host(host), port)}
        return more


def _place(text: str) -> tuple[str, int]:
    url = urlsplit(f"//{text}")
    return ascii_host(url.hostname or ""), url.port or 0


def checked_resolver(allowed: Allowed) -> AbstractResolver:
    """Make a resolver that raises AddressRefused if a name has an address that may not be called."""
    from aiohttp.resolver import ThreadedResolver

    class CheckedResolver(ThreadedResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await super().resolve(host, port, family)
            for result in found:
                check_address(result["host"], port, allowed, named=host)
                if (host, port) in allowed:
                    _found.get().add((result["host"], port))
            return found

    return CheckedResolver()


def check_address(address: str, port: int, allowed: Allowed, *, named: str = "") -> None:
    """Raise AddressRefused unless the address is public, or `allowed` lists it or its name with this port."""
    bare = address.partition("%")[0]
    if not is_public(bare) and (bare, port) not in allowed and (not named or (named, port) not in allowed):
        raise AddressRefused(f"port {port} of a private address may not be called; [server] allow_private can allow it")


@dataclass(frozen=True, slots=True)
class OutgoingTarget:
    """A service that may be called."""

    url: str
    secret: str | None = None


class OutgoingTargets:
    """The targets in `[http.*]`: signed POSTs for follow-ups, and GETs for sources of people."""

    def __init__(
        self,
        session: aiohttp.ClientSession | None,  # None without targets
        targets: Mapping[str, OutgoingTarget],
        allowed: Allowed,
        now: Callable[[], datetime],
        proxy: Proxy | None = None,
    ) -> None:
        self._session = session
        self._targets = targets
        self._allowed = allowed
        self._now = now
        self._proxy = proxy
        self.watch: Callable[[str, CallResult], None] = lambda target, result: None
        """Called with the target of each POST and what became of it, for the metrics."""

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        """POST this as JSON, signed with the target's secret. Returns what became of the call; never raises for it."""
        with span(f"call {target}", target=target):
            result = await self._post(target, event_id, body)
        self.watch(target, result)
        return result

    async def _post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        found = self._targets.get(target)
        if found is None or found.secret is None:
            return Refused(f"there is no [http.{target}] with a secret in config.toml")
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"content-type": "application/json"} | signature_headers(found.secret, event_id, self._now(), content)
        if parent := traceparent():
            headers[TRACEPARENT] = parent
        try:
            async with self._call("POST", found.url, data=content, headers=headers) as answer:
                await answer.content.read(ANSWER_LIMIT)
                return _meaning(answer)
        except AddressRefused as refused:
            return Refused(str(refused))
        except _failures() as error:
            return _private(error) or TryAgain(f"no answer ({_reason(error)})")

    async def read(self, target: str) -> Any:
        """GET this target's JSON. Raises SourceUnavailable if it returns none."""
        try:
            return json.loads(await self.fetch(target, SOURCE_LIMIT))
        except (ValueError, RecursionError):
            raise SourceUnavailable(target, "its answer is not JSON") from None

    async def fetch(self, target: str, limit: int) -> bytes:
        """GET what this target answers, at most `limit` bytes. Raises SourceUnavailable for no answer with 200."""
        found = self._targets.get(target)
        if found is None:
            raise SourceUnavailable(target, f"there is no [http.{target}] in config.toml")
        headers = {"accept": "application/json"}
        if found.secret is not None:
            headers |= signature_headers(found.secret, f"read-{target}", self._now(), b"")
        try:
            async with self._call("GET", found.url, headers=headers) as answer:
                content = await _whole(answer, limit)
                if answer.status != 200:
                    raise SourceUnavailable(target, f"it answered {answer.status}")
                return content
        except _failures() as error:
            raise SourceUnavailable(target, f"no answer ({_reason(error)})") from None

    @asynccontextmanager
    async def _call(self, method: str, url: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None
        _found.set(set())
        proxy = _proxy_for(url, self._allowed, self._proxy)
        async with self._session.request(method, url, allow_redirects=False, proxy=proxy, **options) as answer:
            yield answer


@dataclass(frozen=True, slots=True)
class TargetSource:
    """A source of people behind an HTTP target."""

    name: str
    targets: OutgoingTargets

    async def read(self) -> Any:
        return await self.targets.read(self.name)

    async def fetch(self, limit: int) -> bytes:
        return await self.targets.fetch(self.name, limit)

    def state(self) -> None:
        """Nobody can see from here whether it has changed."""


@asynccontextmanager
async def outgoing_targets(
    *,
    targets: Mapping[str, OutgoingTarget],
    allow_private: Iterable[str],
    now: Callable[[], datetime],
    proxy: Proxy | None = None,
) -> AsyncIterator[OutgoingTargets]:
    """Open the targets with a shared HTTP session, which is closed at the end.

    `proxy`: for all calls but those to `allow_private`.
    """
    if not targets:
        yield OutgoingTargets(None, targets, Allowed(), now)
        return
    import aiohttp

    allowed = Allowed(allow_private)
    connector = checked_connector(allowed, proxy)
    limit = aiohttp.ClientTimeout(total=CALL_LIMIT)
    async with aiohttp.ClientSession(connector=connector, timeout=limit, trust_env=False) as session:
        yield OutgoingTargets(session, targets, allowed, now, proxy)


def checked_connector(allowed: Allowed, proxy: Proxy | None = None) -> aiohttp.TCPConnector:
    """Make a connector that checks each name's addresses, and once more the address that it connects to."""
    import aiohttp

    if proxy is not None:
        allowed = allowed.plus(*_host_and_port(proxy.url))

    def checked_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if (address[0], address[1]) not in _found.get():
            check_address(str(address[0]), int(address[1]), allowed)
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(resolver=checked_resolver(allowed), use_dns_cache=False, socket_factory=checked_socket)


def _proxy_for(url: str, allowed: Allowed, proxy: Proxy | None) -> str | None:
    """Return the URL of the proxy that a call goes through; None for a direct one, whose addresses are then checked.

    Raises AddressRefused for a private address, and for names of this machine, which would be the proxy's own: only
    the addresses of other names are the proxy's affair.
    """
    host, port = _host_and_port(url)
    if proxy is None or (host, port) in allowed or not proxy.takes(host):
        return None
    if _is_address(host) or host == "localhost" or host.endswith(".localhost"):
        check_address(host, port, allowed)
    return proxy.url


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return ascii_host(parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.replace(".", "").isdecimal()  # other spellings, such as 2130706433
    return True


def address_of(url: str) -> str:
    """Return the address that this URL is at, as `[server] allow_private` lists addresses: `id.acme.eu:443`."""
    host, port = _host_and_port(url)
    return f"{f'[{host}]' if ':' in host else host}:{port}"


async def fetch_text(
    url: str,
    *,
    allowed: Iterable[str],
    proxy: Proxy | None = None,
    form: Mapping[str, str] | None = None,
    basic: tuple[str, str] | None = None,
) -> bytes:
    """GET a URL of an identity provider, or POST a form to it. Returns the body of an answer with status 200.

    Only public addresses are called, and those that `allowed` lists. `basic`: our name and secret there. Raises
    SourceUnavailable. People seldom sign in, so each call has a connection of its own.
    """
    import aiohttp

    private = Allowed(allowed)
    connector = checked_connector(private, proxy)
    options: dict[str, Any] = {"headers": {"accept": "application/json"}, "allow_redirects": False}
    if basic is not None:
        ours = ":".join(quote_plus(text) for text in basic)  # RFC 6749, 2.3.1
        options["headers"]["authorization"] = f"Basic {b64encode(ours.encode()).decode()}"
    if form is not None:
        options["data"] = dict(form)
    try:
        options["proxy"] = _proxy_for(url, private, proxy)
        _found.set(set())
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=CALL_LIMIT), trust_env=False
            ) as session,
            session.request("GET" if form is None else "POST", url, **options) as answer,
        ):
            if answer.status != 200:
                raise SourceUnavailable("the identity provider", f"it answered {answer.status}")
            return await _whole(answer, SOURCE_LIMIT)
    except _failures() as error:
        raise SourceUnavailable("the identity provider", f"no answer ({_reason(error)})") from None


async def _whole(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the whole body, or its first `limit` bytes. One read would return only what has arrived by then."""
    content = b""
    while len(content) < limit and (part := await answer.content.read(limit - len(content))):
        content += part
    return content


def _failures() -> tuple[type[Exception], ...]:
    """Return what a call raises if no answer comes."""
    import aiohttp

    return (aiohttp.ClientError, OSError, TimeoutError)


def _reason(error: BaseException) -> str:
    """Return why there was no answer: of TLS the library's word, else the system's, such as `Connection refused`."""
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate isn't trusted: {inner.verify_message.rstrip('.')}"
    if isinstance(inner, ssl.SSLError):  # its errno is none of the system's
        return f"no TLS: {inner.reason}"
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else type(error).__name__


def _meaning(answer: aiohttp.ClientResponse) -> CallResult:
    if 200 <= answer.status < 300:
        return Called(answer.status)
    if answer.status in (408, 425, 429) or answer.status >= 500:
        said = answer.headers.get("Retry-After", "")
        after = timedelta(seconds=min(int(said), 3_600)) if said.isdecimal() else None
        return TryAgain(f"it answered {answer.status}", after)
    return Refused(f"it answered {answer.status}")


def _private(error: BaseException) -> Refused | None:
    """Find our own refusal inside an aiohttp error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AddressRefused):
            return Refused(str(seen))
        seen = seen.__cause__ or getattr(seen, "os_error", None)
        if seen is error:
            break
    return None


def signature_headers(secret: str, event_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Sign a body by the Standard Webhooks specification, which has receivers in every language.

    Returns `webhook-id` (the event's, the same on every attempt), `webhook-timestamp` (seconds since 1970) and
    `webhook-signature` (`v1,` and the Base64 of the HMAC-SHA256 of `id.timestamp.body`). `secret` may have the
    specification's own format, `whsec_` and Base64.
    """
    stamp = str(int(at.timestamp()))
    signed = hmac.digest(_key(secret), f"{event_id}.{stamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{b64encode(signed).decode()}",
    }


def _key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        try:
            return b64decode(secret.removeprefix("whsec_"), validate=True)
        except Base64Error:
            pass  # a secret that merely begins like this
    return secret.encode()
