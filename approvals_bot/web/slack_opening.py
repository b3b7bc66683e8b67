"""Opening requests from Slack: `/approve`, the shortcut and the Home tab lead to a form; the form opens the request.

Who asks is whoever sent the form. May she, and does it fit, is decided by `open_run`, as for every other channel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import RequestView
from approvals_bot.channels import phrases
from approvals_bot.channels.slack.client import SlackClient, SlackError
from approvals_bot.channels.slack.elements import escape
from approvals_bot.channels.text import one_line
from approvals_bot.config.workflow import Definition
from approvals_bot.engine import Engine, Run
from approvals_bot.errors import ApprovalsBotError, IdempotencyConflictError, InvalidPayloadError
from approvals_bot.people import SourceUnavailable
from approvals_bot.web import slack_forms as forms
from approvals_bot.web import slack_views as views
from approvals_bot.web.afterwards import Afterwards
from approvals_bot.web.listing import Workflows
from approvals_bot.web.opening import may_open, open_run
from approvals_bot.web.problems import Problem, problem_of
from approvals_bot.web.requests import request_of
from approvals_bot.web.slack_inputs import plain
from approvals_bot.web.slack_teller import Place, SlackTeller
from approvals_bot.web.slack_who import Identified, SlackIdentities, Unidentified, team_of

LOOK_LIMIT = 0.6  # seconds for asking live groups what somebody may open; sending the form asks again
OPEN_LIMIT = 1.2  # seconds for opening a modal; its trigger is good for 3 from the command
NEWS_WITHIN = 3.0  # seconds until a new request shows its title
LOOK_EVERY = 0.05  # seconds

NOT_OPENED = "Slack could not open the form just now. Nothing was asked. Please try again."
NOT_YOURS = "There is no “{name}” that you may ask for. Nothing was asked."
NOT_OURS = "This form is not one of ours any more. Nothing was asked."
NOT_SAVED = "It could not be saved just now. Nothing was asked. Please send it again."
STRANGER = "We can't tell who that is, so nothing was asked. Choose somebody of this workspace, or nobody."
CONFLICT = "This was already asked, with other values. Nothing was changed."

log = logging.getLogger(__name__)


class SlackOpening:
    """Every method returns within about two seconds; `workflows` is replaced when the configuration is read anew."""

    def __init__(
        self,
        *,
        engine: Engine,
        client: SlackClient,
        identities: SlackIdentities,
        workflows: Workflows | None,
        teller: SlackTeller,
        afterwards: Afterwards,
        base_url: str,
    ) -> None:
        self.workflows = workflows
        self._engine = engine
        self._client = client
        self._identities = identities
        self._teller = teller
        self._afterwards = afterwards
        self._base_url = base_url.rstrip("/")

    # ── on the way to a form ──────────────────────────────────────────────────────────────────────────────────────

    async def typed(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """`/approve` lists what she may ask for, `/approve deploy` opens that form. Returns what the command answers;
        {} for nothing.
        """
        who = await self._identities.who(str(payload.get("user_id") or ""), _text(payload.get("team_id")))
        if isinstance(who, Unidentified):
            return _alone(who.text)
        name = str(payload.get("text") or "").strip()
        if not name:
            return _listed("", await self._names(who))
        definition = await self._definition(name, who)
        if definition is None:
            return _listed(NOT_YOURS.format(name=name[:80]), await self._names(who))
        return _alone(await self._open_form(payload, definition, who, str(payload.get("channel_id") or "")))

    async def chosen(self, payload: Mapping[str, Any]) -> None:
        """The shortcut, or a button that names a workflow, or the Home tab's button that names none."""
        place = Place.of(payload)
        who = await self._identities.who(place.user, team_of(payload))
        actions = payload.get("actions") or [{}]
        name = str(actions[0].get("action_id") or "").removeprefix(forms.OPEN)
        if isinstance(who, Unidentified):
            said = await self._open(payload, views.said_modal(who.text))
        elif name:
            said = await self._chosen_by_name(payload, name, who, place)
        else:
            said = await self._choose(payload, who)
        if said:
            self._teller.tell(place, said)

    async def _chosen_by_name(self, payload: Mapping[str, Any], name: str, who: Identified, place: Place) -> str:
        definition = await self._definition(name, who)
        if definition is None:
            return await self._open(payload, views.said_modal(NOT_YOURS.format(name=name[:80])))
        return await self._open_form(payload, definition, who, place.channel)

    async def _choose(self, payload: Mapping[str, Any], who: Identified) -> str:
        names = await self._names(who)
        definition = await self._definition(names[0], who) if len(names) == 1 else None
        if definition is not None:
            return await self._open_form(payload, definition, who, "")
        return await self._open(payload, forms.chooser(names))

    async def _open_form(
        self, payload: Mapping[str, Any], definition: Definition, who: Identified, channel: str
    ) -> str:
        asker = self._identities.people.person(who.address).name
        try:
            view = forms.form(definition, forms.Form(definition.id, channel), asker)
        except ValueError as too_long:
            return str(too_long)
        return await self._open(payload, view)

    async def _open(self, payload: Mapping[str, Any], view: dict[str, Any]) -> str:
        """Show the modal; in place of the list, where she chose from that. Returns what to say if Slack would not."""
        shown = payload.get("view") or {}
        try:
            async with asyncio.timeout(OPEN_LIMIT):
                if shown.get("type") == "modal":
                    await self._client.ask("views.update", view_id=str(shown["id"]), view=view)
                else:
                    await self._client.ask("views.open", trigger_id=str(payload.get("trigger_id") or ""), view=view)
        except (SlackError, TimeoutError) as failure:
            log.warning("A form could not be opened: %s", failure if isinstance(failure, SlackError) else "time-out")
            return NOT_OPENED
        return ""

    async def _names(self, who: Identified) -> list[str]:
        """What this person may ask for. Where a group can't be asked now, the form is offered: sending it decides."""
        names = sorted(self.workflows.names()) if self.workflows is not None else []
        found = await asyncio.gather(*(self._definition(name, who) for name in names))
        return [definition.id for definition in found if definition is not None]

    async def _definition(self, name: str, who: Identified) -> Definition | None:
        listed = self.workflows.find(name) or self.workflows.find(name.lower()) if self.workflows is not None else None
        if listed is None or listed.definition is None:  # what no file describes says nothing of who may ask
            return None
        try:
            async with asyncio.timeout(LOOK_LIMIT):
                may = await may_open(listed.definition, who.address, self._identities.people)
        except (SourceUnavailable, TimeoutError):
            may = True
        return listed.definition if may else None

    # ── the form comes back ───────────────────────────────────────────────────────────────────────────────────────

    async def submitted(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """Open the request. Returns Slack's `response_action`, or None to close the form. Sending it again changes
        nothing: one form opens one request.
        """
        view = payload["view"]
        user = str((payload.get("user") or {}).get("id") or "")
        try:
            form = forms.Form.load(str(view.get("private_metadata") or ""))
        except (ValueError, KeyError, TypeError):
            return _say(NOT_OURS)
        who = await self._identities.who(user, team_of(payload))
        if isinstance(who, Unidentified):
            return _say(who.text)
        listed = self.workflows.find(form.workflow) if self.workflows is not None else None
        if listed is None or listed.definition is None:
            return _say(NOT_OURS)
        values = (view.get("state") or {}).get("values") or {}
        given, named = forms.filled_in(listed.definition, values)
        behalf = await self._identities.who(named, None) if named else None
        if isinstance(behalf, Unidentified):
            return _errors(values, [{"loc": ["on_behalf_of"], "msg": STRANGER}], STRANGER)
        try:
            run = await open_run(
                engine=self._engine,
                workflows=self.workflows,  # type: ignore[arg-type]  # it listed the form's workflow
                people=self._identities.people,
                name=form.workflow,
                input=given,
                opener=who.address,
                on_behalf_of=behalf.address if behalf is not None else None,
                idempotency_key=None if listed.definition.workflow.key else f"slack:{view.get('id')}",
            )
        except InvalidPayloadError as unfit:
            return _errors(values, unfit.errors, str(unfit))
        except IdempotencyConflictError:
            return _errors(values, (), CONFLICT)
        except ApprovalsBotError as error:
            problem = problem_of(error) or Problem(503, detail=NOT_SAVED)
            log.warning("A form was refused: HTTP %d", problem.status)
            return _errors(values, problem.errors, _reason(problem))
        place = Place(user, form.channel)
        self._afterwards.do(self._tell_opened(place, run, who.address, listed.is_approval))
        return None

    async def _tell_opened(self, place: Place, run: Run[Any], address: str, is_approval: bool) -> None:
        """An ephemeral where she typed the command, else a direct message: what was asked, and the way to it."""
        said = "" if run.is_new else "This was already asked. "
        url = f"{self._base_url}/{'requests' if is_approval else 'runs'}/{run.id}"
        said += await self._state_of(run.id, address) if is_approval else "It was started."
        await self._teller.tell_now(place, said, forms.opened(said, url), or_directly=True)

    async def _state_of(self, run_id: str, address: str) -> str:
        """`⏳ Waiting: Deploy api 2.1. Waiting for Ann Ode.`, as soon as the new request says so of itself."""
        view: RequestView | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(NEWS_WITHIN):
                while view is None or (view.is_open and not view.waiting_for):  # nobody has been asked yet
                    await asyncio.sleep(LOOK_EVERY)
                    record = await self._engine.record(run_id)
                    view = request_of(record) if record is not None else None
        if view is None:
            return "Your request was opened."
        card = card_of(view, address, self._engine.now())
        state = phrases.outcome(card.outcome) if card.outcome else phrases.state(card)
        waiting = phrases.waiting_for(card)
        return f"{state}: {card.title}." + (f" {waiting}." if waiting else "")


def _reason(problem: Problem) -> str:
    match problem.status:
        case 403:
            return "You may not ask for this. Nothing was asked."
        case 422 | 409:
            return problem.detail
        case _:
            return NOT_SAVED


def _errors(values: Mapping[str, Any], errors: Any, otherwise: str) -> dict[str, Any]:
    """Said in the form, which keeps what was filled in; a form without inputs is replaced by the sentence."""
    found = forms.complaints(values, errors, otherwise)
    return {"response_action": "errors", "errors": found} if found else _say(otherwise)


def _say(text: str) -> dict[str, Any]:
    return {"response_action": "update", "view": views.said_modal(text)}


def _alone(text: str) -> dict[str, Any]:
    return {"response_type": "ephemeral", "text": escape(text)} if text else {}


def _listed(text: str, names: list[str]) -> dict[str, Any]:
    said = f"{text} {forms.CHOOSE if names else forms.NOTHING}".strip()
    blocks = forms.choices(names)
    if text:
        blocks = [{"type": "section", "text": plain(one_line(text, 300))}, *blocks]
    return {"response_type": "ephemeral", "text": escape(said), "blocks": blocks}


def _text(value: Any) -> str | None:
    return str(value) if value else None
