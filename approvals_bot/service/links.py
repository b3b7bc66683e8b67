"""A person's link to one request: what its signed token stands for, and the form that was shown behind it.

The signature only filters guesses. What a link may do is read from the run's row each time: whose it is, whether the
request still takes votes. Forged, cut, unknown and revoked links end in one and the same `None`, after the same look
into the store, so that neither the answer nor its time tells which it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.approvals.port import ChoiceName, Via
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine, HookTarget
from approvals_bot.durable.store.protocol import HookRow
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import InvalidTokenError
from approvals_bot.people import is_mail
from approvals_bot.service.read import request_behind

DECISION = "decision.v1"
FORM = "form.v1"

FORM_TIME = timedelta(minutes=30)  # how long a shown page may be thought about before it must be looked at again


@dataclass(frozen=True, slots=True)
class Link:
    """A good link: the request it leads to as it stands now, and the person it was made for."""

    signed: str
    target: HookTarget
    recipient: str  # opaque; an index of the request's recipients
    address: str
    view: Request
    via: Via = "email"  # where she found it

    @property
    def hook(self) -> HookRow:
        return self.target.hook

    @property
    def binding(self) -> dict[str, Any]:
        """What makes this link this one. Never the token's text: several texts verify as one token."""
        return {"h": self.hook.id, "r": self.recipient, "g": self.hook.generation}

    @property
    def path(self) -> str:
        return f"/decisions/{self.signed}"


class Links:
    """Reads decision links and their forms."""

    def __init__(self, *, engine: Engine, tokens: Tokens, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._tokens = tokens
        self._now = now

    async def open(self, signed: str) -> Link | None:
        """The link that this token is; None for every kind of bad one."""
        payload = self._read(DECISION, signed) or {}
        target = await self._engine.find(str(payload.get("h", "")))
        view = request_behind(target)
        if target is None or view is None or payload.get("g") != target.hook.generation:
            return None
        recipient = str(payload.get("r"))
        address = view.recipients.get(recipient) or asker_of(view, recipient)
        if address is None:
            return None
        return Link(signed, target, recipient, address, view, "inbox" if payload.get("v") == "inbox" else "email")

    def form_token(self, link: Link) -> str:
        """For the form on this link's page: proves that whoever posts it has seen the page, and what it showed."""
        return self._tokens.sign(FORM, link.binding | {"t": self._now().timestamp(), "d": link.view.digest})

    def digest_of(self, form_token: str) -> str | None:
        """The digest that was shown with this form; None for what is no form."""
        payload = self._read(FORM, form_token)
        return str(payload["d"]) if payload is not None else None

    def is_form_of(self, link: Link, form_token: str) -> bool:
        """Whether this form was shown behind this link, at any time."""
        payload = self._read(FORM, form_token)
        return payload is not None and link.binding.items() <= payload.items()

    def is_fresh(self, form_token: str) -> bool:
        """Whether this form was shown lately."""
        payload = self._read(FORM, form_token)
        return payload is not None and self._now().timestamp() - float(payload["t"]) <= FORM_TIME.total_seconds()

    def _read(self, purpose: str, token: str) -> dict[str, Any] | None:
        try:
            return self._tokens.read(purpose, token)
        except InvalidTokenError:
            return None


ASKERS = ("requester", "on_behalf_of")
"""Recipients besides those who were sent something: whoever asked, from her inbox."""


def asker_of(view: Request, recipient: str) -> str | None:
    """The person whom this word stands for in a link."""
    who = {"requester": view.requester, "on_behalf_of": view.on_behalf_of}.get(recipient)
    return who if who and is_mail(who) else None


def recipient_of(view: Request, address: str) -> str | None:
    """What stands for this person in her link to this request; None: she has none."""
    sent = (id for id, known in view.recipients.items() if known == address)
    return next(sent, None) or next((word for word in ASKERS if asker_of(view, word) == address), None)


def is_same_site(headers: Any, base_url: str) -> bool:
    """Whether a form was posted from our own page, as far as the browser says.

    Browsers of the last years say it in Sec-Fetch-Site, which no page can set. Under our `no-referrer` their own forms
    carry `Origin: null`, so null is as good as that word. Clients without either (w3m, old browsers) have only their
    form token to show.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin" and origin in (None, "null", base_url)
    return origin in (None, base_url)


def decides_the_same(choice: ChoiceName, state: str) -> bool:
    """Whether a request that ended in this state ended as this choice would have it."""
    return {"approve": "approved", "edit": "approved", "reject": "rejected", "answer": "answered"}.get(choice) == state
