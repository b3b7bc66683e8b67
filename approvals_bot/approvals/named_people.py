"""The people whom a request's fields name: one identity each, known here, and among those whom their field allows.

They are checked at the opening, and again when an edit or an answer names somebody. Then a step looks them up, so that
the log holds what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from pydantic import JsonValue

from approvals_bot.approvals.acts import Edit, Rejection, Vote
from approvals_bot.approvals.eligibility import RequestContext, label_of
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.resolution import LOOKUP_LIMIT, find_people, is_among, with_identities
from approvals_bot.approvals.rules import Rules
from approvals_bot.approvals.stages import context_of, next_stage, planned, seat_queries, why_undecidable
from approvals_bot.durable.core.api import resource, step
from approvals_bot.durable.core.serialization import Proven
from approvals_bot.errors import InvalidPayloadError, StepFailedError
from approvals_bot.people import AddressError, People, SourceUnavailable, canonical

Fields = Mapping[str, FieldSpec]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NamedInField:
    """The people whom one field names. `among`: addresses of those whom it may name; () for everybody who is known."""

    field: str
    people: tuple[str, ...]
    among: tuple[str, ...] = ()
    is_list: bool = False

    def path_of(self, at: int) -> tuple[str, ...]:
        return (self.field, str(at)) if self.is_list else (self.field,)


@dataclass(frozen=True, slots=True)
class NamedPeople:
    """The identity behind each address, and a rejection for each person who may not be named."""

    identities: dict[str, str] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()


def named_in(of: Fields, given: Mapping[str, JsonValue]) -> tuple[NamedInField, ...]:
    """Return the people in these values, as JSON or as people typed them. What is no address is left to validation."""
    return tuple(
        NamedInField(name, people, spec.in_ or (), spec.type == "list")
        for name, spec in of.items()
        if spec.holds_people and (people := tuple(_people(given.get(name))))
    )


def _people(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            for text in value.splitlines():
                try:
                    yield canonical(text.strip())
                except AddressError:
                    continue
        case list():
            for each in value:
                yield from _people(each if isinstance(each, str) else None)


def identified(of: Fields, given: Mapping[str, JsonValue], identities: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return the values with the identity of each person in them."""
    return {
        name: _identified(value, identities) if name in of and of[name].holds_people else value
        for name, value in given.items()
    }


def _identified(value: JsonValue, identities: Mapping[str, str]) -> JsonValue:
    match value:
        case str():
            return "\n".join(_identity(line, identities) for line in value.splitlines())
        case list():
            return [_identity(each, identities) if isinstance(each, str) else each for each in value]
        case _:
            return value


def _identity(text: str, identities: Mapping[str, str]) -> str:
    try:
        return identities.get(canonical(text.strip()), text)
    except AddressError:
        return text


async def find_named(asked: tuple[NamedInField, ...], about: RequestContext, people: People) -> NamedPeople:
    """Identify these people, and check whether each may be named."""
    about = with_identities(about, people)
    identities, rejections = dict[str, str](), list[Rejection]()
    for one in asked:
        identities |= {address: people.identity(address) for address in one.people}
        persons = [identities[address] for address in one.people]
        for at, person in enumerate(persons):
            code = "twice" if person in persons[:at] else await _fault(one, person, about, people)
            if code:
                params = {"people": label_of(one.among, about, {})} if code == "person_not_among" else {}
                rejections.append(Rejection(one.path_of(at), code, params))
                break
    return NamedPeople(identities, tuple(rejections))


async def _fault(one: NamedInField, person: str, about: RequestContext, people: People) -> str:
    """Return the code of why this person may not be named; "" if they may."""
    if one.among:
        is_one, errors = await is_among(person, one.among, about, people)
        return "" if is_one else "person_unsure" if errors else "person_not_among"
    try:
        return "" if await people.knows(person) else "person_unknown"
    except SourceUnavailable:
        return "person_unsure"


async def opening_with_people(of: Fields, opening: Opening, people: People, root: str = "input") -> Opening:
    """Return the opening with the identities of the people in its fields. Raises InvalidPayloadError."""
    asked = named_in(of, opening.fields)
    if not asked:
        return opening
    about = RequestContext(opening.requester, opening.on_behalf_of, opening.fields)
    named = await find_named(asked, about, people)
    if named.rejections:
        raise InvalidPayloadError([{"loc": [root, *each.path], "msg": each.text} for each in named.rejections], root)
    return replace(opening, fields=identified(of, opening.fields, named.identities))


@step(retries=0, timeout=LOOKUP_LIMIT)
async def look_up_named(
    asked: Proven[tuple[NamedInField, ...]], about: Proven[RequestContext], people: People = resource(People)
) -> Proven[NamedPeople]:
    """Find these people now."""
    return await find_named(asked, about, people)


look_up_named.only_reads = True


async def with_people_named(act: T, request: Request, rules: Rules) -> tuple[T, tuple[Rejection, ...]]:
    """Return an edit or a vote with the identities of the people whom it names, and why they may not be named."""
    of, stage = rules.definition.fields, request.stage
    if not isinstance(act, Edit | Vote) or stage is None:
        return act, ()
    asks = rules.stages[stage.id].ask
    if not any(spec.holds_people for spec in (*of.values(), *asks.values())):
        return act, ()
    both, fields, answers = {**of, **asks}, act.fields, act.answers if isinstance(act, Vote) else {}
    asked = named_in(both, {**answers, **fields})
    if not asked:
        return act, ()
    try:
        named = await look_up_named(asked, context_of(request, rules))
    except StepFailedError:
        return act, tuple(Rejection((one.field,), "person_unsure") for one in asked)
    fields = identified(both, fields, named.identities)
    if isinstance(act, Vote):
        return replace(act, fields=fields, answers=identified(both, answers, named.identities)), named.rejections
    return replace(act, fields=fields), named.rejections


async def left_without_people(after: Request, rules: Rules, at: datetime) -> tuple[Rejection, ...]:
    """Return why an edit is refused after which nobody could decide, where an address depends on the fields."""
    if after.outcome is not None or not rules.names_people_by_fields:
        return ()
    _, stage = next_stage(planned(after, rules), rules, at)
    if stage is None:
        return ()
    found = await find_people(seat_queries(after, rules, stage), context_of(after, rules, stage))
    why = why_undecidable(after, rules, stage, found)
    return (Rejection((), "nobody_would_decide", {"why": why}),) if why else ()
