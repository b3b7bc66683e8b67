"""`/audit` for auditors, its exports, anchors that the service makes, and the evidence of a request over HTTP."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

import approvals_bot.verify_evidence
from approvals_bot import request_approval, workflow
from approvals_bot.app.service import Service, open_service
from approvals_bot.approvals.acts import Actor, Vote
from approvals_bot.approvals.request import Request
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.service.act import SentAct, perform, send_act
from approvals_bot.service.anchors import AnchorError, read_anchors, sign_anchor
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.audit_verify import Keys, verify_lines
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.owed_lines import complete_lines, line_of_act, line_of_operator
from approvals_bot.service.read import is_concerned, requests_of
from approvals_bot.service.repairs import attempt_again
from approvals_bot.service.sessions import Sessions
from approvals_bot.testing import FakeClock
from approvals_bot.verify_evidence import verify
from tests.support.small_site import KEY, LEAVE

NOW = datetime(2026, 11, 29, tzinfo=UTC)
SEED = "7a" * 32
OWN = AuditKey(bytes.fromhex(SEED))
KEYS = Keys(public=[OWN.public], chain=OWN.chain)
BASE = "https://approve.acme.eu"
CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///approvals.db"
signing_keys = ["env:KEY"]
[api_keys]
ci = { key = "env:CI", may = ["start", "read-all", "vote"], requesters = ["*"] }
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
[people."cy@acme.eu"]
[people."di@acme.eu"]
[groups]
managers = ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"]
[roles]
auditor = ["di@acme.eu"]
[audit]
key = "env:SEED"
anchors = [{ file = "anchors.jsonl" }]
"""
CI = {"authorization": f"Bearer {'c' * 40}"}
ENV = {"KEY": KEY, "SEED": SEED, "CI": "c" * 40}


class Opened:
    """A service, and a browser that talks to it."""

    def __init__(self, folder: Path, service: Service, browser: httpx2.AsyncClient, clock: FakeClock) -> None:
        self.folder, self.service, self.browser, self.clock = folder, service, browser, clock

    async def get(self, path: str, person: str | None = "di@acme.eu") -> httpx2.Response:
        headers = {}
        if person is not None:
            token = await Sessions(self.service.engine).begin(person, method="code", browser="Firefox")
            headers["cookie"] = f"__Host-approvals={token}"
        return await self.browser.get(path, headers=headers)

    async def decided(self) -> str:
        body = {"workflow": "leave", "requester": "bo@acme.eu", "input": {"days": 3}}
        run: str = (await self.browser.post("/api/runs", json=body, headers=CI)).json()["run_id"]
        await self.service.engine.settle()
        for person in ("ann@acme.eu", "cy@acme.eu"):
            vote = {"by": person, "choice": "approve", "answers": {"count": 1}}
            answer = await self.browser.post(f"/api/runs/{run}/votes", json=vote, headers=CI)
            assert answer.status_code == 201, answer.text
        await self.service.engine.settle()
        return run

    async def anchored(self, anchors: int) -> Path:
        """Return the file of anchors once it has so many."""
        file = self.folder / "anchors.jsonl"
        async with asyncio.timeout(30):
            while not file.exists() or file.read_bytes().count(b"\n") < anchors:
                await asyncio.sleep(0.05)
        return file


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "leave.toml").write_text(LEAVE.replace('["@managers"]\n[fields]', '["*"]\n[fields]'))
    (tmp_path / "config.toml").write_text(CONFIG)
    clock = FakeClock()
    async with open_service(read_configuration(tmp_path / "config.toml", ENV), clock=clock) as service:
        transport = httpx2.ASGITransport(service.app)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as browser:
            yield Opened(tmp_path, service, browser, clock)


async def test_audit_is_for_auditors(opened: Opened) -> None:
    for path in ("/audit", "/audit.csv", "/audit.jsonl"):
        assert (await opened.get(path)).status_code == 200
        assert (await opened.get(path, "ann@acme.eu")).status_code == 403
        assert (await opened.get(path, None)).status_code == 401


async def test_auditors_see_who_did_what_and_filter_it(opened: Opened) -> None:
    run = await opened.decided()
    page = (await opened.get("/audit")).text
    assert all(word in page for word in ("service_started", "acted", "ann@acme.eu", run, "signed JSON lines"))
    one = (await opened.get(f"/audit?who=ann@acme.eu&what=acted&run={run}")).text
    assert "<strong>acted</strong> ann@acme.eu" in one
    assert "<strong>acted</strong> cy@acme.eu" not in one
    assert "No line matches" in (await opened.get("/audit?after=2099-01-01")).text
    assert (await opened.get("/audit?after=soon")).status_code == 422
    assert (await opened.get("/audit?cursor=x")).status_code == 422
    assert "<script>" not in (await opened.get("/audit?who=<script>")).text


async def test_long_audit_has_pages(opened: Opened) -> None:
    for number in range(120):
        await opened.service.engine.audit("counted", who=f"p{number}", actor={"kind": "rule"})
    page, seen, pages = "/audit?what=counted", list[str](), 0
    while page:
        text = (await opened.get(page)).text
        seen += [line.split("</strong>")[1].split("<small>")[0].strip() for line in text.split("<strong>counted")[1:]]
        _, found, rest = text.partition('<a href="/audit?what=counted&amp;cursor=')
        page, pages = f"/audit?what=counted&cursor={rest.split(chr(34))[0]}" if found else "", pages + 1
    assert (pages, seen) == (3, [f"p{number}" for number in reversed(range(120))])


async def test_exports_of_the_page_are_those_of_the_command(opened: Opened) -> None:
    run = await opened.decided()
    rows = list(csv.DictReader(io.StringIO((await opened.get("/audit.csv?what=acted")).text)))
    assert [(row["who"], row["choice"], row["actor_key"], row["run_id"]) for row in rows] == [
        ("ann@acme.eu", "approve", "ci", run),
        ("cy@acme.eu", "approve", "ci", run),
    ]
    assert len(rows[0]["shown"]) == 64
    content = (await opened.get(f"/audit.jsonl?run={run}")).content
    found = verify_lines(io.BytesIO(content), KEYS)
    assert (found.is_sound, found.origin, found.manifest.runs) == (True, "checked", 1)


async def test_evidence_is_for_those_concerned(opened: Opened) -> None:
    run = await opened.decided()
    for person, status in (("ann@acme.eu", 200), ("bo@acme.eu", 200), ("di@acme.eu", 200), (None, 401)):
        assert (await opened.get(f"/requests/{run}/evidence", person)).status_code == status
    by_key = await opened.browser.get(f"/api/runs/{run}/evidence", headers=CI)
    found = verify(by_key.content, bytes.fromhex(OWN.public))
    assert [vote["by"] for vote in found["votes"]] == ["ann@acme.eu", "cy@acme.eu"]
    assert found["votes"][0]["actor"]["key"] == "ci"
    text = (opened.folder / "workflows" / "leave.toml").read_text()
    (file,) = found["rules"]["files"]
    assert (file["workflow"], file["text"], file["version"]) == ("leave", text, found["rules"]["digest"][0])
    assert "evidence" in (await opened.get(f"/requests/{run}", "ann@acme.eu")).text
    assert (await opened.browser.get(f"/api/runs/{run}/evidence")).status_code == 401
    assert (await opened.browser.get("/api/runs/none/evidence", headers=CI)).status_code == 404


async def test_line_of_an_act_comes_although_its_process_died(opened: Opened) -> None:
    engine = opened.service.engine
    body = {"workflow": "leave", "requester": "bo@acme.eu", "input": {"days": 3}}
    run = (await opened.browser.post("/api/runs", json=body, headers=CI)).json()["run_id"]
    await engine.settle()
    record = await engine.record(run)
    assert record is not None
    request = requests_of(record)[0]
    vote = Vote("ann@acme.eu", "approve", answers={"count": 1}, digest=request.digest)
    sent = await send_act(engine, request, vote)  # and nobody is there for the reply
    assert isinstance(sent, SentAct)
    await engine.settle()
    acted = AuditFilter(run_id=run, what="acted")
    assert await engine.audit_lines(acted) == []
    content = (await opened.get(f"/audit.jsonl?run={run}")).content  # an export has it at the latest
    assert verify_lines(io.BytesIO(content), KEYS).is_sound
    (line,) = await engine.audit_lines(acted)
    shown = line.entry.data.pop("shown")
    assert line.entry.data == {
        "act": "approve", "choice": "approve", "via": "api", "verdict": "counted", "digest": request.digest,
        "request_id": request.id,
    }  # fmt: skip
    assert (line.entry.who, line.entry.actor) == ("ann@acme.eu", {"kind": "app", "id": "ann@acme.eu"})
    (text,) = await engine.audit_lines(AuditFilter(run_id=run, what="text_shown"))
    assert text.entry.data["sha256"] == shown
    await sent.reply(5)
    assert len(await engine.audit_lines(acted)) == 1


async def test_act_without_a_verdict_gets_its_line_after_a_minute(opened: Opened) -> None:
    engine = opened.service.engine
    body = {"workflow": "leave", "requester": "bo@acme.eu", "input": {"days": 3}}
    run = (await opened.browser.post("/api/runs", json=body, headers=CI)).json()["run_id"]
    await engine.settle()
    record = await engine.record(run)
    assert record is not None
    owed = line_of_act(engine, Vote("ann@acme.eu"), requests_of(record)[0])
    await engine.store.record(run, [], engine.now(), owed)
    assert await complete_lines(engine) == 0
    await opened.clock.advance(timedelta(seconds=61))
    assert await complete_lines(engine) == 1
    (line,) = await engine.audit_lines(AuditFilter(run_id=run, what="acted"))
    assert line.entry.data["verdict"] == "received"


async def test_reset_whose_process_died_has_its_line_and_its_actor(opened: Opened) -> None:
    engine = opened.service.engine
    body = {"workflow": "leave", "requester": "bo@acme.eu", "input": {"days": 3}}
    run = (await opened.browser.post("/api/runs", json=body, headers=CI)).json()["run_id"]
    await engine.settle()
    operator = Actor("cli", "root")
    owed = line_of_operator("run_reset", "root", operator, run, {"reason": "a bad release", "to": 1})
    following = await engine.reset(run, to=1, actor=operator.as_json(), owes=owed)
    assert (await engine.events(following.id))[0].data["reset_by"] == {"kind": "cli", "id": "root"}
    assert await complete_lines(engine) == 1
    (line,) = await engine.audit_lines(AuditFilter(what="run_reset"))
    assert line.entry.data == {"reason": "a bad release", "to": 1, "next_run": following.id}
    await engine.cancel(following.id, "no use", actor=operator.as_json())
    await engine.settle()
    again = await attempt_again(engine, following.id, who="root", actor=operator, reason="after all")
    assert (await engine.events(again.next_run))[0].data["actor"] == {"kind": "cli", "id": "root"}
    (line,) = await engine.audit_lines(AuditFilter(what="run_attempted"))
    assert line.entry.data == {"reason": "after all", "status": "cancelled", "next_run": again.next_run}


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_evidence_of_50_requests_verifies_on_a_bare_python(opened: Opened) -> None:
    rng = random.Random(50)  # noqa: S311  # the same bytes each time
    script = Path(approvals_bot.verify_evidence.__file__)
    file, key = opened.folder / "evidence.json", opened.folder / "audit.pub"
    key.write_text(OWN.public)

    async def status() -> int:
        command = [sys.executable, "-I", "-S", str(script), str(file), str(key)]
        return (await asyncio.to_thread(subprocess.run, command, capture_output=True)).returncode

    for _ in range(50):
        run = await opened.decided()
        content = (await opened.browser.get(f"/api/runs/{run}/evidence", headers=CI)).content
        file.write_bytes(content)
        assert await status() == 0
        changed = bytearray(content)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(7)
        file.write_bytes(changed)
        assert await status() == 1


@workflow
async def evidence_of_two_requests(secret: str) -> None:
    ann = request_approval("Refund the green hat", approvers="ann@acme.eu", requester="bo@acme.eu")
    cy = request_approval("Dismiss the gardener", approvers="cy@acme.eu", requester="bo@acme.eu")
    await asyncio.gather(ann, cy)


async def test_evidence_of_one_request_has_nothing_of_its_siblings(opened: Opened) -> None:
    engine = opened.service.engine
    run = await engine.start(evidence_of_two_requests, "the house is sold")
    await engine.settle()
    siblings = ("gardener", "cy@acme.eu", "the house is sold")
    current = await opened.get(f"/requests/{run.id}/evidence", "ann@acme.eu")  # the run's id stands for its first one
    verify(current.content, bytes.fromhex(OWN.public))
    assert ("green hat" in current.text, [word for word in siblings if word in current.text]) == (True, [])
    for number, person in ((2, "cy@acme.eu"), (1, "ann@acme.eu")):
        record = await engine.record(run.id)
        assert record is not None
        request = record.parts[number - 1]
        vote = Vote(person, "approve", via="inbox", comment=f"said by {person}")
        assert (await perform(engine, str(request["hook_id"]), vote)).changed
    await engine.settle()
    answer = await opened.get(f"/requests/{run.id}.1/evidence", "ann@acme.eu")
    found = verify(answer.content, bytes.fromhex(OWN.public))
    assert [vote["comment"] for vote in found["votes"]] == ["said by ann@acme.eu"]
    assert found["votes"][0]["actor"]["id"] == "ann@acme.eu"
    assert "green hat" in found["shown"][found["votes"][0]["shown"]]
    assert len(found["log"]) == found["head"]["seq"]
    assert not [word for word in siblings if word in answer.text]
    assert (await opened.get(f"/requests/{run.id}.1/evidence", "cy@acme.eu")).status_code == 404
    by_key = await opened.browser.get(f"/api/runs/{run.id}/evidence", headers=CI)
    whole = verify(by_key.content, bytes.fromhex(OWN.public))
    assert {vote["by"] for vote in whole["votes"]} == {"ann@acme.eu", "cy@acme.eu"}


def test_a_request_concerns_the_person_it_is_for() -> None:
    request = Request(
        run_id="run_1", workflow="leave", definition="", requester="app:hr", on_behalf_of="bo@acme.eu", asked_at=NOW
    )
    assert is_concerned(request, "bo@acme.eu")
    assert not is_concerned(request, "di@acme.eu")


async def test_anchors_vouch_for_what_was_before(opened: Opened) -> None:
    await opened.decided()
    file = await opened.anchored(1)
    assert file.stat().st_mode & 0o777 == 0o600
    await opened.clock.advance(timedelta(hours=1, seconds=1))
    await opened.anchored(2)
    assert "The last anchor was made" in (await opened.get("/audit")).text
    content = (await opened.get("/audit.jsonl")).content
    anchors = read_anchors(file.read_bytes().splitlines(), [OWN.public])
    found = verify_lines(io.BytesIO(content), KEYS, anchors)
    assert (found.broken, found.proved_until) == (None, anchors[-1].seq)


def _changes(lines: list[bytes]) -> dict[str, list[bytes]]:
    value = json.loads(lines[0])
    return {
        "not signed": [json.dumps(value | {"seq": value["seq"] + 1}, separators=(",", ":")).encode(), *lines[1:]],
        "older": [lines[1], lines[0]],
        "twice": [lines[0], lines[0], lines[1]],
        "no anchor": [b"{}", *lines],
        "reformatted": [json.dumps(value).encode(), *lines[1:]],
    }


async def test_changed_file_of_anchors_is_refused(opened: Opened) -> None:
    await opened.anchored(1)
    await opened.clock.advance(timedelta(hours=2))
    lines = (await opened.anchored(2)).read_bytes().splitlines()
    for name, changed in _changes(lines).items():
        try:
            found = read_anchors(changed, [OWN.public])
        except AnchorError:
            continue
        pytest.fail(f"{name}: {found}")


async def test_dropped_end_of_the_audit_is_found_by_an_anchor(opened: Opened) -> None:
    await opened.decided()
    file = await opened.anchored(1)
    anchors = read_anchors(file.read_bytes().splitlines(), [OWN.public])
    content = (await opened.get("/audit.jsonl")).content
    last = verify_lines(io.BytesIO(content), KEYS).manifest.audit
    later = [*anchors, sign_anchor(OWN, last + 5, "0" * 64, "", anchors[-1].at)]
    found = verify_lines(io.BytesIO(content), KEYS, later)
    assert found.broken is not None
    assert found.broken.kind == "cut"
    forged = sign_anchor(OWN, anchors[0].seq, "0" * 64, "", anchors[0].at)
    changed = verify_lines(io.BytesIO(content), KEYS, [forged]).broken
    assert changed is not None
    assert changed.kind == "changed"


async def test_audit_says_what_changed_in_who_may_decide(opened: Opened) -> None:
    engine = opened.service.engine

    async def rights() -> list[dict[str, Any]]:
        return [line.entry.data for line in await engine.audit_lines(AuditFilter(what="rights_changed"))]

    first = await rights()
    assert len(first) == 1
    assert "c" * 40 not in json.dumps(first)
    file = opened.folder / "config.toml"
    file.write_text(file.read_text().replace("managers = [", 'managers = ["mallory@acme.eu", '))
    opened.service.reload(read_configuration(file, ENV))
    async with asyncio.timeout(30):
        while len(found := await rights()) < 2:
            await asyncio.sleep(0.05)
    assert found[1]["changed"] == [{"path": "groups.managers.people", "added": ["mallory@acme.eu"], "removed": []}]
    loads = await engine.audit_lines(AuditFilter(what="configuration_loaded"))
    assert loads[0].entry.data["files"]["leave.toml"] == loads[1].entry.data["files"]["leave.toml"]
    assert loads[0].entry.data["files"]["config.toml"] != loads[1].entry.data["files"]["config.toml"]


async def test_evidence_has_the_file_that_the_request_followed(opened: Opened) -> None:
    run, file = await opened.decided(), opened.folder / "workflows" / "leave.toml"
    before, engine = file.read_text(), opened.service.engine
    file.write_text(before.replace("days off", "days away"))
    opened.service.reload(read_configuration(opened.folder / "config.toml", ENV))
    kept = AuditFilter(what="workflow_file")
    async with asyncio.timeout(30):
        while len(await engine.audit_lines(kept)) < 2:
            await asyncio.sleep(0.05)
    later = await opened.decided()
    for each, text in ((run, before), (later, file.read_text())):
        content = (await opened.browser.get(f"/api/runs/{each}/evidence", headers=CI)).content
        assert [one["text"] for one in verify(content, bytes.fromhex(OWN.public))["rules"]["files"]] == [text]
    opened.service.reload(read_configuration(opened.folder / "config.toml", ENV))
    loads = AuditFilter(what="configuration_loaded")
    async with asyncio.timeout(30):
        while len(await engine.audit_lines(loads)) < 3:
            await asyncio.sleep(0.05)
    assert len(await engine.audit_lines(kept)) == 2


async def test_refused_keys_have_a_line_once_a_minute_and_peer(opened: Opened) -> None:
    for key in ("nonsense", "nonsense", "other"):
        assert (await opened.browser.get("/api/runs", headers={"authorization": f"Bearer {key}"})).status_code == 401
    assert (await opened.browser.post("/api/runs/x/reset", headers=CI, json={})).status_code == 403
    lines = await opened.service.engine.audit_lines(AuditFilter(what="key_refused"))
    assert [(line.entry.who, (line.entry.actor or {})["key"], line.entry.data["status"]) for line in lines] == [
        (None, "unknown", 401),
        ("app:ci", "ci", 403),
    ]
