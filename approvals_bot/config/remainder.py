"""What is left of a file when its wrong keys are taken out, so that the rest can be checked at the same time.

Whoever mends a file wants every problem now, not the next ones after each attempt. What is found in the remainder is
reported only where it can't follow from what was taken out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from approvals_bot.config.places import Path
from approvals_bot.config.problems import Finding

Model = TypeVar("Model", bound=BaseModel)
Fit = Callable[[dict[str, Any]], tuple[Model | None, list[Finding]]]
"""Fits a file's content to a model: the model, or what is wrong."""

_NOBODY = "nobody@example.invalid"
_STAND_INS: dict[str, Any] = {"from": [_NOBODY], "to": [_NOBODY], "request": ["*"]}
_ROUNDS = 5  # taking one key out can make another one missing, and so on outwards
_TEXTS = frozenset({"when", "title", "key", "text", "json"})  # they name fields


def remainder(content: Mapping[str, Any], wrong: Iterable[Finding], fit: Fit[Model]) -> Model | None:
    """The model of what is left. None when nothing is, or an element of a list would have to go (lines would shift)."""
    rest = copy.deepcopy(dict(content))
    found = list(wrong)
    for _ in range(_ROUNDS):
        if not all(_take_out(rest, each.path) for each in found):
            return None
        model, found = fit(rest)
        if model is not None:
            return model
    return None


def independent(found: Iterable[Finding], wrong: Iterable[Finding]) -> Iterator[Finding]:
    """The findings that don't follow from what was taken out: a lost field makes names in texts unknown."""
    told = {each.path for each in wrong}
    lost_fields = any({"fields", "ask"} & set(path) for path in told)
    lost_stages = any(path[:1] == ("stage",) and len(path) < 3 for path in told)
    for each in found:
        in_text = bool(_TEXTS & set(each.path))
        follows_from_field = lost_fields and (in_text or "field" in each.message)
        follows_from_stage = lost_stages and (in_text or each.path[:1] == ("stage",))
        if not (each.path in told or _NOBODY in each.message or follows_from_field or follows_from_stage):
            yield each


def _take_out(rest: dict[str, Any], path: Path) -> bool:
    """Remove a key, or put a stand-in where one is missing. False if that can't be done."""
    if not path:
        return False
    *around, last = path
    table: Any = rest
    for part in around:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(table, list):
        return _take_out(rest, tuple(around))  # a wrong element takes its whole list along
    if not isinstance(table, dict):  # written in short, like `price = "money"`: it goes as a whole
        return bool(around) and _take_out(rest, tuple(around))
    if last in table:
        del table[last]
    elif last in _STAND_INS:
        table[last] = _STAND_INS[str(last)]
    else:  # what is missing can't be made up, so its table goes
        return bool(around) and not isinstance(around[-1], int) and _take_out(rest, tuple(around))
    return True
