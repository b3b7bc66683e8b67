"""The service's log: lines that parse, that a run can be followed by, and that name nobody."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Scope

from approvals_bot.app.monitoring import Monitoring
from approvals_bot.cli.logs import LogWriter, harmless, set_up_logs
from approvals_bot.config.monitoring import LogFormat
from approvals_bot.service.troubles import Troubles
from approvals_bot.web.guard import TrustedProxies
from tests.structure.test_traced import IN_SLACK, SECRETS, open_house

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "monitoring.md"
CANARIES = ("canaryfield", "canarycomment", "canarytoken", "acme.eu", "/decisions/ey", *SECRETS.values())


@contextmanager
def logged(format: LogFormat, stream: io.StringIO | None = None) -> Iterator[io.StringIO]:
    """Write the log to a text, and leave the loggers as they were."""
    root, ours = logging.getLogger(), logging.getLogger("approvals_bot")
    before = root.handlers[:], root.level, ours.level
    stream = stream or io.StringIO()
    set_up_logs(format, "info", version="0.1.0", replica="r1", stream=stream)
    try:
        yield stream
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


async def test_a_run_is_followed_by_its_id_and_nobody_is_named(tmp_path: Path) -> None:
    with logged("json") as stream:
        async with open_house(tmp_path) as house:
            for prepare in (house.press, house.mail):
                await (await prepare())()
            headers = {"authorization": f"Bearer {SECRETS['ci.key']}"}
            given = {"service": "canaryfield", "version": "2.1"}
            body = {"workflow": IN_SLACK, "input": given, "requester": "bo@acme.eu"}
            run_id = (await house.http.post("/api/runs", json=body, headers=headers)).json()["run_id"]
            await house.service.engine.settle()
            vote = {"by": "ann@acme.eu", "choice": "approve", "comment": "canarycomment"}
            answer = await house.http.post(f"/api/runs/{run_id}/votes", json=vote, headers=headers)
            refused = await house.http.get("/api/runs", headers={"authorization": "Bearer canarytoken"})
            await house.http.get("/decisions/canarytoken")
            await house.service.engine.settle()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all({"ts", "level", "logger", "event", "message", "version", "replica"} <= line.keys() for line in lines)
    assert [canary for canary in CANARIES if canary in stream.getvalue()] == []
    about = [line for line in lines if line.get("run_id") == run_id]
    assert [(line["event"], line["route"], line["app"]) for line in about if line["event"] == "request"] == [
        ("request", "/api/runs", "ci"),
        ("request", "/api/runs/{id}/votes", "ci"),
    ]
    sent = [line for line in about if line["event"] == "delivery_done"]
    assert {(line["channel"], line["step"] != "", line["workflow"]) for line in sent} == {("slack", True, IN_SLACK)}
    assert all(line["delivery_id"].startswith(run_id) for line in sent)
    ours = next(line for line in about if line.get("status") == answer.status_code)
    assert answer.headers["x-request-id"] == ours["request_id"]
    assert refused.json()["instance"] == f"urn:request:{refused.headers['x-request-id']}"
    assert "key_refused" in {line["event"] for line in lines}
    assert {line["event"] for line in lines} <= events()


def events() -> set[str]:
    """Return the events that the documentation lists."""
    listed = DOCUMENT.read_text(encoding="utf-8").partition("| Event |")[2].partition("\n\n")[0]
    return set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in listed.splitlines()[2:])))


def test_every_event_of_the_code_is_documented() -> None:
    package = DOCUMENT.parent.parent / "approvals_bot"
    code = "\n".join(file.read_text(encoding="utf-8") for file in sorted(package.rglob("*.py")))
    assert {name for name in events() if f'"{name}"' in code} == events()
    assert set(re.findall(r'"event": "(\w+)"', code)) <= events()
    assert len(events()) > 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mail to ann@acme.eu failed", "mail to <address> failed"),
        ("POST https://erp.acme.eu/pay?by=bo", "POST https://erp.acme.eu/<path>"),
        ("postgresql://bot:secret@db/approvals", "<address>"),
        ("link " + "a1" * 30, "link <token>"),
        ("two\nlines\x1b[31m", "two lines [31m"),
        ("the group @ops has no members", "the group @ops has no members"),
        ("the source slack:@sre can't be read", "the source slack:@sre can't be read"),
        ("mailto:ann@acme.eu", "<address>"),
        ("postgresql://bot:@db/approvals", "<address>"),
    ],
)
def test_messages_hold_no_address_path_or_token(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_text_lines_begin_with_time_and_level() -> None:
    with logged("text") as stream:
        try:
            raise ValueError("canaryfield")
        except ValueError:
            logging.getLogger("approvals_bot.web").exception("one\ntwo", extra={"route": "/inbox"})
        logging.getLogger("some.library").warning("a line of %s", "ann@acme.eu")
    one, other = stream.getvalue().splitlines()
    assert re.match(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z error +log one two route=/inbox error=ValueError where=", one
    )
    assert other.endswith(" warning log a line of <address>")


def test_what_lasts_is_logged_at_its_begin_end_and_between() -> None:
    now = datetime(2026, 3, 2, 10, tzinfo=UTC)
    troubles = Troubles(lambda: now)
    with logged("json") as stream:
        for _ in range(10):
            troubles.begin("channel email", "channel_down", "the relay can't be reached", "Mend it", channel="email")
            troubles.remind()
            now += timedelta(minutes=1)
        troubles.end("channel email", "channel_back", "mail works again")
        troubles.end("channel email", "channel_back", "mail works again")
    said: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(each["event"], each["outcome"], each["channel"]) for each in said] == [
        ("channel_down", "begun", "email"),
        ("channel_down", "lasting", "email"),
        ("channel_back", "over", "email"),
    ]
    assert not list(troubles)


def test_lines_that_cannot_be_written_are_counted() -> None:
    class Full(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(ENOSPC, "No space left on device")
            return super().write(text)

    full = Full()
    with logged("text", full) as stream:
        writer = logging.getLogger().handlers[0]
        assert isinstance(writer, LogWriter)
        monitoring = Monitoring(lambda: datetime(2026, 3, 2, 10, tzinfo=UTC))
        monitoring.log = writer
        logging.getLogger("approvals_bot").error("one")
        monitoring.look_at_log()
        (trouble,) = monitoring.troubles
        assert trouble.text == "the log can't be written (No space left on device), so lines are lost"
        full.is_full = False
        logging.getLogger("approvals_bot").error("another")
        monitoring.look_at_log()
    assert not [*monitoring.troubles]
    assert b"approvals_log_lines_lost_total 2.0" in bytes(monitoring.metrics.response().body)
    assert "log_back the log can be written again" in stream.getvalue()


def test_another_reason_is_logged_soon_and_once() -> None:
    now = datetime(2026, 3, 2, 10, tzinfo=UTC)
    troubles = Troubles(lambda: now)
    said = ["the disk is full"] * 2 + [f"it was replaced {ago} s ago" for ago in (7, 37, 67)]
    with logged("text") as stream:
        for text in said:
            troubles.begin("store", "store_lost", text, "Mend it")
            troubles.remind()
            now += timedelta(seconds=30)
    lines = stream.getvalue().splitlines()
    assert [line.partition("store_lost ")[2] for line in lines] == [
        "the disk is full. Mend it outcome=begun",
        "for 1 minute now: it was replaced 7 s ago. Mend it outcome=lasting",
    ]


@pytest.mark.parametrize(
    ("peer", "given", "taken"),
    [("10.0.0.7", b"abc-1.2_3", "abc-1.2_3"), ("10.0.0.7", b"a b", ""), ("192.0.2.1", b"abc", "")],
)
def test_only_trusted_proxies_name_a_request(peer: str, given: bytes, taken: str) -> None:
    scope: Scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-request-id", given)]}
    assert TrustedProxies(["10.0.0.0/8"]).request_id(scope) == taken
