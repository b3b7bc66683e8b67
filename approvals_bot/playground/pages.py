"""The playground's pages: Slack as each user sees it, the mailbox, and what the service sent. Forms, no scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode

import aiohttp
from jinja2 import Environment, PackageLoader
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from approvals_bot.playground.mailbox import ReceivedMail
from approvals_bot.playground.playground import Playground, Sample
from approvals_bot.playground.rendering import Rendering
from approvals_bot.playground.slack.payloads import initial, options_of
from approvals_bot.playground.slack.person import ActOutcome, CannotDoError, NoSuchThingError
from approvals_bot.playground.slack.shapes import Conversation, Message, User, View
from approvals_bot.playground.slack.workspace import Workspace

# The mail page shows mails with their inline styles, in a sandboxed frame that inherits this policy.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
Endpoint = Callable[[Request], Awaitable[Response]]
Row = tuple[str, Endpoint, tuple[str, ...]]


class PlaygroundPages:
    """Pages and forms, each for a reader: the person that `?as=` or the form names."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.space = playground.workspace
        self.notices: dict[str, Notice] = {}  # reader → shown once
        self.templates = Environment(
            loader=PackageLoader("approvals_bot.playground"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals |= {
            "initial": initial,
            "options_of": options_of,
            "quote": lambda one: quote(one, safe=""),
        }

    def table(self) -> list[Row]:
        read, write = ("GET",), ("POST",)
        rows: list[Row] = [
            ("", self.front, read),
            ("/channels/{id}", self.channel, read),
            ("/home", self.home, read),
            ("/mailbox", self.mailbox, read),
            ("/mailbox/{id}", self.mail, read),
            ("/wire", self.wire, read),
            ("/clicks", self.click, write),
            ("/submissions", self.submit, write),
            ("/commands", self.command, write),
            ("/shortcuts", self.shortcut, write),
            ("/samples", self.sample, write),
            ("/ticks", self.tick, write),
        ]
        return [(path, self.explained(endpoint), methods) for path, endpoint, methods in rows]

    def explained(self, endpoint: Endpoint) -> Endpoint:
        """Wrap an endpoint to show its errors on the form's own page, or on an error page."""

        async def page(request: Request) -> Response:
            try:
                return await endpoint(request)
            except (NoSuchThingError, CannotDoError) as trouble:
                status = 404 if isinstance(trouble, NoSuchThingError) else 409
                if request.method == "POST":
                    form = await request.form()
                    self.notices[field(form, "as")] = Notice(str(trouble), refused=True)
                    return self.back(form)
                text = self.templates.get_template("trouble.html").render(text=str(trouble))
                return HTMLResponse(text, status, headers=HEADERS)

        return page

    # looking

    async def front(self, request: Request) -> Response:
        return self.page("front.html", request, samples=self.playground.samples)

    async def channel(self, request: Request) -> Response:
        reader = self.reader(request.query_params.get("as"))
        place = self.space.channels.get(request.path_params["id"])
        if place is None or (place.private and (reader.key not in place.members)):
            raise NoSuchThingError(f"{reader.name} can't see a channel with this name.")
        return self.page("channel.html", request, place=place, threads=threads_in(self.space, place, reader))

    async def home(self, request: Request) -> Response:
        reader = self.reader(request.query_params.get("as"))
        view = await self.playground.person.open_home(reader) if reader.in_slack else None
        return self.page("home.html", request, view=view)

    async def mailbox(self, request: Request) -> Response:
        reader = self.reader(request.query_params.get("as"))
        everybody = "all" in request.query_params
        mails = [m for m in reversed(self.playground.mailbox.mails) if everybody or is_for(m, reader)]
        return self.page("mailbox.html", request, mails=mails, everybody=everybody)

    async def mail(self, request: Request) -> Response:
        mail = self.playground.mailbox.find(request.path_params["id"])
        if mail is None:
            raise NoSuchThingError("There is no such mail.")
        return self.page("mail.html", request, mail=mail, letter=framed(mail.html))

    async def wire(self, request: Request) -> Response:
        return self.page(
            "wire.html",
            request,
            requests=list(reversed(self.playground.targets.received))[:50],
            calls=list(reversed(self.playground.web_api.seen))[:100],
            faults=self.playground.slack_faults.pending(),
        )

    # acting: each form sends the real payload, then shows the page again

    async def click(self, request: Request) -> Response:
        form, reader = await self.form_of(request)
        ts, view_id = field(form, "ts"), field(form, "view_id")
        block_id, action_id = field(form, "block_id"), field(form, "action_id")
        if pressed := field(form, "pressed"):  # in a modal, whose inputs are a form already
            block_id, action_id = (unquote(part) for part in pressed.split("/"))
        outcome = await self.playground.person.click(
            self.in_slack(reader),
            channel=field(form, "channel"),
            ts=ts,
            view_id=view_id,
            action_id=action_id,
            block_id=block_id,
            value=values_of(form, "value"),
        )
        self.notices[reader.key] = notice_of(outcome, ts or view_id)
        if outcome.url:
            return RedirectResponse(outcome.url, 303)
        return self.back(form, f"m{ts}".replace(".", "") if ts else "")

    async def submit(self, request: Request) -> Response:
        form, reader = await self.form_of(request)
        user, view_id = self.in_slack(reader), field(form, "view_id")
        if field(form, "do") == "close":
            await self.playground.person.close(user, view_id)
            return self.back(form)
        outcome = await self.playground.person.submit(user, view_id, inputs_of(form, self.space.views.get(view_id)))
        if outcome.seen != "errors":
            self.notices[reader.key] = notice_of(outcome, view_id)
        return self.back(form)

    async def command(self, request: Request) -> Response:
        form, reader = await self.form_of(request)
        outcome = await self.playground.person.command(
            self.in_slack(reader), field(form, "channel"), field(form, "command"), field(form, "text")
        )
        self.notices[reader.key] = notice_of(outcome, "")
        return self.back(form)

    async def shortcut(self, request: Request) -> Response:
        form, reader = await self.form_of(request)
        outcome = await self.playground.person.shortcut(self.in_slack(reader), field(form, "callback_id"))
        self.notices[reader.key] = notice_of(outcome, "")
        return self.back(form)

    async def sample(self, request: Request) -> Response:
        """Open a sample request through the API, as any program would."""
        form, reader = await self.form_of(request)
        index = field(form, "sample")
        if not index.isdigit() or int(index) >= len(self.playground.samples):
            raise NoSuchThingError("There is no such sample.")
        sample = self.playground.samples[int(index)]
        self.notices[reader.key] = await self.open_run(sample)
        return self.back(form)

    async def tick(self, request: Request) -> Response:
        form, reader = await self.form_of(request)
        if self.playground.advance is None:
            raise CannotDoError("This service's clock can't be moved.")
        try:
            await self.playground.advance(field(form, "advance"))
        except ValueError as wrong:
            self.notices[reader.key] = Notice(f"The clock wasn't moved: {wrong}", refused=True)
        else:
            self.notices[reader.key] = Notice(f"The clock moved forward by {field(form, 'advance')}.")
        return self.back(form)

    async def open_run(self, sample: Sample) -> Notice:
        url = f"{self.playground.base_url}/api/runs"
        try:
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {sample.api_key}"}) as session,
                session.post(url, json=sample.body) as answer,
            ):
                body = await answer.text()
                opened = answer.status in (200, 202)
        except aiohttp.ClientError as lost:
            return Notice(f"The service can't be reached: {lost}", refused=True)
        if opened:
            return Notice(f"Opened: {sample.title}. Its card is in a channel, the Home tab or the mailbox.")
        return Notice(f"The API answered {answer.status}: {detail_of(body)}", refused=True)

    # what every page shows

    def page(self, template: str, request: Request, **more: Any) -> Response:
        reader = self.reader(request.query_params.get("as"))
        conversations = self.space.channels.values() if reader.in_slack else ()
        places = [one for one in conversations if not one.private or reader.id in one.members]
        query = request.url.query
        shown = self.templates.get_template(template).render(
            reader=reader,
            people=self.playground.people,
            channels=[place for place in places if not place.with_user],
            dm=self.space.direct_message(reader) if reader.in_slack else None,
            modal=self.space.top_modal(reader.key),
            notice=self.notices.pop(reader.key, None),
            waiting_mails=sum(is_for(mail, reader) for mail in self.playground.mailbox.mails),
            users=self.space.users,
            app=self.space.app,
            draw=Rendering(self.space.name_of, reader.person.zone, self.playground.now()),
            now=self.playground.now(),
            can_tick=self.playground.advance is not None,
            here=request.url.path,
            back=request.url.path + (f"?{query}" if query else ""),
            me=urlencode({"as": reader.key}),
            mail_only=not reader.in_slack,
            **more,
        )
        return HTMLResponse(shown, headers=HEADERS)

    def reader(self, key: str | None) -> User:
        """Return the person with this key or address, by default the first one."""
        people = self.playground.people
        if not people:
            raise NoSuchThingError("The playground has no people. Add some to the configuration.")
        if key is None:
            return people[0]
        found = next((one for one in people if key.lower() in (one.key.lower(), one.address.lower())), None)
        if found is None:
            raise NoSuchThingError(f"There is nobody named {key!r} here.")
        return found

    def in_slack(self, reader: User) -> User:
        if not reader.in_slack:
            raise CannotDoError(f"{reader.name} isn't in Slack.")
        return reader

    async def form_of(self, request: Request) -> tuple[FormData, User]:
        form = await request.form()
        return form, self.reader(field(form, "as"))

    def back(self, form: FormData, anchor: str = "") -> Response:
        """Redirect to the page that the form was on, if it is one of the playground's."""
        wanted = field(form, "back")
        path = (
            wanted if wanted == "/playground" or wanted.startswith(("/playground?", "/playground/")) else "/playground"
        )
        return RedirectResponse(path + (f"#{anchor}" if anchor else ""), 303)


@dataclass(frozen=True, slots=True)
class Notice:
    """The result of the reader's last act. `about`: the message's ts or the view's ID."""

    text: str
    refused: bool = False
    about: str = ""
    whisper: str = ""  # the app's reply to this reader alone


def notice_of(outcome: ActOutcome, about: str) -> Notice:
    if outcome.seen == "warning":
        answered = f"answered {outcome.status}" if outcome.status else "didn't answer within 3 seconds"
        return Notice(f"⚠ This didn't work: the app {answered}. Slack would show a warning sign.", True, about)
    return Notice(f"Acknowledged in {outcome.ack_ms} ms.", about=about, whisper=outcome.ephemeral or "")


@dataclass(frozen=True, slots=True)
class Thread:
    """A message with its replies."""

    message: Message
    author: User | None
    said_at: datetime
    replies: tuple[Thread, ...] = ()


def threads_in(space: Workspace, place: Conversation, reader: User) -> list[Thread]:
    """Return the conversation as this reader sees it, with replies under their messages."""
    seen = [message for message in space.messages_in(place.id) if message.ephemeral_to in (None, reader.key)]
    replies: dict[str, list[Thread]] = {}

    def thread(message: Message, under: Sequence[Thread] = ()) -> Thread:
        said_at = datetime.fromtimestamp(float(message.ts), UTC)
        return Thread(message, space.users.get(message.user), said_at, tuple(under))

    for message in seen:
        if message.thread_ts not in (None, message.ts):
            replies.setdefault(str(message.thread_ts), []).append(thread(message))
    return [thread(m, replies.get(m.ts, ())) for m in seen if m.thread_ts in (None, m.ts)]


def framed(letter: str) -> str:
    """Make a mail's links open outside its frame. The doctype stays first, for the same rendering mode."""
    with_base, changed = re.subn(r"(<head[^>]*>)", r'\1<base target="_top">', letter, count=1, flags=re.IGNORECASE)
    return with_base if changed else f'<base target="_top">{letter}'


def is_for(mail: ReceivedMail, reader: User) -> bool:
    return not {reader.address.lower(), reader.person.mailbox.lower()}.isdisjoint(mail.to.lower().split(", "))


def detail_of(problem: str) -> str:
    """Return the detail of a problem document, or else the whole response."""
    try:
        body = json.loads(problem)
    except ValueError:
        return problem[:200]
    return str(body.get("detail") or body.get("title") or body) if isinstance(body, dict) else problem[:200]


def field(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def values_of(form: FormData, name: str) -> Any:
    """Return None, one value, or a list if a menu or checkboxes sent several."""
    given = [value for value in form.getlist(name) if isinstance(value, str) and value]
    return given if len(given) > 1 else (given[0] if given else None)


def inputs_of(form: FormData, view: View | None) -> Mapping[str, Mapping[str, Any]]:
    """Collect the inputs of a modal's form, which are named by their blocks' positions."""
    found: dict[str, dict[str, Any]] = {}
    for index, block in enumerate(view.blocks if view else []):
        if block["type"] == "input":
            value = values_of(form, f"input-{index}")
            if block["element"]["type"] == "datetimepicker" and value:
                value = int(datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp())
            found[block["block_id"]] = {block["element"]["action_id"]: "" if value is None else value}
    return found
