"""Scenarios 11 to 18: forwarded links, stale and deleted cards, outages of Slack and of the service, and follow-ups."""

from __future__ import annotations

import re

import httpx2
import pytest

from tests.support.acme import ANN, BO, CY, Acme
from tests.support.journey import buttons


@pytest.mark.scenario(11)
def test_a_forwarded_link_shows_the_title_and_needs_the_code(acme: Acme) -> None:
    run_id = acme.asks("code", "Scenario 11", note="a salary of 90,000")
    page = acme.page(acme.link_of(CY, "Scenario 11")).text
    assert "Scenario 11" in page
    assert "90,000" not in page
    assert 'name="choice"' not in page
    form = hidden(page)
    guessed = acme.post(acme.link_of(CY, "Scenario 11"), form | {"choice": "approve", "code": "123456"})
    assert guessed.status_code == 403
    assert "90,000" not in guessed.text
    assert acme.request(run_id)["votes"] == []

    sent = acme.post(acme.link_of(CY, "Scenario 11"), form | {"send_code": "yes"})
    assert "90,000" not in sent.text
    mail = acme.eventually(lambda: [m for m in acme.mails(CY) if m["subject"].startswith("Your code:")])[-1]
    digits = re.search(r"Your code is (\d{6})\.", mail["text"])
    assert digits
    opened = acme.post(acme.link_of(CY, "Scenario 11"), hidden(sent.text) | {"look": "yes", "code": digits[1]})
    assert "90,000" in opened.text
    acme.post(acme.link_of(CY, "Scenario 11"), hidden(opened.text) | {"choice": "approve"})
    assert acme.ended(run_id)["result"]["by"] == CY


def hidden(page: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))


@pytest.mark.scenario(12)
def test_a_click_on_a_stale_card_reads_the_decision_and_repairs_it(
    acme: Acme,
) -> None:
    run_id = acme.asks("one", "Scenario 12")
    old = acme.card("Scenario 12")
    acme.fault("slack", kind="server_error", method="chat.update", times=None)
    acme.press(acme.link_of(CY, "Scenario 12"), "approve")
    reply = acme.click("U0ANN", old, "Approve")
    assert reply["ephemeral"] is not None
    assert re.search(r"Already decided by Cy Rus at \d\d:\d\d", reply["ephemeral"])
    acme.play("DELETE", "/slack/faults")
    acme.advance("16m")
    acme.eventually(lambda: buttons(acme.card("Scenario 12")) == [])
    acme.ended(run_id)
    assert len(acme.request(run_id)["votes"]) == 1


@pytest.mark.scenario(13)
def test_a_deleted_message_is_posted_again_and_logged(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 13")
    card = acme.card("Scenario 13")
    acme.slack_says("chat.delete", channel=card["channel"], ts=card["ts"])
    assert not [m for m in acme.messages() if "Scenario 13" in m["text"]]
    acme.press(acme.link_of(CY, "Scenario 13"), "approve")
    acme.ended(run_id)
    again = acme.eventually(lambda: [m for m in acme.messages() if "Scenario 13" in m["text"] and not m["thread_ts"]])
    assert len(again) == 1
    assert "Approved by Cy Rus" in again[0]["text"]
    assert buttons(again[0]) == []
    updates = [event for event in acme.events(run_id) if event["type"] == "step_completed"]
    assert any("the message has been deleted" in str(event["data"]) for event in updates)


@pytest.mark.scenario(14)
def test_if_the_app_cannot_post_people_get_direct_messages(acme: Acme) -> None:
    acme.fault("slack", kind="error", method="chat.postMessage", channel="#deploys", error="not_in_channel", times=None)
    run_id = acme.asks("timed", "Scenario 14")
    acme.eventually(lambda: [m for m in acme.messages("D0ANN") if "Scenario 14" in m["text"]])
    acme.link_of(CY, "Scenario 14")

    def undelivered() -> bool:
        copies = acme.request(run_id)["deliveries"]
        return any(c["to"] == "#deploys" and c["state"] == "not_delivered" and c["error"] for c in copies)

    acme.eventually(undelivered)
    direct = next(m for m in acme.messages("D0ANN") if "Scenario 14" in m["text"])
    acme.eventually(lambda: "Not delivered" in str(next(m for m in acme.messages("D0ANN") if m["ts"] == direct["ts"])))
    assert "Everyone involved has been notified." in acme.click("U0ANN", direct, "Approve")["ephemeral"]


@pytest.mark.scenario(15)
def test_after_an_outage_slack_catches_up_in_order(acme: Acme) -> None:
    acme.fault("slack", kind="server_error", method="chat.postMessage", times=None)
    runs = [acme.asks("late-mail", f"Scenario 15 {part}") for part in ("one", "two")]
    assert not [m for m in acme.messages() if "Scenario 15" in m["text"]]
    acme.advance("11m")
    for part in ("one", "two"):
        acme.link_of(ANN, f"Scenario 15 {part}")
    acme.advance("2h")
    acme.play("DELETE", "/slack/faults")
    acme.advance("15m")
    cards = acme.eventually(
        lambda: (
            len(found := [m["text"] for m in acme.messages() if "Scenario 15" in m["text"] and not m["thread_ts"]]) >= 2
            and found
        ),
        seconds=30,
    )
    assert ["one" in card for card in cards] == [True, False]
    for run_id in runs:
        assert acme.run(run_id)["status"] == "running"
        assert acme.vote(run_id, ANN, "approve").status_code == 201
        acme.ended(run_id)
    for part in ("one", "two"):
        mails = [m for m in acme.mails(ANN) if m["subject"] == f"Approve? Scenario 15 {part}"]
        assert len(mails) <= 1


@pytest.mark.scenario(16)
def test_a_click_in_an_outage_fails_visibly_and_the_next_counts(own: Acme) -> None:
    own.start("--config", "config.toml")
    run_id = own.asks("one", "Scenario 16")
    link = own.link_of(ANN, "Scenario 16")
    form = hidden(own.page(link).text) | {"choice": "approve"}
    own.kill()
    with pytest.raises(httpx2.ConnectError):  # in Slack, the user sees a warning
        own.post(link, form)
    own.start("--config", "config.toml")
    assert own.request(run_id)["votes"] == []
    assert "Everyone involved has been notified." in own.click("U0ANN", own.card("Scenario 16"), "Approve")["ephemeral"]
    ended = own.ended(run_id)
    assert len(ended["request"]["votes"]) == 1
    assert len(own.calls("Scenario 16")) == 1


@pytest.mark.scenario(17)
def test_a_crash_between_vote_and_resume_resumes_exactly_once(own: Acme) -> None:
    own.start("--config", "config.toml")
    own.fault("http", kind="slow", method="target", seconds=30.0, times=None)
    run_id = own.asks("one", "Scenario 17")
    assert own.vote(run_id, ANN, "approve").status_code == 201
    own.kill()
    own.start("--config", "config.toml")
    assert own.ended(run_id)["result"]["by"] == ANN
    assert len({call["headers"]["webhook-id"] for call in own.calls("Scenario 17")}) == 1
    assert len(own.request(run_id)["votes"]) == 1


@pytest.mark.scenario(18)
def test_a_follow_up_keeps_its_event_id_until_its_target_recovers(acme: Acme) -> None:
    acme.fault("http", kind="error", method="target", code=500, times=None)
    run_id = acme.asks("one", "Scenario 18")
    assert acme.vote(run_id, BO, "approve").status_code == 201
    acme.eventually(lambda: "Approved by Bo Lund" in acme.card("Scenario 18")["text"])
    assert acme.run(run_id)["status"] == "running", "approved, and still delivering"
    acme.advance("1h")
    assert not acme.reached("Scenario 18")
    acme.play("DELETE", "/http/faults")
    acme.advance("16m")
    (call,) = acme.calls("Scenario 18")
    assert call["signature_valid"]
    assert call["headers"]["webhook-id"] == f"{run_id}-call-1"
    assert acme.ended(run_id)["result"]["approved"] is True
