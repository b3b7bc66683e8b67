"""`[chat]`: whether there is a booking chat, and which model answers in it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from pydantic import model_validator

from approvals_bot.approvals.base import Bool, Frozen, Text, refuse
from approvals_bot.config.secret import Secret

CHAT_WORKFLOW = "book_flight_chat"
"""The workflow that answers the chat's messages. It is built in; a file of that name in `workflows/` replaces it."""

SCRIPTED = "scripted"
"""The model that follows a script, without a network."""


class ChatTable(Frozen):
    """The chat at /chat. `approvers`: who decides about a booking after the person who chats."""

    enabled: Bool = False
    model: Text = SCRIPTED
    key: Secret | None = None
    approval: Literal["hook", "webhook"] = "hook"
    approvers: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _is_known_with_a_key(self) -> ChatTable:
        if self.model == SCRIPTED:
            return self
        if not self.model.startswith("openai:") or self.model == "openai:":
            raise refuse('write "scripted", or a model of OpenAI like "openai:gpt-5.2"', at="model")
        if self.key is None:
            raise refuse("is missing", at="key")
        if self.enabled and find_spec("openai") is None:
            raise refuse("models of OpenAI need the package openai: pip install openai", at="model")
        return self
