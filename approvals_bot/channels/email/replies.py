"""Replies to our mails: a comment, and where the workflow allows it, a vote.

Each mail has a Reply-To of its own. It names the copy, and its seal has two halves: one for the copy, which is for one
person, and one for what that copy showed. A reply changes nothing unless its author is that person, by their own
address and by the word of a server that we trust. To decide, both halves must fit, so an edit voids the older ones, and
the first line must be one of the choices alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from approvals_bot.approvals.acts import Actor, Reply, Vote
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import Card, ChoiceName
from approvals_bot.approvals.delivery import LONGEST_MAIL_VALUE, shortened
from approvals_bot.approvals.port import EMAIL, Dispatch, Receipt, ToPerson
from approvals_bot.approvals.request import Request
from approvals_bot.channels.email.bounces import mailboxes_of
from approvals_bot.channels.email.reply_text import WORDS, ReplyMail, read_reply
from approvals_bot.channels.email.sealed import SEAL, MailedCopy, SealedAddresses, copy_of
from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People, Person
from approvals_bot.service.act import perform
from approvals_bot.service.attempts import change_counter
from approvals_bot.service.audited import audit_refusal
from approvals_bot.service.host import ChannelHost
from approvals_bot.service.read import find_record, request_of
from approvals_bot.service.talk import add_comment

log = logging.getLogger(__name__)

REPLY_SEAL = "reply.v1"
HALF = SEAL // 2  # characters: 40 bits for the copy, 40 for what it showed
ANSWERED_EVERY = timedelta(hours=1)  # for each card
LONGEST_COMMENT = 2_000  # characters of a vote's comment; the rest of a long mail is cut
DONE_ALREADY = ("received", "already_voted")

Because = Literal["not_allowed", "old_card", "not_offered", "comment_needed"]
"""Why a choice in a reply doesn't count."""

CHANGED_NOTHING = "Your reply changed nothing. To decide, open the request:"
ANSWERS: dict[str, str] = {
    "not_allowed": "Your reply changed nothing: this request is decided on its page, not by mail.",
    "old_card": "Your reply changed nothing: the request has been edited since the mail that you answered.",
    "comment_needed": "Your reply changed nothing: this choice needs a reason. Write it below the first line.",
}


class ReplyAddresses:
    """The Reply-To addresses of our mails, made and read: `reply+<request>-<copy>-<seal>@acme.eu`."""

    def __init__(self, address: str, tokens: Tokens) -> None:
        self._addresses = SealedAddresses(address)
        self._tokens = tokens

    def of(self, dispatch: Dispatch) -> str | None:
        """Return where replies to this mail go; None for a mail that is no copy of a request (a code)."""
        copy = copy_of(dispatch.delivery_id)
        if copy is None or dispatch.occasion == "code":
            return None
        halves = [self._tokens.seal(REPLY_SEAL, text)[:HALF] for text in _sealed_texts(copy, dispatch.card)]
        return self._addresses.write(copy, "".join(halves))

    def read(self, address: str) -> SealedReply | None:
        """Return the copy and the seal in this address; None if we haven't made it."""
        found = self._addresses.read(address)
        if found is None:
            return None
        copy, seal = found
        return SealedReply(copy, seal[HALF:]) if self._fits(copy.text, seal[:HALF]) else None

    def is_current(self, sealed: SealedReply, card: Card) -> bool:
        """Return whether the copy showed this card."""
        return self._fits(_sealed_texts(sealed.copy, card)[1], sealed.half)

    def _fits(self, text: str, half: str) -> bool:
        seals = self._tokens.seals(REPLY_SEAL, text)
        return any(hmac.compare_digest(seal[:HALF].encode(), half.encode()) for seal in seals)


@dataclass(frozen=True, slots=True)
class SealedReply:
    """An address that we have made: its copy, and the half of its seal that is for what the copy showed."""

    copy: MailedCopy
    half: str


def _sealed_texts(copy: MailedCopy, card: Card) -> tuple[str, str]:
    shown = [card.title, card.digest, *((field.name, field.value, field.was) for field in card.fields)]
    digest = hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
    return copy.text, f"{copy.text} {digest}"


class ReplyInlet:
    """The inlet for replies."""

    name = "replies"
    takes_from_people = True

    def __init__(
        self,
        host: ChannelHost,
        addresses: ReplyAddresses,
        trusted: Sequence[str],
        answer: Callable[[Dispatch], Awaitable[object]],
    ) -> None:
        """`trusted`: the servers whose Authentication-Results count. `answer`: sends a mail that answers a reply."""
        self._host = host
        self._addresses = addresses
        self._trusted = trusted
        self._answer = answer

    async def knows(self, address: str) -> bool:
        return self._addresses.read(address) is not None

    async def take(self, address: str, sender: str, content: bytes) -> bool:
        """Take a reply. True if it became a vote or a comment. What isn't from the copy's reader changes nothing."""
        sealed = self._addresses.read(address)
        if sealed is None or not sender:
            return False
        try:
            mail = read_reply(content, self._trusted)
        except Exception as error:  # noqa: BLE001  # a stranger's bytes may make the parser raise anything
            log.warning("A reply can't be parsed (%s).", type(error).__name__)
            return False
        if mail.is_automatic or not mail.vouched_by or address.lower() not in mail.recipients:
            return False
        found = await self._find(sealed.copy, mail.author)
        if found is None:
            return False
        request, person = found
        return await self._take(mail, sealed, request, person)

    async def _find(self, copy: MailedCopy, author: str) -> tuple[Request, Person] | None:
        """Return the request, and the person of the copy if the author is that person."""
        record = await find_record(self._host.engine, copy.request_id)
        request = request_of(record) if record is not None else None
        if record is None or request is None:
            return None
        people = self._host.engine.resources.get(People, self._host.people)
        mailboxes = mailboxes_of(await self._host.engine.events(record.id), copy)
        if not mailboxes or people.identity(author) not in map(people.identity, mailboxes):
            return None
        return request, people.person(mailboxes[-1])

    async def _take(self, mail: ReplyMail, sealed: SealedReply, request: Request, person: Person) -> bool:
        card = shortened(card_of(request, person.address, self._host.engine.now()), LONGEST_MAIL_VALUE)
        choice = choice_named(mail.first_line, card)
        if choice is None:
            said = await self._comment(mail, sealed, request, person)
        elif _has_chosen(choice, request, person):
            return False
        elif (why_not := self._why_not(choice, mail, sealed, request, card)) is not None:
            await self._refuse(mail, request, person, card, why_not)
            return False
        else:
            said = await self._vote(choice, mail, sealed, request, person)
        if not said.changed and said.verdict not in DONE_ALREADY:
            await self._refuse(mail, request, person, card, said.verdict)
        return said.changed

    async def _comment(self, mail: ReplyMail, sealed: SealedReply, request: Request, person: Person) -> Reply:
        if not mail.own_text:
            return Reply("received")
        return await add_comment(
            self._host.engine,
            request.id,
            by=person.address,
            actor=self._actor(mail, person),
            text=mail.own_text,
            via="email",
            press=_press(mail, sealed),
        )

    async def _vote(
        self, choice: ChoiceName, mail: ReplyMail, sealed: SealedReply, request: Request, person: Person
    ) -> Reply:
        vote = Vote(
            person.address,
            choice,
            via="email",
            comment=mail.rest[:LONGEST_COMMENT],
            digest=request.digest,
            actor=self._actor(mail, person),
        )
        said = await perform(self._host.engine, request, vote, press=_press(mail, sealed))
        self._host.counted(said.verdict, EMAIL)
        return said

    def _actor(self, mail: ReplyMail, person: Person) -> Actor:
        return Actor("mail", person.address, peer=mail.vouched_by if self._host.engine.audits_peers else "")

    def _why_not(
        self, choice: ChoiceName, mail: ReplyMail, sealed: SealedReply, request: Request, card: Card
    ) -> Because | None:
        """Return why this choice doesn't count by reply; None if it does."""
        offered = next((one for one in card.choices if one.choice == choice), None)
        if not card.decides_by_reply or not mail.is_plain:
            return "not_allowed"
        if not self._addresses.is_current(sealed, card):
            return "old_card"
        if offered is None or offered.asks or choice not in WORDS.values():
            return "not_offered"
        return "comment_needed" if offered.comment == "required" and not mail.rest else None

    async def _refuse(self, mail: ReplyMail, request: Request, person: Person, card: Card, because: str) -> None:
        """Record that a reply changed nothing, and answer it with a link to the page, at most once an hour and card."""
        engine, data = self._host.engine, {"because": because, "via": EMAIL}
        actor = self._actor(mail, person).as_json()
        await audit_refusal(engine, "reply_refused", who=person.address, run_id=request.run_id, actor=actor, data=data)
        name = hashlib.sha256(f"{request.id} {person.address}".encode()).hexdigest()[:32]
        now = engine.now()

        def once(state: Mapping[str, Any]) -> dict[str, Any] | None:
            return {"at": to_micros(now)} if state.get("at", 0) <= to_micros(now - ANSWERED_EVERY) else None

        if await change_counter(engine, f"reply answered {name}", now + ANSWERED_EVERY, once):
            link = await self._host.link(request.hook_id, person.address) if request.hook_id else ""
            text = ANSWERS.get(because, CHANGED_NOTHING)
            thread = Receipt(person.address, mail.message_id.strip("<>"))
            to = ToPerson(EMAIL, person)
            await self._answer(Dispatch(f"answer-{name}", to, card, "outcome", text, thread, link=link))


def choice_named(line: str, card: Card) -> ChoiceName | None:
    """Return the choice that a line names alone: by its plain word, or as the card's button does."""
    words = {one.short.casefold(): one.choice for one in card.choices if one.choice in WORDS.values()} | WORDS
    return words.get(" ".join(line.casefold().split()))


def _has_chosen(choice: ChoiceName, request: Request, person: Person) -> bool:
    return any(vote.by == person.address and vote.choice == choice and vote.counts for vote in request.votes)


def _press(mail: ReplyMail, sealed: SealedReply) -> str:
    """Name this mail, so that it counts once, however often and to whichever replica it is delivered."""
    text = f"{mail.message_id} {sealed.copy.text}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
