"""Every setting of the two configuration files, as their models have it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from approvals_bot.approvals.durations import duration_text
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.service import ServiceSettings


@dataclass(frozen=True, slots=True)
class Setting:
    """`path` as people write it, `stage[].seat[].need`; `default` as TOML, "" for none, "required"."""

    path: str
    default: str


def settings_of(model: type[BaseModel], above: str = "") -> Iterator[Setting]:
    """Every setting, tables included as far as they hold values of their own."""
    model.model_rebuild()
    for name, field in model.model_fields.items():
        if any(type(mark).__name__ == "SkipJsonSchema" for mark in field.metadata):
            continue  # set by the service, not by a file
        path = f"{above}{field.alias or name}"
        inner = list(_models(field.annotation, path))
        if not inner or _has_plain_form(field.annotation):
            yield Setting(path, _default(field))
        for place, table in inner:
            yield from settings_of(table, f"{place}.")


def _models(kind: Any, path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The tables that may stand here, and where."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield path, kind
    elif get_origin(kind) is dict:
        yield from _models(get_args(kind)[1], f"{path}.<name>")
    elif get_origin(kind) is tuple:
        yield from _models(get_args(kind)[0], f"{path}[]")
    elif get_origin(kind) in (Union, UnionType, Annotated):
        members = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
        for member in members:
            yield from _models(member, path)


def _has_plain_form(kind: Any) -> bool:
    """Whether it may also be written as a plain value, such as a list in place of a table."""
    if get_origin(kind) is Annotated:
        return _has_plain_form(get_args(kind)[0])
    if get_origin(kind) is dict:
        return _has_plain_form(get_args(kind)[1])
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not NoneType]
        return any(not list(_models(member, "")) or _has_plain_form(member) for member in members)
    return False


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    match value:
        case None | () | {}:
            return ""
        case BaseModel():
            return ""
        case timedelta():
            return json.dumps(duration_text(value))
        case tuple():
            return json.dumps(list(value))
        case Path():
            return json.dumps(str(value))
        case _:
            return json.dumps(value)


def every_setting() -> dict[str, dict[str, str]]:
    """Path → default, by file, in the order of the models. What is the same in many places is there once."""
    found: dict[str, dict[str, str]] = {}
    for file, model in (("config.toml", ServiceSettings), ("workflow", Definition)):
        paths = found.setdefault(file, {})
        for setting in settings_of(model):
            path = re.sub(r"^on\.\w+\[\]", "on.<outcome>[]", setting.path)
            path = re.sub(r"^(stage\[\]\.ask\.<name>)\..*", r"\1", path)  # as the fields
            path = "groups.<name>" if path == "groups" else path
            paths.setdefault(path, "" if path == "stage[].ask.<name>" else setting.default)
    return found
