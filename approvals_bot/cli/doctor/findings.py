"""What `approvals-bot doctor` prints of what it found."""

from __future__ import annotations

from collections.abc import Sequence

from approvals_bot.approvals.port import Diagnosis, DiagnosisState
from approvals_bot.cli.show import bold

ICONS: dict[DiagnosisState, str] = {"OK": "✅", "WARN": "⚠", "FAIL": "⛔"}


def report(findings: Sequence[Diagnosis]) -> str:
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.state:4}  {ICONS[finding.state]} {finding.about}: {finding.what}")
        if finding.todo:
            lines.append(f"         → {finding.todo}")
        lines += [f"         {line}" for line in finding.text.splitlines()]
    counts = [f"{sum(each.state == state for each in findings)} {state}" for state in ICONS]
    return "\n".join([*lines, "", bold(", ".join(counts))])
