"""Slack's framework, bolt, with our handlers: what it checks before them, and when it acknowledges.

It and aiohttp take longer to load than most of the service, so this module is loaded when the first payload comes, or
soon after the start (`SlackIn.warm_up`). `serve` with Slack is ready after 0.72 CPU s that way, and 0.89 otherwise
(benchmarks/parts/startup.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from slack_bolt.async_app import AsyncApp, AsyncBoltRequest
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient
from starlette.responses import Response

from approvals_bot.approvals.acts import Actor
from approvals_bot.channels.slack import modals as views
from approvals_bot.channels.slack import opening as forms
from approvals_bot.channels.slack.away import AWAY, SlackAway
from approvals_bot.channels.slack.blocks import TALK, WHY
from approvals_bot.channels.slack.builder import SlackSteps
from approvals_bot.channels.slack.client import SlackError
from approvals_bot.channels.slack.desk import ReplyTo, SlackDesk, reply_in_modal
from approvals_bot.channels.slack.home import SlackHome
from approvals_bot.channels.slack.identity import PRESS_LIMIT, PRESS_UNTIL, UNSURE
from approvals_bot.channels.slack.manifest import FUNCTION_EXECUTED, SHORTCUT
from approvals_bot.channels.slack.opening import SlackOpening
from approvals_bot.channels.slack.reassignment import REASSIGN, REASSIGN_VIEW, SlackReassignments
from approvals_bot.channels.slack.talk import SlackTalk
from approvals_bot.channels.slack.verify import FromSlack
from approvals_bot.channels.slack.votes import SlackVotes

ACK_LIMIT = 2.4  # seconds, so that the answer is out after 2.5; Slack gives up at 3
LATE = "This is taking longer than usual, and isn't saved yet. What becomes of it will appear here."
NOT_SAVED = "This couldn't be saved. Please try again in a moment."
HANDLED_LATE = "What you sent was handled late. The request shows what has become of it."
EVENTS_REMEMBERED = 10_000  # event ids; Slack repeats one up to three times within five minutes

log = logging.getLogger(__name__)


async def answer_with(bolt: AsyncApp, request: FromSlack) -> Response:
    """Have bolt handle a verified request, and return its response."""
    headers: dict[str, str | Sequence[str]] = dict(request.headers)
    # The payload as the guard has parsed it: in this mode bolt doesn't parse it again.
    parsed = AsyncBoltRequest(mode="socket_mode", body=dict(request.payload), headers=headers)
    answer = await bolt.async_dispatch(parsed)
    kept = {name: values[0] for name, values in answer.headers.items() if name.lower() == "content-type"}
    return Response(answer.body, answer.status, kept)


def bolt_app(
    desk: SlackDesk,
    votes: SlackVotes,
    reassignments: SlackReassignments,
    talk: SlackTalk,
    opening: SlackOpening,
    home: SlackHome,
    steps: SlackSteps,
) -> AsyncApp:
    """Register all handlers with one bolt app."""
    away = SlackAway(desk, home)
    bolt, seen, afterwards = _own_bolt(desk), _Seen(), desk.afterwards
    bolt.action(re.compile(r"^vote:"))(_answered_by(votes.pressed, desk))
    bolt.view(views.VOTE_VIEW)(_answered_by(votes.submitted, desk))
    bolt.action(WHY)(_answered_by(votes.explain, desk))
    bolt.action(re.compile(f"^{TALK}"))(_answered_by(talk.pressed, desk))
    bolt.action(REASSIGN)(_answered_by(reassignments.pressed, desk))
    bolt.view(REASSIGN_VIEW)(_answered_by(reassignments.submitted, desk))
    bolt.action(AWAY)(_answered_by(away.pressed, desk))
    bolt.view(AWAY)(_answered_by(away.submitted, desk))
    bolt.command(re.compile(r"^/"))(_answered_by(opening.typed, desk))  # under any name that the app was installed with
    bolt.shortcut(SHORTCUT)(_answered_by(opening.chosen, desk))
    bolt.action(re.compile(f"^{forms.OPEN}"))(_answered_by(opening.chosen, desk))
    bolt.view(forms.OPEN_VIEW)(_answered_by(opening.submitted, desk))

    @bolt.event("app_home_opened")
    async def home_opened(ack: Any, body: dict[str, Any], event: dict[str, Any]) -> None:
        if event.get("tab", "home") == "home" and not seen.before(str(body.get("event_id"))):
            shown = (event.get("view") or {}).get("hash")
            afterwards.do(home.opened(str(event["user"]), body.get("team_id"), shown))
        await ack()

    bolt.event(FUNCTION_EXECUTED)(_answered_by(steps.executed, desk))

    @bolt.event("message")
    async def written(ack: Any, body: dict[str, Any]) -> None:
        acting = asyncio.ensure_future(talk.written(body))
        await asyncio.wait([acting], timeout=ACK_LIMIT)
        if not acting.done():  # Slack sends it again, and it is one comment all the same
            afterwards.do(_complete(acting))
            raise TimeoutError
        await acting
        await ack()

    @bolt.event("subteam_members_changed")
    async def group_changed(ack: Any) -> None:
        desk.identities.slack_people.forget_groups()
        await ack()

    return bolt


def _own_bolt(desk: SlackDesk) -> AsyncApp:
    """Make a bolt app that takes only what our own workspace sends, and acknowledges nothing that has failed."""
    client, identities = desk.client, desk.identities

    async def authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult:
        ours = identities.known_workspace  # not learnt here: `only_ours` has an answer for that
        return AuthorizeResult(
            enterprise_id=enterprise_id,
            team_id=team_id,
            bot_token=client.web.token,
            bot_id=ours.bot if ours else None,
            bot_user_id=ours.bot_user if ours else None,
        )

    bolt = AsyncApp(
        name="approvals",
        client=_without_token(client.web),
        authorize=authorize,
        process_before_response=True,  # the handler's answer is the response: what is acknowledged is durable
        request_verification_enabled=False,  # the guard has verified; bolt would use the machine's clock, not ours
        raise_error_for_unhandled_request=True,
        ignoring_self_events_enabled=False,  # our one event comes from people
        attaching_function_token_enabled=False,  # steps end days later, when only our own token is still good
        logger=logging.getLogger("slack_bolt"),  # bolt's own loggers would ignore the level configured for slack_bolt
    )

    @bolt.middleware
    async def only_ours(body: dict[str, Any], next: Callable[[], Awaitable[Any]]) -> BoltResponse | None:
        if body.get("type") == "url_verification":
            await next()
            return None
        PRESS_UNTIL.set(asyncio.get_running_loop().time() + PRESS_LIMIT)
        try:
            ours = await identities.workspace()
        except (SlackError, TimeoutError):
            return _unsure(desk, body)
        if not ours.sent(body):
            return BoltResponse(status=401, body="")
        await next()
        return None

    @bolt.error
    async def failed(error: Exception) -> BoltResponse:
        if isinstance(error, BoltUnhandledRequestError):
            return BoltResponse(status=200, body="")  # an event or a link button that we don't handle
        log.error("%s while answering Slack; the request was not acknowledged.", type(error).__qualname__)
        return BoltResponse(status=503, body="")

    return bolt


def _unsure(desk: SlackDesk, body: Mapping[str, Any]) -> BoltResponse:
    """Answer what may be from another workspace: nothing is done, and the person hears that. Slack repeats events."""
    to = ReplyTo.of(body)
    if body.get("type") == "event_callback" or not to.user:
        return BoltResponse(status=503, body="")
    unsure = desk.engine.audit(
        "act_refused",
        who=f"slack:{to.user}",
        actor=Actor("slack", to.user).as_json(),
        data={"via": "slack", "verdict": "group_unknown"},
    )
    desk.afterwards.do(_complete(unsure))
    if body.get("type") == "view_submission":
        shown = json.dumps(reply_in_modal(UNSURE))
        return BoltResponse(status=200, body=shown, headers={"Content-Type": "application/json"})
    desk.replies.reply(to, UNSURE, or_directly=True)
    return BoltResponse(status=200, body="")


def _answered_by(
    act: Callable[[dict[str, Any]], Awaitable[Mapping[str, Any] | None]], desk: SlackDesk
) -> Callable[..., Awaitable[None]]:
    """Build a listener that performs the act, then acknowledges with its answer, if any.

    A slow act isn't acknowledged, because it may not be saved, but completes: cancelled in mid-write, it could hold up
    its run for a while. The person hears that it is late, and what became of it.
    """

    async def listener(ack: Any, body: dict[str, Any]) -> None:
        acting = asyncio.ensure_future(act(body))
        try:
            await asyncio.wait([acting], timeout=ACK_LIMIT)
        except asyncio.CancelledError:
            acting.cancel()
            raise
        if acting.done() and acting.exception() is None:
            await ack(**(acting.result() or {}))
            return
        desk.afterwards.do(_explain(desk, body, acting) if ReplyTo.of(body).user else _complete(acting))
        if acting.done():
            await acting  # raises
        raise TimeoutError

    return listener


async def _explain(desk: SlackDesk, body: Mapping[str, Any], acting: asyncio.Future[Any]) -> None:
    """Notify a person that their act is late or has failed. What a late press has led to has its own reply."""
    to = ReplyTo.of(body)
    if not acting.done():
        desk.replies.reply(to, LATE, or_directly=True)
    try:
        answer = await acting
    except Exception as error:  # noqa: BLE001  # whatever it is, the person must hear that it went wrong
        log.error("%s in an act that was not acknowledged.", type(error).__qualname__)
        await desk.replies.reply_now(to, NOT_SAVED, or_directly=True)
    else:
        if answer is not None:  # Slack has given up the modal that it is for
            await desk.replies.reply_now(to, HANDLED_LATE, or_directly=True)


async def _complete(acting: Awaitable[object]) -> None:
    await acting


def _without_token(web: AsyncWebClient) -> AsyncWebClient:
    """Make a client for bolt. Bolt copies it for each request and takes the token from `authorize`."""
    bare = AsyncWebClient(base_url=web.base_url, session=web.session, retry_handlers=[])
    bare.proxy = web.proxy
    return bare


class _Seen:
    """Recent event ids: Slack repeats an event when the first answer was slow."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def before(self, event_id: str) -> bool:
        if event_id in self._ids:
            return True
        self._ids[event_id] = None
        while len(self._ids) > EVENTS_REMEMBERED:
            self._ids.popitem(last=False)
        return False
