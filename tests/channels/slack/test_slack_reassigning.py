"""Reassigning from Slack: the button, the modal, and the request's own rules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from approvals_bot.approvals.card_model import Card, Name
from approvals_bot.approvals.reassignment import reassignment_text
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.reassignment import NOBODY, reassign_modal
from approvals_bot.playground.slack.blocks import check_view
from tests.support.slack_office import Office

BO = "bo@acme.eu"


async def opened(office: Office, user: str) -> dict[str, Any]:
    """Open the modal with the button in the reply to "Why me?"."""
    await office.press(user, "Why me?")
    await office.until(lambda: bool(office.ephemerals(user)))
    answer = await office.press(user, "Reassign", ts=office.ephemerals(user)[-1].ts)
    view: dict[str, Any] = answer["view"]
    return view


def values(person: str, place: str, reason: str = "") -> dict[str, Any]:
    return {"person": {"value": person}, "instead_of": {"value": place}, "reason": {"value": reason}}


async def view_of(office: Office, run_id: str) -> Request:
    record = await office.engine.record(run_id)
    assert record is not None
    return Request.model_validate(record.parts[0])


async def test_an_approver_reassigns_in_a_modal_and_the_other_decides(office: Office) -> None:
    run_id = await office.ask()
    view = await opened(office, "U0ANN")
    places = next(block for block in view["blocks"] if block.get("block_id") == "instead_of")["element"]["options"]
    assert [option["text"]["text"] for option in places] == ["Me", "Nobody (add an approver)"]
    answer = await office.submit("U0ANN", view, values("U0DI", places[0]["value"], "on the train"))
    assert not answer.get("errors")
    request = await view_of(office, run_id)
    done = reassignment_text(request.reassignments[0].act, request.people)
    assert done == "Ann Ode reassigned this to Di Oz: on the train"
    await office.until(lambda: "reassigned this to Di Oz: on the train" in str(office.card.blocks))
    await office.press("U0DI", "Approve")
    assert (await office.ended(run_id))["by"] == "di@acme.eu"


@pytest.mark.parametrize(
    ("user", "person", "place", "says"),
    [
        ("U0ANN", "U0BO", "ann@acme.eu", "Bo Lund can't decide their own request"),
        ("U0ANN", "U0CY", "ann@acme.eu", "is already an approver here"),
        ("U0ANN", "U0GUEST", "ann@acme.eu", "This person can't decide here"),
    ],
)
async def test_an_impossible_choice_is_explained_beside_the_name(
    office: Office, user: str, person: str, place: str, says: str
) -> None:
    run_id = await office.ask()
    view = await opened(office, user)
    answer = await office.submit(user, view, values(person, place))
    assert says in answer["errors"]["person"]
    assert (await view_of(office, run_id)).reassignments == ()


async def test_people_who_are_not_approvers_are_refused(office: Office) -> None:
    run_id = await office.ask()
    view = await opened(office, "U0DI")
    answer = await office.submit("U0DI", view, values("U0GUEST", NOBODY))
    assert answer["errors"]
    answer = await office.submit("U0DI", await opened(office, "U0DI"), values("U0DI", NOBODY))
    assert "Only approvers, the workflow's owners and admins" in str(answer)
    assert (await view_of(office, run_id)).reassignments == ()


async def test_the_requester_is_not_offered_to_reassign(office: Office) -> None:
    await office.ask()
    await office.press("U0BO", "Why me?")
    await office.until(lambda: bool(office.ephemerals("U0BO")))
    assert "Reassign" not in str(office.ephemerals("U0BO")[-1].blocks)


def test_a_modal_with_many_approvers_fits_slacks_limits() -> None:
    many = tuple(Name(f"{'x' * 60}{n}@acme.eu", "🙂" * 90) for n in range(200))
    asked_at = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)
    card = Card("run_1", "hook_1", "x", 3, "waiting", "X" * 500, Name(BO, "Bo"), asked_at, "", waiting_for=many)
    assert check_view(reassign_modal(card, "ann@acme.eu", "C0DEPLOYS")) == []
