"""The chat over HTTP: AI SDK UI message streams, and the routes that answer a tool call.

Of the messages that a client sends, only the text of the newest user message and its answers to approval requests are
read. All else comes from the log, so nobody can forge a history, a tool's output or an approval.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from approvals_bot.agents.chat_stream import FINISH, PROTOCOL, Turn, after_approvals, chunks_of
from approvals_bot.agents.chat_view import ToolPart
from approvals_bot.agents.chats import LONGEST_TEXT, AnsweredCall, Chats, MessageReusedError
from approvals_bot.agents.live_texts import live_texts
from approvals_bot.approvals.acts import REFUSALS, Actor
from approvals_bot.approvals.json_values import same_json
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.notifier import Subscription
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.people import People
from approvals_bot.web.admission import DEVELOPER
from approvals_bot.web.keys import READ, START, KeyGate, actor_of
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.responses import STATUS, JsonResponse, Problem
from approvals_bot.web.sessions import SessionCookies, actor_at
from approvals_bot.web.validation import API_BODY, StrictBody, is_from_own_page, json_object, validate

HEARTBEAT = 15.0  # seconds; proxies close a connection on which nothing comes
LONGEST_ID = 100  # characters of a chat's or a message's id
LONGEST_COMMENT = 2_000
MOST_ANSWERS = 200  # answers to approval requests that are read from one body

REGENERATE = "regenerate-message"
"""The trigger of the AI SDK's `regenerate()`. An answer that ended well is only repeated: it may have booked."""

NOT_OURS = "This didn't come from our own page, so nothing was changed."
NO_APPROVERS = (
    'A key can\'t decide about its own bookings. Name people who can, under [chat] approvers, with approval = "hook".'
)
REUSED = "This message's id was used before, for another text. Send it again under a new one."
DEV_PERSON = "ann@acme.eu"  # whom `dev` acts as, if the configuration has them


class ChatOwners:
    """Whose chat a caller may read and write: the session's person's, or the API key's."""

    def __init__(
        self, people: People, sessions: SessionCookies, keys: KeyGate, origin: str, *, open_pages: bool
    ) -> None:
        self._people = people
        self._sessions = sessions
        self._keys = keys
        self._origin = origin
        self._open = open_pages

    async def reader(self, request: HttpRequest) -> str | None:
        """Return the address of the person at this browser; None if nobody has signed in.

        Raises Problem 404 for somebody whom only a workflow's code names: they have its requests, and no chats.
        """
        found = await self._sessions.who(request)
        if found is not None and not self._open and not await self._sessions.known.knows(found):
            raise Problem(404)
        return found or (self._anybody() if self._open else None)

    async def owner(self, request: HttpRequest) -> str:
        """Return the owner that this call is for. Raises Problem 401, or 403 for a page that isn't ours."""
        if "authorization" in request.headers and not self._open:
            return await self._app(request)
        found = await self.reader(request)
        if found is None:
            return await self._app(request)
        if request.method != "GET" and not is_from_own_page(request.headers, self._origin):
            raise Problem(403, detail=NOT_OURS)
        return found

    async def actor(self, request: HttpRequest, owner: str) -> Actor:
        """Return who acts in this call, for the log and the audit: a key, a session, or a developer."""
        if owner.startswith("app:"):
            return actor_of(request)
        session = await self._sessions.find(request)
        return DEVELOPER if session is None else actor_at(request, session)

    async def is_still(self, request: HttpRequest, owner: str) -> bool:
        """Return whether this call is still the owner's: sessions end, people leave, and keys expire."""
        try:
            return await self.owner(request) == owner
        except ApprovalsBotError:
            return False

    async def _app(self, request: HttpRequest) -> str:
        """Return the app that calls, if its key may have chats."""
        key = await self._keys.admit(request, READ if request.method == "GET" else START)
        if not key.knows_workflow(CHAT_WORKFLOW):
            raise Problem(404)
        return key.address

    def _anybody(self) -> str:
        known = [person.address for person in self._people.known()]
        return DEV_PERSON if DEV_PERSON in known or not known else known[0]


class ChatBody(BaseModel):
    """What the AI SDK's transport posts. Unknown members are its own affair."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    id: Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
    messages: list[Any]
    messageId: str | None = None  # as it is posted
    trigger: str | None = None


class CallAnswer(StrictBody):
    """An answer to a tool call. `arguments`: those to change."""

    approved: bool
    comment: Annotated[str, Field(max_length=LONGEST_COMMENT)] | None = None
    arguments: dict[str, JsonValue] | None = None


class NamedCallAnswer(StrictBody):
    """An answer to the tool call with this id."""

    toolCallId: Annotated[str, Field(min_length=1)]  # the name that the AI SDK's pages use
    approved: bool
    comment: Annotated[str, Field(max_length=LONGEST_COMMENT)] | None = None


class ChatApi:
    """`/api/chat` and what is below it."""

    def __init__(self, *, engine: Engine, chats: Chats, owners: ChatOwners, metrics: Metrics, base_url: str) -> None:
        self._engine = engine
        self._chats = chats
        self._owners = owners
        self._metrics = metrics
        self._base_url = base_url

    async def send(self, request: HttpRequest) -> Response:
        """Take a message and answers to approval requests, and stream the answer. A repeated message begins nothing."""
        owner = await self._owners.owner(request)
        body = validate(ChatBody, await json_object(request, API_BODY))
        message = last_user_message(body.messages)
        turns = await self._turns(body.id, owner)
        if self._chats.missing:
            raise Problem(503, detail=f"The chat's framework isn't installed: {self._chats.missing}")
        if not self._chats.has_approvers(owner):
            raise Problem(422, "Nobody could decide", NO_APPROVERS)
        answered, refused = set[str](), list[str]()
        for response in approval_responses(body.messages):
            for turn in turns:
                part = turn.view.tool(response.tool_call_id)
                if part is None or not response.is_about(turn, part):
                    continue
                answered.add(part.id)
                if turn.waits_for(part):
                    decided = await self.decide(turn, part, owner, response.approved, response.reason, request=request)
                    if decided.reply.verdict in REFUSALS and decided.is_approved is None:
                        refused.append(decided.reply.text)
        run_id = await self._begin(turns, body.id, owner, message, again=body.trigger == REGENERATE)
        if body.trigger != REGENERATE:
            run_id = next((turn.run_id for turn in turns if turn.message_id == body.messageId), run_id)
        turn = await self._chats.turn(run_id)
        sent = after_approvals(list(chunks_of(turn)), answered) if _is_continued(body.messages, turn) else set()
        return self._streamed(request, owner, turn.run_id, sent, answered, refused)

    async def stream(self, request: HttpRequest) -> Response:
        """Stream the newest answer that goes on: all of it so far, then what comes. 204 if none does."""
        owner = await self._owners.owner(request)
        turns = await self._turns(request.path_params["id"], owner)
        wanted = request.query_params.get("turn")
        going = [turn for turn in turns if not turn.has_ended and wanted in (None, turn.run_id)]
        if not going:
            return Response(status_code=204)
        return self._streamed(request, owner, going[-1].run_id, set(), (), ())

    async def approve(self, request: HttpRequest) -> Response:
        """Answer a tool call of a chat. The same answer again is the same 200."""
        owner = await self._owners.owner(request)
        given = validate(CallAnswer, await json_object(request, API_BODY))
        turns = await self._turns(request.path_params["id"], owner)
        call = request.path_params["call"]
        turn = next((turn for turn in reversed(turns) if turn.view.tool(call) is not None), None)
        return await self._approve(request, turn, call, owner, given)

    async def approve_by_call(self, request: HttpRequest) -> Response:
        """Answer a tool call that is named by its id alone."""
        owner = await self._owners.owner(request)
        given = validate(NamedCallAnswer, await json_object(request, API_BODY))
        turn = await self._chats.turn_of_call(given.toolCallId, owner)
        answer = CallAnswer(approved=given.approved, comment=given.comment)
        return await self._approve(request, turn, given.toolCallId, owner, answer)

    async def decide(
        self,
        turn: Turn,
        part: ToolPart,
        owner: str,
        approved: bool,
        comment: str = "",
        arguments: dict[str, JsonValue] | None = None,
        *,
        request: HttpRequest,
    ) -> AnsweredCall:
        """Answer a tool call, and count that."""
        actor = await self._owners.actor(request, owner)
        decided = await self._chats.decide(turn, part, owner, approved, comment, arguments, actor=actor)
        self._metrics.voted(decided.reply.verdict, "chat")
        return decided

    async def _approve(
        self, request: HttpRequest, turn: Turn | None, call: str, owner: str, given: CallAnswer
    ) -> Response:
        part = turn.view.tool(call) if turn is not None else None
        if turn is None or part is None or not turn.approval_id(part):
            raise Problem(404, detail="No tool call with this id waits for an answer here.")
        comment = (given.comment or "").strip()
        decided = await self.decide(turn, part, owner, given.approved, comment, given.arguments, request=request)
        reply = decided.reply
        wanted = given.arguments if given.approved and given.arguments else {}
        is_other = reply.verdict == "already_voted" and not decided.has(wanted)
        if reply.verdict not in REFUSALS and not is_other:
            return JsonResponse({"success": True})
        status = 409 if is_other else STATUS[reply.verdict]
        if status == 409 and decided.is_approved is given.approved and decided.has(wanted):
            return JsonResponse({"success": True, "text": reply.text})
        outcome = decided.turn.requests[part.id].outcome if part.id in decided.turn.requests else None
        more: dict[str, Any] = {"verdict": reply.verdict}
        if outcome is not None:
            more |= {"by": outcome.by, "via": outcome.via, "at": outcome.at.isoformat().replace("+00:00", "Z")}
        errors = [{"loc": each.path, "msg": each.text} for each in reply.rejections]
        raise Problem(status, detail=reply.text, errors=errors, **more)

    async def _turns(self, chat: str, owner: str) -> list[Turn]:
        turns = await self._chats.turns(chat, owner) if len(chat) <= LONGEST_ID and chat.isprintable() else None
        if turns is None:
            raise Problem(404, detail="No chat of yours has this id.")
        return turns

    async def _begin(self, turns: list[Turn], chat: str, owner: str, message: UserMessage, *, again: bool) -> str:
        try:
            return await self._chats.begin(turns, chat, owner, message.id, message.text, again=again)
        except MessageReusedError:
            raise Problem(409, "Message id in use", REUSED) from None

    def _streamed(
        self,
        request: HttpRequest,
        owner: str,
        run_id: str,
        sent: set[str],
        answered: Collection[str],
        refused: Sequence[str],
    ) -> Response:
        events = self._events(request, owner, run_id, sent, answered, refused)
        headers = PROTOCOL | {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(
        self,
        request: HttpRequest,
        owner: str,
        run_id: str,
        sent: set[str],
        answered: Collection[str],
        refused: Sequence[str],
    ) -> AsyncIterator[str]:
        """Yield what a turn shows, as it comes. `sent`: the keys of chunks that the client has.

        It ends with its session: people sign out in another browser, and leave.
        """
        hold = request.query_params.get("hold") == "1"
        poll = min(self._engine.scheduler.poll or HEARTBEAT, HEARTBEAT)
        following = Following(self._engine.notifier, run_id, None, poll)
        with following, live_texts.reading(run_id, following.wake_for_text) as texts:
            sent.discard("start")
            while True:
                turn = await self._chats.turn(run_id)
                fresh = [chunk for chunk in chunks_of(turn, self._base_url) if chunk.key not in sent]
                for chunk in fresh:
                    sent.add(chunk.key)
                    match chunk.data:
                        case {"type": "text-delta", "id": str(id), "delta": str(text)}:
                            for piece in texts.whole(id, text):
                                yield event(piece)
                        case {"type": "text-start" | "text-end"}:  # come with the text
                            pass
                        case {"type": "error"}:
                            for piece in texts.close():
                                yield event(piece)
                            yield event(chunk.data)
                        case _:
                            yield event(chunk.data)
                for text in refused:
                    yield event({"type": "error", "errorText": text})
                if turn.has_ended or turn.error or refused or (not hold and _ends_at_pause(turn, answered)):
                    break
                if self._engine.is_ending:
                    return
                if not fresh:
                    yield ": nothing new\n\n"
                is_text = True
                while is_text:
                    if not following.has_more:  # what the log has comes before the text that follows it
                        for piece in texts.so_far():
                            yield event(piece)
                    is_text = await following.is_only_text()
                if not await self._owners.is_still(request, owner):
                    return
            for piece in texts.close():
                yield event(piece)
        yield event(FINISH.data)
        yield "data: [DONE]\n\n"


class Following(Subscription):
    """A subscription to a turn's run that is woken by texts that are being written, too."""

    has_more = False  # the store may have something new
    _has_text = False

    def wake_for_text(self) -> None:
        self._has_text = True
        super().wake()

    def wake(self) -> None:
        self.has_more = True
        super().wake()

    def deliver(self, events: list[Event]) -> None:
        self.has_more = True
        super().deliver(events)

    async def is_only_text(self) -> bool:
        """Wait until it is worth looking again. Returns whether only text came, so the store has nothing new."""
        await self.changed()
        is_only_text = self._has_text and not self.has_more
        self._has_text = self.has_more = False
        return is_only_text


def _ends_at_pause(turn: Turn, answered: Collection[str]) -> bool:
    """Return whether only approvals are open that this client can answer, and hasn't answered yet.

    Clients send their answers once the stream has ended. One that waits for others would only ask again and again.
    """
    return turn.is_paused and (turn.view.turn.person is None or bool(set(turn.open_calls).difference(answered)))


def _is_continued(messages: Sequence[Any], turn: Turn) -> bool:
    """Return whether the client goes on with an answer that it has in part."""
    return any(isinstance(each, dict) and each.get("id") == turn.message_id for each in messages)


def event(chunk: Mapping[str, JsonValue]) -> str:
    """Return a chunk as a server-sent event. In ASCII: JSON's escapes keep line separators out of the stream."""
    return f"data: {json.dumps(chunk)}\n\n"


@dataclass(frozen=True, slots=True)
class UserMessage:
    """The newest message of the person."""

    id: str
    text: str


def last_user_message(messages: Sequence[Any]) -> UserMessage:
    """Return the newest message of the user. Raises Problem 422 if there is none, or its id or text can't be used."""
    for at in range(len(messages) - 1, -1, -1):
        match messages[at]:
            case {"role": "user", "id": str(id), "parts": list(parts)}:
                text = "\n".join(
                    part["text"]
                    for part in parts
                    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
                ).strip()
                if not (0 < len(id) <= LONGEST_ID and id.isprintable()):
                    raise _misfit(at, "id", f"1 to {LONGEST_ID} printable characters")
                if not 0 < len(text) <= LONGEST_TEXT:
                    raise _misfit(at, "parts", f"a text of 1 to {LONGEST_TEXT:,} characters")
                return UserMessage(id, text)
            case {"role": "user"}:
                raise _misfit(at, "parts", "a message has an id and parts")
    raise Problem(422, "Invalid input", "There's no message of a user.", errors=[{"loc": ["messages"], "msg": "none"}])


def _misfit(at: int, member: str, what: str) -> Problem:
    return Problem(
        422, "Invalid input", "Nothing was changed.", errors=[{"loc": ["messages", at, member], "msg": what}]
    )


@dataclass(frozen=True, slots=True)
class ApprovalResponse:
    """An answer to an approval request, as the AI SDK keeps it in its messages."""

    tool_call_id: str
    approval_id: str
    approved: bool
    reason: str
    input: JsonValue

    def is_about(self, turn: Turn, part: ToolPart) -> bool:
        """Return whether the client answers what it was shown: this approval, of exactly these arguments."""
        is_ours = bool(self.approval_id) and self.approval_id == turn.approval_id(part)
        return is_ours and same_json(self.input, part.input)


def approval_responses(messages: Sequence[Any]) -> Iterator[ApprovalResponse]:
    """Yield the answers to approval requests in a client's messages."""
    left = MOST_ANSWERS
    for message in messages:
        if not isinstance(message, dict) or message.get("role") != "assistant":
            continue
        parts = message.get("parts")
        for part in parts if isinstance(parts, list) else ():
            match part:
                case {
                    "state": "approval-responded",
                    "toolCallId": str(call),
                    "approval": {"id": str(id), "approved": bool(approved)} as approval,
                } if left:
                    left -= 1
                    reason = approval.get("reason")
                    text = reason.strip()[:LONGEST_COMMENT] if isinstance(reason, str) else ""
                    yield ApprovalResponse(call, id, approved, text, part.get("input"))
