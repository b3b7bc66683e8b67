"""Comments, claims, reminders and snoozes over the API."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed

ANN, BO, DI = "ann@acme.eu", "bo@acme.eu", "di@acme.eu"


OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
TALK: dict[str, Any] = {
    "workflow": {"id": "talk-api", "title": "Talk about it", "request": ["*"]},
    "stage": [{"id": "go", "from": [ANN, BO]}],
    "deliver": {"email": True},
    "clock": {"deadline": "4h"},
}


@pytest.fixture
def service(service: Any) -> Any:
    definition = Definition.model_validate(TALK)
    service.workflows["talk-api"] = Listed(approval.under("talk-api", pinned(definition)), definition)
    return service


async def test_talk_over_the_api(service: Any) -> None:
    run_id = await service.start("talk-api", {}, requester=DI)
    post, path = service.api.post, f"/api/runs/{run_id}"
    said = await post(f"{path}/comments", json={"by": ANN, "text": "Why <b>today</b>?"})
    assert (said.status_code, said.json()["verdict"]) == (201, "commented")
    assert (await post(f"{path}/claim", json={"by": ANN})).json()["verdict"] == "claimed"
    assert (await post(f"{path}/snooze", json={"by": BO, "until": "1h"})).json()["verdict"] == "snoozed"
    assert (await post(f"{path}/reminders", json={"by": DI})).json()["text"] == "Reminded Ann Ode."
    late = await post(f"{path}/reminders", json={"by": DI})
    assert late.status_code == 429
    assert late.json()["text"] == late.json()["detail"]
    await service.engine.settle()
    request = (await service.run(run_id))["request"]
    [comment] = request["comments"]
    assert (comment["by"], comment["text"]) == (ANN, "Why <b>today</b>?")
    assert comment["actor"]["kind"] == "app"
    assert request["claimed_by"] == ANN
    assert [one["by"] for one in request["snoozes"]] == [BO]
    assert (await post(f"{path}/claim", json={"by": ANN, "ends": True})).json()["verdict"] == "released"


async def test_talk_that_doesnt_fit_is_refused(service: Any) -> None:
    run_id = await service.start("talk-api", {}, requester=DI)
    post, path = service.api.post, f"/api/runs/{run_id}"
    for way, body, status in [
        ("comments", {"by": ANN}, 422),
        ("comments", {"by": ANN, "text": ""}, 422),
        ("comments", {"by": ANN, "text": "x" * 2_001}, 422),
        ("comments", {"by": ANN, "text": "x", "via": "slack"}, 422),
        ("comments", {"by": ANN, "text": "x", "thread": "C1/2"}, 422),
        ("comments", {"by": "nobody@elsewhere.example", "text": "x"}, 403),
        ("claim", {}, 422),
        ("claim", {"by": DI}, 403),
        ("claim", {"by": ANN, "ends": "yes"}, 422),
        ("reminders", {"by": ANN}, 403),
        ("snooze", {"by": ANN, "until": "soon"}, 422),
        ("snooze", {"by": ANN, "until": "0s"}, 422),
        ("snooze", {"by": DI}, 403),
    ]:
        answer = await post(f"{path}/{way}", json=body)
        assert answer.status_code == status, (way, body, answer.text)
    assert (await post("/api/runs/run_0/comments", json={"by": ANN, "text": "x"})).status_code == 404


async def test_twenty_comments_an_hour(service: Any) -> None:
    run_id = await service.start("talk-api", {}, requester=DI)
    path = f"/api/runs/{run_id}/comments"
    codes = [
        (await service.api.post(path, json={"by": ANN, "text": f"Comment {number}"})).status_code
        for number in range(21)
    ]
    assert codes == [201] * 20 + [429]
    assert (await service.api.post(path, json={"by": BO, "text": "I can"})).status_code == 201


def hidden(page: httpx2.Response) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))


async def test_talk_on_the_page(service: Any) -> None:
    run_id = await service.start("talk-api", {}, requester=DI)
    path = await service.link(run_id, ANN)

    async def send(**form: str) -> httpx2.Response:
        shown = await service.web.get(path)
        answer: httpx2.Response = await service.web.post(path, data=hidden(shown) | form, headers=OURS)
        await service.engine.settle()
        if answer.status_code != 303:
            return answer
        return await service.web.get(answer.headers["location"])  # type: ignore[no-any-return]

    page = await send(talk="comment", remark="Why <i>today</i>?")
    assert "Your comment was added." in page.text
    assert "Why &lt;i&gt;today&lt;/i&gt;?" in page.text
    assert 'value="approve"' in page.text, "they can still decide"
    assert "on it, and everybody can see that" in (await send(talk="claim")).text
    page = await send(talk="snooze-1h")
    assert "No reminders for you until" in page.text
    assert "No longer on it" in page.text
    assert "get reminders again" in (await send(talk="snooze-now")).text
    assert (await send(talk="comment", remark=" ")).status_code == 422
    assert (await send(talk="remind")).status_code == 403
    assert (await send(talk="anything")).status_code == 422
    request = (await service.run(run_id))["request"]
    assert (request["claimed_by"], request["snoozes"]) == (ANN, [])
