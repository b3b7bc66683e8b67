"""Who calls the API: bearer keys, by name."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.requests import Request

from approvals_bot.web.problems import Problem


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller of the API. `may_vote`: trusted to pass on what a named person chose."""

    name: str
    secret: str = field(repr=False)
    may_vote: bool = False

    @property
    def address(self) -> str:
        """How the app stands in a request: `app:ci`."""
        return f"app:{self.name}"


def caller(request: Request, keys: Sequence[ApiKey]) -> ApiKey:
    """The key that this request bears. Raises Problem 401; without configured keys, always."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (found := _match(given.strip(), keys)):
        return found
    raise Problem(
        401,
        detail="Send one of the service's API keys as `Authorization: Bearer <key>`."
        if keys
        else "This service has no API keys. Add one to [api_keys] in its config.toml.",
        headers={"WWW-Authenticate": 'Bearer realm="approvals-bot"'},
    )


def _match(given: str, keys: Sequence[ApiKey]) -> ApiKey | None:
    """Every key is compared, and in constant time, so that the time taken tells nothing about any of them."""
    offered = given.encode("utf-8", "surrogateescape")
    found = None
    for key in keys:
        if hmac.compare_digest(offered, key.secret.encode()):
            found = key
    return found
