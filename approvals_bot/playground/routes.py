"""The playground's URLs: the fakes that the service calls, a JSON API for tests, and pages for people."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from approvals_bot.config.hosts import is_loopback
from approvals_bot.playground.faults import Faults, read_faults
from approvals_bot.playground.pages import Endpoint, PlaygroundPages
from approvals_bot.playground.playground import Playground
from approvals_bot.playground.slack.api import respond
from approvals_bot.playground.slack.person import CannotDoError, NoSuchThingError, words_in
from approvals_bot.web.guard import is_loopback_host

LARGEST_BODY = 1_000_000  # bytes
M = TypeVar("M", bound=BaseModel)


def routes(playground: Playground) -> list[BaseRoute]:
    """Return the playground's routes, which are mounted beside the service's."""
    surface = JsonApi(playground)
    pages = PlaygroundPages(playground)

    def route(path: str, endpoint: Endpoint, *methods: str) -> Route:
        closed = guarded(explained(remembered(endpoint, playground)), allow_remote=playground.allow_remote)
        return Route(f"/playground{path}", closed, methods=[*methods] or ["GET"])

    async def response_url(request: Request) -> Response:
        fault = playground.slack_faults.next("response_url")
        if fault and (early := await playground.web_api.fault_before(fault, "response_url", {})):
            return early
        response = await respond(playground.workspace, request)
        return await playground.web_api.fault_after(fault, response) if fault else response

    return [
        # for the service
        route("/slack/api/{method}", playground.web_api.answer, "GET", "POST"),
        route("/slack/response/{key}", response_url, "POST"),
        # JSON
        route("/slack/messages", surface.messages),
        route("/slack/click", surface.click, "POST"),
        route("/slack/submit", surface.submit, "POST"),
        route("/slack/close", surface.close, "POST"),
        route("/slack/command", surface.command, "POST"),
        route("/slack/shortcut", surface.shortcut, "POST"),
        route("/slack/write", surface.write, "POST"),
        route("/slack/home", surface.home),
        route("/slack/steps", surface.steps, "GET", "POST"),
        route("/slack/calls", surface.calls),
        route("/slack/groups", surface.groups, "GET", "POST"),
        route("/slack/limits", surface.limits, "POST"),
        route("/slack/faults", surface.faults_of(playground.slack_faults), "GET", "POST", "DELETE"),
        route("/mail/messages", surface.mails),
        route("/mail/faults", surface.faults_of(playground.mail_faults), "GET", "POST", "DELETE"),
        route("/http/requests", surface.requests),
        route("/http/faults", surface.faults_of(playground.target_faults), "GET", "POST", "DELETE"),
        route("/http/{name}", playground.targets.answer, "GET", "POST", "PUT", "PATCH", "DELETE"),
        route("/clock", surface.clock, "POST"),
        # pages
        *(route(path, endpoint, *methods) for path, endpoint, methods in pages.table()),
        Mount("/playground/static", StaticFiles(packages=[("approvals_bot.playground", "static")])),
    ]


class AsciiJson(JSONResponse):
    """JSON in ASCII, since its content may have lone surrogates, which UTF-8 can't encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


class Body(BaseModel):
    """A test's request body. An unknown key is a mistake in the test."""

    model_config = ConfigDict(extra="forbid")


class Click(Body):
    user: str
    channel: str = ""
    ts: str = ""
    view_id: str = ""
    button: str = ""
    action_id: str = ""
    block_id: str = ""
    value: Any = None
    values: dict[str, dict[str, Any]] | None = None


class Submit(Body):
    user: str
    view_id: str
    values: dict[str, dict[str, Any]] = {}


class Close(Body):
    user: str
    view_id: str
    clear: bool = False


class Command(Body):
    user: str
    channel: str
    command: str
    text: str = ""


class Shortcut(Body):
    user: str
    callback_id: str
    channel: str = ""
    ts: str = ""


class StepRun(Body):
    function: str
    inputs: dict[str, Any] = {}


# No twin of Message: a test sends it, and Slack makes the message of it.
class Written(Body):
    user: str
    channel: str
    text: str
    thread_ts: str = ""


class Members(Body):
    group: str
    members: list[str]


class Limits(Body):
    on: bool


class ClockAdvance(Body):
    advance: str


class JsonApi:
    """The JSON API, through which tests do what people do on the pages."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.space = playground.workspace
        self.person = playground.person
        self.screen = playground.person.screen

    async def messages(self, request: Request) -> Response:
        """List the messages in their newest state, oldest first.

        `?channel=` limits them to a channel, `?user=` to those that this user can see.
        """
        shown = sorted(self.space.messages.values(), key=lambda m: (m.ts, m.channel))
        if where := request.query_params.get("channel"):
            shown = [m for m in shown if m.channel == self.screen.place(where).id]
        if name := request.query_params.get("user"):
            reader = self.screen.user(name).id
            shown = [
                m
                for m in shown
                if reader in self.space.channels[m.channel].members and m.ephemeral_to in (None, reader)
            ]
        return AsciiJson(
            [
                {
                    "channel": m.channel,
                    "channel_name": self.space.channels[m.channel].label,
                    "ts": m.ts,
                    "thread_ts": m.thread_ts,
                    "user": m.user,
                    "text": m.text,
                    "blocks": list(m.blocks),
                    "ephemeral_to": m.ephemeral_to,
                    "edited": m.edited,
                    "metadata": m.metadata,
                    "notified": list(m.notified),
                }
                for m in shown
            ]
        )

    async def click(self, request: Request) -> Response:
        asked = await body_of(request, Click)
        outcome = await self.person.click(
            self.screen.user(asked.user),
            channel=asked.channel,
            ts=asked.ts,
            view_id=asked.view_id,
            button=asked.button,
            action_id=asked.action_id,
            block_id=asked.block_id,
            value=asked.value,
            values=asked.values,
        )
        return AsciiJson(outcome.as_json())

    async def submit(self, request: Request) -> Response:
        asked = await body_of(request, Submit)
        outcome = await self.person.submit(self.screen.user(asked.user), asked.view_id, asked.values)
        return AsciiJson(outcome.as_json())

    async def close(self, request: Request) -> Response:
        asked = await body_of(request, Close)
        outcome = await self.person.close(self.screen.user(asked.user), asked.view_id, clear=asked.clear)
        return AsciiJson(outcome.as_json())

    async def command(self, request: Request) -> Response:
        asked = await body_of(request, Command)
        user = self.screen.user(asked.user)
        outcome = await self.person.command(user, asked.channel, asked.command, asked.text)
        return AsciiJson(outcome.as_json())

    async def shortcut(self, request: Request) -> Response:
        asked = await body_of(request, Shortcut)
        user = self.screen.user(asked.user)
        outcome = await self.person.shortcut(user, asked.callback_id, asked.channel, asked.ts)
        return AsciiJson(outcome.as_json())

    async def write(self, request: Request) -> Response:
        """Write a message as a person does; with `thread_ts`, a reply in that thread."""
        asked = await body_of(request, Written)
        user = self.screen.user(asked.user)
        message, ack = await self.person.write(user, asked.channel, asked.text, asked.thread_ts)
        return AsciiJson({"channel": message.channel, "ts": message.ts, "status": ack.status, "ack_ms": ack.ms})

    async def home(self, request: Request) -> Response:
        """Open the Home tab as a person does, and return the view that the app published for them."""
        user = self.screen.user(request.query_params.get("user", ""))
        view = await self.person.open_home(user)
        shown = self.space.view_json(view) if view else None
        blocks = view.blocks if view else []
        return AsciiJson({"user": user.id, "view": shown, "blocks": blocks, "text": "\n".join(words_in(blocks))})

    async def steps(self, request: Request) -> Response:
        """List the executions of steps of Workflow Builder. POST runs a step."""
        if request.method == "GET":
            return AsciiJson([asdict(one) for one in self.space.executions.values()])
        asked = await body_of(request, StepRun)
        running, ack = await self.person.run_step(asked.function, asked.inputs)
        return AsciiJson({"id": running.id, "status": ack.status, "ack_ms": ack.ms})

    async def calls(self, request: Request) -> Response:
        """List the service's Web API calls, newest last."""
        return AsciiJson(
            [
                {"at": c.at.isoformat(), "method": c.method, "arguments": c.arguments, "answer": c.answer}
                for c in self.playground.web_api.seen
            ]
        )

    async def groups(self, request: Request) -> Response:
        """List the user groups. POST changes a group's members."""
        if request.method == "POST":
            asked = await body_of(request, Members)
            if asked.group.removeprefix("@") not in {group.handle for group in self.space.groups.values()}:
                known = ", ".join(f"@{g.handle}" for g in self.space.groups.values()) or "none"
                raise NoSuchThingError(f"There is no user group {asked.group!r}; there are: {known}.")
            self.space.set_group(asked.group, [self.screen.user(one).address for one in asked.members])
        return AsciiJson([group.as_json(self.space.app.team_id, True) for group in self.space.groups.values()])

    async def limits(self, request: Request) -> Response:
        """Switch Slack's rate limits on or off."""
        self.playground.web_api.rates.on = (await body_of(request, Limits)).on
        return AsciiJson({"on": self.playground.web_api.rates.on})

    def faults_of(self, faults: Faults) -> Endpoint:
        """Script faults (POST), list the pending ones (GET), or remove them (DELETE)."""

        async def endpoint(request: Request) -> Response:
            if request.method == "DELETE":
                faults.clear()
            elif request.method == "POST":
                for fault in read_faults(await json_of(request)):
                    faults.add(fault)
            names = ("kind", "method", "channel", "nth", "times", "error", "retry_after", "seconds", "code")
            return AsciiJson([{name: getattr(fault, name) for name in names} for fault in faults.pending()])

        return endpoint

    async def mails(self, request: Request) -> Response:
        return AsciiJson([mail.as_json() for mail in self.playground.mailbox.mails])

    async def requests(self, request: Request) -> Response:
        return AsciiJson([received.as_json() for received in self.playground.targets.received])

    async def clock(self, request: Request) -> Response:
        """Move the service's clock forward."""
        asked = await body_of(request, ClockAdvance)
        if self.playground.advance is None:
            raise CannotDoError("This service's clock can't be moved.")
        try:
            now = await self.playground.advance(asked.advance)
        except ValueError as wrong:
            return problem(422, f"The clock can't be moved by {asked.advance!r}: {wrong}")
        return AsciiJson({"now": now.isoformat()})


async def body_of(request: Request, model: type[M]) -> M:
    return model.model_validate(await json_of(request))


async def json_of(request: Request) -> Any:
    body = await request.body()
    if len(body) > LARGEST_BODY:
        raise CannotDoError(f"The body is over {LARGEST_BODY:,} bytes.")
    return json.loads(body)


def remembered(endpoint: Endpoint, playground: Playground) -> Endpoint:
    """Wrap an endpoint to answer only after its changes were written, and then to say so to open pages."""

    async def kept(request: Request) -> Response:
        try:
            return await endpoint(request)
        finally:
            playground.remember()
            if request.method not in ("GET", "HEAD"):
                playground.ring()

    return kept


def explained(endpoint: Callable[[Request], Awaitable[Response]]) -> Endpoint:
    """Wrap an endpoint to answer errors with a sentence."""

    async def explaining(request: Request) -> Response:
        try:
            return await endpoint(request)
        except NoSuchThingError as missing:
            return problem(404, str(missing))
        except CannotDoError as refused:
            return problem(409, str(refused))
        except ValidationError as wrong:
            lines = (f"{'.'.join(str(p) for p in e['loc']) or 'body'}: {e['msg']}" for e in wrong.errors())
            return problem(422, "; ".join(lines))
        except json.JSONDecodeError as broken:
            return problem(400, f"The body is not JSON: {broken}")

    return explaining


def guarded(endpoint: Endpoint, *, allow_remote: bool) -> Endpoint:
    """Wrap an endpoint to refuse other machines, unless remote callers are allowed."""

    async def checked(request: Request) -> Response:
        if not allow_remote and not is_local(request):
            return problem(403, "The playground can only be used from the machine it runs on (loopback).")
        if request.method not in ("GET", "HEAD") and not is_same_origin(request):
            return problem(403, "The playground refuses requests from other sites' pages.")
        return await endpoint(request)

    return checked


def is_local(request: Request) -> bool:
    """Check the peer and the Host header, since a foreign name may resolve to 127.0.0.1."""
    peer = request.client.host if request.client else ""
    return is_loopback(peer) and is_loopback_host(request.headers.get("host", ""))


def is_same_origin(request: Request) -> bool:
    """Check that this comes from a page of ours, or from no page at all, as far as the browser says.

    Another port of this machine is another origin. Under our `no-referrer`, browsers send `Origin: null` with our own
    forms; those without Sec-Fetch-Site send it with everybody's, so there it isn't enough.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin in (None, f"http://{request.headers.get('host')}")


def problem(status: int, detail: str) -> Response:
    """Return an error as JSON (RFC 9457)."""
    titles = {400: "Bad request", 403: "Not allowed", 404: "Not found", 409: "Not possible", 422: "Wrong input"}
    body = {"type": "about:blank", "title": titles.get(status, "Error"), "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")
