"""Votes from Slack: a press or a submitted modal becomes a vote, and only that person sees the reply.

The vote is stored before the press is acknowledged. The reply follows later, because Slack's API may be slow or down
while presses still count.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, cast, get_args

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Actor, Reply, Vote
from approvals_bot.approvals.card import card_of, closed, editable_of, needs_form
from approvals_bot.approvals.card_model import Card, CardChoice, ChoiceName, FormField
from approvals_bot.approvals.delivery import sent_cards
from approvals_bot.approvals.next_calls import ALLOWANCE, with_next_calls
from approvals_bot.approvals.request import Request, has_had
from approvals_bot.approvals.text import UNCHANGED
from approvals_bot.channels.slack import modals as views
from approvals_bot.channels.slack.blocks import NEXT_CALLS, Block, card_message, delivery_of, digest_seen, state_seen
from approvals_bot.channels.slack.client import SlackClient, SlackError
from approvals_bot.channels.slack.desk import NamedLink, ReplyTo, SlackDesk, link_in, reply_in_modal, submitted_by
from approvals_bot.channels.slack.home import SlackHome
from approvals_bot.channels.slack.identity import Identified, Unidentified, team_of
from approvals_bot.channels.slack.reassignment import may_reassign, with_reassign_button
from approvals_bot.durable.engine import HookTarget
from approvals_bot.service.act import PUT_BACK, SentAct, is_requester
from approvals_bot.service.audited import audit_refusal
from approvals_bot.service.read import goes_on_as, request_behind

NOT_OPENED = "Slack couldn't open the form. Nothing was changed. Please try again"
OR_THE_PAGE = ", or decide on the request's page: {page}"
OWN_PAGE = "You can edit or withdraw it on its page: {page}"
OPEN_PAGE = "Open the request"
NOT_THE_NEXT = "This call can be approved alone only. Nothing was changed. Press Approve to approve it."
GONE = "This button no longer works. Nothing was changed."

log = logging.getLogger(__name__)

LATEST_VERDICT = 1_200.0  # seconds; the reply to a press is possible for 1,800
NAMED = 6  # people who are named with their reasons
DIRECT = "D"  # how the ids of direct messages begin


class SlackVotes:
    """The handlers of presses and submitted modals. Each returns within about two seconds."""

    def __init__(self, desk: SlackDesk, home: SlackHome) -> None:
        self._desk = desk
        self._home = home

    async def pressed(self, payload: Mapping[str, Any]) -> None:
        """Count the vote of a card's button, or open the modal that it needs."""
        to = ReplyTo.of(payload)
        action = payload["actions"][0]
        choice = str(action.get("action_id", "")).removeprefix("vote:")
        hook_id = str(action.get("value") or "")
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified):
            await self._refuse(identity, hook_id, choice)
            self._desk.replies.reply(to, identity.text, or_directly=True)
            return
        target = await self._desk.engine.find(hook_id)
        wants_next = choice == NEXT_CALLS
        choice = "approve" if wants_next else choice
        if choice not in get_args(ChoiceName) or not await is_about(self._desk, payload, target):
            await self._refuse(Unidentified(identity.user, "unknown", GONE), hook_id, choice)
            self._desk.replies.reply(to, GONE, or_directly=True)
            return
        digest, state = digest_seen(str(action.get("block_id") or "")), state_seen(str(action.get("block_id") or ""))
        view, about = request_behind(target), ""
        is_put_back = view is not None and state is not None and not has_had(view, state)
        has_form = view is not None and (wants_next or needs_form(view, cast(ChoiceName, choice)))
        is_form = has_form and not is_put_back
        card, offered = self._offered(target, identity.address, choice) if is_form else (None, None)
        if wants_next and card is not None and offered is not None:
            if card.next_calls is None:
                self._desk.replies.reply(to, NOT_THE_NEXT, or_directly=True)
                return
            about = card.next_calls.text
            asks = (*offered.asks, *card.next_calls.asks)
            offered = replace(offered, short="Approve the next, too", asks=asks)
        if card is not None and offered is not None and (offered.asks or offered.comment == "required"):
            opened = views.Opened(hook_id, choice, digest, to.channel, state)
            named = [address for ask in offered.asks if ask.spec.holds_people for address in ask.value.splitlines()]
            users = await self._desk.identities.users_of(named)
            modal = views.vote_modal(card, offered, opened, users, about=about)
            await self._open(payload, to, modal, card, identity.address)
            self._desk.afterwards.do(close_stray(self._desk, payload, hook_id, identity.address))
            return
        vote = Vote(identity.address, cast(ChoiceName, choice), via="slack", digest=digest)
        sent = await self._desk.send(target or hook_id, vote, payload, state=state)
        self._desk.afterwards.do(self._reply_later(payload, hook_id, identity, sent))

    async def _reply_later(
        self, payload: Mapping[str, Any], hook_id: str, identity: Identified, sent: SentAct | Reply
    ) -> None:
        """Reply to a vote once the request has. The press is acknowledged before: its vote is durable."""
        to, reply = ReplyTo.of(payload), await self._desk.reply_to(sent)
        self._reply(to, hook_id, identity.address, reply)
        if reply.verdict == "received" and isinstance(sent, SentAct):  # such as while Slack can't say who is in a group
            reply = await sent.reply(LATEST_VERDICT)
            if reply.verdict != "received":
                self._reply(to, hook_id, identity.address, reply)
        if reply == PUT_BACK:
            await show_again(self._desk, payload, hook_id, identity.address)
        else:
            await close_stray(self._desk, payload, hook_id, identity.address)
        await self._home.voted(identity.user)

    async def explain(self, payload: Mapping[str, Any]) -> None:
        """Answer "Why me?": why this person is an approver, or who is. Nothing changes."""
        to = ReplyTo.of(payload)
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified) and not identity.may_see:
            self._desk.replies.reply(to, identity.text, or_directly=True)
            return
        target = await self._desk.engine.find(str(payload["actions"][0].get("value") or ""))
        view = request_behind(target)
        if view is None or not await is_about(self._desk, payload, target):
            self._desk.replies.reply(to, GONE, or_directly=True)
            return
        text = why(view, identity.address if isinstance(identity, Identified) else None, self._desk.engine.now())
        link = None
        if isinstance(identity, Identified) and view.is_open and is_requester(view, identity.address):
            page = await self._desk.own_page(card_of(view, identity.address, self._desk.engine.now()), identity.address)
            text += f" {OWN_PAGE.format(page=page)}" if page else ""
            link = NamedLink(page, OPEN_PAGE) if page else None
        if isinstance(identity, Identified) and may_reassign(view, identity):
            self._desk.afterwards.do(self._desk.replies.reply_now(to, text, with_reassign_button(text, view)))
        else:
            self._desk.replies.reply(to, text, link=link)

    async def submitted(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """Count the vote of a submitted modal. Returns Slack's `response_action`, or None to close the modal."""
        to, values, remembered = submitted_by(payload)
        try:
            opened = views.Opened.load(remembered)
        except (ValueError, KeyError, TypeError):
            return reply_in_modal(GONE)
        identity = await self._desk.identities.identify(to.user, team_of(payload))
        if isinstance(identity, Unidentified):
            await self._refuse(identity, opened.hook_id, opened.choice)
            return reply_in_modal(identity.text)
        if opened.choice not in get_args(ChoiceName):
            return reply_in_modal(GONE)
        choice = cast(ChoiceName, opened.choice)
        target = await self._desk.engine.find(opened.hook_id)
        card, offered = self._offered(target, identity.address, choice)
        asks = offered.asks if offered is not None else ()
        editable = self._editable(target, identity.address) if choice == "edit" else ()
        comment, answers = views.filled_in(values, [ask for ask in asks if ask not in editable])
        edited = views.edits(values, editable, views.chosen_users(payload["view"]))
        people = [ask.name for ask in (*asks, *editable) if ask.spec.holds_people]
        answers, strangers = await self._desk.identities.addressed(answers, people)
        edited, others = await self._desk.identities.addressed(edited, people)
        if strangers or others:
            errors = {views.ASK + name: f"{views.STRANGER} {UNCHANGED}" for name in (*strangers, *others)}
            return {"response_action": "errors", "errors": errors}
        vote = Vote(identity.address, choice, {**answers}, {**edited}, opened.digest, via="slack", comment=comment)
        ready = self._with_next_calls(vote, target, values)
        if isinstance(ready, Reply):
            reply = ready
        else:
            reply = await self._desk.perform(target or opened.hook_id, ready, payload, state=opened.state)
        if card is not None and card.next_calls is not None:
            asks = (*asks, *card.next_calls.asks)
        self._desk.afterwards.do(self._home.voted(identity.user))
        if reply.verdict == "invalid":
            found = views.complaint(reply, values, asks)
            return {"response_action": "errors", "errors": found} if found else reply_in_modal(reply.text)
        if not reply.changed:
            said = f"{reply.text}\n\nYou wrote:\n{comment}" if comment else reply.text
            return reply_in_modal(said, link_in(reply))
        if not opened.channel:
            return reply_in_modal(reply.text)
        self._reply(ReplyTo(to.user, opened.channel), opened.hook_id, identity.address, reply)
        return None

    def _with_next_calls(self, vote: Vote, target: HookTarget | None, values: Mapping[str, Any]) -> Vote | Reply:
        """Return the vote with the allowance that the modal gives, if it was about the next calls, too."""
        limits = {name.removeprefix(views.ASK): views.given(values, name) for name in values}
        view = request_behind(target)
        if view is None or not any(name.startswith(f"{ALLOWANCE}.") for name in limits):
            return vote
        return with_next_calls(vote, view, limits)

    def _offered(self, target: HookTarget | None, address: str, choice: str) -> tuple[Card | None, CardChoice | None]:
        """Return the request as this person sees it, and the choice if they have it.

        Without it, the vote is performed all the same, and the request's rules word the rejection.
        """
        view = request_behind(target) if target is not None and target.hook.is_live else None
        if view is None:
            return None, None
        card = card_of(view, address, self._desk.engine.now())
        return card, next((one for one in card.choices if one.choice == choice), None)

    def _editable(self, target: HookTarget | None, address: str) -> tuple[FormField, ...]:
        view = request_behind(target)
        return editable_of(view, view.number_format(address)) if view is not None else ()

    async def _refuse(self, identity: Unidentified, hook_id: str, choice: str) -> None:
        hook = await self._desk.engine.find_hook(hook_id)
        await audit_refusal(
            self._desk.engine,
            "act_refused",
            who=f"slack:{identity.user}",
            run_id=hook.run_id if hook is not None else None,
            actor=Actor("slack", identity.user).as_json(),
            data={"kind": "vote", "choice": choice, "via": "slack", "verdict": identity.verdict},
        )

    async def _open(
        self, payload: Mapping[str, Any], to: ReplyTo, view: dict[str, Any], card: Card, address: str
    ) -> None:
        if await self._desk.is_opened(payload, view):
            return
        page = await self._desk.own_page(card, address)
        text = NOT_OPENED + (OR_THE_PAGE.format(page=page) if page else ".")
        self._desk.replies.reply(to, text, or_directly=True, link=NamedLink(page, OPEN_PAGE) if page else None)

    def _reply(self, to: ReplyTo, hook_id: str, address: str, reply: Reply) -> None:
        if reply.verdict in ("counted", "changed"):
            self._desk.afterwards.do(self._reply_counted(to, hook_id, address, reply.text))
        else:
            self._desk.replies.reply(to, reply.text, link=link_in(reply))

    async def _reply_counted(self, to: ReplyTo, hook_id: str, address: str, text: str) -> None:
        """Reply to a counted vote, with the button to undo it if that is possible."""
        card, undo = self._offered(await self._desk.engine.find(hook_id), address, "take_back")
        blocks: list[Block] = views.with_undo_button(text, card) if card is not None and undo is not None else []
        await self._desk.replies.reply_now(to, text, blocks)


async def is_about(desk: SlackDesk, payload: Mapping[str, Any], target: HookTarget | None) -> bool:
    """Return whether the press was on a message or view of ours that is about this request."""
    if not (await desk.identities.workspace()).posted(payload):
        return False
    delivery = delivery_of(payload.get("message") or {})
    if target is None or delivery is None:
        return True
    view = request_behind(target)
    if delivery.startswith(f"{view.id if view is not None else target.record.id}-"):
        return True
    # Messages that were posted before a reset name the run of that time.
    run_id, _, number = delivery.partition("-")[0].partition(".")
    is_same = number == (str(view.number) if view is not None and view.number else "")
    return is_same and await goes_on_as(desk.engine, run_id, target.record)


def why(view: Request, address: str | None, now: datetime) -> str:
    """Explain in plain text why this person is an approver, or who is.

    `address`: the person's; None for somebody who may only view requests.
    """
    card = card_of(view, address, now)
    if card.outcome is not None:
        return f"{card_text.outcome(card.outcome)}. No more votes are needed."
    voted = any(vote.by == address and vote.counts for vote in view.votes) if address else False
    if voted:
        own = "You've already voted."
    elif address is not None and address in (view.requester, view.on_behalf_of):
        own = "You requested this." if address == view.requester else "This was requested for you."
    else:
        own = "You're not an approver for this request."
    sentences = [card.why_me or own, own if card.why_me and voted else "", _others(view, address)]
    skipped = [
        f"{stage.title} was skipped because {stage.because}." for stage in view.stages if stage.state == "skipped"
    ]
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


# Stray copies: messages of ours that no run knows any more, and so no run brings up to date. Slack may show a post
# after all that we had given up and sent again, and refuse for days that a card be edited. Its buttons still count, and
# a press on one closes it. The cards from before a reset are closed by `service.stalls`, soon after it.


async def close_stray(desk: SlackDesk, payload: Mapping[str, Any], hook_id: str, address: str) -> None:
    """Take the buttons off the message that was pressed, if it is a stray copy: it shows the request as it is now.

    A failure does no harm: the next press closes it.
    """
    delivery, (place, ts) = delivery_of(payload.get("message") or {}), _place_of(payload)
    target = await desk.engine.find(hook_id)
    view = request_behind(target)
    if delivery is None or target is None or view is None or not _may_be_stray(view, delivery):
        return
    record, events = target.record, target.whole_log
    if events is None:
        found = await desk.engine.store.read(record.id)
        if found is None:
            return
        record, events = found
    known = [sent.card for receipt, sent in sent_cards(events) if (receipt.place, receipt.id) == (place, ts)]
    if known and not (record.has_ended and known[0].outcome is None):  # its run edits it, or has
        return
    await _edit(desk.client, place, ts, closed(card_of(view, _reader(place, address), desk.engine.now())))


async def show_again(desk: SlackDesk, payload: Mapping[str, Any], hook_id: str, address: str) -> None:
    """Bring the message that was pressed up to date, with its buttons: it shows what the request has never been."""
    place, ts = _place_of(payload)
    view = request_behind(await desk.engine.find(hook_id))
    if view is not None and delivery_of(payload.get("message") or {}) is not None:
        url = f"{desk.engine.base_url}/requests/{view.id}"
        await _edit(desk.client, place, ts, card_of(view, _reader(place, address), desk.engine.now(), url))


def _place_of(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Return the channel and the time stamp of the message that was pressed."""
    message, container = payload.get("message") or {}, payload.get("container") or {}
    place = str((payload.get("channel") or {}).get("id") or container.get("channel_id") or "")
    return place, str(message.get("ts") or container.get("message_ts") or "")


def _reader(place: str, address: str) -> str | None:
    return address if place.startswith(DIRECT) else None


async def _edit(client: SlackClient, place: str, ts: str, card: Card) -> None:
    text, blocks = card_message(card)
    try:
        await client.ask("chat.update", conversation=place, channel=place, ts=ts, text=text, blocks=blocks)
    except SlackError as failure:
        log.warning("A message could not be brought up to date: %s", failure)


def _may_be_stray(view: Request, delivery: str) -> bool:
    """Return whether it is worth reading the run's log: the request is over, was reset, or something may be twice."""
    is_of_run = delivery.startswith(f"{view.id}-")
    return not view.is_open or not is_of_run or any(copy.uncertain for copy in view.deliveries)
