"""An OpenID provider for tests, which can lie: its own app under uvicorn, with keys of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "approvals", "the-secret-of-our-client"


@dataclass
class Issuer:
    """The provider. `claims` and `header` replace what it would say; None takes a claim away."""

    url: str
    now: Callable[[], float] = time.time
    person: dict[str, Any] = field(default_factory=lambda: {"email": "ann@acme.eu", "email_verified": True})
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    key: Key | None = None
    secret: bytes = b""  # of HS256, which no key here is for
    keys: dict[str, Key] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    key_reads: int = 0
    is_strict: bool = True  # takes a code once

    def __post_init__(self) -> None:
        self.keys = {
            "RS256": RSAKey.generate_key(2048, {"kid": "r", "use": "sig"}),
            "ES256": ECKey.generate_key("P-256", {"kid": "e", "use": "sig"}),
            "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "o", "use": "sig"}),
        }

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._discovery),
                Route("/authorize", self._authorize),
                Route("/openid/connect/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/api/openid.connect.token", self._token, methods=["POST"]),
                Route("/keys", self._keys),
                Route("/openid/connect/keys", self._keys),
            ]
        )

    async def _discovery(self, request: Request) -> Response:
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return JSONResponse({"issuer": self.url} | {name: f"{self.url}/{path}" for name, path in ends.items()})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        self.asked.append(asked)
        code = f"code-{len(self.asked)}"
        self.codes[code] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        is_ours = request.headers.get("authorization") == f"Basic {basic}" or form.get("client_secret") == SECRET
        asked = self.codes.get(form["code"])
        if asked is not None and self.is_strict:
            del self.codes[form["code"]]
        if (
            asked is None
            or not is_ours
            or not _is_verified(asked, form)
            or form["redirect_uri"] != asked["redirect_uri"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse({"id_token": self.id_token(asked), "token_type": "Bearer", "access_token": "x"})

    def id_token(self, asked: dict[str, str]) -> str:
        now = int(self.now())
        said = {"iss": self.url, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        said |= self.person | ({"auth_time": now} if "max_age" in asked else {}) | self.claims
        said = {name: value for name, value in said.items() if value is not None}
        header = {"alg": "RS256"} | self.header
        if header["alg"] not in self.keys:
            content = f"{jwt_part(header)}.{jwt_part(said)}"
            signature = hmac.digest(self.secret, content.encode(), "sha256") if header["alg"] == "HS256" else b""
            return f"{content}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
        key = self.key or self.keys[header["alg"]]
        header = {"kid": key.kid} | header if key.kid else header
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            return jwt.encode(header, said, key, algorithms=[header["alg"]])

    async def _keys(self, request: Request) -> Response:
        self.key_reads += 1
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys.values()]})


def jwt_part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _is_verified(asked: dict[str, str], form: dict[str, str]) -> bool:
    challenge = asked.get("code_challenge")
    if challenge is None:
        return True
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    return (
        asked["code_challenge_method"] == "S256" and base64.urlsafe_b64encode(digest).decode().rstrip("=") == challenge
    )
