"""Signing in by another service: an OpenID provider, Slack, or a proxy in front.

`GET /login/oidc` and `GET /login/slack` start, and take the answer. Whatever goes wrong, people read one page, and the
audit has the cause.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.port import WithSignIn
from approvals_bot.config.login import LoginTable
from approvals_bot.errors import InvalidTokenError
from approvals_bot.people import AddressError, SourceUnavailable
from approvals_bot.service.attempts import Attempts, change_counter
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.guard import audited_peer_of, cookie_of, peer_of
from approvals_bot.web.login import own_path
from approvals_bot.web.openid import (
    STARTED,
    BrowserSecret,
    Endpoints,
    Fetch,
    OpenIdClient,
    Provider,
    SignInRefused,
)

STATE = "login-state.v1"
COOKIE, SECURE_COOKIE = "approvals-login", "__Host-approvals-login"
SLACK_TEAM, SLACK_USER = "https://slack.com/team_id", "https://slack.com/user_id"

ByProvider = Literal["oidc", "slack"]

_SECRET = re.compile(r"[\w-]{43}", re.ASCII)


async def fetch_nothing(url: str, *, form: object = None, basic: object = None) -> bytes:
    raise SourceUnavailable("the identity provider", "calls aren't set up")


@dataclass(frozen=True, slots=True)
class SignInSetup:
    """How people sign in. `slack` says who a Slack user is; `slack_api` is where Slack is; `fetch` calls providers."""

    table: LoginTable = field(default_factory=LoginTable)
    slack: WithSignIn | None = None
    slack_api: str = ""
    fetch: Fetch = fetch_nothing


@dataclass(frozen=True, slots=True)
class StartedSignIn:
    """A sign-in that this browser has begun. `back`: where it leads to; `again`: it has to be a new one."""

    secret: BrowserSecret
    back: str
    at: datetime
    again: bool


class SignIn:
    """`/login/oidc`, `/login/slack`."""

    def __init__(self, desk: WebDesk, setup: SignInSetup) -> None:
        self._engine, self._tokens, self._people = desk.engine, desk.tokens, desk.people
        self._login, self._root = desk.login, desk.root
        self._clients = clients_of(setup, now=desk.now, base_url=desk.base_url)
        self._slack = setup.slack
        self._is_secure = desk.base_url.startswith("https:")
        self._cookie = SECURE_COOKIE if self._is_secure else COOKIE
        self._attempts = Attempts(desk.engine)

    async def oidc(self, request: HttpRequest) -> Response:
        return await self._respond(request, "oidc")

    async def slack(self, request: HttpRequest) -> Response:
        return await self._respond(request, "slack")

    async def _respond(self, request: HttpRequest, method: ByProvider) -> Response:
        client = self._clients.get(method)
        if client is None:
            return self._login.refuse_method(request)
        is_answer = any(name in request.query_params for name in ("state", "code", "error"))
        try:
            return await (self._finish(request, method, client) if is_answer else self._start(request, method, client))
        except SignInRefused as refused:
            answer = await self._login.refuse(method, refused.because, audited_peer_of(request.scope))
            if is_answer:
                self._forget(answer)
            return answer

    async def _start(self, request: HttpRequest, method: ByProvider, client: OpenIdClient) -> Response:
        """Send the browser to the provider, and give it a secret that the answer is bound to."""
        secret, back = BrowserSecret.new(), own_path(request.query_params.get("next", ""))
        again = "again" in request.query_params
        bound = {"h": secret.digest[:22], "m": method, "t": int(self._engine.now().timestamp()), "a": again}
        url = await client.authorization_url(secret, self._tokens.sign(STATE, bound), again=again)
        answer = RedirectResponse(url, 303)
        kept = urlsafe_b64encode(back.encode()).decode().rstrip("=")
        self._set(answer, f"{secret.value}.{kept}", STARTED)
        return answer

    async def _finish(self, request: HttpRequest, method: ByProvider, client: OpenIdClient) -> Response:
        """Take the provider's answer: 303 to the page that was asked for. Raises SignInRefused."""
        started = self._started(request, method)
        if not await self._attempts.take_of_peer("login", peer_of(request.scope)):
            raise SignInRefused("too_many_attempts")
        name = f"login {hashlib.sha256(started.secret.digest.encode()).hexdigest()[:32]}"
        until = self._engine.now() + 2 * STARTED
        if not await change_counter(self._engine, name, until, lambda state: None if state else {"used": True}):
            raise SignInRefused("replayed")
        code = request.query_params.get("code", "")
        if "error" in request.query_params or not code:
            raise SignInRefused("refused_by_provider")
        proved = started.again and method == "oidc"  # Slack doesn't say when somebody has signed in there
        since = started.at if proved else None
        claims = await client.claims(code, started.secret, since=since)
        person = await (self._of_slack(claims) if method == "slack" else self._of_claims(claims))
        await self._attempts.give_back_of_peer("login", peer_of(request.scope))
        answer = await self._login.sign_in(request, person, method, started.back, proved=proved)
        self._forget(answer)
        return answer

    def _started(self, request: HttpRequest, method: ByProvider) -> StartedSignIn:
        """Return the sign-in that this answer is for: begun in this browser, by this method, not long ago."""
        value, _, kept = cookie_of(request.scope, self._cookie).partition(".")
        secret = BrowserSecret(value)
        try:
            state = self._tokens.read(STATE, request.query_params.get("state", ""))
            back = urlsafe_b64decode(kept + "=" * (-len(kept) % 4)).decode()
        except (InvalidTokenError, ValueError):
            raise SignInRefused("state") from None
        at = datetime.fromtimestamp(float(state["t"]), UTC)
        if not _SECRET.fullmatch(value) or state["h"] != secret.digest[:22] or state["m"] != method:
            raise SignInRefused("state")
        if self._engine.now() - at > STARTED:
            raise SignInRefused("too_late")
        return StartedSignIn(secret, own_path(back), at, bool(state["a"]))

    async def _of_claims(self, claims: Mapping[str, Any]) -> str:
        """Return the person whose address the provider has verified."""
        if claims.get("email_verified") is not True:
            raise SignInRefused("unverified_address")
        try:
            return self._people.canonical(str(claims.get("email", "")))
        except AddressError:
            raise SignInRefused("no_address") from None

    async def _of_slack(self, claims: Mapping[str, Any]) -> str:
        """Return the person of our own workspace whom Slack means. Guests and other workspaces' people are refused."""
        user, team = claims.get(SLACK_USER), claims.get(SLACK_TEAM)
        if self._slack is None or not isinstance(user, str) or not isinstance(team, str):
            raise SignInRefused("no_slack_user")
        person = await self._slack.person_of(user, team)
        if person is None:
            raise SignInRefused("not_our_workspace")
        return person

    def _forget(self, answer: Response) -> None:
        self._set(answer, "", timedelta())

    def _set(self, answer: Response, value: str, time: timedelta) -> None:
        answer.set_cookie(
            self._cookie,
            value,
            max_age=int(time.total_seconds()),
            path="/",
            secure=self._is_secure,
            httponly=True,
            samesite="lax",  # the provider leads the browser back here
        )


def clients_of(setup: SignInSetup, *, now: Callable[[], datetime], base_url: str) -> Mapping[ByProvider, OpenIdClient]:
    """Return our client at each provider that people may sign in by."""
    login = setup.table
    found: dict[ByProvider, OpenIdClient] = {}
    methods = login.methods_of(by_mail=False)
    if "oidc" in methods and login.oidc is not None:
        secret = login.oidc.client_secret.get_secret_value()
        provider = Provider(login.oidc.issuer, login.oidc.client_id, secret)
        found["oidc"] = OpenIdClient(provider, fetch=setup.fetch, now=now, redirect_uri=f"{base_url}/login/oidc")
    if "slack" in methods and login.slack is not None and setup.slack_api:
        secret = login.slack.client_secret.get_secret_value()
        provider = slack_provider(setup.slack_api, login.slack.client_id, secret)
        found["slack"] = OpenIdClient(provider, fetch=setup.fetch, now=now, redirect_uri=f"{base_url}/login/slack")
    return found


def slack_provider(api_url: str, client_id: str, client_secret: str) -> Provider:
    """Return Slack as a provider. All addresses follow from that of its API."""
    parts = urlsplit(api_url)
    site = f"{parts.scheme}://{parts.netloc}"
    endpoints = Endpoints(
        issuer=site,
        authorization=f"{site}/openid/connect/authorize",
        token=f"{api_url.rstrip('/')}/openid.connect.token",
        keys=f"{site}/openid/connect/keys",
    )
    return Provider(site, client_id, client_secret, "openid email profile", endpoints, has_pkce=False)
