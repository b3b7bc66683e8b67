"""Delegates, reassignments and office hours, in the product as a user starts it."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.forked import run_command
from tests.support.journey import Json, Service

LEAVE = """
[workflow]
id      = "leave"
title   = "{{ days }} days off for {{ requester.name }}"
request = ["*"]
[fields]
days = { type = "integer", pinned = true }
[[stage]]
id   = "ok"
need = 2
from = ["ann@acme.eu", "cfo@acme.eu"]
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "2 business days"
remind   = ["4 business hours"]
"""

AWAY = """
[[people."cfo@acme.eu".away]]
from     = "2020-01-01"
until    = "2099-12-31"
delegate = ["bo@acme.eu", "cy@acme.eu"]
"""


def opened(installed: Service) -> str:
    """A request of Bo's while the CFO is away, in a service of its own."""
    (installed.folder / "workflows" / "leave.toml").write_text(LEAVE)
    config = installed.folder / "config.example.toml"
    config.write_text(config.read_text().replace("[groups] ", f"{AWAY}\n[groups] "))
    installed.start("--config", "config.example.toml")
    return installed.open("leave", days=3)


def command(service: Service, *words: str) -> Json:
    done = run_command(service.folder, *words, "--config", ".approvals/config.toml", "--json")
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


def ask(service: Service, run_id: str, **body: Any) -> Any:
    return service.api("POST", f"/runs/{run_id}/approvers", json=body)


def test_a_delegate_and_a_colleague_decide_for_others(installed: Service) -> None:
    run_id = opened(installed)
    assert sorted(installed.settled(run_id)["request"]["waiting_for"]) == ["ann@acme.eu", "cy@acme.eu"]
    assert "standing in for Fay Cash" in installed.page(installed.link("cy@acme.eu")).text
    coming = command(installed, "explain", run_id)["next"]
    assert [each["what"] for each in coming][-1] == "deadline after 2 business days: then it expires"

    assert ask(installed, run_id, by="bo@acme.eu", person="di@acme.eu").status_code == 403  # Bo asked for it
    assert ask(installed, run_id, by="ann@acme.eu", person="bo@acme.eu").status_code == 422
    assert ask(installed, run_id, by="ann@acme.eu", person="di@acme.eu", instead_of="cy@acme.eu").status_code == 403

    page = installed.page(installed.link("ann@acme.eu")).text
    assert "Reassign" in page
    link = installed.link("ann@acme.eu")
    refused = installed.press(link, "", reassign="instead", person="bo@acme.eu")
    assert (refused.status_code, "their own request" in refused.text) == (422, True)
    done = installed.press(link, "", reassign="instead", person="di@acme.eu", reason="on the train")
    assert "di now decides instead of Ann Ode and has been notified." in done.text
    assert 'name="choice"' not in done.text

    assert installed.press(installed.link("di@acme.eu"), "approve").status_code == 200
    assert installed.press(installed.link("cy@acme.eu"), "approve").status_code == 200
    ended = installed.ended(run_id)
    assert [vote.get("in_place_of") for vote in ended["request"]["votes"]] == [None, "cfo@acme.eu"]
    note = "⇄ Ann Ode reassigned this to di: on the train"
    card = installed.eventually(
        lambda: [m for m in installed.messages() if "Approved by Cy Rus for Fay Cash" in m["text"]]
    )
    assert note in json.dumps(card[-1]["blocks"], ensure_ascii=False)
    mail = installed.eventually(
        lambda: [m for m in installed.mails("di@acme.eu") if "Cy Rus for Fay Cash" in m["text"]]
    )
    assert note in mail[-1]["text"]
    assert note in mail[-1]["html"]


def test_the_command_line_adds_and_reassigns_approvers(installed: Service) -> None:
    run_id = opened(installed)
    installed.settled(run_id)
    said = command(installed, "reassign", run_id, "--to", "di@acme.eu", "--from", "cy@acme.eu", "--reason", "ill")
    assert said["verdict"] == "reassigned"
    said = command(installed, "reassign", run_id, "--to", "fin@acme.eu", "--by", "cfo@acme.eu")  # an admin
    assert said["verdict"] == "added"
    waiting = sorted(installed.run(run_id)["request"]["waiting_for"])
    assert waiting == ["ann@acme.eu", "di@acme.eu", "fin@acme.eu"]
    mails = installed.eventually(lambda: [m for m in installed.mails("cy@acme.eu") if "been reassigned" in m["text"]])
    assert len(mails) == 1
    assert installed.eventually(lambda: installed.mails("fin@acme.eu"))


def test_enter_in_the_reassign_form_never_presses_a_choice(installed: Service) -> None:
    """The Enter key sends the form it was pressed in by that form's first button."""
    opened(installed)
    forms = re.findall(r"<form.*?</form>", installed.page(installed.link("ann@acme.eu")).text, re.DOTALL)
    with_person = [form for form in forms if 'name="person"' in form]
    assert len(with_person) == 1
    assert 'name="choice"' not in with_person[0]
