"""The pages for a person: Slack as each user sees it, the mailbox, and what the service sent. Forms only, no script."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote, urlencode

import aiohttp
from jinja2 import Environment, PackageLoader
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from approvals_bot.playground.forms import Notice, detail_of, field, inputs_of, notice_of, values_of
from approvals_bot.playground.guard import Endpoint
from approvals_bot.playground.mailbox import ReceivedMail
from approvals_bot.playground.playground import Playground
from approvals_bot.playground.readers import Reader, Readers
from approvals_bot.playground.rendering import Rendering
from approvals_bot.playground.seed import Sample
from approvals_bot.playground.slack.inputs import initial, options_of
from approvals_bot.playground.slack.person import CannotDoError, NoSuchThingError

# The mail page shows mails with their own inline styles, in a sandboxed frame that inherits this policy.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
Row = tuple[str, Endpoint, tuple[str, ...]]


class PlaygroundPages:
    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.space = playground.workspace
        self.readers = Readers(playground.people, playground.workspace)
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
        return [(path, self.told(endpoint), methods) for path, endpoint, methods in rows]

    def told(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with its errors told on a page: where a form stood, or on one of their own."""

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

    # ── looking ──

    async def front(self, request: Request) -> Response:
        return self.page("front.html", request, samples=self.playground.samples)

    async def channel(self, request: Request) -> Response:
        reader = self.readers.reader(request.query_params.get("as"))
        place = self.space.channels.get(request.path_params["id"])
        if place is None or (place.private and (reader.user is None or reader.user.id not in place.members)):
            raise NoSuchThingError(f"{reader.person.name} sees no such channel.")
        return self.page("channel.html", request, place=place, threads=self.readers.threads(place, reader))

    async def home(self, request: Request) -> Response:
        reader = self.readers.reader(request.query_params.get("as"))
        view = await self.playground.person.open_home(reader.user) if reader.user else None
        return self.page("home.html", request, view=view)

    async def mailbox(self, request: Request) -> Response:
        reader = self.readers.reader(request.query_params.get("as"))
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

    # ── acting: each form sends the real payload, then shows the page again ──

    async def click(self, request: Request) -> Response:
        form, reader = await self.form_of(request)
        ts, view_id = field(form, "ts"), field(form, "view_id")
        block_id, action_id = field(form, "block_id"), field(form, "action_id")
        if pressed := field(form, "pressed"):  # in a modal, whose inputs are a form already
            block_id, action_id = (unquote(part) for part in pressed.split("/"))
        outcome = await self.playground.person.click(
            self.readers.user_of(reader),
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
        user, view_id = self.readers.user_of(reader), field(form, "view_id")
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
            self.readers.user_of(reader), field(form, "channel"), field(form, "command"), field(form, "text")
        )
        self.notices[reader.key] = notice_of(outcome, "")
        return self.back(form)

    async def shortcut(self, request: Request) -> Response:
        form, reader = await self.form_of(request)
        outcome = await self.playground.person.shortcut(self.readers.user_of(reader), field(form, "callback_id"))
        self.notices[reader.key] = notice_of(outcome, "")
        return self.back(form)

    async def sample(self, request: Request) -> Response:
        """Open one of the sample requests, by the same API that any program uses."""
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
            self.notices[reader.key] = Notice(f"The clock stands where it stood: {wrong}", refused=True)
        else:
            self.notices[reader.key] = Notice(f"The clock was moved by {field(form, 'advance')}.")
        return self.back(form)

    async def open_run(self, sample: Sample) -> Notice:
        url = f"{self.playground.base_url}/api/runs"
        try:
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {sample.api_key}"}) as session,
                session.post(url, json=sample.body) as answer,
            ):
                said = await answer.text()
                opened = answer.status in (200, 202)
        except aiohttp.ClientError as lost:
            return Notice(f"The service can't be reached: {lost}", refused=True)
        if opened:
            return Notice(f"Opened: {sample.title}. Look at the channels, the Home tab and the mailbox.")
        return Notice(f"The API answered {answer.status}: {detail_of(said)}", refused=True)

    # ── what every page shows ──

    def page(self, template: str, request: Request, **more: Any) -> Response:
        reader = self.readers.reader(request.query_params.get("as"))
        user = reader.user
        places = [c for c in self.space.channels.values() if user and (not c.private or user.id in c.members)]
        query = request.url.query
        shown = self.templates.get_template(template).render(
            reader=reader,
            people=self.readers.everybody(),
            channels=[place for place in places if not place.with_user],
            dm=self.space.direct_message(user) if user else None,
            modal=self.space.top_modal(user.id) if user else None,
            notice=self.notices.pop(reader.key, None),
            waiting_mails=sum(is_for(mail, reader) for mail in self.playground.mailbox.mails),
            users=self.space.users,
            app=self.space.app,
            draw=Rendering(self.readers.name_of, reader.person.zone, self.playground.now()),
            now=self.playground.now(),
            can_tick=self.playground.advance is not None,
            here=request.url.path,
            back=request.url.path + (f"?{query}" if query else ""),
            me=urlencode({"as": reader.key}),
            mail_only=user is None,
            **more,
        )
        return HTMLResponse(shown, headers=HEADERS)

    async def form_of(self, request: Request) -> tuple[FormData, Reader]:
        form = await request.form()
        return form, self.readers.reader(field(form, "as"))

    def back(self, form: FormData, anchor: str = "") -> Response:
        """To the page that the form stood on; only ever to one of the playground's own."""
        wanted = field(form, "back")
        path = (
            wanted if wanted == "/playground" or wanted.startswith(("/playground?", "/playground/")) else "/playground"
        )
        return RedirectResponse(path + (f"#{anchor}" if anchor else ""), 303)


def framed(letter: str) -> str:
    """The mail with its links leading out of the frame; the doctype stays first, so that it is drawn as in a mail."""
    with_base, changed = re.subn(r"(<head[^>]*>)", r'\1<base target="_top">', letter, count=1, flags=re.IGNORECASE)
    return with_base if changed else f'<base target="_top">{letter}'


def is_for(mail: ReceivedMail, reader: Reader) -> bool:
    return reader.person.address.lower() in mail.to.lower().split(", ")
