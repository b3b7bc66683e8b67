"""Proxies that outgoing calls go through, and the hosts that are called directly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo, WithJsonSchema

from approvals_bot.approvals.base import refuse
from approvals_bot.config.secret import look_up

_HOST = re.compile(r"\.?[^\s./:@*,;]+(\.[^\s./:@*,;]+)*")


def _proxy_url(value: object, info: ValidationInfo) -> SecretStr:
    is_named = isinstance(value, str) and value.startswith(("env:", "file:"))
    given = look_up(value, info).get_secret_value() if is_named or isinstance(value, SecretStr) else value
    try:
        url = urlsplit(given) if isinstance(given, str) and given.isprintable() and " " not in given else None
        well_formed = url is not None and url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        url, well_formed = None, False
    if not well_formed or url is None or url.path.strip("/") or url.query or url.fragment:
        raise refuse('write a proxy like "http://proxy.acme.eu:3128", or "env:NAME" for one with a password')
    if url.password is not None and not is_named and not isinstance(value, SecretStr):
        raise refuse('passwords don\'t belong in this file; write the proxy\'s URL as "env:NAME" or "file:path"')
    return SecretStr(str(given))


def _direct_host(value: str) -> str:
    if _HOST.fullmatch(value) or _is_address(value.strip("[]")):
        return value
    bare = value.strip().partition("://")[2] or value.strip()
    meant = re.sub(r"^\*(?=\.)|:\d+$|\.$", "", bare.partition("/")[0])
    suggestion = meant if _HOST.fullmatch(meant) and "/" not in bare.rstrip("/") else ""
    raise refuse('write a host like "erp.acme.eu", or ".acme.eu" for all below it', suggestion)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


ProxyUrl = Annotated[SecretStr, BeforeValidator(_proxy_url), WithJsonSchema({"type": "string"})]
"""An HTTP proxy's URL; secret, because it may contain a password."""
DirectHost = Annotated[str, AfterValidator(_direct_host)]
"""A host that is called without the proxy. One that begins with a dot means every host below it."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, and the hosts that are called without it: `erp.acme.eu`, or `.acme.eu` for all below it."""

    url: str
    direct: frozenset[str] = frozenset()

    @classmethod
    def of(cls, url: str | None, direct: Iterable[str] = ()) -> Proxy | None:
        """Return the proxy with this URL; None without one."""
        if url is None:
            return None
        return cls(url, frozenset("." * host.startswith(".") + ascii_host(host.removeprefix(".")) for host in direct))

    def takes(self, host: str) -> bool:
        """Return whether calls to this host go through the proxy."""
        labels = host.split(".")
        above = {f".{'.'.join(labels[at:])}" for at in range(1, len(labels))}
        return self.direct.isdisjoint({host, *above})


def ascii_host(host: str) -> str:
    """Return a host as it is looked up: IDNA's form of a name, in small letters and without the dot of the root."""
    from yarl import URL

    bare = host.strip("[]").partition("%")[0].rstrip(".")
    try:
        return URL.build(scheme="http", host=bare).raw_host or bare
    except ValueError:
        return bare.lower()
