"""JSON Schemas of the two files, for editors that complete and check TOML as you type.

They are derived from the models, plus the short forms that the models accept and normalize. They know shapes only;
`check` also looks up names.
"""

from __future__ import annotations

from typing import Any, get_args

from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.field_specs import FieldType
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.api_keys import short_form
from approvals_bot.config.service import ServiceSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECRET = {"type": "string", "pattern": "^(env|file):.+"}


def service_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of config.toml."""
    schema = ServiceSettings.model_json_schema(by_alias=True)
    tables = schema["$defs"]
    _or(tables, "ApiKeyEntry", short_form(_SECRET))
    _or(tables, "PeopleGroupEntry", tables["PeopleGroupEntry"]["properties"]["people"])
    _or(tables, "SlackGroupEntry", {"type": "string", "pattern": r"^slack:@\S+$"})
    return {"$schema": DIALECT, **schema, "title": "Approvals Bot: config.toml"}


def workflow_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a workflow file."""
    schema = Definition.model_json_schema(by_alias=True)
    tables = schema["$defs"]
    _or(tables, "FieldSpec", {"type": "string", "enum": list(get_args(FieldType))})
    _let_a_stage_be_one_seat(tables["Stage"], tables["Seat"])
    about = tables["WorkflowInfo"]
    about["required"] = ["id"]
    about |= {"if": {"properties": {"id": {"const": TOOL_CALL}}}, "else": {"required": ["request"]}}
    return {"$schema": DIALECT, **schema, "title": "Approvals Bot: a workflow"}


def _or(tables: dict[str, Any], name: str, short: dict[str, Any]) -> None:
    """Accept a short form beside the table."""
    table = tables.pop(name)
    tables[f"{name}Table"] = table
    tables[name] = {"anyOf": [short, {"$ref": f"#/$defs/{name}Table"}]}


def _let_a_stage_be_one_seat(stage: dict[str, Any], seat: dict[str, Any]) -> None:
    own = {name: seat["properties"][name] for name in ("from", "need", "notify")}
    stage["properties"] |= own
    stage["required"] = ["id"]
    others = {"seat": ("any", *own), "any": ("seat", *own), "from": ("seat", "any")}
    stage["oneOf"] = [
        {"required": [way], "not": {"anyOf": [{"required": [other]} for other in without]}}
        for way, without in others.items()
    ]
