"""Base model and common types of the two configuration files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationInfo
from pydantic import StrictBool as Bool
from pydantic import StrictInt as Int
from pydantic_core import PydanticCustomError

__all__ = ["Bool", "Frozen", "Hint", "Int", "Label", "Slug", "Text", "WorkflowName", "refuse"]

Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$")]
"""A name that is safe in URLs, file names and addresses."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?"
WorkflowName = Annotated[str, StringConstraints(pattern=rf"^{_PART}(?:/{_PART}){{0,5}}$")]
"""A workflow's name: that of its file, below the folders that it is in: `team-a/pay`."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
"""Text written by the operator; never empty."""


def _on_one_line(value: str, info: ValidationInfo) -> str:
    if not value.isprintable() or value != value.strip():
        raise refuse("write it on one line, without spaces around it")
    if info.context is not None and "{{" in value:  # of a file; code makes labels of whatever it is given
        raise refuse("is shown as it is written: only texts that are templates take {{ … }}")
    return value


Label = Annotated[str, StringConstraints(min_length=1, max_length=75), AfterValidator(_on_one_line)]
"""The label of a field, stage, group or button: at most 75 characters, the limit of a Slack button."""

Hint = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_on_one_line)]
"""One line of help beside an input."""


class Frozen(BaseModel):
    """A table of a configuration file: frozen, and without unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        validate_default=True,  # default paths are relative to the file, too
        extra="forbid",
        serialize_by_alias=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
        defer_build=True,  # a command builds only the models that it uses; benchmark: parts/startup.py
    )


def refuse(what: str, suggestion: str = "", *, at: str | tuple[str | int, ...] = ()) -> PydanticCustomError:
    """Make the error that a validator raises. Operators read `what`; the loader adds file, line and key.

    `at`: the wrong or missing key, when a whole table is checked; a tuple is a path into inner tables.
    """
    details = {"what": what, "suggestion": suggestion, "at": (at,) if isinstance(at, str) else at}
    return PydanticCustomError("refused", "{what}", details)


def nearest(word: object, names: Iterable[str]) -> str:
    """Return the name that was probably meant, in whatever case; "" if none is close."""
    names = list(names)
    if same := next((name for name in names if name.lower() == str(word).lower() != ""), ""):
        return same
    return next(iter(difflib.get_close_matches(str(word)[:100], list(names), n=1)), "")


def one_of(names: Sequence[str]) -> str:
    """Join names in quotes: `"a", "b" or "c"`."""
    quoted = [f'"{name}"' for name in names]
    return " or ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else "".join(quoted)
