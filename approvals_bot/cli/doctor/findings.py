"""One thing that was looked at, and how it was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from approvals_bot.cli.show import bold

State = Literal["OK", "WARN", "FAIL"]
ICONS: dict[State, str] = {"OK": "✅", "WARN": "⚠", "FAIL": "⛔"}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`todo`: what the operator does about it; "" when all is well. `text`: lines to copy, such as DNS records."""

    state: State
    about: str
    what: str
    todo: str = ""
    text: str = ""


def report(findings: Sequence[Diagnosis]) -> str:
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.state:4}  {ICONS[finding.state]} {finding.about}: {finding.what}")
        if finding.todo:
            lines.append(f"         → {finding.todo}")
        lines += [f"         {line}" for line in finding.text.splitlines()]
    counts = [f"{sum(each.state == state for each in findings)} {state}" for state in ICONS]
    return "\n".join([*lines, "", bold(", ".join(counts))])
