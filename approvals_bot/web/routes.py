"""The table of routes: every URL of the service, by whom it is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from starlette.routing import BaseRoute, Mount, Router
from starlette.types import ASGIApp

from approvals_bot.agents.chats import ChatForm, Chats
from approvals_bot.config.monitoring import MetricsTable
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.figures import FigureReader
from approvals_bot.service.keys import ApiKey
from approvals_bot.service.provisioning import Provisioning
from approvals_bot.service.replicas import Replicas
from approvals_bot.service.roles import Roles
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
from approvals_bot.web.desk import WebDesk, make_desk
from approvals_bot.web.files import Downloads, FilesApi
from approvals_bot.web.grants import GrantPages, GrantsApi
from approvals_bot.web.guard import Guard, TrustedProxies
from approvals_bot.web.health import Connection, Health
from approvals_bot.web.hooks import HooksApi, Webhooks
from approvals_bot.web.keys import KeyGate
from approvals_bot.web.list_pages import ListPages
from approvals_bot.web.live import Live
from approvals_bot.web.mcp import McpEndpoint
from approvals_bot.web.me import MyPage
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.middleware import Middleware
from approvals_bot.web.new_request import NewRequest
from approvals_bot.web.openapi import OpenApi
from approvals_bot.web.operations_page import OperationsPage
from approvals_bot.web.pages import PeoplePages
from approvals_bot.web.playground_session import PlaygroundSession
from approvals_bot.web.request_pages import RequestPages
from approvals_bot.web.responses import ErrorResponses, origin_of
from approvals_bot.web.router import Assets, Line, Templates, endpoints, lead_to, no_route, resources
from approvals_bot.web.run_acts import RunActs
from approvals_bot.web.run_pages import RunPages
from approvals_bot.web.scim import ROOT as SCIM_ROOT
from approvals_bot.web.scim import ScimEndpoint
from approvals_bot.web.sign_in import SignIn, SignInSetup
from approvals_bot.web.workflow_pages import WorkflowPages

SCIM_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def build(
    *,
    engine: Engine,
    tokens: Tokens,
    people: People,
    workflows: Catalog,
    api_keys: Sequence[ApiKey],
    base_url: str,
    metrics: Metrics | None = None,
    figures: FigureReader | None = None,
    scrape: MetricsTable | None = None,
    connections: Mapping[str, Connection] | None = None,
    replicas: Replicas | None = None,
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
) -> ASGIApp:
    """The service as an ASGI app.

    `figures`: counts of the store, for `/metrics`; `scrape`: who may read that.
    `connections`: what `/readyz` reports besides the store, by name.
    `extra`: the routes of rooms that not every installation has (Slack, the playground). `open_pages`: the pages for
    people need no session, and everybody may begin one; only for a service that listens on this machine alone. `chat`:
    how the chat asks people; None leaves it out. `loopback_only`: answer only to names of this machine.
    `trusted_proxies`: networks whose `X-Forwarded-…` headers count. `sign_in`: how people sign in; `roles`: what some
    of them may see and do. `audit_key`: signs evidence and exports of the audit. `texts`: of the workflows' files, by
    workflow. `keeps_peers`: whether logs and the audit keep the addresses of callers.
    """
    base_url, connections, setup = base_url.rstrip("/"), connections or {}, sign_in or SignInSetup()
    desk = make_desk(
        engine=engine,
        tokens=tokens,
        people=people,
        workflows=workflows,
        metrics=metrics or Metrics(),
        base_url=base_url,
        login=setup.table,
        roles=roles or Roles(people),
        open_pages=open_pages,
    )
    gate, mcp = KeyGate(engine, api_keys, desk.metrics.key_refused), McpEndpoint(base_url=base_url)
    readers, audit, admission = PeoplePages(desk), AuditPages(desk, audit_key), Admission(desk)
    watch, has_key = engine.resources.get(ChannelWatch), audit_key is not None
    health = Health(
        engine=engine,
        metrics=desk.metrics,
        connections=connections,
        replicas=replicas,
        figures=figures,
        watch=watch,
        scrape=scrape,
    )
    operations = OperationsPage(
        engine,
        admission,
        channels=sorted(desk.channels.by_name),
        watch=watch,
        states=connections,
        has_key=has_key,
        own_id=replicas.id if replicas is not None else "",
    )
    lines = [  # tried in turn: what is called most comes first
        *_calls_of_programs(desk, audit, mcp),
        *_pages_of_requests(desk, readers, has_evidence=has_key),
        *_pages_of_operators(desk, readers, audit, admission, operations, texts or {}),
        *_pages_of_oneself(desk, setup),
        *_calls_of_machines(desk, gate, health, OpenApi(base_url=base_url, chat=chat is not None)),
        *(() if chat is None else _chat(desk, gate, chat)),
    ]
    deleted = DeletedRuns(engine, desk.links, readers)
    lines = [
        (method, path, gate.before(method, path, deleted.behind(path, endpoint))) for method, path, endpoint in lines
    ]
    routes = [*resources(lines), *extra, Mount("/static", Assets(directory=Path(__file__).parent / "static"))]
    desk.navigation.serve(path for _, path in endpoints(routes, ""))
    router = Router(routes, redirect_slashes=False, default=no_route)
    proxies = TrustedProxies(trusted_proxies)
    app = mcp.app = Middleware(
        Guard(router, proxies=proxies, loopback_only=loopback_only),
        template_of=Templates(routes),
        respond=ErrorResponses(desk.pages, partial(desk.navigation.at, sessions=desk.sessions)),
        metrics=desk.metrics,
        base_url=base_url,
        keeps_peers=keeps_peers,
        proxies=proxies,
    )
    return app


def _calls_of_programs(desk: WebDesk, audit: AuditPages, mcp: McpEndpoint) -> list[Line]:
    """Return the webhooks of workflows, and the API, which needs a key."""
    webhooks, runs, hooks = Webhooks(desk), RunsApi(desk), HooksApi(engine=desk.engine)
    grants = GrantsApi(desk.engine, desk.people)
    return [
        ("GET", "/webhooks/{signed}", webhooks.show),
        ("POST", "/webhooks/{signed}", webhooks.resume),
        ("PUT", "/webhooks/{signed}", webhooks.resume),
        ("PATCH", "/webhooks/{signed}", webhooks.resume),
        ("DELETE", "/webhooks/{signed}", webhooks.resume),
        ("POST", "/api/runs", runs.create),
        ("GET", "/api/runs", runs.search),
        ("GET", "/api/runs/{id}", runs.show),
        ("GET", "/api/runs/{id}/events", runs.events),
        ("GET", "/api/runs/{id}/evidence", audit.evidence_for_programs),
        ("POST", "/api/runs/{id}/cancellation", runs.cancel),
        ("POST", "/api/runs/{id}/revocation", runs.revoke),
        ("POST", "/api/runs/{id}/extension", runs.extend),
        ("GET", "/api/grants", grants.search),
        ("GET", "/api/allowances", grants.allowances),
        ("DELETE", "/api/allowances/{id}", grants.revoke),
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
        ("POST", "/api/files", FilesApi(desk.engine).upload),
        ("POST", "/api/agent-hooks/claude", ClaudeHook(desk).decide),
        ("POST", "/mcp", mcp.respond),
    ]


def _pages_of_requests(desk: WebDesk, readers: PeoplePages, *, has_evidence: bool) -> list[Line]:
    """Return the pages of those who ask and decide: behind a link, or after signing in."""
    decisions, batches, new = Decisions(desk), InboxVotes(desk), NewRequest(desk)
    lists, requests = ListPages(desk, batches, readers), RequestPages(desk, readers, has_evidence=has_evidence)
    downloads = Downloads(desk.engine, readers, decisions)
    return [
        ("GET", "/decisions/{signed}", decisions.show),
        ("POST", "/decisions/{signed}", decisions.decide),
        ("GET", "/decisions/{signed}/files/{file}", downloads.of_link),
        ("GET", "/inbox", lists.inbox),
        ("GET", "/inbox/next", lists.next),
        ("POST", "/inbox/votes", batches.vote),
        ("GET", "/requests/new", new.choose),
        ("GET", "/requests/new/{workflow:path}", new.show),
        ("POST", "/requests", new.send),
        ("GET", "/requests/{id}", requests.show),
        ("POST", "/requests/{id}/talk", requests.talk),
        ("GET", "/requests/{id}/files/{file}", downloads.of_request),
        ("GET", "/live", Live(desk, readers.may_open).stream),
        ("GET", "/runs", lists.runs),
        ("GET", "/runs.csv", lists.table),
    ]


def _pages_of_operators(
    desk: WebDesk,
    readers: PeoplePages,
    audit: AuditPages,
    admission: Admission,
    operations: OperationsPage,
    texts: Mapping[str, str],
) -> list[Line]:
    """Return the pages of those who run the service: runs, the audit, deliveries and workflows."""
    runs, deliveries = RunPages(desk, readers), DeliveryPages(desk, admission)
    acts, workflows = RunActs(desk, runs), WorkflowPages(desk, admission, texts)
    return [
        ("GET", "/runs/{id}.json", runs.as_json),
        ("GET", "/runs/{id}", runs.show),
        ("POST", "/runs/{id}/cancellation", acts.cancel),
        ("POST", "/runs/{id}/wakeups", acts.wake),
        ("POST", "/runs/{id}/attempts", acts.attempt),
        ("POST", "/runs/{id}/reset", acts.reset),
        ("POST", "/runs/{id}/hooks/{hook_id}/payloads", acts.resume),
        ("GET", "/requests/{id}/evidence", audit.evidence),
        ("GET", "/audit", audit.show),
        ("GET", "/audit.csv", audit.table),
        ("GET", "/audit.jsonl", audit.lines),
        ("GET", "/grants", GrantPages(desk.engine, desk.people, admission).show),
        ("GET", "/deliveries", deliveries.show),
        ("POST", "/deliveries/attempts", deliveries.try_chosen),
        ("POST", "/deliveries/{id}/attempts", deliveries.try_one),
        ("GET", "/operations", operations.show),
        ("GET", "/workflows", workflows.list),
        ("GET", "/workflows/{name:path}/simulation", workflows.show),  # after signing in, or loaded again
        ("POST", "/workflows/{name:path}/simulation", workflows.simulate),
        ("GET", "/workflows/{name:path}", workflows.show),
    ]


def _pages_of_oneself(desk: WebDesk, setup: SignInSetup) -> list[Line]:
    """Return the pages to sign in and out, a person's own page, and where the bare address leads."""
    by_others, me = SignIn(desk, setup), MyPage(desk)
    lines: list[Line] = [
        ("GET", "/login", desk.login.show),
        ("POST", "/login", desk.login.submit),
        ("GET", "/login/oidc", by_others.oidc),
        ("GET", "/login/slack", by_others.slack),
        ("POST", "/logout", desk.login.leave),
        ("GET", "/me", me.show),
        ("POST", "/me", me.sign_out_everywhere),
        ("POST", "/me/settings", me.change),
        ("GET", "/", lead_to(f"{desk.root}{'/playground' if desk.open_pages else '/inbox'}")),
    ]
    if desk.open_pages:
        lines.append(("POST", "/playground/session", PlaygroundSession(desk).change))
    return lines


def _calls_of_machines(desk: WebDesk, gate: KeyGate, health: Health, openapi: OpenApi) -> list[Line]:
    """Return what identity providers, load balancers and monitors call, and the API's description."""
    scim = ScimEndpoint(desk.engine, gate, desk.engine.resources.get(Provisioning), desk.base_url)
    return [
        *((method, f"{SCIM_ROOT}/{{path:path}}", scim.respond) for method in SCIM_METHODS),
        ("GET", "/openapi.json", openapi.show),
        ("GET", "/healthz", health.alive),
        ("GET", "/readyz", health.ready),
        ("GET", "/metrics", health.metrics),
    ]


def _chat(desk: WebDesk, gate: KeyGate, form: ChatForm) -> list[Line]:
    """Return the chat: its pages, and its calls, which browsers and programs make."""
    chats = Chats(desk.engine, desk.workflows, form)
    owners = ChatOwners(desk.people, desk.sessions, gate, origin_of(desk.base_url), open_pages=desk.open_pages)
    calls = ChatApi(engine=desk.engine, chats=chats, owners=owners, metrics=desk.metrics, base_url=desk.base_url)
    pages = ChatPages(desk, chats, owners, calls)
    return [
        ("GET", "/chat", pages.front),
        ("GET", "/chat/{id}", pages.show),
        ("POST", "/chat/{id}", pages.send),
        ("POST", "/chat/{id}/approvals/{call}", pages.decide),
        ("POST", "/chat/hooks/approval", calls.approve_by_call),
        ("POST", "/api/chat", calls.send),
        ("GET", "/api/chat/{id}/stream", calls.stream),
        ("POST", "/api/chat/{id}/approvals/{call}", calls.approve),
    ]
