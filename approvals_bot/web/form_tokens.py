"""Form tokens: the proof that a form was shown to the browser that sends it.

Browsers of the last years say where a form comes from, in headers that no page can set. The token is for the others,
and for pages that came by plain http. It is bound to a cookie that other sites' forms don't bring along: the session's,
or, before there is a session, one that the page to sign in sets.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Literal

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import InvalidTokenError
from approvals_bot.web.guard import cookie_of
from approvals_bot.web.responses import origin_of
from approvals_bot.web.sessions import COOKIE as SESSION
from approvals_bot.web.sessions import SECURE_COOKIE as SECURE_SESSION
from approvals_bot.web.validation import is_from_own_page

FORM = "page-form.v1"
NAME = "form_token"
COOKIE, SECURE_COOKIE = "approvals-form", "__Host-approvals-form"

Form = Literal["login", "logout", "chat", "request", "batch", "deliveries", "simulation", "run", "talk", "me"]


class FormTokens:
    """Makes the tokens of forms, and checks what comes back."""

    def __init__(self, tokens: Tokens, *, base_url: str) -> None:
        self._tokens = tokens
        self._origin = origin_of(base_url)
        self._is_secure = base_url.startswith("https:")
        self._session = SECURE_SESSION if self._is_secure else SESSION
        self._cookie = SECURE_COOKIE if self._is_secure else COOKIE

    def make(self, request: HttpRequest, form: Form, person: str = "") -> str:
        """Make the token of a form that is shown to a session; one with a person says whose form it is."""
        return self._sign(form, cookie_of(request.scope, self._session), person)

    def make_first(self, request: HttpRequest) -> tuple[str, str]:
        """Make the token of the form to sign in, and the secret that the browser is to keep for it."""
        secret = cookie_of(request.scope, self._cookie) or secrets.token_urlsafe(32)
        return self._sign("login", secret), secret

    def keep(self, response: Response, secret: str) -> None:
        """Give the browser the secret of its form to sign in, until it is closed."""
        response.set_cookie(self._cookie, secret, path="/", secure=self._is_secure, httponly=True, samesite="strict")

    def is_ours(self, request: HttpRequest, form: Form, given: str) -> bool:
        """Return whether the form came from our own page: the browser vouches for that, or the token does.

        Programs that send neither header are no browsers that another site could use.
        """
        bound = cookie_of(request.scope, self._cookie if form == "login" else self._session)
        return is_from_own_page(request.headers, self._origin, has_token=self._is_of(form, bound, given))

    def owner_of(self, request: HttpRequest, form: Form, given: str) -> str:
        """Return the mark of the person to whom we have shown this form in this browser; "" if we haven't.

        Their session may be over by now. The mark is what `mark_of` returns for them.
        """
        found = self._read(given)
        mark = found.get("p", "")
        return mark if mark and found == _claims(form, cookie_of(request.scope, self._session), mark) else ""

    def name_of(self, request: HttpRequest, what: str) -> str:
        """Return a name for one thing of this browser's session, from which nobody learns the session's secret."""
        bound = cookie_of(request.scope, self._session)
        return hashlib.sha256(f"{what}\0{bound}".encode()).hexdigest()[:32]

    def _sign(self, form: Form, bound: str, person: str = "") -> str:
        return self._tokens.sign(FORM, _claims(form, bound, mark_of(person)))

    def _is_of(self, form: Form, bound: str, given: str) -> bool:
        found = self._read(given)
        return found == _claims(form, bound, found.get("p", ""))

    def _read(self, given: str) -> Mapping[str, Any]:
        try:
            return self._tokens.read(FORM, given)
        except InvalidTokenError:
            return {}


def mark_of(person: str) -> str:
    """Return what stands for a person in a token, which anybody can read."""
    return hashlib.sha256(person.encode()).hexdigest()[:32] if person else ""


def _claims(form: Form, bound: str, mark: str) -> dict[str, str]:
    claims = {"f": form, "b": hashlib.sha256(bound.encode()).hexdigest()[:32]}
    return claims | {"p": mark} if mark else claims
