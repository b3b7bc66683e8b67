"""The form that a workflow's fields make, as a person has filled it in: to send it, or to try what would happen."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from approvals_bot.approvals import fields
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.files import LARGEST_FILE, StoredFile, file_name
from approvals_bot.approvals.json_values import UnfitError
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import SLACK, Channels
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.text import placed
from approvals_bot.durable.core.forms import FormFields, FormFile
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import InvalidPayloadError
from approvals_bot.people import AddressError, People, Person
from approvals_bot.service.files import TooManyFilesError, find_own_file, keep_file
from approvals_bot.service.forms import field_faults, typed_input

REASON_FAULT = "break-glass reason"  # the name under which a form says what is wrong with it; no field has it
FIELD = "field."  # what the names of inputs begin with, so that no field's name is one of the form's own
BEHALF = "on_behalf_of"
BREAK_GLASS, REASON = "break_glass", "reason"
ONCE = "once"  # the form's key: sent twice, it makes one request

NOT_ALL = "Nothing was sent yet. Please correct what is marked."
NOT_ADDRESSED = "not an email address"
TOO_MANY_FILES = "you have uploaded many files that no request has; wait until the oldest are an hour old"
KEPT_FILE = "kept."  # what the names of inputs begin with that name files which were uploaded before
NO_FILE = StoredFile("file", "file", 0, "", "")


@dataclass(frozen=True, slots=True)
class FilledForm:
    """What a person has typed. `wrong`: what is wrong with a field, by its name; `said`: what is wrong with the whole.

    `preview`: who would be asked, if that was wanted.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    behalf: str = ""
    is_emergency: bool = False
    reason: str = ""
    once: str = ""
    said: str = ""
    wrong: Mapping[str, str] = field(default_factory=dict)
    preview: Mapping[str, Any] | None = None
    files: Mapping[str, tuple[StoredFile, ...]] = field(default_factory=dict)  # those that are uploaded, by field

    def shown(self, definition: Definition, person: Person) -> dict[str, Any]:
        """Return what the template `_fields.html` shows: the inputs with their values."""
        sendable = fields.sendable(definition.fields)
        shown = (fields.form_field(name, spec, spec.default) for name, spec in sendable.items())
        return {
            "definition": definition,
            "person": person,
            "asks": fields.in_format_of(person.numbers, tuple(shown)),
            "attached": [fields.form_field(name, spec) for name, spec in _file_fields(definition).items()],
            "filled": self,
            "values": {FIELD + name: text for name, text in self.texts.items()},
        }


def empty_form(definition: Definition) -> FilledForm:
    """Return the form as it is at first, with its defaults."""
    of = fields.sendable(definition.fields)
    texts = {name: fields.form_field(name, spec, spec.default).value for name, spec in of.items()}
    return FilledForm(texts, once=secrets.token_urlsafe(16))


def read_filled(definition: Definition, form: Mapping[str, str]) -> FilledForm:
    """Return what was sent."""
    texts = {name: typed_text(form, FIELD + name, spec) for name, spec in fields.sendable(definition.fields).items()}
    emergency = BREAK_GLASS in form, form.get(REASON, "")
    once = form.get(ONCE, "") or secrets.token_urlsafe(16)
    return FilledForm(texts, form.get(BEHALF, "").strip(), *emergency, once)


def typed_text(form: Mapping[str, str], name: str, spec: FieldSpec) -> str:
    """Return what was typed into this input, or ticked: each box has the input's name and the number of its value."""
    if spec.type != "list" or spec.values is None:
        return form.get(name, "")
    return "\n".join(value for at, value in enumerate(spec.values) if form.get(f"{name}:{at}"))


async def with_files(
    filled: FilledForm, definition: Definition, form: FormFields, engine: Engine, owner: str
) -> FilledForm:
    """Keep the files that came with a form, and find those that came with it before: nothing is uploaded twice.

    What is wrong with one is said at its field. Raises StoreUnavailableError.
    """
    texts, files, wrong = dict(filled.texts), dict[str, tuple[StoredFile, ...]](), dict(filled.wrong)
    for name, spec in _file_fields(definition).items():
        sent = [each for each in form.getlist(FIELD + name) if isinstance(each, FormFile) and each.name]
        ids = form.getlist(KEPT_FILE + name) if spec.type == "list" or not sent else []
        kept = [await find_own_file(engine, id, owner) for id in ids if isinstance(id, str)]
        try:
            own = [await keep_file(engine, owner, file_name(each.name), _once(each.content)) for each in sent]
        except UnfitError as error:
            wrong[name] = str(error)
        except TooManyFilesError:
            wrong[name] = TOO_MANY_FILES
        else:
            found = (*(each for each in kept if each is not None), *own)
            if found:
                texts[name], files[name] = "\n".join(each.id for each in found), found
    return replace(filled, texts=texts, files=files, wrong=wrong, said=NOT_ALL if wrong else filled.said)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    if not content:
        raise UnfitError("file_empty")
    if len(content) > LARGEST_FILE:
        raise UnfitError("file_too_large")
    yield content


def _file_fields(definition: Definition) -> dict[str, FieldSpec]:
    return {name: spec for name, spec in definition.fields.items() if spec.holds_files}


async def with_preview(
    filled: FilledForm, definition: Definition, people: People, reader: Person, requester: str, engine: Engine
) -> FilledForm:
    """Return the form with what would happen if `requester` sent it; nothing is sent to anybody."""
    try:
        behalf = people.canonical(filled.behalf) if filled.behalf else None
    except AddressError:
        return with_field_faults(replace(filled, wrong={BEHALF: NOT_ADDRESSED}), definition, reader.numbers)
    given = typed_input(definition, filled.texts, reader.numbers)
    for name, spec in _file_fields(definition).items():  # who decides doesn't depend on what is in a file
        if name in filled.files or spec.required:
            own = [each.as_json() for each in filled.files.get(name, (NO_FILE,))]
            given[name] = [*own] if spec.type == "list" else own[0]
    opening = Opening(given, requester, behalf)
    try:
        has_slack = SLACK in engine.resources[Channels]
        found = await simulate(definition, opening, people, engine.now(), has_slack=has_slack)
    except InvalidPayloadError as unfit:
        return with_faults(filled, definition, unfit.errors, NOT_ALL)
    stages = [
        stage | {"escalations": [each | {"time": _time(each["at"])} for each in stage["escalations"]]}
        for stage in found["stages"]
    ]
    timers = [each | {"time": _time(each["at"])} for each in found["timers"]]
    named = {address: people.person(address).name for address in _people_of(found)}
    return replace(filled, preview=found | {"names": named, "stages": stages, "timers": timers})


def _people_of(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield everybody whom a simulation names."""
    yield from (each["person"] for each in found["who"])
    for stage in found["stages"]:
        yield from (each["person"] for each in (*stage["left_out"], *stage["away"]))
        yield from (each["delegate"] for each in stage["away"] if each["delegate"])
        yield from (one["person"] for each in stage["escalations"] for one in each["who"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def with_field_faults(filled: FilledForm, definition: Definition, number_format: str) -> FilledForm:
    """Return a form that is refused for something else, with what is wrong with its fields: all is said at once."""
    also = with_faults(filled, definition, field_faults(definition, filled.texts, number_format), "")
    return replace(filled, said=NOT_ALL, wrong={**also.wrong, **filled.wrong})


def with_faults(
    filled: FilledForm, definition: Definition, errors: Sequence[Mapping[str, Any]], otherwise: str
) -> FilledForm:
    """Return the form with each error beside its field; what is about no field is said above the form."""
    wrong, loose = dict[str, str](), list[str]()
    for error in errors:
        name = next((str(part) for part in error["loc"] if part in definition.fields or part == BEHALF), None)
        if name is None:
            loose.append(str(error["msg"]))
        else:
            place = error["loc"][error["loc"].index(name) + 1 :]
            wrong.setdefault(name, placed([str(part) for part in place], str(error["msg"])))
    return replace(filled, said=" ".join([NOT_ALL if wrong else otherwise, *loose]), wrong=wrong)
