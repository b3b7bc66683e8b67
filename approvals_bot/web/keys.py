"""What each call of the API needs: the table of routes and rights, and the check of a caller's key against it.

A key that lacks a right is refused with 403 and the reason. What a key doesn't reach is 404, as if it didn't exist.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp

from approvals_bot.approvals.acts import Actor
from approvals_bot.config.api_keys import Right
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.errors import RunNotFoundError, StoreUnavailableError
from approvals_bot.service.keys import ApiKey, LastUses, Reach, find_key, reach_of
from approvals_bot.service.log_fields import note
from approvals_bot.web.guard import audited_peer_of
from approvals_bot.web.responses import Problem

Endpoint = Callable[[HttpRequest], Awaitable[ASGIApp]]

log = logging.getLogger(__name__)

A_MINUTE = timedelta(minutes=1)
MOST_REFUSED = 1_000  # names and peers that are remembered for a minute; more get no line


@dataclass(frozen=True, slots=True)
class Needs:
    """The rights of which a call needs one.

    `own`: enough for what the key has opened itself; None if that makes no difference. `others`: for any run.
    """

    own: Right | None
    others: tuple[Right, ...] = ()

    @property
    def any_of(self) -> tuple[Right, ...]:
        return self.others if self.own is None else (self.own, *self.others)

    @property
    def in_words(self) -> str:
        """Which rights are enough, as /openapi.json says it."""
        others = " or ".join(f"`{right}`" for right in self.others)
        if self.own is None:
            return f"Needs {others}."
        if not self.others:
            return f"Needs `{self.own}`."
        return f"Needs `{self.own}` for runs that the key has opened, {others} for others."


READ = Needs("read", ("read-all",))
START = Needs("start")
VOTE = Needs("start", ("vote",))
OPERATE = Needs(None, ("operate",))
SCIM = Needs(None, ("scim",))  # whose endpoint asks itself, because its errors have a shape of their own

NEEDS: Mapping[tuple[str, str], Needs] = {
    ("POST", "/api/runs"): START,
    ("GET", "/api/runs"): READ,
    ("GET", "/api/runs/{id}"): READ,
    ("GET", "/api/runs/{id}/events"): READ,
    ("GET", "/api/runs/{id}/evidence"): READ,
    ("POST", "/api/runs/{id}/cancellation"): Needs("start", ("vote", "operate")),
    ("POST", "/api/runs/{id}/revocation"): Needs("start", ("vote", "operate")),
    ("POST", "/api/runs/{id}/extension"): VOTE,
    ("GET", "/api/grants"): READ,
    ("GET", "/api/allowances"): READ,
    ("DELETE", "/api/allowances/{id}"): Needs(None, ("vote", "operate")),
    ("POST", "/api/runs/{id}/attempts"): OPERATE,
    ("POST", "/api/runs/{id}/reset"): OPERATE,
    ("PATCH", "/api/runs/{id}/fields"): VOTE,
    ("POST", "/api/runs/{id}/votes"): Needs(None, ("vote",)),
    ("POST", "/api/runs/{id}/approvers"): VOTE,
    ("POST", "/api/runs/{id}/comments"): VOTE,
    ("POST", "/api/runs/{id}/reminders"): VOTE,
    ("POST", "/api/runs/{id}/claim"): VOTE,
    ("POST", "/api/runs/{id}/snooze"): VOTE,
    ("GET", "/api/hooks/{token:path}"): Needs("read", ("read-all", "operate")),
    ("POST", "/api/hooks/{token:path}"): Needs("start", ("operate",)),
    ("POST", "/api/files"): START,
    ("POST", "/api/agent-hooks/claude"): START,
    ("POST", "/mcp"): START,
    ("POST", "/api/chat"): START,
    ("GET", "/api/chat/{id}/stream"): READ,
    ("POST", "/api/chat/{id}/approvals/{call}"): START,
    ("POST", "/chat/hooks/approval"): START,
}
"""What the calls with an API key need, by method and route. A new route under `/api` must be here."""

OF_SESSIONS = frozenset(
    {"/api/chat", "/api/chat/{id}/stream", "/api/chat/{id}/approvals/{call}", "/chat/hooks/approval"}
)
"""Routes that people call, too, from their browsers: a key is checked if there is one."""

KEY, NEEDED = "approvals_bot.key", "approvals_bot.needs"


class KeyGate:
    """The check of each call's key. `keys`: all that there are."""

    def __init__(self, engine: Engine, keys: Sequence[ApiKey], counted: Callable[[], None] = lambda: None) -> None:
        """`counted` is called for each refusal."""
        self._engine = engine
        self._counted = counted
        self._keys = keys
        self._uses = LastUses(engine)
        self._refused: dict[tuple[str, str], datetime] = {}  # when a key of this name, from this peer, was refused last

    def before(self, method: str, path: str, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint behind the check that its route asks for. Raises KeyError for a route without needs."""
        if not path.startswith(("/api/", "/mcp")) or path in OF_SESSIONS:
            return endpoint
        needs = NEEDS[method, path]

        async def checked(request: HttpRequest) -> ASGIApp:
            await self.admit(request, needs)
            return await endpoint(request)

        return checked

    async def admit(self, request: HttpRequest, needs: Needs) -> ApiKey:
        """Return the key of this request, if it has one of the rights. Raises Problem 401 or 403, and audits that."""
        try:
            key = self._caller(request)
            if key.may.isdisjoint(needs.any_of):
                raise lacks(key, needs.any_of)
        except Problem as refused:
            await self._note_refusal(request, refused.status)
            raise
        request.scope[KEY], request.scope[NEEDED] = key, needs
        note(app=key.name)
        self._uses.note(key)
        return key

    async def _note_refusal(self, request: HttpRequest, status: int) -> None:
        """Write a refused key into the audit, by its name if it has one, once a minute and peer."""
        self._counted()
        _, _, given = request.headers.get("authorization", "").partition(" ")
        found = find_key(self._keys, given.strip())
        peer = audited_peer_of(request.scope)
        actor = Actor("app", "", "unknown", peer=peer) if found is None else found.actor(peer)
        name = actor.key
        now = self._engine.now()
        if len(self._refused) >= MOST_REFUSED:
            self._refused = {each: at for each, at in self._refused.items() if at + A_MINUTE > now}
        last = self._refused.get((name, peer))
        if len(self._refused) >= MOST_REFUSED or (last is not None and last + A_MINUTE > now):
            return
        self._refused[name, peer] = now
        said = {"event": "key_refused", "app": name, "status": status}
        why = _why_refused(found, status)
        log.log(logging.INFO if found is None else logging.WARNING, "%s", why, extra=said)
        with suppress(StoreUnavailableError):
            await self._engine.audit(
                "key_refused", who=actor.id or None, actor=actor.as_json(), data={"status": status}
            )

    def _caller(self, request: HttpRequest) -> ApiKey:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        found = find_key(self._keys, given.strip())
        if found is None or scheme.lower() != "bearer":
            raise _unknown(
                "Send one of the service's API keys as `Authorization: Bearer <key>`."
                if self._keys
                else "This service has no API keys. Add one to [api_keys] in its config.toml."
            )
        if found.expires is not None and self._engine.now().astimezone(UTC).date() >= found.expires:
            raise _unknown(
                f"The key {found.name!r} has expired: {found.expires.isoformat()} was the first day without it. "
                "Ask the service's operator for a new one."
            )
        return found


def _unknown(detail: str) -> Problem:
    return Problem(401, detail=detail, headers={"WWW-Authenticate": 'Bearer realm="approvals-bot"'})


def lacks(key: ApiKey, rights: Sequence[Right], what: str = "") -> Problem:
    """Return the refusal of a key that has none of these rights. `what`: what it would need one for."""
    listed = " or ".join(f'"{right}"' for right in rights)
    detail = f"The key {key.name!r} needs {listed}{what}. The service's operator can add it to the key's `may`."
    return Problem(403, f"Key may not {rights[-1]}", detail)


def key_of(request: HttpRequest) -> ApiKey:
    """Return the key that this request was admitted with."""
    key: ApiKey = request.scope[KEY]
    return key


def actor_of(request: HttpRequest) -> Actor:
    """Return the app that calls, as the actor of what it does."""
    return key_of(request).actor(audited_peer_of(request.scope))


async def check_reach(engine: Engine, request: HttpRequest, record: RunRecord) -> Reach:
    """Return how far the caller reaches this run. Raises RunNotFoundError if it may not know it, else Problem 403."""
    key: ApiKey = request.scope[KEY]
    needs: Needs = request.scope[NEEDED]
    note(run_id=record.id, workflow=record.workflow)
    reach = await reach_of(engine, key, record, needs.own, needs.others)
    if reach == "none":
        raise RunNotFoundError(record.id)
    if reach == "seen":
        raise lacks(key, needs.others, " for a run that it hasn't opened itself")
    return reach


def _why_refused(key: ApiKey | None, status: int) -> str:
    """Return the log's line about a refused key, with what to do."""
    if key is None:
        return "an API key that isn't in [api_keys] was refused; its caller needs one that is: `approvals-bot keys new`"
    if status == 401:
        return (
            f"the API key {key.name!r} was refused, because it expired on {key.expires}. "
            f"`approvals-bot keys new {key.name}` makes another value"
        )
    return f"the API key {key.name!r} was refused, because it may not do this. Its rights are in [api_keys.{key.name}]"
