"""OpenID Connect, by which an identity provider says who is at a browser: the code flow with PKCE.

`state`, `nonce` and the PKCE verifier follow from a secret that only this browser holds, so an answer that was made for
another browser is worth nothing here. What the provider has signed counts only if it is for us, for this sign-in, in
time, and signed with an algorithm that nobody can confuse with another.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import secrets
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

from approvals_bot.config.hosts import is_loopback
from approvals_bot.people import SourceUnavailable

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

ALGORITHMS = ("RS256", "ES256", "EdDSA")  # with public keys only: none is confused with a shared secret
CACHED = timedelta(minutes=10)  # what a provider says about itself, and its keys
FAILED = timedelta(seconds=10)  # before a provider that didn't say where its endpoints are is asked again
REFETCH = timedelta(seconds=30)  # before an unknown key is looked for once more
LEEWAY = 60  # seconds that the provider's clock may differ
STARTED = timedelta(minutes=10)  # how long a sign-in may take at the provider


class SignInRefused(Exception):
    """This answer signs nobody in. `because` is a word for the audit; people read one page for all of them."""

    def __init__(self, because: str) -> None:
        self.because = because
        super().__init__(because)


class Fetch(Protocol):
    """Calls a provider, and returns the body of its answer with status 200. Raises SourceUnavailable."""

    def __call__(
        self, url: str, *, form: Mapping[str, str] | None = None, basic: tuple[str, str] | None = None
    ) -> Awaitable[bytes]: ...


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a provider is called. `is_basic`: our secret goes into a header there, not into the form."""

    issuer: str
    authorization: str
    token: str
    keys: str
    is_basic: bool = False


@dataclass(frozen=True, slots=True)
class Provider:
    """An identity provider, and our client there. Without `endpoints`, its discovery document says where they are."""

    issuer: str
    client_id: str
    client_secret: str
    scope: str = "openid email"
    endpoints: Endpoints | None = None
    has_pkce: bool = True


@dataclass(frozen=True, slots=True)
class BrowserSecret:
    """The secret that a browser holds from the start of a sign-in to its end, and what is derived from it."""

    value: str

    @classmethod
    def new(cls) -> BrowserSecret:
        return cls(secrets.token_urlsafe(32))

    @property
    def digest(self) -> str:
        """What `state` is bound to; it reveals nothing of the secret."""
        return self._derived("browser")

    @property
    def nonce(self) -> str:
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        return _base64(hashlib.sha256(self.verifier.encode()).digest())

    def _derived(self, purpose: str) -> str:
        return _base64(hmac.digest(self.value.encode(), purpose.encode(), hashlib.sha256))


class OpenIdClient:
    """Our side of a provider's code flow."""

    def __init__(self, provider: Provider, *, fetch: Fetch, now: Callable[[], datetime], redirect_uri: str) -> None:
        self._provider = provider
        self._fetch = fetch
        self._now = now
        self._redirect_uri = redirect_uri
        self._endpoints: tuple[datetime, Endpoints] | None = None
        self._failed: tuple[datetime, str] | None = None
        self._asking = asyncio.Lock()  # many who come at once wait for one answer
        self._keys: tuple[datetime, KeySet] | None = None

    async def authorization_url(self, secret: BrowserSecret, state: str, *, again: bool) -> str:
        """Return where the browser goes to sign in. `again`: even if the provider remembers them."""
        query = {
            "response_type": "code",
            "client_id": self._provider.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._provider.scope,
            "state": state,
            "nonce": secret.nonce,
        }
        if self._provider.has_pkce:
            query |= {"code_challenge": secret.challenge, "code_challenge_method": "S256"}
        if again:
            query |= {"prompt": "login", "max_age": "0"}
        url = (await self._find_endpoints()).authorization
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"

    async def claims(self, code: str, secret: BrowserSecret, *, since: datetime | None) -> Mapping[str, Any]:
        """Exchange the code, and return what the provider has signed about the person.

        `since`: they have to have signed in after this time. Raises SignInRefused.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
        }
        if self._provider.has_pkce:
            form["code_verifier"] = secret.verifier
        endpoints = await self._find_endpoints()
        ours = (self._provider.client_id, self._provider.client_secret)
        if not endpoints.is_basic:
            form |= dict(zip(("client_id", "client_secret"), ours, strict=True))
        answer = await self._object(endpoints.token, form, ours if endpoints.is_basic else None)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignInRefused("no_id_token")
        claims = await self._verified(token, endpoints)
        self._check(claims, endpoints.issuer, secret, since)
        return claims

    async def _verified(self, token: str, endpoints: Endpoints) -> dict[str, Any]:
        """Return the claims of a token that one of the provider's keys has signed."""
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError, JoseError, SecurityWarning

        for is_last in (False, True):
            keys = await self._find_keys(endpoints, again=is_last)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", SecurityWarning)  # of the name EdDSA, which RFC 9864 replaces
                    return dict(jwt.decode(token, keys, algorithms=ALGORITHMS).claims)
            except InvalidKeyIdError:
                if is_last:
                    raise SignInRefused("unknown_key") from None
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise SignInRefused(_cause(error)) from None
        raise AssertionError("unreachable")

    def _check(self, claims: Mapping[str, Any], issuer: str, secret: BrowserSecret, since: datetime | None) -> None:
        """Check that the claims are the provider's, for us, for this sign-in, and in time."""
        now = self._now().timestamp()
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        party = claims.get("azp", self._provider.client_id if len(audiences) == 1 else None)
        nonce = claims.get("nonce")
        if claims.get("iss") != issuer:
            raise SignInRefused("issuer")
        if self._provider.client_id not in audiences or party != self._provider.client_id:
            raise SignInRefused("audience")
        if not _is_time(claims.get("exp")) or claims["exp"] + LEEWAY <= now:
            raise SignInRefused("expired")
        if not _is_time(claims.get("iat")) or max(claims["iat"], _number(claims.get("nbf"))) - LEEWAY > now:
            raise SignInRefused("issued_in_the_future")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), secret.nonce.encode()):
            raise SignInRefused("nonce")
        if since is not None and _number(claims.get("auth_time")) + LEEWAY < since.timestamp():
            raise SignInRefused("not_signed_in_again")

    async def _find_endpoints(self) -> Endpoints:
        if self._provider.endpoints is not None:
            return self._provider.endpoints
        async with self._asking:
            if self._endpoints is None or self._endpoints[0] + CACHED <= self._now():
                if self._failed is not None and self._now() < self._failed[0] + FAILED:
                    raise SignInRefused(self._failed[1])
                try:
                    self._endpoints = self._now(), await self._discovered()
                except SignInRefused as refused:
                    self._failed = self._now(), refused.because
                    raise
            return self._endpoints[1]

    async def _discovered(self) -> Endpoints:
        """Ask the provider where its endpoints are: anybody can make us ask, so not at each start of a sign-in."""
        issuer = self._provider.issuer
        said = await self._object(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if said.get("issuer") != issuer:
            raise SignInRefused("issuer")
        urls = [said.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        if not all(isinstance(url, str) and _is_safe(url, issuer) for url in urls):
            raise SignInRefused("endpoints")
        ways = said.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        is_basic = isinstance(ways, list) and "client_secret_basic" in ways
        return Endpoints(issuer, str(urls[0]), str(urls[1]), str(urls[2]), is_basic)

    async def _find_keys(self, endpoints: Endpoints, *, again: bool) -> KeySet:
        """Return the provider's keys. `again`: the cached ones lacked one, so they are read again, unless just read."""
        kept = CACHED if not again else REFETCH
        if self._keys is None or self._keys[0] + kept <= self._now():
            self._keys = self._now(), key_set((await self._object(endpoints.keys)).get("keys"))
        return self._keys[1]

    async def _object(
        self, url: str, form: Mapping[str, str] | None = None, basic: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            said = json.loads(await self._fetch(url, form=form, basic=basic))
        except SourceUnavailable:
            raise SignInRefused("no_answer") from None
        except (ValueError, RecursionError):
            raise SignInRefused("no_json") from None
        if not isinstance(said, dict):
            raise SignInRefused("no_json")
        return said


def key_set(keys: Any) -> KeySet:
    """Return the public keys of a JWKS that may sign. Others in it are left out: also those that can't be read."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

    kinds: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    found: list[Key] = []
    for each in keys if isinstance(keys, Sequence) else ():
        if not isinstance(each, dict) or each.get("kty") not in kinds or each.get("use", "sig") != "sig":
            continue
        try:
            found.append(kinds[each["kty"]].import_key(each))
        except (JoseError, ValueError, KeyError, TypeError):
            continue
    if not found:
        raise SignInRefused("no_keys")
    return KeySet(found)


def _is_safe(url: str, issuer: str) -> bool:
    """Return whether a provider may name this URL: https, or this machine if the provider itself is on it."""
    parts = urlsplit(url)
    is_local = urlsplit(issuer).scheme == "http" and is_loopback(parts.hostname or "")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_local))


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> float:
    return float(value) if _is_time(value) else 0.0


def _cause(error: Exception) -> str:
    from joserfc.errors import BadSignatureError, UnsupportedAlgorithmError

    match error:
        case BadSignatureError():
            return "signature"
        case UnsupportedAlgorithmError():
            return "algorithm"
        case _:
            return "malformed"


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")
