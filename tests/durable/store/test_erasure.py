"""Rewriting the texts of ended runs, on both stores."""

from __future__ import annotations

from datetime import timedelta

from approvals_bot.durable.core.events import NewEvent
from approvals_bot.durable.store.audit import AuditEntry
from approvals_bot.durable.store.chain import SEALED, seal
from approvals_bot.durable.store.erasure import AuditText, EventText
from approvals_bot.durable.store.files import FileRow
from approvals_bot.durable.store.personal import PersonalRow
from approvals_bot.durable.store.protocol import Append, Lease, OpenStore, StateRow
from tests.support.new_runs import T0, new_run

ANN = "ann@acme.eu"


async def a_run(store: OpenStore, id: str, *, ends: bool) -> None:
    await store.create(new_run(id, "w", "w", None, {"workflow": "w", "input": {"to": ANN}}, f"k {id} {ANN}"), T0)
    [claimed] = await store.claim(Lease("me", T0, T0 + timedelta(days=1)), run_id=id)
    hook = {"id": 1, "hook_id": f"hook-{id}", "token": f"token-{id}", "is_webhook": True, "metadata": {"for": ANN}}
    events = [NewEvent("run_started", {}), NewEvent("hook_created", hook)]
    events += [NewEvent("run_completed", {"result": ANN})] if ends else []
    found = {"$voted_by": [ANN, "bo@acme.eu"]}
    batch = Append(id, claimed.claim.epoch, 1, events, T0, view={"by": ANN}, attributes=found, release=True)
    await store.append(batch)


async def test_texts_of_ended_runs_are_rewritten(store: OpenStore) -> None:
    await a_run(store, "r0", ends=True)
    await a_run(store, "r1", ends=False)
    first, second = await store.run_texts("", 9)
    assert (first.run_id, first.is_open, second.run_id, second.is_open) == ("r0", False, "r1", True)
    assert [texts.run_id for texts in await store.run_texts("r0", 1)] == ["r1"]
    before = await store.chained("r0")

    def without(text: str) -> str:
        return text.replace(ANN, "erased")

    def event(was: EventText) -> EventText:
        data = without(was.data)
        return was if data == was.data else EventText(was.seq, data, SEALED + seal(was.salt, was.data))

    for was in (first, second):
        assert was.view is not None
        to = was._replace(
            view=without(was.view),
            key=None,
            attributes=without(was.attributes),
            events=tuple(map(event, was.events)),
            hooks=tuple((id, without(metadata)) for id, metadata in was.hooks),
            found=tuple((name, without(value)) for name, value in was.found),
        )
        await store.rewrite_run(was, to)
    erased, still = await store.run_texts("", 9)
    assert ANN not in str(erased)
    assert sorted(erased.found) == [("$voted_by", "bo@acme.eu"), ("$voted_by", "erased")]
    assert still == second  # it is open
    after = await store.chained("r0")
    assert [each.hash for each in after] == [each.hash for each in before]
    assert [one.hash_after("") for one in after] == [one.hash_after("") for one in before]


async def test_lines_and_rows_of_a_person_are_erased(store: OpenStore) -> None:
    await store.audit(AuditEntry("vote", ANN, "r0", {"by": ANN}), T0)
    await store.audit(AuditEntry("vote", "bo@acme.eu", "r0", {}), T0)
    await store.set_personal(PersonalRow(ANN, {"zone": "UTC"}, T0))
    [line, other] = await store.audit_texts(0, 9)
    assert (line.who, await store.audit_texts(1, 9)) == (ANN, [other])
    await store.rewrite_audit([AuditText(line.seq, "erased", line.data.replace(ANN, "erased"))])
    assert [each.entry.who for each in await store.audit_lines()] == ["erased", "bo@acme.eu"]
    assert ANN not in str(await store.audit_texts(0, 9))
    assert (await store.erase_person(ANN), await store.erase_person(ANN)) == (1, 0)
    assert await store.overwrite_freed()


async def test_counters_and_files_are_rewritten(store: OpenStore) -> None:
    await store.set_counter(StateRow(f"of {ANN}", 1, {"by": ANN}), T0, T0 + timedelta(days=1))
    await store.begin_file(FileRow("f", ANN, T0, T0 + timedelta(days=1), ""))
    [counter], [file] = await store.other_texts("counters", "", 9), await store.other_texts("files", "", 9)
    assert (counter.texts[0], file.texts) == (f"of {ANN}", (ANN, ""))
    assert await store.other_texts("files", "f", 9) == []
    for was in (counter, file):
        to = was._replace(texts=(was.texts[0].replace(ANN, "erased"), was.texts[1].replace(ANN, "erased")))
        assert await store.rewrite_other(was, to)
        assert not await store.rewrite_other(was, to)  # it has changed
    kept = await store.counter("of erased")
    assert kept == StateRow("of erased", 2, {"by": "erased"})
    late = StateRow("of erased", 2, {})  # of a service that had read it before
    assert not await store.set_counter(late, T0, T0)
