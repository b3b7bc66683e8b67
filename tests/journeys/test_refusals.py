"""What must not decide doesn't: scanners, forgers, outsiders, the requester, and late voters."""

from __future__ import annotations

import pytest
from itsdangerous import URLSafeSerializer

from tests.support.journey import Service

SCANNER = {
    "user-agent": "Mozilla/5.0 (compatible; SafeLinksScanner/1.0)",
    "sec-purpose": "prefetch",
    "purpose": "prefetch",
    "x-forwarded-host": "evil.example",
}


def test_opening_a_link_a_hundred_times_changes_nothing(service: Service) -> None:
    run_id = service.open()
    link = service.link("ann@acme.eu")
    service.card()
    service.settled(run_id)
    before = service.stored()
    for headers in (SCANNER, {}):
        for method in ("GET", "HEAD"):
            for _ in range(25):
                answer = service.http.request(method, link, headers=headers)
                assert answer.status_code == 200
    assert service.stored() == before


def test_every_bad_link_gets_the_same_404(service: Service) -> None:
    run_id = service.open()
    base, _, token = service.link("ann@acme.eu").rpartition("/")
    payload = {"h": "x", "r": "1", "g": 1}
    bad = [
        "x",
        token[:-5],
        token[5:],
        token.swapcase(),
        token.replace(".", "%2E%2E", 1),
        str(URLSafeSerializer("k" * 48, salt="webhook.v1").dumps(payload)),
        str(URLSafeSerializer("k" * 48, salt="decision.v1").dumps(payload)),
        "." + token,
        token * 40,
    ]
    service.settled(run_id)
    before = without_audit(service)
    shown = [service.http.get(f"{base}/{token}") for token in bad]
    posted = [service.post(f"{base}/{token}", {"choice": "approve"}) for token in bad]
    assert {answer.status_code for answer in shown + posted} == {404}
    assert len({answer.text for answer in shown}) == len({answer.text for answer in posted}) == 1
    assert without_audit(service) == before


def without_audit(service: Service) -> list[str]:
    return [line for line in service.stored() if 'INTO "audit"' not in line and "INTO audit" not in line]


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        ("U0BO", "You can't approve your own request."),
        ("U0CFO", "You're not an approver for this request"),
    ],
)
def test_a_refused_click_changes_nothing_and_is_logged(service: Service, user: str, sentence: str) -> None:
    run_id = service.open()
    before = service.settled(run_id)
    card = service.card()
    pressed = service.click(user, card, "Approve")
    assert sentence in pressed["ephemeral"]
    after = service.run(run_id)
    assert after["request"] == before["request"]
    assert service.card() == card
    received = [e for e in service.events(run_id) if e["type"] == "hook_received"]
    answered = [e for e in service.events(run_id) if e["type"] == "hook_responded"]
    assert len(received) == len(answered) == 1


def test_mail_and_api_refuse_the_same_people(service: Service) -> None:
    run_id = service.open()
    service.card()
    own = service.vote(run_id, "bo@acme.eu", "approve")
    stranger = service.vote(run_id, "cfo@acme.eu", "approve")
    assert (own.status_code, stranger.status_code) == (403, 403)
    assert "You can't approve your own request." in own.text
    assert service.run(run_id)["request"]["votes"] == []


def test_a_late_click_learns_who_decided_and_when(service: Service) -> None:
    run_id = service.open()
    card = service.card()
    link = service.link("cy@acme.eu")
    service.click("U0ANN", card, "Approve")
    ended = service.ended(run_id)
    late = service.vote(run_id, "cy@acme.eu", "reject", comment="too late")
    assert late.status_code == 409
    assert "Ann Ode" in late.text
    page = service.page(link)
    assert "Ann Ode" in page.text
    assert service.run(run_id)["result"] == ended["result"]
    audited = [line for line in service.stored() if "act_refused" in line]
    assert len(audited) == 1


def test_forms_from_other_links_or_sites_decide_nothing(service: Service) -> None:
    first, second = service.open(), service.open(service="web", version="9", env="prod")
    links = service.eventually(lambda: len(service.mails("ann@acme.eu")) == 2) and [service.link("ann@acme.eu")]
    other = service.link("cy@acme.eu")
    no_form = service.post(links[0], {"choice": "approve"})
    crossed = service.http.post(
        links[0], data={"choice": "approve"}, headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    )
    assert no_form.status_code in (400, 403, 422)
    assert crossed.status_code == 403
    assert service.page(other).status_code == 200
    for run_id in (first, second):
        assert service.run(run_id)["request"]["votes"] == []
