"""One tool call of the chat, decided in the chat, in Slack and by mail at the same moment."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.journey import Json, Service, with_samples

OUTCOME = r"(Approved|Rejected) by Ann Ode via (the chat|Slack|email)"
BY_ANN = "ecided by Ann Ode"
OWN_PAGE = {"origin": "null", "sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(with_samples(tmp_path_factory.mktemp("at_once")))
    service.start()
    yield service
    service.stop()
    service.http.close()


def asked(service: Service, chat: str, passenger: str) -> tuple[str, str]:
    """Ask for a booking; return the tool call's id and the run's."""
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": f"Book LH 2031 for {passenger}"}]}
    stream = service.http.post("/api/chat", json={"id": chat, "messages": [message]}).text
    found = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    call = next(each["toolCallId"] for each in found if each["type"] == "tool-approval-request")
    return call, found[0]["messageId"].removeprefix("answer_")


def plain(html: str) -> str:
    """The text of a page."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.mark.agents(8)
@pytest.mark.parametrize("first", [None, 0, 1])
async def test_one_of_three_answers_at_once_wins(service: Service, first: int | None) -> None:
    """`first`: the one with a head start, so that each of them wins now and then. A repeated answer is no refusal."""
    passenger, chat = f"Zoe {'Xyz' if first is None else ('Abc', 'Def')[first]}", f"at-once-{first}"
    call, run_id = asked(service, chat, passenger)

    def slack_card() -> Json:
        found = [m for m in service.play("GET", "/slack/messages") if passenger in json.dumps(m["blocks"])]
        return found[-1] if found else {}

    def mail() -> str:
        texts = [m["text"] for m in service.mails("ann@acme.eu") if passenger in m["text"]]
        return next(iter(re.findall(r"http://\S+/decisions/\S+", texts[-1])), "") if texts else ""

    card, link = service.eventually(slack_card), service.eventually(mail)
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', service.page(link).text))
    async with httpx2.AsyncClient(base_url=service.http.base_url, timeout=20, trust_env=False) as http:

        async def press(number: int, url: str, **sent: Any) -> httpx2.Response:
            await asyncio.sleep(0 if first in (None, number) else 0.01)
            return await http.post(url, headers=OWN_PAGE, follow_redirects=True, **sent)

        click = {"user": "U0ANN", "channel": card["channel"], "ts": card["ts"], "button": "Reject"}
        chat_answer, slack_answer, mail_answer = await asyncio.gather(
            press(0, f"/api/chat/{chat}/approvals/{call}", json={"approved": True}),
            press(1, "/playground/slack/click", json=click),
            press(2, link, data=hidden | {"choice": "reject"}),
        )

    page = service.eventually(lambda: re.search(OUTCOME, plain(service.http.get(f"/chat/{chat}").text)))
    state, via = page.groups()
    assert state == ("Approved" if via == "the chat" else "Rejected")
    slack = slack_answer.json()
    has_button = "ephemeral" in slack  # else the card had the outcome before it was pressed
    informed = {
        "the chat": BY_ANN in chat_answer.json().get("detail", chat_answer.json().get("text", "")),
        "Slack": BY_ANN in (slack.get("ephemeral") or "") if has_button else via != "Slack",
        "email": BY_ANN in plain(mail_answer.text),
    }
    assert informed == {"the chat": True, "Slack": True, "email": True} | {via: False}
    ended = f"{state} by Ann Ode via {via}"

    def copies() -> list[str]:
        pages = service.page(link).text, service.page(f"/requests/{run_id}").text
        return [plain(each) for each in (json.dumps(slack_card()), *pages)]

    service.eventually(lambda: all(ended in each for each in copies()), 10)
    booked = f"Booked LH 2031 for {passenger}" in json.dumps(service.run(run_id, wait=10)["view"])
    assert booked is (state == "Approved")
