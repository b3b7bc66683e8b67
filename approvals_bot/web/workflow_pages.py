"""`/workflows`: what can be requested, how it is decided, how long that takes, and what would happen.

A workflow's page is for people who may request it, and for viewers: of everything, or of this workflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import digest
from approvals_bot.people import AddressError, Person, SourceUnavailable
from approvals_bot.service.catalog import Listed
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.open import may_open
from approvals_bot.service.schedules import read_schedules
from approvals_bot.service.workflow_figures import MOST_OPEN, count_open, read_figures
from approvals_bot.web.admission import Admission, Visitor
from approvals_bot.web.charts import clip, condition_text, decision_chart, draw_stages, open_chart, seconds_in_words
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.filled_forms import FilledForm, empty_form, read_filled, with_preview
from approvals_bot.web.form_tokens import NAME as FORM_TOKEN
from approvals_bot.web.responses import Problem
from approvals_bot.web.validation import read_form

NEXT_SHOWN = 3  # of a schedule's next times
HERE = "/workflows"

STALE = "This page was open too long. Check what you have typed, then simulate it again."
NO_REQUESTER = "Nothing was simulated: name the requester by one email address."


class WorkflowPages:
    """`/workflows`, `/workflows/{name}`, `POST /workflows/{name}/simulation`."""

    def __init__(self, desk: WebDesk, admission: Admission, texts: Mapping[str, str]) -> None:
        """`texts`: of the workflows' files, by workflow."""
        self._engine, self._people, self._workflows = desk.engine, desk.people, desk.workflows
        self._roles, self._forms = desk.roles, desk.forms
        self._admission, self._texts = admission, texts

    async def list(self, request: HttpRequest) -> Response:
        """List the workflows that this person may request or see."""
        visitor = await self._admission.admit(request, None)
        if isinstance(visitor, Response):
            return visitor
        names = [name for name in sorted(self._workflows.names()) if await self._may_see(name, visitor)]
        rows = [await self._row(name, visitor) for name in names]
        return await self._admission.show(visitor, "workflows.html", HERE, rows=rows)

    async def show(self, request: HttpRequest) -> Response:
        """Show one workflow. To people who may neither request nor see it, there is none."""
        visitor = await self._admission.admit(request, None)
        if isinstance(visitor, Response):
            return visitor
        return await self._page(request, visitor, None)

    async def simulate(self, request: HttpRequest) -> Response:
        """Show the same page with what would happen if these fields were sent. Nothing is sent, or written."""
        visitor = await self._admission.admit(request, None)
        if isinstance(visitor, Response):
            return visitor
        return await self._page(request, visitor, await read_form(request))

    async def _page(self, request: HttpRequest, visitor: Visitor, form: Mapping[str, str] | None) -> Response:
        name = request.path_params["name"]
        listed = self._workflows.find(name)
        if listed is None or not await self._may_see(name, visitor):
            raise Problem(404)
        definition, sees_all = listed.definition, await self._admission.has(visitor, "viewer")
        figures = await read_figures(self._engine, name)
        values: dict[str, Any] = {
            "name": name,
            "title": readable(name),
            "definition": definition,
            "program": listed.definition is None or listed.definition.workflow.run is not None,
            "drawing": None if definition is None else draw_stages(definition, self._engine.now(), self._people.person),
            "may_request": await self._may_request(listed, visitor),
            "figures": figures,
            "opens": open_chart(figures.days),
            "decisions": decision_chart(figures.days),
            "in_words": seconds_in_words,
            "clip": clip,
            "condition_text": condition_text,
            "digest": "" if definition is None else digest(definition),
            "text": self._texts.get(name, ""),
            "schedules": await read_schedules(self._engine, [] if definition is None else [definition], NEXT_SHOWN),
            "sees_all": sees_all,
        }
        status = 200
        if definition is not None and definition.is_approval and not definition.is_tool_call:
            requester = (form or {}).get("requester", "").strip() if sees_all else ""
            filled, status = await self._simulated(request, visitor, listed, form, requester)
            reader = self._reader(visitor)
            values |= filled.shown(definition, reader)
            values |= {"form_token": self._forms.make(request, "simulation"), "requester": requester or reader.address}
        return await self._admission.show(visitor, "workflow.html", HERE, status, **values)

    async def _simulated(
        self, request: HttpRequest, visitor: Visitor, listed: Listed, form: Mapping[str, str] | None, requester: str
    ) -> tuple[FilledForm, int]:
        """Return the form with what came of it, and its status."""
        definition = listed.definition
        assert definition is not None, "only a workflow with a form is simulated"
        if form is None:
            return empty_form(definition), 200
        filled = read_filled(definition, form)
        if not self._forms.is_ours(request, "simulation", form.get(FORM_TOKEN, "")):
            return replace(filled, said=STALE), 403
        reader = self._reader(visitor)
        try:
            by = self._people.canonical(requester or reader.address)
        except AddressError:
            return replace(filled, said=NO_REQUESTER), 422
        found = await with_preview(filled, definition, self._people, reader, by, self._engine)
        return found, 200 if found.preview is not None else 422

    def _reader(self, visitor: Visitor) -> Person:
        """Return the visitor; on a developer's machine, somebody without a name."""
        return self._people.person(visitor.address) if visitor.address else Person("", "")

    async def _may_see(self, name: str, visitor: Visitor) -> bool:
        """Return whether this person may see the workflow. Raises SourceUnavailable."""
        listed = self._workflows.find(name)
        if listed is None:
            return False
        if await self._admission.has(visitor, "viewer") or await self._may_request(listed, visitor):
            return True
        if visitor.address is None or listed.definition is None:
            return False
        about = listed.definition.workflow
        concerned = [one for one in (*(about.viewers or ()), *(about.owners or ())) if not one.startswith("app:")]
        return bool(concerned) and await self._roles.is_among(visitor.address, concerned)

    async def _may_request(self, listed: Listed, visitor: Visitor) -> bool:
        if visitor.address is None or listed.definition is None or listed.definition.is_tool_call:
            return False
        try:
            is_known = await self._engine.resources[KnownPeople].knows(visitor.address)
            return is_known and await may_open(listed.definition, [visitor.address], self._people)
        except SourceUnavailable:
            return False

    async def _row(self, name: str, visitor: Visitor) -> dict[str, Any]:
        listed = self._workflows.find(name)
        assert listed is not None, "it was listed"
        definition, count = listed.definition, await count_open(self._engine, name)
        stages = () if definition is None else definition.stage
        return {
            "name": name,
            "title": readable(name),
            "description": definition.workflow.description if definition is not None else "",
            "stages": [stage.title or readable(stage.id) for stage in stages],
            "kind": "tool calls" if definition is not None and definition.is_tool_call else "Python",
            "open": f"{count:,}" if count < MOST_OPEN else f"{count:,} or more",
            "may_request": await self._may_request(listed, visitor),
        }
