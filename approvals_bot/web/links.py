"""A person's link to one request: what its signed token stands for, and the form that was shown behind it.

The signature only filters guesses. What a link may do is read from the run's row each time: whose it is, whether the
request still takes votes. Forged, cut, unknown and revoked links end in one and the same `None`, after the same look
into the store, so neither the answer nor its time reveals which it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import Via
from approvals_bot.approvals.request import Request, state_mark
from approvals_bot.durable.engine import Engine, HookTarget
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import InvalidTokenError
from approvals_bot.people import is_mail
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.read import request_behind

PAGES = "/decisions"

DECISION = "decision.v1"
FORM = "form.v1"

FORM_TIME = timedelta(minutes=30)  # how long a shown page may be thought about before it must be looked at again


@dataclass(frozen=True, slots=True)
class Link:
    """A good link: its request as it is now, and the person it was made for."""

    signed: str
    target: HookTarget
    recipient: str  # opaque; an index of the request's recipients
    address: str
    view: Request
    via: Via = "email"  # where they found it

    @property
    def binding(self) -> dict[str, Any]:
        """What makes this link this one. Never the token's text: several texts verify as one token."""
        return {"h": self.target.hook.id, "r": self.recipient, "g": self.target.hook.generation}

    @property
    def path(self) -> str:
        return f"{PAGES}/{self.signed}"


@dataclass(frozen=True, slots=True)
class ShownForm:
    """A form that came back: the digest, the text's SHA-256 and the state that it showed; whether that was lately."""

    digest: str
    text: str
    state: str
    is_fresh: bool


class Links:
    """Makes decision links, reads them, and proves their forms."""

    def __init__(self, *, engine: Engine, tokens: Tokens, base_url: str, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._tokens = tokens
        self._base_url = base_url
        self._now = now

    async def url(self, hook_id: str, address: str) -> str:
        """Make the URL of this person's own page of a request, for a mail; "" if they have none. It is never kept."""
        target = await self._engine.find(hook_id)
        view = request_behind(target)
        recipient = recipient_of(view, address) if view is not None else None
        if target is None or recipient is None:
            return ""
        return f"{self._base_url}{self._path(hook_id, target.hook.generation, recipient)}"

    async def inbox_path(self, view: Request, address: str) -> str:
        """Make the path of this person's own page of a request, for their inbox; "" if they have none."""
        recipient = recipient_of(view, address)
        hook = await self._engine.find_hook(view.hook_id) if recipient is not None else None
        if hook is None or recipient is None:
            return ""
        return self._path(hook.hook_id, hook.generation, recipient, v="inbox")

    def _path(self, hook_id: str, generation: int, recipient: str, **more: str) -> str:
        token = self._tokens.sign(DECISION, {"h": hook_id, "r": recipient, "g": generation} | more)
        return f"{PAGES}/{token}"

    async def open(self, signed: str) -> Link | None:
        """Return the link that this token is; None for every kind of bad one."""
        payload = self._read(DECISION, signed) or {}
        target = await self._engine.find(str(payload.get("h", "")))
        view = request_behind(target)
        if target is None or view is None or payload.get("g") != target.hook.generation:
            return None
        recipient = str(payload.get("r"))
        address = view.recipients.get(recipient) or requester_of(view, recipient)
        if address is None or not await self._is_known(address, target.record.workflow):
            return None
        return Link(signed, target, recipient, address, view, "inbox" if payload.get("v") == "inbox" else "email")

    def hook_id(self, signed: str) -> str:
        """Return the ID of the hook that this token is for; "" for a bad one. Its request may be gone."""
        return str((self._read(DECISION, signed) or {}).get("h", ""))

    async def is_lost(self, signed: str, form_token: str) -> bool:
        """Return whether this form was shown behind this link, for a request or a person that the store lacks now.

        So it is after a backup was restored that is older than the link. A request that was deleted has left a stub.
        """
        link, form = self._read(DECISION, signed), self._read(FORM, form_token)
        if link is None or form is None or any(link.get(key) != form.get(key) for key in ("h", "r", "g")):
            return False
        hook_id, recipient = str(link["h"]), str(link["r"])
        target = await self._engine.find(hook_id)
        if target is None:
            return await self._engine.store.stub(hook_id=hook_id) is None
        view = request_behind(target)
        if view is None or link["g"] != target.hook.generation:
            return False
        return recipient not in view.recipients and requester_of(view, recipient) is None

    async def _is_known(self, address: str, workflow: str) -> bool:
        """Return whether anybody knows the person of a link now. Raises SourceUnavailable."""
        known = self._engine.resources.get(KnownPeople)
        return known is None or await known.may_act(address, workflow)

    def form_token(self, link: Link) -> str:
        """Make the proof for the form on this link's page: its sender has seen the page, and what it showed."""
        shown = {
            "d": link.view.digest,
            "s": self._text_now(link)[1],
            "v": state_mark(link.view.version, link.view.votes),
        }
        return self._tokens.sign(FORM, link.binding | {"t": self._now().timestamp()} | shown)

    def shown_form(self, link: Link, form_token: str) -> ShownForm | None:
        """Return what this form showed behind this link, at any time; None for what is no form of it."""
        payload = self._read(FORM, form_token)
        if payload is None or not link.binding.items() <= payload.items():
            return None
        age = self._now().timestamp() - float(payload["t"])
        return ShownForm(
            str(payload["d"]),
            str(payload.get("s", "")),
            str(payload.get("v", "")),
            is_fresh=age <= FORM_TIME.total_seconds(),
        )

    def text_shown(self, link: Link, form: ShownForm | None) -> str:
        """Return the text that the form's page has shown; "" if it showed another one than it would now."""
        text, sha256 = self._text_now(link)
        return text if form is not None and form.text == sha256 else ""

    def _text_now(self, link: Link) -> tuple[str, str]:
        text = card_text.whole(card_of(link.view, link.address, self._now()))
        return text, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _read(self, purpose: str, token: str) -> dict[str, Any] | None:
        try:
            return self._tokens.read(purpose, token)
        except InvalidTokenError:
            return None


REQUESTERS = ("requester", "on_behalf_of")
"""Recipients besides those who were sent something: the requesters, from their inboxes."""


def requester_of(view: Request, recipient: str) -> str | None:
    """Return the address of the requester whom this recipient of a link means."""
    person = {"requester": view.requester, "on_behalf_of": view.on_behalf_of}.get(recipient)
    return person if person and is_mail(person) else None


def recipient_of(view: Request, address: str) -> str | None:
    """Return what stands for this person in their link to this request; None: they have none."""
    sent = (id for id, known in view.recipients.items() if known == address)
    return next(sent, None) or next((word for word in REQUESTERS if requester_of(view, word) == address), None)
