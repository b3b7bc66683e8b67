"""What reaches a request: one message, whichever way it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from approvals_bot.channels import ChoiceName, Via

HANDING = ("reassign", "add")
"""Messages that change who is asked."""


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


@dataclass(frozen=True, slots=True)
class Said:
    """What the actor is told, and whether anything changed."""

    verdict: str
    text: str
    changed: bool
