"""Ask for an approval from any Python program, over HTTP; it imports nothing of the service but its errors.

Each name is imported from its module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from approvals_bot.client.decision import Decision
    from approvals_bot.client.digests import digest_of
    from approvals_bot.errors import (
        AgentError,
        ApprovalMismatchError,
        DeniedError,
        KeyReusedError,
        NotAllowedError,
        RequestRefusedError,
        ServiceUnavailableError,
    )

__all__ = [
    "AgentError",
    "ApprovalMismatchError",
    "Decision",
    "DeniedError",
    "KeyReusedError",
    "NotAllowedError",
    "RequestRefusedError",
    "ServiceUnavailableError",
    "digest_of",
]

_MODULES = {
    "Decision": "approvals_bot.client.decision",
    "digest_of": "approvals_bot.client.digests",
}
"""The module of each public name. Errors aren't listed; they are all in one module."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "approvals_bot.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
