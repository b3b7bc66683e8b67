"""People that a request names, in Slack: those of a field that is edited, and those who were picked."""

from __future__ import annotations

from typing import Any

from approvals_bot.approvals.picks import Picks
from approvals_bot.playground.slack.blocks import check_view
from approvals_bot.service.picks import StoredPicks
from tests.support.slack_office import DEPLOY, PEOPLE, Office

WHY_PICKED = "named in the workflow, and picked for this request"
NAMING = {
    "service": "string",
    "version": "string",
    "owner": {"type": "person", "editable": True, "required": False},
    "team": {"type": "list", "of": "person", "editable": True, "required": False},
}
EDITED: dict[str, Any] = {
    "fields": NAMING,
    "stage": [{"id": "go", "from": ["ann@acme.eu"], "outcomes": ["approve", "edit"]}],
}


async def edited(office: Office, **values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let Ann edit a request's people in Slack. Returns the modal's inputs by field, and the fields afterwards."""
    run_id = await office.ask(given={"owner": "cy@acme.eu", "team": ["bo@acme.eu", "cy@acme.eu"]}, **EDITED)
    view = (await office.press("U0ANN", "Approve with changes"))["view"]
    assert check_view({name: view[name] for name in ("type", "title", "blocks", "submit", "close")}) == []
    answer = await office.submit("U0ANN", view, {f"ask:{name}": {"value": value} for name, value in values.items()})
    assert answer["errors"] == {}
    record = await office.engine.record(run_id)
    assert record is not None
    inputs = {block["block_id"].removeprefix("ask:"): block for block in view["blocks"] if block["type"] == "input"}
    return inputs, record.parts[0]["fields"]


async def test_an_edit_shows_the_people_who_are_named_now(office: Office) -> None:
    inputs, fields = await edited(office, owner="U0DI")
    assert inputs["owner"]["element"]["initial_user"] == "U0CY"  # looked up by address
    assert inputs["team"]["element"]["initial_users"] == ["U0BO", "U0CY"]
    assert "hint" not in inputs["owner"]
    assert (fields["owner"], fields["team"]) == ("di@acme.eu", ["bo@acme.eu", "cy@acme.eu"])


async def test_an_edit_may_clear_people(office: Office) -> None:
    _, fields = await edited(office, owner=None, team=["U0CY", "U0BO"])
    assert (fields["owner"], fields["team"]) == (None, ["bo@acme.eu", "cy@acme.eu"])  # in another order: the same


async def test_people_who_are_not_in_slack_stay_unless_others_are_chosen(office: Office) -> None:
    office.fault("error", "users.lookupByEmail", error="users_not_found", times=None)
    inputs, fields = await edited(office, owner="U0DI")
    assert "initial_users" not in inputs["team"]["element"]
    assert inputs["team"]["hint"]["text"].endswith("Choose nobody to leave it so.")
    assert fields["team"] == ["bo@acme.eu", "cy@acme.eu"]


async def test_a_card_names_who_was_picked(office: Office) -> None:
    office.engine.resources[Picks] = StoredPicks(office.engine)
    run_id = await office.ask("di@acme.eu", stage=[DEPLOY["stage"][0] | {"pick": 1}])
    record = await office.engine.record(run_id)
    assert record is not None
    users = {"ann@acme.eu": "U0ANN", "bo@acme.eu": "U0BO", "cy@acme.eu": "U0CY"}
    (picked,) = record.parts[0]["stages"][0]["seats"][0]["eligible"]
    others = [user for address, user in users.items() if address != picked]
    assert users[picked] in str(office.card.blocks)
    assert not any(user in str(office.card.blocks) for user in others)
    for user in others:
        await office.press(user, "Approve")
    await office.until(lambda: all(office.ephemerals(user) for user in others))
    for user in others:
        assert office.ephemerals(user)[0].text == "Others were picked to decide this request. Nothing was changed."
    for user in (users[picked], others[0]):
        await office.press(user, "Why me?")
    await office.until(lambda: len(office.ephemerals(others[0])) > 1 and bool(office.ephemerals(users[picked])))
    name = next(person.name for person in PEOPLE if person.address == picked)
    assert office.ephemerals(others[0])[1].text == (
        f"You're not an approver for this request. Waiting for {name} ({WHY_PICKED})."
    )
    assert office.ephemerals(users[picked])[0].text == f"You're an approver because you're {WHY_PICKED}."
    await office.press(users[picked], "Approve")
    assert (await office.ended(run_id))["by"] == picked
