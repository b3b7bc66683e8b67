"""The main job: asked over HTTP, decided in Slack or by mail, and everybody sees it."""

from __future__ import annotations

import time

from tests.support.journey import Service, buttons, comment_input


def test_a_request_reaches_slack_and_mailboxes(service: Service) -> None:
    service.open()
    card = service.card()
    service.link("ann@acme.eu")
    service.link("cy@acme.eu")
    assert buttons(card)[:2] == ["Approve", "Reject"]
    assert sorted(m["to"] for m in service.mails()) == ["ann@acme.eu", "cy@acme.eu"]


def test_approving_in_slack_updates_every_copy(service: Service) -> None:
    run_id = service.open()
    link = service.link("ann@acme.eu")
    pressed = service.click("U0ANN", service.card(), "Approve")
    assert pressed["status"] == 200
    assert "Everyone involved has been notified." in pressed["ephemeral"]
    ended = service.ended(run_id)
    assert ended["result"]["approved"] is True
    assert ended["result"]["by"] == "ann@acme.eu"
    assert ended["request"]["votes"][0]["via"] == "slack"
    card = service.card()
    assert "Approved by Ann Ode" in card["text"]
    assert buttons(card) == []
    page = service.page(link)
    assert "Approved" in page.text
    assert "Ann Ode" in page.text
    assert "<button" not in page.text


def test_approving_on_the_mailed_page_updates_the_slack_card(service: Service) -> None:
    run_id = service.open()
    service.card()
    answer = service.press(service.link("cy@acme.eu"), "approve")
    assert answer.status_code == 200
    assert "Approved" in answer.text
    ended = service.ended(run_id)
    assert ended["result"] | {"approved": True, "by": "cy@acme.eu", "via": "email"} == ended["result"]
    assert "Approved by Cy Rus" in service.card()["text"]
    assert buttons(service.card()) == []


def test_rejecting_in_slack_asks_for_a_reason_and_keeps_it(service: Service) -> None:
    run_id = service.open()
    asked = service.click("U0ANN", service.card(), "Reject")
    view = asked["view"]
    assert view is not None
    block_id, action_id = comment_input(view)
    body = {"user": "U0ANN", "view_id": view["id"], "values": {block_id: {action_id: "Not on a Friday."}}}
    service.play("POST", "/slack/submit", json=body)
    ended = service.ended(run_id)
    assert ended["result"]["decision"] == "rejected"
    assert ended["result"]["comment"] == "Not on a Friday."
    assert "Rejected by Ann Ode" in service.card()["text"]
    assert "Not on a Friday." in str(service.card()["blocks"])


def test_rejecting_on_the_page_needs_a_comment_and_keeps_it(service: Service) -> None:
    run_id = service.open()
    link = service.link("ann@acme.eu")
    without = service.press(link, "reject")
    assert without.status_code == 422
    assert service.run(run_id)["request"]["votes"] == []
    service.press(link, "reject", comment="Not on a Friday.")
    ended = service.ended(run_id)
    assert ended["result"]["comment"] == "Not on a Friday."
    assert "Not on a Friday." in service.page(link).text


def test_the_outcome_reaches_requester_and_waiting_system(service: Service) -> None:
    run_id = service.open()
    service.click("U0ANN", service.card(), "Approve")
    service.ended(run_id)
    messages = service.eventually(lambda: service.messages("D0BO"))
    assert "approved by Ann Ode" in messages[-1]["text"]
    called = service.play("GET", "/http/requests")
    assert [(c["name"], c["json"]["version"], c["signature_valid"]) for c in called] == [("deploy-api", "2.1", True)]


def test_one_idempotency_key_starts_one_run(service: Service) -> None:
    wanted = {"service": "api", "version": "2.1", "env": "prod"}
    body = {"workflow": "deploy", "input": wanted, "requester": "bo@acme.eu"}
    key = {"idempotency-key": "build-77"}
    first = service.api("POST", "/runs", json=body, headers=key)
    second = service.api("POST", "/runs", json=body, headers=key)
    other = service.api("POST", "/runs", json=body | {"input": wanted | {"version": "2.2"}}, headers=key)
    assert (first.status_code, second.status_code, other.status_code) == (202, 200, 409)
    assert first.json()["run_id"] == second.json()["run_id"]
    assert "version" in other.text
    time.sleep(1)
    assert len(service.messages()) == 1


def test_reminders_and_deadlines_follow_the_clock(service: Service) -> None:
    run_id = service.open()
    service.card()
    service.eventually(lambda: service.mails("ann@acme.eu"))  # only what has arrived can be followed by a reminder
    service.play("POST", "/clock", json={"advance": "45m"})
    reminders = service.eventually(
        lambda: [m for m in service.mails("ann@acme.eu") if "eminder" in m["subject"] + m["text"]]
    )
    assert len(reminders) == 1
    service.play("POST", "/clock", json={"advance": "4h"})
    ended = service.ended(run_id)
    assert ended["result"]["decision"] == "rejected"
    assert buttons(service.card()) == []
