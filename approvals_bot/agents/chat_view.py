"""What a chat is made of: the message that a turn answers, and what the turn shows. Pure values.

A turn is a run, and its view is all that pages and streams are made from, so a reload and an open page show the same.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from approvals_bot.client.decision import Decision

CHAT, OWNER, MESSAGE = "chat", "chat_owner", "chat_message"
"""The attributes by which a turn's run is found."""

CALL = "call "
"""What the attribute begins with by which a run is found that has asked people about a tool call; its id follows."""

ApprovalForm = Literal["hook", "webhook"]
"""How a tool call waits: as a request that people decide, or for a call of a webhook's URL."""


class ChatTurn(BaseModel):
    """A person's message to the chat, which its turn answers.

    `owner`: a person's address, or `app:<key>`. `approvers`: who decides after the owner; for an app, in its place.
    `follows`: the run of the turn before.
    """

    model_config = ConfigDict(frozen=True)

    chat: str
    message: str
    text: str
    owner: str
    approval: ApprovalForm = "hook"
    approvers: tuple[str, ...] = ()
    follows: str | None = None

    @property
    def person(self) -> str | None:
        """The owner's address; None for an app."""
        return None if self.owner.startswith("app:") else self.owner


class TextPart(BaseModel):
    """Text of the agent."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["text"]
    id: str
    text: str


ToolState = Literal["running", "waiting", "done", "denied", "failed"]


class ToolPart(BaseModel):
    """A tool call: its input, what it waits for, and what came of it.

    `webhook`: the id of the webhook that it waits for. `error`: why it failed, instead of an output.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["tool"]
    id: str
    tool: str
    input: dict[str, JsonValue] = {}
    state: ToolState = "running"
    output: JsonValue = None
    error: str = ""
    webhook: str = ""
    decision: Decision | None = None

    @property
    def is_asked(self) -> bool:
        """Whether people were asked about it."""
        return self.state == "waiting" or self.decision is not None

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "denied", "failed")


Part = Annotated[TextPart | ToolPart, Field(discriminator="kind")]


class ChatView(BaseModel):
    """What a turn shows: the message, the parts of the answer so far, and whether the model is writing the next."""

    model_config = ConfigDict(frozen=True)

    turn: ChatTurn
    parts: tuple[Part, ...] = ()
    is_writing: bool = False

    @property
    def tools(self) -> tuple[ToolPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolPart))

    @property
    def texts(self) -> str:
        """What the agent has said, as one text."""
        return "\n\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    def tool(self, tool_call_id: str) -> ToolPart | None:
        """Return the tool call with this id."""
        return next((part for part in self.tools if part.id == tool_call_id), None)

    def with_text(self, text: str) -> ChatView:
        """Return the view with one more text."""
        made = TextPart(kind="text", id=text_id(len(self.parts)), text=text)
        return self.model_copy(update={"parts": (*self.parts, made)})

    def with_call(self, tool_call_id: str, tool: str, input: dict[str, Any]) -> ChatView:
        """Return the view with one more tool call."""
        made = ToolPart(kind="tool", id=tool_call_id, tool=tool, input=input)
        return self.model_copy(update={"parts": (*self.parts, made)})

    def with_tool(self, tool_call_id: str, **changes: Any) -> ChatView:
        """Return the view with these changes of a tool call."""
        parts = tuple(
            part.model_copy(update=changes) if isinstance(part, ToolPart) and part.id == tool_call_id else part
            for part in self.parts
        )
        return self.model_copy(update={"parts": parts})


def text_id(at: int) -> str:
    """Return the id of the text that is a view's part number `at`, from 0."""
    return f"text_{at}"


def dumped_view(view: ChatView) -> dict[str, Any]:
    """Return the view as runs publish it."""
    return view.model_dump(mode="json", exclude_defaults=True) | {"turn": view.turn.model_dump(mode="json")}


def read_view(published: Any) -> ChatView | None:
    """Return the view that a run has published; None if it has published none yet, or anything else."""
    try:
        return ChatView.model_validate(published)
    except ValidationError:
        return None
