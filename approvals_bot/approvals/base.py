"""What every model of the two configuration files has in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic import StrictBool as Bool
from pydantic import StrictInt as Int
from pydantic_core import PydanticCustomError

__all__ = ["Bool", "Frozen", "Hint", "Int", "Label", "Slug", "Text", "refuse"]

Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$")]
"""A name that is at home in URLs, file names and addresses."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
"""Text the operator wrote, never empty."""


def _on_one_line(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise refuse("write it on one line, without spaces around it")
    return value


Label = Annotated[str, StringConstraints(min_length=1, max_length=75), AfterValidator(_on_one_line)]
"""What a field, stage, group or button is called: 75 characters at most, as many as a button in Slack can hold."""

Hint = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_on_one_line)]
"""A sentence beside something that people fill in."""


class Frozen(BaseModel):
    """A table of a configuration file: unknown keys are refused, nothing changes afterwards."""

    model_config = ConfigDict(
        frozen=True,
        validate_default=True,  # a default path, too, is relative to the file
        extra="forbid",
        serialize_by_alias=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


def refuse(what: str, suggestion: str = "", *, at: str | tuple[str | int, ...] = ()) -> PydanticCustomError:
    """The error to raise in a validator. `what` is read by the operator; the loader adds file, line and key.

    `at` is the key that is wrong, or missing, when a table as a whole is checked; a tuple is a way into inner tables.
    """
    details = {"what": what, "suggestion": suggestion, "at": (at,) if isinstance(at, str) else at}
    return PydanticCustomError("refused", "{what}", details)


def nearest(word: object, names: Iterable[str]) -> str:
    """The name that was probably meant; "" if none is near."""
    return next(iter(difflib.get_close_matches(str(word)[:100], list(names), n=1)), "")


def one_of(names: Sequence[str]) -> str:
    """`"a", "b" or "c"`."""
    quoted = [f'"{name}"' for name in names]
    return " or ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else "".join(quoted)
