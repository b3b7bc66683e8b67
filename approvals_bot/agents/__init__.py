"""Agents inside workflows: tool calls that wait for people, and the booking chat.

Each name is imported from its module on first use (PEP 562), so nothing needs an agent framework until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from approvals_bot.agents.chat import Chat, ChatContext
    from approvals_bot.agents.chat_view import ChatTurn
    from approvals_bot.agents.tool_calls import approve

__all__ = ["Chat", "ChatContext", "ChatTurn", "approve"]

_MODULES = {
    "Chat": "approvals_bot.agents.chat",
    "ChatContext": "approvals_bot.agents.chat",
    "ChatTurn": "approvals_bot.agents.chat_view",
    "approve": "approvals_bot.agents.tool_calls",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
