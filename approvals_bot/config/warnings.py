"""Warnings of `check`: what a file allows and its author hardly means. Nothing here stops a file from loading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reach import gaps_of
from approvals_bot.config.load import problems_of
from approvals_bot.config.messages import ConfigProblem, Finding


def warnings_of(definition: Definition, path: Path) -> list[ConfigProblem]:
    """Return the warnings about a workflow that loads. `path`: its file, for the lines."""
    return problems_of(path, _warnings(definition)) if definition.is_approval else []


def warning_text(warning: ConfigProblem) -> str:
    """Write `FILE:LINE: warning: key: message`."""
    return f"{warning.file}:{warning.line}: warning: {warning.key}: {warning.message}"


def _warnings(definition: Definition) -> Iterator[Finding]:
    yield from (Finding(gap.path, gap.message) for gap in gaps_of(definition))
    deliver = definition.deliver
    if not (deliver.slack or deliver.dm or deliver.channels or deliver.email is not None):
        yield Finding(("deliver",), "nobody is notified of a request: approvers only find it in their inbox")
    if definition.clock.deadline is None and definition.clock.none is None:
        what = (
            "there is none, so a request that nobody decides waits forever; "
            'in [clock], write deadline = "3d", or none = true if that is meant'
        )
        yield Finding(("clock", "deadline"), what)
    for name in definition.deadline_fields if definition.clock.none is None else ():
        if not definition.fields[name].required and definition.fields[name].default is None:
            what = f"a request without {name} waits forever; make {name} required, or set none = true if that is meant"
            yield Finding(("clock", "deadline"), what)
