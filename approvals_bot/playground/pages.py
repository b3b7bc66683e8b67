"""The playground's pages: the tour, Slack as each user sees it, the mailbox, and what the service sent.

All is done by forms. A script only asks for the page again when something has changed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode

from jinja2 import Environment, PackageLoader
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.notifier import Feed
from approvals_bot.playground.mailbox import ReceivedMail
from approvals_bot.playground.playground import Playground
from approvals_bot.playground.rendering import Rendering
from approvals_bot.playground.slack.payloads import initial, options_of
from approvals_bot.playground.slack.person import ActOutcome, CannotDoError, NoSuchThingError
from approvals_bot.playground.slack.shapes import Conversation, Message, User, View
from approvals_bot.playground.slack.workspace import Workspace
from approvals_bot.playground.tour import Newest, newest_card
from approvals_bot.service.sessions import id_of
from approvals_bot.web.guard import cookie_of
from approvals_bot.web.sessions import COOKIE

HEARTBEAT = 15.0  # seconds
RETRY = 1_000  # milliseconds before a browser connects again
TOGETHER = 0.1  # seconds in which changes are one
MOST_SAMPLES = 6  # shown at once; the others are folded

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
LIVE_HEADERS = HEADERS | {
    "content-security-policy": HEADERS["content-security-policy"] + "; script-src 'self'; connect-src 'self'"
}
Endpoint = Callable[[Request], Awaitable[Response]]
Row = tuple[str, Endpoint, tuple[str, ...]]


class PlaygroundPages:
    """Pages and forms, each for a reader: the person that `?as=` or the form names."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.space = playground.workspace
        self.notices: dict[str, Notice] = {}  # reader → shown on the next page that they open
        self.shown: dict[str, Notice] = {}  # reader → shown on that page, also when its script asks for it again
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
            ("/live", self.live, read),
            ("/clicks", self.click, write),
            ("/submissions", self.submit, write),
            ("/commands", self.command, write),
            ("/shortcuts", self.shortcut, write),
            ("/samples", self.sample, write),
            ("/answers", self.answer, write),
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
        reader, newest = await self.reader_of(request), await self.playground.api.newest()
        card = newest_card(self.space, newest.id, reader) if newest is not None and reader.in_slack else None
        samples = list(await self.playground.samples())
        return await self.page(
            "front.html",
            request,
            samples=samples[:MOST_SAMPLES],
            more_samples=samples[MOST_SAMPLES:],
            newest=newest,
            card=self.thread_of(card) if card is not None else None,
            place=self.space.channels[card.channel] if card is not None else None,
            approvers=self.named(newest.waiting_for) if newest is not None else {},
            mailed=self.mails_about(newest, reader),
        )

    async def channel(self, request: Request) -> Response:
        reader = await self.reader_of(request)
        place = self.space.channels.get(request.path_params["id"])
        if place is None or (place.private and (reader.key not in place.members)):
            raise NoSuchThingError(f"{reader.name} can't see a channel with this name.")
        return await self.page("channel.html", request, place=place, threads=threads_in(self.space, place, reader))

    async def home(self, request: Request) -> Response:
        reader = await self.reader_of(request)
        view = await self.playground.person.open_home(reader) if reader.in_slack else None
        return await self.page("home.html", request, view=view)

    async def mailbox(self, request: Request) -> Response:
        reader = await self.reader_of(request)
        everybody = "all" in request.query_params
        mails = [m for m in reversed(self.playground.mailbox.mails) if everybody or is_for(m, reader)]
        return await self.page("mailbox.html", request, mails=mails, everybody=everybody)

    async def mail(self, request: Request) -> Response:
        mail = self.playground.mailbox.find(request.path_params["id"])
        if mail is None:
            raise NoSuchThingError("There is no such mail.")
        return await self.page("mail.html", request, live=False, mail=mail, letter=framed(mail.html))

    async def wire(self, request: Request) -> Response:
        return await self.page(
            "wire.html",
            request,
            requests=list(reversed(self.playground.targets.received))[:50],
            calls=list(reversed(self.playground.web_api.seen))[:100],
            faults=self.playground.slack_faults.pending(),
        )

    async def live(self, request: Request) -> Response:
        """Say that something has changed, here or in the service. What has changed is on the pages."""
        engine = self.playground.engine
        if engine is None:
            raise NoSuchThingError("These pages don't change in place.")
        headers = {"cache-control": "no-cache, no-transform"}
        return StreamingResponse(self.changes(engine), media_type="text/event-stream", headers=headers)

    async def changes(self, engine: Engine) -> AsyncIterator[str]:
        with Feed(engine.notifier) as feed:
            self.playground.feeds.add(feed)
            try:
                yield f"retry: {RETRY}\n: open\n\n"
                while not engine.is_ending:
                    try:
                        async with asyncio.timeout(HEARTBEAT):
                            await feed.changed(TOGETHER)
                    except TimeoutError:
                        yield ": nothing new\n\n"
                    else:
                        yield "event: changed\ndata: {}\n\n"
            finally:
                self.playground.feeds.discard(feed)

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
        title = field(form, "sample")
        samples = await self.playground.samples()
        sample = next((each for each in samples if each.title == title and each.body is not None), None)
        if sample is None:
            raise NoSuchThingError("There is no such sample.")
        is_open, said = await self.playground.api.open(sample)
        self.notices[reader.key] = Notice(said, refused=not is_open)
        return self.back(form, "now")

    async def answer(self, request: Request) -> Response:
        """Send a test answer to what the newest run waits for."""
        form, reader = await self.form_of(request)
        newest = await self.playground.api.newest()
        wait = next((each for each in newest.answers if each.url == field(form, "url")), None) if newest else None
        if wait is None:
            raise CannotDoError("The newest run doesn't wait for this any more, so nothing was sent.")
        is_taken, said = await self.playground.api.answer(wait, field(form, "body"))
        self.notices[reader.key] = Notice(said, refused=not is_taken)
        return self.back(form, "now")

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

    # what every page shows

    async def page(self, template: str, request: Request, *, live: bool = True, **more: Any) -> Response:
        signed_in = await self.signed_in(request)
        reader = await self.reader_of(request, signed_in)
        conversations = self.space.channels.values() if reader.in_slack else ()
        places = [one for one in conversations if not one.private or reader.id in one.members]
        query = request.url.query
        live = live and self.playground.engine is not None
        shown = self.templates.get_template(template).render(
            reader=reader,
            people=self.playground.people,
            signed_in=signed_in,
            channels=[place for place in places if not place.with_user],
            dm=self.space.direct_message(reader) if reader.in_slack else None,
            modal=self.space.top_modal(reader.key),
            notice=self.notice_for(reader, request),
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
            live=live,
            **more,
        )
        return HTMLResponse(shown, headers=LIVE_HEADERS if live else HEADERS)

    def notice_for(self, reader: User, request: Request) -> Notice | None:
        """Return the result of the reader's last act, until they open another page."""
        asks_again = request.headers.get("sec-fetch-dest") == "empty"  # our script
        if reader.key in self.notices:
            self.shown[reader.key] = self.notices.pop(reader.key)
        elif not asks_again:
            self.shown.pop(reader.key, None)
        return self.shown.get(reader.key)

    async def signed_in(self, request: Request) -> str:
        """Return the address of the person whose session this browser has; "" if nobody has signed in."""
        token = cookie_of(request.scope, COOKIE)
        if self.playground.engine is None or not token:
            return ""
        row = await self.playground.engine.store.session(id_of(token))
        return row.person if row is not None else ""

    async def reader_of(self, request: Request, signed_in: str | None = None) -> User:
        """Return the person that `?as=` names; else the one who has signed in, and else the first one."""
        if (key := request.query_params.get("as")) is not None:
            return self.reader(key)
        address = await self.signed_in(request) if signed_in is None else signed_in
        return next((one for one in self.playground.people if one.address == address), None) or self.reader(None)

    def named(self, addresses: Sequence[str]) -> dict[str, str]:
        """Return people's names by their addresses. Of people whom only a group has, there is but the address."""
        known = {one.address: one.name for one in self.playground.people}
        return {address: known.get(address, address) for address in addresses}

    def thread_of(self, message: Message) -> Thread:
        said_at = datetime.fromtimestamp(float(message.ts), UTC)
        return Thread(message, self.space.users.get(message.user), said_at)

    def mails_about(self, newest: Newest | None, reader: User) -> ReceivedMail | None:
        """Return the newest mail about this run that the reader got."""
        if newest is None:
            return None
        about = (m for m in reversed(self.playground.mailbox.mails) if is_for(m, reader) and newest.title in m.subject)
        return next(about, None)

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
