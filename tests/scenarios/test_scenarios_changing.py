"""Scenarios 19 to 27: people who come and go, undone votes, and requests that change while open."""

from __future__ import annotations

import pytest

from tests.support.acme import ANN, BO, CY, DI, Acme
from tests.support.journey import buttons


@pytest.mark.scenario(19)
def test_former_members_are_refused_and_the_group_decides(acme: Acme) -> None:
    acme.live(ANN)
    run_id = acme.asks("live", "Scenario 19")
    assert acme.request(run_id)["waiting_for"] == [ANN]
    acme.live(BO, CY)
    refused = acme.click("U0ANN", acme.card("Scenario 19"), "Approve")["ephemeral"]
    assert "You're not an approver for this request" in refused
    assert sorted(acme.request(run_id)["waiting_for"]) == [BO, CY]
    assert (
        "Everyone involved has been notified." in acme.click("U0BO", acme.card("Scenario 19"), "Approve")["ephemeral"]
    )
    assert acme.ended(run_id)["result"]["by"] == BO


@pytest.mark.scenario(20)
def test_while_the_group_cannot_be_read_nobody_can_decide(acme: Acme) -> None:
    run_id = acme.asks("live", "Scenario 20")
    acme.live()
    for reply in (
        acme.click("U0ANN", acme.card("Scenario 20"), "Approve")["ephemeral"],
        acme.vote(run_id, BO, "approve").json()["detail"],
    ):
        assert "couldn't check your group" in reply
        assert "try again" in reply.lower()
    assert acme.request(run_id)["votes"] == []
    acme.live(ANN)
    assert (
        "Everyone involved has been notified." in acme.click("U0ANN", acme.card("Scenario 20"), "Approve")["ephemeral"]
    )
    acme.ended(run_id)


@pytest.mark.scenario(21)
def test_a_former_members_vote_does_not_count_if_rechecked(acme: Acme) -> None:
    run_id = acme.asks("live-at-quorum", "Scenario 21")
    assert "1 of 2" in acme.click("U0ANN", acme.card("Scenario 21"), "Approve")["ephemeral"]
    acme.live(BO, CY)
    assert "1 of 2" in acme.click("U0BO", acme.card("Scenario 21"), "Approve")["ephemeral"]
    assert acme.request(run_id)["state"] == "waiting"
    assert acme.vote(run_id, CY, "approve").status_code == 201
    assert acme.ended(run_id)["result"]["by"] == CY


@pytest.mark.scenario(22)
def test_an_undone_vote_shows_on_every_card(acme: Acme) -> None:
    run_id = acme.asks("two", "Scenario 22")
    acme.click("U0ANN", acme.card("Scenario 22"), "Approve")
    acme.eventually(lambda: "1 of 2" in str(acme.card("Scenario 22")["blocks"]))
    (offered,) = [
        m
        for m in acme.play("GET", "/slack/messages")
        if m["ephemeral_to"] == "U0ANN" and buttons(m) and "1 of 2" in m["text"] + str(m["blocks"])
    ][-1:]
    acme.click("U0ANN", offered, buttons(offered)[0])
    acme.eventually(lambda: "0 of 2" in str(acme.card("Scenario 22")["blocks"]))
    assert acme.request(run_id)["votes"] == []
    page = acme.page(acme.link_of(BO, "Scenario 22")).text
    assert "0 of 2" in page


@pytest.mark.scenario(23)
def test_an_undo_within_the_grace_period_resumes_nothing(acme: Acme) -> None:
    run_id = acme.asks("careful", "Scenario 23")
    acme.vote(run_id, ANN, "approve")
    reply = acme.click("U0BO", acme.card("Scenario 23"), "Approve")["ephemeral"]
    assert reply == "Approved: your vote takes effect in 30 s. Until then, you can undo it."
    acme.eventually(lambda: "It takes effect in 30 s" in str(acme.card("Scenario 23")["blocks"]))
    acme.advance("20s")
    assert "Undone" in acme.vote(run_id, BO, "take_back").json()["text"]
    acme.advance("5m")
    assert list(acme.reached("Scenario 23")) == []
    assert [vote["by"] for vote in acme.request(run_id)["votes"]] == [ANN]
    acme.vote(run_id, CY, "approve")
    acme.advance("31s")
    assert acme.ended(run_id)["result"]["by"] == CY
    assert acme.calls("Scenario 23")


@pytest.mark.scenario(24)
def test_editing_a_pinned_field_resets_votes_and_shows_both_values(
    acme: Acme,
) -> None:
    run_id = acme.asks("two", "Scenario 24 before")
    link = acme.link_of(BO, "Scenario 24 before")
    before = acme.card("Scenario 24 before")
    old = acme.request(run_id)["digest"]
    acme.click("U0ANN", before, "Approve")
    edit = {"by": DI, "fields": {"what": "Scenario 24 after"}}
    assert acme.api("PATCH", f"/runs/{run_id}/fields", json=edit).status_code == 200
    request = acme.request(run_id)
    assert request["votes"] == []
    assert request["digest"] != old
    card = acme.card("Scenario 24 after")
    assert card["ts"] == before["ts"]
    assert "Scenario 24 before" in str(card["blocks"]), "the old value is shown beside the new one"
    page = acme.page(link).text
    assert request["digest"][:12] in page
    assert old[:12] not in page
    stale = acme.vote(run_id, BO, "approve", digest=old)
    assert stale.status_code == 409
    assert stale.json()["verdict"] == "request_changed"


@pytest.mark.scenario(25)
def test_editing_another_field_keeps_votes_and_posts_in_the_thread(acme: Acme) -> None:
    run_id = acme.asks("two", "Scenario 25")
    acme.click("U0ANN", acme.card("Scenario 25"), "Approve")
    edit = {"by": DI, "fields": {"note": "see the ticket"}}
    assert acme.api("PATCH", f"/runs/{run_id}/fields", json=edit).status_code == 200
    request = acme.request(run_id)
    assert len(request["votes"]) == 1
    card = acme.card("Scenario 25")
    acme.eventually(lambda: [m for m in acme.messages() if m["thread_ts"] == card["ts"]], seconds=30)
    acme.eventually(lambda: "see the ticket" in str(acme.card("Scenario 25")["blocks"]), seconds=30)


@pytest.mark.scenario(27)
def test_a_rejected_request_stays_so_and_late_clicks_read_it(acme: Acme) -> None:
    run_id = acme.asks("three", "Scenario 27")
    card = acme.card("Scenario 27")
    acme.click("U0ANN", card, "Approve")
    acme.fault("slack", kind="server_error", method="chat.update", times=None)  # the buttons stay for a while
    assert acme.vote(run_id, BO, "reject", comment="Not today.").status_code == 201
    late = acme.click("U0CFO", card, "Approve")["ephemeral"]
    assert "Already decided by Bo Lund" in late
    acme.mended()
    acme.advance("16m")
    assert acme.ended(run_id)["result"]["decision"] == "rejected"
    assert acme.run(run_id)["result"]["decision"] == "rejected"
