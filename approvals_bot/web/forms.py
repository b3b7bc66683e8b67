"""The decision page's form as it came back: what the person chose, wrote and filled in. Nothing here is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request as HttpRequest
from starlette.types import Message

from approvals_bot.approvals.acts import Edit, Reply, Vote, Withdraw
from approvals_bot.approvals.plain_text import clean
from approvals_bot.approvals.port import Card, CardChoice, ChoiceName, FormField
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine
from approvals_bot.service.act import asks_herself, perform
from approvals_bot.service.links import Link
from approvals_bot.web.validation import LINK_BODY, whole

MOST_FIELDS = 200  # of one form; no workflow asks that many things of an approver


async def read_form(request: HttpRequest) -> dict[str, str]:
    """The form's fields; of a repeated one the last, files dropped. Raises Problem 400, 408, 413 or 415."""
    body = await whole(request, LINK_BODY)

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async with HttpRequest(request.scope, receive).form(max_files=0, max_fields=MOST_FIELDS) as form:
        return {name: value for name, value in form.items() if not isinstance(value, UploadFile)}


def vote_of(link: Link, choice: ChoiceName, form: Mapping[str, str], card: Card, digest: str | None) -> Vote:
    """The form as a vote. What an `edit` changes of the request are its fields, and a blank takes a value away; all
    else are answers to the stage."""
    asks: Sequence[FormField] = next((offer.asks for offer in card.choices if offer.choice == choice), ())
    filled = {ask.name: _value(ask, form.get(f"{choice}.{ask.name}", "")) for ask in asks}
    editable = link.view.editable if choice == "edit" else ()
    names = {ask.name for ask in editable}
    return Vote(
        by=link.address,
        choice=choice,
        via=link.via,
        comment=form.get("comment", "").replace("\r\n", "\n").strip(),
        answers={name: value for name, value in filled.items() if value and name not in names},
        fields={**changes(editable, form, choice)},
        digest=digest,
    )


def changes(asks: Sequence[FormField], form: Mapping[str, str], part: str) -> dict[str, str]:
    """What a form changes of the fields that it showed, as texts; "" takes a value away. `part`: before their names."""
    shown = [ask for ask in asks if ask.type == "boolean" or f"{part}.{ask.name}" in form]
    texts = {ask.name: _value(ask, form.get(f"{part}.{ask.name}", "")) for ask in shown}
    return {ask.name: texts[ask.name] for ask in shown if texts[ask.name] != _untouched(ask)}


def _value(ask: FormField, text: str) -> str:
    """What a person typed, "" for a blank; an unticked box sends nothing. The request reads it by its field's type."""
    text = text.replace("\r\n", "\n").strip()
    return (text or "false") if ask.type == "boolean" else text


def _untouched(ask: FormField) -> str:
    """What comes back for an input that nobody touched. Browsers take line breaks out of what is no text area."""
    text = clean(ask.value)
    return _value(ask, text if ask.type == "text" else text.replace("\n", ""))


def lacking(card: Card, form: Mapping[str, str]) -> tuple[str, ...]:
    """What the chosen act still lacks, as far as the card tells: where the page points at."""
    found: list[str] = []
    for offer in card.choices:
        if offer.choice == form.get("choice"):
            if offer.comment == "required" and not form.get("comment", "").strip():
                found.append("comment")
            found += [ask.name for ask in offer.asks if not form.get(f"{offer.choice}.{ask.name}")]
    return tuple(found)


# ── What requesters may do on the page of their own request ──

LONGEST_REASON = 500


def change_of(view: Request, address: str) -> CardChoice | None:
    """What she may change, as a form; None while there is nothing to change, or for others."""
    if not asks_herself(view, address) or view.state != "changes_requested":
        return None
    return CardChoice("edit", "Change the request", "Change the request", "link", asks=view.to_change)


async def act_on_own(engine: Engine, link: Link, form: Mapping[str, str]) -> Reply:
    """Do what her form says: `own` is `change` or `withdraw`."""
    if form["own"] == "withdraw":
        reason = form.get("reason", "").strip()[:LONGEST_REASON]
        return await perform(engine, link.hook.id, Withdraw(link.address, reason, link.via))
    fields = changes(link.view.to_change, form, "edit")
    return await perform(engine, link.hook.id, Edit(link.address, {**fields}, link.via))


def is_from_own_page(headers: Any, base_url: str) -> bool:
    """Whether a form was posted from our own page, as far as the browser says.

    Browsers of the last years say it in Sec-Fetch-Site, which no page can set. Under our `no-referrer` their own forms
    carry `Origin: null`, so null is as good as that word. Clients without either (w3m, old browsers) have only their
    form token to show.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin" and origin in (None, "null", base_url)
    return origin in (None, base_url)
