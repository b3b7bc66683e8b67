"""A travel agent of OpenAI's SDK with a scripted model, and what it does to the world."""

from __future__ import annotations

import json
from typing import Any

from agents import Agent, Model, ModelResponse, Usage, function_tool
from agents.testing import assistant_message, function_call

from tests.agents.effects import effect, happened

__all__ = ["BOOKINGS", "Scripted", "book", "happened", "travel", "travel_agent"]

BOOKINGS = (("call_1", "LH1", 640), ("call_2", "LH2", 120), ("call_3", "LH3", 30))


class Scripted(Model):
    """A model that books three flights at once, then says what the tools returned."""

    def __init__(self, *first: Any, mark: str = "") -> None:
        self.mark = mark
        self.first = first or [
            function_call("book", {"flight": flight, "price": price}, call_id=id) for id, flight, price in BOOKINGS
        ]

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        outputs = [one["output"] for one in input if one.get("type") == "function_call_output"]
        await effect(f"{self.mark}model again" if outputs else f"{self.mark}model")
        said = [assistant_message(json.dumps(outputs))] if outputs else list(self.first)
        return ModelResponse(output=said, usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@function_tool(needs_approval=True)
async def book(flight: str, price: int) -> str:
    """Book a flight."""
    await effect(f"book {flight} {price}")
    return f"booked {flight} for {price}"


travel = Agent(name="travel", model=Scripted(), tools=[book])


def travel_agent(mark: str) -> Agent[Any]:
    """Return another travel agent, whose effects begin with this mark."""

    @function_tool(needs_approval=True, name_override="book")
    async def marked(flight: str, price: int) -> str:
        await effect(f"{mark}book {flight}")
        return f"booked {flight} for {price}"

    return Agent(name="travel", model=Scripted(mark=mark), tools=[marked])
