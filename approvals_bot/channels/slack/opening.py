"""Opening requests from Slack: `/approve`, the shortcut and the Home tab lead to a form, which opens the request.

The requester is the person who submits the form. `open_run` decides whether they may and whether the input is valid, as
for every other channel.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from approvals_bot.approvals import card_text, fields
from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.fields import form_field
from approvals_bot.approvals.plain_text import clean, clip, one_line, readable
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.text import placed
from approvals_bot.channels.slack import modals as views
from approvals_bot.channels.slack.blocks import Block, escape, plain
from approvals_bot.channels.slack.desk import ReplyTo, SlackDesk, reply_in_modal, submitted_by
from approvals_bot.channels.slack.identity import Identified, Unidentified, team_of
from approvals_bot.channels.slack.modals import INPUT_LIMIT, TITLE_LIMIT, ask_input, given, labelled
from approvals_bot.durable.engine import Run
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.people import Person, SourceUnavailable
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.forms import FormRefused, SentForm, open_form
from approvals_bot.service.open import may_open
from approvals_bot.service.read import request_of
from approvals_bot.service.refusals import OpeningRefused

LOOK_LIMIT = 0.6  # seconds for asking live groups what a person may open; submitting the form asks again
SHOWN_WITHIN = 3.0  # seconds until a new request shows its title
LOOK_EVERY = 0.05  # seconds

NOT_OPENED = "Slack couldn't open the form. No request was made. Please try again."
NOT_YOURS = "You can't request “{name}”. No request was made."
NOT_OURS = "This form is no longer available. No request was made."
NOT_SAVED = "Your request couldn't be saved. Please send it again."
STRANGER = "We can't identify this person, so no request was made. Choose a member of this workspace, or nobody."
STRANGER_NAMED = f"{views.STRANGER} No request was made."
CONFLICT = "This request already exists, with different values. Nothing was changed."

log = logging.getLogger(__name__)

OPEN_VIEW = "open"  # callback ids
CHOOSE_VIEW = "choose"
OPEN = "open:"  # action ids: `open:<workflow>`; `open:` alone lists the workflows
FIELD = "field:"  # block ids: `field:<name>`
BEHALF = "behalf"
CHOOSER = "choose"
LONGEST_FORM = 95  # fields; Slack takes 100 blocks
LISTED = 40  # workflows that are offered at once; others are opened by name
ERROR_LIMIT = 300  # characters below an input
NOTHING = "There's nothing here that you can request."
CHOOSE = "What do you need approval for?"
NEEDS_A_FILE = "This request needs a file, and Slack's forms have none. Please use the API."
TOO_LONG = "This form has too many fields for Slack. Please use the API or the command line."


class SlackOpening:
    """The handlers that open requests, each within about two seconds. `workflows` is replaced on reload."""

    def __init__(self, desk: SlackDesk, workflows: Catalog | None) -> None:
        self.workflows = workflows
        self._desk = desk

    async def typed(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answer `/approve` with a list of workflows, and `/approve deploy` with that form.

        Returns the command's answer; {} for none.
        """
        identity = await self._desk.identities.identify(
            str(payload.get("user_id") or ""), _text(payload.get("team_id"))
        )
        if isinstance(identity, Unidentified):
            return _alone(identity.text)
        name = str(payload.get("text") or "").strip()
        if not name:
            return _listed("", await self._names(identity))
        definition = await self._definition(name, identity)
        if definition is None:
            return _listed(NOT_YOURS.format(name=name[:80]), await self._names(identity))
        return _alone(await self._open_form(payload, definition, identity, str(payload.get("channel_id") or "")))

    async def chosen(self, payload: Mapping[str, Any]) -> None:
        """Answer the shortcut, a workflow's button, or the Home tab's button, which names no workflow."""
        to = ReplyTo.of(payload)
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        actions = payload.get("actions") or [{}]
        name = str(actions[0].get("action_id") or "").removeprefix(OPEN)
        if isinstance(identity, Unidentified):
            said = await self._open(payload, views.reply_modal(identity.text))
        elif name:
            said = await self._chosen_by_name(payload, name, identity, to)
        else:
            said = await self._choose(payload, identity)
        if said:
            self._desk.replies.reply(to, said, or_directly=True)

    async def _chosen_by_name(self, payload: Mapping[str, Any], name: str, identity: Identified, to: ReplyTo) -> str:
        definition = await self._definition(name, identity)
        if definition is None:
            return await self._open(payload, views.reply_modal(NOT_YOURS.format(name=name[:80])))
        return await self._open_form(payload, definition, identity, to.channel)

    async def _choose(self, payload: Mapping[str, Any], identity: Identified) -> str:
        names = await self._names(identity)
        definition = await self._definition(names[0], identity) if len(names) == 1 else None
        if definition is not None:
            return await self._open_form(payload, definition, identity, "")
        return await self._open(payload, chooser(names))

    async def _open_form(
        self, payload: Mapping[str, Any], definition: Definition, identity: Identified, channel: str
    ) -> str:
        requester = self._desk.identities.people.person(identity.address)
        try:
            view = form(definition, Form(definition.id, channel), requester)
        except ValueError as too_long:
            return str(too_long)
        return await self._open(payload, view)

    async def _open(self, payload: Mapping[str, Any], view: dict[str, Any]) -> str:
        """Show the modal. Returns the reply if Slack couldn't, else ""."""
        return "" if await self._desk.is_opened(payload, view) else NOT_OPENED

    async def _names(self, identity: Identified) -> list[str]:
        """Return the workflows that this person may open.

        While a group can't be read, its workflows are listed, too: submitting the form decides.
        """
        names = sorted(self.workflows.names()) if self.workflows is not None else []
        found = await asyncio.gather(*(self._definition(name, identity) for name in names))
        return [definition.id for definition in found if definition is not None]

    async def _definition(self, name: str, identity: Identified) -> Definition | None:
        listed = self.workflows.find(name) or self.workflows.find(name.lower()) if self.workflows is not None else None
        if listed is None or listed.definition is None:  # a workflow without a file doesn't say who may open it
            return None
        if listed.definition.is_tool_call:  # no form has the arguments of every tool
            return None
        try:
            async with asyncio.timeout(LOOK_LIMIT):
                may = await may_open(listed.definition, [identity.address], self._desk.identities.people)
        except (SourceUnavailable, TimeoutError):
            may = True
        return listed.definition if may else None

    async def submitted(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """Open the request. Returns Slack's `response_action`, or None to close the form.

        One form opens one request, however often it is submitted.
        """
        to, values, remembered = submitted_by(payload)
        try:
            form = Form.load(remembered)
        except (ValueError, KeyError, TypeError):
            return reply_in_modal(NOT_OURS)
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified):
            return reply_in_modal(identity.text)
        listed = self.workflows.find(form.workflow) if self.workflows is not None else None
        if listed is None or listed.definition is None:
            return reply_in_modal(NOT_OURS)
        texts, named = filled_in(listed.definition, values)
        people = [name for name, spec in listed.definition.fields.items() if spec.holds_people]
        texts, strangers = await self._desk.identities.addressed(texts, people)
        if strangers:
            return _errors(values, [{"loc": ["input", name], "msg": STRANGER_NAMED} for name in strangers], "")
        behalf = await self._desk.identities.identify(named, None) if named else None
        if isinstance(behalf, Unidentified):
            return _errors(values, [{"loc": ["on_behalf_of"], "msg": STRANGER}], STRANGER)
        sent = SentForm(
            listed.definition,
            texts,
            identity.address,
            Actor("slack", identity.user),
            f"slack:{payload['view'].get('id')}",
            behalf.address if behalf is not None else None,
        )
        try:
            assert self.workflows is not None, "it listed the form's workflow"
            run = await open_form(self._desk.engine, self.workflows, self._desk.identities.people, sent)
        except FormRefused as refused:
            if refused.code not in ("unfit", "sent_before"):  # those are about what was typed
                log.warning("A form was refused: %s", refused.code)
            return _errors(values, refused.errors, reason_of(refused))
        except ApprovalsBotError as error:
            log.warning("A form was refused: %s", type(error).__name__)
            return _errors(values, (), NOT_SAVED)
        self._desk.afterwards.do(
            self._reply_opened(ReplyTo(to.user, form.channel), run, identity.address, listed.is_approval)
        )
        return None

    async def _reply_opened(self, to: ReplyTo, run: Run[Any], address: str, is_approval: bool) -> None:
        """Reply where they typed the command, else by direct message, with a link to the request."""
        said = "" if run.is_new else "This request already exists. "
        url = f"{self._desk.base_url}/{'requests' if is_approval else 'runs'}/{run.id}"
        said += await self._state_of(run.id, address) if is_approval else "Started."
        await self._desk.replies.reply_now(to, said, opened(said, url), or_directly=True)

    async def _state_of(self, run_id: str, address: str) -> str:
        """Wait until the new request is shown, and return `⏳ Waiting: Deploy api 2.1. Waiting for Ann Ode.`"""
        view: Request | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(SHOWN_WITHIN):
                while view is None or (view.is_open and not view.waiting_for):  # no stage is open yet
                    await asyncio.sleep(LOOK_EVERY)
                    record = await self._desk.engine.record(run_id)
                    view = request_of(record) if record is not None else None
        if view is None:
            return "Your request has been sent."
        card = card_of(view, address, self._desk.engine.now())
        state = card_text.outcome(card.outcome) if card.outcome else card_text.state(card)
        waiting = card_text.waiting_for(card)
        return f"{state}: {card.title}." + (f" {waiting}." if waiting else "")


def reason_of(refused: OpeningRefused | FormRefused) -> str:
    """Say why a request wasn't opened."""
    match refused.code:
        case "sent_before":
            return CONFLICT
        case "not_allowed":
            return "You can't request this. No request was made."
        case "workflow_unknown" | "group_unknown":
            return NOT_SAVED
        case _:
            return refused.detail


def _errors(values: Mapping[str, Any], errors: Any, otherwise: str) -> dict[str, Any]:
    """Show the errors in the form, which keeps its input. A form without inputs is replaced by the text."""
    found = complaints(values, errors, otherwise)
    return {"response_action": "errors", "errors": found} if found else reply_in_modal(otherwise)


def _alone(text: str) -> dict[str, Any]:
    return {"response_type": "ephemeral", "text": escape(text)} if text else {}


def _listed(text: str, names: list[str]) -> dict[str, Any]:
    said = f"{text} {CHOOSE if names else NOTHING}".strip()
    blocks = choices(names)
    if text:
        blocks = [{"type": "section", "text": plain(one_line(text, 300))}, *blocks]
    return {"response_type": "ephemeral", "text": escape(said), "blocks": blocks}


def _text(value: Any) -> str | None:
    return str(value) if value else None


@dataclass(frozen=True, slots=True)
class Form:
    """A form's private metadata. It grants nothing: the person is identified when they submit."""

    workflow: str
    channel: str = ""

    def dump(self) -> str:
        return json.dumps({"w": self.workflow, "ch": self.channel})

    @classmethod
    def load(cls, text: str) -> Form:
        """Parse it. Raises ValueError, KeyError or TypeError if it isn't ours."""
        said = json.loads(text)
        return cls(str(said["w"]), str(said["ch"]))


def choices(names: Sequence[str]) -> list[Block]:
    """Render a button for each workflow."""
    shown = sorted(names)[:LISTED]
    rows: list[Block] = [{"type": "section", "text": plain(CHOOSE if shown else NOTHING)}]
    for at in range(0, len(shown), 5):
        buttons: list[Block] = [
            {"type": "button", "action_id": OPEN + name, "text": plain(one_line(readable(name), 75)), "value": name}
            for name in shown[at : at + 5]
        ]
        rows.append({"type": "actions", "block_id": f"{CHOOSER}:{at}", "elements": buttons})
    if len(names) > len(shown):
        rest = f"… and {len(names) - len(shown)} more. Type /approve and the name."
        rows.append({"type": "context", "elements": [plain(rest)]})
    return rows


def chooser(names: Sequence[str]) -> Block:
    """Render the same as a modal, for the shortcut."""
    return {
        "type": "modal",
        "callback_id": CHOOSE_VIEW,
        "title": plain("Request approval"),
        "close": plain("Not now"),
        "blocks": choices(names),
    }


def form(definition: Definition, remembered: Form, requester: Person) -> Block:
    """Render the workflow's form, without fields for files. Raises ValueError if Slack can't send it."""
    if len(definition.fields) > LONGEST_FORM:
        raise ValueError(TOO_LONG)
    if any(spec.holds_files and spec.required for spec in definition.fields.values()):
        raise ValueError(NEEDS_A_FILE)
    sendable = fields.sendable(definition.fields)
    inputs = [_field(name, spec, requester.numbers) for name, spec in sendable.items()]
    if definition.workflow.on_behalf_of != "never":
        behalf = labelled(BEHALF, "On behalf of", {"type": "users_select"})
        inputs.append(behalf | {"optional": definition.workflow.on_behalf_of != "required"})
    described = [plain(one_line(definition.workflow.description, 600))] if definition.workflow.description else []
    context = {
        "type": "context",
        "elements": [*described, plain(one_line(f"You're requesting this as {requester.name}.", 300))],
    }
    return {
        "type": "modal",
        "callback_id": OPEN_VIEW,
        "private_metadata": remembered.dump(),
        "title": plain(one_line(readable(definition.id), TITLE_LIMIT)),
        "submit": plain("Send request"),
        "close": plain("Not now"),
        "blocks": [context, *inputs],
    }


def _field(name: str, spec: FieldSpec, number_format: str) -> Block:
    (ask,) = fields.in_format_of(number_format, (form_field(name, spec, spec.default),))
    return ask_input(FIELD + name, ask, bounds=_bounds(spec))


def _bounds(spec: FieldSpec) -> dict[str, Any]:
    """Return the limits that Slack checks while a person types. They are all checked again."""
    if spec.type in ("string", "text"):
        most = min(spec.longest or INPUT_LIMIT, INPUT_LIMIT)
        least = min(spec.min_length or 0, most)
        return {"max_length": most} | ({"min_length": least} if least else {})
    if spec.type == "integer":
        return {name: value for name, value in (("min_value", spec.min), ("max_value", spec.max)) if value is not None}
    return {}


def filled_in(definition: Definition, values: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Return the texts of the fields, and the Slack user it is on behalf of, if any."""
    texts = {name: text for name in definition.fields if (text := given(values, FIELD + name))}
    return texts, given(values, BEHALF)


def complaints(values: Mapping[str, Any], errors: Iterable[Mapping[str, Any]], otherwise: str) -> dict[str, str]:
    """Return the errors by input. Errors about no input, or `otherwise`, go to the first one.

    Empty if the form has no inputs.
    """
    found: dict[str, str] = {}
    loose: list[str] = []
    for error in errors:
        (name, *place), message = [*map(str, error["loc"][1:] or error["loc"])], str(error["msg"])
        message = placed(place, message)
        block = BEHALF if error["loc"][0] == "on_behalf_of" else FIELD + name
        if block in values:
            found[block] = _sentence(message)
        else:
            loose.append(f"{readable(name)}: {message}")
    if not found and not loose:
        loose.append(otherwise)
    if loose and values:
        first = next(iter(values))
        found[first] = _sentence(" ".join([*loose, found[first]] if first in found else loose))
    return found


def _sentence(text: str) -> str:
    text = clip(clean(text).strip(), ERROR_LIMIT)
    return text[:1].upper() + text[1:]


def opened(text: str, url: str) -> list[Block]:
    """Render the reply to a submitted form: its text, and a link to the request."""
    link = {"type": "link", "url": url[:3_000], "text": "Open the request"}
    said = {"type": "text", "text": clip(clean(text), 1_000) + "\n"}
    return [{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [said, link]}]}]
