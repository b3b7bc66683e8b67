"""`[login]` and `[roles]`: how people sign in to the pages, and what they may see and do there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from approvals_bot.approvals.base import Frozen, Text, refuse
from approvals_bot.approvals.durations import Duration
from approvals_bot.config.hosts import is_loopback
from approvals_bot.config.mail import mail_address
from approvals_bot.config.secret import Secret

LONGEST_LIFETIME = timedelta(days=90)

Role = Literal["viewer", "operator", "auditor"]
Method = Literal["oidc", "slack", "code", "proxy"]


class LoginTable(Frozen):
    """How people sign in, in the order that the page shows.

    `idle`: how long a session lasts without a request; `lifetime`: how long it lasts at all.
    """

    methods: tuple[Method, ...] | None = None  # None: code with [email], else slack
    idle: Duration = timedelta(hours=12)
    lifetime: Lifetime = timedelta(days=7)
    oidc: OidcTable | None = None
    slack: SlackLoginTable | None = None
    proxy: ProxyTable | None = None

    def methods_of(self, *, by_mail: bool) -> Sequence[Method]:
        """Return the methods that the page shows. `by_mail`: whether mails can be sent."""
        if self.methods is not None:
            return self.methods
        return ("code",) if by_mail else ("slack",) if self.slack is not None else ()

    @model_validator(mode="after")
    def _libraries_are_installed(self) -> LoginTable:
        if (self.oidc or self.slack) and find_spec("joserfc") is None:
            raise refuse("needs joserfc: pip install 'approvals-bot[oidc]'", at="oidc" if self.oidc else "slack")
        return self

    @model_validator(mode="after")
    def _methods_are_set_up(self) -> LoginTable:
        for at, method in enumerate(self.methods or ()):
            if method in (self.methods or ())[:at]:
                raise refuse("is listed twice", at=("methods", at))
            if method != "code" and getattr(self, method) is None:
                raise refuse(f"there is no [login.{method}]", at=("methods", at))
        return self


class OidcTable(Frozen):
    """An OpenID provider, by which people sign in."""

    issuer: Issuer
    client_id: Text
    client_secret: Secret


class SlackLoginTable(Frozen):
    """The Slack app's own client, for Sign in with Slack."""

    client_id: Text
    client_secret: Secret


class ProxyTable(Frozen):
    """A proxy in front that has signed people in, and says so in a header."""

    header: HeaderName
    trusted: Annotated[tuple[Network, ...], Field(min_length=1)]


class RolesTable(Frozen):
    """The people with each role: addresses and @groups."""

    viewer: tuple[Member, ...] = ()
    operator: tuple[Member, ...] = ()
    auditor: tuple[Member, ...] = ()

    @property
    def entries(self) -> Mapping[Role, Sequence[str]]:
        """The addresses and @groups of each role."""
        return {"viewer": self.viewer, "operator": self.operator, "auditor": self.auditor}


def _lifetime(value: timedelta) -> timedelta:
    if value > LONGEST_LIFETIME:
        raise refuse("a session lasts 90 days at most", "90d")
    return value


def _issuer(value: str) -> str:
    try:
        url = urlsplit(value)
        fine = bool(url.hostname) and url.port != 0 and not (url.query or url.fragment or url.username or "?" in value)
    except ValueError:
        fine = False
    if not fine or not value.isprintable() or " " in value:
        raise refuse('write the issuer as its provider does, like "https://id.acme.eu"')
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname or "")):
        raise refuse("an issuer has https; only one on this machine may have http")
    return value


def _network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise refuse('write a network like "10.0.0.0/8", or one address') from None
    return value


def _member(value: str) -> str:
    return value if value.startswith("@") else mail_address(value)


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")]
Issuer = Annotated[str, AfterValidator(_issuer)]
Lifetime = Annotated[Duration, AfterValidator(_lifetime)]
Member = Annotated[str, AfterValidator(_member)]
Network = Annotated[str, AfterValidator(_network)]
