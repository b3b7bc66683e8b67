"""Deciding by mail, in the product as a user starts it: the real service, SMTP, pages, and the playground's mailbox."""

from __future__ import annotations

import re
import time

import httpx2
import pytest

from tests.support.journey import Json, Service

ASKED = {"account": "aws-prod", "role": "admin", "duration": "4h", "reason": "The nightly backup fails since Monday."}
GUESS = "not the code we sent you"
OVER = "expired, was used, or was tried too often"


@pytest.mark.check(60)
def test_one_command_leads_to_a_decision_by_mail(installed: Service) -> None:
    """No credentials, no network but this machine's own, and under a minute."""
    started = time.monotonic()
    service = installed.start()
    run_id = service.open()
    link = service.link("ann@acme.eu")
    assert link.startswith(f"http://127.0.0.1:{service.port}/decisions/")
    answer = service.press(link, "approve", comment="Go.")
    assert "Approved" in answer.text
    ended = service.ended(run_id)
    assert (ended["result"]["by"], ended["result"]["via"]) == ("ann@acme.eu", "email")
    service.eventually(lambda: [call for call in service.play("GET", "/http/requests") if call["name"] == "deploy-api"])
    service.eventually(lambda: [mail for mail in service.mails("ann@acme.eu") if "Approved by Ann Ode" in mail["text"]])
    assert time.monotonic() - started < 60


@pytest.mark.check(53)
def test_reminder_and_outcome_join_the_first_mails_thread(service: Service) -> None:
    run_id = service.open()
    first = service.eventually(lambda: service.mails("ann@acme.eu"))[0]
    service.play("POST", "/clock", json={"advance": "45m"})
    service.eventually(lambda: len(service.mails("ann@acme.eu")) > 1)
    service.press(service.link("cy@acme.eu"), "approve")
    service.ended(run_id)
    mails = service.eventually(
        lambda: [m for m in service.mails("ann@acme.eu") if "Approved by" in m["text"]] and service.mails("ann@acme.eu")
    )
    ids = [mail["headers"]["Message-ID"] for mail in mails]
    assert len(set(ids)) == len(ids) >= 3
    for later in mails[1:]:
        raw = later["raw"].partition("\r\n\r\n")[0] or later["raw"].partition("\n\n")[0]
        assert f"In-Reply-To: {first['headers']['Message-ID']}" in raw
        assert f"References: {first['headers']['Message-ID']}" in raw
        title = first["subject"].removeprefix("Please decide: ")
        is_outcome = "Approved by" in later["text"]
        assert later["subject"] == (f"Approved: {title}" if is_outcome else f"Re: {first['subject']}")
    assert all(len(one.strip("<>")) <= 60 for one in ids)


@pytest.mark.check(48)
def test_no_log_has_a_link_an_address_or_a_secret(installed: Service) -> None:
    """Read every log while a request is mailed, viewed, attacked and decided."""
    service = installed.start()
    service.play("POST", "/mail/faults", json={"kind": "error", "method": "RCPT", "code": 550, "channel": "cy@acme.eu"})
    run_id = service.open()
    link = service.link("ann@acme.eu")
    token = link.rpartition("/")[2]
    service.page(link + "?choice=approve")
    service.page(link[:-4] + "abcd")
    service.post(link, {"choice": "approve", "form_token": "made-up"})
    service.http.post(link, content=b"\xff" * 200_000)
    service.press(link, "reject", comment="Not on a Friday.")
    service.ended(run_id)
    asked = service.open("prod-access", "di@acme.eu", **ASKED)
    metrics = service.http.get("/metrics").text
    events = str(service.events(run_id)) + str(service.events(asked))
    service.stop()
    said = service.log() + metrics
    assert said.count("\n") > 5
    for secret in (token, link, token[:40]):
        assert secret not in said
        assert secret not in events
    assert not re.search(r"/decisions/[\w-]{10}", said + events)
    assert not re.search(r"[\w.]+@acme\.eu", said)
    assert not re.search(r"xox[bp]-|xapp-", said)
    assert "Not on a Friday" not in said


# ── link_auth = "code" ──


def forms(page: httpx2.Response) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))


def ask_for_code(service: Service, link: str) -> tuple[httpx2.Response, str]:
    """Press "Send the code", and return the next page and the digits of the mail."""
    known = len(codes(service))
    page = service.post(link, forms(service.page(link)) | {"send_code": "yes"})
    assert page.status_code == 200, page.text
    mail = service.eventually(lambda: codes(service)[known:])[0]
    digits = re.search(r"Your code is (\d{6})\.", mail["text"])
    assert digits
    return page, digits[1]


def codes(service: Service) -> list[Json]:
    return [mail for mail in service.mails() if mail["subject"].startswith("Your code:")]


def test_a_mailed_code_is_needed_where_a_link_is_not_enough(service: Service) -> None:
    """prod-access.toml, from end to end."""
    run_id = service.open("prod-access", "di@acme.eu", **ASKED)
    link = service.link("cy@acme.eu")
    page = service.page(link)
    assert "Send the code" in page.text
    assert 'name="choice"' not in page.text
    forwarded = service.post(link, forms(page) | {"choice": "approve", "code": "123456"})
    assert forwarded.status_code == 403  # they have the link, but not the mailbox

    page, digits = ask_for_code(service, link + "?choice=approve")
    wrong = f"{(int(digits) + 1) % 1_000_000:06}"
    tries = [service.post(link, forms(page) | {"choice": "approve", "code": wrong}) for _ in range(5)]
    assert [GUESS in one.text for one in tries] == [True] * 5
    assert OVER in service.post(link, forms(page) | {"choice": "approve", "code": digits}).text

    page, digits = ask_for_code(service, link)
    service.play("POST", "/clock", json={"advance": "11m"})
    fresh = forms(page) | {"form_token": forms(service.page(link))["form_token"]}
    assert OVER in service.post(link, fresh | {"choice": "approve", "code": digits}).text
    assert service.run(run_id)["request"]["votes"] == []

    page, digits = ask_for_code(service, link)
    done = service.post(link, forms(page) | {"choice": "approve", "code": digits})
    assert done.status_code == 200
    assert "Approved" in done.text
    assert service.ended(run_id)["result"]["by"] == "cy@acme.eu"
    sent = codes(service)
    assert [mail["to"] for mail in sent] == ["cy@acme.eu"] * 3
    assert all("/decisions/" not in mail["text"] + mail["html"] for mail in sent)
    granted = service.eventually(lambda: service.play("GET", "/http/requests"))
    assert granted[0]["json"]["seconds"] == "14400"
