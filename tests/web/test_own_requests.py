"""The requester's own page: they edit their request when asked to, and withdraw it."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed
from approvals_bot.web.links import DECISION

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
ASKS_FOR_CHANGES: dict[str, Any] = {
    "workflow": {"id": "trip", "title": "A trip to {{ place }}", "request": ["*"]},
    "fields": {
        "place": {"type": "string", "pinned": True},
        "price": {"type": "money", "currency": "EUR"},
        "why": {"type": "text", "required": False},
    },
    "policy": {"outcomes": ["approve", "reject", "changes"]},
    "stage": [{"id": "go", "from": ["@release-managers"]}],
    "deliver": {"email": True},
    "clock": {"deadline": "4h"},
}


@pytest.fixture
async def trip(service: Any) -> tuple[Any, str]:
    """The service, and a request for which Ann has requested changes from Di."""
    definition = Definition.model_validate(ASKS_FOR_CHANGES)
    service.workflows["trip"] = Listed(approval.under("trip", pinned(definition)), definition)
    given = {"place": "Rome", "price": "900", "why": "A fair."}
    run_id = await service.start("trip", given, requester="di@acme.eu")
    said = {"by": "ann@acme.eu", "choice": "changes", "comment": "Cheaper?"}
    assert (await service.api.post(f"/api/runs/{run_id}/votes", json=said)).status_code == 201
    await service.engine.settle()
    return service, run_id


def hidden(page: httpx2.Response) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))


async def send(service: Any, path: str, **form: str) -> httpx2.Response:
    shown = await service.web.get(path)
    answer: httpx2.Response = await service.web.post(path, data=hidden(shown) | form, headers=OURS)
    await service.engine.settle()
    return answer


async def test_a_requester_edits_on_their_page_and_resubmits(trip: Any) -> None:
    service, run_id = trip
    path = await service.link(run_id, "di@acme.eu")
    page = await service.web.get(path)
    assert 'name="edit.price" type="text" value="900.00"' in page.text
    wrong = await send(service, path, own="change", **{"edit.place": "", "edit.price": "700"})
    assert wrong.status_code == 422
    assert "place: is required. Nothing was changed." in wrong.text
    assert 'value="700"' in wrong.text, "what they wrote is kept"
    done = await send(service, path, own="change", **{"edit.place": "Rome", "edit.price": "700", "edit.why": ""})
    assert done.status_code == 303
    page = await service.web.get(done.headers["location"])
    assert "Saved. The votes were reset, and the approvers have been notified." in page.text
    assert "Save and resubmit" not in page.text
    request = (await service.run(run_id))["request"]
    assert (request["state"], request["fields"]) == ("waiting", {"place": "Rome", "price": "700.00", "why": None})
    assert request["waiting_for"] == ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"]


async def test_a_saved_edit_is_not_requested_again(trip: Any) -> None:
    """The page comes back before the approvers have been looked up again."""
    service, run_id = trip
    path = await service.link(run_id, "di@acme.eu")
    form = hidden(await service.web.get(path)) | {"own": "change", "edit.price": "700"}
    done = await service.web.post(path, data=form, headers=OURS)
    page = await service.web.get(done.headers["location"])
    assert "Waiting" in page.text
    assert "Changes requested" not in page.text
    assert "Save and resubmit" not in page.text


async def test_a_saved_edit_shows_the_new_deadline(trip: Any) -> None:
    """After the edit, the stage opens again with its full time."""
    service, run_id = trip
    await service.clock.advance("1h")
    path = await service.link(run_id, "di@acme.eu")
    form = hidden(await service.web.get(path)) | {"own": "change", "edit.price": "700"}
    done = await service.web.post(path, data=form, headers=OURS)
    page = await service.web.get(done.headers["location"])
    assert ">in 4 hours</b>" in page.text


async def test_a_withdrawn_request_can_be_decided_by_nobody(trip: Any) -> None:
    service, run_id = trip
    path = await service.link(run_id, "di@acme.eu")
    done = await send(service, path, own="withdraw", reason="Not needed any more.")
    assert done.status_code == 303
    page = await service.web.get(done.headers["location"])
    assert (page.status_code, "✖ Withdrawn by Di Oz" in page.text) == (410, True)
    assert "Not needed any more." in page.text
    assert (await service.run(run_id))["status"] == "cancelled"
    assert (await send(service, path, own="withdraw")).status_code == 410


async def test_an_approver_can_neither_edit_nor_withdraw(trip: Any) -> None:
    service, run_id = trip
    path = await service.link(run_id, "ann@acme.eu")
    assert 'name="own"' not in (await service.web.get(path)).text
    own = await service.web.get(await service.link(run_id, "di@acme.eu"))
    answer = (await service.web.post(path, data=hidden(own) | {"own": "withdraw"}, headers=OURS)).text
    assert "come from the request&#39;s own page" in answer
    view = await service.view(run_id)
    hook = await service.engine.find_hook(view["hook_id"])
    form_token = service.tokens.sign(
        "form.v1",
        {
            "h": hook.hook_id,
            "r": next(id for id, known in view["recipients"].items() if known == "ann@acme.eu"),
            "g": hook.generation,
            "t": service.clock.now().timestamp(),
            "d": view["digest"],
        },
    )
    for act in ("withdraw", "change"):
        form = {"form_token": form_token, "own": act, "edit.place": "Mars"}
        answer = await service.web.post(path, data=form, headers=OURS)
        assert answer.status_code == 403
        assert "Only the requester can do this. Nothing was changed." in answer.text
    assert (await service.run(run_id))["request"]["state"] == "changes_requested"


async def test_a_requester_without_a_mail_has_a_page_too(trip: Any) -> None:
    service, _ = trip
    run_id = await service.start("trip", {"place": "Oslo", "price": "90"}, requester="di@acme.eu")
    view = await service.view(run_id)
    assert "di@acme.eu" not in view["recipients"].values()
    hook = await service.engine.find_hook(view["hook_id"])
    token = service.tokens.sign(DECISION, {"h": hook.hook_id, "r": "requester", "g": hook.generation, "v": "inbox"})
    page = await service.web.get(f"/decisions/{token}")
    assert "Withdraw request" in page.text
    assert "Save and resubmit" not in page.text, "no changes are requested"
    for nobody in ("on_behalf_of", "app"):
        token = service.tokens.sign(DECISION, {"h": hook.hook_id, "r": nobody, "g": hook.generation})
        assert (await service.web.get(f"/decisions/{token}")).status_code == 404
