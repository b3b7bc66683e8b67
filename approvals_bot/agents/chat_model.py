"""The model of a chat: one that follows a script, or the one that `[chat] model` names.

It is chosen where a request to it is made, in a step. So no log has a key, and an open turn goes on with another model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from approvals_bot.config.chat import SCRIPTED
from approvals_bot.durable.core.api import get_workflow_metadata
from approvals_bot.durable.core.context import open_engines
from approvals_bot.durable.engine import Engine
from approvals_bot.errors import NotInWorkflowError

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model, StreamedResponse
    from pydantic_ai.models.function import DeltaToolCalls


@dataclass(frozen=True, slots=True)
class ChatModel:
    """Which model answers: its name, as `provider:model`, and the provider's key."""

    name: str = SCRIPTED
    key: str = field(default="", repr=False)


def chat_model(script: Callable[[list[ModelMessage]], ModelResponse]) -> Model:
    """Return the model for a chat's agent: the configured one, or else one that answers as `script` does.

        agent = Agent(chat_model(script), name="book_flight", deps_type=ChatContext, capabilities=[Durable()])

    The script is a plain function from the messages to the model's response. It needs no network.
    """
    from pydantic_ai.models.function import FunctionModel
    from pydantic_ai.models.wrapper import WrapperModel

    class ConfiguredModel(WrapperModel):
        """The model that the open service is configured with."""

        async def request(self, *given: Any) -> ModelResponse:
            with _without_key():
                return await (_configured() or self.wrapped).request(*given)

        @asynccontextmanager
        async def request_stream(self, *given: Any) -> AsyncGenerator[StreamedResponse]:
            with _without_key():
                async with (_configured() or self.wrapped).request_stream(*given) as stream:
                    yield stream

    async def scripted(messages: list[ModelMessage], info: object) -> ModelResponse:
        return script(messages)

    async def streamed(messages: list[ModelMessage], info: object) -> AsyncIterator[str | DeltaToolCalls]:
        for written in deltas_of(script(messages)):
            yield written

    return ConfiguredModel(FunctionModel(scripted, stream_function=streamed, model_name=SCRIPTED))


def deltas_of(response: ModelResponse) -> Iterator[str | DeltaToolCalls]:
    """Yield a response as a model would write it: each text word by word, each tool call as a whole."""
    from pydantic_ai.models.function import DeltaToolCall

    for at, part in enumerate(response.parts):
        if part.part_kind == "text":
            yield from re.findall(r"\s*\S+\s*", part.content)
        elif part.part_kind == "tool-call":
            yield {at: DeltaToolCall(part.tool_name, part.args_as_json_str(), tool_call_id=part.tool_call_id)}


def _configured() -> Model | None:
    """Return the configured model; None for the scripted one."""
    chosen = _chosen()
    return None if chosen.name == SCRIPTED else _made(chosen)


def _chosen() -> ChatModel:
    engine = open_engines[-1] if open_engines else None
    return engine.resources.get(ChatModel, ChatModel()) if isinstance(engine, Engine) else ChatModel()


@contextmanager
def _without_key() -> Iterator[None]:
    """Keep the provider's key out of its errors, which are logged. Some providers say which key they refuse."""
    from pydantic_ai.exceptions import ModelHTTPError

    try:
        yield
    except ModelHTTPError as error:
        key, status = _chosen().key, error.status_code
        if status in (401, 403):
            raise ModelHTTPError(status, error.model_name, "the provider refused the key") from None
        if key and key in str(error):
            raise ModelHTTPError(status, error.model_name, "left out, because it has the key") from None
        raise


@cache
def _made(chosen: ChatModel) -> Model:
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = OpenAIProvider(api_key=chosen.key).client.with_options(max_retries=0)  # the step has retries
    return OpenAIResponsesModel(chosen.name.removeprefix("openai:"), provider=OpenAIProvider(openai_client=client))


def tool_call_id(messages: Sequence[ModelMessage], at: int) -> str:
    """Return the id of a scripted model's tool call: unique among all runs, the same at every attempt."""
    try:
        run = get_workflow_metadata().run_id
    except NotInWorkflowError:
        run = ""
    return "call_" + hashlib.sha256(f"{run} {len(messages)} {at}".encode()).hexdigest()[:20]
