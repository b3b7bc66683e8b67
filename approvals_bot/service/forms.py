"""Requests by a form that a person has filled in: on a page, or in a channel's modal.

The form of every channel leads here, so all of them read what was typed alike, and refuse it for the same reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from approvals_bot.approvals import fields
from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.policy import Definition
from approvals_bot.durable.engine import Engine, Run
from approvals_bot.errors import ApprovalsBotError, IdempotencyConflictError, InvalidPayloadError, SerializationError
from approvals_bot.people import People
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.open import open_run
from approvals_bot.service.refusals import OpeningCode, OpeningRefused

FormCode = Literal["unfit", "sent_before"] | OpeningCode
"""Why a form opened nothing. `unfit`: some values don't fit; `sent_before`: it made a request with other values."""


@dataclass(frozen=True, slots=True)
class SentForm:
    """A form as it was sent. `texts`: by field; those that the form didn't have are missing.

    `once`: names the form, with its channel. Sent twice, it opens one request.
    """

    definition: Definition
    texts: Mapping[str, str]
    person: str
    actor: Actor
    once: str
    on_behalf_of: str | None = None
    emergency: str | None = None  # why it is opened without a vote


class FormRefused(ApprovalsBotError):
    """A form opened nothing. `errors`: each fault with its place; `detail`: the whole in words."""

    def __init__(self, code: FormCode, detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        self.code = code
        self.detail = detail
        self.errors = errors
        super().__init__(detail)


def typed_input(definition: Definition, texts: Mapping[str, str], number_format: str) -> dict[str, JsonValue]:
    """Return the fields of a form as JSON. A blank is unset; a check box that the form had and isn't set is false."""
    typed = fields.from_texts(definition.fields, texts, number_format)
    return {name: typed[name] for name in texts if name in typed}


def field_faults(definition: Definition, texts: Mapping[str, str], number_format: str) -> Sequence[Mapping[str, Any]]:
    """Return what is wrong with the fields of a form, each with its place: beside another fault, all are said at once.

    Files are checked where they are kept, and whether somebody is known where the request is opened.
    """
    checked = {name: spec for name, spec in definition.fields.items() if name in texts and not spec.holds_files}
    given = typed_input(definition, {name: texts[name] for name in checked}, number_format)
    try:
        fields.values(checked, given)
    except InvalidPayloadError as unfit:
        return unfit.errors
    return ()


async def open_form(engine: Engine, workflows: Catalog, people: People, form: SentForm) -> Run[Any]:
    """Open the request of a form. Raises FormRefused, or what a store raises that is away."""
    has_own_key, numbers = form.definition.workflow.key is not None, people.person(form.person).numbers
    try:
        return await open_run(
            engine=engine,
            workflows=workflows,
            people=people,
            name=form.definition.id,
            input=typed_input(form.definition, form.texts, numbers),
            opener=form.person,
            on_behalf_of=form.on_behalf_of,
            idempotency_key=None if has_own_key else form.once,
            actor=form.actor,
            emergency=form.emergency,
        )
    except InvalidPayloadError as unfit:
        raise FormRefused("unfit", str(unfit), unfit.errors) from None
    except OpeningRefused as refused:
        also = field_faults(form.definition, form.texts, numbers) if refused.errors else ()
        raise FormRefused(refused.code, refused.detail, [*refused.errors, *also]) from None
    except SerializationError as error:
        raise FormRefused("unfit", str(error)) from None
    except IdempotencyConflictError as conflict:
        raise FormRefused("sent_before", str(conflict)) from None
