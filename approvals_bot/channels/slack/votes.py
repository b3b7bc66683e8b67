"""Votes from Slack: a button, or a modal that was submitted, becomes a vote; the verdict is told to that person alone.

What a click needs of the store happens before it is acknowledged. Telling the person happens after, because Slack's own
API may be slow or down while clicks still count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from inspect import isawaitable
from typing import Any, cast, get_args

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Reply, Vote
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.port import Card, CardChoice, ChoiceName, FormField
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack import modals as views
from approvals_bot.channels.slack.blocks import Block, delivery_of, digest_seen
from approvals_bot.channels.slack.client import SlackClient, SlackError
from approvals_bot.channels.slack.identity import Identified, SlackIdentities, Unidentified, team_of
from approvals_bot.channels.slack.reassignment import may_try, press_of, with_button
from approvals_bot.channels.slack.replies import EphemeralReplies, Place
from approvals_bot.durable.engine import Engine, HookTarget
from approvals_bot.service.act import asks_herself, perform
from approvals_bot.service.background import BackgroundTasks
from approvals_bot.service.read import request_behind

VERDICT_LIMIT = 1.5  # seconds that a click waits for its verdict, of the 2.5 that all of it may take
OPEN_LIMIT = 1.2  # seconds for opening a modal; its trigger is good for 3 from the click

NOT_OPENED = (
    "Slack could not open the form just now. Nothing was changed. Press again, or use the request's page: {page}"
)
OWN_PAGE = "Your own page, to withdraw it or to make changes that are asked for: {page}"
GONE = "This button is not one of ours any more. Nothing was changed."

log = logging.getLogger(__name__)

Link = Callable[[str, str], str | Awaitable[str]]
"""`link(hook_id, address)`: this person's own page of the request, "" if she has none."""


class SlackVotes:
    """Takes clicks and submitted modals. Every method returns within about two seconds."""

    def __init__(
        self,
        *,
        engine: Engine,
        client: SlackClient,
        identities: SlackIdentities,
        teller: EphemeralReplies,
        link: Link | None = None,
        afterwards: BackgroundTasks,
        voted: Callable[[str], Coroutine[Any, Any, None]] | None = None,
        counted: Callable[[str, str], None] | None = None,
    ) -> None:
        """`voted(user)` is called after a vote of that Slack user; `counted(verdict, via)` is for the metrics."""
        self._engine = engine
        self._client = client
        self._identities = identities
        self._teller = teller
        self._link = link
        self._voted = voted
        self._counted = counted
        self._afterwards = afterwards

    async def pressed(self, payload: Mapping[str, Any]) -> None:
        """A button of a card: count the vote, or open the modal that it needs."""
        place = Place.of(payload)
        action = payload["actions"][0]
        choice = str(action.get("action_id", "")).removeprefix("vote:")
        hook_id = str(action.get("value") or "")
        who = await self._identities.who(place.user, team_of(payload))
        if isinstance(who, Unidentified):
            await self._refuse(who, hook_id, choice)
            self._teller.tell(place, who.text)
            return
        target = await self._engine.find(hook_id)
        if choice not in get_args(ChoiceName) or not await self._is_about(payload, target):
            await self._refuse(Unidentified(who.user, "unknown", GONE), hook_id, choice)
            self._teller.tell(place, GONE)
            return
        digest = digest_seen(str(action.get("block_id") or ""))
        card, offered = self._offered(target, who.address, choice)
        if card is not None and offered is not None and (offered.asks or offered.comment == "required"):
            opened = views.Opened(hook_id, choice, digest, place.channel)
            await self._open(payload, place, who, views.vote_modal(card, offered, opened), card)
            return
        vote = Vote(who.address, cast(ChoiceName, choice), "slack", digest=digest)
        verdict = await self._cast(target or hook_id, vote, press_of(payload))
        self._tell_verdict(place, hook_id, who.address, verdict)
        self._news(who.user)

    async def asked_why(self, payload: Mapping[str, Any]) -> None:
        """Somebody wants to know why she is asked, or who is. She is told; nothing changes."""
        place = Place.of(payload)
        who = await self._identities.who(place.user, team_of(payload))
        if isinstance(who, Unidentified) and not who.may_see:
            self._teller.tell(place, who.text)
            return
        target = await self._engine.find(str(payload["actions"][0].get("value") or ""))
        view = request_behind(target)
        if view is None or not await self._is_about(payload, target):
            self._teller.tell(place, GONE)
            return
        text = why(view, who.address if isinstance(who, Identified) else None, self._engine.now())
        if isinstance(who, Identified) and view.is_open and asks_herself(view, who.address):
            page = await self._page(card_of(view, who.address, self._engine.now()), who.address)
            text += f" {OWN_PAGE.format(page=page)}" if page else ""
        if isinstance(who, Identified) and may_try(view, who):
            self._afterwards.do(self._teller.tell_now(place, text, with_button(text, view)))
        else:
            self._teller.tell(place, text)

    async def submitted(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """A submitted modal. Returns Slack's `response_action`, or None to close the modal."""
        view = payload["view"]
        place = Place(str((payload.get("user") or {}).get("id") or ""))
        try:
            opened = views.Opened.load(str(view.get("private_metadata") or ""))
        except (ValueError, KeyError, TypeError):
            return _say(GONE)
        who = await self._identities.who(place.user, team_of(payload))
        if isinstance(who, Unidentified):
            await self._refuse(who, opened.hook_id, opened.choice)
            return _say(who.text)
        if opened.choice not in get_args(ChoiceName):
            return _say(GONE)
        choice = cast(ChoiceName, opened.choice)
        values = (view.get("state") or {}).get("values") or {}
        target = await self._engine.find(opened.hook_id)
        _, offered = self._offered(target, who.address, choice)
        asks = offered.asks if offered is not None else ()
        editable = self._editable(target) if choice == "edit" else ()
        comment, answers = views.filled_in(values, [ask for ask in asks if ask not in editable])
        edited = views.edits(values, editable)
        vote = Vote(who.address, choice, "slack", comment, {**answers}, {**edited}, opened.digest)
        verdict = await self._cast(target or opened.hook_id, vote, press_of(payload))
        self._news(who.user)
        if verdict.verdict == "invalid":
            errors = views.complaint(verdict, values, asks)
            return {"response_action": "errors", "errors": errors} if errors else _say(verdict.text)
        if not verdict.changed:
            return _say(f"{verdict.text}\n\nYou wrote:\n{comment}" if comment else verdict.text)
        if not opened.channel:
            return _say(verdict.text)
        self._tell_verdict(Place(place.user, opened.channel), opened.hook_id, who.address, verdict)
        return None

    # ── deciding ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _cast(self, hook: str | HookTarget, vote: Vote, press: str | None) -> Reply:
        verdict = await perform(self._engine, hook, vote, timeout=VERDICT_LIMIT, press=press)
        if self._counted is not None:
            self._counted(verdict.verdict, "slack")
        return verdict

    def _offered(self, target: HookTarget | None, address: str, choice: str) -> tuple[Card | None, CardChoice | None]:
        """The request as this person sees it, and the choice if she has it. Who may not is told so by the rules."""
        view = request_behind(target) if target is not None and target.hook.is_live else None
        if view is None:
            return None, None
        card = card_of(view, address, self._engine.now())
        return card, next((one for one in card.choices if one.choice == choice), None)

    def _editable(self, target: HookTarget | None) -> tuple[FormField, ...]:
        view = request_behind(target)
        return view.editable if view is not None else ()

    async def _is_about(self, payload: Mapping[str, Any], target: HookTarget | None) -> bool:
        """Whether the click was on a message (or view) of ours, and the message was about this very request."""
        if not (await self._identities.workspace()).posted(payload):
            return False
        delivery = delivery_of(payload.get("message") or {})
        if target is None or delivery is None:
            return True
        view = request_behind(target)
        return delivery.startswith(f"{view.id if view is not None else target.row.id}-")

    async def _refuse(self, who: Unidentified, hook_id: str, choice: str) -> None:
        hook = await self._engine.find_hook(hook_id)
        await self._engine.audit(
            "act_refused",
            who=f"slack:{who.user}",
            run_id=hook.run_id if hook is not None else None,
            data={"kind": "vote", "choice": choice, "via": "slack", "verdict": who.verdict},
        )

    # ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _open(
        self, payload: Mapping[str, Any], place: Place, who: Identified, view: dict[str, Any], card: Card
    ) -> None:
        try:
            async with asyncio.timeout(OPEN_LIMIT):
                await self._client.ask("views.open", trigger_id=str(payload.get("trigger_id") or ""), view=view)
        except (SlackError, TimeoutError) as failure:
            log.warning("A modal could not be opened: %s", failure if isinstance(failure, SlackError) else "time-out")
            page = await self._page(card, who.address)
            self._teller.tell(place, NOT_OPENED.format(page=page) if page else NOT_OPENED.partition(", or")[0] + ".")

    async def _page(self, card: Card, address: str) -> str:
        if self._link is None:
            return card.url
        link = self._link(card.hook_id, address)
        return await link if isawaitable(link) else link

    def _tell_verdict(self, place: Place, hook_id: str, address: str, verdict: Reply) -> None:
        if verdict.verdict in ("counted", "changed"):
            self._afterwards.do(self._tell_counted(place, hook_id, address, verdict.text))
        else:
            self._teller.tell(place, verdict.text)

    async def _tell_counted(self, place: Place, hook_id: str, address: str, text: str) -> None:
        """A vote that may still be taken back comes with the button for it."""
        card, take_back = self._offered(await self._engine.find(hook_id), address, "take_back")
        blocks: list[Block] = views.changed_your_mind(text, card) if card is not None and take_back is not None else []
        await self._teller.tell_now(place, text, blocks)

    def _news(self, user: str) -> None:
        if self._voted is not None:
            self._afterwards.do(self._voted(user))


def _say(text: str) -> dict[str, Any]:
    return {"response_action": "update", "view": views.said_modal(text)}


# ── The answer to "Why am I asked?": why this person, whom else, and what was left out. Pure. ──

NAMED = 6  # people who are named with their reasons


def why(view: Request, address: str | None, now: datetime) -> str:
    """Some sentences of plain text. `address`: who asks; None for somebody who may look on only."""
    card = card_of(view, address, now)
    if card.outcome is not None:
        return f"{card_text.outcome(card.outcome)}. Nobody is asked any more."
    voted = any(vote.by == address and vote.stands for vote in view.votes) if address else False
    if voted:
        own = "You have voted."
    elif address is not None and address in (view.requester, view.on_behalf_of):
        own = "You asked for this yourself." if address == view.requester else "This is asked for you."
    else:
        own = "You are not one of the people who are asked here."
    sentences = [card.why_me or own, own if card.why_me and voted else "", _others(view, address)]
    skipped = [f"{stage.title} was skipped: {stage.because}." for stage in view.stages if stage.state == "skipped"]
    return " ".join(sentence for sentence in [*sentences, *skipped] if sentence)


def _others(view: Request, address: str | None) -> str:
    stage = view.stage
    people = [person for person in view.waiting_for if person != address]
    if stage is None or not people:
        return ""
    named = []
    for person in people[:NAMED]:
        reasons = [seat.eligible[person] for seat in stage.seats if person in seat.eligible]
        named.append(view.name(person).text + (f" ({reasons[0]})" if reasons else ""))
    if others := len(people) - len(named):
        named.append("1 other" if others == 1 else f"{others} others")
    opening = "Also waiting for" if address in view.waiting_for else "Waiting for"
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
    return f"{opening} {listed}."
