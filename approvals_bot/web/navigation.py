"""The links at the top of all pages for people who have signed in: those that they may open, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest

from approvals_bot.config.login import Role
from approvals_bot.people import SourceUnavailable
from approvals_bot.service.roles import Roles
from approvals_bot.web.sessions import SessionCookies

Links = tuple[tuple[str, str], ...]
"""The path and the word of each link. On a phone, all but the first two are below *More*."""


@dataclass(frozen=True, slots=True)
class PageLink:
    """A page. `role`: whose it is; None for everybody. `is_personal`: it needs a session, in `dev`, too."""

    path: str
    word: str
    role: Role | None = None
    is_personal: bool = False


ENTRIES = (
    PageLink("/inbox", "Inbox"),
    PageLink("/requests/new", "New request"),
    PageLink("/playground", "Playground"),
    PageLink("/chat", "Chat"),
    PageLink("/runs", "Requests", "viewer"),
    PageLink("/workflows", "Workflows"),
    PageLink("/deliveries", "Deliveries", "operator"),
    PageLink("/operations", "Operations", "operator"),
    PageLink("/audit", "Audit", "auditor"),
    PageLink("/me", "You", is_personal=True),
)
"""All of them, in their order. One is shown where its page is served."""


class Navigation:
    """Which links a person sees. `open_pages`: without a session, one may open all pages, on a developer's machine."""

    def __init__(self, roles: Roles, *, open_pages: bool = False) -> None:
        self._roles = roles
        self._open = open_pages
        self._entries: tuple[PageLink, ...] = ()

    def serve(self, paths: Iterable[str]) -> None:
        """Set which pages are there; before that, there are no links."""
        served = set(paths)
        self._entries = tuple(entry for entry in ENTRIES if entry.path in served)

    async def of(self, reader: str | None) -> Links:
        """Return this person's links. Those that need a role are left out while it can't be looked up."""
        if reader is None and not self._open:
            return ()
        opens_all, roles = reader is None, await self._roles_of(reader)
        return tuple(
            (entry.path, entry.word)
            for entry in self._entries
            if (opens_all or entry.role is None or entry.role in roles) and not (entry.is_personal and reader is None)
        )

    async def at(self, request: HttpRequest, sessions: SessionCookies) -> Links:
        """Return the links for the person signed in here; none while that can't be looked up."""
        try:
            return await self.of(await sessions.who(request))
        except SourceUnavailable:
            return ()

    async def _roles_of(self, reader: str | None) -> frozenset[Role]:
        if reader is None:
            return frozenset()
        try:
            return await self._roles.of(reader)
        except SourceUnavailable:
            return frozenset()
