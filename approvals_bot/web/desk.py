"""The desk: what pages, links and the API share, each part made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from urllib.parse import urlsplit

from approvals_bot.approvals.port import Channels
from approvals_bot.config.login import LoginTable
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.codes import Codes
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.own_people import OwnPeopleStore
from approvals_bot.service.roles import Roles
from approvals_bot.service.sessions import Sessions
from approvals_bot.web.form_tokens import FormTokens
from approvals_bot.web.guard import RefusedTokens
from approvals_bot.web.links import Links
from approvals_bot.web.login import Login, LoginPage
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.navigation import Navigation
from approvals_bot.web.proxies import ProxyHeader
from approvals_bot.web.responses import Renderer, root_of
from approvals_bot.web.sessions import SessionCookies

MOST_TRYING = 12  # people that the page to sign in offers to a developer


# No twin of ChannelHost: that is what a channel keeps, and a reload changes it; each reload makes a new desk.
@dataclass(frozen=True, slots=True, kw_only=True)
class WebDesk:
    """What pages, links and the API share.

    `root`: the path that our addresses begin with. `open_pages`: the pages for people need no session, on a machine
    that is a developer's own. `refused`: whose links were bad, and how often.
    """

    engine: Engine
    tokens: Tokens
    people: People
    workflows: Catalog
    channels: Channels
    metrics: Metrics
    base_url: str
    root: str
    now: Callable[[], datetime]
    open_pages: bool
    pages: Renderer
    roles: Roles
    known: KnownPeople
    own: OwnPeopleStore
    sessions: SessionCookies
    navigation: Navigation
    forms: FormTokens
    links: Links
    codes: Codes
    login: Login
    refused: RefusedTokens


def make_desk(
    *,
    engine: Engine,
    tokens: Tokens,
    people: People,
    workflows: Catalog,
    metrics: Metrics,
    base_url: str,
    login: LoginTable,
    roles: Roles,
    open_pages: bool,
) -> WebDesk:
    """Make the desk of a service. `login`: how people sign in."""
    now, root = engine.now, root_of(base_url)
    channels = engine.resources.get(Channels) or Channels()
    pages, forms = Renderer(now=now, root=root), FormTokens(tokens, base_url=base_url)
    known = engine.resources[KnownPeople] = KnownPeople(people, workflows, roles.named)
    kept = Sessions(engine, idle=login.idle, lifetime=login.lifetime)
    sessions = SessionCookies(kept, known, base_url=base_url, proxy=_proxy_of(login, engine, people))
    codes = Codes(engine, tokens=tokens)
    page = LoginPage(
        pages,
        login.methods_of(by_mail="email" in channels),
        forms,
        provider=urlsplit(login.oidc.issuer).netloc if login.oidc else "",
        trying=list(islice(people.known(), MOST_TRYING)) if open_pages else (),
    )
    signing_in = Login(
        engine=engine,
        people=people,
        known=known,
        channels=channels,
        codes=codes,
        sessions=sessions,
        page=page,
        forms=forms,
        base_url=base_url,
        counted=metrics.signed_in,
    )
    own = engine.resources.get(OwnPeopleStore) or OwnPeopleStore(engine)
    people.own = own.known
    return WebDesk(
        engine=engine,
        tokens=tokens,
        people=people,
        workflows=workflows,
        channels=channels,
        metrics=metrics,
        base_url=base_url,
        root=root,
        now=now,
        open_pages=open_pages,
        pages=pages,
        roles=roles,
        known=known,
        own=own,
        sessions=sessions,
        navigation=Navigation(roles, open_pages=open_pages),
        forms=forms,
        links=Links(engine=engine, tokens=tokens, base_url=base_url, now=now),
        codes=codes,
        login=signing_in,
        refused=RefusedTokens(now),
    )


def _proxy_of(login: LoginTable, engine: Engine, people: People) -> ProxyHeader | None:
    if login.proxy is None or "proxy" not in (login.methods or ()):
        return None
    return ProxyHeader(engine, people, header=login.proxy.header, trusted=login.proxy.trusted)
