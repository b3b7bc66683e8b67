"""Texts of a chat, streamed while the model writes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.models.function import FunctionModel
from starlette.requests import Request
from starlette.responses import StreamingResponse

from approvals_bot import workflow
from approvals_bot.agents import Chat, ChatContext, ChatTurn
from approvals_bot.agents.chats import ChatForm, Chats
from approvals_bot.agents.live_texts import LiveReader, LiveTexts, live_texts
from approvals_bot.agents.pydantic_ai import Durable
from approvals_bot.agents.streaming import TextIds, can_stream
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.port import Channels
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.notifier import Notifier
from approvals_bot.people import People, Person
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.sessions import Sessions
from approvals_bot.web.chat import ChatApi, ChatOwners, Following
from approvals_bot.web.keys import KeyGate
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.sessions import SessionCookies

PEOPLE = People([Person("ann@acme.eu", "Ann Ode")], {})
START = {"type": "text-start", "id": "text_0"}
END = {"type": "text-end", "id": "text_0"}


def delta(text: str) -> dict[str, str]:
    return {"type": "text-delta", "id": "text_0", "delta": text}


def reader(texts: LiveTexts, woken: Callable[[], None] = lambda: None) -> Any:
    return texts.reading("run_1", woken)


# ── what one stream gets ──


def test_each_piece_is_a_delta_and_the_log_has_the_end() -> None:
    texts, woken = LiveTexts(), list[int]()
    with texts.reading("run_1", lambda: woken.append(1)) as one, texts.writing("run_1") as write:
        write("text_0", "Hello ")
        write("text_0", "big ")
        assert list(one.so_far()) == [START, delta("Hello "), delta("big ")]
        assert list(one.so_far()) == []
        write("text_0", "world")
        assert list(one.whole("text_0", "Hello big world")) == [delta("world"), END]
        assert len(woken) == 3


def test_a_model_that_is_done_first_has_left_its_deltas() -> None:
    texts = LiveTexts()
    with reader(texts) as one:
        with texts.writing("run_1") as write:
            write("text_0", "Hello ")
            write("text_0", "world")
        assert list(one.whole("text_0", "Hello world")) == [START, delta("Hello "), delta("world"), END]


def test_a_stream_that_opens_late_gets_what_is_there() -> None:
    texts = LiveTexts()
    with texts.writing("run_1") as write:
        write("text_0", "Hello ")
        with reader(texts) as late, texts.reading("run_2", lambda: None) as other:
            write("text_0", "world")
            assert list(late.so_far()) == [START, delta("Hello "), delta("world")]
            assert list(other.so_far()) == []


def test_another_process_gets_the_text_whole() -> None:
    assert list(LiveReader({}, lambda: None).whole("text_0", "Hello")) == [START, delta("Hello"), END]


def test_a_repeated_attempt_sends_nothing_twice() -> None:
    texts = LiveTexts()
    with reader(texts) as one:
        with texts.writing("run_1") as write:
            write("text_0", "Hello ")
            assert list(one.so_far()) == [START, delta("Hello ")]
        with texts.writing("run_1") as write:
            write("text_0", "Hel")
            assert list(one.so_far()) == []
            write("text_0", "lo world")
            assert list(one.so_far()) == [delta("world")]
        assert list(one.whole("text_0", "Hello world")) == [END]


def test_an_attempt_that_says_something_else_begins_the_part_again() -> None:
    texts = LiveTexts()
    with reader(texts) as one:
        with texts.writing("run_1") as write:
            write("text_0", "Hello ")
            list(one.so_far())
        with texts.writing("run_1") as write:
            write("text_0", "Good day")
            assert list(one.so_far()) == [END, START, delta("Good day")]
        assert list(one.whole("text_0", "Good")) == [END, START, delta("Good"), END]
        assert list(one.close()) == []


def test_a_text_that_is_never_whole_is_closed() -> None:
    texts = LiveTexts()
    with reader(texts) as one, texts.writing("run_1") as write:
        write("text_0", "Hel")
        list(one.so_far())
        assert list(one.close()) == [END]


def test_nothing_is_kept_where_nobody_listens() -> None:
    texts = LiveTexts()
    with texts.writing("run_1") as write:
        write("text_0", "Hello")
        with reader(texts):
            assert not texts.is_empty
    assert texts.is_empty


def test_a_text_has_the_id_that_the_log_gives_it() -> None:
    ids = TextIds(2)
    assert ids.of(PartStartEvent(index=0, part=ThinkingPart("hm"))) == []
    assert ids.of(PartStartEvent(index=1, part=TextPart(" "))) == []
    assert ids.of(PartStartEvent(index=2, part=ToolCallPart("book", {}))) == []
    assert ids.of(PartStartEvent(index=3, part=TextPart(""))) == []
    assert ids.of(PartDeltaEvent(index=3, delta=TextPartDelta("\n"))) == []
    assert ids.of(PartDeltaEvent(index=3, delta=TextPartDelta("Hi"))) == [("text_3", "\nHi")]
    assert ids.of(PartDeltaEvent(index=3, delta=TextPartDelta(" "))) == [("text_3", " ")]


def test_a_model_that_cannot_stream_is_left_alone() -> None:
    def plain(messages: object, info: object) -> ModelResponse:
        return ModelResponse([])

    assert not can_stream(FunctionModel(plain))


# ── over the real routes, with a model that waits in between ──


class Script:
    """A model's responses, one an attempt. `...` waits until the test lets it go on; an error ends an attempt."""

    def __init__(self) -> None:
        self.attempts: list[Sequence[Any]] = []
        self.go = asyncio.Event()

    async def stream(self, messages: object, info: object) -> AsyncIterator[str]:
        for each in self.attempts.pop(0):
            if each is ...:
                await self.go.wait()
            elif isinstance(each, Exception):
                raise each
            else:
                yield each


script = Script()
live_agent = Agent(
    FunctionModel(stream_function=lambda messages, info: script.stream(messages, info)),
    name="live_texts_sample",
    deps_type=ChatContext,
    capabilities=[Durable(model_step={"retry_delay": "1ms"})],
)
live_chat = Chat(live_agent)


@workflow
async def live_texts_sample_chat(turn: ChatTurn) -> str:
    return await live_chat.answer(turn)


@asynccontextmanager
async def chat_api(folder: Path, *attempts: Sequence[Any]) -> AsyncIterator[ChatApi]:
    """A chat that has begun to answer one message."""
    script.attempts, script.go = list(attempts), asyncio.Event()
    channels = Channels({}, "https://example.test", None)
    resources = {People: PEOPLE, Calendars: Calendars({}), Channels: channels}
    async with Engine.open(f"sqlite:///{folder}/runs.db", resources=resources) as engine:
        chats = Chats(engine, Catalog({CHAT_WORKFLOW: Listed(live_texts_sample_chat)}), ChatForm())
        sessions = SessionCookies(Sessions(engine), KnownPeople(PEOPLE, Catalog({})), base_url="")
        owners = ChatOwners(PEOPLE, sessions, KeyGate(engine, []), "", open_pages=True)
        await chats.begin([], "c", "ann@acme.eu", "m", "Hello?")
        yield ChatApi(engine=engine, chats=chats, owners=owners, metrics=Metrics(), base_url="")


async def opened(api: ChatApi) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a stream that opens now."""
    scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"", "path_params": {"id": "c"}}
    answer = await api.stream(Request(scope))
    assert isinstance(answer, StreamingResponse)
    async for sent in answer.body_iterator:
        assert isinstance(sent, str)
        if sent.startswith("data: {"):
            yield json.loads(sent.removeprefix("data: "))


async def until(stream: AsyncIterator[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The chunks up to this text."""
    found = []
    async for chunk in stream:
        found.append(chunk)
        if chunk.get("delta") == text:
            return found
    raise AssertionError(found)


async def test_open_streams_get_each_word_as_it_comes(tmp_path: Path) -> None:
    async with asyncio.timeout(20), chat_api(tmp_path, ["One ", "two ", ..., "three"]) as api:
        before = asyncio.all_tasks()
        first = opened(api)
        assert (await until(first, "two "))[1:] == [START, delta("One "), delta("two ")]
        late = opened(api)
        assert (await until(late, "two "))[1:] == [START, delta("One "), delta("two ")]
        script.go.set()
        for stream in (first, late):
            assert [chunk async for chunk in stream] == [delta("three"), END, {"type": "finish"}]
        assert live_texts.is_empty
        async with asyncio.timeout(5):
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)


async def test_a_failed_attempt_is_gone_on_with(tmp_path: Path) -> None:
    attempts: list[list[Any]] = [["One ", "two ", ..., ConnectionError("lost")], ["One ", "two ", "three"]]
    async with asyncio.timeout(20), chat_api(tmp_path, *attempts) as api:
        stream = opened(api)
        await until(stream, "two ")
        script.go.set()
        assert [chunk async for chunk in stream] == [delta("three"), END, {"type": "finish"}]
        assert live_texts.is_empty


async def test_a_client_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(20), chat_api(tmp_path, ["One ", ..., "two"]) as api:
        stream = opened(api)
        await until(stream, "One ")
        await stream.aclose()  # type: ignore[attr-defined]
        script.go.set()
        async for chunk in opened(api):
            assert chunk["type"] != "error"
        assert live_texts.is_empty


async def test_what_the_log_has_comes_before_a_text() -> None:
    notifier = Notifier()
    with Following(notifier, "run_1", None, None) as following:
        following.wake_for_text()
        notifier.wake(["run_1"])
        assert following.has_more
        assert not await following.is_only_text()
        following.wake_for_text()
        assert await following.is_only_text()
