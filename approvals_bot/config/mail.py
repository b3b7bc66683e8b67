"""`[email]` of config.toml: the relay that sends our mail, and the way back for bounces."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parseaddr
from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from approvals_bot.approvals.base import Frozen, Int, Text, refuse
from approvals_bot.approvals.durations import Duration
from approvals_bot.config.hosts import is_loopback
from approvals_bot.config.proxy import Proxy, ascii_host
from approvals_bot.config.secret import Secret
from approvals_bot.people.addresses import AddressError, canonical_in_file, is_mail

_RATE = re.compile(r"([1-9][0-9]{0,5})/([smhd])")
_PER = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit: at most `count` in any span of `per`."""

    count: int
    per: timedelta


class OAuth(Frozen):
    """How we get access tokens, to log in by XOAUTH2: a token, a command that prints one, or a token server."""

    token: Secret | None = None
    token_command: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None  # prints the bare token
    token_url: TokenUrl | None = None  # client credentials (RFC 6749, 4.4)
    client_id: Text | None = None
    client_secret: Secret | None = None
    scope: Text | None = None
    _proxy: Proxy | None = PrivateAttr(default=None)

    def use_proxy(self, proxy: Proxy | None) -> None:
        """Take the proxy for calls to the token server."""
        self._proxy = proxy

    @property
    def proxy_url(self) -> str | None:
        """The proxy through which to call the token server; None: directly."""
        host = ascii_host(urlsplit(str(self.token_url)).hostname or "")
        return self._proxy.url if self._proxy and self._proxy.takes(host) and not is_loopback(host) else None

    @model_validator(mode="after")
    def _has_one_way(self) -> OAuth:
        ways = [name for name in ("token", "token_command", "token_url") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise refuse("set one of token, token_command and token_url", at=ways[1] if ways else "token")
        ours = [name for name in ("client_id", "client_secret", "scope") if getattr(self, name) is not None]
        if self.token_url is None and ours:
            raise refuse("belongs to token_url", at=ours[0])
        if self.token_url is not None and (self.client_id is None or self.client_secret is None):
            missing = "client_id" if self.client_id is None else "client_secret"
            raise refuse("token_url needs client_id and client_secret", at=missing)
        return self


class MailAccount(Frozen):
    """A mail server and our account on it."""

    host: Text
    port: Annotated[Int, Field(ge=1, le=65_535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: Text | None = None
    password: Secret | None = None
    oauth: OAuth | None = None  # instead of a password

    @model_validator(mode="after")
    def _has_one_login(self) -> MailAccount:
        secrets = [name for name in ("password", "oauth") if getattr(self, name) is not None]
        if len(secrets) == 2:
            raise refuse("set password or [oauth], not both", at="oauth")
        if (self.username is None) != (not secrets):
            missing = "password" if self.username is not None else "username"
            raise refuse("set both username and password (or, instead of it, oauth)", at=missing)
        return self


class Email(MailAccount):
    """The relay that sends our mail, and how fast."""

    sender: Sender
    rate: RateText | None = None  # what the relay accepts; each replica counts separately
    digest: Duration | None = None  # beyond a few requests in this time, a person gets one mail at its end
    bounces: Bounces | None = None
    replies: MailReplies | None = None

    @property
    def oauths(self) -> list[OAuth]:
        """How tokens are got, of the relay's account and of the mailboxes that are read."""
        boxes = [way.imap for way in (self.bounces, self.replies) if way is not None]
        return [account.oauth for account in (self, *boxes) if account is not None and account.oauth is not None]

    @model_validator(mode="after")
    def _is_private(self) -> Email:
        if self.security == "none" and not is_loopback(self.host):
            raise refuse(
                f'security = "none" is for a relay on this machine, and {self.host} isn\'t', "starttls", at="security"
            )
        return self


class Imap(MailAccount):
    """A mailbox for nothing but bounces, read by IMAP."""

    port: Annotated[Int, Field(ge=1, le=65_535)] = 993
    security: Literal["starttls", "tls", "none"] = "tls"
    username: Text
    folder: Folder = "INBOX"
    every: Duration = timedelta(minutes=1)

    @model_validator(mode="after")
    def _is_private(self) -> Imap:
        if self.security == "none" and not is_loopback(self.host):
            what = f'security = "none" is for a server on this machine, and {self.host} isn\'t'
            raise refuse(what, "tls", at="security")
        if self.every < timedelta(seconds=10):
            raise refuse("must be at least 10 seconds", at="every")
        return self


class MailIn(Frozen):
    """Where mail to us goes and how we receive it: our own LMTP or SMTP server, a mailbox, or both.

    Only your own relay should be able to reach that server.
    """

    address: MailAddress
    listen: Listen | None = None
    protocol: Literal["lmtp", "smtp"] = "lmtp"
    imap: Imap | None = None

    @property
    def place(self) -> tuple[str, int] | None:
        """The host and port to listen on; None without a server."""
        host, _, port = (self.listen or "").rpartition(":")
        return (host.strip("[]"), int(port)) if port else None

    @model_validator(mode="after")
    def _has_a_way(self) -> MailIn:
        if self.listen is not None and find_spec("aiosmtpd") is None:
            raise refuse("needs one more package: pip install 'approvals-bot[listen]'", at="listen")
        if self.listen is None and self.imap is None:
            raise refuse("set listen, where your relay delivers this mail, or a mailbox: imap", at="listen")
        return self

    @model_validator(mode="after")
    def _has_room(self) -> MailIn:
        name = self.address.rpartition("@")[0]
        if len(name) > 10 or "+" in name or not self.address.isascii():
            raise refuse('must leave room for an id: at most 10 letters before the "@", and no "+"', at="address")
        return self


class Bounces(MailIn):
    """Where bounces go."""


class MailReplies(MailIn):
    """Where replies go, and the servers whose word counts on whether a mail is from the person in From."""

    trusted_authserv: Annotated[tuple[AuthservId, ...], Field(min_length=1)]


def mail_address(value: str) -> str:
    """Check a mail address. It stays as it is written, since mail goes there; people are compared by identity."""
    try:
        canonical_in_file(value)
    except AddressError as error:
        raise refuse(str(error)) from None
    return value


def _sender(value: str) -> str:
    name, address = parseaddr(value)
    if not value.isprintable() or not is_mail(address) or (name and "<" not in value):
        raise refuse('write a sender like "Approvals <approvals@acme.eu>"')
    return value


def _folder(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]{1,200}", value) or any(sign in value for sign in '"\\*%'):
        raise refuse("write the folder's name in ASCII, as the server lists it")
    return value


def _token_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme == "https" and parts.hostname:
        return value
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return value
    raise refuse("write the token server's URL: https://…")


def _authserv_id(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", value):
        raise refuse('write the name with which that server begins its Authentication-Results, like "mx.acme.eu"')
    return value.lower()


def _listen(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise refuse('write a host and port like "127.0.0.1:2525"')
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise refuse('write an IP address of this machine, like "127.0.0.1:2525"') from None
    return value


def _rate(value: object) -> object:
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise refuse('write a rate like "14/s", "100/m", "500/h" or "2000/d"')
    return Rate(int(found[1]), _PER[found[2]])


def _rate_text(rate: Rate) -> str:
    return f"{rate.count}/{next(unit for unit, span in _PER.items() if span == rate.per)}"


Folder = Annotated[str, AfterValidator(_folder)]
AuthservId = Annotated[str, AfterValidator(_authserv_id)]
Listen = Annotated[str, AfterValidator(_listen)]
MailAddress = Annotated[str, AfterValidator(mail_address)]
Sender = Annotated[str, AfterValidator(_sender)]
TokenUrl = Annotated[str, AfterValidator(_token_url)]
RateText = Annotated[
    Rate,
    BeforeValidator(_rate),
    PlainSerializer(_rate_text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["14/s", "500/h"]}),
]
