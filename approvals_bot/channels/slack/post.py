"""Outgoing Slack: posts cards, updates them, and never posts one twice.

Slack has no idempotency key. So every message carries its delivery id as metadata. If an answer was lost, or a process
may have died in the middle of a post, the conversation is searched for that id before posting again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.approvals.notifications import ASKING
from approvals_bot.approvals.port import (
    Delivered,
    Dispatch,
    Place,
    Receipt,
    Refused,
    RefusedCode,
    Result,
    ToPerson,
    TryAgain,
    place_name,
)
from approvals_bot.channels.slack import blocks
from approvals_bot.channels.slack.blocks import NOBODY, Mentions
from approvals_bot.channels.slack.client import AnswerLostError, LaterError, NeverError, SlackClient, SlackError
from approvals_bot.channels.slack.members import BriefCache, SlackPeople
from approvals_bot.channels.slack.updates import GRACE, UPDATE, QueuedError, UpdateQueue, span
from approvals_bot.durable.core.api import get_step_metadata
from approvals_bot.errors import NotInStepError
from approvals_bot.people import Person, SourceUnavailable

POST_EVERY = 1.0  # seconds between two posts to one conversation, as Slack asks
POST_WAIT = 3.0  # seconds that a post waits here for its turn; if it would take longer, it comes back later
FIRST_PAUSE, LONGEST_PAUSE = 3.0, 120.0  # seconds before retrying a conversation that failed; doubled each time

METHOD = "chat.postMessage"
RATE_LIMITED = "ratelimited"  # Slack's code
KEPT = 10_000  # conversations

HERE = float("inf")  # instead of the time when a post is expected back: it is waiting here

FRESH = timedelta(seconds=5)  # a step that started longer ago may have been tried by a process that died
LOOK_BACK = timedelta(minutes=5)  # before the first attempt, because clocks differ
SEARCHED = 500  # newest messages that are searched for a lost post
TOO_LATE = "too_late"  # our own code: a request for a decision that is made, and Slack never had it
GONE = ("is_archived", "channel_not_found")  # Slack's codes for a channel in which nobody can write any more
NO_ACCOUNT = "users_not_found"  # Slack's code for an address without an account
OUTSIDER = "outsider"  # our own code: an account with which nobody may act, such as a guest's
NO_TROUBLE: dict[str, RefusedCode] = {NO_ACCOUNT: "no_account", OUTSIDER: "no_account", TOO_LATE: "too_late"}
"""What is no failure: they are asked by mail and looked up again, or need not be asked any more."""

NAME_MEMORY = 300.0  # seconds; a channel may be renamed, and another may get its name
REMEMBERED = 2_000  # deliveries whose answer was lost, and conversations whose id is known
log = logging.getLogger(__name__)
MEMBER_MEMORY = 60.0  # seconds; how long somebody who has joined or left a channel may be taken for what they were


@dataclass(eq=False)
class _Queue:
    """One conversation's queue of posts. Times are monotonic seconds."""

    expected: OrderedDict[str, float] = field(default_factory=OrderedDict)  # waiting posts in order → when each is back
    free_at: float = 0.0  # no post before
    failures: int = 0  # in a row
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def next_pause(self) -> timedelta:
        """Return how long to pause after one more failure."""
        self.failures += 1
        return span(min(FIRST_PAUSE * 2 ** min(self.failures - 1, 16), LONGEST_PAUSE))

    def give_way(self, key: str, until: float | None = None) -> None:
        """Let the next post go. This one is back at `until`, or has left for good."""
        if until is None:
            self.expected.pop(key, None)
        else:
            self.expected[key] = until
        self.moved.set()
        self.moved = asyncio.Event()


class ConversationQueues:
    """The queues of all conversations. `patience`: seconds that a post waits here; `every`: seconds between posts."""

    def __init__(
        self, monotonic: Callable[[], float], *, patience: float = POST_WAIT, every: float = POST_EVERY
    ) -> None:
        self._monotonic = monotonic
        self._patience = patience
        self._every = every
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def turn(self, conversation: str, key: str) -> AsyncIterator[None]:
        """Hold this conversation's turn to post for as long as the block runs.

        Raises QueuedError if the turn isn't soon. If the block raises LaterError, the post keeps its place until
        `after`. Otherwise the next post follows at the usual distance.
        """
        now = self._monotonic()
        if len(self._queues) > KEPT:
            self._queues = {
                name: queue for name, queue in self._queues.items() if queue.expected or queue.free_at > now
            }
        queue = self._queues.setdefault(conversation, _Queue())
        for absent in [one for one, at in queue.expected.items() if at + GRACE < now and one != key]:
            del queue.expected[absent]
        queue.expected[key] = HERE
        try:
            await self._wait(queue, key)
            yield
        except QueuedError:
            raise
        except LaterError as later:
            after = later.after = later.after or queue.next_pause()
            queue.free_at = max(queue.free_at, self._monotonic() + after.total_seconds())
            queue.give_way(key, until=queue.free_at)
            raise
        except BaseException:
            queue.give_way(key)
            raise
        queue.failures = 0
        queue.free_at = max(queue.free_at, self._monotonic() + self._every)
        queue.give_way(key)

    async def _wait(self, queue: _Queue, key: str) -> None:
        """Wait for this post's turn. Raises QueuedError as soon as that turns out to be too far away."""
        while True:
            now = self._monotonic()
            queue.expected.setdefault(key, HERE)
            ahead = list(queue.expected).index(key)
            turn = max(now, queue.free_at) + ahead * self._every
            if turn - now > self._patience:
                queue.expected[key] = turn
                raise QueuedError(METHOD, "waiting for its turn", span(turn - now))
            if ahead == 0:
                await asyncio.sleep(turn - now)
                return
            try:
                async with asyncio.timeout(self._patience):
                    await queue.moved.wait()
            except TimeoutError:  # the post ahead takes long
                queue.expected[key] = self._monotonic() + self._every
                raise QueuedError(METHOD, "waiting for its turn", span(self._every)) from None


class SlackOut:
    """Cards as Slack messages, to a conversation or directly to a person."""

    def __init__(
        self, client: SlackClient, people: SlackPeople, *, now: Callable[[], datetime], patience: float = POST_WAIT
    ) -> None:
        """Set it up. `patience`: seconds that a post waits here for its turn before it comes back later."""
        self._client = client
        self._queues = ConversationQueues(client.monotonic, patience=patience)
        self._updates = UpdateQueue(client.monotonic)
        self._people = people
        self._mentions = SlackMentions(client, people)
        self._now = now
        self._born = now()
        self._lost: OrderedDict[str, datetime] = OrderedDict()  # delivery id → when it was first tried
        self._direct: OrderedDict[str, str] = OrderedDict()  # user id → conversation id
        self._named: OrderedDict[str, tuple[str, float]] = OrderedDict()  # "#deploys" → conversation id, and until when

    async def send(self, dispatch: Dispatch) -> Result:
        try:
            conversation = await self._conversation(dispatch)
            tried = dispatch.lost_at or self._tried_before(dispatch.delivery_id)
            # Queued by name: we learn a conversation's id only by posting there.
            async with self._queues.turn(place_name(dispatch.to), dispatch.delivery_id):
                return await self._notify(dispatch, conversation, tried)
        except (LaterError, NeverError, SourceUnavailable) as error:
            if isinstance(error, NeverError) and await self._has_moved(dispatch, error):
                return await self.send(dispatch)  # to the channel that has the name now, or the new conversation
            return _failed(error)

    async def _has_moved(self, dispatch: Dispatch, never: NeverError) -> bool:
        """Forget the id of a conversation that Slack refuses.

        A channel may be archived, and another may have its name; a person may have another account.
        """
        if never.code not in GONE or dispatch.thread is not None:
            return False
        if isinstance(dispatch.to, Place):
            return self._named.pop(dispatch.to.place, None) is not None
        user = await self._people.user_id(dispatch.to.person)
        return self._direct.pop(user or "", None) is not None

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        text, shown = blocks.message(dispatch, await self._mentions.find(dispatch, cached=True))
        message, is_decided = f"{receipt.place}/{receipt.id}", dispatch.card.outcome is not None
        try:
            self._updates.take_turn(message, is_decided=is_decided)
            await self._client.ask(
                UPDATE,
                conversation=receipt.place,
                channel=receipt.place,
                ts=receipt.id,
                text=text,
                blocks=shown,
            )
        except (LaterError, NeverError) as error:
            if error.code == RATE_LIMITED and isinstance(error, LaterError) and error.after is not None:
                error.after = self._updates.limited(message, error.after, is_decided=is_decided)
            failed = _failed(error)
            if isinstance(failed, Refused) and error.code == "missing_scope":
                return replace(failed, code="install")  # it can edit nothing
            # An update may safely be repeated if its answer was lost.
            return replace(failed, lost=False) if isinstance(failed, TryAgain) else failed
        return Delivered(Receipt(receipt.place, receipt.id, dispatch.card.version))

    async def _notify(self, dispatch: Dispatch, conversation: str, tried: datetime | None) -> Delivered:
        """Post the card with its mentions, and find out whom these don't reach.

        Before the post, so that a failure leaves nothing half done. Only the first post to a channel by its name has to
        come before, because its answer has the channel's id; if Slack fails then, all get a message of their own.
        """
        mentions = await self._look_up(dispatch)
        if conversation.startswith("#"):
            delivered = await self._post(dispatch, conversation, tried, mentions)
            try:
                missed = await self._mentions.missed(dispatch, mentions, delivered.receipt.place)
            except SlackError:
                missed = tuple(person.address for person in dispatch.mention)
        else:
            missed = await self._mentions.missed(dispatch, mentions, conversation)
            delivered = await self._post(dispatch, conversation, tried, mentions)
        return replace(delivered, missed=missed)

    async def _look_up(self, dispatch: Dispatch) -> blocks.Mentions:
        """Look up whom to mention. Raises LaterError, so that the post keeps its turn."""
        try:
            return await self._mentions.find(dispatch)
        except SourceUnavailable as failure:
            raise LaterError("users.lookupByEmail", failure.reason) from None

    async def _post(
        self, dispatch: Dispatch, conversation: str, tried: datetime | None, mentions: blocks.Mentions
    ) -> Delivered:
        """Post the card, unless it is already there. `tried`: when it may have been posted before."""
        found = await self._find(dispatch, conversation, tried) if tried is not None else True
        if isinstance(found, Receipt):
            self._lost.pop(dispatch.delivery_id, None)
            return Delivered(found)
        if tried is not None and found and dispatch.card.outcome is not None and dispatch.occasion in ASKING:
            raise NeverError(METHOD, TOO_LATE)
        text, shown = blocks.message(dispatch, mentions)
        try:
            answer = await self._client.ask(
                METHOD,
                conversation=place_name(dispatch.to),
                channel=conversation,
                text=text,
                blocks=shown,
                thread_ts=dispatch.thread.id if dispatch.thread else None,
                metadata={"event_type": blocks.METADATA, "event_payload": {"delivery_id": dispatch.delivery_id}},
                unfurl_links=False,
                unfurl_media=False,
            )
        except AnswerLostError:
            _keep(self._lost, dispatch.delivery_id, self._lost.get(dispatch.delivery_id) or self._now())
            raise
        self._lost.pop(dispatch.delivery_id, None)
        place = str(answer["channel"])
        if conversation != place:
            self._name(conversation, place)
        return Delivered(Receipt(place, str(answer["ts"]), dispatch.card.version), uncertain=not found)

    async def _conversation(self, dispatch: Dispatch) -> str:
        if dispatch.thread is not None:
            return dispatch.thread.place
        if isinstance(dispatch.to, Place):
            return self._id_named(dispatch.to.place) or dispatch.to.place
        is_asked = dispatch.occasion in ASKING and bool(dispatch.card.choices)
        return await self._direct_to(dispatch.to.person, to_act=is_asked)

    async def _direct_to(self, person: Person, *, to_act: bool) -> str:
        """Return the conversation with this person. Raises NeverError if they have no account, or only a guest's."""
        user = await self._people.user_id(person, to_act=to_act)
        if user is None:
            is_outsider = to_act and await self._people.user_id(person) is not None
            raise NeverError("users.lookupByEmail", OUTSIDER if is_outsider else NO_ACCOUNT)
        if user not in self._direct:
            answer = await self._client.ask("conversations.open", users=user)
            _keep(self._direct, user, str(answer["channel"]["id"]))
        return self._direct[user]

    def _tried_before(self, delivery_id: str) -> datetime | None:
        """Return when this delivery may have been posted: after a lost answer, or a crash of its step."""
        if delivery_id in self._lost:
            return self._lost[delivery_id]
        try:
            first = get_step_metadata().first_started_at
        except NotInStepError:
            return None
        return first if first < self._born or self._now() - first > FRESH else None

    async def _find(self, dispatch: Dispatch, conversation: str, tried: datetime) -> Receipt | bool:
        """Find the copy that was posted. True: there is none. False: unknown, as we may not read there."""
        place = await self._id_of(conversation)
        if place is None:
            return False
        oldest = f"{(tried - LOOK_BACK).timestamp():.6f}"
        thread: dict[str, Any] = {"ts": dispatch.thread.id} if dispatch.thread else {}
        method = "conversations.replies" if dispatch.thread else "conversations.history"
        seen = 0
        try:
            async for message in self._client.pages(
                method, "messages", channel=place, oldest=oldest, include_all_metadata=True, **thread
            ):
                if blocks.delivery_of(message) == dispatch.delivery_id:
                    return Receipt(place, str(message["ts"]), 0)
                seen += 1
                if seen >= SEARCHED:
                    return False
        except NeverError as never:
            log.warning("The search for a lost Slack message failed (%s), so it may be posted twice.", never.code)
            return False
        return True

    async def _id_of(self, conversation: str) -> str | None:
        """Return the id of a conversation given by name; None if Slack doesn't list it."""
        if not conversation.startswith("#"):
            return conversation
        if (known := self._id_named(conversation)) is None:
            try:
                async for found in self._client.pages(
                    "conversations.list",
                    "channels",
                    limit=999,  # Slack takes less than 1,000
                    exclude_archived=True,
                    types="public_channel,private_channel",
                ):
                    if found.get("name") == conversation[1:]:
                        return self._name(conversation, str(found["id"]))
            except NeverError:
                return None
        return known

    def _name(self, channel: str, conversation: str) -> str:
        _keep(self._named, channel, (conversation, self._client.monotonic() + NAME_MEMORY))
        return conversation

    def _id_named(self, channel: str) -> str | None:
        """Return the id of the channel that has this name, unless that was learnt too long ago."""
        conversation, until = self._named.get(channel, ("", 0.0))
        return conversation if until > self._client.monotonic() else None


def _failed(error: LaterError | NeverError | SourceUnavailable) -> TryAgain | Refused:
    match error:
        case NeverError():
            code: RefusedCode = "install" if error.install else NO_TROUBLE.get(error.code, "other")
            if error.code not in NO_TROUBLE:
                log.warning(
                    "Slack refused a message: %s. `approvals-bot doctor` names the channel or permission and a mend",
                    error,
                )
            return Refused(error.reason, code)
        case SourceUnavailable(is_lasting=True):
            return Refused(str(error))
        case LaterError():
            is_lost, is_held = isinstance(error, AnswerLostError), isinstance(error, QueuedError)
            return TryAgain(error.reason, error.after, lost=is_lost, held=is_held)
        case _:
            return TryAgain(str(error))


def _keep(memory: OrderedDict[str, Any], key: str, value: Any) -> None:
    memory[key] = value
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)


# Mentions that notify: which of a dispatch's people Slack notifies in a conversation, and by which ids.


class SlackMentions:
    """The look-ups behind mentions, cached briefly."""

    def __init__(self, client: SlackClient, people: SlackPeople) -> None:
        self._client = client
        self._people = people
        self._members: BriefCache[frozenset[str] | None] = BriefCache(MEMBER_MEMORY, client.monotonic)

    async def find(self, dispatch: Dispatch, *, cached: bool = False) -> Mentions:
        """Return whom this dispatch mentions. Those without an account are left out.

        `cached`: leave out also those who can't be looked up now, as for an edit, which notifies nobody. Raises
        SourceUnavailable otherwise.
        """
        if not dispatch.mention and not dispatch.mention_groups:
            return NOBODY
        users, groups = dict[str, str](), list[str]()
        for person in dispatch.mention:
            try:
                user = await self._people.user_id(person, to_act=dispatch.occasion in ASKING)
            except SourceUnavailable as failure:
                if not (cached or failure.is_lasting):
                    raise
                continue
            if user is not None:
                users[person.address] = user
        for handle in dispatch.mention_groups:
            try:
                group = await self._people.group_id(handle)
            except SourceUnavailable as failure:
                if not (cached or failure.is_lasting):
                    raise
                continue
            groups += [group] if group is not None else []
        return Mentions(users, tuple(groups))

    async def missed(self, dispatch: Dispatch, mentions: Mentions, place: str) -> tuple[str, ...]:
        """Return the addresses of the people whom a mention in this conversation doesn't reach.

        Where the members may not be read, they are taken to be there. Raises LaterError.
        """
        if isinstance(dispatch.to, ToPerson) or not dispatch.mention:
            return ()
        members = await self._members.get(place, self._ask_members) if mentions.users else frozenset()
        return tuple(person.address for person in dispatch.mention if not _is_there(person, mentions, members))

    async def _ask_members(self, place: str) -> frozenset[str] | None:
        """Return the members of a conversation; None if we may not know them."""
        try:
            pages = self._client.ids("conversations.members", "members", limit=999, channel=place)
            return frozenset([member async for member in pages])
        except LaterError:
            raise
        except NeverError as never:
            log.warning(
                "Slack doesn't say who is in a channel (%s), so people outside it may go unnotified.", never.code
            )
            return None


def _is_there(person: Person, mentions: Mentions, members: frozenset[str] | None) -> bool:
    user = mentions.users.get(person.address)
    return user is not None and (members is None or user in members)
