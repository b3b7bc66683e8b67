"""Graphs of LangGraph inside a workflow: held while people decide.

    @workflow
    async def travel(question: str) -> str:
        thread = get_workflow_metadata().run_id
        values = await hold("travel:graph", thread, {"messages": [("user", question)]}, to="@ops")
        return values["messages"][-1]["content"]

The graph's checkpointer has its state; the log has what people decided. What the graph does between two pauses is one
step, and a step that died goes on from the graph's last checkpoint.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic_core import to_jsonable_python

from approvals_bot.agents.segments import run_segment
from approvals_bot.agents.tool_calls import DEADLINE, approve
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.client.interrupts import Answers, GraphPause, answer_pauses
from approvals_bot.client.paused_calls import CallKeys, DecidedCall, PausedCall
from approvals_bot.durable.core.api import uuid4
from approvals_bot.durable.core.threads import import_alone
from approvals_bot.errors import InvalidArgumentError

if find_spec("langgraph") is None:
    raise ImportError("LangGraph is missing: pip install 'approvals-bot[langgraph]'")


async def hold(
    graph: Any,
    thread: str,
    input: Any,
    to: str | Sequence[str] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    agent: str | None = None,
    deadline: str | timedelta | None = DEADLINE,
    on_behalf_of: str | None = None,
    stages: Sequence[Stage | Mapping[str, Any]] | None = None,
    deliver: Deliver | Mapping[str, Any] | None = None,
    retries: int = 0,
) -> Any:
    """Run a graph in a workflow, and hold it while people answer its interrupts. Returns its values, as JSON.

        values = await hold("travel:graph", "thread-17", {"messages": [("user", "Oslo")]}, to="@ops")

    `graph` is a compiled graph, a function that returns one, or an async context manager that gives one (or a function
    that makes it); any of these also by name, as `module:name`. Each segment opens it again. Its checkpointer has to
    keep the thread for as long as people may take. A thread belongs to one run: if it has ended, nothing runs, and its
    values are returned.

    All open interrupts are requested at once. The tool calls of `HumanInTheLoopMiddleware` may be approved, edited,
    rejected and answered, as its settings allow. Any other value is shown as JSON: `interrupt()` returns the text of
    an answer, True if it was approved, the edited value, and False in all other cases.

    `config` is that of the graph, without its thread. `agent` names the agent on cards. `to`, `deadline`,
    `on_behalf_of`, `stages` and `deliver` are those of `approve`. An error in a segment is not retried unless
    `retries` says so.

    Raises InvalidArgumentError for a graph that can't wait: without a checkpointer, with one in memory, or one that
    stops without an interrupt. Raises ApprovalMismatchError if the thread waits for other calls, or runs a tool with
    other arguments, than those that people decided on.
    """
    settings = {**(config or {})}
    settings["configurable"] = {**settings.get("configurable", {}), "thread_id": thread}

    async def decide(call: PausedCall, key: str, schema: Any) -> DecidedCall:
        decision = await approve(
            call.tool,
            call.arguments,
            tool_call_id=key,
            to=to,
            agent=agent,
            expects=schema,
            deadline=deadline,
            on_behalf_of=on_behalf_of,
            stages=stages,
            deliver=deliver,
        )
        return DecidedCall(call, decision)

    async def advance(answers: Answers) -> GraphSegment:
        async def segment() -> GraphSegment:
            adapter = await asyncio.to_thread(import_alone, "approvals_bot.client.langgraph")
            async with _opened(graph) as opened:
                await _check_keeps_threads(opened)
                state = await adapter.advance(opened, settings, input, answers)
            values = None if state.pauses else to_jsonable_python(state.values, fallback=str)
            return GraphSegment(pauses=state.pauses, values=values)

        return await run_segment("graph__segment", segment, GraphSegment, retries=retries)

    keys = CallKeys(f"{uuid4()}.")  # a run may hold several graphs
    return (await answer_pauses(await advance({}), decide, advance, keys)).values


class GraphSegment(BaseModel):
    """What came of a segment of a graph: open interrupts, or its values at the end."""

    model_config = ConfigDict(frozen=True)

    pauses: tuple[GraphPause, ...]
    values: JsonValue = None


@asynccontextmanager
async def _opened(graph: Any) -> AsyncIterator[Any]:
    found: Any = await asyncio.to_thread(_named, graph) if isinstance(graph, str) else graph
    if callable(found) and not hasattr(found, "ainvoke"):
        found = found()
    given: Any = await found if inspect.isawaitable(found) else found
    if hasattr(given, "__aenter__"):
        async with given as opened:
            yield opened
    else:
        yield given


def _named(place: str) -> Any:
    """Return what `module:name` names. Its import may take seconds, so it belongs into a thread."""
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise InvalidArgumentError(f"a graph is named as 'module:name', not {place!r}")
    found = import_alone(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


async def _check_keeps_threads(graph: Any) -> None:
    """Raise InvalidArgumentError for a graph whose threads end with the process."""
    saver = getattr(graph, "checkpointer", None)
    in_memory = import_alone("langgraph.checkpoint.memory").InMemorySaver
    if saver is None or isinstance(saver, bool):
        raise InvalidArgumentError("the graph has no checkpointer, so it can't be held: compile it with one")
    if isinstance(saver, in_memory) or await _is_sqlite_in_memory(saver):
        raise InvalidArgumentError(
            f"{type(saver).__name__} keeps the graph's threads in memory, where they end with the process, and people "
            "may take days. Use a checkpointer with a database, such as AsyncSqliteSaver on a file."
        )


async def _is_sqlite_in_memory(saver: Any) -> bool:
    if not type(saver).__module__.startswith("langgraph.checkpoint.sqlite.aio"):
        return False
    await saver.setup()  # connects
    async with saver.conn.execute("PRAGMA database_list") as rows:
        return all(not file for _, name, file in await rows.fetchall() if name == "main")
