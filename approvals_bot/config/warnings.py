"""Warnings of `check`: what a file allows and its author hardly means. Nothing here stops a file from loading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path as File

from approvals_bot.approvals.business_time import is_at_least, length_text
from approvals_bot.approvals.deadlines import TimeOfField, length_of
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reach import gaps_of
from approvals_bot.approvals.stages import carries_over
from approvals_bot.config.load import problems_of
from approvals_bot.config.messages import ConfigProblem, Finding
from approvals_bot.config.positions import Path

_SINGLE = re.compile(r"(?<!\{)\$?\{ ?(\w+) ?\}(?!\})")


def warnings_of(definition: Definition, path: File) -> list[ConfigProblem]:
    """Return the warnings about a workflow that loads. `path`: its file, for the lines."""
    return problems_of(path, _warnings(definition)) if definition.is_approval else []


def warning_text(warning: ConfigProblem) -> str:
    """Write `FILE:LINE: warning: key: message`."""
    return f"{warning.file}:{warning.line}: warning: {warning.key}: {warning.message}"


def _warnings(definition: Definition) -> Iterator[Finding]:
    yield from (Finding(gap.path, gap.message) for gap in gaps_of(definition))
    stages = [definition.in_stage(stage) for stage in definition.stage]
    silent = [at for at, here in enumerate(stages) if here.deliver.is_silent]
    if silent:
        where, what = _in(definition, silent), "approvers only find it in their inbox"
        yield Finding(("deliver",), f"nobody is notified of a request{where}: {what}")
    endless = [at for at, here in enumerate(stages) if here.clock.deadline is None and here.clock.none is None]
    if endless:
        what = (
            "so a request that nobody decides waits forever; "
            'in [clock], write deadline = "3d", or none = true if that is meant'
        )
        yield Finding(("clock", "deadline"), f"there is none{_in(definition, endless)}, {what}")
    yield from _deadlines_that_ask_nobody(definition, stages)
    yield from _braces(definition)
    yield from _deadlines_that_may_be_missing(definition) if definition.clock.none is None else ()
    if definition.policy.carry_over and not any(carries_over(definition, stage) for stage in definition.stage[1:]):
        what = "changes nothing: no later stage takes an approval without answers or a comment"
        yield Finding(("policy", "carry_over"), what)


def _braces(definition: Definition) -> Iterator[Finding]:
    """Yield the texts with single braces around a field's name, which messages show unchanged."""
    about = definition.workflow
    texts: list[tuple[Path, str | None]] = [
        (("workflow", key), getattr(about, key)) for key in ("title", "instructions")
    ]
    for event, actions in definition.on:
        texts += [(("on", event, at, "text"), getattr(each, "text", None)) for at, each in enumerate(actions or ())]
    for path, text in texts:
        found = next((each for each in _SINGLE.finditer(text or "") if each[1] in definition.fields), None)
        if found is not None:
            yield Finding(path, f"{found[0]} stays as it is; for the field's value, write {{{{ {found[1]} }}}}")


def _deadlines_that_ask_nobody(definition: Definition, stages: Sequence[Definition]) -> Iterator[Finding]:
    """Yield the deadlines that escalate where every escalation has run by then."""
    for at, here in enumerate(stages):
        end = length_of(here.clock.deadline)
        lengths = [each.after for each in definition.escalate if each.to]
        if here.clock.on_deadline != "escalate" or end is None:
            continue
        if lengths and all(is_at_least(end, each) and not is_at_least(each, end) for each in lengths):
            own = definition.stage[at].on_deadline is not None
            what = "nobody is left to ask by then, since every [[escalate]] is earlier, so the request expires"
            shown = f'{what}; write after = "{length_text(end)}" in one of them, or on_deadline = "expire"'
            yield Finding(("stage", at, "on_deadline") if own else ("clock", "on_deadline"), shown)
            return


def _deadlines_that_may_be_missing(definition: Definition) -> Iterator[Finding]:
    own = [(("stage", at, "deadline"), stage.deadline) for at, stage in enumerate(definition.stage)]
    for path, deadline in ((("clock", "deadline"), definition.clock.deadline), *own):
        spec = definition.fields[deadline.field] if isinstance(deadline, TimeOfField) else None
        if isinstance(deadline, TimeOfField) and spec is not None and not spec.required and spec.default is None:
            name = deadline.field
            meant = f"make {name} required, or set none = true if that is meant"
            yield Finding(path, f"a request without {name} waits forever; {meant}")


def _in(definition: Definition, numbers: Sequence[int]) -> str:
    """Name these stages; "" if they are all."""
    names = [definition.stage[at].id for at in numbers]
    return f" in stage {' and '.join(names)}" if len(names) < len(definition.stage) else ""
