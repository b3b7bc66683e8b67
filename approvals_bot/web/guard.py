"""What every request passes before anything reads it: sizes, one meaning, and the address it came from.

The limits hold for every HTTP parser, because they are checked on what reaches the app. Nothing here costs more than
one pass over the headers, so a request that is refused has cost next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from approvals_bot.service.audited import PeerCounts
from approvals_bot.web.responses import Problem

HEADER_BYTES = 32_000  # of all headers with their separators; browsers and proxies send a few thousand
URL_BYTES = 8_000  # path and query as sent; our longest link has less than 1,000
COOKIE_BYTES = 8_000  # of all cookies; ours has about 100

REFUSED_A_MINUTE = 60  # refused tokens of one peer, after which the next one is 429

CLOSE = {"Connection": "close"}

SENT = ("/decisions/", "/requests/", "/runs/")  # pages that mails and messages link to
OURS = re.compile(
    r"/decisions/[\w-]+\.[\w-]{43}(?=$|[^A-Za-z0-9/][^/]*$|<)"  # a signature has 43 characters: `_` behind it was added
    r"|/(?:requests|runs)/run_\w+(?=[;<>\"'])"
    r"|[^&]*[\w-]",
    re.ASCII,
)  # an address of those, without what has been added to it

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::[0-9]{1,5})?")

Header = tuple[bytes, bytes]


def cookie_of(scope: Scope, name: str) -> str:
    """Return the value of this one cookie; "" if it is absent, too long to be ours, or sent with two values.

    Only exact names and plain values count: nothing is unquoted or decoded, since we never set a value that needs it.
    Two values mean that another site of the domain has planted one, and nobody can say which is ours.
    """
    wanted, found, size = name.encode(), set[bytes](), 0
    for key, line in scope["headers"]:
        if key != b"cookie":
            continue
        size += len(line)
        if size > COOKIE_BYTES:
            return ""
        for pair in line.split(b";"):
            given, separator, value = pair.strip(b" \t").partition(b"=")
            if separator and given == wanted:
                found.add(value)
    return found.pop().decode("latin-1") if len(found) == 1 else ""


def peer_of(scope: Scope) -> str:
    """Return the IP address of the caller; "" if there is none, as on a Unix socket.

    Behind a trusted proxy it is the address that the proxy reports.
    """
    client = scope.get("client")
    return client[0] if client else ""


KEEPS_PEERS = "approvals_bot.keeps_peers"  # False where [audit] has peers = "none"


def audited_peer_of(scope: Scope) -> str:
    """Return the caller's address for logs and the audit; "" where the configuration keeps none."""
    return peer_of(scope) if scope.get(KEEPS_PEERS, True) else ""


def proxy_of(scope: Scope) -> str:
    """Return the address of the trusted proxy that the request came through; "" if it came directly."""
    proxy: str = scope.get("approvals_bot.proxy", "")
    return proxy


class TrustedProxies:
    """The networks whose `X-Forwarded-…` headers count: `[server] trusted_proxies`."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self.networks = [ip_network(network, strict=False) for network in networks]
        self._trusts = lru_cache(maxsize=1_000)(self._look_up)

    def __contains__(self, address: str) -> bool:
        return self._trusts(address)

    def _look_up(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self.networks if network.version == ip.version)

    def request_id(self, scope: Scope) -> str:
        """Return the ID that a trusted proxy has given the request; "" if it has none that is plain and short."""
        client = scope.get("client")
        if not client or _plain(client[0]) not in self:
            return ""
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        return given.decode() if REQUEST_ID.fullmatch(given) else ""

    def apply(self, scope: Scope) -> None:
        """Replace the peer and scheme by those that a trusted proxy reports.

        The list of addresses is read from its end, where our own proxy has written; the first one that isn't a trusted
        proxy is the caller. What callers wrote themselves comes before it and is never reached.
        """
        client = scope.get("client")
        if not client or (hop := _plain(client[0])) not in self:
            return
        scope["approvals_bot.proxy"] = hop
        reported = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        for entry in reversed(reported.split(b",")):
            address = _plain(entry.decode("latin-1").strip())
            if not address:
                break
            hop = address
            if hop not in self:
                break
        scope["client"] = (hop, 0)
        scheme = next((value for name, value in reversed(scope["headers"]) if name == b"x-forwarded-proto"), b"")
        if scheme in (b"http", b"https"):
            scope["scheme"] = scheme.decode()


@lru_cache(maxsize=1_000)  # parsing an address takes 15 µs, three times what the rest of the guard takes
def _plain(text: str) -> str:
    """Return the IP address in `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]:80` or `::ffff:1.2.3.4`; "" in anything else."""
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        ip = ip_address(bare)
    except ValueError:
        return ""
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(mapped or ip)


class RefusedTokens:
    """Counts of the forged, unknown and ended tokens that each peer has sent within the minute.

    Only refusals count, and only refusals are limited: a right link is answered whatever else came from its address.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._counts = PeerCounts(now)

    def refuse(self, scope: Scope) -> None:
        """Count a refused token. Raises Problem 429 if it is one too many."""
        count, age = self._counts.add(peer_of(scope))
        if count >= REFUSED_A_MINUTE:
            raise Problem(
                429,
                detail="Too many addresses from here led nowhere. A link that still works opens as always.",
                headers={"Retry-After": str(60 - int(age.total_seconds()))},
            )


class Guard:
    """Admits a request to the app, or refuses it before any of it is read.

    `loopback_only`: answer only to names of this machine, so that no website can make its own name lead here.
    """

    def __init__(self, app: ASGIApp, *, proxies: TrustedProxies, loopback_only: bool = False) -> None:
        self._app = app
        self._proxies = proxies
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = admit(scope)
            if self._loopback_only and not is_loopback_host(host):
                raise Problem(421, detail="Here, this service answers only to localhost, 127.0.0.1 and [::1].")
            if self._proxies.networks:
                self._proxies.apply(scope)
            path = scope["path"]
            if path.startswith(SENT) and "\0" not in path and (ours := OURS.match(path)):
                # Programs that find links in texts take a full stop, `_` or `</a` along, and gateways add parameters.
                scope["path"] = ours[0]
        await self._app(scope, receive, send)


def admit(scope: Scope) -> str:
    """Return the request's host. Raises Problem 400, 414 or 431 for what is too long or could be read in two ways."""
    # uvicorn's h11 passes a request with both lengths on; a proxy before us may have gone by the other one
    size = cookies = hosts = 0
    host, has_length, is_chunked = b"", False, False
    for name, value in scope["headers"]:
        size += len(name) + len(value) + 4
        if name == b"host":
            hosts, host = hosts + 1, value
        elif name == b"cookie":
            cookies += len(value)
        elif name == b"content-length":
            has_length = True
        elif name == b"transfer-encoding":
            is_chunked = True
    if size > HEADER_BYTES:
        raise Problem(431, detail=f"The headers may have at most {HEADER_BYTES:,} bytes.", headers=CLOSE)
    if cookies > COOKIE_BYTES:
        detail = f"The cookies have more than {COOKIE_BYTES:,} bytes. Delete this site's cookies, then try again."
        raise Problem(431, detail=detail, headers=CLOSE)
    path = scope.get("raw_path") or b"/"
    if len(path) + len(scope["query_string"]) > URL_BYTES:
        raise Problem(414, detail=f"An address may have at most {URL_BYTES:,} bytes here.", headers=CLOSE)
    if has_length and is_chunked:
        raise Problem(400, detail="A request has a Content-Length or a Transfer-Encoding, never both.", headers=CLOSE)
    if not path.startswith(b"/"):
        raise Problem(400, detail="A request names a path of this service.", headers=CLOSE)
    if hosts != 1 or not HOST.fullmatch(host):
        raise Problem(400, detail="A request names exactly one Host.", headers=CLOSE)
    return host.decode("latin-1")


LOOPBACK_NAMES = ("localhost", "[::1]")


def is_loopback_host(host: str) -> bool:
    """Check whether a Host header, with or without a port, is a name of this machine that no name server can give."""
    name, separator, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not separator:
        name = host
    elif not (port.isascii() and port.isdecimal()):
        return False
    if name.lower() in LOOPBACK_NAMES:
        return True
    try:
        ip = ip_address(name)
    except ValueError:
        return False
    return ip.version == 4 and ip.is_loopback
