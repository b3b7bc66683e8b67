"""The page behind a mail's link."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.durable.tokens import Tokens
from approvals_bot.service.audited import AUDITED_OF_PEER
from approvals_bot.service.catalog import Listed
from approvals_bot.web.guard import REFUSED_A_MINUTE
from approvals_bot.web.links import DECISION

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
"""Headers that a browser sends with a form from our own page, which asks for no referrer."""


def deploy(**more: Any) -> Definition:
    return Definition.model_validate(
        {
            "workflow": {"id": "deploy", "title": "Deploy {{ service }} {{ version }}", "request": ["*", "app:desk"]},
            "fields": {"service": "string", "version": {"type": "string", "pinned": True}},
            "stage": [{"id": "go", "from": ["@release-managers"], "need": 2}],
            "clock": {"deadline": "4h"},
        }
        | more
    )


@pytest.fixture
async def asked(service: Any) -> Any:
    """A service that lists `deploy`, where two of three release managers decide."""
    definition = deploy()
    service.workflows["deploy"] = Listed(approval.under("deploy", pinned(definition)), definition)
    return service


async def open_request(service: Any, **more: Any) -> str:
    run_id: str = await service.start("deploy", {"service": "api", "version": "2.1"}, **more)
    return run_id


def form_of(page: httpx2.Response, choice: str, **more: str) -> dict[str, str]:
    """The page's hidden fields, as a browser sends them with the button for `choice`."""
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
    return hidden | {"choice": choice} | more


async def press(service: Any, path: str, choice: str, **more: str) -> httpx2.Response:
    form = form_of(await service.web.get(path), choice, **more)
    answer: httpx2.Response = await service.web.post(path, data=form, headers=OURS)
    await service.engine.settle()
    return answer


async def test_the_page_shows_the_request_and_the_acting_person(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    page = await asked.web.get(path)
    assert page.status_code == 200
    for words in ("Deploy api 2.1", "Waiting", "Requested by desk", "Ann Ode", "0 of 2", "due", "Approve", "Reject"):
        assert words in page.text
    assert "<script" not in page.text


async def test_a_choice_leads_to_a_page_that_says_it_counted(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    answer = await press(asked, path, "approve", comment="Tested.")
    assert answer.status_code == 303
    result = await asked.web.get(answer.headers["location"])
    assert result.status_code == 200
    assert "Counted: 1 of 2. Waiting for one more from Release managers." in result.text
    assert "Tested." in result.text
    assert 'role="status"' in result.text
    assert "<form" not in result.text


async def test_the_result_page_says_nothing_to_other_readers(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    for done in ("counted", "decided", "taken_back", "nonsense"):
        page = await asked.web.get(f"{path}?done={done}")
        assert 'role="status"' not in page.text
        assert "<form" in page.text


async def test_the_audit_keeps_what_the_page_showed(asked: Any) -> None:
    run_id = await open_request(asked, requester="di@acme.eu")
    paths = [await asked.link(run_id, person) for person in ("ann@acme.eu", "bo@acme.eu")]
    pages = [await asked.web.get(path) for path in paths]

    async def acted() -> Any:
        await asked.engine.settle()
        lines = [line.entry.data for line in await asked.engine.audit_lines(AuditFilter(run_id=run_id))]
        return lines[-1], [line["text"] for line in lines if "text" in line]

    await asked.web.post(paths[0], data=form_of(pages[0], "approve"), headers=OURS)
    line, texts = await acted()
    assert texts == ["Deploy api 2.1\nRequested by Di Oz\nVersion: 2.1\nService: api"]
    assert line["shown"] == hashlib.sha256(texts[0].encode()).hexdigest()
    edit = {"by": "di@acme.eu", "fields": {"service": "web"}}  # not pinned, so the digest stays
    assert (await asked.api.patch(f"/api/runs/{run_id}/fields", json=edit)).status_code == 200
    await asked.web.post(paths[1], data=form_of(pages[1], "approve"), headers=OURS)
    line, texts = await acted()
    assert (line["act"], "shown" in line, len(texts)) == ("approve", False, 1), "it showed another text than now"


async def test_the_last_vote_decides_and_every_page_says_so(asked: Any) -> None:
    run_id = await open_request(asked)
    ann, bo = [await asked.link(run_id, person) for person in ("ann@acme.eu", "bo@acme.eu")]
    await press(asked, ann, "approve")
    decided = await asked.web.get((await press(asked, bo, "approve")).headers["location"])
    assert "Everyone involved has been notified." in decided.text
    page = await asked.web.get(ann)
    assert page.status_code == 200
    assert "Approved by Bo Lund" in page.text
    assert "<form" not in page.text
    assert (await asked.run(run_id))["status"] == "completed"


async def test_a_vote_can_be_changed_while_the_request_is_open(asked: Any) -> None:
    run_id = await open_request(asked)
    path = await asked.link(run_id, "ann@acme.eu")
    await press(asked, path, "approve")
    back = await press(asked, path, "take_back")
    assert "Undone" in (await asked.web.get(back.headers["location"])).text
    assert (await asked.run(run_id))["request"]["votes"] == []
    assert (await press(asked, path, "approve")).status_code == 303


async def test_a_choice_in_the_link_is_shown_first_and_decides_nothing(asked: Any) -> None:
    run_id = await open_request(asked)
    path = await asked.link(run_id, "ann@acme.eu")
    before = asked.content()
    page = await asked.web.get(f"{path}?choice=reject")
    assert "You chose “Reject”. Press the button below to confirm." in page.text
    assert 'class="danger chosen"' in page.text
    for strange in ("take_back", "explode", "%3Cscript%3E"):
        assert "You chose" not in (await asked.web.get(f"{path}?choice={strange}")).text
    assert asked.content() == before
    await press(asked, path, "approve")
    assert "You chose “Undo vote”" in (await asked.web.get(f"{path}?choice=take_back")).text
    assert [vote["choice"] for vote in (await asked.run(run_id))["request"]["votes"]] == ["approve"]


async def test_check_45_the_same_choice_again_is_200_and_counts(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    form = form_of(await asked.web.get(path), "approve")
    assert (await asked.web.post(path, data=form, headers=OURS)).status_code == 303
    again = await asked.web.post(path, data=form, headers=OURS)
    assert again.status_code == 200
    assert "You&#39;ve already approved this, and your vote counts." in again.text


async def test_check_45_once_decided_the_opposite_choice_is_409(asked: Any) -> None:
    run_id = await open_request(asked)
    ann, bo, cy = [await asked.link(run_id, person) for person in ("ann@acme.eu", "bo@acme.eu", "cy@acme.eu")]
    forms = {path: await asked.web.get(path) for path in (ann, bo, cy)}
    await press(asked, ann, "approve")
    await press(asked, bo, "approve")
    before = asked.content()["events"]
    same = await asked.web.post(ann, data=form_of(forms[ann], "approve"), headers=OURS)
    opposite = await asked.web.post(ann, data=form_of(forms[ann], "reject", comment="No."), headers=OURS)
    late = await asked.web.post(cy, data=form_of(forms[cy], "reject", comment="No."), headers=OURS)
    assert (same.status_code, opposite.status_code, late.status_code) == (200, 409, 409)
    assert "Already decided by Bo Lund at 10:00" in opposite.text  # Ann reads Berlin's time
    assert "Already decided by Bo Lund at 09:00" in late.text
    assert asked.content()["events"] == before
    refused = [line.entry for line in await asked.engine.audit_lines() if line.entry.what == "act_refused"]
    assert [line.data["verdict"] for line in refused] == ["already_voted", "already_decided", "already_decided"]


async def test_nobody_fills_the_audit_with_refusals(asked: Any) -> None:
    first, second = await open_request(asked), await open_request(asked)
    paths = {run_id: await asked.link(run_id, "cy@acme.eu") for run_id in (first, second)}
    forms = {run_id: form_of(await asked.web.get(path), "reject", comment="No.") for run_id, path in paths.items()}

    async def refused(what: str) -> list[str | None]:
        return [line.entry.run_id for line in await asked.engine.audit_lines() if line.entry.what == what]

    foreign = {"Origin": "https://evil.example"}
    for run_id in [first] * 15 + [second] * 5:
        answer = await asked.web.post(paths[run_id], data=forms[run_id], headers=foreign)
        assert answer.status_code == 403
    assert await refused("form_refused") == [first] * AUDITED_OF_PEER + [second]
    await asked.clock.advance("5h")
    for _ in range(15):
        assert (await asked.web.post(paths[first], data=forms[first], headers=OURS)).status_code == 410
    assert len(await refused("act_refused")) == AUDITED_OF_PEER


async def test_check_45_after_the_deadline_the_link_is_gone(asked: Any) -> None:
    run_id = await open_request(asked)
    path = await asked.link(run_id, "ann@acme.eu")
    shown = await asked.web.get(path)
    await asked.clock.advance("5h")
    assert (await asked.web.get(path)).status_code == 410
    late = await asked.web.post(path, data=form_of(shown, "approve"), headers=OURS)
    assert late.status_code == 410
    assert "This request expired" in late.text


async def test_after_a_withdrawal_the_link_is_gone(asked: Any) -> None:
    run_id = await open_request(asked)
    path = await asked.link(run_id, "ann@acme.eu")
    answer = await asked.api.post(f"/api/runs/{run_id}/cancellation", json={"reason": "Not needed."})
    assert answer.status_code == 202
    await asked.engine.settle()
    page = await asked.web.get(path)
    assert page.status_code == 410
    assert "Withdrawn" in page.text


async def test_a_rejection_needs_its_reason_and_keeps_what_was_typed(asked: Any) -> None:
    run_id = await open_request(asked)
    path = await asked.link(run_id, "ann@acme.eu")
    refused = await press(asked, path, "reject", comment="  ")
    assert refused.status_code == 422
    assert "Please say why in a comment." in refused.text
    assert 'aria-invalid="true"' in refused.text
    assert (await press(asked, path, "reject", comment="Too risky <today>.")).status_code == 303
    found = (await asked.run(run_id))["request"]
    assert (found["state"], found["votes"][0]["comment"]) == ("rejected", "Too risky <today>.")
    assert "Too risky &lt;today&gt;." in (await asked.web.get(path)).text


async def test_the_requester_cannot_approve_their_own_request(asked: Any) -> None:
    run_id = await open_request(asked, requester="ann@acme.eu")
    view = await asked.view(run_id)
    assert "ann@acme.eu" not in view["recipients"].values()
    answer = await asked.api.post(f"/api/runs/{run_id}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
    assert answer.status_code == 403
    assert answer.json()["verdict"] == "own_request"
    assert answer.json()["text"] == "You can't approve your own request."


async def test_requesting_changes_says_what_happens_next(service: Any) -> None:
    definition = deploy(policy={"outcomes": ["approve", "reject", "changes"]})
    service.workflows["deploy"] = Listed(approval.under("deploy", pinned(definition)), definition)
    path = await service.link(await open_request(service, requester="di@acme.eu"), "ann@acme.eu")
    answer = await press(service, path, "changes", comment="Which tests ran?")
    assert answer.status_code == 303, answer.text
    page = await service.web.get(answer.headers["location"])
    assert page.status_code == 200
    assert "Counted: you requested changes. You&#39;ll be asked again once the request has been edited." in page.text


async def test_a_vote_on_an_edited_request_is_not_counted(asked: Any) -> None:
    run_id = await open_request(asked, requester="di@acme.eu")
    path = await asked.link(run_id, "ann@acme.eu")
    shown = await asked.web.get(path)
    edited = await asked.api.patch(
        f"/api/runs/{run_id}/fields", json={"by": "di@acme.eu", "fields": {"version": "2.2"}}
    )
    assert edited.status_code == 200, edited.text
    await asked.engine.settle()
    answer = await asked.web.post(path, data=form_of(shown, "approve"), headers=OURS)
    assert answer.status_code == 409
    assert "The request has changed since you opened it" in answer.text
    assert "2.2" in answer.text
    assert (await asked.run(run_id))["request"]["votes"] == []


# ── links and forms that are refused ──


async def test_check_42_a_hundred_scans_leave_the_store_unchanged(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    before = asked.content()
    scanner = {
        "Sec-Purpose": "prefetch;prerender",
        "User-Agent": "Mozilla/5.0 (compatible; SafeLinks)",
        "X-Moz": "prefetch",
    }
    for number in range(50):
        assert (await asked.web.get(path, headers=scanner if number % 2 else {})).status_code == 200
        assert (await asked.web.head(path)).status_code == 200
    assert asked.content() == before


async def test_check_45_every_bad_link_is_one_and_the_same_404(asked: Any) -> None:
    run_id = await open_request(asked)
    good = (await asked.link(run_id, "ann@acme.eu")).removeprefix("/decisions/")
    hook_id = (await asked.view(run_id))["hook_id"]
    foreign = Tokens(["another-key-that-has-32-bytes-too!!"], installation=asked.tokens.installation)
    sign = asked.tokens.sign
    bad = {
        "cut": good[:-5],
        "first character changed": ("A" if good[0] != "A" else "B") + good[1:],
        "signed by somebody else": foreign.sign(DECISION, {"h": hook_id, "r": "1", "g": 1}),
        "of a webhook": sign("webhook.v1", {"h": hook_id, "g": 1}),
        "of a form": sign("form.v1", {"h": hook_id, "r": "1", "g": 1}),
        "of nobody": sign(DECISION, {"h": hook_id, "r": "99", "g": 1}),
        "of an older generation": sign(DECISION, {"h": hook_id, "r": "1", "g": 0}),
        "of no hook": sign(DECISION, {"h": "no-such-hook", "r": "1", "g": 1}),
        "of another shape": sign(DECISION, {"x": [1]}),
        "no token": "abc",
        "compressed": "." + good,
        "huge": "a" * 7_000,
        "with a NUL": "a%00b",
        "not ASCII": "%C3%A9",
    }
    before = asked.content()
    bodies = set()
    for kind, token in bad.items():
        shown = await asked.web.get(f"/decisions/{token}")
        posted = await asked.web.post(f"/decisions/{token}", data={"choice": "approve"}, headers=OURS)
        assert (shown.status_code, posted.status_code) == (404, 404), kind
        bodies |= {shown.text, posted.text}
    assert len(bodies) == 1
    assert asked.content() == before
    assert (await asked.web.get(f"/decisions/{'a' * 10_000}")).status_code == 414


@pytest.mark.parametrize(
    "tail",
    [
        "?utm_source=mail&mc_eid=1",
        "&utm_source=mail",
        ".",
        ")",
        "%3E",
        ",",
        "/",
        "%22",
        ").",
        "%E2%80%A6",
        "%20",
        "%0A",
        "_",
        "-",
        ";jsessionid=1",
        "%3C/a%3E",
        "**",
    ],
)
async def test_what_mail_programs_add_to_a_link_is_ignored(asked: Any, tail: str) -> None:
    run_id = await open_request(asked)
    path = await asked.link(run_id, "ann@acme.eu")
    page = await asked.web.get(path + tail)
    assert page.status_code == 200
    assert f'action="{path}"' in page.text
    answer = await asked.web.post(path + tail, data=form_of(page, "approve"), headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?done=counted")


async def test_bad_links_are_limited_and_good_ones_are_not(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    statuses = [(await asked.web.get(f"/decisions/{number}")).status_code for number in range(REFUSED_A_MINUTE + 1)]
    assert statuses == [404] * REFUSED_A_MINUTE + [429]
    assert (await asked.web.post("/webhooks/x")).status_code == 429
    assert (await asked.web.get(path)).status_code == 200
    assert (await press(asked, path, "approve")).status_code == 303


async def test_check_50_spellings_of_one_token_are_one_link(asked: Any) -> None:
    run_id = await open_request(asked)
    path = await asked.link(run_id, "ann@acme.eu")
    page = await asked.web.get(path)
    assert (await asked.web.post(f"{path}=", data=form_of(page, "approve"), headers=OURS)).status_code == 303
    again = await asked.web.post(path, data=form_of(page, "approve"), headers=OURS)
    assert again.status_code == 200
    assert len((await asked.run(run_id))["request"]["votes"]) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.acme.eu"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
        {"Origin": "https://evil.example"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
async def test_check_44_a_form_from_elsewhere_is_refused_and_audited(asked: Any, headers: dict[str, str]) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    form = form_of(await asked.web.get(path), "approve")
    before = asked.content()["events"]
    answer = await asked.web.post(path, data=form, headers=headers)
    assert answer.status_code == 403
    assert "nothing was changed" in answer.text
    assert asked.content()["events"] == before
    assert [line.entry.what for line in await asked.engine.audit_lines()].count("form_refused") == 1


@pytest.mark.parametrize("headers", [OURS, {}, {"Origin": "https://approve.acme.eu"}], ids=["browser", "w3m", "old"])
async def test_a_form_from_our_own_page_is_taken(asked: Any, headers: dict[str, str]) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    form = form_of(await asked.web.get(path), "approve")
    assert (await asked.web.post(path, data=form, headers=headers)).status_code == 303


async def test_check_44_a_form_needs_its_own_request_and_person(asked: Any) -> None:
    run_id, other = await open_request(asked), await open_request(asked)
    mine, theirs = await asked.link(run_id, "ann@acme.eu"), await asked.link(run_id, "bo@acme.eu")
    elsewhere = await asked.link(other, "ann@acme.eu")
    before = asked.content()["events"]
    for wrong in ("", "nonsense", urlsplit(mine).path.removeprefix("/decisions/")):
        answer = await asked.web.post(mine, data={"choice": "approve", "form_token": wrong}, headers=OURS)
        assert answer.status_code == 403
    for page in (theirs, elsewhere):
        form = form_of(await asked.web.get(page), "approve")
        assert (await asked.web.post(mine, data=form, headers=OURS)).status_code == 403
    assert asked.content()["events"] == before


async def test_a_page_open_for_too_long_must_be_read_again(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    form = form_of(await asked.web.get(path), "approve", comment="As typed.")
    await asked.clock.advance("31m")
    answer = await asked.web.post(path, data=form, headers=OURS)
    assert answer.status_code == 403
    assert "This page was open too long" in answer.text
    assert "As typed." in answer.text
    assert (await asked.web.post(path, data=form_of(answer, "approve"), headers=OURS)).status_code == 303


async def test_without_a_choice_or_with_a_strange_one_nothing_happens(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    page = await asked.web.get(path)
    for choice in ("", "explode"):
        assert (await asked.web.post(path, data=form_of(page, choice), headers=OURS)).status_code == 422


async def test_large_compressed_and_wrong_bodies_are_refused(asked: Any) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    form = form_of(await asked.web.get(path), "approve")
    assert (await asked.web.post(path, data=form | {"comment": "x" * 70_000}, headers=OURS)).status_code == 413
    assert (await asked.web.post(path, data=form, headers=OURS | {"Content-Encoding": "gzip"})).status_code == 415
    assert (await asked.web.post(path, json=form, headers=OURS)).status_code == 403
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert (await asked.web.request(method, path, headers=OURS)).status_code == 405


@pytest.mark.parametrize("origin", ["null", "https://approve.acme.eu", None])
async def test_a_form_token_is_enough_without_fetch_metadata(asked: Any, origin: str | None) -> None:
    """As browsers send it over plain http, and as Safari below 16.4 does anyway."""
    headers = {"Origin": origin} if origin else {}
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    form = form_of(await asked.web.get(path), "approve")
    other = await asked.link(await open_request(asked, requester="cy@acme.eu"), "ann@acme.eu")
    for bad in (
        {**form, "form_token": ""},
        {**form, "form_token": form_of(await asked.web.get(other), "")["form_token"]},
    ):
        assert (await asked.web.post(path, data=bad, headers=headers)).status_code == 403
    assert (await asked.web.post(path, data=form, headers={"Origin": "https://evil.example"})).status_code == 403
    cross = {"Origin": "null", "Sec-Fetch-Site": "cross-site"}
    assert (await asked.web.post(path, data=form, headers=cross)).status_code == 403
    assert (await asked.web.post(path, data=form, headers=headers)).status_code == 303


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n--b--"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx'),
        ("multipart/form-data; boundary=b; charset=punycode", b"--b\r\n" + b"9" * 60_000),
        ("multipart/form-data; boundary=" + "b" * 71, b"--b--"),
        ("application/x-www-form-urlencoded; charset=idna", b"a=1"),
        ("application/x-www-form-urlencoded", b"a=1&" * 1_100),
    ],
)
async def test_a_form_that_cannot_be_read_is_400(asked: Any, kind: str, body: bytes) -> None:
    path = await asked.link(await open_request(asked), "ann@acme.eu")
    before = asked.content()
    for url in (path, "/login", "/decisions/x"):
        answer = await asked.web.post(url, content=body, headers={**OURS, "Content-Type": kind})
        assert answer.status_code == 400, url
    assert asked.content() == before
