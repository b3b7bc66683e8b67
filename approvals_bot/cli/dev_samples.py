"""The samples on the playground's start page: one of each workflow that is served, filled in and ready to be opened.

The workflows of our own sample configuration have samples of their own. Those of other files get values by the types
of their fields, and a requester who may open them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue, PydanticUserError, TypeAdapter

from approvals_bot.app.directory import known_people
from approvals_bot.app.service import Service
from approvals_bot.approvals import fields
from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.values import fewest
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.config.load import Configuration
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.people import People, Person
from approvals_bot.playground import Sample
from approvals_bot.service.catalog import Listed
from approvals_bot.service.open import may_open
from approvals_bot.service.python_workflows import takes_whole_input

MOST_TRIED = 20  # people who are tried as the requester of a sample
DEEPEST = 5  # levels of objects in an example

# title · API key (None: the playground's own) · body
SAMPLES: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
    (
        "Bo deploys api 2.1 to production",
        None,
        {
            "workflow": "deploy",
            "requester": "bo@acme.eu",
            "input": {"service": "api", "version": "2.1", "env": "prod", "plan": "- replicas: 2\n+ replicas: 4"},
        },
    ),
    (
        "Bo deploys something risky: SRE decides as well",
        None,
        {
            "workflow": "deploy",
            "requester": "bo@acme.eu",
            "input": {"service": "billing", "version": "7.0", "env": "prod", "risk": "high"},
        },
    ),
    (
        "Cy spends 640 € on a conference",
        None,
        {
            "workflow": "expense",
            "requester": "cy@acme.eu",
            "input": {"amount": "640.00", "purpose": "Two tickets for PyCon", "team": "sales"},
        },
    ),
    (
        "Bo needs to get into the production account",
        None,
        {
            "workflow": "prod-access",
            "requester": "bo@acme.eu",
            "input": {
                "account": "aws-prod",
                "role": "admin",
                "duration": "1h",
                "reason": "The nightly backup is stuck and has to be started by hand.",
            },
        },
    ),
    (
        "An agent books Cy's flight (pressed again, the same tool call makes no second card)",
        "travel-agent",
        {
            "workflow": "book-flight",
            "on_behalf_of": "cy@acme.eu",
            "input": {
                "tool_call_id": "call_7QmZ",
                "flight": "LH 2031, Munich to Berlin",
                "passenger": "Cy Rus",
                "price": "240.00",
                "why": "You asked for the last flight on Friday.",
            },
        },
    ),
)


class Samples:
    """The samples of a running service. They are made again after each reload of its configuration."""

    def __init__(self, service: Service, own_key: str) -> None:
        """`own_key`: the playground's API key."""
        self._service = service
        self._key = own_key
        self._made_of: object = None
        self._samples: Sequence[Sample] = ()

    async def __call__(self) -> Sequence[Sample]:
        if self._made_of is not self._service.catalog:
            self._made_of = catalog = self._service.catalog
            ours = list(_of_our_own(self._service.configuration, self._key))
            done = {sample.body["workflow"] for sample in ours if sample.body is not None}
            others = [catalog.listed[name] for name in sorted(catalog.names()) if name not in done | _NOT_STARTED]
            own = [await self._filled_in(each) for each in others if not _is_shipped(each)]
            shipped = [await self._filled_in(each) for each in others if _is_shipped(each)]
            made = [sample for sample in (*own, *ours, *shipped) if sample is not None]
            self._samples = sorted(made, key=lambda sample: sample.body is None)
        return self._samples

    async def _filled_in(self, listed: Listed) -> Sample | None:
        """Return a sample of this workflow; with its form only, if nobody can decide what we fill in."""
        name, definition = listed.workflow.name, listed.definition
        if definition is None:
            return Sample(f"Start {name}", {"workflow": name, "input": _input_of(listed)}, self._key)
        people, now = self._service.engine.resources[People], self._service.engine.now()
        given = _fields_of(definition, now)
        named = [field for field in definition.fields if field in given and definition.fields[field].holds_people]
        given |= {field: await _people_for(definition.fields[field], people) for field in named}
        openers = [one async for one in self._openers(definition, people)]
        form = f"/requests/new/{name}"
        for one in openers:
            if await _is_decidable(definition, given, one, people, now):
                body: dict[str, Any] = {"workflow": name, "requester": one.address, "input": given}
                if definition.workflow.on_behalf_of == "required":
                    body["on_behalf_of"] = one.address
                return Sample(_title(definition, one), body, self._key, form, one.address)
        return Sample(_title(definition, openers[0]), None, "", form, openers[0].address) if openers else None

    async def _openers(self, definition: Definition, people: People) -> AsyncIterator[Person]:
        """Yield people who may open it. The first person is the last choice: "you" on the start page."""
        known = known_people(self._service.configuration.service)[:MOST_TRIED]
        for person in (*known[1:], *known[:1]):
            with suppress(ApprovalsBotError):
                if await may_open(definition, [person.address], people):
                    yield person


async def _people_for(spec: FieldSpec, people: People) -> JsonValue:
    """Return people whom a field may name: one, or as many as a list needs."""
    found = [person.address for person in people.known()]
    for address in spec.in_ or ():
        with suppress(ValueError):
            found = [person.address for person in (await people.resolve(address, requester="app:dev")).persons] or found
            break
    return [*found[: fewest(spec) or 1]] if spec.type == "list" else next(iter(found), "")


_NOT_STARTED = {CHAT_WORKFLOW, TOOL_CALL}
"""Workflows with a start of their own: the chat, and agents' tool calls."""


SHIPPED = frozenset({"book-flight", "book_flight_chat", "deploy", "expense", "greeting", "prod-access", "publishing"})
"""The files of our own workflows, without their endings. In a checkout, a developer's own are beside them."""


def _is_shipped(listed: Listed) -> bool:
    module = listed.workflow.origin.partition(":")[0].rpartition(".")[2]
    return (module if listed.definition is None else listed.workflow.name) in SHIPPED


def _title(definition: Definition, requester: Person) -> str:
    return f"{requester.name} requests {readable(definition.id)}"


async def _is_decidable(
    definition: Definition, given: Mapping[str, JsonValue], requester: Person, people: People, now: datetime
) -> bool:
    with suppress(ApprovalsBotError):
        if not definition.is_approval:
            fields.values(definition.fields, given)
            return True
        behalf = requester.address if definition.workflow.on_behalf_of == "required" else None
        found = await simulate(definition, Opening(dict(given), requester.address, behalf), people, now)
        return not found["problems"]
    return False


def _of_our_own(configuration: Configuration, own_key: str) -> Iterator[Sample]:
    """Yield the samples above whose workflow, people and key the configuration has."""
    service = configuration.service
    workflows = {definition.id for definition in configuration.workflows}
    for title, key, body in SAMPLES:
        people = {body[role] for role in ("requester", "on_behalf_of") if role in body}
        if body["workflow"] not in workflows or not all(service.person(address) for address in people):
            continue
        form = f"/requests/new/{body['workflow']}" if key is None else ""
        if key is None:
            yield Sample(title, body, own_key, form, body["requester"])
        elif key in service.api_keys:
            yield Sample(title, body, service.api_keys[key].key[0].get_secret_value())


# Values by their types, as JSON Schema describes them.


_OF_FIELDS: Mapping[str, JsonValue] = {"money": "100.00", "decimal": "1.5", "duration": "1h"}
"""Values of types whose JSON Schema says less than the type."""


def _fields_of(definition: Definition, now: datetime) -> dict[str, JsonValue]:
    """Return a value for each field that has to be filled in, and for those with an example."""
    found: dict[str, JsonValue] = example_of(fields.json_schema(definition.fields), now)
    for name, spec in definition.fields.items():
        if spec.example is not None:
            found[name] = str(spec.example) if spec.type in _OF_FIELDS else example_of({"const": spec.example}, now)
        elif name in found and spec.default is None and spec.type in _OF_FIELDS:
            found[name] = _OF_FIELDS[spec.type] if spec.min is None else str(spec.min)
    return found


def _input_of(listed: Listed) -> dict[str, Any]:
    signature = listed.workflow.signature
    needed = {
        name: signature.annotation(name)
        for name, parameter in signature.called.parameters.items()
        if parameter.default is parameter.empty and parameter.kind not in (2, 4)  # *args, **kwargs
    }
    made = {name: example_of(_schema(kind), None, name) for name, kind in needed.items()}
    if len(made) == 1 and takes_whole_input(signature):
        [whole] = made.values()
        return whole if isinstance(whole, dict) else {}
    return made


def _schema(kind: Any) -> Mapping[str, Any]:
    with suppress(PydanticUserError):
        return TypeAdapter(kind).json_schema()
    return {}


def example_of(
    schema: Mapping[str, Any],
    now: datetime | None,
    name: str = "value",
    of: Mapping[str, Any] | None = None,
    depth: int = 0,
) -> Any:
    """Make a value that this JSON Schema takes, as far as one can without knowing what it is for.

    Only what is required is in objects. `now`: for dates, which are a week later. `of`: the whole schema.
    """
    whole = schema if of is None else of
    if "$ref" in schema:
        schema = whole.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
    for word in ("default", "const"):
        if word in schema:
            return schema[word]
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if kinds := [each for each in schema.get(word, ()) if each.get("type") != "null"]:
            return example_of(kinds[0], now, name, whole, depth)
    match schema.get("type"):
        case "object" if depth < DEEPEST:
            inside = schema.get("properties", {})
            needed = [key for key in schema.get("required", ()) if key in inside]
            return {key: example_of(inside[key], now, key, whole, depth + 1) for key in needed}
        case "array":
            least = schema.get("minItems", 1 if depth < DEEPEST else 0)
            return [example_of(schema.get("items", {}), now, name, whole, depth + 1)] * least
        case "boolean":
            return True
        case "integer" | "number":
            return max(schema.get("minimum", 1), 1) if schema.get("maximum", 1) >= 1 else schema["maximum"]
        case "null":
            return None
        case "object":
            return {}
        case _:
            return _text(schema, now, name)


def _text(schema: Mapping[str, Any], now: datetime | None, name: str) -> str:
    then = (now or datetime(2030, 1, 1)) + timedelta(days=7)  # noqa: DTZ001  # a date without a zone is only shown
    match schema.get("format"):
        case "date":
            return f"{then:%Y-%m-%d}"
        case "date-time":
            return f"{then:%Y-%m-%dT12:00:00Z}"
        case "time":
            return "12:00:00"
        case "duration":
            return "PT1H"
        case "email":
            return "ann@acme.eu"
        case "uri":
            return "https://acme.eu/"
        case "uuid":
            return "00000000-0000-4000-8000-000000000001"
        case _:
            text = f"{readable(name)} 1".ljust(schema.get("minLength", 0), ".")
            return text[: schema.get("maxLength", len(text))]
