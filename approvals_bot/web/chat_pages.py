"""The chat as pages: complete without a script, which only puts each change in place.

A page shows what the log shows. So a reload shows the same, and the script gets what is new by asking for the page
again whenever the chat's stream says that there is something.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from pydantic import JsonValue
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.agents.chat_stream import Turn, approval_state
from approvals_bot.agents.chat_view import TextPart, ToolPart
from approvals_bot.agents.chats import LONGEST_TEXT, Chats, MessageReusedError
from approvals_bot.approvals.acts import REFUSALS, Rejection
from approvals_bot.approvals.card import card_of, editable_of
from approvals_bot.approvals.card_model import Card, FormField
from approvals_bot.approvals.leaves import replaced
from approvals_bot.approvals.request import Request as ApprovalRequest
from approvals_bot.approvals.tool_call import ARGUMENTS
from approvals_bot.client.digests import leaves_of
from approvals_bot.web.chat import LONGEST_COMMENT, LONGEST_ID, NOT_OURS, REUSED, ChatApi, ChatOwners
from approvals_bot.web.decision_forms import UNFIT, changed_fields
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.form_tokens import NAME as FORM_TOKEN
from approvals_bot.web.responses import SCRIPTED, Problem
from approvals_bot.web.validation import read_form

NEWEST = 10  # chats listed on the front page
EXAMPLES = (
    "Book LH 441 for Ann Ode and LH 442 for Bo Lund",
    "Which flights go from MUC to JFK?",
    "How much baggage may I take?",
)
NO_TEXT = f"Write a message of at most {LONGEST_TEXT:,} characters."
NO_ANSWER = "Nothing was changed: press Approve or Reject."
NOT_EDITED = "Nothing was changed: you pressed “Approve with changes”, but changed no value."
EDITED_BUT_APPROVED = (
    "You changed values, but pressed Approve, which would approve the old ones. Nothing was changed. To approve your "
    "values, press “Approve with changes”; to approve the old ones, open this page again."
)
TOO_LONG = f"Nothing was changed: a comment has at most {LONGEST_COMMENT:,} characters."

AMOUNTS = ("price",)  # arguments that are dollars, as in the sample

LABELS: Mapping[str, str] = {"flightNumber": "Flight", "passengerName": "Passenger", "price": "Price"}

DOING: Mapping[str, str] = {
    "bookFlight": "Booking",
    "searchFlights": "Searching flights",
    "checkFlightStatus": "Checking the flight's status",
    "getAirportInfo": "Looking up the airport",
    "checkBaggageAllowance": "Checking the baggage allowance",
}
"""What a tool does, while it does it."""

DONE: Mapping[str, str] = {
    "bookFlight": "Booked",
    "searchFlights": "Searched flights",
    "checkFlightStatus": "Checked the flight's status",
    "getAirportInfo": "Looked up the airport",
    "checkBaggageAllowance": "Checked the baggage allowance",
}
"""What a tool has done."""


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A part of an answer as the page shows it.

    `state`: of the part; `card`: of its request, for those that made one. `fields`: a call's input, each with its
    label, its value, and the one before an approver changed it. `edits`: the inputs for what an approver may change.
    """

    id: str
    kind: Literal["text", "booking", "tool"]
    state: str
    text: str = ""
    tool: str = ""  # what it does
    done: str = ""  # what it has done
    fields: tuple[tuple[str, str, str], ...] = ()
    card: Card | None = None
    comment: str = ""
    can_decide: bool = False
    call: str = ""
    webhook_url: str = ""
    decided_at: datetime | None = None
    edits: tuple[FormField, ...] = ()


@dataclass(frozen=True, slots=True)
class TypedAnswer:
    """What somebody has typed into the form of a tool call, and what is wrong with it, by the names of its inputs."""

    call: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)


class ChatPages:
    """`/chat` and what is below it."""

    def __init__(self, desk: WebDesk, chats: Chats, owners: ChatOwners, api: ChatApi) -> None:
        self._chats, self._owners, self._api = chats, owners, api
        self._people, self._link = desk.people, desk.engine.link
        self._forms, self._login, self._root = desk.forms, desk.login, desk.root
        self._navigation, self._pages, self._now = desk.navigation, desk.pages, desk.now

    async def front(self, request: HttpRequest) -> Response:
        """Show an empty chat, and the newest of the person's chats."""
        reader = await self._owners.reader(request)
        if reader is None:
            return await self._closed(request)
        return await self._page(request, secrets.token_hex(8), [], reader, is_new=True)

    async def show(self, request: HttpRequest) -> Response:
        """Show a chat. To everybody else there is no such chat."""
        reader = await self._owners.reader(request)
        if reader is None:
            return await self._closed(request)
        chat = request.path_params["id"]
        turns = await self._turns(chat, reader)
        if not turns:
            raise Problem(404)
        return await self._page(request, chat, turns, reader)

    async def send(self, request: HttpRequest) -> Response:
        """Take a message: 303 to the chat, which begins with it if it is the first."""
        form, reader, chat = await read_form(request), await self._owners.reader(request), request.path_params["id"]
        if reader is None:
            return await self._closed(request)
        turns = await self._turns(chat, reader)
        if turns is None:
            raise Problem(404)
        written = form.get("example") or form.get("text", "")
        text, message = written.strip().replace("\r\n", "\n"), form.get("message", "")
        if not self._forms.is_ours(request, "chat", form.get(FORM_TOKEN, "")):
            return await self._page(request, chat, turns, reader, 403, said=NOT_OURS, text=text)
        if not 0 < len(text) <= LONGEST_TEXT or not 0 < len(message) <= LONGEST_ID or not message.isprintable():
            return await self._page(request, chat, turns, reader, 422, said=NO_TEXT, text=text, is_new=not turns)
        if self._chats.missing:
            return await self._page(request, chat, turns, reader, 503, is_new=not turns)
        try:
            run_id = await self._chats.begin(turns, chat, reader, message, text)
        except MessageReusedError:
            return await self._page(request, chat, turns, reader, 409, said=REUSED, text=text)
        return RedirectResponse(f"{self._root}/chat/{chat}#{run_id}", 303)

    async def decide(self, request: HttpRequest) -> Response:
        """Take the answer to a tool call: 303 to the chat, or the chat with the reason why nothing was changed."""
        form, reader = await read_form(request), await self._owners.reader(request)
        if reader is None:
            return await self._closed(request)
        chat, call = request.path_params["id"], request.path_params["call"]
        turns = await self._turns(chat, reader)
        turn = next((turn for turn in reversed(turns or []) if turn.view.tool(call) is not None), None)
        part = turn.view.tool(call) if turn is not None else None
        if turns is None or turn is None or part is None or not turn.approval_id(part):
            raise Problem(404)
        choice, comment = form.get("choice"), form.get("comment", "").strip()
        if not self._forms.is_ours(request, "chat", form.get(FORM_TOKEN, "")):
            return await self._page(request, chat, turns, reader, 403, said=NOT_OURS)
        if choice not in ("approve", "edit", "reject"):
            return await self._page(request, chat, turns, reader, 422, said=NO_ANSWER)
        if len(comment) > LONGEST_COMMENT:
            return await self._page(request, chat, turns, reader, 422, said=TOO_LONG)
        edits = edits_of(turn, part)
        changed, wrong = read_changes(edits, turn.requests.get(call), form, call)
        typed = TypedAnswer(call, form, wrong)
        if choice == "approve" and any(f"{call}.{name}" in form for name in {**changed, **wrong}):
            return await self._page(request, chat, turns, reader, 422, said=EDITED_BUT_APPROVED, typed=typed)
        if choice == "edit" and edits and (wrong or not changed):  # none: it was decided before
            said = UNFIT if wrong else NOT_EDITED
            return await self._page(request, chat, turns, reader, 422, said=said, typed=typed)
        approved, arguments = choice != "reject", changed if choice == "edit" else None
        decided = await self._api.decide(turn, part, reader, approved, comment, arguments, request=request)
        has_all = decided.is_approved is approved and decided.has(arguments or {})
        if decided.reply.verdict in REFUSALS and not has_all:
            turns = [decided.turn if each.run_id == turn.run_id else each for each in turns]
            typed = TypedAnswer(call, form, named_faults(decided.reply.rejections, edits))
            return await self._page(request, chat, turns, reader, 409, said=decided.reply.text, typed=typed)
        return RedirectResponse(f"{self._root}/chat/{chat}#{call}", 303)

    async def _turns(self, chat: str, reader: str) -> list[Turn] | None:
        return await self._chats.turns(chat, reader) if re.fullmatch(r"[\w.~-]{1,100}", chat) else None

    async def _page(
        self,
        request: HttpRequest,
        chat: str,
        turns: list[Turn],
        reader: str,
        status: int = 200,
        *,
        said: str = "",
        text: str = "",
        is_new: bool = False,
        typed: TypedAnswer = TypedAnswer(),
    ) -> Response:
        self._chats.warm_up()
        person = self._people.person(reader)
        earlier = await self._chats.newest(reader, NEWEST * 2) if is_new else []
        chats = {turn.view.turn.chat: turn for turn in earlier}
        page = self._pages.page(
            "chat.html",
            status,
            nav=await self._navigation.of(reader),
            here="/chat",
            zone=person.zone,
            person=person,
            form_token=self._forms.make(request, "chat"),
            chat=chat,
            turns=[(turn, [self._shown(turn, part) for part in turn.view.parts]) for turn in turns],
            message=secrets.token_hex(8),
            missing=self._chats.missing,
            is_new=is_new,
            earlier=list(chats.values())[:NEWEST],
            examples=EXAMPLES,
            said=said,
            text=text,
            typed=typed,
        )
        page.headers["content-security-policy"] = SCRIPTED
        return page

    def _shown(self, turn: Turn, part: TextPart | ToolPart) -> ShownPart:
        if isinstance(part, TextPart):
            return ShownPart(f"{turn.run_id}-{part.id}", "text", "done", part.text)
        request = turn.requests.get(part.id)
        fields = shown_fields(part)
        is_booking = part.is_asked or part.tool == "bookingApproval"
        output = part.error or (part.output if isinstance(part.output, str) else shown_value(part.output))
        return ShownPart(
            id=part.id,
            kind="booking" if is_booking else "tool",
            state=approval_state(turn, part) if part.is_asked else part.state,
            text=output if part.is_over else "",
            tool=DOING.get(part.tool, part.tool),
            done=DONE.get(part.tool, f"{part.tool}: done"),
            fields=fields,
            card=card_of(request, None, self._now()) if request is not None else None,
            comment=(part.decision.comment or "") if part.decision is not None else "",
            can_decide=turn.waits_for(part) and not turn.has_ended,
            call=part.id,
            decided_at=part.decision.at if part.decision is not None else None,
            webhook_url=self._link(part.webhook) if part.webhook and part.state == "waiting" else "",
            edits=edits_of(turn, part),
        )

    async def _closed(self, request: HttpRequest) -> Response:
        return await self._login.instead_of(request)


def edits_of(turn: Turn, part: ToolPart) -> tuple[FormField, ...]:
    """Return the inputs for what the chat's owner may change of a tool call, before they approve it."""
    request = turn.requests.get(part.id)
    if request is None or request.stage is None or not turn.waits_for(part) or "edit" not in request.stage.outcomes:
        return ()
    return tuple(replace(each, label=label_of(each.name)) for each in editable_of(request))


def read_changes(
    edits: Sequence[FormField], request: ApprovalRequest | None, form: Mapping[str, str], call: str
) -> tuple[dict[str, JsonValue], dict[str, str]]:
    """Return the arguments that a form changes, as JSON of their types, and what is wrong with others."""
    arguments = request.fields[ARGUMENTS] if request is not None else None
    texts = changed_fields(edits, form, call)
    edited, rejections = replaced(arguments, "", texts, as_text=True, is_checked=True)
    wrong = named_faults(rejections, edits)
    leaves = leaves_of(edited) if isinstance(edited, dict) else {}
    return {name: leaves[name] for name in texts if name in leaves and name not in wrong}, wrong


def named_faults(rejections: Iterable[Rejection], edits: Sequence[FormField]) -> dict[str, str]:
    """Return what is wrong with an edit, by the names of the inputs."""
    names = {each.name for each in edits}
    found = ((name, each.text) for each in rejections for name in [".".join(map(str, each.path))] if name in names)
    return dict(found)


def shown_fields(part: ToolPart) -> tuple[tuple[str, str, str], ...]:
    """Return the arguments of a tool call as people read them: label, value, and the value before it was changed."""
    decision = part.decision
    arguments = decision.arguments if decision is not None and decision.arguments is not None else part.input
    found = []
    for name, value in arguments.items():
        shown, was = shown_value(value, name), shown_value(part.input.get(name), name)
        found.append((label_of(name), shown, "" if was == shown else was))
    return tuple(found)


def label_of(name: str) -> str:
    """Return what people read instead of an argument's name: `ticketClass` → "Ticket class"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").lower()
    return LABELS.get(name) or words[:1].upper() + words[1:]


def shown_value(value: Any, name: str = "") -> str:
    """Return a value as people read it. `name`: of the argument, if it is one."""
    match value:
        case int() | float() if name in AMOUNTS and not isinstance(value, bool):
            return f"${value:,.2f}".removesuffix(".00")
        case None:
            return "empty"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case int() | float():
            return f"{value:g}" if abs(value) < 1_000_000 else str(value)
        case list():
            return "\n".join(shown_value(each) for each in value) or "nothing"
        case dict():
            return "\n".join(f"{name}: {shown_value(each)}" for name, each in value.items()) or "nothing"
    return str(value)
