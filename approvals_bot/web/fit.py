"""Bodies and queries against their pydantic models, with every fault at its place."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from approvals_bot.web.problems import Problem

Shape = TypeVar("Shape", bound=BaseModel)


class Strict(BaseModel):
    """The shape of what callers send: unknown keys are faults, and nothing is guessed into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def fit(shape: type[Shape], value: Any) -> Shape:
    """The value in this shape. Raises Problem 422 with each fault and its place."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise Problem(
            422,
            "Invalid input",
            "Some values don't fit. Nothing was changed.",
            errors=[{"loc": fault["loc"], "msg": fault["msg"]} for fault in error.errors(include_url=False)],
        ) from None
