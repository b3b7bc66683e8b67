"""The booking chat: an agent whose tool call waits for a person, as a chat on the page /chat. It runs in `dev`.

Every message is answered by a run of `book_flight_chat`. Model requests and tool calls are steps of it, so nothing is
lost when the service dies, and a booking may wait for its approval for as long as it takes.
"""

import re
from typing import TYPE_CHECKING

from pydantic import JsonValue

from approvals_bot import step, workflow
from approvals_bot.agents import Chat, ChatContext, ChatTurn
from approvals_bot.agents.chat_model import chat_model, tool_call_id

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse

INSTRUCTIONS = """You book flights. Look them up with searchFlights. Before you book one, call bookingApproval for each
passenger, all of them at once. Call bookFlight only for what was approved. Never ask again for what was rejected."""

Booking = dict[str, JsonValue]
"""The arguments of a booking: flightNumber, passengerName, price."""

IN_THE_WORKFLOW = {"approvals_bot": False}  # not a step: it may wait for people


# ── a model without a network, for trying this out ─────────────────────────────────────────────────────────────────


def script(messages: "list[ModelMessage]") -> "ModelResponse":
    """Answer like a model would: "Book LH 441 for Ann Ode and LH 442 for Bo Lund" wants two approvals at once."""
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart

    asked, since = "", 0
    for at, message in enumerate(messages):
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                asked, since = str(part.content), at
    returned = [part for message in messages[since:] for part in message.parts if isinstance(part, ToolReturnPart)]

    def call(*calls: tuple[str, Booking]) -> ModelResponse:
        return ModelResponse(
            [ToolCallPart(tool, given, tool_call_id(messages, at)) for at, (tool, given) in enumerate(calls)]
        )

    if not returned:
        wanted = calls_for(asked)
        return call(*wanted) if wanted else ModelResponse([TextPart(HELP)])
    approved = [part.metadata for part in returned if part.tool_name == "bookingApproval" and part.metadata]
    if approved and not any(part.tool_name == "bookFlight" for part in returned):
        return call(*(("bookFlight", booking) for booking in approved))
    results = [part.content for part in returned if not part.metadata]
    return ModelResponse([TextPart("\n".join(str(each) for each in results))])


HELP = 'Ask me to "Book LH 441 for Ann Ode and LH 442 for Bo Lund", for flights from MUC to JFK, or about baggage.'
BOOKING = re.compile(r"\b([A-Z]{2} ?\d{1,4}) for ((?:[A-Z][\w'-]*)(?: [A-Z][\w'-]*)*)")


def calls_for(asked: str) -> list[tuple[str, Booking]]:
    """Return the tool calls that a message asks for."""
    bookings = [(flight, passenger) for flight, passenger in BOOKING.findall(asked)]
    if bookings:
        return [
            (
                "bookingApproval",
                {"flightNumber": flight, "passengerName": passenger, "price": FLIGHTS.get(flight, ("", "", 250))[2]},
            )
            for flight, passenger in bookings
        ]
    airports = [code for code in re.findall(r"\b[A-Z]{3}\b", asked) if code in AIRPORTS]
    flight_number = next(iter(re.findall(r"\b[A-Z]{2} ?\d{1,4}\b", asked)), "")
    match asked.lower():
        case text if "baggage" in text or "luggage" in text:
            return [("checkBaggageAllowance", {"airline": flight_number[:2] or "LH", "ticketClass": "economy"})]
        case _ if flight_number:
            return [("checkFlightStatus", {"flightNumber": flight_number})]
        case _ if len(airports) > 1:
            return [("searchFlights", {"from": airports[0], "to": airports[1]})]
        case _ if airports:
            return [("getAirportInfo", {"airportCode": airports[0]})]
    return []


# ── the agent ──────────────────────────────────────────────────────────────────────────────────────────────────────

FLIGHTS = {
    "LH 441": ("JFK", "MUC", 640),
    "LH 442": ("MUC", "JFK", 590),
    "LH 2031": ("MUC", "BER", 240),
}
AIRPORTS = {"MUC": "Munich", "JFK": "New York John F. Kennedy", "BER": "Berlin Brandenburg"}


def booking_agent() -> "Agent[ChatContext, str]":
    """Make the agent, with the first message: its framework takes a second to import."""
    from pydantic_ai import Agent, RunContext, ToolReturn

    from approvals_bot.agents.pydantic_ai import Durable

    agent = Agent(
        chat_model(script),
        name="book_flight",
        deps_type=ChatContext,
        instructions=INSTRUCTIONS,
        capabilities=[Durable()],
    )

    @agent.tool_plain(name="searchFlights")
    async def search_flights(origin: str, destination: str) -> list[str]:
        """Search for flights between two airports, by their codes."""
        found = [number for number, (start, end, _) in FLIGHTS.items() if (start, end) == (origin, destination)]
        return [f"{number} from {origin} to {destination}, ${FLIGHTS[number][2]}" for number in found]

    @agent.tool_plain(name="checkFlightStatus")
    async def check_flight_status(flightNumber: str) -> str:  # the model reads the name
        """Check the status of a flight."""
        return f"{flightNumber} is on time." if flightNumber in FLIGHTS else f"There is no flight {flightNumber} today."

    @agent.tool_plain(name="getAirportInfo")
    async def get_airport_info(airportCode: str) -> str:
        """Get information about an airport."""
        return f"{airportCode} is {AIRPORTS.get(airportCode, 'no airport that we fly to')}."

    @agent.tool_plain(name="checkBaggageAllowance")
    async def check_baggage_allowance(airline: str, ticketClass: str) -> str:
        """Check how much baggage a ticket includes."""
        return f"{airline} {ticketClass}: one bag of 23 kg and one of 8 kg in the cabin."

    @agent.tool(name="bookingApproval", metadata=IN_THE_WORKFLOW)
    async def booking_approval(
        ctx: RunContext[ChatContext],
        flightNumber: str,
        passengerName: str,
        price: float,
    ) -> ToolReturn[str]:
        """Request human approval before booking a flight."""
        booking: Booking = {"flightNumber": flightNumber, "passengerName": passengerName, "price": price}
        decision = await ctx.deps.ask(ctx.tool_call_id, "bookingApproval", booking)
        if not decision.approved:
            nothing_said = "No reason provided" if decision.state == "rejected" else "Nobody decided in time"
            return ToolReturn(f"Booking rejected: {decision.comment or nothing_said}")
        booking = decision.arguments or booking  # as approved: approvers may have changed it
        note = f" - Note: {decision.comment}" if decision.comment else ""
        sentence = f"Booking approved for {booking['passengerName']} on flight {booking['flightNumber']}{note}"
        return ToolReturn(sentence, metadata=booking)

    @agent.tool(name="bookFlight", metadata=IN_THE_WORKFLOW)
    async def book_flight(
        ctx: RunContext[ChatContext],
        flightNumber: str,
        passengerName: str,
        price: float,
    ) -> str:
        """Book a flight that was approved."""
        booking: Booking = {"flightNumber": flightNumber, "passengerName": passengerName, "price": price}
        if not ctx.deps.use_approval("bookingApproval", booking):
            return "Not booked: nobody has approved exactly this. Call bookingApproval first."
        return await reserve(flightNumber, passengerName, price)

    return agent


chat = Chat(booking_agent, name="Booking agent")


@step(retries=0)
async def reserve(flight: str, passenger: str, price: float) -> str:
    """Book it. It runs at least once and is recorded once, so a real airline would get a key of this call."""
    return f"Booked {flight} for {passenger}: ${price:g}."


@workflow
async def book_flight_chat(turn: ChatTurn) -> str:
    """Answer one message of a chat."""
    return await chat.answer(turn)
