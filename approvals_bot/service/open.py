"""Opening a request, or starting any listed workflow: permission, input and idempotency key.

Every entry point that opens requests (API, Slack's form, the command line) uses `open_run`, so none forgets a rule. The
caller has identified the opener. A refusal is an `OpeningRefused`: data, which each entry point renders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import product
from typing import Any, Literal

from pydantic import JsonValue

from approvals_bot.approvals import fields
from approvals_bot.approvals.acts import Actor, ActorKind
from approvals_bot.approvals.agent_policy import EVERY_APP
from approvals_bot.approvals.grants import length_fault
from approvals_bot.approvals.named_people import opening_with_people
from approvals_bot.approvals.opening_policy import SCHEDULE
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import BREAK_GLASS, ON_BEHALF_OF, REQUESTER, Opening
from approvals_bot.approvals.resolution import find_undecidable_stage, is_named
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.templates import Facts, TemplateError, Who, render_key
from approvals_bot.approvals.timers import past_deadlines
from approvals_bot.config.api_keys import ANYBODY
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.durable.core.tracing import TRACEPARENT, traceparent
from approvals_bot.durable.engine import Engine, Run, SentKey
from approvals_bot.errors import InvalidPayloadError, SerializationError, StoreUnavailableError
from approvals_bot.people import AddressError, People, SourceUnavailable
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.emergencies import in_emergency
from approvals_bot.service.files import WithFiles, attach_or_refuse, claim_or_refuse
from approvals_bot.service.keys import OPENER
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.log_fields import note
from approvals_bot.service.owed_lines import line_of_start, write_line
from approvals_bot.service.python_workflows import arguments_by_name, takes_whole_input, with_durations
from approvals_bot.service.refusals import OpeningCode, OpeningRefused, nobody_decides, usable_key
from approvals_bot.service.tool_calls import OpenedBy, RunOpening, known_opening, open_call


async def open_run(
    *,
    engine: Engine,
    workflows: Catalog,
    people: People,
    name: str,
    input: Mapping[str, JsonValue],
    opener: str,
    requester: str | None = None,
    on_behalf_of: str | None = None,
    idempotency_key: str | None = None,
    may_name: Sequence[str] | None = None,
    actor: Actor | None = None,
    emergency: str | None = None,
) -> Run[Any]:
    """Start the workflow of this name; durable before this returns.

    `opener` is the identified app or person, `requester` the person it makes the request for, if that's another.
    `may_name`: of an API key, the people whom it may name, as requester or as the person it acts for. `actor`: who
    acted, for the log; by default the opener. `emergency`: why a person opens it without a vote. Raises
    OpeningRefused, IdempotencyConflictError or InvalidPayloadError;
    then nothing was written.
    """
    listed = workflows.find(name)
    if listed is None:
        raise OpeningRefused("workflow_unknown", name=name)
    asks = opener if requester in (None, opener) else _person("requester", requester, people)
    behalf = None if on_behalf_of is None else _person("on_behalf_of", on_behalf_of, people)
    definition, by = listed.definition, _opened_by(opener, actor, by_key=may_name is not None)
    try:
        if may_name is not None:
            if name == CHAT_WORKFLOW:  # its input says whose chat it is; a key has its own chats under /api/chat
                raise OpeningRefused("not_allowed", who=opener, workflow=name)
            for person in (asks, behalf):
                if person is not None and person != opener:
                    await check_naming(engine, people, opener, person, may_name)
        if definition is not None:
            await check_requester(definition, opener, asks, behalf, people)
    except OpeningRefused as refused:
        data = {"workflow": name, "for": asks, "because": refused.code}
        await engine.audit("opening_refused", who=opener, actor=by.actor, data=data)
        raise
    attached = WithFiles(input)
    if definition is not None and any(spec.holds_files for spec in definition.fields.values()):
        try:
            attached = await attach_or_refuse(engine, definition.fields, input, opener)
        except InvalidPayloadError:  # a file may have been deleted with the run that this key has started
            repeated = None if idempotency_key is None else _callers_key(opener, idempotency_key, input, asks, behalf)
            deleted = None if repeated is None else await engine.deleted_start(listed.workflow, repeated)
            if deleted is None:
                raise
            return _noted(deleted, name)
        input = attached.fields
    asked = RunOpening(listed, input, opener, asks, behalf, idempotency_key, by)
    if definition is not None and definition.is_approval:
        return _noted(await _start_approval(engine, people, definition, asked, attached, emergency), name)
    if attached.files:
        await claim_or_refuse(engine, attached)
    return _noted(await _start_otherwise(engine, people, asked), name)


async def _start_approval(
    engine: Engine,
    people: People,
    definition: Definition,
    asked: RunOpening,
    attached: WithFiles,
    emergency: str | None,
) -> Run[Any]:
    """Open the request of a workflow's file. Its files are claimed last, once nothing can refuse it any more."""
    requester, behalf, by = asked.requester, asked.on_behalf_of, asked.by
    key = None if asked.key is None else _callers_key(asked.opener, asked.key, asked.input, requester, behalf)
    typed = fields.values(definition.fields, asked.input)
    opening = Opening(fields.dump(definition.fields, typed), requester, behalf)
    opening = await _permitted(definition, opening, people, engine.now())
    if key is None and definition.workflow.key is not None:
        key = _own_key(definition, asked.input, opening, people)
    if key is not None and emergency is not None:  # the same request may be waiting for votes that nobody gives
        key = SentKey(f"{key} {BREAK_GLASS}", key.sent)
    await _check_decidable(definition, opening, people, engine.now())
    workflow = asked.listed.workflow
    if emergency is not None:
        workflow = await in_emergency(asked.listed, opening, emergency, people, engine.now())
    if attached.files:
        await claim_or_refuse(engine, attached)
    owed = (
        None if emergency is None else line_of_start("glass_broken", requester, by.actor, {"workflow": definition.id})
    )
    run = await engine.start_owing(owed, by.actor, workflow, opening, idempotency_key=key, attributes=by.attributes)
    if owed is not None and run.is_new:
        with suppress(StoreUnavailableError):  # another process writes it then
            await write_line(engine, owed, run_id=run.id)
    return run


def _noted(run: Run[Any], workflow: str) -> Run[Any]:
    note(run_id=run.id, workflow=workflow)
    return run


async def prepare_approval(
    *,
    engine: Engine,
    workflows: Catalog,
    people: People,
    name: str,
    input: Mapping[str, JsonValue],
    requester: str,
    actor: Actor,
) -> Opening:
    """Check everything that `open_run` checks, for a run that opens the request as its child. Writes nothing.

    The requester has been identified. Raises OpeningRefused or InvalidPayloadError.
    """
    listed = workflows.find(name)
    if listed is None or listed.definition is None or not listed.definition.is_approval:
        raise OpeningRefused("workflow_unknown", name=name)
    definition = listed.definition
    try:
        await check_requester(definition, requester, requester, None, people)
    except OpeningRefused as refused:
        data = {"workflow": name, "for": requester, "because": refused.code}
        await engine.audit("opening_refused", who=requester, actor=actor.as_json(), data=data)
        raise
    return await permitted_opening(definition, input, requester, None, people, engine.now())


async def permitted_opening(
    definition: Definition,
    input: Mapping[str, JsonValue],
    requester: str,
    behalf: str | None,
    people: People,
    at: datetime,
) -> Opening:
    """Return what opens a request with this input, if its values may be requested and somebody decides them.

    `check_requester` says who may request at all. Raises OpeningRefused or InvalidPayloadError.
    """
    given = fields.dump(definition.fields, fields.values(definition.fields, input))
    opening = await _permitted(definition, Opening(given, requester, behalf), people, at)
    await _check_decidable(definition, opening, people, at)
    return opening


async def _permitted(definition: Definition, opening: Opening, people: People, at: datetime) -> Opening:
    """Return the opening with what the rules know of its requester.

    Raises OpeningRefused if [[request]] forbids it, and InvalidPayloadError if a field is its deadline and has passed,
    or if its grant would have no length.
    """
    if rules_of(definition).is_about_requester:
        opening = await known_opening(definition, opening, people)
    if any(spec.holds_people for spec in definition.fields.values()):
        opening = await opening_with_people(definition.fields, opening, people)
    rules = rules_of(definition, opening)
    ruling = rules.ruling(opening.fields).at(at) if rules.is_timed else rules.ruling(opening.fields)
    if rules.deadline_fields and ruling.automatic is None:
        never = rules.ruling(opening.fields).not_opening
        if past := past_deadlines(definition, ruling.typed, at, never):
            raise InvalidPayloadError([{"loc": ["input", *each.path], "msg": each.text} for each in past], "input")
    fault = length_fault(definition, _facts_of(definition, opening, people)) if definition.grant is not None else None
    if fault is not None:
        raise InvalidPayloadError([{"loc": ["input", *fault.path], "msg": fault.text}], "input")
    if opening.requester == SCHEDULE or ruling.may_be_requested:
        return opening
    raise OpeningRefused("values_not_allowed", who=opening.requester, workflow=definition.id)


async def _check_decidable(definition: Definition, opening: Opening, people: People, at: datetime) -> None:
    """Refuse a request that no rule decides and nobody can approve: it would wait forever.

    A group that can't be read now is no reason to refuse: it is read again when the stage opens.
    """
    if (problem := await find_undecidable_stage(definition, opening, people, at)) is not None:
        raise nobody_decides(*problem)


def _opened_by(opener: str, actor: Actor | None, *, by_key: bool) -> OpenedBy:
    """Return what a new run keeps of the one who opened it. Keys find what they have opened by the attribute."""
    kind: ActorKind = "app" if opener.startswith("app:") else "person"
    found = {OPENER: opener} if by_key else {}
    if parent := traceparent():
        found[TRACEPARENT] = parent
    return OpenedBy((actor or Actor(kind, opener)).as_json(), found)


async def check_naming(engine: Engine, people: People, opener: str, person: str, may_name: Sequence[str]) -> None:
    """Raise OpeningRefused unless the key may name this person, and somebody knows them.

    A key that may name anybody, a desk's, vouches for colleagues whom no file lists.
    """
    try:
        if not await _covers(people, may_name, person):
            raise OpeningRefused("naming_not_allowed", key=opener.removeprefix("app:"), who=person)
        if ANYBODY in may_name and people.is_colleague(person) and not people.rosters.is_barred(person):
            return
        if not await engine.resources[KnownPeople].knows(person):
            raise OpeningRefused("person_unknown", who=person)
    except SourceUnavailable as error:
        raise OpeningRefused("group_unknown", error=str(error)) from None


async def _covers(people: People, entries: Sequence[str], person: str) -> bool:
    """Return whether one of these addresses means the person. Raises SourceUnavailable if that can't be known."""
    unavailable: SourceUnavailable | None = None
    for entry in entries:
        if entry == ANYBODY:
            return True
        resolved = await people.resolve(entry, requester=person)
        if any(each.address == person for each in resolved.persons):
            return True
        if resolved.errors:
            unavailable = SourceUnavailable(entry, str(resolved.errors[0]))
    if unavailable is not None:
        raise unavailable
    return False


def _person(what: Literal["requester", "on_behalf_of"], text: str, people: People) -> str:
    """Return the identity of a person who is named. Raises OpeningRefused for what names nobody."""
    try:
        return people.canonical(text)
    except AddressError as error:
        if not error.is_shapeless:
            raise OpeningRefused("address_refused", (what,), why=str(error)) from None
        shapeless: OpeningCode = "requester_not_a_person" if what == "requester" else "behalf_not_a_person"
        raise OpeningRefused(shapeless, (what,)) from None


async def check_requester(
    definition: Definition, opener: str, requester: str, behalf: str | None, people: People
) -> None:
    """Raise OpeningRefused unless the requester may request this on that behalf.

    The app or person who opens it for somebody else needn't be listed, but the requester must.
    """
    who = (requester,)
    try:
        if not await may_open(definition, who, people):
            raise OpeningRefused("not_allowed", who=" and ".join(who), workflow=definition.id)
    except SourceUnavailable as error:
        raise OpeningRefused("group_unknown", error=str(error)) from None
    rule = definition.workflow.on_behalf_of
    if behalf is not None or rule == "required":
        _check_behalf(behalf, rule)


def _check_behalf(behalf: str | None, rule: str) -> None:
    if behalf is None and rule == "required":
        raise OpeningRefused("behalf_missing", ("on_behalf_of",))
    if behalf is not None and rule == "never":
        raise OpeningRefused("behalf_not_taken", ("on_behalf_of",))


async def may_open(definition: Definition, who: Sequence[str], people: People) -> bool:
    """Return whether the workflow's `request` lists one of these people or apps. `"*"` means every person, but no app.

    A workflow's own schedules needn't be listed. Raises SourceUnavailable if a group can't be read.
    """
    for one, entry in product(who, definition.workflow.request):
        if await is_named(one, entry, people):
            return True
    return bool(definition.schedule) and SCHEDULE in who


def may_start(listed: Listed, app: str, *, names_people: bool) -> bool:
    """Return whether this app may start the workflow, for itself or for a person it may name as the requester."""
    if listed.definition is None:
        return True
    request = listed.definition.workflow.request
    names_any = names_people and not all(entry.startswith("app:") for entry in request)
    return app in request or EVERY_APP in request or names_any


def _callers_key(opener: str, key: str, input: Mapping[str, JsonValue], requester: str, behalf: str | None) -> SentKey:
    """Return a caller's key with the opener's name in front, so that different callers' keys never meet.

    A SentKey is the service's own, and is returned as it is.
    """
    if isinstance(key, SentKey):
        return key
    sent = {"input": dict(input), "requester": requester} | ({} if behalf is None else {"on_behalf_of": behalf})
    return SentKey(f"{opener} {usable_key(key)}", sent)


def _own_key(definition: Definition, input: Mapping[str, Any], opening: Opening, people: People) -> SentKey:
    """Return the key that the workflow's file makes from the fields. A repeated call opens no second request.

    Its callers don't know of each other. So a field that is left out is the same as one with its default.
    """
    requester, behalf = opening.requester, opening.on_behalf_of
    facts = _facts_of(definition, opening, people)
    try:
        key = render_key(definition.workflow.key or "", facts).strip()
    except TemplateError as error:
        raise OpeningRefused("own_key_impossible", ("input",), error=str(error)) from None
    if not key:
        raise OpeningRefused("own_key_empty", ("input",))
    given = {
        name: value
        for name, value in opening.fields.items()
        if name in input and value != definition.fields[name].default
    }
    sent = {"input": given, "requester": requester} | ({} if behalf is None else {"on_behalf_of": behalf})
    return SentKey(f"key:{definition.id} {hashlib.sha256(key.encode()).hexdigest()}", sent)


def _facts_of(definition: Definition, opening: Opening, people: People) -> Facts:
    """Return what the file's templates may name before there is a request."""
    typed = fields.values(definition.fields, opening.fields)
    named = {
        name: tuple(_who(each, people) for each in typed[name])
        if isinstance(typed[name], tuple)
        else _who(typed[name], people)
        for name, spec in definition.fields.items()
        if spec.holds_people
    }
    who = _who(opening.requester, people), _who(opening.on_behalf_of, people)
    return Facts(definition.id, {**typed, **named}, *who)


def _who(address: str | None, people: People) -> Who:
    if address is None:
        return Who()
    return Who(address, address.removeprefix("app:") if address.startswith("app:") else people.person(address).name)


async def _start_otherwise(engine: Engine, people: People, asked: RunOpening) -> Run[Any]:
    """Start a Python workflow, or open the request of a tool call, whose fields no file has."""
    requester, behalf, key = asked.requester, asked.on_behalf_of, asked.key
    if asked.listed.definition is not None and asked.listed.definition.is_tool_call:
        return await open_call(engine, people, asked.listed.definition, asked)
    named = None if key is None else _callers_key(asked.opener, key, asked.input, requester, behalf)
    who = {REQUESTER: requester} | ({ON_BEHALF_OF: behalf} if behalf else {}) | asked.by.attributes
    return await _start_program(engine, people, asked.listed, asked.input, named, who, asked.by.actor)


async def _start_program(
    engine: Engine,
    people: People,
    listed: Listed,
    input: Mapping[str, JsonValue],
    key: str | None,
    who: Mapping[str, str],
    actor: Mapping[str, str],
) -> Run[Any]:
    """Start a Python workflow. The input object is its only argument, or has its arguments by name.

    `who` is the requester, stored with the run: they are the requester of the approvals that it requests, too.
    """
    given: Any = dict(input)
    if listed.definition is not None and listed.definition.fields:
        given = fields.dump(listed.definition.fields, fields.values(listed.definition.fields, input))
        asked = Opening(given, who[REQUESTER], who.get(ON_BEHALF_OF))
        given = (await opening_with_people(listed.definition.fields, asked, people)).fields
    if listed.workflow.signature.first_parameter() is None:
        if given:
            raise OpeningRefused("input_not_taken", ("input",))
        return await engine.start_by(actor, listed.workflow, idempotency_key=key, attributes=who)
    signature = listed.workflow.signature
    if listed.definition is None and not takes_whole_input(signature):
        return await _start_by_name(engine, listed, given, key, who, actor)
    given = with_durations(signature.annotation(signature.first_parameter() or ""), given)
    try:
        return await engine.start_by(actor, listed.workflow, given, idempotency_key=key, attributes=who)
    except InvalidPayloadError as error:
        raise InvalidPayloadError(
            [{"loc": ["input", *fault["loc"]], "msg": fault["msg"]} for fault in error.errors], "input"
        ) from None
    except SerializationError as error:
        raise OpeningRefused("input_not_storable", ("input",), error=str(error)) from None


async def _start_by_name(
    engine: Engine,
    listed: Listed,
    given: Mapping[str, JsonValue],
    key: str | None,
    who: Mapping[str, str],
    actor: Mapping[str, str],
) -> Run[Any]:
    positional, named = arguments_by_name(listed.workflow.signature, given)
    try:
        return await engine.start_by(actor, listed.workflow, *positional, idempotency_key=key, attributes=who, **named)
    except InvalidPayloadError as error:
        faults = [{"loc": ["input", error.what, *fault["loc"]], "msg": fault["msg"]} for fault in error.errors]
        raise InvalidPayloadError(faults, "input") from None
    except SerializationError as error:
        raise OpeningRefused("input_not_storable", ("input",), error=str(error)) from None
