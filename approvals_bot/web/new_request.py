"""`/requests/new`: a person opens a request in their browser, by the form that the workflow's fields make.

`open_run` decides whether they may and whether the values fit, as for every other channel. What they have typed stays
in the form until the request is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.break_glass import SHORTEST_REASON
from approvals_bot.approvals.files import LARGEST_FILE
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import Definition
from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.people import SourceUnavailable
from approvals_bot.service.attempts import change_counter
from approvals_bot.service.emergencies import is_fresh, may_break_glass, written_reason
from approvals_bot.service.forms import FormCode, FormRefused, SentForm, open_form
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.open import may_open
from approvals_bot.service.refusals import OpeningRefused
from approvals_bot.web.charts import draw_stages
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.filled_forms import (
    NOT_ALL,
    REASON_FAULT,
    FilledForm,
    empty_form,
    read_filled,
    with_faults,
    with_field_faults,
    with_files,
    with_preview,
)
from approvals_bot.web.form_tokens import mark_of
from approvals_bot.web.responses import Problem
from approvals_bot.web.sessions import actor_at
from approvals_bot.web.validation import LINK_BODY, read_form, read_form_fields

SHOW_APPROVERS = "approvers"
KEPT_FOR = timedelta(hours=1)  # what was typed when the session was over

STALE = "This page was open too long, so nothing was sent. Check what you have typed, then send it again."
SENT_BEFORE = "This form was sent before, with other values, and made a request. Open a new form for another one."
SIGN_IN_AGAIN = (
    "Going without a vote needs a sign-in of the last ten minutes. Nothing was sent yet; what you have typed is kept."
)
SESSION_OVER = "Nothing was sent yet: your session was over. Check what you have typed, then send it."


class NewRequest:
    """`/requests/new`, `/requests/new/{workflow}` and `POST /requests`."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._people, self._workflows = desk.engine, desk.people, desk.workflows
        self._sessions, self._forms, self._login = desk.sessions, desk.forms, desk.login
        self._navigation, self._pages, self._root = desk.navigation, desk.pages, desk.root

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
            raise Problem(404)
        kept = await self._kept(request.query_params.get("kept", ""), definition, session.person)
        return await self._form(request, session, definition, kept or empty_form(definition))

    async def send(self, request: HttpRequest) -> Response:
        """Open the request: 303 to it. What doesn't fit is said beside its field, and nothing is lost."""
        session = await self._sessions.find(request)
        if session is None:
            return await self._keep(request, await read_form(request))
        sent_fields = await read_form_fields(request, LARGEST_FILE + LINK_BODY)
        form = {name: sent_fields.text(name) for name in sent_fields}
        definition = await self._offered(form.get("workflow", ""), session)
        if definition is None:
            raise Problem(404)
        filled = read_filled(definition, form)
        if not self._forms.is_ours(request, "request", form.get("form_token", "")):
            return await self._form(request, session, definition, replace(filled, said=STALE), 403)
        if filled.is_emergency and SHOW_APPROVERS not in form:
            if not await self._may_break_glass(definition, session):
                refused = OpeningRefused("emergency_not_allowed", who=session.person, workflow=definition.id)
                return await self._form(request, session, definition, replace(filled, said=refused.detail), 403)
            if not is_fresh(session, self._engine.now()):
                return await self._keep(request, form, SIGN_IN_AGAIN)
            if len(written_reason(filled.reason)) < SHORTEST_REASON:
                filled = replace(filled, wrong={REASON_FAULT: f"write at least {SHORTEST_REASON} characters"})
        filled = await with_files(filled, definition, sent_fields, self._engine, session.person)
        if filled.wrong:
            filled = with_field_faults(filled, definition, self._people.person(session.person).numbers)
            return await self._form(request, session, definition, filled, 422)
        if SHOW_APPROVERS in form:
            reader = self._people.person(session.person)
            previewed = await with_preview(filled, definition, self._people, reader, session.person, self._engine)
            return await self._form(request, session, definition, previewed)
        sent = SentForm(
            definition,
            filled.texts,
            session.person,
            actor_at(request, session),
            f"page:{filled.once}",
            filled.behalf or None,
            filled.reason if filled.is_emergency else None,
        )
        try:
            run = await open_form(self._engine, self._workflows, self._people, sent)
        except FormRefused as refused:
            said = {"unfit": NOT_ALL if refused.errors else refused.detail, "sent_before": SENT_BEFORE}
            found = with_faults(filled, definition, refused.errors, said.get(refused.code, refused.detail))
            return await self._form(request, session, definition, found, _STATUS.get(refused.code, 422))
        page = f"requests/{run.id}" if definition.is_approval else f"runs/{run.id}"
        return RedirectResponse(f"{self._root}/{page}", 303)

    async def _may_break_glass(self, definition: Definition, session: SessionRow) -> bool:
        """Return whether to offer this person to go without a vote. While a group can't be read, sending decides."""
        try:
            return await may_break_glass(definition, session.person, self._people)
        except SourceUnavailable:
            return True

    async def _keep(self, request: HttpRequest, form: Mapping[str, str], why: str = "") -> Response:
        """Keep what was typed while the session ended, and lead back to it after signing in.

        `why`: the reason for which a person who has a session has to sign in again.

        Only a form that we have shown to this browser is kept, one of each workflow, so nobody can fill the store.
        """
        listed = self._workflows.find(form.get("workflow", ""))
        owner = self._forms.owner_of(request, "request", form.get("form_token", ""))
        if listed is None or not owner:
            return await self._login.instead_of(request)
        id, until = self._forms.name_of(request, f"kept {form['workflow']}"), self._engine.now() + KEPT_FOR
        typed = {name: form[name] for name in form if name != "form_token"}
        kept = {"by": owner, "until": to_micros(until), "form": typed}
        await change_counter(self._engine, _counter(id), until, lambda _: kept)
        path = f"/requests/new/{quote(form['workflow'])}?{urlencode({'kept': id})}"
        return self._login.and_back(request, path, why)

    async def _kept(self, id: str, definition: Definition, person: str) -> FilledForm | None:
        """Return what this person typed before they had to sign in again; nobody else's link fills in their form."""
        row = await self._engine.store.counter(_counter(id)) if id else None
        state: Mapping[str, Any] = row.state if row is not None else {}
        if state.get("by") != mark_of(person) or state["until"] <= to_micros(self._engine.now()):
            return None
        if state["form"].get("workflow") != definition.id:
            return None
        return replace(read_filled(definition, state["form"]), said=SESSION_OVER)

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

    async def _form(
        self, request: HttpRequest, session: SessionRow, definition: Definition, filled: FilledForm, status: int = 200
    ) -> Response:
        return await self._page(
            "new_form.html",
            session,
            status,
            title=readable(definition.id),
            form_token=self._forms.make(request, "request", session.person),
            may_break_glass=await self._may_break_glass(definition, session),
            shortest_reason=SHORTEST_REASON,
            drawing=draw_stages(definition, self._engine.now(), self._people.person),
            **filled.shown(definition, self._people.person(session.person)),
        )

    async def _page(self, template: str, session: SessionRow, status: int = 200, **values: Any) -> Response:
        zone = self._people.person(session.person).zone
        nav = await self._navigation.of(session.person)
        return self._pages.page(template, status, nav=nav, here="/requests/new", zone=zone, **values)


_STATUS: Mapping[FormCode, int] = {"group_unknown": 503, "sent_before": 409, "emergency_not_allowed": 403}
"""What a refused form is in HTTP; all others are faults of the input, 422."""


def _counter(id: str) -> str:
    return f"form {id[:64]}"
