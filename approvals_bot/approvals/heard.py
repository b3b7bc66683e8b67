"""What reaches a request: one message, whichever way it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from approvals_bot.approvals.port import ChoiceName, Via

HANDING = ("reassign", "add")
"""Messages that change who is asked."""


EDITION = 2
"""Of what follows a message. A log that has one of an earlier edition replays as it went then: before 2, whoever has a
card was told of a change before the next stage was open."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One message that reached a request: a vote, an edit, a withdrawal, a handover (`person`, `instead_of`); that its
    whole run is to stop; or that a mail came back (`copy`, `reason`). Who sent it is established.
    """

    kind: Literal["vote", "edit", "withdraw", "reassign", "add", "stop", "bounced"]
    by: str
    via: Via = "api"
    choice: ChoiceName = "approve"
    comment: str = ""
    answers: dict[str, JsonValue] = field(default_factory=dict)
    fields: dict[str, JsonValue] = field(default_factory=dict)
    digest: str | None = None
    reason: str = ""
    copy: int = 0
    person: str = ""
    instead_of: str = ""
    edition: int = 1


@dataclass(frozen=True, slots=True)
class Said:
    """What the actor is told, and whether anything changed."""

    verdict: str
    text: str
    changed: bool
