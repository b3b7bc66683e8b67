"""Runs that retention has deleted: archived, named in the audit, and answered by 410."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.config.retention import RetentionTable
from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.core.private_files import lock
from approvals_bot.durable.store.chain import SEALED, ChainedEvent
from approvals_bot.durable.store.documents import DocumentRow
from approvals_bot.durable.store.files import FileRow
from approvals_bot.durable.store.personal import PersonalRow
from approvals_bot.durable.store.protocol import StateRow
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.people import People
from approvals_bot.service.audit import derive_key, write_export
from approvals_bot.service.audit_verify import Keys, verify_lines
from approvals_bot.service.catalog import Listed
from approvals_bot.service.erasure import Eraser, archived_lines, erase, rewrite_archives
from approvals_bot.service.retention import (
    COUNTER,
    KEY_KEPT,
    Archive,
    RetentionKeeper,
    RetentionRules,
    count_ended,
    delete_ended,
)
from approvals_bot.testing import FakeClock
from tests.support.new_runs import T0
from tests.support.staffed_house import ENV, a_staffed_house
from tests.support.whole_service import KEY

ANN, DI = "ann@acme.eu", "di@acme.eu"
PAY: dict[str, Any] = {
    "workflow": {"id": "pay-retained", "title": "Pay", "request": ["*"]},
    "fields": {"amount": "integer", "plan": {"type": "file", "required": False}},
    "stage": [{"id": "go", "from": [ANN]}],
    "deliver": {"email": True},
    "clock": {"deadline": "4h"},
}
DAYS = timedelta(days=400)


@pytest.fixture
def service(service: Any) -> Any:
    definition = Definition.model_validate(PAY)
    service.workflows["pay-retained"] = Listed(approval.under("pay-retained", pinned(definition)), definition)
    return service


async def delete(service: Any, archive: Path | None = None) -> int:
    engine = service.engine
    while await engine.store.seal_ended(engine.now(), None, 50):
        pass
    done = await delete_ended(engine, RetentionRules(others=DAYS), archive, rest=0)
    return done.runs


async def test_a_deleted_request_is_archived_and_says_how_it_ended(service: Any, tmp_path: Path) -> None:
    api, key = service.api, {"Idempotency-Key": "pay-17"}
    plan = (await api.post("/api/files", params={"name": "plan.txt"}, content=b"a plan")).json()["id"]
    body: dict[str, Any] = {"workflow": "pay-retained", "input": {"amount": 5}, "requester": DI}
    for _ in range(2):  # two runs have the same file, and go together
        with_file = await service.start("pay-retained", {"amount": 4, "plan": plan}, requester=DI)
        await api.post(f"/api/runs/{with_file}/votes", json={"by": ANN, "choice": "reject", "comment": "no"})
    of_key, replaced = [
        (await api.post("/api/files", params={"name": name}, content=b"of a key")).json()["id"] for name in ("b", "c")
    ]
    body["input"]["plan"] = replaced
    opened = await api.post("/api/runs", json=body, headers=key)
    run_id = opened.json()["run_id"]
    await service.engine.settle()
    link = await service.link(run_id, ANN)
    kept = await service.start("pay-retained", {"amount": 6}, requester=DI)
    assert (await api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve"})).status_code == 201
    await service.engine.settle()
    assert await delete(service, tmp_path / "archive") == 0
    await service.clock.advance(DAYS + timedelta(minutes=1))
    assert await count_ended(service.engine, RetentionRules(others=DAYS)) == 3
    assert await delete(service, tmp_path / "archive") == 3

    gone = await api.get(f"/api/runs/{run_id}")
    assert (gone.status_code, gone.json()["run"]["outcome"], gone.json()["title"]) == (
        410,
        "approved",
        "Run no longer kept",
    )
    page = await service.web.get(link)
    assert page.status_code == 410
    assert "Approved on" in page.text
    assert "No longer kept here" in page.text
    assert (await service.plain.get(f"/api/runs/{run_id}")).status_code == 404  # a key that didn't open it
    assert (await api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve"})).status_code == 410
    assert (await service.run(kept))["workflow"] == "pay-retained"

    again = await api.post("/api/runs", json=body, headers=key)
    assert (again.status_code, again.json()["run_id"]) == (200, run_id), again.text
    assert await service.engine.store.file(replaced) is None
    unknown = await api.post("/api/runs", json=body, headers={"Idempotency-Key": "pay-18"})
    assert (unknown.status_code, "plan" in unknown.text) == (422, True)
    assert (
        await api.post("/api/runs", json=body | {"input": {"amount": 5, "plan": of_key}}, headers=key)
    ).status_code == 409
    other = {**body, "input": {"amount": 7}}
    assert (await api.post("/api/runs", json=other, headers=key)).status_code == 409
    await service.clock.advance(KEY_KEPT)
    fresh = await api.post("/api/runs", json=other, headers=key)
    assert (fresh.status_code, fresh.json()["run_id"] != run_id) == (202, True)

    [archive] = (tmp_path / "archive").iterdir()
    assert archive.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in gzip.decompress(archive.read_bytes()).splitlines()]
    run = next(line for line in lines if line.get("run_id") == run_id)
    assert (run["key"], run["status"]) == ("app:desk pay-17", "completed")
    parts = {line["id"]: base64.b64decode(line["content"]) for line in lines if line["kind"] == "file"}
    assert parts == {plan: b"a plan", replaced: b"of a key"}
    assert await service.engine.store.file(plan) is None
    before = run_id
    for event in run["events"]:
        chained = ChainedEvent(
            event["seq"], event["type"], event["at"], event["key"], event["data"], event["salt"], event["hash"]
        )
        assert chained.hash == chained.hash_after(before)
        before = chained.hash
    assert not any(event["salt"].startswith(SEALED) for event in run["events"])


async def test_the_audit_knows_that_a_log_is_gone_on_purpose(service: Any) -> None:
    run_id = await service.start("pay-retained", {"amount": 5}, requester=DI)
    await service.api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve"})
    await service.engine.settle()
    await service.clock.advance(DAYS + timedelta(minutes=1))
    assert await delete(service) == 1
    out = io.BytesIO()
    await write_export(service.engine, derive_key(KEY), out)
    found = verify_lines(io.BytesIO(out.getvalue()), Keys(derived=(derive_key(KEY),)))
    assert found.is_sound, found
    [line] = [line for line in await service.engine.audit_lines() if line.entry.what == "runs_deleted"]
    assert line.entry.data["runs"][0][0] == run_id


async def test_a_comment_that_is_a_word_erases_no_other(service: Any) -> None:
    run_id = await service.start("pay-retained", {"amount": 5}, requester=DI)
    for text in ("approved", "amount", "email", "stage go", "the plan of last May"):
        await service.api.post(f"/api/runs/{run_id}/comments", json={"by": ANN, "text": text})
    await service.api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve", "comment": "approved"})
    await service.engine.settle()
    before = await service.run(run_id)
    while await service.engine.store.seal_ended(service.engine.now(), None, 50):
        pass
    people = service.engine.resources[People]
    done = await erase(service.engine, people, ANN, actor=Actor("cli", "root"), archive=None)
    after = await service.run(run_id)
    assert (after["request"]["state"], after["request"]["fields"]) == ("approved", {"amount": 5, "plan": None})
    assert after["request"].keys() == before["request"].keys()
    assert done.id in str(after)
    assert "last May" not in str(service.content())


async def test_a_person_is_erased_from_what_has_ended(service: Any, tmp_path: Path) -> None:
    secret, archive = "a friend from school", tmp_path / "archive"
    actor, people = Actor("cli", "root"), People()  # they have left, so only the runs know their name

    async def decided() -> str:
        run_id: str = await service.start("pay-retained", {"amount": 5}, requester=DI)
        vote = {"by": "Ann@ACME.eu", "choice": "reject", "comment": secret}
        assert (await service.api.post(f"/api/runs/{run_id}/votes", json=vote)).status_code == 201
        await service.engine.settle()
        return run_id

    await decided()
    await service.clock.advance(DAYS + timedelta(minutes=1))
    assert await delete(service, archive) == 1
    run_id = await decided()
    still = await service.start("pay-retained", {"amount": 6}, requester=DI)
    refused = await erase(service.engine, people, ANN, actor=actor, archive=archive)
    assert (refused.open, refused.runs) == ([still], 1)
    assert ANN in str(service.content())
    await service.api.post(f"/api/runs/{still}/cancellation", json={"by": DI})
    await service.engine.settle()
    while await service.engine.store.seal_ended(service.engine.now(), None, 50):
        pass
    dry = await erase(service.engine, people, ANN, actor=actor, archive=archive, dry_run=True)
    assert (dry.runs, dry.open, ANN in str(service.content())) == (2, [], True)

    store, engine = service.engine.store, service.engine
    away = PersonalRow(DI, {"zone": "", "away": [["2026-12-24", "2026-12-31", ANN]], "keys": True}, engine.now())
    await store.set_personal(away)
    user = {"userName": ANN, "displayName": "Ann Ode"}
    await store.put_document(DocumentRow("User", "u1", ANN, user, 0))
    await store.put_document(DocumentRow("User", "u2", DI, {"userName": DI, "nickName": "Ann Ode"}, 0))
    state = {"grants": [{"votes": [{"stage": "go", "person": ANN}], "revoked": {"by": ANN, "reason": secret}}]}
    await store.set_counter(StateRow("standing x", 1, state), engine.now(), engine.now() + DAYS)
    await store.begin_file(FileRow("file_1", ANN, engine.now(), engine.now() + DAYS, ""))

    done = await erase(service.engine, people, "ann@acme.EU", actor=actor, archive=archive)
    assert (done.runs, done.archives, done.open, done.rows) == (2, 1, [], 5)
    assert [row.document is None for row in await store.documents(0)] == [True, False]
    assert [row.settings["away"] for row in await store.personal(T0)] == [[["2026-12-24", "2026-12-31"]]]
    out = io.BytesIO()
    await write_export(service.engine, derive_key(KEY), out)
    [packed] = archive.iterdir()
    shown = (await service.api.get(f"/api/runs/{run_id}")).text
    everything = f"{service.content()} {gzip.decompress(packed.read_bytes())!r} {out.getvalue()!r} {shown}"
    assert [word for word in (ANN, "Ann Ode", "ACME", secret) if word in everything] == []
    assert done.id in shown
    assert DI in shown
    assert verify_lines(io.BytesIO(out.getvalue()), Keys(derived=(derive_key(KEY),))).is_sound
    again = await erase(service.engine, people, ANN, actor=actor, archive=archive)
    assert (again.runs, again.lines, again.archives) == (0, 0, 0)


def test_an_archive_whose_process_was_killed_is_rewritten(tmp_path: Path) -> None:
    archive = Archive(tmp_path, FakeClock().now())
    archive.begin()
    archive.add({"kind": "run", "key": f"app:desk {ANN}", "events": []})
    archive.flush()
    killed = archive.path.read_bytes()  # as it is before it is closed
    archive.close()
    archive.path.write_bytes(killed)
    eraser = Eraser(ANN, (), str, "erased-1")
    assert rewrite_archives(tmp_path, eraser) == 1
    assert list(archived_lines(archive.path)) == [{"kind": "run", "key": None, "events": []}]
    assert rewrite_archives(tmp_path, eraser) == 0


@pytest.mark.parametrize("place", ["its head", "its middle", "what is packed"])
async def test_a_damaged_archive_is_named_before_anything_is_erased(service: Any, tmp_path: Path, place: str) -> None:
    file = tmp_path / "runs-20260101T000000Z-000000.jsonl.gz"
    packed = bytearray(
        gzip.compress(b'{"kind": "run", "key": null, "events": []}\n' * 50 + b"{" * (place == "what is packed"))
    )
    if place != "what is packed":
        at = 0 if place == "its head" else len(packed) // 2
        packed[at : at + 4] = b"\xff" * 4
    file.write_bytes(packed)
    before = service.content()
    with pytest.raises(OSError, match=f"{file.name} is damaged"):
        await erase(service.engine, People(), ANN, actor=Actor("cli", "root"), archive=tmp_path)
    assert (service.content(), file.read_bytes()) == (before, bytes(packed))


def test_an_archive_that_was_replaced_takes_no_more(tmp_path: Path) -> None:
    for change in (Path.unlink, lambda path: (tmp_path / "other").replace(path)):
        archive = Archive(tmp_path, FakeClock().now())
        archive.begin()
        archive.add({"kind": "run"})
        (tmp_path / "other").touch()
        change(archive.path)
        with pytest.raises(OSError, match=r"No such file|another file was put in its place"):
            archive.flush()
        archive.close()


def test_an_archive_that_is_replaced_meanwhile_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Archive(tmp_path, FakeClock().now()) for _ in range(2))
    first.begin()
    first.add({"kind": "run", "key": None, "events": []})
    first.flush()
    first.close()
    locked = 0

    def lock_later(file: Any) -> None:
        nonlocal locked
        locked += 1
        if locked == 1:
            second.begin()
            second.add({"kind": "run", "key": f"app:desk {ANN}", "events": []})
            second.flush()
            second.path = second.path.replace(first.path)  # between our look at that name and the lock
        else:
            second.close()
        lock(file)

    monkeypatch.setattr("approvals_bot.service.erasure.lock", lock_later)
    assert rewrite_archives(tmp_path, Eraser(ANN, (), str, "erased-1")) == 1
    assert [line["key"] for line in archived_lines(first.path)] == [None]
    assert locked == 2


LEAVE = """
[workflow]
id = "leave-retained"
title = "Leave"
request = ["*"]
viewers = ["eve@acme.eu"]
[fields]
plan = { type = "file", required = false }
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[deliver]
email = true
"""


async def test_a_deleted_request_says_so_to_those_who_may_see_all(tmp_path: Path, unused_tcp_port: int) -> None:
    async with a_staffed_house(tmp_path, {"leave-retained": LEAVE}, unused_tcp_port) as house:
        key = {"Authorization": f"Bearer {ENV['DESK']}"}
        first, second = [
            (await house.http.post("/api/files", params={"name": "a"}, content=b"x", headers=key)).json()["id"]
            for _ in range(2)
        ]
        run = await house.open("leave-retained", plan=first)
        edit = {"by": "bo@acme.eu", "fields": {"plan": second}}
        edited = await house.http.patch(f"/api/runs/{run}/fields", json=edit, headers=key)
        assert edited.status_code in (200, 201), edited.text
        await house.service.engine.settle()
        await house.vote(run, ANN)
        await house.clock.advance(DAYS + timedelta(minutes=1))
        assert await delete(house.service) == 1
        store = house.service.engine.store
        assert [await store.file(each) for each in (first, second)] == [None, None], "the replaced one went, too"
        expected = {"cy@acme.eu": 410, "di@acme.eu": 410, "audit@acme.eu": 410, "eve@acme.eu": 410, "bo@acme.eu": 404}
        found = {person: await house.get(f"/requests/{run}", person) for person in expected}
        assert {person: answer.status_code for person, answer in found.items()} == expected
        assert "Approved on" in found["cy@acme.eu"].text
        assert run not in found["bo@acme.eu"].text
        runs = [(await house.get(f"/runs/{run}", person)).status_code for person in ("cy@acme.eu", "bo@acme.eu")]
        assert runs == [410, 403]
        assert (await house.get(f"/requests/{run}")).status_code == 401


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("mailto:bo@acme.eu?x=1, BO%40ACME.EU or <Bo@Acme.eu>.", "mailto:X?x=1, X or <X>."),
        ("plan of bo@acme.eu.pdf, by Bo  Lund", "plan of X.pdf, by X"),
        ("Lund, Bo and BO LUND and Bo\nLund", "X and X and X"),
        ("jumbo@acme.eu a.bo@acme.eu bo@acme.eu.example bo@acme.eu-x bo@acme.euro", None),
        ("Bo Lundgren, Jumbo Lund, bo lund, U0BO0000X", None),
        ("<@U0BO0000> has voted, once Bo Before", "<@X> has voted, once X"),
    ],
)
def test_a_person_is_found_as_people_write_them(text: str, left: str | None) -> None:
    eraser = Eraser("bo@acme.eu", ["Bo Lund"], People().canonical, "X")
    eraser.learn([json.dumps({"to": {"address": "bo@acme.eu", "name": "Bo", "slack": "U0BO0000", "zone": "UTC"}})])
    eraser.learn([json.dumps({"requester": {"key": "bo@acme.eu", "text": "Bo Before", "slack": None}})])
    assert eraser.in_text(text) == (left or text)


async def test_nobody_erased_comes_back_by_a_pass_of_retention(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await decided(service, amount) for amount in range(3)]
    await service.clock.advance(DAYS + timedelta(minutes=1))
    engine, archive = service.engine, tmp_path / "archive"
    while await engine.store.seal_ended(engine.now(), None, 50):
        pass
    chained, looping, at_archives = engine.store.chained, asyncio.get_running_loop(), asyncio.Event()
    erasing = list[asyncio.Task[Any]]()

    def waits(file: Any) -> None:
        looping.call_soon_threadsafe(at_archives.set)
        lock(file)

    async def held(run_id: str) -> Any:
        """Let a pass read a run, and then somebody erase a person, until that is done or waits for the archives."""
        found = await chained(run_id)
        if not erasing:
            erased = erase(engine, People(), ANN, actor=Actor("cli", "root"), archive=archive)
            erasing.append(asyncio.create_task(erased))
            waiting = asyncio.create_task(at_archives.wait())
            await asyncio.wait([*erasing, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        return found

    monkeypatch.setattr("approvals_bot.service.erasure.lock", waits)
    monkeypatch.setattr(engine.store, "chained", held)
    passes = [delete_ended(engine, RetentionRules(others=DAYS), archive, rest=0) for _ in range(2)]
    counts = [each.runs for each in await asyncio.gather(*passes)]
    [done] = await asyncio.gather(*erasing)
    assert (sum(counts), done.open, len(list(archive.iterdir()))) == (3, [], 2)
    lines = [line for path in archive.iterdir() for line in archived_lines(path)]
    assert {line["run_id"] for line in lines} == set(runs)
    assert [word for word in (ANN, "Ann Ode") if word in f"{lines} {service.content()}"] == []
    heads = {(line["run_id"], line["events"][-1]["hash"]) for line in lines}
    assert len(heads) == 3, "a run that both have archived is the same in both"
    out = io.BytesIO()
    await write_export(engine, derive_key(KEY), out)
    assert verify_lines(io.BytesIO(out.getvalue()), Keys(derived=(derive_key(KEY),))).is_sound


async def decided(service: Any, amount: int) -> str:
    run_id: str = await service.start("pay-retained", {"amount": amount}, requester=DI)
    await service.api.post(f"/api/runs/{run_id}/votes", json={"by": ANN, "choice": "approve"})
    await service.engine.settle()
    return run_id


async def test_an_archive_that_fails_keeps_runs_and_leaves_nothing(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await decided(service, 5)
    await service.clock.advance(DAYS + timedelta(minutes=1))

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            await delete(service, tmp_path / "archive")
    assert list((tmp_path / "archive").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        await delete(service, tmp_path / "file")
    monkeypatch.undo()
    assert (await service.run(run_id))["status"] == "completed"
    assert await delete(service, tmp_path / "archive") == 1


async def test_an_archive_stays_if_the_answer_of_deleting_is_lost(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, store = await decided(service, 5), service.engine.store
    await service.clock.advance(DAYS + timedelta(minutes=1))
    delete_runs = store.delete_runs

    async def loses_its_answer(*given: Any) -> int:
        await delete_runs(*given)
        raise StoreUnavailableError("lost")

    monkeypatch.setattr(store, "delete_runs", loses_its_answer)
    with pytest.raises(StoreUnavailableError):
        await delete(service, tmp_path)
    [archive] = tmp_path.glob("*.gz")
    assert [line["run_id"] for line in archived_lines(archive)] == [run_id]
    assert await store.stub(run_id=run_id) is not None


async def test_a_damaged_run_stays_and_holds_nothing_up(service: Any, tmp_path: Path) -> None:
    runs = [await decided(service, amount) for amount in (5, 6, 7)]
    await service.clock.advance(DAYS + timedelta(minutes=1))
    with closing(sqlite3.connect(service.database)) as db, db:
        db.execute("UPDATE events SET data = '{' WHERE run_id = ? AND seq = 1", (runs[0],))
        db.execute("DELETE FROM events WHERE run_id = ? AND seq = 3", (runs[1],))
    assert await delete(service, tmp_path) == 1
    assert [await service.engine.store.stub(run_id=run) is None for run in runs] == [True, True, False]


async def test_erasing_waits_for_an_archive_that_is_written(tmp_path: Path) -> None:
    archive = Archive(tmp_path, T0)
    archive.begin()
    event = {"seq": 1, "data": json.dumps({"by": "ann@acme.eu"}), "salt": "s"}
    archive.add({"kind": "run", "run_id": "a", "key": None, "events": [event]})
    erasing = asyncio.create_task(asyncio.to_thread(rewrite_archives, tmp_path, Eraser(ANN, [], str, "erased-1")))
    await asyncio.sleep(0.05)
    assert not erasing.done()
    archive.add({"kind": "run", "run_id": "b", "key": None, "events": [event]})
    archive.flush()
    archive.close()
    assert await erasing == 1
    assert [line["run_id"] for line in archived_lines(archive.path)] == ["a", "b"], "nothing of it is lost"


async def test_an_export_beside_retention_accuses_nobody(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for amount in (5, 6, 7):
        await decided(service, amount)
    await service.clock.advance(DAYS + timedelta(minutes=1))
    engine, chained = service.engine, service.engine.store.chained

    async def deletes_then_reads(run_id: str) -> Any:
        monkeypatch.setattr(engine.store, "chained", chained)
        assert await delete(service) == 3
        await decided(service, 8)
        return await chained(run_id)

    while await engine.store.seal_ended(engine.now(), None, 50):
        pass
    monkeypatch.setattr(engine.store, "chained", deletes_then_reads)
    out = io.BytesIO()
    manifest = await write_export(engine, derive_key(KEY), out)
    assert (manifest.faults, len(manifest.deleted)) == ([], 3)
    found = verify_lines(io.BytesIO(out.getvalue()), Keys(derived=(derive_key(KEY),)))
    assert found.is_sound, found


async def test_a_clock_that_is_set_back_stops_nothing(service: Any) -> None:
    rules = RetentionTable.model_validate({"ended": "400d"})
    named = SimpleNamespace(service=SimpleNamespace(retention=rules), workflows=())
    keeper, engine = RetentionKeeper(service.engine, lambda: named), service.engine  # type: ignore[arg-type, return-value]  # what it reads of it
    assert [await keeper._is_its_turn() for _ in range(2)] == [True, False]
    later = engine.now() + timedelta(days=300)
    last = await engine.store.counter(COUNTER)
    await engine.store.set_counter(StateRow(COUNTER, last.version + 1, {"next": to_micros(later)}), later, later + DAYS)
    assert await keeper._is_its_turn()
