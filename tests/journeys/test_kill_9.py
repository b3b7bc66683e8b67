"""`kill -9` at any point of the main job, and a start: nothing is lost, nothing is decided or done twice, and nobody
has to do anything by hand.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.support.journey import PROGRAM, Json, Service, buttons, with_samples
from tests.support.thorough import THOROUGH

RESTART = 30.0  # seconds from the start to "ready" on a busy machine; an idle one takes two or three
MOST_DELAY = 0.06  # seconds after which the service is certainly working on a vote

pytestmark = pytest.mark.promise(1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One folder for the whole file: each start also finds everything that went before."""
    service = Service(with_samples(tmp_path_factory.mktemp("house")))
    yield service
    if service.process is not None:
        service.kill()
    service.http.close()


@pytest.fixture
def service(house: Service) -> Service:
    return house if house.process is not None else house.start()


def restart(service: Service) -> None:
    began = time.monotonic()
    service.start()
    assert time.monotonic() - began < RESTART


def ask(service: Service, version: str) -> str:
    return service.open(service="api", version=version, env="prod")


def card_of(service: Service, version: str) -> Json:
    return service.card(f"Deploy api {version} to prod")


def cards_of(service: Service, version: str, channel: str = "#deploys") -> list[Json]:
    return [m for m in service.messages(channel) if f"Deploy api {version} to prod" in m["text"] and m["blocks"]]


def calls_of(service: Service, version: str) -> list[Json]:
    return [call for call in service.play("GET", "/http/requests") if call["json"]["version"] == version]


def ended_once(service: Service, run_id: str, version: str, choice: str = "approve", had_card: bool = True) -> None:
    """The run has ended by one decision, everybody can see it, and its follow-ups were done once."""
    ended = service.ended(run_id)
    assert ended["result"]["approved"] is (choice == "approve")
    types = [event["type"] for event in service.events(run_id)]
    assert types.count("run_created") == types.count("run_completed") == 1
    assert types[-1] == "run_completed"
    votes = [vote for vote in ended["request"]["votes"] if vote["choice"] == choice]
    assert len(votes) == len(ended["request"]["votes"]) == 1
    assert len(answers_that_decide(service, run_id)) == 1
    cards = cards_of(service, version)  # Slack takes one message a second; a vote by the API may be faster
    assert len(cards) == 1 or (len(cards) == 0 and not had_card)
    service.eventually(lambda: all(buttons(card) == [] for card in cards_of(service, version)))
    calls = calls_of(service, version)
    assert len({call["headers"]["webhook-id"] for call in calls}) == (1 if choice == "approve" else 0)
    assert all(call["signature_valid"] for call in calls)


def answers_that_decide(service: Service, run_id: str) -> list[Json]:
    answered = [event for event in service.events(run_id) if event["type"] == "hook_responded"]
    return [event for event in answered if '"verdict": "decided"' in str(event["data"])]


def mails_of(service: Service, version: str) -> list[str]:
    """Return the approvers notified by mail, once for each mail."""
    return sorted(m["to"] for m in service.mails() if f"api {version} " in m["subject"] and has_choices(m))


def has_choices(mail: Json) -> bool:
    """An outcome has a link to look at, too, but is a reply to the first mail or goes to the requester."""
    return "In-Reply-To" not in mail["headers"] and mail["to"] != "bo@acme.eu"


def test_a_kill_right_after_the_202_loses_nothing(service: Service) -> None:
    run_id = ask(service, "2.1")
    service.kill()
    restart(service)
    service.settled(run_id)
    assert service.click("U0ANN", card_of(service, "2.1"), "Approve")["status"] == 200
    ended_once(service, run_id, "2.1")
    assert set(mails_of(service, "2.1")) == {"ann@acme.eu", "cy@acme.eu"}  # one under way at the kill may come again


def test_a_kill_between_card_and_click_changes_nothing(service: Service) -> None:
    run_id = ask(service, "3.1")
    before = service.settled(run_id)
    shown, mailed = service.messages(), service.mails()
    card = card_of(service, "3.1")
    for _ in range(2):
        service.kill()
        restart(service)
    assert service.run(run_id) == before
    assert service.messages() == shown
    assert service.click("U0ANN", card, "Approve")["status"] == 200
    ended_once(service, run_id, "3.1")
    assert service.mails()[: len(mailed)] == mailed
    assert mails_of(service, "3.1") == ["ann@acme.eu", "cy@acme.eu"]


def test_the_link_in_a_mail_outlives_the_process(service: Service) -> None:
    run_id = ask(service, "4.1")
    service.settled(run_id)
    link = service.link("ann@acme.eu")
    shown = service.page(link)
    service.kill()
    restart(service)
    assert service.page(link).status_code == shown.status_code == 200
    assert service.press(link, "reject", comment="not today").status_code == 200
    ended_once(service, run_id, "4.1", "reject")


def test_a_kill_right_after_an_answered_click_loses_nothing(service: Service) -> None:
    first, second = ask(service, "5.1"), ask(service, "5.2")
    card_of(service, "5.2")
    pressed = service.click("U0ANN", card_of(service, "5.1"), "Approve")
    service.kill()
    assert pressed["status"] == 200
    restart(service)
    ended_once(service, first, "5.1")

    answer = service.vote(second, "cy@acme.eu", "approve")
    service.kill()
    assert answer.status_code == 201
    restart(service)
    ended_once(service, second, "5.2")


def test_a_kill_during_a_vote_counts_it_once_at_most(service: Service) -> None:
    """A vote answered by 2xx counts; without an answer it is repeated; either way the run ends once."""
    chance = random.Random(9)  # noqa: S311  # which moments are tried, the same each time
    with ThreadPoolExecutor(1) as hand:
        for version in ("6.1", "6.2", "6.3", "6.4")[: 4 if THOROUGH else 2]:
            run_id = ask(service, version)
            service.settled(run_id)
            vote = hand.submit(tried, service, run_id)
            time.sleep(chance.uniform(0, MOST_DELAY))
            service.kill()
            answer = vote.result()
            restart(service)
            if answer is None:
                again = service.vote(run_id, "ann@acme.eu", "approve")
                assert again.status_code in (200, 201, 409), again.text
                assert "Ann Ode" in again.text or again.json()["verdict"] in ("decided", "already"), again.text
            else:
                assert answer.status_code == 201, answer.text
            ended_once(service, run_id, version)


def tried(service: Service, run_id: str) -> httpx2.Response | None:
    """The answer to Ann's vote, None if the connection broke."""
    try:
        return service.vote(run_id, "ann@acme.eu", "approve")
    except httpx2.TransportError:
        return None


def fault(service: Service, place: str, **script: Any) -> None:
    service.play("POST", f"/{place}/faults", json={"seconds": 30} | script)


def struck(service: Service, place: str) -> bool:
    """The scripted fault has befallen a call, which now hangs."""
    return not service.play("GET", f"/{place}/faults")


def test_a_kill_while_the_card_is_posted_posts_it_once(service: Service) -> None:
    fault(service, "slack", kind="slow", method="chat.postMessage")
    run_id = ask(service, "7.1")
    service.eventually(lambda: struck(service, "slack"))
    service.kill()
    restart(service)
    assert service.click("U0ANN", card_of(service, "7.1"), "Approve")["status"] == 200
    ended_once(service, run_id, "7.1")


def test_a_card_whose_response_was_lost_is_found_again(service: Service) -> None:
    """Slack posts the card, its response is lost, and the service dies: the card is found, not posted again."""
    fault(service, "slack", kind="drop_after", method="chat.postMessage")
    run_id = ask(service, "8.1")
    card_of(service, "8.1")
    service.kill()
    restart(service)
    service.settled(run_id)
    assert service.click("U0ANN", card_of(service, "8.1"), "Approve")["status"] == 200
    ended_once(service, run_id, "8.1")


def test_a_kill_during_a_follow_up_call_calls_once(service: Service) -> None:
    fault(service, "http", kind="slow", method="deploy-api")
    run_id = ask(service, "9.1")
    service.click("U0ANN", card_of(service, "9.1"), "Approve")
    service.eventually(lambda: struck(service, "http"))
    service.kill()
    restart(service)
    ended_once(service, run_id, "9.1")
    assert len(calls_of(service, "9.1")) == 1


def test_a_call_without_a_response_is_repeated_with_its_id(service: Service) -> None:
    fault(service, "http", kind="drop_after", method="deploy-api")
    run_id = ask(service, "10.1")
    service.click("U0ANN", card_of(service, "10.1"), "Approve")
    service.eventually(lambda: calls_of(service, "10.1"))
    service.kill()
    restart(service)
    ended_once(service, run_id, "10.1")
    assert len(calls_of(service, "10.1")) == 2


@pytest.mark.parametrize("kills", [3 if THOROUGH else 1])
def test_a_kill_during_the_start_leaves_nothing_behind(service: Service, kills: int) -> None:
    """A start that is killed before it is ready leaves nothing that the next one stumbles over."""
    chance = random.Random(kills)  # noqa: S311
    service.kill()
    service.program = PROGRAM  # it imports, too
    for _ in range(kills):
        service.launch()
        time.sleep(chance.uniform(0.4, 1.6))
        service.kill()
    service.program = None
    restart(service)
    run_id = ask(service, "12.1")
    assert service.click("U0ANN", card_of(service, "12.1"), "Approve")["status"] == 200
    ended_once(service, run_id, "12.1")


def test_a_kill_amid_many_runs_loses_none(service: Service) -> None:
    versions = [f"50.{n}" for n in range(12)]
    with ThreadPoolExecutor(4) as hands:
        runs = dict(zip(versions, hands.map(lambda version: ask(service, version), versions), strict=True))
        service.kill()
        restart(service)
        voting = [hands.submit(tried, service, run_id) for run_id in runs.values()]
        service.eventually(lambda: sum(vote.done() for vote in voting) >= 3)
        service.kill()
        answers = [vote.result() for vote in voting]
        restart(service)
        counted = [answer for answer in answers if answer is not None]
        assert 3 <= len(counted) < len(answers)
        assert {answer.status_code for answer in counted} == {201}
        for run_id, answer in zip(runs.values(), answers, strict=True):
            if answer is None:
                assert service.vote(run_id, "ann@acme.eu", "approve").status_code in (200, 201, 409)
    for version, run_id in runs.items():
        ended_once(service, run_id, version, had_card=False)
