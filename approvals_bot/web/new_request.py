"""`/requests/new`: a person opens a request in their browser, by the form that the workflow's fields make.

`open_run` decides whether they may and whether the values fit, as for every other channel. What they have typed stays
in the form until the request is made.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals import fields
from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.errors import IdempotencyConflictError, InvalidPayloadError, SerializationError
from approvals_bot.people import AddressError, People, SourceUnavailable
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.open import may_open, open_run
from approvals_bot.service.refusals import OpeningRefused
from approvals_bot.web.form_tokens import FormTokens
from approvals_bot.web.guard import peer_of
from approvals_bot.web.login import Login
from approvals_bot.web.navigation import Navigation
from approvals_bot.web.responses import Renderer
from approvals_bot.web.sessions import SessionCookies
from approvals_bot.web.validation import read_form

FIELD = "field."  # what the names of inputs begin with, so that no field's name is one of the form's own
BEHALF = "on_behalf_of"
ONCE = "once"  # the form's key: sent twice, it makes one request
SHOW_APPROVERS = "approvers"

STALE = "This page was open too long, so nothing was sent. Check what you have typed, then send it again."
SENT_BEFORE = "This form was sent before, with other values, and made a request. Open a new form for another one."
NEEDS_A_FILE = "This request needs a file, which this form can't send. Please use the API."
NOT_ALL = "Nothing was sent yet. Please correct what is marked."
NOT_ADDRESSED = "not an email address"


@dataclass(frozen=True, slots=True)
class FilledForm:
    """What a person has typed. `wrong`: what is wrong with a field, by its name; `said`: what is wrong with the whole.

    `preview`: who would be asked, if that was wanted.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    behalf: str = ""
    once: str = ""
    said: str = ""
    wrong: Mapping[str, str] = field(default_factory=dict)
    preview: Mapping[str, Any] | None = None


class NewRequest:
    """`/requests/new`, `/requests/new/{workflow}` and `POST /requests`."""

    def __init__(
        self,
        *,
        engine: Engine,
        people: People,
        workflows: Catalog,
        sessions: SessionCookies,
        forms: FormTokens,
        login: Login,
        pages: Renderer,
        navigation: Navigation,
        root: str,
    ) -> None:
        self._engine = engine
        self._people = people
        self._workflows = workflows
        self._sessions = sessions
        self._forms = forms
        self._login = login
        self._pages = pages
        self._navigation = navigation
        self._root = root

    async def choose(self, request: HttpRequest) -> Response:
        """List the workflows that this person may request."""
        session = await self._sessions.find(request)
        if session is None:
            return await self._login.instead_of(request)
        found = [each for name in sorted(self._workflows.names()) if (each := await self._offered(name, session))]
        return await self._page("new.html", session, workflows=found, readable=readable)

    async def show(self, request: HttpRequest) -> Response:
        """Show a workflow's form, empty. To people who may not request it there is no such page."""
        session = await self._sessions.find(request)
        if session is None:
            return await self._login.instead_of(request)
        definition = await self._offered(request.path_params["workflow"], session)
        if definition is None:
            return self._pages.page("not_found.html", 404)
        return await self._form(
            request, session, definition, FilledForm(_defaults(definition), once=secrets.token_urlsafe(16))
        )

    async def send(self, request: HttpRequest) -> Response:
        """Open the request: 303 to it. What doesn't fit is said beside its field, and nothing is lost."""
        session, form = await self._sessions.find(request), await read_form(request)
        if session is None:
            return await self._login.instead_of(request)
        definition = await self._offered(form.get("workflow", ""), session)
        if definition is None:
            return self._pages.page("not_found.html", 404)
        texts = {name: form.get(FIELD + name, "") for name in fields.sendable(definition.fields)}
        filled = FilledForm(texts, form.get(BEHALF, "").strip(), form.get(ONCE, "") or secrets.token_urlsafe(16))
        if not self._forms.is_ours(request, "request", form.get("form_token", "")):
            return await self._form(request, session, definition, replace(filled, said=STALE), 403)
        if SHOW_APPROVERS in form:
            return await self._form(request, session, definition, await self._previewed(session, definition, filled))
        try:
            run = await open_run(
                engine=self._engine,
                workflows=self._workflows,
                people=self._people,
                name=definition.id,
                input=self._input(session, definition, filled),
                opener=session.person,
                on_behalf_of=filled.behalf or None,
                idempotency_key=None if definition.workflow.key else f"page:{filled.once}",
                actor=Actor("person", session.person, session=session.id, peer=peer_of(request.scope)),
            )
        except InvalidPayloadError as unfit:
            return await self._form(
                request, session, definition, _refused(definition, filled, unfit.errors, NOT_ALL), 422
            )
        except OpeningRefused as refused:
            found = _refused(definition, filled, refused.errors, refused.detail)
            return await self._form(
                request, session, definition, found, 503 if refused.code == "group_unknown" else 422
            )
        except SerializationError as error:
            return await self._form(request, session, definition, replace(filled, said=str(error)), 422)
        except IdempotencyConflictError:
            return await self._form(request, session, definition, replace(filled, said=SENT_BEFORE), 409)
        return RedirectResponse(f"{self._root}/{'requests' if definition.is_approval else 'runs'}/{run.id}", 303)

    async def _offered(self, name: str, session: SessionRow) -> Definition | None:
        """Return the workflow if this person may request it. While a group can't be read, sending the form decides."""
        listed = self._workflows.find(name)
        if listed is None or listed.definition is None or listed.definition.is_tool_call:
            return None
        try:
            is_known = await self._engine.resources[KnownPeople].knows(session.person)
            may = is_known and await may_open(listed.definition, [session.person], self._people)
        except SourceUnavailable:
            may = True
        return listed.definition if may else None

    def _input(self, session: SessionRow, definition: Definition, filled: FilledForm) -> dict[str, JsonValue]:
        numbers = self._people.person(session.person).numbers
        typed = fields.from_texts(definition.fields, filled.texts, numbers)
        return {name: value for name, value in typed.items() if filled.texts.get(name) or value is False}

    async def _previewed(self, session: SessionRow, definition: Definition, filled: FilledForm) -> FilledForm:
        """Return the form with the people who would be asked; nothing is sent to anybody."""
        try:
            behalf = self._people.canonical(filled.behalf) if filled.behalf else None
        except AddressError:
            return replace(filled, said=NOT_ALL, wrong={BEHALF: NOT_ADDRESSED})
        opening = Opening(self._input(session, definition, filled), session.person, behalf)
        try:
            found = await simulate(definition, opening, self._people, self._engine.now())
        except InvalidPayloadError as unfit:
            return _refused(definition, filled, unfit.errors, NOT_ALL)
        named = {each["person"]: self._people.person(each["person"]).name for each in found["who"]}
        return replace(filled, preview=found | {"names": named})

    async def _form(
        self, request: HttpRequest, session: SessionRow, definition: Definition, filled: FilledForm, status: int = 200
    ) -> Response:
        person = self._people.person(session.person)
        sendable = fields.sendable(definition.fields)
        shown = (fields.form_field(name, spec, spec.default) for name, spec in sendable.items())
        if any(spec.required and name not in sendable for name, spec in definition.fields.items()):
            filled = replace(filled, said=NEEDS_A_FILE)
        return await self._page(
            "new_form.html",
            session,
            status,
            definition=definition,
            title=readable(definition.id),
            person=person,
            asks=fields.in_format_of(person.numbers, tuple(shown)),
            filled=filled,
            values={FIELD + name: text for name, text in filled.texts.items()},
            form_token=self._forms.make(request, "request"),
        )

    async def _page(self, template: str, session: SessionRow, status: int = 200, **values: Any) -> Response:
        zone = self._people.person(session.person).zone
        nav = await self._navigation.of(session.person)
        return self._pages.page(template, status, nav=nav, here="/requests/new", zone=zone, **values)


def _defaults(definition: Definition) -> dict[str, str]:
    """Return what the inputs of an empty form have in them."""
    of = fields.sendable(definition.fields)
    return {name: fields.form_field(name, spec, spec.default).value for name, spec in of.items()}


def _refused(
    definition: Definition, filled: FilledForm, errors: Sequence[Mapping[str, Any]], otherwise: str
) -> FilledForm:
    """Return the form with each error beside its field; what is about no field is said above the form."""
    wrong, loose = dict[str, str](), list[str]()
    for error in errors:
        name = next((str(part) for part in error["loc"] if part in definition.fields or part == BEHALF), None)
        if name is None:
            loose.append(str(error["msg"]))
        else:
            wrong.setdefault(name, str(error["msg"]))
    return replace(filled, said=" ".join([NOT_ALL if wrong else otherwise, *loose]), wrong=wrong)
