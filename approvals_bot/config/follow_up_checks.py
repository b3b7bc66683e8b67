"""Checks of follow-ups: their conditions, and the Slack channels that a template may mean."""

from __future__ import annotations

import re
from collections.abc import Iterator

from approvals_bot.approvals.circumstances import with_names
from approvals_bot.approvals.conditions import Condition, ConditionError, read_words
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.rules import OUTCOME
from approvals_bot.approvals.templates import Event, TemplateError, channels_of
from approvals_bot.config.messages import Finding
from approvals_bot.config.positions import Path

_CHANNEL = re.compile(r"#[^\s#A-Z.,:;]{1,80}|[CG][A-Z0-9]{5,20}")


def event_of(path: Path) -> Event | None:
    """Return what the follow-up at this path follows; None for a decision."""
    match path[1]:
        case "opened":
            return "opened"
        case "stage":
            return "stage"
        case _:
            return None


def follow_up_condition(path: Path, when: str, definition: Definition) -> Condition:
    """Compile the condition of the follow-up at this path. Raises ConditionError for what isn't known then."""
    event = event_of(path)
    fields = definition.fields if event is not None else {**OUTCOME, **definition.fields}
    asks = {} if event == "opened" else {stage.id: stage.ask for stage in definition.stage}
    words = read_words(with_names(when, fields, asks)[0])
    if event is not None and "outcome" not in fields and ("name", "outcome") in words:
        raise ConditionError("outcome is not known before the decision")
    compiled = Condition(when, fields, asks)
    if event != "stage" and any(one.kind == "stage" for one in compiled.about.values()):
        raise ConditionError("stage.id is known in [[on.stage]] only")
    return compiled


def channel_faults(path: Path, channel: str, definition: Definition) -> Iterator[Finding]:
    """Check the channel of a message, or each that a template of enums may mean."""
    try:
        meant = channels_of(channel, definition.fields) if "{" in channel else [channel]
    except TemplateError as error:
        yield Finding(path, str(error), error.suggestion and f"#{{{{ {error.suggestion} }}}}")
        return
    wrong = next((each for each in meant if not _CHANNEL.fullmatch(each)), None)
    if wrong is not None:
        yield Finding(path, f'"{wrong}" is not a channel of Slack; write it like "#deploys"')
