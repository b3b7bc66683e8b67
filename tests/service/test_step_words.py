"""Steps in words: what went wrong is said as that, and what only goes another way isn't."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot.service.step_words import StepWords, step_words

CY = {"channel": "slack", "person": {"address": "cy@acme.eu", "name": "Cy Rus"}}
DEPLOYS = {"channel": "slack", "place": "#deploys"}


@pytest.mark.parametrize(
    ("to", "result", "words"),
    [
        (
            CY,
            {"kind": "refused", "error": "no member of this Slack workspace has this address", "code": "no_account"},
            StepWords("Cy Rus isn't a member in Slack: by email instead", "Slack"),
        ),
        (
            CY,
            {"kind": "refused", "error": "slack is not configured here", "code": "not_configured"},
            StepWords("Slack isn't set up here: by email instead to Cy Rus", "Slack"),
        ),
        (
            CY | {"channel": "email"},
            {"kind": "refused", "error": "email is not configured here", "code": "not_configured"},
            StepWords("Not sent to Cy Rus by email: email is not configured here", "Email", went_wrong=True),
        ),
        (
            DEPLOYS,
            {"kind": "try_again", "error": "it waits for its turn", "held": True},
            StepWords("Card to #deploys held: its turn comes later", "Slack"),
        ),
        (
            DEPLOYS,
            {"kind": "refused", "error": "it was decided before this could be delivered", "code": "too_late"},
            StepWords("Not sent to #deploys: it was decided before this could be delivered", "Slack"),
        ),
        (
            DEPLOYS,
            {"kind": "refused", "error": "the channel is archived", "code": "other"},
            StepWords("Not sent to #deploys: the channel is archived", "Slack", went_wrong=True),
        ),
    ],
)
def test_only_what_went_wrong_is_a_failure(to: dict[str, Any], result: dict[str, Any], words: StepWords) -> None:
    assert step_words("send_copy", {"dispatch": {"to": to}}, result, "done") == words
