"""JSON Schemas of the files, for editors that complete and check TOML as you type.

They are derived from the models, plus the short forms that the models accept and normalize, what the models check
across keys, and descriptions in the words of the docs. `check` also looks up names, and knows what needs computing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.field_specs import OPTIONS_FOR, FieldType
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.api_keys import short_form
from approvals_bot.config.checks import NOT_OF_TOOL_CALLS, OF_APPROVALS
from approvals_bot.config.descriptions import Of, descriptions, descriptions_of_tests
from approvals_bot.config.load import EXTENDS
from approvals_bot.config.policy_tests import PolicyTests
from approvals_bot.config.service import ServiceSettings

OF_EXTENDS = "The file that this one takes over: its tables merge with this file's, everything else is replaced."
OF_DEFAULTS = "What the workflows have in common that extend this file."
OF_TESTS = "Requests to play, and what is expected of each."
MERGED = ("WorkflowInfo", "FieldSpecTable", "Policy", "Clock", "Deliver", "Labels")
"""The tables that merge with those of the file that is extended."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECRET = {"type": "string", "pattern": "^(env|file):.+"}

Schema = dict[str, Any]


def service_schema() -> Schema:
    """Return the JSON Schema (2020-12) of config.toml."""
    schema = ServiceSettings.model_json_schema(by_alias=True)
    tables = schema["$defs"]
    _or(tables, "ApiKeyEntry", short_form(_SECRET))
    _or(tables, "PeopleGroupEntry", tables["PeopleGroupEntry"]["properties"]["people"])
    _or(tables, "NestedGroupEntry", {"type": "array", "items": {"type": "string", "pattern": "^(@|slack:@)"}})
    _or(tables, "SlackGroupEntry", {"type": "string", "pattern": r"^slack:@\S+$"})
    return _finished(schema, "config.toml", "Approvals Bot: config.toml")


def workflow_schema() -> Schema:
    """Return the JSON Schema (2020-12) of a workflow file."""
    schema = Definition.model_json_schema(by_alias=True)
    tables = schema["$defs"]
    tables["FieldSpec"]["allOf"] = [*_options_of_types()]
    _or(tables, "FieldSpec", {"type": "string", "enum": list(get_args(FieldType))})
    _let_a_stage_be_one_seat(tables["Stage"], tables["Seat"])
    tables["WorkflowInfo"]["required"] = ["id"]  # `request` may be the [[request]] tables, or be left to tool calls
    tables["Clock"]["allOf"] = [*_times()]
    tables["Deliver"]["allOf"] = [*_deliveries()]
    schema |= {"if": {"not": {"required": [EXTENDS]}}, "then": {"allOf": [*_kinds_of_files()]}}
    whole = _finished(schema, "workflow", "Approvals Bot: a workflow")
    whole["properties"][EXTENDS] = {"type": "string", "pattern": r"\.toml$", "description": OF_EXTENDS}
    return whole


def schema_of_defaults() -> Schema:
    """Return the JSON Schema of a file that workflows extend: all of their keys, of which none is needed.

    A table may have a part of its keys, since it merges with that of the workflow.
    """
    schema = workflow_schema()
    for part in (schema, *(schema["$defs"][name] for name in MERGED)):
        for key in ("required", "allOf", "if", "then"):
            part.pop(key, None)
    del schema["properties"][EXTENDS]
    return {**schema, "title": "Approvals Bot: defaults of workflows", "description": OF_DEFAULTS}


def schema_of_tests() -> Schema:
    """Return the JSON Schema of a file of policy tests."""
    schema = _without_null(PolicyTests.model_json_schema(by_alias=True))
    case = schema["$defs"]["Case"]["properties"]
    case["now"] = {"type": "string"}  # a date of TOML will do
    case["why"] = {"anyOf": [case["why"]["items"], case["why"]]}
    for name, meaning in descriptions_of_tests().items():
        case[name]["description"] = meaning
    for table in schema["$defs"].values():
        table.pop("description", None)  # for programmers
    return {"$schema": DIALECT, **schema, "title": "Approvals Bot: policy tests", "description": OF_TESTS}


def _or(tables: Schema, name: str, short: Schema) -> None:
    """Accept a short form beside the table."""
    table = tables.pop(name)
    tables[f"{name}Table"] = table
    tables[name] = {"anyOf": [short, {"$ref": f"#/$defs/{name}Table"}]}


def _let_a_stage_be_one_seat(stage: Schema, seat: Schema) -> None:
    own = {name: seat["properties"][name] for name in ("from", "need", "pick", "notify")}
    stage["properties"] |= own
    stage["required"] = ["id"]
    others = {"seat": ("any", *own), "any": ("seat", *own), "from": ("seat", "any")}
    stage["oneOf"] = [
        {"required": [way], "not": {"anyOf": [{"required": [other]} for other in without]}}
        for way, without in others.items()
    ]


# ── What the models check across keys ──


def _if(when: Schema, then: Schema) -> Schema:
    return {"if": when, "then": then}


def _is(key: str, *values: Any) -> Schema:
    """Return the schema of a table in which this key has one of these values."""
    return {"required": [key], "properties": {key: {"enum": list(values)}}}


def _without(*keys: str) -> Schema:
    return {"properties": dict.fromkeys(keys, False)}


def _options_of_types() -> Iterator[Schema]:
    for option, types in OPTIONS_FOR.items():
        taking: Schema = {"properties": {"type": {"enum": list(types)}}}
        if option not in ("of", "min", "max"):  # in a list, it is its items'
            items = {"properties": {"type": {"const": "list"}, "of": {"enum": list(types)}}}
            taking = {"anyOf": [taking, items]}
        yield _if({"required": [option.removesuffix("_")]}, taking)
    yield _if(_is("type", "enum"), {"required": ["values"]})
    yield _if(_is("of", "enum"), {"required": ["values"]})
    yield _if(_is("type", "list"), {"required": ["of"], **_without("default")})
    yield _if(_is("type", "money"), {"required": ["currency"]})
    of_files = {"properties": {"default": False, "pinned": {"const": True}, "editable": {"const": False}}}
    yield _if(_is("type", "file"), of_files)
    yield _if(_is("of", "file"), of_files)


def _times() -> Iterator[Schema]:
    yield _if(_is("on_deadline", "reject", "escalate", "approve"), {"required": ["deadline"]})
    yield _if(_is("on_deadline", "approve"), _is("i_know", True))
    yield _if({"required": ["none"]}, {"properties": {"deadline": {"pattern": "^field:"}}})


def _deliveries() -> Iterator[Schema]:
    yield _if({"required": ["max_age"]}, _is("link_auth", "login"))
    by_mail = {"required": ["i_know"], "properties": {"link_auth": {"const": "link"}}}
    yield _if(_is("email_replies", "decide"), by_mail)
    yield _if({"required": ["i_know"]}, _is("email_replies", "decide"))


def _kinds_of_files() -> Iterator[Schema]:
    """Yield what an approval has, what a Python workflow leaves to its code, and what is for tool calls."""
    is_tool_call = {"properties": {"workflow": _is("id", TOOL_CALL)}}
    has_code = {"properties": {"workflow": {"required": ["run"]}}}
    of_agents = ("allowance", "budget")
    approval = {
        "required": ["stage"],
        "properties": {"stage": {"minItems": 1}, "settings": False, "workflow": {"required": ["title"]}},
    }
    yield {"if": has_code, "then": _without(*OF_APPROVALS), "else": approval}
    outside = {"properties": {**dict.fromkeys(of_agents, False), "workflow": _without("may_ask")}}
    yield {"if": is_tool_call, "then": _without(*NOT_OF_TOOL_CALLS), "else": outside}
    asked = {"properties": {"workflow": {"required": ["request"]}}}
    by_tables = {"properties": {"workflow": _without("request")}}
    yield {"if": {"required": ["request"]}, "then": by_tables, "else": {"if": is_tool_call, "else": asked}}
    escalates = {"properties": {"clock": _is("on_deadline", "escalate")}, "required": ["clock"]}
    yield _if(escalates, {"required": ["escalate"]})


# ── For people who read it in an editor ──


def _finished(schema: Schema, of: Of, title: str) -> Schema:
    """Return the schema with descriptions, and without what only Python has: null, and titles of its own."""
    schema = _without_null(schema)
    _Describe(schema["$defs"], descriptions(of)).table(schema, "")
    return {"$schema": DIALECT, **_open(schema), "title": title}


def _open(node: Any, *, are_names: bool = False) -> Any:
    """Say of each part that only adds a condition that it leaves other keys alone: Tombi takes it for a whole table.

    `are_names`: the keys are those of a file, not of a schema.
    """
    if isinstance(node, list):
        return [_open(each) for each in node]
    if not isinstance(node, dict):
        return node
    opened = {key: _open(of, are_names=key in _OF_NAMES and not are_names) for key, of in node.items()}
    is_condition = not are_names and not opened.keys().isdisjoint(_CONDITIONS)
    return {"additionalProperties": True, **opened} if is_condition else opened


_OF_NAMES = ("properties", "patternProperties", "$defs")
_CONDITIONS = ("properties", "required", "if", "then", "allOf", "oneOf", "not")


def _without_null(node: Any) -> Any:
    """Drop null, which TOML doesn't have, and pydantic's titles."""
    if isinstance(node, list):
        return [_without_null(each) for each in node if each != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_null(value) for key, value in node.items() if not (key == "default" and value is None)}
    if isinstance(kept.get("title"), str):
        del kept["title"]
    members = kept.get("anyOf", ())
    if len(members) == 1:
        del kept["anyOf"]
        kept = {**members[0], **kept}
    return kept


class _Describe:
    """Writes each property's meaning into a schema. A table that several properties have keeps the first one's."""

    def __init__(self, tables: Mapping[str, Schema], meanings: Mapping[str, str]) -> None:
        self._tables = tables
        self._meanings = meanings
        self._seen = set[str]()

    def table(self, node: Any, path: str) -> None:
        """Describe the properties of this schema, which are at `path`, and all below."""
        if not isinstance(node, dict):
            return
        if (name := str(node.get("$ref", "")).rpartition("/")[2]) and name not in self._seen:
            self._seen.add(name)
            self._tables[name].pop("description", None)  # for programmers
            self.table(self._tables[name], path)
        for each in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            self.table(each, path)
        self.table(node.get("items"), f"{path}[]")
        for of in (node.get("additionalProperties"), *node.get("patternProperties", {}).values()):
            self.table(of, f"{path}.<name>")
        for key, of in node.get("properties", {}).items():
            self._property(of, f"{path}.{key}" if path else key)

    def _property(self, node: Schema, path: str) -> None:
        if meaning := self._meaning(path):
            node["description"] = meaning
        self.table(node, path)

    def _meaning(self, path: str) -> str:
        general = re.sub(r"^on\.\w+\[\]", "on.<outcome>[]", path)
        of_seat = general.replace("stage[].", "stage[].seat[].")  # which a stage with a single seat has directly
        names: Sequence[str] = (general, f"{general}.<name>", general.replace("[]", ""), of_seat)
        return next((self._meanings[name] for name in names if name in self._meanings), "")


SCHEMAS: Mapping[str, Callable[[], Schema]] = {
    "service": service_schema,
    "workflow": workflow_schema,
    "tests": schema_of_tests,
    "defaults": schema_of_defaults,
}
"""Each kind of file with what makes its schema, by the name that `init` and `schema` give it."""
