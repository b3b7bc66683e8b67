"""Graphs of LangGraph with a scripted model: a travel agent in both modes, and graphs with their own interrupts."""

from __future__ import annotations

import json
import operator
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from tests.agents.effects import effect, happened

__all__ = [
    "BOOKINGS",
    "Questions",
    "Scripted",
    "Travel",
    "asking",
    "batched",
    "book",
    "happened",
    "per_call",
    "questions",
]

BOOKINGS = (("call_1", "LH1", 640), ("call_2", "LH2", 120), ("call_3", "LH3", 30))


class Scripted(BaseChatModel):
    """A model that books flights at once, then says what the tools returned."""

    bookings: Sequence[tuple[str, str, int]] = BOOKINGS
    calls: Sequence[dict[str, Any]] = ()  # others than bookings
    mark: str = ""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        outputs = {each.tool_call_id: each.content for each in messages if isinstance(each, ToolMessage)}
        await effect(f"{self.mark}model again" if outputs else f"{self.mark}model")
        calls = self.calls or [
            {"name": "book", "args": {"flight": f, "price": p}, "id": id} for id, f, p in self.bookings
        ]
        text = json.dumps([outputs[call["id"]] for call in calls]) if outputs else ""
        said = AIMessage(text, tool_calls=[] if outputs else calls)
        return ChatResult(generations=[ChatGeneration(message=said)])


@tool
async def book(flight: str, price: int) -> str:
    """Book a flight."""
    await effect(f"book {flight} {price}")
    return f"booked {flight} for {price}"


def marked_tool(mark: str) -> Any:
    """Return another `book`, whose effects begin with this mark."""

    @tool("book")
    async def marked(flight: str, price: int) -> str:
        """Book a flight."""
        await effect(f"{mark}book {flight}")
        return f"booked {flight} for {price}"

    return marked


def travel_graph(
    model: Scripted,
    mode: Any,
    saver: Any,
    *,
    allowed: Any = True,
    middleware: Sequence[AgentMiddleware] = (),
    tool: Any = book,
) -> Any:
    """Return the graph of a travel agent that asks before it books."""
    asking = HumanInTheLoopMiddleware({"book": allowed}, interrupt_mode=mode, edit_notice=None)
    return create_agent(model, tools=[tool], middleware=[asking, *middleware], checkpointer=saver)


class Travel:
    """The travel agent, with its threads in a file. `graphs` opens it, as an author would write it."""

    path: Path

    def __init__(
        self, mode: Any, allowed: Any = True, middleware: Sequence[AgentMiddleware] = (), mark: str = ""
    ) -> None:
        self.mode, self.allowed, self.middleware = mode, allowed, middleware
        self.model, self.tool = Scripted(mark=mark), marked_tool(mark) if mark else book

    @asynccontextmanager
    async def graph(self) -> AsyncIterator[Any]:
        async with AsyncSqliteSaver.from_conn_string(str(Travel.path)) as saver:
            more = {"allowed": self.allowed, "middleware": self.middleware, "tool": self.tool}
            yield travel_graph(self.model, self.mode, saver, **more)


batched = Travel("batched").graph
per_call = Travel("per_call").graph


# ── their own interrupts ──────────────────────────────────────────────────────────────────────────────────────────


class Questions(TypedDict):
    names: list[str]
    answers: Annotated[list[Any], operator.add]


class Question(TypedDict):
    name: str


async def ask(state: Question) -> dict[str, Any]:
    name = state["name"]
    first = interrupt({"question": f"May {name} travel?"})
    second = interrupt({"question": f"May {name} travel?"}) if name == "Bo" else None
    happened[f"asked {name}"] += 1
    return {"answers": [[name, first, second]]}


def questions(saver: Any) -> Any:
    graph = StateGraph(Questions)
    graph.add_node("ask", ask)
    graph.add_conditional_edges(
        START, lambda state: [Send("ask", Question(name=each)) for each in state["names"]], ["ask"]
    )
    graph.add_edge("ask", END)
    return graph.compile(checkpointer=saver)


@asynccontextmanager
async def asking() -> AsyncIterator[Any]:
    async with AsyncSqliteSaver.from_conn_string(str(Travel.path)) as saver:
        yield questions(saver)
