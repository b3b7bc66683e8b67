"""Bounces, found in a mailbox over IMAP."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from approvals_bot.approvals.port import ConnectionState
from approvals_bot.channels.email.bounces import Reports, ReturnPaths
from approvals_bot.channels.email.imap import Watch, mailbox_in
from approvals_bot.channels.email.inbound import LARGEST_MAIL
from approvals_bot.config.mail import Imap
from approvals_bot.durable.tokens import Tokens
from tests.support.imap_server import ImapServer, imap_server
from tests.support.judges import judge
from tests.support.posting import a_posting_service

PATHS = ReturnPaths("bounces@acme.eu", Tokens(["a-key-of-these-tests-that-has-32-bytes!"], installation="one"))
REPORT = b"""Content-Type: multipart/report; report-type=delivery-status; boundary=b\r
\r
--b\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; mx.acme.eu\r
\r
Final-Recipient: rfc822; ann@acme.eu\r
Action: failed\r
Status: 5.1.1\r
Diagnostic-Code: smtp; 550 no such user\r
\r
--b--\r
"""


@pytest.fixture
def box() -> Iterator[ImapServer]:
    with imap_server("bounces", "of-a-test") as server:
        yield server


def settings(box: ImapServer, every: float = 300) -> Imap:
    return Imap.model_construct(  # unchecked: a look each 10 ms is too often for a real server
        host="127.0.0.1",
        port=box.port,
        security="none",
        username="bounces",
        password=SecretStr("of-a-test"),
        every=timedelta(seconds=every),
    )


@asynccontextmanager
async def watched(open_service: Any, box: ImapServer) -> AsyncIterator[tuple[Any, Watch, str, str]]:
    """A service, its mailbox watcher, a request, and the return address of Ann's mail about it."""
    async with a_posting_service(open_service, "https://approve.acme.eu", return_paths=PATHS) as (service, mails):
        run = await service.start("deploy", {"version": "2.1"}, requester="di@acme.eu")
        back = next(mail.envelope_sender for mail in mails.mails if mail.to == "ann@acme.eu")
        yield service, Watch(Reports(service.engine, PATHS), settings(box)), run, back


async def anns(service: Any, run: str) -> tuple[str, str]:
    view = await service.view(run)
    return next((each["state"], each["error"]) for each in view["deliveries"] if each["to"] == "ann@acme.eu")


@pytest.mark.check(58)
@pytest.mark.parametrize("header", ["Delivered-To", "X-Original-To", "To"])
async def test_a_bounce_in_the_mailbox_shows_on_its_request_once(
    open_service: Any, box: ImapServer, header: str
) -> None:
    async with watched(open_service, box) as (service, watch, run, back):
        mail = box.put(f"{header}: <{back}>\r\n".encode() + REPORT)
        assert await watch.look() == 1
        await service.engine.settle()
        assert await anns(service, run) == ("not_delivered", "the mail came back: 5.1.1: 550 no such user")
        assert mail.is_read
        assert await watch.look() == 0


async def test_mail_that_is_no_report_about_ours_changes_nothing(open_service: Any, box: ImapServer) -> None:
    async with watched(open_service, box) as (service, watch, _, back):
        before = service.content()
        forged = back.replace("@", "x@")
        for content in (
            f"To: <{forged}>\r\n".encode() + REPORT,
            b"To: <bounces@acme.eu>\r\n" + REPORT,
            REPORT,
            f"To: {back}\r\nSubject: approve\r\n\r\napprove\r\n".encode(),
            f"To: {back}\r\n".encode() + REPORT + b"x" * LARGEST_MAIL,
            b"\xff\x00",
            b"To: " + b"(" * 5_000 + b"\r\n" + REPORT,  # Python's parser gives up with a RecursionError
            b"",
        ):
            box.put(content)
        assert await watch.look() == 0
        assert service.content() == before
        assert all(mail.is_read for mail in box.mails.values())


async def test_a_report_that_cannot_be_stored_stays_unread(
    open_service: Any, box: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(open_service, box) as (service, watch, run, back):
        mail = box.put(f"To: {back}\r\n".encode() + REPORT)

        async def full(*_: Any, **__: Any) -> None:
            raise OSError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(service.engine, "audit", full)
            with pytest.raises(OSError, match="no space"):
                await watch.look()
        assert not mail.is_read
        assert await watch.look() == 1
        await service.engine.settle()
        assert (await anns(service, run))[0] == "not_delivered"


async def test_a_failed_look_does_not_stop_the_next_one(
    open_service: Any, box: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looks = Watch.look, 0

    async def fails_once(self: Watch) -> int:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise KeyError("nobody thought of it")
        return await real(self)

    monkeypatch.setattr(Watch, "look", fails_once)
    async with watched(open_service, box) as (service, _, run, back):
        box.put(f"To: {back}\r\n".encode() + REPORT)
        async with mailbox_in(inlet=Reports(service.engine, PATHS), mailbox=settings(box, every=0.01)) as watch:
            while (await watch.state()).word != "up":
                await service.engine.wait(run, 0.02)
        assert (await anns(service, run))[0] == "not_delivered"


async def test_a_refusing_server_is_logged_without_names_and_retried(open_service: Any, box: ImapServer) -> None:
    async with watched(open_service, box) as (service, _, run, back):
        box.put(f"To: {back}\r\n".encode() + REPORT)
        box.closed = True
        async with mailbox_in(inlet=Reports(service.engine, PATHS), mailbox=settings(box, every=0.01)) as watch:
            assert await watch.state() == ConnectionState("connecting")
            while box.logins < 3:
                await service.engine.wait(run, 0.02)
            assert await watch.state() == ConnectionState("down", "it rejects the login or the folder")
            box.closed = False
            while (await watch.state()).word != "up":
                await service.engine.wait(run, 0.02)
        assert (await anns(service, run))[0] == "not_delivered"


async def test_an_independent_server_understands_us(open_service: Any, tmp_path: Path) -> None:
    judge("hoodiecrow-imap")
    async with watched(open_service, ImapServer()) as (service, _, run, back):
        files = [tmp_path / "report.eml", tmp_path / "other.eml"]
        files[0].write_bytes(f"Delivered-To: {back}\r\n".encode() + REPORT)
        files[1].write_bytes(b"Subject: hello\r\n\r\nhello\r\n")
        command = ["node", str(Path(__file__).parents[2] / "support" / "imap_judge.js"), *map(str, files)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                port = int(await asyncio.to_thread(server.stdout.readline))
                watch = Watch(Reports(service.engine, PATHS), settings(ImapServer(port)))
                assert [await watch.look(), await watch.look()] == [1, 0]
            finally:
                server.kill()
        await service.engine.settle()
        assert (await anns(service, run))[0] == "not_delivered"
