"""The gate of pages: their visitor, or the page that they get instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.approvals.acts import Actor
from approvals_bot.config.login import Role
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.sessions import actor_at

DEVELOPER = Actor("cli", "dev")
"""The actor on a developer's machine, where pages need no session."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who may see a page. `session`: None on a developer's machine, where none is needed."""

    session: SessionRow | None
    actor: Actor
    zone: str

    @property
    def address(self) -> str | None:
        return None if self.session is None else self.session.person

    @property
    def name(self) -> str:
        """The name that the audit has for them."""
        return f"cli:{DEVELOPER.id}" if self.session is None else self.session.person


class Admission:
    """What pages for people with a role have in common."""

    def __init__(self, desk: WebDesk) -> None:
        self._people, self._roles = desk.people, desk.roles
        self._sessions, self._login, self._open = desk.sessions, desk.login, desk.open_pages
        self._navigation, self._pages = desk.navigation, desk.pages

    async def admit(self, request: HttpRequest, role: Role | None) -> Visitor | Response:
        """Return the visitor, or the page that they get instead. `role`: whose page it is; None for everybody.

        Raises SourceUnavailable.
        """
        session = await self._sessions.find(request)
        if session is None:
            return Visitor(None, DEVELOPER, "UTC") if self._open else await self._login.instead_of(request)
        actor = actor_at(request, session)
        visitor = Visitor(session, actor, self._people.person(session.person).zone)
        if role is None or await self.has(visitor, role):
            return visitor
        detail = f"Ask an operator if you need it: they can add you to {role} in [roles]."
        return await self.show(visitor, "error.html", "", 403, title=f"This page is for {role}s", detail=detail)

    async def has(self, visitor: Visitor, role: Role) -> bool:
        """Return whether the visitor has this role, or needs none. Raises SourceUnavailable."""
        return visitor.address is None or await self._roles.has(visitor.address, role)

    async def show(self, visitor: Visitor, template: str, here: str, status: int = 200, **values: Any) -> Response:
        """Return this page, with the visitor's navigation and zone."""
        nav = await self._navigation.of(visitor.address)
        return self._pages.page(template, status, nav=nav, here=here, zone=visitor.zone, **values)
