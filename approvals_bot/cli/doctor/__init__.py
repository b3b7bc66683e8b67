"""`approvals-bot doctor`: everything that a running service will need, tried now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from approvals_bot.approvals.port import Diagnosis
from approvals_bot.cli.doctor.findings import report

__all__ = ["Diagnosis", "examine", "report"]


async def examine(path: Path, env: Mapping[str, str], send: str | None = None) -> list[Diagnosis]:
    """All findings, in the order in which one would mend them. `send`: an address that gets a test mail."""
    from approvals_bot.cli.doctor import channels, people
    from approvals_bot.cli.doctor import machine as here
    from approvals_bot.config.load import load_service, load_workflows
    from approvals_bot.config.messages import ConfigErrors
    from approvals_bot.service.catalog import find_problems

    problems = find_problems(path, env)
    findings = [here.configuration(path, problems)]
    try:
        service = load_service(path, env)
        workflows = load_workflows(service.server.workflows)
    except ConfigErrors as errors:
        if problems:
            return findings  # said already; the rest can't be tried without it
        return [*findings, Diagnosis("FAIL", "configuration", str(errors))]
    findings += [here.base_url(service), *here.signing_keys(service), *await here.store(service)]
    findings += await channels.examine(service, workflows, send)
    findings += await people.examine(service, workflows)
    return findings
