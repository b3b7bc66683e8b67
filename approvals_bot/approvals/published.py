"""What a run shows of its requests, made when it is stored: a replay passes many changes, and only the last is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Published:
    """A value to publish. `make` gives JSON already, so nobody has to look through it once more."""

    make: Callable[[], dict[str, Any]]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        made = core_schema.plain_serializer_function_ser_schema(lambda published: published.make())
        return core_schema.is_instance_schema(cls, serialization=made)
