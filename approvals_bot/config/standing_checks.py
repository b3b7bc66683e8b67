"""Checks of approvals that also cover later requests: what has to be equal, and what is added up."""

from __future__ import annotations

from collections.abc import Iterator

from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.messages import Finding
from approvals_bot.config.positions import Path

ADDED_UP = ("integer", "decimal", "money")


def standing_faults(definition: Definition) -> Iterator[Finding]:
    """Find fields that can't be compared or added up, and questions that a covered request would leave open."""
    rule = definition.standing
    if rule is None:
        return
    for at, name in enumerate(rule.match):
        path: Path = ("standing", "match", at)
        spec = definition.fields.get(name)
        if spec is None:
            near = nearest(name, definition.fields)
            yield Finding(path, f"no field is called {name}", near, about=("fields",))
        elif not spec.pinned:
            yield Finding(path, f"{name} isn't pinned, so no approver has signed it: pinned = true", about=("fields",))
    if rule.sum is not None:
        path, spec = ("standing", "sum", "field"), definition.fields.get(rule.sum.field)
        if spec is None:
            near = nearest(rule.sum.field, definition.fields)
            yield Finding(path, f"no field is called {rule.sum.field}", near, about=("fields",))
        elif spec.type not in ADDED_UP:
            what = f"a {spec.type} field can't be added up: it must be an integer, a decimal or money"
            yield Finding(path, what, about=("fields",))
    for at, stage in enumerate(definition.stage):
        if stage.ask:
            yield Finding(("stage", at, "ask"), "nobody answers this in a request that [standing] covers")
