"""All that people and systems see of requests on every channel, as it was recorded: words, cards, mails, pages, JSON.

Each journey is driven from outside only, so that it stays the same however the inside is built. `GOLDEN=record` in the
environment records it; then read what has changed in tests/journeys/golden/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.golden import Book, Names
from tests.support.golden_house import GoldenHouse, furnish

PROD = {"service": "api", "version": "2.1", "env": "prod", "note": "after lunch", "plan": "stop\n- old\n+ new\nstart"}
TRIP = {"flight": "LH 1", "passenger": "Zoë", "price": "700", "why": "A <b>fair</b>, & *more*"}
SYSTEM = {"user-agent": "a system", "content-type": "text/plain"}  # what it sends is in the run's log

Enter = Callable[[str], GoldenHouse]


@pytest.fixture
def enter(tmp_path: Path) -> Iterator[Enter]:
    """Begins a journey by its name."""
    entered: list[GoldenHouse] = []

    def begin(journey: str) -> GoldenHouse:
        house = GoldenHouse(furnish(tmp_path), Book(journey))
        entered.append(house)
        house.begin()
        return house

    yield begin
    for house in entered:
        if house.process is not None:
            house.kill()
        house.http.close()


def test_deciding_on_every_channel_looks_as_recorded(enter: Enter) -> None:
    house = enter("deciding")

    house.act("asked-over-http")
    body = {"workflow": "deploy", "input": PROD, "requester": "bo@acme.eu"}
    key = {"idempotency-key": "build-77"}
    run = house.answered("POST", house.api("POST", "/runs", json=body, headers=key)).json()["run_id"]
    house.settle()
    house.answered("the same again", house.api("POST", "/runs", json=body, headers=key))
    other = body | {"input": PROD | {"version": "2.2"}}
    house.answered("another under its key", house.api("POST", "/runs", json=other, headers=key))
    bad = body | {"input": {"service": "api", "env": "moon"}}
    house.answered("bad input", house.api("POST", "/runs", json=bad))
    house.answered("unknown workflow", house.api("POST", "/runs", json=body | {"workflow": "deplyo"}))
    house.show_run(run)
    house.answered("list", house.api("GET", "/runs", params={"waiting_for": "cy@acme.eu"}))
    link = house.link("cy@acme.eu")
    house.answered("Cy's page", house.page(link))
    house.answered("the request's page", house.page(f"/requests/{run}"))
    house.answered("Ann's inbox", house.page("/inbox?person=ann@acme.eu"))
    house.answered("Bo's inbox", house.page("/inbox?person=bo@acme.eu"))
    house.answered("runs", house.page("/runs"))
    home = house.play("GET", "/slack/home?user=U0ANN")
    house.book.json("Ann's Home tab", home["blocks"])

    house.act("refused")
    card = house.card()
    house.pressed("a stranger presses", house.click("U0CFO", card, "Approve"))
    house.pressed("the requester presses", house.click("U0BO", card, "Approve"))
    house.pressed("why?", house.click("U0ANN", card, "Why me?"))
    house.answered("the requester, by the API", house.vote(run, "bo@acme.eu", "approve"))
    house.answered("a stranger, by the API", house.vote(run, "cfo@acme.eu", "approve"))
    house.answered("an unknown choice", house.vote(run, "ann@acme.eu", "maybe"))
    house.answered("no such link", house.page(link[:-4] + "AAAA"))

    house.act("approved-in-slack")
    form = house.hidden(link)
    house.pressed("Ann approves", house.click("U0ANN", card, "Approve"))
    house.show_run(run)
    house.show_timeline(run)
    house.answered("the request's page", house.page(f"/requests/{run}"))

    house.act("too-late")
    house.answered("Cy's page", house.page(link))
    house.answered("the same choice on the page", house.post(link, form | {"choice": "approve"}))
    house.answered("the opposite on the page", house.post(link, form | {"choice": "reject", "comment": "No."}))
    house.answered("the opposite by the API", house.vote(run, "cy@acme.eu", "reject", comment="No."))
    house.answered("cancelled too late", house.api("POST", f"/runs/{run}/cancellation", json={"reason": "late"}))

    house.act("late-press-on-an-old-card")
    run = house.asks("deploy", **PROD | {"version": "3"})
    card = house.card("Deploy api 3 to prod")
    house.play("POST", "/slack/faults", json={"kind": "server_error", "method": "chat.update", "times": None})
    house.press(house.link("cy@acme.eu"), "approve")
    house.pressed("Ann presses the old card", house.click("U0ANN", card, "Approve"))
    house.play("DELETE", "/slack/faults")

    house.act("rejected-in-slack", timedelta(minutes=40))  # until then the card is mended
    run = house.asks("deploy", **PROD | {"version": "4"})
    card = house.card("Deploy api 4 to prod")
    view = house.pressed("Ann presses Reject", house.click("U0ANN", card, "Reject"))["view"]
    house.pressed("without a reason", house.submits("U0ANN", view))
    house.pressed("with one", house.submits("U0ANN", view, comment="Not on a *Friday* <!channel>."))
    house.show_run(run)

    house.act("approved-on-the-page")
    run = house.asks("deploy", **PROD | {"version": "5"})
    link = house.link("cy@acme.eu")
    house.answered("a look", house.page(f"{link}?choice=approve"))
    house.answered("Cy approves", house.press(link, "approve", comment="Go <on>."))
    house.show_run(run)

    house.act("rejected-on-the-page")
    run = house.asks("deploy", **PROD | {"version": "6"})
    link = house.link("ann@acme.eu")
    house.answered("without a comment", house.press(link, "reject"))
    house.answered("with one", house.press(link, "reject", comment="Not today."))
    house.answered("without the form's token", house.post(link, {"choice": "approve"}))
    house.show_run(run)

    house.act("approved-by-the-api")
    run = house.asks("deploy", **PROD | {"version": "7"})
    house.answered("Ann, by the API", house.vote(run, "ann@acme.eu", "approve", comment="By voice."))
    house.show_run(run)

    house.act("approved-from-the-inbox")
    run = house.asks("deploy", **PROD | {"version": "8"})
    inbox = house.answered("Cy signs in", house.signs_in("cy@acme.eu"))
    token = inbox.text.partition('href="/decisions/')[2].partition('"')[0]
    house.answered("the request's page", house.page(f"/requests/{run}"))
    house.answered("Cy approves", house.press(f"/decisions/{token}", "approve"))
    house.answered("the inbox afterwards", house.page("/inbox"))
    house.answered("Cy signs out", house.post("/logout", {}))
    house.show_run(run)

    house.act("decided-by-a-rule")
    run = house.asks("deploy", **PROD | {"env": "staging"})
    house.show_run(run)
    house.show_timeline(run)

    house.act("not-delivered-at-once")
    house.play("POST", "/mail/faults", json={"kind": "error", "method": "RCPT", "code": 550, "channel": "cy@acme.eu"})
    house.play("POST", "/http/faults", json={"kind": "server_error"})
    run = house.asks("deploy", **PROD | {"version": "9"})
    house.show_run(run)
    house.pressed("Ann approves", house.click("U0ANN", house.card("Deploy api 9 to prod"), "Approve"))

    house.act("delivered-at-last", timedelta(minutes=40))
    house.show_run(run)
    house.answered("runs", house.page("/runs"))
    house.end_of_acts()


def test_changing_a_vote_looks_as_recorded(enter: Enter) -> None:
    house = enter("thinking")

    house.act("asked")
    run = house.asks("pair", what="New <chairs> & desks")
    card = house.card("New")

    house.act("counted")
    house.pressed("Ann approves", house.click("U0ANN", card, "Approve"))
    mind = house.newest_ephemeral("U0ANN")
    house.settle()
    house.show_run(run)

    house.act("counted-once-only")
    house.pressed("Ann approves again", house.click("U0ANN", house.card("New"), "Approve"))
    house.answered("and by the API", house.vote(run, "ann@acme.eu", "approve"))
    house.show_run(run)

    house.act("taken-back")
    house.pressed("Ann undoes the vote", house.click("U0ANN", mind, "Undo vote"))
    house.answered("once more, by the API", house.vote(run, "ann@acme.eu", "take_back"))
    house.show_run(run)

    house.act("changed")
    link = house.link("cy@acme.eu")
    house.answered("Cy approves", house.press(link, "approve"))
    house.answered("Cy rejects", house.press(link, "reject", comment="Too dear."))
    house.show_run(run)
    house.answered("Cy's page", house.page(link))
    house.answered("the request's page", house.page(f"/requests/{run}"))

    house.act("decided-by-two")
    house.answered("Cy approves after all", house.press(link, "approve"))
    house.answered("Ann, by the API", house.vote(run, "ann@acme.eu", "approve"))
    house.show_run(run)
    house.show_timeline(run)
    house.end_of_acts()


def test_changes_and_withdrawals_look_as_recorded(enter: Enter) -> None:
    house = enter("changing")

    house.act("changes-asked-in-slack")
    run = house.asks("deploy", **PROD)
    digest = house.run(run)["request"]["digest"]
    view = house.pressed("Ann requests changes", house.click("U0ANN", house.card(), "Request changes"))["view"]
    house.pressed("and says which", house.submits("U0ANN", view, comment="A newer one?"))
    house.show_run(run)

    house.act("changed-by-who-asked")
    link = house.link("di@acme.eu")
    house.answered("Di's page", house.page(link))
    own = {"own": "change", "edit.service": "api", "edit.env": "prod", "edit.note": "after lunch"}
    house.answered("nothing", house.press(link, "", **own | {"edit.version": ""}))
    house.answered("Di changes it", house.press(link, "", **own | {"edit.version": "2.2"}))
    house.show_run(run)

    house.act("edited-by-the-api")
    edit = {"by": "di@acme.eu", "fields": {"note": "before lunch"}}
    house.answered("what is kept", house.api("PATCH", f"/runs/{run}/fields", json=edit))
    house.answered("what resets", house.api("PATCH", f"/runs/{run}/fields", json=edit | {"fields": {"version": "2.3"}}))
    house.answered("what isn't there", house.api("PATCH", f"/runs/{run}/fields", json=edit | {"fields": {"x": 1}}))
    stranger = edit | {"by": "cfo@acme.eu"}
    house.answered("by a stranger", house.api("PATCH", f"/runs/{run}/fields", json=stranger))
    house.answered("on old values", house.vote(run, "ann@acme.eu", "approve", digest=digest))
    house.show_run(run)

    house.act("handed-over-on-the-page")
    link = house.link("cy@acme.eu")
    house.answered("to the requester", house.press(link, "", reassign="instead", person="di@acme.eu"))
    over = {"reassign": "instead", "person": "eve@acme.eu", "reason": "on the train"}
    house.answered("to Eve", house.press(link, "", **over))
    house.answered("Cy's page", house.page(link))
    house.show_run(run)

    house.act("handed-over-in-slack")
    house.click("U0ANN", house.card("Deploy api 2.3"), "Why me?")
    view = house.pressed("asks", house.click("U0ANN", house.newest_ephemeral("U0ANN"), "Reassign"))["view"]
    place = next(b for b in view["blocks"] if b.get("block_id") == "instead_of")["element"]["options"][0]["value"]
    house.pressed("Fay", house.submits("U0ANN", view, person="U0CFO", instead_of=place, reason="ill"))
    house.show_run(run)

    house.act("asked-as-well-by-the-api")
    more = {"by": "cfo@acme.eu", "person": "ann@acme.eu"}
    house.answered("Ann again", house.api("POST", f"/runs/{run}/approvers", json=more))
    house.show_run(run)

    house.act("withdrawn-by-who-asked")
    late = house.link("eve@acme.eu")
    form = house.hidden(late)
    link = house.link("di@acme.eu")
    house.answered("Di withdraws", house.press(link, "", own="withdraw", reason="Not needed."))
    house.answered("Eve's page", house.page(late))
    house.answered("Eve approves", house.post(late, form | {"choice": "approve"}))
    house.answered("by the API", house.vote(run, "eve@acme.eu", "approve"))
    house.show_run(run)
    house.show_timeline(run)

    house.act("cancelled-by-the-api")
    run = house.asks("deploy", **PROD | {"version": "9"})
    house.answered("cancel", house.api("POST", f"/runs/{run}/cancellation", json={"reason": "wrong button"}))
    house.answered("again", house.api("POST", f"/runs/{run}/cancellation", json={"reason": "wrong button"}))
    house.show_run(run)
    house.answered("list", house.api("GET", "/runs", params={"status": "cancelled"}))
    house.end_of_acts()


def test_edits_and_answers_look_as_recorded(enter: Enter) -> None:
    house = enter("answering")

    house.act("edited-in-slack")
    run = house.asks("trip", **TRIP)
    card = house.newest("D0ANN")
    view = house.pressed("Ann presses", house.click("U0ANN", card, "Approve with changes"))["view"]
    values = {"flight": "LH 2", "price": "a lot"}
    view = house.pressed("wrong", house.submits("U0ANN", view, **values))["view"]
    house.pressed("right", house.submits("U0ANN", view, **values | {"price": "650"}))
    house.show_run(run)

    house.act("edited-on-the-page")
    run = house.asks("trip", **TRIP | {"flight": "LH 3"})
    link = house.link("cy@acme.eu")
    house.answered("Cy's page", house.page(link))
    fields = {"edit.flight": "LH 3", "edit.price": "600"}
    house.answered("Cy edits", house.press(link, "edit", **fields))
    house.show_run(run)

    house.act("answered-in-slack")
    run = house.asks("trip", **TRIP | {"flight": "LH 4"})
    view = house.pressed("Ann presses", house.click("U0ANN", house.newest("D0ANN"), "Answer"))["view"]
    house.pressed("Ann answers", house.submits("U0ANN", view, comment="Take the train."))
    house.show_run(run)
    house.show_timeline(run)

    house.act("answered-on-the-page")
    run = house.asks("trip", **TRIP | {"flight": "LH 5"})
    link = house.link("cy@acme.eu")
    house.answered("nothing", house.press(link, "answer"))
    house.answered("Cy answers", house.press(link, "answer", comment="Why not by train?"))
    house.show_run(run)

    house.act("second-stage")
    run = house.asks("trip", **TRIP | {"flight": "LH 6", "price": "900.50"})
    house.pressed("Ann approves", house.click("U0ANN", house.newest("D0ANN"), "Approve"))
    house.show_run(run)

    house.act("asked-for-a-code")
    link = house.link("cfo@acme.eu")
    house.answered("Fay's page", house.page(link))
    house.answered("wrong", house.press(link, "approve", comment="Fine.", **{"approve.budget_code": "x"}))
    house.answered("wrong, by the API", house.vote(run, "cfo@acme.eu", "approve", answers={"budget_code": 7}))
    view = house.pressed("Fay presses", house.click("U0CFO", house.newest("D0CFO"), "Approve"))["view"]
    view = house.pressed("wrong", house.submits("U0CFO", view, budget_code="x", comment="Fine."))["view"]
    house.pressed("right", house.submits("U0CFO", view, budget_code="AB-1234", comment="Fine."))
    house.show_run(run)
    house.show_timeline(run)
    house.end_of_acts()


def test_reminders_and_deadlines_look_as_recorded(enter: Enter) -> None:
    house = enter("waiting")

    house.act("asked")
    run = house.asks("deploy", **PROD)
    link = house.link("cy@acme.eu")
    form = house.hidden(link)
    card = house.card()

    house.act("reminded", timedelta(hours=1, minutes=1))
    house.show_run(run)

    house.act("escalated", timedelta(hours=1, minutes=1))
    house.show_run(run)
    house.answered("Fay's page", house.page(house.link("cfo@acme.eu")))

    house.act("expired", timedelta(hours=2, minutes=1))
    house.show_run(run)
    house.show_timeline(run)

    house.act("too-late")
    house.answered("Cy's page", house.page(link))
    house.answered("Cy approves", house.post(link, form | {"choice": "approve"}))
    house.answered("by the API", house.vote(run, "ann@acme.eu", "approve"))
    house.book.json("the card", house.card()["ts"] == card["ts"])
    house.end_of_acts()


def test_python_workflows_and_commands_look_as_recorded(enter: Enter) -> None:
    house = enter("programs")

    house.act("a-webhook-is-open")
    body = {"workflow": "callback", "input": {"name": "Zoë"}}
    run = house.answered("POST", house.api("POST", "/runs", json=body)).json()["run_id"]
    house.settle()
    house.answered("GET the run", house.api("GET", f"/runs/{run}"))
    url = house.webhook()
    house.answered("GET the webhook", house.http.get(url))

    house.act("a-webhook-is-called")
    house.answered("POST the webhook", house.http.post(url, content="it's done", headers=SYSTEM))
    house.answered("once more", house.http.post(url, content="it's done", headers=SYSTEM))
    house.show_run(run)
    house.show_timeline(run)
    house.typed("show", "show", run)

    house.act("a-program-asks")
    body = {"workflow": "welcome", "input": {"name": "Zoë"}, "requester": "bo@acme.eu"}
    run = house.answered("POST", house.api("POST", "/runs", json=body)).json()["run_id"]
    house.settle()
    house.show_run(run)
    house.typed("explain", "explain", run, "--json")

    house.act("voted-by-a-command")
    house.typed("the requester", "vote", run, "--by", "bo@acme.eu", "--choice", "approve")
    house.typed("Ann", "vote", run, "--by", "ann@acme.eu", "--choice", "approve", "--comment", "By phone.")
    house.eventually(lambda: len(house.run(run)["requests"]) == 2)
    house.settle()
    house.show_run(run)

    house.act("the-second-question")
    house.answered("by the run's id", house.vote(run, "cy@acme.eu", "reject", comment="One is enough."))
    house.show_run(run)
    house.show_timeline(run)
    house.typed("runs", "runs")
    house.typed("show", "show", run)
    house.end_of_acts()


def test_blocks_are_numbered_as_they_are_seen() -> None:
    def seen(*ids: str) -> str:
        return Names().plain(" ".join(f'"block_id": "{each}"' for each in ids))

    assert seen("b0008", "b0010", "b0008") == seen("b0005", "b0006", "b0005")
    assert seen("b0008", "b0008") != seen("b0008", "b0010")
