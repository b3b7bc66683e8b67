"""A reset under people's hands: the links and buttons that they have lead to the new run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.forked import run_command
from tests.support.journey import Json, Service


@pytest.fixture
def service(installed: Service) -> Service:
    return installed.start("--config", "config.example.toml")


def typed(service: Service, *words: str) -> Any:
    done = run_command(service.folder, *words, "--json", "--config", ".approvals/config.toml")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def reset(service: Service, run_id: str, to: int) -> str:
    done = typed(service, "reset", run_id, "--to", str(to), "--reason", "a bad release")
    new = str(done["next_run"])
    service.settled(new)
    return new


def cards(service: Service) -> list[Json]:
    return [message for message in service.messages() if "Deploy api 2.1 to prod" in message["text"]]


def test_cards_that_were_sent_belong_to_the_new_run(service: Service) -> None:
    run_id = service.open()
    service.settled(run_id)
    (card,), link = cards(service), service.link("ann@acme.eu")
    new = reset(service, run_id, len(service.events(run_id)))
    assert len(cards(service)) == 1, "what was delivered is not sent again"
    assert (service.run(run_id)["status"], service.run(run_id)["next_run"]) == ("reset", new)
    assert "Approved" in service.click("U0ANN", card, "Approve")["ephemeral"]
    assert service.ended(new)["request"]["outcome"] == "approved"
    service.eventually(lambda: "Approved" in cards(service)[0]["text"])
    assert "Approved" in service.page(link).text
    assert f"/requests/{new}" in str(service.page(f"/requests/{run_id}").url)


def test_older_buttons_and_links_still_decide(service: Service) -> None:
    run_id = service.open()
    service.settled(run_id)
    (card,), link = cards(service), service.link("ann@acme.eu")
    to = next(event["seq"] for event in service.events(run_id) if event["type"] == "hook_created")
    new = reset(service, run_id, to)
    assert len(cards(service)) == 2, "what was sent after that event is sent again"
    why = service.play(
        "POST",
        "/slack/click",
        json={"user": "U0ANN", "channel": card["channel"], "ts": card["ts"], "button": "Why me?"},
    )
    assert "Release managers" in why["ephemeral"] or "approver" in why["ephemeral"], why
    answer = service.press(link, "reject", comment="Not on a Friday.")
    assert "Rejected" in answer.text
    assert service.ended(new)["request"]["votes"][0]["comment"] == "Not on a Friday."
    exported = run_command(service.folder, "audit", "export", "--config", ".approvals/config.toml")
    line = next(
        json.loads(line) for line in exported.stdout.splitlines() if '"run_reset"' in line and '"audit"' in line
    )
    assert (line["run_id"], line["who"], line["data"]["next_run"]) == (run_id, "app:cli", new)
