"""Approving with changes, in Slack and on the page: exactly what the form says is approved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from html.parser import HTMLParser
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed
from tests.support.browsing import a_port, chromium, needs_chromium, serving
from tests.support.slack_office import Office

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
PLAN = "step\n" * 900  # 4,500 characters: more than Slack lets anybody type
FIELDS: dict[str, Any] = {
    "flight": {"type": "string", "pinned": True, "editable": True},
    "price": {"type": "money", "currency": "EUR", "pinned": True, "editable": True},
    "seat": {"type": "string", "required": False, "editable": True},
    "sure": {"type": "boolean", "required": False, "editable": True},
    "at": {"type": "datetime", "required": False, "editable": True},
    "plan": {"type": "text", "required": False, "pinned": True, "editable": True},
}
GIVEN = {"flight": "LH 1", "price": "900", "seat": "1A,\nwindow", "at": "2026-12-24T09:00:00.25Z", "plan": PLAN}
BOOKED: dict[str, Any] = {
    "fields": FIELDS,
    "stage": [{"id": "go", "from": ["ann@acme.eu"], "outcomes": ["approve", "edit", "reject"]}],
}


@pytest.fixture
async def site(open_service: Any) -> AsyncIterator[Any]:
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with open_service(base_url=url) as service:
            about = {"id": "book", "title": "Book {{ flight }}", "request": ["*"]}
            definition = Definition.model_validate(BOOKED | {"workflow": about})
            service.workflows["book"] = Listed(approval.under("book", pinned(definition)), definition)
            async with serving(service.app, bound):
                yield service, url


async def asked(service: Any) -> tuple[str, str]:
    run_id = await service.start("book", GIVEN, requester="di@acme.eu")
    return run_id, await service.link(run_id, "ann@acme.eu")


class Inputs(HTMLParser):
    """The values of a form's untouched inputs, as a browser sends them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._area = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self._area = said["name"] if tag == "textarea" else ""
        if self._area:
            self.values[self._area] = ""
        elif tag == "input" and ("checked" in said or said.get("type") != "checkbox"):
            self.values[said["name"]] = said["value"].replace("\n", "")

    def handle_data(self, data: str) -> None:
        if self._area:
            self.values[self._area] += data.replace("\n", "\r\n")

    def handle_endtag(self, tag: str) -> None:
        self._area = ""


async def edit(service: Any, path: str, **changes: str) -> Any:
    """Press "Approve with changes" after changing these inputs."""
    shown = Inputs((await service.web.get(path)).text).values
    assert shown["edit.flight"] == "LH 1"
    form = shown | {"choice": "edit"} | {f"edit.{name}": value for name, value in changes.items()}
    answer = await service.web.post(path, data=form, headers=OURS)
    await service.engine.settle()
    return answer


async def fields_of(service: Any, run_id: str) -> Mapping[str, Any]:
    request: dict[str, Any] = (await service.run(run_id))["request"]
    assert request["state"] == "approved"
    fields: Mapping[str, Any] = request["fields"]
    return fields


@needs_chromium
async def test_enter_in_a_changed_field_approves_nothing(site: Any) -> None:
    service, url = site
    run_id, path = await asked(service)
    async with chromium(viewport={"width": 390, "height": 800}) as page:
        await page.goto(url + path)
        await page.get_by_text("Approve with changes").first.click()
        await page.fill('[name="edit.price"]', "100")
        await page.press('[name="edit.price"]', "Enter")
        await page.wait_for_timeout(300)
        assert await page.input_value('[name="edit.price"]') == "100"
        assert (await service.run(run_id))["request"]["state"] == "waiting"
        await page.locator("button[value=edit]").click()
        await page.wait_for_url("**?done=decided")
    assert await fields_of(service, run_id) == (await given(service)) | {"price": "100.00"}


async def given(service: Any) -> dict[str, Any]:
    """The fields of a request that nobody edited."""
    run_id, _ = await asked(service)
    return dict((await service.run(run_id))["request"]["fields"])


async def test_what_is_emptied_on_the_page_is_taken_away(site: Any) -> None:
    service, _ = site
    run_id, path = await asked(service)
    answer = await edit(service, path, seat="", plan="")
    assert answer.status_code == 303, answer.text
    assert await fields_of(service, run_id) == (await given(service)) | {"seat": None, "plan": None}


async def test_what_must_be_given_can_not_be_emptied(site: Any) -> None:
    service, _ = site
    run_id, path = await asked(service)
    answer = await edit(service, path, flight=" ", price="1")
    assert answer.status_code == 422
    assert "Nothing was changed. Please correct what is marked." in answer.text
    assert 'id="flight.fault">Is required.' in answer.text
    assert (await service.run(run_id))["request"]["state"] == "waiting"


async def test_a_form_that_nobody_touched_changes_nothing(site: Any) -> None:
    service, _ = site
    run_id, path = await asked(service)
    answer = await edit(service, path)
    assert answer.status_code == 422
    assert "That&#39;s what it already says." in answer.text
    assert (await service.run(run_id))["request"]["state"] == "waiting"


async def test_numbers_are_shown_and_read_as_their_reader_writes_them(site: Any) -> None:
    service, _ = site
    listed = service.workflows["book"].definition
    stage = {"id": "go", "from": ["cy@acme.eu", "ann@acme.eu"], "outcomes": ["approve", "edit", "reject"]}
    definition = Definition.model_validate(BOOKED | {"stage": [stage], "workflow": listed.workflow.model_dump()})
    service.workflows["book"] = Listed(approval.under("book", pinned(definition)), definition)
    run_id = await service.start("book", GIVEN | {"price": "1900"}, requester="di@acme.eu")
    theirs, others = [await service.link(run_id, person) for person in ("cy@acme.eu", "ann@acme.eu")]
    assert "1.900,00 EUR" in (await service.web.get(theirs)).text
    assert "1,900.00 EUR" in (await service.web.get(others)).text
    assert Inputs((await service.web.get(theirs)).text).values["edit.price"] == "1900,00"
    assert "what it already says" in (await edit(service, theirs)).text
    assert (await edit(service, theirs, price="12.345,5")).status_code == 303
    assert (await fields_of(service, run_id))["price"] == "12345.50"


async def test_slack_cuts_no_long_text_and_takes_away_what_is_emptied(office: Office) -> None:
    run_id = await office.ask(given=GIVEN, **BOOKED | {"fields": FIELDS | {"service": "string", "version": "string"}})
    view = (await office.press("U0ANN", "Approve with changes"))["view"]
    assert "Plan is too long to edit in Slack. It stays unchanged" in str(view["blocks"])
    inputs = [block for block in view["blocks"] if block["type"] == "input"]
    assert "ask:plan" not in [block["block_id"] for block in inputs]
    values = {"ask:price": {"value": "100"}, "ask:seat": {"value": ""}}
    await office.submit("U0ANN", view, values)
    decision = await office.ended(run_id)
    assert decision["fields"] == {
        "flight": "LH 1",
        "price": "100.00",
        "seat": None,
        "sure": None,
        "at": "2026-12-24T09:00:00.250000Z",
        "plan": PLAN,
        "service": "api",
        "version": "2.1",
    }
