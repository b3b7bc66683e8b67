"""Lists and objects on pages and in the API: read, edited, refused."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import pytest

from approvals_bot import request_approval, workflow
from approvals_bot.agents import approve
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.json_values import DEEPEST, MOST_BYTES
from approvals_bot.client.digests import canonical
from approvals_bot.service.catalog import Listed

ANN, BO = "ann@acme.eu", "bo@acme.eu"
ITEMS: Any = [{"sku": "</script>", "n": 2}, {"sku": "\u202egpj.exe", "n": 1, "note": "a longer text in it"}]


@workflow
async def orders_a_cart(arguments: dict[str, Any]) -> Any:
    outcome = await request_approval(
        "Order",
        fields=arguments,
        editable=list(arguments),
        approvers=ANN,
        requester=BO,
        outcomes=["approve", "edit", "reject"],
        deliver={},
    )
    return [type(outcome).__name__, dict(outcome.fields)]


@pytest.fixture
async def office(open_service: Any) -> AsyncIterator[Any]:
    async with open_service(open_pages=True) as service:
        service.engine.resources[Calendars] = Calendars({})
        service.workflows["orders_a_cart"] = Listed(orders_a_cart)
        yield service


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


async def form_of(office: Any, path: str) -> dict[str, str]:
    """The values that the page's form sends for an edit when nobody has touched it."""
    html = (await office.web.get(path)).text
    form = {"choice": "edit", "comment": ""}
    form["form_token"] = re.findall(r'name="form_token" value="([^"]+)"', html)[0]
    area = r'<textarea[^>]* name="(edit\.[^"]+)"[^>]*>\n?(.*?)</textarea>'
    inputs = area + r'|<input[^>]* name="(edit\.[^"]+)"[^>]* value="(.*?)"'
    for area, text, name, value in re.findall(inputs, html, re.DOTALL):
        form[unescape(area or name)] = unescape(text or value)
    return form


async def test_the_page_shows_and_edits_json(office: Any) -> None:
    run = await office.start("orders_a_cart", {"items": ITEMS, "tags": ["a"]})
    path = await office.link(run, ANN)
    html = (await office.web.get(path)).text
    (shown,) = re.findall(r'<pre class="json"[^>]*>(.*?)</pre>', html, re.DOTALL)
    assert unescape(shown).splitlines() == [
        "items.0.n: 2",
        'items.0.sku: "</script>"',
        "items.1.n: 1",
        'items.1.note: "a longer text in it"',
        'items.1.sku: "⟨U+202E⟩gpj.exe"',
    ]
    assert "\u202e" not in html
    assert "</script>" not in shown
    assert '<code dir="ltr">tags.0: &#34;a&#34;</code>' in html
    form = await form_of(office, path)
    assert [name for name in form if name.startswith("edit.")] == [
        "edit.items.0.n",
        "edit.items.0.sku",
        "edit.items.1.n",
        "edit.items.1.note",
        "edit.items.1.sku",
        "edit.tags.0",
    ]
    untouched = await office.web.post(path, data=form)
    assert "already says" in untouched.text
    broken = await office.web.post(path, data=form | {"edit.items.0.n": "two", "edit.items.0.sku": "b"})
    assert broken.status_code == 422
    assert 'id="items.0.n.fault">Must be a number, like 12 or 12.5.' in unescape(broken.text)
    assert 'value="two"' in broken.text, "what they typed is still there"
    assert (await office.run(run))["request"]["fields"]["items"] == ITEMS
    done = await office.web.post(path, data=form | {"edit.items.0.n": "3.5", "edit.items.0.sku": ""})
    assert done.status_code == 303, done.text
    await office.engine.settle()
    edited = [{"sku": "", "n": 3.5}, ITEMS[1]]
    assert (await office.run(run))["result"] == ["Edited", {"items": edited, "tags": ["a"]}]


async def test_arguments_of_any_name_are_edited_on_the_page(office: Any) -> None:
    names = ["from", "order-id", "größe", '"><script>', "a b", "a.b"]
    run = await office.start("orders_a_cart", {name: [name] for name in names})
    path = await office.link(run, ANN)
    html = (await office.web.get(path)).text
    assert "<script>" not in html
    form = {"choice": "edit", "comment": ""} | await form_of(office, path)
    leaves = ["from.0", "order-id.0", "größe.0", '"\\"><script>".0', '"a b".0', '"a.b".0']
    assert [name for name in form if name.startswith("edit.")] == [f"edit.{name}" for name in leaves]
    done = await office.web.post(path, data=form | {'edit."a.b".0': "1", 'edit."\\"><script>".0': "2"})
    assert done.status_code == 303, done.text
    await office.engine.settle()
    edited = {name: [name] for name in names} | {"a.b": ["1"], '"><script>': ["2"]}
    assert (await office.run(run))["result"][1] == edited


async def test_a_value_too_long_for_a_form_can_still_be_approved(office: Any) -> None:
    rows = ["€" * 100] * 150  # 45 kB, three times as much in a form
    run = await office.start("orders_a_cart", {"rows": rows, "tags": ["a"]})
    path = await office.link(run, ANN)
    html = (await office.web.get(path)).text
    form = await form_of(office, path)
    inputs = [name for name in form if name.startswith("edit.")]
    assert f"{151 - len(inputs)} more values have no room here." in html
    assert 20 < len(inputs) < 100
    done = await office.web.post(path, data=form | {"edit.rows.0": "first"})
    assert done.status_code == 303, done.text
    await office.engine.settle()
    assert (await office.run(run))["result"] == ["Edited", {"rows": ["first", *rows[1:]], "tags": ["a"]}]


async def test_too_deep_and_too_large_edits_are_422_and_leave_no_trace(office: Any) -> None:
    run = await office.start("orders_a_cart", {"rows": ["a"]})
    before = len((await office.api.get(f"/api/runs/{run}/events")).json()["events"])
    large = ["x" * (MOST_BYTES - len(canonical({"rows": [""]})) + 1)]
    for rows, why in (
        (deep(DEEPEST), "nested too deeply: at most 20 levels"),
        (large, "65,537 bytes of JSON"),
        ([2**53], "must be between"),
    ):
        edit = {"by": BO, "fields": {"rows": rows}}
        answers = [
            await office.api.patch(f"/api/runs/{run}/fields", json=edit),
            await office.api.post(
                f"/api/runs/{run}/votes", json={"by": ANN, "choice": "edit", "fields": {"rows": rows}}
            ),
            await office.api.post(
                f"/api/runs/{run}/votes", json={"by": ANN, "choice": "edit", "answers": {"rows": rows}}
            ),
        ]
        for answer in answers:
            assert answer.status_code == 422, answer.text
            assert why in answer.json()["errors"][0]["msg"]
    assert len((await office.api.get(f"/api/runs/{run}/events")).json()["events"]) == before
    fits = {"by": BO, "fields": {"rows": deep(DEEPEST - 1)}}
    assert (await office.api.patch(f"/api/runs/{run}/fields", json=fits)).status_code == 200
    whole = {"by": BO, "fields": {"rows": [large[0][:-1]]}}
    assert (await office.api.patch(f"/api/runs/{run}/fields", json=whole)).status_code == 200


async def test_a_list_stays_a_list_over_the_api(office: Any) -> None:
    run = await office.start("orders_a_cart", {"rows": ["a"]})
    for rows in ("a", {"a": 1}, "[]", 1):
        answer = await office.api.patch(f"/api/runs/{run}/fields", json={"by": BO, "fields": {"rows": rows}})
        assert (answer.status_code, "must be a list" in answer.json()["detail"]) == (422, True)


TAKES: Any = {"type": "object", "properties": {"price": {"type": "integer", "maximum": 900}}}


@workflow
async def calls_a_tool_by_page(arguments: dict[str, Any]) -> Any:
    decision = await approve("pay", arguments, tool_call_id="c1", to=ANN, expects=TAKES, deliver={})
    return [decision.state, decision.arguments]


@pytest.mark.agents(12)
async def test_a_refused_edit_of_a_call_is_shown_at_its_field(office: Any) -> None:
    office.workflows["calls_a_tool_by_page"] = Listed(calls_a_tool_by_page)
    run = await office.start("calls_a_tool_by_page", {"price": 640, "to": {"name": "Bo"}}, requester="bo@acme.eu")
    path = await office.link(run, ANN)
    html = (await office.web.get(path)).text
    assert "Written by a model." in html
    assert '<code dir="ltr">pay</code>' in html
    form = await form_of(office, path)
    assert [name for name in form if name.startswith("edit.")] == ["edit.price", "edit.to.name"]
    refused = await office.web.post(path, data=form | {"edit.price": "901"})
    assert refused.status_code == 422
    assert '<p class="fault" id="price.fault">Must be at most 900.</p>' in refused.text
    assert 'aria-describedby="price.fault"' in refused.text
    over_api = await office.api.post(
        f"/api/runs/{run}.1/votes", json={"by": ANN, "choice": "edit", "answers": {"price": 901}}
    )
    assert (over_api.status_code, "price: must be at most 900" in over_api.json()["detail"]) == (422, True)
    done = await office.web.post(path, data=form | {"edit.price": "600", "edit.to.name": "Cy"})
    assert done.status_code == 303, done.text
    await office.engine.settle()
    assert (await office.run(run))["result"] == ["edited", {"price": 600, "to": {"name": "Cy"}}]


async def test_approve_doesnt_drop_what_was_edited_beside_it(office: Any) -> None:
    run = await office.start("orders_a_cart", {"tags": ["a"], "n": 1})
    path = await office.link(run, ANN)
    form = await form_of(office, path)
    slip = await office.web.post(path, data=form | {"choice": "approve", "edit.tags.0": "b"})
    assert slip.status_code == 422
    assert "You changed values, but pressed Approve" in unescape(slip.text)
    assert 'value="b"' in slip.text, "what they typed is still there"
    assert (await office.run(run))["status"] == "running"
    plain = await office.web.post(path, data=form | {"choice": "approve"})
    assert plain.status_code == 303
