"""`/runs/{id}`: what people did, the timeline by actor, and for viewers what each step got and gave, and the log.

People whom a run's request concerns see what happened and when. What steps took in and gave back, their errors, and the
log are for viewers. Operators find there what can be done about a run. A webhook's URL is shown to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.acts import Actor, read_actor
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.plain_text import one_line
from approvals_bot.approvals.published import REQUEST
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.durable.core.events import Event, is_whole_step
from approvals_bot.durable.core.serialization import without_tags
from approvals_bot.durable.engine import RunRecord
from approvals_bot.durable.engine.near_limits import near_limits
from approvals_bot.service.history import Span, failure_of, history_of
from approvals_bot.service.read import iso, redact, request_of, requests_of
from approvals_bot.service.repairs import act_of, why_not_again
from approvals_bot.service.step_words import STEPS
from approvals_bot.service.waiting import Mask, Wait, waits_of
from approvals_bot.web.admission import DEVELOPER
from approvals_bot.web.api import run_json
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.guard import audited_peer_of
from approvals_bot.web.pages import NO_VIEWER, PeoplePages
from approvals_bot.web.responses import JsonResponse, Problem, pretty
from approvals_bot.web.timeline import by_actor, draw, in_words

MOST_EVENTS = 200  # of the log on a page, the newest; the JSON has all
MOST_STEPS = 200  # spans on a page
LONGEST_VALUE = 4_000  # characters of one input or result on a page
LONGEST_INPUT = 80  # characters of an input beside its step
DONE = {
    "cancelled": "The run was asked to cancel.",
    "woken": "Its sleeps are over, and it goes on.",
    "retried": "The run tries again with the code that is deployed.",
    "attempted": "This is the new run, with the same input.",
    "reset": "This run goes on in the place of the one that was reset.",
    "resumed": "The payload was delivered.",
}
"""What an operator has just done, at the top of the page that it led to."""


@dataclass(frozen=True, slots=True)
class RunReader:
    """The person at a run's page. `address` is None only on a developer's machine, where everybody may do all."""

    address: str | None
    session: str = ""
    is_viewer: bool = False
    is_operator: bool = False

    @property
    def name(self) -> str:
        return self.address or DEVELOPER.id

    def actor(self, request: HttpRequest) -> Actor:
        if self.address is None:
            return DEVELOPER
        return Actor("person", self.address, session=self.session, peer=audited_peer_of(request.scope))


@dataclass(frozen=True, slots=True)
class ShownStep:
    """A span in the list by actor. `given`, `result` and `trace` are for viewers."""

    words: str
    ending: str
    span: Span
    given: str = ""
    result: str = ""

    @property
    def has_details(self) -> bool:
        return bool(self.given or self.result or self.span.attempts)


class RunPages:
    """`/runs/{id}` and `/runs/{id}.json`."""

    def __init__(self, desk: WebDesk, readers: PeoplePages) -> None:
        self._engine, self._people, self._tokens = desk.engine, desk.people, desk.tokens
        self._sessions, self._roles, self._forms, self._login = desk.sessions, desk.roles, desk.forms, desk.login
        self._navigation, self._pages = desk.navigation, desk.pages
        self._now, self._open = desk.now, desk.open_pages
        self._readers = readers

    async def show(self, request: HttpRequest) -> Response:
        """Show one run: what people did, its timeline, what it waits for, and what an operator can do.

        For a run that has continued as a new one, this is the page of that one, unless `?own` is asked for.
        """
        reader = await self.reader_at(request)
        if isinstance(reader, Response):
            return reader
        record = await self._engine.record(request.path_params["id"])
        if record is None:
            raise Problem(404)
        if record.status == "continued" and "own" not in request.query_params:
            return RedirectResponse(await self._engine.last(record.id), 303)
        return await self.page(request, reader, record, said=DONE.get(request.query_params.get("done", ""), ""))

    async def as_json(self, request: HttpRequest) -> Response:
        """Return the run and its log as JSON, for viewers: what the page's link copies."""
        reader = await self.reader_at(request)
        if isinstance(reader, Response):
            return reader
        if not reader.is_viewer:
            return await self._for_viewers(reader)
        if await self._engine.record(request.path_params["id"]) is None:
            raise Problem(404)
        record, log = await self._engine.read(request.path_params["id"])
        hide = self._mask(record, log)
        return JsonResponse(hide(redact(run_json(record))) | {"events": [_line(event, hide) for event in log]})

    async def reader_at(self, request: HttpRequest) -> RunReader | Response:
        """Return who may read this run's page; else the page that they get. Raises SourceUnavailable."""
        if self._open:
            return RunReader(await self._sessions.who(request), is_viewer=True, is_operator=True)
        session = await self._sessions.find(request)
        if session is None:
            return await self._login.instead_of(request)
        roles = await self._roles.of(session.person)
        reader = RunReader(session.person, session.id, "viewer" in roles, "operator" in roles)
        id = request.path_params["id"]
        if (
            reader.is_viewer
            or await self._readers.may_open(id, session.person)
            or await self._began(id, session.person)
        ):
            return reader
        return await self._for_viewers(reader)

    async def _began(self, id: str, person: str) -> bool:
        """Return whether this person has started the run themselves, by its form."""
        found = await self._engine.store.read(id)
        actor = None if found is None else read_actor(found[1][0].data.get("actor"))
        return actor is not None and actor.kind == "person" and actor.id == person

    async def _for_viewers(self, reader: RunReader) -> Response:
        nav = await self._navigation.of(reader.address)
        return self._pages.page("error.html", 403, title="This page is for viewers", detail=NO_VIEWER, nav=nav)

    async def page(
        self,
        request: HttpRequest,
        reader: RunReader,
        record: RunRecord,
        status: int = 200,
        *,
        said: str = "",
        refused: bool = False,
        wrong: Mapping[str, str] | None = None,
        values: Mapping[str, str] | None = None,
    ) -> Response:
        """Show this run to this reader. `values`: a form that came back; `wrong`: what is wrong with it, by input."""
        record, log = await self._engine.read(record.id)
        requests = requests_of(record)
        history = history_of(log, called=self._called(record), requests={one.hook_id: one.title for one in requests})
        waits = waits_of(record, log, self._engine.steps_in_line(record, log))
        hide, end = self._mask(record, log, waits), record.ended_at or self._now()
        view = request_of(record) if record.kind == REQUEST else None
        card = card_of(view, reader.address, self._now()) if view is not None else None
        shown = history.spans[-MOST_STEPS:]
        return self._pages.page(
            "run.html",
            status,
            nav=await self._navigation.of(reader.address),
            here="/runs",
            zone=self._people.person(reader.address).zone if reader.address else "UTC",
            live=live_run(record.id) if status == 200 else "",  # what a form led to has no address to read again
            reader=reader,
            record=record,
            row={"record": record, "card": card},
            title=card.title if card is not None else record.workflow,
            age=end - record.created_at,
            failure=failure_of(log) if reader.is_viewer else None,
            requests=[(one, card_of(one, None, self._now())) for one in requests if one.number],
            entries=[entry for entry in history.entries if entry.by_people],
            drawing=draw(history.spans, start=record.created_at, end=end),
            actors=[(actor, [self._step(each, end, reader, hide) for each in own]) for actor, own in by_actor(shown)],
            left_out=len(history.spans) - len(shown),
            events=[pretty(_line(event, hide)) for event in log[-MOST_EVENTS:]] if reader.is_viewer else [],
            events_left_out=max(len(log) - MOST_EVENTS, 0),
            published=pretty(hide(redact(without_tags(record.view))))
            if record.view is not None and reader.is_viewer
            else "",
            result=pretty(hide(redact(without_tags(record.result))))
            if record.result is not None and reader.is_viewer
            else "",
            near_limits=near_limits(record, self._engine.max_waiting) if reader.is_viewer else (),
            lines=[wait.in_words for wait in waits if wait.kind == "limit"],
            children=[wait.more for wait in waits if wait.kind == "child"],
            calls=[(wait, self._address_of(wait)) for wait in waits if wait.token],
            offers=self._offers(request, record, log, waits) if reader.is_operator else None,
            form_token=self._forms.make(request, "run") if reader.is_operator else "",
            said=said,
            refused=refused,
            wrong=wrong or {},
            values=values or {},
        )

    def _called(self, record: RunRecord) -> Callable[[str], str]:
        """Return how people are called on this page: as the run's requests know them."""
        names = {address: person.name for view in requests_of(record) for address, person in view.people.items()}
        return lambda address: names.get(address) or self._name(address)

    def _name(self, address: str) -> str:
        return self._people.person(address).name if "@" in address else address

    def _mask(
        self, record: RunRecord, log: Sequence[Event], waits: Sequence[Wait] | None = None
    ) -> Callable[[Any], Any]:
        waits = waits_of(record, log) if waits is None else waits
        return (lambda value: value) if self._open else Mask(self._tokens, waits)

    def _address_of(self, wait: Wait) -> str:
        """Return where a developer calls this hook or webhook. In production, anybody who has that could resume it."""
        if not self._open:
            return ""
        return self._engine.link(wait.hook_id) if wait.kind == "webhook" else wait.token

    def _step(self, span: Span, end: datetime, reader: RunReader, hide: Callable[[Any], Any]) -> ShownStep:
        if reader.is_viewer and span.actor == STEPS and (given := _briefly(hide(redact(span.given)))):
            span = replace(span, label=f"{span.label}: {given}")
        words = in_words(span, end)
        if not reader.is_viewer or span.kind != "step":
            return ShownStep(words, span.ending, span if reader.is_viewer else _without_values(span))
        return ShownStep(words, span.ending, span, _value(span.given, hide), _value(span.result, hide))

    def _offers(
        self, request: HttpRequest, record: RunRecord, log: Sequence[Event], waits: Sequence[Wait]
    ) -> dict[str, Any]:
        """Return what an operator can do about this run now, and what it would do."""
        is_open = not record.has_ended
        return {
            "cancel": is_open,
            "is_request": (view := request_of(record)) is not None and view.is_open,
            "sleeps": [datetime.fromisoformat(str(wait.more["until"])) for wait in waits if wait.kind == "sleep"],
            "again": act_of(record.status, None) if why_not_again(record) is None else "",
            "reset": record.next_run is None,
            "preview": preview_of(log, request.query_params.get("to", "")),
            "last": len(log),
            "hooks": [wait for wait in waits if wait.token] if record.workflow != CHAT_WORKFLOW else [],
        }


def live_run(run_id: str) -> str:
    """Return the path of the stream that follows this run."""
    return f"/live?{urlencode({'run': run_id})}"


@dataclass(frozen=True, slots=True)
class ResetPreview:
    """What a reset to an event would do: the steps that run again, and how many messages since are kept."""

    to: int
    again: tuple[str, ...]
    kept: int


def preview_of(log: Sequence[Event], to: str) -> ResetPreview | None:
    """Return what a reset to this event would do; None for what is no event of the log."""
    if not (to.isascii() and to.isdecimal() and len(to) < 10 and 1 <= int(to) <= len(log)):
        return None
    later = log[int(to) :]
    over = {event.data["id"] for event in later if event.type in ("step_completed", "step_failed")}
    begun = [event.data["id"] for event in log if event.type == "step_created" or is_whole_step(event)]
    labels = [span.label for span in history_of(log).spans if span.kind == "step"]
    again = tuple(label for number, label in zip(begun, labels, strict=True) if number in over)
    return ResetPreview(int(to), again, sum(event.type == "hook_received" for event in later))


def _line(event: Event, hide: Callable[[Any], Any]) -> dict[str, Any]:
    return {"seq": event.seq, "type": event.type, "at": iso(event.at), "data": hide(redact(event.data))}


def _briefly(given: Any) -> str:
    """Return the plain values of a step's input, in short: what it was done with."""
    values = given.values() if isinstance(given, dict) else ()
    return one_line(", ".join(str(value) for value in values if isinstance(value, str | int | float)), LONGEST_INPUT)


def _value(value: Any, hide: Callable[[Any], Any]) -> str:
    if value is None:
        return ""
    text = pretty(hide(redact(without_tags(value))))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}\n… the JSON has all of it"


def _without_values(span: Span) -> Span:
    return replace(span, name="", given=None, result=None, attempts=())
