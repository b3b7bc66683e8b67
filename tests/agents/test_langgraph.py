"""Graphs of LangGraph in workflows: `hold` while people answer their interrupts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from approvals_bot import workflow
from approvals_bot.agents.langgraph import hold
from approvals_bot.errors import HookNotFoundError, RunFailedError
from tests.agents import langgraph_travel
from tests.agents.deciding import all_calls, decide, end_of, open_calls
from tests.agents.langgraph_travel import Questions, Travel, asking, happened, questions
from tests.approvals.conftest import ANN, BO, office

__all__ = ["office"]

MODES = ["batched", "per_call"]
both = pytest.mark.parametrize("mode", MODES)
GRAPHS: dict[str, Any] = {mode: f"tests.agents.langgraph_travel:{mode}" for mode in MODES} | {"asking": asking}
INPUT = {"messages": [("user", "to Oslo")]}


@pytest.fixture(autouse=True)
def _new_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    happened.clear()
    monkeypatch.setattr(Travel, "path", tmp_path / "threads.db", raising=False)
    before = dict(GRAPHS)
    yield
    GRAPHS.update(before)


@workflow(name="graphs: travel")
async def travels(which: str, thread: str = "one", options: dict[str, Any] | None = None) -> list[str]:
    values = await hold(GRAPHS[which], thread, INPUT, to=[ANN, BO], **(options or {}))
    outputs: list[str] = json.loads(values["messages"][-1]["content"])
    return outputs


@workflow(name="graphs: questions")
async def questioned(which: str, names: list[str]) -> list[Any]:
    values = await hold(GRAPHS[which], "questions", {"names": names, "answers": []}, to=ANN)
    answers: list[Any] = sorted(values["answers"])
    return answers


@both
@pytest.mark.agents(12)
@pytest.mark.agents(17)
async def test_approve_edit_reject_and_respond(office: Any, mode: str) -> None:
    async with office.open():
        run = await office.engine.start(travels, mode)
        calls = await open_calls(office, run, 3)
        assert calls["call_1"].fields["arguments"] == {"flight": "LH1", "price": 640}
        await decide(office, calls["call_3"], "answer", comment="Take the train")
        await decide(office, calls["call_1"], "edit", answers={"price": 600})
        if mode == "per_call":
            await _until(office, "book LH1 600")
        else:
            assert set(happened) == {"model"}, "the graph waits for all calls of its turn"
        await decide(office, calls["call_2"], "reject", comment="too early")
        booked, rejected, answered = await end_of(run)
    assert booked == "booked LH1 for 600"
    assert 'Rejected by Ann Ode: "too early"' in rejected
    assert answered.startswith('Ann Ode answers: "Take the train"')
    assert happened == {"model": 1, "book LH1 600": 1, "model again": 1}


async def _until(office: Any, effect: str) -> None:
    for _ in range(400):
        await office.settle()
        if happened[effect]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(happened)


async def test_an_edit_that_the_schema_refuses_keeps_the_request_open(office: Any) -> None:
    async with office.open():
        run = await office.engine.start(travels, "per_call")
        calls = await open_calls(office, run, 3)
        reply = await decide(office, calls["call_1"], "edit", answers={"price": "dear"})
        assert reply["verdict"] == "invalid"
        for view in (await open_calls(office, run, 3)).values():
            await decide(office, view, "approve")
        assert len(await end_of(run)) == 3


@both
@pytest.mark.agents(6)
async def test_a_week_and_a_restart_between_question_and_answer(office: Any, mode: str) -> None:
    async with office.open():
        run = await office.engine.start(travels, mode, "one", {"deadline": "30 days"})
        await open_calls(office, run, 3)
    await office.clock.advance("7 days")
    async with office.open():
        run = office.engine.get_run(run.id)
        for view in (await open_calls(office, run, 3)).values():
            await decide(office, view, "approve")
        assert await end_of(run) == ["booked LH1 for 640", "booked LH2 for 120", "booked LH3 for 30"]
        again = await office.engine.start(travels, mode, "one")
        assert len(await end_of(again)) == 3, "the thread has ended, so its values are the result"
    assert set(happened.values()) == {1}


@both
@pytest.mark.agents(13)
async def test_silence_and_cancellation_run_nothing(office: Any, mode: str) -> None:
    async with office.open():
        run = await office.engine.start(travels, mode, "silent")
        await open_calls(office, run, 3)
        await office.clock.advance("16m")
        assert all("Silence is not consent" in each for each in await end_of(run))
        cancelled = await office.engine.start(travels, mode, "cancelled")
        await open_calls(office, cancelled, 3)
        await cancelled.cancel(reason="not needed")
        await office.settle()
    assert not [each for each in happened if each.startswith("book")]


@both
async def test_a_choice_that_the_tool_does_not_offer_runs_nothing(office: Any, mode: str) -> None:
    GRAPHS["strict"] = Travel(mode, {"allowed_decisions": ["approve", "reject"]}).graph
    async with office.open():
        run = await office.engine.start(travels, "strict")
        calls = await open_calls(office, run, 3)
        await decide(office, calls["call_1"], "edit", answers={"price": 600})
        await decide(office, calls["call_2"], "answer", comment="Take the train")
        await decide(office, calls["call_3"], "approve")
        edited, answered, booked = await end_of(run)
    assert "doesn't offer" in edited
    assert "Take the train" in answered
    assert booked == "booked LH3 for 30"
    assert happened == {"model": 1, "book LH3 30": 1, "model again": 1}


class Tampering(AgentMiddleware):
    """Changes the arguments between the approval and the tool."""

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        call = request.tool_call
        return await handler(request.override(tool_call=call | {"args": call["args"] | {"price": 6400}}))


@both
@pytest.mark.agents(11)
async def test_other_arguments_than_those_decided_on_run_nothing(office: Any, mode: str) -> None:
    GRAPHS["tampered"] = Travel(mode, middleware=[Tampering()]).graph
    async with office.open():
        run = await office.engine.start(travels, "tampered")
        for view in (await open_calls(office, run, 3)).values():
            with suppress(HookNotFoundError):  # one call a time: the first may have failed the run already
                await decide(office, view, "approve")
        with pytest.raises(RunFailedError) as failed:
            await end_of(run)
    assert failed.value.cause_type.endswith("ApprovalMismatchError")
    assert set(happened) == {"model"}


@pytest.mark.agents(11)
async def test_a_thread_that_waits_for_another_call_is_a_mismatch(office: Any) -> None:
    async with office.open():
        run = await office.engine.start(travels, "batched")
        calls = await open_calls(office, run, 3)
        for view in list(calls.values())[:2]:
            await decide(office, view, "approve")
        await _ask_again_for_more(6400)
        await decide(office, calls["call_3"], "approve")
        with pytest.raises(RunFailedError) as failed:
            await end_of(run)
    assert failed.value.cause_type.endswith("ApprovalMismatchError")
    assert not [each for each in happened if each.startswith("book")]


async def _ask_again_for_more(price: int) -> None:
    """Change what the open interrupt shows, in the checkpointer's own table."""
    async with AsyncSqliteSaver.from_conn_string(str(Travel.path)) as saver:
        await saver.setup()
        rows = await (await saver.conn.execute("SELECT rowid, value FROM writes")).fetchall()
        for row, value in rows:
            changed = bytes(value).replace((640).to_bytes(2, "big"), price.to_bytes(2, "big"))
            await saver.conn.execute("UPDATE writes SET value = ? WHERE rowid = ?", (changed, row))
        await saver.conn.commit()


# ── their own interrupts ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_graph_s_own_interrupts_get_answers_as_text(office: Any) -> None:
    async with office.open():
        run = await office.engine.start(questioned, "asking", ["Ann", "Bo", "Cy", "Di"])
        calls = await open_calls(office, run, 4)
        by_name = {str(view.fields["arguments"]).split()[2]: view for view in calls.values()}
        await decide(office, by_name["Ann"], "answer", comment="By train")
        await decide(office, by_name["Bo"], "approve")
        await decide(office, by_name["Cy"], "reject", comment="no")
        await decide(office, by_name["Di"], "edit", answers={"question": "May Di fly?"})
        (second,) = (await open_calls(office, run, 1)).values()
        assert second.fields["tool"] == "ask"
        await decide(office, second, "reject", comment="not twice")
        assert await end_of(run) == [
            ["Ann", "By train", None],
            ["Bo", True, False],
            ["Cy", False, None],
            ["Di", {"question": "May Di fly?"}, None],
        ]
    assert set(happened.values()) == {1}


# ── which graphs can be held ──────────────────────────────────────────────────────────────────────────────────────


def stops(saver: Any) -> Any:
    graph = StateGraph(Questions)
    graph.add_node("stop", lambda state: {"answers": []})
    graph.add_edge(START, "stop")
    graph.add_edge("stop", END)
    return graph.compile(checkpointer=saver, interrupt_before=["stop"])


async def test_a_graph_that_could_not_wait_is_refused(office: Any) -> None:
    async with AsyncSqliteSaver.from_conn_string(":memory:") as in_memory:
        GRAPHS.update(
            none=questions(None),
            memory=questions(InMemorySaver()),
            sqlite=lambda: questions(in_memory),
            stops=stops(AsyncSqliteSaver(in_memory.conn)),
        )
        async with office.open():
            for which, why in [
                ("none", "no checkpointer"),
                ("memory", "InMemorySaver keeps the graph's threads in memory"),
                ("sqlite", "AsyncSqliteSaver keeps the graph's threads in memory"),
            ]:
                run = await office.engine.start(questioned, which, ["Ann"])
                with pytest.raises(RunFailedError, match=why):
                    await end_of(run)


async def test_a_graph_that_stops_without_an_interrupt_is_refused(office: Any, tmp_path: Path) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "stops.db")) as saver, office.open():
        GRAPHS["stops"] = stops(saver)
        run = await office.engine.start(questioned, "stops", ["Ann"])
        with pytest.raises(RunFailedError, match="stops without an interrupt"):
            await end_of(run)


async def test_a_graph_is_an_object_a_function_or_a_context_manager(office: Any) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(Travel.path)) as saver:

        async def later() -> Any:
            return questions(saver)

        await saver.setup()
        forms = {"object": questions(saver), "function": lambda: questions(saver), "later": later, "manager": asking}
        GRAPHS.update(forms)
        async with office.open():
            for n, form in enumerate(forms):
                await saver.adelete_thread("questions")
                run = await office.engine.start(questioned, form, ["Ann"])
                (view,) = (await open_calls(office, run, 1)).values()
                await decide(office, view, "answer", comment=str(n))
                assert await end_of(run) == [["Ann", str(n), None]]


@both
@pytest.mark.agents(17)
async def test_a_thread_that_went_on_before_its_process_died_goes_on(office: Any, mode: str) -> None:
    """The segment's result is lost: the graph has answered, and the log doesn't know."""
    async with office.open():
        run = await office.engine.start(travels, mode)
        calls = await open_calls(office, run, 3)
    async with getattr(langgraph_travel, mode)() as graph:  # as the segment does before its process dies
        config = {"configurable": {"thread_id": "one"}}
        state = await graph.aget_state(config)
        if mode == "batched":
            resume: dict[str, Any] = {state.interrupts[0].id: {"decisions": [{"type": "approve"}] * 3}}
        else:
            resume = {each.id: {"type": "approve"} for each in state.interrupts[:2]}
        await graph.ainvoke(Command(resume=resume), config, durability="sync")
    done = {each for each in happened if each.startswith("book")}
    async with office.open():
        for view in calls.values():
            await decide(office, view, "approve")
        assert len(await end_of(office.engine.get_run(run.id))) == 3
        assert len(await all_calls(office, run)) == 3
    assert len(done) == (3 if mode == "batched" else 2)
    assert set(happened.values()) == {1}, "nothing after a checkpoint runs twice"
