"""Scenarios 33 to 38, and 40: withdrawn under a modal, guests, forgery, hostile text, typos, evidence."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.acme import ANN, DI, Acme
from tests.support.forked import run_command


@pytest.mark.scenario(33)
def test_a_modal_after_the_withdrawal_returns_the_comment(
    acme: Acme,
) -> None:
    run_id = acme.asks("one", "Scenario 33")
    modal = acme.click("U0ANN", acme.card("Scenario 33"), "Reject")["view"]
    withdrawn = acme.api("POST", f"/runs/{run_id}/cancellation", json={"by": DI, "reason": "not needed"})
    assert withdrawn.status_code == 202
    answer = acme.submit("U0ANN", modal, "A reason that took long to write.")
    said = json.dumps(answer)
    assert "was withdrawn" in said
    assert "A reason that took long to write." in said
    run = acme.run(run_id, wait=10)
    assert (run["status"], run["request"]["votes"]) == ("cancelled", [])


@pytest.mark.scenario(34)
def test_a_guest_of_another_company_is_refused_ephemerally(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 34")
    for outsider in ("U0GUEST", "U0STRANGER", "U0GONE"):
        refused = acme.click(outsider, acme.card("Scenario 34"), "Approve")
        assert refused["ephemeral"], outsider
        assert "Nothing was changed" in refused["ephemeral"]
    assert acme.request(run_id)["votes"] == []


@pytest.mark.scenario(35)
def test_replayed_old_and_foreign_payloads_are_401(acme: Acme) -> None:
    run_id = acme.asks("one", "Scenario 35")
    card = acme.card("Scenario 35")
    secret = (acme.folder / ".approvals" / "secrets" / "SLACK_SIGNING_SECRET").read_text()
    button = next(element for block in card["blocks"] if block["type"] == "actions" for element in block["elements"])
    payload = {
        "type": "block_actions",
        "user": {"id": "U0ANN", "team_id": "T0PLAY"},
        "team": {"id": "T0PLAY"},
        "api_app_id": "A0APPROVE",
        "channel": {"id": card["channel"]},
        "message": {"ts": card["ts"], "metadata": card["metadata"]},
        "actions": [button | {"action_ts": "1"}],
    }
    body = urlencode({"payload": json.dumps(payload)}).encode()
    moved = int(float(card["ts"]))  # the service's clock, as the fake Slack knows it

    def post(body: bytes, stamp: int, by: str) -> int:
        mac = hmac.new(by.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-slack-request-timestamp": str(stamp),
            "x-slack-signature": f"v0={mac}",
        }
        return acme.http.post("/slack/events", content=body, headers=headers).status_code

    foreign = urlencode({"payload": json.dumps(payload | {"team": {"id": "T0OTHER"}, "api_app_id": "A0OTHER"})})
    assert post(body, moved - 600, secret) == 401, "signed ten minutes ago"
    assert post(body, moved, "another workspace's secret") == 401
    assert post(foreign.encode(), moved, secret) == 401
    assert acme.request(run_id)["votes"] == []
    empty = urlencode({"payload": json.dumps(payload | {"actions": []})}).encode()
    assert post(empty, moved, secret) == 401, "signed, and still no interaction"
    unknown = urlencode({"payload": json.dumps(payload | {"actions": [{"action_id": "no-button-of-ours"}]})}).encode()
    assert post(unknown, moved, secret) == 200
    assert post(unknown, moved, secret) == 401, "captured, and sent again"
    assert acme.request(run_id)["votes"] == []


@pytest.mark.scenario(36)
def test_hostile_text_pings_nobody_and_is_whole_on_the_page(acme: Acme) -> None:
    hostile = "<!channel> *bold* _it_ ~no~ <script>alert(1)</script> &amp; <@U0BO>"
    plan = "".join(f"+line {number} <b>x</b>\n" for number in range(2_600))[:49_900]
    run_id = acme.asks("one", f"Scenario 36 {hostile}", plan=plan)
    card = acme.card("Scenario 36")
    assert len(card["blocks"]) <= 50
    shown = json.dumps(card["blocks"])
    assert len(shown) < 20_000
    for block in card["blocks"]:
        assert '"mrkdwn"' not in json.dumps(block) or "<!channel>" not in json.dumps(block)
    assert "<!channel>" not in card["text"], "the plain text of a notification is read as markup, so it is escaped"
    page = acme.page(acme.link_of(ANN, "Scenario 36")).text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert f"line {plan.count(chr(10)) - 1} " in page
    acme.vote(run_id, ANN, "approve")
    acme.ended(run_id)


@pytest.mark.scenario(37)
def test_one_key_a_hundred_times_at_once_is_one_request(acme: Acme) -> None:
    body = {"workflow": "one", "requester": DI, "input": {"what": "Scenario 37"}}

    def post(_: int) -> tuple[int, str]:
        answer = acme.api("POST", "/runs", json=body, headers={"idempotency-key": "scenario-37"})
        return answer.status_code, answer.json()["run_id"]

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(post, range(100)))
    assert len({run_id for _, run_id in answers}) == 1
    assert sorted(status for status, _ in answers) == [200] * 99 + [202]
    other = acme.api(
        "POST",
        "/runs",
        json=body | {"input": {"what": "Something else"}},
        headers={"idempotency-key": "scenario-37"},
    )
    assert other.status_code == 409
    assert "what" in other.text
    acme.card("Scenario 37")
    time.sleep(1)
    assert len([m for m in acme.messages() if "Scenario 37" in m["text"]]) == 1


@pytest.mark.scenario(38)
@pytest.mark.parametrize(
    ("old", "new", "wrong", "says"),
    [
        ("deadline = ", "deadine = ", "deadine", "(did you mean deadline?)"),
        ("[clock]", '[[auto]]\nwhen = \'waht == "x"\'\ndecision = "approve"\n[clock]', "waht", "(did you mean what?)"),
    ],
)
def test_a_typo_is_named_and_the_old_files_stay_in_force(own: Acme, old: str, new: str, wrong: str, says: str) -> None:
    own.start("--config", "config.toml")
    run_id = own.asks("timed", "Scenario 38")
    file = own.folder / "workflows" / "timed.toml"
    text = file.read_text()
    file.write_text(text.replace(old, new))
    own.eventually(lambda: "the configuration was not reloaded" in own.log())
    (line,) = [line for line in own.log().splitlines() if ".toml:" in line]
    place = int(line.partition("timed.toml:")[2].partition(":")[0])
    assert wrong in file.read_text().splitlines()[place - 1]
    assert says in line
    assert own.request(run_id)["state"] == "waiting"
    again = own.asks("timed", "Scenario 38 again")
    assert own.request(again)["deadline"], "the old file is in force"
    assert own.vote(run_id, ANN, "approve").status_code == 201
    own.ended(run_id)


@pytest.mark.scenario(40)
def test_the_evidence_verifies_offline_and_a_changed_byte_fails(acme: Acme, tmp_path: Path) -> None:
    run_id = acme.asks("one", "Scenario 40")
    acme.vote(run_id, ANN, "approve", comment="I have seen it.")
    acme.ended(run_id)
    evidence = tmp_path / "evidence.jsonl"

    def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(acme.folder, "audit", *arguments)

    exported = audit("export", "--config", ".approvals/config.toml", "--output", str(evidence))
    assert exported.returncode == 0, exported.stderr
    text = evidence.read_text()
    for word in ("I have seen it.", "Scenario 40", ANN, run_id):
        assert word in text
    verified = audit("verify", str(evidence))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    evidence.write_text(text.replace("I have seen it.", "I have seen It."))
    assert audit("verify", str(evidence)).returncode != 0
