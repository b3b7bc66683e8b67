"""Scenarios 1 to 10: deciding in Slack, by mail and by API; who counts, and how often."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.acme import ANN, BO, CY, Acme
from tests.support.forked import run_command
from tests.support.journey import Service, buttons


@pytest.mark.scenario(1)
def test_a_new_install_decides_a_sample_in_the_browser(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "approvals_bot", "init"]
    began = subprocess.run(line, cwd=tmp_path, input="\n\n\n", capture_output=True, text=True, check=False, timeout=60)
    assert began.returncode == 0, began.stderr
    service = Service(tmp_path).start("--config", "config.toml")
    try:
        run_id = service.open("first", "you@example.com", what="A first try")
        answer = service.press(service.link("colleague@example.com"), "approve")
        assert "Approved" in answer.text
        assert service.ended(run_id)["result"]["approved"] is True
    finally:
        service.kill()
        service.http.close()


@pytest.mark.scenario(2)
def test_approving_in_slack_resumes_once_and_closes_the_card(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 02")
    pressed = acme.click("U0ANN", acme.card("Scenario 02"), "Approve")
    assert "Everyone involved has been notified." in pressed["ephemeral"]
    assert acme.ended(run_id)["result"]["by"] == ANN
    card = acme.eventually(lambda: buttons(acme.card("Scenario 02")) == [] and acme.card("Scenario 02"))
    assert "Approved by Ann Ode" in card["text"]
    assert "{date_short_pretty} at {time}" in str(card["blocks"]), "in the reader's own zone"
    assert [call["json"]["what"] for call in acme.calls("Scenario 02")] == ["Scenario 02"]


@pytest.mark.scenario(3)
def test_approving_by_mail_updates_the_slack_card_too(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 03")
    acme.card("Scenario 03")
    assert "Approved" in acme.press(acme.link_of(CY, "Scenario 03"), "approve").text
    acme.ended(run_id)
    acme.eventually(lambda: "Approved by Cy Rus" in acme.card("Scenario 03")["text"])
    assert buttons(acme.card("Scenario 03")) == []


@pytest.mark.scenario(4)
def test_a_scanner_that_opens_every_link_leaves_it_working(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 04")
    link = acme.link_of(ANN, "Scenario 04")
    for number in range(20):
        seen = {"x-forwarded-for": f"203.0.113.{number}", "user-agent": f"Scanner/{number}"}
        assert acme.http.get(link, headers=seen).status_code == 200
        assert acme.http.head(link, headers=seen).status_code == 200
    request = acme.request(run_id)
    assert (request["state"], request["votes"]) == ("waiting", [])
    acme.press(link, "approve")
    assert acme.ended(run_id)["result"]["by"] == ANN


@pytest.mark.scenario(5)
def test_a_scanner_that_follows_forms_by_get_changes_nothing(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 05")
    link = acme.link_of(ANN, "Scenario 05")
    page = acme.page(link).text
    form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))
    for choice in ("approve", "reject"):
        acme.http.get(link, params=form | {"choice": choice, "comment": "by a scanner"})
    crossed = acme.http.post(
        link,
        data=form | {"choice": "approve"},
        headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    )
    assert crossed.status_code == 403
    assert acme.post(link, {"choice": "approve"}).status_code >= 400
    assert acme.request(run_id)["votes"] == []


@pytest.mark.scenario(6)
def test_of_two_simultaneous_clicks_one_decides(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 06")
    card = acme.card("Scenario 06")
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda who: acme.click(who, card, "Approve")["ephemeral"], ("U0ANN", "U0BO")))
    ended = acme.ended(run_id)
    winner = "Ann Ode" if ended["result"]["by"] == ANN else "Bo Lund"
    assert len([text for text in replies if "decided by" in text and winner in text]) == 1, replies
    assert len(ended["request"]["votes"]) == 1
    assert len(acme.calls("Scenario 06")) == 1


@pytest.mark.scenario(7)
def test_two_clicks_of_one_person_count_once(acme: Acme) -> None:
    run_id = acme.asks("two", "Scenario 07")
    assert "1 of 2" in acme.click("U0ANN", acme.card("Scenario 07"), "Approve")["ephemeral"]
    again = acme.press(acme.link_of(ANN, "Scenario 07"), "approve")
    assert "1 of 2" in again.text
    request = acme.request(run_id)
    assert (request["state"], len(request["votes"])) == ("waiting", 1)


@pytest.mark.scenario(8)
def test_a_person_who_fits_two_seats_moves_so_both_fill(acme: Acme) -> None:
    run_id = acme.asks("seats", "Scenario 08")
    card = acme.card("Scenario 08")
    assert "1 of 2" in acme.click("U0ANN", card, "Approve")["ephemeral"]
    assert (
        "Everyone involved has been notified." in acme.click("U0BO", acme.card("Scenario 08"), "Approve")["ephemeral"]
    )
    assert acme.ended(run_id)["result"]["approved"] is True


@pytest.mark.scenario(9)
def test_the_requester_is_refused_on_every_channel_and_audited(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 09", by=BO)
    reason = "You can't approve your own request."
    before = acme.run(run_id)["request"]["votes"]
    in_slack = acme.click("U0BO", acme.card("Scenario 09"), "Approve")["ephemeral"]
    by_api = acme.vote(run_id, BO, "approve")
    vote = ("vote", run_id, "--by", BO, "--choice", "approve")
    typed = run_command(acme.folder, *vote, "--config", ".approvals/config.toml")
    assert by_api.status_code == 403
    assert typed.returncode == 1
    for said in (in_slack, by_api.json()["detail"], typed.stderr):
        assert reason in said
    assert not [mail for mail in acme.mails(BO) if "Scenario 09" in mail["subject"]], "who may not decide gets no link"
    assert acme.request(run_id)["votes"] == before == []
    refused = [event for event in acme.events(run_id) if event["type"] == "hook_responded"]
    assert len(refused) == 3, "each try is in the log, with its answer"
    assert all(reason in json.dumps(event["data"]) for event in refused)


@pytest.mark.scenario(10)
def test_a_request_only_its_requester_could_decide_is_refused(acme: Acme) -> None:
    given = {"workflow": "only-ann", "input": {"what": "Scenario 10"}, "requester": ANN}
    refused = acme.api("POST", "/runs", json=given)
    assert refused.status_code == 422
    assert "nobody can approve" in refused.json()["detail"]
    run_id = acme.asks("up", "Scenario 10", by=ANN)
    assert acme.request(run_id)["waiting_for"] == ["cfo@acme.eu"]
    acme.press(acme.link_of("cfo@acme.eu", "Scenario 10"), "approve")
    assert acme.ended(run_id)["result"]["by"] == "cfo@acme.eu"
