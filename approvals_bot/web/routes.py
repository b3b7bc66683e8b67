"""The table of routes: every URL of the service, in one list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from approvals_bot.agents.chats import ChatForm, Chats
from approvals_bot.approvals.port import Channels
from approvals_bot.config.monitoring import MetricsTable
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.codes import Codes
from approvals_bot.service.figures import FigureReader
from approvals_bot.service.keys import ApiKey
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.own_people import OwnPeopleStore
from approvals_bot.service.provisioning import Provisioning
from approvals_bot.service.replicas import Replicas
from approvals_bot.service.roles import Roles
from approvals_bot.service.sessions import Sessions
from approvals_bot.web.admission import Admission
from approvals_bot.web.agent_hooks import ClaudeHook
from approvals_bot.web.api import RunsApi
from approvals_bot.web.audit_pages import AuditPages
from approvals_bot.web.batch import InboxVotes
from approvals_bot.web.chat import ChatApi, ChatOwners
from approvals_bot.web.chat_pages import ChatPages
from approvals_bot.web.decisions import Decisions
from approvals_bot.web.deleted import DeletedRuns
from approvals_bot.web.delivery_pages import DeliveryPages
from approvals_bot.web.files import Downloads, FilesApi
from approvals_bot.web.form_tokens import FormTokens
from approvals_bot.web.grants import GrantPages, GrantsApi
from approvals_bot.web.guard import Guard, RefusedTokens, TrustedProxies
from approvals_bot.web.health import Connection, Health
from approvals_bot.web.hooks import HooksApi, Webhooks
from approvals_bot.web.keys import KeyGate
from approvals_bot.web.links import Links
from approvals_bot.web.list_pages import ListPages
from approvals_bot.web.live import Live
from approvals_bot.web.login import Login, LoginPage
from approvals_bot.web.mcp import McpEndpoint
from approvals_bot.web.me import MyPage
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.middleware import UNMATCHED, Middleware
from approvals_bot.web.navigation import Navigation
from approvals_bot.web.new_request import NewRequest
from approvals_bot.web.openapi import OpenApi
from approvals_bot.web.operations_page import OperationsPage
from approvals_bot.web.pages import PeoplePages
from approvals_bot.web.playground_session import PlaygroundSession
from approvals_bot.web.proxies import ProxyHeader
from approvals_bot.web.request_pages import RequestPages
from approvals_bot.web.responses import ErrorResponses, Problem, Renderer, origin_of, root_of
from approvals_bot.web.run_acts import RunActs
from approvals_bot.web.run_pages import RunPages
from approvals_bot.web.scim import ROOT as SCIM_ROOT
from approvals_bot.web.scim import ScimEndpoint
from approvals_bot.web.sessions import SessionCookies
from approvals_bot.web.sign_in import SignIn, SignInSetup, clients_of
from approvals_bot.web.workflow_pages import WorkflowPages

Endpoint = Callable[[HttpRequest], Awaitable[ASGIApp]]
Line = tuple[str, str, Endpoint]

SCIM_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MOST_TRYING = 12  # people that the page to sign in offers to a developer


def build(
    *,
    engine: Engine,
    tokens: Tokens,
    people: People,
    workflows: Catalog,
    api_keys: Sequence[ApiKey],
    base_url: str,
    now: Callable[[], datetime],
    channels: Channels | None = None,
    metrics: Metrics | None = None,
    figures: FigureReader | None = None,
    scrape: MetricsTable | None = None,
    connections: Mapping[str, Connection] | None = None,
    replicas: Replicas | None = None,
    own: OwnPeopleStore | None = None,
    provisioning: Provisioning | None = None,
    extra: Iterable[BaseRoute] = (),
    open_pages: bool = False,
    chat: ChatForm | None = None,
    loopback_only: bool = False,
    trusted_proxies: Iterable[str] = (),
    sign_in: SignInSetup | None = None,
    roles: Roles | None = None,
    audit_key: AuditKey | None = None,
    keeps_peers: bool = True,
    texts: Mapping[str, str] | None = None,
    lifespan: Lifespan[Any] | None = None,
) -> ASGIApp:
    """The service as an ASGI app.

    `channels`: by which codes are sent to people; by default those that the engine's steps use.
    `figures`: counts of the store, for `/metrics`; `scrape`: who may read that.
    `connections`: what `/readyz` reports besides the store, by name.
    `extra`: the routes of rooms that not every installation has (Slack, the playground). `open_pages`: the pages for
    people need no session, and everybody may begin one; only for a service that listens on this machine alone. `chat`:
    how the chat asks people; None leaves it out. `loopback_only`: answer only to names of this machine.
    `trusted_proxies`: networks whose `X-Forwarded-…` headers count. `sign_in`: how people sign in; `roles`: what some
    of them may see and do.
    `own`: what people have set themselves. `provisioning`: what an identity provider keeps here. `audit_key`: signs
    evidence and exports of the audit.
    `texts`: of the workflows' files, by workflow.
    `keeps_peers`: whether logs and the audit keep the addresses of callers.
    """
    base_url = base_url.rstrip("/")
    channels = channels or engine.resources.get(Channels) or Channels()
    metrics = metrics or Metrics()
    pages = Renderer(now=now, root=root_of(base_url))
    gate = KeyGate(engine, api_keys, metrics.key_refused)
    runs = RunsApi(
        engine=engine,
        workflows=workflows,
        people=people,
        metrics=metrics,
        tokens=tokens,
        base_url=base_url,
    )
    hooks = HooksApi(engine=engine)
    claude = ClaudeHook(engine=engine, workflows=workflows, people=people, metrics=metrics)
    refused = RefusedTokens(now)
    webhooks = Webhooks(engine=engine, tokens=tokens, pages=pages, base_url=base_url, refused=refused)
    links, codes = Links(engine=engine, tokens=tokens, base_url=base_url, now=now), Codes(engine, tokens=tokens)
    setup, roles = sign_in or SignInSetup(), roles or Roles(people)
    login = setup.table
    proxy = (
        ProxyHeader(engine, people, header=login.proxy.header, trusted=login.proxy.trusted)
        if login.proxy is not None and "proxy" in (login.methods or ())
        else None
    )
    engine.resources[KnownPeople] = known = KnownPeople(people, workflows, roles.named)
    sessions = SessionCookies(
        Sessions(engine, idle=login.idle, lifetime=login.lifetime), known, base_url=base_url, proxy=proxy
    )
    navigation = Navigation(roles, open_pages=open_pages)
    decisions = Decisions(
        engine=engine,
        links=links,
        codes=codes,
        channels=channels,
        pages=pages,
        metrics=metrics,
        base_url=base_url,
        now=now,
        refused=refused,
        sessions=sessions,
        navigation=navigation,
    )
    methods = login.methods_of(by_mail="email" in channels)
    forms = FormTokens(tokens, base_url=base_url)
    login_page = LoginPage(
        pages,
        methods,
        forms,
        provider=urlsplit(login.oidc.issuer).netloc if login.oidc else "",
        trying=list(islice(people.known(), MOST_TRYING)) if open_pages else (),
    )
    signing_in = Login(
        engine=engine,
        people=people,
        channels=channels,
        codes=codes,
        sessions=sessions,
        known=known,
        page=login_page,
        forms=forms,
        base_url=base_url,
        counted=metrics.signed_in,
    )
    by_others = SignIn(
        engine=engine,
        tokens=tokens,
        people=people,
        clients=clients_of(login, setup, now=now, base_url=base_url),
        slack=setup.slack,
        login=signing_in,
        base_url=base_url,
    )
    batches = InboxVotes(
        engine, sessions=sessions, forms=forms, login=signing_in, metrics=metrics, root=root_of(base_url)
    )
    own = own or OwnPeopleStore(engine)
    people.own = own.known
    people_pages = PeoplePages(
        engine=engine,
        people=people,
        workflows=workflows,
        sessions=sessions,
        links=links,
        pages=pages,
        navigation=navigation,
        now=now,
        login=signing_in,
        roles=roles,
        root=root_of(base_url),
        open_pages=open_pages,
    )
    lists = ListPages(
        engine=engine,
        people=people,
        workflows=workflows,
        sessions=sessions,
        links=links,
        forms=forms,
        batches=batches,
        login=signing_in,
        pages=people_pages,
        now=now,
        root=root_of(base_url),
        open_pages=open_pages,
    )
    request_pages = RequestPages(
        engine=engine,
        people=people,
        readers=people_pages,
        sessions=sessions,
        links=links,
        login=signing_in,
        forms=forms,
        navigation=navigation,
        pages=pages,
        now=now,
        root=root_of(base_url),
        has_evidence=audit_key is not None,
    )
    run_pages = RunPages(
        engine=engine,
        people=people,
        tokens=tokens,
        readers=people_pages,
        sessions=sessions,
        roles=roles,
        login=signing_in,
        forms=forms,
        navigation=navigation,
        pages=pages,
        now=now,
        open_pages=open_pages,
    )
    grants_api = GrantsApi(engine, people)
    run_acts = RunActs(engine, run_pages, forms=forms, pages=pages, root=root_of(base_url))
    new_requests = NewRequest(
        engine=engine,
        people=people,
        workflows=workflows,
        sessions=sessions,
        forms=forms,
        login=signing_in,
        pages=pages,
        navigation=navigation,
        root=root_of(base_url),
    )
    admission = Admission(
        sessions=sessions,
        roles=roles,
        people=people,
        login=signing_in,
        pages=pages,
        navigation=navigation,
        open_pages=open_pages,
    )
    grant_pages = GrantPages(engine, people, admission)
    deliveries = DeliveryPages(engine, admission, forms, channels=sorted(channels.by_name), root=root_of(base_url))
    operations = OperationsPage(
        engine,
        admission,
        channels=sorted(channels.by_name),
        watch=engine.resources.get(ChannelWatch),
        states=connections or {},
        has_key=audit_key is not None,
        own_id=replicas.id if replicas is not None else "",
    )
    workflow_pages = WorkflowPages(
        engine=engine,
        people=people,
        workflows=workflows,
        roles=roles,
        admission=admission,
        forms=forms,
        texts=texts or {},
    )
    live = Live(engine, sessions, people_pages.may_open, open_pages=open_pages)
    downloads = Downloads(engine, people_pages, decisions)
    me = MyPage(
        engine=engine,
        people=people,
        sessions=sessions,
        forms=forms,
        login=signing_in,
        pages=pages,
        navigation=navigation,
        own=own,
        known=known,
        root=root_of(base_url),
    )
    audit_pages = AuditPages(
        engine=engine,
        sessions=sessions,
        roles=roles,
        pages=pages,
        navigation=navigation,
        login=signing_in,
        key=audit_key,
        open_pages=open_pages,
    )
    health = Health(
        engine=engine,
        metrics=metrics,
        connections=connections or {},
        replicas=replicas,
        figures=figures,
        watch=engine.resources.get(ChannelWatch),
        scrape=scrape,
    )
    openapi = OpenApi(base_url=base_url, chat=chat is not None)
    mcp = McpEndpoint(base_url=base_url)
    scim = ScimEndpoint(engine, gate, provisioning, base_url)

    table: list[Line] = [  # tried in turn: what is called most comes first
        ("GET", "/webhooks/{signed}", webhooks.show),
        ("POST", "/webhooks/{signed}", webhooks.resume),
        ("PUT", "/webhooks/{signed}", webhooks.resume),
        ("PATCH", "/webhooks/{signed}", webhooks.resume),
        ("DELETE", "/webhooks/{signed}", webhooks.resume),
        ("POST", "/api/runs", runs.create),
        ("GET", "/api/runs", runs.search),
        ("GET", "/api/runs/{id}", runs.show),
        ("GET", "/api/runs/{id}/events", runs.events),
        ("GET", "/api/runs/{id}/evidence", audit_pages.evidence_for_programs),
        ("POST", "/api/runs/{id}/cancellation", runs.cancel),
        ("POST", "/api/runs/{id}/revocation", runs.revoke),
        ("POST", "/api/runs/{id}/extension", runs.extend),
        ("GET", "/api/grants", grants_api.search),
        ("GET", "/api/allowances", grants_api.allowances),
        ("DELETE", "/api/allowances/{id}", grants_api.revoke),
        ("POST", "/api/runs/{id}/attempts", runs.attempt),
        ("POST", "/api/runs/{id}/reset", runs.reset),
        ("PATCH", "/api/runs/{id}/fields", runs.edit),
        ("POST", "/api/runs/{id}/votes", runs.vote),
        ("POST", "/api/runs/{id}/approvers", runs.add_approver),
        ("POST", "/api/runs/{id}/comments", runs.comment),
        ("POST", "/api/runs/{id}/reminders", runs.remind),
        ("POST", "/api/runs/{id}/claim", runs.claim),
        ("POST", "/api/runs/{id}/snooze", runs.snooze),
        ("GET", "/api/hooks/{token:path}", hooks.show),
        ("POST", "/api/hooks/{token:path}", hooks.resume),
        ("POST", "/api/files", FilesApi(engine).upload),
        ("POST", "/api/agent-hooks/claude", claude.decide),
        ("POST", "/mcp", mcp.respond),
        ("GET", "/decisions/{signed}", decisions.show),
        ("POST", "/decisions/{signed}", decisions.decide),
        ("GET", "/decisions/{signed}/files/{file}", downloads.of_link),
        ("GET", "/inbox", lists.inbox),
        ("GET", "/inbox/next", lists.next),
        ("POST", "/inbox/votes", batches.vote),
        ("GET", "/requests/new", new_requests.choose),
        ("GET", "/requests/new/{workflow:path}", new_requests.show),
        ("POST", "/requests", new_requests.send),
        ("GET", "/requests/{id}", request_pages.show),
        ("POST", "/requests/{id}/talk", request_pages.talk),
        ("GET", "/runs/{id}.json", run_pages.as_json),
        ("GET", "/runs/{id}", run_pages.show),
        ("POST", "/runs/{id}/cancellation", run_acts.cancel),
        ("POST", "/runs/{id}/wakeups", run_acts.wake),
        ("POST", "/runs/{id}/attempts", run_acts.attempt),
        ("POST", "/runs/{id}/reset", run_acts.reset),
        ("POST", "/runs/{id}/hooks/{hook_id}/payloads", run_acts.resume),
        ("GET", "/requests/{id}/evidence", audit_pages.evidence),
        ("GET", "/live", live.stream),
        ("GET", "/requests/{id}/files/{file}", downloads.of_request),
        ("GET", "/audit", audit_pages.show),
        ("GET", "/audit.csv", audit_pages.table),
        ("GET", "/audit.jsonl", audit_pages.lines),
        ("GET", "/runs", lists.runs),
        ("GET", "/runs.csv", lists.table),
        ("GET", "/grants", grant_pages.show),
        ("GET", "/deliveries", deliveries.show),
        ("POST", "/deliveries/attempts", deliveries.try_chosen),
        ("POST", "/deliveries/{id}/attempts", deliveries.try_one),
        ("GET", "/operations", operations.show),
        ("GET", "/workflows", workflow_pages.list),
        ("GET", "/workflows/{name:path}/simulation", workflow_pages.show),  # after signing in, or loaded again
        ("POST", "/workflows/{name:path}/simulation", workflow_pages.simulate),
        ("GET", "/workflows/{name:path}", workflow_pages.show),
        ("GET", "/login", signing_in.show),
        ("POST", "/login", signing_in.submit),
        ("GET", "/login/oidc", by_others.oidc),
        ("GET", "/login/slack", by_others.slack),
        ("POST", "/logout", signing_in.leave),
        ("GET", "/me", me.show),
        ("POST", "/me", me.sign_out_everywhere),
        ("POST", "/me/settings", me.change),
        *((method, f"{SCIM_ROOT}/{{path:path}}", scim.respond) for method in SCIM_METHODS),
        ("GET", "/openapi.json", openapi.show),
        ("GET", "/healthz", health.alive),
        ("GET", "/readyz", health.ready),
        ("GET", "/metrics", health.metrics),
    ]
    table.append(("GET", "/", _lead_to(f"{root_of(base_url)}{'/playground' if open_pages else '/inbox'}")))
    if open_pages:
        trying = PlaygroundSession(engine=engine, people=people, known=known, login=signing_in, base_url=base_url)
        table.append(("POST", "/playground/session", trying.change))
    if chat is not None:
        chats = Chats(engine, workflows, chat)
        owners = ChatOwners(people, sessions, gate, origin_of(base_url), open_pages=open_pages)
        by_programs = ChatApi(engine=engine, chats=chats, owners=owners, metrics=metrics, base_url=base_url)
        in_browser = ChatPages(
            chats=chats,
            owners=owners,
            api=by_programs,
            people=people,
            pages=pages,
            now=now,
            link=engine.link,
            forms=forms,
            root=root_of(base_url),
            navigation=navigation,
            login=signing_in,
        )
        table += [
            ("GET", "/chat", in_browser.front),
            ("GET", "/chat/{id}", in_browser.show),
            ("POST", "/chat/{id}", in_browser.send),
            ("POST", "/chat/{id}/approvals/{call}", in_browser.decide),
            ("POST", "/chat/hooks/approval", by_programs.approve_by_call),
            ("POST", "/api/chat", by_programs.send),
            ("GET", "/api/chat/{id}/stream", by_programs.stream),
            ("POST", "/api/chat/{id}/approvals/{call}", by_programs.approve),
        ]
    deleted = DeletedRuns(engine, links, people_pages)
    table = [
        (method, path, gate.before(method, path, deleted.behind(path, endpoint))) for method, path, endpoint in table
    ]
    routes = [*_resources(table), *extra, Mount("/static", Assets(directory=Path(__file__).parent / "static"))]
    navigation.serve(path for _, path in _endpoints(routes, ""))
    router = Router(routes, redirect_slashes=False, default=_no_route, lifespan=lifespan)
    proxies = TrustedProxies(trusted_proxies)
    app = mcp.app = Middleware(
        Guard(router, proxies=proxies, loopback_only=loopback_only),
        template_of=_Templates(routes),
        respond=ErrorResponses(pages, partial(navigation.at, sessions=sessions)),
        metrics=metrics,
        base_url=base_url,
        keeps_peers=keeps_peers,
        proxies=proxies,
    )
    return app


def _lead_to(path: str) -> Endpoint:
    """Lead from the bare address to the first page."""

    async def start(request: HttpRequest) -> Response:
        return RedirectResponse(path, 303)

    return start


class Resource:
    """One path and what may be done there. HEAD is a GET whose body nobody reads."""

    def __init__(self, methods: Mapping[str, Endpoint]) -> None:
        self.methods = dict(methods)
        if "GET" in methods:
            self.methods["HEAD"] = methods["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.methods.get(scope["method"])
        if endpoint is None:
            allowed = ", ".join(sorted(self.methods))
            raise Problem(405, detail=f"This address takes only {allowed}.", headers={"Allow": allowed})
        if any("\0" in str(value) for value in scope["path_params"].values()):
            raise Problem(404)  # no id or token of ours has a NUL, and PostgreSQL takes none as text
        response = await endpoint(HttpRequest(scope, receive))
        await response(scope, receive, send)


class Assets(StaticFiles):
    """Our stylesheet and pictures: kept by the browser, and asked about each time, so that an upgrade is seen."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def _resources(table: Iterable[Line]) -> list[Route]:
    paths: dict[str, dict[str, Endpoint]] = {}
    for method, path, endpoint in table:
        paths.setdefault(path, {})[method] = endpoint
    return [Route(path, Resource(methods)) for path, methods in paths.items()]


class _Templates:
    """Which route took a request, by its template: what the log and the metrics may say."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._templates = dict(_endpoints(routes, ""))

    def __call__(self, scope: Scope) -> str:
        return self._templates.get(id(scope.get("endpoint")), UNMATCHED)


def _endpoints(routes: Iterable[BaseRoute], prefix: str) -> Iterable[tuple[int, str]]:
    for route in routes:
        match route:
            case Mount():
                yield id(route.app), f"{prefix}{route.path}/*"
                yield from _endpoints(route.routes or (), prefix + route.path)
            case Route():
                yield id(route.endpoint), f"{prefix}{route.path}"


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocketClose()(scope, receive, send)
        return
    raise Problem(404, detail="There's nothing at this address.")
