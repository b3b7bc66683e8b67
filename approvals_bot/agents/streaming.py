"""Passes what a chat's model writes on to open streams, piece by piece. The log gets the response whole, as ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.wrapper import WrapperModel

from approvals_bot.agents.chat_view import text_id
from approvals_bot.agents.live_texts import live_texts
from approvals_bot.durable.core.api import get_workflow_metadata

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse, ModelResponseStreamEvent
    from pydantic_ai.models import Model


class Streaming(AbstractCapability[Any]):
    """Lets the models of one turn of a chat stream their responses inside their steps.

    `parts`: returns how many parts the turn shows so far.
    """

    def __init__(self, parts: Callable[[], int]) -> None:
        self._parts = parts

    def get_wrapper_model(self, model: Model) -> Model | None:
        return StreamingModel(model, self._parts) if can_stream(model) else None


class StreamingModel(WrapperModel):
    """A model whose texts are streamed piece by piece. Callers get the whole response, as without it."""

    def __init__(self, wrapped: Model, parts: Callable[[], int]) -> None:
        super().__init__(wrapped)
        self._parts = parts

    async def request(self, *given: Any) -> ModelResponse:
        texts = TextIds(self._parts())
        with live_texts.writing(get_workflow_metadata().run_id) as add:
            async with self.wrapped.request_stream(*given) as stream:
                async for event in stream:
                    for id, piece in texts.of(event):
                        add(id, piece)
            return stream.get()


class TextIds:
    """Finds the ids that a response's texts will have in the chat's view, which shows no blank ones.

    `shown`: how many parts the view has before this response.
    """

    def __init__(self, shown: int) -> None:
        self._shown = shown
        self._parts: dict[int, str | None] = {}  # what the view gets: a text so far, or None for a tool call

    def of(self, event: ModelResponseStreamEvent) -> list[tuple[str, str]]:
        """Return a part's id and the next piece of its text, if the event brings one."""
        piece = ""
        match event:
            case PartStartEvent(index=index, part=TextPart(content=piece)):
                self._parts[index] = ""
            case PartStartEvent(index=index, part=ToolCallPart()):
                self._parts[index] = None
            case PartDeltaEvent(index=index, delta=TextPartDelta(content_delta=piece)):
                pass
            case _:
                return []
        before = self._parts.get(index)
        if before is None or not piece:
            return []
        text = self._parts[index] = before + piece
        if not text.strip():
            return []
        at = sum(known is None or bool(known.strip()) for other, known in self._parts.items() if other < index)
        return [(text_id(self._shown + at), piece if before.strip() else text)]


def can_stream(model: Model) -> bool:
    """Return whether this model can give its response piece by piece. A model that is a plain function may not."""
    while isinstance(model, WrapperModel):
        model = model.wrapped
    return not isinstance(model, FunctionModel) or model.stream_function is not None
