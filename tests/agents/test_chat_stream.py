"""What a turn shows, as chunks of the AI SDK's stream."""

from __future__ import annotations

from datetime import UTC, datetime

from approvals_bot.agents.chat_stream import Chunk, Turn, after_approvals, approval_data, chunks_of
from approvals_bot.agents.chat_view import ChatTurn, ChatView, dumped_view, read_view
from approvals_bot.approvals.request import Request, RequestOutcome
from approvals_bot.client.decision import Decision

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
ASKED = ChatTurn(chat="c", message="m", text="Book it", owner="ann@acme.eu")
EMPTY = ChatView(turn=ASKED)
BOOKING = {"flightNumber": "LH 441", "passengerName": "Ann Ode", "price": 640}
CALLED = EMPTY.with_text("One moment.").with_call("one", "bookingApproval", BOOKING)
WAITING = CALLED.with_tool("one", state="waiting")
REJECTED = WAITING.with_tool("one", state="denied", output="Booking rejected: no", decision=Decision(state="rejected"))


def request(**more: object) -> Request:
    return Request.model_validate(
        {
            "run_id": "run_1",
            "number": 1,
            "hook_id": "hook1",
            "workflow": "book_flight_chat",
            "definition": "d",
            "requester": "app:book_flight_chat",
            "asked_at": AT,
            "waiting_for": ("ann@acme.eu",),
            "deadline": AT,
        }
        | more
    )


def turn(view: ChatView, asked: Request | None = None, **more: bool | str) -> Turn:
    return Turn("run_1", view, {} if asked is None else {"one": asked}, **more)  # type: ignore[arg-type]


def types(of: Turn) -> list[str]:
    return [str(chunk.data["type"]) for chunk in chunks_of(of)]


def test_a_view_survives_its_way_through_the_store() -> None:
    assert read_view(dumped_view(REJECTED)) == REJECTED
    assert read_view({"another": "view"}) is None


def test_a_text_comes_whole_under_its_id() -> None:
    chunks = [chunk.data for chunk in chunks_of(turn(EMPTY.with_text("Hello")))]
    assert chunks == [
        {"type": "start", "messageId": "answer_run_1"},
        {"type": "text-start", "id": "text_0"},
        {"type": "text-delta", "id": "text_0", "delta": "Hello"},
        {"type": "text-end", "id": "text_0"},
    ]


def test_a_call_is_not_asked_about_before_its_request_is_there() -> None:
    assert types(turn(WAITING))[4:] == ["tool-input-available"]
    assert types(turn(WAITING, request()))[4:] == ["tool-input-available", "tool-approval-request", "data-approval"]


def test_a_late_reader_gets_the_question_before_its_answer() -> None:
    ended = RequestOutcome(state="rejected", by="ann@acme.eu", at=AT, via="slack")
    of = turn(REJECTED, request(outcome=ended, state="rejected"))
    assert types(of)[5:] == [
        "tool-approval-request",
        "data-approval",
        "tool-output-available",
        "tool-output-denied",
    ]
    data = approval_data(of, of.view.tools[0])
    assert (data["state"], data["by"], data["via"], data["expiresAt"]) == ("rejected", "ann@acme.eu", "slack", None)


def test_no_two_chunks_have_the_same_key() -> None:
    keys = [chunk.key for chunk in chunks_of(turn(REJECTED, request(), error="It ended early."))]
    assert len(keys) == len(set(keys))


def test_a_client_that_goes_on_gets_only_what_is_new() -> None:
    before = list(chunks_of(turn(WAITING, request())))
    after = list(chunks_of(turn(REJECTED, request())))
    has = after_approvals(after, {"one"})
    assert has == {chunk.key for chunk in before if chunk.data["type"] != "data-approval"}
    assert not has & {chunk.key for chunk in after if str(chunk.data["type"]).startswith("tool-output")}
    assert after_approvals(after, set()) == set()


def test_a_turn_pauses_once_only_people_are_awaited() -> None:
    writing = WAITING.model_copy(update={"is_writing": True})
    other = WAITING.with_call("two", "searchFlights", {})
    assert not turn(WAITING).is_paused
    assert turn(WAITING, request()).is_paused
    assert not turn(writing, request()).is_paused
    assert not turn(other, request()).is_paused
    assert turn(other.with_tool("two", state="done"), request()).is_paused
    assert not turn(REJECTED, request()).is_paused


def test_the_owner_is_asked_only_while_it_is_their_turn() -> None:
    assert turn(WAITING, request()).open_calls == ("one",)
    assert turn(WAITING, request(waiting_for=("cfo@acme.eu",))).open_calls == ()


def test_an_error_ends_the_stream() -> None:
    assert list(chunks_of(turn(EMPTY, error="It ended early.")))[-1] == Chunk(
        "error", {"type": "error", "errorText": "It ended early."}
    )
