"""An act says who acted, beside the person it is by."""

from __future__ import annotations

import pytest

from approvals_bot.approvals.acts import Actor, Vote, message_of, passed_on_by, read_actor, read_message
from approvals_bot.service.act import with_actor

DESK = Actor("app", "app:desk", "desk", peer="10.0.0.7")


def test_an_actor_travels_with_its_act() -> None:
    vote = Vote("ann@acme.eu", actor=DESK)
    message = message_of(vote)
    assert message["actor"] == {"kind": "app", "id": "app:desk", "key": "desk", "peer": "10.0.0.7"}
    assert read_message(message) == vote


def test_an_act_without_an_actor_gets_one() -> None:
    assert with_actor(Vote("ann@acme.eu", via="slack")).actor == Actor("slack", "ann@acme.eu")
    assert with_actor(Vote("ann@acme.eu", via="inbox")).actor == Actor("person", "ann@acme.eu")
    assert with_actor(Vote("ann@acme.eu", actor=DESK)).actor == DESK


@pytest.mark.parametrize(
    ("by", "actor", "named"),
    [
        ("ann@acme.eu", DESK, "app desk"),
        ("app:desk", DESK, ""),
        ("ann@acme.eu", Actor("slack", "U0ANN"), ""),
        ("ann@acme.eu", None, ""),
    ],
)
def test_an_app_that_passes_an_act_on_is_named(by: str, actor: Actor | None, named: str) -> None:
    assert passed_on_by(by, actor) == named


def test_an_unreadable_actor_is_none() -> None:
    assert read_actor({"kind": "app", "id": "app:ci"}) == Actor("app", "app:ci")
    assert read_actor({"who": "me"}) is None
    assert read_actor(None) is None
