"""What the forms of a request's pages say: votes, edits, reassignments and talk. Nothing here is trusted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from approvals_bot.approvals.acts import (
    AfterDecision,
    Comment,
    Edit,
    Extend,
    Reassign,
    Rejection,
    Remind,
    Reply,
    Revoke,
    TakeOn,
    Talk,
    Vote,
    Withdraw,
)
from approvals_bot.approvals.card import asks_of, editable_of
from approvals_bot.approvals.card_model import Card, CardChoice, ChoiceName, FormField, Via
from approvals_bot.approvals.fields import in_format_of
from approvals_bot.approvals.plain_text import clean
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine
from approvals_bot.service.act import is_requester
from approvals_bot.service.talk import snooze_of
from approvals_bot.web.filled_forms import typed_text
from approvals_bot.web.links import Link

LONGEST_ADDRESS = 320  # characters: 64 before the @, 255 after it
LONGEST_REASON = 500

UNFIT = "Nothing was changed. Please correct what is marked."


def input_of(fault: Rejection, inputs: Collection[str]) -> str:
    """Return the input that a fault is about: `items.0.price` where a value inside another has an input of its own."""
    whole = ".".join(map(str, fault.path))
    return whole if whole in inputs else fault.input


def vote_of(link: Link, choice: ChoiceName, form: Mapping[str, str], digest: str | None) -> Vote:
    """Read the form as a vote.

    What an `edit` changes of the request are its fields, and a blank takes a value away; all else are answers to the
    stage.
    """
    filled = {ask.name: _value(ask, _sent(ask, form, choice)) for ask in asks_of(link.view, choice)}
    editable = editable_of(link.view, link.view.number_format(link.address)) if choice == "edit" else ()
    names = {ask.name for ask in editable}
    return Vote(
        by=link.address,
        choice=choice,
        via=link.via,
        comment=form.get("comment", "").replace("\r\n", "\n").strip(),
        answers={name: value for name, value in filled.items() if value and name not in names},
        fields={**changed_fields(editable, form, choice)},
        digest=digest,
    )


def unused_edit(link: Link, card: Card, form: Mapping[str, str]) -> CardChoice | None:
    """Return the choice to edit if its inputs in this form were changed, and another choice was pressed."""
    offer = next((each for each in card.choices if each.choice == "edit"), None)
    if offer is None:
        return None
    editable = editable_of(link.view, link.view.number_format(link.address))
    if not any(f"edit.{name}" in form for name in changed_fields(editable, form, "edit")):
        return None
    return offer


def changed_fields(asks: Sequence[FormField], form: Mapping[str, str], part: str) -> dict[str, str]:
    """Return what a form changes of the fields that it showed, as texts; "" takes a value away.

    `part`: the prefix of their names in the form.
    """
    shown = [ask for ask in asks if _is_ticked(ask) or f"{part}.{ask.name}" in form]
    texts = {ask.name: _value(ask, _sent(ask, form, part)) for ask in shown}
    return {ask.name: texts[ask.name] for ask in shown if texts[ask.name] != _untouched(ask)}


def _is_ticked(ask: FormField) -> bool:
    """Whether the input consists of boxes, of which a form sends only those that are ticked."""
    return ask.spec.type == "boolean" or (ask.spec.type == "list" and ask.spec.values is not None)


def _sent(ask: FormField, form: Mapping[str, str], part: str) -> str:
    return typed_text(form, f"{part}.{ask.name}", ask.spec)


def _value(ask: FormField, text: str) -> str:
    """Return what a person typed, "" for a blank. An unticked box sends nothing."""
    text = text.replace("\r\n", "\n").strip()
    return (text or "false") if ask.spec.type == "boolean" else text


def _untouched(ask: FormField) -> str:
    """Return what an untouched input sends. Browsers take line breaks out of what is no text area."""
    text = clean(ask.value)
    return _value(ask, text if ask.spec.is_multiline else text.replace("\n", ""))


def missing_inputs(card: Card, form: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the chosen act still lacks, as far as the card shows; the page points at it."""
    found: list[str] = []
    for offer in card.choices:
        if offer.choice == form.get("choice"):
            if offer.comment == "required" and not form.get("comment", "").strip():
                found.append("comment")
            # a leaf may be an empty text, and a box without a mark isn't sent
            asks = [ask for ask in offer.asks if not ask.is_leaf and ask.spec.type != "boolean"]
            found += [ask.name for ask in asks if not _sent(ask, form, offer.choice)]
    return tuple(found)


def change_of(view: Request, address: str) -> CardChoice | None:
    """Return what the requester may change, as a form; None for others, and while nothing is to be changed."""
    if not is_requester(view, address) or view.state != "changes_requested":
        return None
    return CardChoice("edit", "Edit request", "Edit request", "link", asks=_to_change(view, address))


def _to_change(view: Request, address: str) -> tuple[FormField, ...]:
    return in_format_of(view.number_format(address), view.to_change)


def reassignment_of(link: Link, form: Mapping[str, str]) -> Reassign:
    """Read the form as a reassignment: somebody else in the reader's place, or besides them."""
    return Reassign(
        by=link.address,
        via="email",
        person=form.get("person", "")[:LONGEST_ADDRESS],
        instead_of="" if form["reassign"] == "instead" else None,
        reason=_reason(form),
    )


def talk_of(engine: Engine, by: str, via: Via, form: Mapping[str, str]) -> Talk | AfterDecision | Reply:
    """Read the form of what decides nothing. Returns a Reply if it says nothing that can be done."""
    name, _, until = form.get("talk", "").partition("-")
    match name:
        case "comment":
            return Comment(by, form.get("remark", "").replace("\r\n", "\n"), via)
        case "claim" | "unclaim":
            return TakeOn(by, ends=name == "unclaim", via=via)
        case "remind":
            return Remind(by, via)
        case "snooze":
            return snooze_of(engine, by, until, via=via)
        case "revoke":
            return Revoke(by, _reason(form), via)
        case "extend":
            return Extend(by, form.get("lasts", "").strip()[:64], _reason(form), via)
        case _:
            return Reply("invalid", code="unreadable")


def own_act_of(link: Link, form: Mapping[str, str]) -> Edit | Withdraw:
    """Read the form of a request's own requester: `own` is `change` or `withdraw`."""
    if form["own"] == "withdraw":
        return Withdraw(link.address, _reason(form), link.via)
    return Edit(link.address, {**changed_fields(_to_change(link.view, link.address), form, "edit")}, link.via)


def _reason(form: Mapping[str, str]) -> str:
    return form.get("reason", "").strip()[:LONGEST_REASON]
