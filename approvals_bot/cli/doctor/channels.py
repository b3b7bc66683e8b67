"""Every channel, examined by itself: what it says of its connection, and of the places that workflows deliver to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from approvals_bot.app.connections import open_channels
from approvals_bot.approvals.policy import Definition, SayInSlack
from approvals_bot.approvals.port import EMAIL, SLACK, CheckUp, Diagnosis, WithCheck
from approvals_bot.config.service import ServiceSettings, SlackGroupEntry
from approvals_bot.people import SlackGroupAddress, parse_address

BUILT_IN = {SLACK: "Slack", EMAIL: "mail"}
"""The channels that a report names even where they are not configured."""


async def examine(service: ServiceSettings, workflows: Sequence[Definition], send: str | None) -> list[Diagnosis]:
    """Examine what is configured. `send`: an address that gets a test mail."""
    found: list[Diagnosis] = []
    async with AsyncExitStack() as stack:
        channels = open_channels(stack, service)
        for name in dict.fromkeys((*BUILT_IN, *channels)):
            channel = channels.get(name)
            if channel is None:
                found.append(Diagnosis("OK", BUILT_IN[name], "not configured"))
            elif isinstance(channel, WithCheck):
                groups = groups_of(service, workflows) if name == SLACK else ()
                asked = CheckUp(places_of(name, workflows), groups, send if name == EMAIL else None)
                found += await channel.check(asked)
    if send is not None and EMAIL not in channels:
        found.append(Diagnosis("FAIL", "test mail", "no [email] is configured", "Add it."))
    return found


def places_of(channel: str, workflows: Sequence[Definition]) -> dict[str, str]:
    """Every place of this channel that a workflow writes to, and which one does."""
    found: dict[str, str] = {}
    for definition in workflows:
        to = definition.deliver.slack if channel == SLACK else definition.deliver.channels.get(channel)
        if isinstance(to, str):
            found.setdefault(to, definition.id)
        for _, actions in definition.on if channel == SLACK else ():
            for action in actions:
                if isinstance(action, SayInSlack) and "{" not in action.slack:
                    found.setdefault(action.slack, definition.id)
    return found


def groups_of(service: ServiceSettings, workflows: Sequence[Definition]) -> list[str]:
    """Every Slack user group that is named, by its handle without the @."""
    found = [of.slack.removeprefix("@") for of in service.groups.values() if isinstance(of, SlackGroupEntry)]
    for definition in workflows:
        seats = [seat for stage in definition.stage for seat in stage.seat]
        texts = [
            *definition.workflow.request,
            *(text for seat in seats for text in (*seat.from_, *(seat.notify or ()))),
            *(text for escalation in definition.escalate for text in escalation.to),
        ]
        for text in texts:
            if text.startswith("slack:") and isinstance(group := parse_address(text), SlackGroupAddress):
                found.append(group.handle)
    return list(dict.fromkeys(found))
