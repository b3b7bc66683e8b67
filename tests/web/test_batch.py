"""Several requests decided at once from the inbox: each is checked on its own, and as it was shown."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.service.catalog import Listed
from approvals_bot.service.sessions import Sessions
from approvals_bot.web import batch
from tests.support.whole_service import BASE_URL

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": BASE_URL}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "asking": {"ask": {"code": "string"}},
    "coded": {},
}


@pytest.fixture
def workflows(service: Any) -> Any:
    for name, more in KINDS.items():
        definition = Definition.model_validate(
            {
                "workflow": {"id": name, "title": "Deploy api {{ version }}", "request": ["*"]},
                "fields": {"version": {"type": "string", "pinned": True}},
                "stage": [{"id": "go", "from": ["@release-managers"], **more}],
                "deliver": {"link_auth": "code"} if name == "coded" else {},
            }
        )
        service.workflows[name] = Listed(approval.under(f"batch-{name}", pinned(definition)), definition)
    return service


async def sign_in(service: Any, person: str = "ann@acme.eu") -> httpx2.AsyncClient:
    token = await Sessions(service.engine).begin(person, method="code", browser="Firefox on Linux")
    cookie = {"cookie": f"__Host-approvals={token}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url=BASE_URL, headers=OURS | cookie)


async def open_requests(service: Any, *kinds: str) -> list[str]:
    return [
        await service.start(kind, {"version": f"2.{number}"}, requester="di@acme.eu")
        for number, kind in enumerate(kinds)
    ]


def boxes(page: str) -> dict[str, str]:
    """Return the value of each request's check box, by the request's id."""
    return {
        value.partition(":")[0]: value for value in re.findall(r'form="batch" name="request" value="([^"]+)"', page)
    }


def token_of(page: str) -> str:
    found = re.search(r'<form id="batch".*?name="form_token" value="([^"]+)"', page, re.DOTALL)
    assert found
    return found[1]


async def test_one_of_three_that_has_changed_is_not_counted(workflows: Any) -> None:
    service, runs = workflows, await open_requests(workflows, "plain", "plain", "plain")
    async with await sign_in(service) as browser:
        page = (await browser.get("/inbox")).text
        assert set(boxes(page)) == set(runs)
        edited = await service.api.patch(
            f"/api/runs/{runs[1]}/fields", json={"by": "di@acme.eu", "fields": {"version": "6.6"}}
        )
        assert edited.status_code == 200, edited.text
        before = len(await service.engine.audit_lines())
        form = {"form_token": token_of(page), "request": [*boxes(page).values()], "choice": "approve", "comment": "Go."}
        sent = await browser.post("/inbox/votes", data=form)
        assert sent.status_code == 303
        await service.engine.settle()
        shown = (await browser.get(sent.headers["location"])).text
        again = await browser.post("/inbox/votes", data=form)
        assert again.status_code == 303
    assert shown.count("<b>✓</b>") == 2
    assert shown.count("⚠ Not counted") == 1
    assert "Deploy api 6.6" in shown
    found = [(await service.run(run))["request"] for run in runs]
    assert [each["state"] for each in found] == ["approved", "waiting", "approved"]
    assert [(vote["by"], vote["comment"], vote["via"]) for vote in found[0]["votes"]] == [
        ("ann@acme.eu", "Go.", "inbox")
    ]
    assert found[1]["votes"] == []
    lines = [line.entry for line in (await service.engine.audit_lines())[before:]]
    verdicts = [line.data["verdict"] for line in lines if line.who == "ann@acme.eu" and "verdict" in line.data][:3]
    assert sorted(verdicts) == ["decided", "decided", "request_changed"]


async def test_only_requests_that_ask_for_nothing_have_a_box(workflows: Any) -> None:
    service = workflows
    plain, asking, coded = await open_requests(service, "plain", "asking", "coded")
    async with await sign_in(service) as browser:
        page = (await browser.get("/inbox")).text
        assert set(boxes(page)) == {plain}
        own = page.partition('<form id="batch"')[2].partition("</form>")[0]
        assert '<button type="submit" disabled hidden' in own, "Enter on a box or in the comment votes for nobody"
        for run in (asking, coded):
            digest = (await service.run(run))["request"]["digest"]
            form = {"form_token": token_of(page), "request": f"{run}:{digest}", "choice": "approve"}
            sent = await browser.post("/inbox/votes", data=form)
            assert (await browser.get(sent.headers["location"])).text.count("⚠ Not counted") == 1
            assert (await service.run(run))["request"]["votes"] == []
    async with await sign_in(service, "cfo@acme.eu") as browser:  # to whom there are no such requests
        said = set[str]()
        for run in (plain, coded, "run_unknown"):
            sent = await browser.post("/inbox/votes", data={"request": f"{run}:x", "choice": "approve"})
            page = (await browser.get(sent.headers["location"])).text
            said |= set(re.findall("⚠ Not counted.*?</li>", page.replace(run, "RUN")))
        assert len(said) == 1


async def test_a_batch_from_elsewhere_or_of_nothing_counts_nothing(
    workflows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, (run,) = workflows, await open_requests(workflows, "plain")
    monkeypatch.setattr(batch, "MOST", 2)
    async with await sign_in(service) as browser:
        page = (await browser.get("/inbox")).text
        right = {"form_token": token_of(page), "request": boxes(page)[run], "choice": "approve"}
        for change, headers, status in (
            ({}, {"Sec-Fetch-Site": "cross-site"}, 403),
            ({"form_token": "x"}, {"Sec-Fetch-Site": "none", "Origin": "null"}, 403),
            ({"request": []}, {}, 422),
            ({"choice": "edit"}, {}, 422),
            ({"request": [f"run_{n}:x" for n in range(3)]}, {}, 422),
            ({"comment": "x" * 2_001}, {}, 422),
        ):
            sent = await browser.post("/inbox/votes", data=right | change, headers=headers)
            assert sent.status_code == status, change
        nobody = await browser.post("/inbox/votes", data=right, headers={"cookie": ""})
        assert nobody.status_code == 401
        for wrong in (f"{run}:", run, "run_unknown:x"):
            sent = await browser.post("/inbox/votes", data=right | {"request": wrong})
            assert (await browser.get(sent.headers["location"])).text.count("⚠ Not counted") == 1
    assert (await service.run(run))["request"]["votes"] == []


async def test_others_see_nothing_of_a_batch(workflows: Any) -> None:
    service, (run,) = workflows, await open_requests(workflows, "plain")
    async with await sign_in(service) as ann, await sign_in(service, "bo@acme.eu") as bo:
        page = (await ann.get("/inbox")).text
        form = {"form_token": token_of(page), "request": boxes(page)[run], "choice": "reject", "comment": "No."}
        where = (await ann.post("/inbox/votes", data=form)).headers["location"]
        assert "<b>✓</b>" in (await ann.get(where)).text
        assert "<b>✓</b>" not in (await bo.get(where)).text
        await service.clock.advance("11m")
        assert "<b>✓</b>" not in (await ann.get(where)).text


async def test_a_stranger_learns_nothing_by_a_batch(workflows: Any) -> None:
    service, (run,) = workflows, await open_requests(workflows, "plain")
    digest = (await service.run(run))["request"]["digest"]
    async with await sign_in(service, "cfo@acme.eu") as fay:
        for choice in ("approve", "reject"):
            form = {"form_token": "", "request": f"{run}:{digest}", "choice": choice, "comment": "No."}
            page = (await fay.get((await fay.post("/inbox/votes", data=form)).headers["location"])).text
            assert page.count("⚠ Not counted") == 1
            assert "Deploy api" not in page
            form = {**form, "request": "run_of_nobody:x"}
            other = (await fay.get((await fay.post("/inbox/votes", data=form)).headers["location"])).text
            assert page.count("not an approver") == other.count("not an approver")
    assert (await service.run(run))["request"]["votes"] == []


async def test_the_audit_keeps_what_the_inbox_showed(workflows: Any) -> None:
    service, (run,) = workflows, await open_requests(workflows, "plain")
    async with await sign_in(service) as ann:
        page = (await ann.get("/inbox")).text
        await ann.post("/inbox/votes", data={"request": boxes(page)[run], "choice": "approve"})
    await service.engine.settle()
    (text,) = await service.engine.audit_lines(AuditFilter(run_id=run, what="text_shown"))
    assert text.entry.data["text"] == "Deploy api 2.0\nRequested by Di Oz"


async def test_the_next_request_is_the_one_that_has_waited_longest(workflows: Any) -> None:
    service, runs = workflows, await open_requests(workflows, "plain", "plain")
    async with await sign_in(service) as browser:
        await service.api.post(f"/api/runs/{runs[0]}/votes", json={"by": "cy@acme.eu", "choice": "approve"})
        await service.engine.settle()
        answer = await browser.get("/inbox/next")
        assert answer.status_code == 303
        assert "Deploy api 2.1" in (await browser.get(answer.headers["location"])).text
        await service.api.post(f"/api/runs/{runs[1]}/votes", json={"by": "cy@acme.eu", "choice": "approve"})
        await service.engine.settle()
        assert (await browser.get("/inbox/next")).headers["location"] == "/inbox"
