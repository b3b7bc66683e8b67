"""Links in real mails: sent by the real channel, kept by the playground's mailbox, opened by browsers."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import shutil
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import pytest

from approvals_bot.durable.tokens import Tokens
from approvals_bot.playground.mailbox import MailServer
from approvals_bot.web.guard import REFUSED_A_MINUTE
from approvals_bot.web.links import DECISION, FORM
from tests.support.browsing import CHROMIUM, a_port, needs_chromium, serving
from tests.support.posting import a_posting_service, until

W3M = shutil.which("w3m")
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
LOOK = 10.0  # seconds that a scanner keeps each page open
OPEN_ALL = bool(os.environ.get("APPROVALS_BOT_TEST_ALL_LINKS"))  # every link in the browser: minutes on a busy machine


@pytest.fixture
async def posting(open_service: Any) -> AsyncIterator[Any]:
    """A service that a browser can reach, and the mailbox of its mails: (service, mailbox, url)."""
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with a_posting_service(open_service, url) as (service, mailbox), serving(service.app, bound):
            yield service, mailbox, url


def links(mailbox: MailServer) -> list[str]:
    """Find every link of every mail, in both parts."""
    found = [re.findall(r"https?://[^\s\"<>]+", mail.text + " " + mail.html) for mail in mailbox.mails]
    return list(dict.fromkeys(link.replace("&amp;", "&") for each in found for link in each))


async def settled(service: Any) -> None:
    """Wait until the receipts of the mails are in the log."""
    await service.engine.settle()


# ── 43: what opens every link ──


@pytest.mark.check(43)
@needs_chromium
@pytest.mark.timeout(300)
async def test_a_browser_that_runs_scripts_on_every_link_decides_nothing(
    posting: Any,
) -> None:
    """A browser's page costs a hundred times an answer's. So by default it opens one link of each mail, every kind in
    turn, and of the others is made sure that they are the same kind of page, on which nothing can happen unasked.
    """
    service, mailbox, url = posting
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pages go untried")
    for number in range(34):
        await service.start("deploy", {"version": f"2.{number}"}, requester="di@acme.eu")
    await until(lambda: len(mailbox.mails) >= 102)
    await settled(service)
    every = links(mailbox)
    plain = [link for link in every if "?" not in link]
    assert len(plain) == 102
    assert len(every) > 300  # with those that show a choice first
    per_mail = [[link for link in every if link.partition("?")[0] == first] for first in plain]
    opened = every if OPEN_ALL else [mine[number % len(mine)] for number, mine in enumerate(per_mail)]
    before = service.content()
    for link in set(every) - set(opened):
        assert is_inert(await service.web.get(link.removeprefix(url)))
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = await browser.new_context()
        sent: list[str] = []
        context.on("request", lambda request: sent.append(request.method))
        seen: set[int] = set()

        async def look(path: list[str]) -> None:
            """Open the links one by one in a tab; the last stays open for its scripts to run."""
            page = await context.new_page()
            for link in path:
                answer = await page.goto(link)
                seen.add(answer.status)

        share = [opened[start::20] for start in range(20)]
        started = time.monotonic()
        await asyncio.gather(*(look(each) for each in share))
        await asyncio.sleep(max(0.0, LOOK - (time.monotonic() - started)))
        await browser.close()
    assert seen == {200}
    assert set(sent) == {"GET"}
    assert len(sent) >= len(opened) >= 102
    assert {link.partition("?")[2] for link in opened} == {link.partition("?")[2] for link in every}
    assert service.content() == before


def is_inert(page: Any) -> bool:
    """Return whether the page can do nothing before somebody presses a button: no scripts, nothing that loads."""
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<form" in page.text
    return not re.search(r"<script|<iframe|<object|<embed|<meta http-equiv|\son\w+\s*=|javascript:", page.text, re.I)


@pytest.mark.check(43)
@needs_chromium
async def test_the_count_would_see_a_decision(posting: Any) -> None:
    """The negative control: the same browser does change the store by pressing the button."""
    service, mailbox, _ = posting
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pages go untried")
    await service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
    await until(lambda: len(mailbox.mails) >= 3)
    await settled(service)
    before = service.content()
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(next(link for link in links(mailbox) if link.endswith("?choice=approve")))
        await page.click("button.chosen")
        await page.wait_for_url("**?done=counted")
        await browser.close()
    assert service.content() != before


# ── who has voted hears of it ──


async def test_a_vote_by_link_is_confirmed_by_a_mail_that_can_undo_it(posting: Any) -> None:
    service, mailbox, url = posting
    run_id = await service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
    await until(lambda: len(mailbox.mails) >= 3)
    await settled(service)
    first = next(mail for mail in mailbox.mails if mail.to == "ann@acme.eu")
    path = await service.link(run_id, "ann@acme.eu")
    assert (await press(service, path, "approve")).status_code == 303
    await until(lambda: len(mailbox.mails) >= 4)
    confirmation = mailbox.mails[-1]
    assert confirmation.to == "ann@acme.eu"
    assert confirmation.headers["In-Reply-To"] == first.headers["Message-ID"]
    assert "Your vote has been counted." in confirmation.text
    assert (
        "You approved this via email. Not you? You can undo this vote while the request is open:" in confirmation.text
    )
    back = next(link for link in links(mailbox) if link.endswith("?choice=take_back"))
    shown = await service.web.get(back.removeprefix(url))
    assert "You chose “Undo vote”" in shown.text
    assert (await press(service, path, "take_back")).status_code == 303
    assert (await service.run(run_id))["request"]["votes"] == []
    for person in ("ann@acme.eu", "bo@acme.eu"):
        await press(service, await service.link(run_id, person), "approve")
    await until(lambda: [mail.subject.startswith("Approved:") for mail in mailbox.mails].count(True) >= 3)
    ended = [mail for mail in mailbox.mails if "Approved by Bo Lund" in mail.text]
    assert sorted(mail.to for mail in ended if "Not you? The vote can no longer be undone" in mail.text) == [
        "ann@acme.eu",
        "bo@acme.eu",
    ]
    assert all(
        "so please contact Di Oz and your Approvals admin" in mail.text for mail in ended if "Not you" in mail.text
    )


async def press(service: Any, path: str, choice: str) -> Any:
    page = await service.web.get(path)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
    answer = await service.web.post(path, data=hidden | {"choice": choice}, headers=OURS)
    await service.engine.settle()
    return answer


# ── 46: a text browser ──


@pytest.mark.check(46)
@pytest.mark.skipif(W3M is None, reason="w3m is not installed: nobody has decided in a text browser")
async def test_a_request_is_decided_in_w3m(posting: Any) -> None:
    service, mailbox, _ = posting
    run_id = await service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
    await until(lambda: len(mailbox.mails) >= 3)
    mail = next(mail for mail in mailbox.mails if mail.to == "ann@acme.eu")
    link = re.search(r"http://\S+/decisions/\S+", mail.text)
    assert link
    shown = await asyncio.to_thread(in_w3m, link[0], ["/Approve: Deploy\r", "\r"], "Counted:")
    assert "Counted:1of2" in "".join(shown.split())  # w3m moves the cursor over spaces that are there already
    await settled(service)
    votes = (await service.run(run_id))["request"]["votes"]
    assert [(vote["by"], vote["choice"]) for vote in votes] == [("ann@acme.eu", "approve")]


def in_w3m(link: str, keys: list[str], wanted: str) -> str:
    """Return what w3m shows on a terminal of 80 by 60 after these keys."""
    assert W3M is not None
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {"TERM": "xterm", "LINES": "60", "COLUMNS": "80", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
        os.execve(W3M, ["w3m", "-o", "use_mouse=0", "-o", "confirm_qq=0", link], environment)  # noqa: S606
    shown = b""

    def read(seconds: float, wanted: bytes = b"\0") -> None:
        nonlocal shown
        end = time.monotonic() + seconds
        while wanted not in shown and select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
            shown += os.read(terminal, 65_536)

    try:
        read(10.0, b"Approve")
        for key in keys:
            read(0.5)
            os.write(terminal, key.encode())
        read(10.0, wanted.encode())
    finally:
        os.write(terminal, b"Q")
        os.close(terminal)
        os.waitpid(pid, 0)
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()]B|\x0f", b"", shown).decode("utf-8", "replace")


# ── 45, 47, 49, 51: what a link is, and is not ──


@pytest.mark.check(45)
async def test_a_forged_link_takes_as_long_as_an_unknown_one(posting: Any) -> None:
    service, _, _ = posting
    run_id = await service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
    hook_id = (await service.view(run_id))["hook_id"]
    forged = Tokens(["another-key-that-has-32-bytes-too!!"], installation=service.tokens.installation).sign(
        DECISION, {"h": hook_id, "r": "1", "g": 1}
    )
    unknown = service.tokens.sign(DECISION, {"h": "A" * len(hook_id), "r": "1", "g": 1})
    took: dict[str, list[float]] = {forged: [], unknown: []}
    for _ in range(REFUSED_A_MINUTE // 2):
        for token, times in took.items():
            started = time.perf_counter()
            assert (await service.web.get(f"/decisions/{token}")).status_code == 404
            times.append(time.perf_counter() - started)
    one, other = (median(times) for times in took.values())
    assert max(one, other) < 3 * min(one, other) + 0.001


@pytest.mark.check(47)
async def test_pages_behind_links_and_their_errors_have_the_headers(posting: Any) -> None:
    service, mailbox, _ = posting
    run_id = await service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
    path = await service.link(run_id, "ann@acme.eu")
    await until(lambda: len(mailbox.mails) >= 3)
    answers = [
        await service.web.get(path),
        await service.web.head(path),
        await service.web.get(f"{path}?choice=approve"),
        await service.web.post(path, data={"choice": "approve"}, headers=OURS),
        await service.web.post(path, content=b"x" * 100_000, headers=OURS),
        await service.web.put(path),
        await service.web.get("/decisions/forged"),
    ]
    await service.clock.advance("5h")
    answers.append(await service.web.get(path))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 403, 413, 405, 404, 410]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "<script" not in answer.text


@pytest.mark.check(49)
async def test_links_survive_key_rotation_until_their_key_is_removed(posting: Any) -> None:
    payload = {"h": "hook", "r": "1", "g": 1}
    old, new = "the-old-key-that-has-32-bytes-or-more", "the-new-key-that-has-32-bytes-or-more"
    link = Tokens([old], installation="one").sign(DECISION, payload)
    assert Tokens([new, old], installation="one").read(DECISION, link) == payload
    assert Tokens([new], installation="one").sign(DECISION, payload) == Tokens([new, old], installation="one").sign(
        DECISION, payload
    )
    for reader, purpose in (
        (Tokens([new], installation="one"), DECISION),
        (Tokens([old], installation="one"), FORM),
        (Tokens([old], installation="one"), "webhook.v1"),
    ):
        with pytest.raises(Exception, match=r"link|token|valid"):
            reader.read(purpose, link)
    for weak in ([], [""], ["short"], [old, ""], [old, "x" * 31]):
        with pytest.raises(ValueError, match="key"):
            Tokens(weak, installation="one")


@pytest.mark.check(51)
async def test_another_host_header_changes_no_link_and_no_redirect(posting: Any) -> None:
    service, mailbox, url = posting
    spoofed = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    opened = await service.api.post(
        "/api/runs",
        json={"workflow": "deploy", "input": {"version": "2.1"}, "requester": "di@acme.eu"},
        headers=spoofed,
    )
    assert opened.status_code == 202
    assert "evil.example" not in opened.text + str(opened.headers)
    await until(lambda: len(mailbox.mails) >= 3)
    assert all(link.startswith(f"{url}/decisions/") for link in links(mailbox))
    path = links(mailbox)[0].removeprefix(url).partition("?")[0]
    for name in ("next", "return_to", "url", "redirect", "done", "choice", "code"):
        for value in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
            page = await service.web.get(path, params={name: value}, headers=spoofed)
            assert page.status_code == 200
            assert "evil.example" not in page.text
            assert "javascript:" not in page.text
    page = await service.web.get(path, headers=spoofed)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
    answer = await service.web.post(path, data=hidden | {"choice": "approve"}, headers=OURS | spoofed)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{path}?done=counted"
