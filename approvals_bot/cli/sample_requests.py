"""The requests that the playground's first page offers to open with one click, for the sample workflows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from approvals_bot.config.load import Configuration
from approvals_bot.playground import Sample

# title · key (None: that of whoever tries the playground) · body
SAMPLES: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
    (
        "Bo deploys api 2.1 to production",
        None,
        {
            "workflow": "deploy",
            "requester": "bo@acme.eu",
            "input": {"service": "api", "version": "2.1", "env": "prod", "plan": "- replicas: 2\n+ replicas: 4"},
        },
    ),
    (
        "Bo deploys something risky: SRE decides as well",
        None,
        {
            "workflow": "deploy",
            "requester": "bo@acme.eu",
            "input": {"service": "billing", "version": "7.0", "env": "prod", "risk": "high"},
        },
    ),
    (
        "Cy spends 640 € on a conference",
        None,
        {
            "workflow": "expense",
            "requester": "cy@acme.eu",
            "input": {"amount": "640.00", "purpose": "Two tickets for PyCon", "team": "sales"},
        },
    ),
    (
        "Bo needs to get into the production account",
        None,
        {
            "workflow": "prod-access",
            "requester": "bo@acme.eu",
            "input": {
                "account": "aws-prod",
                "role": "admin",
                "duration": "1h",
                "reason": "The nightly backup is stuck and has to be started by hand.",
            },
        },
    ),
    (
        "An agent books Cy's flight (pressed again, the same tool call makes no second card)",
        "travel-agent",
        {
            "workflow": "book-flight",
            "on_behalf_of": "cy@acme.eu",
            "input": {
                "tool_call_id": "call_7QmZ",
                "flight": "LH 2031, Munich to Berlin",
                "passenger": "Cy Rus",
                "price": "240.00",
                "why": "You asked for the last flight on Friday.",
            },
        },
    ),
)


def sample_requests(configuration: Configuration, own_key: str) -> list[Sample]:
    """Those that this configuration has the workflow, the people and the key for. `own_key` is the playground's."""
    return list(_fitting(configuration, own_key))


def _fitting(configuration: Configuration, own_key: str) -> Iterator[Sample]:
    service = configuration.service
    workflows = {definition.id for definition in configuration.workflows}
    for title, key, body in SAMPLES:
        people = {body[role] for role in ("requester", "on_behalf_of") if role in body}
        if body["workflow"] not in workflows or not people <= service.people.keys():
            continue
        if key is None:
            yield Sample(title, body, own_key)
        elif key in service.api_keys:
            yield Sample(title, body, service.api_keys[key].key.get_secret_value())
